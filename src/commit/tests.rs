//! A commit crashes after every step, and every request is lost before or after its effect. Whatever happens, the next worker
//! finds the epoch whole or makes it whole: every record is visible once, and nothing of an epoch that was not committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use checkpoints::faulty::{Fault as LeaseFault, Faulty, Operation, Script};
use checkpoints::{
    Lease, LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, NewLease, Position, ShardId, ShardKey, ShardRange,
    StreamName,
};

use pipeline::encode::FileStats;

use crate::commit::lake_log::{Entry, EntryHash, LogVersion};
use crate::commit::{
    CommitError, EpochId, FORMAT, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch, Outcome, Recovered, ShardOfEpoch,
    Staged, Stores, Totals, lost_rows, recover,
};
use crate::lake::{Checksum, Fault, MemoryStore, NewPart, ObjectKey, ObjectStore};
use crate::maintenance::{Rebuilt, rebuild};
use crate::retry::RetryPolicy;

/// A lake and leases with two shards, and the workers that share them.
struct World {
    lake: MemoryStore,
    leases: MemoryLeases,
    script: Script,
    stores: Stores,
}

fn keys() -> [ShardKey; 2] {
    let stream = StreamName::new("orders").unwrap();
    ["a", "b"].map(|shard| ShardKey::new(stream.clone(), ShardId::new(shard).unwrap()))
}

fn worker(number: u8) -> LeaseOwner {
    LeaseOwner::from_random([number; 16])
}

impl World {
    async fn new() -> Self {
        let lake = MemoryStore::new();
        let leases = MemoryLeases::new();
        let script = Script::default();
        let stores = Stores::new(
            Arc::new(lake.clone()),
            Arc::new(Faulty::new(Arc::new(leases.clone()), script.clone())),
            RetryPolicy::default(),
        )
        .with_streams([keys()[0].stream.clone()]);
        leases.create(&keys().map(|key| NewLease::new(key, Position::Beginning))).await.unwrap();
        World { lake, leases, script, stores }
    }

    /// A worker takes both shards, whoever holds them, and finishes what is pending. Returns its leases.
    async fn take(&self, me: &LeaseOwner) -> Result<Vec<Lease>, CommitError> {
        for key in keys() {
            let row = self.leases.get(std::slice::from_ref(&key)).await?.remove(0).unwrap();
            self.leases.take(me, &key, row.counter).await?.unwrap();
        }
        for row in self.leases.list().await? {
            // Another shard of the same epoch may have brought it to its end meanwhile.
            let now = self.leases.get(&[row.key]).await?.remove(0).unwrap();
            if let Some(pending) = now.pending {
                recover(&self.stores, &pending.manifest).await?;
            }
        }
        Ok(self.leases.list().await?)
    }

    /// Stages an epoch of worker `me` that moves each shard from its checkpoint to 100, with an object of one row for each.
    async fn stage(&self, me: &LeaseOwner, number: u64) -> Option<Staged> {
        let epoch = EpochId::new(1_736_764_200_000, me, number);
        let mut shards = Vec::new();
        let mut objects = Vec::new();
        for lease in self.leases.list().await.unwrap() {
            let through = Position::at(100_u64.into());
            let Ok(range) = ShardRange::new(lease.checkpoint, through) else { continue };
            let text = Bytes::from(format!("rows of shard {}", lease.key.shard));
            let key = ObjectKey::new(format!("processed/orders/{epoch}-{}.parquet", lease.key.shard)).unwrap();
            let upload = self.lake.begin_upload(&key, &format!("{epoch}-{}", lease.key.shard)).await.unwrap();
            let part = NewPart { number: 1, offset: 0, bytes: text.clone() };
            let parts = vec![self.lake.upload_part(&key, &upload, part).await.unwrap()];
            objects.push(ObjectOfEpoch {
                key,
                kind: ObjectKind::Processed,
                dataset: Some("orders".to_owned()),
                partition: BTreeMap::new(),
                columns: FileStats::default(),
                rows: 1,
                bytes: text.len() as u64,
                crc64nvme: Checksum::of(&text),
                upload,
                parts,
            });
            shards.push(ShardOfEpoch {
                key: lease.key,
                parents: Vec::new(),
                range,
                children: Vec::new(),
                taken_over: false,
                records: 1,
                bytes: 10,
                arrived_through: None,
            });
        }
        let records = shards.len() as u64;
        (records > 0).then(|| {
            Staged::new(Manifest {
                format: FORMAT,
                kind: ManifestKind::Epoch,
                epoch,
                worker: me.clone(),
                written_at: "2025-01-13T10:30:00.000Z".to_owned(),
                head: LogVersion::EMPTY,
                totals: Totals { records, rows: BTreeMap::from([("orders".to_owned(), records)]), ..Totals::default() },
                shards,
                objects,
                idle: Vec::new(),
                removed: Vec::new(),
                of: None,
                sources: Vec::new(),
                swap: None,
                edges: BTreeMap::new(),
                definitions: BTreeMap::new(),
                version: "0".to_owned(),
            })
        })
    }

    /// What a reader of the lake sees.
    fn visible(&self) -> Vec<String> {
        let objects = self.lake.objects();
        let rows = objects.iter().filter(|(key, _)| key.as_str().starts_with("processed/"));
        let mut texts: Vec<String> = rows.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect();
        texts.sort();
        texts
    }

    /// The lake log has every commit record once, in versions without a gap, each with the hash of the one before.
    fn check_log(&self) {
        let objects = self.lake.objects();
        let mut records: Vec<&ObjectKey> = objects.keys().filter(|key| key.as_str().starts_with("_commits/")).collect();
        let mut version = LogVersion::EMPTY;
        let mut previous = EntryHash::NONE;
        for (key, bytes) in objects.iter().filter(|(key, _)| key.as_str().starts_with("_log/")) {
            let entry = Entry::from_bytes(key, bytes).unwrap();
            assert_eq!((entry.version, entry.previous), (version.next(), previous));
            let record = Manifest::from_bytes(&entry.record, &objects[&entry.record]).unwrap();
            assert!(entry.is_of(&record), "{key} says what its record says");
            let before = records.len();
            records.retain(|record| **record != entry.record);
            assert_eq!(records.len() + 1, before, "{} is in the log once", entry.record);
            (version, previous) = (entry.version, EntryHash::of(bytes));
        }
        assert_eq!(records, Vec::<&ObjectKey>::new(), "these records are not in the log");
    }

    /// The next worker finishes everything. Then each row must be visible once.
    async fn settle(&self, number: u8) {
        let me = worker(number);
        self.take(&me).await.unwrap();
        if let Some(staged) = self.stage(&me, 1).await {
            let intended = staged.write_intent(&self.stores).await.map_err(|(_, error)| error).unwrap();
            let Outcome::Decided(decided) = intended.decide(&self.stores).await.unwrap() else {
                panic!("nothing prevents it any more");
            };
            decided
                .publish(&self.stores)
                .await
                .unwrap()
                .unwrap()
                .enter(&self.stores)
                .await
                .unwrap()
                .advance(&self.stores)
                .await
                .unwrap();
        }
        assert_eq!(self.visible(), ["rows of shard a", "rows of shard b"], "each row is visible once");
        for row in self.leases.list().await.unwrap() {
            assert_eq!((row.checkpoint, row.pending), (Position::at(100_u64.into()), None));
        }
        self.check_log();
        let audit = crate::inspect::verify(&self.stores, &|_| {}).await.unwrap();
        assert!(
            audit.faults.iter().all(|fault| matches!(fault, crate::inspect::Fault::Altered { .. })),
            "{:?}",
            audit.faults
        );
    }
}

/// The last step of a worker before it crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    Staged,
    Intended,
    Decided,
    Published,
    Entered,
    Advanced,
}

/// Runs a worker's commit up to a step. An error ends it as a crash does.
async fn commit_until(world: &World, me: &LeaseOwner, until: Until) -> Result<(), CommitError> {
    world.take(me).await?;
    let Some(staged) = world.stage(me, 1).await else { return Ok(()) };
    if until == Until::Staged {
        return Ok(());
    }
    let intended = staged.write_intent(&world.stores).await.map_err(|(_, error)| error)?;
    if until == Until::Intended {
        return Ok(());
    }
    let Outcome::Decided(decided) = intended.decide(&world.stores).await? else { return Ok(()) };
    if until == Until::Decided {
        return Ok(());
    }
    let Ok(published) = decided.publish(&world.stores).await? else { return Ok(()) };
    if until == Until::Published {
        return Ok(());
    }
    let entered = published.enter(&world.stores).await?;
    if until == Until::Entered {
        return Ok(());
    }
    entered.advance(&world.stores).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_step_loses_and_doubles_nothing() {
    for until in [Until::Staged, Until::Intended, Until::Decided, Until::Published, Until::Entered, Until::Advanced] {
        let world = World::new().await;
        commit_until(&world, &worker(1), until).await.unwrap();
        let expected = if until >= Until::Published { 2 } else { 0 };
        assert_eq!(world.visible().len(), expected, "{until:?}: nothing uncommitted is visible");
        world.settle(2).await;
    }
}

impl World {
    /// The same lake with a lease table that is empty.
    fn without_table(self) -> Self {
        let leases = MemoryLeases::new();
        let stores = Stores::new(Arc::new(self.lake.clone()), Arc::new(leases.clone()), RetryPolicy::default());
        World { leases, stores, ..self }
    }

    /// What a worker's start does with rows that are missing.
    async fn create_missing(&self) {
        self.leases.create(&keys().map(|key| NewLease::new(key, Position::Beginning))).await.unwrap();
    }

    async fn rebuild(&self) -> Rebuilt {
        rebuild(&self.stores, &HashMap::new()).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_lost_after_any_step_is_rebuilt_without_loss_or_doubling() {
    for until in [Until::Staged, Until::Intended, Until::Decided, Until::Published, Until::Entered, Until::Advanced] {
        let world = World::new().await;
        commit_until(&world, &worker(1), until).await.unwrap();
        let world = world.without_table();
        let streams = [keys()[0].stream.clone()];
        let is_committed = until >= Until::Published;
        let lost = lost_rows(&world.stores, &streams).await.unwrap();
        assert_eq!(lost.len(), usize::from(is_committed), "{until:?}: a lake without commits is normal");
        let rebuilt = world.rebuild().await;
        assert_eq!(rebuilt.created.len(), if is_committed { 2 } else { 0 }, "{until:?}");
        let is_unknown = matches!(until, Until::Intended | Until::Decided);
        assert_eq!((rebuilt.undone.len(), rebuilt.finished.len()), (usize::from(is_unknown), 0), "{until:?}");
        assert_eq!(lost_rows(&world.stores, &streams).await.unwrap(), []);
        let again = world.rebuild().await;
        assert_eq!((again.created.len(), again.existing), (0, rebuilt.created.len() as u64), "it may be repeated");
        world.create_missing().await;
        world.settle(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_of_a_lost_table_that_is_visible_in_part_is_finished_or_removed() {
    for upload_is_gone in [false, true] {
        let world = World::new().await;
        // The second of its two objects is not published.
        world.lake.fail("complete_upload", 1, Fault::Refuse);
        commit_until(&world, &worker(1), Until::Advanced).await.unwrap_err();
        assert_eq!(world.visible().len(), 1);
        if upload_is_gone {
            world.lake.expire_uploads();
        }
        let world = world.without_table();
        let rebuilt = world.rebuild().await;
        let expected = if upload_is_gone { (0, 1) } else { (1, 0) };
        assert_eq!((rebuilt.finished.len(), rebuilt.undone.len()), expected);
        assert_eq!(world.visible().len(), if upload_is_gone { 0 } else { 2 });
        world.create_missing().await;
        world.settle(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_still_publishes_while_the_table_is_rebuilt_changes_nothing() {
    let world = World::new().await;
    let me = worker(1);
    world.take(&me).await.unwrap();
    let intended = world.stage(&me, 1).await.unwrap().write_intent(&world.stores).await.unwrap();
    let Outcome::Decided(decided) = intended.decide(&world.stores).await.unwrap() else { panic!("it is decided") };
    let old = world.stores.clone();
    let world = world.without_table();
    let publish = async {
        // Its uploads were aborted.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(decided.publish(&old).await.unwrap().is_err());
    };
    let (rebuilt, ()) = tokio::join!(world.rebuild(), publish);
    assert_eq!((rebuilt.undone.len(), rebuilt.created.len()), (1, 0));
    world.create_missing().await;
    world.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_lost_in_part_are_noticed_and_made_again() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
    let before = world.leases.list().await.unwrap();
    let world = world.without_table();
    let [a, b] = keys();
    world.leases.create(&[NewLease::new(a.clone(), Position::Beginning)]).await.unwrap();
    let lost = lost_rows(&world.stores, std::slice::from_ref(&a.stream)).await.unwrap();
    assert_eq!(lost[0].to_string(), "b of stream orders, which has no row");
    let rebuilt = world.rebuild().await;
    assert_eq!(rebuilt.created, [(b.clone(), Position::at(100_u64.into()))]);
    assert_eq!(rebuilt.behind.len(), 1, "the row of a is before what is committed, and is left as it is");
    let row = world.leases.list().await.unwrap().pop().unwrap();
    assert_eq!((row.last_manifest, row.checkpoint), (before[1].last_manifest.clone(), before[1].checkpoint.clone()));
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_backup_are_noticed_and_rows_that_are_read_again_are_not() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
    let [a, b] = keys();
    let streams = [a.stream.clone()];
    let row_moved_at = async |ms: i64| {
        let world = World { lake: world.lake.clone(), script: Script::default(), ..World::new().await }.without_table();
        let last_manifest = Some(EpochId::new(ms, &worker(2), 1).manifest_name());
        let row = |key: ShardKey| NewLease {
            last_manifest: last_manifest.clone(),
            ..NewLease::new(key, Position::at(50_u64.into()))
        };
        world.leases.create(&[row(a.clone()), row(b.clone())]).await.unwrap();
        lost_rows(&world.stores, &streams).await.unwrap()
    };
    let found = row_moved_at(1_736_764_100_000).await;
    assert!(found[0].to_string().starts_with("a, b of stream orders after the position in the row"), "{found:?}");
    assert_eq!(row_moved_at(1_736_764_300_000).await, [], "a newer epoch has moved them: they are read again");
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_removed_after_their_ends_are_not_lost() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
    let world = world.without_table();
    let [a, b] = keys();
    // A KCL application has read the rest of `a`, and removed its row when it began to read its child.
    let child = ShardKey::new(a.stream.clone(), ShardId::new("c").unwrap());
    let child = NewLease { parents: [a.shard.clone()].into(), ..NewLease::new(child, Position::at(7_u64.into())) };
    world.leases.create(&[child, NewLease::new(b, Position::at(100_u64.into()))]).await.unwrap();
    assert_eq!(lost_rows(&world.stores, &[a.stream]).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn positions_are_not_guessed_if_a_commit_record_cannot_be_read() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
    let record = world.lake.objects().into_keys().find(|key| key.as_str().starts_with("_commits/")).unwrap();
    world.lake.tamper(&record, Some(Bytes::from_static(b"{}")));
    let world = world.without_table();
    assert!(rebuild(&world.stores, &HashMap::new()).await.is_err());
    assert_eq!(world.leases.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn an_audit_ignores_the_rows_of_another_lake() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
    let other = ShardKey::new(StreamName::new("of another lake").unwrap(), ShardId::new("a").unwrap());
    let new = NewLease {
        last_manifest: Some(EpochId::new(1_736_764_200_000, &worker(9), 1).manifest_name()),
        ..NewLease::new(other.clone(), Position::at(7_u64.into()))
    };
    world.leases.create(&[new]).await.unwrap();
    let gaps = async || {
        let audit = crate::inspect::verify(&world.stores, &|_| {}).await.unwrap();
        audit.faults.iter().filter(|fault| matches!(fault, crate::inspect::Fault::Gap { .. })).count()
    };
    assert_eq!(gaps().await, 0);
    // A worker has opened the stream for this lake: its record is missing.
    let start = ObjectKey::new(pipeline::layout::stream_start(other.stream.as_str())).unwrap();
    world.lake.put_new(&start, Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(gaps().await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_audit_beside_workers_checks_a_second_time_what_seems_to_be_wrong() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
    let record = world.lake.objects().into_keys().find(|key| key.as_str().starts_with("_commits/")).unwrap();
    let gaps = async || {
        let audit = crate::inspect::verify(&world.stores, &|_| {}).await.unwrap();
        audit.faults.iter().filter(|fault| matches!(fault, crate::inspect::Fault::Gap { .. })).count()
    };
    // The commit log and the audit itself list the records.
    for list in 0..2 {
        world.lake.hide_once(&record, list);
        assert_eq!(gaps().await, 0, "the record is there, and one page of list {list} did not show it");
    }
    world.lake.tamper(&record, None);
    assert_eq!(gaps().await, 2, "it is not there");
    let audit = crate::inspect::verify(&world.stores, &|_| {}).await.unwrap();
    let gap = audit.faults.iter().find(|fault| matches!(fault, crate::inspect::Fault::Gap { .. })).unwrap();
    let mut later = gap.clone();
    if let crate::inspect::Fault::Gap { before, .. } = &mut later {
        *before = Position::End;
    }
    assert!(later != *gap && gap.is_still(&later), "a worker has gone on meanwhile: the gap is the same");
    if let crate::inspect::Fault::Gap { after, .. } = &mut later {
        *after = Position::Latest;
    }
    assert!(!gap.is_still(&later), "another gap");
}

#[tokio::test(start_paused = true)]
async fn the_commit_record_has_the_intents_bytes_whichever_version_wrote_them() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Decided).await.unwrap();
    let (key, intent) =
        world.lake.objects().into_iter().find(|(key, _)| key.as_str().starts_with("_intents/")).unwrap();
    let later = [b"{\"of_a_later_version\":[1,null],", intent.strip_prefix(b"{").unwrap()].concat();
    world.lake.tamper(&key, Some(later.clone().into()));
    world.settle(2).await;
    let record = key.as_str().replace("_intents/", "_commits/");
    assert_eq!(world.lake.object(&ObjectKey::new(record).unwrap()).unwrap(), later);
}

/// Every request to the lake that a commit sends, with how often it is sent.
const LAKE_CALLS: [(&str, usize); 5] =
    [("flush", 2), ("put_new", 3), ("complete_upload", 2), ("list", 3), ("delete", 1)];

#[tokio::test(start_paused = true)]
async fn every_request_to_the_lake_may_be_lost_before_or_after_its_effect() {
    for (operation, times) in LAKE_CALLS {
        for nth in 0..times {
            for fault in [Fault::LoseBefore, Fault::LoseAfter] {
                let world = World::new().await;
                world.lake.fail(operation, nth, fault);
                commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
                let name = format!("{operation} number {nth}, {fault:?}");
                assert_eq!(world.visible().len(), 2, "{name}: the commit got over it");
                let asked = world.lake.calls().iter().filter(|(call, _)| *call == operation).count();
                // Removing the intent is not tried again: a sweep does it.
                assert!(asked > times || operation == "delete", "{name}: the request was sent again");
                world.settle(2).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_lake_may_refuse_any_request_and_the_next_worker_finishes() {
    for (operation, times) in LAKE_CALLS {
        for nth in 0..times {
            let world = World::new().await;
            world.lake.fail(operation, nth, Fault::Refuse);
            let ended = commit_until(&world, &worker(1), Until::Advanced).await;
            assert!(ended.is_err() || operation == "delete", "{operation} number {nth}");
            world.settle(2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_to_the_leases_may_be_lost_before_or_after_its_effect() {
    for operation in [Operation::Decide, Operation::Get, Operation::Advance] {
        for fault in [LeaseFault::LoseBefore, LeaseFault::LoseAfter] {
            let world = World::new().await;
            world.script.lose_next(operation, fault);
            commit_until(&world, &worker(1), Until::Advanced).await.unwrap();
            assert_eq!(world.visible().len(), 2, "{operation:?} {fault:?}: the commit got over it");
            world.settle(2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_whose_worker_never_learns_of_its_decision_is_finished_by_others() {
    let world = World::new().await;
    for nth in 0..40 {
        world.script.lose(Operation::Decide, nth, LeaseFault::LoseAfter);
        world.script.lose(Operation::Get, nth, LeaseFault::LoseBefore);
    }
    let ended = commit_until(&world, &worker(1), Until::Advanced).await;
    assert!(matches!(ended, Err(CommitError::Leases(_))), "it is not known: {ended:?}");
    assert_eq!(world.visible().len(), 0);
    let world = World { script: Script::default(), ..world };
    let stores = Stores::new(Arc::new(world.lake.clone()), Arc::new(world.leases.clone()), RetryPolicy::default());
    World { stores, ..world }.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_zombie_cannot_commit() {
    let world = World::new().await;
    let (zombie, other) = (worker(1), worker(2));
    world.take(&zombie).await.unwrap();
    let staged = world.stage(&zombie, 1).await.unwrap();
    let intended = staged.write_intent(&world.stores).await.map_err(|(_, error)| error).unwrap();
    // It sleeps; another worker takes its shards and commits the same records.
    commit_until(&world, &other, Until::Advanced).await.unwrap();
    assert_eq!(world.visible().len(), 2);
    let Outcome::Refused(_, refusals) = intended.decide(&world.stores).await.unwrap() else {
        panic!("the zombie's decision is refused");
    };
    assert!(refusals.is_empty() || refusals.len() == 2, "{refusals:?}");
    assert_eq!(world.visible().len(), 2, "nothing of the zombie's is visible");
    assert!(world.lake.list_uploads().await.unwrap().is_empty(), "and its uploads are gone");
    world.settle(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_zombie_that_had_decided_publishes_late_and_does_no_harm() {
    let world = World::new().await;
    let zombie = worker(1);
    world.take(&zombie).await.unwrap();
    let staged = world.stage(&zombie, 1).await.unwrap();
    let intended = staged.write_intent(&world.stores).await.map_err(|(_, error)| error).unwrap();
    let Outcome::Decided(decided) = intended.decide(&world.stores).await.unwrap() else { panic!("decided") };
    // It sleeps; another rolls the epoch forward; then it wakes up.
    world.settle(2).await;
    let published = decided.publish(&world.stores).await.unwrap().unwrap();
    published.enter(&world.stores).await.unwrap().advance(&world.stores).await.unwrap();
    world.settle(3).await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_finishing_one_epoch_do_no_harm() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Decided).await.unwrap();
    let pending = world.leases.list().await.unwrap()[0].pending.clone().unwrap().manifest;
    let (one, two) = tokio::join!(recover(&world.stores, &pending), recover(&world.stores, &pending));
    assert!(matches!((one, two), (Ok(Recovered::Forward(_)), Ok(Recovered::Forward(_)))));
    world.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_advanced_one_shard_is_rolled_forward_for_the_other() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Published).await.unwrap();
    let pending = world.leases.list().await.unwrap()[0].pending.clone().unwrap();
    let [first, _] = keys();
    let advance = checkpoints::Advance::new(first, pending.through);
    world.leases.advance(&pending.manifest, &[advance]).await.unwrap();
    world.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_whose_uploads_are_permanently_gone_is_rolled_back_and_read_again() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Decided).await.unwrap();
    world.lake.expire_uploads();
    let pending = world.leases.list().await.unwrap()[0].pending.clone().unwrap().manifest;
    assert!(matches!(recover(&world.stores, &pending).await, Ok(Recovered::Back)));
    assert_eq!(world.visible().len(), 0);
    // One who saw it pending and slept meanwhile comes when even its intent was swept.
    let intent = EpochId::of_manifest(&pending).unwrap().intent_key();
    world.lake.tamper(&intent, None);
    assert!(matches!(recover(&world.stores, &pending).await, Ok(Recovered::Back)));
    world.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_rolling_one_epoch_back_do_no_harm() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Decided).await.unwrap();
    world.lake.expire_uploads();
    let pending = world.leases.list().await.unwrap()[0].pending.clone().unwrap().manifest;
    let (one, two) = tokio::join!(recover(&world.stores, &pending), recover(&world.stores, &pending));
    assert!(matches!((one, two), (Ok(Recovered::Back), Ok(Recovered::Back))));
    world.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_deletes_visible_objects_first() {
    let world = World::new().await;
    // One object is completed, then the lake fails, then the other upload is lost.
    world.lake.fail("complete_upload", 1, Fault::Refuse);
    assert!(commit_until(&world, &worker(1), Until::Advanced).await.is_err());
    assert_eq!(world.visible().len(), 1);
    world.lake.expire_uploads();
    // The worker dies while it rolls back, too.
    world.lake.fail("delete", 1, Fault::Refuse);
    let pending = world.leases.list().await.unwrap()[0].pending.clone().unwrap().manifest;
    assert!(recover(&world.stores, &pending).await.is_err());
    assert!(matches!(recover(&world.stores, &pending).await, Ok(Recovered::Back)));
    assert_eq!(world.visible().len(), 0);
    world.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_can_go_neither_forward_nor_back_is_an_error_that_names_it() {
    // The intent is gone.
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Decided).await.unwrap();
    let pending = world.leases.list().await.unwrap()[0].pending.clone().unwrap();
    let intent = ObjectKey::new(pending.manifest.as_str()).unwrap();
    world.lake.tamper(&intent, None);
    let message = recover(&world.stores, &pending.manifest).await.unwrap_err();
    assert!(matches!(&message, CommitError::NoIntent { name } if name == pending.manifest.as_str()), "{message}");
    assert!(!message.is_retryable());

    // An upload is gone, but a shard has advanced.
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Decided).await.unwrap();
    let [first, _] = keys();
    let advance = checkpoints::Advance::new(first, pending.through.clone());
    let manifest = world.leases.list().await.unwrap()[1].pending.clone().unwrap().manifest;
    world.leases.advance(&manifest, &[advance]).await.unwrap();
    world.lake.expire_uploads();
    let message = recover(&world.stores, &manifest).await.unwrap_err();
    assert!(matches!(message, CommitError::Torn { .. }), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_object_with_other_bytes_is_a_conflict() {
    let world = World::new().await;
    commit_until(&world, &worker(1), Until::Decided).await.unwrap();
    let pending = world.leases.list().await.unwrap()[0].pending.clone().unwrap().manifest;
    let epoch = EpochId::of_manifest(&pending).unwrap();
    let key = ObjectKey::new(format!("processed/orders/{epoch}-a.parquet")).unwrap();
    world.lake.tamper(&key, Some(Bytes::from_static(b"somebody else's")));
    let message = recover(&world.stores, &pending).await.unwrap_err();
    assert!(matches!(&message, CommitError::Conflict { key: found, .. } if *found == key), "{message}");
}
