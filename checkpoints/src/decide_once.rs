//! Deciding with lost replies: how a worker learns what became of its decision.
//!
//! A worker must never take a decision for refused that took effect: it would drop rows that readers are about to see.
//! [`LeaseStoreExt::decide_once`] settles it from the rows of the lease table.
//!
//! Owns: what the rows prove about a decision. Does not own: the conditions of a decision (`decision.rs`), retries.
//!
//! # What the rows prove
//!
//! Say that manifest `M` moves its shards from `after` to `through`. Four facts hold:
//!
//! - A name is used for one decision only.
//! - An advance needs `M` pending.
//! - A checkpoint never goes back.
//! - `M` can be rolled back only while every shard has it pending.
//!
//! So, of rows read one by one at any later time:
//!
//! 1. One row with `M` pending, or with `lastManifest = M`, proves that `M` was decided on *all* its shards. A pending `M` may
//!    still be rolled back, by a worker that finds a staged upload permanently gone. One that has advanced may not.
//! 2. One row whose checkpoint has not reached `through`, and where `M` is not pending, proves that `M` is not in effect: had
//!    it advanced, the checkpoint would be at `through` or after it. Either `M` was never decided or it was rolled back. For the
//!    worker that is the same: it must read the range again.
//! 3. The rows prove nothing if every row has reached `through`, or is gone because its shard was done, and none shows `M`.
//!    Another worker may have rolled `M` forward and other epochs advanced since, or other epochs committed the same records.
//!    Then the *commit record* is the proof: `M` was committed if and only if its commit record exists *now*. It is written
//!    before the first advance, and a checkpoint that has moved never comes back. Little depends on it for the worker: nothing of
//!    the epoch's ranges is left to read. Aborting the uploads is right in both cases, since a completed upload can't be aborted.
//!
//! `lastManifest` exists for rule 1. Without it, every lost reply to a decision that another worker rolled forward would be
//! rule 3 and need a request to the object store. A worker whose advance finds nothing pending could not distinguish "another
//! worker advanced it" from "another worker rolled it back". It also leads an operator from any row to the commit record that
//! justifies its checkpoint. It costs one attribute in a write that happens anyway.
//!
//! # Requests that arrive late
//!
//! A request whose reply was lost may still be on its way. While the rows meet its conditions, its sender does not give up:
//! `decide_once` then returns a retryable error, never `No`. Once a condition fails, it can hold again only if this same process
//! takes back every lost lease before any shard of the decision has advanced. If the late request takes effect even then, the
//! epoch is found pending and is resolved like any other: it is rolled forward, or back because its uploads are gone. So nothing
//! is lost or duplicated, provided that the intent outlives every request: a sweep must not remove young intents.

use std::future::Future;

use crate::decision::{Decision, Refusal, Verdict, refusal};
use crate::error::StoreError;
use crate::lease::Lease;
use crate::position::ShardRange;
use crate::store::LeaseStore;

/// What became of a decision, over all requests that were sent for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The epoch is committed. Publish and advance it; both are idempotent, and another worker may have done so already.
    Yes,
    /// The epoch is not in effect, and repeating the decision would not change that. Abort its uploads; read the shards
    /// that are still held again from their checkpoints.
    No(Vec<Refusal>),
    /// Every shard has moved on: rule 3 at the top of `decide_once.rs`. Nothing of the epoch is left to read. Only its
    /// commit record shows whether this epoch or other epochs committed its records.
    Superseded,
}

/// What is built on the calls of a [`LeaseStore`]. Every store has it.
pub trait LeaseStoreExt: LeaseStore {
    /// Decides, or finds out that it was decided: [`LeaseStore::decide`] for callers that lose replies.
    ///
    /// Sends one `decide`. Unless the answer is `Decided`, it reads the shards' rows and judges by the rules at the top of
    /// `decide_once.rs`. A caller repeats it with the same decision until it returns `Ok`, and never after that: a decision
    /// that was rolled back in the meantime would be made again.
    ///
    /// # Errors
    ///
    /// The outcome is unknown. If the error [is retryable](StoreError::is_retryable), call again with the same decision. A
    /// caller that stops trying must neither abort the uploads nor read on. It releases the shards; whoever takes them finds
    /// the epoch pending or not.
    fn decide_once(&self, decision: &Decision) -> impl Future<Output = Result<Decided, StoreError>> + Send {
        async move {
            let failure = match self.decide(decision).await {
                Ok(Verdict::Decided) => return Ok(Decided::Yes),
                Err(error) => error,
                // The rows themselves show what is wrong with them, unless they have changed in the meantime.
                Ok(Verdict::Refused(_)) => StoreError::Unavailable {
                    operation: format!("decide manifest {}", decision.manifest()),
                    problem: "it was refused for a reason that no longer applies".to_owned(),
                },
            };
            let rows = self.get(&decision.keys()).await?;
            judge(decision, &rows).ok_or(failure)
        }
    }
}

impl<S: LeaseStore + ?Sized> LeaseStoreExt for S {}

/// What rows, in the order of the decision's shards, prove about it, by the rules at the top of the file. `None`: it is not
/// in effect, but a request for it would succeed now.
fn judge(decision: &Decision, rows: &[Option<Lease>]) -> Option<Decided> {
    let manifest = decision.manifest();
    if rows.iter().flatten().any(|lease| lease.is_pending(manifest) || lease.was_advanced_by(manifest)) {
        return Some(Decided::Yes);
    }
    let shards = || decision.shards().iter().zip(rows);
    let moved_on =
        |range: &ShardRange, row: Option<&Lease>| row.is_none_or(|lease| lease.checkpoint >= *range.through());
    if shards().all(|((_, range), row)| moved_on(range, row.as_ref())) {
        return Some(Decided::Superseded);
    }
    let refusals: Vec<Refusal> = shards()
        .filter_map(|((key, range), row)| {
            refusal(decision.owner(), range, row.as_ref()).map(|reason| Refusal { key: key.clone(), reason })
        })
        .collect();
    (!refusals.is_empty()).then_some(Decided::No(refusals))
}
