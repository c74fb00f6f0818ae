//! The lake log: the total order of all changes to a lake.
//!
//! `_log/<version>.json` has an entry for each change: what it added and what it removed. Versions count from 1 without a gap, so
//! "the lake at version n" is what the first n entries add up to.
//!
//! Owns: the format of entries ([`Entry`]) and of snapshots ([`Snapshot`]), the end of the log ([`newest_version`]), and the step that
//! gives a published epoch its version (`enter`). Also building the log of a lake that has none (`build`), reading the log
//! ([`read_backward`]), and the lake at a version ([`lake_at`]). Does not own: the order of the steps of a commit (`commit::protocol`), what
//! commit records add up to (`commit::log`), removing old entries (`maintenance::trim`).

mod at;
mod build;
mod end;
mod enter;
mod entry;
mod history;
mod snapshot;
mod tail;
mod write_snapshot;

#[cfg(test)]
pub(crate) mod testing;

pub use at::{LakeAt, LiveObjects, ObjectFilter, get_snapshot, lake_at};
pub(crate) use build::build;
pub use end::newest_version;
pub(crate) use end::{ListedEntry, list_after, list_snapshots, run_of};
pub(in crate::commit) use enter::{enter, head};
pub use entry::{AddedObject, Entry, EntryHash, EntryHead, LogVersion, RECENT_MAX, UnreadableEntry};
pub use history::{
    Extent, HashedEntry, HistoryError, VersionOrTime, extent, get_entry, read_backward, read_forward, resolve,
};
pub use snapshot::{ObjectGroup, Snapshot, SnapshotPart, UnreadableSnapshot};
pub(in crate::commit) use tail::Tail;
pub use write_snapshot::{SNAPSHOT_EVERY, SnapshotWritten, Snapshots, write_snapshot};
