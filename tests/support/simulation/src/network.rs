//! The network between one worker and its environment. Every request of the worker goes through it.
//!
//! Owns:
//!
//! - what happens to a request: it takes time, is lost before or after its effect, takes effect long after it timed out, is
//!   throttled, refused, or never answered; for a moment, or for as long as an outage lasts;
//! - whether the worker runs: a killed worker does nothing any more, and a paused one neither sends nor receives until it
//!   resumes.
//!
//! Does not own: what a request does, and how an error looks to the caller (`in_memory`, `cloud`). Everything follows from the
//! worker's own random generator and the order of its requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkpoints::ShardId;
use shardlake::retry::RetryPolicy;
use tokio::time::Instant;

use crate::faults::{FaultKind, Tally};
use crate::rng::Rng;
use crate::trace::Trace;

/// The service that a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The object store.
    Lake,
    /// The lease table.
    Leases,
    /// The stream.
    Stream,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 3] = [Service::Lake, Service::Leases, Service::Stream];

    fn partitioned(self) -> FaultKind {
        [FaultKind::LakePartitioned, FaultKind::LeasesPartitioned, FaultKind::StreamPartitioned][self as usize]
    }

    /// The outage of the service.
    pub fn out(self) -> FaultKind {
        [FaultKind::LakeOut, FaultKind::LeasesOut, FaultKind::StreamOut][self as usize]
    }

    fn throttled(self) -> FaultKind {
        [FaultKind::LakeThrottled, FaultKind::LeasesThrottled, FaultKind::StreamThrottled][self as usize]
    }
}

/// How many of 1,000 requests meet each fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Lost, half of them before their effect and half after it.
    pub lost: u64,
    /// Timed out, and carried out later.
    pub late: u64,
    /// Throttled.
    pub throttled: u64,
    /// Slow.
    pub slow: u64,
    /// Never answered.
    pub hung: u64,
    /// Further slow requests among those for a page of a list.
    pub slow_pages: u64,
    /// Whether some workers crash or pause at a request.
    pub crashes: bool,
}

/// The request at which a worker crashes or pauses. A worker waits for its environment only in requests, so these are all
/// the moments at which it can crash.
#[derive(Debug, Clone, Copy)]
pub struct CrashPoint {
    /// Only requests to this service count.
    pub service: Service,
    /// Of these, only the steps of commits.
    pub steps_only: bool,
    /// Requests before this one.
    pub after: u64,
    /// Whether the request takes effect first, and its reply arrives too late.
    pub after_effect: bool,
    /// How long the worker is paused. None: it is killed.
    pub pause: Option<Duration>,
}

/// Whether a request is a step of a commit or of a recovery, by the names that either environment uses.
fn is_step(operation: &str) -> bool {
    let steps = [
        "begin_upload",
        "complete_upload",
        "abort_upload",
        "put_new",
        "delete",
        "decide",
        "advance",
        "roll_back",
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "PutObject",
        "DeleteObject",
        "TransactWriteItems",
        "UpdateItem",
    ];
    steps.contains(&operation)
}

/// Why a request has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkError {
    /// It timed out.
    Lost,
    /// The service was overloaded, or failed. The number chooses one of its error replies.
    Throttled(u64),
    /// The service refuses, and a retry would not help.
    Refused,
}

/// Called after each effect, with the service, the operation, and the key.
pub type Audit = Box<dyn Fn(Service, &str, &str) + Send + Sync>;

/// What the networks of all workers of a fleet share.
pub struct Shared {
    /// What occurred.
    pub tally: Arc<Tally>,
    /// What happened, in order.
    pub trace: Mutex<Trace>,
    /// Audits the environment after each effect.
    pub audit: Audit,
    /// Requests that are to create leases and have not taken effect yet.
    pub creating: Arc<AtomicUsize>,
}

/// A request that is to create leases, until it takes effect or is lost.
struct Creating(Arc<AtomicUsize>);

impl Creating {
    fn of(counter: &Arc<AtomicUsize>, operation: &str) -> Option<Self> {
        (operation == "create").then(|| {
            counter.fetch_add(1, Ordering::Relaxed);
            Creating(Arc::clone(counter))
        })
    }
}

impl Drop for Creating {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The network of one worker.
#[derive(Debug)]
pub struct Network {
    worker: u32,
    state: Mutex<State>,
    shared: Arc<Shared>,
    /// Whether this worker runs a later version than the others.
    pub later_version: bool,
    /// How long the worker waits for a service.
    pub retry_within: Duration,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    rates: Rates,
    is_alive: bool,
    paused_until: Option<Instant>,
    partitioned_until: [Option<Instant>; 3],
    refused_until: [Option<Instant>; 3],
    swallowed_until: [Option<Instant>; 3],
    /// A shard that the worker cannot read.
    stuck: Option<ShardId>,
    crash_point: Option<CrashPoint>,
    clock_ms: i64,
}

enum Fate {
    Arrives,
    LostBefore,
    LostAfter,
    Late(Duration),
    Fails(NetworkError),
    Hangs,
}

impl Network {
    /// The network of a worker.
    pub fn new(
        worker: u32,
        rng: Rng,
        rates: Rates,
        clock_ms: i64,
        later_version: bool,
        retry_within: Duration,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        let state = State {
            rng,
            rates,
            is_alive: true,
            paused_until: None,
            partitioned_until: [None; 3],
            refused_until: [None; 3],
            swallowed_until: [None; 3],
            stuck: None,
            crash_point: None,
            clock_ms,
        };
        Arc::new(Network { worker, state: Mutex::new(state), shared, later_version, retry_within })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What occurred in the fleet.
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// Kills the worker: no request that it sends from now on has an effect.
    pub fn kill(&self) {
        self.state().is_alive = false;
    }

    /// Lets the worker crash or pause at a later request.
    pub fn crash_at(&self, point: CrashPoint) {
        self.state().crash_point = Some(point);
    }

    /// Whether the worker has not been killed.
    pub fn is_alive(&self) -> bool {
        self.state().is_alive
    }

    /// Pauses the worker.
    pub fn pause(&self, time: Duration) {
        self.state().paused_until = Some(Instant::now() + time);
    }

    /// Makes a service unreachable for some time.
    pub fn partition(&self, service: Service, time: Duration) {
        self.shared.tally.note(service.partitioned());
        self.state().partitioned_until[service as usize] = Some(Instant::now() + time);
    }

    /// Makes a service refuse everything for some time.
    pub fn refuse(&self, service: Service, time: Duration) {
        self.state().refused_until[service as usize] = Some(Instant::now() + time);
    }

    /// Makes a service take requests for some time and never answer them.
    pub fn swallow(&self, service: Service, time: Duration) {
        self.state().swallowed_until[service as usize] = Some(Instant::now() + time);
    }

    /// Makes a shard unreadable for this worker, for ever.
    pub fn stick(&self, shard: ShardId) {
        self.state().stuck = Some(shard);
    }

    /// Whether the worker cannot read this shard.
    pub fn is_stuck(&self, shard: &ShardId) -> bool {
        self.state().stuck.as_ref() == Some(shard)
    }

    /// How the worker's calls are repeated.
    pub fn retry(&self) -> RetryPolicy {
        RetryPolicy::within(self.retry_within)
    }

    /// Moves the worker's clock.
    pub fn move_clock(&self, by_ms: i64) {
        self.state().clock_ms += by_ms;
    }

    /// The error of the worker's clock, in milliseconds.
    pub fn clock_ms(&self) -> i64 {
        self.state().clock_ms
    }

    /// Ends the faults. A paused or killed worker stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        state.rates = Rates::default();
        state.crash_point = None;
        state.partitioned_until = [None; 3];
        state.refused_until = [None; 3];
    }

    /// Sends a request that does `effect`. `operation` is its name, and `about` is the key that it is for.
    pub async fn send<R: Send + 'static>(
        self: &Arc<Self>,
        service: Service,
        operation: &str,
        about: &str,
        effect: impl Future<Output = R> + Send + 'static,
    ) -> Result<R, NetworkError> {
        let creating = Creating::of(&self.shared.creating, operation);
        let (out, back) = self.delays(operation);
        tokio::time::sleep(out).await;
        self.wait_until_running().await;
        let crash = self.crashes_at(service, operation);
        if let Some(crash) = crash.filter(|crash| !crash.after_effect) {
            self.trace(operation, about, "the worker crashes before it");
            self.crash(crash);
            self.wait_until_running().await;
        }
        let fate = if crash.is_some_and(|crash| crash.after_effect) { Fate::Arrives } else { self.fate(service) };
        let trace = |fate: &'static str| self.trace(operation, about, fate);
        match fate {
            Fate::Arrives => {
                trace("");
                let result = effect.await;
                drop(creating);
                (self.shared.audit)(service, operation, about);
                if let Some(crash) = crash.filter(|crash| crash.after_effect) {
                    trace("the worker crashes after it");
                    self.crash(crash);
                }
                tokio::time::sleep(back).await;
                self.wait_until_running().await;
                Ok(result)
            }
            Fate::LostBefore => {
                trace("lost before its effect");
                tokio::time::sleep(back).await;
                Err(NetworkError::Lost)
            }
            Fate::LostAfter => {
                trace("its reply is lost");
                effect.await;
                (self.shared.audit)(service, operation, about);
                tokio::time::sleep(back).await;
                self.wait_until_running().await;
                Err(NetworkError::Lost)
            }
            Fate::Late(time) => {
                trace("timed out");
                let (me, operation, about) = (Arc::clone(self), operation.to_owned(), about.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    me.trace(&operation, &about, "late");
                    effect.await;
                    (me.shared.audit)(service, &operation, &about);
                    drop(creating);
                });
                Err(NetworkError::Lost)
            }
            Fate::Fails(error) => {
                trace("refused");
                tokio::time::sleep(back).await;
                Err(error)
            }
            Fate::Hangs => {
                trace("never answered");
                std::future::pending().await
            }
        }
    }

    /// The crash point of the worker, if this is the request for it.
    fn crashes_at(&self, service: Service, operation: &str) -> Option<CrashPoint> {
        let mut state = self.state();
        let point = state.crash_point.as_mut().filter(|point| point.service == service)?;
        if point.steps_only && !is_step(operation) {
            return None;
        }
        if point.after > 0 {
            point.after -= 1;
            return None;
        }
        state.crash_point.take()
    }

    fn crash(&self, point: CrashPoint) {
        let mut state = self.state();
        match point.pause {
            None => {
                self.shared.tally.note(FaultKind::KilledAtRequest);
                state.is_alive = false;
            }
            Some(time) => {
                self.shared.tally.note(FaultKind::PausedAtRequest);
                state.paused_until = Some(Instant::now() + time);
            }
        }
    }

    fn delays(&self, operation: &str) -> (Duration, Duration) {
        let mut state = self.state();
        let is_page =
            ["list", "Scan", "ListShards", "ListObjectsV2", "ListMultipartUploads", "ListObjects"].contains(&operation);
        let slow = state.rates.slow + if is_page { state.rates.slow_pages } else { 0 };
        if state.rng.chance(slow) {
            self.shared.tally.note(FaultKind::Slow);
            let time = 1_000 + state.rng.below(5_000);
            let out = state.rng.below(time);
            return (Duration::from_millis(out), Duration::from_millis(time - out));
        }
        (Duration::from_millis(state.rng.below(12)), Duration::from_millis(state.rng.below(12)))
    }

    /// Waits while the worker is paused; for ever, if it was killed.
    async fn wait_until_running(&self) {
        loop {
            let (is_alive, until) = {
                let state = self.state();
                (state.is_alive, state.paused_until)
            };
            if !is_alive {
                std::future::pending::<()>().await;
            }
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    fn fate(&self, service: Service) -> Fate {
        let mut state = self.state();
        let now = Instant::now();
        let tally = &self.shared.tally;
        if state.refused_until[service as usize].is_some_and(|until| until > now) {
            tally.note(FaultKind::Refused);
            return Fate::Fails(NetworkError::Refused);
        }
        if state.partitioned_until[service as usize].is_some_and(|until| until > now) {
            return Fate::LostBefore;
        }
        if state.swallowed_until[service as usize].is_some_and(|until| until > now) {
            return Fate::Hangs;
        }
        let Rates { lost, late, throttled, hung, .. } = state.rates;
        let drawn = state.rng.below(1000);
        let bounds = [lost / 2, lost, lost + late, lost + late + throttled, lost + late + throttled + hung];
        match bounds.iter().position(|bound| drawn < *bound) {
            Some(0) => {
                tally.note(FaultKind::LostBefore);
                Fate::LostBefore
            }
            Some(1) => {
                tally.note(FaultKind::LostAfter);
                Fate::LostAfter
            }
            Some(2) => {
                tally.note(FaultKind::Late);
                let most = state.rng.one_of(&[200, 5_000, 60_000]);
                Fate::Late(Duration::from_millis(state.rng.below(most)))
            }
            Some(3) => {
                tally.note(service.throttled());
                Fate::Fails(NetworkError::Throttled(state.rng.draw()))
            }
            Some(_) => {
                tally.note(FaultKind::Hung);
                Fate::Hangs
            }
            None => Fate::Arrives,
        }
    }

    fn trace(&self, operation: &str, about: &str, fate: &str) {
        let mut trace = self.shared.trace.lock().unwrap_or_else(PoisonError::into_inner);
        trace.add(self.worker, operation, about, fate);
    }
}
