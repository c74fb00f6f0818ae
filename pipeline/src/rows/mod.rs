//! Rows of the lake's files, read back to be compared or found: whose rows they are, and a hash of each column's value.
//!
//! Owns: reading one Parquet file that [`encode`](crate::encode) wrote, in batches; what counts as the same value; showing single
//! values; finding rows by their values (`find`). Does not own: which files are compared, and what follows from a difference (the worker crate).
//!
//! # What is the same
//!
//! - A row is known by its [`RowIdentity`]: stream, shard, sequence number, number in its aggregate.
//! - A column is known by its name. A nested one is compared whole: values, nulls, lengths of lists, keys of maps. The order of
//!   columns, and of fields in a struct, makes no difference.
//! - A column that a file does not have is null in all its rows. So is a field that a struct does not have.
//! - Integers of 32 and 64 bits with one meaning are the same. So is a text in a partition path and in a column.
//! - The columns of the identity are not compared. Neither is `ingest_arrival_time`: it is the time of reading where a source is configured
//!   so, and then it depends on the run.
//!
//! A hash is 64 bits of a fast hash without a key: it decides nothing but a comparison, and never leaves the process. Two different
//! values have the same hash once in 10^19 comparisons. The hash of null is 0, and no value has this hash.
//!
//! Memory: one row group's pages of one batch, and [`BATCH_ROWS`] rows of hashes.

mod column;
mod find;
mod identity;
mod parts;
mod show;

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};

use crate::layout::PartitionPath;
use crate::rows::column::{LeafReader, LeafRole};
use crate::rows::identity::IdentityColumns;

pub use find::{ColumnValue, FOOTER_BYTES, FoundRow, footer_begin};
pub use identity::RowIdentity;
pub use parts::FileParts;
pub use show::{ShownRow, ShownValue};

/// Rows in a batch.
pub const BATCH_ROWS: usize = 4096;

/// The columns that are not compared: those of the identity, and the time of arrival.
pub const NOT_COMPARED: [&str; 5] =
    ["ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence", "ingest_arrival_time"];

/// A file that cannot be read as rows of the lake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read as rows of a lake: {0}")]
pub struct UnreadableRows(String);

impl From<ParquetError> for UnreadableRows {
    fn from(error: ParquetError) -> Self {
        UnreadableRows(error.to_string())
    }
}

/// A file of rows.
pub struct RowFile {
    reader: SerializedFileReader<FileParts>,
    parts: FileParts,
    columns: Vec<String>,
    leaves: Vec<LeafRole>,
    /// Columns whose values are in the path: their number and the hash of the value.
    constants: Vec<(usize, u64)>,
    /// The same values as texts, by name.
    in_path: BTreeMap<String, Option<String>>,
    identity: [usize; 4],
    /// A hash of each column's name.
    names: Vec<u64>,
}

/// Some rows of a file, one after another.
pub struct RowBatch<'b> {
    /// The number of the first row in the file, from 0.
    pub first_row: u64,
    /// A hash of each row's identity ([`RowIdentity::hash`]).
    pub identities: &'b [u128],
    /// A hash of each row's compared values. It does not depend on the order of columns.
    pub rows: &'b [u64],
    /// For each column of [`RowFile::columns`] the hash of each row's value; 0 for null.
    pub columns: &'b [Vec<u64>],
}

impl RowFile {
    /// A file with these bytes. The values of partition columns come from its path.
    ///
    /// # Errors
    /// It is not a valid Parquet file, or lacks a column of the identity.
    pub fn open(bytes: Bytes, partition: Option<&PartitionPath>) -> Result<Self, UnreadableRows> {
        Self::open_parts(FileParts::whole(bytes), partition)
    }

    /// A file of which the footer is in memory, and perhaps more.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_parts(parts: FileParts, partition: Option<&PartitionPath>) -> Result<Self, UnreadableRows> {
        let reader = SerializedFileReader::new(parts.clone())?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let mut columns: Vec<String> = Vec::new();
        let mut leaves = Vec::with_capacity(schema.num_columns());
        for number in 0..schema.num_columns() {
            let name = schema.column(number).path().parts()[0].clone();
            if NOT_COMPARED.contains(&name.as_str()) {
                leaves.push(LeafRole::NotCompared);
                continue;
            }
            // The leaves of a column are next to each other.
            if columns.last() != Some(&name) {
                columns.push(name);
            }
            leaves.push(LeafRole::of(&schema, number, columns.len() - 1));
        }
        column::choose_leading_leaves(&mut leaves);
        let find = |name: &str| {
            let found = (0..schema.num_columns()).find(|number| schema.column(*number).path().string() == name);
            found.ok_or_else(|| UnreadableRows(format!("it has no column {name}")))
        };
        let identity = [find(NOT_COMPARED[0])?, find(NOT_COMPARED[1])?, find(NOT_COMPARED[2])?, find(NOT_COMPARED[3])?];
        let mut constants = Vec::new();
        let mut in_path = BTreeMap::new();
        for (name, value) in partition.into_iter().flat_map(PartitionPath::columns) {
            let value = value.into_text();
            constants.push((columns.len(), value.as_ref().map_or(0, |text| column::hash_of_text(text.as_bytes()))));
            columns.push(name.to_owned());
            in_path.insert(name.to_owned(), value);
        }
        let names = columns.iter().map(|name| column::hash_of_name(name)).collect();
        Ok(RowFile { reader, parts, columns, leaves, constants, in_path, identity, names })
    }

    /// The names of the columns that are compared: those of the file, then those of its path.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.reader.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Reads all rows, or only the row groups in which `wanted` (of the first row and the row after the last) holds.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn read(
        &self,
        wanted: impl Fn(u64, u64) -> bool,
        mut each: impl FnMut(&RowBatch<'_>),
    ) -> Result<(), UnreadableRows> {
        let mut first_row = 0;
        let mut batch = BatchBuffers::new(self.columns.len());
        for number in 0..self.reader.num_row_groups() {
            let group = self.reader.get_row_group(number)?;
            let rows = u64::try_from(group.metadata().num_rows()).unwrap_or(0);
            if wanted(first_row, first_row + rows) {
                self.read_group(&*group, first_row, rows, &mut batch, &mut each)?;
            }
            first_row += rows;
        }
        Ok(())
    }

    fn read_group(
        &self,
        group: &dyn RowGroupReader,
        first_row: u64,
        rows: u64,
        batch: &mut BatchBuffers,
        each: &mut impl FnMut(&RowBatch<'_>),
    ) -> Result<(), UnreadableRows> {
        let mut identity = IdentityColumns::open(group, self.identity)?;
        let mut leaves = Vec::new();
        for (number, role) in self.leaves.iter().enumerate() {
            if let LeafRole::Compared(role) = role {
                leaves.push(LeafReader::open(group, number, role)?);
            }
        }
        let mut done = 0;
        while done < rows {
            let wanted = usize::try_from(rows - done).unwrap_or(usize::MAX).min(BATCH_ROWS);
            batch.clear(wanted);
            identity.read_hashes(wanted, &mut batch.identities)?;
            for leaf in &mut leaves {
                leaf.read_hashes(wanted, &mut batch.columns)?;
            }
            for (column, hash) in &self.constants {
                batch.columns[*column].fill(*hash);
            }
            for (column, name) in batch.columns.iter().zip(&self.names) {
                for (row, hash) in batch.rows.iter_mut().zip(column) {
                    *row = row.wrapping_add(column::named(*hash, *name));
                }
            }
            let BatchBuffers { identities, rows, columns } = &*batch;
            each(&RowBatch { first_row: first_row + done, identities, rows, columns });
            done += wanted as u64;
        }
        Ok(())
    }
}

impl std::fmt::Debug for RowFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowFile").field("columns", &self.columns).finish_non_exhaustive()
    }
}

struct BatchBuffers {
    identities: Vec<u128>,
    rows: Vec<u64>,
    columns: Vec<Vec<u64>>,
}

impl BatchBuffers {
    fn new(columns: usize) -> Self {
        BatchBuffers { identities: Vec::new(), rows: Vec::new(), columns: vec![Vec::new(); columns] }
    }

    fn clear(&mut self, rows: usize) {
        self.identities.clear();
        for hashes in self.columns.iter_mut().chain([&mut self.rows]) {
            hashes.clear();
            hashes.resize(rows, 0);
        }
    }
}
