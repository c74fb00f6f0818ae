//! Replays among the events: planned, run aside, promoted and undone, while workers run and other operations are at work.
//!
//! Owns: when a process of a replay begins, and what it does. Does not own: the steps themselves (the product's `replay`), what must be true of
//! the lake meanwhile (`auditor`), when processes are killed (`operations`).
//!
//! A process takes a replay that another one has left half-way, or plans a new one. It runs the workers of the replay until everything is
//! read again, and promotes it. It may be undone later, as any operation. Two processes may do the same at once. Records are read again from the streams:
//! the environment in memory has raw objects without identities of records in some runs only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::LeaseOwner;
use pipeline::dataset::{Datasets, DefinitionText};
use pipeline::encode::EncoderConfig;
use pipeline::lane::LaneConfig;
use shardlake::clock::SharedClock;
use shardlake::commit::lake_log::AddedObject;
use shardlake::commit::{DefinitionOfEpoch, LakePart, ManifestKind, Stores, SwapOrder};
use shardlake::config::{CommitConfig, LeaseConfig, Limits, WorkerSettings};
use shardlake::lake::{InsideLake, ObjectKey};
use shardlake::maintenance::operation::{self, OperationError, Operator, Work};
use shardlake::replay::planning::{Bound, PlanRequest, PlanningError, Surroundings, plan_replay};
use shardlake::replay::run::{Ended, Job, RunOptions, RunWatch};
use shardlake::replay::{Plan, Purpose, ReplayId, save_plan};
use shardlake::source::ShardSource;
use shardlake::source::replay::{Pace, RawIdentities, ReplaySource};
use shardlake::worker::{Compute, WorkerConfig};
use tokio_util::sync::CancellationToken;

use super::FAILOVER;
use super::operations::{Done, Replaced, copy, judge, live, removed, some_order};
use super::workers::{ROLL_UPS, SNAPSHOT_EVERY};
use crate::environment::Connected;
use crate::faults::FaultKind;
use crate::network::Network;
use crate::records::{DEFINITION, RECORD_BYTES_MAX};
use crate::rng::Rng;

/// Plans that were made, and may be run, promoted and undone.
pub(super) type Plans = Arc<Mutex<Vec<Plan>>>;

/// Makes the lanes of a worker from the names of its streams.
pub(super) type MakeLanes = Box<dyn Fn(&[String]) -> Arc<LaneConfig> + Send + Sync>;

/// What a process of a replay needs.
pub(super) struct Replaying {
    pub(super) connected: Connected,
    pub(super) network: Arc<Network>,
    pub(super) clock: SharedClock,
    pub(super) rng: Rng,
    pub(super) plans: Plans,
    pub(super) done: Done,
    /// Makes the lanes of workers that read these streams.
    pub(super) lanes: MakeLanes,
}

fn datasets() -> Datasets {
    let text = DefinitionText { file: "orders.toml".to_owned(), text: DEFINITION.to_owned() };
    Datasets::compile(&[text], &|_, _| Err("none".to_owned())).expect("a good definition")
}

impl Replaying {
    /// Runs the process. What prevents it is left to the next one. Fails if something is broken.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let Some(plan) = self.plan().await? else { return Ok(()) };
        match self
            .job(plan.clone())
            .run(RunOptions { workers: 1, rate: None }, &RunWatch::default(), &CancellationToken::new())
            .await
        {
            Ok(Ended::Complete) => self.network.tally().note(FaultKind::Replayed),
            Ok(_) => return Ok(()),
            Err(error) => return unless_broken(&error),
        }
        self.promote(&plan).await
    }

    /// A plan that another process has left, or a new one.
    async fn plan(&mut self) -> Result<Option<Plan>, String> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !known.is_empty() && self.rng.chance(600) {
            return Ok(Some(known[self.rng.index(known.len())].clone()));
        }
        let lake = &self.connected.stores.lake;
        let (datasets, identities) = (datasets(), RawIdentities::new(Arc::clone(lake)));
        let definition = |name: &str| {
            let number = datasets.find(name).expect("it is the only one");
            DefinitionOfEpoch { hash: datasets.version(number).to_owned(), schema_version: 0 }
        };
        let around = Surroundings {
            lake,
            sources: &self.connected.sources,
            identities: &identities,
            definitions: BTreeMap::from([("orders".to_owned(), definition("orders"))]),
            now_ms: self.clock.now_ms(),
            commit_interval_s: 1,
            prices: None,
        };
        let open = || (Bound::Open, "trim-horizon".to_owned());
        let request = PlanRequest {
            purpose: Purpose::Replay,
            from: open(),
            to: open(),
            streams: BTreeSet::new(),
            dataset: None,
            into: None,
            prefers_streams: true,
        };
        let id = ReplayId::from_random(self.rng.draw().to_le_bytes()[..4].try_into().expect("four bytes"));
        let plan = match plan_replay(&around, &request, id).await {
            Ok(plan) => plan,
            // A shard that was forgotten cannot be read again.
            Err(PlanningError::Missing(_) | PlanningError::Usage(_)) => return Ok(None),
            Err(error) => return unless_broken(&error).map(|()| None),
        };
        if save_plan(&**lake, &plan).await.is_err() {
            return Ok(None);
        }
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).push(plan.clone());
        Ok(Some(plan))
    }

    fn aside(&self, plan: &Plan) -> Stores {
        let stores = &self.connected.stores;
        let lake = InsideLake::new(Arc::clone(&stores.lake_once), &plan.aside_prefix());
        Stores::new(Arc::new(lake), Arc::clone(&stores.leases_once), self.network.retry())
            .with_streams([plan.id.stream()])
            .with_clock(Arc::clone(&self.clock))
    }

    fn job(&mut self, plan: Plan) -> Job {
        let (pace, live) = (Arc::new(Pace::default()), self.connected.sources.clone());
        let lake = Arc::clone(&self.connected.stores.lake);
        let within = self.network.retry_within;
        let source =
            ReplaySource::new(&plan, live.clone(), Arc::clone(&lake), Arc::clone(&pace), within, RECORD_BYTES_MAX);
        let source: Arc<dyn ShardSource> = Arc::new(source);
        let (aside, clock) = (self.aside(&plan), Arc::clone(&self.clock));
        let streams: Vec<String> = plan.streams.iter().map(ToString::to_string).collect();
        let (lanes, rng, stores) = ((self.lanes)(&streams), Mutex::new(self.rng.fork()), aside.clone());
        let commit_interval = Duration::from_millis(200 + self.rng.below(2_000));
        let its_clock = Arc::clone(&clock);
        let make_worker = move || {
            let mut bytes = [0; 16];
            let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
            bytes[..8].copy_from_slice(&rng.draw().to_le_bytes());
            bytes[8..].copy_from_slice(&rng.draw().to_le_bytes());
            Ok(WorkerConfig {
                me: LeaseOwner::from_random(bytes),
                sources: vec![Arc::clone(&source)],
                stores: stores.clone(),
                raw_sink: None,
                clock: Arc::clone(&its_clock),
                compute: Compute::Inline,
                lanes: Arc::clone(&lanes),
                settings: WorkerSettings {
                    commit: CommitConfig { interval: commit_interval, input_bytes: 1 << 30 },
                    leases: LeaseConfig { failover: FAILOVER, hand_off: Duration::from_secs(8) },
                    limits: Limits { memory: 64 << 20, threads: 1, open_objects: 16, ..Limits::default() },
                    ..WorkerSettings::default()
                },
                encoder: EncoderConfig::default(),
                roll_ups: ROLL_UPS,
                snapshot_every: SNAPSHOT_EVERY,
                definitions: None,
                after_commit: Vec::new(),
                until_caught_up: true,
            })
        };
        Job { plan, lake, aside, live, pace, commit_interval, clock, make_worker: Box::new(make_worker) }
    }

    /// Promotes a replay that is complete.
    async fn promote(&mut self, plan: &Plan) -> Result<(), String> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rng.draw().to_le_bytes());
        bytes[8..].copy_from_slice(&self.rng.draw().to_le_bytes());
        let (me, random) = (LeaseOwner::from_random(bytes), self.rng.draw().to_le_bytes());
        let stores = self.connected.stores.clone();
        let operator = Operator::new(me, stores.clone(), Arc::clone(&self.clock), FAILOVER, random).await;
        let mut operator = match operator {
            Ok(operator) => operator,
            Err(error) => return unless_broken(&error),
        };
        let order = some_order(&mut self.rng);
        let work = Promotion { plan: plan.clone(), aside: self.aside(plan), objects: Mutex::default(), order };
        let parts = BTreeSet::from([LakePart::Dataset("orders".to_owned()), LakePart::Error]);
        if parts.len() > stores.leases.decision_shards_max() {
            return Ok(());
        }
        match operator.run(ManifestKind::Replace, &parts, &work).await {
            Ok(Some(manifest)) => {
                self.network.tally().note(FaultKind::ReplayPromoted);
                let objects = work.objects.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.done.lock().unwrap_or_else(PoisonError::into_inner).push(Replaced { manifest, objects });
            }
            Ok(None) => {}
            Err(error) => return judge(&error, true),
        }
        operator.close().await;
        Ok(())
    }
}

/// What promoting a replay adds and removes.
struct Promotion {
    plan: Plan,
    aside: Stores,
    /// The objects that it removes.
    objects: Mutex<Vec<AddedObject>>,
    order: Option<SwapOrder>,
}

#[async_trait]
impl Work for Promotion {
    async fn plan(&self, stores: &Stores, plan: &mut operation::Plan) -> Result<(), OperationError> {
        let parts = [LakePart::Dataset("orders".to_owned()), LakePart::Error].into();
        let (Some(live), Some(made)) = (live(stores, &parts).await, live(&self.aside, &parts).await) else {
            return Ok(());
        };
        let superseded: BTreeSet<&ObjectKey> = self.plan.superseded.iter().map(|object| &object.key).collect();
        let objects: Vec<AddedObject> = live.into_iter().filter(|object| superseded.contains(&object.key)).collect();
        // Another operation has removed what it replaces: it must be planned again.
        if objects.len() != superseded.len() {
            return Ok(());
        }
        plan.belongs_to(format!("replay:{}", self.plan.id));
        plan.add_sources(self.plan.epochs.iter().cloned());
        if let Some(order) = self.order {
            plan.swap(order);
        }
        for object in &made {
            let source = ObjectKey::new(format!("{}{}", self.plan.aside_prefix(), object.key)).expect("a plain key");
            copy(stores, plan, object, &source).await?;
        }
        objects.iter().for_each(|object| plan.remove(removed(object)));
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = objects;
        Ok(())
    }
}

/// A process may fail because a service does not answer, or because others were faster. It must not fail because of what it finds.
fn unless_broken(error: &dyn std::fmt::Display) -> Result<(), String> {
    let text = error.to_string();
    if super::workers::is_broken(&text) { Err(format!("a replay ended: {text}")) } else { Ok(()) }
}
