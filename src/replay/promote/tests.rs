//! Promoting, undoing and purging: each killed at every request, repeated, at once with others, and by processes that have slept. Whatever
//! happens, each row is visible once in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use checkpoints::{
    LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, NewLease, Position, ShardId, ShardKey, ShardRange, StreamName,
};
use pipeline::dataset::DefinitionText;
use pipeline::encode::FileStats;

use super::*;
use crate::clock::Clock;
use crate::commit::{DecidedEpoch, FORMAT, ObjectOfEpoch, Outcome, ShardOfEpoch, Staged, Totals, finish_published};
use crate::inspect::{Fault, verify, verify_at};
use crate::lake::{Checksum, Fault as LakeFault, MemoryStore, NewPart};
use crate::maintenance::operation::finish_pending;
use crate::maintenance::purge::{old_trash, purge as purge_trash};
use crate::maintenance::sweep;
use crate::maintenance::undo::{CannotUndo, UndoError};
use crate::replay::control::{Control, ask};
use crate::replay::plan::{Estimate, Slice, SliceOf, SupersededObject, Totals as PlanTotals};
use crate::replay::status::{Evidence, State, status_of};
use crate::retry::RetryPolicy;

const FAILOVER: Duration = Duration::from_secs(10);
const PREFIX: &str = "_replays/01ab0000/lake/";
const DAY_13: &str = "processed/orders/year=2025/month=01/day=13";
const DAY_14: &str = "processed/orders/year=2025/month=01/day=14";
const FAILED: &str = "error/reason=Decode.Truncated/year=2025/month=01/day=13";
const RAW: &str = "raw/orders/year=2025/month=01/day=13";
/// What readers of folders see before, and after.
const OLD: [&str; 4] = ["live", "old 1", "old 2", "old dead letter"];
const NEW: [&str; 3] = ["live", "new 1", "new 2"];

struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> i64 {
        1_736_764_200_000
    }
}

/// A lake with a replay that is complete.
struct World {
    lake: MemoryStore,
    leases: MemoryLeases,
    stores: Stores,
    aside: MemoryStore,
    plan: Plan,
    datasets: Datasets,
}

fn process(number: u8) -> LeaseOwner {
    LeaseOwner::from_random([number; 16])
}

fn stores_of(lake: &MemoryStore, leases: &MemoryLeases) -> Stores {
    Stores::new(Arc::new(lake.clone()), Arc::new(leases.clone()), RetryPolicy::default())
}

fn datasets(column: &str) -> Datasets {
    let text = format!(
        "name = \"orders\"\npartition_by = [\"year\", \"month\", \"day\"]\n[event_time]\npointer = \"/at\"\n\
         [[column]]\nname = \"{column}\"\npointer = \"/a\"\ntype = \"string\"\n"
    );
    let texts = [DefinitionText { file: "orders.toml".to_owned(), text }];
    Datasets::compile(&texts, &|_, _| Err(String::new())).unwrap()
}

/// Commits an epoch of one shard, whose objects have one line each.
async fn commit(
    stores: &Stores,
    number: u64,
    key: ShardKey,
    range: ShardRange,
    objects: &[(&str, &str)],
    hash: &str,
) -> Manifest {
    let me = LeaseOwner::new(format!("e0e0e0e0e0e0e0{number:02}")).unwrap();
    stores.leases.create(&[NewLease::new(key.clone(), Position::Beginning)]).await.unwrap();
    let row = stores.leases_of(vec![key.clone()]).await.unwrap().remove(0);
    stores.leases.take(&me, &key, row.counter).await.unwrap().unwrap();
    let epoch = EpochId::new(1_736_764_100_000, &me, number);
    let (mut made, mut totals) = (Vec::new(), Totals::default());
    for (index, (folder, text)) in (1..).zip(objects) {
        let extension = if folder.starts_with("processed") { "parquet" } else { "json.gz" };
        let key = ObjectKey::new(format!("{folder}/{epoch}-{index:05}.{extension}")).unwrap();
        let text = Bytes::from((*text).to_owned());
        let upload = stores.lake.begin_upload(&key, &epoch.upload_id(&process(9), index)).await.unwrap();
        let part = NewPart { number: 1, offset: 0, bytes: text.clone() };
        let parts = vec![stores.lake.upload_part(&key, &upload, part).await.unwrap()];
        let (kind, dataset) = match LakePart::of(&key).unwrap() {
            LakePart::Dataset(name) => (ObjectKind::Processed, Some(name)),
            LakePart::Raw => (ObjectKind::Raw, None),
            LakePart::Error => (ObjectKind::Error, None),
        };
        match kind {
            ObjectKind::Processed => *totals.rows.entry("orders".to_owned()).or_default() += 1,
            ObjectKind::Error => *totals.dead_letters.entry("Decode.Truncated".to_owned()).or_default() += 1,
            ObjectKind::Raw => continue_with_raw(&mut totals),
        }
        totals.records += u64::from(kind != ObjectKind::Raw);
        let (bytes, crc64nvme) = (text.len() as u64, Checksum::of(&text));
        let partition = ObjectOfEpoch::partition_of(&key);
        let columns = FileStats::default();
        made.push(ObjectOfEpoch { key, kind, dataset, partition, columns, rows: 1, bytes, crc64nvme, upload, parts });
    }
    let definition = DefinitionOfEpoch { hash: hash.to_owned(), schema_version: 1 };
    let manifest = Manifest {
        format: FORMAT,
        kind: ManifestKind::Epoch,
        epoch,
        worker: me.clone(),
        head: LogVersion::EMPTY,
        written_at: "2025-01-13T10:30:00.000Z".to_owned(),
        shards: vec![ShardOfEpoch {
            key: key.clone(),
            parents: Vec::new(),
            range,
            children: Vec::new(),
            taken_over: false,
            records: totals.records,
            bytes: 30,
            arrived_through: None,
        }],
        idle: Vec::new(),
        objects: made,
        removed: Vec::new(),
        of: None,
        sources: Vec::new(),
        swap: None,
        totals,
        edges: BTreeMap::new(),
        definitions: [("orders".to_owned(), definition)].into(),
        version: "0".to_owned(),
    };
    let Ok(intended) = Staged::new(manifest).write_intent(stores).await else { panic!("no intent") };
    let Outcome::Decided(decided) = intended.decide(stores).await.unwrap() else { panic!("refused") };
    let published = decided.publish(stores).await.unwrap().unwrap();
    let done = published.enter(stores).await.unwrap().advance(stores).await.unwrap().0;
    stores.leases.release(&me, &key).await.unwrap();
    done
}

/// A raw object of one line per record.
fn continue_with_raw(totals: &mut Totals) {
    totals.raw_lines = Some(3);
}

fn range(after: u64, through: Option<u64>) -> ShardRange {
    let at = |number: u64| if number == 0 { Position::Beginning } else { Position::at(number.into()) };
    ShardRange::new(at(after), through.map_or(Position::End, |through| Position::at(through.into()))).unwrap()
}

impl World {
    async fn new() -> Self {
        let (lake, leases, aside) = (MemoryStore::new(), MemoryLeases::new(), MemoryStore::new());
        let stores = stores_of(&lake, &leases);
        let shard = |stream: &StreamName, id: &str| ShardKey::new(stream.clone(), ShardId::new(id).unwrap());
        let stream = StreamName::new("orders").unwrap();
        let old = [(DAY_13, "old 1"), (DAY_14, "old 2"), (FAILED, "old dead letter")];
        let old = commit(&stores, 1, shard(&stream, "s"), range(0, Some(3)), &old, "old").await;
        let datasets = datasets("a");
        let plan = Plan {
            format: 1,
            id: "01ab0000".to_owned().try_into().unwrap(),
            purpose: Purpose::Replay,
            made_at: "2025-01-13T10:30:00.000Z".to_owned(),
            version: LogVersion(1),
            from: "trim-horizon".to_owned(),
            to: "now".to_owned(),
            into: None,
            streams: vec![stream.clone()],
            dataset: None,
            slices: vec![Slice {
                id: ShardId::new("slice-00001").unwrap(),
                records: 2,
                bytes: 30,
                from: SliceOf::Raw { objects: Vec::new() },
            }],
            epochs: vec![old.epoch.clone()],
            operations: Vec::new(),
            superseded: old
                .objects
                .iter()
                .map(|object| SupersededObject {
                    key: object.key.clone(),
                    kind: object.kind,
                    dataset: object.dataset.clone(),
                    rows: object.rows,
                    bytes: object.bytes,
                })
                .collect(),
            widened: Vec::new(),
            totals: PlanTotals { records: 3, ..PlanTotals::default() },
            definitions: BTreeMap::new(),
            made_by: BTreeMap::new(),
            warnings: Vec::new(),
            estimate: Estimate::default(),
        };
        // A live worker continues.
        commit(&stores, 2, shard(&stream, "s"), range(3, Some(4)), &[(DAY_13, "live")], "old").await;
        let replaying = stores_of(&aside, &leases);
        // Three records become three rows, two of them in one object.
        let new = [(DAY_13, "new 1"), (DAY_14, "new 2"), (RAW, "never promoted")];
        let hash = datasets.version(0).to_owned();
        let key = shard(&plan.id.stream(), "slice-00001");
        commit(&replaying, 3, key, range(0, None), &new, &hash).await;
        let world = World { lake, leases, stores, aside, plan, datasets };
        world.land_aside();
        world
    }

    /// Puts the aside lake where it belongs.
    fn land_aside(&self) {
        for (key, bytes) in self.aside.objects() {
            self.lake.tamper(&ObjectKey::new(format!("{PREFIX}{key}")).unwrap(), Some(bytes));
        }
    }

    async fn operator(&self, number: u8) -> Operator {
        // A process has its own knowledge of the log.
        let (stores, clock) = (stores_of(&self.lake, &self.leases), Arc::new(StoppedClock));
        Operator::new(process(number), stores, clock, FAILOVER, [number; 8]).await.unwrap()
    }

    fn aside(&self) -> Aside<'_> {
        Aside { lake: &self.aside, prefix: PREFIX }
    }

    async fn promote(&self, number: u8, order: SwapOrder) -> Result<Changed, PromoteError> {
        let options = PromoteOptions { order, accept_difference: true };
        self.promote_with(number, options).await
    }

    async fn promote_with(&self, number: u8, options: PromoteOptions) -> Result<Changed, PromoteError> {
        let mut operator = self.operator(number).await;
        let stores = stores_of(&self.lake, &self.leases);
        let claims = DefinitionClaims::default();
        let definitions = (&claims, &self.datasets);
        promote(&mut operator, &stores, &StoppedClock, &self.plan, self.aside(), definitions, options).await
    }

    async fn undo(&self, number: u8, order: SwapOrder) -> Result<Changed, PromoteError> {
        let mut operator = self.operator(number).await;
        let stores = stores_of(&self.lake, &self.leases);
        undo(&mut operator, &stores, &StoppedClock, &self.plan, order).await
    }

    async fn cancel(&self, number: u8) -> Result<(), PromoteError> {
        let mut operator = self.operator(number).await;
        let stores = stores_of(&self.lake, &self.leases);
        cancel(&mut operator, &stores, &StoppedClock, &self.plan, self.aside()).await
    }

    async fn purge(&self, number: u8) -> Result<PurgedReplay, PromoteError> {
        let mut operator = self.operator(number).await;
        let stores = stores_of(&self.lake, &self.leases);
        purge(&mut operator, &stores, &StoppedClock, &self.plan, self.aside()).await
    }

    /// What a reader of folders sees, by folder.
    fn seen(&self) -> BTreeMap<String, Vec<String>> {
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, bytes) in self.lake.objects() {
            if LakePart::of(&key).is_some_and(|part| part != LakePart::Raw) {
                let folder = key.as_str().rsplit_once('/').unwrap().0.to_owned();
                seen.entry(folder).or_default().push(String::from_utf8(bytes.to_vec()).unwrap());
            }
        }
        seen
    }

    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.seen().into_values().flatten().collect();
        texts.sort();
        texts
    }

    /// Every version is clean, and nothing is left half-way.
    async fn check(&self, expected: &[&str], what: &str) {
        assert_eq!(self.texts(), expected, "{what}");
        for row in self.leases.list().await.unwrap() {
            assert_eq!(row.pending, None, "{what}");
        }
        let stores = stores_of(&self.lake, &self.leases);
        // These rows are not Parquet.
        let is_footer = |fault: &&Fault| matches!(fault, Fault::Altered { problem, .. } if problem.contains("footer"));
        let audit = verify(&stores, &|_| {}).await.unwrap();
        let faults: Vec<&Fault> = audit.faults.iter().filter(|fault| !is_footer(fault)).collect();
        assert!(faults.is_empty(), "{what}: {faults:?}");
        let known = extent(&*stores.lake).await.unwrap();
        for version in 1..=known.newest.0 {
            let (audit, _) = verify_at(&stores, &known, LogVersion(version), &|_| {}).await.unwrap();
            let faults: Vec<&Fault> = audit.faults.iter().filter(|fault| !is_footer(fault)).collect();
            assert!(faults.is_empty(), "{what}, version {version}: {faults:?}");
        }
        sweep(&stores, i64::MAX, Duration::ZERO, false).await.unwrap();
        assert_eq!(self.lake.list_uploads().await.unwrap(), [], "{what}: nothing is left");
        assert!(!self.lake.objects().keys().any(|key| key.as_str().starts_with("_intents/")), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_promoted_in_one_version_and_undone_in_one_and_purged() {
    for order in [SwapOrder::AddFirst, SwapOrder::RemoveFirst] {
        let world = World::new().await;
        world.check(&OLD, "before").await;
        let done = world.promote(1, order).await.unwrap();
        assert_eq!((done.added, done.removed, done.version, done.before), (2, 3, Some(LogVersion(3)), false));
        world.check(&NEW, "promoted").await;
        let again = world.promote(2, order).await.unwrap();
        assert_eq!(again, Changed { before: true, ..done.clone() }, "a repeated command");
        let at = |version| {
            let lake = world.lake.clone();
            async move { lake_at(&lake, &extent(&lake).await.unwrap(), LogVersion(version)).await.unwrap() }
        };
        let (before, after) = (at(2).await, at(3).await);
        assert_eq!((before.fold.totals().rows["orders"], after.fold.totals().rows["orders"]), (3, 3));
        assert_eq!((before.fold.totals().dead_letters.len(), after.fold.totals().dead_letters.len()), (1, 0));
        assert_eq!(after.live_by_kind(), after.fold.objects());

        let list = |at: crate::commit::lake_log::LakeAt| {
            let lake = world.lake.clone();
            async move {
                let mut objects = at.live_objects(&lake, ObjectFilter::default());
                let mut list = Vec::new();
                while let Some(object) = objects.next().await.unwrap() {
                    let folder = object.key.as_str().rsplit_once('/').unwrap().0.to_owned();
                    list.push((folder, object.rows, object.bytes, object.crc64nvme.to_string()));
                }
                list.sort();
                list
            }
        };
        let undone = world.undo(3, order).await.unwrap();
        assert_eq!((undone.added, undone.removed, undone.version, undone.before), (3, 2, Some(LogVersion(4)), false));
        world.check(&OLD, "undone").await;
        assert_eq!(list(at(4).await).await, list(before).await, "the very list of objects");
        assert_eq!(world.undo(4, order).await.unwrap(), Changed { before: true, ..undone }, "a repeated command");
        let refused = world.promote(5, order).await.unwrap_err();
        assert!(matches!(refused, PromoteError::Refused(Refusal::Undone { version: LogVersion(4), .. })), "{refused}");
        assert!(refused.is_usage());

        let purged = world.purge(6).await.unwrap();
        assert_eq!(purged.kept_objects, 5, "of the promotion and of the undo");
        assert!(purged.aside_objects > 4, "{purged:?}");
        let left = |prefix: &str| world.lake.objects().keys().filter(|key| key.as_str().starts_with(prefix)).count();
        assert_eq!((left("_trash/"), left(PREFIX)), (0, 0));
        assert!(!world.leases.rows().iter().any(|row| row.key.stream.as_str().starts_with("_replay:")));
        world.check(&OLD, "purged").await;
        assert_eq!(world.purge(7).await.unwrap(), PurgedReplay::default(), "a repeated command");
    }
}

/// Runs something, and ends its process if a request hangs. `None`: it did.
async fn killed_if_it_hangs<T: Send + std::fmt::Debug + 'static>(
    running: impl Future<Output = Result<T, PromoteError>> + Send + 'static,
) -> Option<Result<T, PromoteError>> {
    let mut running = tokio::spawn(running);
    match tokio::time::timeout(Duration::from_secs(3), &mut running).await {
        Ok(finished) => Some(finished.unwrap()),
        Err(_) => {
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
            None
        }
    }
}

const CALLS: [&str; 9] =
    ["get", "begin_upload", "upload_part", "put_new", "complete_upload", "checksum", "delete", "flush", "list"];

#[tokio::test(start_paused = true)]
async fn a_promotion_that_is_killed_at_any_request_is_finished_by_the_same_command() {
    for order in [SwapOrder::AddFirst, SwapOrder::RemoveFirst] {
        let (mut kills, mut swaps_seen) = (0, 0);
        for call in CALLS {
            for skip in 0.. {
                let world = Arc::new(World::new().await);
                world.lake.fail(call, skip, LakeFault::Hang);
                let what = format!("{order:?}, killed at {call} {skip}");
                let of_task = Arc::clone(&world);
                if let Some(done) = killed_if_it_hangs(async move { of_task.promote(1, order).await }).await {
                    // There are no more requests of this kind.
                    assert!(done.is_ok(), "{what}: {done:?}");
                    break;
                }
                kills += 1;
                let seen = world.seen();
                // In each folder of rows there is one object before, and one after.
                for (folder, old, new) in [(DAY_13, "old 1", "new 1"), (DAY_14, "old 2", "new 2")] {
                    let has = |text: &str| seen.get(folder).is_some_and(|texts| texts.iter().any(|one| one == text));
                    let (has_old, has_new) = (has(old), has(new));
                    match order {
                        SwapOrder::AddFirst => assert!(has_old || has_new, "{what}: {folder} has no hole"),
                        SwapOrder::RemoveFirst => assert!(!(has_old && has_new), "{what}: {folder} has no doubles"),
                    }
                    swaps_seen += usize::from(has_new);
                }
                let done = world.promote(2, order).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(done.version, Some(LogVersion(3)), "{what}");
                world.check(&NEW, &what).await;
            }
        }
        assert!(kills > 40 && swaps_seen > 5, "{kills} {swaps_seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_cancelled_only_if_its_promotion_was_not_decided_wherever_that_was_killed() {
    let (mut cancelled, mut promoted) = (0, 0);
    for call in CALLS {
        for skip in 0.. {
            let world = Arc::new(World::new().await);
            world.lake.fail(call, skip, LakeFault::Hang);
            let what = format!("killed at {call} {skip}");
            let of_task = Arc::clone(&world);
            let promoting = async move { of_task.promote(1, SwapOrder::AddFirst).await };
            if killed_if_it_hangs(promoting).await.is_some() {
                break;
            }
            let stores = stores_of(&world.lake, &world.leases);
            let status = || async {
                status_of(&*stores.lake, &world.aside, Some(&world.leases), &world.plan, Evidence::Log)
                    .await
                    .unwrap()
                    .state
            };
            match world.cancel(2).await {
                Ok(()) => {
                    cancelled += 1;
                    assert_eq!(status().await, State::Cancelled, "{what}");
                    // What it had made may go, with what the promotion had staged.
                    for key in world.aside.objects().into_keys() {
                        world.lake.tamper(&ObjectKey::new(format!("{PREFIX}{key}")).unwrap(), None);
                    }
                    sweep(&stores, i64::MAX, Duration::ZERO, false).await.unwrap();
                    let refused = world.promote(3, SwapOrder::AddFirst).await;
                    assert!(
                        matches!(refused, Err(PromoteError::Refused(Refusal::Cancelled(_)))),
                        "{what}: {refused:?}"
                    );
                    world.check(&OLD, &what).await;
                }
                Err(PromoteError::Refused(Refusal::Promoted(_))) => {
                    promoted += 1;
                    assert_eq!(status().await, State::Promoted, "{what}");
                    world.check(&NEW, &what).await;
                    // It can still be taken back.
                    world.undo(3, SwapOrder::AddFirst).await.unwrap();
                    assert_eq!(status().await, State::Undone, "{what}");
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    assert!(cancelled > 10 && promoted > 10, "{cancelled} {promoted}");
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_replay_is_known_without_its_markers() {
    let world = World::new().await;
    let stores = stores_of(&world.lake, &world.leases);
    let forget = |what: &str| {
        world.lake.tamper(&ObjectKey::new(pipeline::layout::replay_marker("01ab0000", what)).unwrap(), None);
    };
    let state = || async {
        status_of(&*stores.lake, &world.aside, Some(&world.leases), &world.plan, Evidence::Log).await.unwrap().state
    };
    assert_eq!(state().await, State::Complete);
    world.promote(1, SwapOrder::AddFirst).await.unwrap();
    forget("promoted");
    assert_eq!(state().await, State::Promoted);
    world.undo(2, SwapOrder::AddFirst).await.unwrap();
    forget("undone");
    assert_eq!(state().await, State::Undone);
}

#[tokio::test(start_paused = true)]
async fn an_undo_and_a_purge_that_are_killed_at_any_request_are_finished_by_the_same_command() {
    let mut kills = 0;
    for call in CALLS {
        for skip in 0.. {
            let world = Arc::new(World::new().await);
            world.promote(1, SwapOrder::AddFirst).await.unwrap();
            world.lake.fail(call, skip, LakeFault::Hang);
            let what = format!("killed at {call} {skip}");
            let of_task = Arc::clone(&world);
            let running = async move { of_task.undo(2, SwapOrder::RemoveFirst).await };
            if let Some(done) = killed_if_it_hangs(running).await {
                assert!(done.is_ok(), "{what}: {done:?}");
                break;
            }
            kills += 1;
            let done = world.undo(3, SwapOrder::AddFirst).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((done.version, done.added, done.removed), (Some(LogVersion(4)), 3, 2), "{what}");
            world.check(&OLD, &what).await;
        }
    }
    for call in ["get", "put_new", "delete", "flush", "list"] {
        for skip in 0.. {
            let world = Arc::new(World::new().await);
            world.promote(1, SwapOrder::AddFirst).await.unwrap();
            world.lake.fail(call, skip, LakeFault::Hang);
            let what = format!("purge killed at {call} {skip}");
            let of_task = Arc::clone(&world);
            if let Some(done) = killed_if_it_hangs(async move { of_task.purge(2).await }).await {
                assert!(done.is_ok(), "{what}: {done:?}");
                break;
            }
            kills += 1;
            world.purge(3).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(!world.lake.objects().keys().any(|key| key.as_str().starts_with("_trash/")), "{what}");
            world.check(&NEW, &what).await;
            let refused = world.undo(4, SwapOrder::AddFirst).await.unwrap_err();
            assert!(matches!(refused, PromoteError::Undo(UndoError::Refused(CannotUndo::Purged { .. }))), "{refused}");
        }
    }
    assert!(kills > 50, "{kills}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_upload_is_gone_after_the_decision_is_staged_again() {
    for order in [SwapOrder::AddFirst, SwapOrder::RemoveFirst] {
        let world = Arc::new(World::new().await);
        world.lake.fail("complete_upload", 4, LakeFault::Hang);
        let of_task = Arc::clone(&world);
        assert!(killed_if_it_hangs(async move { of_task.promote(1, order).await }).await.is_none());
        assert!(world.leases.rows().iter().any(|row| row.pending.is_some()), "it is decided");
        world.lake.expire_uploads();
        // A worker starts.
        let (one, two) = tokio::join!(finish_pending(&world.stores), finish_pending(&world.stores));
        assert!(one.unwrap() + two.unwrap() > 0);
        world.check(&NEW, "finished by workers").await;
        assert!(world.promote(2, order).await.unwrap().before);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_requests_and_replies_leave_one_promotion() {
    for fault in [LakeFault::LoseBefore, LakeFault::LoseAfter] {
        for call in CALLS {
            for skip in [0, 1, 2, 3, 5, 8] {
                let world = World::new().await;
                world.lake.fail(call, skip, fault);
                let what = format!("{fault:?} {call} {skip}");
                let done =
                    world.promote(1, SwapOrder::RemoveFirst).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(done.version, Some(LogVersion(3)), "{what}");
                world.check(&NEW, &what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_promotions_at_once_are_one() {
    let world = World::new().await;
    let (one, two) = tokio::join!(world.promote(1, SwapOrder::AddFirst), world.promote(2, SwapOrder::AddFirst));
    let done: Vec<&Changed> = [&one, &two].into_iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(done.iter().filter(|done| !done.before).count(), 1, "{one:?} {two:?}");
    for error in [&one, &two].into_iter().filter_map(|result| result.as_ref().err()) {
        assert!(matches!(error, PromoteError::Operation(OperationError::Busy { .. })), "{error}");
    }
    world.check(&NEW, "two at once").await;
    // A promotion and its undo at once.
    let (again, undone) = tokio::join!(world.promote(3, SwapOrder::AddFirst), world.undo(4, SwapOrder::AddFirst));
    assert!(undone.is_ok(), "{undone:?}");
    assert!(again.is_ok_and(|done| done.before) || world.promote(5, SwapOrder::AddFirst).await.is_err());
    world.check(&OLD, "undone").await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_wakes_up_after_the_undo_hurts_nothing() {
    let world = World::new().await;
    let done = world.promote(1, SwapOrder::AddFirst).await.unwrap();
    let manifest = record_of(&world.lake, &done.operation).await.unwrap();
    world.undo(2, SwapOrder::AddFirst).await.unwrap();
    // It has slept before the deletions, and continues: all old names once more.
    finish_published(&world.stores, manifest.clone()).await.unwrap();
    finish_published(&world.stores, Manifest { swap: None, ..manifest.clone() }).await.unwrap();
    // Or it has slept before it published anything: all uploads are gone.
    let late = DecidedEpoch::found(manifest.clone(), manifest.to_bytes()).publish(&world.stores).await.unwrap();
    assert!(late.is_ok());
    world.check(&OLD, "after a late process").await;
    // The same after a purge: nothing comes back.
    world.purge(3).await.unwrap();
    finish_published(&world.stores, Manifest { swap: None, ..manifest }).await.unwrap();
    world.check(&OLD, "after a late process and a purge").await;
    assert!(!world.lake.objects().keys().any(|key| key.as_str().starts_with("_trash/")));
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_refused_where_it_does_not_hold_and_nothing_is_changed() {
    let refusal = |result: Result<Changed, PromoteError>| match result {
        Err(PromoteError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let default = PromoteOptions::default();
    let mut world = World::new().await;
    assert_eq!(
        refusal(world.promote_with(1, default).await),
        Refusal::OtherRecords { id: world.plan.id.clone(), found: 2, expected: 3 }
    );
    assert_eq!(refusal(world.undo(1, SwapOrder::AddFirst).await), Refusal::NotPromoted(world.plan.id.clone()));
    world.datasets = datasets("another");
    let other = Refusal::OtherDefinition { id: world.plan.id.clone(), dataset: "orders".to_owned() };
    assert_eq!(refusal(world.promote(1, SwapOrder::AddFirst).await), other);
    world.datasets = datasets("a");
    world.plan.slices.push(Slice { id: ShardId::new("slice-00002").unwrap(), ..world.plan.slices[0].clone() });
    assert_eq!(refusal(world.promote(1, SwapOrder::AddFirst).await), Refusal::Incomplete(world.plan.id.clone()));
    assert!(matches!(world.purge(1).await, Err(PromoteError::Refused(Refusal::Unfinished(_)))));
    world.plan.slices.pop();
    let aside_of_another = world.plan.clone();
    world.plan.id = "01ab0002".to_owned().try_into().unwrap();
    world.plan.slices.clear();
    ask(&world.lake, &world.plan.id, Control::Cancel, 0).await.unwrap();
    assert_eq!(refusal(world.promote(1, SwapOrder::AddFirst).await), Refusal::Cancelled(world.plan.id.clone()));
    world.plan = aside_of_another;
    world.check(&OLD, "refused").await;
    // Another replay has replaced the same objects.
    let first = world.plan.clone();
    world.plan.id = "01ab0001".to_owned().try_into().unwrap();
    world.plan.slices.clear();
    world.promote(1, SwapOrder::AddFirst).await.unwrap();
    world.plan = first;
    let outdated = refusal(world.promote(1, SwapOrder::AddFirst).await);
    assert!(matches!(&outdated, Refusal::Outdated { version: LogVersion(3), .. }), "{outdated}");
    assert!(outdated.to_string().contains("Plan again"));
    world.check(&NEW, "outdated").await;
    // The aside object is damaged.
    let world = World::new().await;
    let key = world.lake.objects().into_keys().find(|key| key.as_str().contains("lake/processed")).unwrap();
    world.lake.tamper(&key, Some(Bytes::from_static(b"other")));
    let error = world.promote(1, SwapOrder::AddFirst).await.unwrap_err();
    assert!(error.to_string().contains("has other bytes than the log says"), "{error}");
    world.check(&OLD, "damaged").await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_is_refused_once_a_later_operation_has_removed_what_was_added() {
    let mut world = World::new().await;
    let done = world.promote(1, SwapOrder::AddFirst).await.unwrap();
    let first = world.plan.clone();
    // A second replay replaces the first one.
    world.plan.id = "01ab0001".to_owned().try_into().unwrap();
    (world.plan.version, world.plan.operations) = (LogVersion(3), vec![done.operation.clone()]);
    world.plan.slices.clear();
    let manifest = record_of(&world.lake, &done.operation).await.unwrap();
    let superseded = |object: &ObjectOfEpoch| SupersededObject {
        key: object.key.clone(),
        kind: object.kind,
        dataset: object.dataset.clone(),
        rows: object.rows,
        bytes: object.bytes,
    };
    world.plan.superseded = manifest.objects.iter().map(superseded).collect();
    world.promote(2, SwapOrder::AddFirst).await.unwrap();
    let second = std::mem::replace(&mut world.plan, first);
    let refused = world.undo(3, SwapOrder::AddFirst).await.unwrap_err();
    let PromoteError::Undo(UndoError::Refused(CannotUndo::Changed { version, .. })) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(*version, LogVersion(4));
    // Once the second one is undone, the objects of the first one are there under other names, so its undo stays refused.
    let first = std::mem::replace(&mut world.plan, second);
    world.undo(4, SwapOrder::AddFirst).await.unwrap();
    world.check(&NEW, "the second one is undone").await;
    world.plan = first;
    assert!(world.undo(5, SwapOrder::AddFirst).await.unwrap_err().is_usage());
    world.check(&NEW, "refused").await;
}

#[tokio::test(start_paused = true)]
async fn the_trash_is_purged_by_its_age_and_never_while_an_operation_runs() {
    let world = World::new().await;
    world.lake.set_time(1_000_000);
    let done = world.promote(1, SwapOrder::AddFirst).await.unwrap();
    let age = Duration::from_secs(7 * 86_400);
    assert_eq!(old_trash(&world.lake, age).await.unwrap(), (Vec::new(), 1));
    // Nothing has entered the log since: a wrong clock of this machine makes nothing old.
    world.lake.set_time(1_000_000 + 7 * 86_400_000);
    assert_eq!(old_trash(&world.lake, age).await.unwrap(), (Vec::new(), 1));
    let shard = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("s").unwrap());
    commit(&world.stores, 4, shard, range(4, Some(5)), &[(DAY_14, "later")], "old").await;
    let (old, young) = old_trash(&world.lake, age).await.unwrap();
    assert_eq!((old.len(), old[0].objects, young), (1, 3, 0));
    // Another process holds the leases.
    let mut operator = world.operator(2).await;
    let parts = [LakePart::Dataset("orders".to_owned())].into();
    struct Slow;
    #[async_trait]
    impl Work for Slow {
        async fn plan(&self, _: &Stores, _: &mut operation::Plan) -> Result<(), OperationError> {
            tokio::time::sleep(4 * FAILOVER).await;
            Ok(())
        }
    }
    let running = tokio::spawn(async move { operator.run(ManifestKind::Replace, &parts, &Slow).await });
    tokio::time::sleep(FAILOVER).await;
    let mut purging = world.operator(3).await;
    let purged = purge_trash(&mut purging, &world.stores, old.clone()).await.unwrap();
    assert_eq!((purged.operations.len(), purged.objects, purged.kept), (0, 0, 1));
    running.await.unwrap().unwrap();
    let purged = purge_trash(&mut purging, &world.stores, old).await.unwrap();
    assert_eq!(purged.operations, [(done.operation, Some("replay:01ab0000".to_owned()))]);
    assert_eq!((purged.objects, purged.kept), (3, 0));
    assert!(world.undo(4, SwapOrder::AddFirst).await.unwrap_err().to_string().contains("were purged"));
}

#[tokio::test(start_paused = true)]
async fn the_markers_say_what_became_of_a_replay_where_the_entries_are_gone() {
    let world = World::new().await;
    world.promote(1, SwapOrder::AddFirst).await.unwrap();
    world.undo(2, SwapOrder::AddFirst).await.unwrap();
    let fate = fate_of(&world.lake, &world.plan).await.unwrap();
    let shard = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("s").unwrap());
    commit(&world.stores, 4, shard.clone(), range(4, Some(5)), &[(DAY_14, "later")], "old").await;
    crate::commit::lake_log::write_snapshot(&world.stores, "w", 1).await.unwrap();
    commit(&world.stores, 5, shard, range(5, Some(6)), &[(DAY_14, "later")], "old").await;
    let trimmed = crate::maintenance::trim(&world.stores, LogVersion(5), Duration::ZERO, false).await.unwrap();
    assert_eq!(trimmed.entries, 5);
    assert_eq!(fate_of(&world.lake, &world.plan).await.unwrap(), fate);
    assert!(matches!(world.promote(3, SwapOrder::AddFirst).await, Err(PromoteError::Refused(Refusal::Undone { .. }))));
}
