//! The rules of the protocol, each left out in turn: the model must find each.
//!
//! Owns: the list of mutations. Does not own: which property fails (`check`), and how a rule is broken (`world`, `worker`).

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The decision does not check who holds the leases.
    SkipHolder,
    /// The worker that asked for a lease counts as its holder.
    AskerDecides,
    /// The decision does not check where the checkpoints are.
    SkipCheckpoint,
    /// The decision does not check whether something is pending.
    SkipPending,
    /// The decision is one write for each row, not a transaction.
    DecideRowByRow,
    /// Objects are completed before the decision.
    PublishBeforeDecide,
    /// The intent is written after the decision.
    DecideBeforeIntent,
    /// The intent of a refused epoch is removed immediately.
    RemoveIntentOfRefused,
    /// Checkpoints move before objects are completed.
    AdvanceBeforePublish,
    /// Checkpoints move once the objects are complete, before the commit record is written.
    AdvanceBeforeRecord,
    /// Checkpoints move once the commit record is written, before the epoch enters the lake log.
    AdvanceBeforeEnter,
    /// The epoch enters the lake log before its commit record is written.
    EnterBeforeRecord,
    /// Recovery does not enter an epoch whose commit record it finds.
    RecordIsEntered,
    /// The holder of a lease can move its checkpoint, whatever is pending.
    AdvanceOnOwnership,
    /// An epoch is published although one of its uploads is gone.
    PublishLost,
    /// Publishing stops at the first upload that is gone, and a rollback does not abort the others.
    RollBackWithoutAbort,
    /// An upload that is gone counts as lost, even if its object exists.
    GoneIsLost,
    /// A rollback deletes objects after its transaction.
    DeleteAfterRollBack,
    /// An upload can be completed a second time, and replaces the object.
    CompleteReplaces,
    /// A shard is read although an epoch is pending on its lease.
    ResumeWithoutRecovery,
    /// Chunks of replaced readers are accepted.
    ReadersLiveOn,
    /// A child is read before its parent's end is committed.
    ChildBeforeParent,
    /// The store breaks a promise: a late request takes the upload away, and its object becomes visible later.
    SlowCompletion,
    /// A gained lease does not end an open epoch that has records of its shard.
    GainedKeepsLedger,
    /// The coordinator does not report a lease that it finds in another worker's name.
    HideDisownedLeases,
    /// Rows that were read one by one, some pending and some not, prove that an epoch is torn.
    TornByPending,
    /// A rollback aborts no uploads, since publishing has tried them all.
    AbortNothing,
    /// A rollback checks no row, and undoes the decision wherever it is pending.
    RollBackAnyway,
    /// A decision without a reply counts as refused, and no row is read.
    LostIsRefused,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 26] = [
        Mutation::SkipHolder,
        Mutation::AskerDecides,
        Mutation::SkipCheckpoint,
        Mutation::SkipPending,
        Mutation::DecideRowByRow,
        Mutation::PublishBeforeDecide,
        Mutation::DecideBeforeIntent,
        Mutation::RemoveIntentOfRefused,
        Mutation::AdvanceBeforePublish,
        Mutation::AdvanceBeforeRecord,
        Mutation::AdvanceBeforeEnter,
        Mutation::EnterBeforeRecord,
        Mutation::RecordIsEntered,
        Mutation::AdvanceOnOwnership,
        Mutation::PublishLost,
        Mutation::RollBackWithoutAbort,
        Mutation::GoneIsLost,
        Mutation::DeleteAfterRollBack,
        Mutation::CompleteReplaces,
        Mutation::ResumeWithoutRecovery,
        Mutation::ReadersLiveOn,
        Mutation::ChildBeforeParent,
        Mutation::SlowCompletion,
        Mutation::GainedKeepsLedger,
        Mutation::HideDisownedLeases,
        Mutation::TornByPending,
    ];

    /// Redundant rules: if one of them is left out alone, no property fails.
    pub const REDUNDANT: [Mutation; 3] = [Mutation::AbortNothing, Mutation::RollBackAnyway, Mutation::LostIsRefused];

    /// The mutation of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::REDUNDANT).find(|mutation| mutation.name() == name)
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        kebab_case(&format!("{self:?}"))
    }
}

/// `SkipHolder` as `skip-holder`.
pub(crate) fn kebab_case(camel: &str) -> String {
    let mut name = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
