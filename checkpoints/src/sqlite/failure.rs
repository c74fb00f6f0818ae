//! How a call on an SQLite file fails.
//!
//! Owns: telling failures that may pass (a lock, a full disk, an I/O error) from those that stay, and their messages. Does not
//! own: problems that only opening a file has (`schema.rs`).

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::StoreError;

/// Why work inside a transaction failed.
pub(super) enum Failure {
    /// SQLite refused a statement.
    Sqlite(rusqlite::Error),
    /// The call breaks one of our rules, or a row does.
    Store(StoreError),
}

/// The error that the caller gets.
pub(super) fn explain(path: &Path, operation: &str, failure: Failure) -> StoreError {
    let error = match failure {
        Failure::Store(error) => return error,
        Failure::Sqlite(error) => error,
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Unavailable {
            operation: operation.to_owned(),
            problem: format!("{error}; make room ({})", path.display()),
        },
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OperationInterrupted
            | ErrorCode::OutOfMemory
            | ErrorCode::SystemIoFailure,
        ) => StoreError::Unavailable {
            operation: operation.to_owned(),
            problem: format!("{error} ({})", path.display()),
        },
        _ => StoreError::Unusable {
            store: path.display().to_string(),
            problem: format!("could not {operation}: {error}"),
        },
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
