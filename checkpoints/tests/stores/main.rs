//! The stores as their users see them. All pass the conformance suite, SQLite keeps its promises about files and processes,
//! and DynamoDB keeps those about tables that KCL wrote.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod dynamodb;
mod dynamodb_faults;
mod dynamodb_tables;
mod memory;
mod sqlite;
mod sqlite_files;
#[cfg(unix)]
mod sqlite_processes;
