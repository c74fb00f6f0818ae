//! Reading the identities of a member.
//!
//! Owns: reading a field line by line, and refusing one that is damaged. Does not own: the form of a field (`identities`).

use std::sync::Arc;

use super::number::Number;
use super::{ARRIVAL, COLUMNS, FORMAT, FieldError, Identity, LINE, LINES, Last, SUB};

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
