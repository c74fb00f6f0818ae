//! A chunk: what one read of one shard returned, as bytes and the positions of records in them.
//!
//! Owns: the padding that the scanner relies on, and how the sequence number of a line follows from its position. Does not
//! own: reading, the content of the records.
//!
//! Limits: a chunk is under 2 GiB, so that a position in it has 31 bits.

use std::ops::Range;
use std::sync::Arc;

use crate::decode::text::PADDING;

/// The most bytes in a chunk.
pub const CHUNK_BYTES_MAX: usize = i32::MAX as usize - PADDING;

/// How a chunk's bytes are divided into records.
#[derive(Debug, Clone)]
pub enum Framing {
    /// One record a line; blank lines are skipped. The sequence number of a record is `base` plus the offset of its first
    /// byte in the chunk.
    Lines {
        /// Sequence number of the chunk's first byte.
        base: u64,
    },
    /// Records with their own sequence numbers. Between any two there is at least one byte that belongs to neither.
    Records(Vec<Frame>),
}

/// One record of a chunk, as its source numbered it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its bytes in the chunk.
    pub bytes: Range<u32>,
    /// Sequence number, decimal digits.
    pub sequence: Box<str>,
    /// Place in its aggregated record; 0 for a plain one.
    pub sub_sequence: u64,
    /// When it arrived in the stream, in milliseconds since 1970; `None` if the source does not know.
    pub arrival_ms: Option<i64>,
    /// Its partition key, if the source has one. Records of an aggregate with the same key share it.
    pub partition_key: Option<Arc<str>>,
    /// Set where the source could not read the record itself.
    pub damage: Option<Damage>,
}

/// What a source found wrong with a record before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It has more bytes than a record may have; the chunk holds its first ones.
    TooLarge,
    /// The compressed file is damaged or cut off here; the chunk holds what could still be read.
    DamagedFile,
    /// It is marked as an aggregate of records, and cannot be opened; the chunk holds all of it.
    BrokenAggregate,
}

/// What one read of one shard returned.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The stream that was read.
    pub stream: Arc<str>,
    /// The shard of it.
    pub shard: Arc<str>,
    /// The arrival time of records without one of their own, in milliseconds since 1970.
    pub arrival_ms: i64,
    /// Set if arrival times are times of files, which may be wrong: the time of reading, in milliseconds since 1970. It counts for a
    /// record whose event is later than the file.
    pub read_ms: Option<i64>,
    framing: Framing,
    /// The bytes, then [`PADDING`] zeros.
    padded: Vec<u8>,
}

impl Chunk {
    /// A chunk of these bytes.
    ///
    /// # Panics
    /// If there are more than [`CHUNK_BYTES_MAX`] bytes, or a frame is outside of them. Both are bugs of the source.
    pub fn new(stream: Arc<str>, shard: Arc<str>, arrival_ms: i64, mut bytes: Vec<u8>, framing: Framing) -> Self {
        assert!(bytes.len() <= CHUNK_BYTES_MAX, "a chunk of {} bytes is too large", bytes.len());
        if let Framing::Records(frames) = &framing {
            let ends: Vec<usize> = frames.iter().map(|frame| frame.bytes.end as usize).collect();
            assert!(
                ends.is_sorted() && ends.last().is_none_or(|end| *end <= bytes.len()),
                "frames are ordered and inside the chunk"
            );
        }
        bytes.reserve_exact(PADDING);
        bytes.resize(bytes.len() + PADDING, 0);
        Chunk { stream, shard, arrival_ms, read_ms: None, framing, padded: bytes }
    }

    /// The bytes as received, without the padding.
    pub fn bytes(&self) -> &[u8] {
        &self.padded[..self.padded.len() - PADDING]
    }

    /// How the bytes are divided into records.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// The chunk's buffer, emptied, to be filled again.
    pub fn into_buffer(self) -> Vec<u8> {
        let mut buffer = self.padded;
        buffer.clear();
        buffer
    }

    pub(crate) fn into_parts(self) -> (Source, Framing, Vec<u8>) {
        let Chunk { stream, shard, arrival_ms, read_ms, framing, padded } = self;
        (Source { stream, shard, arrival_ms, read_ms }, framing, padded)
    }
}

/// Where a chunk's records come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) stream: Arc<str>,
    pub(crate) shard: Arc<str>,
    pub(crate) arrival_ms: i64,
    pub(crate) read_ms: Option<i64>,
}
