//! A file of JSON lines as the records of a stream, rendered once in the form of GetRecords answers.
//!
//! Owns: the rendered bytes and which of them an answer takes. All shards share one rendering: shard `k` of `n` has the
//! `k`-th `n`-th of the lines, so that all shards together have each line once a lap. An answer of the first lap is a slice
//! of the rendering; in later laps it is a copy in which the lap's digits are set in each sequence number. Does not own: the
//! calls (`replay`).
//!
//! Limits of an answer: Kinesis's, 10,000 records and 10 MiB of them.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

/// Records of an answer.
const RECORDS_MAX: usize = 10_000;
/// Bytes of these records.
const BYTES_MAX: u64 = 10 << 20;
/// How every sequence number begins: 34 digits. Lap and line follow, in 6 and 16 digits.
const SEQUENCE: &str = "4959033827149025660855969253836157";
/// What stands before a record's lap.
const BEFORE_LAP: usize = r#"{"SequenceNumber":""#.len() + SEQUENCE.len();
/// Digits of a lap.
const LAP_DIGITS: usize = 6;
/// When the first record arrived; each further one did so a millisecond later.
const ARRIVAL_MS: usize = 1_763_000_000_000;

/// The records.
pub(crate) struct Tape {
    rendered: Bytes,
    /// Where each record begins in `rendered`, and the end.
    starts: Vec<usize>,
    /// Bytes of data before each record, and all.
    data: Vec<u64>,
    shards: usize,
    laps: usize,
}

/// A place in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
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
    pub(crate) fn oldest(&self, shard: usize) -> Place {
        Place { shard, lap: 0, line: self.first(shard) }
    }

    /// Behind the shard's last record.
    pub(crate) fn tip(&self, shard: usize) -> Place {
        Place { shard, lap: self.laps, line: self.first(shard) }
    }

    /// The record of this number; `None` if it is none of the shard's.
    pub(crate) fn find(&self, shard: usize, sequence: &str) -> Option<Place> {
        let (lap, line) = sequence.strip_prefix(SEQUENCE)?.split_at_checked(LAP_DIGITS)?;
        let place = Place { shard, lap: lap.parse().ok()?, line: line.parse().ok()? };
        (place.lap < self.laps && (self.first(shard)..self.first(shard + 1)).contains(&place.line)).then_some(place)
    }

    /// The place behind so many more records of the same lap.
    pub(crate) fn behind(&self, place: Place, records: usize) -> Place {
        let line = place.line + records;
        if line >= self.first(place.shard + 1) {
            return Place { lap: place.lap + 1, line: self.first(place.shard), ..place };
        }
        Place { line, ..place }
    }

    /// The records from there on, as many as are asked for and an answer may have: their elements of a JSON list, and the
    /// place behind them.
    pub(crate) fn read(&self, from: Place, limit: usize) -> (Bytes, Place) {
        if from.lap >= self.laps {
            return (Bytes::new(), from);
        }
        let most = (from.line + limit.min(RECORDS_MAX)).min(self.first(from.shard + 1));
        let full = self.data.partition_point(|bytes| *bytes <= self.data[from.line] + BYTES_MAX) - 1;
        // One record goes out however large it is.
        let end = most.min(full.max(from.line + 1)).max(from.line);
        // Without the comma behind the last.
        let (begin, last) = (self.starts[from.line], self.starts[end].saturating_sub(1));
        let elements = self.rendered.slice(begin..last.max(begin));
        let elements = if from.lap == 0 { elements } else { self.in_lap(from, end, &elements) };
        (elements, self.behind(from, end - from.line))
    }

    fn in_lap(&self, from: Place, end: usize, elements: &[u8]) -> Bytes {
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
    fn every_line_comes_once_a_lap_with_growing_sequence_numbers() {
        let lines: String = (0..1000).map(|number| format!("{{\"n\":{number}}}\n")).collect();
        let tape = Tape::new(lines.as_bytes(), 7, 3);
        let mut read = Vec::new();
        for shard in 0..7 {
            let (mut place, mut before) = (tape.oldest(shard), String::new());
            while place != tape.tip(shard) {
                let (elements, next) = tape.read(place, 9);
                let records: Vec<Value> = serde_json::from_slice(&[b"[", &*elements, b"]"].concat()).unwrap();
                assert!((1..=9).contains(&records.len()));
                for record in &records {
                    let sequence = record["SequenceNumber"].as_str().unwrap().to_owned();
                    assert!(sequence > before && sequence.len() == 56);
                    assert!(tape.find(shard, &sequence).is_some());
                    read.push(STANDARD.decode(record["Data"].as_str().unwrap()).unwrap());
                    before = sequence;
                }
                place = next;
            }
            assert!(tape.read(place, 9).0.is_empty());
        }
        assert_eq!((tape.records(), tape.bytes()), (read.len(), read.iter().map(|data| data.len() as u64).sum()));
        read.sort();
        let mut expected: Vec<Vec<u8>> =
            lines.lines().flat_map(|line| std::iter::repeat_n(line.as_bytes().to_vec(), 3)).collect();
        expected.sort();
        assert!(read == expected);
    }

    #[test]
    fn an_answer_is_no_larger_than_kinesis_gives() {
        let lines: String = (0..30).map(|_| format!("\"{}\"\n", "x".repeat(1 << 20))).collect();
        let tape = Tape::new(lines.as_bytes(), 1, 1);
        let (_, next) = tape.read(tape.oldest(0), 10_000);
        assert_eq!(next.line, 9);
    }
}
