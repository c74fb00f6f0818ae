//! Aggregates of the Kinesis Producer Library: many records in one.
//!
//! Owns: the format, and when an aggregate counts as broken. Does not own: what its records become (`batch`).
//!
//! ```text
//! F3 89 9A C2 | AggregatedRecord, protobuf | MD5 of the protobuf, 16 bytes
//!
//! AggregatedRecord { partition_key_table = 1: repeated string, explicit_hash_key_table = 2: repeated string,
//!                    records = 3: repeated Record }
//! Record           { partition_key_index = 1: uint64, explicit_hash_key_index = 2: uint64, optional,
//!                    data = 3: bytes, tags = 4: repeated Tag }
//! ```
//!
//! A record of a stream that begins with the four bytes counts as an aggregate: no JSON begins with them, and they are not valid
//! UTF-8. If the aggregate cannot be opened as a whole, none of it is used, and it becomes one dead letter with all its bytes. The
//! same is done with an aggregate that has no record, since each record of the stream must be accounted for. (KCL treats the first
//! as a plain record, and drops the second.)
//!
//! A record in an aggregate is kept whatever its hash key is. KCL drops an aggregate that has a hash key of another shard. That
//! happens when a shard was split while the producer still packed records for the parent. These records are lost with KCL, because
//! each aggregate is in one shard only. For the same reason keeping them duplicates none.
//!
//! The records' bytes stay where they are: between any two of them there is at least the tag and the length of the second.
//!
//! Limits: 100,000 records for each aggregate; 1,024 bytes for each partition key (256 characters). An aggregate that exceeds them
//! is broken.

use std::ops::Range;
use std::sync::Arc;

use md5::{Digest, Md5};

/// The first bytes of an aggregate.
const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// The bytes of the digest at its end.
const DIGEST: usize = 16;
/// The most records of one aggregate: in memory they take many times their size.
const SUB_RECORDS_MAX: usize = 100_000;
/// The most bytes of a partition key.
const PARTITION_KEY_BYTES_MAX: usize = 1024;

/// A record of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubRecord {
    pub(super) partition_key: Arc<str>,
    /// The position of its bytes in the aggregate.
    pub(super) data: Range<usize>,
}

/// Why an aggregate cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is truncated, or was changed.
    Digest,
    /// It is not valid protobuf, or not this message.
    Message,
    /// A record refers to a partition key that does not exist.
    PartitionKey,
    /// It has no record.
    Empty,
    /// It exceeds the limits.
    TooMuch,
}

/// Whether a record begins as an aggregate does.
pub(super) fn is_aggregate(record: &[u8]) -> bool {
    record.starts_with(&MAGIC)
}

/// The records of an aggregate, at least one.
pub(super) fn open(record: &[u8]) -> Result<Vec<SubRecord>, Broken> {
    let after_magic = record.strip_prefix(&MAGIC).ok_or(Broken::Message)?;
    let (message, digest) = after_magic.split_last_chunk::<DIGEST>().ok_or(Broken::Digest)?;
    if Md5::digest(message).as_slice() != digest {
        return Err(Broken::Digest);
    }
    let mut keys: Vec<Arc<str>> = Vec::new();
    let mut hash_keys = 0;
    let mut entries: Vec<Entry> = Vec::new();
    let mut fields = Fields { bytes: message, at: 0 };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(range)) => {
                if range.len() > PARTITION_KEY_BYTES_MAX {
                    return Err(Broken::TooMuch);
                }
                let key = std::str::from_utf8(&message[range]).map_err(|_| Broken::Message)?;
                keys.push(key.into());
            }
            (2, Value::Bytes(_)) => hash_keys += 1,
            (3, Value::Bytes(range)) => {
                if entries.len() == SUB_RECORDS_MAX {
                    return Err(Broken::TooMuch);
                }
                entries.push(entry(message, range)?);
            }
            (1..=3, _) => return Err(Broken::Message),
            // A field of a later version of the format.
            _ => {}
        }
    }
    if entries.is_empty() {
        return Err(Broken::Empty);
    }
    // The tables may come after the records.
    let opened = entries.into_iter().map(|entry| {
        let key = usize::try_from(entry.key).ok().and_then(|index| keys.get(index)).ok_or(Broken::PartitionKey)?;
        if entry.hash_key.is_some_and(|index| index >= hash_keys) {
            return Err(Broken::PartitionKey);
        }
        let data = entry.data.start + MAGIC.len()..entry.data.end + MAGIC.len();
        Ok(SubRecord { partition_key: Arc::clone(key), data })
    });
    opened.collect()
}

/// A record of the message, before its keys are resolved.
struct Entry {
    key: u64,
    hash_key: Option<u64>,
    /// Position in the message.
    data: Range<usize>,
}

fn entry(message: &[u8], range: Range<usize>) -> Result<Entry, Broken> {
    let (mut key, mut hash_key, mut data) = (None, None, None);
    let mut fields = Fields { bytes: &message[..range.end], at: range.start };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Number(index)) => key = Some(index),
            (2, Value::Number(index)) => hash_key = Some(index),
            (3, Value::Bytes(bytes)) => data = Some(bytes),
            (4, Value::Bytes(_)) => {}
            (1..=4, _) => return Err(Broken::Message),
            _ => {}
        }
    }
    let (Some(key), Some(data)) = (key, data) else { return Err(Broken::Message) };
    Ok(Entry { key, hash_key, data })
}

/// The value of a protobuf field.
enum Value {
    Number(u64),
    Bytes(Range<usize>),
    /// A number of fixed width, which no known field has.
    Fixed,
}

/// The fields of a protobuf message, one by one. Never reads outside `bytes`.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn next(&mut self) -> Result<Option<(u64, Value)>, Broken> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken::Message)?;
                Value::Bytes(self.skip(length)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            // Groups, which this format never had, and types that do not exist.
            _ => return Err(Broken::Message),
        };
        if tag >> 3 == 0 { Err(Broken::Message) } else { Ok(Some((tag >> 3, value))) }
    }

    fn skip(&mut self, length: usize) -> Result<Range<usize>, Broken> {
        if length > self.bytes.len() - self.at {
            return Err(Broken::Message);
        }
        let range = self.at..self.at + length;
        self.at = range.end;
        Ok(range)
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(Broken::Message)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Broken::Message);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Broken::Message)
    }
}

#[cfg(test)]
#[path = "tests/kpl.rs"]
pub(super) mod tests;
