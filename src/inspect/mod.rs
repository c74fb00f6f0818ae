//! A lake and its lease table as seen from outside: what they hold, and whether they agree.
//!
//! Owns: the data behind `verify`, `status`, `log`, `find`, `deadletters` and `leases`, in types that can be serialized. The command line
//! prints them. Does not own: the formats (`commit`, the pipeline crate), opening stores and sources (`setup`), changing
//! anything (`maintenance`).

mod dead_letters;
mod error_objects;
pub mod find;
pub mod leases;
mod log;
#[cfg(any(test, feature = "conformance"))]
pub mod sample_lake;
mod status;
mod upkeep;
mod verify;

/// Requests that are in progress at once.
const CONCURRENT: usize = 16;

pub use dead_letters::{DeadLetterGroup, StoredDeadLetter, dead_letter_groups, show_dead_letters};
pub use error_objects::{ErrorObject, live_error_objects};
pub use log::{EntryDetails, LogLine, LogQuery, PartitionChange, log_entry, log_lines};
pub use status::{AtVersion, EdgeStatus, ShardStatus, Status, how_far_behind};
pub use upkeep::{lake_upkeep, watch_upkeep};
pub use verify::{Audit, AuditError, Fault, VerifyProgress, check_log, verify, verify_at};
