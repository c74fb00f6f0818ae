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
//! | 3 **decide**: make it pending on every shard | nothing, or some objects | rolls forward: steps 4 to 6 |
//! | 4 publish: complete the objects, then write the commit record | everything | rolls forward: steps 5 and 6 |
//! | 5 enter: give it the next version of the lake log | everything, also who reads the log | rolls forward: step 6 |
//! | 6 advance: move the checkpoints of some shards | everything | rolls the other shards forward |
//!
//! Only a published epoch enters the lake log, and only an epoch that has entered advances. So the log has every epoch that has moved a
//! checkpoint, and an epoch that is not in it yet is pending, or has an intent.
//!
//! Each step is a type that consumes the one before: [`Staged`] → [`Intended`] → [`DecidedEpoch`] → [`Published`] →
//! [`Entered`] → [`Committed`].

mod epoch_id;
mod lake_guard;
pub mod lake_log;
pub mod log;
mod lost_rows;
mod manifest;
mod named_checkpoint;
mod operations;
mod protocol;
mod recover;
mod retrying_leases;
mod stores;
mod swap;
mod totals;

#[cfg(test)]
mod tests;

pub use epoch_id::EpochId;
pub(crate) use epoch_id::epoch_of;
pub use lake_guard::{LakeMatch, match_lake};
pub use lost_rows::{LostRows, lost_rows};
pub use manifest::{
    DefinitionOfEpoch, FORMAT, IdleShard, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch, PartitionValue,
    RemovedObject, ShardOfEpoch, UnreadableManifest,
};
pub use named_checkpoint::{
    CheckpointError, CheckpointName, CheckpointSummary, Cut, CutError, InvalidCheckpointName, NamedCheckpoint, SavedBy,
    SavedShard, UnreadableCheckpoint, delete_checkpoint, get_checkpoint, list_checkpoints, read_cut, save_checkpoint,
    scheduled_names,
};
pub use operations::{
    LakePart, claim_operations_stream, is_internal_stream, is_operations_stream, operations_stream, replay_stream,
    trash_key,
};
pub use protocol::{
    CommitError, Committed, DecidedEpoch, Entered, Intended, Lost, Outcome, Published, Staged, abort_uploads,
};
pub use recover::{Recovered, finish_published, recover};
pub use stores::Stores;
pub use swap::{Swap, SwapOrder};
pub use totals::{EdgeTotal, Totals};
