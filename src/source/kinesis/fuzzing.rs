//! The fuzz targets' view of GetRecords and of aggregates: bytes in, frames out, by the scan and by records one by one.
//!
//! It does not own the judgement.

use std::ops::Range;
use std::sync::Arc;

use aws_smithy_types::DateTime;
use checkpoints::Position;
use pipeline::chunk::Chunk;

use super::batch::{About, Batch, Malformed, millis};
use super::decode::{NotTaken, scan};
use super::kpl;

/// Records that were taken.
#[derive(Debug)]
pub struct Answer {
    /// What the answer says beside its records: the next iterator, the time behind, the shards that this one became.
    pub envelope: (Option<String>, i64, Vec<String>),
    /// The records.
    pub chunk: Chunk,
    /// The position behind the last one.
    pub through: Position,
    /// How many records of the stream there were, and their bytes.
    pub counts: (u64, u64),
}

/// A record of an aggregate: its partition key, and where its bytes are.
pub type SubRecord = (Arc<str>, Range<usize>);

/// Records that were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The scan does not know this form; the SDK is asked instead.
    NotUnderstood,
    /// They can't be true.
    Malformed,
}

/// A record as another decoder reads it.
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

/// The records of an answer's body, behind a position, by the scan.
///
/// # Errors
/// It is not taken.
pub fn by_scan(body: &[u8], after: &Position, record_bytes_max: usize) -> Result<Answer, Refused> {
    let mut batch = Batch::new(Vec::new(), after.clone(), record_bytes_max);
    match scan(body, &mut batch) {
        Ok(envelope) => Ok(Answer::of(batch, (envelope.next, envelope.behind_ms, envelope.children))),
        Err(NotTaken::NotUnderstood(_)) => Err(Refused::NotUnderstood),
        Err(NotTaken::Malformed(_)) => Err(Refused::Malformed),
    }
}

/// The same records, decoded elsewhere.
///
/// # Errors
/// They make no sense.
pub fn by_records(records: &[Record], after: &Position, record_bytes_max: usize) -> Result<Answer, Refused> {
    let mut batch = Batch::new(Vec::new(), after.clone(), record_bytes_max);
    for record in records {
        let start = batch.buffer.len();
        batch.buffer.extend_from_slice(&record.data);
        let arrival_ms = record.arrival_s.map(|seconds| millis(&DateTime::from_secs_f64(seconds)));
        let about = About { sequence: &record.sequence, arrival_ms, partition_key: record.partition_key.as_deref() };
        batch.add(start, about).map_err(|Malformed(_)| Refused::Malformed)?;
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
/// Why it can't be opened, in a word.
pub fn open_aggregate(record: &[u8]) -> Result<Vec<SubRecord>, String> {
    match kpl::open(record) {
        Ok(opened) => Ok(opened.into_iter().map(|record| (record.partition_key, record.data)).collect()),
        Err(broken) => Err(format!("{broken:?}")),
    }
}
