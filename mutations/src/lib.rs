//! Ways to break the protocol on purpose, one at a time, to show that its tests find each.
//!
//! Owns: the list of mutations, and which of them is on in this thread. Does not own what each one breaks: the product code
//! asks [`mutated!`] at the place that it breaks. Without the feature `switches`, which only the simulation enables, the
//! macro is the constant `false` and nothing of a mutation is compiled into the product.
//!
//! Conditions that other conditions imply are not in the list:
//! - *Nothing is pending where a decision is made.* A worker finishes a pending epoch before it reads on. So a decision over
//!   a pending epoch would not begin at the checkpoint, or would not be the holder's.
//! - *No shard has advanced when an epoch is rolled back.* Its objects would be visible, so none would be missing.
//! - *A worker never takes a decision for refused that took effect.* The epoch is found pending, and finished, when its
//!   shards are read again.

/// Lists the mutations once: the enum, [`Mutation::ALL`] and their documentation come from it.
macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One way to break the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutation {
            $($(#[$doc])* $name,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$name,)*];
        }
    };
}

mutations! {
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
    /// A rollback leaves visible objects as they are.
    RollBackWithoutDeleting,
    /// Dead letters are not in the commit.
    ForgetDeadLetters,
    /// Raw lines are not in the commit.
    ForgetRawLines,
    /// An epoch without rows is not committed: positions move for what survived, not for what was read.
    SkipEpochsWithoutRows,
    /// The rows of child shards say that reading starts at their tips.
    ChildFromItsTip,
    /// A worker counts as caught up when its own shards are at their tips, whatever others have still to do.
    CaughtUpByItself,
    /// A parent that a scan of the table does not show counts as done.
    TrustScans,
    /// The coordinator does not tell the lease manager of a lease that it found to be another worker's.
    HideDisownedLeases,
    /// A shard is read before its parents were read to their ends.
    ChildBeforeParent,
    /// Reading continues at the record that was read last, not after it.
    ResumeAtRecord,
    /// A pending epoch on a lease that was gained is ignored.
    SkipRecovery,
    /// Of the shards that wait for a pending epoch to be recovered, only the first is read afterwards.
    ForgetWaitingShards,
    /// After a refused decision the same readers read on.
    ReadOnAfterRefusal,
    /// Rows of an abandoned epoch stay in the lanes.
    KeepRowsOfAbortedEpoch,
    /// Events of readers that were replaced are accepted.
    AcceptReplacedReaders,
    /// A restarted worker names its epochs as the ones before.
    NamesUsedTwice,
    /// A sweep removes what is pending.
    SweepWhatIsPending,
    /// A sweep removes what its worker may still decide.
    SweepWhatMayBeDecided,
    /// A shard that fails to be read starts again with each failed read, so that it is never released.
    FailedReadsAreProgress,
    /// The lease manager ends at the first renewal that fails, and does not wait until the lease table is back.
    DropLeasesInAnOutage,
    /// An epoch is given up at the first failure of a service, and not kept until the service is back.
    GiveUpAtOnce,
    /// Lost rows are made again at the beginning of their shards.
    RebuildFromStart,
    /// Lost rows are made again without settling the epochs that may have been decided in them.
    RebuildWithoutIntents,
    /// A worker starts although rows are lost, and makes them at the start of their streams.
    IgnoreLostRows,
    /// The records of a stream that replaced another one are committed under its name.
    TrustStreamName,
    /// `latest` means the time of the worker's clock.
    LatestByOwnClock,
    /// Readers of the commit log trust a roll-up and the names after its horizon, and do not check that nothing is missing.
    TrustRollUp,
    /// Checkpoints move before the epoch is in the lake log.
    AdvanceBeforeEntering,
    /// An epoch enters the lake log before its objects are visible.
    EnterBeforePublishing,
    /// An epoch enters at the end of the lake log, whether or not it is in a version after its head.
    EnterWithoutReading,
    /// A version that is taken counts as the epoch's own, whoever wrote it.
    TakeRefusalForEntered,
    /// Entries of the lake log are trimmed whatever the heads of intents are.
    TrimAboveIntent,
    /// The intents are listed before the versions to be trimmed are chosen.
    ListIntentsBeforeChoosing,
    /// Whoever writes an entry does not confirm the one before it.
    EnterWithoutConfirming,
    /// The tip of one shard says of all shards of the worker what had arrived.
    TipOfAnotherShard,
    /// An operation removes objects before it is decided.
    RemoveBeforeDeciding,
    /// An operation removes objects before it is in the lake log.
    RemoveBeforeEntering,
    /// An operation removes objects after its rows have advanced, when nobody must finish it any more.
    RemoveAfterAdvancing,
    /// The objects that an operation replaces stay.
    KeepWhatIsReplaced,
    /// Objects are deleted before their copies are in the trash.
    DeleteBeforeKeeping,
    /// An operation is planned before its leases are held.
    PlanBeforeLeases,
    /// An operation does not finish what is pending on its parts of the lake.
    LeaveOperationsPending,
    /// The start of a worker does not finish the operations that are pending.
    StartWithoutFinishing,
    /// An operation adds and removes objects in parts of the lake that it does not hold.
    OperateOutsideParts,
    /// Lost rows are made again without removing what operations in them remove.
    ForgetRemovalsOfLostRows,
    /// A checkpoint is one scan of the lease table.
    CutOfOneScan,
    /// A checkpoint has the shards of an epoch that have advanced, and not those on which it is pending.
    CutWithoutPending,
    /// A checkpoint names a version of the lake log that is read after its positions.
    VersionAfterCut,
    /// The schedule removes the newest checkpoints, and keeps the oldest.
    RemoveNewestCheckpoints,
    /// A replay is promoted although objects that it replaces are not live any more.
    PromoteWhatIsNotLive,
    /// An operation that swaps objects deletes the old ones before their copies are in the trash.
    SwapBeforeKeeping,
    /// An undo brings objects back under their old names.
    UndoUnderOldNames,
    /// A slice of a stream has records after its end.
    SliceNotCut,
}

/// Whether a mutation is switched on: `if mutated!(SkipRecovery) { … }`.
#[macro_export]
macro_rules! mutated {
    ($name:ident) => {
        $crate::Mutation::$name.is_on()
    };
}

impl Mutation {
    /// Whether it is switched on.
    #[cfg(not(feature = "switches"))]
    #[must_use]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether it is switched on.
    #[cfg(feature = "switches")]
    #[must_use]
    pub fn is_on(self) -> bool {
        switch::get() == Some(self)
    }

    /// Switches one on in this thread, or all off.
    #[cfg(feature = "switches")]
    pub fn switch(which: Option<Mutation>) {
        switch::set(which);
    }
}

#[cfg(feature = "switches")]
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
