//! Operations on the lake among the events: objects are replaced by copies, and this is undone.
//!
//! Owns: which operations begin and when, what they plan, and what must hold once the faults have stopped. Does not own: running an
//! operation (`maintenance::operation`), what is live at each version (`auditor`).
//!
//! - Two processes may begin on one part of the lake at once, beside workers that add to it.
//! - Any of them crashes or pauses at a request. Who is paused for longer than its leases last has lost them when it continues.
//! - What is left half-way is finished by the start of a worker, or by the next operation on the part.
//! - A plan may want what its operation does not hold. It must be refused.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::LeaseOwner;
use shardlake::commit::lake_log::{AddedObject, LakeAt, ObjectFilter, extent, lake_at};
use shardlake::commit::{
    CommitError, EpochId, LakePart, Manifest, ManifestKind, RemovedObject, Stores, SwapOrder, trash_key,
};
use shardlake::lake::ObjectKey;
use shardlake::maintenance::operation::{Copied, OperationError, Operator, Plan, Work, finish_pending};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::past::{Past, Plans};
use super::workers::is_broken;
use super::{BOUND, FAILOVER, Fleet};
use crate::environment::{Row, is_internal, is_replay};
use crate::faults::FaultKind;
use crate::network::{CrashPoint, Network, Rates, Service};
use crate::rng::Rng;

/// The worker number of the first process of operations.
const FIRST: u32 = 500;
/// Most objects that one operation replaces.
const OBJECTS_MAX: usize = 6;
/// How often a process begins an operation again that others prevent.
const ATTEMPTS: u32 = 4;

/// The operations of a fleet.
pub(super) struct Operations {
    rng: Rng,
    processes: Vec<Process>,
    started: u32,
    done: Done,
    plans: Plans,
}

/// What was replaced, and can be undone.
pub(super) type Done = Arc<Mutex<Vec<Replaced>>>;

/// A process that runs operations.
struct Process {
    network: Arc<Network>,
    task: JoinHandle<Result<(), Failed>>,
}

/// Why a process ended.
enum Failed {
    Operation(OperationError),
    /// A process that works on the past has found what must not be.
    Past(String),
}

impl From<OperationError> for Failed {
    fn from(error: OperationError) -> Self {
        Failed::Operation(error)
    }
}

/// An operation, and the objects that it has removed as they were.
#[derive(Debug, Clone)]
pub(super) struct Replaced {
    pub(super) manifest: Manifest,
    pub(super) objects: Vec<AddedObject>,
}

/// What an operation does.
#[derive(Debug, Clone)]
enum Task {
    /// Some live objects are replaced by copies.
    Rewrite,
    /// What an operation has removed comes back, and what it has added goes.
    Undo(Box<Replaced>),
    /// As `Rewrite`, in a part of the lake that it does not hold.
    Stray,
    /// Some live objects are replaced, and it must be done.
    Last,
}

/// The plan of an operation.
struct Planned {
    task: Task,
    parts: BTreeSet<LakePart>,
    rng: Mutex<Rng>,
    /// The objects that it wants to remove.
    objects: Mutex<Vec<AddedObject>>,
}

fn all_parts() -> [LakePart; 3] {
    [LakePart::Dataset("orders".to_owned()), LakePart::Raw, LakePart::Error]
}

impl Operations {
    /// Operations that follow from `rng`.
    pub(super) fn new(rng: Rng) -> Self {
        Operations { rng, processes: Vec::new(), started: 0, done: Arc::default(), plans: Plans::default() }
    }

    /// Kills all processes.
    pub(super) fn kill(&self) {
        self.processes.iter().for_each(|process| process.network.kill());
    }

    /// Ends the faults of all processes.
    pub(super) fn heal(&self) {
        self.processes.iter().for_each(|process| process.network.heal());
    }

    /// Fails if a process ended as it must not.
    pub(super) async fn check(&mut self, refused: bool) -> Result<(), String> {
        let mut running = Vec::new();
        for process in std::mem::take(&mut self.processes) {
            if !process.task.is_finished() {
                running.push(process);
                continue;
            }
            match process.task.await {
                Ok(Ok(())) => {}
                Ok(Err(Failed::Operation(error))) => judge(&error, refused)?,
                Ok(Err(Failed::Past(what))) => return Err(what),
                Err(error) => return Err(format!("a process of operations panicked: {error}")),
            }
        }
        self.processes = running;
        Ok(())
    }
}

/// An operation may fail because a service does not answer, or because others are at work. It must not fail because of what it finds.
pub(super) fn judge(error: &OperationError, refused: bool) -> Result<(), String> {
    let may_happen = match error {
        OperationError::Busy { .. } | OperationError::LostLease | OperationError::NoObject { .. } => true,
        OperationError::Commit(error) => {
            (error.is_retryable() || refused || is_upload(&error.to_string())) && !is_broken(&error.to_string())
        }
        _ => false,
    };
    if may_happen { Ok(()) } else { Err(format!("an operation ended: {error}")) }
}

/// A service refuses an upload that a lifecycle rule has aborted.
fn is_upload(error: &str) -> bool {
    error.contains("upload")
}

/// The objects of some parts that are live in the newest version. `None` if the log cannot be read now.
pub(super) async fn live(stores: &Stores, parts: &BTreeSet<LakePart>) -> Option<Vec<AddedObject>> {
    let lake = &*stores.lake;
    let extent = extent(lake).await.ok()?;
    let at: LakeAt = lake_at(lake, &extent, extent.newest).await.ok()?;
    let mut objects = Vec::new();
    let mut found = at.live_objects(lake, ObjectFilter::default());
    while let Some(object) = found.next().await.ok()? {
        if LakePart::of(&object.key).is_some_and(|part| parts.contains(&part)) {
            objects.push(object);
        }
    }
    objects.sort_by(|one, other| one.key.cmp(&other.key));
    Some(objects)
}

pub(super) fn removed(object: &AddedObject) -> RemovedObject {
    let AddedObject { key, kind, dataset, rows, bytes, .. } = object.clone();
    RemovedObject { key, kind, dataset, rows, bytes }
}

impl Planned {
    fn new(task: Task, parts: BTreeSet<LakePart>, rng: Rng) -> Self {
        Planned { task, parts, rng: Mutex::new(rng), objects: Mutex::default() }
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces some live objects of these parts.
    async fn rewrite(
        &self,
        stores: &Stores,
        plan: &mut Plan,
        parts: &BTreeSet<LakePart>,
    ) -> Result<(), OperationError> {
        let Some(mut objects) = live(stores, parts).await else { return Ok(()) };
        let share = self.draw(|rng| rng.one_of(&[200, 600, 1_000]));
        objects.retain(|_| self.draw(|rng| rng.chance(share)));
        objects.truncate(OBJECTS_MAX);
        for object in &objects {
            copy(stores, plan, object, &object.key).await?;
            plan.remove(removed(object));
            plan.add_sources(sources_of(stores, object).await?);
        }
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = objects;
        Ok(())
    }

    /// Brings back what an operation has removed, if all that it has added is live.
    async fn undo(&self, stores: &Stores, plan: &mut Plan, of: &Replaced) -> Result<(), OperationError> {
        let Some(mut objects) = live(stores, &self.parts).await else { return Ok(()) };
        let added: BTreeSet<&ObjectKey> = of.manifest.objects.iter().map(|object| &object.key).collect();
        objects.retain(|object| added.contains(&object.key));
        if objects.len() != added.len() {
            return Ok(());
        }
        for object in &of.objects {
            copy(stores, plan, object, &trash_key(&of.manifest.epoch, &object.key)?).await?;
        }
        objects.iter().for_each(|object| plan.remove(removed(object)));
        plan.belongs_to(format!("undo:{}", of.manifest.epoch));
        if let Some(order) = self.draw(some_order) {
            plan.swap(order);
        }
        plan.add_sources(of.manifest.sources.iter().cloned());
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = objects;
        Ok(())
    }
}

/// The epochs whose records an object has.
async fn sources_of(stores: &Stores, object: &AddedObject) -> Result<Vec<EpochId>, OperationError> {
    let Some(owner) = EpochId::of_object(&object.key) else { return Ok(Vec::new()) };
    let key = owner.commit_key();
    let Some(bytes) = stores.lake.get(&key).await? else { return Err(OperationError::NoObject { key }) };
    let manifest = Manifest::from_bytes(&key, &bytes).map_err(CommitError::from)?;
    Ok(if manifest.kind.is_operation() { manifest.sources } else { vec![owner] })
}

pub(super) async fn copy(
    stores: &Stores,
    plan: &mut Plan,
    object: &AddedObject,
    source: &ObjectKey,
) -> Result<(), OperationError> {
    let (from, rows, columns) = (&object.key, object.rows, object.columns.clone());
    plan.copy(stores, Copied { from, source, rows, columns }).await
}

#[async_trait]
impl Work for Planned {
    async fn plan(&self, stores: &Stores, plan: &mut Plan) -> Result<(), OperationError> {
        match &self.task {
            Task::Rewrite | Task::Last => self.rewrite(stores, plan, &self.parts).await?,
            Task::Undo(of) => self.undo(stores, plan, of).await?,
            Task::Stray => {
                let others = all_parts().into_iter().filter(|part| !self.parts.contains(part)).collect();
                self.rewrite(stores, plan, &others).await?;
            }
        }
        // Some plans take longer than a lease lasts, if it is not renewed.
        let time = self.draw(|rng| rng.one_of(&[0, 0, 0, 3_000, 15_000]));
        tokio::time::sleep(Duration::from_millis(time)).await;
        Ok(())
    }
}

/// How what is copied from a place that stays is swapped. None: all new objects become visible first, and the old ones go at the end.
pub(super) fn some_order(rng: &mut Rng) -> Option<SwapOrder> {
    rng.one_of(&[None, Some(SwapOrder::AddFirst), Some(SwapOrder::RemoveFirst)])
}

/// Runs one operation, again if others prevent it.
async fn run(operator: &mut Operator, planned: &Planned, done: &Done, network: &Network) -> Result<(), OperationError> {
    let kind = if matches!(planned.task, Task::Undo(_)) { ManifestKind::Undo } else { ManifestKind::Replace };
    let mut attempts = 0;
    let manifest = loop {
        attempts += 1;
        match operator.run(kind, &planned.parts, planned).await {
            Ok(manifest) => break manifest,
            Err(error @ (OperationError::Busy { .. } | OperationError::LostLease)) if attempts < ATTEMPTS => {
                if error == OperationError::LostLease {
                    network.tally().note(FaultKind::OperationRefused);
                }
                let wait = planned.draw(|rng| 500 + rng.below(4_000));
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            Err(OperationError::LostLease) => {
                network.tally().note(FaultKind::OperationRefused);
                return Err(OperationError::LostLease);
            }
            Err(OperationError::Invalid { .. }) if matches!(planned.task, Task::Stray) => return Ok(()),
            Err(error) => return Err(error),
        }
    };
    let Some(manifest) = manifest else { return Ok(()) };
    let is_undo = kind == ManifestKind::Undo;
    network.tally().note(if is_undo { FaultKind::OperationUndone } else { FaultKind::LakeRewritten });
    let objects = planned.objects.lock().unwrap_or_else(PoisonError::into_inner).clone();
    done.lock().unwrap_or_else(PoisonError::into_inner).push(Replaced { manifest, objects });
    Ok(())
}

impl Fleet {
    /// Begins operations, in fleets that have them.
    pub(super) fn operate(&mut self) {
        let Some(operations) = &mut self.operations else { return };
        if !operations.rng.chance(350) {
            return;
        }
        let (at_once, replays) = (operations.rng.chance(400), operations.rng.chance(500));
        if replays {
            self.start_past(false);
            if at_once {
                self.start_past(false);
            }
            return;
        }
        let parts = self.some_parts();
        self.start_operator(parts.clone(), None, None);
        if at_once {
            self.shared.tally.note(FaultKind::OperationsAtOnce);
            self.start_operator(parts, None, None);
        }
    }

    fn some_parts(&mut self) -> BTreeSet<LakePart> {
        let Some(operations) = &mut self.operations else { return BTreeSet::new() };
        let mut parts: BTreeSet<LakePart> = all_parts().into_iter().filter(|_| operations.rng.chance(600)).collect();
        if parts.is_empty() {
            parts.insert(all_parts()[0].clone());
        }
        let most = self.environment.stores().leases.decision_shards_max();
        while parts.len() > most {
            parts.pop_last();
        }
        parts
    }

    /// The network of a new process, and what it draws from. None: a crash point of its own, or none. `calm`: without faults.
    fn new_process(&mut self, crash: Option<CrashPoint>, calm: bool) -> (Arc<Network>, u32, Rng) {
        let rates = if calm { Rates::default() } else { self.rates };
        let (shared, within) = (Arc::clone(&self.shared), self.retry_within);
        let operations = operations_of(self);
        let number = FIRST + operations.started;
        operations.started += 1;
        let mut rng = operations.rng.fork();
        let network = Network::new(number, rng.fork(), rates, 0, false, within, shared);
        let crashes = !calm && rng.chance(600);
        let drawn = crashes.then(|| {
            let is_pause = rng.chance(500);
            CrashPoint {
                service: rng.one_of(&[Service::Lake, Service::Lake, Service::Lake, Service::Leases]),
                steps_only: rng.chance(700),
                after: rng.below(30),
                after_effect: rng.chance(500),
                pause: is_pause.then(|| Duration::from_millis(1_000 + rng.below(40_000))),
            }
        });
        if let Some(crash) = crash.or(drawn) {
            network.crash_at(crash);
        }
        (network, number, rng)
    }

    /// Starts a process that works on the past: on a replay, or on dead letters. `calm`: without faults, and everything must be done.
    fn start_past(&mut self, calm: bool) {
        let (network, _, mut rng) = self.new_process(None, calm);
        if !calm && !self.in_cloud && rng.chance(40) {
            self.shared.tally.note(FaultKind::SuspendedForAnHour);
            let service = rng.one_of(&[Service::Lake, Service::Lake, Service::Leases]);
            let (after, after_effect) = (rng.below(60), rng.chance(500));
            let pause = Some(Duration::from_secs(3_600));
            network.crash_at(CrashPoint { service, steps_only: true, after, after_effect, pause });
        }
        let (clock, environment) = (self.clock(&network), Arc::clone(&self.environment));
        let (plans, auditor) = (Arc::clone(&operations_of(self).plans), Arc::clone(&self.auditor));
        let its_network = Arc::clone(&network);
        let task = tokio::spawn(async move {
            let connected = environment.connect(&its_network, Arc::clone(&clock), false).await;
            let Ok(connected) = connected else { return Ok(()) };
            let keeps_records = environment.retention_ms().is_none();
            let past = Past { connected, network: its_network, clock, rng, plans, auditor, calm, keeps_records };
            past.run().await.map_err(Failed::Past)
        });
        operations_of(self).processes.push(Process { network, task });
    }

    /// Starts a process that runs operations: this one, or some. `crash`: where it crashes for certain.
    fn start_operator(&mut self, parts: BTreeSet<LakePart>, task: Option<Task>, crash: Option<CrashPoint>) {
        let (network, number, mut rng) = self.new_process(crash, task.is_some());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.draw().to_le_bytes());
        bytes[8..12].copy_from_slice(&number.to_le_bytes());
        let me = LeaseOwner::from_random(bytes);
        let (clock, environment, done) =
            (self.clock(&network), Arc::clone(&self.environment), Arc::clone(&operations_of(self).done));
        let its_network = Arc::clone(&network);
        let task = tokio::spawn(async move {
            let Ok(connected) = environment.connect(&its_network, Arc::clone(&clock), false).await else {
                return Ok(());
            };
            let random = rng.draw().to_le_bytes();
            let mut operator = Operator::new(me, connected.stores, clock, FAILOVER, random).await?;
            let tasks = match task {
                Some(task) => vec![task],
                None => (0..1 + rng.below(3)).map(|_| some_task(&mut rng, &done)).collect(),
            };
            for task in tasks {
                let parts: BTreeSet<LakePart> = match &task {
                    // As many parts as it had.
                    Task::Undo(of) => of.objects.iter().filter_map(|object| LakePart::of(&object.key)).collect(),
                    _ => parts.clone(),
                };
                run(&mut operator, &Planned::new(task, parts, rng.fork()), &done, &its_network).await?;
            }
            operator.close().await;
            Ok(())
        });
        operations_of(self).processes.push(Process { network, task });
    }

    /// Once the faults have stopped: whatever is half-way is finished by the start of a worker or by the next operation, an operation on
    /// every part is done, and what is visible is what is live.
    pub(super) async fn settle_operations(&mut self) -> Result<(), String> {
        if self.operations.is_none() {
            return Ok(());
        }
        operations_of(self).heal();
        self.until_operators_end().await?;
        // A request of a process that was killed may be under way.
        tokio::time::sleep(Duration::from_secs(90)).await;
        self.leave_one_half_way().await?;
        if operations_of(self).rng.chance(500) {
            self.start_for(Rates::default(), Some(false));
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.check().await?;
            let pending = self.environment.rows().into_iter().find(is_pending);
            if let Some(row) = pending {
                return Err(format!("a worker has started, and an operation is still pending: {row:?}"));
            }
        }
        // One after the other, since a lease table may decide on few parts at once.
        for part in all_parts() {
            self.start_operator(BTreeSet::from([part]), Some(Task::Last), None);
            self.until_operators_end().await?;
        }
        let rows = self.environment.rows();
        if let Some(row) = rows.iter().find(|row| is_pending(row)) {
            return Err(format!("an operation has ended, and one is still pending: {row:?}"));
        }
        // Everything works on the past that can, one after the other.
        let share = if self.in_cloud { 250 } else { 400 };
        if operations_of(self).rng.chance(share) {
            self.start_past(true);
            self.until_operators_end().await?;
        }
        self.check().await?;
        self.auditor.check_visible_is_live()
    }

    /// Kills a process in the middle of an operation.
    async fn leave_one_half_way(&mut self) -> Result<(), String> {
        let rng = &mut operations_of(self).rng;
        let (after, after_effect) = (8 + rng.below(20), rng.chance(500));
        let crash = CrashPoint { service: Service::Lake, steps_only: true, after, after_effect, pause: None };
        let parts = self.some_parts();
        self.start_operator(parts, Some(Task::Rewrite), Some(crash));
        self.until_operators_end().await
    }

    async fn until_operators_end(&mut self) -> Result<(), String> {
        // Some are suspended for an hour.
        let deadline = Instant::now() + Duration::from_secs(3_600) + BOUND;
        loop {
            let is_over =
                operations_of(self).processes.iter().all(|one| one.task.is_finished() || !one.network.is_alive());
            self.check().await?;
            if is_over {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err("an operation has not ended an hour after the faults stopped".to_owned());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Compares what the lake log says of several versions with what the auditor knows.
    pub(super) async fn check_versions(&mut self) -> Result<(), String> {
        let Some(operations) = &mut self.operations else { return Ok(()) };
        let mut rng = operations.rng.fork();
        let (stores, (newest, trimmed, _)) = (self.environment.stores(), self.auditor.log());
        let lake = &*stores.lake;
        let extent = extent(lake).await.map_err(|error| error.to_string())?;
        if newest == 0 {
            return Ok(());
        }
        for version in [newest, 1 + rng.below(newest), 1 + rng.below(newest), 1 + rng.below(newest)] {
            let at = match lake_at(lake, &extent, shardlake::commit::lake_log::LogVersion(version)).await {
                Ok(at) => at,
                // What it needs was trimmed.
                Err(_) if version < newest && trimmed > 0 => continue,
                Err(error) => return Err(format!("version {version} of the lake cannot be read: {error}")),
            };
            let mut keys = BTreeSet::new();
            let mut objects = at.live_objects(lake, ObjectFilter::default());
            loop {
                match objects.next().await {
                    Ok(Some(object)) => {
                        if !keys.insert(object.key.to_string()) {
                            return Err(format!("{} is live twice in version {version}", object.key));
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return Err(format!("the live objects of version {version} cannot be read: {error}")),
                }
            }
            self.auditor.check_live_at(version, &keys)?;
        }
        Ok(())
    }
}

/// Whether an operation on the lake is pending. What a replay has left in its own lake may be.
fn is_pending(row: &Row) -> bool {
    is_internal(&row.key.stream) && !is_replay(&row.key.stream) && row.pending.is_some()
}

fn operations_of(fleet: &mut Fleet) -> &mut Operations {
    fleet.operations.as_mut().expect("a fleet with operations")
}

fn some_task(rng: &mut Rng, done: &Done) -> Task {
    let done = done.lock().unwrap_or_else(PoisonError::into_inner);
    match rng.below(10) {
        0 => Task::Stray,
        1..=3 if !done.is_empty() => Task::Undo(Box::new(done[rng.index(done.len())].clone())),
        _ => Task::Rewrite,
    }
}

/// What every start of a worker does.
pub(super) async fn finish_at_start(stores: &Stores) -> Result<(), String> {
    match finish_pending(stores).await {
        Err(error) if is_broken(&error.to_string()) => Err(format!("a pending operation cannot be finished: {error}")),
        // The run does not depend on another failure.
        Ok(_) | Err(_) => Ok(()),
    }
}
