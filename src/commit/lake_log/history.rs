//! Reading the lake log: where it begins and ends, its entries in either order, and the version of a time.
//!
//! Owns: which objects count as the log, and the checks of what is read: no version is missing, and each entry names the hash of the
//! one before. Does not own: what entries add up to (`at`, `snapshot`), writing them.
//!
//! Entries up to some version may have been trimmed. What counts is the run of entries without a gap that ends at the newest one. A
//! worker that slept may have written an entry into a trimmed place, also directly below the run. Such an entry is not part of the
//! chain of hashes: the entry above it names another hash. So readers begin at a snapshot and read what is above it, or read downwards
//! and end where the chain ends.
//!
//! The newest version is found without listing all entries: the heads of snapshots are few, and entries are listed from the newest
//! snapshot on.

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures::{StreamExt, stream};
use pipeline::layout;
use pipeline::time::{format_rfc3339, parse_rfc3339};

use crate::commit::lake_log::entry::{Entry, EntryHash, LogVersion, UnreadableEntry};
use crate::commit::lake_log::snapshot::{Snapshot, UnreadableSnapshot};
use crate::lake::{LakeError, ObjectKey, ObjectStore};

/// Requests that are in progress at once.
const CONCURRENT: usize = 32;

/// The log cannot be read, or has no such version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// An entry cannot be read.
    #[error(transparent)]
    Entry(#[from] UnreadableEntry),
    /// A snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] UnreadableSnapshot),
    /// An entry is missing between others.
    #[error("version {0} of the lake log is missing; `shardlake verify` shows what is damaged")]
    Missing(LogVersion),
    /// An entry does not follow the one before it.
    #[error(
        "version {0} of the lake log does not follow the version before it; `shardlake verify` shows what is damaged"
    )]
    Broken(LogVersion),
    /// The log has no such version, or no version that is as old.
    #[error("{asked}: the lake log has {}", Known(.known.as_ref()))]
    NoVersion {
        /// What was asked for.
        asked: String,
        /// The versions that there are.
        known: Option<RangeInclusive<LogVersion>>,
    },
}

struct Known<'a>(Option<&'a RangeInclusive<LogVersion>>);

impl std::fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(known) => write!(f, "versions {} to {}", known.start(), known.end()),
            None => f.write_str("no versions"),
        }
    }
}

/// A version, or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionOrTime {
    /// A version.
    Version(LogVersion),
    /// The newest version that was entered at this time or before it: milliseconds since 1970.
    Time(i64),
}

/// An entry with the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedEntry {
    /// The entry.
    pub entry: Entry,
    /// The hash that the entry after it names.
    pub hash: EntryHash,
}

impl HashedEntry {
    pub(crate) fn from_bytes(key: &ObjectKey, bytes: &Bytes) -> Result<Self, UnreadableEntry> {
        Ok(HashedEntry { entry: Entry::from_bytes(key, bytes)?, hash: EntryHash::of(bytes) })
    }
}

/// What there is of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    /// The newest version; [`LogVersion::EMPTY`] if there is none.
    pub newest: LogVersion,
    /// The versions that have snapshots, in order.
    pub snapshots: Vec<LogVersion>,
}

impl Extent {
    /// The newest snapshot at this version or before it.
    pub fn snapshot_for(&self, version: LogVersion) -> Option<LogVersion> {
        self.snapshots.iter().rev().copied().find(|snapshot| *snapshot <= version)
    }

    /// Whether the lake at a version can be computed if `lowest` is the oldest entry: from the beginning, or from a snapshot.
    fn reaches(&self, version: LogVersion, lowest: LogVersion) -> bool {
        let base = self.snapshot_for(version).unwrap_or_default();
        base == version || base.next() >= lowest
    }
}

/// Finds the end of the log, and its snapshots.
///
/// # Errors
/// The lake fails.
pub async fn extent(lake: &dyn ObjectStore) -> Result<Extent, LakeError> {
    let heads = lake.list(layout::LOG_SNAPSHOT_HEADS).await?;
    let snapshots: Vec<LogVersion> = heads.iter().filter_map(|head| Snapshot::version_of_key(&head.key)).collect();
    let begin = snapshots.last().copied().unwrap_or_default();
    // The entry of the snapshot may be trimmed only if there is a newer one.
    let listed = lake.list_after(layout::LAKE_LOG_ENTRIES, begin.key().as_str()).await?;
    let newest = listed.iter().rev().find_map(|object| LogVersion::of_key(&object.key)).unwrap_or(begin);
    Ok(Extent { newest, snapshots })
}

/// One entry; `None` if it is not there.
///
/// # Errors
/// The lake fails, or the entry cannot be read.
pub async fn get_entry(lake: &dyn ObjectStore, version: LogVersion) -> Result<Option<HashedEntry>, HistoryError> {
    let key = version.key();
    match lake.get(&key).await? {
        Some(bytes) => Ok(Some(HashedEntry::from_bytes(&key, &bytes)?)),
        None => Ok(None),
    }
}

/// Gives the entries of the versions after `after` up to `through` to `each`, in order. Returns the hash of the last one. `before` is the
/// hash of the entry `after`, if it is known.
///
/// # Errors
/// The lake fails, an entry is missing or cannot be read, or the entries are not a chain.
pub async fn read_forward(
    lake: &dyn ObjectStore,
    after: LogVersion,
    through: LogVersion,
    before: Option<EntryHash>,
    each: &mut (dyn FnMut(Entry) + Send),
) -> Result<Option<EntryHash>, HistoryError> {
    let versions = (after.0.saturating_add(1)..=through.0).map(LogVersion);
    let mut reading = stream::iter(versions).map(|version| get_numbered(lake, version)).buffered(CONCURRENT);
    let mut hash = before;
    while let Some((version, found)) = reading.next().await {
        let HashedEntry { entry, hash: own } = found?.ok_or(HistoryError::Missing(version))?;
        if hash.is_some_and(|before| before != entry.previous) {
            return Err(HistoryError::Broken(version));
        }
        hash = Some(own);
        each(entry);
    }
    Ok(hash)
}

async fn get_numbered(
    lake: &dyn ObjectStore,
    version: LogVersion,
) -> (LogVersion, Result<Option<HashedEntry>, HistoryError>) {
    (version, get_entry(lake, version).await)
}

/// Gives the entries of the versions from `from` downwards to `each`, until it returns false, or the log begins. Returns true if
/// `each` ended it.
///
/// # Errors
/// The lake fails, or an entry above the newest snapshot is missing, cannot be read, or is not of the chain.
pub async fn read_backward(
    lake: &dyn ObjectStore,
    from: LogVersion,
    extent: &Extent,
    each: &mut (dyn FnMut(Entry) -> bool + Send),
) -> Result<bool, HistoryError> {
    // What is above the newest snapshot was never trimmed.
    let kept = extent.snapshots.last().copied().unwrap_or_default();
    let versions = (1..=from.0).rev().map(LogVersion);
    let mut reading = stream::iter(versions).map(|version| get_numbered(lake, version)).buffered(CONCURRENT);
    let mut expected: Option<EntryHash> = None;
    while let Some((version, found)) = reading.next().await {
        let HashedEntry { entry, hash } = match found {
            Ok(Some(found)) => found,
            Ok(None) | Err(HistoryError::Entry(_)) if version <= kept => return Ok(false),
            Ok(None) => return Err(HistoryError::Missing(version)),
            Err(error) => return Err(error),
        };
        if expected.is_some_and(|expected| expected != hash) {
            // Written by a worker that had slept, where an entry was trimmed.
            return if version <= kept { Ok(false) } else { Err(HistoryError::Broken(version.next())) };
        }
        expected = Some(entry.previous);
        if !each(entry) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lowest version whose entry is there, by halving. `version` must be there.
async fn lowest(lake: &dyn ObjectStore, newest: LogVersion, extent: &Extent) -> Result<LogVersion, HistoryError> {
    let (mut low, mut high) = (1, newest.0);
    // Nothing is trimmed before there is a snapshot.
    if extent.snapshots.is_empty() {
        return Ok(LogVersion(1));
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if lake.get(&LogVersion(middle).key()).await?.is_some() { high = middle } else { low = middle + 1 }
    }
    Ok(LogVersion(high))
}

/// The version that was asked for. A time is searched by halving: clocks of workers differ a little, and so may the answer.
///
/// # Errors
/// The lake fails, or there is no such version.
pub async fn resolve(lake: &dyn ObjectStore, extent: &Extent, at: VersionOrTime) -> Result<LogVersion, HistoryError> {
    let no_version = |asked: String, lowest: LogVersion| {
        let known = (extent.newest > LogVersion::EMPTY).then_some(lowest..=extent.newest);
        HistoryError::NoVersion { asked, known }
    };
    match at {
        VersionOrTime::Version(version) if version > extent.newest => {
            let lowest = lowest(lake, extent.newest, extent).await?;
            Err(no_version(format!("there is no version {version}"), lowest))
        }
        VersionOrTime::Version(version) => {
            let lowest = lowest(lake, extent.newest, extent).await?;
            if extent.reaches(version, lowest) {
                Ok(version)
            } else {
                Err(no_version(format!("the entries of version {version} are gone"), lowest))
            }
        }
        VersionOrTime::Time(ms) => {
            let lowest = lowest(lake, extent.newest, extent).await?;
            let newest = newest_entered_by(lake, lowest, extent.newest, ms).await?;
            if extent.reaches(newest, lowest) {
                Ok(newest)
            } else {
                Err(no_version(format!("the entries of {} are gone", format_rfc3339(ms)), lowest))
            }
        }
    }
}

/// The newest version of these that was entered at a time or before it; the one below `lowest` if there is none.
async fn newest_entered_by(
    lake: &dyn ObjectStore,
    lowest: LogVersion,
    newest: LogVersion,
    ms: i64,
) -> Result<LogVersion, HistoryError> {
    let (mut known, mut after) = (lowest.0.saturating_sub(1), newest.0.saturating_add(1));
    while after - known > 1 {
        let middle = LogVersion(known + (after - known) / 2);
        let entry = get_entry(lake, middle).await?.ok_or(HistoryError::Missing(middle))?.entry;
        let entered = parse_rfc3339(entry.entered_at.as_bytes()).unwrap_or(i64::MIN);
        if entered <= ms { known = middle.0 } else { after = middle.0 }
    }
    Ok(LogVersion(known))
}

#[cfg(test)]
mod tests;
