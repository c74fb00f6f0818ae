//! The fuzz targets' view of GetRecords and of aggregates: bytes in, frames out, by the scan and record by record.
//!
//! Does not own: the checks of the result (`fuzz/src/outside`).

use std::ops::Range;
use std::sync::Arc;

use aws_smithy_types::DateTime;
use checkpoints::Position;
use pipeline::chunk::Chunk;

use super::batch::{Batch, Malformed, RecordMeta, millis};
use super::decode::{Rejected, scan};
use super::kpl;

/// Records that were accepted.
#[derive(Debug)]
pub struct Answer {
    /// What the response says besides its records: the next iterator, the time behind the tip, the child shards.
    pub envelope: (Option<String>, i64, Vec<String>),
    /// The records.
    pub chunk: Chunk,
    /// The position after the last one.
    pub through: Position,
    /// The number of records of the stream, and their bytes.
    pub counts: (u64, u64),
}

/// A record of an aggregate: its partition key, and where its bytes are.
pub type SubRecord = (Arc<str>, Range<usize>);

/// Records that were rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The scan does not recognize the form; the SDK decodes it instead.
    NotRecognized,
    /// They cannot be right.
    Malformed,
}

/// A record that another decoder read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its sequence number.
    pub sequence: String,
    /// Its arrival, in seconds since 1970.
    pub arrival_s: Option<f64>,
    /// Its partition key.
    pub partition_key: Option<String>,
}

impl Answer {
    fn of(batch: Batch, envelope: (Option<String>, i64, Vec<String>)) -> Self {
        let (through, counts) = (batch.through(), (batch.records(), batch.bytes()));
        Answer { envelope, through, counts, chunk: batch.into_chunk("stream".into(), "shard".into(), 0) }
    }
}

/// The records of a response's body after a position, by the scan.
///
/// # Errors
/// The response is rejected.
pub fn by_scan(body: &[u8], after: &Position, record_bytes_max: usize) -> Result<Answer, Refused> {
    let mut batch = Batch::new(Vec::new(), after.clone(), record_bytes_max);
    match scan(body, &mut batch) {
        Ok(envelope) => Ok(Answer::of(batch, (envelope.next, envelope.behind_ms, envelope.children))),
        Err(Rejected::NotRecognized(_)) => Err(Refused::NotRecognized),
        Err(Rejected::Malformed(_)) => Err(Refused::Malformed),
    }
}

/// The same records, decoded by another decoder.
///
/// # Errors
/// They are malformed.
pub fn by_records(records: &[Record], after: &Position, record_bytes_max: usize) -> Result<Answer, Refused> {
    let mut batch = Batch::new(Vec::new(), after.clone(), record_bytes_max);
    for record in records {
        let start = batch.buffer.len();
        batch.buffer.extend_from_slice(&record.data);
        let arrival_ms = record.arrival_s.map(|seconds| millis(&DateTime::from_secs_f64(seconds)));
        let meta =
            RecordMeta { sequence: &record.sequence, arrival_ms, partition_key: record.partition_key.as_deref() };
        batch.add(start, meta).map_err(|Malformed(_)| Refused::Malformed)?;
    }
    Ok(Answer::of(batch, (None, 0, Vec::new())))
}

/// Whether a record says that it is an aggregate.
pub fn is_aggregate(record: &[u8]) -> bool {
    kpl::is_aggregate(record)
}

/// The records of an aggregate.
///
/// # Errors
/// Why it cannot be opened, in a word.
pub fn open_aggregate(record: &[u8]) -> Result<Vec<SubRecord>, String> {
    match kpl::open(record) {
        Ok(opened) => Ok(opened.into_iter().map(|record| (record.partition_key, record.data)).collect()),
        Err(broken) => Err(format!("{broken:?}")),
    }
}
