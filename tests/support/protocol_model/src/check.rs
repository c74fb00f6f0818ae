//! The configurations that are checked, and how.
//!
//! Owns: their bounds; which model exposes a mutation, and which property fails. Does not own: printing (`main`), the
//! properties (`properties`).

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use crate::liveness;
use crate::properties::LIVENESS;
use crate::state::{Faults, State, UNBOUNDED};
use crate::{Action, Family, Grain, Mutation, Protocol};

/// A configuration with its name.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// The model.
    pub protocol: Protocol,
    /// What its bounds make unreachable, by the numbers of `SOMETIMES`.
    pub never: &'static [&'static str],
    /// Whether it is also searched for states from which no path leads to the end.
    pub checks_liveness: bool,
    /// Whether it takes minutes: then it runs only on the command line, not in every test run.
    pub is_long: bool,
}

/// The smallest: two workers, two shards of one record, one object for each epoch, no faults but unlimited steals.
pub const SMALLEST: Protocol = Protocol {
    family: Family::Unrelated,
    grain: Grain::Coarse,
    records: 1,
    objects: 1,
    workers: 2,
    faults: Faults { deaths: 0, losses: 0, expiries: 0, asks: 0, steals: UNBOUNDED },
    mutation: None,
    forgets: true,
    renames: true,
};

/// What can't be reached with deaths and steals alone.
const NO_FAULTS: [&str; 7] = ["S6", "S7", "S8", "S9", "S10", "S11", "S12"];

impl Case {
    /// Its bounds in words.
    pub fn bounds(&self) -> String {
        let Protocol { family, grain, records, objects, faults, .. } = self.protocol;
        let family = if family == Family::ParentAndChild { "parent and child" } else { "2 shards" };
        let Faults { deaths, losses, expiries, asks, steals } = faults;
        let steals = if steals == UNBOUNDED { "any".to_owned() } else { steals.to_string() };
        format!(
            "{grain:?}; {family} of {records}, {objects} obj; steals {steals}, deaths {deaths}, lost {losses}, expired {expiries}, asked {asks}"
        )
    }
}

/// All configurations; those of every test run come first.
pub fn cases() -> Vec<Case> {
    let least = SMALLEST.faults;
    let case = |name, protocol, never| Case { name, protocol, never, checks_liveness: false, is_long: false };
    let alive = |case: Case| Case { checks_liveness: true, ..case };
    let long = |case: Case| Case { is_long: true, ..case };
    let family = Protocol { family: Family::ParentAndChild, records: 2, ..SMALLEST };
    let fine = Protocol { grain: Grain::Fine, ..SMALLEST };
    let expiring = Faults { expiries: 1, steals: 1, ..least };
    vec![
        alive(case("deaths", Protocol { faults: Faults { deaths: 1, steals: 1, ..least }, ..SMALLEST }, &NO_FAULTS)),
        alive(case(
            "late requests",
            Protocol { faults: Faults { losses: 1, steals: 2, ..least }, ..SMALLEST },
            &["S8", "S9", "S10", "S11", "S12"],
        )),
        alive(case(
            "roll back",
            Protocol { faults: Faults { expiries: 1, steals: 1, ..least }, objects: 2, ..SMALLEST },
            &["S6", "S7", "S11", "S12"],
        )),
        alive(case("chain", Protocol { records: 2, ..SMALLEST }, &NO_FAULTS)),
        alive(case("family", Protocol { faults: Faults { deaths: 1, steals: 1, ..least }, ..family }, &NO_FAULTS[..6])),
        alive(case("lease manager", Protocol { faults: Faults { steals: 2, ..least }, ..fine }, &NO_FAULTS)),
        alive(case(
            "hand-over",
            Protocol { faults: Faults { asks: 1, steals: 1, ..least }, ..fine },
            &["S6", "S7", "S8", "S9", "S10", "S12"],
        )),
        alive(case(
            "comes back",
            Protocol {
                family: Family::ParentAndChild,
                faults: Faults { losses: 1, asks: 1, steals: 2, ..least },
                ..SMALLEST
            },
            &["S10"],
        )),
        long(alive(case(
            "comes back, strangers",
            Protocol { faults: Faults { losses: 1, asks: 1, steals: 2, ..least }, ..SMALLEST },
            &["S10", "S12"],
        ))),
        long(alive(case(
            "deaths, any steals",
            Protocol { faults: Faults { deaths: 1, ..least }, ..SMALLEST },
            &NO_FAULTS,
        ))),
        long(alive(case(
            "late, any steals",
            Protocol { faults: Faults { losses: 1, ..least }, ..SMALLEST },
            &["S10", "S11", "S12"],
        ))),
        long(alive(case(
            "roll back, any steals",
            Protocol { faults: Faults { expiries: 1, ..least }, objects: 2, ..SMALLEST },
            &["S6", "S7", "S11", "S12"],
        ))),
        long(case(
            "deaths, late",
            Protocol { faults: Faults { deaths: 1, losses: 1, steals: 1, ..least }, ..SMALLEST },
            &["S8", "S9", "S10", "S11", "S12"],
        )),
        long(case("2 deaths", Protocol { faults: Faults { deaths: 2, steals: 1, ..least }, ..SMALLEST }, &NO_FAULTS)),
        long(case(
            "2 late",
            Protocol { faults: Faults { losses: 2, steals: 2, ..least }, ..SMALLEST },
            &["S9", "S10", "S11", "S12"],
        )),
        long(case(
            "chain, late",
            Protocol { faults: Faults { losses: 1, steals: 2, ..least }, records: 2, ..SMALLEST },
            &["S8", "S9", "S10", "S11", "S12"],
        )),
        long(case(
            "roll back, late",
            Protocol { faults: Faults { losses: 1, ..expiring }, objects: 2, ..SMALLEST },
            &["S7", "S11", "S12"],
        )),
        long(case(
            "roll back, deaths",
            Protocol { faults: Faults { deaths: 1, ..expiring }, objects: 2, ..SMALLEST },
            &["S6", "S7", "S11", "S12"],
        )),
        long(case(
            "family, late",
            Protocol { faults: Faults { losses: 1, deaths: 1, steals: 1, ..least }, ..family },
            &["S8", "S9", "S10", "S11"],
        )),
        long(case(
            "lease manager, late",
            Protocol { faults: Faults { losses: 1, steals: 2, ..least }, ..fine },
            &["S8", "S9", "S10", "S11", "S12"],
        )),
        long(case(
            "lease manager, deaths",
            Protocol { faults: Faults { deaths: 1, steals: 1, ..least }, ..fine },
            &NO_FAULTS,
        )),
        long(case(
            "lease manager, chain",
            Protocol { faults: Faults { steals: 2, ..least }, records: 2, ..fine },
            &NO_FAULTS,
        )),
        long(alive(case(
            "hand-over, late",
            Protocol { faults: Faults { losses: 1, asks: 1, steals: 1, ..least }, ..fine },
            &["S8", "S9", "S10", "S12"],
        ))),
    ]
}

/// What a check found.
#[derive(Debug)]
pub struct Outcome {
    /// States that differ in more than names.
    pub unique: usize,
    /// The length of the longest of the shortest paths.
    pub depth: usize,
    /// Properties that fail.
    pub failed: Vec<&'static str>,
    /// What should have been reached and was not.
    pub unreached: Vec<&'static str>,
    /// How many of the states that must be reached were.
    pub reached: usize,
}

/// Searches all states.
pub fn check(case: &Case, threads: usize) -> Outcome {
    search_all(&case.protocol, case.never, threads)
}

/// Searches all states of a model. What `never` names by its number need not be reached.
pub(crate) fn search_all<M>(model: &M, never: &[&str], threads: usize) -> Outcome
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + PartialEq + std::fmt::Debug + std::hash::Hash + Send + Sync + 'static,
    M::Action: Clone + PartialEq + std::fmt::Debug + std::hash::Hash + Send + Sync + 'static,
{
    let checker = model.clone().checker().threads(threads).spawn_bfs().join();
    let found = checker.discoveries();
    let (mut failed, mut unreached, mut reached) = (Vec::new(), Vec::new(), 0);
    for property in model.properties() {
        let is_found = found.contains_key(property.name);
        let is_never = never.iter().any(|never| property.name.starts_with(&format!("{never}:")));
        match property.expectation {
            Expectation::Sometimes if is_found => reached += 1,
            Expectation::Sometimes if !is_never => unreached.push(property.name),
            Expectation::Always if is_found => failed.push(property.name),
            _ => {}
        }
    }
    Outcome { unique: checker.unique_state_count(), depth: checker.max_depth(), failed, unreached, reached }
}

/// A shortest path to a state in which the property of this number fails, or any property.
pub fn counterexample(model: Protocol, number: Option<&str>) -> Option<(&'static str, Path<State, Action>)> {
    let is_wanted = |name: &str| number.is_none_or(|number| name.split(':').next() == Some(number));
    let wanted = model.properties().into_iter().map(|property| property.name).filter(|name| is_wanted(name)).collect();
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf(wanted)).spawn_bfs().join();
    let found = checker.discoveries().into_iter().filter(|(name, _)| is_wanted(name));
    found.min_by_key(|(name, path)| (path.clone().into_actions().len(), *name))
}

/// The property that fails under a mutation, and the length of the path to it; no length for one about the whole graph.
pub fn caught(mutation: Mutation) -> Option<(&'static str, Option<usize>)> {
    let model = mutated(mutation);
    if expected(mutation) == "L" {
        return (liveness::search(&model).stuck > 0).then_some((LIVENESS, None));
    }
    let number = Some(expected(mutation)).filter(|number| *number != NOTHING);
    counterexample(model, number).map(|(property, path)| (property, Some(path.into_actions().len())))
}

/// A model that exposes the mutation.
pub fn mutated(mutation: Mutation) -> Protocol {
    let faults = SMALLEST.faults;
    let lossy = Faults { losses: 1, ..faults };
    let expiring = Faults { expiries: 1, ..faults };
    let model = match mutation {
        Mutation::AskerDecides => Protocol { faults: Faults { asks: 1, ..faults }, ..SMALLEST },
        Mutation::SkipCheckpoint
        | Mutation::SkipPending
        | Mutation::RemoveIntentOfRefused
        | Mutation::LostIsRefused => Protocol { faults: Faults { steals: 2, ..lossy }, ..SMALLEST },
        Mutation::AdvanceOnOwnership => Protocol { faults: lossy, records: 2, ..SMALLEST },
        Mutation::PublishLost | Mutation::TornByPending => Protocol { faults: expiring, ..SMALLEST },
        Mutation::RollBackWithoutAbort => {
            Protocol { faults: Faults { expiries: 1, steals: 1, ..lossy }, objects: 2, ..SMALLEST }
        }
        Mutation::DeleteAfterRollBack | Mutation::AbortNothing | Mutation::RollBackAnyway => {
            Protocol { faults: Faults { steals: 1, ..expiring }, objects: 2, ..SMALLEST }
        }
        Mutation::SlowCompletion => Protocol { faults: Faults { steals: 1, ..lossy }, ..SMALLEST },
        Mutation::ResumeWithoutRecovery => Protocol { faults: Faults { deaths: 1, steals: 1, ..faults }, ..SMALLEST },
        Mutation::ReadersLiveOn => Protocol { records: 2, ..SMALLEST },
        Mutation::ChildBeforeParent => Protocol { family: Family::ParentAndChild, ..SMALLEST },
        Mutation::HideDisownedLeases => {
            Protocol { family: Family::ParentAndChild, faults: Faults { asks: 1, steals: 2, ..lossy }, ..SMALLEST }
        }
        Mutation::GainedKeepsLedger => {
            Protocol { grain: Grain::Fine, faults: Faults { steals: 2, ..faults }, ..SMALLEST }
        }
        Mutation::SkipHolder
        | Mutation::DecideRowByRow
        | Mutation::PublishBeforeDecide
        | Mutation::DecideBeforeIntent
        | Mutation::AdvanceBeforePublish
        | Mutation::AdvanceBeforeRecord
        | Mutation::AdvanceBeforeEnter
        | Mutation::EnterBeforeRecord
        | Mutation::RecordIsEntered
        | Mutation::GoneIsLost
        | Mutation::CompleteReplaces => SMALLEST,
    };
    // Paths are for reading: names stay.
    let is_path = !matches!(expected(mutation), "L" | NOTHING);
    Protocol { mutation: Some(mutation), renames: !is_path, ..model }
}

/// What fails without a redundant rule.
pub const NOTHING: &str = "nothing";

/// The number of the property that fails under a mutation.
pub fn expected(mutation: Mutation) -> &'static str {
    match mutation {
        Mutation::SkipHolder => "C4",
        Mutation::AskerDecides => "C5",
        Mutation::SkipCheckpoint | Mutation::SkipPending => "C2",
        Mutation::DecideRowByRow => "C3.1",
        Mutation::PublishBeforeDecide => "A4",
        Mutation::DecideBeforeIntent | Mutation::RemoveIntentOfRefused => "A5",
        Mutation::AdvanceBeforePublish => "A3",
        Mutation::AdvanceBeforeRecord => "R",
        Mutation::AdvanceBeforeEnter | Mutation::RecordIsEntered => "G3",
        Mutation::EnterBeforeRecord => "G1",
        Mutation::AdvanceOnOwnership => "C1.1",
        Mutation::PublishLost | Mutation::GoneIsLost => "A2",
        Mutation::RollBackWithoutAbort | Mutation::DeleteAfterRollBack | Mutation::SlowCompletion => "A6",
        Mutation::CompleteReplaces => "A7",
        Mutation::ResumeWithoutRecovery | Mutation::HideDisownedLeases => "L",
        Mutation::ReadersLiveOn => "A8",
        Mutation::ChildBeforeParent => "P",
        Mutation::GainedKeepsLedger => "W",
        Mutation::TornByPending => "T",
        Mutation::AbortNothing | Mutation::RollBackAnyway | Mutation::LostIsRefused => NOTHING,
    }
}
