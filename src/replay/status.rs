//! The state of a replay, as `replay list` and `replay status` show it.
//!
//! Owns: which state follows from what the lake and the lease table have. Does not own: printing it.

use checkpoints::{Holder, LeaseOwner, LeaseStore};
use pipeline::layout;
use serde::Serialize;

use crate::commit::lake_log::HistoryError;
use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::replay::control::{Wanted, wanted};
use crate::replay::plan::{Plan, ReplayId};
use crate::replay::progress::{AsideProgress, Short};
use crate::replay::promote::{Fate, fate_of};
use crate::replay::run::RunError;

/// What a replay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing of it was read.
    Planned,
    /// A worker holds a part of it.
    Running,
    /// Nobody reads it, and a part is left: start it again.
    Stopped,
    /// Somebody has paused it.
    Paused,
    /// Somebody has cancelled it.
    Cancelled,
    /// Everything was read.
    Complete,
    /// Its rows are in the lake.
    Promoted,
    /// Its rows were in the lake, and were taken back.
    Undone,
    /// What it had written, and what it had replaced, is removed.
    Purged,
}

impl State {
    /// The state as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Planned => "planned",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Paused => "paused",
            State::Cancelled => "cancelled",
            State::Complete => "complete",
            State::Promoted => "promoted",
            State::Undone => "undone",
            State::Purged => "purged",
        }
    }
}

/// A replay as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayStatus {
    /// Its name.
    pub id: ReplayId,
    /// What it is doing.
    pub state: State,
    /// When it was planned, RFC 3339.
    pub made_at: String,
    /// The range as it was asked for.
    pub from: String,
    /// The end of the range.
    pub to: String,
    /// The version for which it was planned.
    pub version: u64,
    /// Records that were read, and all.
    pub records_done: u64,
    /// All records of the epochs that are replaced.
    pub records: u64,
    /// Bytes of records that were read.
    pub bytes_done: u64,
    /// All bytes of records.
    pub bytes: u64,
    /// Slices that have ended.
    pub slices_done: usize,
    /// All slices.
    pub slices: usize,
    /// Workers that hold slices.
    pub workers: Vec<LeaseOwner>,
    /// Rows that were made, by dataset.
    pub rows: std::collections::BTreeMap<String, u64>,
    /// Dead letters that were made.
    pub dead_letters: u64,
    /// Slices that have ended with too few records.
    pub short: Vec<Short>,
}

/// What is asked about a replay's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The markers beside the plan. They lack an operation whose process died before it wrote one.
    Markers,
    /// The log of the lake as well, where a marker may be missing. It reads the entries since the plan.
    Log,
}

/// The state of a replay. `aside` is its own lake. `leases`: the lease table, if there is one.
///
/// # Errors
/// A store fails, or what is stored cannot be read.
pub async fn status_of(
    lake: &dyn ObjectStore,
    aside: &dyn ObjectStore,
    leases: Option<&dyn LeaseStore>,
    plan: &Plan,
    evidence: Evidence,
) -> Result<ReplayStatus, RunError> {
    let mut progress = AsideProgress::default();
    progress.advance(aside, plan).await.map_err(of_history)?;
    let stream = plan.id.stream();
    let rows = match leases {
        Some(leases) => leases.list().await?,
        None => Vec::new(),
    };
    let mut workers: Vec<LeaseOwner> = rows
        .iter()
        .filter(|lease| lease.key.stream == stream)
        .filter_map(|lease| match &lease.holder {
            Holder::Nobody => None,
            Holder::Held(owner) | Holder::HandingOver { from: owner, .. } => Some(owner.clone()),
        })
        .collect();
    workers.sort();
    workers.dedup();
    let asked = wanted(lake, &plan.id).await?;
    let short = progress.short(plan);
    let state = if let Some(state) = state_of_rows(lake, plan, evidence, progress.has_ended(plan)).await? {
        state
    } else {
        match asked {
            Wanted::Cancelled => State::Cancelled,
            _ if progress.has_ended(plan) => State::Complete,
            Wanted::Paused => State::Paused,
            Wanted::Running if !workers.is_empty() => State::Running,
            Wanted::Running if progress.records == 0 => State::Planned,
            Wanted::Running => State::Stopped,
        }
    };
    Ok(ReplayStatus {
        id: plan.id.clone(),
        state,
        made_at: plan.made_at.clone(),
        from: plan.from.clone(),
        to: plan.to.clone(),
        version: plan.version.0,
        records_done: progress.records,
        records: plan.totals.records,
        bytes_done: progress.bytes,
        bytes: plan.totals.bytes,
        slices_done: progress.ended.len(),
        slices: plan.slices.len(),
        workers,
        rows: progress.totals.rows.clone(),
        dead_letters: progress.totals.dead_letters.values().sum(),
        short,
    })
}

/// What became of a replay's rows; `None` if they were never in the lake. The process that promoted it or took it back may have died
/// before it wrote a marker. Then the log of the lake tells, which is read only where that may be.
async fn state_of_rows(
    lake: &dyn ObjectStore,
    plan: &Plan,
    evidence: Evidence,
    has_ended: bool,
) -> Result<Option<State>, RunError> {
    if has_marker(lake, &plan.id, "purged").await? {
        return Ok(Some(State::Purged));
    }
    if has_marker(lake, &plan.id, "undone").await? {
        return Ok(Some(State::Undone));
    }
    let is_promoted = has_marker(lake, &plan.id, "promoted").await?;
    if evidence == Evidence::Markers || (!has_ended && !is_promoted) {
        return Ok(is_promoted.then_some(State::Promoted));
    }
    let fate = fate_of(lake, plan).await.map_err(of_history)?;
    Ok(match fate {
        Fate { undone: Some(_), .. } => Some(State::Undone),
        Fate { promoted: Some(_), .. } => Some(State::Promoted),
        Fate { .. } => None,
    })
}

fn of_history(error: HistoryError) -> RunError {
    match error {
        HistoryError::Lake(error) => RunError::Lake(error),
        error => RunError::History(error),
    }
}

/// Whether a marker of a replay is there.
pub(super) async fn has_marker(lake: &dyn ObjectStore, id: &ReplayId, what: &str) -> Result<bool, LakeError> {
    let key = ObjectKey::new(layout::replay_marker(id.as_str(), what)).expect("a plain name");
    Ok(lake.get(&key).await?.is_some())
}
