//! What requests do to the log, the lease rows and the objects.
//!
//! Owns: each request's condition and effect, and the check that an effect keeps the invariants. That check is written
//! separately from the conditions, so that a condition that is left out is found. Does not own: who sends what (`writer`).

use super::LakeLog;
use super::mutation::LogMutation;
use super::properties::Broken;
use super::state::{LatePut, SLOTS, Stage, State, Trim};

impl LakeLog {
    /// Writes an entry, if its key is free. Returns whether it is new.
    ///
    /// # Panics
    /// The log has more entries than the bounds allow.
    pub(super) fn put(&self, state: &mut State, entry: LatePut) -> bool {
        let LatePut { version, names } = entry;
        let slot = usize::from(version) - 1;
        assert!(slot < SLOTS, "there is room for every entry that the bounds allow");
        if state.slots[slot].is_some() && !self.is(LogMutation::PutReplaces) {
            return false;
        }
        let change = names.of(version).unwrap_or_default();
        if state.log[slot].is_some() {
            // The slot was trimmed: the entry is false, and does not count.
            state.check(state.slots[slot].is_none(), Broken::NoVersionTwice);
            state.slots[slot] = Some(names);
            state.false_slots |= 1 << slot;
            return true;
        }
        let of = state.changes[usize::from(change)];
        state.check(version == state.newest() + 1, Broken::NoGap);
        state.check(of.stage == Stage::Recorded, Broken::RecordFirst);
        state.check(state.times_entered(change) == 0, Broken::Once);
        let is_as_it_was = |before: u8| names.of(before).is_none_or(|named| state.change_of(before) == Some(named));
        state.check((1..version).all(is_as_it_was), Broken::Chain);
        state.check(version == 1 || names.of(version - 1).is_some(), Broken::Chain);
        state.check(of.inputs & !state.live(version - 1) == 0, Broken::InputsAreLive);
        (state.slots[slot], state.log[slot]) = (Some(names), Some(names));
        true
    }

    /// The decision, which the lease table makes: the process holds the row, nothing is pending, and the number is the next one.
    pub(super) fn decide(&self, state: &mut State, name: u8, change: u8) -> bool {
        let of = &mut state.changes[usize::from(change)];
        let row = &mut state.rows[usize::from(of.row)];
        let is_operation = self.is_operations(of.row);
        if self.is(LogMutation::PlanBeforeLease) && is_operation {
            (row.holder, of.number) = (Some(name), row.done);
        }
        let skips = self.is(LogMutation::RewriteWithoutLease) && is_operation;
        let is_next = row.holder == Some(name) && row.done == of.number;
        if row.pending.is_some() || !(is_next || skips) {
            return false;
        }
        row.pending = Some(change);
        if of.stage == Stage::Intended {
            of.stage = Stage::Decided;
        }
        true
    }

    /// Moves the checkpoint, if the change is pending.
    pub(super) fn advance(&self, state: &mut State, change: u8) {
        let of = state.changes[usize::from(change)];
        let row = &mut state.rows[usize::from(of.row)];
        if row.pending != Some(change) {
            return;
        }
        (row.pending, row.done) = (None, row.done + 1);
        state.check(state.times_entered(change) == 1, Broken::EnterFirst);
        state.check(of.gone == of.inputs, Broken::RemoveInOrder);
    }

    /// Moves an operation's inputs to the trash.
    pub(super) fn remove_inputs(&self, state: &mut State, change: u8) {
        let has_entered = state.times_entered(change) == 1;
        state.check(has_entered, Broken::RemoveInOrder);
        let of = &mut state.changes[usize::from(change)];
        of.gone = of.inputs;
    }

    /// A trim's next step.
    pub(super) fn trim(&self, state: &mut State, place: usize) {
        let Some(trim) = state.trims[place] else { return };
        state.trims[place] = match trim {
            Trim::Chosen(version) => {
                let lowest = state.lowest_head().filter(|_| !self.is(LogMutation::TrimAboveHeads));
                Some(Trim::Deleting(lowest.unwrap_or(version).min(version)))
            }
            Trim::Listed(limit) => Some(Trim::Deleting(self.may_trim(state).min(limit))),
            Trim::Deleting(version) => {
                if let Some(lowest) = (1..=version).find(|version| state.slot(*version).is_some()) {
                    let is_kept = lowest < state.newest() && lowest <= state.old;
                    state.check(is_kept, Broken::TrimBelowSnapshot);
                    state.slots[usize::from(lowest) - 1] = None;
                    state.false_slots &= !(1 << (lowest - 1));
                    state.trimmed = state.trimmed.max(lowest);
                }
                Some(trim)
            }
        };
        if let Some(Trim::Deleting(version)) = state.trims[place]
            && (1..=version).all(|version| state.slot(version).is_none())
        {
            state.trims[place] = None;
        }
    }

    /// The highest version through which may be trimmed.
    pub(super) fn may_trim(&self, state: &State) -> u8 {
        let newest = state.newest();
        match self.mutation {
            Some(LogMutation::TrimYoung) => newest.saturating_sub(1),
            Some(LogMutation::TrimNewest) => state.old,
            _ => state.old.min(newest.saturating_sub(1)),
        }
    }

    /// Whether this mutation is on.
    pub(super) fn is(&self, mutation: LogMutation) -> bool {
        self.mutation == Some(mutation)
    }
}
