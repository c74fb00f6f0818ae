//! Records of an answer become one chunk.
//!
//! Owns: opening aggregates, what is left out because it was read before, what a record that is too large or broken becomes,
//! and the position behind the last one. Does not own: asking for records, or decoding an answer.
//!
//! Every record of the stream moves the position, whatever became of it. The position behind an aggregate is its last
//! record's. Where reading began in the middle of an aggregate (KCL may have committed half of one), its first records are
//! left out; ours are always committed whole.
//!
//! Limits: [`CHUNK_BYTES_MAX`] bytes, which is 200 times the largest answer of Kinesis.

use std::cmp::Ordering;
use std::sync::Arc;

use aws_smithy_types::DateTime;
use checkpoints::{Position, SequenceNumber};
use mutations::mutated;
use pipeline::chunk::{CHUNK_BYTES_MAX, Chunk, Damage, Frame, Framing};

use crate::source::kinesis::kpl;

/// The records of one answer.
#[derive(Debug)]
pub(super) struct Batch {
    /// The bytes so far: the next record's are appended before it is [added](Batch::add).
    pub(super) buffer: Vec<u8>,
    after: Position,
    record_bytes_max: usize,
    frames: Vec<Frame>,
    first: Option<SequenceNumber>,
    /// The last record, and the last record in it.
    last: Option<(SequenceNumber, u64)>,
    records: u64,
    bytes: u64,
}

/// An answer that can't be one: its records are out of order, or have no proper sequence numbers. It is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer makes no sense: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// What is known of a record beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) sequence: &'a str,
    pub(super) arrival_ms: Option<i64>,
    pub(super) partition_key: Option<&'a str>,
}

impl Batch {
    /// No records yet; `buffer` is filled from its beginning.
    pub(super) fn new(mut buffer: Vec<u8>, after: Position, record_bytes_max: usize) -> Self {
        buffer.clear();
        Batch { buffer, after, record_bytes_max, frames: Vec::new(), first: None, last: None, records: 0, bytes: 0 }
    }

    /// A batch that begins again, with the same buffer.
    pub(super) fn again(self) -> Self {
        Batch::new(self.buffer, self.after, self.record_bytes_max)
    }

    /// Adds the record whose bytes are those of the buffer from `start` on.
    pub(super) fn add(&mut self, start: usize, about: About<'_>) -> Result<(), Malformed> {
        let Ok(sequence) = SequenceNumber::try_from(about.sequence) else {
            return Err(Malformed("a record has no decimal sequence number"));
        };
        if self.last.as_ref().is_some_and(|(last, _)| *last >= sequence) {
            return Err(Malformed("its records are not in the order of their sequence numbers"));
        }
        if self.buffer.len() >= CHUNK_BYTES_MAX {
            return Err(Malformed("it is larger than a chunk may be"));
        }
        self.records += 1;
        self.bytes += (self.buffer.len() - start) as u64;
        // The first record that was not read before.
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
        let last_sub = self.frame(start, about, unread);
        if self.frames.len() == frames_before {
            self.buffer.truncate(start);
        } else {
            // A byte that belongs to no record.
            self.buffer.push(b'\n');
        }
        if self.first.is_none() {
            self.first = Some(sequence.clone());
        }
        self.last = Some((sequence, last_sub));
        Ok(())
    }

    /// Makes frames of a record: gives the number of the last record in it.
    fn frame(&mut self, start: usize, about: About<'_>, unread: u64) -> u64 {
        let record = &self.buffer[start..];
        let place = |at: usize| u32::try_from(at).expect("a chunk is smaller than 2 GiB");
        let whole = place(start)..place(self.buffer.len());
        let frame = |bytes, sub_sequence, partition_key, damage| Frame {
            bytes,
            sequence: about.sequence.into(),
            sub_sequence,
            arrival_ms: about.arrival_ms,
            partition_key,
            damage,
        };
        let too_large = |length: usize| (length > self.record_bytes_max).then_some(Damage::TooLarge);
        let own_key = || about.partition_key.map(Arc::from);
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
                    frame(place(start + data.start)..place(start + data.end), sub, Some(partition_key), damage)
                }));
                last
            }
            Err(problem) => {
                if unread == 0 {
                    tracing::debug!(sequence = about.sequence, ?problem, "an aggregate can't be opened");
                    self.frames.push(frame(whole, 0, own_key(), Some(Damage::BrokenAggregate)));
                }
                0
            }
        }
    }

    /// Records of the stream, those left out too.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of these records.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first record, left out or not.
    pub(super) fn first(&self) -> Option<&SequenceNumber> {
        self.first.as_ref()
    }

    /// The position behind the last record; where reading began, if there is none.
    pub(super) fn through(&self) -> Position {
        let last = self.last.clone().map(|(sequence, sub)| Position::At { sequence, sub });
        // What was read before may reach further, where it was not read by us.
        last.map_or_else(|| self.after.clone(), |last| last.max(self.after.clone()))
    }

    /// The chunk. Its records have arrival times of their own; `now_ms` stands for one that the service leaves out.
    pub(super) fn into_chunk(self, stream: Arc<str>, shard: Arc<str>, now_ms: i64) -> Chunk {
        Chunk::new(stream, shard, now_ms, self.buffer, Framing::Records(self.frames))
    }
}

/// A time of the service in milliseconds since 1970, rounded: on the wire it is a fraction of seconds.
pub(super) fn millis(time: &DateTime) -> i64 {
    let rounded = (i64::from(time.subsec_nanos()) + 500_000) / 1_000_000;
    time.secs().saturating_mul(1000).saturating_add(rounded)
}

#[cfg(test)]
#[path = "tests/batch.rs"]
mod tests;
