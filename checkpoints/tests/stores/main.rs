//! The stores as their users see them: both pass the conformance suite, and SQLite keeps its promises about files and
//! processes.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod memory;
mod sqlite;
mod sqlite_files;
#[cfg(unix)]
mod sqlite_processes;
