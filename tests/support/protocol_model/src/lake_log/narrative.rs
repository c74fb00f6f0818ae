//! A path of the lake log in plain English.
//!
//! Owns: what each action means in the state in which it happens. Does not own: the path.

use super::state::{Phase, State, Trim, Why};
use super::{Action, LakeLog};

/// One sentence for an action.
pub fn sentence(model: &LakeLog, state: &State, action: Action) -> String {
    let phase = |name: u8| state.writers[usize::from(name)].phase;
    let version = |name: u8| state.writers[usize::from(name)].tail.map_or(0, |tail| tail.version) + 1;
    match action {
        Action::Take(name, row) => format!("{} takes the lease of row {row}", process(name)),
        Action::FindPending(name, row) => format!("{} finds a change pending on row {row}", process(name)),
        Action::Plan(name, row) => format!("{} begins to plan an operation of row {row}", process(name)),
        Action::Intend(name, row) => {
            format!("{} writes the intent of a change of row {row}; its head is {}", process(name), version(name) - 1)
        }
        Action::LoseAnswer(name) => {
            format!("{} writes version {}, and the answer is lost", process(name), version(name))
        }
        Action::LoseRequest(name) => {
            format!("{}'s request to write version {} times out; it may still arrive", process(name), version(name))
        }
        Action::Arrive(late) => format!("a late request arrives: to write version {}", late.version),
        Action::Kill(name) => format!("{} is killed, and another process takes its place", process(name)),
        Action::Month => format!("a month passes; all versions through {} may be trimmed", state.newest()),
        Action::BeginTrim(_, version) => format!("a trim chooses version {version}, if it may"),
        Action::StepTrim(place) => match state.trims[usize::from(place)] {
            Some(Trim::Chosen(version)) => format!("the trim of version {version} lists the intents"),
            Some(Trim::Listed(limit)) => format!("the trim chooses its version, {limit} at most"),
            Some(Trim::Deleting(version)) => format!("the trim deletes the lowest entry, through {version} at most"),
            None => "the trim has ended".to_owned(),
        },
        Action::Step(name) => format!("{} {}", process(name), step(model, state, (name, version(name)), phase(name))),
    }
}

fn step(model: &LakeLog, state: &State, (name, version): (u8, u8), phase: Phase) -> String {
    match phase {
        Phase::Idle | Phase::Planned { .. } => "waits".to_owned(),
        Phase::Decide { change } => {
            let mut after = *state;
            let held = model.decide(&mut after, name, change);
            format!("decides {}{}", of(change), if held { "" } else { ": refused" })
        }
        Phase::Recover { change } => format!("checks for the commit record of {}", of(change)),
        Phase::Record { change } => format!("writes the commit record of {}", of(change)),
        Phase::List { why: Why::Enter(change) } => format!("lists the end of the log, to enter {}", of(change)),
        Phase::List { why: Why::Plan(_) } => "lists the end of the log".to_owned(),
        Phase::FindIntent { change } => {
            let is = if state.changes[usize::from(change)].intent { "is" } else { "is not" };
            format!("finds an older entry gone; the intent of {} {is} there", of(change))
        }
        Phase::Last { version, .. } => format!("reads version {version}, the last one that it listed"),
        Phase::Older { version, .. } => format!("reads version {version}, for the versions that it names"),
        Phase::Confirm { .. } => format!("checks for the entry before version {version}"),
        Phase::Put { change } => {
            let is_taken = state.slot(version).is_some();
            format!("writes version {version}, for {}{}", of(change), if is_taken { ": refused" } else { "" })
        }
        Phase::Remove { change } => format!("removes the inputs of {}", of(change)),
        Phase::Advance { change } => format!("advances {}", of(change)),
        Phase::RemoveIntent { change } => format!("removes the intent of {}", of(change)),
    }
}

fn process(name: u8) -> String {
    format!("process {}", char::from(b'A' + name))
}

fn of(change: u8) -> String {
    format!("change {change}")
}

/// The state at the end of a path.
pub fn describe_state(state: &State) -> String {
    let mut text = String::new();
    for version in 1..=state.newest() {
        let change = state.change_of(version).map(of).unwrap_or_default();
        let what = match state.slot(version) {
            Some(_) if !state.is_false(version) => "",
            Some(_) => ", trimmed; a false entry has its key",
            None => ", trimmed",
        };
        text += &format!("  version {version}: {change}{what}\n");
    }
    for (number, row) in state.rows.iter().enumerate() {
        let pending = row.pending.map(|change| format!(", {} pending", of(change))).unwrap_or_default();
        let holder = row.holder.map_or("nobody".to_owned(), process);
        text += &format!("  row {number}: {} advanced{pending}, held by {holder}\n", row.done);
    }
    for (name, writer) in (0..).zip(&state.writers).filter(|(_, writer)| writer.phase != Phase::Idle) {
        text += &format!("  {}: {:?}\n", process(name), writer.phase);
    }
    text
}
