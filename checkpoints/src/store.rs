//! The lease store: every change that a lease row may undergo, each as one conditional write.
//!
//! The trait speaks the remote system's own terms (DynamoDB's conditional updates, in the shape that KCL gives them), so
//! that an implementation adds nothing to a call's meaning. Each method says its exact condition and its exact effect.
//! `decide` and `roll_back` are one transaction over several rows; everything else is a write to one row, and where a
//! method takes several, each row is written by itself.
//!
//! It does not own retries, timing or any judgement who *should* hold a lease: that is the caller's. What is built on these
//! calls stands in [`LeaseStoreExt`](crate::LeaseStoreExt).
//!
//! Rules for every implementation:
//! - Reads are consistent: they see every write that was answered before.
//! - A condition that does not hold is an answer, not an error, and changes nothing.
//! - After [`StoreError::Unavailable`] a write may or may not have taken effect, also a part of its rows, and may still do
//!   so later. Dropping a call's future has the same outcome. Each method says how a later read tells.
//! - No clock decides about a condition: a lease has no time in it. (A store may use time to bound its own waiting.)
//!
//! Limits: DynamoDB takes 100 rows in one transaction. Requests: every method costs one write per row that it names, or
//! one read per row; `list` reads the whole table.

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
    /// The counter as the holder last knew it.
    pub counter: u64,
    /// What the holder measured since.
    pub throughput: ThroughputKbps,
}

/// What became of one renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// The lease is renewed, and this is its counter now.
    Renewed {
        /// The counter that was given, plus 1.
        counter: u64,
    },
    /// The lease is renewed, but another worker asked for it: commit what is open, then hand it over.
    HandOffAsked {
        /// The counter that was given, plus 1.
        counter: u64,
        /// Who asked.
        to: LeaseOwner,
    },
    /// The lease is still held, but its counter is another than the given one, and nothing was written. If it is the given
    /// one plus 1, then that renewal took effect before and its reply was lost. Renew from here.
    CounterAt {
        /// The counter as it is.
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

/// What became of one shard's advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvanceOutcome {
    /// The checkpoint moved now.
    Advanced,
    /// This manifest had moved the checkpoint before, and none has since.
    WasAdvanced,
    /// The manifest is not pending: it was rolled back, or never decided, or it was advanced and a later one after it.
    NotPending,
}

/// A table of leases.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// The most shards that one decision may have: 100 in DynamoDB, no limit (`usize::MAX`) elsewhere.
    fn decision_shards_max(&self) -> usize;

    /// Whether every request costs money, so that a worker asks no more often than it must.
    fn is_metered(&self) -> bool {
        false
    }

    /// All leases, in the order of their keys.
    async fn list(&self) -> Result<Vec<Lease>, StoreError>;

    /// The leases of `keys`, in their order; `None` where there is no row.
    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError>;

    /// Makes rows. Condition, for each: there is none of its key. Answers the keys of those it made.
    ///
    /// After a lost reply: repeat it; rows that are there stay as they are.
    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError>;

    /// Says that `me` is alive. Condition, for each: `me` holds the lease, also while it is to hand it over, and the counter
    /// is the given one. Effect: counter + 1, throughput set. Answers in the order of `renewals`.
    ///
    /// That a hand-off moves the counter too keeps others from thinking the holder dead while it commits.
    ///
    /// After a lost reply: repeat it; [`RenewalOutcome::CounterAt`] tells.
    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError>;

    /// Takes a lease, whoever has it. Condition: the counter is `seen_counter`. Effect: `Held(me)`, counter + 1, and
    /// switches + 1 unless it was `Held(me)` already. A hand-off that was under way is over. What is pending stays pending.
    /// Answers the row as it is now, or `None`.
    ///
    /// It is for leases that nobody holds, whose counter did not move for the failover time, whose holder
    /// [is gone](Self::owner_is_gone), or whose hand-off is overdue.
    ///
    /// After a lost reply: the row says `Held(me)` with `seen_counter` + 1.
    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError>;

    /// Asks a live holder to hand over. Condition: `Held(from)`, and `from` is not `me`. Effect:
    /// `HandingOver { from, to: me }`; the counter does not move. Answers whether the condition held.
    ///
    /// After a lost reply: the row says so.
    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError>;

    /// Hands over a lease that was asked for. Condition: `HandingOver { from: me, to }`. Effect: `Held(to)`, counter + 1,
    /// switches + 1. Answers whether the condition held.
    ///
    /// After a lost reply: the row says so. Either way `me` has stopped committing before it calls this.
    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError>;

    /// Lets go of a lease. Condition: `me` holds it. Effect: `Nobody`, counter + 1; or, if it was asked for, what
    /// [`hand_over`](Self::hand_over) does. Answers whether the condition held.
    ///
    /// After a lost reply: as with `hand_over`.
    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError>;

    /// Removes the row of a shard that is done. Condition: the checkpoint is [`Position::End`] and nothing is pending.
    /// Answers whether the condition held.
    ///
    /// The caller sees to it that the stream has forgotten the shard. A row that is removed too early is made again from
    /// the stream's list, and the shard is read twice.
    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError>;

    /// The commit point, one transaction. Condition, for every shard: the decision's owner holds the lease (it may be
    /// handing it over; the one who asked may not decide), nothing is pending, and the checkpoint is where the range
    /// starts. Effect, on all or none: the manifest is pending through the end of the range.
    ///
    /// A decision that is in effect already is refused with [`RefusalReason::Pending`](crate::RefusalReason) and its own
    /// manifest. Use [`decide_once`](crate::LeaseStoreExt::decide_once), which knows how to read that.
    ///
    /// More shards than [`decision_shards_max`](Self::decision_shards_max) are [`StoreError::Invalid`].
    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError>;

    /// Moves checkpoints, once the commit record is written. Condition, for each: `manifest` is pending. It does not matter
    /// who holds the lease: anyone may finish a decided epoch. Effect: checkpoint = `through`, nothing pending, switches
    /// 0, last manifest = `manifest`, and the children as given if there are any. Answers in the order of `advances`.
    ///
    /// [`StoreError::Nonsense`] if `manifest` is pending through another position than the given one.
    ///
    /// After a lost reply: repeat it.
    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError>;

    /// Undoes a decision, one transaction. Condition: `manifest` is pending on every one of `keys`, so none has advanced.
    /// Effect, on all or none: nothing is pending; the checkpoints stay. Answers whether the condition held.
    ///
    /// The caller gives *all* shards of the manifest, each once, has made sure that a staged upload is gone for good, so
    /// that nobody can publish the epoch any more, and has deleted the objects that were published already.
    ///
    /// After a lost reply: `false`, and the rows show whether it was this call (checkpoints where the ranges start) or
    /// an advance (checkpoints where they end).
    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError>;

    /// Makes this process known as `me`, for as long as it lives, so that others may ask whether it is gone. Called before
    /// `me` takes its first lease; may be repeated. By default it does nothing.
    async fn register(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let _ = me;
        Ok(())
    }

    /// The counterpart of [`register`](Self::register), called after `me` has let go of its last lease: from here on
    /// `me` counts as gone. May be repeated. By default it does nothing.
    async fn deregister(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let _ = me;
        Ok(())
    }

    /// Whether it is *certain* that the process of `owner` has ended, so that its leases may be taken without waiting for
    /// the failover time. `false` says nothing, and is all that a store without such knowledge answers.
    async fn owner_is_gone(&self, owner: &LeaseOwner) -> Result<bool, StoreError> {
        let _ = owner;
        Ok(false)
    }
}

impl Advance {
    /// A shard that goes on.
    #[must_use]
    pub fn new(key: ShardKey, through: Position) -> Self {
        Self { key, through, children: BTreeSet::new() }
    }

    /// A shard that reached its end and became `children` (none, where the stream has no such thing).
    #[must_use]
    pub fn to_end(key: ShardKey, children: impl IntoIterator<Item = ShardId>) -> Self {
        Self { key, through: Position::End, children: children.into_iter().collect() }
    }

    /// The shard.
    #[must_use]
    pub fn key(&self) -> &ShardKey {
        &self.key
    }

    /// Where the checkpoint goes.
    #[must_use]
    pub fn through(&self) -> &Position {
        &self.through
    }

    /// What the shard became; empty unless it reached its end.
    #[must_use]
    pub fn children(&self) -> &BTreeSet<ShardId> {
        &self.children
    }
}
