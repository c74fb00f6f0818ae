//! What a process does: the steps of a commit from the intent on, one request each. The step enter is the one in detail.
//!
//! Owns: the order of the steps and what follows from each answer, as `src/commit/lake_log/` has them. Does not own: effects of
//! requests (`store`).
//!
//! A process that has slept may know an old end of the log, and its entry may be new only because that of somebody else was
//! trimmed. So whoever has written an entry confirms that the one before it is still there: entries are trimmed in ascending
//! order.

use super::LakeLog;
use super::mutation::LogMutation;
use super::state::{CHANGES, Change, LatePut, Names, Phase, SLOTS, Stage, State, Tail, Why};

impl LakeLog {
    /// The request is answered.
    pub(super) fn step(&self, state: &mut State, name: u8) {
        let phase = state.writers[usize::from(name)].phase;
        let next = self.after(state, name, phase);
        state.writers[usize::from(name)].phase = next;
    }

    /// The intent of a change is written: of an epoch, or of an operation that was planned.
    ///
    /// # Panics
    /// There are more changes than the bounds allow.
    pub(super) fn intend(&self, state: &mut State, name: u8, row: u8) {
        let free = state.changes.iter().position(|change| change.stage == Stage::Unused);
        let free = free.expect("there is room for every change that the bounds allow");
        let head = state.writers[usize::from(name)].tail.map_or(0, |tail| tail.version);
        let change = free as u8;
        let phase = match self.mutation {
            Some(LogMutation::EntryBeforeDecide) => self.look_up(state, name, change, head),
            _ => Phase::Decide { change },
        };
        state.writers[usize::from(name)].phase = phase;
        let inputs = if self.is_operations(row) { state.live(head) } else { 0 };
        let number = state.rows[usize::from(row)].done;
        state.changes[free] = Change { stage: Stage::Intended, intent: true, row, number, head, inputs, gone: 0 };
    }

    /// The entry that the process would write.
    pub(super) fn entry(&self, state: &State, name: u8, change: u8) -> LatePut {
        let tail = state.writers[usize::from(name)].tail.unwrap_or(EMPTY);
        let version = tail.version + 1;
        let names = tail.names.with(version, change).from(version.saturating_sub(self.recent));
        LatePut { version, names }
    }

    /// The phase after an answer.
    fn after(&self, state: &mut State, name: u8, phase: Phase) -> Phase {
        match phase {
            Phase::Idle | Phase::Planned { .. } => phase,
            Phase::Decide { change } => {
                let row = state.changes[usize::from(change)].row;
                if self.decide(state, name, change) {
                    return match self.mutation {
                        Some(LogMutation::EntryBeforeRecord) => self.enter(state, name, change),
                        _ => Phase::Record { change },
                    };
                }
                // Nothing refers to it any more. (Its intent may stay for a while; that only holds trims back.)
                state.changes[usize::from(change)] = Change::default();
                state.writers[usize::from(name)].believes &= !(1 << row);
                Phase::Idle
            }
            Phase::Recover { change } => match state.changes[usize::from(change)] {
                of if state.rows[usize::from(of.row)].pending != Some(change) => Phase::Idle,
                of if of.stage == Stage::Recorded => self.recorded(state, name, change),
                _ => Phase::Record { change },
            },
            Phase::Record { change } => {
                state.changes[usize::from(change)].stage = Stage::Recorded;
                self.recorded(state, name, change)
            }
            Phase::List { why } => self.listed(state, name, why),
            Phase::Last { why, version } => match state.slot(version) {
                Some(names) => {
                    let tail = Tail { version, names, is_false: state.is_false(version) };
                    state.writers[usize::from(name)].tail = Some(tail);
                    self.known(state, why, tail)
                }
                // It was the newest, and was trimmed since.
                None => Phase::List { why },
            },
            Phase::Older { change, version, expected } => match state.slot(version) {
                Some(found) if found.of(version) == Some(expected) || self.is(LogMutation::TrustLowestEntry) => {
                    self.search(state, (change, state.changes[usize::from(change)].head), version, found)
                }
                // Trimmed, or a false entry.
                _ if self.is(LogMutation::GoneIsNotEntered) => Phase::Put { change },
                _ => Phase::FindIntent { change },
            },
            Phase::FindIntent { change } if state.changes[usize::from(change)].intent => Phase::Put { change },
            // Somebody else finished it long ago.
            Phase::FindIntent { change } => self.entered(state, change),
            Phase::Put { change } => {
                let entry = self.entry(state, name, change);
                if self.put(state, entry) {
                    return match self.mutation {
                        Some(LogMutation::EnterWithoutConfirming) => self.written(state, name, change),
                        _ => Phase::Confirm { change },
                    };
                }
                match self.mutation {
                    Some(LogMutation::IgnoreRefusal) => self.entered(state, change),
                    Some(LogMutation::TryNextVersion) => {
                        skip_version(state, name, entry);
                        phase
                    }
                    _ => Phase::List { why: Why::Enter(change) },
                }
            }
            Phase::Confirm { change } => {
                let is_first = match state.writers[usize::from(name)].tail {
                    Some(Tail { version, names, is_false }) if version > 0 => {
                        state.slot(version) == Some(names) && state.is_false(version) == is_false
                    }
                    // The first version of a lake: nothing else is there, and it is.
                    _ => state.slot(1).is_some() && state.slots.iter().flatten().count() == 1,
                };
                if is_first { self.written(state, name, change) } else { Phase::List { why: Why::Enter(change) } }
            }
            Phase::Remove { change } => {
                self.remove_inputs(state, change);
                if state.times_entered(change) == 0 {
                    return self.enter(state, name, change);
                }
                Phase::Advance { change }
            }
            Phase::Advance { change } => {
                self.advance(state, change);
                match self.mutation {
                    Some(LogMutation::AdvanceBeforeEntry) => self.enter(state, name, change),
                    Some(LogMutation::AdvanceBeforeRemove) => Phase::Remove { change },
                    _ => Phase::RemoveIntent { change },
                }
            }
            Phase::RemoveIntent { change } => {
                let had_intent = std::mem::take(&mut state.changes[usize::from(change)].intent);
                if self.is(LogMutation::RemoveIntentEarly) && had_intent {
                    return self.enter(state, name, change);
                }
                Phase::Idle
            }
        }
    }

    /// The commit record is there.
    fn recorded(&self, state: &mut State, name: u8, change: u8) -> Phase {
        match self.mutation {
            Some(LogMutation::AdvanceBeforeEntry) => Phase::Advance { change },
            Some(LogMutation::RemoveIntentEarly) if state.changes[usize::from(change)].intent => {
                Phase::RemoveIntent { change }
            }
            Some(LogMutation::RemoveBeforeEnter) if state.changes[usize::from(change)].inputs != 0 => {
                Phase::Remove { change }
            }
            _ => self.enter(state, name, change),
        }
    }

    // --- enter ----------------------------------------------------------------------------------------------------------

    /// Enter begins, at the head of the intent.
    fn enter(&self, state: &State, name: u8, change: u8) -> Phase {
        let head = match self.mutation {
            Some(LogMutation::OwnHead) => state.writers[usize::from(name)].tail.map_or(0, |tail| tail.version),
            _ => state.changes[usize::from(change)].head,
        };
        self.look_up(state, name, change, head)
    }

    /// Begins at the cached tail, if it is not below the head.
    fn look_up(&self, state: &State, name: u8, change: u8, head: u8) -> Phase {
        match state.writers[usize::from(name)].tail {
            Some(tail) if tail.version >= head => self.search(state, (change, head), tail.version, tail.names),
            _ => Phase::List { why: Why::Enter(change) },
        }
    }

    fn names_all(&self, names: Names, head: u8, version: u8) -> bool {
        self.is(LogMutation::SkipVersions) || (head + 1..=version).all(|version| names.of(version).is_some())
    }

    /// Searches the change among the names of an entry, then among those of entries further down, until the head is reached.
    fn search(&self, state: &State, (change, head): (u8, u8), version: u8, names: Names) -> Phase {
        if names.has(change, head) && !self.is(LogMutation::SkipVersions) {
            return self.entered(state, change);
        }
        if self.names_all(names, head, version) {
            return Phase::Put { change };
        }
        let lowest = (1..=version).find(|version| names.of(*version).is_some()).unwrap_or(version);
        Phase::Older { change, version: lowest, expected: names.of(lowest).unwrap_or_default() }
    }

    /// The keys from the tail on are listed. The last of them is the newest version: it is never trimmed.
    fn listed(&self, state: &mut State, name: u8, why: Why) -> Phase {
        match (1..=SLOTS as u8).rev().find(|version| state.slot(*version).is_some()) {
            Some(version) => match state.writers[usize::from(name)].tail {
                Some(tail) if tail.version == version => self.known(state, why, tail),
                _ => Phase::Last { why, version },
            },
            None => {
                state.writers[usize::from(name)].tail = Some(EMPTY);
                self.known(state, why, EMPTY)
            }
        }
    }

    /// The end of the log is known.
    fn known(&self, state: &State, why: Why, tail: Tail) -> Phase {
        match why {
            Why::Enter(change) => {
                self.search(state, (change, state.changes[usize::from(change)].head), tail.version, tail.names)
            }
            Why::Plan(row) => Phase::Planned { row },
        }
    }

    /// The entry is written, and is the first of its version.
    fn written(&self, state: &mut State, name: u8, change: u8) -> Phase {
        let LatePut { version, names } = self.entry(state, name, change);
        let is_false = state.is_false(version);
        state.writers[usize::from(name)].tail = Some(Tail { version, names, is_false });
        self.entered(state, change)
    }

    /// The change is in the log.
    pub(super) fn entered(&self, state: &State, change: u8) -> Phase {
        let of = state.changes[usize::from(change)];
        match self.mutation {
            Some(LogMutation::EntryBeforeDecide) if of.stage == Stage::Intended => Phase::Decide { change },
            Some(LogMutation::EntryBeforeRecord) if of.stage == Stage::Decided => Phase::Record { change },
            _ if of.inputs != of.gone && !self.is(LogMutation::AdvanceBeforeRemove) => Phase::Remove { change },
            _ => Phase::Advance { change },
        }
    }
}

/// The process takes its entry for written.
pub(super) fn skip_version(state: &mut State, name: u8, entry: LatePut) {
    state.writers[usize::from(name)].tail = Some(Tail { version: entry.version, names: entry.names, is_false: false });
}

/// The empty log.
const EMPTY: Tail = Tail { version: 0, names: Names::NONE, is_false: false };

const _: () = assert!(CHANGES < 8, "changes are bits of a mask");
