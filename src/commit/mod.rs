//! The commit: how an epoch becomes visible, exactly once, whatever fails in between.
//!
//! Owns: the order of the steps, and what is done about an epoch that was left half-way. Does not own: staging the objects
//! (the worker does, while it reads), the conditional writes (the checkpoints crate), the lake (`lake`).
//!
//! | after a crash behind | readers see | the next owner of a shard |
//! |---|---|---|
//! | 1 stage: parts of uploads | nothing | reads again; the uploads are swept |
//! | 2 describe: the intent | nothing | reads again; intent and uploads are swept |
//! | 3 **decide**: pending on every shard | nothing, or some objects | rolls forward: 4 and 5 |
//! | 4 publish: objects, then the commit record | everything | rolls forward: 5 |
//! | 5 advance: some shards | everything | rolls the others forward |
//!
//! The types make the order: [`Staged`] → [`Intended`] → [`DecidedEpoch`] (decided) → [`Published`] → [`Committed`].

mod lake_guard;
mod manifest;
mod named_checkpoint;
mod protocol;
mod recover;
mod retrying_leases;
mod stores;

#[cfg(test)]
mod tests;

pub use lake_guard::{LakeMatch, match_lake};
pub use manifest::{
    COMMITS, EdgeTotal, EpochId, FORMAT, INTENTS, Manifest, ObjectKind, ObjectOfEpoch, ShardOfEpoch, Totals,
    UnreadableManifest,
};
pub use named_checkpoint::{
    CheckpointError, CheckpointName, CheckpointSummary, InvalidCheckpointName, NamedCheckpoint, SavedShard,
    UnreadableCheckpoint, delete_checkpoint, get_checkpoint, list_checkpoints, save_checkpoint,
};
pub use protocol::{CommitError, Committed, DecidedEpoch, Intended, Lost, Outcome, Published, Staged, abort_uploads};
pub use recover::{Recovered, recover};
pub use stores::Stores;
