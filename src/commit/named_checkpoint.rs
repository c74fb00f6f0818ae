//! Named checkpoints: the positions of all shards at one moment, kept in the lake for a later replay.
//!
//! Owns: names, the stored form in both directions, and saving, listing, reading and deleting. Does not own: which positions belong
//! together ([`cut`]), the lease table that a checkpoint is a copy of (the checkpoints crate), who saves and when
//! (`named_checkpoints`), or what a replay does with it.
//!
//! A checkpoint `NAME` is the object `_checkpoints/NAME.json`. It is written once and never changed. It is in the lake, so
//! that it outlives the lease table: a replay needs nothing else to know where each shard was and which shards follow it.
//!
//! ```json
//! {"format":2,"name":"before-the-fix","saved_at":"2025-01-13T10:30:00.123Z","saved_by":"command","log_version":17,
//!  "behind_ms":{"orders":1500},"definitions":{"events":[{"hash":"9f86d081…","schema_version":1}]},
//!  "shards":[{"stream":"orders","shard":"shardId-0","checkpoint":"4959:3","parents":[],"children":["shardId-1"],
//!             "last_manifest":"_intents/20250113T102900Z-3f2a91c07d5e4b10-000007.json"}]}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `format` | the version of this layout. Formats 1 and 2 are read, and 2 is written. Format 1 has no `saved_by`, `log_version`, `behind_ms` and `definitions` |
//! | `name` | the name, as in the object's key |
//! | `saved_at` | when it was saved by the clock of who saved it: RFC 3339, UTC, with milliseconds |
//! | `saved_by` | `command` or `schedule`. Only those of the schedule are deleted by workers |
//! | `log_version` | a version of the lake log whose epochs are all in the checkpoint; absent in a lake without a log |
//! | `behind_ms` | for each stream that keeps records for a limited time: the age of the oldest record that was not read |
//! | `definitions` | by dataset: the definitions by which the last epoch of each shard made rows, most often one |
//! | `stream`, `shard` | the shard |
//! | `checkpoint` | how far the shard was committed (a [`Position`] as text) |
//! | `parents`, `children` | the shards that it came from, and those that it became; known once its end was committed |
//! | `last_manifest` | the manifest that moved the checkpoint there; absent before the first commit |
//!
//! Limits: a name has 1 to 128 characters of `a-z A-Z 0-9 . _ -`, because people type it. Names that begin with `auto-` are the
//! schedule's: `auto-20250113T000000Z` is the checkpoint of the interval that began then.

mod cut;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use checkpoints::{Lease, ManifestName, Position, ShardId, ShardKey, StreamName};
use pipeline::layout;
use pipeline::time::{format_rfc3339, parse_rfc3339};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::LogVersion;
use crate::commit::manifest::DefinitionOfEpoch;
use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};

pub use cut::{Cut, CutError, read_cut};

/// The version of the stored form that this version writes. It also reads the one before.
const FORMAT: u32 = 2;
/// The oldest version of the stored form that this version reads.
const FORMAT_MIN: u32 = 1;
/// The most characters of a name.
const NAME_CHARS_MAX: usize = 128;
/// What the names of the schedule begin with. People cannot save under such a name.
const SCHEDULED: &str = "auto-";

/// The name of a checkpoint: 1 to 128 characters of `a-z A-Z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckpointName(String);

/// A text that is not a valid name of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a valid checkpoint name: expected 1 to {NAME_CHARS_MAX} characters of a-z A-Z 0-9 . _ -")]
pub struct InvalidCheckpointName(String);

/// Who saved a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedBy {
    /// Somebody, with the command.
    #[default]
    Command,
    /// A worker, because an interval had begun.
    Schedule,
}

/// The positions of all shards at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCheckpoint {
    /// Its name.
    pub name: CheckpointName,
    /// When it was saved, in milliseconds since 1970-01-01 UTC.
    pub saved_at_ms: i64,
    /// Who saved it.
    pub saved_by: SavedBy,
    /// A version of the lake log whose epochs are all in the checkpoint.
    pub log_version: Option<LogVersion>,
    /// For each stream that keeps records for a limited time, the age in milliseconds of the oldest record that was not read.
    pub behind_ms: BTreeMap<StreamName, u64>,
    /// By dataset, the definitions by which the last epoch of each shard made rows.
    pub definitions: BTreeMap<String, Vec<DefinitionOfEpoch>>,
    /// The shards, in the order of the lease table.
    pub shards: Vec<SavedShard>,
}

/// One shard of a named checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedShard {
    /// The shard.
    #[serde(flatten)]
    pub key: ShardKey,
    /// How far it was committed.
    pub checkpoint: Position,
    /// The shards that it came from.
    pub parents: BTreeSet<ShardId>,
    /// The shards that it became, once its end was committed.
    pub children: BTreeSet<ShardId>,
    /// The manifest that moved the checkpoint there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_manifest: Option<ManifestName>,
}

/// A named checkpoint as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSummary {
    /// Its name.
    pub name: CheckpointName,
    /// When it was saved, in milliseconds since 1970-01-01 UTC.
    pub saved_at_ms: i64,
    /// When its object was written, by the clock of the lake's store: milliseconds since 1970-01-01 UTC.
    pub stored_at_ms: i64,
    /// Who saved it.
    pub saved_by: SavedBy,
    /// A version of the lake log whose epochs are all in the checkpoint.
    pub log_version: Option<LogVersion>,
    /// As in [`NamedCheckpoint`].
    pub behind_ms: BTreeMap<StreamName, u64>,
    /// The streams of which something was left to read.
    pub unfinished: BTreeSet<StreamName>,
    /// How many shards it has.
    pub shards: usize,
}

/// A stored checkpoint that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot be read: {problem}")]
pub struct UnreadableCheckpoint {
    /// Its key.
    pub key: ObjectKey,
    /// What is wrong with it.
    pub problem: String,
}

/// Why a checkpoint was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// What is stored cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableCheckpoint),
}

/// The stored form: `S` is the shards, or [`ShardOutline`] to read a list of many checkpoints.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    format: u32,
    name: CheckpointName,
    saved_at: String,
    #[serde(default)]
    saved_by: SavedBy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log_version: Option<LogVersion>,
    #[serde(default)]
    behind_ms: BTreeMap<StreamName, u64>,
    #[serde(default)]
    definitions: BTreeMap<String, Vec<DefinitionOfEpoch>>,
    shards: Vec<S>,
}

/// What a list needs of a shard.
#[derive(Deserialize)]
struct ShardOutline {
    #[serde(default)]
    stream: Option<StreamName>,
    #[serde(default)]
    checkpoint: Option<String>,
}

impl CheckpointName {
    /// Checks a name.
    ///
    /// # Errors
    /// The text is empty, too long, or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidCheckpointName> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(CheckpointName(name))
        } else {
            Err(InvalidCheckpointName(name))
        }
    }

    /// The name of the schedule's checkpoint for the interval that contains a time. `now_ms` is in milliseconds since 1970, `every_ms`
    /// is the length of an interval.
    pub fn of_interval(now_ms: i64, every_ms: i64) -> Self {
        let begun_ms = now_ms - now_ms.rem_euclid(every_ms.max(1));
        CheckpointName(format!("{SCHEDULED}{}", EpochId::format_time(begun_ms)))
    }

    /// Whether people may not save under the name, because the schedule's names begin like it.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(SCHEDULED)
    }

    /// Whether the name has the form of [`of_interval`](Self::of_interval).
    fn is_of_interval(&self) -> bool {
        let form = |(place, byte): (usize, u8)| match place {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        };
        let time = self.0.strip_prefix(SCHEDULED).filter(|time| time.len() == 16);
        time.is_some_and(|time| time.bytes().enumerate().all(form))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the checkpoint's object.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(layout::named_checkpoint(&self.0)).expect("a checkpoint's name is one plain segment of a path")
    }

    /// The name whose object has this key.
    fn of_key(key: &ObjectKey) -> Option<Self> {
        CheckpointName::new(layout::name_of_checkpoint(key.as_str())?).ok()
    }
}

impl TryFrom<String> for CheckpointName {
    type Error = InvalidCheckpointName;

    fn try_from(name: String) -> Result<Self, InvalidCheckpointName> {
        CheckpointName::new(name)
    }
}

impl From<CheckpointName> for String {
    fn from(name: CheckpointName) -> String {
        name.0
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SavedShard {
    /// The shard of a row of the lease table.
    fn of_lease(lease: Lease) -> Self {
        let Lease { key, checkpoint, parents, children, last_manifest, .. } = lease;
        SavedShard { key, checkpoint, parents, children, last_manifest }
    }
}

impl NamedCheckpoint {
    /// The stored bytes.
    pub fn to_bytes(&self) -> Bytes {
        let stored = Stored {
            format: FORMAT,
            name: self.name.clone(),
            saved_at: format_rfc3339(self.saved_at_ms),
            saved_by: self.saved_by,
            log_version: self.log_version,
            behind_ms: self.behind_ms.clone(),
            definitions: self.definitions.clone(),
            shards: self.shards.iter().collect(),
        };
        let mut bytes = serde_json::to_vec(&stored).expect("a checkpoint has only text keys");
        bytes.push(b'\n');
        Bytes::from(bytes)
    }

    /// Decodes the stored bytes of the checkpoint `name`.
    ///
    /// # Errors
    /// They are damaged, or of another format or another checkpoint.
    pub fn from_bytes(name: &CheckpointName, bytes: &[u8]) -> Result<Self, UnreadableCheckpoint> {
        let (saved_at_ms, stored) = decode(name, bytes)?;
        let Stored { name, saved_by, log_version, behind_ms, definitions, shards, .. } = stored;
        Ok(NamedCheckpoint { name, saved_at_ms, saved_by, log_version, behind_ms, definitions, shards })
    }

    /// The checkpoint as a list shows it. `stored_at_ms` is when its object was written, by the clock of the lake's store.
    pub fn summary(&self, stored_at_ms: i64) -> CheckpointSummary {
        let unfinished = self.shards.iter().filter(|shard| shard.checkpoint != Position::End);
        CheckpointSummary {
            name: self.name.clone(),
            saved_at_ms: self.saved_at_ms,
            stored_at_ms,
            saved_by: self.saved_by,
            log_version: self.log_version,
            behind_ms: self.behind_ms.clone(),
            unfinished: unfinished.map(|shard| shard.key.stream.clone()).collect(),
            shards: self.shards.len(),
        }
    }
}

impl CheckpointSummary {
    /// Decodes what a list shows of the stored bytes of the checkpoint `name`.
    fn from_bytes(name: &CheckpointName, stored_at_ms: i64, bytes: &[u8]) -> Result<Self, UnreadableCheckpoint> {
        let (saved_at_ms, stored) = decode::<ShardOutline>(name, bytes)?;
        let Stored { name, saved_by, log_version, behind_ms, shards, .. } = stored;
        let (count, end) = (shards.len(), Position::End.to_string());
        let unfinished = shards.into_iter().filter(|shard| shard.checkpoint.as_ref() != Some(&end));
        let unfinished = unfinished.filter_map(|shard| shard.stream).collect();
        Ok(CheckpointSummary {
            name,
            saved_at_ms,
            stored_at_ms,
            saved_by,
            log_version,
            behind_ms,
            unfinished,
            shards: count,
        })
    }
}

/// The time and the fields of a stored checkpoint.
fn decode<S: DeserializeOwned>(name: &CheckpointName, bytes: &[u8]) -> Result<(i64, Stored<S>), UnreadableCheckpoint> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let unreadable = |problem: String| UnreadableCheckpoint { key: name.key(), problem };
    let head: Head = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if !(FORMAT_MIN..=FORMAT).contains(&head.format) {
        let problem = format!("it has format {}; this version reads formats {FORMAT_MIN} to {FORMAT}", head.format);
        return Err(unreadable(problem));
    }
    let stored: Stored<S> = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if stored.name != *name {
        return Err(unreadable(format!("it is the checkpoint '{}'", stored.name)));
    }
    let parsed = parse_rfc3339(stored.saved_at.as_bytes()).filter(|ms| format_rfc3339(*ms) == stored.saved_at);
    let Some(saved_at_ms) = parsed else {
        return Err(unreadable(format!("'{}' is not a time in UTC with milliseconds", stored.saved_at)));
    };
    Ok((saved_at_ms, stored))
}

/// Saves a checkpoint, whole or not at all. Condition: the lake has none of its name. Returns whether it is saved.
///
/// # Errors
/// The lake fails; the checkpoint may have been saved.
pub async fn save_checkpoint(lake: &dyn ObjectStore, checkpoint: &NamedCheckpoint) -> Result<bool, LakeError> {
    let (key, bytes) = (checkpoint.name.key(), checkpoint.to_bytes());
    match lake.put_new(&key, bytes.clone()).await? {
        Written::New => Ok(true),
        // The same bytes are there if an earlier attempt of this call wrote them and its reply was lost.
        Written::KeyTaken => Ok(lake.get(&key).await?.is_some_and(|found| found == bytes)),
    }
}

/// All named checkpoints in the order of their names, and those that cannot be read. Decodes no positions.
///
/// # Errors
/// The lake fails.
pub async fn list_checkpoints(
    lake: &dyn ObjectStore,
) -> Result<(Vec<CheckpointSummary>, Vec<UnreadableCheckpoint>), LakeError> {
    let (mut summaries, mut unreadable) = (Vec::new(), Vec::new());
    for object in lake.list(layout::CHECKPOINTS).await? {
        let Some(name) = CheckpointName::of_key(&object.key) else {
            let problem = "its key is not the key of a checkpoint".to_owned();
            unreadable.push(UnreadableCheckpoint { key: object.key, problem });
            continue;
        };
        // A checkpoint that was deleted after the listing is not listed.
        let Some(bytes) = lake.get(&object.key).await? else { continue };
        match CheckpointSummary::from_bytes(&name, object.modified_ms, &bytes) {
            Ok(summary) => summaries.push(summary),
            Err(error) => unreadable.push(error),
        }
    }
    summaries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((summaries, unreadable))
}

/// A named checkpoint; `None` if the lake has none of this name.
///
/// # Errors
/// The lake fails, or what is stored cannot be read.
pub async fn get_checkpoint(
    lake: &dyn ObjectStore,
    name: &CheckpointName,
) -> Result<Option<NamedCheckpoint>, CheckpointError> {
    match lake.get(&name.key()).await? {
        Some(bytes) => Ok(Some(NamedCheckpoint::from_bytes(name, &bytes)?)),
        None => Ok(None),
    }
}

/// The names of the checkpoints that the schedule may have saved, the oldest first. An earlier version let people save under such
/// names, so only [`SavedBy`] shows who saved one.
///
/// # Errors
/// The lake fails.
pub async fn scheduled_names(lake: &dyn ObjectStore) -> Result<Vec<CheckpointName>, LakeError> {
    let listed = lake.list(&format!("{}{SCHEDULED}", layout::CHECKPOINTS)).await?;
    let names = listed.iter().filter_map(|one| CheckpointName::of_key(&one.key));
    let mut names: Vec<CheckpointName> = names.filter(CheckpointName::is_of_interval).collect();
    names.sort();
    Ok(names)
}

/// Deletes a named checkpoint, readable or not. Returns whether there was one.
///
/// # Errors
/// The lake fails; the checkpoint may have been deleted.
pub async fn delete_checkpoint(lake: &dyn ObjectStore, name: &CheckpointName) -> Result<bool, LakeError> {
    let key = name.key();
    if lake.get(&key).await?.is_none() {
        return Ok(false);
    }
    lake.delete(&key).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use checkpoints::StreamName;
    use proptest::prelude::*;

    use super::*;
    use crate::lake::{Fault, MemoryStore, Retrying};
    use crate::retry::RetryPolicy;

    fn name(name: &str) -> CheckpointName {
        CheckpointName::new(name).unwrap()
    }

    fn shard(number: usize) -> SavedShard {
        SavedShard {
            key: ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(format!("shardId-{number}")).unwrap()),
            checkpoint: Position::at(4959_u64.into()),
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            last_manifest: None,
        }
    }

    fn checkpoint(of: &str, saved_at_ms: i64, shards: usize) -> NamedCheckpoint {
        NamedCheckpoint {
            name: name(of),
            saved_at_ms,
            saved_by: SavedBy::Command,
            log_version: None,
            behind_ms: BTreeMap::new(),
            definitions: BTreeMap::new(),
            shards: (0..shards).map(shard).collect(),
        }
    }

    /// Writes bytes where the checkpoint `of` would be.
    async fn put(lake: &MemoryStore, of: &str, text: &str) {
        let written = lake.put_new(&name(of).key(), Bytes::from(text.to_owned())).await.unwrap();
        assert_eq!(written, Written::New);
    }

    fn any_position() -> impl Strategy<Value = Position> {
        prop_oneof![
            Just(Position::Beginning),
            Just(Position::Latest),
            Just(Position::End),
            any::<u64>().prop_map(|ms| Position::Since { ms }),
            (any::<u64>(), any::<u64>()).prop_map(|(at, sub)| Position::At { sequence: at.into(), sub }),
        ]
    }

    fn any_shard() -> impl Strategy<Value = SavedShard> {
        let id = || "\\PC{1,20}".prop_map(|id| ShardId::new(id).unwrap());
        let ids = || prop::collection::btree_set(id(), 0..3);
        let manifest = "[a-z0-9-]{1,30}".prop_map(|name| ManifestName::new(format!("_intents/{name}.json")).unwrap());
        ("\\PC{1,20}", id(), any_position(), ids(), ids(), prop::option::of(manifest)).prop_map(
            |(stream, shard, checkpoint, parents, children, last_manifest)| {
                let key = ShardKey::new(StreamName::new(stream).unwrap(), shard);
                SavedShard { key, checkpoint, parents, children, last_manifest }
            },
        )
    }

    fn any_checkpoint() -> impl Strategy<Value = NamedCheckpoint> {
        let shards = prop::collection::vec(any_shard(), 0..5);
        let by = prop_oneof![Just(SavedBy::Command), Just(SavedBy::Schedule)];
        let stream = "[a-z]{1,9}".prop_map(|stream| StreamName::new(stream).unwrap());
        let behind_ms = prop::collection::btree_map(stream, any::<u64>(), 0..3);
        let definition = ("[0-9a-f]{8}", any::<u32>());
        let definition = definition.prop_map(|(hash, schema_version)| DefinitionOfEpoch { hash, schema_version });
        let definitions = prop::collection::btree_map("[a-z]{1,9}", prop::collection::vec(definition, 0..3), 0..3);
        let header = (
            "[a-zA-Z0-9._-]{1,128}",
            0_i64..253_402_300_800_000,
            by,
            prop::option::of(any::<u64>().prop_map(LogVersion)),
        );
        (header, behind_ms, definitions, shards).prop_map(
            |((of, saved_at_ms, saved_by, log_version), behind_ms, definitions, shards)| {
                let name = name(&of);
                NamedCheckpoint { name, saved_at_ms, saved_by, log_version, behind_ms, definitions, shards }
            },
        )
    }

    proptest! {
        #[test]
        fn a_checkpoint_round_trips(checkpoint in any_checkpoint()) {
            let bytes = checkpoint.to_bytes();
            prop_assert_eq!(NamedCheckpoint::from_bytes(&checkpoint.name, &bytes).unwrap(), checkpoint.clone());
            prop_assert_eq!(CheckpointName::of_key(&checkpoint.name.key()).unwrap(), checkpoint.name);
        }

        #[test]
        fn a_damaged_checkpoint_is_an_error(checkpoint in any_checkpoint(), cut in any::<prop::sample::Index>()) {
            let bytes = checkpoint.to_bytes();
            let cut = cut.index(bytes.len() - 1);
            prop_assert!(NamedCheckpoint::from_bytes(&checkpoint.name, &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn the_stored_form_is_the_documented_one() {
        let shard = |number, checkpoint: &str, children: &[&str], last_manifest: Option<&str>| SavedShard {
            checkpoint: checkpoint.parse().unwrap(),
            children: children.iter().map(|id| ShardId::new(id).unwrap()).collect(),
            last_manifest: last_manifest.map(|name| ManifestName::new(name).unwrap()),
            ..shard(number)
        };
        let shards =
            vec![shard(0, "4959:3", &["shardId-1"], Some("_intents/7.json")), shard(2, "TRIM_HORIZON", &[], None)];
        let definition = DefinitionOfEpoch { hash: "9f86".to_owned(), schema_version: 1 };
        let checkpoint = NamedCheckpoint {
            log_version: Some(LogVersion(17)),
            behind_ms: [(StreamName::new("orders").unwrap(), 1500)].into(),
            definitions: [("events".to_owned(), vec![definition])].into(),
            shards,
            ..checkpoint("before", 1_736_764_200_123, 0)
        };
        let rows = "\"shards\":[\
                    {\"stream\":\"orders\",\"shard\":\"shardId-0\",\"checkpoint\":\"4959:3\",\"parents\":[],\
                    \"children\":[\"shardId-1\"],\"last_manifest\":\"_intents/7.json\"},\
                    {\"stream\":\"orders\",\"shard\":\"shardId-2\",\"checkpoint\":\"TRIM_HORIZON\",\"parents\":[],\
                    \"children\":[]}]}\n";
        let text = format!(
            "{{\"format\":2,\"name\":\"before\",\"saved_at\":\"2025-01-13T10:30:00.123Z\",\"saved_by\":\"command\",\
             \"log_version\":17,\"behind_ms\":{{\"orders\":1500}},\
             \"definitions\":{{\"events\":[{{\"hash\":\"9f86\",\"schema_version\":1}}]}},{rows}"
        );
        assert_eq!(checkpoint.to_bytes(), text);
        // What an earlier version has written.
        let first = format!("{{\"format\":1,\"name\":\"before\",\"saved_at\":\"2025-01-13T10:30:00.123Z\",{rows}");
        let read = NamedCheckpoint::from_bytes(&checkpoint.name, first.as_bytes()).unwrap();
        let (log_version, behind_ms, definitions) = (None, BTreeMap::new(), BTreeMap::new());
        assert_eq!(read, NamedCheckpoint { log_version, behind_ms, definitions, ..checkpoint.clone() });
        assert_eq!(checkpoint.name.key().as_str(), "_checkpoints/before.json");
    }

    #[test]
    fn a_name_is_one_that_people_can_type() {
        for valid in ["before-the-fix", "v1.2_3", "..", &"x".repeat(128)] {
            assert_eq!(name(valid).as_str(), valid);
        }
        for invalid in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert!(CheckpointName::new(invalid).is_err(), "{invalid:?} was accepted");
        }
    }

    #[test]
    fn a_checkpoint_of_another_name_or_format_is_refused() {
        let bytes = checkpoint("one", 1, 1).to_bytes();
        let problem = |of: &str, bytes: &[u8]| NamedCheckpoint::from_bytes(&name(of), bytes).unwrap_err().to_string();
        assert_eq!(problem("other", &bytes), "_checkpoints/other.json cannot be read: it is the checkpoint 'one'");
        let newer = problem("one", b"{\"format\":3,\"cuts\":[]}");
        assert_eq!(newer, "_checkpoints/one.json cannot be read: it has format 3; this version reads formats 1 to 2");
        let text = String::from_utf8(bytes.to_vec()).unwrap().replace("1970-01-01", "yesterday");
        assert!(
            problem("one", text.as_bytes())
                .ends_with("'yesterdayT00:00:00.001Z' is not a time in UTC with milliseconds")
        );
    }

    #[test]
    fn a_checkpoint_copies_what_a_replay_needs_from_each_row() {
        let SavedShard { key, checkpoint, .. } = shard(0);
        let ids = |id: &str| BTreeSet::from([ShardId::new(id).unwrap()]);
        let manifest = ManifestName::new("_intents/1.json").unwrap();
        let lease = Lease {
            checkpoint: checkpoint.clone(),
            last_manifest: Some(manifest.clone()),
            parents: ids("parent"),
            children: ids("child"),
            ..Lease::new(checkpoints::NewLease::new(key.clone(), Position::Beginning))
        };
        let (parents, children) = (ids("parent"), ids("child"));
        let saved = SavedShard { key, checkpoint, parents, children, last_manifest: Some(manifest) };
        assert_eq!(SavedShard::of_lease(lease), saved);
    }

    #[test]
    fn a_name_of_the_schedule_says_when_its_interval_began() {
        let day = 86_400_000;
        for (now_ms, every_ms, expected) in [
            (1_736_764_200_123, day, "auto-20250113T000000Z"),
            (1_736_726_399_999, day, "auto-20250112T000000Z"),
            (1_736_764_200_123, 3_600_000, "auto-20250113T100000Z"),
            (1_736_764_200_123, 60_000, "auto-20250113T103000Z"),
        ] {
            let of_interval = CheckpointName::of_interval(now_ms, every_ms);
            assert_eq!(of_interval, name(expected));
            assert!(of_interval.is_of_interval() && of_interval.is_reserved());
        }
        for of_people in ["auto-2025", "auto-20250113T00000Z0", "auto", "before"] {
            assert!(!name(of_people).is_of_interval(), "{of_people}");
        }
    }

    #[tokio::test]
    async fn a_list_names_the_streams_of_which_something_is_left_to_read() {
        let lake = MemoryStore::new();
        let of = |stream: &str, checkpoint: Position| SavedShard {
            key: ShardKey::new(StreamName::new(stream).unwrap(), ShardId::new("s").unwrap()),
            checkpoint,
            ..shard(0)
        };
        let shards = vec![of("ended", Position::End), of("open", Position::Beginning)];
        let saved = NamedCheckpoint { shards, ..checkpoint("x", 1, 0) };
        assert!(save_checkpoint(&lake, &saved).await.unwrap());
        let (listed, _) = list_checkpoints(&lake).await.unwrap();
        assert_eq!(listed[0].unfinished, BTreeSet::from([StreamName::new("open").unwrap()]));
        assert_eq!(listed, [saved.summary(0)]);
    }

    #[tokio::test]
    async fn a_saved_checkpoint_is_read_back_until_it_is_deleted() {
        let lake = MemoryStore::new();
        let saved = checkpoint("large", 1_760_000_000_123, 20_000);
        assert!(save_checkpoint(&lake, &saved).await.unwrap());
        assert_eq!(get_checkpoint(&lake, &saved.name).await.unwrap(), Some(saved.clone()));
        assert_eq!(get_checkpoint(&lake, &name("another")).await.unwrap(), None);
        assert!(delete_checkpoint(&lake, &saved.name).await.unwrap());
        assert!(!delete_checkpoint(&lake, &saved.name).await.unwrap());
        assert_eq!(get_checkpoint(&lake, &saved.name).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_name_is_used_once_until_it_is_deleted() {
        let lake = MemoryStore::new();
        let (first, second) = (checkpoint("same", 1, 1), checkpoint("same", 2, 2));
        assert!(save_checkpoint(&lake, &first).await.unwrap());
        assert!(!save_checkpoint(&lake, &second).await.unwrap());
        assert_eq!(get_checkpoint(&lake, &first.name).await.unwrap(), Some(first.clone()));
        assert!(delete_checkpoint(&lake, &first.name).await.unwrap());
        assert!(save_checkpoint(&lake, &second).await.unwrap());
    }

    #[tokio::test]
    async fn of_eight_who_save_under_one_name_one_succeeds() {
        let lake = MemoryStore::new();
        let savers = (0..8).map(|number| {
            let lake = lake.clone();
            tokio::spawn(async move {
                let checkpoint = checkpoint("same", number, 1);
                save_checkpoint(&lake, &checkpoint).await.unwrap().then_some(checkpoint)
            })
        });
        let outcomes = futures::future::join_all(savers).await;
        let saved: Vec<NamedCheckpoint> = outcomes.into_iter().filter_map(Result::unwrap).collect();
        let [winner] = &saved[..] else { panic!("{} succeeded", saved.len()) };
        assert_eq!(get_checkpoint(&lake, &winner.name).await.unwrap().as_ref(), Some(winner));
    }

    #[tokio::test(start_paused = true)]
    async fn a_save_whose_reply_was_lost_succeeds() {
        let memory = MemoryStore::new();
        let lake = Retrying::new(Arc::new(memory.clone()), RetryPolicy::default());
        let saved = checkpoint("lost-reply", 1, 1);
        memory.fail("put_new", 0, Fault::LoseAfter);
        assert!(save_checkpoint(&lake, &saved).await.unwrap());
        assert_eq!(get_checkpoint(&lake, &saved.name).await.unwrap(), Some(saved));
    }

    #[tokio::test]
    async fn checkpoints_are_listed_by_name_with_their_number_of_shards() {
        let lake = MemoryStore::new();
        for (of, saved_at_ms, shards) in [("b", 2, 0), ("c", 1, 1), ("a", 3, 250)] {
            assert!(save_checkpoint(&lake, &checkpoint(of, saved_at_ms, shards)).await.unwrap());
        }
        let summary = |of, saved_at_ms, shards| checkpoint(of, saved_at_ms, shards).summary(0);
        let (listed, unreadable) = list_checkpoints(&lake).await.unwrap();
        assert_eq!((listed, unreadable), (vec![summary("a", 3, 250), summary("b", 2, 0), summary("c", 1, 1)], vec![]));
    }

    #[tokio::test]
    async fn a_list_counts_shards_without_decoding_them() {
        let lake = MemoryStore::new();
        let text =
            "{\"format\":1,\"name\":\"odd\",\"saved_at\":\"1970-01-01T00:00:00.001Z\",\"shards\":[{},{\"x\":1}]}";
        put(&lake, "odd", text).await;
        let (listed, unreadable) = list_checkpoints(&lake).await.unwrap();
        assert_eq!((listed[0].shards, unreadable), (2, vec![]));
        assert!(matches!(get_checkpoint(&lake, &name("odd")).await, Err(CheckpointError::Unreadable(_))));
    }

    #[tokio::test]
    async fn an_unreadable_checkpoint_hides_no_other_and_can_be_deleted() {
        let lake = MemoryStore::new();
        put(&lake, "damaged", "{\"format\":1,").await;
        let foreign = ObjectKey::new("_checkpoints/notes.txt").unwrap();
        assert_eq!(lake.put_new(&foreign, Bytes::new()).await.unwrap(), Written::New);
        assert!(save_checkpoint(&lake, &checkpoint("good", 1, 1)).await.unwrap());
        let (listed, unreadable) = list_checkpoints(&lake).await.unwrap();
        assert_eq!(listed.len(), 1);
        let keys: Vec<&str> = unreadable.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["_checkpoints/damaged.json", "_checkpoints/notes.txt"]);
        assert!(delete_checkpoint(&lake, &name("damaged")).await.unwrap());
    }
}
