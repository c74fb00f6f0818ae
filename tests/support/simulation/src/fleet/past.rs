//! Work on the past among the events: replays are planned, run aside, promoted, undone and purged, while workers run and other operations
//! are at work.
//!
//! Owns: what a process does that works on the past. Does not own: the steps themselves (the product's `replay`), `redrives`, what must be
//! true of the lake meanwhile (`auditor`), when processes begin and are killed (`operations`).
//!
//! A process takes a replay that another one has left half-way, or plans a new one. It runs the workers of the replay until everything is
//! read again, and promotes it. Another process undoes it, or purges it. Two processes may do the same at once, and any of them may be
//! suspended for an hour. Records are read again from the streams, or from `raw/` where their epochs have landed there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::LeaseOwner;
use pipeline::dataset::{Datasets, DefinitionText};
use pipeline::encode::EncoderConfig;
use pipeline::lane::LaneConfig;
use shardlake::clock::SharedClock;
use shardlake::commit::{DefinitionOfEpoch, Stores, SwapOrder};
use shardlake::config::{CommitConfig, LeaseConfig, Limits, WorkerSettings};
use shardlake::lake::{DefinitionClaims, InsideLake};
use shardlake::maintenance::operation::Operator;
use shardlake::replay::planning::{Bound, PlanRequest, PlanningError, Surroundings, plan_replay};
use shardlake::replay::promote::{Aside, PromoteError, PromoteOptions, Refusal};
use shardlake::replay::run::{Ended, Job, RunError, RunOptions, RunWatch};
use shardlake::replay::{Plan, Purpose, ReplayId, promote, replay_lake_of, save_plan};
use shardlake::source::ShardSource;
use shardlake::source::replay::{Pace, RawIdentities, ReplaySource};
use shardlake::worker::{Compute, WorkerConfig};
use tokio_util::sync::CancellationToken;

use super::FAILOVER;
use super::operations::judge;
use super::workers::{ROLL_UPS, SNAPSHOT_EVERY, is_broken, lanes};
use crate::auditor::Auditor;
use crate::environment::Connected;
use crate::faults::FaultKind;
use crate::network::Network;
use crate::records::{DEFINITION, RECORD_BYTES_MAX};
use crate::rng::Rng;

/// Plans that were made, and may be run, promoted, undone and purged.
pub(super) type Plans = Arc<Mutex<Vec<Plan>>>;

/// A process that works on the past.
pub(super) struct Past {
    pub(super) connected: Connected,
    pub(super) network: Arc<Network>,
    pub(super) clock: SharedClock,
    pub(super) rng: Rng,
    pub(super) plans: Plans,
    pub(super) auditor: Arc<Auditor>,
    /// Whether nothing disturbs it, so that everything must be done.
    pub(super) calm: bool,
    /// Whether the streams keep every record.
    pub(super) keeps_records: bool,
}

fn datasets() -> Datasets {
    let text = DefinitionText { file: "orders.toml".to_owned(), text: DEFINITION.to_owned() };
    Datasets::compile(&[text], &|_, _| Err("none".to_owned())).expect("a good definition")
}

pub(super) fn owner(rng: &mut Rng) -> LeaseOwner {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&rng.draw().to_le_bytes());
    bytes[8..].copy_from_slice(&rng.draw().to_le_bytes());
    LeaseOwner::from_random(bytes)
}

impl Past {
    /// Runs the process. What prevents it is left to the next one. Fails if something is broken.
    pub(super) async fn run(mut self) -> Result<(), String> {
        if self.calm {
            return self.all_in_order().await;
        }
        // An operation has rows of all parts that it changes.
        let most = self.connected.stores.leases.decision_shards_max();
        match self.rng.below(10) {
            0..=4 => drop(self.replay().await?),
            5 | 6 if most > 1 => drop(self.undo(None).await?),
            7 if most > 1 => drop(self.purge(None).await?),
            8 if most > 1 => drop(self.redrive().await?),
            _ => drop(self.discard().await?),
        }
        Ok(())
    }

    /// Everything that can be done with the past, one after the other. All of it must succeed.
    async fn all_in_order(&mut self) -> Result<(), String> {
        if self.connected.stores.leases.decision_shards_max() < 2 {
            return Ok(());
        }
        let promoted = self.replay().await?;
        if let Some(plan) = &promoted
            && !self.undo(Some(plan.clone())).await?
        {
            return Err(format!("replay {} was promoted, and not undone", plan.id));
        }
        if !self.redrive().await? {
            return Err("dead letters were not redriven".to_owned());
        }
        self.auditor.check_redriven()?;
        match promoted {
            Some(plan) if !self.purge(Some(plan.clone())).await? => {
                Err(format!("replay {} was undone, and not purged", plan.id))
            }
            _ => Ok(()),
        }
    }

    /// A process may fail because a service does not answer, or because others were faster. It must not fail because of what it finds.
    pub(super) fn left_undone(&self, what: &str, error: &dyn Display) -> Result<bool, String> {
        let text = error.to_string();
        if self.calm || is_broken(&text) { Err(format!("{what} ended: {text}")) } else { Ok(false) }
    }

    /// The same of a command on a replay. Whoever purges one takes away what others read.
    fn left_undone_of(&self, plan: &Plan, what: &str, error: &dyn Display) -> Result<bool, String> {
        let is_purged = self.auditor.has(&format!("_replays/{}/purged.json", plan.id));
        if is_purged && !self.calm { Ok(false) } else { self.left_undone(what, error) }
    }

    /// Runs a replay, and promotes it. Returns it if that was done.
    async fn replay(&mut self) -> Result<Option<Plan>, String> {
        let Some(plan) = self.plan().await? else { return Ok(None) };
        let job = self.job(plan.clone());
        if let Err(error) = job.check().await {
            return self.left_undone_of(&plan, "a replay", &error).map(|_| None);
        }
        let options = RunOptions { workers: 1, rate: None };
        match job.run(options, &RunWatch::default(), &CancellationToken::new()).await {
            Ok(Ended::Complete) => self.network.tally().note(FaultKind::Replayed),
            Ok(_) => return Ok(None),
            Err(error @ RunError::Short(_)) if self.keeps_records => {
                let is_purged = self.auditor.has(&format!("_replays/{}/purged.json", plan.id));
                return if is_purged { Ok(None) } else { Err(format!("a replay ended: {error}")) };
            }
            Err(error) => return self.left_undone_of(&plan, "a replay", &error).map(|_| None),
        }
        Ok(self.promote(&plan).await?.then_some(plan))
    }

    /// A plan that another process has left, if there is one.
    fn known_plan(&mut self) -> Option<Plan> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() { None } else { Some(known[self.rng.index(known.len())].clone()) }
    }

    /// From which time on the past is replayed: from its beginning, or from some time.
    fn from(&mut self) -> Bound {
        if self.calm || self.rng.chance(600) {
            return Bound::Open;
        }
        let back = i64::try_from(self.rng.below(120_000)).unwrap_or(0);
        Bound::Time(self.clock.now_ms() - back)
    }

    /// A plan that another process has left, or a new one.
    async fn plan(&mut self) -> Result<Option<Plan>, String> {
        if !self.calm
            && self.rng.chance(600)
            && let Some(plan) = self.known_plan()
        {
            return Ok(Some(plan));
        }
        let from = (self.from(), "a time".to_owned());
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
        let request = PlanRequest {
            purpose: Purpose::Replay,
            from,
            to: (Bound::Open, "now".to_owned()),
            streams: BTreeSet::new(),
            dataset: None,
            into: None,
            prefers_streams: self.rng.chance(500),
        };
        let id = ReplayId::from_random(self.rng.draw().to_le_bytes()[..4].try_into().expect("four bytes"));
        let plan = match plan_replay(&around, &request, id).await {
            Ok(plan) => plan,
            // A shard that was forgotten cannot be read again; or there is nothing yet.
            Err(PlanningError::Missing(_) | PlanningError::Usage(_)) => return Ok(None),
            Err(error) => return self.left_undone("planning a replay", &error).map(|_| None),
        };
        if let Err(error) = save_plan(&**lake, &plan).await {
            return self.left_undone("planning a replay", &error).map(|_| None);
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
        let (lanes, rng, stores) =
            (Arc::new(lanes(&streams, false, false)), Mutex::new(self.rng.fork()), aside.clone());
        let commit_interval = Duration::from_millis(200 + self.rng.below(2_000));
        let its_clock = Arc::clone(&clock);
        let make_worker = move || {
            let me = owner(&mut rng.lock().unwrap_or_else(PoisonError::into_inner));
            let config = worker(me, Arc::clone(&source), stores.clone(), Arc::clone(&its_clock), Arc::clone(&lanes));
            let commit = CommitConfig { interval: commit_interval, ..config.settings.commit };
            Ok(WorkerConfig { settings: WorkerSettings { commit, ..config.settings.clone() }, ..config })
        };
        Job { plan, lake, aside, live, pace, commit_interval, clock, make_worker: Box::new(make_worker) }
    }

    /// A process that runs operations. None: the stores do not answer.
    pub(super) async fn operator(&mut self) -> Result<Option<Operator>, String> {
        let (me, random) = (owner(&mut self.rng), self.rng.draw().to_le_bytes());
        let stores = self.connected.stores.clone();
        match Operator::new(me, stores, Arc::clone(&self.clock), FAILOVER, random).await {
            Ok(operator) => Ok(Some(operator)),
            Err(error) => self.left_undone("an operation", &error).map(|_| None),
        }
    }

    /// Promotes a replay that is complete.
    async fn promote(&mut self, plan: &Plan) -> Result<bool, String> {
        let Some(mut operator) = self.operator().await? else { return Ok(false) };
        let stores = self.connected.stores.clone();
        if stores.leases.decision_shards_max() < 2 {
            return Ok(false);
        }
        let (lake, prefix) = (replay_lake_of(&stores.lake, plan), plan.aside_prefix());
        let aside = Aside { lake: &lake, prefix: &prefix };
        let (claims, datasets) = (DefinitionClaims::default(), datasets());
        let options = PromoteOptions { order: self.order(), accept_difference: false };
        let (clock, definitions) = (Arc::clone(&self.clock), (&claims, &datasets));
        let done = promote::promote(&mut operator, &stores, &*clock, plan, aside, definitions, options).await;
        if let Err(PromoteError::Refused(refusal @ Refusal::OtherRecords { .. })) = &done
            && self.keeps_records
            && !self.auditor.has(&format!("_replays/{}/purged.json", plan.id))
        {
            return Err(format!("a replay is complete, and is not promoted: {refusal}"));
        }
        self.finish(operator, plan, done.map(drop), FaultKind::ReplayPromoted).await
    }

    fn order(&mut self) -> SwapOrder {
        self.rng.one_of(&[SwapOrder::AddFirst, SwapOrder::RemoveFirst])
    }

    /// Undoes a promoted replay: this one, or some.
    async fn undo(&mut self, plan: Option<Plan>) -> Result<bool, String> {
        let Some(plan) = plan.or_else(|| self.known_plan()) else { return Ok(false) };
        let Some(mut operator) = self.operator().await? else { return Ok(false) };
        let (stores, clock, order) = (self.connected.stores.clone(), Arc::clone(&self.clock), self.order());
        let done = promote::undo(&mut operator, &stores, &*clock, &plan, order).await;
        self.finish(operator, &plan, done.map(drop), FaultKind::ReplayUndone).await
    }

    /// Purges a replay: this one, or some.
    async fn purge(&mut self, plan: Option<Plan>) -> Result<bool, String> {
        let Some(plan) = plan.or_else(|| self.known_plan()) else { return Ok(false) };
        let Some(mut operator) = self.operator().await? else { return Ok(false) };
        let (stores, clock) = (self.connected.stores.clone(), Arc::clone(&self.clock));
        let (lake, prefix) = (replay_lake_of(&stores.lake, &plan), plan.aside_prefix());
        let aside = Aside { lake: &lake, prefix: &prefix };
        let done = promote::purge(&mut operator, &stores, &*clock, &plan, aside).await;
        self.finish(operator, &plan, done.map(drop), FaultKind::ReplayPurged).await
    }

    /// Whether a command on a replay was done, which is then noted.
    async fn finish(
        &self,
        operator: Operator,
        plan: &Plan,
        done: Result<(), PromoteError>,
        kind: FaultKind,
    ) -> Result<bool, String> {
        match done {
            Ok(()) => {
                self.network.tally().note(kind);
                operator.close().await;
                Ok(true)
            }
            Err(PromoteError::Operation(error)) if !self.calm => judge(&error, true).map(|()| false),
            Err(error) => self.left_undone_of(plan, "a command on a replay", &error),
        }
    }
}

/// A worker that reads some of the past into a lake aside.
pub(super) fn worker(
    me: LeaseOwner,
    source: Arc<dyn ShardSource>,
    stores: Stores,
    clock: SharedClock,
    lanes: Arc<LaneConfig>,
) -> WorkerConfig {
    WorkerConfig {
        me,
        sources: vec![source],
        stores,
        raw_sink: None,
        clock,
        compute: Compute::Inline,
        lanes,
        settings: WorkerSettings {
            commit: CommitConfig { interval: Duration::from_secs(1), input_bytes: 1 << 30 },
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
    }
}
