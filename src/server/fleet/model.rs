//! The value of `/api/fleet`.
//!
//! Owns: its fields, which `docs/status-page.md` documents. Fields are only added, and keep their meaning. Ages are in seconds, other times
//! are RFC 3339 in UTC. What is not known is left out. Does not own: where the figures come from.

use std::collections::BTreeMap;

use checkpoints::{LeaseOwner, Position, ShardId, StreamName};
use serde::Serialize;

use crate::commit::ObjectKind;
use crate::commit::log::{ObjectTotal, Watermark};
use crate::inspect::LogLine;
use crate::named_checkpoints::EndingCheckpoint;
use crate::replay::status::ReplayStatus;
use crate::source::losses::Loss;

/// The whole value.
#[derive(Debug, Serialize)]
pub(super) struct Fleet<'f> {
    pub(super) format: u32,
    /// `running` or `stopping`; before there is a worker, `starting`, and nothing else is known.
    pub(super) state: &'static str,
    pub(super) version: &'static str,
    pub(super) generated_at: String,
    /// Whether the lease table and the log were read at least once.
    pub(super) is_loaded: bool,
    /// What is wrong now, the worst first.
    pub(super) problems: &'f [Problem],
    pub(super) worker: Worker<'f>,
    pub(super) workers: Vec<FleetWorker>,
    pub(super) shards: Vec<Shard>,
    pub(super) shard_counts: ShardCounts,
    pub(super) graph: GraphRates,
    pub(super) epochs: Vec<Epoch>,
    pub(super) lake: Option<LakeFacts<'f>>,
    pub(super) replays: &'f [ReplayStatus],
    pub(super) operations: &'f [Operation],
    pub(super) losses: &'f [Loss],
    pub(super) ending_checkpoints: &'f [EndingCheckpoint],
    pub(super) charts: Charts,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// `page`, `ticket` or `note`.
    pub severity: Severity,
    /// The name of the alert that says the same.
    pub name: &'static str,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What to type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody must act now.
    Page,
    /// Somebody must act today.
    Ticket,
    /// Good to know.
    Note,
}

/// This process.
#[derive(Debug, Serialize)]
pub(super) struct Worker<'f> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'f LeaseOwner>,
    /// `run`, `until-caught-up` or `replay`.
    pub(super) mode: &'static str,
    pub(super) started_at: String,
    pub(super) uptime_s: f64,
    pub(super) lake: &'f str,
    pub(super) place: &'f str,
    pub(super) commit_interval_s: f64,
    pub(super) ready: bool,
    pub(super) live: bool,
    pub(super) reasons: Vec<String>,
    pub(super) records: u64,
    pub(super) bytes_read: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) records_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_per_s: Option<f64>,
    pub(super) epochs_committed: u64,
    pub(super) epochs_aborted: u64,
    pub(super) rolled_forward: u64,
    pub(super) rolled_back: u64,
}

/// A worker of the fleet, from the lease table.
#[derive(Debug, Serialize)]
pub(super) struct FleetWorker {
    pub(super) id: LeaseOwner,
    /// Whether it is this process.
    pub(super) is_this: bool,
    /// `alive` or `silent`.
    pub(super) state: &'static str,
    /// For how long its leases have not changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) silent_s: Option<f64>,
    pub(super) shards: u64,
    pub(super) handing_over: u64,
    pub(super) bytes_per_s: f64,
}

/// One shard.
#[derive(Debug, Serialize)]
pub(super) struct Shard {
    pub(super) stream: StreamName,
    pub(super) shard: ShardId,
    /// As `leases list` says: `read`, `handing over`, `silent holder`, `free`, `waits for parents`, `done`.
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<LeaseOwner>,
    /// Whether this process reads it. Only then what follows `pending` is known, apart from `bytes_per_s`.
    pub(super) is_here: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handed_to: Option<LeaseOwner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint: Option<Position>,
    /// The manifest that is decided and not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<String>,
    /// Everything that arrived before this time is in the lake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complete_through: Option<String>,
    /// The age of the next record, as the source says, or at least how old `complete_through` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) behind_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) behind_bytes: Option<u64>,
    /// The share of the stream's retention that `behind_s` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retention_used: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at_tip: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) records_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uncommitted_records: Option<u64>,
    /// The age of the oldest record that was read and is not committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest_uncommitted_s: Option<f64>,
    /// For how long something has been read that is not committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uncommitted_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) committed_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<String>,
}

/// All shards, also those that are not in the list because it is bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct ShardCounts {
    pub(super) total: u64,
    pub(super) read: u64,
    pub(super) free: u64,
    pub(super) done: u64,
    pub(super) listed: u64,
}

/// The stage graph with what passes along its edges in this process.
#[derive(Debug, Serialize)]
pub(super) struct GraphRates {
    pub(super) nodes: Vec<GraphNode>,
    pub(super) edges: Vec<GraphEdge>,
}

#[derive(Debug, Serialize)]
pub(super) struct GraphNode {
    pub(super) name: String,
    pub(super) detail: String,
    /// `source`, `stage` or `sink`.
    pub(super) kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct GraphEdge {
    pub(super) id: String,
    /// Numbers of nodes.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) dead_letters: bool,
    pub(super) records: u64,
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) records_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_per_s: Option<f64>,
}

/// An open epoch of this process, or a decided one of any worker that is not finished.
#[derive(Debug, Serialize)]
pub(super) struct Epoch {
    pub(super) epoch: String,
    /// `open` or `decided`.
    pub(super) state: &'static str,
    pub(super) shards: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) age_s: Option<f64>,
}

/// What the log of the lake says.
#[derive(Debug, Serialize)]
pub(super) struct LakeFacts<'f> {
    pub(super) version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entered_at: Option<&'f str>,
    pub(super) epochs: u64,
    pub(super) records: u64,
    /// Live rows by dataset.
    pub(super) rows: &'f BTreeMap<String, u64>,
    pub(super) objects: &'f BTreeMap<ObjectKind, ObjectTotal>,
    pub(super) watermarks: &'f [Watermark],
    /// The newest versions, the newest first.
    pub(super) commits: &'f [LogLine],
    /// The newest objects, the newest first.
    pub(super) files: &'f [RecentFile],
    pub(super) dead_letters: &'f [DeadLetterCode],
}

/// An object that was committed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RecentFile {
    pub(super) key: String,
    pub(super) kind: ObjectKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dataset: Option<String>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) version: u64,
    pub(super) entered_at: String,
}

/// Dead letters of one code. Never what was in them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DeadLetterCode {
    pub(super) code: String,
    /// Those that are in the lake.
    pub(super) records: u64,
    /// Those that were committed in the last hour.
    pub(super) last_hour: u64,
    /// Some of the newest, the newest first.
    pub(super) newest: Vec<DeadLetterPosition>,
}

/// Where a record is that became a dead letter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DeadLetterPosition {
    pub(super) stream: String,
    pub(super) shard: String,
    pub(super) sequence: String,
    pub(super) sub: u64,
    pub(super) arrived_at: String,
}

/// Something that changes the lake beside the workers: a replay's promotion, a redrive, an undo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Operation {
    /// The dataset, or `_raw` or `_error`.
    pub(super) part: ShardId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<LeaseOwner>,
    /// The manifest that is decided and not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<String>,
    pub(super) since_s: f64,
}

/// The last hour. Each list ends now.
#[derive(Debug, Serialize)]
pub(super) struct Charts {
    /// Seconds between two values of this process.
    pub(super) step_s: u64,
    /// Records that this process read, a second.
    pub(super) records_per_s: Vec<Option<f64>>,
    /// How far the worst of its shards was behind, in seconds, where the source measures time.
    pub(super) behind_s: Vec<Option<f64>>,
    /// How far its shards were behind together, where sources count bytes.
    pub(super) behind_bytes: Vec<Option<f64>>,
    /// The age of the oldest record that was not committed.
    pub(super) oldest_uncommitted_s: Vec<Option<f64>>,
    /// Records that the whole fleet committed, by minute, and the dead letters of them.
    pub(super) committed_by_minute: Vec<u64>,
    pub(super) dead_letters_by_minute: Vec<u64>,
}
