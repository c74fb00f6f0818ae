//! Named checkpoints: the positions of many shards, kept under a name for a later replay.
//!
//! It is a copy. Nothing that happens to the leases changes it, and it changes no lease.
//!
//! Stored, it is a name, a time and this JSON: `[{"stream":"orders","shard":"shardId-0","position":"4959:3"}, …]`.
//! Limits: a name has 1 to 128 characters of `a-z A-Z 0-9 . _ -`, because people type it.

use serde::{Deserialize, Serialize};

use crate::position::Position;
use crate::shard::ShardKey;
use crate::text::{InvalidText, check_name, text_newtype};

text_newtype!(
    /// The name of a checkpoint: 1 to 128 characters of `a-z A-Z 0-9 . _ -`.
    CheckpointName,
    "checkpoint name",
    check_checkpoint_name
);

/// The positions of many shards at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCheckpoint {
    /// Its name.
    pub name: CheckpointName,
    /// When it was saved, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Each shard with its position, in the order in which they were saved.
    pub positions: Vec<(ShardKey, Position)>,
}

/// A named checkpoint without its positions, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCheckpointSummary {
    /// Its name.
    pub name: CheckpointName,
    /// When it was saved, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// How many shards it has.
    pub shards: usize,
}

impl NamedCheckpoint {
    /// What a list shows of it.
    #[must_use]
    pub fn summary(&self) -> NamedCheckpointSummary {
        NamedCheckpointSummary { name: self.name.clone(), at_ms: self.at_ms, shards: self.positions.len() }
    }
}

fn check_checkpoint_name(what: &'static str, name: &str) -> Result<(), InvalidText> {
    check_name(what, name, 128)?;
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        Ok(())
    } else {
        Err(InvalidText::new(what, name, "has a character other than a-z A-Z 0-9 . _ -"))
    }
}

/// One position as it stands in the stored JSON.
#[derive(Serialize, Deserialize)]
struct StoredPosition {
    #[serde(flatten)]
    key: ShardKey,
    position: Position,
}

/// Encodes the positions as they are stored.
pub(crate) fn encode_positions(positions: &[(ShardKey, Position)]) -> String {
    let stored: Vec<StoredPosition> = positions
        .iter()
        .map(|(key, position)| StoredPosition { key: key.clone(), position: position.clone() })
        .collect();
    serde_json::to_string(&stored).expect("texts in structs in a list are always JSON")
}

/// Decodes stored positions.
pub(crate) fn decode_positions(json: &str) -> Result<Vec<(ShardKey, Position)>, serde_json::Error> {
    let stored: Vec<StoredPosition> = serde_json::from_str(json)?;
    Ok(stored.into_iter().map(|StoredPosition { key, position }| (key, position)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::{position, shard_key};

    proptest! {
        #[test]
        fn positions_survive_being_stored(positions in vec((shard_key(), position()), 0..5)) {
            prop_assert_eq!(decode_positions(&encode_positions(&positions)).unwrap(), positions);
        }
    }

    #[test]
    fn stored_positions_look_as_documented() {
        let json = r#"[{"stream":"orders","shard":"shardId-0","position":"4959:3"}]"#;
        assert_eq!(encode_positions(&decode_positions(json).unwrap()), json);
    }

    #[test]
    fn a_checkpoint_name_is_one_that_people_can_type() {
        for name in ["before-the-fix", "v1.2_3"] {
            assert!(CheckpointName::new(name).is_ok());
        }
        for name in ["", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(CheckpointName::new(name).is_err(), "{name:?} was accepted");
        }
    }
}
