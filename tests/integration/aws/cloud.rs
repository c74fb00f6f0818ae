//! The services of one test, the folder that its workers run in, and what was put into its stream.
//!
//! Owns: the workers' configuration file, and the ledger of what the lake must hold in the end. Does not own: the models
//! (`common::services`), processes (`common::worker`), what a record is (`records`), what is in the lake (`audit`).
//!
//! The models' clock runs in real time, because workers are processes. A test that needs a past starts there and moves the
//! clock to the present ([`Cloud::in_the_past`]).

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Mutex;
use std::time::Duration;

use aws_model::access::{Access, Keys};
use aws_model::clock::ModelClock;
use aws_model::faults::ServiceName;
use aws_model::kinesis::{Placed, Put, Settings};
use serde_json::Value;

use crate::aws::records::{Draft, Outcome};
use crate::common::folder::Folder;
use crate::common::now_ms;
use crate::common::roles::Roles;
use crate::common::services::{KEY, Services};
use crate::common::worker::Worker;

/// The stream.
pub(crate) const STREAM: &str = "orders";
/// The bucket; the lake is below [`PREFIX`].
pub(crate) const BUCKET: &str = "lake-of-tests";
/// The delivery stream of the raw landing, if it has one.
pub(crate) const DELIVERY_STREAM: &str = "landing";
/// What every key of the lake begins with.
pub(crate) const PREFIX: &str = "main/";
/// The lease table.
pub(crate) const TABLE: &str = "leases";

/// The parameters of `deploy/worker.yaml` for this stream, bucket and table, and others.
pub(crate) fn parameters<'a>(others: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let own = [("StreamName", STREAM), ("BucketName", BUCKET), ("LakePrefix", PREFIX), ("LeaseTableName", TABLE)];
    [&own, others].concat()
}

/// Where a record was put: shard, sequence number, subsequence number.
pub(crate) type Position = (String, String, u64);

/// What was put and must be in the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) outcome: Outcome,
    /// The bytes as they were put.
    pub(crate) received: Vec<u8>,
}

impl Expected {
    /// The bytes as they are in a raw line: a line end inside a record becomes a space.
    pub(crate) fn line(&self) -> Vec<u8> {
        self.received.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect()
    }
}

/// What the configuration file says beside URLs and key. A text goes into its section as it is.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) source: String,
    pub(crate) interval: String,
    pub(crate) leases: String,
    pub(crate) raw: String,
    pub(crate) limits: String,
    pub(crate) lake: String,
    pub(crate) checkpoints: String,
    pub(crate) key: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            source: String::new(),
            interval: "500ms".to_owned(),
            leases: "failover = \"2s\"".to_owned(),
            raw: String::new(),
            limits: "threads = 1".to_owned(),
            lake: String::new(),
            checkpoints: String::new(),
            key: format!("env:{KEY}"),
        }
    }
}

/// The services, the folder and the ledger.
pub(crate) struct Cloud {
    services: Services,
    pub(crate) folder: Folder,
    pub(crate) ledger: Mutex<BTreeMap<Position, Expected>>,
    drafts: Mutex<u64>,
}

impl Deref for Cloud {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

/// The columns of a lease that the tests read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) shard: String,
    /// The one worker that holds it; none during a hand-off.
    pub(crate) owner: Option<String>,
    pub(crate) checkpoint: String,
    pub(crate) parents: Vec<String>,
    pub(crate) is_pending: bool,
}

impl Cloud {
    /// A stream of this many shards, an empty bucket, no table.
    pub(crate) fn new(shards: u32, options: &Options) -> Self {
        Self::at(shards, options, || ModelClock::tokio(now_ms()))
    }

    /// The same, where commands have credentials of an account and not the roles of a stack, which know one stream, table and bucket.
    pub(crate) fn without_roles(shards: u32, options: &Options) -> Self {
        let mut cloud = Self::new(shards, options);
        cloud.folder.use_roles(false);
        cloud
    }

    /// The same, with a clock that stays this many hours in the past until [`Cloud::go_to_the_present`].
    pub(crate) fn in_the_past(hours: i64, shards: u32, options: &Options) -> Self {
        Self::at(shards, options, move || ModelClock::manual(now_ms() - hours * 3_600_000))
    }

    /// The same, with services whose clock is behind the clock of the workers by this many seconds.
    pub(crate) fn behind_the_workers(seconds: i64, shards: u32, options: &Options) -> Self {
        Self::at(shards, options, move || ModelClock::tokio(now_ms() - seconds * 1000))
    }

    fn at(shards: u32, options: &Options, clock: impl FnOnce() -> ModelClock) -> Self {
        // The roles of a stack with every option: those of each alone are in `least_privilege`.
        let every = [
            ("ReadMode", "fan-out"),
            // A consumer has a name of its own for each table and lake.
            ("ConsumerName", "shardlake*"),
            ("RawTo", "firehose"),
            ("DeliveryStreamName", DELIVERY_STREAM),
            ("ObjectTags", "true"),
            ("CreatesTable", "true"),
        ];
        Self::with_access(shards, options, clock, Roles::of(&parameters(&every)).into_access(Keys::default()))
    }

    /// A cloud that allows what `access` does.
    pub(crate) fn with_access(
        shards: u32,
        options: &Options,
        clock: impl FnOnce() -> ModelClock,
        access: Access,
    ) -> Self {
        let settings = Settings { read_limits: true, ..Settings::default() };
        let services = Services::guarded(STREAM, shards, BUCKET, settings, clock, access);
        let mut folder = Folder::new();
        services.set_environment(&mut folder);
        folder.use_roles(true);
        folder.set("RUST_LOG", "shardlake=info,shardlake_checkpoints=info,warn");
        let cloud = Cloud { services, folder, ledger: Mutex::default(), drafts: Mutex::default() };
        cloud.configure(options);
        cloud
    }

    /// Writes the workers' configuration file.
    pub(crate) fn configure(&self, options: &Options) {
        let Options { source, interval, leases, raw, limits, lake, checkpoints, key } = options;
        let text = format!(
            "[[source]]\nurl = \"kinesis://{STREAM}\"\n{source}\n[lake]\nurl = \"s3://{BUCKET}/{PREFIX}\"\n{lake}\n\
             [checkpoints]\nurl = \"dynamodb://{TABLE}\"\n{checkpoints}\n[anonymize]\nkey = \"{key}\"\n\
             [commit]\ninterval = \"{interval}\"\n[leases]\n{leases}\n[raw]\n{raw}\n[limits]\n{limits}\n"
        );
        self.folder.write("shardlake.toml", text);
    }

    /// Moves a clock in the past forward by this many hours.
    pub(crate) fn advance_hours(&self, hours: i64) {
        self.clock.advance_ms(u32::try_from(hours * 3_600_000).unwrap());
    }

    /// Moves a clock in the past to the present, and lets it run.
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

    // --- workers --------------------------------------------------------------------------------------------------------

    /// Starts a worker with these flags.
    pub(crate) fn start(&self, flags: &[&str]) -> Worker {
        self.folder.start(flags)
    }

    /// Lets a worker do everything that is left to do: its summary.
    pub(crate) fn catch_up(&self) -> Value {
        self.start(&["--until-caught-up"]).finish(60)
    }

    // --- the stream -----------------------------------------------------------------------------------------------------

    /// Puts this many records of the stream, of every kind, and expects what they hold in the lake.
    pub(crate) fn put(&self, count: usize) -> Vec<Placed> {
        self.put_drafts(&(0..count).map(|_| Draft::new(self.next_draft())).collect::<Vec<_>>())
    }

    /// The same with records of several documents.
    pub(crate) fn put_several(&self, count: usize) {
        self.put_drafts(&(0..count).map(|_| Draft::several(self.next_draft())).collect::<Vec<_>>());
    }

    fn put_drafts(&self, drafts: &[Draft]) -> Vec<Placed> {
        let placed = self.send(drafts);
        let mut ledger = self.ledger.lock().unwrap();
        for (draft, placed) in drafts.iter().zip(&placed) {
            for (sub, (outcome, bytes)) in (0..).zip(&draft.holds) {
                let position = (placed.shard.clone(), placed.sequence.to_string(), sub);
                let expected = Expected { outcome: outcome.clone(), received: bytes.clone() };
                assert_eq!(ledger.insert(position, expected), None, "two records at one position");
            }
        }
        placed
    }

    /// Puts records that no worker may read.
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
            let results = self.kinesis.put_records(STREAM, batch.iter().map(puts).collect()).unwrap();
            placed.extend(results.into_iter().map(Result::unwrap));
        }
        placed
    }

    /// The number of expected records; those in aggregates count one by one.
    pub(crate) fn expected(&self) -> u64 {
        self.ledger.lock().unwrap().len() as u64
    }

    // --- state ----------------------------------------------------------------------------------------------------------

    /// The leases of shards.
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

    /// How many unfinished shards each worker holds. `None` while one of them has no holder.
    pub(crate) fn shares(&self) -> Option<BTreeMap<String, usize>> {
        let mut shares = BTreeMap::new();
        for row in self.rows().into_iter().filter(|row| row.checkpoint != "SHARD_END") {
            *shares.entry(row.owner?).or_default() += 1;
        }
        Some(shares)
    }

    /// The worker that holds this many shards, if no other worker holds any.
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

    /// The number of committed records.
    pub(crate) fn committed(&self) -> u64 {
        self.commits().iter().map(|commit| commit["totals"]["records"].as_u64().unwrap()).sum()
    }

    pub(crate) fn everything_is_committed(&self) -> bool {
        self.committed() == self.expected()
    }

    /// How often an operation was called, with and without a fault.
    pub(crate) fn calls(&self, service: ServiceName, operation: &str) -> u64 {
        self.faults.calls().get(&(service, operation.to_owned())).copied().unwrap_or(0)
    }
}

impl Drop for Cloud {
    /// Shows the end of every worker's log if the test failed.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for worker in 1..=*self.folder.workers.lock().unwrap() {
            let log = std::fs::read_to_string(self.folder.path(&format!("worker-{worker}.log"))).unwrap_or_default();
            // Broken aggregates are put on purpose.
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("cannot open aggregate")).collect();
            eprintln!("--- worker {worker}:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        eprintln!("--- calls: {:?}\n--- faults: {:?}", self.faults.calls(), self.faults.happened());
    }
}
