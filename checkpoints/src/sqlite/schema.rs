//! Opening an SQLite file as a lease store: what the file must be, the tables of a new one, and what a user reads otherwise.
//!
//! A file that is not ours must stay as it is. So the steps are: check the path; open; read the version; only then switch to
//! WAL; then, in one transaction, read the version again and create the tables. A crash in between leaves an empty file or a
//! complete one. Two processes that open a new file at once create its tables once.
//!
//! `application_id` says whose file it is, and `user_version` which layout it has; both are 0 in a new file. A version
//! greater than [`VERSION`] is a newer program's and is refused. When the layout changes, the upgrade from each older
//! version belongs here.
//!
//! A file of an earlier version may have the table `namedCheckpoints`: it is not read and not removed.
//!
//! It does not own what the columns of `leases` mean (`row.rs`).

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::failure::{Failure, explain};
use crate::error::StoreError;

/// The `application_id` of our files: "SHLK".
const APPLICATION: i64 = 0x5348_4c4b;
/// The `user_version` of the layout below.
const VERSION: i64 = 1;

/// The tables. SQLite compares texts by their bytes, so an index has the order of our keys.
pub(super) const TABLES: &str = "
    CREATE TABLE leases (
        streamName TEXT NOT NULL,
        shardId TEXT NOT NULL,
        leaseOwner TEXT,
        checkpointOwner TEXT,
        leaseCounter INTEGER NOT NULL,
        checkpoint TEXT NOT NULL,
        checkpointSubSequenceNumber INTEGER NOT NULL,
        pendingCheckpoint TEXT,
        pendingCheckpointSubSequenceNumber INTEGER,
        pendingCheckpointState TEXT,
        lastManifest TEXT,
        parentShardId TEXT,
        childShardIds TEXT,
        startingHashKey TEXT,
        endingHashKey TEXT,
        ownerSwitchesSinceCheckpoint INTEGER NOT NULL,
        throughputKBps REAL NOT NULL,
        PRIMARY KEY (streamName, shardId)
    ) STRICT, WITHOUT ROWID;
";

/// Opens `path`, and creates the tables if the file is new.
pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    check_path(path)?;
    let opened = || {
        // Without SQLITE_OPEN_URI: a path is a path, whatever it looks like.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy_timeout)?;
        if connection.is_readonly("main")? {
            return Err(unusable(path, "the file is read-only; make it writable for this user").into());
        }
        // In one transaction, since another process may be creating the tables.
        is_new(path, &*connection.transaction()?)?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(unusable(path, "its file system has no shared memory; choose a path on a local disk").into());
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        make_tables(path, &mut connection)?;
        Ok(connection)
    };
    (opened)().map_err(|failure: Failure| explain_opening(path, failure))
}

fn make_tables(path: &Path, connection: &mut Connection) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_new(path, &transaction)? {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Whether the tables do not exist yet; an error if the file is not ours.
fn is_new(path: &Path, connection: &Connection) -> Result<bool, Failure> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let problem = match (number("application_id")?, number("user_version")?) {
        (0, 0) if tables == 0 => return Ok(true),
        (APPLICATION, VERSION) => return Ok(false),
        (APPLICATION, other) => format!(
            "the file has layout {other}, this version knows only layout {VERSION}; use the version that wrote it"
        ),
        _ => "the file is an SQLite database of another program; choose another path".to_owned(),
    };
    Err(unusable(path, problem).into())
}

/// Finds problems for which SQLite has no helpful message.
fn check_path(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.is_dir() {
        Err(unusable(path, "this is a directory; give the path of a file in it"))
    } else if !folder.is_dir() {
        Err(unusable(path, format!("there is no directory {}; create it first", folder.display())))
    } else {
        Ok(())
    }
}

fn explain_opening(path: &Path, failure: Failure) -> StoreError {
    let code = match &failure {
        Failure::Sqlite(error) => error.sqlite_error_code(),
        Failure::Store(_) => None,
    };
    match code {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            unusable(path, "the file is not an SQLite database, or is damaged; move it away or choose another path")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            unusable(path, "this user cannot write the file, or cannot create files in its directory")
        }
        _ => explain(path, "open the checkpoints", failure),
    }
}

fn unusable(path: &Path, problem: impl Into<String>) -> StoreError {
    StoreError::Unusable { store: path.display().to_string(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_transaction_survives_a_power_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints.db");
        // Both for a new file and for an existing one.
        for _ in 0..2 {
            let connection = open(&path, Duration::ZERO).unwrap();
            let text = |name| connection.pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap();
            let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
            // 2 is FULL.
            assert_eq!((text("journal_mode").as_str(), number("synchronous")), ("wal", 2));
        }
    }
}
