//! Records of a response become one chunk.
//!
//! Owns: opening aggregates, leaving out what was read before, what a record that is too large or broken becomes, and the position
//! after the last record. Does not own: requesting records, or decoding a response.
//!
//! Every record of the stream moves the position, whatever became of it. The position after an aggregate is that of its last
//! record. If reading began in the middle of an aggregate (KCL may have committed half of one), its first records are left out. Our
//! own commits always contain whole aggregates.
//!
//! Limits: [`CHUNK_BYTES_MAX`] bytes, which is 200 times the largest response of Kinesis.

use std::cmp::Ordering;
use std::sync::Arc;

use aws_smithy_types::DateTime;
use checkpoints::{Position, SequenceNumber};
use mutations::mutated;
use pipeline::chunk::{CHUNK_BYTES_MAX, Chunk, Damage, Frame, Framing};

use crate::source::kinesis::kpl;

/// The records of one response.
#[derive(Debug)]
pub(super) struct Batch {
    /// The bytes so far. A record's bytes are appended before it is [added](Batch::add).
    pub(super) buffer: Vec<u8>,
    after: Position,
    record_bytes_max: usize,
    frames: Vec<Frame>,
    first: Option<SequenceNumber>,
    /// The last record of the stream, and the number of the last record in it.
    last: Option<(SequenceNumber, u64)>,
    newest_ms: Option<i64>,
    records: u64,
    bytes: u64,
}

/// A response that cannot be right: its records are out of order, or have invalid sequence numbers. It is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed response: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// What a response says about a record besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordMeta<'a> {
    pub(super) sequence: &'a str,
    pub(super) arrival_ms: Option<i64>,
    pub(super) partition_key: Option<&'a str>,
}

impl Batch {
    /// A batch without records; `buffer` is filled from its beginning.
    pub(super) fn new(mut buffer: Vec<u8>, after: Position, record_bytes_max: usize) -> Self {
        buffer.clear();
        Batch {
            buffer,
            after,
            record_bytes_max,
            frames: Vec::new(),
            first: None,
            last: None,
            newest_ms: None,
            records: 0,
            bytes: 0,
        }
    }

    /// An empty batch after the same position, with the same buffer.
    pub(super) fn restarted(self) -> Self {
        Batch::new(self.buffer, self.after, self.record_bytes_max)
    }

    /// Adds the record whose bytes are in the buffer, from `start` to its end.
    pub(super) fn add(&mut self, start: usize, meta: RecordMeta<'_>) -> Result<(), Malformed> {
        let Ok(sequence) = SequenceNumber::try_from(meta.sequence) else {
            return Err(Malformed("a record has no decimal sequence number"));
        };
        if self.last.as_ref().is_some_and(|(last, _)| *last >= sequence) {
            return Err(Malformed("its records are not in the order of their sequence numbers"));
        }
        if self.buffer.len() >= CHUNK_BYTES_MAX {
            return Err(Malformed("it is larger than a chunk may be"));
        }
        self.records += 1;
        self.newest_ms = self.newest_ms.max(meta.arrival_ms);
        self.bytes += (self.buffer.len() - start) as u64;
        // The number of the first record in it that was not read before.
        let unread = match &self.after {
            Position::At { sequence: read, sub } => match sequence.cmp(read) {
                Ordering::Less => u64::MAX,
                Ordering::Equal if mutated!(ResumeAtRecord) => 0,
                Ordering::Equal => sub.saturating_add(1),
                Ordering::Greater => 0,
            },
            _ => 0,
        };
        let frames_before = self.frames.len();
        let last_sub = self.frame(start, meta, unread);
        if self.frames.len() == frames_before {
            self.buffer.truncate(start);
        } else {
            // A separator: this byte belongs to no record.
            self.buffer.push(b'\n');
        }
        if self.first.is_none() {
            self.first = Some(sequence.clone());
        }
        self.last = Some((sequence, last_sub));
        Ok(())
    }

    /// Makes the frames of a record. Returns the number of the last record in it.
    fn frame(&mut self, start: usize, meta: RecordMeta<'_>, unread: u64) -> u64 {
        let record = &self.buffer[start..];
        let offset = |at: usize| u32::try_from(at).expect("a chunk is smaller than 2 GiB");
        let whole = offset(start)..offset(self.buffer.len());
        let frame = |bytes, sub_sequence, partition_key, damage| Frame {
            bytes,
            sequence: meta.sequence.into(),
            sub_sequence,
            arrival_ms: meta.arrival_ms,
            partition_key,
            damage,
        };
        let too_large = |length: usize| (length > self.record_bytes_max).then_some(Damage::TooLarge);
        let own_key = || meta.partition_key.map(Arc::from);
        if !kpl::is_aggregate(record) {
            if unread == 0 {
                self.frames.push(frame(whole, 0, own_key(), too_large(record.len())));
            }
            return 0;
        }
        match kpl::open(record) {
            Ok(opened) => {
                let last = opened.len() as u64 - 1;
                let records = (0..).zip(opened).filter(|(sub, _)| *sub >= unread);
                self.frames.extend(records.map(|(sub, record)| {
                    let kpl::SubRecord { partition_key, data } = record;
                    let damage = too_large(data.len());
                    frame(offset(start + data.start)..offset(start + data.end), sub, Some(partition_key), damage)
                }));
                last
            }
            Err(problem) => {
                if unread == 0 {
                    tracing::debug!(
                        sequence = meta.sequence,
                        ?problem,
                        "cannot open aggregate; keeping it whole as a dead letter"
                    );
                    self.frames.push(frame(whole, 0, own_key(), Some(Damage::BrokenAggregate)));
                }
                0
            }
        }
    }

    /// The number of records of the stream, including those left out.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// The bytes of these records.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the newest record arrived, including those left out.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.newest_ms
    }

    /// The first record, even if it was left out.
    pub(super) fn first(&self) -> Option<&SequenceNumber> {
        self.first.as_ref()
    }

    /// The position after the last record, or where reading began if there is none.
    pub(super) fn through(&self) -> Position {
        let last = self.last.clone().map(|(sequence, sub)| Position::At { sequence, sub });
        // Another consumer may have read further into the last aggregate.
        last.map_or_else(|| self.after.clone(), |last| last.max(self.after.clone()))
    }

    /// The chunk. `now_ms` is the arrival time of records without one of their own.
    pub(super) fn into_chunk(self, stream: Arc<str>, shard: Arc<str>, now_ms: i64) -> Chunk {
        Chunk::new(stream, shard, now_ms, self.buffer, Framing::Records(self.frames))
    }
}

/// A time of the service in milliseconds since 1970, rounded: it is sent as fractional seconds.
pub(super) fn millis(time: &DateTime) -> i64 {
    let rounded = (i64::from(time.subsec_nanos()) + 500_000) / 1_000_000;
    time.secs().saturating_mul(1000).saturating_add(rounded)
}

#[cfg(test)]
#[path = "tests/batch.rs"]
mod tests;
