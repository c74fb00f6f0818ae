//! The commit: how an epoch becomes visible, exactly once, whatever fails in between.
//!
//! Owns: the order of the steps, finishing an epoch that was left half-way, and reading what was committed ([`log`]). Does not
//! own: staging the objects (the worker does that while it reads), the conditional writes (the checkpoints crate), the lake
//! (`lake`).
//!
//! | step after which the worker crashes | what readers see | what the next holder of a shard does |
//! |---|---|---|
//! | 1 stage: upload the parts | nothing | reads again; the uploads are swept |
//! | 2 intent: write the intent | nothing | reads again; intent and uploads are swept |
//! | 3 **decide**: make it pending on every shard | nothing, or some objects | rolls forward: steps 4 and 5 |
//! | 4 publish: complete the objects, then write the commit record | everything | rolls forward: step 5 |
//! | 5 advance: move the checkpoints of some shards | everything | rolls the other shards forward |
//!
//! Each step is a type that consumes the one before: [`Staged`] → [`Intended`] → [`DecidedEpoch`] → [`Published`] →
//! [`Committed`].

mod epoch_id;
mod lake_guard;
pub mod log;
mod lost_rows;
mod manifest;
mod named_checkpoint;
mod protocol;
mod recover;
mod retrying_leases;
mod stores;
mod totals;

#[cfg(test)]
mod tests;

pub use epoch_id::EpochId;
pub use lake_guard::{LakeMatch, match_lake};
pub use lost_rows::{LostRows, lost_rows};
pub use manifest::{
    DefinitionOfEpoch, FORMAT, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch, PartitionValue, ShardOfEpoch,
    UnreadableManifest,
};
pub use named_checkpoint::{
    CheckpointError, CheckpointName, CheckpointSummary, Cut, CutError, InvalidCheckpointName, NamedCheckpoint, SavedBy,
    SavedShard, UnreadableCheckpoint, delete_checkpoint, get_checkpoint, list_checkpoints, read_cut, save_checkpoint,
    scheduled_names,
};
pub use protocol::{CommitError, Committed, DecidedEpoch, Intended, Lost, Outcome, Published, Staged, abort_uploads};
pub use recover::{Recovered, recover};
pub use stores::Stores;
pub use totals::{EdgeTotal, Totals};
