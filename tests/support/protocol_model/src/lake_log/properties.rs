//! What must hold of the lake log, and what must be reached, so that nothing holds merely because nothing happens.
//!
//! Owns: the list. Some properties are conditions of a state; others are about a step, which sets a bit of [`Broken`].

use stateright::Property;

use super::LakeLog;
use super::state::{Phase, Stage, State, Why};

/// An invariant about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Broken {
    /// What enters is decided and has a commit record.
    RecordFirst = 1,
    /// Nothing enters twice.
    Once = 1 << 1,
    /// What advances has entered.
    EnterFirst = 1 << 2,
    /// A version is written once.
    NoVersionTwice = 1 << 3,
    /// Versions have no gap.
    NoGap = 1 << 4,
    /// An entry names the versions before it as they are.
    Chain = 1 << 5,
    /// What is trimmed is in a snapshot, and the newest entry stays.
    TrimBelowSnapshot = 1 << 6,
    /// What an operation removes is live.
    InputsAreLive = 1 << 7,
    /// An object goes after the entry that removes it, and before its operation advances.
    RemoveInOrder = 1 << 8,
}

impl State {
    /// Records that an invariant is broken.
    pub(crate) fn check(&mut self, holds: bool, broken: Broken) {
        if !holds {
            self.broken |= broken as u16;
        }
    }

    fn holds(&self, broken: Broken) -> bool {
        self.broken & broken as u16 == 0
    }

    fn some_phase(&self, holds: impl Fn(Phase) -> bool) -> bool {
        self.writers.iter().any(|writer| holds(writer.phase))
    }

    /// Whether a process is about to write the entry of a change, where that of another one or its own may be already.
    fn some_put(&self, holds: impl Fn(u8, Option<u8>) -> bool) -> bool {
        self.writers.iter().any(|writer| match writer.phase {
            Phase::Put { change } => {
                let version = writer.tail.map_or(0, |tail| tail.version) + 1;
                holds(change, self.slot(version).and_then(|names| names.of(version)))
            }
            _ => false,
        })
    }

    fn is_pending(&self, change: u8) -> bool {
        self.rows.iter().any(|row| row.pending == Some(change))
    }
}

/// A property: its name, and the condition.
pub type Condition = (&'static str, fn(&LakeLog, &State) -> bool);

/// What must hold in every state.
pub const ALWAYS: &[Condition] = &[
    ("G1: what enters is decided, and has a commit record", |_, state| state.holds(Broken::RecordFirst)),
    ("G2: no epoch and no operation enters twice", |_, state| state.holds(Broken::Once)),
    ("G3: what has advanced has entered", |_, state| state.holds(Broken::EnterFirst)),
    ("G4: a version is written once", |_, state| state.holds(Broken::NoVersionTwice)),
    ("G5: versions have no gap, and all that were not trimmed can be read", |_, state| {
        state.holds(Broken::NoGap)
            && (state.trimmed + 1..=state.newest())
                .all(|version| state.slot(version) == state.log[usize::from(version) - 1])
    }),
    ("G6: an entry names the versions before it as they are", |_, state| state.holds(Broken::Chain)),
    ("G7: what is trimmed is old and in a snapshot, and the newest entry stays", |_, state| {
        state.holds(Broken::TrimBelowSnapshot)
    }),
    ("G8: what an operation removes is live", |_, state| state.holds(Broken::InputsAreLive)),
    ("G9: an object goes after the entry that removes it, and before its operation advances", |_, state| {
        state.holds(Broken::RemoveInOrder)
    }),
];

/// The name of the property that the search of the graph checks.
pub const LIVENESS: &str = "GL: from every state, without further faults, a path leads to everything having advanced";

/// What must be reached, in one configuration or another.
pub const SOMETIMES: &[Condition] = &[
    ("T1: everything has advanced", |model, state| model.is_over(state)),
    ("T2: two processes enter one change at the same time", |_, state| {
        let entering = |phase| match phase {
            Phase::Put { change } => Some(change),
            _ => None,
        };
        let (one, other) = (entering(state.writers[0].phase), entering(state.writers[1].phase));
        one.is_some() && one == other
    }),
    ("T3: a process wants to enter what has advanced", |_, state| {
        state.some_phase(|phase| matches!(phase, Phase::Put { change } if !state.is_pending(change)))
    }),
    ("T4: an entry is refused because of another change", |_, state| {
        state.some_put(|change, taken| taken.is_some_and(|by| by != change))
    }),
    ("T5: an entry is refused because its change has entered", |_, state| {
        state.some_put(|change, taken| taken == Some(change))
    }),
    ("T6: an entry may still arrive though its change has entered", |_, state| {
        let late = state.late.iter().flatten();
        let mut changes = late.filter_map(|late| late.names.of(late.version));
        changes.any(|change| state.times_entered(change) == 1)
    }),
    ("T7: an entry is written into a trimmed slot", |_, state| state.false_slots != 0),
    ("T8: an older entry is gone, and the intent is there", |_, state| {
        state.some_phase(
            |phase| matches!(phase, Phase::FindIntent { change } if state.changes[usize::from(change)].intent),
        )
    }),
    ("T9: an older entry is gone, and the intent is gone as well", |_, state| {
        state.some_phase(
            |phase| matches!(phase, Phase::FindIntent { change } if !state.changes[usize::from(change)].intent),
        )
    }),
    ("T10: an intent holds a trim back", |_, state| {
        let lowest = state.lowest_head();
        state.trims.iter().flatten().any(|trim| {
            matches!(trim, super::state::Trim::Chosen(version) if lowest.is_some_and(|lowest| lowest < *version))
        })
    }),
    ("T11: an older entry is read for what it names", |_, state| {
        state.some_phase(|phase| matches!(phase, Phase::Older { .. }))
    }),
    ("T12: an operation is refused because another one was quicker", |_, state| {
        state.some_phase(|phase| match phase {
            Phase::Decide { change } => {
                let change = state.changes[usize::from(change)];
                change.inputs != 0 && state.rows[usize::from(change.row)].done > change.number
            }
            _ => false,
        })
    }),
    ("T13: another process rolls an operation forward", |_, state| {
        state.writers.iter().any(|writer| match writer.phase {
            Phase::List { why: Why::Enter(change) } => {
                state.changes[usize::from(change)].inputs != 0
                    && state.changes[usize::from(change)].stage == Stage::Recorded
            }
            _ => false,
        })
    }),
    ("T14: epochs enter between the plan of an operation and its entry", |_, state| {
        (1..=state.newest()).any(|version| {
            let of = state.change_of(version).map(|change| state.changes[usize::from(change)]);
            of.is_some_and(|of| of.inputs != 0 && of.head + 1 < version)
        })
    }),
];

/// The properties of a model in stateright's form.
pub(super) fn properties(model: &LakeLog) -> Vec<Property<LakeLog>> {
    let always = ALWAYS.iter().map(|(name, condition)| Property::always(name, *condition));
    if model.mutation.is_some() {
        return always.collect();
    }
    let sometimes = SOMETIMES.iter().map(|(name, condition)| Property::sometimes(name, *condition));
    always.chain(sometimes).collect()
}
