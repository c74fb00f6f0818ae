//! Opening a replay, and what planning one needs.
//!
//! Owns: which stores and sources a replay gets. Does not own: planning and running (`replay`), how a source or a store is opened.
//!
//! A replay has the configuration of the live workers, except for this: it has no raw landing, because `raw/` has the records already. It
//! saves no checkpoints. Streams are polled, because their consumers are the live workers'.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoints::LeaseStore;
use pipeline::anonymize::PseudonymKey;
use pipeline::lane::LaneConfig;

use crate::aws::Aws;
use crate::clock::SharedClock;
use crate::commit::{DefinitionOfEpoch, Stores};
use crate::config::{Config, WorkerSettings};
use crate::lake::{
    DefinitionClaims, InsideLake, ObjectStore, ReadOnly, Retrying, identity, number_fields, preview_fields,
};
use crate::maintenance::migrate;
use crate::replay::run::{Job, MakeWorker};
use crate::replay::{Plan, Purpose};
use crate::setup::worker::{WorkerParts, lane_config, worker_config};
use crate::setup::{OpenError, key, open_lake_of_any_format, open_sources, policies, stream_ids};
use crate::source::ShardSource;
use crate::source::backend::OpenedSource;
use crate::source::replay::{Pace, ReplaySource};

/// The least memory of a worker, in bytes.
const WORKER_MEMORY_MIN: u64 = 64 << 20;

/// What planning needs.
pub struct PlanningParts {
    /// The lake, with retries.
    pub lake: Arc<dyn ObjectStore>,
    /// The configured sources.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// By dataset, the definitions by which rows are made now.
    pub definitions: BTreeMap<String, DefinitionOfEpoch>,
}

/// Opens the lake, which must exist.
///
/// # Errors
/// It does not exist, cannot be opened, or has another format.
pub async fn open_lake(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let (policy, _) = policies(config);
    let lake = policy.run("opening the lake", || open_lake_of_any_format(config, aws)).await?;
    let lake: Arc<dyn ObjectStore> = Arc::new(Retrying::new(lake, policy));
    identity::check_format(&*lake).await?;
    Ok(lake)
}

/// Opens what planning needs. Sources that cannot be opened are left out with a warning: then their records must be in `raw/`.
///
/// # Errors
/// The lake cannot be opened, or its field ids cannot be read.
pub async fn open_for_planning(
    config: &mut Config,
    clock: &SharedClock,
    aws: Option<&Aws>,
) -> Result<PlanningParts, OpenError> {
    let lake = open_lake(config, aws).await?;
    planning_parts(config, lake, clock, aws).await
}

/// The same for a what-if. Every change of the lake is refused, whoever requests it.
///
/// # Errors
/// As of [`open_for_planning`].
pub async fn open_for_what_if(
    config: &mut Config,
    clock: &SharedClock,
    aws: Option<&Aws>,
) -> Result<PlanningParts, OpenError> {
    let lake: Arc<dyn ObjectStore> = Arc::new(ReadOnly::new(open_lake(config, aws).await?));
    planning_parts(config, lake, clock, aws).await
}

async fn planning_parts(
    config: &mut Config,
    lake: Arc<dyn ObjectStore>,
    clock: &SharedClock,
    aws: Option<&Aws>,
) -> Result<PlanningParts, OpenError> {
    preview_fields(&*lake, &mut config.datasets).await?;
    read_beside(config);
    let sources = match open_sources(config, &lake, clock, true, aws).await {
        Ok(opened) => opened.into_iter().map(|opened| opened.source).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot open the configured sources; planning with raw/ alone");
            Vec::new()
        }
    };
    Ok(PlanningParts { lake, sources, definitions: definitions_of(config) })
}

/// By dataset, the definition of the configuration.
fn definitions_of(config: &Config) -> BTreeMap<String, DefinitionOfEpoch> {
    let datasets = &config.datasets;
    let definition = |(number, name): (usize, &str)| {
        let hash = datasets.version(number).to_owned();
        (name.to_owned(), DefinitionOfEpoch { hash, schema_version: datasets.schema_version(number) })
    };
    datasets.names().enumerate().map(definition).collect()
}

fn read_beside(config: &mut Config) {
    for source in &mut config.sources {
        source.url.backend().read_beside(&mut source.options);
    }
}

/// Where a replay lands.
pub struct Aside {
    /// The lake that it writes.
    pub lake: Arc<dyn ObjectStore>,
    /// The table with its leases.
    pub leases: Arc<dyn LeaseStore>,
}

/// Opens a replay for running it. `workers`: how many run in this process, which share its memory and threads. `aside`: where it lands,
/// if not in the lake.
///
/// # Errors
/// Something cannot be opened, the lake has another key, or a definition does not fit the lake.
pub async fn open_replay(
    mut config: Config,
    plan: Plan,
    pseudonym_key: Option<PseudonymKey>,
    clock: &SharedClock,
    aws: Option<&Aws>,
    workers: usize,
    aside: Option<Aside>,
) -> Result<Job, OpenError> {
    let mut lake = open_lake(&config, aws).await?;
    let fingerprint = pseudonym_key.as_ref().map(key::fingerprint);
    let is_what_if = plan.purpose == Purpose::WhatIf;
    if is_what_if {
        lake = Arc::new(ReadOnly::new(lake));
        if let Some(fingerprint) = &fingerprint {
            identity::check_key(&*lake, fingerprint).await?;
        }
    }
    // Trying a definition needs no consent, because nothing is written by it into the lake.
    crate::lake::check_definitions(&*lake, &config.datasets, is_what_if).await?;
    let is_scratch = aside.is_some();
    if is_scratch {
        preview_fields(&*lake, &mut config.datasets).await?;
    } else {
        identity::claim(&*lake, fingerprint.as_deref()).await?;
        number_fields(&*lake, &mut config.datasets).await?;
    }
    read_beside(&mut config);
    let opened = match open_sources(&config, &lake, clock, true, aws).await {
        Ok(opened) => opened,
        // Without them, nobody knows how far the live workers are behind.
        Err(error) if plan.streams.iter().all(|stream| !plan.reads_stream(stream)) => {
            tracing::warn!(%error, "cannot open the configured sources; the replay reads raw/ only, and does not give way to live workers");
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let aside = match aside {
        Some(aside) => aside,
        None => open_aside(&config, &plan, &opened, aws).await?,
    };
    identity::claim(&*aside.lake, fingerprint.as_deref()).await?;
    let live: Vec<Arc<dyn ShardSource>> = opened.into_iter().map(|opened| opened.source).collect();
    let pace = Arc::new(Pace::default());
    let within = config.worker.retry.within;
    let record_bytes_max = usize::try_from(config.worker.limits.record_bytes).unwrap_or(usize::MAX);
    let (objects, paced) = (Arc::clone(&lake), Arc::clone(&pace));
    let source = ReplaySource::new(&plan, live.clone(), objects, paced, within, record_bytes_max);
    let live = if is_scratch { Vec::new() } else { live };
    job(config, plan, pseudonym_key, clock, workers, Opened { lake, aside, live, pace, source }).await
}

/// Opens a replay for ending it: its workers read slices that end at once. No source and no key is needed.
///
/// # Errors
/// A store cannot be opened.
pub async fn open_for_ending(
    config: Config,
    plan: Plan,
    clock: &SharedClock,
    aws: Option<&Aws>,
) -> Result<Job, OpenError> {
    let lake = open_lake(&config, aws).await?;
    let aside = open_aside(&config, &plan, &[], aws).await?;
    let source = ReplaySource::ending(&plan, Arc::clone(&lake));
    let (live, pace) = (Vec::new(), Arc::new(Pace::default()));
    job(config, plan, None, clock, 1, Opened { lake, aside, live, pace, source }).await
}

/// The aside lake inside the lake, and the lease table of the live workers.
async fn open_aside(
    config: &Config,
    plan: &Plan,
    opened: &[OpenedSource],
    aws: Option<&Aws>,
) -> Result<Aside, OpenError> {
    let (policy, of_leases) = policies(config);
    let lake = policy.run("opening the lake", || open_lake_of_any_format(config, aws)).await?;
    let (place, options) = (config.checkpoints().backend(), &config.checkpoints_options);
    let opening = || place.open(options, stream_ids(config, opened), aws);
    let leases = of_leases.run("opening the lease store", opening).await?;
    Ok(Aside { lake: Arc::new(InsideLake::new(lake, &plan.aside_prefix())), leases })
}

struct Opened {
    lake: Arc<dyn ObjectStore>,
    aside: Aside,
    live: Vec<Arc<dyn ShardSource>>,
    pace: Arc<Pace>,
    source: ReplaySource,
}

async fn job(
    config: Config,
    plan: Plan,
    pseudonym_key: Option<PseudonymKey>,
    clock: &SharedClock,
    workers: usize,
    Opened { lake, aside, live, pace, source }: Opened,
) -> Result<Job, OpenError> {
    let (policy, of_leases) = policies(&config);
    let stores = Stores::with_policies((aside.lake, policy), (aside.leases, of_leases)).with_clock(Arc::clone(clock));
    let stores = stores.with_streams([plan.id.stream()]);
    migrate(&stores, config.worker.leases.failover).await?;
    let settings = settings_of(&config.worker, workers);
    let lanes = lane_config(config, &plan.streams, pseudonym_key, None, false)
        .map_err(|error| OpenError::Unavailable(error.to_string()))?;
    let commit_interval = settings.commit.interval;
    let make_worker = workers_of(settings, Arc::new(lanes), stores.clone(), Arc::new(source), Arc::clone(clock));
    let clock = Arc::clone(clock);
    Ok(Job { plan, lake, aside: stores, live, pace, commit_interval, clock, make_worker })
}

/// What one of several workers of a process runs by.
fn settings_of(settings: &WorkerSettings, workers: usize) -> WorkerSettings {
    let mut settings = settings.clone();
    settings.output.raw = None;
    let count = u64::try_from(workers.max(1)).unwrap_or(u64::MAX);
    settings.limits.memory = (settings.limits.memory / count).max(WORKER_MEMORY_MIN.min(settings.limits.memory));
    settings.limits.threads = (settings.limits.threads / workers.max(1)).max(1);
    settings
}

fn workers_of(
    settings: WorkerSettings,
    lanes: Arc<LaneConfig>,
    stores: Stores,
    source: Arc<dyn ShardSource>,
    clock: SharedClock,
) -> MakeWorker {
    Box::new(move || {
        let parts = WorkerParts {
            stores: stores.clone(),
            sources: vec![Arc::clone(&source)],
            raw_sink: None,
            clock: Arc::clone(&clock),
            until_caught_up: true,
        };
        let mut worker = worker_config(settings.clone(), Arc::clone(&lanes), parts)?;
        worker.definitions = Some(DefinitionClaims::new(false));
        Ok(worker)
    })
}
