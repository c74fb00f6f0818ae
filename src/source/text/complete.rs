//! Texts of complete files and objects, cut into records, many small ones or a piece of a large one at a time.
//!
//! Owns: whether a text is one document or lines, the chunk that a read returns, what is too long, and the sequence numbers of a shard of
//! many texts: a text's number in its shard · 10¹² + the offset in the text. Does not own: which text has which number, reading bytes
//! (`decompress`), where a text may be cut (`pipeline::documents`).
//!
//! A text may have many documents (`pipeline::documents`). If its source says that each record is one document, a text is one
//! document unless its first line is a whole document by itself or another line begins with `{`. Limit: a text larger than a record
//! may be is then read as lines.

use std::sync::Arc;

use checkpoints::{Position, SequenceNumber};
use pipeline::chunk::{Chunk, Damage, Framing, Text};
use pipeline::documents::{Documents, Skipper, cut};

use crate::source::text::decompress::{Filled, TextReader};
use crate::source::text::failures::{self, Content, Failure};
use crate::source::text::is_closed;

/// A sequence number is the text's number times this, plus the offset in the text.
pub(in crate::source) const OBJECT: u64 = 1_000_000_000_000;
/// The most texts of one shard, so that a sequence number has 64 bits.
pub(in crate::source) const TEXTS_MAX: u64 = 18_000_000;
/// Bytes of a line that is too long that are skipped at once: there are few threads for files.
pub(in crate::source) const SKIP_BYTES: u64 = 32 << 20;
/// The offset that means that a text was read to its end.
const DONE: u64 = OBJECT - 1;

/// How texts are cut.
#[derive(Debug, Clone, Copy)]
pub struct TextConfig {
    /// Bytes that a record may have. Of a longer one, this many are kept.
    pub record_bytes_max: usize,
    /// How many documents a line, or a text, may have.
    pub documents: Documents,
}

/// Text number and offset of the next byte after a position; `None` if the shard has none.
pub(in crate::source) fn next_of(position: &Position) -> Option<(u64, u64)> {
    match position {
        Position::Beginning => Some((1, 0)),
        Position::At { sequence, .. } => {
            let at = sequence.as_str().parse::<u64>().ok()?;
            Some(if at % OBJECT == DONE { (at / OBJECT + 1, 0) } else { (at / OBJECT, at % OBJECT + 1) })
        }
        Position::Since { .. } | Position::Latest | Position::End => None,
    }
}

/// The position after everything before `next_offset` of text `number`.
pub(in crate::source) fn position_before(number: u64, next_offset: u64) -> Position {
    let last = next_offset.checked_sub(1).map_or((number - 1) * OBJECT + DONE, |last| number * OBJECT + last);
    Position::at(SequenceNumber::from(last))
}

/// What one read collects: whole small files, or a piece of one large file.
pub(in crate::source) struct Batch {
    pub(in crate::source) buffer: Vec<u8>,
    texts: Vec<Text>,
    pub(in crate::source) source_bytes: u64,
    /// Whether it has a piece of a large file, so that nothing more is added.
    pub(in crate::source) is_full: bool,
}

impl Batch {
    /// An empty batch in this buffer.
    pub(in crate::source) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Batch { buffer, texts: Vec::new(), source_bytes: 0, is_full: false }
    }

    /// The chunk of everything that was collected. `read_ms`: the time of reading, in milliseconds since 1970.
    pub(in crate::source) fn into_chunk(
        self,
        (stream, shard): (Arc<str>, Arc<str>),
        config: TextConfig,
        read_ms: i64,
    ) -> Chunk {
        let chunk = Chunk::new(stream, shard, 0, self.buffer, Framing::Texts(self.texts));
        let mut chunk = chunk.with_documents(config.documents);
        chunk.read_ms = Some(read_ms);
        chunk
    }
}

/// A part of a file.
#[derive(Clone, Copy)]
enum Piece {
    /// Any number of records. `is_end`: the file ends with them.
    Text { is_end: bool },
    /// One record, whatever its lines are.
    Record(Option<Damage>),
}

/// How far a text was read.
pub(in crate::source) enum Step {
    Done,
    /// Offset of the next byte.
    More(u64),
    /// In the middle of a line that is too long, where a chunk cannot end.
    Skipping,
}

/// The text of a complete file or object that is being read.
pub(in crate::source) struct CompleteText {
    input: TextReader,
    /// The arrival time of its records.
    arrival_ms: i64,
    number: u64,
    config: TextConfig,
    /// Its documents are records that a delivery stream could not process.
    has_failures: bool,
    carry: Vec<u8>,
    /// A record that is too long was reported, and its end was not found yet.
    skipping: Option<Skipper>,
}

impl CompleteText {
    /// The text of object `number` of its shard, read from where `input` is.
    pub(in crate::source) fn new(input: TextReader, number: u64, arrival_ms: i64, config: TextConfig) -> Self {
        CompleteText { input, arrival_ms, number, config, has_failures: false, carry: Vec::new(), skipping: None }
    }

    /// The same text, whose documents are records that a delivery stream could not process: the original records are read.
    pub(in crate::source) fn with_failures(self, has_failures: bool) -> Self {
        CompleteText { has_failures, ..self }
    }

    fn sequence(&self, offset: u64) -> u64 {
        self.number * OBJECT + offset
    }

    /// Adds the next records to a batch: about `bytes` of them.
    ///
    /// # Errors
    /// The text cannot be read.
    pub(in crate::source) fn read_into(&mut self, batch: &mut Batch, bytes: usize) -> std::io::Result<Step> {
        if self.skipping.is_some() {
            return self.skip(batch);
        }
        let base = self.input.offset - self.carry.len() as u64;
        let mut text = std::mem::take(&mut self.carry);
        let whole_bytes = self.config.record_bytes_max + 1;
        let target = bytes.max(1 << 16).max(text.len() * 2).min(whole_bytes).max(text.len() + 1);
        let filled = self.input.fill(&mut text, target)?;
        batch.source_bytes += self.input.taken();
        if self.config.documents.many {
            return self.lines(batch, text, base, filled);
        }
        if base == 0 && filled == Filled::Ended && is_document(&text) {
            self.push(batch, &text, 0, Piece::Record(None));
            return Ok(Step::Done);
        }
        if base == 0 && filled == Filled::Full && text.len() < whole_bytes && !has_line_record(&text) {
            // It may be one document larger than a chunk.
            let filled = self.input.fill(&mut text, whole_bytes)?;
            batch.source_bytes += self.input.taken();
            if filled == Filled::Ended && is_document(&text) {
                self.push(batch, &text, 0, Piece::Record(None));
                return Ok(Step::Done);
            }
            return self.lines(batch, text, base, filled);
        }
        self.lines(batch, text, base, filled)
    }

    /// Adds the records of a text that begins at `base`.
    fn lines(&mut self, batch: &mut Batch, mut text: Vec<u8>, base: u64, filled: Filled) -> std::io::Result<Step> {
        if base + text.len() as u64 >= DONE {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "the text of a file or object must be smaller than 10^12 bytes",
            ));
        }
        let ended = filled != Filled::Full;
        let last = cut(&text, self.config.documents);
        let end = match (last, ended) {
            (_, true) if filled == Filled::Ended => text.len(),
            (Some(end), _) => end,
            (None, true) => 0,
            (None, false) if text.len() <= self.config.record_bytes_max => {
                self.carry = text;
                return Ok(Step::More(base));
            }
            (None, false) => return self.too_long(batch, text, base),
        };
        let rest = text.split_off(end);
        // The text of a small file, and the end of a large one, is followed by that of others.
        batch.is_full = !ended && batch.buffer.is_empty();
        self.push(batch, &text, base, Piece::Text { is_end: filled == Filled::Ended });
        if filled == Filled::Damaged {
            let at = base + end as u64;
            self.push(batch, &rest, at, Piece::Record(Some(Damage::DamagedFile)));
            return Ok(Step::Done);
        }
        self.carry = rest;
        Ok(if ended { Step::Done } else { Step::More(base + end as u64) })
    }

    /// A record that is longer than records may be.
    fn too_long(&mut self, batch: &mut Batch, mut text: Vec<u8>, base: u64) -> std::io::Result<Step> {
        self.skipping = Some(Skipper::new(self.config.documents, &text));
        text.truncate(self.config.record_bytes_max);
        self.push(batch, &text, base, Piece::Record(Some(Damage::TooLarge)));
        self.skip(batch)
    }

    /// Skips a part of a record that is too long: as much as one call may take.
    fn skip(&mut self, batch: &mut Batch) -> std::io::Result<Step> {
        let Some(skipper) = &mut self.skipping else { return Ok(Step::Skipping) };
        let mut rest = Vec::new();
        let from = self.input.offset;
        while self.input.offset - from < SKIP_BYTES {
            rest.clear();
            let before = self.input.offset;
            let filled = self.input.fill(&mut rest, 1 << 16)?;
            batch.source_bytes += self.input.taken();
            if let Some(end) = skipper.feed(&rest) {
                self.skipping = None;
                self.carry.extend_from_slice(&rest[end..]);
                return Ok(Step::More(before + end as u64));
            }
            if filled != Filled::Full {
                return Ok(Step::Done);
            }
        }
        Ok(Step::Skipping)
    }

    /// Adds a text that begins at `base`, unless it is blank.
    fn push(&self, batch: &mut Batch, text: &[u8], base: u64, piece: Piece) {
        let (is_record, is_end, damage) = match piece {
            Piece::Text { is_end } => (false, is_end, None),
            Piece::Record(damage) => (true, false, damage),
        };
        if !self.has_failures || damage.is_some() {
            return self.push_text(batch, text, base, (is_record, is_end, damage), self.arrival_ms);
        }
        for Failure { at, content } in failures::records(text) {
            let is_record = !self.config.documents.many;
            let (record, arrival) = match &content {
                Content::Record(record, arrival) => (record.as_slice(), *arrival),
                Content::Other(rest) => (*rest, None),
            };
            let arrival_ms = arrival.unwrap_or(self.arrival_ms);
            self.push_text(batch, record, base + at as u64, (is_record, true, None), arrival_ms);
        }
    }

    fn push_text(
        &self,
        batch: &mut Batch,
        text: &[u8],
        base: u64,
        (is_record, is_end, damage): (bool, bool, Option<Damage>),
        arrival_ms: i64,
    ) {
        if text.trim_ascii().is_empty() && damage.is_none() {
            return;
        }
        let begin = batch.buffer.len();
        batch.buffer.extend_from_slice(text);
        if base == 0 && text.starts_with(b"\xEF\xBB\xBF") {
            // A byte order mark does not belong to the first record. White space keeps the offsets.
            batch.buffer[begin..begin + 3].fill(b' ');
        }
        let place = |at: usize| u32::try_from(at).expect("a chunk is smaller than 2 GiB");
        let bytes = place(begin)..place(batch.buffer.len());
        batch.buffer.push(b'\n');
        let base = self.sequence(base);
        batch.texts.push(Text { bytes, base, arrival_ms, is_record, is_end, damage });
    }
}

/// Whether a whole file's text is one document and not lines.
pub(in crate::source) fn is_document(text: &[u8]) -> bool {
    !has_line_record(text)
}

/// Whether the text has a line that is a record by itself: a first line that is a whole document, or a later line that begins
/// like one.
fn has_line_record(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text).trim_ascii_start();
    let Some(end) = memchr::memchr(b'\n', text) else { return false };
    let rest = &text[end + 1..];
    if rest.trim_ascii().is_empty() {
        return false;
    }
    is_closed(&text[..end]) || rest.starts_with(b"{") || memchr::memmem::find(rest, b"\n{").is_some()
}
