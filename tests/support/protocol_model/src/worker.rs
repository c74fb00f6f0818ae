//! What a worker does: the coordinator's steps, one request each.
//!
//! Owns: the order of the steps and what follows from each answer, as `src/commit/` and `src/worker/epoch/commit.rs` have
//! them. Does not own: effects of requests (`world`), leases and readers (`lease_manager`).
//!
//! A step is a request with its effect and its answer in one: the worker only waits between them, so the others' steps may as
//! well come before or after. A request without an answer is `lose`; it may arrive at any later time, or never. A worker may be
//! killed before and after every step.

use crate::Protocol;
use crate::mutation::Mutation;
use crate::properties::Broken;
use crate::state::{
    Attempt, LeaseView, Life, OBJECTS, Object, Phase, Request, State, Status, Then, Worker, at, bits, mask,
};

impl Protocol {
    /// The requests that a worker may send next, as a mask: if it sends several at once, any may be first.
    pub(crate) fn choices(&self, phase: Phase) -> u8 {
        match phase {
            Phase::Idle => 0,
            Phase::Publish { left, look, .. } => left | look << OBJECTS,
            Phase::Judge { left, .. }
            | Phase::ReadAgain { left }
            | Phase::Advance { left, .. }
            | Phase::Rows { left, .. }
            | Phase::End { left } => left,
            _ => 1,
        }
    }

    /// The request of a choice, if it changes something.
    pub(crate) fn request(&self, state: &State, name: u8, choice: u8) -> Option<Request> {
        Some(match state.workers[at(name)].phase {
            Phase::WriteIntent { epoch } => Request::PutIntent(epoch),
            Phase::Decide { epoch } if self.is(Mutation::DecideRowByRow) => {
                let decided = state.rows_where(|row| row.pending == Some(epoch));
                let left = state.epochs[at(epoch)].shards() & !decided;
                Request::DecideOne(epoch, bits(left).next().unwrap_or(0))
            }
            Phase::Decide { epoch } => Request::Decide(epoch),
            Phase::AbortRefused { epoch, object, .. } | Phase::Abort { epoch, object, .. } => {
                Request::Abort(epoch, object)
            }
            Phase::Publish { epoch, left, .. } if left >> choice & 1 == 1 => Request::Complete(epoch, choice),
            Phase::Record { epoch, .. } => Request::PutRecord(epoch),
            Phase::Enter { epoch, .. } => Request::Enter(epoch),
            Phase::Advance { epoch, .. } => Request::Advance(epoch, choice, name),
            Phase::RemoveIntent { epoch, .. } => Request::RemoveIntent(epoch),
            Phase::Delete { epoch, object, .. } => Request::Delete(epoch, object),
            Phase::RollBack { epoch, .. } => Request::RollBack(epoch),
            Phase::End { .. } => Request::Release(name, choice),
            _ => return None,
        })
    }

    /// The request is answered.
    pub(crate) fn step(&self, state: &mut State, name: u8, choice: u8) {
        let held = self.request(state, name, choice).is_none_or(|request| self.arrive(state, request, false));
        let phase = state.workers[at(name)].phase;
        let next = self.after(state, name, phase, choice, held);
        self.enter(state, name, next);
    }

    /// The request times out, and the worker continues.
    pub(crate) fn lose(&self, state: &mut State, name: u8, choice: u8) {
        let Some(request) = self.request(state, name, choice) else { return };
        state.give_up(request);
        let next = match state.workers[at(name)].phase {
            Phase::Decide { epoch } if self.is(Mutation::LostIsRefused) => {
                Phase::AbortRefused { epoch, object: 0, fails: false }
            }
            Phase::Decide { epoch } => self.judge(state, epoch),
            // These are not repeated: a sweep does what they failed to do, and other workers take what was not released.
            phase @ (Phase::AbortRefused { .. } | Phase::RemoveIntent { .. } | Phase::End { .. }) => {
                self.after(state, name, phase, choice, true)
            }
            // All others are.
            phase => phase,
        };
        self.enter(state, name, next);
    }

    /// Requests in flight when a worker dies may still arrive.
    pub(crate) fn leave(&self, state: &mut State, name: u8) {
        let phase = state.workers[at(name)].phase;
        for choice in bits(self.choices(phase)) {
            if let Some(request) = self.request(state, name, choice) {
                state.give_up(request);
            }
        }
    }

    /// The worker ends after an error or a stop.
    pub(crate) fn fail(&self, state: &mut State, name: u8) {
        self.leave(state, name);
        let worker = &mut state.workers[at(name)];
        (worker.ledger, worker.reading, worker.events, worker.disowned) = Default::default();
        let next = match worker.phase {
            Phase::WriteIntent { epoch } => Phase::AbortRefused { epoch, object: 0, fails: true },
            _ => ending(worker),
        };
        self.enter(state, name, next);
    }

    /// The phase after an answer. `held`: whether the request's condition held.
    fn after(&self, state: &mut State, name: u8, phase: Phase, choice: u8, held: bool) -> Phase {
        let bit = 1 << choice;
        match phase {
            Phase::Idle => Phase::Idle,
            Phase::Stage { epoch, object } => {
                state.epochs[at(epoch)].objects[at(object)] = Object::Staged;
                if at(object) + 1 < self.objects {
                    Phase::Stage { epoch, object: object + 1 }
                } else if self.is(Mutation::DecideBeforeIntent) {
                    Phase::Decide { epoch }
                } else {
                    Phase::WriteIntent { epoch }
                }
            }
            Phase::WriteIntent { epoch } => match self.mutation {
                Some(Mutation::DecideBeforeIntent | Mutation::PublishBeforeDecide) => self.publish(epoch),
                _ => Phase::Decide { epoch },
            },
            Phase::Decide { epoch } if held => self.decided(state, epoch),
            Phase::Decide { epoch } => self.judge(state, epoch),
            Phase::Judge { epoch, left, in_effect, all_moved_on, is_refused } => {
                let (row, range) = (state.rows[at(choice)], state.epochs[at(epoch)].ranges[at(choice)]);
                let in_effect = in_effect || row.pending == Some(epoch) || row.last == Some(epoch);
                let all_moved_on = all_moved_on && row.checkpoint >= range.through;
                let refuses = !row.holder.is(name) || row.pending.is_some() || row.checkpoint != range.after;
                let is_refused = is_refused || refuses;
                match left & !bit {
                    0 if in_effect => self.decided(state, epoch),
                    0 if all_moved_on || is_refused => Phase::AbortRefused { epoch, object: 0, fails: false },
                    0 => Phase::Decide { epoch },
                    left => Phase::Judge { epoch, left, in_effect, all_moved_on, is_refused },
                }
            }
            Phase::AbortRefused { epoch, object, fails } => {
                if at(object) + 1 < self.objects {
                    return Phase::AbortRefused { epoch, object: object + 1, fails };
                }
                if self.is(Mutation::RemoveIntentOfRefused) {
                    state.epochs[at(epoch)].intent = false;
                }
                if fails {
                    ending(&state.workers[at(name)])
                } else {
                    self.read_again(state, name, state.epochs[at(epoch)].shards())
                }
            }
            Phase::ReadAgain { left } => {
                let (row, left) = (state.rows[at(choice)], left & !bit);
                if !row.holder.is(name) {
                    self.disown(state, name, choice);
                    return read_again_or_idle(left);
                }
                if row.pending.is_some() {
                    return Phase::Gained { shard: choice, left };
                }
                self.start_reading(state, name, at(choice), row.checkpoint);
                read_again_or_idle(left)
            }
            Phase::Gained { shard, left } => {
                let row = state.rows[at(shard)];
                match row.pending {
                    _ if !row.holder.is(name) => {
                        self.disown(state, name, shard);
                        read_again_or_idle(left)
                    }
                    Some(epoch) if !self.is(Mutation::ResumeWithoutRecovery) => {
                        Phase::FindRecord { epoch, is_second: false, then: Then::Gained(shard, left) }
                    }
                    _ => {
                        self.start_reading(state, name, at(shard), row.checkpoint);
                        read_again_or_idle(left)
                    }
                }
            }
            Phase::Publish { epoch, left, look, is_lost, attempt, then } => {
                let (left, look, is_lost) = self.after_publish(state, epoch, choice, (left, look, is_lost), held);
                let stops = is_lost && self.is(Mutation::RollBackWithoutAbort);
                if left | look != 0 && !stops {
                    return Phase::Publish { epoch, left, look, is_lost, attempt, then };
                }
                self.published(state, epoch, is_lost, attempt, then)
            }
            Phase::Record { epoch, then } => {
                if self.is(Mutation::AdvanceBeforePublish) || self.is(Mutation::AdvanceBeforeRecord) {
                    return Phase::RemoveIntent { epoch, then };
                }
                match self.mutation {
                    Some(Mutation::AdvanceBeforeEnter | Mutation::EnterBeforeRecord) => {
                        self.advancing(state, epoch, then)
                    }
                    _ => Phase::Enter { epoch, then },
                }
            }
            Phase::Enter { epoch, then } => match self.mutation {
                Some(Mutation::EnterBeforeRecord) if !state.epochs[at(epoch)].record => Phase::Record { epoch, then },
                Some(Mutation::AdvanceBeforeEnter) => Phase::RemoveIntent { epoch, then },
                _ => self.advancing(state, epoch, then),
            },
            Phase::Advance { epoch, left, then } => match left & !bit {
                0 if self.is(Mutation::AdvanceBeforePublish) && !state.epochs[at(epoch)].record => {
                    self.publishing(epoch, Attempt::Own, then)
                }
                0 if self.is(Mutation::AdvanceBeforeRecord) && !state.epochs[at(epoch)].record => {
                    Phase::Record { epoch, then }
                }
                0 if self.is(Mutation::AdvanceBeforeEnter) => Phase::Enter { epoch, then },
                0 => Phase::RemoveIntent { epoch, then },
                left => Phase::Advance { epoch, left, then },
            },
            Phase::RemoveIntent { epoch, then } => self.committed(state, name, epoch, then),
            Phase::FindRecord { epoch, is_second, then } => {
                if state.epochs[at(epoch)].record {
                    return self.entering(state, epoch, then);
                }
                if !is_second {
                    return Phase::FindIntent { epoch, then };
                }
                state.check(false, Broken::IntentFound);
                ending(&state.workers[at(name)])
            }
            Phase::FindIntent { epoch, then } if state.epochs[at(epoch)].intent => {
                self.publishing(epoch, Attempt::Recover, then)
            }
            Phase::FindIntent { epoch, then } => Phase::FindRecord { epoch, is_second: true, then },
            Phase::Rows { epoch, left, everywhere, pending, advanced, is_after, then } => {
                let row = state.rows[at(choice)];
                let is_pending = row.pending == Some(epoch);
                let everywhere = everywhere && is_pending;
                let (pending, advanced) = (pending || is_pending, advanced || row.last == Some(epoch));
                match left & !bit {
                    0 if everywhere && !is_after => self.roll_back_from(epoch, then),
                    0 => Phase::Settle { epoch, pending, advanced, then },
                    left => Phase::Rows { epoch, left, everywhere, pending, advanced, is_after, then },
                }
            }
            Phase::Abort { epoch, object, then } => {
                if at(object) + 1 < self.objects {
                    Phase::Abort { epoch, object: object + 1, then }
                } else if self.is(Mutation::DeleteAfterRollBack) {
                    Phase::RollBack { epoch, then }
                } else {
                    Phase::Delete { epoch, object: 0, then }
                }
            }
            Phase::Delete { epoch, object, then } => {
                if at(object) + 1 < self.objects {
                    Phase::Delete { epoch, object: object + 1, then }
                } else if self.is(Mutation::DeleteAfterRollBack) {
                    self.rolled_back(state, name, epoch, then)
                } else {
                    Phase::RollBack { epoch, then }
                }
            }
            Phase::RollBack { epoch, then } if held && self.is(Mutation::DeleteAfterRollBack) => {
                Phase::Delete { epoch, object: 0, then }
            }
            Phase::RollBack { epoch, then } if held => self.rolled_back(state, name, epoch, then),
            Phase::RollBack { epoch, then } => self.rows(state, epoch, true, then),
            Phase::Settle { epoch, pending, advanced, then } => {
                if state.epochs[at(epoch)].record {
                    return self.entering(state, epoch, then);
                }
                if advanced || (pending && self.is(Mutation::TornByPending)) {
                    state.check(false, Broken::NotTorn);
                    return ending(&state.workers[at(name)]);
                }
                if pending {
                    // Rows are not read at one time: some were read before another worker's rollback, some after it.
                    return Phase::FindRecord { epoch, is_second: false, then };
                }
                self.rolled_back(state, name, epoch, then)
            }
            Phase::End { left } => Phase::End { left: left & !bit },
        }
    }

    /// Enters a phase; a worker that has nothing left to do ends.
    fn enter(&self, state: &mut State, name: u8, phase: Phase) {
        let worker = &mut state.workers[at(name)];
        worker.phase = phase;
        if phase == (Phase::End { left: 0 }) {
            *worker = Worker { life: Life::Dead, ..Worker::default() };
        }
    }

    // --- the next phase -------------------------------------------------------------------------------------------------

    fn judge(&self, state: &State, epoch: u8) -> Phase {
        let left = state.epochs[at(epoch)].shards();
        Phase::Judge { epoch, left, in_effect: false, all_moved_on: true, is_refused: false }
    }

    /// The epoch is decided.
    fn decided(&self, state: &State, epoch: u8) -> Phase {
        let decided = &state.epochs[at(epoch)];
        let left = decided.shards() & !state.rows_where(|row| row.pending == Some(epoch));
        match self.mutation {
            Some(Mutation::DecideRowByRow) if left != 0 && decided.advanced == 0 => Phase::Decide { epoch },
            Some(Mutation::DecideBeforeIntent) => Phase::WriteIntent { epoch },
            Some(Mutation::AdvanceBeforePublish) => self.advancing(state, epoch, Then::Own),
            _ => self.publish(epoch),
        }
    }

    fn publish(&self, epoch: u8) -> Phase {
        self.publishing(epoch, Attempt::Own, Then::Own)
    }

    fn publishing(&self, epoch: u8, attempt: Attempt, then: Then) -> Phase {
        let left = (1 << self.objects) - 1;
        Phase::Publish { epoch, left, look: 0, is_lost: false, attempt, then }
    }

    /// An upload was completed or found gone, or its object was checked.
    fn after_publish(
        &self,
        state: &State,
        epoch: u8,
        choice: u8,
        (left, look, is_lost): (u8, u8, bool),
        held: bool,
    ) -> (u8, u8, bool) {
        let bit = 1 << choice;
        if left & bit != 0 {
            return (left & !bit, if held { look } else { look | bit }, is_lost);
        }
        let object = at(choice) - OBJECTS;
        let is_included = !self.is(Mutation::GoneIsLost) && state.epochs[at(epoch)].objects[object] == Object::Visible;
        (left, look & !(1_u8 << object), is_lost || !is_included)
    }

    /// Every upload was completed, or is lost.
    fn published(&self, state: &State, epoch: u8, is_lost: bool, attempt: Attempt, then: Then) -> Phase {
        let is_undecided = state.epochs[at(epoch)].status == Status::Undecided;
        match attempt {
            _ if !is_lost || self.is(Mutation::PublishLost) => match self.mutation {
                Some(Mutation::PublishBeforeDecide) if is_undecided => Phase::Decide { epoch },
                Some(Mutation::AdvanceBeforeRecord) => self.advancing(state, epoch, then),
                Some(Mutation::EnterBeforeRecord) => Phase::Enter { epoch, then },
                _ => Phase::Record { epoch, then },
            },
            Attempt::Own => Phase::FindRecord { epoch, is_second: false, then },
            Attempt::Recover => self.publishing(epoch, Attempt::Again, then),
            Attempt::Again if self.is(Mutation::RollBackAnyway) => self.roll_back_from(epoch, then),
            Attempt::Again => self.rows(state, epoch, false, then),
        }
    }

    /// The commit record was found: the epoch may have entered or not.
    fn entering(&self, state: &State, epoch: u8, then: Then) -> Phase {
        match self.mutation {
            Some(Mutation::RecordIsEntered) => self.advancing(state, epoch, then),
            _ => Phase::Enter { epoch, then },
        }
    }

    fn advancing(&self, state: &State, epoch: u8, then: Then) -> Phase {
        Phase::Advance { epoch, left: state.epochs[at(epoch)].shards(), then }
    }

    fn rows(&self, state: &State, epoch: u8, is_after: bool, then: Then) -> Phase {
        let left = state.epochs[at(epoch)].shards();
        Phase::Rows { epoch, left, everywhere: true, pending: false, advanced: false, is_after, then }
    }

    fn roll_back_from(&self, epoch: u8, then: Then) -> Phase {
        if self.is(Mutation::RollBackWithoutAbort) || self.is(Mutation::AbortNothing) {
            return Phase::Delete { epoch, object: 0, then };
        }
        Phase::Abort { epoch, object: 0, then }
    }

    /// `Recovered::Forward`, or the end of the worker's own commit.
    fn committed(&self, state: &mut State, name: u8, epoch: u8, then: Then) -> Phase {
        let Then::Own = then else { return after_gained(then) };
        for shard in bits(state.epochs[at(epoch)].shards()).map(at) {
            let is_read = state.workers[at(name)].reading[shard].is_some();
            if is_read && self.is_at_end(shard, state.epochs[at(epoch)].ranges[shard].through) {
                self.stop_reading(state, name, shard);
                state.workers[at(name)].views[shard] = LeaseView::Releasing;
            }
        }
        Phase::Idle
    }

    /// `Recovered::Back`.
    fn rolled_back(&self, state: &mut State, name: u8, epoch: u8, then: Then) -> Phase {
        match then {
            Then::Own => self.read_again(state, name, state.epochs[at(epoch)].shards()),
            Then::Gained(..) => after_gained(then),
        }
    }

    /// The shards of an abandoned epoch are read again.
    pub(crate) fn read_again(&self, state: &mut State, name: u8, shards: u8) -> Phase {
        bits(shards).for_each(|shard| self.stop_reading(state, name, at(shard)));
        read_again_or_idle(shards)
    }
}

/// The next phase while these shards have to be read again.
fn read_again_or_idle(left: u8) -> Phase {
    if left == 0 { Phase::Idle } else { Phase::ReadAgain { left } }
}

/// The row is read once more.
fn after_gained(then: Then) -> Phase {
    match then {
        Then::Own => Phase::Idle,
        Then::Gained(shard, left) => Phase::Gained { shard, left },
    }
}

/// The worker ends and releases what it holds.
fn ending(worker: &Worker) -> Phase {
    Phase::End { left: mask(|shard| matches!(worker.views[shard], LeaseView::Held | LeaseView::Asked)) }
}
