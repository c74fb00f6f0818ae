//! The configurations of the lake log that are checked, and the models that expose its mutations.
//!
//! Owns: their bounds; which property fails under a mutation. Does not own: how a model is searched (`crate::check`).

use stateright::{Checker, HasDiscoveries, Model, Path};

use super::properties::LIVENESS;
use super::state::{Faults, State};
use super::{Action, Kind, LakeLog, LogMutation};
use crate::check::{Outcome, search_all};
use crate::liveness::{self, Graph};

/// A configuration with its name.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// The model.
    pub model: LakeLog,
    /// What its bounds make unreachable, by the numbers of `SOMETIMES`.
    pub never: &'static [&'static str],
    /// Whether it takes minutes: then it runs only on the command line, not in every test run.
    pub is_long: bool,
}

/// Two processes, two shards with one epoch each, no faults.
pub const SMALLEST: LakeLog = LakeLog {
    rows: [(Kind::Epochs, 1), (Kind::Epochs, 1)],
    before: 0,
    is_first_pending: false,
    writers: 2,
    recent: 7,
    trimmers: 1,
    faults: Faults { deaths: 0, losses: 0, steals: 0, months: 0, trims: 0 },
    mutation: None,
};

impl Case {
    /// Its bounds in words.
    pub fn bounds(&self) -> String {
        let LakeLog { rows, before, writers, recent, trimmers, faults, .. } = self.model;
        let row = |(kind, changes): (Kind, u8)| match kind {
            Kind::Epochs => format!("{changes} ep"),
            Kind::Operations => format!("{changes} op"),
        };
        let Faults { deaths, losses, steals, months, trims } = faults;
        format!(
            "{writers} writers; {before} before; {} + {}; names {recent}; steals {steals}, deaths {deaths}, lost {losses}, months {months}, trims {trims} ({trimmers})",
            row(rows[0]),
            row(rows[1]),
        )
    }
}

/// All configurations; those of every test run come first.
pub fn cases() -> Vec<Case> {
    let none = SMALLEST.faults;
    let trims = Faults { trims: 1, ..none };
    let epochs = [(Kind::Epochs, 2), (Kind::Epochs, 1)];
    let rewrite = [(Kind::Operations, 1), (Kind::Epochs, 2)];
    let two_rewrites = [(Kind::Operations, 2), (Kind::Epochs, 1)];
    let case =
        |name, rows, faults, never| Case { name, model: LakeLog { rows, faults, ..SMALLEST }, never, is_long: false };
    let after = |before, case: Case| Case { model: LakeLog { before, ..case.model }, ..case };
    let pending = |case: Case| Case { model: LakeLog { is_first_pending: true, ..case.model }, ..case };
    let naming_one = |case: Case| Case { model: LakeLog { recent: 1, ..case.model }, ..case };
    let two_trims = |case: Case| Case { model: LakeLog { trimmers: 2, ..case.model }, ..case };
    let long = |case: Case| Case { is_long: true, ..case };
    let two = [(Kind::Epochs, 2), (Kind::Epochs, 0)];
    vec![
        case("log", epochs, Faults { deaths: 1, losses: 1, steals: 1, ..none }, &NO_TRIMS),
        after(3, case("log, trims", SMALLEST.rows, Faults { steals: 1, ..trims }, &NO_REWRITES[..])),
        pending(after(3, naming_one(case("log, older entries", two, Faults { steals: 1, ..trims }, &OLDER_ENTRIES)))),
        case("log, rewrite", rewrite, Faults { deaths: 1, steals: 1, ..none }, &NO_TRIMS[..5]),
        case("log, 2 rewrites", two_rewrites, Faults { steals: 2, ..none }, &["T6", "T7", "T8", "T9", "T10", "T11"]),
        long(case("log, late", epochs, Faults { deaths: 1, losses: 2, steals: 2, ..none }, &NO_TRIMS)),
        long(case("log, month", epochs, Faults { deaths: 1, steals: 1, months: 1, ..trims }, &NO_REWRITES[1..])),
        long(after(
            3,
            case("log, late, trims", SMALLEST.rows, Faults { losses: 1, steals: 2, ..trims }, &NO_REWRITES[1..]),
        )),
        long(pending(after(
            3,
            naming_one(case(
                "log, older, deaths",
                SMALLEST.rows,
                Faults { deaths: 1, steals: 1, ..trims },
                &OLDER_ENTRIES[1..],
            )),
        ))),
        long(after(
            2,
            two_trims(case(
                "log, 2 trims",
                SMALLEST.rows,
                Faults { steals: 1, months: 1, trims: 2, ..none },
                &NO_REWRITES,
            )),
        )),
        long(after(
            2,
            case("log, rewrites, trims", two_rewrites, Faults { steals: 2, ..trims }, &["T6", "T8", "T9", "T11"]),
        )),
    ]
}

/// What can't be reached without operations, and without losses and deaths.
const OLDER_ENTRIES: [&str; 4] = ["T6", "T12", "T13", "T14"];

/// What can't be reached without trims and operations.
const NO_TRIMS: [&str; 8] = ["T7", "T8", "T9", "T10", "T11", "T12", "T13", "T14"];

/// What can't be reached without operations, without losses and deaths, and by entries that name all versions.
const NO_REWRITES: [&str; 7] = ["T6", "T8", "T9", "T11", "T12", "T13", "T14"];

/// Searches all states.
pub fn check(case: &Case, threads: usize) -> Outcome {
    search_all(&case.model, case.never, threads)
}

/// Searches the states from which no path leads to the end.
pub fn leads_to_the_end(model: &LakeLog) -> Graph<State> {
    let is_over = |state: &State| state.broken != 0;
    let is_fault = |action: &Action| {
        matches!(
            action,
            Action::Kill(_)
                | Action::LoseAnswer(_)
                | Action::LoseRequest(_)
                | Action::Arrive(_)
                | Action::Month
                | Action::BeginTrim(..)
        )
    };
    liveness::search_graph(model, |state| model.is_over(state), is_over, is_fault)
}

/// A shortest path to a state in which the property of this number fails.
pub fn counterexample(model: LakeLog, number: &str) -> Option<(&'static str, Path<State, Action>)> {
    let is_wanted = |name: &str| name.split(':').next() == Some(number);
    let wanted = model.properties().into_iter().map(|property| property.name).filter(|name| is_wanted(name)).collect();
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf(wanted)).spawn_bfs().join();
    let found = checker.discoveries().into_iter().filter(|(name, _)| is_wanted(name));
    found.min_by_key(|(name, path)| (path.clone().into_actions().len(), *name))
}

/// The property that fails under a mutation, and the length of the path to it; no length for one about the whole graph.
pub fn caught(mutation: LogMutation) -> Option<(&'static str, Option<usize>)> {
    let model = mutated(mutation);
    if expected(mutation) == "GL" {
        return (leads_to_the_end(&model).stuck > 0).then_some((LIVENESS, None));
    }
    counterexample(model, expected(mutation)).map(|(property, path)| (property, Some(path.into_actions().len())))
}

/// A model that exposes the mutation.
pub fn mutated(mutation: LogMutation) -> LakeLog {
    let faults = SMALLEST.faults;
    let trims = Faults { trims: 1, ..faults };
    let one = [(Kind::Epochs, 1), (Kind::Epochs, 0)];
    let model = match mutation {
        LogMutation::EntryBeforeRecord
        | LogMutation::EntryBeforeDecide
        | LogMutation::AdvanceBeforeEntry
        | LogMutation::IgnoreRefusal
        | LogMutation::TryNextVersion => SMALLEST,
        LogMutation::TrimYoung => LakeLog { faults: trims, ..SMALLEST },
        LogMutation::TrimNewest => LakeLog { before: 1, faults: trims, ..SMALLEST },
        LogMutation::SkipVersions | LogMutation::OwnHead => {
            LakeLog { faults: Faults { steals: 1, ..faults }, ..SMALLEST }
        }
        LogMutation::TrustLostAnswer | LogMutation::SkipLostVersion | LogMutation::PutReplaces => {
            LakeLog { faults: Faults { losses: 1, ..faults }, ..SMALLEST }
        }
        LogMutation::EnterWithoutConfirming => LakeLog { before: 2, rows: one, faults: trims, ..SMALLEST },
        LogMutation::TrustLowestEntry => {
            LakeLog { before: 3, rows: one, recent: 1, faults: Faults { steals: 1, ..trims }, ..SMALLEST }
        }
        LogMutation::TrimAboveHeads => {
            LakeLog { before: 3, is_first_pending: true, rows: one, recent: 1, faults: trims, ..SMALLEST }
        }
        LogMutation::GoneIsNotEntered => LakeLog {
            before: 3,
            is_first_pending: true,
            rows: one,
            recent: 1,
            faults: Faults { steals: 1, ..trims },
            ..SMALLEST
        },
        LogMutation::RemoveIntentEarly => LakeLog { before: 3, rows: one, recent: 1, faults: trims, ..SMALLEST },
        LogMutation::IntentsBeforeVersion => LakeLog {
            before: 1,
            rows: [(Kind::Epochs, 1), (Kind::Epochs, 2)],
            recent: 1,
            faults: Faults { steals: 1, months: 1, ..trims },
            ..SMALLEST
        },
        LogMutation::RewriteWithoutLease
        | LogMutation::PlanBeforeLease
        | LogMutation::RemoveBeforeEnter
        | LogMutation::AdvanceBeforeRemove => LakeLog {
            rows: [(Kind::Operations, 2), (Kind::Epochs, 1)],
            faults: Faults { steals: 1, ..faults },
            ..SMALLEST
        },
    };
    LakeLog { mutation: Some(mutation), ..model }
}

/// The number of the property that fails under a mutation.
pub fn expected(mutation: LogMutation) -> &'static str {
    match mutation {
        LogMutation::EntryBeforeRecord | LogMutation::EntryBeforeDecide => "G1",
        LogMutation::SkipVersions
        | LogMutation::OwnHead
        | LogMutation::GoneIsNotEntered
        | LogMutation::TrimAboveHeads
        | LogMutation::IntentsBeforeVersion => "G2",
        LogMutation::AdvanceBeforeEntry
        | LogMutation::IgnoreRefusal
        | LogMutation::TrustLostAnswer
        | LogMutation::EnterWithoutConfirming
        | LogMutation::RemoveIntentEarly
        | LogMutation::TrustLowestEntry => "G3",
        LogMutation::PutReplaces => "G4",
        LogMutation::SkipLostVersion => "G5",
        LogMutation::TryNextVersion => "G6",
        LogMutation::TrimYoung | LogMutation::TrimNewest => "G7",
        LogMutation::RewriteWithoutLease | LogMutation::PlanBeforeLease => "G8",
        LogMutation::RemoveBeforeEnter | LogMutation::AdvanceBeforeRemove => "G9",
    }
}
