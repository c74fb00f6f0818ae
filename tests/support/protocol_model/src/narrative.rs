//! A path in plain English.
//!
//! Owns: what each action means in the state in which it happens. Does not own: the path.

use crate::state::{Attempt, Holder, LeaseEvent, LeaseView, OBJECTS, Phase, Request, State, at, bits};
use crate::{Action, Grain, Protocol};

/// One sentence for an action.
pub fn sentence(model: &Protocol, state: &State, action: Action) -> String {
    match action {
        Action::Start(name) => format!("{} starts", worker(name)),
        Action::Kill(name) => format!("{} is killed{}", worker(name), in_flight(model, state, name)),
        Action::Fail(name) => {
            format!("{} fails with an error or is stopped{}", worker(name), in_flight(model, state, name))
        }
        Action::Step(name, choice) => format!("{} {}", worker(name), step(model, state, name, choice)),
        Action::Lose(name, choice) => {
            let request = model.request(state, name, choice).map(request).unwrap_or_default();
            format!("{}'s request to {request} times out; it may still arrive", worker(name))
        }
        Action::DecideAgain(name) => format!("{} can't read the rows, and decides again", worker(name)),
        Action::Arrive(late) => format!("a late request arrives: to {}", request(late)),
        Action::Take(name, shard) => format!("{} takes {}, {}", worker(name), lease(shard), held(state, shard)),
        Action::TakeReplyLost(name, shard) => {
            format!("{} takes {}, {}; the reply is lost", worker(name), lease(shard), held(state, shard))
        }
        Action::TakeLost(name, shard) => {
            format!("{}'s request to take {} times out; it may still arrive", worker(name), lease(shard))
        }
        Action::Find(name, shard) => {
            format!("the lease manager of {} finds that it holds {}", worker(name), lease(shard))
        }
        Action::LoseLease(name, shard) => {
            format!("the lease manager of {} finds that it no longer holds {}", worker(name), lease(shard))
        }
        Action::Ask(name, shard) => format!("{} asks for {}, {}", worker(name), lease(shard), held(state, shard)),
        Action::AskLost(name, shard) => {
            format!("{}'s request to be handed {} times out; it may still arrive", worker(name), lease(shard))
        }
        Action::OnAsked(name, shard) => {
            format!("{} learns that another worker asks for {}", worker(name), lease(shard))
        }
        Action::HandOver(name, shard) => format!("{} stops reading {} to hand it over", worker(name), lease(shard)),
        Action::Release(name, shard) => format!("{} releases {}", worker(name), lease(shard)),
        Action::ReleaseLost(name, shard) => {
            format!("{}'s request to release {} times out; it may still arrive", worker(name), lease(shard))
        }
        Action::Renew(name, shard) => format!("{} renews {}", worker(name), lease(shard)),
        Action::OnLeaseEvent(name, shard) => {
            let what = match state.workers[at(name)].events[at(shard)] {
                LeaseEvent::None => "learns nothing of",
                LeaseEvent::Lost | LeaseEvent::LostThenGained(_) => "learns that it has lost",
                LeaseEvent::Gained(_) => "learns that it has gained",
            };
            format!("the coordinator of {} {what} {}", worker(name), lease(shard))
        }
        Action::OnDisowned(name, shard) => {
            format!("the lease manager of {} learns that {} is in another worker's name", worker(name), lease(shard))
        }
        Action::Read(name, shard) => format!("{} reads a chunk of {}", worker(name), lease(shard)),
        Action::ReadStale(name, shard) => {
            format!("{} accepts a chunk of {} from a replaced reader", worker(name), lease(shard))
        }
        Action::Commit(name, shards) if model.grain == Grain::Coarse && shards != 0 => {
            format!("{} reads a chunk of {}, and ends the epoch", worker(name), leases(shards))
        }
        Action::Commit(name, _) => {
            format!("{} ends its epoch of {}", worker(name), leases(state.workers[at(name)].open()))
        }
        Action::Expire(number, object) => {
            format!("the bucket's lifecycle rule aborts the upload of object {object} of {}", epoch(number))
        }
        Action::Appear(number, object) => format!("object {object} of {} becomes visible", epoch(number)),
    }
}

fn worker(name: u8) -> String {
    format!("worker {}", char::from(b'A' + name))
}

fn lease(shard: u8) -> String {
    format!("shard {shard}")
}

fn leases(shards: u8) -> String {
    bits(shards).map(lease).collect::<Vec<_>>().join(" and ")
}

fn epoch(number: u8) -> String {
    format!("epoch {number}")
}

fn held(state: &State, shard: u8) -> String {
    match state.rows[at(shard)].holder {
        Holder::Nobody => "which nobody holds".to_owned(),
        Holder::Held(name) => format!("which {} holds", worker(name)),
        Holder::HandingOver(from, to) => format!("which {} holds and {} asked for", worker(from), worker(to)),
    }
}

fn in_flight(model: &Protocol, state: &State, name: u8) -> String {
    let phase = state.workers[at(name)].phase;
    let requests: Vec<String> =
        bits(model.choices(phase)).filter_map(|choice| model.request(state, name, choice)).map(request).collect();
    if requests.is_empty() {
        return String::new();
    }
    format!("; in flight, and perhaps to arrive: to {}", requests.join(", to "))
}

fn request(request: Request) -> String {
    match request {
        Request::PutIntent(number) => format!("write the intent of {}", epoch(number)),
        Request::Decide(number) => format!("decide {}", epoch(number)),
        Request::DecideOne(number, shard) => format!("decide {} on {}", epoch(number), lease(shard)),
        Request::Complete(number, object) => format!("complete the upload of object {object} of {}", epoch(number)),
        Request::Abort(number, object) => format!("abort the upload of object {object} of {}", epoch(number)),
        Request::Delete(number, object) => format!("delete object {object} of {}", epoch(number)),
        Request::PutRecord(number) => format!("write the commit record of {}", epoch(number)),
        Request::Enter(number) => format!("enter {} into the lake log", epoch(number)),
        Request::Advance(number, shard, _) => format!("advance {} to the end of {}", lease(shard), epoch(number)),
        Request::RemoveIntent(number) => format!("remove the intent of {}", epoch(number)),
        Request::RollBack(number) => format!("roll {} back", epoch(number)),
        Request::Take(name, shard) => format!("take {} for {}", lease(shard), worker(name)),
        Request::Ask(name, shard, from) => format!("ask {} to hand {} to {}", worker(from), lease(shard), worker(name)),
        Request::Release(name, shard) => format!("release {} for {}", lease(shard), worker(name)),
    }
}

fn step(model: &Protocol, state: &State, name: u8, choice: u8) -> String {
    let phase = state.workers[at(name)].phase;
    if let Some(sent) = model.request(state, name, choice) {
        let mut after = *state;
        let took = model.arrive(&mut after, sent, false);
        return format!("gets the answer to its request to {}{}", request(sent), if took { "" } else { ": refused" });
    }
    match phase {
        Phase::Stage { epoch: number, object } => format!("uploads object {object} of {}, invisible", epoch(number)),
        Phase::Judge { epoch: number, .. } => {
            format!("reads the row of {} to find out what became of {}", lease(choice), epoch(number))
        }
        Phase::ReadAgain { .. } => {
            format!("reads the row of {}, to read the shard again if it still holds it", lease(choice))
        }
        Phase::Gained { shard, .. } => match state.rows[at(shard)].pending {
            Some(number) => format!("reads the row of {}, and finds {} pending", lease(shard), epoch(number)),
            None => format!("reads the row of {}, and finds nothing pending", lease(shard)),
        },
        Phase::Publish { epoch: number, attempt, .. } => {
            let why = if attempt == Attempt::Again { "again " } else { "" };
            format!("checks {why}for object {} of {}, whose upload is gone", at(choice) - OBJECTS, epoch(number))
        }
        Phase::FindRecord { epoch: number, .. } => {
            let found = if state.epochs[at(number)].record { "finds it" } else { "finds none" };
            format!("checks for the commit record of {}: {found}", epoch(number))
        }
        Phase::FindIntent { epoch: number, .. } => {
            let found = if state.epochs[at(number)].intent { "finds it" } else { "finds none" };
            format!("checks for the intent of {}: {found}", epoch(number))
        }
        Phase::Rows { epoch: number, is_after, .. } => {
            let when = if is_after { "after its rollback was refused" } else { "before it rolls back" };
            let row = &state.rows[at(choice)];
            let shows = if row.pending == Some(number) { "it is pending there" } else { "it is not pending there" };
            format!("reads the row of {} {when}, for {}: {shows}", lease(choice), epoch(number))
        }
        Phase::Settle { epoch: number, .. } => {
            format!("checks for the commit record of {}, to settle its outcome", epoch(number))
        }
        other => format!("continues ({other:?})"),
    }
}

/// The state at the end of a path.
pub fn describe_state(state: &State) -> String {
    let mut text = String::new();
    for (shard, row) in state.rows.iter().enumerate() {
        let pending = row.pending.map(|number| format!(", {} pending", epoch(number))).unwrap_or_default();
        text +=
            &format!("  shard {shard}: committed through {}{pending}, {}\n", row.checkpoint, held(state, shard as u8));
    }
    for (number, of) in (0..).zip(&state.epochs).filter(|(_, of)| of.is_used) {
        let ranges: Vec<String> = bits(of.shards())
            .map(|shard| format!("{} ({}, {}]", lease(shard), of.ranges[at(shard)].after, of.ranges[at(shard)].through))
            .collect();
        text += &format!(
            "  {}: {}; objects {:?}; {:?}{}{}{}\n",
            epoch(number),
            ranges.join(", "),
            of.objects,
            of.status,
            if of.intent { "; intent" } else { "" },
            if of.record { "; commit record" } else { "" },
            if of.entered { "; entered" } else { "" },
        );
    }
    for (name, of) in (0..).zip(&state.workers).filter(|(_, of)| of.life == crate::state::Life::Running) {
        let keeps =
            (0..).zip(&of.views).filter(|(_, view)| **view != LeaseView::NotHeld).map(|(shard, _)| lease(shard));
        let keeps: Vec<String> = keeps.collect();
        text += &format!("  {}: {:?}; believes that it holds: {}\n", worker(name), of.phase, keeps.join(", "));
    }
    text
}
