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
    /// A roll back does not abort uploads first.
    RollBackWithoutAbort,
    /// A roll back deletes objects after its transaction.
    DeleteAfterRollBack,
    /// A roll back asks only of the first row whether the epoch is pending.
    RollBackAdvanced,
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
    /// Rows that were read one by one, some pending and some not, prove an epoch torn.
    TornByPending,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 22] = [
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
        Mutation::DeleteAfterRollBack,
        Mutation::RollBackAdvanced,
        Mutation::CompleteReplaces,
        Mutation::ResumeWithoutRecovery,
        Mutation::ReadersLiveOn,
        Mutation::ChildBeforeParent,
        Mutation::SlowCompletion,
        Mutation::GainedKeepsBooks,
        Mutation::TornByPending,
    ];

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
