//! The workers of a fleet. Each has its own network, clock and configuration.
//!
//! Owns: what a worker is started with, and whether it may end as it did. Does not own: when a worker is started, and which
//! faults it meets (`fleet`).

use std::sync::Arc;
use std::time::Duration;

use checkpoints::LeaseOwner;
use pipeline::dataset::{Datasets, DefinitionText};
use pipeline::encode::EncoderConfig;
use pipeline::graph::Graph;
use pipeline::lane::LaneConfig;
use pipeline::line_objects::LineCodec;
use shardlake::clock::{Clock, SharedClock};
use shardlake::commit::lake_log;
use shardlake::commit::log::RollUpConfig;
use shardlake::config::{
    CommitConfig, LeaseConfig, Limits, OutputConfig, RetryConfig, StopConfig, TelemetryConfig, WorkerSettings,
};
use shardlake::named_checkpoints::ScheduledCheckpoints;
use shardlake::retry::Retryable as _;
use shardlake::worker::{self, AfterCommit, Compute, Progress, WorkerConfig, WorkerError};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::operations::finish_at_start;
use super::saves::Saves;
use super::{FAILOVER, Fleet, SKEW_MS};
use crate::faults::FaultKind;
use crate::network::{CrashPoint, Network, Rates, Service};
use crate::records::{DEFINITION, FURTHER_COLUMN, RECORD_BYTES_MAX};

/// The few commits of a run are in several roll-ups, and those of a clock that is behind are late.
pub(super) const ROLL_UPS: RollUpConfig = RollUpConfig { every: 3, margin: Duration::ZERO };
/// Likewise of snapshots of the lake log.
pub(super) const SNAPSHOT_EVERY: u64 = 4;
/// The time within which a record that was put can be read.
const VISIBLE_WITHIN: Duration = Duration::from_secs(3);

/// A worker's wall clock: the time of the run, plus the clock's error.
struct SkewedClock {
    begun: Instant,
    network: Arc<Network>,
}

impl Clock for SkewedClock {
    fn now_ms(&self) -> i64 {
        1_767_225_600_000
            + i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
            + self.network.clock_ms()
    }
}

/// A worker that was started, and may have ended.
pub(super) struct Running {
    pub(super) network: Arc<Network>,
    pub(super) me: LeaseOwner,
    pub(super) stop: CancellationToken,
    pub(super) progress: Arc<Progress>,
    pub(super) task: Option<JoinHandle<Result<(), Failed>>>,
}

/// Why a worker ended.
pub(super) enum Failed {
    /// It could not connect to its environment. The fleet starts another one.
    Connecting,
    Run(WorkerError),
}

impl Fleet {
    pub(super) fn network(&mut self, worker: u32, rates: Rates, later_version: bool) -> Arc<Network> {
        let mut clock_ms = 0;
        if self.skewed && self.rng.chance(500) {
            self.shared.tally.note(FaultKind::ClockSkewed);
            clock_ms = i64::try_from(self.rng.below(240_000)).unwrap_or(0) - SKEW_MS;
        }
        let (rng, shared) = (self.rng.fork(), Arc::clone(&self.shared));
        Network::new(worker, rng, rates, clock_ms, later_version, self.retry_within, shared)
    }

    pub(super) fn clock(&self, network: &Arc<Network>) -> SharedClock {
        Arc::new(SkewedClock { begun: self.begun, network: Arc::clone(network) })
    }

    fn lanes(&self, changed: bool) -> Arc<LaneConfig> {
        let streams: Vec<String> = self.environment.streams().iter().map(ToString::to_string).collect();
        Arc::new(lanes(&streams, changed, self.raw))
    }

    pub(super) fn start(&mut self, rates: Rates) {
        self.start_for(rates, None);
    }

    /// Starts a worker that ends, or does not end, when it has caught up. None: one or the other.
    pub(super) fn start_for(&mut self, rates: Rates, until_caught_up: Option<bool>) {
        self.started += 1;
        let tally = Arc::clone(&self.shared.tally);
        let (later, changed, little) = (self.rng.chance(100), self.rng.chance(150), self.rng.chance(250));
        for (happens, kind) in
            [(later, FaultKind::VersionChanged), (changed, FaultKind::ConfigChanged), (little, FaultKind::LittleMemory)]
        {
            if happens {
                tally.note(kind);
            }
        }
        let network = self.network(self.started, rates, later);
        if rates.crashes && self.rng.chance(600) {
            let is_pause = self.rng.chance(400);
            network.crash_at(CrashPoint {
                service: self.rng.one_of(&[
                    Service::Lake,
                    Service::Lake,
                    Service::Leases,
                    Service::Leases,
                    Service::Stream,
                ]),
                steps_only: self.rng.chance(700),
                after: if self.rng.chance(500) { self.rng.below(4) } else { self.rng.below(60) },
                after_effect: self.rng.chance(500),
                pause: is_pause.then(|| Duration::from_millis(1_000 + self.rng.below(40_000))),
            });
        }
        let clock = self.clock(&network);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rng.draw().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.started.to_le_bytes());
        let me = LeaseOwner::from_random(bytes);
        let lanes = self.lanes(changed);
        let threads = 1 + self.rng.index(2);
        // With little memory a lane is full after every chunk, and encodes its rows in steps.
        let memory = if little { 128 << 10 } else { 64 << 20 };
        let file_bytes = self.rng.one_of(&[1_000, 1 << 20]);
        let drawn = Duration::from_millis(200 + self.rng.below(2_000));
        let epoch_interval = self.interval.unwrap_or(drawn);
        let drawn = self.rng.chance(500);
        let (until_caught_up, retry_within) = (until_caught_up.unwrap_or(drawn), self.retry_within);
        // With little time to stop, a commit is cut off where it is.
        let stop_within = Duration::from_secs(self.rng.one_of(&[1, 25]));
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let (counters, stopped, environment) = (Arc::clone(&progress), stop.clone(), Arc::clone(&self.environment));
        let (its_network, its_name) = (Arc::clone(&network), me.clone());
        let (auditor, began) = (Arc::clone(&self.auditor), Instant::now());
        // A fleet that is measured writes as many as a real one.
        let snapshot_every = if self.interval.is_some() { lake_log::SNAPSHOT_EVERY } else { SNAPSHOT_EVERY };
        let finishes = self.operations.is_some();
        let checkpoints = self.saves.as_ref().map(Saves::schedule).unwrap_or_default();
        let task = tokio::spawn(async move {
            let connected = environment
                .connect(&its_network, Arc::clone(&clock), until_caught_up)
                .await
                .map_err(|_| Failed::Connecting)?;
            if finishes && let Err(what) = finish_at_start(&connected.stores).await {
                auditor.violated(what);
            }
            let settings = WorkerSettings {
                output: OutputConfig { file_bytes, ..OutputConfig::default() },
                commit: CommitConfig { interval: epoch_interval, input_bytes: 1 << 30 },
                leases: LeaseConfig { failover: FAILOVER, hand_off: Duration::from_secs(8) },
                limits: Limits { memory, threads, open_objects: 16, ..Limits::default() },
                stop: StopConfig { within: stop_within },
                retry: RetryConfig { within: retry_within },
                checkpoints: checkpoints.clone(),
                telemetry: TelemetryConfig::default(),
            };
            let schedule = (!checkpoints.every.is_zero()).then(|| {
                let (stores, sources) = (connected.stores.clone(), connected.sources.clone());
                let saving = ScheduledCheckpoints::new(its_name.clone(), stores, sources, checkpoints.clone());
                Box::new(saving) as Box<dyn AfterCommit>
            });
            let config = WorkerConfig {
                me: its_name.clone(),
                sources: connected.sources,
                stores: connected.stores,
                raw_sink: None,
                clock,
                compute: Compute::Inline,
                lanes,
                settings,
                encoder: EncoderConfig::default(),
                roll_ups: ROLL_UPS,
                snapshot_every,
                definitions: None,
                after_commit: schedule.into_iter().collect(),
                until_caught_up,
            };
            worker::run(config, counters, stopped.clone()).await.map_err(Failed::Run)?;
            if !stopped.is_cancelled() {
                auditor.caught_up(&its_name.to_string(), began - VISIBLE_WITHIN);
            }
            Ok(())
        });
        self.workers.push(Running { network, me, stop, progress, task: Some(task) });
    }

    /// Fails if a worker ended as it must not, or the auditor has found a violation.
    pub(super) async fn check(&mut self) -> Result<(), String> {
        let (refused, replaced) = (self.refused, self.is_replaced);
        if let Some(operations) = &mut self.operations {
            operations.check(refused).await?;
        }
        for running in &mut self.workers {
            let Some(task) = running.task.take_if(|task| task.is_finished()) else { continue };
            match task.await {
                Ok(Ok(()) | Err(Failed::Connecting)) => {}
                Ok(Err(Failed::Run(WorkerError::Source(error)))) if replaced && !error.is_retryable() => {}
                Ok(Err(Failed::Run(error))) => judge(&error, refused)?,
                Err(error) if error.is_cancelled() => {}
                Err(error) => {
                    let panic = error.into_panic();
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    return Err(format!("a worker panicked: {}", text.unwrap_or_default()));
                }
            }
        }
        self.auditor.violation().map_or(Ok(()), Err)
    }
}

/// What the lanes of a worker make of the records of these streams. `raw`: these land in `raw/`, too.
pub(crate) fn lanes(streams: &[String], changed: bool, raw: bool) -> LaneConfig {
    let text = [DEFINITION, if changed { FURTHER_COLUMN } else { "" }].concat();
    let text = DefinitionText { file: "orders.toml".to_owned(), text };
    let datasets = Datasets::compile(&[text], &|_, _| Err("none".to_owned())).expect("a good definition");
    LaneConfig {
        graph: Graph::new(streams, &datasets, raw),
        key: None,
        assigned: vec![Some(0); streams.len()],
        raw: raw.then_some(LineCodec::Gzip(1)),
        raw_identities: true,
        dead_letters: LineCodec::Gzip(1),
        record_bytes_max: RECORD_BYTES_MAX,
        hash_seed: 1,
        denied_names: false,
        datasets,
    }
}

/// Parts of the messages of errors that mean that lake or table are broken.
const BROKEN: [&str; 7] = [
    "neither finished nor rolled back",
    "neither that intent",
    "with other bytes",
    "the commit log is ambiguous",
    "cannot be read:",
    "is malformed",
    "the lake log ends at",
];

/// Whether the message of an error means that lake or table are broken.
pub(super) fn is_broken(text: &str) -> bool {
    BROKEN.iter().any(|broken| text.contains(broken))
}

/// A worker may end because a service does not answer or refuses. It must not end because of what it finds in the lake or the
/// table.
fn judge(error: &WorkerError, refused: bool) -> Result<(), String> {
    let text = error.to_string();
    // Problems of shards are reported as text.
    let is_broken = is_broken(&text);
    let may_happen = match error {
        WorkerError::Commit(error) => error.is_retryable() || refused,
        WorkerError::Leases(error) => error.is_retryable() || refused,
        WorkerError::Source(error) => error.is_retryable() || refused,
        // A service refuses an upload that a lifecycle rule has aborted.
        WorkerError::Lake(_) | WorkerError::Shards { .. } | WorkerError::Raw(_) | WorkerError::StopTimedOut { .. } => {
            true
        }
        WorkerError::Encode(_) | WorkerError::Definitions(_) => false,
    };
    if is_broken || !may_happen { Err(format!("a worker ended: {text}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{ShardId, ShardKey, StoreError, StreamName};
    use shardlake::commit::lake_log::LogVersion;
    use shardlake::commit::{CommitError, UnreadableManifest};
    use shardlake::lake::{LakeError, ObjectKey};

    #[test]
    fn a_worker_must_not_end_because_the_lake_or_the_table_is_broken() {
        let text = || "x".to_owned();
        let key = ObjectKey::new("x").expect("a plain key");
        let broken = [
            CommitError::Torn { epoch: text(), missing: key.clone() },
            CommitError::NoIntent { name: text() },
            CommitError::LogCut { known: LogVersion(2), newest: LogVersion(1) },
            CommitError::Conflict { key, epoch: text() },
            CommitError::Overlap {
                key: ShardKey::new(StreamName::new("s").expect("a plain name"), ShardId::new("x").expect("a plain id")),
                epoch: text(),
            },
            UnreadableManifest { name: text(), problem: text() }.into(),
            StoreError::Malformed { item: text(), problem: text() }.into(),
        ];
        for error in broken {
            let problems = vec![format!("shard 0: {error}")];
            assert!(judge(&WorkerError::Shards { problems }, true).is_err(), "{error}");
            assert!(judge(&error.into(), true).is_err());
        }
        let unavailable = LakeError::Unavailable { operation: text(), problem: text() };
        assert!(judge(&CommitError::from(unavailable).into(), false).is_ok());
        let refused = || CommitError::from(LakeError::Refused { operation: text(), problem: text() });
        assert!(judge(&refused().into(), true).is_ok() && judge(&refused().into(), false).is_err());
    }
}
