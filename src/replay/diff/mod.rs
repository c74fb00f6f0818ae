//! An exact comparison of two sets of rows and dead letters: of what is in a lake, and of what a replay has made of the same records.
//!
//! Owns: which row belongs to which, what counts as a difference, the counts, and which positions are shown as examples. Does not own:
//! what is the same value (`pipeline::rows`), which objects a plan replaces (`plan`), what a difference means for whoever asked
//! (`thresholds`).
//!
//! # How it works
//!
//! 1. Every object of both sides is read. A row becomes 32 bytes: the hash of its identity, the hash of its values, and its place. A dead
//!    letter becomes the same, with its code.
//! 2. These are sorted by identity, so that what one record has become on both sides is next to each other (`matching`).
//! 3. Rows whose values differ are read again, and compared column by column (`columns`).
//! 4. The rows of the examples are read once more, as text (`samples`).
//!
//! If steps 1 to 3 need more memory than they may have, they are done several times, each time for a part of all identities. So memory is
//! bounded whatever the number of rows: [`DiffOptions::memory`], and the objects that are being read, at most 256 MiB or one.
//!
//! What is reported does not depend on the order of reading, the number of passes or of threads.

mod columns;
mod matching;
mod reading;
mod report;
mod samples;
mod sides;
pub mod thresholds;

use std::sync::Arc;

use crate::commit::lake_log::HistoryError;
use crate::lake::{LakeError, ObjectKey};
use crate::replay::diff::matching::Matched;
use crate::replay::diff::reading::Reader;

pub use report::{CodeCounts, ColumnDiff, DatasetDiff, DeadLetterDiff, Diff, Sample, SampleKind};
pub use sides::{Side, SideObject};

/// Bytes of objects that are in memory at once, unless one object alone has more.
const IN_FLIGHT_BYTES: usize = 256 << 20;
/// Bytes that a row or a dead letter takes in a pass.
const RECORD_BYTES: u64 = size_of::<matching::Record>() as u64;

/// How to compare.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// Memory for rows, in bytes. Less memory means more passes.
    pub memory: u64,
    /// Threads that decode and sort.
    pub threads: usize,
    /// The most examples of each kind of difference, and of each changed column.
    pub samples: usize,
    /// Only rows of this dataset count, and dead letters of it. A dead letter of any dataset is a pair with a row of this one.
    pub dataset: Option<String>,
}

impl Default for DiffOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        DiffOptions { memory: 512 << 20, threads, samples: 5, dataset: None }
    }
}

/// What a comparison has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffProgress {
    /// This many more bytes will be read.
    Planned(u64),
    /// This many bytes were read.
    Read(u64),
}

/// A comparison that failed.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The log of a lake cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// An object is not there any more.
    #[error("{key} is not in the lake any more: an operation has removed it since it was planned; plan again")]
    Gone {
        /// Its key.
        key: ObjectKey,
    },
    /// An object is damaged.
    #[error("{key}: {problem}")]
    Unreadable {
        /// Its key.
        key: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// A thread has failed.
    #[error("a thread of the comparison failed")]
    Thread,
}

/// Compares two sides.
///
/// # Errors
/// A lake fails, or an object is gone or damaged.
pub async fn compare(
    old: Side,
    new: Side,
    options: &DiffOptions,
    progress: &(dyn Fn(DiffProgress) + Sync),
) -> Result<Diff, DiffError> {
    let reader = Reader::new(old, new, options);
    let threads = options.threads.max(1);
    let passes = (reader.records() * RECORD_BYTES).div_ceil((options.memory / 2).max(1)).max(1);
    progress(DiffProgress::Planned(passes * reader.bytes()));
    let mut diff = Diff::new(passes, &reader);
    let mut samples = samples::Wanted::default();
    for pass in 0..passes {
        let parts = reader.read_pass(pass, passes, threads, progress).await?;
        let mut changed = Vec::new();
        for matched in match_parts(&reader, parts, options.samples).await? {
            let Matched { counts, pairs, wanted } = matched;
            diff.add(&counts, &reader);
            samples.add(wanted, options.samples);
            changed.extend(pairs);
        }
        columns::compare_changed(&reader, changed, options, progress, &mut diff, &mut samples).await?;
    }
    diff.samples = samples::read(&reader, samples).await?;
    Ok(diff)
}

/// Sorts and matches the parts of a pass, each on a thread of its own.
async fn match_parts(
    reader: &Arc<Reader>,
    parts: Vec<Vec<matching::Record>>,
    samples: usize,
) -> Result<Vec<Matched>, DiffError> {
    let tasks: Vec<_> = parts
        .into_iter()
        .map(|records| {
            let reader = Arc::clone(reader);
            tokio::task::spawn_blocking(move || matching::match_records(&reader, records, samples))
        })
        .collect();
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        all.push(task.await.map_err(|_| DiffError::Thread)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
