//! The lake log: the total order of all changes to a lake.
//!
//! `_log/<version>.json` has an entry for each change: what it added and what it removed. Versions count from 1 without a gap, so
//! "the lake at version n" is what the first n entries add up to.
//!
//! Owns: the format of an entry ([`Entry`]) and of snapshots ([`Snapshot`]), reading the log, and the lake at a version ([`lake_at`]).
//! Does not own: the order of the steps of a commit (`commit::protocol`), what commit records add up to (`commit::log`).

mod at;
mod entry;
mod history;
mod snapshot;
mod write_snapshot;

pub use at::{LakeAt, LiveObjects, ObjectFilter, get_snapshot, lake_at};
pub use entry::{AddedObject, Entry, EntryHash, LogVersion, RECENT_MAX, UnreadableEntry};
pub use history::{
    Extent, HistoryError, StoredEntry, VersionOrTime, extent, get_entry, read_backward, read_forward, resolve,
};
pub use snapshot::{ObjectGroup, Snapshot, SnapshotPart, UnreadableSnapshot};
pub use write_snapshot::{SNAPSHOT_EVERY, SnapshotWritten, Snapshots, write_snapshot};
