//! Writes the file of each partition.
//!
//! Owns: the path of a row's partition, the Parquet writer. Does not own: the columns (`columns`).

use std::fmt::Write;

use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;

use crate::columns::{Columns, Ingest};
use crate::plan::{Partition, Plan};
use crate::time::date_of;
use crate::value::Value;

/// The most bytes in a segment of a path.
const SEGMENT_BYTES_MAX: usize = 255;
/// The number of rows that the writer gets at a time.
const BATCH_ROWS: usize = 8192;

/// Writes the path of a row's partition. Returns `false` if a segment of it would be too long.
pub(crate) fn write_path(plan: &Plan, event_us: i64, values: &[Value], path: &mut String) -> bool {
    path.clear();
    let (year, month, day) = date_of(event_us);
    for (n, partition) in plan.partitions.iter().enumerate() {
        path.push_str(if n > 0 { "/" } else { "" });
        let begin = path.len();
        let written = match partition {
            Partition::Year => write!(path, "year={year:04}"),
            Partition::Month => write!(path, "month={month:02}"),
            Partition::Day => write!(path, "day={day:02}"),
            Partition::Text(column) => {
                let text = if let Value::Text(text) = &values[*column] { text } else { "" };
                write!(path, "{}=", plan.columns[*column].name).map(|()| escape(text, path))
            }
        };
        written.expect("a string can be written to");
        if path.len() - begin > SEGMENT_BYTES_MAX {
            return false;
        }
    }
    true
}

/// Writes a value as Hive's `FileUtils.escapePathName` does.
fn escape(text: &str, path: &mut String) {
    if text.is_empty() {
        path.push_str("__HIVE_DEFAULT_PARTITION__");
    }
    for character in text.chars() {
        match character {
            '\0'..='\x1F'
            | '\x7F'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => {
                write!(path, "%{:02X}", u32::from(character)).expect("a string can be written to");
            }
            other => path.push(other),
        }
    }
}

/// The file of one partition.
#[derive(Debug)]
pub(crate) struct PartitionFile {
    columns: Columns,
    writer: ArrowWriter<Vec<u8>>,
    pub(crate) rows: u64,
}

impl PartitionFile {
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self> {
        let compression = Compression::ZSTD(ZstdLevel::try_new(1)?);
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties))?;
        Ok(PartitionFile { columns: Columns::new(schema), writer, rows: 0 })
    }

    pub(crate) fn append(&mut self, plan: &Plan, values: &[Value], ingest: &Ingest<'_>) -> Result<()> {
        self.columns.append(plan, values, ingest);
        self.rows += 1;
        if self.columns.rows == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.write(&self.columns.take()?)
    }

    /// The file's bytes.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.flush()?;
        self.writer.into_inner()
    }
}
