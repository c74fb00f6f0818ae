//! The commit point: what an epoch asks to be decided, the store's verdict, and how to know the verdict when its reply was
//! lost.
//!
//! A decision sets one manifest pending on every shard of an epoch, all or nothing. From then on the epoch *will* be
//! committed, by its worker or by whoever takes one of its leases. So a worker must never take a decision for refused that
//! took effect: it would drop what readers are about to see. [`LeaseStoreExt::decide_once`] settles that.
//!
//! # What the rows prove
//!
//! Say that manifest `M` moves its shards from `after` to `through`. A name is used for one decision only, an advance needs
//! `M` pending, a checkpoint never goes back, and rolling `M` back is possible only while every shard has it pending. So, of
//! rows read one by one at any later time:
//!
//! 1. One row with `M` pending, or with `lastManifest = M`, proves that `M` was decided on *all* its shards. The first may
//!    still be rolled back, by somebody who finds that a staged upload is gone for good; the second no more.
//! 2. One row whose checkpoint has not reached `through`, and where `M` is not pending, proves that `M` is not in effect: had
//!    it been advanced, the checkpoint would be at `through` or behind it. Either it was never decided, or it was rolled
//!    back, which for the worker is the same: the range is to be read again.
//! 3. If every row has reached `through`, or is gone because it had reached its end, and none shows `M`, the rows can't tell:
//!    `M` may have been rolled forward by another worker and other epochs advanced since, or other epochs committed the
//!    same records instead. Here the *commit record* is the proof, in both directions: it is written before the first
//!    advance and a checkpoint that has moved never comes back, so `M` was committed if and only if its commit record is
//!    there *now*. For the worker little depends on it: nothing of the epoch's ranges is left to read, and aborting its
//!    uploads is right in either case, since completed uploads can't be aborted any more.
//!
//! `lastManifest` is there for the sake of rule 1. Without it, every reply that was lost and rolled forward by another
//! would be rule 3 and a look into the object store; and a worker whose advance finds nothing pending could not tell
//! "another advanced it" from "another rolled it back". It also lets an operator go from any row to the commit record that
//! justifies its checkpoint. It costs one attribute in a write that happens anyway.
//!
//! # Requests that arrive late
//!
//! A request whose reply was lost may still be on its way. While the rows meet its conditions, its sender does not give up:
//! `decide_once` then answers with an error that may be retried, never with `No`. Once a condition fails, it can hold again
//! only if this same process takes every lost lease back before any shard of the decision has advanced. Should the
//! late request take effect even then, the epoch is found as pending and resolved like any other: rolled forward, or rolled
//! back because its uploads are gone. So nothing is lost or doubled, provided that the intent outlives any request's life:
//! whoever removes unreferenced intents leaves young ones alone.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;

use mutations::mutated;

use crate::error::StoreError;
use crate::lease::{Holder, Lease, LeaseOwner, ManifestName};
use crate::position::{Position, ShardRange};
use crate::shard::ShardKey;
use crate::store::LeaseStore;

/// What one epoch asks to be decided: never without shards, never one shard twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    owner: LeaseOwner,
    manifest: ManifestName,
    shards: Vec<(ShardKey, ShardRange)>,
}

/// The answer of [`LeaseStore::decide`] to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The manifest is pending on every shard. The epoch is committed.
    Decided,
    /// This request changed nothing. The shards that stood in the way, each with its reason; never empty.
    Refused(Vec<Refusal>),
}

/// The answer of [`LeaseStoreExt::decide_once`]: what became of the decision, over all requests that were sent for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The epoch is committed. Publish and advance it, though another may have done so already: both are idempotent.
    Yes,
    /// The epoch is not in effect, and a repetition would not change that. Abort its uploads; read the shards that are
    /// still held again from their checkpoints.
    No(Vec<Refusal>),
    /// Every shard has moved on: rule 3 at the top of this file. Nothing of the epoch is left to be read. Whether its
    /// records were committed by it or by other epochs, only its commit record tells.
    Superseded,
}

/// A shard that stood in the way of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The shard.
    pub key: ShardKey,
    /// The first condition that it did not meet.
    pub reason: RefusalReason,
}

/// The condition of a decision that a shard did not meet, in the order in which they are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The shard has no row.
    Missing,
    /// Another holds the lease, or nobody.
    NotHeld(Holder),
    /// A manifest is pending already: this one or another.
    Pending(ManifestName),
    /// The checkpoint is not where the range starts.
    CheckpointAt(Position),
}

/// A list of shards that can't be decided on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecision {
    /// There is nothing to decide.
    #[error("the decision on manifest {manifest} has no shards")]
    NoShards {
        /// The manifest.
        manifest: ManifestName,
    },
    /// A shard can have one range only.
    #[error("the decision on manifest {manifest} has {key} twice")]
    ShardTwice {
        /// The manifest.
        manifest: ManifestName,
        /// The shard.
        key: ShardKey,
    },
}

/// What is built on the few calls of a [`LeaseStore`]; there for every store.
pub trait LeaseStoreExt: LeaseStore {
    /// Decides, or finds out that it was decided: [`LeaseStore::decide`] for callers that lose replies.
    ///
    /// Sends one `decide` and, unless that is answered with `Decided`, reads the shards' rows and judges by them, by the
    /// rules at the top of `decision.rs`. It may be repeated with the same decision until it answers, and is not to be once
    /// it has: a decision that was rolled back meanwhile would be made again.
    ///
    /// # Errors
    ///
    /// Not known. If the error [may be retried](StoreError::is_retryable), call again with the same decision. A caller that
    /// gives up must neither abort the uploads nor read on: it lets go of the shards, and whoever takes them finds the
    /// epoch pending or not.
    fn decide_once(&self, decision: &Decision) -> impl Future<Output = Result<Decided, StoreError>> + Send {
        async move {
            let failure = match self.decide(decision).await {
                Ok(Verdict::Decided) => return Ok(Decided::Yes),
                Err(error) => error,
                // What is wrong with the rows is read from the rows themselves, unless they have changed meanwhile.
                Ok(Verdict::Refused(_)) => StoreError::Unavailable {
                    operation: format!("decide manifest {}", decision.manifest),
                    problem: "it was refused for a reason that has passed".to_owned(),
                },
            };
            let rows = self.get(&decision.keys()).await?;
            judge(decision, &rows).ok_or(failure)
        }
    }
}

impl<S: LeaseStore + ?Sized> LeaseStoreExt for S {}

impl Decision {
    /// The decision of `owner` to move each shard over its range, as `manifest` describes.
    ///
    /// # Errors
    ///
    /// There are no shards, or one is there twice.
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

/// The first condition that a shard's row does not meet, if there is one. The rule of every store.
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

/// What rows, in the order of the decision's shards, say about it, by the rules at the top of the file. `None`: it is not in
/// effect, but a request for it would succeed now.
fn judge(decision: &Decision, rows: &[Option<Lease>]) -> Option<Decided> {
    let manifest = &decision.manifest;
    if rows.iter().flatten().any(|lease| lease.is_pending(manifest) || lease.was_advanced_by(manifest)) {
        return Some(Decided::Yes);
    }
    let shards = || decision.shards.iter().zip(rows);
    let moved_on =
        |range: &ShardRange, row: Option<&Lease>| row.is_none_or(|lease| lease.checkpoint >= *range.through());
    if shards().all(|((_, range), row)| moved_on(range, row.as_ref())) {
        return Some(Decided::Superseded);
    }
    let refusals: Vec<Refusal> = shards()
        .filter_map(|((key, range), row)| {
            refusal(&decision.owner, range, row.as_ref()).map(|reason| Refusal { key: key.clone(), reason })
        })
        .collect();
    (!refusals.is_empty()).then_some(Decided::No(refusals))
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
