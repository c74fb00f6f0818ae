//! Where a record is: in which object and row, among which dead letters, on which raw line, or why it is not in the lake.
//!
//! Owns: what is asked and answered, and the order of the search. Does not own: which epoch has read a position (`epochs`), conditions
//! (`wanted`), searching objects (`search`, `rows`), printing.
//!
//! A record is searched in one of two ways:
//!
//! - By its **sequence number**: commits say which epoch has read it, so only the objects of that epoch are searched.
//! - By **values**, or by an id: all live objects that may have them are searched. Statistics of columns, partitions and times of arrival
//!   exclude most of them, and of the others only the columns in question are read. Then the raw lines of what was found are searched by
//!   their identities.
//!
//! What is not committed has no object yet. Of a sequence number the checkpoint of its shard shows this. Values of such records are nowhere.

mod epochs;
mod rows;
mod search;
mod wanted;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use checkpoints::{Position, ShardKey, ShardRange};
use pipeline::anonymize::PseudonymKey;
use pipeline::dataset::Datasets;
use serde::Serialize;

use crate::commit::lake_log::{HistoryError, extent, lake_at};
use crate::commit::{CommitError, EpochId, ObjectKind, Stores, UnreadableManifest, log};
use crate::inspect::find::search::Search;
use crate::inspect::find::wanted::Matcher;
use crate::lake::{LakeError, ObjectKey};

pub use wanted::{InvalidQuestion, Origin, Question};

/// What is asked.
#[derive(Clone)]
pub struct FindQuery {
    /// What is wanted.
    pub question: Question,
    /// Where it was read, where that is known.
    pub origin: Origin,
    /// Only records of this dataset.
    pub dataset: Option<String>,
    /// Only records that arrived at this time or later: milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only records that arrived before this time: milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Whether all raw lines are searched for values.
    pub search_raw: bool,
    /// After how many results the search ends.
    pub limit: usize,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The question makes no sense.
    #[error(transparent)]
    Question(#[from] InvalidQuestion),
    /// The lake log cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Lake or leases fail.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit record cannot be read.
    #[error(transparent)]
    Record(#[from] UnreadableManifest),
    /// An object cannot be read.
    #[error("{key} cannot be read: {problem}")]
    Unreadable {
        /// Its key.
        key: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// A thread that searches has ended.
    #[error("a thread that searches has ended unexpectedly; please report this")]
    Thread,
}

/// What a search does at the moment, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindProgress {
    /// A version of the lake log was read.
    Entry,
    /// This many objects will be searched.
    Planned(u64),
    /// An object was searched.
    Searched,
}

/// Whose record it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Identity {
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// The sequence number.
    pub sequence: String,
    /// The number of the document in its record, or of the record in its aggregate.
    pub subsequence: u64,
}

/// A row, a dead letter or a raw line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What the object holds.
    pub kind: ObjectKind,
    /// The object.
    pub object: ObjectKey,
    /// Of a row its number in the file, from 0; of a line its number in the text, from 1.
    pub number: u64,
    /// The dataset, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Why a dead letter was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whose record it is; unknown of raw lines of some older lakes.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// When the record arrived: milliseconds since 1970.
    #[serde(skip)]
    pub arrival_ms: Option<i64>,
    /// The same, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrived_at: Option<String>,
    /// The epoch or the operation that wrote the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<EpochId>,
}

/// An operation on the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Its name.
    pub epoch: EpochId,
    /// The version of the lake that it made.
    pub version: u64,
    /// What it belongs to, such as `replay:1f2e3d4c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// How far a shard was read, seen from a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReadState {
    /// An epoch has read a range that has the number.
    Committed {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The epoch.
        epoch: EpochId,
        /// What it read.
        range: ShardRange,
        /// When its manifest was written, RFC 3339.
        written_at: String,
        /// The version that added its objects; unknown where the log was trimmed.
        version: Option<u64>,
        /// What has replaced or removed objects of it since.
        changed_by: Vec<Operation>,
    },
    /// An epoch that is being committed has read it. Its objects are not visible yet.
    Committing {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The epoch.
        epoch: EpochId,
        /// The worker.
        worker: String,
    },
    /// It is after the last commit: in the open epoch of a worker, or not read yet.
    NotCommitted {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The last commit.
        checkpoint: Position,
        /// Who reads the shard.
        worker: Option<String>,
    },
    /// It is before the first record that the lake has of the shard.
    Before {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// Where reading began.
        begins: Position,
    },
    /// The lake has no commit record for it, although the checkpoint of the shard is after it.
    Gap {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
    },
}

impl ReadState {
    /// The shard.
    pub fn key(&self) -> &ShardKey {
        match self {
            ReadState::Committed { key, .. }
            | ReadState::Committing { key, .. }
            | ReadState::NotCommitted { key, .. }
            | ReadState::Before { key, .. }
            | ReadState::Gap { key } => key,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FindReport {
    /// The version of the lake that was searched.
    pub version: u64,
    /// What was found, by record.
    pub found: Vec<Found>,
    /// Of a sequence number: how far the shards were read that may have it.
    pub read: Vec<ReadState>,
    /// Whether the search ended at its limit, so that there may be more.
    pub is_cut: bool,
    /// Objects that were searched.
    pub objects: u64,
    /// Bytes of them that were read.
    pub bytes: u64,
    /// Epochs that are being committed: their rows are not visible yet.
    pub committing: u64,
    /// Objects that cannot be read, and why.
    pub unreadable: Vec<(ObjectKey, String)>,
}

/// Answers a question.
///
/// # Errors
/// The question makes no sense, or the stores fail. An object that cannot be read is part of the report.
pub async fn find(
    stores: &Stores,
    query: &FindQuery,
    datasets: &Datasets,
    key: Option<&PseudonymKey>,
    progress: &(dyn Fn(FindProgress) + Sync),
) -> Result<FindReport, FindError> {
    let matcher = Matcher::new(&query.question, (&query.origin, query.dataset.as_deref()), datasets, key)?;
    // Leases come first: what their rows say is committed is in the log that is read afterwards, or still has its intent.
    let leases = match &query.question {
        Question::Record { .. } => stores.own_leases().await?,
        _ => Vec::new(),
    };
    let (intents, _) = log::intents(stores).await?;
    let extent = extent(&*stores.lake).await?;
    let at = lake_at(&*stores.lake, &extent, extent.newest).await?;
    let mut search = Search {
        lake: Arc::clone(&stores.lake),
        at: &at,
        extent: &extent,
        query,
        matcher: Arc::new(matcher),
        progress,
        limit: query.limit,
        report: FindReport {
            version: at.version.0,
            committing: intents.iter().filter(|intent| !intent.kind.is_operation()).count() as u64,
            ..FindReport::default()
        },
    };
    match &query.question {
        Question::Record { sequence, sub } => {
            let at = |sub| Position::At { sequence: sequence.clone(), sub };
            // The parts of an aggregate may have been read by two epochs.
            let last = at(sub.unwrap_or(u64::MAX));
            search.by_position((&at(sub.unwrap_or(0)), &last), &leases, &intents).await?;
        }
        Question::Values(_) | Question::Id(_) => {
            search.by_values().await?;
            if !query.search_raw {
                // These lines are of records that were counted.
                search.limit = usize::MAX;
                search.find_raw_lines().await?;
            }
        }
    }
    let mut report = search.report;
    report.found.sort_by(|left, right| {
        (&left.identity, left.kind, &left.object, left.number).cmp(&(
            &right.identity,
            right.kind,
            &right.object,
            right.number,
        ))
    });
    report.found.dedup();
    Ok(report)
}
