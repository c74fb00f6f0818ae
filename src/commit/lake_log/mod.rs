//! The lake log: the total order of all changes to a lake.
//!
//! `_log/<version>.json` has an entry for each change: what it added and what it removed. Versions count from 1 without a gap, so
//! "the lake at version n" is what the first n entries add up to.
//!
//! Owns: the format of an entry ([`Entry`]), the end of the log ([`newest_version`]), the step that gives a published epoch its version
//! (`enter`), and building the log of a lake that has none ([`build`]). Does not own: the order of the steps of a commit
//! (`commit::protocol`), what commit records add up to (`commit::log`), removing old entries (`maintenance::trim`).

mod build;
mod end;
mod enter;
mod entry;
mod tail;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use build::build;
pub use end::newest_version;
pub(crate) use end::{ListedEntry, list_after, list_snapshots, run_of};
pub(in crate::commit) use enter::{enter, head};
pub use entry::{AddedObject, Entry, EntryHash, EntryHead, LogVersion, RECENT_MAX, UnreadableEntry};
pub(in crate::commit) use tail::Tail;
