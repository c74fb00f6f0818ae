//! The state of the model: lease rows, epochs and their objects in the lake, workers, requests in flight.
//!
//! Owns: plain values, small enough that millions fit into memory. Does not own: what changes them (`world`, `worker`).
//!
//! Everything is an index: worker names, shards, epochs, objects. A record is a position of a shard, from 1; `through` of a
//! range is its last record. A `u8` that is called a mask has one bit for each shard or object.

use std::hash::{Hash, Hasher};

/// Names of workers. A process that has ended never comes back under its name.
pub const WORKERS: usize = 4;
/// Shards, and so rows of the lease table.
pub const SHARDS: usize = 2;
/// Objects of an epoch. Each holds every record of the epoch, as Parquet and raw lines do.
pub const OBJECTS: usize = 2;
/// Epochs that something still refers to.
pub const EPOCHS: usize = 7;
/// Requests that timed out and may still arrive.
pub const LATE: usize = 6;

/// A lease row: `checkpoints/src/lease.rs`. Counters are in `Request::Take`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Who holds it.
    pub holder: Holder,
    /// How far it is committed.
    pub checkpoint: u8,
    /// The decided epoch that has not advanced here.
    pub pending: Option<u8>,
    /// The epoch that moved the checkpoint here.
    pub last: Option<u8>,
}

/// Who holds a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A worker.
    Held(u8),
    /// The first holds it, the second has asked for it.
    HandingOver(u8, u8),
}

impl Holder {
    /// The worker that may decide.
    pub fn committer(self) -> Option<u8> {
        match self {
            Holder::Nobody => None,
            Holder::Held(worker) | Holder::HandingOver(worker, _) => Some(worker),
        }
    }

    /// Whether `worker` may decide.
    pub fn is(self, worker: u8) -> bool {
        self.committer() == Some(worker)
    }
}

/// A shard's part of an epoch: `(after, through]`, and the records that were really read, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// Where it begins.
    pub after: u8,
    /// Its last record; equal to `after` if the shard is not in the epoch.
    pub through: u8,
    /// Bit `n`: record `n + 1` was read.
    pub records: u8,
}

impl Range {
    /// Whether the shard is in the epoch.
    pub fn is_included(self) -> bool {
        self.through > self.after
    }

    /// The records between the two positions.
    pub fn expected_records(self) -> u8 {
        ((1u8 << self.through) - 1) & !((1u8 << self.after) - 1)
    }
}

/// An upload and the object that it becomes. There is one upload for each key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// Not begun.
    #[default]
    None,
    /// Uploaded, invisible.
    Staged,
    /// The upload is gone, but the object is not visible yet. Only if completing is slow.
    Completing,
    /// Completed.
    Visible,
    /// The upload was aborted: by a worker, or by the bucket's lifecycle rule.
    Aborted,
    /// Completed, then deleted.
    Deleted,
}

/// What is really true of an epoch. No worker reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Not decided.
    #[default]
    Undecided,
    /// In effect.
    Decided,
    /// Undone.
    RolledBack,
}

/// An epoch: manifest, objects, intent, commit record. Only the properties read the last three fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    /// Whether something refers to it.
    pub is_used: bool,
    /// The worker that it belongs to.
    pub owner: u8,
    /// Its range of each shard.
    pub ranges: [Range; SHARDS],
    /// Its objects.
    pub objects: [Object; OBJECTS],
    /// Whether the intent is in the lake.
    pub intent: bool,
    /// Whether the commit record is in the lake.
    pub record: bool,
    /// Whether it is in the lake log.
    pub entered: bool,
    /// What is true of it.
    pub status: Status,
    /// Whether it was ever rolled back.
    pub was_rolled_back: bool,
    /// Mask of the shards on which it has advanced.
    pub advanced: u8,
}

impl Epoch {
    /// Mask of its shards.
    pub fn shards(&self) -> u8 {
        mask(|shard| self.ranges[shard].is_included())
    }

    /// Whether an object is in this state.
    pub fn has(&self, object: Object) -> bool {
        self.objects.contains(&object)
    }
}

/// Mask of the shards that meet the condition.
pub fn mask(holds: impl Fn(usize) -> bool) -> u8 {
    (0..SHARDS).filter(|shard| holds(*shard)).fold(0, |mask, shard| mask | 1 << shard)
}

/// An index.
pub(crate) fn at(index: u8) -> usize {
    usize::from(index)
}

/// The bits of a mask.
pub fn bits(mask: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |bit| mask >> bit & 1 == 1)
}

/// What a worker's lease manager knows of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseView {
    /// The worker does not hold it.
    #[default]
    NotHeld,
    /// The worker holds it.
    Held,
    /// The worker holds it, and another worker has asked for it.
    Asked,
    /// The worker is releasing it.
    Releasing,
}

/// What the lease manager reported about a lease and the coordinator has not handled yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseEvent {
    /// Nothing.
    #[default]
    None,
    /// It is lost.
    Lost,
    /// It is gained, with the row of that moment.
    Gained(Snapshot),
    /// It was lost, then gained.
    LostThenGained(Snapshot),
}

/// A lease row at an earlier moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Snapshot {
    /// Its checkpoint.
    pub checkpoint: u8,
    /// Whether an epoch was pending.
    pub is_pending: bool,
}

/// What follows when a pending epoch is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Then {
    /// It was the worker's own: continue reading.
    Own,
    /// It was found pending on this lease: read the shard, then the shards of the mask.
    Gained(u8, u8),
}

/// Which attempt to publish it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attempt {
    /// The worker's own, after the decision.
    Own,
    /// `recover`.
    Recover,
    /// `recover`, after its second check.
    Again,
}

/// What a worker's coordinator is doing: the request that is in flight or comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the fields have the names of the requests' parameters")]
pub enum Phase {
    /// Waiting in its loop.
    #[default]
    Idle,
    /// Step 1: upload this object.
    Stage { epoch: u8, object: u8 },
    /// Step 2: write the intent.
    WriteIntent { epoch: u8 },
    /// Step 3.
    Decide { epoch: u8 },
    /// Step 3 was refused or timed out: the rows of `left` have to be read.
    Judge { epoch: u8, left: u8, in_effect: bool, all_moved_on: bool, is_refused: bool },
    /// The uploads of an abandoned epoch are aborted; then shards are read again, or the worker ends.
    AbortRefused { epoch: u8, object: u8, fails: bool },
    /// The rows of these shards are read; those that the worker holds count as gained.
    ReadAgain { left: u8 },
    /// A lease on which an epoch is pending: its row is read.
    Gained { shard: u8, left: u8 },
    /// Step 4: the uploads of `left` have to be completed, the objects of `look` have to be checked.
    Publish { epoch: u8, left: u8, look: u8, is_lost: bool, attempt: Attempt, then: Then },
    /// Step 4: write the commit record.
    Record { epoch: u8, then: Then },
    /// The epoch enters the lake log.
    Enter { epoch: u8, then: Then },
    /// Step 5, on these shards.
    Advance { epoch: u8, left: u8, then: Then },
    /// Step 5: remove the intent.
    RemoveIntent { epoch: u8, then: Then },
    /// Recovery: is there a commit record?
    FindRecord { epoch: u8, is_second: bool, then: Then },
    /// Recovery: is there an intent?
    FindIntent { epoch: u8, then: Then },
    /// Rollback: the rows of `left` have to be read, before or after the transaction.
    Rows { epoch: u8, left: u8, everywhere: bool, pending: bool, advanced: bool, is_after: bool, then: Then },
    /// Rollback: abort this object's upload.
    Abort { epoch: u8, object: u8, then: Then },
    /// Rollback: delete this object.
    Delete { epoch: u8, object: u8, then: Then },
    /// Rollback: the transaction.
    RollBack { epoch: u8, then: Then },
    /// Rollback: another worker finished the epoch; is there a commit record?
    Settle { epoch: u8, pending: bool, advanced: bool, then: Then },
    /// The worker ends, and releases these leases.
    End { left: u8 },
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Life {
    /// It runs.
    Running,
    /// Not started.
    #[default]
    NotYet,
    /// Ended, or killed.
    Dead,
}

/// A worker's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    /// Whether it runs.
    pub life: Life,
    /// What its coordinator is doing.
    pub phase: Phase,
    /// What its lease manager knows.
    pub views: [LeaseView; SHARDS],
    /// What the lease manager reported to the coordinator.
    pub events: [LeaseEvent; SHARDS],
    /// Mask of the leases that the coordinator reported as another worker's and the lease manager has not handled yet.
    pub disowned: u8,
    /// The position of each reader.
    pub reading: [Option<u8>; SHARDS],
    /// The open epoch.
    pub ledger: [Range; SHARDS],
    /// A chunk of a replaced reader, still in the channel. Only if such chunks are accepted.
    pub stale: [Option<u8>; SHARDS],
}

impl Phase {
    /// The epoch that it is about.
    pub fn epoch(self) -> Option<u8> {
        match self {
            Phase::Idle | Phase::ReadAgain { .. } | Phase::Gained { .. } | Phase::End { .. } => None,
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
            | Phase::Settle { epoch, .. } => Some(epoch),
        }
    }
}

impl Worker {
    /// Mask of the shards of the open epoch.
    pub fn open(&self) -> u8 {
        mask(|shard| self.ledger[shard].is_included())
    }
}

/// A request that changes something. It takes effect when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// Epoch.
    PutIntent(u8),
    /// Epoch.
    Decide(u8),
    /// One shard's part of a decision. Only if the decision is not a transaction.
    DecideOne(u8, u8),
    /// Epoch, object.
    Complete(u8, u8),
    /// Epoch, object.
    Abort(u8, u8),
    /// Epoch, object.
    Delete(u8, u8),
    /// Epoch.
    PutRecord(u8),
    /// Epoch. The model of the lake log shows that it enters once, however often this is sent.
    Enter(u8),
    /// Epoch, shard, and the worker that sends it, which only a mutation uses.
    Advance(u8, u8, u8),
    /// Epoch.
    RemoveIntent(u8),
    /// Epoch.
    RollBack(u8),
    /// Worker, shard. Its condition is the counter that the worker saw. It leaves the state once the counter moves, so
    /// counters need not be stored.
    Take(u8, u8),
    /// Worker, shard, the current holder.
    Ask(u8, u8, u8),
    /// Worker, shard.
    Release(u8, u8),
}

impl Request {
    /// The epoch that it is about.
    pub fn epoch(self) -> Option<u8> {
        match self {
            Request::PutIntent(epoch)
            | Request::Decide(epoch)
            | Request::DecideOne(epoch, _)
            | Request::Complete(epoch, _)
            | Request::Abort(epoch, _)
            | Request::Delete(epoch, _)
            | Request::PutRecord(epoch)
            | Request::Enter(epoch)
            | Request::Advance(epoch, _, _)
            | Request::RemoveIntent(epoch)
            | Request::RollBack(epoch) => Some(epoch),
            Request::Take(..) | Request::Ask(..) | Request::Release(..) => None,
        }
    }
}

/// This number of faults is not limited and not counted.
pub const UNBOUNDED: u8 = u8::MAX;

/// How many faults may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// Processes that are killed, stopped, or end with an error.
    pub deaths: u8,
    /// Requests that time out, of a sender that continues.
    pub losses: u8,
    /// Uploads that the bucket's lifecycle rule aborts.
    pub expiries: u8,
    /// Requests for a hand-off.
    pub asks: u8,
    /// Leases that are taken from a live worker. [`UNBOUNDED`] of them are not counted.
    pub steals: u8,
}

/// The state of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The lease table.
    pub rows: [Row; SHARDS],
    /// The lake.
    pub epochs: [Epoch; EPOCHS],
    /// The processes.
    pub workers: [Worker; WORKERS],
    /// Requests that timed out and may still arrive, in order.
    pub late: [Option<Request>; LATE],
    /// Faults that may still happen.
    pub faults: Faults,
    /// Invariants that a step broke: bits of [`Broken`](crate::properties::Broken).
    pub broken: u16,
}

/// Most entries are empty: the contents of an empty one need not be hashed.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.rows, self.faults, self.broken).hash(hasher);
        for epoch in &self.epochs {
            epoch.is_used.hash(hasher);
            if epoch.is_used {
                epoch.hash(hasher);
            }
        }
        for worker in &self.workers {
            worker.life.hash(hasher);
            if worker.life == Life::Running {
                worker.hash(hasher);
            }
        }
        let late = self.late.iter().flatten();
        late.clone().count().hash(hasher);
        late.for_each(|late| late.hash(hasher));
    }
}

impl State {
    /// A request times out.
    ///
    /// # Panics
    /// If there is no room: then the bounds are wrong, and the search would not be exhaustive.
    pub fn give_up(&mut self, request: Request) {
        let free = self.late.iter_mut().find(|late| late.is_none());
        *free.expect("there is room for every request that the bounds allow") = Some(request);
        self.late.sort_unstable_by_key(|late| (late.is_none(), *late));
    }

    /// Mask of the rows that meet the condition.
    pub fn rows_where(&self, holds: impl Fn(&Row) -> bool) -> u8 {
        mask(|shard| holds(&self.rows[shard]))
    }
}
