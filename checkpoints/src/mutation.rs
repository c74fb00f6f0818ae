//! Faults of the protocol that can be switched on, one at a time, to see that the tests of the protocol find them.
//!
//! Not in the list is what other conditions imply: that nothing is pending where something is decided, for one. A worker
//! finishes what is pending before it reads on, so a decision over it would not begin at the checkpoint, or not be the
//! holder's. And a roll back need not ask whether shards have advanced: their objects would be visible, and none missing. A decision
//! that is taken for refused though it took effect is found pending, and rolled back, when its shards are read again.
//!
//! Owns: the list, and which of them is on in this thread. Does not own: what each breaks: that stands where it breaks it,
//! also in the worker. Without the feature `mutations`, which only the simulation asks for, none can be switched on, and
//! [`Mutation::is_on`] is `false` at compile time: nothing of them is in the product.

/// One way to break the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A worker decides on shards that it does not hold: no fencing.
    DecideWithoutHolding,
    /// A range is decided wherever the checkpoint is.
    DecideAnywhere,
    /// A decision takes effect on the shards that meet its conditions, whatever the others do.
    DecideInPart,
    /// Whoever knows a manifest moves checkpoints to its end, pending or not.
    AdvanceWhatIsNotPending,
    /// Objects become visible before the epoch is decided.
    PublishBeforeDeciding,
    /// Checkpoints move before the objects are visible.
    AdvanceBeforePublishing,
    /// The commit record is written before the objects are visible.
    RecordBeforeObjects,
    /// The intent is removed before the checkpoints have moved.
    IntentRemovedEarly,
    /// A roll back leaves visible objects as they are.
    RollBackWithoutDeleting,
    /// Dead letters are not in the commit.
    ForgetDeadLetters,
    /// Raw lines are not in the commit.
    ForgetRawLines,
    /// An epoch of which nothing became a row is not committed: positions move for what survived, not for what was read.
    SkipEpochsWithoutRows,
    /// The rows of shards that came of others say that they are read from their tips on.
    ChildFromItsTip,
    /// A worker has caught up when its own shards are at their tips, whatever others have still to do.
    CaughtUpByItself,
    /// A parent that a look at the table does not show counts as done.
    TrustLooks,
    /// The keeper of the leases is not told of one that the coordinator finds to be another's.
    KeeperIsNotTold,
    /// A shard is read before its parents were read to their ends.
    ChildBeforeParent,
    /// Reading goes on at the record that was read last, not behind it.
    ResumeAtRecord,
    /// What is pending on a lease that was gained is passed over.
    SkipRecovery,
    /// After a refused decision the same readers read on.
    ReadOnAfterRefusal,
    /// Rows of an epoch that was given up stay in the lanes.
    KeepRowsOfAbortedEpoch,
    /// What replaced readers tell is heard.
    HearReplacedReaders,
    /// A restarted worker names its epochs as the ones before.
    NamesUsedTwice,
    /// A sweep removes what is pending.
    SweepWhatIsPending,
    /// A sweep removes what its worker may still decide.
    SweepWhatMayBeDecided,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 25] = [
        Mutation::DecideWithoutHolding,
        Mutation::DecideAnywhere,
        Mutation::DecideInPart,
        Mutation::AdvanceWhatIsNotPending,
        Mutation::PublishBeforeDeciding,
        Mutation::AdvanceBeforePublishing,
        Mutation::RecordBeforeObjects,
        Mutation::IntentRemovedEarly,
        Mutation::RollBackWithoutDeleting,
        Mutation::ForgetDeadLetters,
        Mutation::ForgetRawLines,
        Mutation::SkipEpochsWithoutRows,
        Mutation::ChildFromItsTip,
        Mutation::CaughtUpByItself,
        Mutation::TrustLooks,
        Mutation::KeeperIsNotTold,
        Mutation::ChildBeforeParent,
        Mutation::ResumeAtRecord,
        Mutation::SkipRecovery,
        Mutation::ReadOnAfterRefusal,
        Mutation::KeepRowsOfAbortedEpoch,
        Mutation::HearReplacedReaders,
        Mutation::NamesUsedTwice,
        Mutation::SweepWhatIsPending,
        Mutation::SweepWhatMayBeDecided,
    ];

    /// Whether it is switched on.
    #[cfg(not(feature = "mutations"))]
    #[must_use]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether it is switched on.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn is_on(self) -> bool {
        switch::get() == Some(self)
    }

    /// Switches one on in this thread, or all off.
    #[cfg(feature = "mutations")]
    pub fn switch(which: Option<Mutation>) {
        switch::set(which);
    }
}

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    pub(super) fn get() -> Option<Mutation> {
        ON.get()
    }

    pub(super) fn set(which: Option<Mutation>) {
        ON.set(which);
    }
}
