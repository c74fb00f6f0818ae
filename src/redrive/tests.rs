//! Redrives and discards that are killed at every request, that run beside others, and whose objects others remove. Whatever happens, each
//! record is one row or one dead letter in the end. What a batch becomes is made by a stand-in here; the worker itself is tested through
//! the program.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{
    LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, NewLease, Position, ShardId, ShardKey, ShardRange, StreamName,
};
use pipeline::dead_letter::DeadLetter;
use pipeline::dead_letter::code::Code;
use pipeline::dead_letter::stored::{DeadLetterFilter, StoredLines, StoredWriter};
use pipeline::encode::FileStats;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::commit::lake_log::LogVersion;
use crate::commit::{
    EpochId, FORMAT, LakePart, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch, Outcome, ShardOfEpoch, Staged,
    Stores, Totals,
};
use crate::inspect::{Fault, live_error_objects, verify};
use crate::lake::{Checksum, Fault as LakeFault, MemoryStore, NewPart, ObjectStore};
use crate::maintenance::operation::Operator;
use crate::maintenance::operation::finish_pending;
use crate::maintenance::sweep;
use crate::redrive::drive::{AsideBatch, Progress};
use crate::retry::RetryPolicy;

const FAILOVER: Duration = Duration::from_secs(10);
const ARRIVAL_MS: i64 = 1_736_764_200_000;
/// Objects with dead letters.
const OBJECTS: u64 = 3;
/// Dead letters in each.
const IN_EACH: u64 = 6;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> i64 {
        ARRIVAL_MS
    }
}

fn process(number: u8) -> LeaseOwner {
    LeaseOwner::from_random([number; 16])
}

/// A dead letter; an even one can become a row.
fn letter(number: u64) -> DeadLetter<'static> {
    DeadLetter {
        code: if number.is_multiple_of(3) { Code::TooDeep } else { Code::MissingField },
        reason: None,
        syntax: None,
        dataset: (!number.is_multiple_of(3)).then(|| "orders".into()),
        field: None,
        stream: "orders".into(),
        shard: "s".into(),
        sequence: number.to_string().into(),
        sub_sequence: 0,
        partition_key: None,
        arrival_ms: ARRIVAL_MS,
        attempts: 1,
        raw: if number.is_multiple_of(2) { b"good".as_slice().into() } else { b"bad".as_slice().into() },
    }
}

/// An object of dead letters.
fn object_of(dead_letters: &[DeadLetter<'_>]) -> Bytes {
    let (mut writer, mut object) = (StoredWriter::new("x.json.gz"), Vec::new());
    for letter in dead_letters {
        let mut line = Vec::new();
        letter.write(&mut line);
        object.extend(writer.add(&line).unwrap().into_iter().flatten());
    }
    object.extend(writer.finish().unwrap().into_iter().flatten());
    Bytes::from(object)
}

fn error_folder(code: Code) -> String {
    format!("error/reason={code}/year=2025/month=01/day=13")
}

/// Commits an epoch with these objects: folder, extension, rows and content. Their rows are all its records.
async fn commit(stores: &Stores, me: &LeaseOwner, number: u64, objects: &[(String, u64, Bytes)]) {
    let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(format!("s{number}")).unwrap());
    stores.leases.create(&[NewLease::new(key.clone(), Position::Beginning)]).await.unwrap();
    stores.leases.take(me, &key, 0).await.unwrap().unwrap();
    let epoch = EpochId::new(ARRIVAL_MS, me, number);
    let mut staged = Vec::new();
    let mut totals = Totals::default();
    for (index, (folder, rows, content)) in (1..).zip(objects) {
        let extension = if folder.starts_with("processed") { "parquet" } else { "json.gz" };
        let key = ObjectKey::new(format!("{folder}/{epoch}-{index:05}.{extension}")).unwrap();
        let upload = stores.lake.begin_upload(&key, &epoch.upload_id(me, index)).await.unwrap();
        let part = NewPart { number: 1, offset: 0, bytes: content.clone() };
        let parts = vec![stores.lake.upload_part(&key, &upload, part).await.unwrap()];
        totals.records += rows;
        let (kind, dataset) = match LakePart::of(&key).unwrap() {
            LakePart::Dataset(name) => {
                *totals.rows.entry(name.clone()).or_default() += rows;
                (ObjectKind::Processed, Some(name))
            }
            _ => {
                let code = folder.split(['=', '/']).nth(2).unwrap();
                *totals.dead_letters.entry(code.to_owned()).or_default() += rows;
                (ObjectKind::Error, None)
            }
        };
        staged.push(ObjectOfEpoch {
            partition: ObjectOfEpoch::partition_of(&key),
            key,
            kind,
            dataset,
            columns: FileStats::default(),
            rows: *rows,
            bytes: content.len() as u64,
            crc64nvme: Checksum::of(content),
            upload,
            parts,
        });
    }
    let range = ShardRange::new(Position::Beginning, Position::at(3_u64.into())).unwrap();
    let (parents, children, taken_over, arrived_through) = (Vec::new(), Vec::new(), false, None);
    let records = totals.records;
    let shard = ShardOfEpoch { key, parents, range, children, taken_over, records, bytes: 1, arrived_through };
    let manifest = Manifest {
        format: FORMAT,
        kind: ManifestKind::Epoch,
        epoch,
        worker: me.clone(),
        head: LogVersion::EMPTY,
        written_at: "2025-01-13T10:30:00.000Z".to_owned(),
        shards: vec![shard],
        idle: Vec::new(),
        objects: staged,
        removed: Vec::new(),
        of: None,
        sources: Vec::new(),
        swap: None,
        totals,
        edges: BTreeMap::new(),
        definitions: BTreeMap::new(),
        version: "0".to_owned(),
    };
    let Ok(intended) = Staged::new(manifest).write_intent(stores).await else { panic!("no intent") };
    let Outcome::Decided(decided) = intended.decide(stores).await.unwrap() else { panic!("refused") };
    let published = decided.publish(stores).await.unwrap().unwrap();
    published.enter(stores).await.unwrap().advance(stores).await.unwrap();
}

/// Something that happens while a batch is processed.
type Meanwhile = Box<dyn FnOnce() -> futures::future::BoxFuture<'static, ()> + Send>;

/// Makes a row of each good record.
#[derive(Default)]
struct StandIn {
    meanwhile: Mutex<Option<Meanwhile>>,
}

/// Epochs that stand-ins have committed, so that no two have the same name.
static COMMITTED: AtomicU64 = AtomicU64::new(100);

#[async_trait]
impl RunAside for StandIn {
    async fn run(&self, batch: AsideBatch<'_>) -> Result<(), RedriveError> {
        let (mut rows, mut failed): (Vec<String>, BTreeMap<Code, Vec<DeadLetter<'static>>>) = Default::default();
        for (key, _) in &batch.objects {
            let bytes = batch.lake.get(key).await?.ok_or(RedriveError::Stopped)?;
            let mut lines = StoredLines::new(key.as_str(), bytes).unwrap();
            while let Some(line) = lines.next_line().unwrap() {
                let Some(letter) = line.dead_letter.filter(|letter| batch.filter.wants(letter)) else { continue };
                if &*letter.raw == b"good" {
                    rows.push(letter.sequence.into_owned());
                } else {
                    let attempts = letter.attempts + 1;
                    failed.entry(letter.code).or_default().push(DeadLetter { attempts, ..letter });
                }
            }
        }
        let mut objects = Vec::new();
        if !rows.is_empty() {
            let folder = "processed/orders/year=2025/month=01/day=13".to_owned();
            objects.push((folder, rows.len() as u64, Bytes::from(rows.join("\n"))));
        }
        for (code, dead_letters) in failed {
            objects.push((error_folder(code), dead_letters.len() as u64, object_of(&dead_letters)));
        }
        let number = COMMITTED.fetch_add(1, Ordering::Relaxed);
        let stores = Stores::new(Arc::clone(&batch.aside), Arc::new(MemoryLeases::new()), RetryPolicy::default());
        commit(&stores, &process(200), number, &objects).await;
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile().await;
        }
        Ok(())
    }

    async fn claim(&self, _: &dyn ObjectStore, datasets: &[&str]) -> Result<(), RedriveError> {
        assert!(datasets.iter().all(|dataset| *dataset == "orders"));
        Ok(())
    }
}

/// A lake with dead letters of several epochs.
#[derive(Clone)]
struct World {
    lake: MemoryStore,
    leases: MemoryLeases,
    stores: Stores,
}

/// What became of a record: how often it was processed as a dead letter, or 0 for a row.
type Fates = BTreeMap<u64, Vec<u64>>;

impl World {
    async fn new() -> Self {
        let (lake, leases) = (MemoryStore::new(), MemoryLeases::new());
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(leases.clone()), RetryPolicy::default());
        let world = World { lake, leases, stores };
        for object in 0..OBJECTS {
            let dead_letters: Vec<DeadLetter<'_>> =
                (object * IN_EACH..(object + 1) * IN_EACH).map(|number| letter(number + 1)).collect();
            let of = |code: Code| -> Vec<DeadLetter<'_>> {
                dead_letters.iter().filter(|letter| letter.code == code).cloned().collect()
            };
            let objects = [Code::TooDeep, Code::MissingField].map(|code| {
                let dead_letters = of(code);
                (error_folder(code), dead_letters.len() as u64, object_of(&dead_letters))
            });
            commit(&world.stores, &process(9), object + 1, &objects).await;
        }
        world
    }

    async fn operator(&self, number: u8) -> Operator {
        Operator::new(process(number), self.stores.clone(), Arc::new(StoppedClock), FAILOVER, [number; 8])
            .await
            .unwrap()
    }

    /// Redrives with batches of one object.
    async fn redrive(&self, number: u8, filter: DeadLetterFilter, aside: &StandIn) -> Result<Redriven, RedriveError> {
        let mut operator = self.operator(number).await;
        let (stop, on_progress) = (CancellationToken::new(), |_: Progress| {});
        let request = Redrive::new("0a1b2c3d".to_owned(), filter, &self.stores, &mut operator, &on_progress, &stop);
        redrive(Redrive { batch_bytes: 1, ..request }, aside).await
    }

    async fn discard(&self, number: u8, filter: DeadLetterFilter) -> Result<Discarded, RedriveError> {
        let mut operator = self.operator(number).await;
        let (stop, on_progress) = (CancellationToken::new(), |_: Progress| {});
        discard(Redrive::new("0f0f0f0f".to_owned(), filter, &self.stores, &mut operator, &on_progress, &stop)).await
    }

    /// What readers of the folders find of each record, which is what the log says is live.
    async fn fates(&self) -> Fates {
        let mut fates = Fates::new();
        let everything = DeadLetterFilter::default();
        let live = live_error_objects(&*self.stores.lake, &everything).await.unwrap();
        let mut listed: Vec<ObjectKey> = Vec::new();
        for (key, bytes) in self.lake.objects() {
            if key.as_str().starts_with("processed/") {
                for number in String::from_utf8(bytes.to_vec()).unwrap().lines() {
                    fates.entry(number.parse().unwrap()).or_default().push(0);
                }
            } else if key.as_str().starts_with("error/") {
                let mut lines = StoredLines::new(key.as_str(), bytes).unwrap();
                while let Some(line) = lines.next_line().unwrap() {
                    let letter = line.dead_letter.unwrap();
                    fates.entry(letter.sequence.parse().unwrap()).or_default().push(letter.attempts);
                }
                listed.push(key);
            }
        }
        assert_eq!(live.into_iter().map(|object| object.key).collect::<Vec<_>>(), listed);
        fates
    }

    /// No fault, nothing pending, nothing left aside or half-way.
    async fn check_clean(&self, what: &str) {
        remove_leftovers(&self.stores, i64::MAX, Duration::ZERO, false).await.unwrap();
        sweep(&self.stores, i64::MAX, Duration::ZERO, false).await.unwrap();
        for row in self.leases.list().await.unwrap() {
            assert_eq!(row.pending, None, "{what}");
        }
        let audit = verify(&self.stores, &|_| {}).await.unwrap();
        // These rows are not Parquet.
        let is_footer = |fault: &&Fault| matches!(fault, Fault::Altered { problem, .. } if problem.contains("footer"));
        let faults: Vec<&Fault> = audit.faults.iter().filter(|fault| !is_footer(fault)).collect();
        assert!(faults.is_empty(), "{what}: {faults:?}");
        let left: Vec<ObjectKey> = self
            .lake
            .objects()
            .into_keys()
            .filter(|key| key.as_str().starts_with("_replays/") || key.as_str().starts_with("_intents/"))
            .collect();
        assert_eq!(left, [], "{what}");
        assert_eq!(self.lake.list_uploads().await.unwrap(), [], "{what}");
    }
}

/// Each record once: a good one is a row, a bad one a dead letter that was tried this often.
fn once(attempts: impl Fn(u64) -> u64) -> Fates {
    (1..=OBJECTS * IN_EACH).map(|number| (number, vec![attempts(number)])).collect()
}

fn redriven(number: u64) -> u64 {
    if number.is_multiple_of(2) { 0 } else { 2 }
}

fn all() -> DeadLetterFilter {
    DeadLetterFilter::default()
}

#[tokio::test(start_paused = true)]
async fn what_can_become_a_row_does_and_what_fails_again_stays_with_one_more_attempt() {
    let world = World::new().await;
    let done = world.redrive(1, all(), &StandIn::default()).await.unwrap();
    assert_eq!((done.taken, done.rows["orders"], done.left_alone), (18, 9, 0));
    assert_eq!(done.failed_again, [("Decode.TooDeep".to_owned(), 3), ("Validate.MissingField".to_owned(), 6)].into());
    assert_eq!(done.operations, 6, "a batch has one object here");
    assert_eq!(world.fates().await, once(redriven));
    world.check_clean("undisturbed").await;
    // The same command again tries what failed, and makes nothing twice.
    let again = world.redrive(2, all(), &StandIn::default()).await.unwrap();
    assert_eq!((again.taken, again.rows.len(), again.left_alone), (9, 0, 0));
    assert_eq!(world.fates().await, once(|number| if number.is_multiple_of(2) { 0 } else { 3 }));
    world.check_clean("twice").await;
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_are_not_wanted_stay_as_they_are_also_in_an_object_with_others() {
    let world = World::new().await;
    let later = Bytes::from_static(b"{\"errorCode\":\"Decode.OfALaterVersion\",\"sequenceNumber\":\"7\"}\n");
    let mixed = [object_of(&[letter(50), letter(49)]), gzip(&later)].concat();
    let folder = error_folder(Code::MissingField);
    commit(&world.stores, &process(9), 9, &[(folder, 3, Bytes::from(mixed))]).await;
    let filter = DeadLetterFilter { codes: vec![Code::MissingField], dataset: Some("orders".to_owned()), ..all() };
    let done = world.redrive(1, filter, &StandIn::default()).await.unwrap();
    assert_eq!((done.taken, done.left_alone), (14, 7), "{done:?}");
    let keys: Vec<ObjectKey> = world.lake.objects().into_keys().collect();
    let mut lines = Vec::new();
    for key in keys.iter().filter(|key| key.as_str().starts_with("error/")) {
        let mut stored = StoredLines::new(key.as_str(), world.lake.object(key).unwrap()).unwrap();
        while let Some(line) = stored.next_line().unwrap() {
            lines.push(line.bytes.to_vec());
        }
    }
    assert_eq!(lines.iter().filter(|line| **line == later).count(), 1, "a line of a later version stays");
    let attempts = |number: u64| {
        let dead_letters = lines.iter().filter_map(|line| DeadLetter::parse(line).ok());
        let found: Vec<u64> =
            dead_letters.filter(|letter| letter.sequence == number.to_string()).map(|letter| letter.attempts).collect();
        found
    };
    assert_eq!((attempts(3), attempts(1), attempts(2), attempts(49)), (vec![1], vec![2], vec![], vec![2]));
    world.check_clean("some").await;
}

fn gzip(text: &[u8]) -> Bytes {
    let mut writer = StoredWriter::new("x.json.gz");
    writer.add(text).unwrap();
    Bytes::from(writer.finish().unwrap().unwrap())
}

/// Runs a redrive, and ends its process if a request hangs. `None`: it did.
async fn killed_if_it_hangs(world: &World) -> Option<Result<Redriven, RedriveError>> {
    let world = world.clone();
    let mut running = tokio::spawn(async move { world.redrive(1, all(), &StandIn::default()).await });
    let finished = tokio::time::timeout(Duration::from_secs(3), &mut running).await;
    if finished.is_err() {
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        return None;
    }
    Some(finished.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_is_killed_at_any_request_to_the_lake_leaves_each_record_once_and_the_next_one_does_the_rest() {
    let mut kills = 0;
    for call in
        ["get", "begin_upload", "upload_part", "put_new", "complete_upload", "checksum", "delete", "flush", "list"]
    {
        for skip in (0..).step_by(3) {
            let world = World::new().await;
            world.lake.fail(call, skip, LakeFault::Hang);
            let what = format!("killed at {call} {skip}");
            if let Some(done) = killed_if_it_hangs(&world).await {
                // There are no more requests of this kind.
                assert!(done.is_ok(), "{what}");
                break;
            }
            kills += 1;
            // Workers finish operations when they start.
            finish_pending(&world.stores).await.unwrap();
            let between = world.fates().await;
            assert_eq!(between.len() as u64, OBJECTS * IN_EACH, "{what}: nothing is lost");
            assert!(between.values().all(|fates| fates.len() == 1), "{what}: nothing is doubled: {between:?}");
            // A bad record may be tried twice: by the one that was killed, and by the next one.
            let done =
                world.redrive(2, all(), &StandIn::default()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(done.left_alone, 0, "{what}");
            let fates = world.fates().await;
            for (number, fates) in fates {
                let is_right = match number.is_multiple_of(2) {
                    true => fates == [0],
                    false => fates == [2] || fates == [3],
                };
                assert!(is_right, "{what}: {number} {fates:?}");
            }
            world.check_clean(&what).await;
        }
    }
    assert!(kills > 50, "{kills}");
}

#[tokio::test(start_paused = true)]
async fn requests_and_replies_that_are_lost_change_nothing() {
    for fault in [LakeFault::LoseBefore, LakeFault::LoseAfter] {
        for call in ["get", "begin_upload", "upload_part", "put_new", "complete_upload", "checksum", "delete", "flush"]
        {
            for skip in [0, 3, 7, 12] {
                let world = World::new().await;
                world.lake.fail(call, skip, fault);
                let what = format!("{fault:?} {call} {skip}");
                world.redrive(1, all(), &StandIn::default()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(world.fates().await, once(redriven), "{what}");
                world.check_clean(&what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_redrive_is_refused_while_the_first_one_runs() {
    let world = World::new().await;
    let other = world.clone();
    let meanwhile: Meanwhile = Box::new(move || {
        Box::pin(async move {
            let refused = other.redrive(2, all(), &StandIn::default()).await;
            assert!(matches!(refused, Err(RedriveError::Busy { .. })), "{refused:?}");
            let refused = other.discard(3, all()).await;
            assert!(matches!(refused, Err(RedriveError::Busy { .. })), "{refused:?}");
        })
    });
    let aside = StandIn { meanwhile: Mutex::new(Some(meanwhile)) };
    world.redrive(1, all(), &aside).await.unwrap();
    assert_eq!(world.fates().await, once(redriven));
    world.check_clean("two at once").await;
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_has_slept_and_lost_its_lease_to_another_one_makes_nothing_twice() {
    let world = World::new().await;
    let other = world.clone();
    let meanwhile: Meanwhile = Box::new(move || {
        Box::pin(async move {
            // As the others see a process that was stopped: its lease is taken.
            let rows = other.leases.rows();
            let row = rows.iter().find(|row| row.key.shard.as_str() == "_redrive").unwrap();
            other.leases.take(&process(7), &row.key, row.counter).await.unwrap().unwrap();
            other.leases.release(&process(7), &row.key).await.unwrap();
            let done = other.redrive(2, all(), &StandIn::default()).await.unwrap();
            assert_eq!(done.taken, 18);
        })
    });
    let aside = StandIn { meanwhile: Mutex::new(Some(meanwhile)) };
    // It finds that its objects are gone, and tries what failed again once more.
    let late = world.redrive(1, all(), &aside).await.unwrap();
    assert_eq!((late.taken, late.rows.len()), (9, 0), "{late:?}");
    assert_eq!(world.fates().await, once(|number| if number.is_multiple_of(2) { 0 } else { 3 }));
    world.check_clean("late").await;
}

#[tokio::test(start_paused = true)]
async fn objects_that_are_removed_meanwhile_are_not_redriven() {
    let world = World::new().await;
    let other = world.clone();
    let meanwhile: Meanwhile = Box::new(move || {
        Box::pin(async move {
            // Another operation removes objects: here one that takes no lease of redrives.
            let mut operator = other.operator(5).await;
            let live = live_error_objects(&*other.stores.lake, &all()).await.unwrap();
            let counted = selection::count_all(&*other.stores.lake, live, &all()).await.unwrap();
            let work = replacement::Replacement {
                batch: &counted[1..],
                filter: &all(),
                made: None,
                of: "replay:00000000".to_owned(),
                has_changed: false.into(),
            };
            let parts = std::collections::BTreeSet::from([LakePart::Error]);
            operator.run(ManifestKind::Replace, &parts, &work).await.unwrap().unwrap();
        })
    });
    let aside = StandIn { meanwhile: Mutex::new(Some(meanwhile)) };
    let done = world.redrive(1, all(), &aside).await.unwrap();
    assert_eq!((done.taken, done.operations), (2, 1), "only the first object is left: {done:?}");
    assert_eq!(world.fates().await.len(), 2);
    world.check_clean("removed meanwhile").await;
}

#[tokio::test(start_paused = true)]
async fn a_discard_removes_what_is_wanted_and_keeps_it_in_the_trash() {
    let world = World::new().await;
    let filter = DeadLetterFilter { codes: vec![Code::TooDeep], ..all() };
    let done = world.discard(1, filter.clone()).await.unwrap();
    assert_eq!((done.discarded, done.left_alone, done.operations), (6, 12, 1));
    let fates = world.fates().await;
    assert!(fates.keys().all(|number| number % 3 != 0) && fates.len() == 12, "{fates:?}");
    let in_trash = world.lake.objects().into_keys().filter(|key| key.as_str().starts_with("_trash/")).count();
    assert_eq!(in_trash, 3);
    let again = world.discard(2, filter).await.unwrap();
    assert_eq!((again.discarded, again.operations), (0, 0));
    let records: Vec<String> = world
        .lake
        .objects()
        .into_iter()
        .filter(|(key, _)| key.as_str().starts_with("_commits/"))
        .map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap())
        .collect();
    let operation = records.iter().find(|record| record.contains("\"of\":\"discard:0f0f0f0f\"")).unwrap();
    for epoch in 1..=OBJECTS {
        assert!(
            operation.contains(EpochId::new(ARRIVAL_MS, &process(9), epoch).as_str()),
            "its sources are the epochs"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_selection_counts_and_changes_nothing() {
    let world = World::new().await;
    let before = world.lake.objects();
    let selected =
        select(&*world.stores.lake, &DeadLetterFilter { codes: vec![Code::TooDeep], ..all() }).await.unwrap();
    assert_eq!((selected.dead_letters, selected.objects, selected.left_alone), (6, 3, 12));
    assert_eq!(selected.by_code, [("Decode.TooDeep".to_owned(), 6)].into());
    assert_eq!(selected.by_dataset, BTreeMap::new(), "these have no dataset");
    assert_eq!(world.lake.objects(), before);
}
