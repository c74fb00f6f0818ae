//! The worker: reads the shards whose leases it holds, runs their records through its lanes, and commits epochs.
//!
//! Owns: a run, from its start to its shutdown. One task, the coordinator, decides what happens; the tasks of the other parts
//! send it messages. Does not own: the way of a record (the pipeline crate), the steps of a commit (`commit`).
//!
//! Each part owns one piece of state, with private fields:
//!
//! | part | its state |
//! | --- | --- |
//! | `leases` | which leases this worker holds, requests and releases |
//! | `shards`, `recoveries`, `readers` | for each shard that is held: the recovery that it waits for, or its reader and how far it has read; whether it must be released |
//! | `lanes` | which lanes are idle, and the work that is running |
//! | `epoch` | for each group of shards: what was read since its last commit |
//! | `catch_up` | how far the run is from being caught up |
//! | `progress`, `live`, `fleet` | figures for whoever watches; nothing is decided by them |
//! | `coordinator` | none: it knows the parts, and the order of things |
//!
//! Invariants:
//!
//! 1. A chunk enters the open epoch only if it begins where the epoch, or the lease's checkpoint, ends for its shard.
//! 2. What an epoch's chunks became (rows, dead letters, raw lines) is completely in the objects of that epoch, or the epoch
//!    never happens.
//! 3. After an epoch that did not happen, no chunk that was read before it enters a later one: its readers are replaced.

mod leases;

mod shards;

mod recoveries;

mod readers;

mod reader;

mod lanes;

mod compute;

mod memory_plan;

mod epoch;

mod catch_up;

mod coordinator;

mod progress;

mod pulse;

mod live;

mod fleet;

mod stop;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::LeaseOwner;
use pipeline::encode::{EncodeError, EncoderConfig};
use pipeline::lane::LaneConfig;

use crate::clock::SharedClock;
use crate::commit::log::RollUpConfig;
use crate::commit::{CommitError, EpochId, Stores};
use crate::config::WorkerSettings;
use crate::lake::{DefinitionClaims, DefinitionError, LakeError};
use crate::raw::{RawError, RawSink};
use crate::settings::units::write_duration;
use crate::source::{ShardSource, SourceError};

pub use compute::Compute;
pub use coordinator::run;
pub use fleet::FleetFigures;
pub use live::{LiveEpoch, LiveShard};
pub use progress::{CommitStep, Committed, Observer, Progress, StepTotal};
pub use pulse::Pulse;

/// What a worker runs on.
pub struct WorkerConfig {
    /// The name of this process: no other start has it.
    pub me: LeaseOwner,
    /// The streams, in the order of the graph's sources.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// Lake and leases.
    pub stores: Stores,
    /// The service that takes records as received, if they don't go into the lake.
    pub raw_sink: Option<Arc<dyn RawSink>>,
    /// The wall clock.
    pub clock: SharedClock,
    /// Where the lanes run.
    pub compute: Compute,
    /// What the lanes need.
    pub lanes: Arc<LaneConfig>,
    /// Limits, intervals and sizes.
    pub settings: WorkerSettings,
    /// How Parquet files are written.
    pub encoder: EncoderConfig,
    /// When it writes roll-ups of the commit log.
    pub roll_ups: RollUpConfig,
    /// Entries of the lake log between two snapshots.
    pub snapshot_every: u64,
    /// Where the lake learns what its files are written with. `None`: it does not.
    pub definitions: Option<DefinitionClaims>,
    /// What is done beside the loop, after commits. None of it is needed to read or to commit.
    pub after_commit: Vec<Box<dyn AfterCommit>>,
    /// Whether to end once every shard has been read to its tip and committed.
    pub until_caught_up: bool,
}

/// Work beside the loop of a worker, such as saving checkpoints by a schedule. It builds on what is committed, so the worker does
/// not know it.
#[async_trait]
pub trait AfterCommit: Send + Sync {
    /// Notes a commit of this worker. What takes time is done in a task of its own.
    async fn after_commit(&mut self, epoch: &EpochId);

    /// Waits, because the run has ended, for what was begun; but not for long.
    async fn finish(&mut self);
}

/// Why a run failed. Everything that was committed before stays.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A commit could not be finished.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The lake failed while objects were staged.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A dataset's definition does not fit what the lake has. None of the rows that were made with it is visible.
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    /// The lease store failed.
    #[error(transparent)]
    Leases(#[from] checkpoints::StoreError),
    /// A stream was replaced by another one, or it cannot be found out whether it was.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The raw landing failed.
    #[error(transparent)]
    Raw(#[from] RawError),
    /// Rows could not be encoded, which is a bug.
    #[error("rows could not be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The worker was asked to stop, and its commits did not finish in time.
    #[error(
        "the worker was stopped before its commits finished ([stop] within = {}). {} Nothing is lost or doubled: they are read again \
         from the last commit, unless their commit was decided, which the next worker then finishes",
        write_duration(*within),
        left(*shards)
    )]
    StopTimedOut {
        /// The time it had.
        within: Duration,
        /// Shards of which records were read and not committed.
        shards: usize,
    },
    /// Shards could not be read, or their pending epochs could not be recovered.
    #[error("{} not read to the end:\n{}", if problems.len() == 1 { "a shard was" } else { "shards were" }, problems.join("\n"))]
    Shards {
        /// One sentence for each.
        problems: Vec<String>,
    },
}

impl WorkerError {
    /// Whether the user can fix it with another configuration.
    pub fn is_usage(&self) -> bool {
        matches!(self, WorkerError::Definitions(error) if error.is_usage())
    }
}

/// What a worker that was cut off leaves, in words.
fn left(shards: usize) -> String {
    match shards {
        0 => "No record that it had read was left uncommitted.".to_owned(),
        1 => "Records of 1 shard were read and not committed.".to_owned(),
        _ => format!("Records of {shards} shards were read and not committed."),
    }
}
