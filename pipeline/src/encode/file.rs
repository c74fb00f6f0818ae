//! A Parquet file that grows by row groups.
//!
//! Owns: the file's bytes until they are taken away, its footer and the provenance in it. Does not own: encoding columns
//! (`column`), storing bytes.
//!
//! Provenance, in the footer's key-value metadata: `shardlake.version`, `shardlake.dataset`, `shardlake.definition` (hash
//! of the dataset's definition), `shardlake.epoch`, `shardlake.ranges` (JSON: stream, shard, after, through; only if there
//! are at most [`RANGES_MAX`]).

use std::sync::{Arc, Mutex, PoisonError};

use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescPtr;

use crate::dataset::plan::Plan;
use crate::encode::RowGroup;

/// Shard ranges that a footer names at most; an epoch of more shards is found through its commit record.
pub const RANGES_MAX: usize = 100;

/// What a file's footer says of its origin.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// The epoch's name.
    pub epoch: String,
    /// JSON of the shard ranges, if there are few enough.
    pub ranges: Option<String>,
}

/// Bytes that have been written and not yet taken away.
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
    pub(crate) fn new(plan: &Plan, schema: &SchemaDescPtr) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_created_by(concat!("shardlake ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![
                KeyValue::new("shardlake.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                KeyValue::new("shardlake.dataset".to_owned(), plan.name.to_string()),
                KeyValue::new("shardlake.definition".to_owned(), plan.version.clone()),
            ]))
            .build();
        let sink = Sink::default();
        let writer = SerializedFileWriter::new(sink.clone(), schema.root_schema_ptr(), Arc::new(properties))?;
        Ok(ParquetFile { writer, sink, rows: 0, row_groups: 0 })
    }

    /// Adds a row group of the file's dataset and partition.
    ///
    /// # Errors
    /// Only what should never happen: a row group of another schema.
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

    /// Bytes written so far, those taken away included.
    pub fn bytes_written(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Bytes that wait to be taken.
    pub fn bytes_waiting(&self) -> usize {
        self.sink.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Memory that the footer takes until the file is finished: roughly what its columns' metadata need.
    pub fn footer_memory(&self) -> usize {
        self.row_groups * self.writer.schema_descr().num_columns() * 1024
    }

    /// Takes the bytes that wait.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.sink.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the footer and gives up the last bytes.
    ///
    /// # Errors
    /// Only what should never happen: a file that is finished already.
    pub fn finish(mut self, provenance: &Provenance) -> Result<Vec<u8>> {
        if self.rows == 0 {
            return Err(ParquetError::General("a file without rows is not written".to_owned()));
        }
        self.writer.append_key_value_metadata(KeyValue::new("shardlake.epoch".to_owned(), provenance.epoch.clone()));
        if let Some(ranges) = &provenance.ranges {
            self.writer.append_key_value_metadata(KeyValue::new("shardlake.ranges".to_owned(), ranges.clone()));
        }
        self.writer.finish()?;
        Ok(self.take_bytes())
    }
}
