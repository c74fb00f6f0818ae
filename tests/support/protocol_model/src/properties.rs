//! What must hold, by the numbers of `ARCHITECTURE.md` (A1–A9) and of `checkpoints/src/lib.rs` (C1–C7); and what must be
//! reached, so that nothing holds merely because nothing happens.
//!
//! Owns: the list. Some properties are conditions of a state; others are about a step, which sets a bit of [`Broken`].

use stateright::Property;

use crate::Protocol;
use crate::state::{Epoch, Holder, Life, Object, Phase, SHARDS, State, Status, at, bits};

/// An invariant about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Broken {
    /// C1.
    Chain = 1,
    /// C1.
    NeverBack = 1 << 1,
    /// C2.
    OnePending = 1 << 2,
    /// C3.
    NeverBoth = 1 << 3,
    /// C4, A4.
    HolderDecides = 1 << 4,
    /// C5.
    AskedWorkerHolds = 1 << 5,
    /// Step 4 of the protocol comes before step 5.
    RecordFirst = 1 << 6,
    /// A6.
    RollbackInOrder = 1 << 7,
    /// A7.
    NoKeyTwice = 1 << 8,
    /// A1, A8.
    ReadWhatIsCommitted = 1 << 9,
    /// A parent is read before its children.
    ParentFirst = 1 << 10,
    /// A5.
    IntentFound = 1 << 11,
    /// No epoch is mistaken for a torn one.
    NotTorn = 1 << 12,
    /// `EpochLedger::read`'s assertion.
    NoGapInLedger = 1 << 13,
    /// Only what is decided and has a commit record enters the lake log.
    EnterAfterRecord = 1 << 14,
    /// The lake log has what advances.
    EnterFirst = 1 << 15,
}

impl State {
    /// Records that an invariant is broken.
    pub(crate) fn check(&mut self, holds: bool, broken: Broken) {
        if !holds {
            self.broken |= broken as u16;
        }
    }

    fn holds(&self, broken: Broken) -> bool {
        self.broken & broken as u16 == 0
    }

    fn epochs_all(&self, holds: impl Fn(u8, &Epoch) -> bool) -> bool {
        (0..).zip(&self.epochs).filter(|(_, epoch)| epoch.is_used).all(|(place, epoch)| holds(place, epoch))
    }

    fn some_phase(&self, holds: impl Fn(u8, Phase) -> bool) -> bool {
        (0..).zip(&self.workers).any(|(name, worker)| worker.life == Life::Running && holds(name, worker.phase))
    }

    /// How many of the objects of one kind show a record.
    fn copies(&self, object: usize, shard: usize, record: u8) -> usize {
        let of = |epoch: &&Epoch| {
            epoch.is_used
                && epoch.objects[object] == Object::Visible
                && epoch.ranges[shard].records >> (record - 1) & 1 == 1
        };
        self.epochs.iter().filter(of).count()
    }

    /// Whether every record of every shard is committed, and nothing is pending.
    pub fn all_committed(&self, records: u8) -> bool {
        self.rows.iter().all(|row| row.checkpoint == records && row.pending.is_none())
    }
}

/// A property that always holds: its name, and the condition.
pub type Always = (&'static str, fn(&Protocol, &State) -> bool);

/// What must hold in every state.
pub const ALWAYS: &[Always] = &[
    ("A8: an epoch has exactly the records of its range, all read after the last abandoned epoch (A1)", |_, state| {
        state.holds(Broken::ReadWhatIsCommitted)
    }),
    ("A2: if an epoch has a commit record, all its objects are visible", |model, state| {
        state.epochs_all(|_, epoch| {
            !epoch.record || epoch.objects[..model.objects].iter().all(|it| *it == Object::Visible)
        })
    }),
    ("A3: no record is visible twice, and every committed record is visible", |model, state| {
        (0..SHARDS).all(|shard| {
            (1..=model.records).all(|record| {
                (0..model.objects).all(|object| {
                    let copies = state.copies(object, shard, record);
                    copies == 1 || (copies == 0 && state.rows[shard].checkpoint < record)
                })
            })
        })
    }),
    ("A4: nothing is visible of an epoch that is undecided or was rolled back", |_, state| {
        state.epochs_all(|_, epoch| !epoch.has(Object::Visible) || epoch.status == Status::Decided)
    }),
    ("A5: what is pending has an intent or a commit record", |_, state| {
        state.rows.iter().filter_map(|row| row.pending).all(|epoch| {
            let epoch = &state.epochs[at(epoch)];
            epoch.intent || epoch.record
        }) && state.holds(Broken::IntentFound)
    }),
    (
        "A6: a rollback follows a lost upload; uploads are aborted and objects deleted before its transaction",
        |_, state| state.holds(Broken::RollbackInOrder),
    ),
    ("A7: no key is written twice", |_, state| state.holds(Broken::NoKeyTwice)),
    ("C1.1: a range is decided and advanced only where the checkpoint is", |_, state| state.holds(Broken::Chain)),
    ("C1.2: a checkpoint never moves back", |_, state| state.holds(Broken::NeverBack)),
    ("C2: at most one manifest is pending on a shard, and it ends after the checkpoint", |_, state| {
        state.holds(Broken::OnePending)
            && state.rows.iter().enumerate().all(|(shard, row)| {
                row.pending.is_none_or(|epoch| state.epochs[at(epoch)].ranges[shard].through > row.checkpoint)
            })
    }),
    ("C3.1: a decision applies to all its shards or to none", |_, state| {
        state.epochs_all(|place, epoch| {
            let pending = state.rows_where(|row| row.pending == Some(place));
            match epoch.status {
                Status::Decided => epoch.shards() & !(pending | epoch.advanced) == 0,
                Status::Undecided | Status::RolledBack => pending == 0,
            }
        })
    }),
    ("C3.2: no epoch is both advanced and rolled back", |_, state| state.holds(Broken::NeverBoth)),
    ("C4: only the holder decides (A4)", |_, state| state.holds(Broken::HolderDecides)),
    ("C5: during a hand-off the one who was asked is the holder", |_, state| state.holds(Broken::AskedWorkerHolds)),
    ("R: a checkpoint moves only once the commit record is written", |_, state| state.holds(Broken::RecordFirst)),
    ("G1: only what is decided and has a commit record enters the lake log", |_, state| {
        state.holds(Broken::EnterAfterRecord)
    }),
    ("G3: a checkpoint moves only once its epoch has entered", |_, state| state.holds(Broken::EnterFirst)),
    ("P: a child's range is decided only once its parent's end is committed", |_, state| {
        state.holds(Broken::ParentFirst)
    }),
    ("T: no epoch is mistaken for a torn one", |_, state| state.holds(Broken::NotTorn)),
    ("W: no worker fails its own assertion that a range has no gap", |_, state| state.holds(Broken::NoGapInLedger)),
];

/// The name of the property that `liveness` searches the graph of states for.
pub const LIVENESS: &str = "L: from every state, without further faults, a path leads to everything being committed";

/// What must be reached, in one configuration or another.
pub const SOMETIMES: &[Always] = &[
    ("S1: everything is committed", |model, state| state.all_committed(model.records)),
    ("S2: another worker rolls an epoch forward", |_, state| {
        state.some_phase(
            |name, phase| matches!(phase, Phase::Advance { epoch, .. } if state.epochs[at(epoch)].owner != name),
        )
    }),
    ("S3: two workers publish one epoch at the same time", |_, state| {
        let publishing = |phase| match phase {
            Phase::Publish { epoch, .. } => Some(epoch),
            _ => None,
        };
        (0..).zip(&state.workers).any(|(name, worker)| {
            publishing(worker.phase)
                .is_some_and(|epoch| state.some_phase(|other, phase| other != name && publishing(phase) == Some(epoch)))
        })
    }),
    ("S4: a lease is stolen between decision and publication", |_, state| {
        state.some_phase(|name, phase| match phase {
            Phase::Publish { epoch, .. } => {
                bits(state.epochs[at(epoch)].shards()).any(|shard| !state.rows[at(shard)].holder.is(name))
            }
            _ => false,
        })
    }),
    ("S5: a worker that lost a lease has its decision refused", |_, state| {
        state.some_phase(|name, phase| match phase {
            Phase::AbortRefused { epoch, .. } => {
                bits(state.epochs[at(epoch)].shards()).any(|shard| !state.rows[at(shard)].holder.is(name))
            }
            _ => false,
        })
    }),
    ("S6: the reply to a decision is lost, and the rows show the decision", |_, state| {
        state.some_phase(|_, phase| match phase {
            Phase::Judge { epoch, .. } => state.rows.iter().any(|row| row.pending == Some(epoch)),
            _ => false,
        })
    }),
    ("S7: a decision takes effect after its sender took it for refused and aborted the uploads", |model, state| {
        let aborted = |epoch: &Epoch| epoch.status == Status::Decided && epoch.has(Object::Aborted);
        state.faults.expiries == model.faults.expiries && state.epochs.iter().any(aborted)
    }),
    ("S8: an epoch is rolled back", |_, state| state.epochs.iter().any(|epoch| epoch.status == Status::RolledBack)),
    ("S9: two workers roll one epoch back at the same time", |_, state| {
        let back = |phase| match phase {
            Phase::Abort { epoch, .. } | Phase::Delete { epoch, .. } | Phase::RollBack { epoch, .. } => Some(epoch),
            _ => None,
        };
        (0..).zip(&state.workers).any(|(name, worker)| {
            back(worker.phase)
                .is_some_and(|epoch| state.some_phase(|other, phase| other != name && back(phase) == Some(epoch)))
        })
    }),
    ("S10: a rollback deletes objects that were visible", |_, state| {
        state.epochs.iter().any(|epoch| epoch.status == Status::Decided && epoch.has(Object::Deleted))
    }),
    ("S11: an epoch is decided during a hand-off", |_, state| {
        state.rows.iter().any(|row| matches!(row.holder, Holder::HandingOver(..)) && row.pending.is_some())
    }),
    ("S12: a child is decided", |model, state| {
        model.family == crate::Family::ParentAndChild && state.rows[1].pending.is_some()
    }),
];

/// The properties of a model in stateright's form.
pub(crate) fn properties(model: &Protocol) -> Vec<Property<Protocol>> {
    let always = ALWAYS.iter().map(|(name, condition)| Property::always(name, *condition));
    if model.mutation.is_some() {
        return always.collect();
    }
    let sometimes = SOMETIMES.iter().map(|(name, condition)| Property::sometimes(name, *condition));
    always.chain(sometimes).collect()
}
