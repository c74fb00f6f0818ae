//! Finding the end of the lake log.
//!
//! Owns: listing entries, and which of them count as the log. Entries are removed in ascending order, and never the newest. So what
//! counts is the run without a gap that ends at the newest entry. A process that slept for a month may write into a version that was
//! removed meanwhile. Such an entry is below that run, or right before it: readers begin at a snapshot that is above all that was removed.
//! Does not own: writing entries (`enter`), reading them and what they add up to.

use std::sync::Arc;

use pipeline::layout::{LAKE_LOG_ENTRIES, LOG_SNAPSHOT_HEADS, version_of_log_snapshot};

use crate::commit::lake_log::entry::{EntryHead, LogVersion};
use crate::commit::lake_log::tail::KnownEntry;
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;
use crate::lake::{LakeError, ObjectStore};

/// An entry as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListedEntry {
    pub(crate) version: LogVersion,
    /// When it was written by the store's clock: milliseconds since 1970.
    pub(crate) modified_ms: i64,
}

/// All entries after a version in the order of their versions, also those that do not count as the log.
pub(crate) async fn list_after(lake: &dyn ObjectStore, version: LogVersion) -> Result<Vec<ListedEntry>, LakeError> {
    let listed = lake.list_after(LAKE_LOG_ENTRIES, version.key().as_str()).await?.into_iter();
    let entry = listed.filter_map(|info| LogVersion::of_key(&info.key).map(|version| (version, info.modified_ms)));
    Ok(entry.map(|(version, modified_ms)| ListedEntry { version, modified_ms }).collect())
}

/// The versions of all snapshots, in their order. The head of a snapshot is written last, so a snapshot that is listed is whole.
pub(crate) async fn list_snapshots(lake: &dyn ObjectStore) -> Result<Vec<LogVersion>, LakeError> {
    let listed = lake.list(LOG_SNAPSHOT_HEADS).await?.into_iter();
    Ok(listed.filter_map(|info| version_of_log_snapshot(info.key.as_str()).map(LogVersion)).collect())
}

/// Of entries in the order of their versions, those that count as the log.
pub(crate) fn run_of(entries: &[ListedEntry]) -> &[ListedEntry] {
    let is_gap = |pair: &[ListedEntry]| pair[0].version.next() != pair[1].version;
    let begin = entries.windows(2).rposition(is_gap).map_or(0, |at| at + 1);
    &entries[begin..]
}

/// The newest version of the lake; [`LogVersion::EMPTY`] if nothing has entered the log.
///
/// # Errors
/// The lake fails, or entries that were in the log are gone.
pub async fn newest_version(stores: &Stores) -> Result<LogVersion, CommitError> {
    Ok(find_newest(stores).await?.map_or(LogVersion::EMPTY, |entry| entry.version))
}

/// Finds the newest entry, beginning at the newest one that is known, or else at the newest snapshot; `None` if the log is empty.
pub(super) async fn find_newest(stores: &Stores) -> Result<Option<Arc<KnownEntry>>, CommitError> {
    let known = stores.tail.newest();
    let begin = match &known {
        Some(known) => known.version,
        None => list_snapshots(&*stores.lake).await?.last().copied().unwrap_or(LogVersion::EMPTY),
    };
    // The list also shows the entry at which it begins, unless that was trimmed: then there is a newer one.
    let after = begin.before();
    loop {
        let newest = list_after(&*stores.lake, after).await?.pop().map(|entry| entry.version);
        let newest = match (newest, &known) {
            (None, None) => return Ok(None),
            (None, Some(known)) => return Err(CommitError::LogCut { known: known.version, newest: after }),
            (Some(version), Some(known)) if version == known.version => {
                stores.tail.note_read(known);
                return Ok(Some(Arc::clone(known)));
            }
            (Some(version), _) => version,
        };
        if let Some(entry) = read_known(stores, newest).await? {
            let entry = Arc::new(entry);
            stores.tail.note_read(&entry);
            return Ok(Some(entry));
        }
        // It was the newest, and was trimmed since: there are newer ones.
    }
}

/// Reads what must be known of an entry; `None` if there is none. Holds its bytes only here.
pub(super) async fn read_known(stores: &Stores, version: LogVersion) -> Result<Option<KnownEntry>, CommitError> {
    let key = version.key();
    match stores.lake.get(&key).await? {
        Some(bytes) => Ok(Some(KnownEntry::read(EntryHead::from_bytes(&key, &bytes)?, &bytes))),
        None => Ok(None),
    }
}
