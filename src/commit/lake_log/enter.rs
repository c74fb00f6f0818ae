//! The step *enter*: a published epoch gets the next version of the lake.
//!
//! Owns: that an epoch enters once, whoever enters it and however often. Does not own: the order of the steps (`protocol`), removing
//! old entries (`maintenance::trim`).
//!
//! An epoch's intent names a head: the newest version that was known when the intent was written. So the epoch is in no version up
//! to its head. Whoever enters it:
//!
//! 1. learns the epochs of all versions after the head. If the epoch is among them, it has entered;
//! 2. writes the version after the newest one, create-only. If that version is taken, goes back to 1;
//! 3. confirms that the version before is still there, with the bytes that are known.
//!
//! | event | consequence |
//! |---|---|
//! | a crash before the entry is written | the epoch is still pending: whoever finishes it enters it |
//! | a crash after it | whoever finishes the epoch finds it among the versions after its head |
//! | the answer to the write is lost | the repeated write finds the version taken; step 1 finds the epoch there |
//! | two write the same version | one of them is refused, and reads what the other one wrote |
//! | one sleeps while another finishes the epoch | it finds the epoch, or a taken version, whenever it wakes up |
//!
//! # Trimming
//!
//! Old entries are removed in ascending order, never the newest one, and none after the head of an intent that exists. The
//! versions to be removed are chosen before the intents are listed. Two things follow:
//!
//! - *While the intent exists, the entry of its epoch exists.* An intent that was not listed was written after the choice, and its
//!   epoch entered after that. So where entries after the head are gone, the intent tells: if it is gone, the epoch entered long ago. If it
//!   is there, the epoch is not among the versions that are gone.
//! - *A version that is free may have been used.* A process that has committed nothing for a month knows an old end of the log, and
//!   its write would succeed where an entry was removed. No reader would see that entry. Confirming the version before it
//!   excludes this: it was removed before the one that is written now, so if it is there, the write was the first of its version.
//!
//! # Requests
//!
//! A process that is alone writes, and confirms: one PUT and one HEAD for each epoch. Where other processes write entries too, it first
//! finds the end: one LIST and one GET more. An entry repeats the epochs of the hundred versions before it. So the number of workers does
//! not matter, up to a hundred commits of others between two of one worker. Each further hundred needs one GET more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mutations::mutated;
use pipeline::time::format_rfc3339;

use crate::commit::lake_log::end::{find_newest, list_after, read_known};
use crate::commit::lake_log::entry::{Entry, EntryHash, LogVersion};
use crate::commit::lake_log::tail::KnownEntry;
use crate::commit::manifest::Manifest;
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;
use crate::lake::Written;

/// The longest pause after a version was taken, for each time that this happened in a row.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest pause of all.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The head for an intent that is written now: the newest version that is known.
///
/// # Errors
/// The lake fails. It is asked only if no entry is known.
pub(crate) async fn head(stores: &Stores) -> Result<LogVersion, CommitError> {
    let newest = match stores.tail.newest() {
        Some(newest) => Some(newest),
        None => find_newest(stores).await?,
    };
    Ok(newest.map_or(LogVersion::EMPTY, |newest| newest.version))
}

/// Enters a published epoch. Returns its version; `None` if it entered so long ago that its entry was trimmed. May be called by
/// several at once, and again.
///
/// # Errors
/// The lake fails, or the log is damaged. It is not known whether the epoch has entered; the same call may be repeated.
pub(crate) async fn enter(stores: &Stores, manifest: &Manifest) -> Result<Option<LogVersion>, CommitError> {
    enter_as(stores, manifest, &format_rfc3339(stores.clock.now_ms())).await
}

/// The same with another time of entry, RFC 3339.
pub(super) async fn enter_as(
    stores: &Stores,
    manifest: &Manifest,
    entered_at: &str,
) -> Result<Option<LogVersion>, CommitError> {
    let head = manifest.head;
    let known = stores.tail.newest().filter(|known| known.version >= head && !stores.tail.is_shared());
    let mut newest = match known {
        Some(known) => Some(known),
        None => find_newest(stores).await?,
    };
    let mut refused = 0;
    loop {
        let end = newest.as_ref().map_or(LogVersion::EMPTY, |newest| newest.version);
        if end < head {
            return Err(CommitError::LogCut { known: head, newest: end });
        }
        if let Some(newest) = newest.as_ref().filter(|_| !mutated!(EnterWithoutReading)) {
            match search(stores, newest, manifest).await? {
                Search::Entered(version) => return Ok(version),
                Search::NotEntered => {}
            }
        }
        let version = end.next();
        let bytes = entry_bytes(newest.as_deref(), manifest, entered_at);
        let written = stores.lake.put_new(&version.key(), bytes.clone()).await?;
        if written == Written::New && is_first(stores, newest.as_deref()).await? {
            stores.tail.note_written(KnownEntry::next(newest.as_deref(), manifest.epoch.clone(), &bytes));
            return Ok(Some(version));
        }
        drop(bytes);
        if mutated!(TakeRefusalForEntered) {
            return Ok(Some(version));
        }
        refused += 1;
        pause(manifest, refused).await;
        newest = match stores.tail.newest() {
            // Another task of this process has entered meanwhile.
            Some(known) if known.version >= version => Some(known),
            _ => find_newest(stores).await?,
        };
    }
}

enum Search {
    Entered(Option<LogVersion>),
    NotEntered,
}

/// Whether the epoch is in a version after its head, up to the newest one that is known.
async fn search(stores: &Stores, newest: &Arc<KnownEntry>, manifest: &Manifest) -> Result<Search, CommitError> {
    let mut entry = Arc::clone(newest);
    loop {
        let mut lowest = None;
        for (version, epoch) in entry.versions().take_while(|(version, _)| *version > manifest.head) {
            if *epoch == manifest.epoch {
                return Ok(Search::Entered(Some(version)));
            }
            lowest = Some((version, epoch));
        }
        let Some((version, epoch)) = lowest else { return Ok(Search::NotEntered) };
        if version.before() <= manifest.head {
            return Ok(Search::NotEntered);
        }
        entry = match read_known(stores, version).await? {
            Some(entry) if entry.epochs.first() == Some(epoch) => Arc::new(entry),
            // Trimmed; perhaps a sleeper has written into its version since. The entry of an epoch is not trimmed while its intent
            // exists.
            _ if stores.lake.get(&manifest.epoch.intent_key()).await?.is_some() => return Ok(Search::NotEntered),
            _ => return Ok(Search::Entered(None)),
        };
    }
}

/// The bytes of the epoch's entry after `before`.
fn entry_bytes(before: Option<&KnownEntry>, manifest: &Manifest, entered_at: &str) -> Bytes {
    let (version, previous) = before.map_or((LogVersion::EMPTY, EntryHash::NONE), |known| (known.version, known.hash));
    let recent = before.into_iter().flat_map(|before| before.epochs.iter().cloned());
    Entry::new(version.next(), previous, recent, manifest, entered_at.to_owned()).to_bytes()
}

/// Whether the entry that was just written after `before` is the first of its version.
async fn is_first(stores: &Stores, before: Option<&KnownEntry>) -> Result<bool, CommitError> {
    match before {
        _ if mutated!(EnterWithoutConfirming) => Ok(true),
        Some(before) => Ok(stores.lake.checksum(&before.version.key()).await? == Some(before.stored)),
        // The first version of a lake: if another one is there, the log shows which of them are in it. If only another one is there, this
        // one was written where a version had been trimmed, and was trimmed again.
        None => {
            let listed = list_after(&*stores.lake, LogVersion::EMPTY).await?;
            Ok(matches!(listed.as_slice(), [only] if only.version == LogVersion::EMPTY.next()))
        }
    }
}

/// Many that write at once spread their attempts. The pauses follow from the epoch's name, so a simulation can repeat them.
async fn pause(manifest: &Manifest, refused: u32) {
    if refused > 1 {
        let seed = manifest.epoch.as_str().bytes().chain([u8::try_from(refused % 256).unwrap_or_default()]);
        let hash =
            seed.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let longest = (PAUSE * refused).min(PAUSE_MAX);
        let per_mille = u32::try_from(hash % 1000).unwrap_or_default();
        tokio::time::sleep(longest * per_mille / 1000).await;
    }
}

#[cfg(test)]
mod tests;
