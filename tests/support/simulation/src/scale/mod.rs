//! Fleets of the real worker with up to thousands of shards, under simulated time: what they cost in requests, and how long they take to
//! settle after something has happened.
//!
//! Nothing fails here by itself, so this finds no faults of the protocol; that is what `fleet` does. But each run ends with a proof that
//! every record landed once. The same seed gives the same figures.
//!
//! - `requests`: counters, how long requests take, what the lease table takes, the processor of each worker.
//! - `services`, `load`: lake, leases and stream over these.
//! - `fleet`: the workers.
//! - `scenarios`: what happens when, and what is measured.
//! - `autoscaler`: the rules by which ECS adds and removes workers.

pub mod autoscaler;
pub mod fleet;
pub mod load;
pub mod requests;
pub mod scenarios;
pub mod services;

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use self::autoscaler::Rule;
use self::load::Load;

/// What happens to a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing: the requests of an hour are counted.
    Calm,
    /// A worker dies without releasing its shards.
    Recover,
    /// A second fleet of the same size joins.
    Join,
    /// All workers are away for half an hour.
    CatchUp,
    /// The load grows tenfold for an hour, and a rule adds workers.
    Tenfold,
    /// Every shard is split at once.
    Reshard,
    /// Half of the workers get a signal within two minutes, end within 30 seconds, and are replaced four minutes later.
    Spot,
    /// The same, but they are killed without a signal.
    Kill,
}

impl Scenario {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Scenario); 8] = [
        ("calm", Scenario::Calm),
        ("recover", Scenario::Recover),
        ("join", Scenario::Join),
        ("catch-up", Scenario::CatchUp),
        ("tenfold", Scenario::Tenfold),
        ("reshard", Scenario::Reshard),
        ("spot", Scenario::Spot),
        ("kill", Scenario::Kill),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, scenario)| *scenario == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, scenario)| *scenario);
        let names = || Self::ALL.map(|(name, _)| name).join(", ");
        found.ok_or_else(|| format!("unknown scenario {text}: expected one of {}", names()))
    }
}

/// A fleet to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Shards at the beginning.
    pub shards: usize,
    /// Workers at the beginning.
    pub workers: usize,
    /// What happens.
    pub scenario: Scenario,
    /// What the times of requests follow from.
    pub seed: u64,
    /// `[commit] interval`.
    pub interval: Duration,
    /// For how long requests are counted.
    pub counted: Duration,
    /// Cores of a worker.
    pub vcpus: f64,
    /// What is put.
    pub load: Load,
    /// Who adds workers.
    pub rule: Rule,
    /// The most workers that the rule may start.
    pub workers_max: usize,
}

impl Scale {
    /// A fleet with the defaults of the product, tasks as `deploy/worker.yaml` has them, and 0.1 MB a second for each shard.
    pub fn new(shards: usize, workers: usize, scenario: Scenario) -> Self {
        Scale {
            shards,
            workers,
            scenario,
            seed: 1,
            interval: Duration::from_secs(300),
            counted: Duration::from_secs(1_800),
            vcpus: 0.5,
            load: Load { record_bytes: 100_000, record_every_ms: 1_000, partitions: 8 },
            rule: Rule::None,
            workers_max: shards.min(10 * workers),
        }
    }
}

/// Runs a fleet, and returns what was measured.
///
/// # Panics
/// A worker ended unasked, or a record is not in the lake exactly once.
pub fn measure(scale: &Scale) -> Value {
    // The jitter of retries.
    fastrand::seed(scale.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    let measured = runtime.block_on(scenarios::run(scale.clone()));
    runtime.shutdown_background();
    let mut all = json!({
        "scenario": scale.scenario.name(),
        "shards": scale.shards,
        "workers": scale.workers,
        "seed": scale.seed,
        "interval_s": scale.interval.as_secs(),
        "vcpus": scale.vcpus,
        "bytes_per_shard_second": scale.load.record_bytes * 1000 / scale.load.record_every_ms,
    });
    if let (Some(all), Value::Object(measured)) = (all.as_object_mut(), measured) {
        all.extend(measured);
    }
    all
}
