//! The rules of the lake log, each left out in turn: the model must find each.
//!
//! Owns: the list of mutations. Does not own: which property fails (`check`), and how a rule is broken (`store`, `writer`).

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogMutation {
    /// The entry is written before the commit record.
    EntryBeforeRecord,
    /// The entry is written before the decision.
    EntryBeforeDecide,
    /// The checkpoint moves before the entry is written.
    AdvanceBeforeEntry,
    /// The entry is written after the newest one, whatever the versions after the head are.
    SkipVersions,
    /// Whoever recovers an epoch starts from the newest version that it knows, not from the head of the intent.
    OwnHead,
    /// A refused entry counts as written.
    IgnoreRefusal,
    /// After a refused entry, the next version is tried without reading the one that was taken.
    TryNextVersion,
    /// An entry whose answer was lost counts as written.
    TrustLostAnswer,
    /// After a lost answer, the next version is tried without reading this one.
    SkipLostVersion,
    /// Writing an entry replaces what has its key.
    PutReplaces,
    /// Whoever writes an entry does not confirm that the one before it is still there.
    EnterWithoutConfirming,
    /// An older entry is believed, though the entries above it name another change.
    TrustLowestEntry,
    /// If an older entry is gone, the change has not entered, whether or not its intent is there.
    GoneIsNotEntered,
    /// A trim disregards the heads of intents.
    TrimAboveHeads,
    /// A trim lists the intents before it chooses the version.
    IntentsBeforeVersion,
    /// A trim may delete young entries that no snapshot has.
    TrimYoung,
    /// A trim may delete the newest entry.
    TrimNewest,
    /// The intent is removed before the entry is written.
    RemoveIntentEarly,
    /// The decision of an operation checks neither the lease nor the number.
    RewriteWithoutLease,
    /// An operation is planned before its lease is taken.
    PlanBeforeLease,
    /// An operation's inputs are removed before its entry is written.
    RemoveBeforeEnter,
    /// The checkpoint of an operation moves before its inputs are removed.
    AdvanceBeforeRemove,
}

impl LogMutation {
    /// All of them.
    pub const ALL: [LogMutation; 22] = [
        LogMutation::EntryBeforeRecord,
        LogMutation::EntryBeforeDecide,
        LogMutation::AdvanceBeforeEntry,
        LogMutation::SkipVersions,
        LogMutation::OwnHead,
        LogMutation::IgnoreRefusal,
        LogMutation::TryNextVersion,
        LogMutation::TrustLostAnswer,
        LogMutation::SkipLostVersion,
        LogMutation::PutReplaces,
        LogMutation::EnterWithoutConfirming,
        LogMutation::TrustLowestEntry,
        LogMutation::GoneIsNotEntered,
        LogMutation::TrimAboveHeads,
        LogMutation::IntentsBeforeVersion,
        LogMutation::TrimYoung,
        LogMutation::TrimNewest,
        LogMutation::RemoveIntentEarly,
        LogMutation::RewriteWithoutLease,
        LogMutation::PlanBeforeLease,
        LogMutation::RemoveBeforeEnter,
        LogMutation::AdvanceBeforeRemove,
    ];

    /// The mutation of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutation| mutation.name() == name)
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        crate::mutation::kebab_case(&format!("{self:?}"))
    }
}
