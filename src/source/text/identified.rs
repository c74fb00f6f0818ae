//! The text of a raw object whose lines have identities: cut into pieces, and each piece into groups of one shard.
//!
//! Owns: what a piece and a group are, by which positions count, and where an object has no identities. Does not own: the members of an
//! object (`members`), the form of identities (`pipeline::line_objects::identities`), reading bytes.
//!
//! Lines of one shard are a *group*, and become one chunk with the first identities of the records. A *piece* is as many lines as have a
//! mebibyte, or 16,384 of them; its groups are in the order of their first lines. Where a piece begins and ends depends only on the text
//! and on where the piece before it ended. So the position of a chunk is: everything before its piece, and the number of its group. These
//! limits are a part of that: with others, a position that was stored would mean other records.
//!
//! A member without identities, or with damaged ones, ends what can be read here. What follows is read otherwise, or is an error: that is up
//! to the source. It is the same place whenever the object is read.
//!
//! Nothing here waits: whoever reads gives the bytes as they come. Memory: what was given, a piece, and one line of at most 10 MiB, or of as
//! many bytes as a record may have. Of a longer line, so much is kept, and it is damaged.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use checkpoints::Position;
use pipeline::chunk::{Chunk, Damage, Frame, Framing};
use pipeline::documents::Documents;
use pipeline::line_objects::identities::{Identity, IdentityReader, Line};

use crate::source::text::complete::{OBJECT, position_before};
use crate::source::text::members::{Decoded, Members};

/// Bytes of lines after which a piece ends.
const PIECE_BYTES: u64 = 1 << 20;
/// Lines after which it ends, too.
const PIECE_LINES: usize = 16_384;
/// Bytes of text that one step decodes.
const STEP_BYTES: usize = 256 << 10;
/// Bytes that a line may have, if records may not have more: those of a record of Kinesis.
const LINE_BYTES: usize = 10 << 20;

/// What one step came to.
#[derive(Debug)]
pub(in crate::source) enum Step {
    /// There is more to do.
    Busy,
    /// More bytes of the object are needed, or its end.
    NeedsBytes,
    /// A piece is complete.
    Piece(Piece),
    /// Everything was read.
    Ended,
    /// From this offset of the text on, there are no identities.
    Stopped { offset: u64, problem: String },
}

/// Lines that follow each other, by shard.
#[derive(Debug, Default)]
pub(in crate::source) struct Piece {
    begin: u64,
    end: u64,
    lines: usize,
    groups: Vec<Group>,
    numbers: HashMap<GroupKey, usize>,
}

type GroupKey = (Arc<str>, Arc<str>, Option<i64>, Documents);

#[derive(Debug)]
struct Group {
    key: GroupKey,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
}

/// The groups of a piece that were not returned yet.
#[derive(Debug)]
pub(in crate::source) struct Groups {
    number: u64,
    begin: u64,
    end: u64,
    /// How many were returned.
    returned: u64,
    left: VecDeque<Group>,
}

/// How many groups of the piece after a position were read.
pub(in crate::source) fn groups_of(position: &Position) -> u64 {
    match position {
        Position::At { sub, .. } => *sub,
        _ => 0,
    }
}

impl Piece {
    /// Its groups after those that were read. `number`: that of the object.
    pub(in crate::source) fn into_groups(self, number: u64, read: u64) -> Groups {
        let skipped = usize::try_from(read).unwrap_or(usize::MAX).min(self.groups.len());
        let left = self.groups.into_iter().skip(skipped).collect();
        Groups { number, begin: self.begin, end: self.end, returned: skipped as u64, left }
    }

    fn is_full(&self) -> bool {
        self.end - self.begin >= PIECE_BYTES || self.lines >= PIECE_LINES
    }

    fn add(&mut self, identity: Identity, line: &[u8], is_cut: bool) {
        let Identity { stream, shard, sequence, sub_sequence, arrival_ms, read_ms, line: what } = identity;
        let documents = if let Line::Packed(documents) = what { documents } else { Documents::ONE };
        let damage = match what {
            Line::Damaged(damage) => Some(damage),
            _ => is_cut.then_some(Damage::TooLarge),
        };
        let key = (stream, shard, read_ms, documents);
        let is_of = |group: &Group| Arc::ptr_eq(&group.key.1, &key.1) && group.key == key;
        // Most lines follow one of the same shard.
        let last = self.groups.last().filter(|group| is_of(group)).map(|_| self.groups.len() - 1);
        let number = last.or_else(|| self.numbers.get(&key).copied()).unwrap_or_else(|| {
            let number = self.groups.len();
            self.numbers.insert(key.clone(), number);
            self.groups.push(Group { key, bytes: Vec::new(), frames: Vec::new() });
            number
        });
        let Group { bytes, frames, .. } = &mut self.groups[number];
        let place = |at: usize| u32::try_from(at).expect("a piece is smaller than a chunk may be");
        let begin = place(bytes.len());
        bytes.extend_from_slice(line);
        let arrival_ms = Some(arrival_ms);
        let bytes_of = begin..place(bytes.len());
        frames.push(Frame { bytes: bytes_of, sequence, sub_sequence, arrival_ms, partition_key: None, damage });
        bytes.push(b'\n');
        self.lines += 1;
    }
}

impl Groups {
    /// The next group as a chunk, and the position after it.
    pub(in crate::source) fn next(&mut self) -> Option<(Chunk, Position)> {
        let Group { key: (stream, shard, read_ms, documents), bytes, frames } = self.left.pop_front()?;
        self.returned += 1;
        let through = if self.left.is_empty() {
            position_before(self.number, self.end)
        } else {
            match position_before(self.number, self.begin) {
                Position::At { sequence, .. } => Position::At { sequence, sub: self.returned },
                other => other,
            }
        };
        let chunk = Chunk::new(stream, shard, 0, bytes, Framing::Records(frames));
        let mut chunk = chunk.with_documents(documents);
        (chunk.read_ms, chunk.is_past) = (read_ms, true);
        Some((chunk, through))
    }

    /// Where reading continues: the offset in the text, and how many groups of the piece there were returned.
    pub(in crate::source) fn at(&self) -> (u64, u64) {
        if self.left.is_empty() { (self.end, 0) } else { (self.begin, self.returned) }
    }
}

/// The text of one raw object.
pub(in crate::source) struct IdentifiedText {
    members: Members,
    /// Of the member in hand.
    identities: Option<IdentityReader>,
    line_bytes_max: usize,
    /// Lines before this offset were read before.
    from: u64,
    /// Offset of the first byte of `carry`, or of the end of the lines that were read.
    offset: u64,
    /// Text that is not read yet, from `at` on.
    carry: Vec<u8>,
    at: usize,
    /// Bytes of the line in hand that were dropped because it is too long.
    dropped: u64,
    piece: Piece,
    /// Why nothing can be read from `offset` on.
    stopped: Option<String>,
    has_ended: bool,
}

impl IdentifiedText {
    /// The text of an object whose bytes will be given, of which the lines before `from` were read before.
    pub(in crate::source) fn new(from: u64, record_bytes_max: usize) -> Self {
        IdentifiedText {
            members: Members::new(),
            identities: None,
            line_bytes_max: record_bytes_max.max(LINE_BYTES),
            from,
            offset: 0,
            carry: Vec::new(),
            at: 0,
            dropped: 0,
            piece: Piece::default(),
            stopped: None,
            has_ended: false,
        }
    }

    /// Gives the next bytes of the object.
    pub(in crate::source) fn give(&mut self, bytes: Bytes) {
        self.members.give(bytes);
    }

    /// Says that there are no more bytes.
    pub(in crate::source) fn end(&mut self) {
        self.members.end();
    }

    /// Does a part of the work: about as much as takes a millisecond.
    pub(in crate::source) fn step(&mut self) -> Step {
        if let Some(piece) = self.lines() {
            return Step::Piece(piece);
        }
        let end = self.carry.len() + STEP_BYTES;
        while self.stopped.is_none() && !self.has_ended && self.carry.len() < end {
            match self.decode() {
                Ok(true) => {}
                Ok(false) => return Step::NeedsBytes,
                Err(problem) => self.stopped = Some(problem),
            }
            if let Some(piece) = self.lines() {
                return Step::Piece(piece);
            }
        }
        if self.stopped.is_none() && !self.has_ended {
            return Step::Busy;
        }
        if self.piece.lines > 0 {
            return Step::Piece(self.take_piece());
        }
        match &self.stopped {
            Some(problem) => Step::Stopped { offset: self.offset, problem: problem.clone() },
            None => Step::Ended,
        }
    }

    /// Decodes a little of the object. Returns false if bytes are needed.
    fn decode(&mut self) -> Result<bool, String> {
        // What was read goes, also where lines are passed over that were read before.
        if self.at >= STEP_BYTES || self.at == self.carry.len() {
            self.carry.drain(..self.at);
            self.at = 0;
        }
        let before = self.carry.len();
        match self.members.decode(&mut self.carry) {
            Ok(Decoded::Begun(field)) => {
                // An empty frame needs none.
                let reader = field.map(IdentityReader::new).transpose().map_err(|error| error.to_string())?;
                self.identities = reader;
            }
            Ok(Decoded::Text) => self.drop_long(before),
            Ok(Decoded::Finished) => {
                if self.at < self.carry.len() || self.dropped > 0 {
                    return Err("a part of the object ends inside a line".to_owned());
                }
                if self.identities.take().is_some_and(|identities| !identities.is_done()) {
                    return Err("a part of the object has identities of other lines".to_owned());
                }
            }
            Ok(Decoded::Ended) => self.has_ended = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("the object is damaged: {error}")),
        }
        Ok(true)
    }

    /// Drops what a line has beyond what is kept. The text from `before` on is new.
    fn drop_long(&mut self, before: usize) {
        let new = &self.carry[before..];
        let end = memchr::memchr(b'\n', new);
        if self.dropped > 0 {
            let more = end.unwrap_or(new.len());
            self.carry.drain(before..before + more);
            self.dropped += more as u64;
        } else if end.is_none() && self.carry.len() - self.at > self.line_bytes_max {
            // Everything before this was searched before: the line in hand is all that is left.
            let kept = self.at + self.line_bytes_max;
            if memchr::memchr(b'\n', &self.carry[self.at..]).is_none() {
                self.dropped = (self.carry.len() - kept) as u64;
                self.carry.truncate(kept);
            }
        }
    }

    /// Reads the lines that are complete. Returns the piece if it is full.
    fn lines(&mut self) -> Option<Piece> {
        while self.stopped.is_none() {
            let rest = &self.carry[self.at..];
            let end = memchr::memchr(b'\n', rest)?;
            let (line, bytes) = (&rest[..end], end as u64 + self.dropped);
            let Some(identities) = &mut self.identities else {
                self.stopped = Some("a part of the object has no identities".to_owned());
                break;
            };
            let identity = match usize::try_from(bytes).ok().map(|bytes| identities.next(bytes)) {
                Some(Ok(identity)) => identity,
                Some(Err(error)) => {
                    self.stopped = Some(error.to_string());
                    break;
                }
                None => break,
            };
            if self.offset + bytes + 1 >= OBJECT - 1 {
                self.stopped = Some("its text has 10^12 bytes or more".to_owned());
                break;
            }
            let is_read = self.offset < self.from;
            self.offset += bytes + 1;
            if is_read {
                (self.piece.begin, self.piece.end) = (self.offset, self.offset);
            } else {
                self.piece.add(identity, line, self.dropped > 0);
                self.piece.end = self.offset;
            }
            self.at += end + 1;
            self.dropped = 0;
            if self.piece.is_full() {
                return Some(self.take_piece());
            }
        }
        None
    }

    fn take_piece(&mut self) -> Piece {
        let next = Piece { begin: self.offset, end: self.offset, ..Piece::default() };
        // What is left is the beginning of a few lines.
        self.carry.drain(..self.at);
        self.at = 0;
        std::mem::replace(&mut self.piece, next)
    }
}
