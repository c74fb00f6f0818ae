//! The log is compared with what all commit records say, over random histories: epochs that are committed in another order
//! than they began, shards that end and lose their rows, roll-ups that are written at any time, damaged and removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use checkpoints::{
    Advance, Decision, LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, NewLease, Position, ShardId, ShardKey,
    ShardRange, StreamName, Verdict,
};
use pipeline::encode::FileStats;
use pipeline::layout::ROLL_UPS;
use proptest::prelude::*;

use super::*;
use crate::commit::lake_log::LogVersion;
use crate::commit::manifest::{FORMAT, ManifestKind, ObjectKind, ObjectOfEpoch, ShardOfEpoch};
use crate::commit::totals::{EdgeTotal, Totals};
use crate::lake::{Checksum, LocalStore, MemoryStore, ObjectStore, UploadId};
use crate::retry::RetryPolicy;

const WORKERS: usize = 3;
const HOUR: i64 = 3_600_000;

fn worker(number: usize) -> LeaseOwner {
    LeaseOwner::from_random([u8::try_from(number).unwrap() + 1; 16])
}

/// Roll-ups of at least `every` records, with any number of late ones.
fn after(every: u64) -> RollUpConfig {
    RollUpConfig { every, margin: Duration::ZERO }
}

fn key(shard: &str) -> ShardKey {
    ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(shard).unwrap())
}

/// A lake and a lease table, and epochs that workers have begun.
struct History {
    lake: MemoryStore,
    leases: MemoryLeases,
    stores: Stores,
    now_ms: i64,
    open: [Option<EpochId>; WORKERS],
    /// Epochs that were begun, and shards that were created.
    epochs: u64,
    shards: usize,
    /// Epochs whose commit records are written and whose shards have not advanced.
    published: Vec<Manifest>,
}

impl History {
    async fn new() -> Self {
        let (lake, leases) = (MemoryStore::new(), MemoryLeases::new());
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(leases.clone()), RetryPolicy::default());
        leases.create(&["a", "b"].map(|shard| NewLease::new(key(shard), Position::Beginning))).await.unwrap();
        let open = std::array::from_fn(|_| None);
        History { lake, leases, stores, now_ms: 1_736_764_200_000, open, epochs: 0, shards: 2, published: Vec::new() }
    }

    fn begin(&mut self, number: usize) {
        if self.open[number].is_none() {
            self.epochs += 1;
            self.open[number] = Some(EpochId::new(self.now_ms, &worker(number), self.epochs));
        }
    }

    /// Decides and publishes the open epoch of a worker, with the shards of `mask` that may be committed.
    async fn publish(&mut self, number: usize, mask: u8, ends: bool) {
        let Some(epoch) = self.open[number].take() else { return };
        let rows = self.leases.list().await.unwrap();
        let is_done = |parent: &ShardId| {
            let row = rows.iter().find(|row| row.key.shard == *parent);
            row.is_none_or(|row| row.checkpoint == Position::End && row.pending.is_none())
        };
        let ready =
            |row: &&Lease| row.pending.is_none() && row.checkpoint != Position::End && row.parents.iter().all(is_done);
        let chosen: Vec<&Lease> = rows
            .iter()
            .filter(ready)
            .enumerate()
            .filter(|(at, _)| mask >> (at % 8) & 1 == 1)
            .map(|(_, row)| row)
            .collect();
        if chosen.is_empty() {
            return;
        }
        let me = worker(number);
        let mut shards = Vec::new();
        for row in chosen {
            self.leases.take(&me, &row.key, row.counter).await.unwrap().unwrap();
            let at: u64 = row.checkpoint.checkpoint().parse().unwrap_or_default();
            let through = if ends { Position::End } else { Position::at((at + 10).into()) };
            let children = if ends { vec![self.child_of(&row.key).await] } else { Vec::new() };
            shards.push(ShardOfEpoch {
                key: row.key.clone(),
                parents: if row.last_manifest.is_none() { row.parents.iter().cloned().collect() } else { Vec::new() },
                range: ShardRange::new(row.checkpoint.clone(), through).unwrap(),
                children,
                taken_over: false,
                records: 10,
                bytes: 100,
                arrived_through: None,
            });
        }
        let manifest = manifest(epoch, me, self.now_ms, shards);
        let ranges = manifest.shards.iter().map(|shard| (shard.key.clone(), shard.range.clone())).collect();
        let decision = Decision::new(manifest.worker.clone(), manifest.epoch.manifest_name(), ranges).unwrap();
        assert_eq!(self.leases.decide(&decision).await.unwrap(), Verdict::Decided);
        self.lake.put_new(&manifest.epoch.commit_key(), manifest.to_bytes()).await.unwrap();
        self.published.push(manifest);
    }

    async fn child_of(&mut self, parent: &ShardKey) -> ShardId {
        self.shards += 1;
        let child = key(&format!("shard-{}", self.shards));
        let mut new = NewLease::new(child.clone(), Position::Beginning);
        new.parents.insert(parent.shard.clone());
        self.leases.create(&[new]).await.unwrap();
        child.shard
    }

    async fn advance(&mut self, place: usize) {
        if self.published.is_empty() {
            return;
        }
        let manifest = self.published.remove(place % self.published.len());
        let advance = |shard: &ShardOfEpoch| match shard.range.through() {
            Position::End => Advance::to_end(shard.key.clone(), shard.children.iter().cloned()),
            through => Advance::new(shard.key.clone(), through.clone()),
        };
        let advances: Vec<Advance> = manifest.shards.iter().map(advance).collect();
        self.leases.advance(&manifest.epoch.manifest_name(), &advances).await.unwrap();
    }

    async fn commit(&mut self, number: usize, mask: u8) {
        self.begin(number);
        self.publish(number, mask, false).await;
        self.advance(self.published.len().saturating_sub(1)).await;
        self.now_ms += 60_000;
    }

    /// As the workers do it: rows of shards that have ended, once their children were read.
    async fn remove_rows(&mut self) {
        let rows = self.leases.list().await.unwrap();
        for row in rows.iter().filter(|row| row.checkpoint == Position::End && !row.children.is_empty()) {
            let mut children = rows.iter().filter(|child| child.parents.contains(&row.key.shard));
            if children.all(|child| child.last_manifest.is_some()) {
                self.leases.remove(&row.key).await.unwrap();
            }
        }
    }

    fn roll_ups(&self) -> Vec<ObjectKey> {
        self.lake.objects().into_keys().filter(|key| key.as_str().starts_with(ROLL_UPS)).collect()
    }

    /// The log has every record of an epoch that has advanced, and its sums are those of the records that it has.
    async fn check(&self) -> Log {
        let log = read(&self.stores).await.unwrap();
        let (all, _) = records(&self.stores).await.unwrap();
        let mut fold = Fold::default();
        for record in &all {
            match log.chains.coverage(record) {
                Coverage::Whole => fold.add(record),
                coverage => {
                    assert_eq!(coverage, Coverage::None);
                    let may_be_missing = self.published.iter().any(|published| published.epoch == record.epoch);
                    assert!(may_be_missing, "{} has advanced and is missing", record.epoch);
                }
            }
        }
        assert_eq!(log.fold, fold);
        assert!(log.unreadable.is_empty() && log.overlaps.is_empty());
        log
    }

    fn reads(&self) -> usize {
        let is_record = |(call, on): &(&str, String)| *call == "get" && on.starts_with(COMMITS);
        self.lake.calls().iter().filter(|call| is_record(call)).count()
    }
}

fn manifest(epoch: EpochId, worker: LeaseOwner, now_ms: i64, shards: Vec<ShardOfEpoch>) -> Manifest {
    let records = 10 * shards.len() as u64;
    let object = |kind: ObjectKind, folder: &str, rows: u64| {
        let key = ObjectKey::new(format!("{folder}/{epoch}-00001.json.gz")).unwrap();
        ObjectOfEpoch {
            partition: ObjectOfEpoch::partition_of(&key),
            columns: FileStats::default(),
            key,
            kind,
            dataset: None,
            rows,
            bytes: 7 * rows,
            crc64nvme: Checksum::of(b""),
            upload: UploadId("u".to_owned()),
            parts: Vec::new(),
        }
    };
    let objects = vec![
        object(ObjectKind::Processed, "processed/orders/day=13", records - 1),
        object(ObjectKind::Error, "error/reason=Decode.Truncated/year=2025/month=01/day=13", 1),
    ];
    Manifest {
        format: FORMAT,
        kind: ManifestKind::Epoch,
        worker,
        written_at: pipeline::time::format_rfc3339(now_ms),
        head: LogVersion::EMPTY,
        shards,
        objects,
        idle: Vec::new(),
        removed: Vec::new(),
        of: None,
        sources: Vec::new(),
        swap: None,
        totals: Totals {
            records,
            rows: BTreeMap::from([("orders".to_owned(), records - 1)]),
            dead_letters: BTreeMap::from([("Decode.Truncated".to_owned(), 1)]),
            ..Totals::default()
        },
        edges: BTreeMap::from([("validate/orders/out".to_owned(), EdgeTotal(records, 100))]),
        definitions: BTreeMap::new(),
        version: "0".to_owned(),
        epoch,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(i64),
    Begin(usize),
    Publish(usize, u8, bool),
    Advance(usize),
    RemoveRows,
    RollUp,
    TwoRollUps,
    DamageRollUp,
    RemoveRollUp,
    Hide(usize),
    Follow,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..50 * HOUR).prop_map(Step::Wait),
        6 => (0..WORKERS).prop_map(Step::Begin),
        6 => (0..WORKERS, any::<u8>(), prop::bool::weighted(0.3)).prop_map(|(worker, mask, ends)| Step::Publish(worker, mask, ends)),
        6 => any::<usize>().prop_map(Step::Advance),
        2 => Just(Step::RemoveRows),
        4 => Just(Step::RollUp),
        1 => Just(Step::TwoRollUps),
        1 => Just(Step::DamageRollUp),
        1 => Just(Step::RemoveRollUp),
        1 => any::<usize>().prop_map(Step::Hide),
        2 => Just(Step::Follow),
    ]
}

async fn run(steps: Vec<Step>) {
    let mut history = History::new().await;
    let (mut cursor, mut followed) = (Cursor::default(), BTreeSet::new());
    for step in steps {
        match step {
            Step::Wait(ms) => history.now_ms += ms,
            Step::Begin(worker) => history.begin(worker),
            Step::Publish(worker, mask, ends) => history.publish(worker, mask, ends).await,
            Step::Advance(place) => history.advance(place).await,
            Step::RemoveRows => history.remove_rows().await,
            Step::RollUp => drop(roll_up(&history.stores, after(1)).await.unwrap()),
            Step::TwoRollUps => {
                let (one, two) = tokio::join!(roll_up(&history.stores, after(1)), roll_up(&history.stores, after(1)));
                one.and(two).unwrap();
            }
            Step::DamageRollUp => {
                if let Some(newest) = history.roll_ups().pop() {
                    history.lake.tamper(&newest, Some(Bytes::from_static(b"{}")));
                }
            }
            Step::RemoveRollUp => {
                if let Some(newest) = history.roll_ups().pop() {
                    history.lake.tamper(&newest, None);
                }
            }
            // One page of the next list was read before the record was written.
            Step::Hide(place) => {
                if let Some(published) = history.published.get(place % history.published.len().max(1)) {
                    history.lake.hide_once(&published.epoch.commit_key(), 0);
                }
            }
            Step::Follow => {
                let since = since(&history.stores, &cursor).await.unwrap();
                for record in since.records {
                    assert!(followed.insert(record.epoch.clone()), "{} comes twice", record.epoch);
                }
                cursor = since.cursor;
                let (all, _) = records(&history.stores).await.unwrap();
                for record in all {
                    let published = history.published.iter().any(|published| published.epoch == record.epoch);
                    assert!(published || followed.contains(&record.epoch), "{} does not come", record.epoch);
                }
            }
        }
        history.check().await;
    }
    while !history.published.is_empty() {
        history.advance(0).await;
    }
    let log = history.check().await;
    assert_eq!(log.fold.epochs, records(&history.stores).await.unwrap().0.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_all_records_say(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test]
async fn records_that_a_roll_up_covers_are_not_read_again() {
    let mut history = History::new().await;
    for _ in 0..100 {
        history.commit(0, 0b11).await;
    }
    assert_eq!(roll_up(&history.stores, after(101)).await.unwrap(), RolledUp::NotNeeded);
    assert_eq!(roll_up(&history.stores, after(100)).await.unwrap(), RolledUp::Written { number: 1, epochs: 100 });
    for _ in 0..5 {
        history.commit(1, 0b11).await;
    }
    let before = history.reads();
    let log = read(&history.stores).await.unwrap();
    assert_eq!((log.roll_up, log.records_read, log.fold.epochs), (Some(1), 5, 105));
    assert_eq!(history.reads() - before, 5, "only what is new is read");
    history.check().await;
}

#[tokio::test]
async fn a_record_whose_name_sorts_before_the_horizon_is_found() {
    let mut history = History::new().await;
    history.commit(1, 0b01).await;
    for days in [0, 40] {
        history.begin(0);
        history.now_ms += days * 24 * HOUR + 2 * HOUR;
        for _ in 0..20 {
            history.commit(1, 0b01).await;
            history.now_ms += HOUR;
        }
        roll_up(&history.stores, after(1)).await.unwrap();
        history.publish(0, 0b10, false).await;
        history.check().await;
        let epochs = history.published[0].epoch.clone();
        history.advance(0).await;
        let log = history.check().await;
        let (all, _) = records(&history.stores).await.unwrap();
        assert_eq!(log.fold.epochs, all.len() as u64, "{epochs} is found");
        assert_eq!(
            log.roll_up.is_none(),
            days > 0,
            "what is not far before the horizon is found without reading everything"
        );
        roll_up(&history.stores, after(1)).await.unwrap();
        assert!(history.check().await.roll_up.is_some(), "the next roll-up covers it");
    }
}

#[tokio::test]
async fn a_roll_up_that_cannot_be_read_is_replaced_and_until_then_an_older_one_is_used() {
    let mut history = History::new().await;
    for _ in 0..3 {
        history.commit(0, 0b11).await;
        roll_up(&history.stores, after(1)).await.unwrap();
    }
    let kept: Vec<String> = history.roll_ups().iter().map(ToString::to_string).collect();
    assert_eq!(kept, ["_rollups/00000000000000000002.json.gz", "_rollups/00000000000000000003.json.gz"]);
    history.lake.tamper(&history.roll_ups()[1], Some(Bytes::from_static(b"\x1f\x8b")));
    assert_eq!(history.check().await.roll_up, Some(2));
    history.lake.tamper(&history.roll_ups()[0], Some(Bytes::from_static(b"{}")));
    assert_eq!(history.check().await.roll_up, None);
    assert_eq!(roll_up(&history.stores, after(100)).await.unwrap(), RolledUp::Written { number: 4, epochs: 3 });
    assert_eq!(history.check().await.roll_up, Some(4));
}

#[tokio::test]
async fn of_two_writers_of_a_roll_up_one_wins() {
    let mut history = History::new().await;
    history.commit(0, 0b11).await;
    let (one, two) = tokio::join!(roll_up(&history.stores, after(1)), roll_up(&history.stores, after(1)));
    let outcomes = [one.unwrap(), two.unwrap()];
    assert!(outcomes.contains(&RolledUp::Written { number: 1, epochs: 1 }), "{outcomes:?}");
    assert_eq!(history.roll_ups().len(), 1);
    history.check().await;
}

#[tokio::test]
async fn a_lake_with_damaged_records_is_read_in_full_and_gets_no_roll_up() {
    let mut history = History::new().await;
    for _ in 0..4 {
        history.commit(0, 0b11).await;
    }
    roll_up(&history.stores, after(1)).await.unwrap();
    let mut damaged = Vec::new();
    for _ in 0..2 {
        history.commit(0, 0b11).await;
        damaged = history.lake.objects().into_keys().filter(|key| key.as_str().starts_with(COMMITS)).collect();
    }
    let damaged: &ObjectKey = &damaged[4];
    history.lake.tamper(damaged, Some(Bytes::from_static(b"{}")));
    let log = read(&history.stores).await.unwrap();
    assert_eq!((log.roll_up, log.fold.epochs), (None, 5));
    assert_eq!(log.unreadable.iter().map(|error| error.name.as_str()).collect::<Vec<_>>(), [damaged.as_str()]);
    assert_eq!(log.chains.gaps(&log.leases).len(), 2);
    assert_eq!(roll_up(&history.stores, after(1)).await.unwrap(), RolledUp::Unfit);
    assert!(matches!(since(&history.stores, &Cursor::default()).await, Err(CommitError::Unreadable(_))));
}

#[tokio::test]
async fn what_another_program_did_is_accepted_once_everything_was_read() {
    let mut history = History::new().await;
    // A shard whose parent another program has read, and whose row is gone.
    let mut new = NewLease::new(key("child"), Position::Beginning);
    new.parents.insert(ShardId::new("parent").unwrap());
    history.leases.create(&[new]).await.unwrap();
    history.commit(0, 0b111).await;
    assert_eq!(history.check().await.roll_up, None);
    roll_up(&history.stores, after(1)).await.unwrap();
    history.commit(0, 0b111).await;
    assert_eq!(history.check().await.roll_up, Some(1));
}

#[tokio::test]
async fn a_worker_writes_a_roll_up_after_a_number_of_its_commits() {
    let mut history = History::new().await;
    let mut roll_ups = RollUps::new(history.stores.clone(), &worker(0), after(4));
    for _ in 0..12 {
        history.commit(0, 0b11).await;
        roll_ups.maybe_roll_up();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    let log = history.check().await;
    assert_eq!(log.roll_up, Some(3));
    assert!(log.records_read < 4, "{log:?}");
}

/// How long reading takes, with `--nocapture` and `SHARDLAKE_LOG_RECORDS=100000` for many records.
#[tokio::test]
async fn a_local_lake_is_read_from_its_roll_up() {
    let count: u64 = std::env::var("SHARDLAKE_LOG_RECORDS").map_or(2_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let lake = LocalStore::open(folder.path()).unwrap();
    std::fs::create_dir(folder.path().join("_commits")).unwrap();
    let shards = ["a", "b", "c", "d"];
    let mut now_ms = 1_736_764_200_000;
    let mut write = |from: u64, to: u64| {
        for number in from..to {
            let shard = |shard: &&str| ShardOfEpoch {
                key: key(shard),
                parents: Vec::new(),
                range: ShardRange::new(
                    if number == 0 { Position::Beginning } else { Position::at((number * 10).into()) },
                    Position::at((number * 10 + 10).into()),
                )
                .unwrap(),
                children: Vec::new(),
                taken_over: false,
                records: 10,
                bytes: 1000,
                arrived_through: None,
            };
            let epoch = EpochId::new(now_ms, &worker(0), number);
            let record = manifest(epoch.clone(), worker(0), now_ms, shards.iter().map(shard).collect());
            std::fs::write(folder.path().join(epoch.commit_key().as_str()), record.to_bytes()).unwrap();
            now_ms += 60_000;
        }
    };
    write(0, count);
    let leases = MemoryLeases::new();
    let rows = shards.map(|shard| NewLease::new(key(shard), Position::at((count * 10).into())));
    leases.create(&rows).await.unwrap();
    let stores = Stores::new(Arc::new(lake), Arc::new(leases), RetryPolicy::default());
    let stores = stores.with_streams([key("a").stream]);

    let begun = tokio::time::Instant::now();
    let (all, _) = records(&stores).await.unwrap();
    let mut fold = Fold::default();
    all.iter().for_each(|record| fold.add(record));
    println!("{count} records, each one read: {:.2?}", begun.elapsed());

    let begun = tokio::time::Instant::now();
    assert_eq!(read(&stores).await.unwrap().fold, fold);
    println!("{count} records, the log without a roll-up: {:.2?}", begun.elapsed());

    let begun = tokio::time::Instant::now();
    assert_eq!(roll_up(&stores, after(1)).await.unwrap(), RolledUp::Written { number: 1, epochs: count });
    println!("writing the first roll-up: {:.2?}", begun.elapsed());

    write(count, count + 100);
    let begun = tokio::time::Instant::now();
    let log = read(&stores).await.unwrap();
    println!("the log from the roll-up and 100 records after it: {:.2?}", begun.elapsed());
    assert_eq!((log.roll_up, log.records_read, log.fold.epochs), (Some(1), 100, count + 100));
}
