//! The lake log for people and programs: a line for each version, and one version whole.
//!
//! Owns: choosing the versions and summing up an entry. Does not own: reading the log (`commit::lake_log`), printing.

use std::collections::BTreeMap;

use pipeline::layout::Area;
use serde::Serialize;

use crate::commit::lake_log::{
    AddedObject, Entry, HashedEntry, HistoryError, LogVersion, VersionOrTime, extent, get_entry, read_backward, resolve,
};
use crate::commit::{ManifestKind, ObjectKind, RemovedObject, ShardOfEpoch};
use crate::lake::{ObjectKey, ObjectStore};

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Its number.
    pub version: u64,
    /// When it was entered, RFC 3339, by its writer's clock.
    pub entered_at: String,
    /// What changed the lake.
    pub kind: ManifestKind,
    /// The epoch, or the operation.
    pub epoch: String,
    /// The worker's part of that name: the first digits of the worker's id.
    pub worker: Option<String>,
    /// Records that were read.
    pub records: u64,
    /// Rows that were added, by dataset.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters that were added.
    pub dead_letters: u64,
    /// Objects that were added.
    pub objects_added: u64,
    /// Their size.
    pub bytes_added: u64,
    /// Objects that were removed.
    pub objects_removed: u64,
    /// Rows that were removed, by dataset.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rows_removed: BTreeMap<String, u64>,
    /// Dead letters that were removed.
    #[serde(skip_serializing_if = "is_zero")]
    pub dead_letters_removed: u64,
    /// What an operation belongs to, such as `replay:1f2e3d4c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// Which versions are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// The most versions.
    pub limit: usize,
    /// The first version, or the time of it.
    pub since: Option<VersionOrTime>,
    /// The last version, or the time of it.
    pub until: Option<VersionOrTime>,
    /// Only versions that added or removed objects of this dataset. Rows and objects of others are not counted.
    pub dataset: Option<String>,
}

/// The versions that a query wants, the newest first.
///
/// # Errors
/// The lake fails, the log is damaged, or it does not have a version that the query names.
pub async fn log_lines(lake: &dyn ObjectStore, query: &LogQuery) -> Result<Vec<LogLine>, HistoryError> {
    let extent = extent(lake).await?;
    let newest = match query.until {
        // What is entered later is not older than a version that does not exist yet.
        Some(VersionOrTime::Version(version)) => version.min(extent.newest),
        Some(until) => resolve(lake, &extent, until).await?,
        None => extent.newest,
    };
    let oldest = match query.since {
        Some(VersionOrTime::Version(version)) => version,
        // The first version that was entered at the time or later. If all older entries are gone, it is the oldest that is there.
        Some(VersionOrTime::Time(ms)) => {
            match resolve(lake, &extent, VersionOrTime::Time(ms.saturating_sub(1))).await {
                Ok(before) => before.next(),
                Err(HistoryError::NoVersion { known: Some(known), .. }) => *known.start(),
                Err(error) => return Err(error),
            }
        }
        None => LogVersion(1),
    };
    let mut lines = Vec::new();
    if query.limit == 0 || newest < oldest {
        return Ok(lines);
    }
    read_backward(lake, newest, &extent, &mut |entry| {
        if entry.version < oldest {
            return false;
        }
        lines.extend(LogLine::of(&entry, query.dataset.as_deref()));
        lines.len() < query.limit && entry.version > oldest
    })
    .await?;
    Ok(lines)
}

/// One version; `None` if the log does not have it.
///
/// # Errors
/// The lake fails, or the entry cannot be read.
pub async fn log_entry(lake: &dyn ObjectStore, version: LogVersion) -> Result<Option<HashedEntry>, HistoryError> {
    get_entry(lake, version).await
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Rows by dataset, and dead letters, in objects of these kinds and datasets.
fn rows_in<'o>(objects: impl Iterator<Item = (ObjectKind, Option<&'o String>, u64)>) -> (BTreeMap<String, u64>, u64) {
    let (mut by_dataset, mut dead_letters): (BTreeMap<String, u64>, u64) = (BTreeMap::new(), 0);
    for (kind, dataset, rows) in objects {
        match (kind, dataset) {
            (ObjectKind::Processed, Some(dataset)) => {
                let sum = by_dataset.entry(dataset.clone()).or_default();
                *sum = sum.saturating_add(rows);
            }
            (ObjectKind::Error, _) => dead_letters = dead_letters.saturating_add(rows),
            _ => {}
        }
    }
    (by_dataset, dead_letters)
}

/// Whether an object's key is of this dataset.
fn is_of(key: &ObjectKey, dataset: &str) -> bool {
    let in_area = |area: Area| {
        key.as_str().strip_prefix(area.prefix()).is_some_and(|rest| rest.starts_with(&format!("{dataset}/")))
    };
    in_area(Area::Processed) || in_area(Area::Raw)
}

impl LogLine {
    /// The line of an entry; `None` if it did not change the dataset.
    pub(crate) fn of(entry: &Entry, dataset: Option<&str>) -> Option<Self> {
        let added: Vec<&AddedObject> =
            entry.added.iter().filter(|object| dataset.is_none_or(|dataset| is_of(&object.key, dataset))).collect();
        let removed: Vec<&RemovedObject> =
            entry.removed.iter().filter(|object| dataset.is_none_or(|dataset| is_of(&object.key, dataset))).collect();
        if dataset.is_some() && added.is_empty() && removed.is_empty() {
            return None;
        }
        let (rows, dead_letters) = if entry.kind.is_operation() {
            rows_in(added.iter().map(|object| (object.kind, object.dataset.as_ref(), object.rows)))
        } else {
            let rows = entry.totals.rows.iter().filter(|(name, _)| dataset.is_none_or(|dataset| dataset == *name));
            (rows.map(|(name, count)| (name.clone(), *count)).collect(), entry.totals.dead_letters.values().sum())
        };
        let (rows_removed, dead_letters_removed) =
            rows_in(removed.iter().map(|object| (object.kind, object.dataset.as_ref(), object.rows)));
        Some(LogLine {
            version: entry.version.0,
            entered_at: entry.entered_at.clone(),
            kind: entry.kind,
            epoch: entry.epoch.to_string(),
            worker: entry.epoch.worker().map(str::to_owned),
            records: entry.totals.records,
            rows,
            dead_letters,
            objects_added: added.len() as u64,
            bytes_added: added.iter().map(|object| object.bytes).sum(),
            objects_removed: removed.len() as u64,
            rows_removed,
            dead_letters_removed,
            of: entry.of.clone(),
        })
    }
}

/// The objects of one partition in an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionChange {
    /// The folder.
    pub folder: String,
    /// Objects that were added.
    pub added: u64,
    /// Rows or lines in them.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
    /// Objects that were removed.
    pub removed: u64,
    /// Rows or lines in them.
    pub rows_removed: u64,
    /// Their size.
    pub bytes_removed: u64,
}

/// What an entry says, summed up by folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryDetails {
    /// The line of the entry.
    #[serde(flatten)]
    pub line: LogLine,
    /// The hash of the entry, which the next one names.
    pub hash: String,
    /// The hash of the entry before.
    pub previous: String,
    /// When the manifest was written, RFC 3339.
    pub written_at: String,
    /// The key of its commit record.
    pub record: String,
    /// What was read.
    pub shards: Vec<ShardOfEpoch>,
    /// Dead letters by code.
    pub dead_letters_by_code: BTreeMap<String, u64>,
    /// Its objects, by folder.
    pub partitions: Vec<PartitionChange>,
    /// The objects that it added.
    pub added: Vec<AddedObject>,
    /// The objects that it removed.
    pub removed: Vec<RemovedObject>,
}

impl EntryDetails {
    /// The details of an entry.
    pub fn new(stored: HashedEntry) -> Option<Self> {
        let HashedEntry { entry, hash } = stored;
        let line = LogLine::of(&entry, None)?;
        let mut partitions: BTreeMap<String, PartitionChange> = BTreeMap::new();
        let folder_of = |key: &ObjectKey| key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let mut of_folder = |key: &ObjectKey, change: &dyn Fn(&mut PartitionChange)| {
            let folder = folder_of(key);
            let new = || PartitionChange { folder: folder.clone(), ..PartitionChange::default() };
            change(partitions.entry(folder.clone()).or_insert_with(new));
        };
        for object in &entry.added {
            of_folder(&object.key, &|change| {
                change.added += 1;
                change.rows = change.rows.saturating_add(object.rows);
                change.bytes = change.bytes.saturating_add(object.bytes);
            });
        }
        for object in &entry.removed {
            of_folder(&object.key, &|change| {
                change.removed += 1;
                change.rows_removed = change.rows_removed.saturating_add(object.rows);
                change.bytes_removed = change.bytes_removed.saturating_add(object.bytes);
            });
        }
        Some(EntryDetails {
            line,
            hash: hash.to_string(),
            previous: entry.previous.to_string(),
            written_at: entry.written_at,
            record: entry.record.to_string(),
            shards: entry.shards,
            dead_letters_by_code: entry.totals.dead_letters,
            partitions: partitions.into_values().collect(),
            added: entry.added,
            removed: entry.removed,
        })
    }
}
