//! The SQLite store and its file: what makes a good one, and what a user reads about a bad one.

use std::path::Path;

use checkpoints::conformance::{key, take};
use checkpoints::{LeaseOwner, LeaseStore, NewLease, Position, SqliteStore, StoreError};
use rusqlite::Connection;

/// The message of opening `path`, which fails with a permanent error.
async fn refusal(path: &Path) -> String {
    let error = SqliteStore::open(path).await.expect_err("it can't be opened");
    assert!(matches!(error, StoreError::Unusable { .. }) && !error.is_retryable(), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with(&format!("cannot use the checkpoints in {}: ", path.display())), "{message}");
    message
}

/// A store with one lease.
async fn store(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).await.unwrap();
    store.create(&[NewLease::new(key(0), Position::Beginning)]).await.unwrap();
    store
}

#[tokio::test]
async fn a_lease_is_still_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints.db");
    let first = store(&path).await;
    let taken = take(&first, &LeaseOwner::new("me").unwrap(), &key(0)).await;
    drop(first);
    assert_eq!(SqliteStore::open(&path).await.unwrap().list().await.unwrap(), [taken]);
}

#[tokio::test]
async fn a_new_file_that_many_open_at_once_is_created_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints.db");
        let openings: Vec<_> = (0..8).map(|_| tokio::spawn(SqliteStore::open(path.clone()))).collect();
        for opening in openings {
            assert_eq!(opening.await.unwrap().unwrap().list().await.unwrap(), []);
        }
    }
}

#[tokio::test]
async fn a_path_is_never_interpreted_as_a_uri() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["file:x?mode=memory", ":memory:", "a b#c%20", "ä"] {
        drop(store(&folder.path().join(name)).await);
        assert!(folder.path().join(name).is_file(), "{name:?} was not made");
    }
}

#[tokio::test]
async fn a_missing_directory_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let message = refusal(&missing.join("checkpoints.db")).await;
    assert!(message.ends_with(&format!("there is no directory {}; create it first", missing.display())), "{message}");
}

#[tokio::test]
async fn a_path_that_is_a_directory_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(folder.path()).await;
    assert!(message.ends_with("this is a directory; give the path of a file in it"), "{message}");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_reported_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "notes, and not a database, of more than the hundred bytes that a database's header has. ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    let message = refusal(&path).await;
    assert!(message.contains("the file is not an SQLite database"), "{message}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_another_program_is_reported_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    // Whether that program numbers its layouts or not.
    for version in [0, 1] {
        let path = folder.path().join(format!("photos-{version}.db"));
        let other = Connection::open(&path).unwrap();
        other.execute_batch(&format!("CREATE TABLE photos (id INTEGER); PRAGMA user_version = {version}")).unwrap();
        drop(other);
        let before = std::fs::read(&path).unwrap();
        let message = refusal(&path).await;
        assert!(message.contains("an SQLite database of another program"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints.db");
    drop(store(&path).await);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let message = refusal(&path).await;
    assert!(message.ends_with("has layout 2, this version knows only layout 1; use the version that wrote it"));
}

#[tokio::test]
async fn a_malformed_row_is_reported_with_its_shard_and_affects_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints.db");
    let store = store(&path).await;
    store.create(&[NewLease::new(key(1), Position::Beginning)]).await.unwrap();
    let me = LeaseOwner::new("me").unwrap();
    let other = Connection::open(&path).unwrap();
    for values in [
        "checkpoint = 'LATEST', checkpointSubSequenceNumber = 1",
        "checkpoint = ''",
        "checkpoint = CAST(x'ff' AS TEXT)",
        "leaseCounter = -1",
        "checkpointOwner = 'me'",
        "pendingCheckpoint = '5'",
        "parentShardId = '['",
        "childShardIds = '[\"\"]'",
        "startingHashKey = 'first', endingHashKey = 'last'",
    ] {
        let whole = store.get(&[key(0)]).await.unwrap();
        let row = "WHERE shardId = 'shardId-000000000000'";
        other.execute(&format!("UPDATE leases SET {values} {row}"), []).unwrap();
        let errors = [
            store.get(&[key(0)]).await.unwrap_err(),
            store.list().await.unwrap_err(),
            store.take(&me, &key(0), 0).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StoreError::Malformed { .. }), "{values}: {error:?}");
            let message = error.to_string();
            assert!(message.contains("lease of shard shardId-000000000000 of stream orders"), "{values}: {message}");
        }
        take(&store, &me, &key(1)).await;
        other.execute(&format!("DELETE FROM leases {row}"), []).unwrap();
        store.create(&[NewLease::new(key(0), Position::Beginning)]).await.unwrap();
        assert_eq!(store.get(&[key(0)]).await.unwrap(), whole);
    }
}

#[tokio::test]
async fn a_file_with_the_former_table_of_named_checkpoints_is_used_and_that_table_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints.db");
    let row = store(&path).await.list().await.unwrap();
    let former = "CREATE TABLE namedCheckpoints (name TEXT NOT NULL PRIMARY KEY, atMs INTEGER NOT NULL, \
                  shards INTEGER NOT NULL, positions TEXT NOT NULL) STRICT, WITHOUT ROWID; \
                  INSERT INTO namedCheckpoints VALUES ('before', 1, 0, '[]')";
    let other = Connection::open(&path).unwrap();
    other.execute_batch(former).unwrap();
    let opened = SqliteStore::open(&path).await.unwrap();
    assert_eq!(opened.list().await.unwrap(), row);
    take(&opened, &LeaseOwner::new("me").unwrap(), &key(0)).await;
    let left: i64 = other.query_row("SELECT count(*) FROM namedCheckpoints", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_start_position_that_a_row_cannot_hold_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("checkpoints.db")).await;
    let too_far = Position::At { sequence: 1_u64.into(), sub: u64::MAX };
    let new = [NewLease::new(key(1), Position::Beginning), NewLease::new(key(2), too_far)];
    assert!(matches!(store.create(&new).await.unwrap_err(), StoreError::Invalid { .. }));
    assert_eq!(store.list().await.unwrap().len(), 1);
}
