//! A file of JSON lines as the records of a stream, rendered once in the form of GetRecords responses.
//!
//! Owns: the rendered bytes, and which of them a response takes. All shards share one rendering. The lines are divided into one part
//! for each shard, so that all shards together have each line once in each lap. A response of the first lap is a slice of the
//! rendering; in later laps it is a copy with the digits of the lap in each sequence number. Does not own: the calls (`replay`).
//!
//! The limits of a response are those of Kinesis: 10,000 records and 10 MiB.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

/// The maximal number of records in a response.
const RECORDS_MAX: usize = 10_000;
/// The maximal bytes of these records.
const BYTES_MAX: u64 = 10 << 20;
/// The first 34 digits of every sequence number. Lap and line follow, in 6 and 16 digits.
const SEQUENCE: &str = "4959033827149025660855969253836157";
/// The number of bytes before the lap of a record.
const BEFORE_LAP: usize = r#"{"SequenceNumber":""#.len() + SEQUENCE.len();
/// The digits of a lap.
const LAP_DIGITS: usize = 6;
/// When the first record arrived. Each further one arrived a millisecond later.
const ARRIVAL_MS: usize = 1_763_000_000_000;

/// The records.
pub(crate) struct Tape {
    rendered: Bytes,
    /// Where each record begins in `rendered`, and where the last one ends.
    starts: Vec<usize>,
    /// The bytes of data before each record, and of all records.
    data: Vec<u64>,
    shards: usize,
    laps: usize,
}

/// A position in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    pub(crate) shard: usize,
    pub(crate) lap: usize,
    /// The next record, counted over all lines.
    pub(crate) line: usize,
}

impl Tape {
    pub(crate) fn new(lines: &[u8], shards: usize, laps: usize) -> Self {
        let mut rendered = String::with_capacity(lines.len() / 2 * 3);
        let (mut starts, mut data, mut bytes) = (vec![0], vec![0], 0);
        for (number, line) in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let arrival = ARRIVAL_MS + number;
            let _ = write!(
                rendered,
                r#"{{"SequenceNumber":"{SEQUENCE}{:06}{number:016}","ApproximateArrivalTimestamp":{}.{:03},"Data":""#,
                0,
                arrival / 1000,
                arrival % 1000
            );
            STANDARD.encode_string(line, &mut rendered);
            let _ = write!(rendered, r#"","PartitionKey":"{:08x}"}},"#, number.wrapping_mul(0x9e37_79b1) & 0xffff_ffff);
            bytes += line.len() as u64;
            starts.push(rendered.len());
            data.push(bytes);
        }
        Tape { rendered: rendered.into(), starts, data, shards, laps }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// Records of all shards, in all laps.
    pub(crate) fn records(&self) -> usize {
        self.lines() * self.laps
    }

    /// Bytes of their data.
    pub(crate) fn bytes(&self) -> u64 {
        self.data.last().copied().unwrap_or(0) * self.laps as u64
    }

    fn lines(&self) -> usize {
        self.starts.len() - 1
    }

    /// The first line of a shard; of the one behind the last, the end.
    fn first(&self, shard: usize) -> usize {
        self.lines() * shard / self.shards
    }

    /// The shard's oldest record.
    pub(crate) fn oldest(&self, shard: usize) -> StreamPosition {
        StreamPosition { shard, lap: 0, line: self.first(shard) }
    }

    /// After the last record of the shard.
    pub(crate) fn tip(&self, shard: usize) -> StreamPosition {
        StreamPosition { shard, lap: self.laps, line: self.first(shard) }
    }

    /// The record of this sequence number. `None` if the shard does not have it.
    pub(crate) fn find(&self, shard: usize, sequence: &str) -> Option<StreamPosition> {
        let (lap, line) = sequence.strip_prefix(SEQUENCE)?.split_at_checked(LAP_DIGITS)?;
        let position = StreamPosition { shard, lap: lap.parse().ok()?, line: line.parse().ok()? };
        (position.lap < self.laps && (self.first(shard)..self.first(shard + 1)).contains(&position.line))
            .then_some(position)
    }

    /// The position this many records later in the same lap.
    pub(crate) fn after(&self, position: StreamPosition, records: usize) -> StreamPosition {
        let line = position.line + records;
        if line >= self.first(position.shard + 1) {
            return StreamPosition { lap: position.lap + 1, line: self.first(position.shard), ..position };
        }
        StreamPosition { line, ..position }
    }

    /// The records from there on, within the requested limit and those of a response: their elements of a JSON list, and the
    /// position after them.
    pub(crate) fn read(&self, from: StreamPosition, limit: usize) -> (Bytes, StreamPosition) {
        if from.lap >= self.laps {
            return (Bytes::new(), from);
        }
        let most = (from.line + limit.min(RECORDS_MAX)).min(self.first(from.shard + 1));
        let full = self.data.partition_point(|bytes| *bytes <= self.data[from.line] + BYTES_MAX) - 1;
        // At least one record is sent, however large it is.
        let end = most.min(full.max(from.line + 1)).max(from.line);
        // Without the comma after the last record.
        let (begin, last) = (self.starts[from.line], self.starts[end].saturating_sub(1));
        let elements = self.rendered.slice(begin..last.max(begin));
        let elements = if from.lap == 0 { elements } else { self.in_lap(from, end, &elements) };
        (elements, self.after(from, end - from.line))
    }

    fn in_lap(&self, from: StreamPosition, end: usize, elements: &[u8]) -> Bytes {
        let mut elements = BytesMut::from(elements);
        let lap = format!("{:06}", from.lap);
        for start in &self.starts[from.line..end] {
            let at = start - self.starts[from.line] + BEFORE_LAP;
            elements[at..at + LAP_DIGITS].copy_from_slice(lap.as_bytes());
        }
        elements.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_line_is_read_once_in_each_lap_with_increasing_sequence_numbers() {
        let lines: String = (0..1000).map(|number| format!("{{\"n\":{number}}}\n")).collect();
        let tape = Tape::new(lines.as_bytes(), 7, 3);
        let mut read = Vec::new();
        for shard in 0..7 {
            let (mut position, mut before) = (tape.oldest(shard), String::new());
            while position != tape.tip(shard) {
                let (elements, next) = tape.read(position, 9);
                let records: Vec<Value> = serde_json::from_slice(&[b"[", &*elements, b"]"].concat()).unwrap();
                assert!((1..=9).contains(&records.len()));
                for record in &records {
                    let sequence = record["SequenceNumber"].as_str().unwrap().to_owned();
                    assert!(sequence > before && sequence.len() == 56);
                    assert!(tape.find(shard, &sequence).is_some());
                    read.push(STANDARD.decode(record["Data"].as_str().unwrap()).unwrap());
                    before = sequence;
                }
                position = next;
            }
            assert!(tape.read(position, 9).0.is_empty());
        }
        assert_eq!((tape.records(), tape.bytes()), (read.len(), read.iter().map(|data| data.len() as u64).sum()));
        read.sort();
        let mut expected: Vec<Vec<u8>> =
            lines.lines().flat_map(|line| std::iter::repeat_n(line.as_bytes().to_vec(), 3)).collect();
        expected.sort();
        assert!(read == expected);
    }

    #[test]
    fn a_response_obeys_the_limits_of_kinesis() {
        let lines: String = (0..30).map(|_| format!("\"{}\"\n", "x".repeat(1 << 20))).collect();
        let tape = Tape::new(lines.as_bytes(), 1, 1);
        let (_, next) = tape.read(tape.oldest(0), 10_000);
        assert_eq!(next.line, 9);
    }
}
