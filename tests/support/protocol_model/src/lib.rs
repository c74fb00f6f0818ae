//! The commit and lease protocol as a model whose states are all searched, with `stateright`.
//!
//! Owns: the protocol, as `checkpoints/`, `src/commit/` and `src/worker/` have it, at the granularity of single requests; the
//! numbered invariants as properties; and mutations, which check the model itself. Does not own: any code of the product, and
//! it uses none. So the model shows that the protocol is right, not that the code follows it. Its names are those of the code,
//! so that both can be read side by side. The simulation runs the code itself.
//!
//! # What is modelled
//!
//! - Workers: the coordinator's steps from reading to `advance`; `recover` with both its checks; the rollback with its reads of
//!   the rows one by one; `decide_once` with its judgement by rows. Beside it, the lease manager takes, finds, loses, asks for
//!   and releases leases.
//! - The lease table: `decide`, `advance` (row by row), `roll_back`, `take`, `ask`, `hand_over`, `release`, `renew`, each
//!   with its condition. A counter is not kept as a number: it only voids a `take` that saw an older one.
//! - The lake: uploads, which are completed at most once; intents; commit records; the lifecycle rule that aborts uploads.
//! - Time: none. A lease may be taken at any moment, from a live worker as from a dead one. A worker may stop between any two
//!   requests for as long as it likes.
//! - Requests: answered, or timed out. The sender of a request that timed out continues or has died. The request takes effect
//!   at any later moment or never. That covers a request lost before its effect, one lost after it, and a late one.
//! - Processes: killed before, during or after any request; ended by an error or a stop; started again under a new name.
//!
//! # What is bounded
//!
//! Two workers at a time, two shards, one or two records for each shard (a chunk is one record), one or two objects for each
//! epoch. The configuration limits deaths, lost requests, lost uploads and requests for a hand-off (`check::cases`). Steals from
//! live workers are unlimited if it says "any". Everything else is exhaustive: the order of all steps, how often an epoch is
//! refused, read again and recovered, how often a dead worker's lease changes hands.
//!
//! With [`Grain::Coarse`], a worker notices changes of its leases only between commits, though they are taken from it at any
//! time; and an epoch is read and ended in one step. With [`Grain::Fine`], neither holds.
//!
//! # What makes the search smaller
//!
//! - States that differ only in names are one.
//! - Epochs that nothing refers to, and requests that can no longer have an effect, are forgotten. (A test compares the verdict
//!   with the one without this.)
//! - A request, its effect and its answer are one step: its sender only waits between them.
//!
//! `stateright` distinguishes states by a 64-bit fingerprint. Among 10⁶ states, the chance that one is taken for another is
//! 3 in 10⁸.
//!
//! # What is left out
//!
//! - Bad records: their position moves in the same way.
//! - The raw landing through another service.
//! - Groups of more than one decision.
//! - `sweep`: its age exceeds the life of any request.
//! - Rows of shards that a stream has forgotten, and scans of the table that do not return every row.
//! - Named checkpoints.
//! - Which worker should take which lease, and what a worker does in another worker's name when it shuts down.
//!
//! Nobody sees what is staged before the intent names it. The stores are assumed to keep the promises of `src/lake/mod.rs`
//! and `checkpoints/src/store.rs`; `Mutation::SlowCompletion` shows what one of them is needed for.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of places are small, and those of states fit into memory"
)]

// In the order in which to read them.
pub mod state;

mod world;

mod worker;

mod lease_manager;

pub mod properties;

mod mutation;

mod symmetry;

pub mod check;

pub mod liveness;

pub mod narrative;

pub mod lake_log;

use stateright::{Model, Property};

pub use crate::mutation::Mutation;
use crate::state::{
    EPOCHS, Epoch, Faults, Holder, LATE, LeaseEvent, LeaseView, Life, Object, Phase, Request, Row, SHARDS, State,
    WORKERS, Worker, at, bits,
};
use crate::world::void_takes;

/// How the two shards are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Not at all. They have no end.
    Unrelated,
    /// The second is the child of the first, which has an end.
    ParentAndChild,
}

/// How finely a worker's work is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Leases come and go while an epoch is committed, and the coordinator learns of it late. An epoch may stay open between
    /// two chunks.
    Fine,
    /// Leases come and go, and chunks are read, only between commits.
    Coarse,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// How the shards are related.
    pub family: Family,
    /// How finely a worker's work is divided.
    pub grain: Grain,
    /// Records of each shard.
    pub records: u8,
    /// Objects of each epoch.
    pub objects: usize,
    /// Processes that run at the same time.
    pub workers: usize,
    /// Faults that may happen.
    pub faults: Faults,
    /// The rule that is left out.
    pub mutation: Option<Mutation>,
    /// Whether late requests that can no longer have an effect are forgotten.
    pub forgets: bool,
    /// Whether workers and epochs are renamed after each step, so that states that differ only in names are one.
    pub renames: bool,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process starts, under a new name.
    Start(u8),
    /// A process is killed.
    Kill(u8),
    /// A process fails or is stopped: it releases its leases, and ends.
    Fail(u8),
    /// The coordinator's next request is answered; the number tells which of several.
    Step(u8, u8),
    /// The coordinator's next request times out. It may arrive later.
    Lose(u8, u8),
    /// The rows could not be read, and the decision is sent again.
    DecideAgain(u8),
    /// A request that timed out arrives.
    Arrive(Request),
    /// A lease is taken.
    Take(u8, u8),
    /// A lease is taken, and the reply is lost.
    TakeReplyLost(u8, u8),
    /// A request to take a lease times out.
    TakeLost(u8, u8),
    /// A lease manager finds that its worker holds a lease.
    Find(u8, u8),
    /// A lease manager finds that its worker no longer holds a lease.
    LoseLease(u8, u8),
    /// A worker asks for a lease.
    Ask(u8, u8),
    /// A worker asks for a lease, and the request times out.
    AskLost(u8, u8),
    /// A worker learns that another asks for one of its leases.
    OnAsked(u8, u8),
    /// A worker hands over a requested lease for which its epoch has nothing.
    HandOver(u8, u8),
    /// The lease manager releases a lease.
    Release(u8, u8),
    /// The lease manager's request to release a lease times out.
    ReleaseLost(u8, u8),
    /// The holder renews, so that the counter moves.
    Renew(u8, u8),
    /// The coordinator receives what the lease manager reported about a lease.
    OnLeaseEvent(u8, u8),
    /// The lease manager learns that the coordinator found a lease in another worker's name.
    OnDisowned(u8, u8),
    /// A chunk of the shard is read.
    Read(u8, u8),
    /// A chunk of a replaced reader is read.
    ReadStale(u8, u8),
    /// The open epoch is committed. Coarse: first a chunk of each of these shards is read.
    Commit(u8, u8),
    /// The bucket's lifecycle rule aborts an upload.
    Expire(u8, u8),
    /// An object that was completed slowly becomes visible.
    Appear(u8, u8),
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let row = Row { holder: Holder::Nobody, checkpoint: 0, pending: None, last: None };
        let mut workers = [Worker::default(); WORKERS];
        workers.iter_mut().take(self.workers).for_each(|worker| worker.life = Life::Running);
        let epochs = [Epoch::default(); EPOCHS];
        let (faults, late) = (self.faults, [None; LATE]);
        vec![State { rows: [row; SHARDS], epochs, workers, late, faults, broken: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken != 0 {
            return;
        }
        let names = || (0..).zip(&state.workers);
        let running = names().filter(|(_, worker)| worker.life == Life::Running).count();
        if running < self.workers
            && let Some((name, _)) = names().find(|(_, worker)| worker.life == Life::NotYet)
        {
            actions.push(Action::Start(name));
        }
        for (name, worker) in names().filter(|(_, worker)| worker.life == Life::Running) {
            self.actions_of(state, name, worker, actions);
        }
        let mut before = None;
        for late in state.late.iter().flatten().filter(|late| before.replace(**late) != Some(**late)) {
            actions.push(Action::Arrive(*late));
        }
        for (number, epoch) in (0..).zip(&state.epochs).filter(|(_, epoch)| epoch.is_used) {
            for (object, is) in (0..).zip(&epoch.objects) {
                if *is == Object::Staged && state.faults.expiries > 0 {
                    actions.push(Action::Expire(number, object));
                }
                if *is == Object::Completing {
                    actions.push(Action::Appear(number, object));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        self.act(&mut state, action);
        self.forget(&mut state);
        if self.renames {
            state = symmetry::representative(&state);
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

impl Protocol {
    fn actions_of(&self, state: &State, name: u8, worker: &Worker, actions: &mut Vec<Action>) {
        let faults = state.faults;
        if faults.deaths > 0 {
            actions.push(Action::Kill(name));
            if !matches!(worker.phase, Phase::End { .. } | Phase::AbortRefused { fails: true, .. }) {
                actions.push(Action::Fail(name));
            }
        }
        for choice in bits(self.choices(worker.phase)) {
            actions.push(Action::Step(name, choice));
            if faults.losses > 0 && self.request(state, name, choice).is_some() {
                actions.push(Action::Lose(name, choice));
            }
        }
        if matches!(worker.phase, Phase::Judge { .. }) {
            actions.push(Action::DecideAgain(name));
        }
        if worker.phase == Phase::Idle {
            let readable = self.readable(state, name);
            match self.grain {
                Grain::Fine => actions.extend(bits(readable).map(|shard| Action::Read(name, shard))),
                Grain::Coarse => {
                    actions.extend(
                        (1..1 << SHARDS).filter(|mask| mask & !readable == 0).map(|mask| Action::Commit(name, mask)),
                    );
                }
            }
            if worker.open() != 0 {
                actions.push(Action::Commit(name, 0));
            }
        }
        for shard in 0..SHARDS {
            let number = shard as u8;
            if self.may_take(state, name, shard) {
                if may_steal(state, shard) {
                    actions.push(Action::Take(name, number));
                    if faults.losses > 0 {
                        actions.extend([Action::TakeReplyLost(name, number), Action::TakeLost(name, number)]);
                    }
                }
                if faults.asks > 0 && matches!(state.rows[shard].holder, Holder::Held(_)) {
                    actions.push(Action::Ask(name, number));
                    if faults.losses > 0 {
                        actions.push(Action::AskLost(name, number));
                    }
                }
            }
            if self.may_find(state, name, shard) || self.may_presume(state, name, shard) {
                actions.push(Action::Find(name, number));
            }
            if self.may_lose(state, name, shard) {
                actions.push(Action::LoseLease(name, number));
            }
            let view = worker.views[shard];
            if view == LeaseView::Held
                && matches!(state.rows[shard].holder, Holder::HandingOver(from, _) if from == name)
            {
                actions.push(Action::OnAsked(name, number));
            }
            let is_idle = worker.phase == Phase::Idle;
            if view == LeaseView::Asked && is_idle && !worker.ledger[shard].is_included() {
                actions.push(Action::HandOver(name, number));
            }
            if view == LeaseView::Releasing && (is_idle || self.grain == Grain::Fine) {
                actions.push(Action::Release(name, number));
                if faults.losses > 0 {
                    actions.push(Action::ReleaseLost(name, number));
                }
            }
            if state.late.iter().flatten().any(|late| matches!(late, Request::Take(_, of) if *of == number))
                && view != LeaseView::NotHeld
                && state.rows[shard].holder.is(name)
            {
                actions.push(Action::Renew(name, number));
            }
            if worker.events[shard] != LeaseEvent::None && is_idle {
                actions.push(Action::OnLeaseEvent(name, number));
            }
            if worker.disowned >> shard & 1 == 1 {
                actions.push(Action::OnDisowned(name, number));
            }
            if worker.stale[shard].is_some()
                && is_idle
                && worker.reading[shard] < worker.stale[shard].map(|after| after + 1)
            {
                actions.push(Action::ReadStale(name, number));
            }
        }
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Start(name) => state.workers[at(name)] = Worker { life: Life::Running, ..Worker::default() },
            Action::Kill(name) => {
                state.faults.deaths -= 1;
                self.leave(state, name);
                state.workers[at(name)] = Worker { life: Life::Dead, ..Worker::default() };
            }
            Action::Fail(name) => {
                state.faults.deaths -= 1;
                self.fail(state, name);
            }
            Action::Step(name, choice) => self.step(state, name, choice),
            Action::Lose(name, choice) => {
                state.faults.losses -= 1;
                self.lose(state, name, choice);
            }
            Action::DecideAgain(name) => {
                let phase = &mut state.workers[at(name)].phase;
                if let Phase::Judge { epoch, .. } = *phase {
                    *phase = Phase::Decide { epoch };
                }
            }
            Action::Arrive(request) => {
                if let Some(late) = state.late.iter_mut().find(|late| **late == Some(request)) {
                    *late = None;
                }
                state.late.sort_unstable_by_key(|late| (late.is_none(), *late));
                self.arrive(state, request, true);
            }
            Action::Take(name, shard) => {
                steal(state, shard);
                self.arrive(state, Request::Take(name, shard), false);
                self.gain(state, name, at(shard));
            }
            Action::TakeReplyLost(name, shard) => {
                steal(state, shard);
                state.faults.losses -= 1;
                self.arrive(state, Request::Take(name, shard), false);
            }
            Action::TakeLost(name, shard) => {
                steal(state, shard);
                state.faults.losses -= 1;
                state.give_up(Request::Take(name, shard));
            }
            Action::Find(name, shard) => self.gain(state, name, at(shard)),
            Action::LoseLease(name, shard) => self.lose_lease(state, name, at(shard)),
            Action::Ask(name, shard) | Action::AskLost(name, shard) => {
                state.faults.asks -= 1;
                let Holder::Held(from) = state.rows[at(shard)].holder else { return };
                let request = Request::Ask(name, shard, from);
                if matches!(action, Action::AskLost(..)) {
                    state.faults.losses -= 1;
                    state.give_up(request);
                } else {
                    self.arrive(state, request, false);
                }
            }
            Action::OnAsked(name, shard) => state.workers[at(name)].views[at(shard)] = LeaseView::Asked,
            Action::HandOver(name, shard) => self.hand_over(state, name, at(shard)),
            Action::Release(name, shard) => self.release(state, name, shard, false),
            Action::ReleaseLost(name, shard) => {
                state.faults.losses -= 1;
                self.release(state, name, shard, true);
            }
            Action::Renew(_, shard) => void_takes(state, shard),
            Action::OnLeaseEvent(name, shard) => self.on_lease_event(state, name, at(shard)),
            Action::OnDisowned(name, shard) => self.on_disowned(state, name, shard),
            Action::Read(name, shard) => {
                if let Some(after) = state.workers[at(name)].reading[at(shard)] {
                    self.read(state, name, at(shard), after);
                }
            }
            Action::ReadStale(name, shard) => {
                if let Some(after) = state.workers[at(name)].stale[at(shard)].take() {
                    self.read(state, name, at(shard), after);
                }
            }
            Action::Commit(name, shards) => {
                for shard in bits(shards) {
                    self.act(state, Action::Read(name, shard));
                }
                self.seal(state, name);
            }
            Action::Expire(epoch, object) => {
                state.faults.expiries -= 1;
                state.epochs[at(epoch)].objects[at(object)] = Object::Aborted;
            }
            Action::Appear(epoch, object) => state.epochs[at(epoch)].objects[at(object)] = Object::Visible,
        }
    }
}

/// Whether the shard's lease is free, its holder is dead, or another steal is allowed.
pub(crate) fn may_steal(state: &State, shard: usize) -> bool {
    state.faults.steals > 0 || !is_held_by_living(state, shard)
}

fn is_held_by_living(state: &State, shard: usize) -> bool {
    let holder = state.rows[shard].holder.committer();
    holder.is_some_and(|name| state.workers[at(name)].life == Life::Running)
}

fn steal(state: &mut State, shard: u8) {
    if state.faults.steals != state::UNBOUNDED && is_held_by_living(state, at(shard)) {
        state.faults.steals -= 1;
    }
}
