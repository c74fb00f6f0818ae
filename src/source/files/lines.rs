//! Cutting a file of lines into chunks between records.
//!
//! Owns: the chunks of a text, a record that is too long, a last line without an end, and what stands in for the rest of a damaged
//! file. Does not own: reading bytes (`input`), where a text may be cut (`pipeline::documents`), what becomes of the file meanwhile
//! (`follow`).

use std::fs::File;
use std::sync::Arc;

use checkpoints::{Position, ShardId};
use pipeline::chunk::{Chunk, Damage, Frame, Framing};
use pipeline::documents::{Skipper, cut};

use crate::source::files::follow::position_before;
use crate::source::files::identity::{Head, Likeness, Stat, read_head, tail_hash};
use crate::source::files::input::{Fate, Filled, Input, Part};
use crate::source::files::list::Codec;
use crate::source::files::{FilesConfig, Shared, blocking};
use crate::source::text::complete::SKIP_BYTES;
use crate::source::text::is_complete;
use crate::source::{Read, SourceError};

/// Cuts one file. It goes to the blocking pool and back.
pub(super) struct Cutter {
    input: Input,
    stream: Arc<str>,
    shard: Arc<str>,
    config: FilesConfig,
    /// The file's beginning, by which it is recognized.
    pub(super) head: Head,
    /// The file's text cannot grow.
    ends: bool,
    /// The beginning of a line whose end was not read yet.
    carry: Vec<u8>,
    /// The beginning of a record that is too long, and its offset, while its end is searched for.
    skipping: Option<(Vec<u8>, u64, Skipper)>,
    finished: bool,
}

/// What cutting came to.
pub(super) enum Outcome {
    Read(Read),
    /// The text has ended.
    Ended,
    /// There is no line end for now, and this many bytes are there without one.
    AtTip {
        unread: u64,
    },
    /// In the middle of a line that is too long: let others use the thread.
    Skipping,
    /// The compressed stream cannot be read further.
    Damaged,
    /// The file is not what it was. What was read since the last outcome is dropped.
    Changed(Fate),
}

/// A handle of an open file, and its beginning.
pub(super) struct Probe {
    file: File,
    head: Head,
}

impl Probe {
    /// The file as it is now.
    pub(super) async fn stat(self, shared: &Shared) -> Result<Stat, SourceError> {
        blocking(&shared.stream, move || Ok(Stat::of(&self.file.metadata()?))).await
    }

    /// The file as it is now, what it begins with, and how that compares with its beginning.
    pub(super) async fn first(self, shared: &Shared) -> Result<(Stat, Vec<u8>, Likeness), SourceError> {
        blocking(&shared.stream, move || {
            let (stat, first) = (Stat::of(&self.file.metadata()?), read_head(&self.file)?);
            let likeness = self.head.compare(&first);
            Ok((stat, first, likeness))
        })
        .await
    }

    /// The hash of the bytes before this offset in the file.
    pub(super) async fn tail(self, shared: &Shared, end: u64) -> Result<u64, SourceError> {
        blocking(&shared.stream, move || tail_hash(&self.file, end)).await
    }
}

impl Cutter {
    pub(super) fn new(input: Input, shared: &Shared, shard: &ShardId, head: Head) -> Self {
        Cutter {
            ends: input.part().limit.is_some(),
            input,
            stream: shared.stream.as_str().into(),
            shard: shard.as_str().into(),
            config: shared.config.clone(),
            head,
            carry: Vec::new(),
            skipping: None,
            finished: false,
        }
    }

    pub(super) fn part(&self) -> Part {
        self.input.part()
    }

    /// The offset in the text of the first byte that was not returned.
    pub(super) fn base(&self) -> u64 {
        self.input.text.offset - self.carry.len() as u64
    }

    /// The beginning of a line whose end was not read.
    pub(super) fn into_carry(self) -> Vec<u8> {
        self.carry
    }

    /// The size of the file when it was last known to be the same.
    pub(super) fn seen_bytes(&self) -> u64 {
        self.input.seen_bytes()
    }

    /// Whether more of the file's beginning should be known, so that the position is not after it.
    pub(super) fn needs_head(&self) -> bool {
        self.part().codec == Codec::Plain && self.head.is_short_of(self.part().from + self.base())
    }

    /// A handle for checking the file.
    pub(super) fn probe(&self, shared: &Shared) -> Result<Probe, SourceError> {
        let file = self.input.file().map_err(|error| shared.io_error(&error))?;
        Ok(Probe { file, head: self.head.clone() })
    }

    /// The next chunk, in this buffer.
    pub(super) fn next(&mut self, bytes: usize, mut buffer: Vec<u8>) -> std::io::Result<Outcome> {
        if self.skipping.is_some() {
            return self.skip();
        }
        if self.finished {
            return Ok(Outcome::Ended);
        }
        buffer.clear();
        buffer.append(&mut self.carry);
        // The offset of the buffer in the text, and what was read of it before.
        let (base, carried) = (self.input.text.offset - buffer.len() as u64, buffer.len());
        let mut target = bytes.max(buffer.len() + 1);
        loop {
            let filled = self.input.text.fill(&mut buffer, target)?;
            let fate = self.input.check(&self.head)?;
            if fate != Fate::Same {
                // What was read just now may be of another file.
                self.input.text.offset = base + carried as u64;
                buffer.truncate(carried);
                self.carry = buffer;
                return Ok(Outcome::Changed(fate));
            }
            if let Some(end) = cut(&buffer, self.config.documents) {
                self.carry.extend_from_slice(&buffer[end..]);
                buffer.truncate(end);
                return self.chunk(buffer, base).map(Outcome::Read);
            }
            match filled {
                Filled::Full if buffer.len() > self.config.record_bytes_max => {
                    let skipper = Skipper::new(self.config.documents, &buffer);
                    buffer.truncate(self.config.record_bytes_max);
                    self.skipping = Some((buffer, base, skipper));
                    return self.skip();
                }
                Filled::Full => target = (buffer.len() * 2).min(self.config.record_bytes_max + 1).max(buffer.len() + 1),
                Filled::Damaged => {
                    self.carry = buffer;
                    return Ok(Outcome::Damaged);
                }
                Filled::Ended => return self.ended(buffer, base),
            }
        }
    }

    /// The text ends, perhaps only for now, and the buffer has the beginning of a line.
    fn ended(&mut self, buffer: Vec<u8>, base: u64) -> std::io::Result<Outcome> {
        let unread = buffer.trim_ascii().len() as u64;
        // A line that is larger than a record may be is rejected, whatever follows.
        let is_rejected = buffer.len() > self.config.record_bytes_max;
        // A line that has its end is final, although it may be the beginning of a longer document.
        let is_final = unread == 0 || is_rejected || buffer.ends_with(b"\n") || is_complete(&buffer);
        let is_record = self.ends || (self.config.complete && is_final) || self.has_settled(&buffer);
        if buffer.is_empty() || !is_record {
            // The end of the line will come, or there is no line. A reader that waits at the tip must not keep a whole chunk's memory.
            self.carry = buffer;
            self.carry.shrink_to_fit();
            self.finished = self.ends;
            return Ok(if self.ends { Outcome::Ended } else { Outcome::AtTip { unread } });
        }
        self.finished = self.ends;
        self.chunk(buffer, base).map(Outcome::Read)
    }

    /// Whether lines that may be the beginning of a longer document have waited long enough for the rest of it.
    fn has_settled(&self, lines: &[u8]) -> bool {
        let settle = i64::try_from(self.config.settle.as_millis()).unwrap_or(i64::MAX);
        let age = self.config.clock.now_ms().saturating_sub(self.input.modified_ms);
        self.config.documents.many && lines.ends_with(b"\n") && age >= settle
    }

    fn chunk(&mut self, mut buffer: Vec<u8>, base: u64) -> std::io::Result<Read> {
        if base == 0 && buffer.starts_with(b"\xEF\xBB\xBF") {
            // A byte order mark does not belong to the first record. White space keeps the offsets.
            buffer[..3].fill(b' ');
        }
        let through = position_before(base + buffer.len() as u64);
        Ok(self.read(Framing::Lines { base }, buffer, through))
    }

    fn read(&self, framing: Framing, buffer: Vec<u8>, through: Position) -> Read {
        let (stream, shard) = (Arc::clone(&self.stream), Arc::clone(&self.shard));
        let (arrival_ms, read_ms) = self.config.arrival_ms(self.input.modified_ms);
        let mut chunk = Chunk::new(stream, shard, arrival_ms, buffer, framing);
        chunk.read_ms = Some(read_ms);
        let chunk = chunk.with_documents(self.config.documents);
        Read::Chunk { chunk, through, source_bytes: self.input.text.taken() }
    }

    /// Skips a line that is longer than a record may be, or a part of it. Its first bytes are kept.
    fn skip(&mut self) -> std::io::Result<Outcome> {
        let Some((buffer, base, mut skipper)) = self.skipping.take() else { return Ok(Outcome::Skipping) };
        let mut rest = Vec::new();
        let from = self.input.text.offset;
        while self.input.text.offset - from < SKIP_BYTES {
            rest.clear();
            let before = self.input.text.offset;
            let filled = self.input.text.fill(&mut rest, 1 << 16)?;
            if let Some(end) = skipper.feed(&rest) {
                self.carry.extend_from_slice(&rest[end..]);
                let next = before + end as u64;
                return Ok(Outcome::Read(self.one_damaged(buffer, base, next, Damage::TooLarge)));
            }
            // After damage the position is one past the last byte, as in `damaged`.
            let end = match filled {
                Filled::Full => continue,
                Filled::Damaged => self.input.text.offset + 1,
                Filled::Ended => self.input.text.offset,
            };
            self.finished = self.ends || filled == Filled::Damaged;
            return Ok(Outcome::Read(self.one_damaged(buffer, base, end, Damage::TooLarge)));
        }
        self.skipping = Some((buffer, base, skipper));
        Ok(Outcome::Skipping)
    }

    /// The compressed stream cannot be read further. What there is of the last line represents what is lost.
    pub(super) fn damaged(&mut self) -> Read {
        self.finished = true;
        let (base, buffer) = (self.base(), std::mem::take(&mut self.carry));
        // The position is one past the last byte that could be read. No text reaches it, so whoever opens the shard there knows
        // that the damage was reported.
        let end = base + buffer.len() as u64 + 1;
        self.one_damaged(buffer, base, end, Damage::DamagedFile)
    }

    fn one_damaged(&mut self, buffer: Vec<u8>, base: u64, end: u64, damage: Damage) -> Read {
        let frame = Frame {
            bytes: 0..u32::try_from(buffer.len()).expect("a record is smaller than a chunk"),
            sequence: base.to_string().into(),
            sub_sequence: 0,
            arrival_ms: Some(self.config.arrival_ms(self.input.modified_ms).0),
            partition_key: None,
            damage: Some(damage),
        };
        self.read(Framing::Records(vec![frame]), buffer, position_before(end))
    }
}
