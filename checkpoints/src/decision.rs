//! The commit point: what an epoch asks the store to decide, and the store's verdict.
//!
//! A decision sets one manifest pending on every shard of an epoch, on all or none. From then on the epoch *will* be
//! committed, by its worker or by whoever takes one of its leases.
//!
//! Owns: a decision, the conditions that each shard's row must meet, and how a refusal reads. Does not own: what to do when
//! the reply to a decision was lost (`decide_once.rs`).

use std::collections::BTreeSet;
use std::fmt;

use mutations::mutated;

use crate::lease::{Holder, Lease, LeaseOwner, ManifestName};
use crate::position::{Position, ShardRange};
use crate::shard::ShardKey;

/// What one epoch asks the store to decide: at least one shard, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    owner: LeaseOwner,
    manifest: ManifestName,
    shards: Vec<(ShardKey, ShardRange)>,
}

/// The answer of [`LeaseStore::decide`](crate::LeaseStore::decide) to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The manifest is pending on every shard. The epoch is committed.
    Decided,
    /// This request changed nothing. The shards that did not meet a condition, each with its reason; never empty.
    Refused(Vec<Refusal>),
}

/// A shard that did not meet a condition of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The shard.
    pub key: ShardKey,
    /// The first condition that it did not meet.
    pub reason: RefusalReason,
}

/// The condition of a decision that a shard did not meet, in the order in which they are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The shard has no row.
    Missing,
    /// Another worker holds the lease, or nobody.
    NotHeld(Holder),
    /// A manifest is already pending: this one or another.
    Pending(ManifestName),
    /// The range does not start at the checkpoint, which is here.
    CheckpointAt(Position),
}

/// A list of shards that is not valid for a decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecision {
    /// The list is empty.
    #[error("the decision on manifest {manifest} has no shards")]
    NoShards {
        /// The manifest.
        manifest: ManifestName,
    },
    /// A shard is in the list twice.
    #[error("the decision on manifest {manifest} has {key} twice")]
    ShardTwice {
        /// The manifest.
        manifest: ManifestName,
        /// The shard.
        key: ShardKey,
    },
}

impl Decision {
    /// The decision of `owner` to move each shard over its range, as `manifest` describes.
    ///
    /// # Errors
    ///
    /// The list of shards is empty, or has one shard twice.
    pub fn new(
        owner: LeaseOwner,
        manifest: ManifestName,
        shards: Vec<(ShardKey, ShardRange)>,
    ) -> Result<Self, InvalidDecision> {
        if shards.is_empty() {
            return Err(InvalidDecision::NoShards { manifest });
        }
        let mut seen = BTreeSet::new();
        if let Some((key, _)) = shards.iter().find(|(key, _)| !seen.insert(key)) {
            return Err(InvalidDecision::ShardTwice { manifest, key: key.clone() });
        }
        Ok(Self { owner, manifest, shards })
    }

    /// The worker that decides.
    #[must_use]
    pub fn owner(&self) -> &LeaseOwner {
        &self.owner
    }

    /// The epoch's manifest.
    #[must_use]
    pub fn manifest(&self) -> &ManifestName {
        &self.manifest
    }

    /// Each shard with its range.
    #[must_use]
    pub fn shards(&self) -> &[(ShardKey, ShardRange)] {
        &self.shards
    }

    /// The shards without their ranges, in the same order.
    #[must_use]
    pub fn keys(&self) -> Vec<ShardKey> {
        self.shards.iter().map(|(key, _)| key.clone()).collect()
    }
}

/// The first condition that a shard's row does not meet, if there is one. Every store uses this rule.
pub(crate) fn refusal(owner: &LeaseOwner, range: &ShardRange, row: Option<&Lease>) -> Option<RefusalReason> {
    let Some(lease) = row else { return Some(RefusalReason::Missing) };
    if !lease.holder.is(owner) && !mutated!(DecideWithoutHolding) {
        Some(RefusalReason::NotHeld(lease.holder.clone()))
    } else if let Some(pending) = &lease.pending {
        Some(RefusalReason::Pending(pending.manifest.clone()))
    } else if lease.checkpoint != *range.after() && !mutated!(DecideAnywhere) {
        Some(RefusalReason::CheckpointAt(lease.checkpoint.clone()))
    } else {
        None
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, reason } = self;
        match reason {
            RefusalReason::Missing => write!(f, "{key} has no lease"),
            RefusalReason::NotHeld(holder) => write!(f, "{key} is held by {holder}"),
            RefusalReason::Pending(manifest) => write!(f, "{key} has manifest {manifest} pending"),
            RefusalReason::CheckpointAt(position) => write!(f, "{key} is committed through {position}"),
        }
    }
}
