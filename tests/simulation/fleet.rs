//! A fleet, its faults, and the auditor.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use checkpoints::{LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, Position};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use pipeline::dataset::{Datasets, DefinitionText};
use pipeline::graph::Graph;
use pipeline::lane::LaneConfig;
use pipeline::lines::LineCodec;
use shardlake::clock::Clock;
use shardlake::commit::Stores;
use shardlake::lake::MemoryStore;
use shardlake::retry::RetryPolicy;
use shardlake::source::ShardSource;
use shardlake::worker::{self, Compute, Progress, WorkerConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::mortal::{Lake, Leases, Rng, Tally, Wires};
use crate::stream::SimStream;

/// What happened in a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    records: u64,
    epochs: u64,
    kills: u64,
    sleeps: u64,
    stops: u64,
    expired: u64,
    lost_before: u64,
    lost_after: u64,
    rolled_forward: u64,
    rolled_back: u64,
    aborted: u64,
    virtual_ms: u64,
}

impl Told {
    pub(crate) fn add(&mut self, other: &Told) {
        self.records += other.records;
        self.epochs += other.epochs;
        self.kills += other.kills;
        self.sleeps += other.sleeps;
        self.stops += other.stops;
        self.expired += other.expired;
        self.lost_before += other.lost_before;
        self.lost_after += other.lost_after;
        self.rolled_forward += other.rolled_forward;
        self.rolled_back += other.rolled_back;
        self.aborted += other.aborted;
        self.virtual_ms += other.virtual_ms;
    }

    pub(crate) fn every_fault_occurred(&self) -> bool {
        [
            self.kills,
            self.sleeps,
            self.stops,
            self.expired,
            self.lost_before,
            self.lost_after,
            self.rolled_forward,
            self.rolled_back,
            self.aborted,
        ]
        .iter()
        .all(|count| *count > 0)
    }
}

const DEFINITION: &str = r#"
name = "orders"
partition_by = ["kind", "day"]
[[recognize]]
present = ["/at"]
[event_time]
pointer = "/at"
format = "epoch_ms"
[[column]]
name = "id"
pointer = "/id"
type = "string"
required = true
[[column]]
name = "kind"
pointer = "/kind"
type = "string"
"#;

/// The wall clock of the simulation: tokio's.
struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now_ms(&self) -> i64 {
        1_737_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

struct Fleet {
    begun: tokio::time::Instant,
    rng: Rng,
    lake: MemoryStore,
    leases: MemoryLeases,
    stream: Arc<SimStream>,
    lanes: Arc<LaneConfig>,
    tally: Arc<Tally>,
    started: u8,
    workers: Vec<Running>,
    told: Told,
}

struct Running {
    wires: Arc<Wires>,
    stop: CancellationToken,
    progress: Arc<Progress>,
    task: JoinHandle<Result<(), worker::WorkerError>>,
}

/// Runs a fleet from a seed.
///
/// # Panics
/// If a promise is broken.
pub(crate) async fn run(seed: u64) -> Told {
    let mut fleet = Fleet::new(seed);
    let lost_per_mille = [0, 5, 30][usize::try_from(fleet.rng.below(3)).unwrap()];
    for _ in 0..1 + fleet.rng.below(3) {
        fleet.start(lost_per_mille);
    }
    for _ in 0..8 + fleet.rng.below(12) {
        let wait = 50 + fleet.rng.below(3_000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        fleet.disturb(lost_per_mille);
        fleet.audit();
    }
    // The faults stop. What still lives goes on; one more worker sees to it that there is one.
    for running in &fleet.workers {
        running.wires.heal();
    }
    fleet.start(0);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(600);
    while !fleet.is_done().await {
        assert!(tokio::time::Instant::now() < deadline, "everything is there in bounded time: {:?}", fleet.leases);
        tokio::time::sleep(Duration::from_millis(500)).await;
        fleet.audit();
        if fleet.workers.iter().all(|running| running.task.is_finished()) {
            fleet.start(0);
        }
    }
    // Whoever is left comes to its end by itself; sleepers wake up late, and must do no harm.
    tokio::time::sleep(Duration::from_secs(120)).await;
    fleet.audit();
    fleet.finish().await
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // One shard a decision, two, or as many as there are: several groups of shards in one worker.
        let decision_shards_max = [1, 2, usize::MAX][usize::try_from(seed % 3).unwrap()];
        let leases = MemoryLeases::new().with_decision_shards_max(decision_shards_max);
        let leases = if seed.is_multiple_of(2) { leases.with_metering() } else { leases };
        let stream = Arc::new(SimStream::new(&mut rng));
        let text = DefinitionText { file: "orders.toml".to_owned(), text: DEFINITION.to_owned() };
        let datasets = Datasets::compile(&[text], &|_, _| Err("none".to_owned())).unwrap();
        let raw = rng.chance(500);
        let graph = Graph::new(&["simulated".to_owned()], &datasets, raw);
        let lanes = LaneConfig {
            graph,
            key: None,
            assigned: vec![Some(0)],
            raw: raw.then_some(LineCodec::Gzip(1)),
            letters: LineCodec::Gzip(1),
            record_bytes_max: 10_000,
            hash_seed: 1,
            datasets,
        };
        Fleet {
            begun: tokio::time::Instant::now(),
            lake: MemoryStore::new(),
            leases,
            stream,
            lanes: Arc::new(lanes),
            tally: Arc::default(),
            started: 0,
            workers: Vec::new(),
            told: Told::default(),
            rng,
        }
    }

    fn start(&mut self, lost_per_mille: u64) {
        self.started += 1;
        let wires = Wires::new(Rng::new(self.rng.next()), lost_per_mille, Arc::clone(&self.tally));
        let stores = Stores {
            lake: Arc::new(Lake(Arc::clone(&wires), self.lake.clone())),
            leases: Arc::new(Leases(Arc::clone(&wires), self.leases.clone())),
            retry: RetryPolicy::default(),
        };
        let config = WorkerConfig {
            me: LeaseOwner::from_random([self.started; 16]),
            sources: vec![Arc::clone(&self.stream) as Arc<dyn ShardSource>],
            stores,
            raw_sink: None,
            clock: Arc::new(VirtualClock(self.begun)),
            compute: Compute::Inline,
            lanes: Arc::clone(&self.lanes),
            threads: 1 + usize::from(self.started % 2),
            // With little memory a lane is full after every chunk, and gives its rows up in steps.
            memory: [64 << 20, 128 << 10][usize::from(self.started / 2 % 2)],
            zstd_level: 1,
            file_bytes: [1_000, 1 << 20][usize::from(self.started % 2)],
            open_objects: 16,
            epoch_interval: Duration::from_millis(200 + self.rng.below(2_000)),
            epoch_input_bytes: 1 << 30,
            failover: Duration::from_secs(5),
            hand_off: Duration::from_secs(8),
            until_caught_up: true,
        };
        let progress = Arc::new(Progress::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker::run(config, Arc::clone(&progress), stop.clone()));
        self.workers.push(Running { wires, stop, progress, task });
    }

    /// Something goes wrong, or somebody comes or goes.
    fn disturb(&mut self, lost_per_mille: u64) {
        let victim = usize::try_from(self.rng.below(self.workers.len() as u64)).unwrap();
        match self.rng.below(10) {
            0..=2 => {
                self.told.kills += 1;
                self.workers[victim].wires.cut();
                self.start(lost_per_mille);
            }
            3 | 4 => {
                self.told.sleeps += 1;
                let time = Duration::from_millis(1_000 + self.rng.below(40_000));
                self.workers[victim].wires.sleep(time);
                self.start(lost_per_mille);
            }
            5 => {
                self.told.stops += 1;
                self.workers[victim].stop.cancel();
                self.start(lost_per_mille);
            }
            6 => {
                // A lifecycle rule aborts all uploads; epochs that were decided are rolled back.
                self.told.expired += 1;
                self.lake.expire_uploads();
            }
            7 => self.start(lost_per_mille),
            _ => {}
        }
    }

    /// Every record with its place, and how often a reader sees it: rows and dead letters.
    fn seen(&self) -> BTreeMap<(String, String), u64> {
        let mut seen = BTreeMap::new();
        for (key, bytes) in self.lake.objects() {
            if key.as_str().starts_with("processed/") {
                for place in rows(bytes) {
                    *seen.entry(place).or_default() += 1;
                }
            } else if key.as_str().starts_with("error/") {
                for letter in lines(&bytes) {
                    let letter: serde_json::Value = serde_json::from_str(&letter).unwrap();
                    let text = |name: &str| letter[name].as_str().unwrap().to_owned();
                    *seen.entry((text("shardId"), text("sequenceNumber"))).or_default() += 1;
                }
            }
        }
        seen
    }

    /// What must hold at every moment.
    fn audit(&self) {
        let seen = self.seen();
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "records are visible twice: {twice:?}");
    }

    async fn is_done(&self) -> bool {
        let leases = self.leases.list().await.unwrap();
        self.stream.shards.iter().all(|shard| {
            let lease = leases.iter().find(|lease| lease.key.shard == shard.id);
            lease.is_some_and(|lease| {
                let last = shard.records.last().map_or(Position::Beginning, |(last, _)| Position::at((*last).into()));
                let tip = if shard.children.is_empty() { last } else { Position::End };
                lease.checkpoint >= tip && lease.pending.is_none()
            })
        })
    }

    /// What must hold at the end.
    async fn finish(mut self) -> Told {
        let seen = self.seen();
        let expected: BTreeMap<(String, String), u64> = self
            .stream
            .shards
            .iter()
            .flat_map(|shard| shard.records.iter().map(|(number, _)| ((shard.id.to_string(), number.to_string()), 1)))
            .collect();
        assert_eq!(seen, expected, "every record is there once");
        let raw: usize = self
            .lake
            .objects()
            .iter()
            .filter(|(key, _)| key.as_str().starts_with("raw/"))
            .map(|(_, bytes)| lines(bytes).len())
            .sum();
        assert_eq!(raw, if self.lanes.raw.is_some() { expected.len() } else { 0 }, "every raw line is there once");
        let stores = Stores {
            lake: Arc::new(self.lake.clone()),
            leases: Arc::new(self.leases.clone()),
            retry: RetryPolicy::default(),
        };
        let audit = shardlake::audit::verify(&stores, &|_| {}).await.unwrap();
        assert!(audit.faults.is_empty(), "{:#?}", audit.faults);
        self.told.records = expected.len() as u64;
        self.told.epochs = audit.epochs;
        for running in &self.workers {
            let committed = running.progress.committed();
            self.told.rolled_forward += committed.rolled_forward;
            self.told.rolled_back += committed.rolled_back;
            self.told.aborted += committed.aborted;
            running.task.abort();
        }
        self.told.lost_before = self.tally.lost_before.load(Ordering::Relaxed);
        self.told.lost_after = self.tally.lost_after.load(Ordering::Relaxed);
        self.told.virtual_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        self.told
    }
}

/// (shard, sequence) of every row of a Parquet file.
fn rows(bytes: Bytes) -> Vec<(String, String)> {
    let reader = SerializedFileReader::new(bytes).unwrap();
    let fields = reader.metadata().file_metadata().schema().get_fields().to_vec();
    let place = |name: &str| fields.iter().position(|field| field.name() == name).unwrap();
    let (shard, sequence) = (place("ingest_shard"), place("ingest_sequence"));
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        (row.get_string(shard).unwrap().clone(), row.get_string(sequence).unwrap().clone())
    })
    .collect()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}
