//! The services of one test, the folder that its workers run in, and what was put into its stream.
//!
//! Owns: the models of Kinesis, DynamoDB, S3 and Firehose behind one server in the test's own process, the configuration
//! file of the workers, and the ledger of what must be in the lake in the end. Does not own: processes (`worker`), what a
//! record is (`records`), what is in the lake (`audit`).
//!
//! The models' clock runs as the real one does, since workers are processes. A test that needs a past begins in it and
//! moves on ([`Cloud::in_the_past`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_model::account::Account;
use aws_model::clock::ModelClock;
use aws_model::dynamodb::DynamoDb;
use aws_model::faults::{Faults, ServiceName};
use aws_model::firehose::Firehose;
use aws_model::kinesis::{Kinesis, Placed, Put, Settings};
use aws_model::s3::S3;
use aws_model::server::Server;
use serde_json::Value;

use crate::records::{Draft, Fate};

/// The stream.
pub(crate) const STREAM: &str = "orders";
/// The bucket; the lake lies below [`PREFIX`].
pub(crate) const BUCKET: &str = "lake-of-tests";
/// What every key of the lake begins with.
pub(crate) const PREFIX: &str = "main/";
/// The lease table.
pub(crate) const TABLE: &str = "leases";

/// Where a record was put: shard, sequence number, place in its aggregate.
pub(crate) type Place = (String, String, u64);

/// What was put and must come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) fate: Fate,
    /// The bytes as they were put.
    pub(crate) received: Vec<u8>,
}

impl Owed {
    /// The bytes as they stand in a raw line: a line end in a record would be one of the line.
    pub(crate) fn line(&self) -> Vec<u8> {
        self.received.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect()
    }
}

/// What the configuration file says beside the places; a text goes into its section as it is.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) source: String,
    pub(crate) interval: String,
    pub(crate) leases: String,
    pub(crate) raw: String,
    pub(crate) limits: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            source: String::new(),
            interval: "500ms".to_owned(),
            leases: "failover = \"2s\"".to_owned(),
            raw: String::new(),
            limits: "threads = 1".to_owned(),
        }
    }
}

/// The services, the folder and the ledger.
pub(crate) struct Cloud {
    pub(crate) kinesis: Kinesis,
    pub(crate) dynamodb: DynamoDb,
    pub(crate) s3: S3,
    pub(crate) firehose: Firehose,
    pub(crate) faults: Arc<Faults>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ledger: Mutex<BTreeMap<Place, Owed>>,
    url: String,
    drafts: Mutex<u64>,
    workers: Mutex<u64>,
    clock: ModelClock,
    /// Both live as long as the test: the server's sockets, and what drives them.
    _server: Server,
    runtime: tokio::runtime::Runtime,
}

/// A row of the lease table, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) shard: String,
    /// The one worker that holds it; none while it is handed over.
    pub(crate) owner: Option<String>,
    pub(crate) checkpoint: String,
    pub(crate) parents: Vec<String>,
    pub(crate) is_pending: bool,
}

/// The time of day, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Waits for a state of the world, for so many seconds at most: how long it took.
pub(crate) fn wait_for(what: &str, seconds: u64, mut there: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "waited {seconds} s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

impl Cloud {
    /// A stream of so many shards, an empty bucket, no table.
    pub(crate) fn new(shards: u32, options: &Options) -> Self {
        Self::at(shards, options, &|| ModelClock::tokio(now_ms()))
    }

    /// The same, with a clock that stands so many hours ago until [`Cloud::go_to_the_present`].
    pub(crate) fn in_the_past(hours: i64, shards: u32, options: &Options) -> Self {
        Self::at(shards, options, &|| ModelClock::manual(now_ms() - hours * 3_600_000))
    }

    fn at(shards: u32, options: &Options, clock: &dyn Fn() -> ModelClock) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let entered = runtime.enter();
        let clock = clock();
        let account = Account::new(&clock, Settings { read_limits: true, ..Settings::default() });
        let faults = Arc::new(Faults::new(0));
        let server = account.serve(&faults);
        drop(entered);
        let Account { kinesis, dynamodb, s3, firehose } = account;
        kinesis.create_stream(STREAM, Some(shards)).unwrap();
        s3.create_bucket(BUCKET);
        let cloud = Cloud {
            kinesis,
            dynamodb,
            s3,
            firehose,
            faults,
            folder: tempfile::tempdir().unwrap(),
            ledger: Mutex::default(),
            url: server.url(),
            drafts: Mutex::new(0),
            workers: Mutex::new(0),
            clock,
            _server: server,
            runtime,
        };
        cloud.configure(options);
        cloud
    }

    /// Writes the workers' configuration file.
    pub(crate) fn configure(&self, options: &Options) {
        let Options { source, interval, leases, raw, limits } = options;
        let text = format!(
            "[[source]]\nurl = \"kinesis://{STREAM}\"\n{source}\n[lake]\nurl = \"s3://{BUCKET}/{PREFIX}\"\n\
             [checkpoints]\nurl = \"dynamodb://{TABLE}\"\n[anonymize]\nkey = \"env:KEY_OF_TESTS\"\n\
             [commit]\ninterval = \"{interval}\"\n[leases]\n{leases}\n[raw]\n{raw}\n[limits]\n{limits}\n"
        );
        std::fs::write(self.path("shardlake.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the services are.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The number of the next worker, for the names of its logs.
    pub(crate) fn next_worker(&self) -> u64 {
        let mut workers = self.workers.lock().unwrap();
        *workers += 1;
        *workers
    }

    /// Moves a clock that stands in the past by so many hours.
    pub(crate) fn advance_hours(&self, hours: i64) {
        self.clock.advance_ms(u32::try_from(hours * 3_600_000).unwrap());
    }

    /// Moves a clock that stands in the past to the present, and lets it run.
    pub(crate) fn go_to_the_present(&self) {
        let clock = self.clock.clone();
        let catch_up = move || clock.advance_ms(u32::try_from((now_ms() - clock.now_ms()).max(0)).unwrap());
        catch_up();
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                catch_up();
            }
        });
    }

    // --- putting --------------------------------------------------------------------------------------------------------

    /// Puts so many records of the stream, of every kind, and owes what they hold.
    pub(crate) fn put(&self, count: usize) -> Vec<Placed> {
        let drafts: Vec<Draft> = (0..count).map(|_| Draft::new(self.next_draft())).collect();
        let placed = self.send(&drafts);
        let mut ledger = self.ledger.lock().unwrap();
        for (draft, placed) in drafts.iter().zip(&placed) {
            for (sub, (fate, bytes)) in (0..).zip(&draft.holds) {
                let place = (placed.shard.clone(), placed.sequence.to_string(), sub);
                let owed = Owed { fate: fate.clone(), received: bytes.clone() };
                assert_eq!(ledger.insert(place, owed), None, "two records at one place");
            }
        }
        placed
    }

    /// Puts records that nobody is to read.
    pub(crate) fn put_unseen(&self, count: usize) {
        let drafts: Vec<Draft> = (0..count).map(|_| Draft::new(self.next_draft())).collect();
        self.send(&drafts);
    }

    fn next_draft(&self) -> u64 {
        let mut drafts = self.drafts.lock().unwrap();
        *drafts += 1;
        *drafts
    }

    fn send(&self, drafts: &[Draft]) -> Vec<Placed> {
        let puts = |draft: &Draft| Put::new(draft.partition_key.clone(), draft.data.clone());
        let mut placed = Vec::new();
        for batch in drafts.chunks(500) {
            let answers = self.kinesis.put_records(STREAM, batch.iter().map(puts).collect()).unwrap();
            placed.extend(answers.into_iter().map(Result::unwrap));
        }
        placed
    }

    /// Records that are owed, those in aggregates one by one.
    pub(crate) fn owed(&self) -> u64 {
        self.ledger.lock().unwrap().len() as u64
    }

    // --- looking --------------------------------------------------------------------------------------------------------

    /// The lease table's rows of shards.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let text = |item: &Value, name: &str| item[name]["S"].as_str().map(str::to_owned);
        let row = |item: &Value| Row {
            shard: text(item, "leaseKey").unwrap(),
            owner: match (text(item, "leaseOwner"), text(item, "checkpointOwner")) {
                (Some(owner), None) => Some(owner),
                (Some(owner), Some(committer)) if owner == committer => Some(owner),
                _ => None,
            },
            checkpoint: text(item, "checkpoint").unwrap_or_default(),
            parents: item["parentShardId"]["SS"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|parent| parent.as_str().unwrap().to_owned())
                .collect(),
            is_pending: item.get("pendingCheckpointState").is_some(),
        };
        let items = self.dynamodb.items(TABLE);
        let leases = items.iter().filter(|item| text(item, "leaseKey").is_some_and(|key| key.starts_with("shardId-")));
        leases.map(row).collect()
    }

    /// How many shards each worker holds, of those that have not ended; `None` while one of them is nobody's.
    pub(crate) fn shares(&self) -> Option<BTreeMap<String, usize>> {
        let mut shares = BTreeMap::new();
        for row in self.rows().into_iter().filter(|row| row.checkpoint != "SHARD_END") {
            *shares.entry(row.owner?).or_default() += 1;
        }
        Some(shares)
    }

    /// Whether one worker holds so many shards, and nobody else any: who.
    pub(crate) fn sole_holder(&self, shards: usize) -> Option<String> {
        let shares = self.shares()?;
        let (owner, count) = shares.first_key_value()?;
        (shares.len() == 1 && *count == shards).then(|| owner.clone())
    }

    /// The commit records of the lake.
    pub(crate) fn commits(&self) -> Vec<Value> {
        let keys = self.s3.keys(BUCKET);
        let commits = keys.iter().filter(|key| key.starts_with(&format!("{PREFIX}_commits/")));
        let objects = commits.filter_map(|key| self.s3.object(BUCKET, key));
        objects.map(|bytes| serde_json::from_slice(&bytes).unwrap()).collect()
    }

    /// Records that are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.commits().iter().map(|commit| commit["totals"]["records"].as_u64().unwrap()).sum()
    }

    /// How often an operation was called, with a fault or without.
    pub(crate) fn calls(&self, service: ServiceName, operation: &str) -> u64 {
        self.faults.calls().get(&(service, operation.to_owned())).copied().unwrap_or(0)
    }
}

impl Drop for Cloud {
    /// Shows what the workers said if the test failed.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for worker in 1..=*self.workers.lock().unwrap() {
            let log = std::fs::read_to_string(self.path(&format!("worker-{worker}.log"))).unwrap_or_default();
            // Broken aggregates are put on purpose.
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("cannot open aggregate")).collect();
            eprintln!("--- worker {worker}, its last words:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        eprintln!("--- calls: {:?}\n--- faults: {:?}", self.faults.calls(), self.faults.happened());
    }
}
