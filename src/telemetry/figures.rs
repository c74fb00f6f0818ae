//! The values of the metrics, read from a worker while it runs.
//!
//! Owns: where each metric takes its value from. Does not own: counting (the worker, `aws`, `trouble` do), the table (`metrics`),
//! instruments (`instruments`).
//!
//! All figures of one reading come from one snapshot of the shards, which is taken again at most every half a second. So a reading copies
//! each shard once, and never waits for the worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use pipeline::dead_letter::code::Code;
use tokio::time::Instant;

use crate::aws::RequestCounter;
use crate::clock::SharedClock;
use crate::commit::ObjectKind;
use crate::source::{Behind, losses};
use crate::trouble;
use crate::worker::{FleetFigures, LiveShard, Progress};

/// For how long a snapshot of the shards is used.
const SNAPSHOT_FOR: Duration = Duration::from_millis(500);

/// Takes the values of one metric, each with the attributes of its series.
pub(crate) type Observe<'o> = &'o mut dyn FnMut(f64, &[KeyValue]);

/// Where the value of a metric comes from.
#[derive(Clone, Copy)]
pub(crate) enum Read {
    /// Read from the figures whenever somebody asks.
    Figures(fn(&Figures, Observe<'_>)),
    /// Recorded when a step of a commit has ended.
    CommitStep,
    /// Recorded when an attempt of a request to AWS has ended.
    Request,
}

/// The settings of a worker that metrics show.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the worker: of this start of the process.
    pub worker: String,
    /// The interval of commits.
    pub commit_interval: Duration,
    /// The age that the lake's data should not exceed.
    pub freshness: Duration,
    /// The memory limit in bytes.
    pub memory: u64,
}

/// What is asked rarely, because each costs requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// How long each stream keeps a record, by the stream's name.
    pub retention: BTreeMap<String, Duration>,
    /// What is found out of the lake, by one worker of the fleet.
    pub lake: Option<LakeUpkeep>,
}

/// What is wrong in the lake without any worker noticing it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LakeUpkeep {
    /// Losses that nobody has accepted.
    pub losses: u64,
    /// Saved checkpoints that can soon not be used any more, or cannot be used.
    pub ending_checkpoints: u64,
    /// Uploads that a sweep would abort.
    pub orphaned_uploads: u64,
    /// Intents that a sweep would remove.
    pub orphaned_intents: u64,
}

/// What metrics are read from.
pub struct Figures {
    progress: Arc<Progress>,
    requests: Option<RequestCounter>,
    clock: SharedClock,
    settings: Settings,
    begun: Instant,
    upkeep: Mutex<Upkeep>,
    snapshot: Mutex<Option<(Instant, Arc<Vec<LiveShard>>)>>,
}

impl Figures {
    /// The figures of a worker. `requests`: those to AWS, if there are any.
    pub fn new(
        progress: Arc<Progress>,
        requests: Option<RequestCounter>,
        clock: SharedClock,
        settings: Settings,
    ) -> Self {
        let (upkeep, snapshot) = (Mutex::default(), Mutex::default());
        Figures { progress, requests, clock, settings, begun: Instant::now(), upkeep, snapshot }
    }

    /// The worker's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The worker's counters.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Requests to AWS.
    pub(crate) fn requests(&self) -> Option<&RequestCounter> {
        self.requests.as_ref()
    }

    /// Replaces what is asked rarely.
    pub fn set_upkeep(&self, upkeep: Upkeep) {
        *self.upkeep.lock().unwrap_or_else(PoisonError::into_inner) = upkeep;
    }

    /// The share of its stream's retention that a shard's lag is; `None` if either is not known.
    pub fn retention_used(&self, shard: &LiveShard) -> Option<f64> {
        let lag = lag_seconds(shard)?;
        let upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        upkeep.retention.get(shard.key.stream.as_str()).map(|retention| lag / retention.as_secs_f64().max(1.0))
    }

    fn upkeep(&self) -> Option<LakeUpkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).lake
    }

    /// The shards that the worker holds.
    pub(crate) fn shards(&self) -> Arc<Vec<LiveShard>> {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*snapshot {
            Some((at, shards)) if at.elapsed() < SNAPSHOT_FOR => Arc::clone(shards),
            _ => {
                let shards = Arc::new(self.progress.shards());
                *snapshot = Some((Instant::now(), Arc::clone(&shards)));
                shards
            }
        }
    }

    /// Seconds between a time and now; 0 if the clock says that it is still to come.
    fn age(&self, ms: i64) -> f64 {
        seconds_of(self.clock.now_ms().saturating_sub(ms).max(0))
    }

    /// The age of the oldest record of a shard that is not in the lake, in seconds.
    pub(crate) fn data_age(&self, shard: &LiveShard) -> Option<f64> {
        let uncommitted = self.uncommitted_age(shard);
        let ages = [lag_seconds(shard), (uncommitted > 0.0).then_some(uncommitted)];
        ages.into_iter().flatten().reduce(f64::max)
    }

    /// The age of the oldest record that was read and is not committed, in seconds. Without times of arrival, the time since it was read.
    fn uncommitted_age(&self, shard: &LiveShard) -> f64 {
        let since = shard.oldest_uncommitted_ms.or(shard.uncommitted_since_ms);
        since.map_or(0.0, |ms| self.age(ms))
    }

    fn of_shards(&self, observe: Observe<'_>, value: impl Fn(&LiveShard) -> Option<f64>) {
        for shard in self.shards().iter() {
            if let Some(value) = value(shard) {
                observe(value, &shard_attributes(shard));
            }
        }
    }

    fn of_fleet(&self, observe: Observe<'_>, value: impl Fn(&FleetFigures) -> f64) {
        if let Some(fleet) = self.progress.fleet() {
            observe(value(&fleet), &[]);
        }
    }

    fn of_lake(&self, observe: Observe<'_>, value: impl Fn(LakeUpkeep) -> u64) {
        if let Some(upkeep) = self.upkeep() {
            observe(float(value(upkeep)), &[]);
        }
    }
}

fn shard_attributes(shard: &LiveShard) -> [KeyValue; 2] {
    [KeyValue::new("stream", shard.key.stream.to_string()), KeyValue::new("shard", shard.key.shard.to_string())]
}

/// A count as a number of OpenTelemetry, which is exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "no count of a process reaches 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "an age of 2^53 ms is 285,000 years")]
fn seconds_of(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// How far a shard is behind in seconds, as its source said; `None` if it says bytes, or has not said anything.
pub(crate) fn lag_seconds(shard: &LiveShard) -> Option<f64> {
    match shard.behind? {
        Behind::Nothing => Some(0.0),
        Behind::Time(ms) => Some(float(ms) / 1000.0),
        Behind::Bytes(_) => None,
    }
}

/// Bytes that a shard has and that were not read.
pub(crate) fn backlog_bytes(shard: &LiveShard) -> Option<f64> {
    match shard.behind? {
        Behind::Nothing => Some(0.0),
        Behind::Bytes(bytes) => Some(float(bytes)),
        Behind::Time(ms) => {
            let (first, last) = shard.arrivals?;
            let span = seconds_of(last.saturating_sub(first)).max(1.0);
            Some(float(ms) / 1000.0 * float(shard.bytes) / span)
        }
    }
}

pub(crate) fn shard_lag(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, lag_seconds);
}

pub(crate) fn shard_backlog(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, backlog_bytes);
}

pub(crate) fn shard_data_age(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| figures.data_age(shard));
}

pub(crate) fn shard_retention_used(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| figures.retention_used(shard));
}

pub(crate) fn shard_response_age(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| shard.read_at_ms.map(|ms| figures.age(ms)));
}

pub(crate) fn shard_uncommitted_age(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| Some(figures.uncommitted_age(shard)));
}

pub(crate) fn shard_uncommitted_wait(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| Some(shard.uncommitted_since_ms.map_or(0.0, |ms| figures.age(ms))));
}

pub(crate) fn shard_uncommitted_records(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| Some(float(shard.uncommitted_records)));
}

pub(crate) fn shard_commit_age(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| shard.committed_at_ms.map(|ms| figures.age(ms)));
}

pub(crate) fn shard_records(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| Some(float(shard.records)));
}

pub(crate) fn shard_read(figures: &Figures, observe: Observe<'_>) {
    figures.of_shards(observe, |shard| Some(float(shard.bytes)));
}

pub(crate) fn worker_shards(figures: &Figures, observe: Observe<'_>) {
    observe(float(figures.shards().len() as u64), &[]);
}

pub(crate) fn records(figures: &Figures, observe: Observe<'_>) {
    observe(float(figures.progress.records()), &[]);
}

pub(crate) fn edge_records(figures: &Figures, observe: Observe<'_>) {
    for (edge, total) in figures.progress.edges() {
        observe(float(total.0), &[KeyValue::new("edge", edge.to_string())]);
    }
}

pub(crate) fn edge_size(figures: &Figures, observe: Observe<'_>) {
    for (edge, total) in figures.progress.edges() {
        observe(float(total.1), &[KeyValue::new("edge", edge.to_string())]);
    }
}

pub(crate) fn dead_letters(figures: &Figures, observe: Observe<'_>) {
    let counts = figures.progress.dead_letters();
    for code in Code::ALL {
        let count = counts.get(code.as_str()).copied().unwrap_or_default();
        observe(float(count), &[KeyValue::new("code", code.as_str())]);
    }
}

pub(crate) fn data_lost(_: &Figures, observe: Observe<'_>) {
    observe(float(losses::announced()), &[]);
}

pub(crate) fn epochs(figures: &Figures, observe: Observe<'_>) {
    for (outcome, count) in figures.progress.outcomes() {
        observe(float(count), &[KeyValue::new("outcome", outcome)]);
    }
}

pub(crate) fn commit_interval(figures: &Figures, observe: Observe<'_>) {
    observe(figures.settings.commit_interval.as_secs_f64(), &[]);
}

pub(crate) fn freshness_objective(figures: &Figures, observe: Observe<'_>) {
    observe(figures.settings.freshness.as_secs_f64(), &[]);
}

pub(crate) fn epoch_age(figures: &Figures, observe: Observe<'_>) {
    let opened = figures.progress.open_epochs().into_iter().map(|epoch| epoch.opened_at_ms).min();
    observe(opened.map_or(0.0, |ms| figures.age(ms)), &[]);
}

pub(crate) fn epoch_size(figures: &Figures, observe: Observe<'_>) {
    let bytes = figures.progress.open_epochs().into_iter().map(|epoch| epoch.bytes).sum();
    observe(float(bytes), &[]);
}

/// The kind of an object, as JSON has it.
fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Processed => "processed",
        ObjectKind::Raw => "raw",
        ObjectKind::Error => "error",
    }
}

fn of_objects(figures: &Figures, observe: Observe<'_>, value: impl Fn((u64, u64)) -> u64) {
    for ((kind, dataset), total) in figures.progress.written() {
        observe(float(value(total)), &[KeyValue::new("kind", kind_name(kind)), KeyValue::new("dataset", dataset)]);
    }
}

pub(crate) fn objects(figures: &Figures, observe: Observe<'_>) {
    of_objects(figures, observe, |(count, _)| count);
}

pub(crate) fn objects_size(figures: &Figures, observe: Observe<'_>) {
    of_objects(figures, observe, |(_, bytes)| bytes);
}

pub(crate) fn fleet_workers(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| float(fleet.workers));
}

pub(crate) fn fleet_shards(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| float(fleet.shards));
}

pub(crate) fn fleet_waiting(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| float(fleet.waiting));
}

pub(crate) fn fleet_unowned(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| float(fleet.unowned));
}

pub(crate) fn fleet_unowned_age(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| fleet.unowned_for.as_secs_f64());
}

pub(crate) fn fleet_pending(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| float(fleet.pending));
}

pub(crate) fn fleet_pending_age(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| fleet.pending_for.as_secs_f64());
}

pub(crate) fn fleet_scan_age(figures: &Figures, observe: Observe<'_>) {
    figures.of_fleet(observe, |fleet| fleet.scanned.elapsed().as_secs_f64());
}

pub(crate) fn losses(figures: &Figures, observe: Observe<'_>) {
    figures.of_lake(observe, |lake| lake.losses);
}

pub(crate) fn checkpoints_ending(figures: &Figures, observe: Observe<'_>) {
    figures.of_lake(observe, |lake| lake.ending_checkpoints);
}

pub(crate) fn orphaned_uploads(figures: &Figures, observe: Observe<'_>) {
    figures.of_lake(observe, |lake| lake.orphaned_uploads);
}

pub(crate) fn orphaned_intents(figures: &Figures, observe: Observe<'_>) {
    figures.of_lake(observe, |lake| lake.orphaned_intents);
}

pub(crate) fn service_failing(_: &Figures, observe: Observe<'_>) {
    for (service, failing_for) in trouble::services() {
        observe(failing_for.as_secs_f64(), &[KeyValue::new("service", service)]);
    }
}

pub(crate) fn requests(figures: &Figures, observe: Observe<'_>) {
    for ((request, outcome), count) in figures.requests.iter().flat_map(RequestCounter::outcomes) {
        let attributes = [
            KeyValue::new("rpc.service", request.service),
            KeyValue::new("rpc.method", request.operation),
            KeyValue::new("outcome", outcome.as_str()),
        ];
        observe(float(count), &attributes);
    }
}

pub(crate) fn memory_limit(figures: &Figures, observe: Observe<'_>) {
    observe(float(figures.settings.memory), &[]);
}

pub(crate) fn input_usage(figures: &Figures, observe: Observe<'_>) {
    if let Some((used, _)) = figures.progress.input_memory() {
        observe(float(used), &[]);
    }
}

pub(crate) fn input_limit(figures: &Figures, observe: Observe<'_>) {
    if let Some((_, all)) = figures.progress.input_memory() {
        observe(float(all), &[]);
    }
}

pub(crate) fn build_info(_: &Figures, observe: Observe<'_>) {
    let attributes = [KeyValue::new("version", env!("CARGO_PKG_VERSION")), KeyValue::new("build", crate::BUILD)];
    observe(1.0, &attributes);
}

pub(crate) fn cpu_time(_: &Figures, observe: Observe<'_>) {
    if let Some((user, system)) = super::process::cpu_seconds() {
        observe(user, &[KeyValue::new("cpu.mode", "user")]);
        observe(system, &[KeyValue::new("cpu.mode", "system")]);
    }
}

pub(crate) fn memory_usage(_: &Figures, observe: Observe<'_>) {
    if let Some(bytes) = super::process::resident_bytes() {
        observe(float(bytes), &[]);
    }
}

pub(crate) fn uptime(figures: &Figures, observe: Observe<'_>) {
    observe(figures.begun.elapsed().as_secs_f64(), &[]);
}
