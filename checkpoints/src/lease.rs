//! One row of the lease table: who holds a shard, how far it is committed, and what is decided but not yet published.
//!
//! The row has the shape that the Kinesis Client Library (KCL) 3 gives it, and one attribute of ours, the last manifest.
//! This file owns what a row *is*. It does not own what may change a row, and on which condition (`store.rs`), or how a row
//! is stored (`row.rs`).
//!
//! Ownership is KCL's pair of attributes, `leaseOwner` and `checkpointOwner`, with these meanings:
//!
//! | `leaseOwner` | `checkpointOwner` | [`Holder`] | who may decide an epoch |
//! |---|---|---|---|
//! | absent | absent | `Nobody` | nobody |
//! | a | absent | `Held(a)` | a |
//! | b | a | `HandingOver { from: a, to: b }` | a |
//!
//! Invariants: the counter only grows, with every renewal and every change of the holder (but not when a hand-off is
//! requested); the checkpoint only grows; a pending manifest ends after the checkpoint.

use std::collections::BTreeSet;
use std::fmt;

use crate::position::Position;
use crate::shard::{ShardId, ShardKey};
use crate::text::text_newtype;

text_newtype!(
    /// A worker, identified by one start of its process: 1 to 256 bytes without control characters.
    ///
    /// Our workers make a new one at every start ([`LeaseOwner::from_random`]) and never share it. So the name alone shows
    /// that *this* process holds a lease. In a table that KCL wrote, a name may be anything.
    LeaseOwner,
    "lease owner",
    256
);

text_newtype!(
    /// The manifest of one epoch, named by its object key in the lake (`_intents/…json`): 1 to 1,024 bytes without control
    /// characters.
    ///
    /// A name is used for one decision only and never again, even if that decision was refused.
    ManifestName,
    "manifest name",
    1_024
);

/// One row of the lease table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub key: ShardKey,
    /// Who holds it.
    pub holder: Holder,
    /// Grows by 1 with every renewal and every change of the holder, never shrinks. A holder whose counter does not move
    /// for the failover time counts as dead.
    pub counter: u64,
    /// How far the shard is committed. The next range starts here.
    pub checkpoint: Position,
    /// The decided epoch that must be rolled forward before anyone reads on.
    pub pending: Option<Pending>,
    /// The manifest that moved the checkpoint to where it is; `None` before the first commit.
    pub last_manifest: Option<ManifestName>,
    /// The shards that this one came from: none, 1, or 2 after a merge. They are read to their ends first.
    pub parents: BTreeSet<ShardId>,
    /// The shards that this one became. Known once its end is committed.
    pub children: BTreeSet<ShardId>,
    /// The hash keys that Kinesis sends to this shard, if known.
    pub hash_range: Option<HashRange>,
    /// How often the holder changed since the checkpoint last moved. If it keeps growing, no worker manages to commit the
    /// shard.
    pub owner_switches_since_checkpoint: u64,
    /// What the holder last measured, for balancing the load.
    pub throughput: ThroughputKbps,
}

/// What is known of a shard when its row is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLease {
    /// The shard.
    pub key: ShardKey,
    /// Where reading starts.
    pub checkpoint: Position,
    /// The shards that this one came from.
    pub parents: BTreeSet<ShardId>,
    /// The hash keys that Kinesis sends to this shard, if known.
    pub hash_range: Option<HashRange>,
    /// The shards that this one became, if a lost row is created again after its end.
    pub children: BTreeSet<ShardId>,
    /// The manifest that moved the checkpoint there, if a lost row is created again.
    pub last_manifest: Option<ManifestName>,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Nobody: it may be taken.
    Nobody,
    /// A worker reads the shard and commits it.
    Held(LeaseOwner),
    /// A worker was asked to hand over. Until it does, or the lease is taken from it, only `from` may commit.
    HandingOver {
        /// The worker that still holds the lease.
        from: LeaseOwner,
        /// The worker that asked for it.
        to: LeaseOwner,
    },
}

/// A decided epoch's part in one shard, from the decision until the checkpoint advances (or the decision is rolled back).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// Where the checkpoint moves to.
    pub through: Position,
    /// The epoch's manifest.
    pub manifest: ManifestName,
}

/// The hash keys of a shard, `start` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashRange {
    start: u128,
    end: u128,
}

/// A shard's throughput in kilobytes (1,000 bytes) per second, as KCL's `throughputKBps`: finite, not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThroughputKbps(f64);

impl LeaseOwner {
    /// The identity of a process start: 16 random bytes from the caller, written as a UUID of version 4.
    #[must_use]
    pub fn from_random(random: [u8; 16]) -> Self {
        const VERSION: u128 = 0xf000 << 64;
        const VARIANT: u128 = 0b11 << 62;
        let bits = u128::from_be_bytes(random) & !VERSION & !VARIANT | (0x4000 << 64) | (0b10 << 62);
        let hex = format!("{bits:032x}");
        let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        Self::new(uuid).expect("36 hex digits and dashes are a valid name")
    }
}

impl Holder {
    /// The worker that may decide an epoch of this shard.
    #[must_use]
    pub fn committer(&self) -> Option<&LeaseOwner> {
        match self {
            Self::Nobody => None,
            Self::Held(owner) | Self::HandingOver { from: owner, .. } => Some(owner),
        }
    }

    /// Whether `owner` holds the lease: it renews it and may decide an epoch. (The `to` of a hand-off does not hold it yet.)
    #[must_use]
    pub fn is(&self, owner: &LeaseOwner) -> bool {
        self.committer() == Some(owner)
    }

    /// Whether `owner` holds the lease and nobody has asked for it.
    pub(crate) fn is_only(&self, owner: &LeaseOwner) -> bool {
        matches!(self, Self::Held(held_by) if held_by == owner)
    }
}

impl Lease {
    /// The row as it is created: nobody holds it, nothing is pending, every count is 0.
    #[must_use]
    pub fn new(new: NewLease) -> Self {
        Self {
            key: new.key,
            holder: Holder::Nobody,
            counter: 0,
            checkpoint: new.checkpoint,
            pending: None,
            last_manifest: new.last_manifest,
            parents: new.parents,
            children: new.children,
            hash_range: new.hash_range,
            owner_switches_since_checkpoint: 0,
            throughput: ThroughputKbps::default(),
        }
    }

    /// Whether the shard was read to its end and all of it is committed: the checkpoint is [`Position::End`] and nothing is
    /// pending.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.checkpoint == Position::End && self.pending.is_none()
    }

    /// The keys of the shards that this one came from.
    pub fn parent_keys(&self) -> impl Iterator<Item = ShardKey> {
        self.parents.iter().map(|parent| ShardKey::new(self.key.stream.clone(), parent.clone()))
    }

    /// Whether all parents [are done](Self::is_done), so that this shard may be read. `row` returns the row of a key.
    ///
    /// A parent without a row counts as done: its stream no longer had the shard when reading began, or its row was removed
    /// because it was done. The caller must make sure that the rows are complete: a scan may miss a row that was created
    /// while it ran.
    pub fn parents_done<'l>(&self, row: impl Fn(&ShardKey) -> Option<&'l Lease>) -> bool {
        self.parent_keys().all(|parent| row(&parent).is_none_or(Lease::is_done))
    }

    /// Whether `manifest` is decided and still has to be published and advanced.
    #[must_use]
    pub fn is_pending(&self, manifest: &ManifestName) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.manifest == *manifest)
    }

    /// Whether `manifest` last moved the checkpoint.
    #[must_use]
    pub fn was_advanced_by(&self, manifest: &ManifestName) -> bool {
        self.last_manifest.as_ref() == Some(manifest)
    }
}

impl NewLease {
    /// A shard without parents and without a known hash range, such as a file.
    #[must_use]
    pub fn new(key: ShardKey, checkpoint: Position) -> Self {
        Self {
            key,
            checkpoint,
            parents: BTreeSet::new(),
            hash_range: None,
            children: BTreeSet::new(),
            last_manifest: None,
        }
    }
}

impl HashRange {
    /// The hash keys `start` to `end`, both included; `None` if `end` is less than `start`.
    #[must_use]
    pub fn new(start: u128, end: u128) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// The first hash key.
    #[must_use]
    pub fn start(self) -> u128 {
        self.start
    }

    /// The last hash key.
    #[must_use]
    pub fn end(self) -> u128 {
        self.end
    }
}

impl ThroughputKbps {
    /// A measurement. A value that is negative, infinite or not a number counts as no throughput: it only balances the
    /// load, and nothing should fail because of it.
    #[must_use]
    pub fn new(kbps: f64) -> Self {
        Self(if kbps.is_finite() && kbps > 0.0 { kbps } else { 0.0 })
    }

    /// The measurement.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Total, because NaN, the one value that is not equal to itself, is never held.
impl Eq for ThroughputKbps {}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Held(owner) => write!(f, "{owner}"),
            Self::HandingOver { from, to } => write!(f, "{from}, handing over to {to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::StreamName;

    #[test]
    fn an_owner_from_random_bytes_is_a_uuid_of_version_4() {
        let owner = |byte| LeaseOwner::from_random([byte; 16]).to_string();
        assert_eq!(owner(0x00), "00000000-0000-4000-8000-000000000000");
        assert_eq!(owner(0xff), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn only_the_holder_of_a_lease_may_commit() {
        let [a, b] = ["a", "b"].map(|name| LeaseOwner::new(name).unwrap());
        assert!(!Holder::Nobody.is(&a));
        assert!(Holder::Held(a.clone()).is(&a) && !Holder::Held(a.clone()).is(&b));
        let handing_over = Holder::HandingOver { from: a.clone(), to: b.clone() };
        assert!(handing_over.is(&a) && !handing_over.is(&b));
        assert!(Holder::Held(a.clone()).is_only(&a) && !handing_over.is_only(&a));
    }

    fn lease(id: &str, parents: &[&str]) -> Lease {
        let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(id).unwrap());
        let parents = parents.iter().map(|parent| ShardId::new(parent).unwrap()).collect();
        Lease::new(NewLease { parents, ..NewLease::new(key, Position::Beginning) })
    }

    #[test]
    fn a_shard_is_done_when_its_end_is_committed_and_nothing_is_pending() {
        let mut lease = lease("a", &[]);
        assert!(!lease.is_done());
        lease.checkpoint = Position::at(7_u64.into());
        lease.pending =
            Some(Pending { through: Position::End, manifest: ManifestName::new("_intents/1.json").unwrap() });
        assert!(!lease.is_done());
        lease.checkpoint = Position::End;
        assert!(!lease.is_done());
        lease.pending = None;
        assert!(lease.is_done());
    }

    #[test]
    fn parents_are_done_when_each_row_that_exists_is_done() {
        let child = lease("c", &["a", "b"]);
        assert_eq!(
            child.parent_keys().map(|key| key.to_string()).collect::<Vec<_>>(),
            ["shard a of stream orders", "shard b of stream orders"]
        );
        let mut rows = [lease("a", &[]), lease("b", &[])];
        let done = |rows: &[Lease]| child.parents_done(|key| rows.iter().find(|row| row.key == *key));
        assert!(!done(&rows));
        rows[0].checkpoint = Position::End;
        assert!(!done(&rows));
        assert!(done(&rows[..1]), "a parent without a row counts as done");
        rows[1].checkpoint = Position::End;
        assert!(done(&rows));
    }

    #[test]
    fn an_invalid_measurement_counts_as_zero() {
        for kbps in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0] {
            assert_eq!(ThroughputKbps::new(kbps).get().to_bits(), 0);
        }
        assert_eq!(ThroughputKbps::new(1.5).get(), 1.5);
    }

    #[test]
    fn a_hash_range_does_not_end_before_it_starts() {
        assert!(HashRange::new(0, u128::MAX).is_some() && HashRange::new(1, 1).is_some());
        assert!(HashRange::new(2, 1).is_none());
    }
}
