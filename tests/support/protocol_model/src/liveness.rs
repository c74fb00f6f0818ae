//! From every state a path leads to the end: a search of the whole graph, forwards and then backwards.
//!
//! `stateright`'s `eventually` is about every path and has no fairness: a worker that takes a lease again and again would be a
//! counterexample. Here the question is what a fleet needs: from every state that faults have led to, and whichever worker
//! continues, there is a path without further faults at whose end every record of every shard is committed. So nothing ever
//! gets stuck.
//!
//! Owns: the search. It distinguishes states by 128 bits of two hashes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::Model;

use crate::state::{Life, State};
use crate::{Action, Protocol};

/// What the search found.
#[derive(Debug)]
pub struct Graph<S> {
    /// States.
    pub states: usize,
    /// States in which everything is committed.
    pub goals: usize,
    /// States from which no path leads there although a process runs or may start.
    pub stuck: usize,
    /// One of them.
    pub example: Option<Box<S>>,
}

/// Searches the graph of all states of the commit protocol.
pub fn search(model: &Protocol) -> Graph<State> {
    // If all processes have died and no name is left, the bounds end the search here.
    let is_over = |state: &State| state.workers.iter().all(|worker| worker.life == Life::Dead) || state.broken != 0;
    search_graph(model, |state| state.all_committed(model.records), is_over, |action| is_fault(*action))
}

/// Searches the graph of all states of a model. States that are over need not lead anywhere, and faults count for nothing.
pub(crate) fn search_graph<M: Model>(
    model: &M,
    is_goal: impl Fn(&M::State) -> bool,
    is_over: impl Fn(&M::State) -> bool,
    is_fault: impl Fn(&M::Action) -> bool,
) -> Graph<M::State>
where
    M::State: Hash,
    M::Action: Copy,
{
    let mut numbers: HashMap<u128, u32> = HashMap::new();
    let mut from: Vec<(u32, u32)> = Vec::new();
    let mut goals: Vec<u32> = Vec::new();
    let mut over: Vec<bool> = Vec::new();
    let mut open: Vec<(u32, M::State)> = Vec::new();
    let mut example_of: Vec<u32> = Vec::new();
    for state in model.init_states() {
        let number = numbers.len() as u32;
        numbers.insert(fingerprint(&state), number);
        over.push(false);
        open.push((number, state));
    }
    let mut actions = Vec::new();
    while let Some((number, state)) = open.pop() {
        if is_goal(&state) {
            goals.push(number);
        }
        over[number as usize] = is_over(&state);
        actions.clear();
        model.actions(&state, &mut actions);
        for action in &actions {
            let Some(next) = model.next_state(&state, *action) else { continue };
            let found = numbers.len() as u32;
            let to = *numbers.entry(fingerprint(&next)).or_insert(found);
            if to == found {
                over.push(false);
                open.push((found, next));
            }
            if !is_fault(action) {
                from.push((to, number));
            }
        }
    }
    from.sort_unstable();
    let mut reaches = vec![false; numbers.len()];
    let mut back = goals.clone();
    back.iter().for_each(|goal| reaches[*goal as usize] = true);
    while let Some(state) = back.pop() {
        let first = from.partition_point(|(to, _)| *to < state);
        for (_, before) in from[first..].iter().take_while(|(to, _)| *to == state) {
            if !std::mem::replace(&mut reaches[*before as usize], true) {
                back.push(*before);
            }
        }
    }
    example_of.extend((0..numbers.len()).filter(|it| !reaches[*it] && !over[*it]).map(|it| it as u32));
    let example = example_of.first().and_then(|number| find(model, *number));
    Graph { states: numbers.len(), goals: goals.len(), stuck: example_of.len(), example: example.map(Box::new) }
}

/// Finds the state of this number by the same search.
fn find<M: Model>(model: &M, wanted: u32) -> Option<M::State>
where
    M::State: Hash,
{
    let mut numbers: HashMap<u128, u32> = HashMap::new();
    let mut open: Vec<(u32, M::State)> = Vec::new();
    for state in model.init_states() {
        let number = numbers.len() as u32;
        numbers.insert(fingerprint(&state), number);
        open.push((number, state));
    }
    while let Some((number, state)) = open.pop() {
        if number == wanted {
            return Some(state);
        }
        for next in model.next_states(&state) {
            let found = numbers.len() as u32;
            if *numbers.entry(fingerprint(&next)).or_insert(found) == found {
                open.push((found, next));
            }
        }
    }
    None
}

/// Whether the action is a fault, not progress.
fn is_fault(action: Action) -> bool {
    matches!(
        action,
        Action::Kill(_)
            | Action::Fail(_)
            | Action::Lose(..)
            | Action::Arrive(_)
            | Action::TakeReplyLost(..)
            | Action::TakeLost(..)
            | Action::Ask(..)
            | Action::AskLost(..)
            | Action::ReleaseLost(..)
            | Action::Expire(..)
            | Action::Appear(..)
    )
}

fn fingerprint(state: &impl Hash) -> u128 {
    let hash = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, state).hash(&mut hasher);
        hasher.finish()
    };
    u128::from(hash(1)) << 64 | u128::from(hash(2))
}
