//! The protocol's rules, each left out in turn: the model must notice.
//!
//! Owns: which rule a mutation breaks, and which property says so. Does not own: how it is broken (`world`, `worker`).

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The decision does not ask who holds the leases.
    SkipHolder,
    /// The one who asked for a lease counts as its holder.
    AskerDecides,
    /// The decision does not ask where the checkpoints are.
    SkipCheckpoint,
    /// The decision does not ask whether something is pending.
    SkipPending,
    /// The decision is a write per row, no transaction.
    DecideRowByRow,
    /// Objects are completed before the decision.
    PublishBeforeDecide,
    /// The intent is written after the decision.
    DecideBeforeIntent,
    /// The intent of a refused epoch is removed at once.
    RemoveIntentOfRefused,
    /// Checkpoints are advanced before objects are completed.
    AdvanceBeforePublish,
    /// Checkpoints are advanced as soon as the objects are there, before the commit record.
    AdvanceBeforeRecord,
    /// A checkpoint is advanced if the worker holds the lease, whatever is pending.
    AdvanceOnOwnership,
    /// An epoch is published without an upload that is gone.
    PublishLost,
    /// Publishing stops at the first upload that is gone, and a roll back does not abort the others.
    RollBackWithoutAbort,
    /// An upload that is gone counts as lost, whether its object is there or not.
    GoneIsLost,
    /// A roll back deletes objects after its transaction.
    DeleteAfterRollBack,
    /// An upload can be completed again, and replaces the object.
    CompleteReplaces,
    /// A lease with something pending is read on.
    ResumeWithoutRecovery,
    /// Chunks of readers that were replaced are taken.
    ReadersLiveOn,
    /// A child is read before its parent's end is committed.
    ChildBeforeParent,
    /// The store breaks its promise: a request that arrives late takes the upload away, and makes the object visible later.
    SlowCompletion,
    /// A lease that is gained does not end an open epoch that has records of its shard.
    GainedKeepsBooks,
    /// The keeper is not told of a lease that the coordinator finds to be another's.
    KeeperIsNotTold,
    /// Rows that were read one by one, some pending and some not, prove an epoch torn.
    TornByPending,
    /// A roll back aborts no uploads, though publishing tries them all.
    AbortNothing,
    /// A roll back asks of no row, and takes the decision back wherever it is pending.
    RollBackAnyway,
    /// A decision without an answer is taken for refused, and no row is read.
    LostIsRefused,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 23] = [
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
        Mutation::GainedKeepsBooks,
        Mutation::KeeperIsNotTold,
        Mutation::TornByPending,
    ];

    /// Rules that can be left out: by the others, nothing goes wrong. They are a second lock on the door.
    pub const REDUNDANT: [Mutation; 3] = [Mutation::AbortNothing, Mutation::RollBackAnyway, Mutation::LostIsRefused];

    /// The mutation of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::REDUNDANT).find(|mutation| mutation.name() == name)
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}
