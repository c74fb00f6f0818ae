//! One checkpoint an interval in a whole fleet, whatever the clocks of machines say; what is removed; and until when one can be used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{
    LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, NewLease, Position, ShardId, ShardKey, StreamName,
};

use crate::commit::{
    CheckpointName, CheckpointSummary, EpochId, NamedCheckpoint, SavedBy, Stores, delete_checkpoint, get_checkpoint,
    list_checkpoints, save_checkpoint,
};
use crate::config::CheckpointSchedule;
use crate::lake::{Fault, MemoryStore, ObjectStore};
use crate::named_checkpoints::{Retentions, ScheduledCheckpoints, Usability, Usable, ending_checkpoints, take};
use crate::retry::RetryPolicy;
use crate::source::{Behind, ShardReader, ShardSource, SourceError, SourceShard};
use crate::worker::AfterCommit;

const HOUR_MS: i64 = 3_600_000;
const DAY: Duration = Duration::from_secs(86_400);
/// 2025-01-13T10:30:00Z.
const NOON_MS: i64 = 1_736_764_200_000;

fn stream() -> StreamName {
    StreamName::new("orders").unwrap()
}

fn key(shard: &str) -> ShardKey {
    ShardKey::new(stream(), ShardId::new(shard).unwrap())
}

/// A stream that keeps records for a time, and whose shards are behind.
struct Stream {
    name: StreamName,
    retention: Option<Duration>,
    behind: Result<Behind, SourceError>,
}

#[async_trait]
impl ShardSource for Stream {
    fn stream(&self) -> &StreamName {
        &self.name
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        Ok(Vec::new())
    }

    async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Err(SourceError::Unreadable { place: String::new(), problem: String::new() })
    }

    async fn behind(&self, shard: &ShardId, _: &Position) -> Result<Behind, SourceError> {
        // Only the first shard is behind.
        if shard.as_str() == "a" { self.behind.clone() } else { Ok(Behind::Nothing) }
    }

    async fn retention(&self) -> Result<Option<Duration>, SourceError> {
        Ok(self.retention)
    }
}

fn source(behind: Behind) -> Arc<dyn ShardSource> {
    Arc::new(Stream { name: stream(), retention: Some(DAY), behind: Ok(behind) })
}

struct Fleet {
    lake: MemoryStore,
    leases: MemoryLeases,
    stores: Stores,
    epochs: u64,
}

impl Fleet {
    async fn new() -> Self {
        let (lake, leases) = (MemoryStore::new(), MemoryLeases::new());
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(leases.clone()), RetryPolicy::NONE);
        let stores = stores.with_streams([stream()]);
        leases.create(&["a", "b"].map(|shard| NewLease::new(key(shard), Position::Beginning))).await.unwrap();
        Fleet { lake, leases, stores, epochs: 0 }
    }

    fn worker(&self, number: u8, keep: usize) -> ScheduledCheckpoints {
        let schedule = CheckpointSchedule { every: Duration::from_secs(3600), keep };
        let sources = vec![source(Behind::Time(1500))];
        ScheduledCheckpoints::new(LeaseOwner::from_random([number; 16]), self.stores.clone(), sources, schedule)
    }

    /// A commit record that the store writes at this time.
    async fn commit(&mut self, store_ms: i64) -> EpochId {
        self.epochs += 1;
        self.lake.set_time(store_ms);
        let epoch = EpochId::new(0, &LeaseOwner::from_random([9; 16]), self.epochs);
        self.lake.put_new(&epoch.commit_key(), Bytes::from_static(b"{}")).await.unwrap();
        epoch
    }

    async fn saved(&self) -> Vec<String> {
        let (listed, unreadable) = list_checkpoints(&self.lake).await.unwrap();
        assert_eq!(unreadable, []);
        listed.iter().map(|one| one.name.to_string()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_fleet_one_worker_saves_each_interval() {
    let mut fleet = Fleet::new().await;
    let mut workers: Vec<ScheduledCheckpoints> = (1..=8).map(|number| fleet.worker(number, 3)).collect();
    for hour in 0..5 {
        for minute in [0, 10, 20] {
            let epoch = fleet.commit(NOON_MS + hour * HOUR_MS + minute * 60_000).await;
            for worker in &mut workers {
                worker.after_commit(&epoch).await;
            }
            for worker in &mut workers {
                worker.finish().await;
            }
            tokio::time::advance(Duration::from_secs(600)).await;
        }
        // A restart in the middle of an interval saves no second one.
        workers.push(fleet.worker(100 + u8::try_from(hour).unwrap(), 3));
        tokio::time::advance(Duration::from_secs(1800)).await;
    }
    let puts =
        fleet.lake.calls().into_iter().filter(|(call, key)| *call == "put_new" && key.starts_with("_checkpoints/"));
    let names: BTreeSet<String> = puts.map(|(_, key)| key).collect();
    assert_eq!(names.len(), 5, "one name for each interval: {names:?}");
    let expected = ["auto-20250113T120000Z", "auto-20250113T130000Z", "auto-20250113T140000Z"];
    assert_eq!(fleet.saved().await, expected, "the newest three are kept");
    let saved = get_checkpoint(&fleet.lake, &CheckpointName::new(expected[0]).unwrap()).await.unwrap().unwrap();
    assert_eq!((saved.saved_by, saved.shards.len()), (SavedBy::Schedule, 2));
    assert_eq!(saved.behind_ms, BTreeMap::from([(stream(), 1500)]), "the shard that is behind the most counts");
}

#[tokio::test(start_paused = true)]
async fn what_people_saved_is_never_removed_whatever_its_name() {
    let mut fleet = Fleet::new().await;
    let of_people = |name: &str, saved_by| NamedCheckpoint {
        name: CheckpointName::new(name).unwrap(),
        saved_at_ms: 1,
        saved_by,
        log_version: None,
        behind_ms: BTreeMap::new(),
        definitions: BTreeMap::new(),
        shards: Vec::new(),
    };
    for (name, saved_by) in [
        ("before-the-fix", SavedBy::Command),
        // An earlier version allowed these names.
        ("auto-20200101T000000Z", SavedBy::Command),
        ("auto-mine", SavedBy::Command),
        ("auto-20200102T000000Z", SavedBy::Schedule),
    ] {
        assert!(save_checkpoint(&fleet.lake, &of_people(name, saved_by)).await.unwrap());
    }
    let damaged = CheckpointName::new("auto-20200103T000000Z").unwrap();
    fleet.lake.tamper(&damaged.key(), Some(Bytes::from_static(b"{")));
    let mut worker = fleet.worker(1, 1);
    let epoch = fleet.commit(NOON_MS).await;
    worker.after_commit(&epoch).await;
    worker.finish().await;
    assert!(fleet.lake.object(&damaged.key()).is_some());
    assert!(delete_checkpoint(&fleet.lake, &damaged).await.unwrap());
    let expected = ["auto-20200101T000000Z", "auto-20250113T100000Z", "auto-mine", "before-the-fix"];
    assert_eq!(fleet.saved().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_failed_save_is_tried_again_after_a_minute_and_a_lost_reply_saves_once() {
    let mut fleet = Fleet::new().await;
    let mut worker = fleet.worker(1, 7);
    fleet.lake.fail("list", 1, Fault::Refuse);
    let epoch = fleet.commit(NOON_MS).await;
    worker.after_commit(&epoch).await;
    worker.finish().await;
    worker.after_commit(&epoch).await;
    worker.finish().await;
    assert_eq!(fleet.saved().await, Vec::<String>::new(), "not at once");
    tokio::time::advance(Duration::from_secs(61)).await;
    fleet.lake.fail("put_new", 1, Fault::LoseAfter);
    let epoch = fleet.commit(NOON_MS).await;
    worker.after_commit(&epoch).await;
    worker.finish().await;
    tokio::time::advance(Duration::from_secs(61)).await;
    worker.after_commit(&epoch).await;
    worker.finish().await;
    assert_eq!(fleet.saved().await, ["auto-20250113T100000Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_schedule_asks_for_nothing() {
    let mut fleet = Fleet::new().await;
    let me = LeaseOwner::from_random([1; 16]);
    let mut worker = ScheduledCheckpoints::new(me, fleet.stores.clone(), Vec::new(), CheckpointSchedule::default());
    let epoch = fleet.commit(NOON_MS).await;
    let calls = fleet.lake.calls().len();
    worker.after_commit(&epoch).await;
    worker.finish().await;
    assert_eq!(fleet.lake.calls().len(), calls);
}

#[tokio::test]
async fn a_stream_that_cannot_be_asked_is_saved_without_its_age() {
    let fleet = Fleet::new().await;
    let problem = SourceError::Unavailable { place: "shard a".to_owned(), problem: "no response".to_owned() };
    let name = CheckpointName::new("x").unwrap();
    for (behind, expected) in [(Err(problem), None), (Ok(Behind::Nothing), Some(0)), (Ok(Behind::Time(7)), Some(7))] {
        let sources: [Arc<dyn ShardSource>; 1] = [Arc::new(Stream { name: stream(), retention: Some(DAY), behind })];
        let retentions = Retentions::ask(&sources).await;
        let taken = take(&fleet.stores, &sources, &retentions, name.clone(), SavedBy::Command, 5).await.unwrap();
        assert_eq!(taken.behind_ms.get(&stream()).copied(), expected);
        assert_eq!((taken.saved_at_ms, taken.shards.len()), (5, 2));
    }
}

fn summary(saved_at_ms: i64, stored_at_ms: i64, behind_ms: Option<u64>) -> CheckpointSummary {
    CheckpointSummary {
        name: CheckpointName::new("x").unwrap(),
        saved_at_ms,
        stored_at_ms,
        saved_by: SavedBy::Command,
        log_version: None,
        behind_ms: behind_ms.map(|ms| (stream(), ms)).into_iter().collect(),
        unfinished: BTreeSet::from([stream()]),
        shards: 1,
    }
}

#[test]
fn a_checkpoint_is_usable_until_its_oldest_unread_record_is_removed() {
    let retentions: Retentions = [(stream(), DAY)].into_iter().collect();
    let until = |one: &CheckpointSummary| {
        let usable = Usable::of(one, &retentions).unwrap();
        (usable.until_ms - NOON_MS, usable.is_at_most)
    };
    let day_ms = 24 * HOUR_MS;
    assert_eq!(until(&summary(NOON_MS, NOON_MS, Some(0))), (day_ms, false));
    assert_eq!(until(&summary(NOON_MS, NOON_MS, Some(5000))), (day_ms - 5000, false));
    assert_eq!(until(&summary(NOON_MS, NOON_MS, None)), (day_ms, true), "the stream was not asked");
    assert_eq!(until(&summary(NOON_MS + day_ms, NOON_MS, Some(0))), (day_ms, false), "a clock that is ahead");
    assert_eq!(until(&summary(NOON_MS, NOON_MS + day_ms, Some(0))), (day_ms, false), "a lake that was copied");
    assert!(until(&summary(NOON_MS, NOON_MS, Some(u64::MAX))).0 < 0);
    let ended = CheckpointSummary { unfinished: BTreeSet::new(), ..summary(NOON_MS, NOON_MS, None) };
    assert_eq!(Usable::of(&ended, &retentions), None, "nothing is left to read");
    assert_eq!(Usable::of(&summary(NOON_MS, NOON_MS, None), &Retentions::default()), None, "files are kept");
}

#[test]
fn a_checkpoint_ends_soon_in_its_last_day_or_the_last_quarter_of_the_retention() {
    for (retention, near_ms) in [(DAY, 6 * HOUR_MS), (7 * DAY, 24 * HOUR_MS), (365 * DAY, 24 * HOUR_MS)] {
        let retentions: Retentions = [(stream(), retention)].into_iter().collect();
        let usable = Usable::of(&summary(NOON_MS, NOON_MS, Some(0)), &retentions).unwrap();
        let until_ms = usable.until_ms;
        assert_eq!(usable.at(until_ms - near_ms - 1), Usability::Usable);
        assert_eq!(usable.at(until_ms - near_ms), Usability::Expiring);
        assert_eq!(usable.at(until_ms - 1), Usability::Expiring);
        assert_eq!(usable.at(until_ms), Usability::Expired);
    }
}

#[tokio::test]
async fn checkpoints_of_people_that_end_are_named_and_those_of_the_schedule_are_not() {
    let fleet = Fleet::new().await;
    fleet.lake.set_time(NOON_MS);
    let sources = [source(Behind::Nothing)];
    let retentions = Retentions::ask(&sources).await;
    for (name, by) in [("mine", SavedBy::Command), ("auto-20250113T100000Z", SavedBy::Schedule)] {
        let name = CheckpointName::new(name).unwrap();
        let taken = take(&fleet.stores, &sources, &retentions, name, by, NOON_MS).await.unwrap();
        assert!(save_checkpoint(&fleet.lake, &taken).await.unwrap());
    }
    let ending = async |now_ms: i64| {
        let ending = ending_checkpoints(&fleet.lake, &sources, now_ms).await.unwrap();
        ending.into_iter().map(|one| (one.name.to_string(), one.usability)).collect::<Vec<_>>()
    };
    assert_eq!(ending(NOON_MS).await, []);
    assert_eq!(ending(NOON_MS + 20 * HOUR_MS).await, [("mine".to_owned(), Usability::Expiring)]);
    assert_eq!(ending(NOON_MS + 25 * HOUR_MS).await, [("mine".to_owned(), Usability::Expired)]);
    assert_eq!(fleet.leases.list().await.unwrap().len(), 2);
}

/// Log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().filter(|line| line.contains("a checkpoint can soon not be used")).map(str::to_owned).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_fleet_one_worker_warns_once_a_day_of_a_checkpoint_that_ends_soon() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut fleet = Fleet::new().await;
    fleet.lake.set_time(NOON_MS);
    let sources = [source(Behind::Nothing)];
    let name = CheckpointName::new("mine").unwrap();
    let retentions = Retentions::ask(&sources).await;
    let taken = take(&fleet.stores, &sources, &retentions, name, SavedBy::Command, NOON_MS).await.unwrap();
    assert!(save_checkpoint(&fleet.lake, &taken).await.unwrap());
    let me = [1, 2].map(|number| LeaseOwner::from_random([number; 16]));
    for (owner, shard) in me.iter().zip(["b", "a"]) {
        fleet.leases.take(owner, &key(shard), 0).await.unwrap().unwrap();
    }
    let never = CheckpointSchedule::default();
    let mut workers = me.map(|me| ScheduledCheckpoints::new(me, fleet.stores.clone(), sources.to_vec(), never.clone()));
    let mut warned = Vec::new();
    // The hours since the checkpoint was saved, and the minutes that pass before.
    for (hours, minutes) in [(1, 1), (19, 10), (20, 60), (23, 180), (43, 20 * 60)] {
        tokio::time::advance(Duration::from_secs(60 * minutes)).await;
        let epoch = fleet.commit(NOON_MS + hours * HOUR_MS).await;
        for worker in &mut workers {
            worker.after_commit(&epoch).await;
            worker.finish().await;
        }
        warned.push(lines.take());
    }
    let counts: Vec<usize> = warned.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 1, 0, 0, 0], "not at once, once a day, and not when nothing can be done: {warned:?}");
    assert!(
        warned[1][0].contains("name=mine") && warned[1][0].contains("raise the retention of stream orders"),
        "{warned:?}"
    );
}
