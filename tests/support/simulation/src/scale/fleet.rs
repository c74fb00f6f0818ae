//! A fleet of the real worker over counted services: starting and ending workers, and what the fleet looks like at a moment.
//!
//! Owns: the settings of the workers, the state of the fleet as an outsider sees it, and the proof at the end that each record landed once.
//! Does not own: what happens when (`scenarios`), the services (`services`, `load`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{LeaseOwner, MemoryStore as MemoryLeases};
use pipeline::encode::EncoderConfig;
use serde_json::Value;
use shardlake::clock::{Clock, SharedClock};
use shardlake::commit::Stores;
use shardlake::commit::lake_log::SNAPSHOT_EVERY;
use shardlake::commit::log::RollUpConfig;
use shardlake::config::{
    CheckpointSchedule, CommitConfig, LeaseConfig, Limits, OutputConfig, RetryConfig, StopConfig, TelemetryConfig,
    WorkerSettings,
};
use shardlake::lake::MemoryStore;
use shardlake::retry::RetryPolicy;
use shardlake::telemetry::emf::backlog_and_age;
use shardlake::telemetry::figures::{Figures, Settings};
use shardlake::worker::{self, CommitStep, Compute, Progress, WorkerConfig, WorkerError};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Scale;
use super::load::{BEGUN_MS, CountedStream, LoadStream, RECORD_BYTES};
use super::requests::{Caller, Services, float};
use super::services::{CountedLake, CountedLeases};
use crate::fleet::lanes;
use crate::rng::Rng;

/// `[retry] within`, by default.
const RETRY_WITHIN: Duration = Duration::from_secs(300);
/// The time from a signal to the end of a worker, by default.
const STOP_WITHIN: Duration = Duration::from_secs(25);

/// The wall clock: the time of the run.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now_ms(&self) -> i64 {
        BEGUN_MS + i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// A worker that was started.
pub struct Member {
    /// Its name in the lease table.
    pub me: LeaseOwner,
    caller: Arc<Caller>,
    stop: CancellationToken,
    figures: Arc<Figures>,
    progress: Arc<Progress>,
    started: Instant,
    ended: Option<Instant>,
    task: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl Member {
    /// Whether it runs and has not been asked to stop.
    pub fn is_up(&self) -> bool {
        self.ended.is_none() && !self.stop.is_cancelled()
    }

    /// Its figures for the scaling of ECS: the backlog in bytes of the lake's records, and the age of its oldest record in seconds.
    pub fn backlog_and_age(&self) -> (f64, f64) {
        backlog_and_age(&self.figures)
    }
}

/// The fleet at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Workers that run and were not asked to stop.
    pub workers: usize,
    /// Shards that can be read and that no running worker holds.
    pub unheld: usize,
    /// Shards that running workers hold: of the worker that holds fewest, and of the one that holds most.
    pub held: (usize, usize),
    /// Shards whose ends were not read yet.
    pub shards: usize,
    /// The age of the oldest record that is not committed, in seconds.
    pub oldest_s: f64,
    /// Bytes of records that are not committed.
    pub uncommitted: f64,
}

impl View {
    /// Whether every shard is held, and no worker has a fifth more or less than its share, and one shard.
    pub fn is_balanced(&self) -> bool {
        let share = float(self.shards as u64) / float(self.workers.max(1) as u64);
        let (least, most) = (float(self.held.0 as u64), float(self.held.1 as u64));
        self.unheld == 0 && least + 1.0 >= (0.8 * share).floor() && most <= (1.2 * share).ceil() + 1.0
    }
}

/// A fleet.
pub struct ScaleFleet {
    pub(super) scale: Scale,
    pub(super) stream: LoadStream,
    pub(super) services: Arc<Services>,
    pub(super) members: Vec<Member>,
    lake: MemoryStore,
    leases: MemoryLeases,
    rng: Rng,
    begun: Instant,
}

impl ScaleFleet {
    /// A stream, and no worker.
    pub fn new(scale: Scale) -> Self {
        let leases = MemoryLeases::new().with_metering().with_decision_shards_max(100);
        ScaleFleet {
            stream: LoadStream::new(scale.shards, scale.load),
            services: Services::new(scale.seed),
            members: Vec::new(),
            lake: MemoryStore::new(),
            leases,
            rng: Rng::new(!scale.seed),
            begun: Instant::now(),
            scale,
        }
    }

    /// Seconds since the fleet began.
    pub fn now_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Starts a worker.
    pub fn start(&mut self) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rng.draw().to_le_bytes());
        bytes[8..].copy_from_slice(&self.rng.draw().to_le_bytes());
        let me = LeaseOwner::from_random(bytes);
        let caller = Caller::new(&self.services, self.scale.vcpus);
        let clock: SharedClock = Arc::new(VirtualClock(self.begun));
        let lake = CountedLake { caller: Arc::clone(&caller), store: self.lake.clone() };
        let leases = CountedLeases { caller: Arc::clone(&caller), store: self.leases.clone() };
        let stream = CountedStream { stream: self.stream.clone(), caller: Arc::clone(&caller) };
        let name = self.stream.name().clone();
        let stores = Stores::new(Arc::new(lake), Arc::new(leases), RetryPolicy::within(RETRY_WITHIN))
            .with_streams([name.clone()])
            .with_clock(Arc::clone(&clock));
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let config = WorkerConfig {
            me: me.clone(),
            sources: vec![Arc::new(stream)],
            stores,
            raw_sink: None,
            clock: Arc::clone(&clock),
            compute: Compute::Inline,
            lanes: Arc::new(lanes(&[name.to_string()], false, true)),
            settings: self.settings(),
            encoder: EncoderConfig::default(),
            roll_ups: RollUpConfig::default(),
            snapshot_every: SNAPSHOT_EVERY,
            definitions: None,
            after_commit: Vec::new(),
            until_caught_up: false,
        };
        let settings = Settings {
            worker: me.to_string(),
            commit_interval: self.scale.interval,
            freshness: Duration::from_secs(900),
            memory: 1 << 30,
        };
        let figures = Arc::new(Figures::new(Arc::clone(&progress), None, clock, settings));
        let task = Some(tokio::spawn(worker::run(config, Arc::clone(&progress), stop.clone())));
        self.members.push(Member { me, caller, stop, figures, progress, started: Instant::now(), ended: None, task });
    }

    /// What `deploy/worker.yaml` and the defaults of the configuration have.
    fn settings(&self) -> WorkerSettings {
        WorkerSettings {
            output: OutputConfig { file_bytes: 128 << 20, ..OutputConfig::default() },
            commit: CommitConfig { interval: self.scale.interval, input_bytes: 16 << 30 },
            leases: LeaseConfig { failover: Duration::from_secs(10), hand_off: Duration::from_secs(30) },
            limits: Limits { memory: 768 << 20, threads: 1, record_bytes: 10 << 20, open_objects: 256 },
            stop: StopConfig { within: STOP_WITHIN },
            retry: RetryConfig { within: RETRY_WITHIN },
            checkpoints: CheckpointSchedule::default(),
            telemetry: TelemetryConfig::default(),
        }
    }

    /// The numbers of the workers that run and were not asked to stop.
    pub fn up(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|number| self.members[*number].is_up()).collect()
    }

    /// Kills a worker.
    pub fn kill(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.caller.kill();
        member.ended.get_or_insert_with(Instant::now);
        if let Some(task) = member.task.take() {
            task.abort();
        }
    }

    /// Sends a worker the signal that ends it.
    pub fn terminate(&mut self, number: usize) {
        self.members[number].stop.cancel();
    }

    /// Notes the workers that have ended.
    ///
    /// # Panics
    /// One of them failed, or ended unasked.
    pub async fn check(&mut self) {
        for member in &mut self.members {
            let Some(task) = member.task.take_if(|task| task.is_finished()) else { continue };
            member.ended.get_or_insert_with(Instant::now);
            match task.await.expect("no worker panics") {
                Ok(()) => assert!(member.stop.is_cancelled(), "a worker ended unasked"),
                // It is read again from the last commit.
                Err(WorkerError::StopTimedOut { .. }) => {}
                Err(error) => panic!("worker {} failed after {:?}: {error}", member.me, member.started.elapsed()),
            }
        }
    }

    /// The fleet now.
    pub fn view(&self) -> View {
        let rows = self.leases.rows();
        let by_key: BTreeMap<_, _> = rows.iter().map(|lease| (&lease.key, lease)).collect();
        let up = self.members.iter().filter(|member| member.is_up()).map(|member| (&member.me, 0_usize));
        let mut held: BTreeMap<&LeaseOwner, usize> = up.collect();
        let mut view = View { workers: held.len(), ..View::default() };
        let mut oldest_ms = 0;
        for lease in rows.iter().filter(|lease| !lease.is_done()) {
            if !lease.parents_done(|key| by_key.get(key).copied()) {
                continue;
            }
            view.shards += 1;
            match lease.holder.committer().and_then(|owner| held.get_mut(owner)) {
                Some(count) => *count += 1,
                None => view.unheld += 1,
            }
            if let Some((age_ms, records)) = self.stream.after(&lease.key.shard, &lease.checkpoint) {
                oldest_ms = oldest_ms.max(age_ms);
                view.uncommitted += float(records * self.scale.load.record_bytes);
            }
        }
        // A shard without a row is not held either.
        let missing = if rows.is_empty() { self.stream.open_shards() } else { 0 };
        (view.shards, view.unheld) = (view.shards + missing, view.unheld + missing);
        view.held = (held.values().min().copied().unwrap_or(0), held.values().max().copied().unwrap_or(0));
        view.oldest_s = float(oldest_ms) / 1000.0;
        view
    }

    /// Hours that tasks ran.
    pub fn task_hours(&self) -> f64 {
        let ran = |member: &Member| member.ended.unwrap_or_else(Instant::now).duration_since(member.started);
        self.members.iter().map(|member| ran(member).as_secs_f64() / 3600.0).sum()
    }

    /// Epochs that were abandoned before their decision.
    pub fn aborted(&self) -> u64 {
        self.members.iter().map(|member| member.progress.committed().aborted).sum()
    }

    /// The mean time of a commit, in seconds: all steps of one epoch.
    pub fn commit_s(&self) -> f64 {
        let steps: Vec<_> = self.members.iter().flat_map(|member| member.progress.commit_steps()).collect();
        let took: f64 = steps.iter().map(|(_, total)| total.took.as_secs_f64()).sum();
        let staged: u64 =
            steps.iter().filter(|(step, _)| *step == CommitStep::Stage).map(|(_, total)| total.count).sum();
        took / float(staged.max(1))
    }

    /// Bytes of the stream for each byte of a record.
    pub fn bytes_weight(&self) -> f64 {
        float(self.scale.load.record_bytes) / RECORD_BYTES
    }

    /// The commit records: how many there are, how many records they have, and the largest one's bytes.
    pub fn committed(&self) -> (u64, u64, u64) {
        let (mut epochs, mut records, mut largest) = (0, 0, 0);
        for (key, bytes) in self.lake.objects() {
            if !key.as_str().starts_with("_commits/") || !key.as_str().ends_with(".json") {
                continue;
            }
            let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else { continue };
            let shards = manifest["shards"].as_array().into_iter().flatten();
            records += shards.filter_map(|shard| shard["records"].as_u64()).sum::<u64>();
            (epochs, largest) = (epochs + 1, largest.max(bytes.len() as u64));
        }
        (epochs, records, largest)
    }
}
