//! Configurations, and checking one.

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use crate::state::{Faults, State};
use crate::symmetry::representative;
use crate::{Action, Family, Grain, Mutation, Protocol};

/// What a check found.
#[derive(Debug)]
pub struct Outcome {
    /// States that differ, but for names.
    pub unique: usize,
    /// All states met.
    pub states: usize,
    /// Steps of the longest path.
    pub depth: usize,
    /// Properties that do not hold.
    pub failed: Vec<&'static str>,
    /// What was to be reached and was not.
    pub unreached: Vec<&'static str>,
}

/// Checks all states.
pub fn check(model: Protocol, threads: usize) -> Outcome {
    let checker = model.checker().symmetry_fn(representative).threads(threads).spawn_dfs().join();
    let found = checker.discoveries();
    let (mut failed, mut unreached) = (Vec::new(), Vec::new());
    for property in model.properties() {
        match property.expectation {
            Expectation::Sometimes if !found.contains_key(property.name) => unreached.push(property.name),
            Expectation::Always if found.contains_key(property.name) => failed.push(property.name),
            _ => {}
        }
    }
    Outcome {
        unique: checker.unique_state_count(),
        states: checker.state_count(),
        depth: checker.max_depth(),
        failed,
        unreached,
    }
}

/// A shortest way to where a property is broken.
pub fn counterexample(model: Protocol) -> Option<(&'static str, Path<State, Action>)> {
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let shortest = found.into_iter().min_by_key(|(_, path)| path.clone().into_actions().len());
    shortest
}
