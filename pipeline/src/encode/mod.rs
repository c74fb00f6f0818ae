//! Columns become Parquet.
//!
//! Owns: row groups of one partition out of the rows of a lane, and files out of row groups. Pure: rows in, bytes out. An
//! [`Encoder`] borrows rows, so that several can encode different partitions of the same rows at once.

mod schema;

mod gather;

mod chunk;
mod column;
mod delta;
mod levels;
mod stats;

mod file;

use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::schema::types::SchemaDescPtr;

use crate::columns::batch::Run;
use crate::columns::leaf::Values;
use crate::columns::partition::PartitionId;
use crate::columns::table::Table;
use crate::dataset::Datasets;
use crate::encode::column::ColumnEncoder;
use crate::encode::gather::{Column, LeafRows};
use crate::layout::PartitionPath;

pub use file::{ParquetFile, Provenance, RANGES_MAX};
pub use parquet::errors::ParquetError as EncodeError;

/// Rows of one dataset that a lane gave up, by partition.
#[derive(Debug)]
pub struct Rows {
    dataset: usize,
    table: Table,
    /// Runs in the order of their partitions.
    runs: Vec<Run>,
    partitions: Vec<RowsOfPartition>,
}

/// The rows of one partition.
#[derive(Debug, Clone)]
pub struct RowsOfPartition {
    /// The partition's path.
    pub path: PartitionPath,
    /// How many rows.
    pub rows: u64,
    runs: std::ops::Range<usize>,
}

impl Rows {
    pub(crate) fn new(dataset: usize, mut table: Table) -> Self {
        let mut runs = std::mem::take(&mut table.runs);
        runs.sort_by_key(|run| run.partition);
        let mut partitions: Vec<(PartitionId, std::ops::Range<usize>)> = Vec::new();
        for (place, run) in runs.iter().enumerate() {
            match partitions.last_mut() {
                Some((partition, range)) if *partition == run.partition => range.end = place + 1,
                _ => partitions.push((run.partition, place..place + 1)),
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

/// One encoded row group, ready to be put into a file.
#[derive(Debug)]
pub struct RowGroup {
    /// Its rows.
    pub rows: u64,
    columns: Vec<(Bytes, ColumnCloseResult)>,
}

impl RowGroup {
    /// Bytes of its columns.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|(bytes, _)| bytes.len()).sum()
    }
}

/// Encodes row groups; one for each thread that encodes.
#[derive(Debug)]
pub struct Encoder {
    schemas: Vec<SchemaDescPtr>,
    columns: ColumnEncoder,
    column: Column,
}

impl Encoder {
    /// An encoder for these datasets, with zstd at this level.
    ///
    /// # Errors
    /// A level that zstd does not have.
    pub fn new(datasets: &Datasets, zstd_level: i32) -> Result<Self> {
        Ok(Encoder {
            schemas: datasets.plans().iter().map(|plan| schema::schema(plan)).collect::<Result<_>>()?,
            columns: ColumnEncoder::new(zstd_level)?,
            column: Column::default(),
        })
    }

    /// Encodes the rows of one partition (by its place in [`Rows::partitions`]) as one row group.
    ///
    /// # Errors
    /// Only what should never happen: more than 2^32 values of a column in a row group.
    pub fn row_group(&mut self, rows: &Rows, partition: usize) -> Result<RowGroup> {
        let RowsOfPartition { rows: count, runs, .. } = &rows.partitions[partition];
        let runs = &rows.runs[runs.clone()];
        let table = &rows.table;
        let schema = &self.schemas[rows.dataset];
        let leaves = table.plan.leaves.iter().enumerate().filter(|(_, leaf)| leaf.in_file);
        let mut columns = Vec::with_capacity(schema.num_columns());
        for ((number, leaf), descriptor) in leaves.zip(schema.columns()) {
            let rows = LeafRows::new(table, number, runs);
            let landed = match &table.values[number] {
                Values::Dictionary(dictionary) => Some(dictionary.output()),
                _ => None,
            };
            columns.push(self.columns.encode(leaf, descriptor, &rows, &mut self.column, landed)?);
        }
        Ok(RowGroup { rows: *count, columns })
    }

    /// An empty file for rows of a dataset.
    ///
    /// # Errors
    /// Only what should never happen: a schema that Parquet does not take.
    pub fn file(&self, datasets: &Datasets, dataset: usize) -> Result<ParquetFile> {
        ParquetFile::new(datasets.plan(dataset), &self.schemas[dataset])
    }
}
