//! Encodes columns as Parquet.
//!
//! Owns: turning the rows of one partition into a row group, and row groups into a file. Does not own: when rows are
//! encoded, where bytes are stored (the worker). Pure: rows in, bytes out. An [`Encoder`] borrows rows, so several encoders
//! can encode different partitions of the same rows at once.

mod schema;

mod rows;

mod gather;

mod column;
mod column_chunk;
mod column_stats;
mod compressor;
mod delta;
mod levels;
mod numbers;
mod plain;
mod stats;

mod file;

use std::sync::Arc;

use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::schema::types::SchemaDescPtr;

use crate::columns::leaf::Values;
use crate::dataset::Datasets;
use crate::encode::column::ColumnEncoder;
use crate::encode::gather::{Column, LeafRows};

pub use column_stats::{Bound, ColumnBounds, ColumnStats, FileStats, InvalidStats};
pub use file::{FinishedFile, ParquetFile, ProducerVersion, Provenance, RANGES_MAX};
pub use parquet::errors::ParquetError as EncodeError;
pub use rows::{Rows, RowsOfPartition};

/// An encoded row group, ready to be appended to a file.
#[derive(Debug)]
pub struct RowGroup {
    /// The number of rows.
    pub rows: u64,
    columns: Vec<(Bytes, ColumnCloseResult)>,
}

impl RowGroup {
    /// Bytes of all columns together.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|(bytes, _)| bytes.len()).sum()
    }
}

/// Which of Parquet's encodings files may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encodings {
    /// `PLAIN` and dictionaries, which every reader reads right.
    #[default]
    Compatible,
    /// The delta encodings as well. Some versions of some readers refuse or misread them: `docs/readers.md` names them.
    Compact,
}

impl Encodings {
    /// Both, in the order in which they are documented.
    pub const ALL: [Encodings; 2] = [Encodings::Compatible, Encodings::Compact];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Encodings::Compatible => "compatible",
            Encodings::Compact => "compact",
        }
    }
}

/// How files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Which encodings the pages may have.
    pub encodings: Encodings,
    /// zstd level of pages, 1 to 19.
    pub zstd_level: i32,
    /// The program that the files name as their writer.
    pub producer: ProducerVersion,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        EncoderConfig { encodings: Encodings::default(), zstd_level: 1, producer: ProducerVersion::default() }
    }
}

/// Encodes row groups. Each thread has its own.
#[derive(Debug)]
pub struct Encoder {
    producer: ProducerVersion,
    schemas: Vec<SchemaDescPtr>,
    /// For each dataset and column, whether the bounds of its values may leave the file.
    bounded: Vec<Arc<[bool]>>,
    columns: ColumnEncoder,
    column: Column,
}

impl Encoder {
    /// An encoder for these datasets.
    ///
    /// # Errors
    /// zstd does not have this level.
    pub fn new(datasets: &Datasets, config: &EncoderConfig) -> Result<Self> {
        Ok(Encoder {
            producer: config.producer.clone(),
            schemas: (0..datasets.plans().len())
                .map(|dataset| schema::schema(datasets.plan(dataset), datasets.field_ids(dataset)))
                .collect::<Result<_>>()?,
            bounded: datasets.plans().iter().map(|plan| column_stats::bounded_columns(plan).into()).collect(),
            columns: ColumnEncoder::new(config.zstd_level, config.encodings)?,
            column: Column::default(),
        })
    }

    /// Encodes the rows of one partition, given by its index in [`Rows::partitions`], as one row group.
    ///
    /// # Errors
    /// A column has more than 2^32 values or bytes in the row group.
    pub fn row_group(&mut self, rows: &Rows, partition: usize) -> Result<RowGroup> {
        let RowsOfPartition { rows: count, runs, .. } = &rows.partitions[partition];
        let runs = &rows.runs[runs.clone()];
        let table = &rows.table;
        let schema = &self.schemas[rows.dataset];
        let leaves = table.plan.leaves.iter().enumerate().filter(|(_, leaf)| leaf.in_file);
        let mut columns = Vec::with_capacity(schema.num_columns());
        for ((number, leaf), descriptor) in leaves.zip(schema.columns()) {
            let rows = LeafRows::new(table, number, runs);
            let dictionary = match &table.values[number] {
                Values::Dictionary(dictionary) => Some(dictionary.output()),
                _ => None,
            };
            columns.push(self.columns.encode(leaf, descriptor, &rows, &mut self.column, dictionary)?);
        }
        Ok(RowGroup { rows: *count, columns })
    }

    /// An empty file for the rows of a dataset.
    ///
    /// # Errors
    /// Parquet refuses the schema, which is a bug.
    pub fn file(&self, datasets: &Datasets, dataset: usize) -> Result<ParquetFile> {
        ParquetFile::new(datasets.plan(dataset), &self.schemas[dataset], &self.bounded[dataset], &self.producer)
    }
}
