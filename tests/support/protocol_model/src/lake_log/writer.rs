//! What a process does: the steps of a commit from the intent on, one request each. The step enter is the one in detail.
//!
//! Owns: the order of the steps and what follows from each answer, as `src/commit/lake_log/` has them. Does not own: effects of
//! requests (`store`).
//!
//! A process knows the end of the log in one of two ways. It lists the keys: the last of them is the newest entry, which is
//! never trimmed. Or it has read or written the entry after a tail that is still fresh: then that entry cannot have been
//! trimmed and written again by somebody who slept.

use super::LakeLog;
use super::mutation::LogMutation;
use super::state::{CHANGES, Change, LatePut, Names, Phase, Stage, State, Tail, Why};

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
            Phase::Pending { change, lowest, newest, is_fresh } => {
                let row = state.rows[usize::from(state.changes[usize::from(change)].row)];
                if row.pending != Some(change) {
                    // Somebody else finished it long ago.
                    return self.entered(state, change);
                }
                Phase::Last { why: Why::Enter(change, lowest - 1), version: newest, is_fresh }
            }
            Phase::Last { why, version, is_fresh } => self.read_last(state, name, (why, version, is_fresh)),
            Phase::Older { change, head, version, expected } => match state.slot(version) {
                None => Phase::List { why: Why::Enter(change, head) },
                Some(found) => {
                    let believes = found.of(version) == Some(expected) || self.is(LogMutation::TrustLowestEntry);
                    if !believes {
                        // A false entry: nothing at or below it counts.
                        let Tail { version: newest, is_fresh, .. } =
                            state.writers[usize::from(name)].tail.unwrap_or(EMPTY);
                        return Phase::Pending { change, lowest: version + 1, newest, is_fresh };
                    }
                    self.search(state, (change, head), version, found)
                }
            },
            Phase::Put { change, head } => {
                let entry = self.entry(state, name, change);
                if self.put(state, entry) {
                    return self.written(state, name, (change, head), entry);
                }
                match self.mutation {
                    Some(LogMutation::IgnoreRefusal) => self.entered(state, change),
                    Some(LogMutation::TryNextVersion) => {
                        skip_version(state, name, entry);
                        phase
                    }
                    _ => Phase::Taken { change, head },
                }
            }
            Phase::Taken { change, head } => self.read_taken(state, name, change, head),
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
                state.changes[usize::from(change)].intent = false;
                if self.is(LogMutation::RemoveIntentEarly) && self.is_pending(state, change) {
                    return Phase::Advance { change };
                }
                Phase::Idle
            }
        }
    }

    fn is_pending(&self, state: &State, change: u8) -> bool {
        state.rows.iter().any(|row| row.pending == Some(change))
    }

    /// The commit record is there.
    fn recorded(&self, state: &mut State, name: u8, change: u8) -> Phase {
        match self.mutation {
            Some(LogMutation::AdvanceBeforeEntry) => Phase::Advance { change },
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

    /// The cached tail, if it knows all versions after the head.
    fn look_up(&self, state: &State, name: u8, change: u8, head: u8) -> Phase {
        match state.writers[usize::from(name)].tail {
            Some(tail) if tail.version >= head && self.names_all(tail.names, head, tail.version) => {
                self.search(state, (change, head), tail.version, tail.names)
            }
            _ => Phase::List { why: Why::Enter(change, head) },
        }
    }

    fn names_all(&self, names: Names, head: u8, version: u8) -> bool {
        self.is(LogMutation::SkipVersions) || (head + 1..=version).all(|version| names.of(version).is_some())
    }

    /// Searches the change among the names of an entry; then among those of the next entry down, as far as the head.
    fn search(&self, state: &State, (change, head): (u8, u8), version: u8, names: Names) -> Phase {
        if names.has(change, head) && !self.is(LogMutation::SkipVersions) {
            return self.entered(state, change);
        }
        if self.names_all(names, head, version) {
            return Phase::Put { change, head };
        }
        let lowest = (1..=version).find(|version| names.of(*version).is_some()).unwrap_or(version);
        Phase::Older { change, head, version: lowest, expected: names.of(lowest).unwrap_or_default() }
    }

    /// The keys after the head are listed, or all of them for a plan.
    fn listed(&self, state: &mut State, name: u8, why: Why) -> Phase {
        let head = if let Why::Enter(_, head) = why { head } else { 0 };
        let newest = (head + 1..=super::state::SLOTS as u8).rev().find(|version| state.slot(*version).is_some());
        let Some(newest) = newest else {
            if head == 0 {
                state.writers[usize::from(name)].tail = Some(EMPTY);
                return self.known(state, why, EMPTY);
            }
            return Phase::Last { why, version: head, is_fresh: true };
        };
        let run = (head + 1..=newest).rev().take_while(|version| state.slot(*version).is_some());
        let lowest = run.last().unwrap_or(newest);
        match why {
            Why::Enter(change, _) if lowest > head + 1 => {
                if self.is(LogMutation::TrimmedHeadIsEmpty) {
                    return Phase::Last { why: Why::Enter(change, lowest - 1), version: newest, is_fresh: true };
                }
                Phase::Pending { change, lowest, newest, is_fresh: true }
            }
            _ => Phase::Last { why, version: newest, is_fresh: true },
        }
    }

    /// The last entry is read.
    fn read_last(&self, state: &mut State, name: u8, (why, version, is_fresh): (Why, u8, bool)) -> Phase {
        let is_fresh = is_fresh || self.is(LogMutation::TrustOldTail);
        let Some(names) = state.slot(version).filter(|_| is_fresh) else {
            return Phase::List { why: again(state, why) };
        };
        let tail = Tail { version, names, is_fresh: true };
        state.writers[usize::from(name)].tail = Some(tail);
        self.known(state, why, tail)
    }

    /// The end of the log is known.
    fn known(&self, state: &State, why: Why, tail: Tail) -> Phase {
        match why {
            Why::Enter(change, head) => self.search(state, (change, head), tail.version, tail.names),
            Why::Plan(row) => Phase::Planned { row },
        }
    }

    /// The entry is new.
    fn written(&self, state: &mut State, name: u8, (change, head): (u8, u8), entry: LatePut) -> Phase {
        let writer = &mut state.writers[usize::from(name)];
        let is_fresh = writer.tail.is_some_and(|tail| tail.is_fresh) || self.is(LogMutation::TrustOldTail);
        let tail = Tail { version: entry.version, names: entry.names, is_fresh: true };
        if is_fresh {
            writer.tail = Some(tail);
            return self.entered(state, change);
        }
        // The slot may have been trimmed. What the log has is found out from its end.
        writer.tail = self.is(LogMutation::KeepDoubtfulTail).then_some(tail);
        if self.is(LogMutation::KeepDoubtfulTail) && !self.is_pending(state, change) {
            return self.entered(state, change);
        }
        let why = again(state, Why::Enter(change, head));
        Phase::List { why }
    }

    /// The entry was refused, or its answer was lost.
    fn read_taken(&self, state: &mut State, name: u8, change: u8, head: u8) -> Phase {
        let again = Phase::List { why: again(state, Why::Enter(change, head)) };
        let Some(tail) = state.writers[usize::from(name)].tail else { return again };
        let version = tail.version + 1;
        let is_fresh = tail.is_fresh || self.is(LogMutation::TrustOldTail);
        let Some(names) = state.slot(version).filter(|_| is_fresh) else {
            state.writers[usize::from(name)].tail = None;
            return again;
        };
        if tail.version > 0 && names.of(tail.version) != tail.names.of(tail.version) {
            state.writers[usize::from(name)].tail = None;
            return again;
        }
        state.writers[usize::from(name)].tail = Some(Tail { version, names, is_fresh: true });
        if names.of(version) == Some(change) { self.entered(state, change) } else { Phase::Put { change, head } }
    }

    /// The change is in the log.
    pub(super) fn entered(&self, state: &State, change: u8) -> Phase {
        let of = state.changes[usize::from(change)];
        match self.mutation {
            Some(LogMutation::EntryBeforeDecide) if of.stage == Stage::Intended => Phase::Decide { change },
            Some(LogMutation::EntryBeforeRecord) if of.stage == Stage::Decided => Phase::Record { change },
            Some(LogMutation::RemoveIntentEarly) => Phase::RemoveIntent { change },
            _ if of.inputs != of.gone && !self.is(LogMutation::AdvanceBeforeRemove) => Phase::Remove { change },
            _ => Phase::Advance { change },
        }
    }
}

/// The process takes its entry for written.
pub(super) fn skip_version(state: &mut State, name: u8, entry: LatePut) {
    let tail = &mut state.writers[usize::from(name)].tail;
    let is_fresh = tail.is_none_or(|tail| tail.is_fresh);
    *tail = Some(Tail { version: entry.version, names: entry.names, is_fresh });
}

/// The empty log.
const EMPTY: Tail = Tail { version: 0, names: Names::NONE, is_fresh: true };

/// Enter starts again at the head of the intent.
fn again(state: &State, why: Why) -> Why {
    match why {
        Why::Enter(change, _) => Why::Enter(change, state.changes[usize::from(change)].head),
        plan @ Why::Plan(_) => plan,
    }
}

const _: () = assert!(CHANGES < 8, "changes are bits of a mask");
