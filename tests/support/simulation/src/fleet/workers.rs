//! The workers of a fleet: each with wires, a clock and a configuration of its own.
//!
//! Owns: what a worker is started with, and the judgement of how it ended. Does not own: when one is started, and what happens
//! to it.

use std::sync::Arc;
use std::time::Duration;

use checkpoints::LeaseOwner;
use pipeline::dataset::{Datasets, DefinitionText};
use pipeline::encode::EncoderConfig;
use pipeline::graph::Graph;
use pipeline::lane::LaneConfig;
use pipeline::line_objects::LineCodec;
use shardlake::clock::{Clock, SharedClock};
use shardlake::config::{CommitConfig, LeaseConfig, Limits, OutputConfig, WorkerSettings};
use shardlake::worker::{self, Compute, Progress, WorkerConfig, WorkerError};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{FAILOVER, Fleet, SKEW_MS};
use crate::faults::Kind;
use crate::records::{DEFINITION, FURTHER_COLUMN, RECORD_BYTES_MAX};
use crate::wires::{Fall, Rates, Service, Wires};

/// In which time a record that was put can be read.
const VISIBLE_WITHIN: Duration = Duration::from_secs(3);

/// A worker's wall clock: the simulation's, and how far it is off.
struct SkewedClock {
    begun: Instant,
    wires: Arc<Wires>,
}

impl Clock for SkewedClock {
    fn now_ms(&self) -> i64 {
        1_767_225_600_000 + i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX) + self.wires.clock_ms()
    }
}

/// A worker that was started.
pub(super) struct Running {
    pub(super) wires: Arc<Wires>,
    pub(super) me: LeaseOwner,
    pub(super) stop: CancellationToken,
    pub(super) progress: Arc<Progress>,
    pub(super) task: Option<JoinHandle<Result<(), Failed>>>,
}

/// Why a worker ended.
pub(super) enum Failed {
    /// Its world could not be opened: it is started again.
    Opening,
    Run(WorkerError),
}

impl Fleet {
    pub(super) fn wires(&mut self, worker: u32, rates: Rates, later_version: bool) -> Arc<Wires> {
        let mut clock_ms = 0;
        if self.skewed && self.rng.chance(500) {
            self.shared.tally.note(Kind::ClockSkewed);
            clock_ms = i64::try_from(self.rng.below(240_000)).unwrap_or(0) - SKEW_MS;
        }
        Wires::new(worker, self.rng.fork(), rates, clock_ms, later_version, Arc::clone(&self.shared))
    }

    pub(super) fn clock(&self, wires: &Arc<Wires>) -> SharedClock {
        Arc::new(SkewedClock { begun: self.begun, wires: Arc::clone(wires) })
    }

    fn lanes(&self, changed: bool) -> Arc<LaneConfig> {
        let text = [DEFINITION, if changed { FURTHER_COLUMN } else { "" }].concat();
        let text = DefinitionText { file: "orders.toml".to_owned(), text };
        let datasets = Datasets::compile(&[text], &|_, _| Err("none".to_owned())).expect("a good definition");
        let streams: Vec<String> = self.world.streams().iter().map(ToString::to_string).collect();
        Arc::new(LaneConfig {
            graph: Graph::new(&streams, &datasets, self.raw),
            key: None,
            assigned: vec![Some(0); streams.len()],
            raw: self.raw.then_some(LineCodec::Gzip(1)),
            dead_letters: LineCodec::Gzip(1),
            record_bytes_max: RECORD_BYTES_MAX,
            hash_seed: 1,
            datasets,
        })
    }

    pub(super) fn start(&mut self, rates: Rates) {
        self.started += 1;
        let tally = Arc::clone(&self.shared.tally);
        let (later, changed, little) = (self.rng.chance(100), self.rng.chance(150), self.rng.chance(250));
        for (happens, kind) in
            [(later, Kind::VersionChanged), (changed, Kind::ConfigChanged), (little, Kind::LittleMemory)]
        {
            if happens {
                tally.note(kind);
            }
        }
        let wires = self.wires(self.started, rates, later);
        if rates.falls && self.rng.chance(600) {
            let is_pause = self.rng.chance(400);
            wires.fall(Fall {
                service: self.rng.one_of(&[
                    Service::Lake,
                    Service::Lake,
                    Service::Leases,
                    Service::Leases,
                    Service::Stream,
                ]),
                steps_only: self.rng.chance(700),
                after: if self.rng.chance(500) { self.rng.below(4) } else { self.rng.below(60) },
                behind: self.rng.chance(500),
                pause: is_pause.then(|| Duration::from_millis(1_000 + self.rng.below(40_000))),
            });
        }
        let clock = self.clock(&wires);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rng.draw().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.started.to_le_bytes());
        let me = LeaseOwner::from_random(bytes);
        let lanes = self.lanes(changed);
        let threads = 1 + self.rng.place(2);
        // With little memory a lane is full after every chunk, and gives its rows up in steps.
        let memory = if little { 128 << 10 } else { 64 << 20 };
        let file_bytes = self.rng.one_of(&[1_000, 1 << 20]);
        let epoch_interval = Duration::from_millis(200 + self.rng.below(2_000));
        let until_caught_up = self.rng.chance(500);
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let (message, stopped, world) = (Arc::clone(&progress), stop.clone(), Arc::clone(&self.world));
        let (its_wires, its_name) = (Arc::clone(&wires), me.clone());
        let (auditor, began) = (Arc::clone(&self.auditor), Instant::now());
        let task = tokio::spawn(async move {
            let connected = world.connect(&its_wires, Arc::clone(&clock)).await.map_err(|_| Failed::Opening)?;
            let settings = WorkerSettings {
                output: OutputConfig { file_bytes, ..OutputConfig::default() },
                commit: CommitConfig { interval: epoch_interval, input_bytes: 1 << 30 },
                leases: LeaseConfig { failover: FAILOVER, hand_off: Duration::from_secs(8) },
                limits: Limits { memory, threads, open_objects: 16, ..Limits::default() },
            };
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
                until_caught_up,
            };
            worker::run(config, message, stopped.clone()).await.map_err(Failed::Run)?;
            if !stopped.is_cancelled() {
                auditor.caught_up(&its_name.to_string(), began - VISIBLE_WITHIN);
            }
            Ok(())
        });
        self.workers.push(Running { wires, me, stop, progress, task: Some(task) });
    }

    /// Sees whether anything is wrong.
    pub(super) async fn look(&mut self) -> Result<(), String> {
        let refused = self.refused;
        for running in &mut self.workers {
            let Some(task) = running.task.take_if(|task| task.is_finished()) else { continue };
            match task.await {
                Ok(Ok(()) | Err(Failed::Opening)) => {}
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

/// A worker may end because a service stays away or refuses; never because of what it finds in lake or table.
fn judge(error: &WorkerError, refused: bool) -> Result<(), String> {
    let text = error.to_string();
    let broken = ["gone for good", "neither that intent", "with other bytes", "can't be read:", "is malformed"];
    let is_broken = broken.iter().any(|broken| text.contains(broken));
    let may_happen = match error {
        WorkerError::Commit(error) => error.is_retryable() || refused,
        WorkerError::Leases(error) => error.is_retryable() || refused,
        // An upload that a lifecycle rule has aborted is refused.
        WorkerError::Lake(_) | WorkerError::Shards { .. } | WorkerError::Raw(_) => true,
        WorkerError::Encode(_) => false,
    };
    if is_broken || !may_happen { Err(format!("a worker ended: {text}")) } else { Ok(()) }
}
