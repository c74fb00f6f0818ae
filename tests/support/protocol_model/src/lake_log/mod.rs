//! The lake log as a model of its own: the step enter at the granularity of single requests, trims, and operations.
//!
//! Owns: the model. Does not own: what comes before the intent and how leases are handed over (`Protocol`, the model of the
//! commit protocol, in which the log is a set to which an epoch is added in one step).
//!
//! # What is modelled
//!
//! - Entering: the cached tail, the list of keys, reading the last entry and older ones for what they name. The create-only write,
//!   its refusal, and the answer that is lost. Confirming the entry before. What follows if older entries are gone.
//! - Trimming: the choice of a version, the list of intents, each delete. A trim may pause between them for as long as it
//!   likes, and beside a second one.
//! - Operations that remove objects: planned at a version under a lease, decided, entered, their inputs removed, advanced.
//! - Processes: killed at any moment; alive and slow for months; leases taken from them at any moment.
//! - Time: one event, the month. Everything that is in the log becomes old enough to be trimmed.
//!
//! # What is bounded
//!
//! Two or three processes, two rows with one to three changes each, the entries that are there at the beginning, months, trims,
//! deaths, steals, lost answers (`check::cases`).
//!
//! # What is left out
//!
//! The same write, sent again after a month by the process that had written the entry before it was trimmed: it would have the
//! same bytes as the entry that is gone, and another process that slept as long would take it for that.
//!
//! Refused intents that stay for a while: they only hold trims back. Staging and publishing are one step. Rollbacks come before the
//! commit record. Requests of trims that arrive late delete what the trim deletes.

pub mod check;
mod mutation;
pub mod narrative;
pub mod properties;
pub mod state;
mod store;
mod writer;

use stateright::{Model, Property};

pub use mutation::LogMutation;
use state::{
    CHANGES, Change, Faults, LATE, LatePut, Names, Phase, ROWS, Row, SLOTS, Stage, State, TRIMMERS, Tail, Trim,
    WRITERS, Why, Writer,
};

/// What the changes of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Epochs: a shard of a stream.
    Epochs,
    /// Operations that remove objects: a dataset of the stream `_lake`.
    Operations,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct LakeLog {
    /// The kind of each row, and how many changes it has.
    pub rows: [(Kind, u8); ROWS],
    /// Entries that are in the log at the beginning, old enough to be trimmed. Each process knows none of them, or it has slept
    /// since any of them was the newest.
    pub before: u8,
    /// Whether the first of them is of a change that is still pending on the first row.
    pub is_first_pending: bool,
    /// Processes that run at the same time.
    pub writers: usize,
    /// How many versions before it an entry names.
    pub recent: u8,
    /// Trims that may run at the same time.
    pub trimmers: usize,
    /// Faults that may happen.
    pub faults: Faults,
    /// The rule that is left out.
    pub mutation: Option<LogMutation>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process takes a lease.
    Take(u8, u8),
    /// A process finds a change pending on a row that it holds.
    FindPending(u8, u8),
    /// A process reads the end of the log to plan an operation.
    Plan(u8, u8),
    /// A process writes the intent of the next change of a row.
    Intend(u8, u8),
    /// A process's next request is answered.
    Step(u8),
    /// An entry is written, and the answer is lost.
    LoseAnswer(u8),
    /// The request to write an entry times out. It may arrive later.
    LoseRequest(u8),
    /// An entry whose request timed out arrives.
    Arrive(LatePut),
    /// A process is killed; another one starts.
    Kill(u8),
    /// A month passes.
    Month,
    /// A trim begins: it chooses this version, or lists the intents first.
    BeginTrim(u8, u8),
    /// A trim's next request is answered.
    StepTrim(u8),
}

impl Model for LakeLog {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            slots: [None; SLOTS],
            log: [None; SLOTS],
            false_slots: 0,
            old: self.before,
            trimmed: 0,
            changes: [Change::default(); CHANGES],
            rows: [Row::default(); ROWS],
            writers: [Writer::default(); WRITERS],
            trims: [None; TRIMMERS],
            late: [None; LATE],
            faults: self.faults,
            broken: 0,
        };
        let mut tails = vec![None];
        let mut last = Tail { version: 0, names: Names::NONE, is_false: false };
        for change in 0..self.before {
            tails.push(Some(last));
            state.changes[usize::from(change)] = Change { stage: Stage::Recorded, ..Change::default() };
            let version = change + 1;
            let names = last.names.with(version, change).from(version.saturating_sub(self.recent));
            last = Tail { version, names, is_false: false };
            state.slots[usize::from(change)] = Some(names);
            state.log[usize::from(change)] = Some(names);
        }
        if self.is_first_pending {
            state.changes[0].intent = true;
            state.rows[0].pending = Some(0);
        }
        let mut states = vec![state];
        for name in 0..self.writers {
            states = states
                .into_iter()
                .flat_map(|state| {
                    tails.iter().map(move |tail| {
                        let mut slept = state;
                        slept.writers[name].tail = *tail;
                        slept
                    })
                })
                .collect();
        }
        states
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken != 0 {
            return;
        }
        for (name, writer) in (0..).zip(&state.writers).take(self.writers) {
            self.actions_of(state, name, writer, actions);
        }
        actions.extend(state.late.iter().flatten().map(|late| Action::Arrive(*late)));
        if state.faults.months > 0 {
            actions.push(Action::Month);
        }
        for (place, trim) in (0..).zip(&state.trims).take(self.trimmers) {
            if trim.is_some() {
                actions.push(Action::StepTrim(place));
            } else if state.faults.trims > 0 {
                let highest = self.may_trim(state);
                let lowest = if self.is(LogMutation::IntentsBeforeVersion) { highest } else { state.trimmed + 1 };
                actions.extend((lowest.max(1)..=highest).map(|version| Action::BeginTrim(place, version)));
                if self.is(LogMutation::IntentsBeforeVersion) && highest == 0 {
                    actions.push(Action::BeginTrim(place, 0));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        self.act(&mut state, action);
        self.canonical(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

impl LakeLog {
    fn actions_of(&self, state: &State, name: u8, writer: &Writer, actions: &mut Vec<Action>) {
        if state.faults.deaths > 0 && (writer.phase != Phase::Idle || writer.tail.is_some()) {
            actions.push(Action::Kill(name));
        }
        match writer.phase {
            Phase::Idle => {}
            Phase::Planned { row } => {
                actions.push(Action::Intend(name, row));
                return;
            }
            Phase::Put { .. } if state.faults.losses > 0 => {
                actions.extend([Action::Step(name), Action::LoseAnswer(name), Action::LoseRequest(name)]);
                return;
            }
            _ => {
                actions.push(Action::Step(name));
                return;
            }
        }
        for (number, row) in (0..).zip(&state.rows) {
            let (kind, changes) = self.rows[usize::from(number)];
            let believes = writer.believes >> number & 1 == 1;
            if row.done >= changes {
                continue;
            }
            if row.holder != Some(name) {
                if row.holder.is_none() || state.faults.steals > 0 {
                    actions.push(Action::Take(name, number));
                }
                if !believes {
                    if self.is(LogMutation::PlanBeforeLease) && kind == Kind::Operations {
                        actions.push(Action::Plan(name, number));
                    }
                    continue;
                }
            }
            if row.holder == Some(name) && row.pending.is_some() {
                actions.push(Action::FindPending(name, number));
                continue;
            }
            match kind {
                Kind::Epochs => actions.push(Action::Intend(name, number)),
                Kind::Operations => actions.push(Action::Plan(name, number)),
            }
        }
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Take(name, row) => {
                let of = &mut state.rows[usize::from(row)];
                if of.holder.replace(name).is_some() {
                    state.faults.steals -= 1;
                }
                state.writers[usize::from(name)].believes |= 1 << row;
            }
            Action::FindPending(name, row) => {
                if let Some(change) = state.rows[usize::from(row)].pending {
                    state.writers[usize::from(name)].phase = Phase::Recover { change };
                }
            }
            Action::Plan(name, row) => state.writers[usize::from(name)].phase = Phase::List { why: Why::Plan(row) },
            Action::Intend(name, row) => self.intend(state, name, row),
            Action::Step(name) => self.step(state, name),
            Action::LoseAnswer(name) | Action::LoseRequest(name) => {
                state.faults.losses -= 1;
                let Phase::Put { change } = state.writers[usize::from(name)].phase else { return };
                let entry = self.entry(state, name, change);
                if action == Action::LoseAnswer(name) {
                    self.put(state, entry);
                } else {
                    time_out(state, entry);
                }
                match self.mutation {
                    Some(LogMutation::TrustLostAnswer) => {
                        state.writers[usize::from(name)].phase = self.entered(state, change);
                    }
                    Some(LogMutation::SkipLostVersion) => writer::skip_version(state, name, entry),
                    // The same request is sent again.
                    _ => {}
                }
            }
            Action::Arrive(entry) => {
                if let Some(late) = state.late.iter_mut().find(|late| **late == Some(entry)) {
                    *late = None;
                }
                self.put(state, entry);
            }
            Action::Kill(name) => {
                state.faults.deaths -= 1;
                if let Phase::Put { change } = state.writers[usize::from(name)].phase {
                    let entry = self.entry(state, name, change);
                    time_out(state, entry);
                }
                state.writers[usize::from(name)] = Writer::default();
                for row in state.rows.iter_mut().filter(|row| row.holder == Some(name)) {
                    row.holder = None;
                }
            }
            Action::Month => {
                state.faults.months -= 1;
                state.old = state.newest();
            }
            Action::BeginTrim(place, version) => {
                state.faults.trims -= 1;
                state.trims[usize::from(place)] = Some(match self.mutation {
                    Some(LogMutation::IntentsBeforeVersion) => Trim::Listed(state.lowest_head().unwrap_or(SLOTS as u8)),
                    _ => Trim::Chosen(version),
                });
            }
            Action::StepTrim(place) => self.trim(state, usize::from(place)),
        }
    }

    /// Changes that were abandoned are forgotten. Processes that differ only in their names are put in order.
    fn canonical(&self, state: &mut State) {
        for number in 0..CHANGES as u8 {
            let is_abandoned = state.changes[usize::from(number)].stage == Stage::Intended
                && state.writers.iter().all(|writer| writer.phase.change() != Some(number));
            if is_abandoned && state.times_entered(number) == 0 {
                state.changes[usize::from(number)] = Change::default();
            }
        }
        state.late.sort_unstable_by_key(|late| (late.is_none(), *late));
        if self.mutation.is_some() {
            return;
        }
        state.trims.sort_unstable_by_key(|trim| (trim.is_none(), *trim));
        let mut best = *state;
        for order in orders(self.writers) {
            let mut renamed = *state;
            for (new, old) in order.iter().enumerate().take(self.writers) {
                renamed.writers[new] = state.writers[usize::from(*old)];
            }
            for row in &mut renamed.rows {
                row.holder = row.holder.and_then(|name| order.iter().position(|old| *old == name)).map(|new| new as u8);
            }
            best = best.min(renamed);
        }
        *state = best;
    }

    /// Whether the changes of the row are operations.
    fn is_operations(&self, row: u8) -> bool {
        self.rows[usize::from(row)].0 == Kind::Operations
    }

    /// Whether every change of every row has advanced.
    pub fn is_over(&self, state: &State) -> bool {
        state.rows.iter().zip(&self.rows).all(|(row, (_, changes))| row.done == *changes && row.pending.is_none())
    }
}

fn time_out(state: &mut State, entry: LatePut) {
    let free = state.late.iter_mut().find(|late| late.is_none());
    *free.expect("there is room for every request that the bounds allow") = Some(entry);
}

fn orders(writers: usize) -> &'static [[u8; WRITERS]] {
    match writers {
        2 => &[[1, 0, 2]],
        3 => &[[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]],
        _ => &[],
    }
}
