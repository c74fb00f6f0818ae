//! The stored form of a lease: the one place that encodes and decodes a row, for every store.
//!
//! A [`StoredLease`] has plain values under the Kinesis Client Library's attribute names. So KCL's tools can read our tables,
//! and we can read KCL's. A store moves these values to and from its own columns or attributes and does not interpret them.
//!
//! | attribute | value | present |
//! |---|---|---|
//! | `streamName`, `shardId` | text | always; the key |
//! | `leaseOwner` | text: the holder; during a hand-off, the next holder | unless nobody holds the lease |
//! | `checkpointOwner` | text: the holder | during a hand-off |
//! | `leaseCounter` | number | always |
//! | `checkpoint`, `checkpointSubSequenceNumber` | a position as text and number: see `position.rs` | always |
//! | `pendingCheckpoint`, `pendingCheckpointSubSequenceNumber` | a position, in the same form | from decide to advance |
//! | `pendingCheckpointState` | text: the manifest's name | with the above |
//! | `lastManifest` (ours, not KCL's) | text: the manifest that moved `checkpoint` | after the first advance |
//! | `parentShardId`, `childShardIds` | a set of texts | unless empty |
//! | `startingHashKey`, `endingHashKey` | decimal texts of 128-bit numbers | if known |
//! | `ownerSwitchesSinceCheckpoint` | number | always |
//! | `throughputKBps` | floating-point number | always in our rows; in KCL's rows from the first renewal on |
//!
//! It does not own what may change a row (`rules.rs`). Decoding never panics: a malformed row is
//! [`StoreError::Malformed`] with the shard's name. Numbers are at most `i64::MAX`, as in KCL.

use crate::error::StoreError;
use crate::lease::{HashRange, Holder, Lease, LeaseOwner, ManifestName, Pending, ThroughputKbps};
use crate::position::Position;
use crate::shard::{ShardId, ShardKey, StreamName};
use crate::text::InvalidText;

/// A lease row in plain values, under the names of its attributes. The table at the top of the file gives their meanings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StoredLease {
    pub(crate) stream_name: String,
    pub(crate) shard_id: String,
    pub(crate) lease_owner: Option<String>,
    pub(crate) checkpoint_owner: Option<String>,
    pub(crate) lease_counter: i64,
    pub(crate) checkpoint: String,
    pub(crate) checkpoint_sub_sequence_number: i64,
    pub(crate) pending_checkpoint: Option<String>,
    pub(crate) pending_checkpoint_sub_sequence_number: Option<i64>,
    pub(crate) pending_checkpoint_state: Option<String>,
    pub(crate) last_manifest: Option<String>,
    pub(crate) parent_shard_id: Vec<String>,
    pub(crate) child_shard_ids: Vec<String>,
    pub(crate) starting_hash_key: Option<String>,
    pub(crate) ending_hash_key: Option<String>,
    pub(crate) owner_switches_since_checkpoint: i64,
    pub(crate) throughput_kbps: f64,
}

/// Encodes a lease.
///
/// # Errors
///
/// [`StoreError::Invalid`] if a number exceeds `i64::MAX`.
pub(crate) fn encode(lease: &Lease) -> Result<StoredLease, StoreError> {
    let number = |what: &str, number: u64| {
        i64::try_from(number).map_err(|_| StoreError::Invalid {
            operation: format!("store the lease of {}", lease.key),
            problem: format!("{what} {number} exceeds 63 bits"),
        })
    };
    let sub = |position: &Position| number("sub-sequence number", position.sub_sequence_number());
    let (lease_owner, checkpoint_owner) = match &lease.holder {
        Holder::Nobody => (None, None),
        Holder::Held(owner) => (Some(owner), None),
        Holder::HandingOver { from, to } => (Some(to), Some(from)),
    };
    let pending = lease.pending.as_ref();
    Ok(StoredLease {
        stream_name: lease.key.stream.to_string(),
        shard_id: lease.key.shard.to_string(),
        lease_owner: lease_owner.map(LeaseOwner::to_string),
        checkpoint_owner: checkpoint_owner.map(LeaseOwner::to_string),
        lease_counter: number("counter", lease.counter)?,
        checkpoint: lease.checkpoint.checkpoint().to_owned(),
        checkpoint_sub_sequence_number: sub(&lease.checkpoint)?,
        pending_checkpoint: pending.map(|pending| pending.through.checkpoint().to_owned()),
        pending_checkpoint_sub_sequence_number: pending.map(|pending| sub(&pending.through)).transpose()?,
        pending_checkpoint_state: pending.map(|pending| pending.manifest.to_string()),
        last_manifest: lease.last_manifest.as_ref().map(ManifestName::to_string),
        parent_shard_id: lease.parents.iter().map(ShardId::to_string).collect(),
        child_shard_ids: lease.children.iter().map(ShardId::to_string).collect(),
        starting_hash_key: lease.hash_range.map(|range| range.start().to_string()),
        ending_hash_key: lease.hash_range.map(|range| range.end().to_string()),
        owner_switches_since_checkpoint: number("owner switches", lease.owner_switches_since_checkpoint)?,
        throughput_kbps: lease.throughput.get(),
    })
}

/// Decodes a lease.
///
/// # Errors
///
/// [`StoreError::Malformed`] if the row is malformed.
pub(crate) fn decode(stored: StoredLease) -> Result<Lease, StoreError> {
    let item = format!("lease of shard {} of stream {}", stored.shard_id, stored.stream_name);
    decode_values(stored).map_err(|problem| StoreError::Malformed { item, problem })
}

/// [`decode`] without the row's name in the error.
fn decode_values(stored: StoredLease) -> Result<Lease, String> {
    let checkpoint = decode_position(&stored.checkpoint, stored.checkpoint_sub_sequence_number)?;
    let pending = decode_pending(
        stored.pending_checkpoint,
        stored.pending_checkpoint_sub_sequence_number,
        stored.pending_checkpoint_state,
    )?;
    if let Some(Pending { through, manifest }) = &pending
        && *through <= checkpoint
    {
        return Err(format!("manifest {manifest} is pending through {through}, which the checkpoint has reached"));
    }
    Ok(Lease {
        key: ShardKey::new(text(StreamName::new(stored.stream_name))?, text(ShardId::new(stored.shard_id))?),
        holder: decode_holder(stored.lease_owner, stored.checkpoint_owner)?,
        counter: count("leaseCounter", stored.lease_counter)?,
        checkpoint,
        pending,
        last_manifest: stored.last_manifest.map(|name| text(ManifestName::new(name))).transpose()?,
        parents: stored.parent_shard_id.into_iter().map(|id| text(ShardId::new(id))).collect::<Result<_, _>>()?,
        children: stored.child_shard_ids.into_iter().map(|id| text(ShardId::new(id))).collect::<Result<_, _>>()?,
        hash_range: decode_hash_range(stored.starting_hash_key, stored.ending_hash_key)?,
        owner_switches_since_checkpoint: count("ownerSwitchesSinceCheckpoint", stored.owner_switches_since_checkpoint)?,
        throughput: ThroughputKbps::new(stored.throughput_kbps),
    })
}

fn decode_holder(lease_owner: Option<String>, checkpoint_owner: Option<String>) -> Result<Holder, String> {
    let owner = |name: String| text(LeaseOwner::new(name));
    match (lease_owner, checkpoint_owner) {
        (None, None) => Ok(Holder::Nobody),
        (Some(held_by), None) => Ok(Holder::Held(owner(held_by)?)),
        (Some(to), Some(from)) if to == from => Err(format!("{from} is handing over to itself")),
        (Some(to), Some(from)) => Ok(Holder::HandingOver { from: owner(from)?, to: owner(to)? }),
        (None, Some(from)) => Err(format!("checkpointOwner is {from}, but there is no leaseOwner")),
    }
}

fn decode_pending(
    checkpoint: Option<String>,
    sub: Option<i64>,
    manifest: Option<String>,
) -> Result<Option<Pending>, String> {
    match (checkpoint, sub, manifest) {
        (None, None, None) => Ok(None),
        (Some(checkpoint), Some(sub), Some(manifest)) => Ok(Some(Pending {
            through: decode_position(&checkpoint, sub)?,
            manifest: text(ManifestName::new(manifest))?,
        })),
        _ => Err("only a part of the pending attributes is present".to_owned()),
    }
}

fn decode_hash_range(start: Option<String>, end: Option<String>) -> Result<Option<HashRange>, String> {
    let key = |text: &str| text.parse::<u128>().map_err(|_| format!("hash key {text:?} is not a 128-bit number"));
    match (start, end) {
        (None, None) => Ok(None),
        (Some(start), Some(end)) => HashRange::new(key(&start)?, key(&end)?)
            .map(Some)
            .ok_or_else(|| format!("startingHashKey {start} is greater than endingHashKey {end}")),
        _ => Err("only one of startingHashKey and endingHashKey is present".to_owned()),
    }
}

fn decode_position(checkpoint: &str, sub: i64) -> Result<Position, String> {
    text(Position::from_stored(checkpoint, count("sub-sequence number", sub)?))
}

fn count(what: &str, number: i64) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| format!("{what} is {number}"))
}

fn text<T>(checked: Result<T, InvalidText>) -> Result<T, String> {
    checked.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::lease;

    proptest! {
        #[test]
        fn a_lease_round_trips(lease in lease()) {
            prop_assert_eq!(decode(encode(&lease).unwrap()).unwrap(), lease);
        }
    }

    /// A valid row, for tests to corrupt.
    fn row() -> StoredLease {
        StoredLease {
            stream_name: "orders".into(),
            shard_id: "shardId-0".into(),
            checkpoint: "7".into(),
            ..StoredLease::default()
        }
    }

    #[test]
    fn a_row_with_only_the_required_attributes_is_valid() {
        assert_eq!(decode(row()).unwrap().checkpoint, Position::at(7_u64.into()));
    }

    #[test]
    fn a_malformed_row_is_an_error_that_names_the_shard() {
        let text = |text: &str| Some(text.to_owned());
        let pending = |checkpoint: &str, sub, manifest: &str| StoredLease {
            pending_checkpoint: text(checkpoint),
            pending_checkpoint_sub_sequence_number: Some(sub),
            pending_checkpoint_state: text(manifest),
            ..row()
        };
        let malformed = [
            StoredLease { checkpoint: "LATEST".into(), checkpoint_sub_sequence_number: 1, ..row() },
            StoredLease { checkpoint: String::new(), ..row() },
            StoredLease { checkpoint_sub_sequence_number: -1, ..row() },
            StoredLease { lease_counter: -1, ..row() },
            StoredLease { owner_switches_since_checkpoint: -1, ..row() },
            StoredLease { lease_owner: text(""), ..row() },
            StoredLease { checkpoint_owner: text("a"), ..row() },
            StoredLease { lease_owner: text("a"), checkpoint_owner: text("a"), ..row() },
            StoredLease { pending_checkpoint: text("8"), ..row() },
            pending("7", 0, "m"),
            pending("TRIM_HORIZON", 0, "m"),
            pending("8", -1, "m"),
            pending("8", 0, ""),
            StoredLease { last_manifest: text(""), ..row() },
            StoredLease { starting_hash_key: text("0"), ..row() },
            StoredLease { starting_hash_key: text("2"), ending_hash_key: text("1"), ..row() },
            StoredLease { starting_hash_key: text("0"), ending_hash_key: text("-1"), ..row() },
            StoredLease { parent_shard_id: vec![String::new()], ..row() },
        ];
        for stored in malformed {
            let error = decode(stored.clone()).expect_err(&format!("{stored:?} was accepted"));
            assert!(!error.is_retryable());
            let message = error.to_string();
            assert!(message.starts_with("the stored lease of shard shardId-0 of stream orders is malformed: "));
        }
        assert!(decode(StoredLease { stream_name: String::new(), ..row() }).is_err());
    }

    #[test]
    fn a_number_over_63_bits_is_refused_and_not_truncated() {
        let mut lease = decode(row()).unwrap();
        lease.counter = u64::MAX;
        assert!(matches!(encode(&lease), Err(StoreError::Invalid { .. })));
    }
}
