//! The identities of raw lines: which record of which shard each line is.
//!
//! Owns: the field of a member that has them: its form, and writing it. Does not own: reading it (`read`), sequence numbers as numbers
//! (`number`), the lines (`line_objects`), which bytes are a record (`lane`), reading objects.
//!
//! Each member of a raw object describes its own lines, so members may be put together in any order. In a gzip member the field is
//! a subfield of the header's *extra field* (RFC 1952, section 2.3.1.1) with the id `SL`. In a zstd object it is a skippable frame
//! before the frame of the lines (RFC 8878, section 3.1.2), with the magic number `0x184D2A5C`, whose content begins with `SL`; an
//! empty frame is before that. Every reader of the two formats ignores both.
//!
//! The field: a byte with the format, 1, then runs of neighbouring lines of one source until its end. A run:
//!
//! | what | form |
//! | --- | --- |
//! | head | a byte. Bit 0: lines of a text, where a sequence number is an offset. Bits 1 to 6: the columns that follow. Bit 7: a time of reading follows |
//! | source | varint; the number of sources before it means a new one: stream and shard, each a varint of its length and UTF-8 |
//! | time of reading | varint of the difference to that of the last run that has one; see [`Chunk::read_ms`](crate::chunk::Chunk::read_ms) |
//! | lines | varint |
//! | columns | one difference for each line; a column that is not there is all zeros |
//!
//! The columns are: bits 80 to 191, 36 to 79, and 0 to 35 of the sequence number, the subsequence number, the time of arrival, and what
//! the source made of the line ([`Line`]). Each but the last is the difference to the line before it of the same source. The first line of a
//! source is compared with the line before it, and the first of all with zeros. In a text the expected sequence number is that of the byte after
//! the line before it and its line end. The parts of a sequence number are those of Kinesis: a counter, a time in seconds, and the shard. So most differences are small or zero.
//!
//! A difference is a varint of: its zigzag form · 2, plus 1 if a varint follows that says how many lines have it. A varint has 7 bits in each
//! byte, the lowest first, and bit 7 set in all but the last.
//!
//! Invariant: a line is the same record for whoever decodes its field. A field that does not describe exactly the lines of its member is an
//! error, never a guess.
//!
//! Limits: 65,000 bytes, which is less than an extra field can have; a sequence number below 2¹⁹². A member with a larger number has no field.

mod number;
mod read;

use std::collections::HashMap;
use std::sync::Arc;

use crate::chunk::Damage;
use crate::documents::Documents;
use crate::line_objects::identities::number::Number;

pub use read::IdentityReader;

/// The most bytes of a field.
pub const FIELD_BYTES_MAX: usize = 65_000;
/// The id of the subfield of a gzip header.
pub const SUBFIELD: [u8; 2] = *b"SL";
/// The magic number of a skippable frame with identities.
pub const SKIPPABLE_MAGIC: [u8; 4] = 0x184D_2A5C_u32.to_le_bytes();
/// A zstd frame of no bytes (RFC 8878, section 3.1.1): a header that says so, and one empty block. It is before the skippable frame, because
/// some readers recognize zstd by its first bytes and do not know that a skippable frame may be first.
pub const EMPTY_FRAME: [u8; 9] = [0x28, 0xB5, 0x2F, 0xFD, 0x20, 0, 1, 0, 0];
/// The format of a field.
const FORMAT: u8 = 1;
/// Bytes that a run may still take when it ends: its head, and what its columns have not written.
const RUN_BYTES: usize = 256;

/// What a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Line {
    /// A record of one document.
    #[default]
    Document,
    /// What its source could read of a record.
    Damaged(Damage),
    /// A packed record of one document, as received, from a source whose records have this many.
    Packed(Documents),
}

const LINES: [Line; 7] = [
    Line::Document,
    Line::Damaged(Damage::TooLarge),
    Line::Damaged(Damage::DamagedFile),
    Line::Damaged(Damage::BrokenAggregate),
    Line::Damaged(Damage::Truncated),
    Line::Packed(Documents::MANY),
    Line::Packed(Documents { many: true, arrays: true }),
];

impl Line {
    fn code(self) -> u8 {
        match self {
            Line::Document => 0,
            Line::Damaged(Damage::TooLarge) => 1,
            Line::Damaged(Damage::DamagedFile) => 2,
            Line::Damaged(Damage::BrokenAggregate) => 3,
            Line::Damaged(Damage::Truncated) => 4,
            Line::Packed(documents) if documents.arrays => 6,
            Line::Packed(_) => 5,
        }
    }
}

/// The identity of a raw line: what its source said about the record when it was first read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its stream.
    pub stream: Arc<str>,
    /// Its shard.
    pub shard: Arc<str>,
    /// Its sequence number, decimal digits.
    pub sequence: Box<str>,
    /// Its subsequence number.
    pub sub_sequence: u64,
    /// When it arrived according to its source, in milliseconds since 1970.
    pub arrival_ms: i64,
    /// When it was read, if its source does not know when it arrived: see [`Chunk::read_ms`](crate::chunk::Chunk::read_ms). `i64::MIN` if
    /// it does not know that either.
    pub read_ms: Option<i64>,
    /// What it is.
    pub line: Line,
}

/// A field that cannot be read, or that belongs to other lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A later version wrote it.
    #[error("the identities have format {0}, which is of a later version")]
    Format(u8),
    /// It is damaged, or belongs to other lines.
    #[error("the identities are damaged: {0}")]
    Damaged(&'static str),
}

/// What was said last about a source's lines.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    number: Number,
    /// Bytes of the line, without its line end.
    bytes: u64,
    sub_sequence: u64,
    arrival_ms: i64,
}

impl Last {
    /// The sequence number from which the next one is counted.
    fn expected(&self, is_text: bool) -> Number {
        if is_text { self.number.plus(self.bytes.wrapping_add(1)) } else { self.number }
    }
}

/// Where the columns are.
const COLUMNS: usize = 6;
const SUB: usize = 3;
const ARRIVAL: usize = 4;
const LINE: usize = 5;

/// The sequence number of the first of some lines.
#[derive(Debug, Clone, Copy)]
pub enum Sequence<'s> {
    /// An offset in a text.
    Number(u64),
    /// The number of a record, in decimal digits.
    Digits(&'s str),
}

/// Lines that follow each other in their source, without a gap, and whose identities differ in nothing else.
#[derive(Debug, Clone, Copy)]
pub struct NewLines<'c> {
    /// Their stream.
    pub stream: &'c Arc<str>,
    /// Their shard.
    pub shard: &'c Arc<str>,
    /// Sequence number of the first of them.
    pub sequence: Sequence<'c>,
    /// Their subsequence number.
    pub sub_sequence: u64,
    /// When they arrived, in milliseconds since 1970.
    pub arrival_ms: i64,
    /// When they were read, if their source does not know when they arrived.
    pub read_ms: Option<i64>,
    /// What they are.
    pub line: Line,
    /// How many there are; several only if sequence numbers are offsets.
    pub count: u64,
    /// Bytes of all of them, with the line ends between them.
    pub bytes: u64,
    /// Bytes of the last of them.
    pub last_bytes: u64,
}

/// The identities of the lines of a member, as they are written.
#[derive(Debug, Default)]
pub struct Identities {
    out: Vec<u8>,
    sources: Vec<(Arc<str>, Arc<str>)>,
    numbers: HashMap<(Arc<str>, Arc<str>), usize>,
    last: Vec<Last>,
    run: Option<Run>,
    columns: [Column; COLUMNS],
    /// The time of reading of the last run that has one.
    read_ms: i64,
    /// A sequence number cannot be stored.
    is_impossible: bool,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    source: usize,
    is_new: bool,
    is_text: bool,
    read_ms: Option<i64>,
    lines: u64,
}

#[derive(Debug, Default)]
struct Column {
    bytes: Vec<u8>,
    value: i128,
    count: u64,
    has_values: bool,
}

impl Column {
    #[inline]
    fn push(&mut self, value: i128, count: u64) {
        if value == self.value {
            self.count += count;
            return;
        }
        self.write();
        (self.value, self.count) = (value, count);
        self.has_values = true;
    }

    /// Writes the value in hand.
    fn write(&mut self) {
        let zigzag = zigzag(self.value) << 1;
        // A count takes a byte or more.
        if self.count > 2 {
            write_varint(&mut self.bytes, zigzag | 1);
            write_varint(&mut self.bytes, u128::from(self.count));
        } else {
            (0..self.count).for_each(|_| write_varint(&mut self.bytes, zigzag));
        }
        (self.value, self.count) = (0, 0);
    }
}

fn zigzag(value: i128) -> u128 {
    (value << 1 ^ value >> 127).cast_unsigned()
}

#[inline]
fn write_varint(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

fn low_byte(value: u128) -> u8 {
    u8::try_from(value & 0x7F).unwrap_or_default()
}

impl Identities {
    /// Whether these lines may be added without the field becoming too large.
    pub(crate) fn has_room(&self, stream: &str, shard: &str) -> bool {
        self.bytes() + stream.len() + shard.len() + 2 * RUN_BYTES <= FIELD_BYTES_MAX
    }

    /// About how many bytes the field has so far.
    pub(crate) fn bytes(&self) -> usize {
        self.out.len() + self.columns.iter().map(|column| column.bytes.len()).sum::<usize>()
    }

    /// Adds lines.
    #[inline]
    pub fn add(&mut self, lines: &NewLines<'_>) {
        let (is_text, number) = match lines.sequence {
            Sequence::Number(number) => (true, Some(Number([number, 0, 0]))),
            Sequence::Digits(digits) => (false, Number::parse(digits)),
        };
        let Some(number) = number.filter(|_| !self.is_impossible) else {
            self.is_impossible = true;
            return;
        };
        let run = self.run_of(lines, is_text);
        run.lines += lines.count;
        let source = run.source;
        let last = &mut self.last[source];
        let (expected, parts) = (last.expected(is_text).parts(), number.parts());
        for ((column, part), expected) in self.columns.iter_mut().zip(parts).zip(expected) {
            column.push(part - expected, 1);
            column.push(0, lines.count - 1);
        }
        let mut push = |column: usize, difference: i128| {
            self.columns[column].push(difference, 1);
            self.columns[column].push(0, lines.count - 1);
        };
        push(SUB, i128::from(lines.sub_sequence) - i128::from(last.sub_sequence));
        push(ARRIVAL, i128::from(lines.arrival_ms) - i128::from(last.arrival_ms));
        // Not a difference: nearly all lines are documents.
        self.columns[LINE].push(i128::from(lines.line.code()), lines.count);
        *last = Last {
            number: number.plus(lines.bytes - lines.last_bytes),
            bytes: lines.last_bytes,
            sub_sequence: lines.sub_sequence,
            arrival_ms: lines.arrival_ms,
        };
    }

    /// The run of these lines: the one in hand, or another one.
    #[inline]
    fn run_of(&mut self, lines: &NewLines<'_>, is_text: bool) -> &mut Run {
        let is_in_hand = self.run.is_some_and(|run| {
            let (stream, shard) = &self.sources[run.source];
            let is_same = |one: &Arc<str>, other: &Arc<str>| Arc::ptr_eq(one, other) || one == other;
            run.is_text == is_text
                && run.read_ms == lines.read_ms
                && is_same(shard, lines.shard)
                && is_same(stream, lines.stream)
        });
        if !is_in_hand {
            self.begin_run(lines, is_text);
        }
        self.run.get_or_insert(Run { source: 0, is_new: false, is_text, read_ms: None, lines: 0 })
    }

    fn begin_run(&mut self, lines: &NewLines<'_>, is_text: bool) {
        let before = self.run.map(|run| self.last[run.source]).unwrap_or_default();
        self.end_run();
        let name = (Arc::clone(lines.stream), Arc::clone(lines.shard));
        let known = self.numbers.get(&name).copied();
        let source = known.unwrap_or(self.sources.len());
        if known.is_none() {
            self.sources.push(name.clone());
            self.numbers.insert(name, source);
            self.last.push(before);
        }
        self.run = Some(Run { source, is_new: known.is_none(), is_text, read_ms: lines.read_ms, lines: 0 });
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        if self.out.is_empty() {
            self.out.push(FORMAT);
        }
        self.columns.iter_mut().for_each(Column::write);
        let mut head = u8::from(run.is_text) | u8::from(run.read_ms.is_some()) << 7;
        for (number, column) in self.columns.iter().enumerate() {
            head |= u8::from(column.has_values) << (number + 1);
        }
        let out = &mut self.out;
        out.push(head);
        write_varint(out, run.source as u128);
        if run.is_new {
            let (stream, shard) = &self.sources[run.source];
            for name in [stream, shard] {
                write_varint(out, name.len() as u128);
                out.extend_from_slice(name.as_bytes());
            }
        }
        if let Some(read_ms) = run.read_ms {
            write_varint(out, zigzag(i128::from(read_ms) - i128::from(self.read_ms)));
            self.read_ms = read_ms;
        }
        write_varint(out, u128::from(run.lines));
        for column in &mut self.columns {
            if std::mem::take(&mut column.has_values) {
                out.extend_from_slice(&column.bytes);
            }
            column.bytes.clear();
        }
    }

    /// The field; `None` if it cannot be written.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        self.end_run();
        (!self.is_impossible && !self.out.is_empty() && self.out.len() <= FIELD_BYTES_MAX).then_some(self.out)
    }
}

/// The field with identities in the extra field of a gzip header; `None` if it has none.
pub fn field_of_extra(mut extra: &[u8]) -> Option<&[u8]> {
    while let [first, second, low, high, rest @ ..] = extra {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let content = rest.get(..length)?;
        if [*first, *second] == SUBFIELD {
            return Some(content);
        }
        extra = &rest[length..];
    }
    None
}

/// The field with identities in the content of a skippable frame; `None` if it is another one.
pub fn field_of_frame(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&SUBFIELD)
}

#[cfg(test)]
mod tests;
