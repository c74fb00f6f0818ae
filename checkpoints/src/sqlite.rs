//! The lease store in an SQLite file: for one machine, with one or more worker processes.
//!
//! A [`SqliteStore`] is a handle to one connection; its clones share it, and processes share the file. A call is one
//! transaction on tokio's pool of blocking threads: it reads rows, runs the code of `rules.rs` on them, and writes them back.
//! Writing transactions begin as `IMMEDIATE`, so they never start on rows that another process is about to change. The file
//! is in WAL mode with `synchronous = FULL`: an acknowledged transaction survives a power failure, and one that a crash cut
//! short leaves nothing.
//!
//! The parts: `sqlite/schema.rs` opens a file and creates its tables, `sqlite/tables.rs` reads and writes them,
//! `sqlite/workers.rs` knows which worker processes are alive, and `sqlite/failure.rs` turns SQLite's errors into ours. This
//! file owns how a call runs. It does not own any condition or effect (`rules.rs`), or what a row means (`row.rs`).
//!
//! Limits: a call waits at most 10 s for another process's transaction; then it is [`StoreError::Unavailable`]. The file
//! must be on a local disk: WAL does not work over a network file system. Numbers in rows are at most `i64::MAX`.

mod failure;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod schema;
mod tables;
mod workers;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::time::Instant;

use self::failure::{Failure, explain};
use self::tables::Leases;
use self::workers::Workers;
use crate::decision::{Decision, Verdict};
use crate::error::StoreError;
use crate::lease::{Lease, LeaseOwner, ManifestName, NewLease};
use crate::rules::{self, Rows};
use crate::shard::ShardKey;
use crate::store::{Advance, AdvanceOutcome, LeaseStore, Renewal, RenewalOutcome};

/// How long a call waits for another process's transaction, and `open` for another process's `open`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two attempts of `open`.
const OPEN_RETRY: Duration = Duration::from_millis(20);

/// A lease store in an SQLite file. Clones share the connection.
#[derive(Clone)]
pub struct SqliteStore {
    file: Arc<File>,
}

/// What the clones of a store share.
struct File {
    path: PathBuf,
    connection: Mutex<Connection>,
    workers: Workers,
}

impl SqliteStore {
    /// Opens the store at `path`, and creates the file if there is none. Its directory must exist.
    ///
    /// This and every call need a tokio runtime with its clock.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unusable`]: something is wrong with the file or its directory.
    /// - [`StoreError::Unavailable`]: other processes kept the file locked for 10 s.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        // SQLite does not wait for the lock that changes a new file to WAL mode, whatever its timeout: so we do.
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            let opening = path.to_owned();
            match blocking(move || open(opening, BUSY_TIMEOUT)).await {
                Err(error) if error.is_retryable() && Instant::now() < deadline => tokio::time::sleep(OPEN_RETRY).await,
                outcome => return outcome.map(|file| Self { file: Arc::new(file) }),
            }
        }
    }

    /// Runs `work` in a transaction that only reads: all rows are of one moment.
    async fn read<T: Send + 'static>(
        &self,
        operation: String,
        work: impl FnOnce(&Leases<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(TransactionBehavior::Deferred, operation, |leases| work(leases)).await
    }

    /// Runs `work` in a transaction that writes: it is committed if `work` succeeds, and leaves nothing otherwise.
    async fn write<T: Send + 'static>(
        &self,
        operation: String,
        work: impl FnOnce(&mut Leases<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(TransactionBehavior::Immediate, operation, work).await
    }

    async fn transact<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        operation: String,
        work: impl FnOnce(&mut Leases<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.file);
        blocking(move || {
            // A panic inside a transaction has rolled it back, so the connection is usable.
            let mut connection = file.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transacted = || {
                let transaction = connection.transaction_with_behavior(behavior)?;
                let answer = work(&mut Leases::new(&transaction))?;
                transaction.commit()?;
                Ok(answer)
            };
            (transacted)().map_err(|failure| explain(&file.path, &operation, failure))
        })
        .await
    }
}

/// Runs `work` on the pool of blocking threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::Unavailable {
            operation: "run a transaction".to_owned(),
            problem: "the process is shutting down".to_owned(),
        }),
    }
}

fn open(path: PathBuf, busy_timeout: Duration) -> Result<File, StoreError> {
    let connection = schema::open(&path, busy_timeout)?;
    let workers = Workers::beside(&path);
    Ok(File { path, connection: Mutex::new(connection), workers })
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.file.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl LeaseStore for SqliteStore {
    fn decision_shards_max(&self) -> usize {
        usize::MAX
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.read("list the leases".to_owned(), |leases| tables::list_leases(leases.transaction())).await
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        let keys = keys.to_vec();
        self.read("read leases".to_owned(), move |leases| keys.iter().map(|key| leases.get(key)).collect()).await
    }

    async fn create(&self, new: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        let new = new.to_vec();
        self.write("create leases".to_owned(), move |leases| rules::create(leases, &new)).await
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        let (me, renewals) = (me.clone(), renewals.to_vec());
        self.write(format!("renew the leases of {me}"), move |leases| rules::renew(leases, &me, &renewals)).await
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        let (me, key) = (me.clone(), key.clone());
        self.write(format!("take {key}"), move |leases| rules::take(leases, &me, &key, seen_counter)).await
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        let (me, key, from) = (me.clone(), key.clone(), from.clone());
        self.write(format!("ask for {key}"), move |leases| rules::ask(leases, &me, &key, &from)).await
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        let (me, key) = (me.clone(), key.clone());
        self.write(format!("hand over {key}"), move |leases| rules::hand_over(leases, &me, &key)).await
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        let (me, key) = (me.clone(), key.clone());
        self.write(format!("release {key}"), move |leases| rules::release(leases, &me, &key)).await
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        let key = key.clone();
        self.write(format!("remove {key}"), move |leases| rules::remove(leases, &key)).await
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        let (decision, shards_max) = (decision.clone(), self.decision_shards_max());
        let operation = format!("decide manifest {}", decision.manifest());
        self.write(operation, move |leases| rules::decide(leases, &decision, shards_max)).await
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        let (manifest, advances) = (manifest.clone(), advances.to_vec());
        let operation = format!("advance manifest {manifest}");
        self.write(operation, move |leases| rules::advance(leases, &manifest, &advances)).await
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        let (manifest, keys) = (manifest.clone(), keys.to_vec());
        let operation = format!("roll back manifest {manifest}");
        self.write(operation, move |leases| rules::roll_back(leases, &manifest, &keys)).await
    }

    async fn register(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let (file, me) = (Arc::clone(&self.file), me.clone());
        blocking(move || file.workers.register(&me)).await
    }

    async fn deregister(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let (file, me) = (Arc::clone(&self.file), me.clone());
        blocking(move || file.workers.deregister(&me)).await
    }

    async fn owner_is_gone(&self, owner: &LeaseOwner) -> Result<bool, StoreError> {
        let (file, owner) = (Arc::clone(&self.file), owner.clone());
        blocking(move || file.workers.is_gone(&owner)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use crate::shard::{ShardId, StreamName};

    #[tokio::test]
    async fn a_lock_that_is_not_free_in_time_is_a_retryable_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints.db");
        let store = SqliteStore { file: Arc::new(open(path.clone(), Duration::from_millis(20)).unwrap()) };
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let me = LeaseOwner::new("me").unwrap();
        let error = store.renew(&me, &[]).await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().starts_with("could not renew the leases of me: database is locked"), "{error}");
        // A read does not wait.
        assert_eq!(store.list().await.unwrap(), []);
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(store.renew(&me, &[]).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_transaction_that_fails_or_panics_leaves_nothing_and_the_store_works_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("checkpoints.db")).await.unwrap();
        let half = || {
            let (stream, shard) = (StreamName::new("orders").unwrap(), ShardId::new("half").unwrap());
            Lease::new(NewLease::new(ShardKey::new(stream, shard), Position::Beginning))
        };
        let failed = store.write("fail".to_owned(), move |leases| {
            leases.put(half())?;
            leases.transaction().execute("not SQL", [])?;
            Ok(())
        });
        assert!(matches!(failed.await.unwrap_err(), StoreError::Unusable { .. }));
        let panicking = store.clone();
        let panicked = tokio::spawn(async move {
            let work = move |leases: &mut Leases<'_>| -> Result<(), Failure> {
                leases.put(half())?;
                panic!("in the middle");
            };
            panicking.write("panic".to_owned(), work).await
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(store.list().await.unwrap(), []);
    }
}
