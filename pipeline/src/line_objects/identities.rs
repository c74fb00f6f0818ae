//! The identities of raw lines: which record of which shard each line is.
//!
//! Owns: the field of a member that has them, written and read. Does not own: the lines (`line_objects`), which bytes are a record
//! (`lane`), reading objects.
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

use std::collections::HashMap;
use std::sync::Arc;

use crate::chunk::Damage;
use crate::documents::Documents;

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

/// A sequence number: 192 bits, the lowest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Number([u64; 3]);

const LOW_BITS: u32 = 36;
const MIDDLE_BITS: u32 = 44;
/// The largest power of ten that fits 64 bits, and its exponent.
const TENS: u64 = 10_000_000_000_000_000_000;
const TENS_DIGITS: usize = 19;

impl Number {
    /// The number of canonical decimal digits, if it fits.
    fn parse(digits: &str) -> Option<Number> {
        let bytes = digits.as_bytes();
        if bytes.is_empty() || (bytes[0] == b'0' && bytes.len() > 1) || bytes.len() > 3 * TENS_DIGITS + 1 {
            return None;
        }
        let mut number = Number::default();
        let first = bytes.len() % TENS_DIGITS;
        let (head, tail) = bytes.split_at(first);
        for part in std::iter::once(head).chain(tail.chunks(TENS_DIGITS)).filter(|part| !part.is_empty()) {
            let mut value = 0_u64;
            for byte in part {
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    return None;
                }
                value = value * 10 + u64::from(digit);
            }
            number = number.times_plus(TENS, value)?;
        }
        Some(number)
    }

    fn times_plus(self, factor: u64, value: u64) -> Option<Number> {
        let mut carry = u128::from(value);
        let mut parts = self.0;
        for part in &mut parts {
            carry += u128::from(*part) * u128::from(factor);
            *part = low_half(carry);
            carry >>= 64;
        }
        (carry == 0).then_some(Number(parts))
    }

    /// The number this many above it.
    fn plus(self, more: u64) -> Number {
        let Number([low, middle, high]) = self;
        let (low, carry) = low.overflowing_add(more);
        let (middle, carry) = middle.overflowing_add(u64::from(carry));
        Number([low, middle, high.wrapping_add(u64::from(carry))])
    }

    /// Bits 80 to 191, 36 to 79, and 0 to 35.
    fn parts(self) -> [i128; 3] {
        let Number([low, middle, high]) = self;
        let top = u128::from(high) << 48 | u128::from(middle >> 16);
        let between = (middle & 0xFFFF) << 28 | low >> LOW_BITS;
        [top.cast_signed(), i128::from(between), i128::from(low & ((1 << LOW_BITS) - 1))]
    }

    /// The number of these parts, if each is in its range.
    fn of_parts([top, between, bottom]: [i128; 3]) -> Option<Number> {
        let top = u128::try_from(top).ok().filter(|top| *top < 1 << 112)?;
        let between = u64::try_from(between).ok().filter(|between| *between < 1 << MIDDLE_BITS)?;
        let bottom = u64::try_from(bottom).ok().filter(|bottom| *bottom < 1 << LOW_BITS)?;
        let low = between << LOW_BITS | bottom;
        let middle = low_half(top << 16) | between >> 28;
        Some(Number([low, middle, low_half(top >> 48)]))
    }

    fn to_digits(self) -> Box<str> {
        let mut parts = self.0;
        let mut groups = Vec::with_capacity(4);
        while parts != [0; 3] {
            let mut rest = 0_u128;
            for part in parts.iter_mut().rev() {
                let value = rest << 64 | u128::from(*part);
                *part = low_half(value / u128::from(TENS));
                rest = value % u128::from(TENS);
            }
            groups.push(low_half(rest));
        }
        let Some(first) = groups.pop() else { return "0".into() };
        let mut digits = first.to_string();
        for group in groups.iter().rev() {
            digits.push_str(&format!("{group:019}"));
        }
        digits.into()
    }
}

/// The low 64 bits.
fn low_half(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default()
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

/// Reads a field, line by line.
#[derive(Debug)]
pub struct IdentityReader {
    field: Vec<u8>,
    at: usize,
    sources: Vec<(Arc<str>, Arc<str>, Last)>,
    source: usize,
    is_text: bool,
    read_ms: Option<i64>,
    last_read_ms: i64,
    /// Lines of the run in hand that were not read yet.
    lines: u64,
    columns: [ColumnReader; COLUMNS],
}

/// A column of the run in hand.
#[derive(Debug, Clone, Copy, Default)]
struct ColumnReader {
    at: usize,
    value: i128,
    count: u64,
}

impl IdentityReader {
    /// A reader of a field.
    ///
    /// # Errors
    /// A later version wrote it, or it is empty.
    pub fn new(field: Vec<u8>) -> Result<Self, FieldError> {
        match field.first() {
            Some(&FORMAT) => {}
            Some(format) => return Err(FieldError::Format(*format)),
            None => return Err(FieldError::Damaged("they are empty")),
        }
        Ok(IdentityReader {
            field,
            at: 1,
            sources: Vec::new(),
            source: 0,
            is_text: false,
            read_ms: None,
            last_read_ms: 0,
            lines: 0,
            columns: [ColumnReader::default(); COLUMNS],
        })
    }

    /// Whether all lines were read.
    pub fn is_done(&self) -> bool {
        self.lines == 0 && self.at == self.field.len()
    }

    /// The identity of the next line, which has this many bytes without its line end.
    ///
    /// # Errors
    /// The field is damaged, or its member has fewer lines.
    pub fn next(&mut self, line_bytes: usize) -> Result<Identity, FieldError> {
        const DAMAGED: FieldError = FieldError::Damaged("a number is out of its range");
        if self.lines == 0 {
            self.begin_run()?;
        }
        self.lines -= 1;
        let mut values = [0; COLUMNS];
        for (value, column) in values.iter_mut().zip(&mut self.columns) {
            *value = column.next(&self.field)?;
        }
        let (stream, shard, last) = self.sources.get_mut(self.source).ok_or(DAMAGED)?;
        let mut parts = last.expected(self.is_text).parts();
        for (part, difference) in parts.iter_mut().zip(values) {
            *part = part.checked_add(difference).ok_or(DAMAGED)?;
        }
        let sum = |value: i128, difference: i128| value.checked_add(difference).ok_or(DAMAGED);
        let number = Number::of_parts(parts).ok_or(DAMAGED)?;
        let sub_sequence = u64::try_from(sum(i128::from(last.sub_sequence), values[SUB])?).map_err(|_| DAMAGED)?;
        let arrival_ms = i64::try_from(sum(i128::from(last.arrival_ms), values[ARRIVAL])?).map_err(|_| DAMAGED)?;
        let line = usize::try_from(values[LINE]).ok().and_then(|code| LINES.get(code)).ok_or(DAMAGED)?;
        *last = Last { number, bytes: line_bytes as u64, sub_sequence, arrival_ms };
        Ok(Identity {
            stream: Arc::clone(stream),
            shard: Arc::clone(shard),
            sequence: number.to_digits(),
            sub_sequence,
            arrival_ms,
            read_ms: self.read_ms,
            line: *line,
        })
    }

    fn begin_run(&mut self) -> Result<(), FieldError> {
        const DAMAGED: FieldError = FieldError::Damaged("a run of lines is not complete");
        let before = self.sources.get(self.source).map(|(.., last)| *last).unwrap_or_default();
        let head = *self.field.get(self.at).ok_or(FieldError::Damaged("there are more lines than identities"))?;
        self.at += 1;
        self.source = usize::try_from(self.varint()?).map_err(|_| DAMAGED)?;
        if self.source == self.sources.len() {
            let (stream, shard) = (self.name()?, self.name()?);
            self.sources.push((stream, shard, before));
        } else if self.source > self.sources.len() {
            return Err(DAMAGED);
        }
        self.is_text = head & 1 != 0;
        self.read_ms = None;
        if head & 0x80 != 0 {
            let difference = unzigzag(self.varint()?);
            let read_ms = i128::from(self.last_read_ms).checked_add(difference);
            self.last_read_ms = read_ms.and_then(|read_ms| i64::try_from(read_ms).ok()).ok_or(DAMAGED)?;
            self.read_ms = Some(self.last_read_ms);
        }
        self.lines = u64::try_from(self.varint()?).ok().filter(|lines| *lines > 0).ok_or(DAMAGED)?;
        for number in 0..COLUMNS {
            self.columns[number] = ColumnReader { at: self.at, value: 0, count: 0 };
            if head & 1 << (number + 1) == 0 {
                self.columns[number].count = self.lines;
                continue;
            }
            let (mut reader, mut left) = (self.columns[number], self.lines);
            while left > 0 {
                reader.read(&self.field)?;
                left = left.checked_sub(reader.count).ok_or(DAMAGED)?;
            }
            self.at = reader.at;
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u128, FieldError> {
        read_varint(&self.field, &mut self.at)
    }

    fn name(&mut self) -> Result<Arc<str>, FieldError> {
        const DAMAGED: FieldError = FieldError::Damaged("the name of a source is not complete");
        let bytes = usize::try_from(self.varint()?).map_err(|_| DAMAGED)?;
        let end = self.at.checked_add(bytes).ok_or(DAMAGED)?;
        let name = self.field.get(self.at..end).and_then(|name| std::str::from_utf8(name).ok()).ok_or(DAMAGED)?;
        self.at = end;
        Ok(name.into())
    }
}

impl ColumnReader {
    fn next(&mut self, field: &[u8]) -> Result<i128, FieldError> {
        if self.count == 0 {
            self.read(field)?;
        }
        self.count -= 1;
        Ok(self.value)
    }

    /// Reads the next value, and how many lines have it.
    fn read(&mut self, field: &[u8]) -> Result<(), FieldError> {
        let word = read_varint(field, &mut self.at)?;
        self.value = unzigzag(word >> 1);
        self.count = 1;
        if word & 1 != 0 {
            let count = u64::try_from(read_varint(field, &mut self.at)?).ok().filter(|count| *count > 0);
            self.count = count.ok_or(FieldError::Damaged("a number of lines is out of its range"))?;
        }
        Ok(())
    }
}

fn unzigzag(value: u128) -> i128 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn read_varint(field: &[u8], at: &mut usize) -> Result<u128, FieldError> {
    let mut value = 0_u128;
    for shift in (0..126).step_by(7) {
        let byte = *field.get(*at).ok_or(FieldError::Damaged("a number is not complete"))?;
        *at += 1;
        value |= u128::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(FieldError::Damaged("a number is too large"))
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
