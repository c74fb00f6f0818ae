//! The lake log: the total order of all changes to a lake.
//!
//! `_log/<version>.json` has an entry for each change: what it added and what it removed. Versions count from 1 without a gap, so
//! "the lake at version n" is what the first n entries add up to.
//!
//! Owns: the format of an entry ([`Entry`]). Does not own: the order of the steps of a commit (`commit::protocol`), what commit
//! records add up to (`commit::log`).

mod entry;

pub use entry::{AddedObject, Entry, EntryHash, LogVersion, RECENT_MAX, UnreadableEntry};
