//! One shard: its log of records, its limits, which records can be read, and how it ages.
//!
//! Owns: a record's sequence number, the records of an answer, and trimming. Does not own: which shard a record goes to
//! (`stream`), iterators (`read`), creating children (`reshard`).
//!
//! A place in the log is an *ordinal*: the number of earlier records. Ordinals are never used again, so a place stays
//! valid when older records are trimmed. The record of ordinal `n` has index `n + 1` in its sequence number.

use std::collections::VecDeque;

use bytes::Bytes;

use super::api::{Child, Put, Record, ShardInfo};
use super::limits::Window;
use super::sequence::SequenceNumber;

/// Bytes of one GetRecords answer.
const ANSWER_BYTES_MAX: usize = 10 << 20;
const READS_A_SECOND: u64 = 5;
const READ_BYTES_A_SECOND: u64 = 2 << 20;
const WRITES_A_SECOND: u64 = 1000;
const WRITTEN_BYTES_A_SECOND: u64 = 1 << 20;

/// The name of a shard by its number.
pub(super) fn shard_name(number: u32) -> String {
    format!("shardId-{number:012}")
}

#[derive(Debug, Clone)]
pub(super) struct Shard {
    pub(super) number: u32,
    pub(super) parents: Vec<u32>,
    pub(super) hash_keys: (u128, u128),
    pub(super) created_ms: i64,
    pub(super) created_s: u64,
    pub(super) closed_ms: Option<i64>,
    pub(super) children: Vec<Child>,
    pub(super) writes: Window,
    pub(super) reads: Window,
    /// GetRecords answers so far that could contain a record.
    pub(super) answers: u64,
    first: u64,
    log: VecDeque<Stored>,
}

#[derive(Debug, Clone)]
struct Stored {
    record: Record,
    visible_ms: i64,
}

impl Stored {
    fn size(&self) -> usize {
        self.record.data.len() + self.record.partition_key.len()
    }
}

/// What is at a place of the log.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
    /// The place after the records.
    pub(super) next: u64,
    pub(super) millis_behind_latest: i64,
    /// The shard is closed, and there are no more records.
    pub(super) is_end: bool,
}

impl Shard {
    /// A shard that opens at `now_ms`, or shortly after its parents did.
    pub(super) fn open(number: u32, parents: &[&Shard], hash_keys: (u128, u128), now_ms: i64) -> Self {
        let created_ms = parents.iter().map(|parent| parent.created_ms + 1).fold(now_ms, i64::max);
        let created_s = parents.iter().map(|parent| parent.created_s + 1).fold(seconds(created_ms), u64::max);
        Shard {
            number,
            parents: parents.iter().map(|parent| parent.number).collect(),
            hash_keys,
            created_ms,
            created_s,
            closed_ms: None,
            children: Vec::new(),
            writes: Window::new(WRITES_A_SECOND, WRITTEN_BYTES_A_SECOND),
            reads: Window::new(READS_A_SECOND, READ_BYTES_A_SECOND),
            answers: 0,
            first: 0,
            log: VecDeque::new(),
        }
    }

    pub(super) fn name(&self) -> String {
        shard_name(self.number)
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed_ms.is_none()
    }

    pub(super) fn owns(&self, hash_key: u128) -> bool {
        self.is_open() && (self.hash_keys.0..=self.hash_keys.1).contains(&hash_key)
    }

    /// All records have greater sequence numbers.
    pub(super) fn starting(&self) -> SequenceNumber {
        self.sequence_at(0, self.created_ms)
    }

    /// A number from that of the record before the ordinal up to, not including, that of the record at it.
    pub(super) fn sequence_at(&self, ordinal: u64, now_ms: i64) -> SequenceNumber {
        SequenceNumber::new(self.created_s, self.number, ordinal, seconds(now_ms))
    }

    /// Whether the number belongs to this shard, with or without a record.
    pub(super) fn issued(&self, sequence: SequenceNumber) -> bool {
        sequence.shard() == self.number && sequence.created_s() == self.created_s
    }

    pub(super) fn put(&mut self, put: Put, now_ms: i64, visible_after_ms: u32) -> SequenceNumber {
        let newest_ms = self.log.back().map_or(self.created_ms, |newest| newest.record.arrived_ms);
        let arrived_ms = now_ms.max(newest_ms);
        let sequence = self.sequence_at(self.end() + 1, arrived_ms);
        let Put { partition_key, explicit_hash_key: _, data } = put;
        self.log.push_back(Stored {
            record: Record { sequence, arrived_ms, partition_key, data: Bytes::clone(&data) },
            visible_ms: now_ms + i64::from(visible_after_ms),
        });
        sequence
    }

    /// The place after the newest record.
    pub(super) fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// The place of the oldest record.
    pub(super) fn beginning(&self) -> u64 {
        self.first
    }

    /// The place of the first record for which `is_before` is false.
    pub(super) fn place(&self, is_before: impl Fn(&Record) -> bool) -> u64 {
        self.first + self.log.partition_point(|stored| is_before(&stored.record)) as u64
    }

    /// When the record at the place can be read; `None` if there is none.
    pub(super) fn visible_ms(&self, ordinal: u64) -> Option<i64> {
        self.stored(ordinal).map(|stored| stored.visible_ms)
    }

    fn stored(&self, ordinal: u64) -> Option<&Stored> {
        self.log.get(usize::try_from(ordinal.checked_sub(self.first)?).ok()?)
    }

    /// What can be read at `now_ms` from a place on. Records come in order: one that cannot be read yet hides all later ones.
    pub(super) fn read(&self, from: u64, records_max: usize, now_ms: i64) -> Page {
        let from = from.max(self.first);
        let (mut records, mut bytes, mut next) = (Vec::new(), 0, from);
        while let Some(stored) = self.stored(next).filter(|stored| stored.visible_ms <= now_ms) {
            let fits = records.is_empty() || bytes + stored.size() <= ANSWER_BYTES_MAX;
            if records.len() == records_max || !fits {
                break;
            }
            bytes += stored.size();
            records.push(stored.record.clone());
            next += 1;
        }
        let more = self.stored(next).filter(|stored| stored.visible_ms <= now_ms);
        let millis_behind_latest = more.map_or(0, |ahead| {
            let reached = records.last().unwrap_or(&ahead.record);
            (now_ms - reached.arrived_ms).max(1)
        });
        let is_end = !self.is_open() && next == self.end();
        Page { records, bytes, next, millis_behind_latest, is_end }
    }

    /// Trims records that arrived before `horizon_ms`. Returns whether the shard itself is gone.
    pub(super) fn trim(&mut self, horizon_ms: i64) -> bool {
        while self.log.front().is_some_and(|oldest| oldest.record.arrived_ms < horizon_ms) {
            self.log.pop_front();
            self.first += 1;
        }
        self.closed_ms.is_some_and(|closed_ms| closed_ms < horizon_ms)
    }

    pub(super) fn info(&self) -> ShardInfo {
        ShardInfo {
            shard: self.name(),
            parent: self.parents.first().copied().map(shard_name),
            adjacent_parent: self.parents.get(1).copied().map(shard_name),
            hash_keys: self.hash_keys,
            starting: self.starting(),
            ending: self
                .closed_ms
                .map(|closed_ms| SequenceNumber::end_of(self.created_s, self.number, seconds(closed_ms))),
        }
    }

    pub(super) fn as_child(&self) -> Child {
        Child {
            shard: self.name(),
            parents: self.parents.iter().copied().map(shard_name).collect(),
            hash_keys: self.hash_keys,
        }
    }
}

fn seconds(at_ms: i64) -> u64 {
    u64::try_from(at_ms / 1000).unwrap_or(0)
}
