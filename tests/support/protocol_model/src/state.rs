//! What the model's world is made of: lease rows, epochs and their objects in the lake, workers, requests under way.
//!
//! Owns: plain values, small enough that millions fit. Does not own: what changes them (`world`, `worker`).
//!
//! Everything is an index: worker names, shards, epochs, objects. A record is a position of a shard, from 1; `through` of a
//! range is its last record. A `u8` that is called a mask has a bit per shard or object.

use std::hash::{Hash, Hasher};

/// Names of workers. A process that ends never comes back under its name.
pub const WORKERS: usize = 4;
/// Shards, and so rows of the lease table.
pub const SHARDS: usize = 2;
/// Objects of an epoch, each of which holds every record of it, as Parquet and raw lines do.
pub const OBJECTS: usize = 2;
/// Epochs that somebody still remembers.
pub const EPOCHS: usize = 7;
/// Requests that were given up and may still arrive.
pub const LATE: usize = 6;

/// A lease row: `checkpoints/src/lease.rs`. Counters stand in `Request::Take`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Who holds it.
    pub holder: Holder,
    /// How far it is committed.
    pub checkpoint: u8,
    /// The decided epoch that was not advanced here.
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
    /// The first, asked by the second.
    HandingOver(u8, u8),
}

impl Holder {
    /// Who may decide.
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

/// A shard's part of an epoch: `(after, through]`, and the records that really were read, as bits.
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
    pub fn is_there(self) -> bool {
        self.through > self.after
    }

    /// The records that the positions promise.
    pub fn promised(self) -> u8 {
        ((1u8 << self.through) - 1) & !((1u8 << self.after) - 1)
    }
}

/// An upload and the object that it becomes. Of a key there is one upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// Not begun.
    #[default]
    None,
    /// Uploaded, invisible.
    Staged,
    /// The upload is gone, the object not there yet. Only where completing takes its time.
    Completing,
    /// Completed.
    Visible,
    /// The upload was aborted: by a worker, or by the bucket's lifecycle rule.
    Aborted,
    /// Completed, then deleted.
    Deleted,
}

/// What really is true of an epoch. No worker reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// Not decided.
    #[default]
    Undecided,
    /// In effect.
    Decided,
    /// Taken back.
    RolledBack,
}

/// An epoch: manifest, objects, intent, commit record. The last three fields are the judge's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    /// Whether anybody or anything remembers it.
    pub is_used: bool,
    /// Whose it is.
    pub owner: u8,
    /// What it has of each shard.
    pub ranges: [Range; SHARDS],
    /// Its objects.
    pub objects: [Object; OBJECTS],
    /// Whether the intent is in the lake.
    pub intent: bool,
    /// Whether the commit record is in the lake.
    pub record: bool,
    /// What is true of it.
    pub standing: Standing,
    /// Whether it was ever rolled back.
    pub was_rolled_back: bool,
    /// Mask of the shards that it was advanced on.
    pub advanced: u8,
}

impl Epoch {
    /// Mask of the shards that it has a range of.
    pub fn shards(&self) -> u8 {
        mask(|shard| self.ranges[shard].is_there())
    }

    /// Whether an object is in this state.
    pub fn has(&self, object: Object) -> bool {
        self.objects.contains(&object)
    }
}

/// Mask of the shards for which it holds.
pub fn mask(holds: impl Fn(usize) -> bool) -> u8 {
    (0..SHARDS).filter(|shard| holds(*shard)).fold(0, |mask, shard| mask | 1 << shard)
}

/// The places of a mask.
pub fn bits(mask: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |bit| mask >> bit & 1 == 1)
}

/// What a worker's keeper knows of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keep {
    /// Not ours, as far as it knows.
    #[default]
    Not,
    /// Ours.
    Held,
    /// Ours, and another asked for it.
    Asked,
    /// Being let go.
    LettingGo,
}

/// What the keeper told the coordinator of a lease, and the coordinator has not yet heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mail {
    /// Nothing.
    #[default]
    None,
    /// It is lost.
    Lost,
    /// It is ours, and this was its row then.
    Gained(Snapshot),
    /// It was lost, then gained.
    LostThenGained(Snapshot),
}

/// A lease row as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Snapshot {
    /// Its checkpoint.
    pub checkpoint: u8,
    /// Whether something was pending.
    pub is_pending: bool,
}

/// What is done once a pending epoch was brought to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Then {
    /// It was the worker's own: go on reading.
    Own,
    /// It was found pending on this lease: read the shard; then the shards of the mask.
    Gained(u8, u8),
}

/// Which attempt at publishing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attempt {
    /// The worker's own, after the decision.
    Own,
    /// `recover`.
    Recover,
    /// `recover`, after it looked again.
    Again,
}

/// Where a worker's coordinator is. What follows is the request that is under way or comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the fields are those of the requests")]
pub enum Phase {
    /// Between two selects.
    #[default]
    Idle,
    /// Step 1: upload this object.
    Stage { epoch: u8, object: u8 },
    /// Step 2: write the intent.
    Describe { epoch: u8 },
    /// Step 3.
    Decide { epoch: u8 },
    /// Step 3, refused or not answered: the rows of `left` are to be read.
    Judge { epoch: u8, left: u8, in_effect: bool, all_moved_on: bool, is_refused: bool },
    /// The uploads of an epoch that did not happen are aborted; then shards are read again, or the worker ends.
    AbortRefused { epoch: u8, object: u8, fails: bool },
    /// Rows of these shards are read, those that are held are gained.
    ReadAgain { left: u8 },
    /// A lease with something pending: its row is read.
    Gained { shard: u8, left: u8 },
    /// Step 4: these uploads are to be completed, these objects to be looked for.
    Publish { epoch: u8, left: u8, look: u8, is_lost: bool, attempt: Attempt, then: Then },
    /// Step 4: write the commit record.
    Record { epoch: u8, then: Then },
    /// Step 5, on these shards.
    Advance { epoch: u8, left: u8, then: Then },
    /// Step 5: remove the intent.
    RemoveIntent { epoch: u8, then: Then },
    /// Recovery: is there a commit record?
    FindRecord { epoch: u8, is_second: bool, then: Then },
    /// Recovery: is there an intent?
    FindIntent { epoch: u8, then: Then },
    /// Roll back: the rows of `left` are to be read, before or after the transaction.
    Rows { epoch: u8, left: u8, everywhere: bool, pending: bool, advanced: bool, is_after: bool, then: Then },
    /// Roll back: abort this object's upload.
    Abort { epoch: u8, object: u8, then: Then },
    /// Roll back: delete this object.
    Delete { epoch: u8, object: u8, then: Then },
    /// Roll back: the transaction.
    RollBack { epoch: u8, then: Then },
    /// Roll back: somebody else brought it to an end; is there a commit record?
    Settle { epoch: u8, pending: bool, advanced: bool, then: Then },
    /// The worker ends, and lets go of these.
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
    /// Where its coordinator is.
    pub phase: Phase,
    /// What its keeper knows.
    pub keep: [Keep; SHARDS],
    /// What the keeper told the coordinator.
    pub mail: [Mail; SHARDS],
    /// Mask of the leases that the coordinator told the keeper are not its own, and the keeper has not yet heard.
    pub not_ours: u8,
    /// Where each reader is.
    pub reading: [Option<u8>; SHARDS],
    /// The open epoch.
    pub ledger: [Range; SHARDS],
    /// A chunk of a reader that was replaced, in the channel. Only where such chunks are taken.
    pub stale: [Option<u8>; SHARDS],
}

impl Phase {
    /// The epoch that it is about.
    pub fn epoch(self) -> Option<u8> {
        match self {
            Phase::Idle | Phase::ReadAgain { .. } | Phase::Gained { .. } | Phase::End { .. } => None,
            Phase::Stage { epoch, .. }
            | Phase::Describe { epoch }
            | Phase::Decide { epoch }
            | Phase::Judge { epoch, .. }
            | Phase::AbortRefused { epoch, .. }
            | Phase::Publish { epoch, .. }
            | Phase::Record { epoch, .. }
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
        mask(|shard| self.ledger[shard].is_there())
    }
}

/// A request that changes something. It takes effect when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// Epoch.
    PutIntent(u8),
    /// Epoch.
    Decide(u8),
    /// One shard's part of a decision. Only where the decision is no transaction.
    DecideOne(u8, u8),
    /// Epoch, object.
    Complete(u8, u8),
    /// Epoch, object.
    Abort(u8, u8),
    /// Epoch, object.
    Delete(u8, u8),
    /// Epoch.
    PutRecord(u8),
    /// Epoch, shard, and who asks, which matters to nobody but a mutation.
    Advance(u8, u8, u8),
    /// Epoch.
    RemoveIntent(u8),
    /// Epoch.
    RollBack(u8),
    /// Worker, shard. Its condition is the counter that was seen; so it is gone from the state once the counter moves, and
    /// counters themselves need not be kept.
    Take(u8, u8),
    /// Worker, shard, the holder that is asked.
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
            | Request::Advance(epoch, _, _)
            | Request::RemoveIntent(epoch)
            | Request::RollBack(epoch) => Some(epoch),
            Request::Take(..) | Request::Ask(..) | Request::Release(..) => None,
        }
    }
}

/// So many that they are not counted.
pub const UNBOUNDED: u8 = u8::MAX;

/// How many faults may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// Processes that are killed, stopped, or end with an error.
    pub deaths: u8,
    /// Requests that are given up by a sender that lives on.
    pub losses: u8,
    /// Uploads that the bucket's lifecycle rule aborts.
    pub expiries: u8,
    /// Hand-offs that are asked for.
    pub asks: u8,
    /// Leases that are taken from a worker that lives. [`UNBOUNDED`] of them are not counted.
    pub steals: u8,
}

/// The whole world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The lease table.
    pub rows: [Row; SHARDS],
    /// The lake.
    pub epochs: [Epoch; EPOCHS],
    /// The processes.
    pub workers: [Worker; WORKERS],
    /// Requests that nobody waits for any more, in order.
    pub late: [Option<Request>; LATE],
    /// Faults that may still happen.
    pub faults: Faults,
    /// Invariants that a step broke: bits of [`Broken`](crate::properties::Broken).
    pub broken: u16,
}

/// Most places are empty: what is in an empty one need not be hashed.
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
    /// A request that nobody waits for any more.
    ///
    /// # Panics
    /// If there is no room: then the bounds are wrong, and the check would not be exhaustive.
    pub fn give_up(&mut self, request: Request) {
        let free = self.late.iter_mut().find(|late| late.is_none());
        *free.expect("there is room for every request that the bounds allow") = Some(request);
        self.late.sort_unstable_by_key(|late| (late.is_none(), *late));
    }

    /// Mask of the rows for which it holds.
    pub fn rows_where(&self, holds: impl Fn(&Row) -> bool) -> u8 {
        mask(|shard| holds(&self.rows[shard]))
    }
}
