//! Running a replay: the ordinary worker on the aside lake, until every slice has ended.
//!
//! Owns: starting and stopping workers as somebody asks, and the judgement that the replay is complete. Does not own: what a worker does
//! (`worker`), what was asked (`control`), the rate (`throttle`).
//!
//! Any number of processes may run one replay: the same command on several machines. They share the slices by leases, and each sees
//! within seconds what was asked. Pausing stops the workers, which commit what they have read and release their leases. A process that is
//! killed leaves what any worker leaves: the others continue, or the next start does.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{LeaseStore, StoreError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::commit::Stores;
use crate::commit::lake_log::{HistoryError, extent, lake_at, read_forward};
use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::maintenance;
use crate::replay::control::{ControlError, Wanted, wanted};
use crate::replay::plan::{Plan, Purpose};
use crate::replay::progress::{AsideProgress, Short};
use crate::replay::status::has_marker;
use crate::replay::throttle::{Throttle, ThrottleState};
use crate::source::ShardSource;
use crate::source::replay::Pace;
use crate::worker::{self, Progress, WorkerConfig, WorkerError};

/// How often it is checked what was asked.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// The age from which a sweep of the aside lake removes uploads whose worker may be alive.
const SWEEP_AGE: Duration = Duration::from_secs(86_400);

/// Makes the configuration of one worker that reads the slices into the aside lake.
pub type MakeWorker = Box<dyn Fn() -> std::io::Result<WorkerConfig> + Send + Sync>;

/// A replay that was opened.
pub struct Job {
    /// What to do.
    pub plan: Plan,
    /// The lake.
    pub lake: Arc<dyn ObjectStore>,
    /// The aside lake and the lease table.
    pub aside: Stores,
    /// The configured sources, which live workers read.
    pub live: Vec<Arc<dyn ShardSource>>,
    /// The rate of all workers of this process.
    pub pace: Arc<Pace>,
    /// The time between two commits.
    pub commit_interval: Duration,
    /// The time of day.
    pub clock: SharedClock,
    /// Makes a worker.
    pub make_worker: MakeWorker,
}

/// How many workers, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// Workers in this process.
    pub workers: usize,
    /// Bytes of records a second in this process; `None`: as fast as it can.
    pub rate: Option<u64>,
}

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every slice was read to its end.
    Complete,
    /// This process was stopped. The rest is left to others, or to the next start.
    Stopped,
    /// Somebody has cancelled the replay.
    Cancelled,
}

/// Why a run has failed. What was committed before stays.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The log of a lake cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// What was asked of the replay cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The lease table failed.
    #[error(transparent)]
    Leases(#[from] StoreError),
    /// A worker cannot be started.
    #[error("a worker cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// An object that the replay replaces is not live any more.
    #[error(
        "the lake has changed since replay {plan} was planned: {key} was replaced by another operation. Plan again, and cancel this one"
    )]
    Outdated {
        /// The replay.
        plan: String,
        /// The object.
        key: ObjectKey,
    },
    /// The replay has done its work before this start.
    #[error("replay {plan} was {what} already; plan another one")]
    Over {
        /// The replay.
        plan: String,
        /// What was done with it last.
        what: &'static str,
    },
    /// The replay was cancelled before this start.
    #[error("replay {0} was cancelled, which is final; plan another one")]
    Cancelled(String),
    /// Slices have ended with fewer records than the epochs had.
    #[error("{}", ShortText(.0))]
    Short(Vec<Short>),
    /// The workers have ended, and slices are left.
    #[error("{0} slices were not read to their ends; start the replay again")]
    Incomplete(usize),
}

impl RunError {
    /// Whether the user can fix it by calling otherwise. Nothing was touched then.
    pub fn is_usage(&self) -> bool {
        matches!(self, RunError::Outdated { .. } | RunError::Cancelled(_) | RunError::Over { .. })
    }
}

struct ShortText<'s>(&'s [Short]);

impl std::fmt::Display for ShortText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "DATA LOSS: the stream does not have all records of the range any more, so the replay cannot replace what the lake has. \
             Cancel it, and plan again:",
        )?;
        self.0
            .iter()
            .try_for_each(|Short { slice, expected, found }| write!(f, "\n  {slice}: {found} of {expected} records"))
    }
}

/// What whoever watches a run can see.
#[derive(Debug, Default)]
pub struct RunWatch {
    /// Counters of the workers of this process.
    pub progress: Arc<Progress>,
    /// Whether the replay gives way to the live workers.
    pub throttle: Arc<ThrottleState>,
    /// What was asked.
    paused: std::sync::atomic::AtomicBool,
}

impl RunWatch {
    /// Whether the replay is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Job {
    /// Checks that the replay may run: see [`check_plan`].
    ///
    /// # Errors
    /// It may not, or the lake fails.
    pub async fn check(&self) -> Result<(), RunError> {
        check_plan(&*self.lake, &self.plan).await
    }

    /// Runs the replay until it is complete, or cancelled, or `stop` is cancelled.
    ///
    /// # Errors
    /// See [`RunError`]. The next start continues.
    pub async fn run(
        &self,
        options: RunOptions,
        watched: &RunWatch,
        stop: &CancellationToken,
    ) -> Result<Ended, RunError> {
        let mut wanted_now = wanted(&*self.lake, &self.plan.id).await?;
        let (sender, mut asked) = watch::channel(wanted_now);
        let _checking = AbortOnDrop(tokio::spawn(keep_checking(Arc::clone(&self.lake), self.plan.clone(), sender)));
        let throttle = Throttle {
            pace: Arc::clone(&self.pace),
            rate: options.rate,
            live: self.live.clone(),
            leases: Arc::clone(&self.aside.leases_once),
            commit_interval: self.commit_interval,
            state: Arc::clone(&watched.throttle),
        };
        let _throttling = AbortOnDrop(tokio::spawn(throttle.run()));
        // What processes of this replay have left that were killed.
        if let Err(error) = maintenance::sweep(&self.aside, self.clock.now_ms(), SWEEP_AGE, false).await {
            tracing::warn!(%error, "failed to sweep the aside lake; the next start tries again");
        }
        loop {
            watched.paused.store(wanted_now == Wanted::Paused, std::sync::atomic::Ordering::Relaxed);
            let ended = match wanted_now {
                Wanted::Cancelled => return Ok(Ended::Cancelled),
                Wanted::Paused => {
                    tracing::warn!(replay = %self.plan.id, "the replay is paused; waiting until somebody resumes it");
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(Ended::Stopped),
                        _ = asked.changed() => {}
                    }
                    false
                }
                Wanted::Running => self.run_workers(options.workers, watched, stop, &mut asked).await?,
            };
            if stop.is_cancelled() {
                return Ok(Ended::Stopped);
            }
            if ended {
                return self.judge().await;
            }
            wanted_now = *asked.borrow_and_update();
        }
    }

    /// Runs workers until all of them have ended. Returns true if they have read everything, and false if something else was asked or
    /// this process was stopped.
    async fn run_workers(
        &self,
        workers: usize,
        watched: &RunWatch,
        stop: &CancellationToken,
        asked: &mut watch::Receiver<Wanted>,
    ) -> Result<bool, RunError> {
        let token = stop.child_token();
        let mut running: JoinSet<Result<(), WorkerError>> = JoinSet::new();
        for _ in 0..workers.max(1) {
            running.spawn(worker::run((self.make_worker)()?, Arc::clone(&watched.progress), token.clone()));
        }
        let (mut failure, mut is_stopped) = (None, false);
        loop {
            tokio::select! {
                biased;
                ended = running.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => {
                        failure.get_or_insert(RunError::Worker(error));
                        token.cancel();
                    }
                    Some(Err(panic)) => {
                        failure.get_or_insert(RunError::Start(std::io::Error::other(panic)));
                        token.cancel();
                    }
                },
                changed = asked.changed(), if !is_stopped => {
                    is_stopped = changed.is_err() || *asked.borrow() != Wanted::Running;
                    if is_stopped {
                        token.cancel();
                    }
                }
            }
        }
        let Some(failure) = failure else { return Ok(!is_stopped && !stop.is_cancelled()) };
        // Whoever cancels a replay removes its leases, which a worker notices as a fault.
        if wanted(&*self.lake, &self.plan.id).await? == Wanted::Cancelled { Ok(false) } else { Err(failure) }
    }

    /// Whether everything was read, once the workers have ended.
    async fn judge(&self) -> Result<Ended, RunError> {
        let mut progress = AsideProgress::default();
        progress.advance(&*self.aside.lake, &self.plan).await?;
        let left = self.plan.slices.iter().filter(|slice| !progress.ended.contains(&slice.id)).count();
        if left > 0 {
            return Err(RunError::Incomplete(left));
        }
        let short = progress.short(&self.plan);
        if short.is_empty() { Ok(Ended::Complete) } else { Err(RunError::Short(short)) }
    }
}

/// Checks that a replay may run: it was neither cancelled nor promoted, and all that it replaces is live. Changes nothing.
///
/// # Errors
/// It may not, or the lake fails.
pub async fn check_plan(lake: &dyn ObjectStore, plan: &Plan) -> Result<(), RunError> {
    if wanted(lake, &plan.id).await? == Wanted::Cancelled {
        return Err(RunError::Cancelled(plan.id.to_string()));
    }
    for what in ["purged", "undone", "promoted"] {
        if has_marker(lake, &plan.id, what).await? {
            return Err(RunError::Over { plan: plan.id.to_string(), what });
        }
    }
    if plan.purpose == Purpose::WhatIf {
        return Ok(());
    }
    match gone(lake, plan).await? {
        Some(key) => Err(RunError::Outdated { plan: plan.id.to_string(), key }),
        None => Ok(()),
    }
}

/// An object that a plan replaces and that is not live any more.
///
/// # Errors
/// The lake fails, or its log is damaged.
pub async fn gone(lake: &dyn ObjectStore, plan: &Plan) -> Result<Option<ObjectKey>, HistoryError> {
    let extent = extent(lake).await?;
    let superseded: HashSet<&ObjectKey> = plan.superseded.iter().map(|object| &object.key).collect();
    let mut gone = None;
    let read = read_forward(lake, plan.version, extent.newest, None, &mut |entry| {
        if gone.is_none() {
            let keys = entry.removed.into_iter().map(|object| object.key);
            gone = keys.into_iter().find(|key| superseded.contains(key));
        }
    })
    .await;
    match read {
        Ok(_) => Ok(gone),
        // Entries since the plan were trimmed: the live objects show it.
        Err(HistoryError::Missing(_)) => {
            let at = lake_at(lake, &extent, extent.newest).await?;
            let mut missing = superseded;
            let mut live = at.live_objects(lake, crate::commit::lake_log::ObjectFilter::default());
            while let Some(object) = live.next().await? {
                missing.remove(&object.key);
            }
            Ok(missing.into_iter().min().cloned())
        }
        Err(error) => Err(error),
    }
}

/// Sends what is asked of the replay, each time it changes.
async fn keep_checking(lake: Arc<dyn ObjectStore>, plan: Plan, sender: watch::Sender<Wanted>) {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut attempts = crate::trouble::Trouble::new("reading what is asked of the replay").attempts();
    loop {
        ticks.tick().await;
        match wanted(&*lake, &plan.id).await {
            Ok(now) => {
                attempts.succeeded();
                sender.send_if_modified(|before| std::mem::replace(before, now) != now);
            }
            Err(error) => attempts.failed(&error),
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The leases of a replay, if the table has any.
///
/// # Errors
/// The lease table fails.
pub async fn has_leases(leases: &dyn LeaseStore, plan: &Plan) -> Result<bool, StoreError> {
    let stream = plan.id.stream();
    Ok(leases.list().await?.iter().any(|lease| lease.key.stream == stream))
}
