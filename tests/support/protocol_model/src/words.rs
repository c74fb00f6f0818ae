//! A path in plain words.
//!
//! Owns: what each action means in the state that it is taken in. Does not own: the path.

use crate::state::{Attempt, Holder, Keep, Mail, OBJECTS, Phase, Request, State, bits};
use crate::world::at;
use crate::{Action, Grain, Protocol};

/// One sentence for an action.
pub fn sentence(model: &Protocol, state: &State, action: Action) -> String {
    match action {
        Action::Start(name) => format!("{} starts", worker(name)),
        Action::Kill(name) => format!("{} is killed{}", worker(name), under_way(model, state, name)),
        Action::Fail(name) => {
            format!("{} gives up with an error or is stopped{}", worker(name), under_way(model, state, name))
        }
        Action::Step(name, choice) => format!("{} {}", worker(name), step(model, state, name, choice)),
        Action::Lose(name, choice) => {
            let request = model.request(state, name, choice).map(request).unwrap_or_default();
            format!("{} has no answer to its request to {request}: it may still arrive", worker(name))
        }
        Action::DecideAgain(name) => format!("{} can't read the rows, and will decide again", worker(name)),
        Action::Arrive(late) => format!("a late request arrives: to {}", request(late)),
        Action::Take(name, shard) => format!("{} takes {}, {}", worker(name), lease(shard), held(state, shard)),
        Action::TakeUnheard(name, shard) => {
            format!("{} takes {}, {}; the answer is lost", worker(name), lease(shard), held(state, shard))
        }
        Action::TakeLost(name, shard) => {
            format!("{} has no answer to its request to take {}: it may still arrive", worker(name), lease(shard))
        }
        Action::Find(name, shard) => format!("the keeper of {} finds {} to be its own", worker(name), lease(shard)),
        Action::LoseLease(name, shard) => {
            format!("the keeper of {} sees that {} is its own no more", worker(name), lease(shard))
        }
        Action::Ask(name, shard) => format!("{} asks for {}, {}", worker(name), lease(shard), held(state, shard)),
        Action::AskLost(name, shard) => {
            format!("{} has no answer to its asking for {}: it may still arrive", worker(name), lease(shard))
        }
        Action::HearAsked(name, shard) => format!("{} hears that it is asked for {}", worker(name), lease(shard)),
        Action::HandOver(name, shard) => format!("{} stops reading {} to hand it over", worker(name), lease(shard)),
        Action::LetGo(name, shard) => format!("{} lets go of {}", worker(name), lease(shard)),
        Action::LetGoLost(name, shard) => {
            format!("{} has no answer to its letting go of {}: it may still arrive", worker(name), lease(shard))
        }
        Action::Renew(name, shard) => format!("{} renews {}", worker(name), lease(shard)),
        Action::Hear(name, shard) => {
            let what = match state.workers[at(name)].mail[at(shard)] {
                Mail::None => "hears nothing of",
                Mail::Lost | Mail::LostThenGained(_) => "hears that it has lost",
                Mail::Gained(_) => "hears that it has gained",
            };
            format!("the coordinator of {} {what} {}", worker(name), lease(shard))
        }
        Action::HearNotOurs(name, shard) => {
            format!("the keeper of {} hears that {} was found to be another's", worker(name), lease(shard))
        }
        Action::Read(name, shard) => format!("{} reads a chunk of {}", worker(name), lease(shard)),
        Action::ReadStale(name, shard) => {
            format!("{} takes a chunk of {} from a reader that was replaced", worker(name), lease(shard))
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
        Action::Appear(number, object) => format!("object {object} of {} becomes visible at last", epoch(number)),
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
        Holder::HandingOver(from, to) => format!("which {} was asked for by {}", worker(from), worker(to)),
    }
}

fn under_way(model: &Protocol, state: &State, name: u8) -> String {
    let phase = state.workers[at(name)].phase;
    let requests: Vec<String> =
        bits(model.choices(phase)).filter_map(|choice| model.request(state, name, choice)).map(request).collect();
    if requests.is_empty() {
        return String::new();
    }
    format!("; under way, and perhaps to arrive: to {}", requests.join(", to "))
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
        Request::Advance(number, shard, _) => format!("advance {} to the end of {}", lease(shard), epoch(number)),
        Request::RemoveIntent(number) => format!("remove the intent of {}", epoch(number)),
        Request::RollBack(number) => format!("take the decision of {} back", epoch(number)),
        Request::Take(name, shard) => format!("take {} for {}", lease(shard), worker(name)),
        Request::Ask(name, shard, from) => format!("ask {} for {} for {}", worker(from), lease(shard), worker(name)),
        Request::Release(name, shard) => format!("let go of {} for {}", lease(shard), worker(name)),
    }
}

fn step(model: &Protocol, state: &State, name: u8, choice: u8) -> String {
    let phase = state.workers[at(name)].phase;
    if let Some(sent) = model.request(state, name, choice) {
        let mut after = *state;
        let took = model.arrive(&mut after, sent, false);
        return format!("has its request answered: to {}{}", request(sent), if took { "" } else { "; refused" });
    }
    match phase {
        Phase::Stage { epoch: number, object } => format!("uploads object {object} of {}, invisible", epoch(number)),
        Phase::Judge { epoch: number, .. } => {
            format!("reads the row of {} to find out about {}", lease(choice), epoch(number))
        }
        Phase::ReadAgain { .. } => {
            format!("reads the row of {}, to read it again if it is still its own", lease(choice))
        }
        Phase::Gained { shard, .. } => match state.rows[at(shard)].pending {
            Some(number) => format!("reads the row of {}, and finds {} pending", lease(shard), epoch(number)),
            None => format!("reads the row of {}, and finds nothing pending", lease(shard)),
        },
        Phase::Publish { epoch: number, attempt, .. } => {
            let why = if attempt == Attempt::Again { "once more " } else { "" };
            format!("looks {why}for object {} of {}, whose upload is gone", at(choice) - OBJECTS, epoch(number))
        }
        Phase::FindRecord { epoch: number, .. } => {
            let found = if state.epochs[at(number)].record { "finds it" } else { "finds none" };
            format!("looks for the commit record of {}: {found}", epoch(number))
        }
        Phase::FindIntent { epoch: number, .. } => {
            let found = if state.epochs[at(number)].intent { "finds it" } else { "finds none" };
            format!("looks for the intent of {}: {found}", epoch(number))
        }
        Phase::Rows { epoch: number, is_after, .. } => {
            let when = if is_after { "after its roll back was refused" } else { "before it rolls back" };
            let row = &state.rows[at(choice)];
            let shows = if row.pending == Some(number) { "it is pending there" } else { "it is not pending there" };
            format!("reads the row of {} {when}, for {}: {shows}", lease(choice), epoch(number))
        }
        Phase::Settle { epoch: number, .. } => {
            format!("looks for the commit record of {}, to settle what became of it", epoch(number))
        }
        other => format!("goes on ({other:?})"),
    }
}

/// What there is at the end of a path.
pub fn picture(state: &State) -> String {
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
            "  {}: {}; objects {:?}; {:?}{}{}\n",
            epoch(number),
            ranges.join(", "),
            of.objects,
            of.standing,
            if of.intent { "; intent" } else { "" },
            if of.record { "; commit record" } else { "" },
        );
    }
    for (name, of) in (0..).zip(&state.workers).filter(|(_, of)| of.life == crate::state::Life::Running) {
        let keeps = (0..).zip(&of.keep).filter(|(_, keep)| **keep != Keep::Not).map(|(shard, _)| lease(shard));
        let keeps: Vec<String> = keeps.collect();
        text += &format!("  {}: {:?}; thinks it holds: {}\n", worker(name), of.phase, keeps.join(", "));
    }
    text
}
