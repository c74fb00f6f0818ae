//! The lease store: every change that a lease row may undergo, each as one conditional write.
//!
//! The trait uses the remote system's own terms (DynamoDB's conditional updates, in the shape that KCL gives them), so an
//! implementation adds nothing to a call's meaning. Each method states its exact condition and its exact effect. `decide` and
//! `roll_back` are one transaction over several rows. Everything else is a write to one row; a method that takes several rows
//! writes each of them by itself.
//!
//! It does not own retries, timing or the decision who *should* hold a lease: those are the caller's.
//! [`LeaseStoreExt`](crate::LeaseStoreExt) has what is built on these calls.
//!
//! Rules for every implementation:
//! - Reads are consistent: they see every write that was acknowledged before.
//! - A condition that does not hold is an answer, not an error, and changes nothing.
//! - After [`StoreError::Unavailable`] a write may have taken effect, on all or some of its rows, and may still do so later.
//!   Dropping a call's future has the same outcome. Each method says how a later read shows it.
//! - No condition depends on a clock: a lease has no time in it. (A store may use time to bound its own waiting.)
//!
//! Limits: DynamoDB takes 100 rows in one transaction. Requests: every method costs one write or one read for each row that
//! it names; `list` reads the whole table.

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::decision::{Decision, Verdict};
use crate::error::StoreError;
use crate::lease::{Lease, LeaseOwner, ManifestName, NewLease, ThroughputKbps};
use crate::position::Position;
use crate::shard::{ShardId, ShardKey};

/// One lease to renew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The shard.
    pub key: ShardKey,
    /// The counter as the holder last saw it.
    pub counter: u64,
    /// What the holder has measured since the last renewal.
    pub throughput: ThroughputKbps,
}

/// The result of one renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// The lease is renewed.
    Renewed {
        /// The counter now: the given one plus 1.
        counter: u64,
    },
    /// The lease is renewed, but another worker has asked for it: commit the open epoch, then hand the lease over.
    HandOffAsked {
        /// The counter now: the given one plus 1.
        counter: u64,
        /// Who asked.
        to: LeaseOwner,
    },
    /// The lease is still held, but its counter is not the given one, and nothing was written. If it is the given one plus
    /// 1, then this renewal took effect earlier and its reply was lost. Renew from this counter.
    CounterAt {
        /// The counter in the row.
        counter: u64,
    },
    /// The lease is no longer held, or its row is gone.
    Lost,
}

/// One shard to advance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    key: ShardKey,
    through: Position,
    children: BTreeSet<ShardId>,
}

/// The result of one shard's advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvanceOutcome {
    /// This call moved the checkpoint.
    Advanced,
    /// This manifest moved the checkpoint earlier, and no other has moved it since.
    WasAdvanced,
    /// The manifest is not pending. It was never decided, or rolled back, or it was advanced and a later one after it.
    NotPending,
}

/// A table of leases.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// The most shards that one decision may have: 100 in DynamoDB, no limit (`usize::MAX`) elsewhere.
    fn decision_shards_max(&self) -> usize;

    /// Returns true if every request costs money, so that a worker should make as few as it can.
    fn is_metered(&self) -> bool {
        false
    }

    /// All leases, in the order of their keys.
    async fn list(&self) -> Result<Vec<Lease>, StoreError>;

    /// The leases of `keys`, in their order; `None` where there is no row.
    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError>;

    /// Creates rows. Condition, for each: the table has no row of its key. Returns the keys of the rows that it created.
    ///
    /// After a lost reply: repeat it; existing rows stay as they are.
    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError>;

    /// Shows that `me` is alive. Condition, for each: `me` holds the lease, also while it is asked to hand it over, and the
    /// counter is the given one. Effect: counter + 1, throughput set. Returns the results in the order of `renewals`.
    ///
    /// The counter also moves during a hand-off, so that the others do not take the holder for dead while it commits.
    ///
    /// After a lost reply: repeat it; [`RenewalOutcome::CounterAt`] shows that the first request took effect.
    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError>;

    /// Takes a lease, whoever has it. Condition: the counter is `seen_counter`. Effect: `Held(me)`, counter + 1, and
    /// switches + 1 unless it was `Held(me)` already. A hand-off in progress ends. A pending manifest stays pending.
    /// Returns the row after the change, or `None`.
    ///
    /// It is for leases that nobody holds, whose counter did not move for the failover time, whose holder
    /// [is gone](Self::owner_is_gone), or whose hand-off is overdue.
    ///
    /// After a lost reply: the row has `Held(me)` with `seen_counter` + 1.
    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError>;

    /// Asks a live holder to hand over. Condition: `Held(from)`, and `from` is not `me`. Effect:
    /// `HandingOver { from, to: me }`; the counter does not move. Returns whether the condition held.
    ///
    /// After a lost reply: the row shows whether it took effect.
    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError>;

    /// Hands over a lease that another worker asked for. Condition: `HandingOver { from: me, to }`. Effect: `Held(to)`,
    /// counter + 1, switches + 1. Returns whether the condition held. `me` must have stopped committing the shard before.
    ///
    /// After a lost reply: the row shows whether it took effect.
    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError>;

    /// Releases a lease. Condition: `me` holds it. Effect: `Nobody`, counter + 1; or, if another worker asked for it, the
    /// effect of [`hand_over`](Self::hand_over). Returns whether the condition held.
    ///
    /// After a lost reply: as with `hand_over`.
    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError>;

    /// Removes the row of a shard that [is done](Lease::is_done): its checkpoint is [`Position::End`] and nothing is pending.
    /// That is the condition. Returns whether it held.
    ///
    /// The caller makes sure that the stream no longer lists the shard. A row that is removed too early is created again
    /// from the stream's list, and the shard is read twice.
    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError>;

    /// The commit point, one transaction. Condition, for every shard: the decision's owner holds the lease, nothing is
    /// pending, and the checkpoint is where the range starts. During a hand-off the owner still holds the lease, and the
    /// worker that asked for it does not. Effect, on all or none: the manifest is pending through the end of the range.
    ///
    /// A decision that is already in effect is refused with [`RefusalReason::Pending`](crate::RefusalReason) and its own
    /// manifest. Use [`decide_once`](crate::LeaseStoreExt::decide_once), which interprets that.
    ///
    /// More shards than [`decision_shards_max`](Self::decision_shards_max) are [`StoreError::Invalid`].
    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError>;

    /// Moves checkpoints, once the commit record is written. Condition, for each: `manifest` is pending. Anyone may finish
    /// a decided epoch, whoever holds the lease. Effect: checkpoint = `through`, nothing pending, switches = 0, last
    /// manifest = `manifest`, and the given children if there are any. Returns the results in the order of `advances`.
    ///
    /// [`StoreError::Malformed`] if `manifest` is pending through another position than the given one.
    ///
    /// After a lost reply: repeat it.
    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError>;

    /// Undoes a decision, one transaction. Condition: `manifest` is pending on every one of `keys`, so none has advanced.
    /// Effect, on all or none: nothing is pending; the checkpoints stay. Returns whether the condition held.
    ///
    /// The caller names *all* shards of the manifest, each once. Before the call, it makes sure that a staged upload is
    /// permanently gone, so that nobody can publish the epoch, and deletes the objects that were already published.
    ///
    /// After a lost reply: a repeated call returns `false`. The rows show whether it was rolled back (the checkpoints are
    /// where the ranges start) or advanced (the checkpoints are where they end).
    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError>;

    /// Registers this process as `me` for as long as it lives, so that others can find out whether it is gone. Called before
    /// `me` takes its first lease; may be repeated. By default it does nothing.
    async fn register(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let _ = me;
        Ok(())
    }

    /// The counterpart of [`register`](Self::register), called after `me` has released its last lease: from here on
    /// `me` counts as gone. May be repeated. By default it does nothing.
    async fn deregister(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let _ = me;
        Ok(())
    }

    /// Returns true if the process of `owner` has *certainly* ended, so that its leases may be taken without waiting for the
    /// failover time. `false` means unknown. A store without such knowledge always returns `false`.
    async fn owner_is_gone(&self, owner: &LeaseOwner) -> Result<bool, StoreError> {
        let _ = owner;
        Ok(false)
    }
}

impl Advance {
    /// A shard that has more records.
    #[must_use]
    pub fn new(key: ShardKey, through: Position) -> Self {
        Self { key, through, children: BTreeSet::new() }
    }

    /// A shard that reached its end and became `children` (none, in a stream that does not reshard).
    #[must_use]
    pub fn to_end(key: ShardKey, children: impl IntoIterator<Item = ShardId>) -> Self {
        Self { key, through: Position::End, children: children.into_iter().collect() }
    }

    /// The shard.
    #[must_use]
    pub fn key(&self) -> &ShardKey {
        &self.key
    }

    /// The position that the checkpoint moves to.
    #[must_use]
    pub fn through(&self) -> &Position {
        &self.through
    }

    /// The shards that it became; empty unless it reached its end.
    #[must_use]
    pub fn children(&self) -> &BTreeSet<ShardId> {
        &self.children
    }
}
