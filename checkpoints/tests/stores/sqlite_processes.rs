//! The SQLite store among processes: contention, and processes that are killed or stopped at the worst time.
//!
//! A test that needs a second process starts itself once more, with a role and a database in its environment. The child
//! says on its standard output how far it got, and ends when its standard input is closed: with its parent, at the latest.

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
/// What a child's words to its parent begin with, among the words of the test's harness.
const WORD: &str = "child: ";

/// A child process; killed when the test is done with it.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `test` of this file once more, as the child `name`.
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

    /// The child's next word.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, word)) = line.trim_end().split_once(WORD) {
                return word.to_owned();
            }
            line.clear();
        }
        panic!("the child ended without a word");
    }

    /// Lets the child go on.
    fn go(&mut self) {
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

    /// Waits for the child, which ends well.
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

/// A child's word to its parent.
fn say(word: &str) {
    println!("{WORD}{word}");
}

/// Waits until the parent lets the child go on; ends the child if the parent has ended.
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

/// The child of the tests below that want a live worker: registers, takes the first lease, and waits.
async fn be_a_worker(database: PathBuf, name: &str) {
    let store = SqliteStore::open(database).await.unwrap();
    store.register(&owner(name)).await.unwrap();
    take(&store, &owner(name), &key(0)).await;
    say("working");
    wait_for_parent();
    assert!(store.release(&owner(name), &key(0)).await.unwrap());
    store.deregister(&owner(name)).await.unwrap();
    say("done");
}

#[tokio::test]
async fn of_two_processes_that_want_every_lease_each_lease_goes_to_one() {
    const LEASES: usize = 40;
    if let Some((database, name)) = child() {
        let store = SqliteStore::open(database).await.unwrap();
        say("ready");
        wait_for_parent();
        let mut won = 0;
        for number in 0..LEASES {
            let seen = lease(&store, number).await;
            if seen.holder == Holder::Nobody {
                won += usize::from(store.take(&owner(&name), &key(number), seen.counter).await.unwrap().is_some());
            }
        }
        say(&won.to_string());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let store = SqliteStore::open(&database).await.unwrap();
    create(&store, LEASES).await;
    let test = "of_two_processes_that_want_every_lease_each_lease_goes_to_one";
    let mut workers = ["one", "two"].map(|name| Process::start(test, name, &database));
    for worker in &mut workers {
        assert_eq!(worker.hear(), "ready");
    }
    for worker in &mut workers {
        worker.go();
    }
    let won = workers.map(|mut worker| {
        let won: usize = worker.hear().parse().unwrap();
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
    assert_eq!(worker.hear(), "working");
    assert!(!store.owner_is_gone(&owner("worker")).await.unwrap());
    worker.kill();
    // Eight ask at once: none takes another's asking for the worker.
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.owner_is_gone(&owner("worker")).await.unwrap() })
        })
        .collect();
    for answer in asking {
        assert!(answer.await.unwrap());
    }
    let seen = lease(&store, 0).await;
    assert_eq!(seen.holder, Holder::Held(owner("worker")));
    assert!(store.take(&owner("next"), &key(0), seen.counter).await.unwrap().is_some());
    assert_eq!(std::fs::read_dir(folder.path().join("checkpoints.db-workers")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_worker_that_is_stopped_is_not_gone_and_goes_on_when_it_is_continued() {
    if let Some((database, name)) = child() {
        return be_a_worker(database, &name).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let store = SqliteStore::open(&database).await.unwrap();
    create(&store, 1).await;
    let test = "a_worker_that_is_stopped_is_not_gone_and_goes_on_when_it_is_continued";
    let mut worker = Process::start(test, "worker", &database);
    assert_eq!(worker.hear(), "working");
    worker.signal("-STOP");
    assert!(!store.owner_is_gone(&owner("worker")).await.unwrap());
    worker.signal("-CONT");
    worker.go();
    assert_eq!(worker.hear(), "done");
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
        // What a decision writes, up to its middle; with a cache so small that the rows reach the file on the way.
        half.execute_batch(
            "PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE leases SET pendingCheckpoint = '5', \
             pendingCheckpointSubSequenceNumber = 0, pendingCheckpointState = 'half' WHERE shardId < 'shardId-000000001000'",
        )
        .unwrap();
        say("half done");
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
    assert_eq!(half.hear(), "half done");
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
async fn a_worker_killed_in_the_middle_of_its_commits_leaves_whole_epochs_and_loses_none_that_was_answered() {
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
            say(&number.to_string());
            store.advance(epoch.manifest(), &advances(&epoch)).await.unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("checkpoints.db");
    let test = "a_worker_killed_in_the_middle_of_its_commits_leaves_whole_epochs_and_loses_none_that_was_answered";
    let mut answered = 0;
    for round in 0..8 {
        let store = SqliteStore::open(&database).await.unwrap();
        if round == 0 {
            create(&store, SHARDS).await;
        }
        for number in 0..SHARDS {
            take(&store, &owner("worker"), &key(number)).await;
        }
        // Alone with the file, so that the next one to open it also recovers it.
        drop(store);
        let mut worker = Process::start(test, &(answered + 1).to_string(), &database);
        for _ in 0..=5 * round {
            answered = worker.hear().parse().unwrap();
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
        assert!(committed >= answered, "epoch {answered} was answered, but only {committed} is there");
        answered = committed;
        let check: String =
            Connection::open(&database).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
    }
}

#[tokio::test]
async fn a_file_or_folder_that_this_user_cannot_write_is_told() {
    if let Some((database, _)) = child() {
        for path in [database.clone(), database.with_file_name("new.db")] {
            let error = SqliteStore::open(path).await.expect_err("it can't be written");
            assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
            say(&error.to_string());
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
    // A superuser may write anything, so as one the child is somebody else.
    let mut command = Command::new(program);
    if std::fs::metadata(&database).unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let mut child = Process::run(command, "a_file_or_folder_that_this_user_cannot_write_is_told", "", &database);
    let messages = [child.hear(), child.hear()];
    child.finish();
    mode(folder.path(), 0o755);
    assert!(messages[0].ends_with("the file is read-only; make it writable for this user"), "{messages:?}");
    assert!(messages[1].ends_with("this user can't write the file, or can't make files in its folder"), "{messages:?}");
}
