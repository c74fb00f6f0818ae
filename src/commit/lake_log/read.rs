//! Reading the lake log.
//!
//! Owns: which entries count as the log, and finding its end. Entries are removed in ascending order, and never the newest. So what
//! counts is the run without a gap that ends at the newest entry. A process that slept for a month may write into a version that was
//! removed meanwhile. Such an entry is below that run, or right before it: readers begin at a snapshot that is above all that was removed. Does not own: writing entries (`enter`), what they add up to.

use std::sync::Arc;

use pipeline::layout::LAKE_LOG_ENTRIES;

use crate::commit::lake_log::entry::{Entry, EntryHead, LogVersion};
use crate::commit::lake_log::tail::KnownEntry;
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;
use crate::lake::{LakeError, ObjectInfo, ObjectStore};

/// An entry that is in the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its version.
    pub version: LogVersion,
    /// What the store knows about it.
    pub info: ObjectInfo,
}

/// Reads one entry; `None` if there is none.
///
/// # Errors
/// The lake fails, or the entry cannot be read.
pub async fn read_entry(stores: &Stores, version: LogVersion) -> Result<Option<Entry>, CommitError> {
    let key = version.key();
    match stores.lake.get(&key).await? {
        Some(bytes) => Ok(Some(Entry::from_bytes(&key, &bytes)?)),
        None => Ok(None),
    }
}

/// The entries after a version, in the order of their versions: the run without a gap that ends at the newest entry.
///
/// # Errors
/// The lake fails.
pub async fn entries_after(lake: &dyn ObjectStore, version: LogVersion) -> Result<Vec<StoredEntry>, LakeError> {
    let (mut run, _) = split_run(list_after(lake, version).await?);
    // What is left of the log may begin above the given version. Then nothing between them is in it.
    run.retain(|entry| entry.version > version);
    Ok(run)
}

/// Divides entries into the log and what is below it.
pub(crate) fn split_run(mut entries: Vec<StoredEntry>) -> (Vec<StoredEntry>, Vec<StoredEntry>) {
    let gap = |pair: &[StoredEntry]| pair[0].version.next() != pair[1].version;
    let begin = entries.windows(2).rposition(gap).map_or(0, |at| at + 1);
    let run = entries.split_off(begin);
    (run, entries)
}

/// All entries after a version, also those below the log.
pub(crate) async fn list_after(lake: &dyn ObjectStore, version: LogVersion) -> Result<Vec<StoredEntry>, LakeError> {
    let listed = lake.list_after(LAKE_LOG_ENTRIES, version.key().as_str()).await?;
    let stored = |info: ObjectInfo| Some(StoredEntry { version: LogVersion::of_key(&info.key)?, info });
    Ok(listed.into_iter().filter_map(stored).collect())
}

/// The newest version of the lake; [`LogVersion::EMPTY`] if nothing has entered the log.
///
/// # Errors
/// The lake fails, or entries that were in the log are gone.
pub async fn newest_version(stores: &Stores) -> Result<LogVersion, CommitError> {
    Ok(find_newest(stores).await?.map_or(LogVersion::EMPTY, |entry| entry.version))
}

/// Finds the newest entry, beginning at the newest one that is known; `None` if the log is empty.
pub(super) async fn find_newest(stores: &Stores) -> Result<Option<Arc<KnownEntry>>, CommitError> {
    let known = stores.tail.newest();
    // The list also shows the entry that is known, unless it was trimmed: then there is a newer one.
    let after = known.as_ref().map_or(LogVersion::EMPTY, |known| known.version.before());
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
