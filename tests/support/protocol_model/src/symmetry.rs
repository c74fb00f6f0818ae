//! States that differ only in names are one.
//!
//! Owns: renaming workers and epochs into an order that depends on their contents and not on their names. If the order can't
//! tell two of them apart, they keep theirs: then the search does more than it must, never less.

use crate::state::{EPOCHS, Epoch, Holder, Life, Phase, Request, SHARDS, State, WORKERS, Worker, at};

/// The state with workers and epochs renamed.
pub(crate) fn representative(state: &State) -> State {
    let mut order: [usize; WORKERS] = std::array::from_fn(|name| name);
    let keys: [_; WORKERS] = std::array::from_fn(|name| identity(state, name));
    order.sort_by(|one, other| keys[*one].cmp(&keys[*other]));
    let mut named = [0_u8; WORKERS];
    for (new, old) in order.iter().enumerate() {
        named[*old] = new as u8;
    }
    let mut renamed = *state;
    for (new, old) in order.iter().enumerate() {
        renamed.workers[new] = state.workers[*old];
    }
    for row in &mut renamed.rows {
        row.holder = match row.holder {
            Holder::Nobody => Holder::Nobody,
            Holder::Held(worker) => Holder::Held(named[at(worker)]),
            Holder::HandingOver(from, to) => Holder::HandingOver(named[at(from)], named[at(to)]),
        };
    }
    for epoch in renamed.epochs.iter_mut().filter(|epoch| epoch.is_used) {
        epoch.owner = named[at(epoch.owner)];
    }
    for late in renamed.late.iter_mut().flatten() {
        *late = match *late {
            Request::Take(worker, shard) => Request::Take(named[at(worker)], shard),
            Request::Ask(worker, shard, from) => Request::Ask(named[at(worker)], shard, named[at(from)]),
            Request::Release(worker, shard) => Request::Release(named[at(worker)], shard),
            // Only a mutation uses the worker.
            Request::Advance(epoch, shard, _) => Request::Advance(epoch, shard, 0),
            other => other,
        };
    }
    renamed.late.sort_unstable_by_key(|late| (late.is_none(), *late));
    with_epochs_in_order(renamed)
}

/// The contents of a worker, without names.
fn identity(state: &State, name: usize) -> (Worker, [u8; SHARDS], Option<Epoch>, usize) {
    let mut worker = state.workers[name];
    if worker.life == Life::NotYet {
        return (worker, [0; SHARDS], None, 0);
    }
    let epoch = worker.phase.epoch();
    worker.phase = with_epoch(worker.phase, 0);
    let of_epoch = epoch
        .map(|epoch| Epoch { owner: u8::from(at(state.epochs[at(epoch)].owner) == name), ..state.epochs[at(epoch)] });
    let rows = state.rows.map(|row| match row.holder {
        Holder::Held(held_by) if at(held_by) == name => 1,
        Holder::HandingOver(from, _) if at(from) == name => 2,
        Holder::HandingOver(_, to) if at(to) == name => 3,
        _ => 0,
    });
    let late = state.late.iter().flatten().filter(|late| match late {
        Request::Take(who, _) | Request::Ask(who, _, _) | Request::Release(who, _) => at(*who) == name,
        Request::Decide(epoch) => at(state.epochs[at(*epoch)].owner) == name,
        _ => false,
    });
    (worker, rows, of_epoch, late.count())
}

fn with_epochs_in_order(state: State) -> State {
    if state.epochs[1..].iter().all(|epoch| !epoch.is_used) {
        return state;
    }
    let mut order: [usize; EPOCHS] = std::array::from_fn(|number| number);
    order.sort_by_key(|number| {
        let number = *number;
        let epoch = &state.epochs[number];
        let refers = |other: Option<u8>| other.is_some_and(|other| at(other) == number);
        let rows = state.rows.map(|row| (refers(row.pending), refers(row.last)));
        let workers = state.workers.map(|worker| refers(worker.phase.epoch()));
        (!epoch.is_used, *epoch, rows, workers)
    });
    let mut numbered = [0_u8; EPOCHS];
    for (new, old) in order.iter().enumerate() {
        numbered[*old] = new as u8;
    }
    let of = |number: u8| numbered[at(number)];
    let mut ordered = state;
    for (new, old) in order.iter().enumerate() {
        ordered.epochs[new] = state.epochs[*old];
    }
    for row in &mut ordered.rows {
        (row.pending, row.last) = (row.pending.map(of), row.last.map(of));
    }
    for worker in &mut ordered.workers {
        if let Some(epoch) = worker.phase.epoch() {
            worker.phase = with_epoch(worker.phase, of(epoch));
        }
    }
    for late in ordered.late.iter_mut().flatten() {
        *late = match *late {
            Request::PutIntent(epoch) => Request::PutIntent(of(epoch)),
            Request::Decide(epoch) => Request::Decide(of(epoch)),
            Request::DecideOne(epoch, shard) => Request::DecideOne(of(epoch), shard),
            Request::Complete(epoch, object) => Request::Complete(of(epoch), object),
            Request::Abort(epoch, object) => Request::Abort(of(epoch), object),
            Request::Delete(epoch, object) => Request::Delete(of(epoch), object),
            Request::PutRecord(epoch) => Request::PutRecord(of(epoch)),
            Request::Enter(epoch) => Request::Enter(of(epoch)),
            Request::Advance(epoch, shard, who) => Request::Advance(of(epoch), shard, who),
            Request::RemoveIntent(epoch) => Request::RemoveIntent(of(epoch)),
            Request::RollBack(epoch) => Request::RollBack(of(epoch)),
            of_worker @ (Request::Take(..) | Request::Ask(..) | Request::Release(..)) => of_worker,
        };
    }
    ordered.late.sort_unstable_by_key(|late| (late.is_none(), *late));
    ordered
}

/// The same phase, for another epoch.
fn with_epoch(mut phase: Phase, to: u8) -> Phase {
    match &mut phase {
        Phase::Idle | Phase::ReadAgain { .. } | Phase::Gained { .. } | Phase::End { .. } => {}
        Phase::Stage { epoch, .. }
        | Phase::WriteIntent { epoch }
        | Phase::Decide { epoch }
        | Phase::Judge { epoch, .. }
        | Phase::AbortRefused { epoch, .. }
        | Phase::Publish { epoch, .. }
        | Phase::Record { epoch, .. }
        | Phase::Enter { epoch, .. }
        | Phase::Advance { epoch, .. }
        | Phase::RemoveIntent { epoch, .. }
        | Phase::FindRecord { epoch, .. }
        | Phase::FindIntent { epoch, .. }
        | Phase::Rows { epoch, .. }
        | Phase::Abort { epoch, .. }
        | Phase::Delete { epoch, .. }
        | Phase::RollBack { epoch, .. }
        | Phase::Settle { epoch, .. } => *epoch = to,
    }
    phase
}
