//! The end of the lake log, as this process knows it.
//!
//! Owns: the newest entry that the process has read or written, and what must be known of it to write the next one. All groups of a
//! worker share it. Does not own: reading entries (`read`), whether the newest one that is known is still the newest (`enter`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::entry::{EntryHash, EntryHead, LogVersion, RECENT_MAX};
use crate::lake::Checksum;

/// What is known of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownEntry {
    /// Its version.
    pub(crate) version: LogVersion,
    /// The hash of its bytes.
    pub(super) hash: EntryHash,
    /// Size and checksum of its bytes, as a store knows them.
    pub(super) stored: (u64, Checksum),
    /// Its epoch, and the epochs of the versions before it, the nearest first.
    pub(super) epochs: Vec<EpochId>,
}

impl KnownEntry {
    /// An entry that was read.
    pub(super) fn read(head: EntryHead, bytes: &[u8]) -> Self {
        Self::of(head.version, std::iter::once(head.epoch).chain(head.recent), bytes)
    }

    /// The entry of `epoch` after `before`, with these bytes.
    pub(super) fn next(before: Option<&KnownEntry>, epoch: EpochId, bytes: &[u8]) -> Self {
        let version = before.map_or(LogVersion::EMPTY, |before| before.version).next();
        let recent = before.into_iter().flat_map(|before| before.epochs.iter().cloned());
        Self::of(version, std::iter::once(epoch).chain(recent), bytes)
    }

    fn of(version: LogVersion, epochs: impl Iterator<Item = EpochId>, bytes: &[u8]) -> Self {
        KnownEntry {
            version,
            hash: EntryHash::of(bytes),
            stored: (bytes.len() as u64, Checksum::of(bytes)),
            epochs: epochs.take(1 + RECENT_MAX).collect(),
        }
    }

    /// The versions that it names, the newest first, with their epochs.
    pub(super) fn versions(&self) -> impl Iterator<Item = (LogVersion, &EpochId)> {
        (0..).zip(&self.epochs).map(|(back, epoch)| (LogVersion(self.version.0.saturating_sub(back)), epoch))
    }
}

/// The end of the log. Clones of the stores share it.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Arc<KnownEntry>>,
    /// Whether the last look at the log showed an entry of another process.
    is_shared: bool,
}

impl Tail {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest entry that is known.
    pub(crate) fn newest(&self) -> Option<Arc<KnownEntry>> {
        self.state().newest.clone()
    }

    /// Whether other processes write entries, so that the newest entry that is known is probably not the newest.
    pub(super) fn is_shared(&self) -> bool {
        self.state().is_shared
    }

    /// Notes an entry of the log that this process has read.
    pub(super) fn note_read(&self, entry: &Arc<KnownEntry>) {
        let mut state = self.state();
        let is_new = state.newest.as_ref().is_some_and(|newest| newest.version < entry.version);
        state.is_shared = is_new;
        if is_new || state.newest.is_none() {
            state.newest = Some(Arc::clone(entry));
        }
    }

    /// Notes an entry that this process has written.
    pub(super) fn note_written(&self, entry: KnownEntry) {
        let mut state = self.state();
        if state.newest.as_ref().is_none_or(|newest| newest.version < entry.version) {
            state.newest = Some(Arc::new(entry));
        }
    }
}
