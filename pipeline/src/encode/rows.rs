//! The rows of a dataset that a lane gives up, by partition.
//!
//! Owns: which runs of rows belong to which partition. Does not own: the values (`columns::table`), encoding them.

use std::ops::Range;

use crate::columns::batch::Run;
use crate::columns::partition::PartitionId;
use crate::columns::table::Table;
use crate::layout::PartitionPath;

/// Rows of one dataset, taken from a lane, by partition.
#[derive(Debug)]
pub struct Rows {
    pub(super) dataset: usize,
    pub(super) table: Table,
    /// Runs, sorted by partition.
    pub(super) runs: Vec<Run>,
    pub(super) partitions: Vec<RowsOfPartition>,
}

/// The rows of one partition.
#[derive(Debug, Clone)]
pub struct RowsOfPartition {
    /// The partition's path: `type=skills/year=2025/month=01`.
    pub path: PartitionPath,
    /// The number of rows.
    pub rows: u64,
    pub(super) runs: Range<usize>,
}

impl Rows {
    pub(crate) fn new(dataset: usize, mut table: Table) -> Self {
        let mut runs = std::mem::take(&mut table.runs);
        runs.sort_by_key(|run| run.partition);
        let mut partitions: Vec<(PartitionId, Range<usize>)> = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            match partitions.last_mut() {
                Some((partition, range)) if *partition == run.partition => range.end = index + 1,
                _ => partitions.push((run.partition, index..index + 1)),
            }
        }
        let partitions = partitions
            .into_iter()
            .map(|(partition, range)| RowsOfPartition {
                path: table.partitions.path_of(partition).clone(),
                rows: runs[range.clone()].iter().map(|run| u64::from(run.len)).sum(),
                runs: range,
            })
            .collect();
        Rows { dataset, table, runs, partitions }
    }

    /// The dataset's number.
    pub fn dataset(&self) -> usize {
        self.dataset
    }

    /// The partitions that have rows.
    pub fn partitions(&self) -> &[RowsOfPartition] {
        &self.partitions
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.table.memory() + self.runs.len() * size_of::<Run>()
    }
}
