//! The commit and lease protocol as a model whose states are all searched, with `stateright`.
//!
//! Owns: the protocol, as `checkpoints/`, `src/commit/` and `src/worker/` have it, at the grain of single requests; the
//! numbered invariants as properties; mutations, by which the model is itself checked. Does not own: any code of the
//! product, of which it knows nothing. So it says that the protocol is right, not that the code follows it: for that, the
//! names here are those of the code, to be read side by side, and the simulation runs the code itself.
//!
//! # What is modelled
//!
//! - Workers: the coordinator's steps from reading to `advance`, `recover` with both its looks, roll back with its reads of
//!   the rows one by one, `decide_once` with its judgement by rows; the keeper that takes, finds, loses, asks for and lets go
//!   of leases beside it.
//! - The lease table: `decide`, `advance` (row by row), `roll_back`, `take`, `ask`, `hand_over`, `release`, `renew`, each
//!   with its condition. A counter is not kept as a number: it only voids a `take` that saw an older one.
//! - The lake: uploads, which are completed at most once; intents; commit records; the lifecycle rule that aborts uploads.
//! - Time: none. A lease may be taken at any moment, from a worker that lives as from one that is dead; a worker may stop
//!   between any two requests for as long as it likes.
//! - Requests: answered; or given up, by a sender that goes on or has died, and then taking effect at any later moment or
//!   never. That is a request lost before its effect, one lost after it, and one that is late.
//! - Processes: killed before, during or after any request; ended by an error or a stop; started again under a new name.
//!
//! # What is bounded
//!
//! Two workers at a time, two shards, one record or two a shard (a chunk is one record), one object or two an epoch. Deaths,
//! lost requests, lost uploads and asks: as many as the configuration says (`check::cases`). Steals from a worker that lives
//! are not bounded where it says "any". All else is exhaustive: the order of everything, how often an epoch is refused, read
//! again and recovered, how often a dead worker's lease changes hands.
//!
//! With [`Grain::Coarse`] leases come and go only between commits, as a worker notices it, though they are taken from it at
//! any time; and an epoch is read and ended in one step. With [`Grain::Fine`] neither is so.
//!
//! # What makes the search smaller
//!
//! States that differ only in names are one; epochs that nothing refers to and requests that can have no effect any more are
//! forgotten. (A test compares the verdict with the one without.) A request, its effect and its answer are one step: between
//! them its sender only waits. States are told apart by `stateright`'s 64-bit fingerprint, as it always does: of 10⁶ states,
//! one might be taken for another with a chance of 3 in 10⁸.
//!
//! # What is left out
//!
//! Records that are bad (their position moves all the same), raw landing by way of another service, groups of more than one
//! decision, `sweep` (its age exceeds any request's life), rows of shards that a stream has forgotten, looks at the table that
//! do not show every row, named checkpoints, the judgement who should take which lease, and what a worker does in another's
//! name (`farewell`). Staging is assumed to be seen by nobody before the intent names it. The stores are assumed to keep the
//! promises of `src/lake/mod.rs` and `checkpoints/src/store.rs`; `Mutation::SlowCompletion` shows what one of them is needed for.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of places are small, and those of states fit into memory"
)]

// In the order in which to read them.
pub mod state;

mod world;

mod worker;

mod keeper;

pub mod properties;

mod mutation;

mod symmetry;

pub mod check;

pub mod liveness;

pub mod words;

use stateright::{Model, Property};

pub use crate::mutation::Mutation;
use crate::state::{
    EPOCHS, Epoch, Faults, Holder, Keep, LATE, Life, Mail, Object, Phase, Request, Row, SHARDS, State, WORKERS, Worker,
    bits,
};
use crate::world::{at, void_takes};

/// How the two shards are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Not at all. They have no end.
    Strangers,
    /// The second came from the first, which has an end.
    ParentAndChild,
}

/// How finely a worker is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Leases come and go while an epoch is committed, and the coordinator hears of it late. An epoch is open between
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
    /// How finely a worker is divided.
    pub grain: Grain,
    /// Records of each shard.
    pub records: u8,
    /// Objects of each epoch.
    pub objects: usize,
    /// Processes that run at once.
    pub workers: usize,
    /// Faults that may happen.
    pub faults: Faults,
    /// The rule that is left out.
    pub mutation: Option<Mutation>,
    /// Whether late requests that can have no effect any more are forgotten.
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
    /// A process fails or is stopped: it lets go of its leases, and ends.
    Fail(u8),
    /// The coordinator's next request is answered; the number tells which of several.
    Step(u8, u8),
    /// The coordinator's next request is given up. It may arrive later.
    Lose(u8, u8),
    /// The rows could not be read, and the decision is sent again.
    DecideAgain(u8),
    /// A request that was given up arrives.
    Arrive(Request),
    /// A lease is taken.
    Take(u8, u8),
    /// A lease is taken, and the answer lost.
    TakeUnheard(u8, u8),
    /// A lease is to be taken, and the request given up.
    TakeLost(u8, u8),
    /// A worker finds that a lease is its own.
    Find(u8, u8),
    /// A worker finds that a lease is not its own any more.
    LoseLease(u8, u8),
    /// A worker asks for a lease.
    Ask(u8, u8),
    /// A worker asks for a lease, and gives the request up.
    AskLost(u8, u8),
    /// A worker finds that it is asked for a lease.
    HearAsked(u8, u8),
    /// A lease that was asked for is let go, as nothing is open for it.
    HandOver(u8, u8),
    /// The keeper lets go of a lease.
    LetGo(u8, u8),
    /// The request that lets go of a lease is given up.
    LetGoLost(u8, u8),
    /// The holder renews, so that the counter moves.
    Renew(u8, u8),
    /// The coordinator hears what the keeper told of a lease.
    Hear(u8, u8),
    /// The keeper hears that the coordinator found a lease to be another's.
    HearNotOurs(u8, u8),
    /// A chunk of the shard is read.
    Read(u8, u8),
    /// A chunk of a reader that was replaced is read.
    ReadStale(u8, u8),
    /// The open epoch is to be committed. Coarse: first a chunk of each of these shards is read.
    Commit(u8, u8),
    /// The bucket's lifecycle rule aborts an upload.
    Expire(u8, u8),
    /// An object becomes visible at last.
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
                        actions.extend([Action::TakeUnheard(name, number), Action::TakeLost(name, number)]);
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
            let keep = worker.keep[shard];
            if keep == Keep::Held && matches!(state.rows[shard].holder, Holder::HandingOver(from, _) if from == name) {
                actions.push(Action::HearAsked(name, number));
            }
            let is_idle = worker.phase == Phase::Idle;
            if keep == Keep::Asked && is_idle && !worker.ledger[shard].is_there() {
                actions.push(Action::HandOver(name, number));
            }
            if keep == Keep::LettingGo && (is_idle || self.grain == Grain::Fine) {
                actions.push(Action::LetGo(name, number));
                if faults.losses > 0 {
                    actions.push(Action::LetGoLost(name, number));
                }
            }
            if state.late.iter().flatten().any(|late| matches!(late, Request::Take(_, of) if *of == number))
                && keep != Keep::Not
                && state.rows[shard].holder.is(name)
            {
                actions.push(Action::Renew(name, number));
            }
            if worker.mail[shard] != Mail::None && is_idle {
                actions.push(Action::Hear(name, number));
            }
            if worker.not_ours >> shard & 1 == 1 {
                actions.push(Action::HearNotOurs(name, number));
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
            Action::TakeUnheard(name, shard) => {
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
            Action::HearAsked(name, shard) => state.workers[at(name)].keep[at(shard)] = Keep::Asked,
            Action::HandOver(name, shard) => self.hand_over(state, name, at(shard)),
            Action::LetGo(name, shard) => self.let_go(state, name, shard, false),
            Action::LetGoLost(name, shard) => {
                state.faults.losses -= 1;
                self.let_go(state, name, shard, true);
            }
            Action::Renew(_, shard) => void_takes(state, shard),
            Action::Hear(name, shard) => self.hear(state, name, at(shard)),
            Action::HearNotOurs(name, shard) => self.hear_not_ours(state, name, shard),
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

/// Whether the shard's lease is free, its holder dead, or another steal allowed.
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
