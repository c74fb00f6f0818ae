//! The state of the model of the lake log: entries, changes, lease rows, writers, trimmers.
//!
//! Owns: plain values, small enough that millions fit into memory. Does not own: what changes them (`store`, `writer`).
//!
//! A change is an epoch or a maintenance operation. Versions count from 1; version 0 is the empty lake.

/// Entries that the log may have.
pub const SLOTS: usize = 7;
/// Changes: those of all rows, and those that compete with them and are refused.
pub const CHANGES: usize = 6;
/// Processes that write at the same time.
pub const WRITERS: usize = 3;
/// Rows of the lease table.
pub const ROWS: usize = 2;
/// Trims that run at the same time.
pub const TRIMMERS: usize = 2;
/// Requests that timed out and may still arrive.
pub const LATE: usize = 3;

/// The changes of versions, as an entry names them: its own and those of the versions before it. Four bits for each version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Names(u32);

impl Names {
    /// Those of the empty log.
    pub const NONE: Names = Names(0);

    /// The change of a version, if it is named.
    pub fn of(self, version: u8) -> Option<u8> {
        let bits = self.0 >> (4 * (u32::from(version).wrapping_sub(1) % 8)) & 15;
        if version == 0 || bits == 0 { None } else { Some(bits as u8 - 1) }
    }

    /// The same with the change of one version.
    #[must_use]
    pub fn with(self, version: u8, change: u8) -> Self {
        Names(self.0 | (u32::from(change) + 1) << (4 * (u32::from(version) - 1)))
    }

    /// The names of this version and those after it.
    #[must_use]
    pub fn from(self, version: u8) -> Self {
        let below = 4 * u32::from(version.saturating_sub(1));
        Names(if below >= 32 { 0 } else { self.0 >> below << below })
    }

    /// Whether a version after `after` has this change.
    pub fn has(self, change: u8, after: u8) -> bool {
        (after + 1..=SLOTS as u8).any(|version| self.of(version) == Some(change))
    }
}

/// What became of a change. Only its own steps and the properties read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// There is none of this number.
    #[default]
    Unused,
    /// Its intent is written.
    Intended,
    /// It is decided.
    Decided,
    /// Its objects are visible, and its commit record is written.
    Recorded,
}

/// An epoch or an operation: its manifest, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// What became of it.
    pub stage: Stage,
    /// Whether its intent is in the lake.
    pub intent: bool,
    /// Its row.
    pub row: u8,
    /// Its number among the changes of its row, from 0: where its range begins.
    pub number: u8,
    /// The newest version that its writer knew when it wrote the intent.
    pub head: u8,
    /// The changes whose objects an operation removes, as bits.
    pub inputs: u8,
    /// Those of them whose objects are gone, as bits.
    pub gone: u8,
}

/// A row of the lease table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Who holds it.
    pub holder: Option<u8>,
    /// How many of its changes have advanced: the checkpoint.
    pub done: u8,
    /// The change that is decided and has not advanced.
    pub pending: Option<u8>,
}

/// The newest entry that a process knows: `Stores` in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tail {
    /// Its version; 0 is the empty log.
    pub version: u8,
    /// What it names.
    pub names: Names,
    /// Whether it is a false entry. Nobody can see that, but its bytes are not those of the entry that was trimmed.
    pub is_false: bool,
}

/// Why a process reads the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// To enter this change.
    Enter(u8),
    /// To plan an operation of this row.
    Plan(u8),
}

/// What a process does: the request that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the fields have the names of what the steps need")]
pub enum Phase {
    /// Waiting in its loop.
    #[default]
    Idle,
    /// The operation of this row is planned at the tail.
    Planned { row: u8 },
    /// Decide the change.
    Decide { change: u8 },
    /// The row was gained with this change pending: is there a commit record?
    Recover { change: u8 },
    /// Publish the objects, and write the commit record.
    Record { change: u8 },
    /// Enter: list the keys from the tail on.
    List { why: Why },
    /// Enter: read the last entry that was listed.
    Last { why: Why, version: u8 },
    /// Enter: read an older entry, for what it names. `expected` is what the entries above say of its version.
    Older { change: u8, version: u8, expected: u8 },
    /// Enter: an older entry is gone. Is the intent still there?
    FindIntent { change: u8 },
    /// Enter: write the entry after the tail.
    Put { change: u8 },
    /// Enter: the entry is new. Is the one before it still there?
    Confirm { change: u8 },
    /// An operation's inputs are moved to the trash.
    Remove { change: u8 },
    /// Advance.
    Advance { change: u8 },
    /// Remove the intent.
    RemoveIntent { change: u8 },
}

impl Phase {
    /// The change that it is about.
    pub fn change(self) -> Option<u8> {
        match self {
            Phase::Idle
            | Phase::Planned { .. }
            | Phase::List { why: Why::Plan(_) }
            | Phase::Last { why: Why::Plan(_), .. } => None,
            Phase::List { why: Why::Enter(change) }
            | Phase::Last { why: Why::Enter(change), .. }
            | Phase::Decide { change }
            | Phase::Recover { change }
            | Phase::Record { change }
            | Phase::Older { change, .. }
            | Phase::FindIntent { change }
            | Phase::Put { change }
            | Phase::Confirm { change }
            | Phase::Remove { change }
            | Phase::Advance { change }
            | Phase::RemoveIntent { change } => Some(change),
        }
    }
}

/// A process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    /// What it does.
    pub phase: Phase,
    /// The rows that it believes it holds, as bits.
    pub believes: u8,
    /// The newest entry that it knows.
    pub tail: Option<Tail>,
}

/// A trim: all entries through a version are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trim {
    /// The version is chosen; intents have to be listed.
    Chosen(u8),
    /// Only under a mutation: intents were listed, and allow this version at most.
    Listed(u8),
    /// Entries through this version are deleted, in ascending order.
    Deleting(u8),
}

/// An entry whose request timed out: its version, and what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LatePut {
    /// The version.
    pub version: u8,
    /// What the entry names; its own change is that of its version.
    pub names: Names,
}

/// How many faults may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// Processes that are killed.
    pub deaths: u8,
    /// Requests that write an entry and time out, of a sender that continues.
    pub losses: u8,
    /// Leases that are taken from a live process.
    pub steals: u8,
    /// Times at which everything that is in the log becomes old enough to be trimmed.
    pub months: u8,
    /// Trims.
    pub trims: u8,
}

/// The state of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The keys below `_log/`, and what their entries name.
    pub slots: [Option<Names>; SLOTS],
    /// What was written first in each slot. Only the properties read it: this is the log that counts.
    pub log: [Option<Names>; SLOTS],
    /// Slots with a false entry, which was written where one had been trimmed, as bits.
    pub false_slots: u8,
    /// The versions that are old enough to be trimmed end here. A snapshot of this version is in the lake.
    pub old: u8,
    /// The versions through which entries were deleted.
    pub trimmed: u8,
    /// Epochs and operations.
    pub changes: [Change; CHANGES],
    /// The lease table.
    pub rows: [Row; ROWS],
    /// The processes.
    pub writers: [Writer; WRITERS],
    /// Trims that run.
    pub trims: [Option<Trim>; TRIMMERS],
    /// Entries that may still arrive.
    pub late: [Option<LatePut>; LATE],
    /// Faults that may still happen.
    pub faults: Faults,
    /// Invariants that a step broke: bits of [`Broken`](super::properties::Broken).
    pub broken: u16,
}

impl State {
    /// The newest version.
    pub fn newest(&self) -> u8 {
        self.log.iter().flatten().count() as u8
    }

    /// The change of a version of the log that counts.
    pub fn change_of(&self, version: u8) -> Option<u8> {
        self.log.get(usize::from(version).checked_sub(1)?)?.and_then(|names| names.of(version))
    }

    /// How many versions of the log that counts have this change.
    pub fn times_entered(&self, change: u8) -> usize {
        (1..=self.newest()).filter(|version| self.change_of(*version) == Some(change)).count()
    }

    /// The changes whose objects are live at a version, as bits.
    pub fn live(&self, version: u8) -> u8 {
        (1..=version)
            .filter_map(|version| self.change_of(version))
            .fold(0, |live, change| (live | 1 << change) & !self.changes[usize::from(change)].inputs)
    }

    /// The entry under a key.
    pub fn slot(&self, version: u8) -> Option<Names> {
        self.slots.get(usize::from(version).checked_sub(1)?).copied().flatten()
    }

    /// The lowest head of an intent that is in the lake.
    pub fn lowest_head(&self) -> Option<u8> {
        self.changes.iter().filter(|change| change.intent).map(|change| change.head).min()
    }

    /// Whether the entry under a key was written where one had been trimmed.
    pub fn is_false(&self, version: u8) -> bool {
        self.false_slots >> (version - 1) & 1 == 1
    }
}
