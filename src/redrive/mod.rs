//! Redrive: dead letters of the lake are processed again, by today's definitions. Discard: dead letters are removed.
//!
//! Owns: which dead letters are taken, in which batches, and what becomes of them. Does not own: how a batch is processed (the ordinary
//! worker, which `run` starts), reading dead letters (`source::replay::dead_letters`), how objects replace others
//! (`maintenance::operation`).
//!
//! | file | owns |
//! |---|---|
//! | `selection` | the live objects that may have what is wanted, and counting what they have |
//! | `drive` | the order of the steps, batch by batch |
//! | `replacement` | the operation at the end of a batch |
//! | `rewrite` | an error object without some of its lines |
//! | `run` | the worker that processes a batch aside |
//! | `leftovers` | removing what a redrive left aside that has ended |
//!
//! A batch is some objects, whole:
//!
//! 1. A worker processes the wanted dead letters into a lake of its own, below `_replays/redrive-…/`. Its leases are in memory. Readers of
//!    the lake see nothing.
//! 2. One operation adds copies of what it made, and removes the error objects. Lines that were not wanted, or that cannot be parsed, stay
//!    in objects that are written again. A dead letter that has failed again is in a new object, with today's reason.
//! 3. What is aside is deleted.
//!
//! | the process ends | what is in the lake | what the next redrive does |
//! |---|---|---|
//! | in step 1, or before the operation is decided | as before | removes what is aside; processes the batch again |
//! | after the operation is decided | the new objects, some old ones for a moment | finishes the operation; the batch is done |
//! | in step 3 | the new objects | removes what is aside |
//!
//! **Nothing twice.** The operation finds under its leases that each object of the batch is live in the newest version. If one is
//! not, somebody else has replaced it: the batch changes nothing, and the redrive selects again. A redrive also holds a lease for as long as
//! it runs, so that a second one does not do the same work in vain. Correctness does not depend on that lease.
//!
//! **It ends.** A redrive never takes an object that one of its own operations made. So a dead letter that fails again is tried once.

mod drive;
mod leftovers;
mod replacement;
mod rewrite;
pub mod run;
mod selection;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use pipeline::dead_letter::code::Code;
use serde::Serialize;

use crate::commit::CommitError;
use crate::commit::lake_log::HistoryError;
use crate::lake::{DefinitionError, LakeError, ObjectKey};
use crate::maintenance::operation::OperationError;
use crate::retry::Retryable;
use crate::worker::WorkerError;

pub use drive::{AsideBatch, Progress, Redrive, RunAside, discard, redrive};
pub use leftovers::remove_leftovers;
pub use rewrite::{Rewritten, rewrite};
pub use run::WorkerAside;
pub use selection::{Selected, select};

/// What a redrive did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Redriven {
    /// Dead letters that were processed again.
    pub taken: u64,
    /// Rows that they became, by dataset.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters that they became again, by code.
    pub failed_again: BTreeMap<String, u64>,
    /// Other dead letters, which the lake has as before.
    pub left_alone: u64,
    /// Operations on the lake: one for each batch.
    pub operations: u64,
}

/// What a discard did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Discarded {
    /// Dead letters that were removed.
    pub discarded: u64,
    /// Other dead letters, which the lake has as before.
    pub left_alone: u64,
    /// Operations on the lake: one for each batch.
    pub operations: u64,
}

/// Why a redrive or a discard has failed. What its operations did before stays done; the same command again does the rest.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// Another one runs.
    #[error(
        "another redrive or discard works on the dead letters of this lake: {holder}; wait until it ends. A process that has died \
         loses its lease by itself"
    )]
    Busy {
        /// Its process.
        holder: String,
    },
    /// The log of the lake cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The stores fail.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// An operation could not be done.
    #[error(transparent)]
    Operation(OperationError),
    /// The worker has failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A worker cannot be started.
    #[error("a worker cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// A definition does not fit what the lake has.
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    /// An object is damaged.
    #[error("{key} cannot be read: {problem}; `shardlake verify` shows what is damaged")]
    Damaged {
        /// Its key.
        key: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// Fewer records are aside than were taken. Nothing was changed.
    #[error(
        "only {made} records were made of {taken} dead letters, or a sweep has removed some meanwhile; nothing was changed. Run the \
         command again"
    )]
    Incomplete {
        /// Dead letters.
        taken: u64,
        /// Records.
        made: u64,
    },
    /// Other operations have changed the objects again and again.
    #[error("other operations changed the dead letters {0} times meanwhile; run the command again")]
    Contended(u32),
    /// It was stopped.
    #[error("stopped; the batches that were done stay done, and the same command again does the rest")]
    Stopped,
}

impl From<OperationError> for RedriveError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Commit(error) => RedriveError::Commit(error),
            error => RedriveError::Operation(error),
        }
    }
}

impl Retryable for RedriveError {
    fn is_retryable(&self) -> bool {
        match self {
            RedriveError::Lake(error) => error.is_retryable(),
            RedriveError::Commit(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// The codes of dead letters that can become rows. The others are not records: the unreadable rest of a file, or an
/// aggregate of records that cannot be taken apart.
pub fn codes_of_records() -> Vec<Code> {
    Code::ALL.into_iter().filter(|code| !matches!(code, Code::DamagedFile | Code::BrokenAggregate)).collect()
}
