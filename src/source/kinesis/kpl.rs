//! Aggregates of the Kinesis Producer Library: many records in one.
//!
//! Owns: the format, and when an aggregate counts as broken. Does not own: what becomes of its records (`batch`).
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
//! A record of a stream that begins with the four bytes is taken for an aggregate: no JSON begins so, it is not even UTF-8.
//! If it then can't be opened as a whole, nothing of it is used: it becomes one dead letter with all its bytes. So does one
//! that holds no record at all, since each record of the stream is accounted for. (KCL takes the former for a plain record,
//! and drops the latter.)
//!
//! A record in it counts whatever its hash key is. KCL drops an aggregate that holds a hash key of another shard, which
//! happens when a shard was split while the producer still packed for its parent: those records are lost, since each
//! aggregate is in one shard only. For the same reason keeping them brings none twice.
//!
//! The records' bytes stay where they are: between any two of them there is at least the tag and the length of the second.
//!
//! Limits: 100,000 records an aggregate; 1,024 bytes a partition key (256 characters). What exceeds them is broken.

use std::ops::Range;
use std::sync::Arc;

use md5::{Digest, Md5};

/// What an aggregate begins with.
const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// Bytes of the digest at its end.
const DIGEST: usize = 16;
/// Records of one aggregate at most: what they become in memory is many times their size.
const SUB_RECORDS_MAX: usize = 100_000;
/// Bytes of a partition key at most.
const PARTITION_KEY_BYTES_MAX: usize = 1024;

/// A record of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubRecord {
    pub(super) partition_key: Arc<str>,
    /// Where its bytes are in the aggregate.
    pub(super) data: Range<usize>,
}

/// Why an aggregate can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Cut off, or changed.
    Digest,
    /// Its protobuf is none, or not this message.
    Message,
    /// A record names a partition key that is not there.
    PartitionKey,
    /// No record.
    Empty,
    /// More than the limits.
    TooMuch,
}

/// Whether a record says that it is an aggregate.
pub(super) fn is_aggregate(record: &[u8]) -> bool {
    record.starts_with(&MAGIC)
}

/// The records of an aggregate, at least one.
pub(super) fn open(record: &[u8]) -> Result<Vec<SubRecord>, Broken> {
    let behind_magic = record.strip_prefix(&MAGIC).ok_or(Broken::Message)?;
    let (message, digest) = behind_magic.split_last_chunk::<DIGEST>().ok_or(Broken::Digest)?;
    if Md5::digest(message).as_slice() != digest {
        return Err(Broken::Digest);
    }
    let mut keys: Vec<Arc<str>> = Vec::new();
    let mut hash_keys = 0;
    let mut places: Vec<Place> = Vec::new();
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
                if places.len() == SUB_RECORDS_MAX {
                    return Err(Broken::TooMuch);
                }
                places.push(place(message, range)?);
            }
            (1..=3, _) => return Err(Broken::Message),
            // Of a later version of the format.
            _ => {}
        }
    }
    if places.is_empty() {
        return Err(Broken::Empty);
    }
    // The tables may stand behind the records.
    let opened = places.into_iter().map(|place| {
        let key = usize::try_from(place.key).ok().and_then(|index| keys.get(index)).ok_or(Broken::PartitionKey)?;
        if place.hash_key.is_some_and(|index| index >= hash_keys) {
            return Err(Broken::PartitionKey);
        }
        let data = place.data.start + MAGIC.len()..place.data.end + MAGIC.len();
        Ok(SubRecord { partition_key: Arc::clone(key), data })
    });
    opened.collect()
}

/// A record of the message, before its keys are looked up.
struct Place {
    key: u64,
    hash_key: Option<u64>,
    /// In the message.
    data: Range<usize>,
}

fn place(message: &[u8], range: Range<usize>) -> Result<Place, Broken> {
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
    Ok(Place { key, hash_key, data })
}

/// The value of a protobuf field.
enum Value {
    Number(u64),
    Bytes(Range<usize>),
    /// A number of fixed width, which no field of ours is.
    Fixed,
}

/// The fields of a protobuf message, one after the other. Never reads outside of `bytes`.
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
            1 => self.pass(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken::Message)?;
                Value::Bytes(self.pass(length)?)
            }
            5 => self.pass(4).map(|_| Value::Fixed)?,
            // Groups, which this format never had, and what is no type.
            _ => return Err(Broken::Message),
        };
        if tag >> 3 == 0 { Err(Broken::Message) } else { Ok(Some((tag >> 3, value))) }
    }

    fn pass(&mut self, length: usize) -> Result<Range<usize>, Broken> {
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
