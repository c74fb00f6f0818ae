//! Raw objects as the shard of a replay: the records that were received, with their first identities.
//!
//! Owns: reading the objects of a slice one after the other, and what its positions mean. Does not own: which objects a slice has (`replay`),
//! where an object has identities (`text::identified`).
//!
//! Each chunk has records of one stream and shard, which are those of their first reading and not those of the replay. A raw line is one
//! document. So with the same definitions a record becomes the same row, or the same dead letter, as when it was first read, except:
//!
//! - A dead letter has no partition key, since raw lines have none.
//! - Line ends inside a document are spaces in its raw line. `rawData` of its dead letter has spaces, and so does a text that was refused because of a
//!   line end in it.
//! - The same is true of a packed record: gzip data that has a byte like a line end is damaged in its raw line.
//! - A document that was packed inside another packed record is unpacked.
//!
//! A position is the number of an object in the slice, from 1, · 10¹² + an offset in its text, and the number of groups of the piece there: see
//! `text::identified`.
//!
//! Memory beside the chunk: one piece, and at most 12 MiB of objects that were read ahead.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{Position, ShardId};
use tokio::task::JoinHandle;

use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::source::text::complete::next_of;
use crate::source::text::identified::{Groups, IdentifiedText, Step, groups_of};
use crate::source::text::members::{self, FIRST_BYTES};
use crate::source::{Read, ShardReader, SourceError};

/// Bytes of one request.
const PART_BYTES: u64 = 2 << 20;
/// Objects whose first parts are requested ahead.
const AHEAD: usize = 4;

/// Whether a raw object has the identities of its lines; `None` if there is no such object. Reads its first bytes only, so an object whose
/// later members are damaged is found when it is read.
///
/// # Errors
/// The lake fails.
pub async fn has_identities(lake: &dyn ObjectStore, key: &ObjectKey) -> Result<Option<bool>, LakeError> {
    Ok(lake.get_range(key, 0..FIRST_BYTES).await?.map(|first| members::has_identities(&first)))
}

/// How many of a slice's objects are read to their ends at a position.
pub fn objects_before(position: &Position) -> u64 {
    match position {
        Position::End => u64::MAX,
        position => next_of(position).map_or(0, |(number, _)| number - 1),
    }
}

/// A part that is being read. It ends when it is dropped.
struct Fetch(JoinHandle<Result<Option<Bytes>, LakeError>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The object that is being read.
struct Open {
    text: IdentifiedText,
    /// Offset of the next part.
    at: u64,
    next: Option<Fetch>,
    has_ended: bool,
}

/// A reader of the raw objects of a slice.
pub struct RawSliceReader {
    lake: Arc<dyn ObjectStore>,
    slice: ShardId,
    objects: Vec<ObjectKey>,
    record_bytes_max: usize,
    /// The object that is read, from 1; where reading it continues, and how many groups of the piece there were read.
    number: u64,
    offset: u64,
    groups_read: u64,
    open: Option<Open>,
    groups: Option<Groups>,
    /// First parts of the next objects, and the number of the first of these.
    ahead: VecDeque<Fetch>,
    ahead_from: u64,
    /// Bytes of objects that were read and not reported.
    source_bytes: u64,
}

impl RawSliceReader {
    /// Opens a slice of these objects after a position. `record_bytes_max`: bytes that a record may have.
    ///
    /// # Errors
    /// The slice has no such position.
    pub fn open(
        lake: Arc<dyn ObjectStore>,
        slice: ShardId,
        objects: Vec<ObjectKey>,
        after: &Position,
        record_bytes_max: usize,
    ) -> Result<Self, SourceError> {
        let Some((number, offset)) = next_of(after) else {
            let (place, problem) = (slice.to_string(), format!("{after} is not a valid position in raw objects"));
            return Err(SourceError::Unreadable { place, problem });
        };
        Ok(RawSliceReader {
            lake,
            slice,
            objects,
            record_bytes_max,
            number,
            offset,
            groups_read: groups_of(after),
            open: None,
            groups: None,
            ahead: VecDeque::new(),
            ahead_from: number,
            source_bytes: 0,
        })
    }

    fn object(&self, number: u64) -> Option<&ObjectKey> {
        self.objects.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    fn unreadable(&self, problem: &str) -> SourceError {
        let object = self.object(self.number).map_or("", ObjectKey::as_str);
        SourceError::Unreadable {
            place: format!("{object} of {}", self.slice),
            problem: format!("{problem}; plan again with `--prefer stream`, if the stream still has its records"),
        }
    }

    /// Begins to read a part of an object.
    fn fetch(&self, number: u64, at: u64) -> Option<Fetch> {
        let (lake, key) = (Arc::clone(&self.lake), self.object(number)?.clone());
        Some(Fetch(tokio::spawn(async move { lake.get_range(&key, at..at + PART_BYTES).await })))
    }

    /// Requests first parts of the next objects.
    fn fetch_ahead(&mut self) {
        while self.ahead.len() < AHEAD {
            let Some(fetch) = self.fetch(self.ahead_from + self.ahead.len() as u64, 0) else { break };
            self.ahead.push_back(fetch);
        }
    }

    /// The bytes of a part.
    async fn received(&self, mut fetch: Fetch) -> Result<Bytes, SourceError> {
        let place = || self.slice.to_string();
        match (&mut fetch.0).await {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => {
                Err(self.unreadable("the object is gone: it was replaced or removed since the replay was planned"))
            }
            Ok(Err(error)) if error.is_retryable() => {
                Err(SourceError::Unavailable { place: place(), problem: error.to_string() })
            }
            Ok(Err(error)) => Err(SourceError::Unreadable { place: place(), problem: error.to_string() }),
            Err(error) => Err(SourceError::Unavailable { place: place(), problem: error.to_string() }),
        }
    }

    /// Opens the object that is next, or gives the next part to the one that is open. After an error the same part is next.
    async fn give_next(&mut self) -> Result<(), SourceError> {
        let (at, fetch) = match &mut self.open {
            Some(open) => (open.at, open.next.take()),
            None => {
                debug_assert!(self.ahead.is_empty() || self.ahead_from == self.number);
                self.ahead_from = self.number + 1;
                (0, self.ahead.pop_front())
            }
        };
        let Some(fetch) = fetch.or_else(|| self.fetch(self.number, at)) else { return Ok(()) };
        let received = self.received(fetch).await;
        if received.is_err() && self.open.is_none() {
            // The object itself is requested again; those after it are as they were.
            self.ahead.clear();
            self.ahead_from = self.number;
        }
        let bytes = received?;
        let read = bytes.len() as u64;
        self.source_bytes += read;
        let mut open = self.open.take().unwrap_or_else(|| Open {
            text: IdentifiedText::new(self.offset, self.record_bytes_max),
            at: 0,
            next: None,
            has_ended: false,
        });
        open.text.give(bytes);
        open.at += read;
        open.has_ended = read < PART_BYTES;
        if open.has_ended {
            open.text.end();
        } else {
            open.next = self.fetch(self.number, open.at);
        }
        self.open = Some(open);
        self.fetch_ahead();
        Ok(())
    }

    /// The next group as a chunk, if one is at hand.
    fn next_group(&mut self) -> Option<Read> {
        let groups = self.groups.as_mut()?;
        let Some((chunk, through)) = groups.next() else {
            self.groups = None;
            return None;
        };
        (self.offset, self.groups_read) = groups.at();
        Some(Read::Chunk { chunk, through, source_bytes: std::mem::take(&mut self.source_bytes) })
    }
}

#[async_trait]
impl ShardReader for RawSliceReader {
    async fn read(&mut self, _bytes: usize, _buffer: Vec<u8>) -> Result<Read, SourceError> {
        loop {
            if let Some(read) = self.next_group() {
                return Ok(read);
            }
            if self.object(self.number).is_none() {
                return Ok(Read::End { children: Vec::new() });
            }
            let step = self.open.as_mut().map_or(Step::NeedsBytes, |open| open.text.step());
            match step {
                Step::Busy => tokio::task::yield_now().await,
                Step::NeedsBytes => self.give_next().await?,
                Step::Piece(piece) => {
                    let groups_read = std::mem::take(&mut self.groups_read);
                    self.groups = Some(piece.into_groups(self.number, groups_read));
                }
                Step::Ended => {
                    self.open = None;
                    (self.number, self.offset, self.groups_read) = (self.number + 1, 0, 0);
                }
                Step::Stopped { problem, .. } => return Err(self.unreadable(&problem)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
