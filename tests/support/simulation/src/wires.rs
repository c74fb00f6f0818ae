//! One worker's wires to the world: every request of the worker goes through them.
//!
//! Owns: what becomes of a request: it takes time, is lost before or after its effect, takes effect long after it was given
//! up, is throttled, refused or never answered; and the worker's power: a worker without power does nothing any more, one
//! that is asleep sends and hears nothing until it wakes. Does not own: what a request does, nor what a refusal looks like to
//! the one who asked (`plain`, `aws`). Everything follows from the worker's own generator and the order of its requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::faults::{Kind, Tally};
use crate::rng::Rng;
use crate::trace::Trace;

/// What a request is for.
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

    fn parted(self) -> Kind {
        [Kind::LakeParted, Kind::LeasesParted, Kind::StreamParted][self as usize]
    }

    fn throttled(self) -> Kind {
        [Kind::LakeThrottled, Kind::LeasesThrottled, Kind::StreamThrottled][self as usize]
    }
}

/// Requests in 1,000 that meet each fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Lost before or after their effect, half each.
    pub lost: u64,
    /// Given up, and carried out later.
    pub late: u64,
    /// Throttled.
    pub throttled: u64,
    /// Slow.
    pub slow: u64,
    /// Never answered.
    pub hung: u64,
    /// Requests for a page of a list that are slow, beside the slow ones of all.
    pub slow_pages: u64,
    /// Whether some workers fall at a request.
    pub falls: bool,
}

/// What befalls a worker at one of its requests: every request, and so every wait on the world, is a place to crash at.
#[derive(Debug, Clone, Copy)]
pub struct Fall {
    /// Requests to this service count.
    pub service: Service,
    /// Of these, only the steps of commits.
    pub steps_only: bool,
    /// Requests that go by before.
    pub after: u64,
    /// Whether the request takes effect first, and its answer comes too late.
    pub behind: bool,
    /// How long the worker stands still; none: it has lost its power.
    pub pause: Option<Duration>,
}

/// Whether a request is a step of a commit or of a recovery, in either world's words.
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

/// Why a request brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing came back.
    Lost,
    /// The service had too much to do, or failed. The number chooses among its ways to say so.
    Throttled(u64),
    /// The service refuses for good.
    Refused,
}

/// Is told of an effect: on which service, what it was called, and what it was about.
pub type Audit = Box<dyn Fn(Service, &str, &str) + Send + Sync>;

/// What all wires of a fleet share.
pub struct Shared {
    /// What occurred.
    pub tally: Arc<Tally>,
    /// What happened in which order.
    pub trace: Mutex<Trace>,
    /// Looks at the world after each effect.
    pub audit: Audit,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// One worker's wires.
#[derive(Debug)]
pub struct Wires {
    worker: u32,
    state: Mutex<State>,
    shared: Arc<Shared>,
    /// Whether this worker is of a later version than the others.
    pub later_version: bool,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    rates: Rates,
    has_power: bool,
    asleep_until: Option<Instant>,
    parted_until: [Option<Instant>; 3],
    refused_until: [Option<Instant>; 3],
    /// Whether anything was ever refused.
    was_refused: bool,
    fall: Option<Fall>,
    clock_ms: i64,
}

enum Fate {
    Arrives,
    LostBefore,
    LostAfter,
    Late(Duration),
    Trouble(Trouble),
    Hangs,
}

impl Wires {
    /// The wires of a worker.
    pub fn new(
        worker: u32,
        rng: Rng,
        rates: Rates,
        clock_ms: i64,
        later_version: bool,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        let state = State {
            rng,
            rates,
            has_power: true,
            asleep_until: None,
            parted_until: [None; 3],
            refused_until: [None; 3],
            was_refused: false,
            fall: None,
            clock_ms,
        };
        Arc::new(Wires { worker, state: Mutex::new(state), shared, later_version })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What occurred in the fleet.
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// The worker is gone: whatever it asks for from now on never happens.
    pub fn cut(&self) {
        self.state().has_power = false;
    }

    /// The worker falls at a request to come.
    pub fn fall(&self, fall: Fall) {
        self.state().fall = Some(fall);
    }

    /// Whether the worker still runs.
    pub fn has_power(&self) -> bool {
        self.state().has_power
    }

    /// The worker stands still for a while.
    pub fn sleep(&self, time: Duration) {
        self.state().asleep_until = Some(Instant::now() + time);
    }

    /// A service can't be reached for a while.
    pub fn part(&self, service: Service, time: Duration) {
        self.shared.tally.note(service.parted());
        self.state().parted_until[service as usize] = Some(Instant::now() + time);
    }

    /// A service refuses everything for a while.
    pub fn refuse(&self, service: Service, time: Duration) {
        let mut state = self.state();
        state.refused_until[service as usize] = Some(Instant::now() + time);
        state.was_refused = true;
    }

    /// Whether anything was ever refused.
    pub fn was_refused(&self) -> bool {
        self.state().was_refused
    }

    /// Moves the worker's clock.
    pub fn move_clock(&self, by_ms: i64) {
        self.state().clock_ms += by_ms;
    }

    /// How far the worker's clock is off, milliseconds.
    pub fn clock_ms(&self) -> i64 {
        self.state().clock_ms
    }

    /// No more faults. Whoever sleeps or has no power stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        state.rates = Rates::default();
        state.fall = None;
        state.parted_until = [None; 3];
        state.refused_until = [None; 3];
    }

    /// Sends a request, whose effect is `effect`. `operation` is its name, `about` what it is about.
    pub async fn send<R: Send + 'static>(
        self: &Arc<Self>,
        service: Service,
        operation: &str,
        about: &str,
        effect: impl Future<Output = R> + Send + 'static,
    ) -> Result<R, Trouble> {
        let (out, back) = self.delays(operation);
        tokio::time::sleep(out).await;
        self.be_awake().await;
        let fall = self.falls(service, operation);
        if let Some(fall) = fall.filter(|fall| !fall.behind) {
            self.trace(operation, about, "the worker falls before it");
            self.fell(fall);
            self.be_awake().await;
        }
        let fate = if fall.is_some_and(|fall| fall.behind) { Fate::Arrives } else { self.fate(service) };
        let message_of = |fate: &'static str| self.trace(operation, about, fate);
        match fate {
            Fate::Arrives => {
                message_of("");
                let result = effect.await;
                (self.shared.audit)(service, operation, about);
                if let Some(fall) = fall.filter(|fall| fall.behind) {
                    message_of("the worker falls behind it");
                    self.fell(fall);
                }
                tokio::time::sleep(back).await;
                self.be_awake().await;
                Ok(result)
            }
            Fate::LostBefore => {
                message_of("lost before its effect");
                tokio::time::sleep(back).await;
                Err(Trouble::Lost)
            }
            Fate::LostAfter => {
                message_of("its answer lost");
                effect.await;
                (self.shared.audit)(service, operation, about);
                tokio::time::sleep(back).await;
                self.be_awake().await;
                Err(Trouble::Lost)
            }
            Fate::Late(time) => {
                message_of("given up");
                let (me, operation, about) = (Arc::clone(self), operation.to_owned(), about.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    me.trace(&operation, &about, "late");
                    effect.await;
                    (me.shared.audit)(service, &operation, &about);
                });
                Err(Trouble::Lost)
            }
            Fate::Trouble(trouble) => {
                message_of("refused");
                tokio::time::sleep(back).await;
                Err(trouble)
            }
            Fate::Hangs => {
                message_of("never answered");
                std::future::pending().await
            }
        }
    }

    /// Whether this is the request at which the worker falls.
    fn falls(&self, service: Service, operation: &str) -> Option<Fall> {
        let mut state = self.state();
        let fall = state.fall.as_mut().filter(|fall| fall.service == service)?;
        if fall.steps_only && !is_step(operation) {
            return None;
        }
        if fall.after > 0 {
            fall.after -= 1;
            return None;
        }
        state.fall.take()
    }

    fn fell(&self, fall: Fall) {
        let mut state = self.state();
        match fall.pause {
            None => {
                self.shared.tally.note(Kind::KilledAtRequest);
                state.has_power = false;
            }
            Some(time) => {
                self.shared.tally.note(Kind::PausedAtRequest);
                state.asleep_until = Some(Instant::now() + time);
            }
        }
    }

    fn delays(&self, operation: &str) -> (Duration, Duration) {
        let mut state = self.state();
        let is_page = ["list", "Scan", "ListShards", "ListObjectsV2", "ListMultipartUploads"].contains(&operation);
        let slow = state.rates.slow + if is_page { state.rates.slow_pages } else { 0 };
        if state.rng.chance(slow) {
            self.shared.tally.note(Kind::Slow);
            let time = 1_000 + state.rng.below(5_000);
            let out = state.rng.below(time);
            return (Duration::from_millis(out), Duration::from_millis(time - out));
        }
        (Duration::from_millis(state.rng.below(12)), Duration::from_millis(state.rng.below(12)))
    }

    /// Waits until the worker is awake; for ever, if it has no power.
    async fn be_awake(&self) {
        loop {
            let (has_power, until) = {
                let state = self.state();
                (state.has_power, state.asleep_until)
            };
            if !has_power {
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
            tally.note(Kind::Refused);
            return Fate::Trouble(Trouble::Refused);
        }
        if state.parted_until[service as usize].is_some_and(|until| until > now) {
            return Fate::LostBefore;
        }
        let Rates { lost, late, throttled, hung, .. } = state.rates;
        let drawn = state.rng.below(1000);
        let bounds = [lost / 2, lost, lost + late, lost + late + throttled, lost + late + throttled + hung];
        match bounds.iter().position(|bound| drawn < *bound) {
            Some(0) => {
                tally.note(Kind::LostBefore);
                Fate::LostBefore
            }
            Some(1) => {
                tally.note(Kind::LostAfter);
                Fate::LostAfter
            }
            Some(2) => {
                tally.note(Kind::Late);
                let most = state.rng.one_of(&[200, 5_000, 60_000]);
                Fate::Late(Duration::from_millis(state.rng.below(most)))
            }
            Some(3) => {
                tally.note(service.throttled());
                Fate::Trouble(Trouble::Throttled(state.rng.draw()))
            }
            Some(_) => {
                tally.note(Kind::Hung);
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
