//! Whose row it is: the four columns of the identity, and the hash of them.
//!
//! Owns: reading these columns, and the hash. Does not own: their names in a dead letter (`dead_letter`).
//!
//! The hash is 128 bits of SHA-256, so that no two of 10^12 rows have the same one (probability below 10^-14). A faster hash is not worth it:
//! one that mixes the length of a text into its first byte took the numbers 995581 and 8955581 for one.

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::reader::RowGroupReader;
use sha2::{Digest, Sha256};

use crate::rows::UnreadableRows;

/// Whose row it is. The sequence number is a text: it may have more than 38 digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowIdentity {
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// The sequence number, decimal digits.
    pub sequence: String,
    /// The number of the document in its record, or of the record in its aggregate; 0 for a plain record.
    pub subsequence: i64,
}

impl RowIdentity {
    /// A hash of an identity. Rows and dead letters of one record have the same hash.
    pub fn hash(stream: &[u8], shard: &[u8], sequence: &[u8], subsequence: i64) -> u128 {
        of_record(&of_shard(stream, shard), sequence, subsequence)
    }
}

/// A hash of a shard, with which the hashes of its records begin.
fn of_shard(stream: &[u8], shard: &[u8]) -> [u8; 32] {
    let length = (stream.len() as u64).to_le_bytes();
    Sha256::new().chain_update(length).chain_update(stream).chain_update(shard).finalize().into()
}

fn of_record(shard: &[u8; 32], sequence: &[u8], subsequence: i64) -> u128 {
    // Half of the shard's hash, so that one block has everything of a usual record.
    let (shard, _) = shard.split_at(16);
    let hash = Sha256::new().chain_update(shard).chain_update(subsequence.to_le_bytes()).chain_update(sequence);
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}

/// The columns of the identity in a row group.
pub(super) struct IdentityColumns {
    stream: Required<ByteArrayType>,
    shard: Required<ByteArrayType>,
    sequence: Required<ByteArrayType>,
    subsequence: Required<Int64Type>,
    /// The shard of the row before, and its hash: records of a shard are often next to each other.
    last: (ByteArray, ByteArray, [u8; 32]),
}

impl IdentityColumns {
    pub(super) fn open(group: &dyn RowGroupReader, numbers: [usize; 4]) -> Result<Self, UnreadableRows> {
        let [stream, shard, sequence, subsequence] = numbers;
        Ok(IdentityColumns {
            stream: Required::open(group, stream)?,
            shard: Required::open(group, shard)?,
            sequence: Required::open(group, sequence)?,
            subsequence: Required::open(group, subsequence)?,
            last: (ByteArray::from(""), ByteArray::from(""), of_shard(b"", b"")),
        })
    }

    fn read(&mut self, rows: usize) -> Result<(), UnreadableRows> {
        self.stream.read(rows)?;
        self.shard.read(rows)?;
        self.sequence.read(rows)?;
        self.subsequence.read(rows)
    }

    /// Appends the hashes of the next rows.
    pub(super) fn read_hashes(&mut self, rows: usize, hashes: &mut Vec<u128>) -> Result<(), UnreadableRows> {
        self.read(rows)?;
        for row in 0..rows {
            let (stream, shard) = (&self.stream.values[row], &self.shard.values[row]);
            if self.last.0 != *stream || self.last.1 != *shard {
                self.last = (stream.clone(), shard.clone(), of_shard(stream.data(), shard.data()));
            }
            let (sequence, subsequence) = (self.sequence.values[row].data(), self.subsequence.values[row]);
            hashes.push(of_record(&self.last.2, sequence, subsequence));
        }
        Ok(())
    }

    /// Skips rows.
    pub(super) fn skip(&mut self, rows: usize) -> Result<(), UnreadableRows> {
        self.stream.skip(rows)?;
        self.shard.skip(rows)?;
        self.sequence.skip(rows)?;
        self.subsequence.skip(rows)
    }

    /// The identity of the next row.
    pub(super) fn read_one(&mut self) -> Result<RowIdentity, UnreadableRows> {
        self.read(1)?;
        let text = |column: &Required<ByteArrayType>| String::from_utf8_lossy(column.values[0].data()).into_owned();
        Ok(RowIdentity {
            stream: text(&self.stream),
            shard: text(&self.shard),
            sequence: text(&self.sequence),
            subsequence: self.subsequence.values[0],
        })
    }
}

/// A column without nulls.
struct Required<T: DataType> {
    reader: ColumnReaderImpl<T>,
    levels: Vec<i16>,
    values: Vec<T::T>,
}

impl<T: DataType> Required<T> {
    fn open(group: &dyn RowGroupReader, number: usize) -> Result<Self, UnreadableRows> {
        let physical = group.metadata().column(number).column_type();
        if physical != T::get_physical_type() {
            return Err(UnreadableRows(format!("a column of the identity has the type {physical}")));
        }
        let reader = get_typed_column_reader(group.get_column_reader(number)?);
        Ok(Required { reader, levels: Vec::new(), values: Vec::new() })
    }

    fn read(&mut self, rows: usize) -> Result<(), UnreadableRows> {
        self.levels.clear();
        self.values.clear();
        let (records, values, _) = self.reader.read_records(rows, Some(&mut self.levels), None, &mut self.values)?;
        if records != rows || values != rows {
            return Err(UnreadableRows("a row has no identity".to_owned()));
        }
        Ok(())
    }

    fn skip(&mut self, rows: usize) -> Result<(), UnreadableRows> {
        if self.reader.skip_records(rows)? != rows {
            return Err(UnreadableRows("a column has fewer rows than the file".to_owned()));
        }
        Ok(())
    }
}
