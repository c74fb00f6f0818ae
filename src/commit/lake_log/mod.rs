//! The lake log: the total order of all changes to a lake.
//!
//! `_log/<version>.json` has an entry for each change: what it added and what it removed. Versions count from 1 without a gap, so
//! "the lake at version n" is what the first n entries add up to.
//!
//! Owns: the format of an entry ([`Entry`]), reading the log ([`newest_version`], [`read_entry`], [`entries_after`]), and the step that
//! gives a published epoch its version (`enter`). Does not own: the order of the steps of a commit (`commit::protocol`), what commit
//! records add up to (`commit::log`).

mod enter;
mod entry;
mod read;
mod tail;

#[cfg(test)]
mod tests;

pub(in crate::commit) use enter::{enter, head};
pub use entry::{AddedObject, Entry, EntryHash, EntryHead, LogVersion, RECENT_MAX, UnreadableEntry};
pub use read::{StoredEntry, entries_after, newest_version, read_entry};
pub(in crate::commit) use tail::Tail;
