//! What the page shows of the lease table and the lake, read in the background.
//!
//! Owns: which requests are made and how often, and what is remembered between two reads: who is alive, and since when something is so.
//! Does not own: when somebody watches (the parent module), the log (`lake_log`).
//!
//! A read fails as a whole after a few seconds, and is made again later. What was read before stays, with its age.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Holder, Lease, LeaseOwner, ShardKey, StreamName};
use tokio::time::{Instant, timeout};

use crate::commit::is_internal_stream;
use crate::commit::log::{ObjectTotal, Watermark};
use crate::commit::{ObjectKind, Totals, is_operations_stream};
use crate::inspect::LogLine;
use crate::inspect::leases::{ShardState, states};
use crate::lake::InsideLake;
use crate::named_checkpoints::{EndingCheckpoint, ending_checkpoints};
use crate::replay::plan::{Plan, ReplayId, list_plans};
use crate::replay::status::{Evidence, ReplayStatus, State, status_of};
use crate::server::fleet::lake_log::LogReader;
use crate::server::fleet::model::{DeadLetterCode, Operation, RecentFile};
use crate::server::site::{Mode, View};
use crate::source::losses::{self, Loss};

/// The time between two reads of the lease table and the log.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// The time between two reads of losses and replays.
const SELDOM: Duration = Duration::from_secs(15);
/// The time between two questions for the retention of streams.
const RARELY: Duration = Duration::from_secs(600);
/// How long a read may take, and the first read of the log, which begins at the newest snapshot.
const WITHIN: Duration = Duration::from_secs(10);
const FIRST_WITHIN: Duration = Duration::from_secs(60);

/// What the lease table says.
#[derive(Default)]
pub(super) struct LeaseFacts {
    pub(super) leases: Vec<Lease>,
    pub(super) states: HashMap<ShardKey, ShardState>,
    /// Workers that hold leases, and for how long their counters have not moved; zero if they have.
    pub(super) silent: BTreeMap<LeaseOwner, Duration>,
    /// Since when a shard that can be read has no holder.
    pub(super) free_since: HashMap<ShardKey, Instant>,
    /// Since when a decided epoch is not finished.
    pub(super) pending_since: HashMap<ShardKey, Instant>,
    pub(super) operations: Vec<Operation>,
}

/// What was read.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) table: Arc<LeaseFacts>,
    pub(super) complete_through: HashMap<ShardKey, i64>,
    pub(super) log: Option<LogFacts>,
    pub(super) replays: Vec<ReplayStatus>,
    pub(super) losses: Vec<Loss>,
    pub(super) ending_checkpoints: Vec<EndingCheckpoint>,
    pub(super) retentions: BTreeMap<StreamName, Duration>,
    pub(super) by_minute: (Vec<u64>, Vec<u64>),
    /// What failed in the last read, and how.
    pub(super) failures: Vec<(&'static str, String)>,
    pub(super) read_at: Option<Instant>,
}

/// What the log says.
pub(super) struct LogFacts {
    pub(super) version: u64,
    pub(super) entered_at: Option<String>,
    pub(super) epochs: u64,
    pub(super) totals: Totals,
    pub(super) objects: BTreeMap<ObjectKind, ObjectTotal>,
    pub(super) watermarks: Vec<Watermark>,
    pub(super) commits: Vec<LogLine>,
    pub(super) files: Vec<RecentFile>,
    pub(super) dead_letters: Vec<DeadLetterCode>,
}

/// Reads, and remembers what the next read is compared with.
pub(super) struct StoreReader {
    view: Arc<View>,
    /// The lease table as it was last read.
    table: Arc<LeaseFacts>,
    counters: HashMap<ShardKey, u64>,
    moved_at: BTreeMap<LeaseOwner, Instant>,
    free_since: HashMap<ShardKey, Instant>,
    pending_since: HashMap<ShardKey, Instant>,
    /// Since when an operation holds a part of the lake.
    operations_since: HashMap<ShardKey, Instant>,
    log: LogReader,
    seldom_at: Option<Instant>,
    rarely_at: Option<Instant>,
    replays: BTreeMap<ReplayId, KnownReplay>,
    losses: Vec<Loss>,
    ending_checkpoints: Vec<EndingCheckpoint>,
    retentions: BTreeMap<StreamName, Duration>,
}

/// A replay. Those that have ended do not change any more.
struct KnownReplay {
    /// `None` once it has ended.
    plan: Option<Box<Plan>>,
    status: ReplayStatus,
}

impl StoreReader {
    pub(super) fn new(view: Arc<View>) -> Self {
        StoreReader {
            view,
            table: Arc::default(),
            counters: HashMap::new(),
            moved_at: BTreeMap::new(),
            free_since: HashMap::new(),
            pending_since: HashMap::new(),
            operations_since: HashMap::new(),
            log: LogReader::default(),
            seldom_at: None,
            rarely_at: None,
            replays: BTreeMap::new(),
            losses: Vec::new(),
            ending_checkpoints: Vec::new(),
            retentions: BTreeMap::new(),
        }
    }

    /// Reads everything that is due. `now_ms`: the time of day.
    pub(super) async fn read(&mut self, now_ms: i64) -> Snapshot {
        let view = Arc::clone(&self.view);
        let mut snapshot = Snapshot { read_at: Some(Instant::now()), ..Snapshot::default() };
        let listed = limited(async {
            let mut leases = view.stores.leases_once.list().await.map_err(|error| error.to_string())?;
            if let Mode::Replay(stream) = &view.mode {
                leases.retain(|lease| lease.key.stream == *stream);
                return Ok(leases);
            }
            let foreign = view.stores.foreign_streams(&leases).await.map_err(|error| error.to_string())?;
            leases.retain(|lease| !foreign.contains(&lease.key.stream));
            Ok::<Vec<Lease>, String>(leases)
        });
        match listed.await {
            Ok(leases) => self.table = Arc::new(self.judge(leases)),
            Err(problem) => snapshot.failures.push(("the lease table", problem)),
        }
        snapshot.table = Arc::clone(&self.table);
        let within = if self.log.at().is_some() { WITHIN } else { FIRST_WITHIN };
        if let Err(problem) = within_time(within, self.log.advance(&*view.stores.lake_once, now_ms)).await {
            snapshot.failures.push(("the log of the lake", problem));
        }
        if is_due(self.rarely_at, RARELY) {
            self.ask_streams().await;
        }
        if is_due(self.seldom_at, SELDOM) {
            match limited(self.read_seldom(now_ms)).await {
                Ok(()) => self.seldom_at = Some(Instant::now()),
                Err(problem) => snapshot.failures.push(("losses and replays", problem)),
            }
        }
        self.show_log(now_ms, &mut snapshot);
        snapshot.replays = self.replays.values().map(|replay| replay.status.clone()).collect();
        // The newest first; those that need somebody before the others.
        snapshot.replays.sort_by(|one, other| other.made_at.cmp(&one.made_at));
        snapshot.losses.clone_from(&self.losses);
        snapshot.ending_checkpoints.clone_from(&self.ending_checkpoints);
        snapshot.retentions.clone_from(&self.retentions);
        snapshot
    }

    /// What follows from the rows of the lease table.
    fn judge(&mut self, leases: Vec<Lease>) -> LeaseFacts {
        let now = Instant::now();
        let (internal, leases): (Vec<Lease>, Vec<Lease>) = match &self.view.mode {
            // The slices of a replay are its shards.
            Mode::Replay(stream) => leases.into_iter().partition(|lease| lease.key.stream != *stream),
            Mode::Run | Mode::UntilCaughtUp => {
                leases.into_iter().partition(|lease| is_internal_stream(&lease.key.stream))
            }
        };
        for lease in &leases {
            let Some(owner) = lease.holder.committer() else { continue };
            let before = self.counters.insert(lease.key.clone(), lease.counter);
            // A worker that is seen for the first time is taken to be alive.
            if before != Some(lease.counter) || !self.moved_at.contains_key(owner) {
                self.moved_at.insert(owner.clone(), now);
            }
        }
        let owners: BTreeSet<&LeaseOwner> = leases.iter().filter_map(|lease| lease.holder.committer()).collect();
        self.moved_at.retain(|owner, _| owners.contains(owner));
        let keys: BTreeSet<&ShardKey> = leases.iter().map(|lease| &lease.key).collect();
        self.counters.retain(|key, _| keys.contains(key));
        // The counter of a live worker moves at every second beat, and is seen at the next read.
        let limit = self.view.failover + 2 * EVERY;
        let silent = |at: &Instant| if at.elapsed() > limit { at.elapsed() } else { Duration::ZERO };
        let silent: BTreeMap<LeaseOwner, Duration> =
            self.moved_at.iter().map(|(owner, at)| (owner.clone(), silent(at))).collect();
        let is_alive = |(owner, silent): (&LeaseOwner, &Duration)| silent.is_zero().then(|| owner.clone());
        let alive = silent.iter().filter_map(is_alive).collect();
        let states: HashMap<ShardKey, ShardState> =
            states(&leases, &alive).into_iter().map(|(key, state)| (key.clone(), state)).collect();
        let is_free = |lease: &&Lease| states.get(&lease.key) == Some(&ShardState::Free);
        self.free_since = still(&self.free_since, leases.iter().filter(is_free));
        self.pending_since = still(&self.pending_since, leases.iter().filter(|lease| lease.pending.is_some()));
        let at_work = |lease: &&Lease| {
            is_operations_stream(&lease.key.stream) && (lease.holder != Holder::Nobody || lease.pending.is_some())
        };
        self.operations_since = still(&self.operations_since, internal.iter().filter(at_work));
        let operation = |lease: &Lease| Operation {
            part: lease.key.shard.clone(),
            owner: lease.holder.committer().cloned(),
            pending: lease.pending.as_ref().map(|pending| pending.manifest.to_string()),
            since_s: self.operations_since.get(&lease.key).map_or(0.0, |since| since.elapsed().as_secs_f64()),
        };
        let operations = internal.iter().filter(at_work).map(operation).collect();
        let (free_since, pending_since) = (self.free_since.clone(), self.pending_since.clone());
        LeaseFacts { leases, states, silent, free_since, pending_since, operations }
    }

    /// What follows from the log.
    fn show_log(&self, now_ms: i64, snapshot: &mut Snapshot) {
        snapshot.by_minute = self.log.by_minute(now_ms);
        let Some(at) = self.log.at() else { return };
        let arrivals = &at.fold.arrivals;
        let through = |lease: &Lease| Some((lease.key.clone(), arrivals.complete_through(&lease.key)?));
        snapshot.complete_through = snapshot.table.leases.iter().filter_map(through).collect();
        snapshot.log = Some(LogFacts {
            version: at.version.0,
            entered_at: at.entered_at.clone(),
            epochs: at.fold.epochs,
            totals: at.fold.totals(),
            objects: at.live_by_kind(),
            watermarks: arrivals.watermarks(at.chains.ends(), &snapshot.table.leases),
            commits: self.log.commits.iter().cloned().collect(),
            files: self.log.files.iter().cloned().collect(),
            dead_letters: self.log.dead_letters(),
        });
    }

    /// Asks the streams how long they keep records.
    async fn ask_streams(&mut self) {
        let view = Arc::clone(&self.view);
        for source in &view.sources {
            match limited(source.retention()).await {
                Ok(Some(retention)) => drop(self.retentions.insert(source.stream().clone(), retention)),
                Ok(None) => {}
                Err(problem) => tracing::debug!(problem, "cannot tell how long a stream keeps its records"),
            }
        }
        self.rarely_at = Some(Instant::now());
    }

    /// Losses, checkpoints that end, dead letters, and replays.
    async fn read_seldom(&mut self, now_ms: i64) -> Result<(), String> {
        let view = Arc::clone(&self.view);
        let lake = &*view.stores.lake_once;
        self.log.read_positions(lake).await;
        if matches!(view.mode, Mode::Replay(_)) {
            return Ok(());
        }
        let losses = losses::list(lake).await.map_err(|error| error.to_string())?;
        self.losses = losses.into_iter().filter(|(_, then)| then.is_none()).map(|(loss, _)| loss).collect();
        let ending = ending_checkpoints(lake, &view.sources, now_ms).await;
        self.ending_checkpoints = ending.map_err(|error| error.to_string())?;
        self.read_replays(&view).await
    }

    async fn read_replays(&mut self, view: &View) -> Result<(), String> {
        let has_new = has_other_plans(view, &self.replays).await?;
        if has_new {
            let (plans, _) = list_plans(&*view.stores.lake_once).await.map_err(|error| error.to_string())?;
            let ids: BTreeSet<ReplayId> = plans.iter().map(|saved| saved.plan.id.clone()).collect();
            self.replays.retain(|id, _| ids.contains(id));
            for saved in plans {
                if !self.replays.contains_key(&saved.plan.id) {
                    let status = replay_status(view, &saved.plan).await?;
                    let known = KnownReplay { plan: Some(Box::new(saved.plan)), status };
                    self.replays.insert(known.status.id.clone(), known);
                }
            }
        }
        for replay in self.replays.values_mut() {
            if let Some(plan) = &replay.plan {
                replay.status = replay_status(view, plan).await?;
                if has_ended(replay.status.state) {
                    replay.plan = None;
                }
            }
        }
        Ok(())
    }
}

fn has_ended(state: State) -> bool {
    matches!(state, State::Cancelled | State::Purged | State::Undone)
}

/// Whether the lake has other plans than those that are known.
async fn has_other_plans(view: &View, known: &BTreeMap<ReplayId, KnownReplay>) -> Result<bool, String> {
    let listed = view.stores.lake_once.list(pipeline::layout::REPLAY_PLANS).await.map_err(|error| error.to_string())?;
    let listed: BTreeSet<&str> =
        listed.iter().filter_map(|object| pipeline::layout::id_of_replay_plan(object.key.as_str())).collect();
    Ok(listed != known.keys().map(ReplayId::as_str).collect())
}

async fn replay_status(view: &View, plan: &Plan) -> Result<ReplayStatus, String> {
    let lake = &view.stores.lake_once;
    let aside = InsideLake::new(Arc::clone(lake), &plan.aside_prefix());
    // A page asks every few seconds, so it does not read the log for this.
    let status = status_of(&**lake, &aside, Some(&*view.stores.leases_once), plan, Evidence::Markers).await;
    status.map_err(|error| error.to_string())
}

fn is_due(at: Option<Instant>, every: Duration) -> bool {
    at.is_none_or(|at| at.elapsed() >= every)
}

/// Since when these leases are as they are.
fn still<'l>(before: &HashMap<ShardKey, Instant>, now: impl Iterator<Item = &'l Lease>) -> HashMap<ShardKey, Instant> {
    let since = |lease: &Lease| before.get(&lease.key).copied().unwrap_or_else(Instant::now);
    now.map(|lease| (lease.key.clone(), since(lease))).collect()
}

async fn limited<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    within_time(WITHIN, work).await
}

async fn within_time<T, E: std::fmt::Display>(
    within: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(within, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no response for {} s", within.as_secs())),
    }
}
