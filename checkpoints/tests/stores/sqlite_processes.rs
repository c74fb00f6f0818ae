//! The SQLite store among processes: contention, and processes that are killed or stopped at the worst time.
//!
//! A test that needs a second process starts its own binary again, with a role and a database in its environment. The child
//! reports its progress on its standard output. It ends when its standard input is closed, at the latest with its parent.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use checkpoints::conformance::{advances, at, create, decision, key, manifest, take};
use checkpoints::{Holder, Lease, LeaseOwner, LeaseStore, Position, ShardRange, SqliteStore, StoreError, Verdict};
use rusqlite::Connection;

/// The child's database and its name, in its environment.
const DATABASE: &str = "SHARDLAKE_TEST_DATABASE";
const NAME: &str = "SHARDLAKE_TEST_NAME";
/// The beginning of a child's reports, to distinguish them from the test harness's output.
const REPORT: &str = "child: ";

/// A child process; killed when the test is done with it.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `test` of this file again, as the child `name`.
    fn start(test: &str, name: &str, database: &Path) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), test, name, database)
    }

    fn run(mut program: Command, test: &str, name: &str, database: &Path) -> Self {
        program.args(["--exact", &format!("sqlite_processes::{test}"), "--nocapture"]);
        program.env(DATABASE, database).env(NAME, name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), output, child }
    }

    /// The child's next report.
    fn next_report(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, report)) = line.trim_end().split_once(REPORT) {
                return report.to_owned();
            }
            line.clear();
        }
        panic!("the child ended without a report");
    }

    /// Lets the child continue.
    fn proceed(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Ends the child as `kill -9` does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the child, which must succeed.
    fn finish(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's database and name, if this process is one.
fn child() -> Option<(PathBuf, String)> {
    Some((std::env::var_os(DATABASE)?.into(), std::env::var(NAME).ok()?))
}

/// Reports to the parent.
fn report(what: &str) {
    println!("{REPORT}{what}");
}

/// Waits until the parent lets the child continue; ends the child if the parent has ended.
fn wait_for_parent() {
    if std::io::stdin().read(&mut [0]).unwrap() == 0 {
        std::process::exit(0);
    }
}

fn owner(name: &str) -> LeaseOwner {
    LeaseOwner::new(name).unwrap()
}

async fn lease(store: &SqliteStore, number: usize) -> Lease {
    store.get(&[key(number)]).await.unwrap().remove(0).unwrap()
}

/// The child of the tests below that need a live worker: registers, takes the first lease, and waits.
async fn be_a_worker(database: PathBuf, name: &str) {
    let store = SqliteStore::open(database).await.unwrap();
    store.register(&owner(name)).await.unwrap();
    take(&store, &owner(name), &key(0)).await;
    report("working");
    wait_for_parent();
    assert!(store.release(&owner(name), &key(0)).await.unwrap());
    store.deregister(&owner(name)).await.unwrap();
    report("done");
}

#[tokio::test]
async fn of_two_processes_that_want_every_lease_each_lease_goes_to_one() {
    const LEASES: usize = 40;
    if let Some((database, name)) = child() {
        let store = SqliteStore::open(database).await.unwrap();
        report("ready");
        wait_for_parent();
        let mut won = 0;
        for number in 0..LEASES {
            let seen = lease(&store, number).await;
            if seen.holder == Holder::Nobody {
                won += usize::from(store.take(&owner(&name), &key(number), seen.counter).await.unwrap().is_some());
            }
        }
        report(&won.to_string());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let store = SqliteStore::open(&database).await.unwrap();
    create(&store, LEASES).await;
    let test = "of_two_processes_that_want_every_lease_each_lease_goes_to_one";
    let mut workers = ["one", "two"].map(|name| Process::start(test, name, &database));
    for worker in &mut workers {
        assert_eq!(worker.next_report(), "ready");
    }
    for worker in &mut workers {
        worker.proceed();
    }
    let won = workers.map(|mut worker| {
        let won: usize = worker.next_report().parse().unwrap();
        worker.finish();
        won
    });
    let leases = store.list().await.unwrap();
    assert!(leases.iter().all(|lease| lease.counter == 1), "a lease was taken twice");
    let of = |name| leases.iter().filter(|lease| lease.holder == Holder::Held(owner(name))).count();
    assert_eq!([of("one"), of("two")], won);
    assert_eq!(won[0] + won[1], LEASES);
}

#[tokio::test]
async fn a_worker_that_was_killed_is_gone_at_once_and_its_lease_can_be_taken() {
    if let Some((database, name)) = child() {
        return be_a_worker(database, &name).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let store = SqliteStore::open(&database).await.unwrap();
    create(&store, 1).await;
    let test = "a_worker_that_was_killed_is_gone_at_once_and_its_lease_can_be_taken";
    let mut worker = Process::start(test, "worker", &database);
    assert_eq!(worker.next_report(), "working");
    assert!(!store.owner_is_gone(&owner("worker")).await.unwrap());
    worker.kill();
    // Eight checks at once: none takes another check for the worker.
    let checks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.owner_is_gone(&owner("worker")).await.unwrap() })
        })
        .collect();
    for answer in checks {
        assert!(answer.await.unwrap());
    }
    let seen = lease(&store, 0).await;
    assert_eq!(seen.holder, Holder::Held(owner("worker")));
    assert!(store.take(&owner("next"), &key(0), seen.counter).await.unwrap().is_some());
    assert_eq!(std::fs::read_dir(folder.path().join("checkpoints.db-workers")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_worker_that_is_stopped_is_not_gone_and_works_on_when_it_is_continued() {
    if let Some((database, name)) = child() {
        return be_a_worker(database, &name).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let store = SqliteStore::open(&database).await.unwrap();
    create(&store, 1).await;
    let test = "a_worker_that_is_stopped_is_not_gone_and_works_on_when_it_is_continued";
    let mut worker = Process::start(test, "worker", &database);
    assert_eq!(worker.next_report(), "working");
    worker.signal("-STOP");
    assert!(!store.owner_is_gone(&owner("worker")).await.unwrap());
    worker.signal("-CONT");
    worker.proceed();
    assert_eq!(worker.next_report(), "done");
    assert!(store.owner_is_gone(&owner("worker")).await.unwrap());
    assert_eq!(lease(&store, 0).await.holder, Holder::Nobody);
    assert_eq!(std::fs::read_dir(folder.path().join("checkpoints.db-workers")).unwrap().count(), 0);
    worker.finish();
}

#[tokio::test]
async fn a_crash_between_two_statements_of_a_transaction_leaves_nothing_of_it() {
    const LEASES: usize = 2_000;
    if let Some((database, _)) = child() {
        let half = Connection::open(database).unwrap();
        // The first half of what a decision writes, with a cache so small that the rows reach the file meanwhile.
        half.execute_batch(
            "PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE leases SET pendingCheckpoint = '5', \
             pendingCheckpointSubSequenceNumber = 0, pendingCheckpointState = 'half' WHERE shardId < 'shardId-000000001000'",
        )
        .unwrap();
        report("half done");
        return wait_for_parent();
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let store = SqliteStore::open(&database).await.unwrap();
    create(&store, LEASES).await;
    for number in [0, LEASES - 1] {
        take(&store, &owner("me"), &key(number)).await;
    }
    let before = store.list().await.unwrap();
    let log = || std::fs::metadata(folder.path().join("checkpoints.db-wal")).unwrap().len();
    Connection::open(&database).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert_eq!(log(), 0);
    let test = "a_crash_between_two_statements_of_a_transaction_leaves_nothing_of_it";
    let mut half = Process::start(test, "half", &database);
    assert_eq!(half.next_report(), "half done");
    assert!(log() > 0, "the half decision has not reached the file");
    assert_eq!(store.list().await.unwrap(), before);
    half.kill();
    assert_eq!(store.list().await.unwrap(), before);
    let range = ShardRange::new(Position::Beginning, at(5)).unwrap();
    let shards = [0, LEASES - 1].map(|number| (key(number), range.clone()));
    let epoch = decision(&owner("me"), &manifest("whole"), shards.into());
    assert_eq!(store.decide(&epoch).await.unwrap(), Verdict::Decided);
}

#[tokio::test]
async fn a_worker_killed_during_its_commits_leaves_whole_epochs_and_loses_no_acknowledged_one() {
    const SHARDS: usize = 3;
    let epoch = |leases: &[Lease], number: u64| {
        let range = |lease: &Lease| ShardRange::new(lease.checkpoint.clone(), at(number)).unwrap();
        let shards = leases.iter().map(|lease| (lease.key.clone(), range(lease))).collect();
        decision(&owner("worker"), &manifest(&number.to_string()), shards)
    };
    if let Some((database, first)) = child() {
        let store = SqliteStore::open(database).await.unwrap();
        for number in first.parse().unwrap().. {
            let epoch = epoch(&store.list().await.unwrap(), number);
            assert_eq!(store.decide(&epoch).await.unwrap(), Verdict::Decided);
            report(&number.to_string());
            store.advance(epoch.manifest(), &advances(&epoch)).await.unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let test = "a_worker_killed_during_its_commits_leaves_whole_epochs_and_loses_no_acknowledged_one";
    let mut acknowledged = 0;
    for round in 0..8 {
        let store = SqliteStore::open(&database).await.unwrap();
        if round == 0 {
            create(&store, SHARDS).await;
        }
        for number in 0..SHARDS {
            take(&store, &owner("worker"), &key(number)).await;
        }
        // The only connection, so that the next one to open the file also recovers it.
        drop(store);
        let mut worker = Process::start(test, &(acknowledged + 1).to_string(), &database);
        for _ in 0..=5 * round {
            acknowledged = worker.next_report().parse().unwrap();
        }
        worker.kill();

        let store = SqliteStore::open(&database).await.unwrap();
        let leases = store.list().await.unwrap();
        let state = |lease: &Lease| (lease.checkpoint.clone(), lease.pending.clone(), lease.last_manifest.clone());
        assert!(leases.iter().all(|lease| state(lease) == state(&leases[0])), "{leases:#?}");
        if let Some(pending) = &leases[0].pending {
            let ends: Vec<_> = leases
                .iter()
                .map(|lease| checkpoints::Advance::new(lease.key.clone(), pending.through.clone()))
                .collect();
            store.advance(&pending.manifest, &ends).await.unwrap();
        }
        let Position::At { sequence, .. } = lease(&store, 0).await.checkpoint else { panic!("nothing is committed") };
        let committed: u64 = sequence.as_str().parse().unwrap();
        assert!(committed >= acknowledged, "epoch {acknowledged} was acknowledged, but only {committed} is there");
        acknowledged = committed;
        let check: String =
            Connection::open(&database).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
    }
}

#[tokio::test]
async fn a_file_or_directory_that_this_user_cannot_write_is_reported() {
    if let Some((database, _)) = child() {
        for path in [database.clone(), database.with_file_name("new.db")] {
            let error = SqliteStore::open(path).await.expect_err("it can't be written");
            assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
            report(&error.to_string());
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    drop(SqliteStore::open(&database).await.unwrap());
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&database, 0o444);
    mode(folder.path(), 0o555);
    // A superuser may write anything, so the child runs as another user.
    let mut command = Command::new(program);
    if std::fs::metadata(&database).unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let test = "a_file_or_directory_that_this_user_cannot_write_is_reported";
    let mut child = Process::run(command, test, "", &database);
    let messages = [child.next_report(), child.next_report()];
    child.finish();
    mode(folder.path(), 0o755);
    assert!(messages[0].ends_with("the file is read-only; make it writable for this user"), "{messages:?}");
    assert!(messages[1].ends_with("cannot write the file, or cannot create files in its directory"), "{messages:?}");
}
