//! A rewrite of a dataset's objects that is killed at every request, disturbed by lost replies, late processes and others at once. Whatever
//! happens, each row is visible once in the end, and what was removed is in the trash.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use checkpoints::faulty::{Fault as LeaseFault, Faulty, Operation as LeaseCall, Script};
use checkpoints::{LeaseStore, MemoryStore as MemoryLeases, ShardId};
use pipeline::encode::FileStats;

use super::*;
use crate::clock::Clock;
use crate::commit::{ObjectKind, ObjectOfEpoch, RemovedObject};
use crate::inspect::{Fault, verify};
use crate::lake::{Checksum, Fault as LakeFault, MemoryStore, NewPart, ObjectStore};
use crate::maintenance::sweep;
use crate::retry::RetryPolicy;

const FAILOVER: Duration = Duration::from_secs(10);

struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> i64 {
        1_736_764_200_000
    }
}

/// A lake with objects of one epoch.
struct World {
    lake: MemoryStore,
    leases: MemoryLeases,
    script: Script,
    stores: Stores,
}

fn process(number: u8) -> LeaseOwner {
    LeaseOwner::from_random([number; 16])
}

fn parts() -> BTreeSet<LakePart> {
    BTreeSet::from([LakePart::Dataset("orders".to_owned()), LakePart::Raw])
}

/// Copies every object that no operation has written, and removes it.
struct Rewrite;

#[async_trait]
impl Work for Rewrite {
    async fn plan(&self, stores: &Stores, plan: &mut Plan) -> Result<(), OperationError> {
        for prefix in ["processed/orders/", "raw/"] {
            for object in stores.lake.list(prefix).await? {
                if object.key.as_str().contains("-e0e0") {
                    let columns = FileStats::default();
                    plan.copy(stores, Copied { from: &object.key, source: &object.key, rows: 1, columns }).await?;
                    let (kind, dataset) = match LakePart::of(&object.key) {
                        Some(LakePart::Dataset(name)) => (ObjectKind::Processed, Some(name)),
                        _ => (ObjectKind::Raw, None),
                    };
                    plan.remove(RemovedObject { key: object.key, kind, dataset, rows: 1, bytes: object.bytes });
                }
            }
        }
        Ok(())
    }
}

impl World {
    async fn new() -> Self {
        let (lake, leases, script) = (MemoryStore::new(), MemoryLeases::new(), Script::default());
        let faulty = Faulty::new(Arc::new(leases.clone()), script.clone());
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(faulty), RetryPolicy::default());
        let world = World { lake, leases, script, stores };
        world.commit_an_epoch().await;
        world
    }

    /// An epoch with an object of two datasets each, and a raw one.
    async fn commit_an_epoch(&self) {
        let (stores, me) = (&self.stores, LeaseOwner::new("e0e0e0e0e0e0e0e0").unwrap());
        let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("s").unwrap());
        stores.leases.create(&[NewLease::new(key.clone(), Position::Beginning)]).await.unwrap();
        stores.leases.take(&me, &key, 0).await.unwrap().unwrap();
        let epoch = EpochId::new(1_736_764_200_000, &me, 1);
        let mut objects = Vec::new();
        let places = [
            "processed/orders/year=2025/month=01/day=13",
            "processed/orders/year=2025/month=01/day=14",
            "processed/users/year=2025/month=01/day=13",
            "raw/orders/year=2025/month=01/day=13",
        ];
        for (number, folder) in (1..).zip(places) {
            let extension = if folder.starts_with("raw") { "json.gz" } else { "parquet" };
            let key = ObjectKey::new(format!("{folder}/{epoch}-{number:05}.{extension}")).unwrap();
            let text = Bytes::from(format!("row {number}"));
            let upload = stores.lake.begin_upload(&key, &epoch.upload_id(&process(9), number)).await.unwrap();
            let part = NewPart { number: 1, offset: 0, bytes: text.clone() };
            let parts = vec![stores.lake.upload_part(&key, &upload, part).await.unwrap()];
            let (kind, dataset) = match LakePart::of(&key).unwrap() {
                LakePart::Dataset(name) => (ObjectKind::Processed, Some(name)),
                _ => (ObjectKind::Raw, None),
            };
            let partition = ObjectOfEpoch::partition_of(&key);
            let (bytes, crc64nvme) = (text.len() as u64, Checksum::of(&text));
            let columns = FileStats::default();
            objects.push(ObjectOfEpoch {
                key,
                kind,
                dataset,
                partition,
                columns,
                rows: 1,
                bytes,
                crc64nvme,
                upload,
                parts,
            });
        }
        let range = ShardRange::new(Position::Beginning, Position::at(3_u64.into())).unwrap();
        let (parents, children, taken_over, arrived_through) = (Vec::new(), Vec::new(), false, None);
        let manifest = Manifest {
            format: FORMAT,
            kind: ManifestKind::Epoch,
            epoch,
            worker: me,
            head: LogVersion::EMPTY,
            written_at: "2025-01-13T10:30:00.000Z".to_owned(),
            shards: vec![ShardOfEpoch {
                key,
                parents,
                range,
                children,
                taken_over,
                records: 3,
                bytes: 30,
                arrived_through,
            }],
            idle: Vec::new(),
            objects,
            removed: Vec::new(),
            of: None,
            sources: Vec::new(),
            swap: None,
            totals: Totals {
                records: 3,
                rows: [("orders".to_owned(), 2), ("users".to_owned(), 1)].into(),
                ..Totals::default()
            },
            edges: BTreeMap::new(),
            definitions: BTreeMap::new(),
            version: "0".to_owned(),
        };
        let Ok(intended) = Staged::new(manifest).write_intent(stores).await else { panic!("no intent") };
        let Outcome::Decided(decided) = intended.decide(stores).await.unwrap() else { panic!("refused") };
        let published = decided.publish(stores).await.unwrap().unwrap();
        published.enter(stores).await.unwrap().advance(stores).await.unwrap();
    }

    async fn operator(&self, number: u8) -> Operator {
        let (stores, clock) = (self.stores.clone(), Arc::new(StoppedClock));
        Operator::new(process(number), stores, clock, FAILOVER, [number; 8]).await.unwrap()
    }

    /// What a reader of a folder sees.
    fn texts(&self, prefixes: &[&str]) -> Vec<String> {
        let objects = self.lake.objects().into_iter();
        let seen = objects.filter(|(key, _)| prefixes.iter().any(|prefix| key.as_str().starts_with(prefix)));
        let mut texts: Vec<String> = seen.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect();
        texts.sort();
        texts
    }

    /// Everything is as after one whole rewrite.
    async fn check_rewritten(&self, what: &str) {
        let data = ["processed/", "raw/"];
        assert_eq!(self.texts(&data), ["row 1", "row 2", "row 3", "row 4"], "{what}: each row is visible once");
        assert_eq!(self.texts(&["_trash/"]), ["row 1", "row 2", "row 4"], "{what}: what was removed is in the trash");
        let old: Vec<String> = self.lake.objects().into_keys().map(|key| key.to_string()).collect();
        let old = old
            .iter()
            .filter(|key| key.contains("-e0e0") && (key.starts_with("processed/orders") || key.starts_with("raw/")));
        assert_eq!(old.count(), 0, "{what}: all objects are rewritten");
        for row in self.leases.list().await.unwrap() {
            assert_eq!(row.pending, None, "{what}");
        }
        let audit = verify(&self.stores, &|_| {}).await.unwrap();
        // These rows are not Parquet.
        let is_footer = |fault: &&Fault| matches!(fault, Fault::Altered { problem, .. } if problem.contains("footer"));
        let faults: Vec<&Fault> = audit.faults.iter().filter(|fault| !is_footer(fault)).collect();
        assert!(faults.is_empty(), "{what}: {faults:?}");
        assert_eq!(audit.totals.records, 3, "{what}: an operation has no records");
        sweep(&self.stores, i64::MAX, Duration::ZERO, false).await.unwrap();
        assert_eq!(self.lake.list_uploads().await.unwrap(), [], "{what}: nothing is left");
        assert_eq!(self.texts(&["_intents/"]), Vec::<String>::new(), "{what}");
    }

    /// Another process runs the same operation until it is done.
    async fn run_again(&self, number: u8, what: &str) {
        self.operator(number)
            .await
            .run(ManifestKind::Replace, &parts(), &Rewrite)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        self.check_rewritten(what).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_replaces_objects_and_keeps_the_old_ones_in_the_trash() {
    let world = World::new().await;
    let mut operator = world.operator(1).await;
    let done = operator.run(ManifestKind::Replace, &parts(), &Rewrite).await.unwrap().unwrap();
    assert_eq!((done.kind, done.objects.len(), done.removed.len()), (ManifestKind::Replace, 3, 3));
    world.check_rewritten("undisturbed").await;
    let trash = trash_of(&done);
    assert!(trash.iter().all(|key| world.lake.object(key).is_some()), "{trash:?}");
    assert_eq!(
        operator.run(ManifestKind::Replace, &parts(), &Rewrite).await.unwrap(),
        None,
        "there is nothing left to do"
    );
    let numbers = |world: &World| {
        let rows = world.leases.rows().into_iter().filter(|row| row.key.stream.as_str().starts_with("_lake:"));
        rows.map(|row| (row.key.shard.to_string(), row.checkpoint.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&world), [("_raw".to_owned(), "1".to_owned()), ("orders".to_owned(), "1".to_owned())]);
    let rows = world.leases.rows();
    assert!(
        rows.iter()
            .filter(|row| row.key.stream.as_str() != "orders")
            .all(|row| row.holder == checkpoints::Holder::Nobody)
    );
    operator.close().await;
}

/// Runs a rewrite, and ends its process if a request hangs. `None`: it did.
async fn killed_if_it_hangs(mut operator: Operator) -> Option<Result<Option<Manifest>, OperationError>> {
    let mut running = tokio::spawn(async move { operator.run(ManifestKind::Replace, &parts(), &Rewrite).await });
    let finished = tokio::time::timeout(Duration::from_secs(3), &mut running).await;
    if finished.is_err() {
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        return None;
    }
    Some(finished.unwrap().unwrap())
}

fn trash_of(done: &Manifest) -> Vec<ObjectKey> {
    done.removed.iter().map(|object| crate::commit::trash_key(&done.epoch, &object.key).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_killed_at_any_request_to_the_lake_is_finished_by_the_next_one() {
    let mut kills = 0;
    for call in
        ["get", "begin_upload", "upload_part", "put_new", "complete_upload", "checksum", "delete", "flush", "list"]
    {
        for skip in 0.. {
            let world = World::new().await;
            let operator = world.operator(1).await;
            world.lake.fail(call, skip, LakeFault::Hang);
            let what = format!("killed at {call} {skip}");
            if let Some(done) = killed_if_it_hangs(operator).await {
                // There are no more requests of this kind.
                assert!(done.is_ok(), "{what}");
                break;
            }
            kills += 1;
            world.run_again(2, &what).await;
        }
    }
    assert!(kills > 30, "{kills}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_killed_at_any_request_to_the_lake_is_finished_by_a_worker_if_it_was_decided() {
    let mut finished = 0;
    for call in ["put_new", "complete_upload", "checksum", "delete", "flush", "get"] {
        for skip in 0.. {
            let world = World::new().await;
            let operator = world.operator(1).await;
            world.lake.fail(call, skip, LakeFault::Hang);
            if killed_if_it_hangs(operator).await.is_some() {
                break;
            }
            let what = format!("killed at {call} {skip}");
            let is_decided = world.leases.rows().iter().any(|row| row.pending.is_some());
            // Several workers start at once.
            let (one, two) = tokio::join!(finish_pending(&world.stores), finish_pending(&world.stores));
            assert_eq!((one.is_ok(), two.is_ok()), (true, true), "{what}: {one:?} {two:?}");
            if is_decided {
                finished += 1;
                world.check_rewritten(&what).await;
            } else {
                assert_eq!(world.texts(&["_trash/"]), Vec::<String>::new(), "{what}");
                assert_eq!(world.texts(&["processed/", "raw/"]).len(), 4, "{what}");
                world.run_again(2, &what).await;
            }
        }
    }
    assert!(finished > 10, "{finished}");
}

#[tokio::test(start_paused = true)]
async fn lost_requests_and_replies_leave_one_whole_operation() {
    for fault in [LakeFault::LoseBefore, LakeFault::LoseAfter] {
        for call in ["get", "begin_upload", "upload_part", "put_new", "complete_upload", "checksum", "delete", "flush"]
        {
            for skip in [0, 1, 2, 3] {
                let world = World::new().await;
                world.lake.fail(call, skip, fault);
                world.run_again(1, &format!("{fault:?} {call} {skip}")).await;
            }
        }
    }
    for fault in [LeaseFault::LoseBefore, LeaseFault::LoseAfter] {
        for call in [LeaseCall::Create, LeaseCall::Take, LeaseCall::Decide, LeaseCall::Advance, LeaseCall::Get] {
            let world = World::new().await;
            world.script.lose_next(call, fault);
            world.run_again(1, &format!("{fault:?} {call:?}")).await;
        }
    }
}

/// Waits in its plan until another process has rewritten everything.
struct Late {
    world: Arc<World>,
}

#[async_trait]
impl Work for Late {
    async fn plan(&self, stores: &Stores, plan: &mut Plan) -> Result<(), OperationError> {
        Rewrite.plan(stores, plan).await?;
        // The lease is taken away meanwhile, as from a process that was stopped.
        for row in self.world.leases.rows().into_iter().filter(|row| row.key.stream.as_str().starts_with("_lake:")) {
            self.world.leases.take(&process(7), &row.key, row.counter).await.unwrap();
            self.world.leases.release(&process(7), &row.key).await.unwrap();
        }
        self.world.run_again(2, "while another process sleeps").await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_of_a_process_that_has_slept_is_refused_and_changes_nothing() {
    let world = Arc::new(World::new().await);
    let mut late = world.operator(1).await;
    let result = late.run(ManifestKind::Replace, &parts(), &Late { world: Arc::clone(&world) }).await;
    assert_eq!(result, Err(OperationError::LostLease));
    world.check_rewritten("after a late decision").await;
}

/// Takes its time.
struct Slow;

#[async_trait]
impl Work for Slow {
    async fn plan(&self, stores: &Stores, plan: &mut Plan) -> Result<(), OperationError> {
        tokio::time::sleep(10 * FAILOVER).await;
        Rewrite.plan(stores, plan).await
    }
}

#[tokio::test(start_paused = true)]
async fn two_operations_on_one_part_never_run_at_once_and_others_do() {
    let world = Arc::new(World::new().await);
    let mut first = world.operator(1).await;
    let running = tokio::spawn(async move { first.run(ManifestKind::Replace, &parts(), &Slow).await });
    tokio::time::sleep(FAILOVER).await;
    let mut second = world.operator(2).await;
    let busy = second.run(ManifestKind::Compact, &BTreeSet::from([LakePart::Raw]), &Rewrite).await.unwrap_err();
    assert_eq!(busy, OperationError::Busy { part: "_raw".to_owned(), holder: process(1) });
    let users = BTreeSet::from([LakePart::Dataset("users".to_owned())]);
    let error = second.run(ManifestKind::Compact, &users, &Rewrite).await.unwrap_err();
    assert!(error.to_string().contains("is not in a part of the lake that it holds"), "{error}");
    assert_eq!(running.await.unwrap().unwrap().unwrap().removed.len(), 3, "its leases were renewed meanwhile");
    world.check_rewritten("slow").await;
}

#[tokio::test(start_paused = true)]
async fn an_erasure_keeps_nothing_in_the_trash() {
    let world = World::new().await;
    world.operator(1).await.run(ManifestKind::Erase, &parts(), &Rewrite).await.unwrap().unwrap();
    assert_eq!(world.texts(&["_trash/"]), Vec::<String>::new());
    assert_eq!(world.texts(&["processed/", "raw/"]), ["row 1", "row 2", "row 3", "row 4"]);
}

#[tokio::test(start_paused = true)]
async fn the_ids_of_two_lakes_that_share_a_table_differ_and_one_lake_has_one() {
    let (one, two) = (MemoryStore::new(), MemoryStore::new());
    let claim =
        |lake: MemoryStore, random: u8| async move { claim_operations_stream(&lake, [random; 8]).await.unwrap() };
    let (first, again, other) = (claim(one.clone(), 1).await, claim(one.clone(), 2).await, claim(two, 3).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    one.tamper(&ObjectKey::new("_operations.json").unwrap(), Some(Bytes::from_static(b"{\"format\":1,\"id\":\"x\"}")));
    assert!(operations_stream(&one).await.unwrap_err().to_string().contains("_operations.json cannot be read"));
}

/// Lets an operation be killed after its commit record was written, and loses the rows of its parts.
async fn with_lost_rows() -> World {
    let world = World::new().await;
    let operator = world.operator(1).await;
    // Its first deletion: the record is written, it has entered, and the copies are in the trash.
    world.lake.fail("delete", 0, LakeFault::Hang);
    assert!(killed_if_it_hangs(operator).await.is_none());
    assert!(world.leases.rows().iter().any(|row| row.pending.is_some()));
    let leases = MemoryLeases::new();
    for row in world.leases.rows().into_iter().filter(|row| row.key.stream.as_str() == "orders") {
        let last_manifest = row.last_manifest.clone();
        leases.create(&[NewLease { last_manifest, ..NewLease::new(row.key, row.checkpoint) }]).await.unwrap();
    }
    let script = Script::default();
    let faulty = Faulty::new(Arc::new(leases.clone()), script.clone());
    let stores = Stores::new(Arc::new(world.lake.clone()), Arc::new(faulty), RetryPolicy::default());
    World { lake: world.lake, leases, script, stores }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_and_a_rebuild_remove_what_a_published_operation_removes_although_its_rows_are_lost() {
    for is_sweep in [true, false] {
        let world = with_lost_rows().await;
        assert!(world.texts(&["processed/", "raw/"]).len() > 4, "old and new objects are visible");
        if is_sweep {
            sweep(&world.stores, i64::MAX, Duration::ZERO, false).await.unwrap();
        } else {
            crate::maintenance::rebuild(&world.stores, &std::collections::HashMap::new()).await.unwrap();
        }
        world.check_rewritten(if is_sweep { "swept" } else { "rebuilt" }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_refused_where_the_row_of_a_part_is_lost_and_works_once_it_is_rebuilt() {
    let world = with_lost_rows().await;
    sweep(&world.stores, i64::MAX, Duration::ZERO, false).await.unwrap();
    let mut operator = world.operator(2).await;
    let refused = operator.run(ManifestKind::Replace, &parts(), &Rewrite).await.unwrap_err();
    assert!(matches!(&refused, OperationError::RowLost { .. }), "{refused}");
    assert!(!world.leases.rows().iter().any(|row| row.key.stream.as_str().starts_with("_lake:")), "nothing is created");
    crate::maintenance::rebuild(&world.stores, &std::collections::HashMap::new()).await.unwrap();
    assert_eq!(operator.run(ManifestKind::Replace, &parts(), &Rewrite).await, Ok(None), "there is nothing left to do");
    world.check_rewritten("rebuilt").await;
}
