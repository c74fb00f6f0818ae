//! The worker: reads the shards whose leases it holds, runs them through its lanes, and commits epochs.
//!
//! Owns: the run as a whole, and the order of its shutdown. One task, the coordinator, owns all state of the open epoch;
//! readers (one a shard) and the keeper of the leases send it messages. Does not own: the way of a record (the pipeline
//! crate), the commit's steps (`commit`).
//!
//! The coordinator takes, in this order: a request to stop, finished work of the lanes, news of the leases, the epoch's
//! time, and only then new chunks, and these only while a lane is free. So what is under way is finished before more is
//! taken on, and readers wait on a bounded channel and a budget of bytes.
//!
//! Invariants:
//!
//! 1. A chunk enters the open epoch only if it begins where the epoch, or the lease's checkpoint, ends for its shard.
//! 2. What an epoch's chunks became (rows, dead letters, raw lines) is in that epoch's objects, all of it, or the epoch
//!    never happens.
//! 3. After an epoch that did not happen, no chunk read before it enters a later one: its readers are replaced.

mod leases;
mod reader;
mod readers;

mod coordinator;

mod epoch;

mod compute;

mod catch_up;
mod progress;

use std::sync::Arc;
use std::time::Duration;

use checkpoints::LeaseOwner;
use pipeline::encode::{EncodeError, EncoderConfig};
use pipeline::lane::LaneConfig;

use crate::clock::SharedClock;
use crate::commit::{CommitError, Stores};
use crate::lake::LakeError;
use crate::raw::{RawError, RawSink};
use crate::source::ShardSource;

pub use compute::Compute;
pub use coordinator::run;
pub use progress::{Committed, Progress};

/// What a worker runs on.
pub struct WorkerConfig {
    /// This process start's own name.
    pub me: LeaseOwner,
    /// The streams; their places match the graph's sources.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// Lake and leases.
    pub stores: Stores,
    /// Where records go as received, if not into the lake.
    pub raw_sink: Option<Arc<dyn RawSink>>,
    /// Tells the time of day.
    pub clock: SharedClock,
    /// Where the lanes run.
    pub compute: Compute,
    /// What the lanes need.
    pub lanes: Arc<LaneConfig>,
    /// How many lanes.
    pub threads: usize,
    /// Bytes of memory for records, rows and parts.
    pub memory: usize,
    /// How Parquet files are written.
    pub encoder: EncoderConfig,
    /// Encoded bytes at which a file is closed.
    pub file_bytes: u64,
    /// Objects that are open at once.
    pub open_objects: usize,
    /// When an epoch ends.
    pub epoch_interval: Duration,
    /// Bytes read at which it ends as well.
    pub epoch_input_bytes: u64,
    /// When a lease may be taken from an owner that is silent.
    pub failover: Duration,
    /// When from one that was asked.
    pub hand_off: Duration,
    /// Whether to end once every shard has been read to its tip and committed.
    pub until_caught_up: bool,
}

/// A run that failed. What was committed before stays.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A commit could not be brought to its end.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The lake failed while objects were staged.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lease store failed.
    #[error(transparent)]
    Leases(#[from] checkpoints::StoreError),
    /// The raw landing failed.
    #[error(transparent)]
    Raw(#[from] RawError),
    /// Rows could not be encoded: a fault of the program.
    #[error("rows could not be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// Shards could not be read on, or their pending epochs could not be finished.
    #[error("{} not read to the end:\n{}", if problems.len() == 1 { "a shard was" } else { "shards were" }, problems.join("\n"))]
    Shards {
        /// One sentence for each.
        problems: Vec<String>,
    },
}
