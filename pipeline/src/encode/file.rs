//! A Parquet file that grows by row groups.
//!
//! Owns: the file's bytes until its owner takes them, and the footer with its provenance. Does not own: encoding columns
//! (`column`), storing bytes.
//!
//! The footer says where the file comes from:
//!
//! | place | content |
//! | --- | --- |
//! | `created_by` | program, version and build ([`ProducerVersion`]) |
//! | `shardlake.version` | version of the program |
//! | `shardlake.dataset` | name of the dataset |
//! | `shardlake.definition` | hash of the dataset's definition |
//! | `shardlake.epoch` | name of the epoch |
//! | `shardlake.ranges` | JSON: stream, shard, after, through; only if there are at most [`RANGES_MAX`] ranges |

use std::sync::{Arc, Mutex, PoisonError};

use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescPtr;

use crate::dataset::plan::Plan;
use crate::encode::RowGroup;
use crate::encode::column_stats::{self, FileStats};

/// The most shard ranges that a footer names. The commit record of an epoch has all of them.
pub const RANGES_MAX: usize = 100;

/// The program that writes a file.
///
/// Readers decide by it which faults of which writers they must work around. parquet-java reads only files whose writer
/// has a name of this form: it cannot tell otherwise that a `DELTA_BYTE_ARRAY` page is free of PARQUET-246. The form is
/// that of `FileMetaData.created_by` in `parquet.thrift`, as parquet-java's `VersionParser` reads it:
/// `shardlake version 0.1.0 (build 60b3bf5c0ccf)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerVersion(String);

impl ProducerVersion {
    /// This version of the program. `build` names the commit it was built from: letters, digits, `-`, `.`, `_` and `+`.
    pub fn of_build(build: &str) -> Self {
        ProducerVersion(format!("shardlake version {} (build {build})", env!("CARGO_PKG_VERSION")))
    }

    /// The text in the footer.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ProducerVersion {
    fn default() -> Self {
        ProducerVersion::of_build("unknown")
    }
}

/// What a file's footer says about its origin.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// The epoch's name.
    pub epoch: String,
    /// JSON of the shard ranges, if there are few enough.
    pub ranges: Option<String>,
}

/// A finished file.
#[derive(Debug)]
pub struct FinishedFile {
    /// The bytes that were not yet taken.
    pub bytes: Vec<u8>,
    /// The rows of the whole file.
    pub rows: u64,
    /// The statistics of the whole file.
    pub stats: FileStats,
}

/// Bytes that were written and not yet taken.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A growing Parquet file.
pub struct ParquetFile {
    writer: SerializedFileWriter<Sink>,
    sink: Sink,
    /// For each column, whether the bounds of its values may leave the file.
    bounded: Arc<[bool]>,
    rows: u64,
    row_groups: usize,
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetFile")
            .field("rows", &self.rows)
            .field("row_groups", &self.row_groups)
            .finish_non_exhaustive()
    }
}

impl ParquetFile {
    pub(crate) fn new(
        plan: &Plan,
        schema: &SchemaDescPtr,
        bounded: &Arc<[bool]>,
        producer: &ProducerVersion,
    ) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_created_by(producer.as_str().to_owned())
            .set_key_value_metadata(Some(vec![
                KeyValue::new("shardlake.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                KeyValue::new("shardlake.dataset".to_owned(), plan.name.to_string()),
                KeyValue::new("shardlake.definition".to_owned(), plan.version.clone()),
            ]))
            .build();
        let sink = Sink::default();
        let writer = SerializedFileWriter::new(sink.clone(), schema.root_schema_ptr(), Arc::new(properties))?;
        Ok(ParquetFile { writer, sink, bounded: Arc::clone(bounded), rows: 0, row_groups: 0 })
    }

    /// Adds a row group of the file's dataset and partition.
    ///
    /// # Errors
    /// The row group has another schema, which is a bug.
    pub fn append(&mut self, group: RowGroup) -> Result<()> {
        let mut writer = self.writer.next_row_group()?;
        for (bytes, close) in group.columns {
            writer.append_column(&bytes, close)?;
        }
        writer.close()?;
        self.rows += group.rows;
        self.row_groups += 1;
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes written so far, including those that were taken.
    pub fn bytes_written(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Bytes that were not yet taken.
    pub fn bytes_waiting(&self) -> usize {
        self.sink.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Estimated memory of the footer until the file is finished: the metadata of each column of each row group.
    pub fn footer_memory(&self) -> usize {
        self.row_groups * self.writer.schema_descr().num_columns() * 1024
    }

    /// Takes the bytes that were not yet taken.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.sink.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the footer.
    ///
    /// # Errors
    /// The file has no rows, which is a bug.
    pub fn finish(mut self, provenance: &Provenance) -> Result<FinishedFile> {
        if self.rows == 0 {
            return Err(ParquetError::General("a file must have at least one row".to_owned()));
        }
        self.writer.append_key_value_metadata(KeyValue::new("shardlake.epoch".to_owned(), provenance.epoch.clone()));
        if let Some(ranges) = &provenance.ranges {
            self.writer.append_key_value_metadata(KeyValue::new("shardlake.ranges".to_owned(), ranges.clone()));
        }
        let stats = column_stats::of_file(self.writer.flushed_row_groups(), &self.bounded);
        self.writer.finish()?;
        Ok(FinishedFile { bytes: self.take_bytes(), rows: self.rows, stats })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parquet_java_can_parse_the_producer_version() {
        // `VersionParser.FORMAT` of parquet-java, which must match the whole text.
        let format = r"^(.*?)\s+version\s*(?:([^(]*?)\s*(?:\(\s*build\s*([^)]*?)\s*\))?)?$";
        let format = regex::Regex::new(format).unwrap();
        let producer = ProducerVersion::of_build("60b3bf5c0ccf");
        let parts = format.captures(producer.as_str()).unwrap();
        assert_eq!((&parts[1], &parts[2], &parts[3]), ("shardlake", env!("CARGO_PKG_VERSION"), "60b3bf5c0ccf"));
    }
}
