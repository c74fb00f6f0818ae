//! What requests do: the lease table's conditional writes, and the lake's calls.
//!
//! Owns: each request's condition and effect, as `checkpoints/src/rules.rs` and `src/lake/mod.rs` have them, and the check
//! that an effect keeps the invariants. That check is written separately from the conditions, so that a condition that is
//! left out is found. Does not own: who sends what (`worker`).

use crate::mutation::Mutation;
use crate::properties::Broken;
use crate::state::{Holder, Object, Request, State, Status, at, bits};
use crate::{Family, Protocol};

impl Protocol {
    /// The request arrives. Returns whether its condition held.
    pub(crate) fn arrive(&self, state: &mut State, request: Request, is_late: bool) -> bool {
        match request {
            Request::PutIntent(epoch) => state.epochs[at(epoch)].intent = true,
            Request::PutRecord(epoch) => state.epochs[at(epoch)].record = true,
            Request::Enter(epoch) => {
                let entered = state.epochs[at(epoch)];
                state.check(entered.status == Status::Decided && entered.record, Broken::EnterAfterRecord);
                state.epochs[at(epoch)].entered = true;
            }
            Request::RemoveIntent(epoch) => state.epochs[at(epoch)].intent = false,
            Request::Decide(epoch) => return self.decide(state, epoch, state.epochs[at(epoch)].shards()),
            Request::DecideOne(epoch, shard) => return self.decide(state, epoch, 1 << shard),
            Request::Advance(epoch, shard, who) => return self.advance(state, epoch, shard, who),
            Request::RollBack(epoch) => return self.roll_back(state, epoch),
            Request::Complete(epoch, object) => return self.complete(state, epoch, object, is_late),
            Request::Abort(epoch, object) => {
                let object = &mut state.epochs[at(epoch)].objects[at(object)];
                if *object == Object::Staged {
                    *object = Object::Aborted;
                }
            }
            Request::Delete(epoch, object) => {
                let object = &mut state.epochs[at(epoch)].objects[at(object)];
                if *object == Object::Visible {
                    *object = Object::Deleted;
                }
            }
            Request::Take(worker, shard) => changes_holder(state, shard, Holder::Held(worker)),
            Request::Ask(worker, shard, from) => {
                let holder = &mut state.rows[at(shard)].holder;
                if *holder != Holder::Held(from) || worker == from {
                    return false;
                }
                *holder = Holder::HandingOver(from, worker);
            }
            Request::Release(worker, shard) => match state.rows[at(shard)].holder {
                Holder::HandingOver(from, to) if from == worker => changes_holder(state, shard, Holder::Held(to)),
                Holder::Held(held_by) if held_by == worker => changes_holder(state, shard, Holder::Nobody),
                _ => return false,
            },
        }
        true
    }

    /// `rules::decide`, on some of the epoch's shards.
    fn decide(&self, state: &mut State, epoch: u8, shards: u8) -> bool {
        let decided = state.epochs[at(epoch)];
        for shard in bits(shards) {
            let (row, range) = (state.rows[at(shard)], decided.ranges[at(shard)]);
            let asked = matches!(row.holder, Holder::HandingOver(_, to) if to == decided.owner);
            let may = row.holder.is(decided.owner)
                || self.is(Mutation::SkipHolder)
                || (self.is(Mutation::AskerDecides) && asked);
            let is_free = row.pending.is_none() || self.is(Mutation::SkipPending);
            let is_included = row.checkpoint == range.after || self.is(Mutation::SkipCheckpoint);
            if !(may && is_free && is_included) {
                return false;
            }
        }
        for shard in bits(shards) {
            let (row, range) = (state.rows[at(shard)], decided.ranges[at(shard)]);
            let asked = matches!(row.holder, Holder::HandingOver(_, to) if to == decided.owner);
            state.check(row.holder.is(decided.owner) || asked, Broken::HolderDecides);
            state.check(row.holder.is(decided.owner) || !asked, Broken::AskedWorkerHolds);
            state.check(row.pending.is_none(), Broken::OnePending);
            state.check(row.checkpoint == range.after, Broken::Chain);
            state.check(range.records == range.expected_records(), Broken::ReadWhatIsCommitted);
            state.check(self.parent_is_done(state, at(shard)), Broken::ParentFirst);
            state.rows[at(shard)].pending = Some(epoch);
        }
        state.epochs[at(epoch)].status = Status::Decided;
        true
    }

    /// `rules::advance`, of one row.
    fn advance(&self, state: &mut State, epoch: u8, shard: u8, who: u8) -> bool {
        let row = state.rows[at(shard)];
        let range = state.epochs[at(epoch)].ranges[at(shard)];
        let may = match self.mutation {
            Some(Mutation::AdvanceOnOwnership) => row.holder.is(who),
            _ => row.pending == Some(epoch),
        };
        if !may {
            return false;
        }
        state.check(range.through >= row.checkpoint, Broken::NeverBack);
        state.check(row.checkpoint == range.after || range.through < row.checkpoint, Broken::Chain);
        state.check(state.epochs[at(epoch)].record, Broken::RecordFirst);
        state.check(state.epochs[at(epoch)].entered || !state.epochs[at(epoch)].record, Broken::EnterFirst);
        state.check(!state.epochs[at(epoch)].was_rolled_back, Broken::NeverBoth);
        let row = &mut state.rows[at(shard)];
        (row.checkpoint, row.pending, row.last) = (range.through, None, Some(epoch));
        state.epochs[at(epoch)].advanced |= 1 << shard;
        true
    }

    /// `rules::roll_back`.
    fn roll_back(&self, state: &mut State, epoch: u8) -> bool {
        let rolled = state.epochs[at(epoch)];
        let pending = state.rows_where(|row| row.pending == Some(epoch));
        let needed = rolled.shards();
        let is_everywhere = needed & !pending == 0;
        let may = is_everywhere || (self.is(Mutation::RollBackAnyway) && pending & needed != 0);
        if !may {
            return false;
        }
        state.check(rolled.advanced == 0, Broken::NeverBoth);
        let is_gone = rolled.has(Object::Aborted) || rolled.has(Object::Deleted);
        let is_clean = !rolled.has(Object::Staged) && !rolled.has(Object::Visible);
        state.check(is_gone && is_clean, Broken::RollbackInOrder);
        for shard in bits(pending & needed) {
            state.rows[at(shard)].pending = None;
        }
        let rolled = &mut state.epochs[at(epoch)];
        (rolled.status, rolled.was_rolled_back) = (Status::RolledBack, true);
        true
    }

    fn complete(&self, state: &mut State, epoch: u8, object: u8, is_late: bool) -> bool {
        let was = state.epochs[at(epoch)].objects[at(object)];
        let again = matches!(was, Object::Visible | Object::Deleted);
        if was != Object::Staged && !(again && self.is(Mutation::CompleteReplaces)) {
            return false;
        }
        state.check(!again, Broken::NoKeyTwice);
        let is_slow = is_late && self.is(Mutation::SlowCompletion);
        state.epochs[at(epoch)].objects[at(object)] = if is_slow { Object::Completing } else { Object::Visible };
        true
    }

    /// The part of `balance::is_ready` about parents. (A mutation changes which shards are read, not what is right.)
    pub(crate) fn parent_is_done(&self, state: &State, shard: usize) -> bool {
        let parent = &state.rows[0];
        shard == 0
            || self.family != Family::ParentAndChild
            || (parent.checkpoint == self.records && parent.pending.is_none())
    }

    /// Whether the shard is read to its end. Only a parent has one.
    pub(crate) fn is_at_end(&self, shard: usize, checkpoint: u8) -> bool {
        shard == 0 && self.family == Family::ParentAndChild && checkpoint == self.records
    }

    /// Whether this mutation is on.
    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// A new holder: the counter moves, so every `take` that saw the old one is void.
fn changes_holder(state: &mut State, shard: u8, holder: Holder) {
    state.rows[at(shard)].holder = holder;
    void_takes(state, shard);
}

/// The counter moves.
pub(crate) fn void_takes(state: &mut State, shard: u8) {
    for late in &mut state.late {
        if matches!(late, Some(Request::Take(_, of)) if *of == shard) {
            *late = None;
        }
    }
    state.late.sort_unstable_by_key(|late| (late.is_none(), *late));
}
