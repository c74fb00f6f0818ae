//! Whole runs of one worker after another, in memory, under paused time: what they do about an epoch that was left pending, and how
//! they stop.
//!
//! A first worker decides an epoch and then fails to publish it. Its uploads expire, so whoever recovers the epoch waits ten
//! seconds before the roll back. What happens in these ten seconds is what most tests here are about.

mod stuck;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Lease, LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, Renewal};
use pipeline::encode::EncoderConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commit::{EdgeTotal, ObjectKind, Stores};
use crate::config::{
    CheckpointSchedule, CommitConfig, LeaseConfig, Limits, OutputConfig, RetryConfig, StopConfig, TelemetryConfig,
    WorkerSettings,
};
use crate::inspect;
use crate::lake::{DefinitionClaims, Fault, MemoryStore, ObjectKey, ObjectStore};
use crate::retry::RetryPolicy;
use crate::source::ShardSource;
use crate::worker::testing::{StoppedClock, TestStream, key, lane_config, records_up_to};
use crate::worker::{CommitStep, Compute, Progress, WorkerConfig, WorkerError, run};

/// How long a worker may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(25);

/// A stream, a lake and a lease table.
struct Environment {
    stream: TestStream,
    lake: MemoryStore,
    leases: MemoryLeases,
}

/// A worker that is running.
struct Worker {
    me: LeaseOwner,
    stop: CancellationToken,
    progress: Arc<Progress>,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Worker {
    async fn stop(self) -> Result<(), WorkerError> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

impl Environment {
    /// `group_shards_max`: the most shards of one epoch.
    fn new(shards: &[(&str, u64)], group_shards_max: usize) -> Self {
        Environment {
            stream: TestStream::new(shards),
            lake: MemoryStore::new(),
            leases: MemoryLeases::new().with_decision_shards_max(group_shards_max),
        }
    }

    fn row(&self, shard: &str) -> Lease {
        self.leases.rows().into_iter().find(|row| row.key == key(shard)).unwrap()
    }

    fn committed(&self, shard: &str) -> u64 {
        records_up_to(&self.row(shard).checkpoint)
    }

    fn start(&self, number: u8, until_caught_up: bool) -> Worker {
        self.start_reading(number, until_caught_up, Arc::new(self.stream.clone()))
    }

    /// Starts a worker that reads by this way.
    fn start_reading(&self, number: u8, until_caught_up: bool, source: Arc<dyn ShardSource>) -> Worker {
        let me = LeaseOwner::from_random([number; 16]);
        let config = WorkerConfig {
            me: me.clone(),
            sources: vec![source],
            stores: Stores::new(
                Arc::new(self.lake.clone()),
                Arc::new(self.leases.clone()),
                RetryPolicy::within(Duration::from_millis(400)),
            ),
            raw_sink: None,
            clock: Arc::new(StoppedClock),
            compute: Compute::Inline,
            lanes: Arc::new(lane_config()),
            settings: WorkerSettings {
                output: OutputConfig { file_bytes: 1 << 20, ..OutputConfig::default() },
                commit: CommitConfig { interval: Duration::from_millis(500), input_bytes: 1 << 30 },
                leases: LeaseConfig { failover: Duration::from_secs(5), hand_off: Duration::from_secs(8) },
                limits: Limits { memory: 16 << 20, threads: 1, open_objects: 4, ..Limits::default() },
                stop: StopConfig { within: STOP_WITHIN },
                retry: RetryConfig { within: Duration::from_secs(300) },
                checkpoints: CheckpointSchedule::default(),
                telemetry: TelemetryConfig::default(),
            },
            encoder: EncoderConfig::default(),
            roll_ups: crate::commit::log::RollUpConfig::default(),
            snapshot_every: crate::commit::lake_log::SNAPSHOT_EVERY,
            definitions: Some(DefinitionClaims::default()),
            after_commit: Vec::new(),
            until_caught_up,
        };
        let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
        let task = tokio::spawn(run(config, Arc::clone(&progress), stop.clone()));
        Worker { me, stop, progress, task }
    }

    /// Lets a first worker decide an epoch that it can't publish, and loses the epoch's uploads. Returns the shards on which
    /// the epoch is pending.
    async fn leave_an_epoch_pending(&self) -> Vec<String> {
        self.lake.fail("complete_upload", 0, Fault::Refuse);
        let error = self.start(1, false).task.await.unwrap().unwrap_err();
        assert!(matches!(error, WorkerError::Commit(_)), "{error}");
        self.lake.expire_uploads();
        let rows = self.leases.rows().into_iter().filter(|row| row.pending.is_some());
        rows.map(|row| row.key.shard.to_string()).collect()
    }

    /// Every record that the lake has, once it has been audited.
    async fn audited_records(&self) -> u64 {
        let stores = Stores::new(Arc::new(self.lake.clone()), Arc::new(self.leases.clone()), RetryPolicy::default());
        let audit = inspect::verify(&stores, &|_| {}).await.unwrap();
        assert!(audit.faults.is_empty(), "{:?}", audit.faults);
        audit.totals.records
    }

    /// Calls that read a commit record: each recovery begins with one.
    fn recoveries(&self) -> usize {
        let calls = self.lake.calls();
        calls.iter().filter(|(operation, key)| *operation == "get" && key.starts_with("_commits/")).count()
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn other_shards_are_committed_while_a_recovery_waits() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    assert_eq!(environment.leave_an_epoch_pending().await, ["a"]);
    let worker = environment.start(2, false);
    seconds(3).await;
    environment.stream.put("b", 4);
    seconds(3).await;
    assert!(environment.row("a").pending.is_some(), "the recovery waits");
    assert_eq!((environment.committed("a"), environment.committed("b")), (0, 7));
    seconds(6).await;
    assert!(environment.row("a").pending.is_none(), "the epoch is rolled back");
    assert_eq!(environment.committed("a"), 3, "and its records are read again");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_recovery_serves_all_shards_of_the_epoch() {
    let environment = Environment::new(&[("a", 3), ("b", 3), ("c", 3)], 100);
    assert_eq!(environment.leave_an_epoch_pending().await, ["a", "b", "c"]);
    let recoveries = environment.recoveries();
    let worker = environment.start(2, false);
    seconds(15).await;
    assert_eq!(environment.recoveries() - recoveries, 1);
    assert_eq!(worker.progress.committed().rolled_back, 1);
    assert_eq!(["a", "b", "c"].map(|shard| environment.committed(shard)), [3, 3, 3]);
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_until_caught_up_waits_for_a_recovery() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    environment.leave_an_epoch_pending().await;
    let worker = environment.start(2, true);
    seconds(8).await;
    assert!(!worker.task.is_finished() && environment.committed("b") == 3);
    worker.task.await.unwrap().unwrap();
    assert_eq!(environment.committed("a"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_recovery_leaves_the_epoch_to_the_next_worker() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    environment.leave_an_epoch_pending().await;
    let worker = environment.start(2, false);
    seconds(4).await;
    let begun = tokio::time::Instant::now();
    worker.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "the stop does not wait for the recovery");
    let row = environment.row("a");
    assert!(row.pending.is_some() && row.holder.committer().is_none());
    environment.start(3, true).task.await.unwrap().unwrap();
    assert_eq!((environment.committed("a"), environment.committed("b")), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_lease_is_lost_during_its_recovery_is_not_read() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    environment.leave_an_epoch_pending().await;
    let worker = environment.start(2, false);
    seconds(4).await;
    let row = environment.row("a");
    assert!(row.holder.is(&worker.me));
    let thief = LeaseOwner::from_random([9; 16]);
    // The thief renews, so that it counts as alive.
    let mut counter = environment.leases.take(&thief, &row.key, row.counter).await.unwrap().unwrap().counter;
    for _ in 0..10 {
        seconds(1).await;
        let renewal = Renewal { key: row.key.clone(), counter, throughput: row.throughput };
        environment.leases.renew(&thief, &[renewal]).await.unwrap();
        counter += 1;
    }
    assert!(environment.row("a").pending.is_none(), "the recovery ends all the same");
    assert_eq!((environment.committed("a"), environment.committed("b")), (0, 3));
    let aborted = worker.progress.committed().aborted;
    assert_eq!(aborted, 0, "no epoch had records of the lost shard");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_requested_during_its_recovery_is_handed_over_at_once() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    environment.leave_an_epoch_pending().await;
    let worker = environment.start(2, false);
    seconds(4).await;
    let asker = LeaseOwner::from_random([9; 16]);
    assert!(environment.leases.ask(&asker, &key("a"), &worker.me).await.unwrap());
    seconds(2).await;
    let row = environment.row("a");
    assert!(row.holder.is(&asker) && row.pending.is_some());
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_epoch_cannot_be_recovered_is_abandoned_and_the_others_are_read() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    environment.leave_an_epoch_pending().await;
    let intent = environment.row("a").pending.unwrap().manifest;
    environment.lake.delete(&ObjectKey::new(intent.as_str()).unwrap()).await.unwrap();
    let error = environment.start(2, true).task.await.unwrap().unwrap_err();
    let WorkerError::Shards { problems } = error else { panic!("{error}") };
    assert!(problems.len() == 1 && problems[0].contains("shard a of stream orders"), "{problems:?}");
    assert_eq!(environment.committed("b"), 3);
    assert!(environment.row("a").pending.is_some() && environment.row("a").holder.committer().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_worker_ends_if_the_lake_fails_during_a_recovery_that_shards_wait_for() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    environment.leave_an_epoch_pending().await;
    let worker = environment.start(2, false);
    seconds(4).await;
    environment.lake.fail("complete_upload", 0, Fault::Refuse);
    let error = worker.task.await.unwrap().unwrap_err();
    assert!(matches!(error, WorkerError::Commit(_)), "{error}");
    environment.start(3, true).task.await.unwrap().unwrap();
    assert_eq!((environment.committed("a"), environment.committed("b")), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stop_commits_what_was_read_and_releases_the_leases() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    let worker = environment.start(1, false);
    seconds(2).await;
    environment.stream.put("a", 4);
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.stop().await.unwrap();
    assert_eq!((environment.committed("a"), environment.committed("b")), (7, 3));
    assert!(environment.leases.rows().iter().all(|row| row.holder.committer().is_none()));
}

/// The lake hangs: in `operation`, which is before the decision or after it.
async fn a_commit_that_hangs_is_cut_off(operation: &'static str, is_decided: bool) {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 1);
    environment.lake.fail(operation, 0, Fault::Hang);
    let worker = environment.start(1, false);
    seconds(2).await;
    let begun = tokio::time::Instant::now();
    let error = worker.stop().await.unwrap_err();
    let took = begun.elapsed();
    assert!((STOP_WITHIN * 4 / 5..=STOP_WITHIN).contains(&took), "{took:?}");
    let WorkerError::StopTimedOut { within: STOP_WITHIN, shards } = error else { panic!("{error}") };
    assert!(shards >= 1 && error.to_string().contains("read and not committed"), "{error}");
    let rows = environment.leases.rows();
    assert!(rows.iter().all(|row| row.holder.committer().is_none()), "every lease is released: {rows:?}");
    assert_eq!(rows.iter().filter(|row| row.pending.is_some()).count(), usize::from(is_decided));
    // Without waiting for a failover, the next worker does the rest: nothing is lost, nothing is doubled.
    let begun = tokio::time::Instant::now();
    environment.start(2, true).task.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((environment.committed("a"), environment.committed("b")), (3, 3));
    assert_eq!(environment.audited_records().await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_off_a_commit_that_hangs_before_its_decision() {
    a_commit_that_hangs_is_cut_off("put_new", false).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_off_a_commit_that_hangs_after_its_decision() {
    a_commit_that_hangs_is_cut_off("complete_upload", true).await;
}

#[tokio::test(start_paused = true)]
async fn rows_whose_definition_does_not_fit_the_lake_never_become_visible() {
    let environment = Environment::new(&[("a", 3)], 1);
    // Another worker has claimed the dataset, after this one compared its definition with the lake.
    let datasets = lane_config().datasets;
    let history = String::from_utf8(datasets.history(0).to_bytes()).unwrap();
    let id = r#"{"forms":["plain"],"sources":["/id"],"types":["string"]}"#;
    assert!(history.contains(id), "{history}");
    let other = history.replace(id, &id.replace("string", "int64"));
    let key = ObjectKey::new("_definitions/orders/00000001.json").unwrap();
    environment.lake.put_new(&key, other.into()).await.unwrap();
    let error = environment.start(1, true).task.await.unwrap().unwrap_err();
    assert!(matches!(error, WorkerError::Definitions(_)) && error.is_usage(), "{error}");
    assert_eq!(
        (environment.committed("a"), environment.lake.objects().len()),
        (0, 1),
        "nothing but the claim is there"
    );
    assert!(environment.lake.list_uploads().await.unwrap().is_empty(), "the uploads are aborted");
    assert!(environment.leases.rows().iter().all(|row| row.holder.committer().is_none()), "every lease is released");
    // Whoever has the definition of the lake reads the records.
    environment.lake.tamper(&key, Some(history.into()));
    environment.start(2, true).task.await.unwrap().unwrap();
    assert_eq!(environment.audited_records().await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_commit_says_when_the_last_records_arrived_and_which_shards_had_nothing_to_read() {
    // Every record of the stream arrived at the time of the stopped clock.
    let arrived = crate::clock::Clock::now_ms(&StoppedClock);
    let watermark = async |tip_as_of_ms| {
        let mut environment = Environment::new(&[("a", 3), ("b", 0), ("c", 2)], 100);
        environment.stream.tip_as_of_ms = tip_as_of_ms;
        let worker = environment.start(1, false);
        seconds(3).await;
        worker.stop().await.unwrap();
        let stores = Stores::new(Arc::new(environment.lake), Arc::new(environment.leases), RetryPolicy::default());
        let log = crate::commit::log::read(&stores).await.unwrap();
        log.fold.arrivals.watermarks(log.chains.ends(), &log.leases).remove(0).complete
    };
    use crate::commit::log::Complete;
    let through = |complete_through, shard| Complete::Through { complete_through, held_back_by: key(shard) };
    // The source does not say until when nothing more had arrived: the shard without records is not known.
    assert_eq!(watermark(None).await, Complete::Unknown { held_back_by: key("b") });
    assert_eq!(watermark(Some(arrived - 500)).await, through(arrived - 500, "b"));
    // At their tips, all shards are complete up to a time after their last records.
    assert_eq!(watermark(Some(arrived + 900)).await, through(arrived + 900, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_running_worker_shows_its_shards_its_edges_and_its_commits() {
    let environment = Environment::new(&[("a", 3), ("b", 2)], 100);
    let worker = environment.start(1, false);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let shards = worker.progress.shards();
    let figures: Vec<_> =
        shards.iter().map(|shard| (shard.key.clone(), shard.records, shard.uncommitted_records)).collect();
    assert_eq!(figures, [(key("a"), 3, 3), (key("b"), 2, 2)]);
    assert!(shards.iter().all(|shard| shard.at_tip && shard.read_at_ms.is_some() && shard.committed_at_ms.is_none()));
    let [epoch] = <[_; 1]>::try_from(worker.progress.open_epochs()).unwrap();
    assert!(shards.iter().all(|shard| shard.epoch.as_ref() == Some(&epoch.id)));
    assert_eq!(epoch.bytes, shards.iter().map(|shard| shard.bytes).sum::<u64>());
    seconds(2).await;
    let shards = worker.progress.shards();
    assert!(shards.iter().all(|shard| shard.uncommitted_records == 0 && shard.oldest_uncommitted_ms.is_none()));
    assert!(shards.iter().all(|shard| shard.committed_at_ms.is_some() && shard.epoch.is_none()));
    assert!(worker.progress.open_epochs().is_empty());
    let edges: BTreeMap<String, EdgeTotal> =
        worker.progress.edges().into_iter().map(|(id, total)| (id.to_string(), total)).collect();
    let records = |edge: &str| edges[edge].0;
    assert_eq!(
        ["source/orders/out", "decode/orders/out", "encode/orders/out", "commit/orders/processed"].map(records),
        [5, 5, 5, 5],
        "lanes count the first ones, and commits the last ones"
    );
    assert!(edges["commit/orders/processed"].1 > 0 && edges["decode/rejected"] == EdgeTotal::default());
    let written: Vec<_> = worker.progress.written().into_iter().collect();
    assert!(
        matches!(&written[..], [((ObjectKind::Processed, dataset), (1, 1..))] if dataset == "orders"),
        "{written:?}"
    );
    assert_eq!((worker.progress.records(), worker.progress.outcomes()[0]), (5, ("committed", 1)));
    let steps = worker.progress.commit_steps();
    assert_eq!(steps.len(), CommitStep::ALL.len());
    assert!(steps.iter().all(|(_, total)| total.count == 1), "{steps:?}");
    let fleet = worker.progress.fleet().unwrap();
    assert_eq!((fleet.shards, fleet.workers, fleet.unowned, fleet.pending, fleet.is_first), (2, 1, 0, 0, true));
    let (used, all) = worker.progress.input_memory().unwrap();
    assert!(used <= all && all == 1 << 20, "{used} of {all}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_another_worker_takes_is_not_shown_any_more() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 100);
    let first = environment.start(1, false);
    seconds(5).await;
    assert_eq!(first.progress.shards().len(), 2);
    let second = environment.start(2, false);
    seconds(30).await;
    let shown = |worker: &Worker| worker.progress.shards().into_iter().map(|shard| shard.key).collect::<Vec<_>>();
    assert_eq!((shown(&first).len(), shown(&second).len()), (1, 1));
    assert_ne!(shown(&first), shown(&second));
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}
