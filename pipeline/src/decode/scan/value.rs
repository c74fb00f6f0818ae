//! The value of a field: scalars become slots here, and `nested` handles everything else.
//!
//! Owns: which scalar fits which input (text, number, boolean; null means absent), strings that a definition accepts as numbers
//! or booleans and the other way round, and the values by which datasets are recognized. Does not own: arrays, objects, JSON text (`nested`), the
//! syntax of numbers (`number`), constraints (`columns`).

use crate::dataset::input_kind::InputKind;
use crate::dataset::plan::{Action, Field, InputId, Spot};
use crate::dead_letter::code::Code;
use crate::decode::number::{self, Number};
use crate::decode::scan::inner::{broken, gap};
use crate::decode::scan::{Stop, Walk};
use crate::decode::skip;
use crate::decode::slots::Slot;
use crate::decode::text::{self, PADDING};

impl<'w> Walk<'w> {
    #[inline]
    pub(super) fn value<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        field: &'w Field,
        spot: Spot,
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let at =
            if matches!(buffer.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) { gap::<INNER>(buffer, at) } else { at };
        match &field.action {
            Action::Take(inputs) => self.scalar::<INNER>(buffer, at, inputs, Some(field), index, depth),
            Action::Skip if field.equals.is_empty() => self.skip::<INNER>(buffer, at, depth),
            Action::Skip => self.scalar::<INNER>(buffer, at, &[], Some(field), index, depth),
            action => {
                if !field.equals.is_empty() && !INNER && buffer.get(at) == Some(&b'"') {
                    let end = self.string::<INNER>(buffer, at + 1)?;
                    self.compare(field, &buffer[at + 1..end.end], end.escaped);
                }
                self.nested::<INNER>(buffer, at, action, (spot, field.is_lenient), index, depth)
            }
        }
    }

    /// Scans a scalar, and stores it for each of its inputs.
    #[inline(always)]
    pub(super) fn scalar<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        inputs: &[InputId],
        field: Option<&Field>,
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let byte = buffer.get(at).copied().unwrap_or(0);
        if byte == if INNER { b'\\' } else { b'"' } {
            let begin = self.open_quote::<INNER>(buffer, at)?;
            let end = self.string::<INNER>(buffer, begin)?;
            if let Some(field) = field
                && !field.equals.is_empty()
            {
                self.compare(field, &buffer[begin..end.end], end.escaped);
            }
            for &input in inputs {
                if self.plan.inputs[input].kind == InputKind::Text {
                    self.slots.push(input, Slot::text(self.text_buffer, begin, end.end, end.escaped, index));
                } else {
                    self.text_as_other(buffer, begin, end.end, input, index);
                }
            }
            return Ok(end.next);
        }
        if byte == b'-' || byte.is_ascii_digit() {
            let number = number::scan(buffer, at).map_err(|at| broken::<INNER>(Code::NotJson, at))?;
            for &input in inputs {
                self.number(buffer, number, input, index);
            }
            return Ok(number.end);
        }
        self.other_scalar::<INNER>(buffer, at, inputs, index, depth)
    }

    fn other_scalar<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        inputs: &[InputId],
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let (value, word): (u64, &[u8]) = match buffer.get(at) {
            Some(b't') => (1, b"true"),
            Some(b'f') => (0, b"false"),
            Some(b'n') => {
                return skip::literal(buffer, at, b"null").map_err(|(code, at)| broken::<INNER>(code, at));
            }
            _ => {
                let end = self.skip::<INNER>(buffer, at, depth)?;
                inputs.iter().for_each(|input| self.note_value(Code::WrongType, *input));
                return Ok(end);
            }
        };
        let end = skip::literal(buffer, at, word).map_err(|(code, at)| broken::<INNER>(code, at))?;
        for &input in inputs {
            match &self.plan.inputs[input] {
                planned if planned.kind == InputKind::Bool => self.slots.push(input, Slot { value, len: 0, index }),
                planned if planned.kind == InputKind::Text && planned.reading.accept_bool => {
                    self.slots.push(input, Slot::text(self.text_buffer, at, end, false, index));
                }
                _ => self.note_value(Code::WrongType, input),
            }
        }
        Ok(end)
    }

    fn compare(&mut self, field: &Field, text: &[u8], escaped: bool) {
        let mut unescaped = Vec::new();
        if escaped {
            text::unescape(text, &mut unescaped);
        }
        let text = if escaped { &unescaped } else { text };
        for (value, bits) in &field.equals {
            if **value == *text {
                self.marks |= bits;
            }
        }
    }

    #[inline]
    fn number(&mut self, buffer: &[u8], number: Number, input: InputId, index: u32) {
        let value = match self.plan.inputs[input].kind {
            InputKind::Int => number.to_i64(buffer).map(i64::cast_unsigned),
            InputKind::Float => number.to_f64(buffer).map(f64::to_bits),
            InputKind::Decimal { precision, scale } => {
                let round = self.plan.inputs[input].reading.round;
                number.to_decimal(precision, scale, round, buffer).map(i64::cast_unsigned)
            }
            _ => Err(Code::WrongType),
        };
        match value {
            Ok(value) => self.slots.push(input, Slot { value, len: 0, index }),
            Err(_)
                if self.plan.inputs[input].kind == InputKind::Text && self.plan.inputs[input].reading.accept_number =>
            {
                self.slots.push(input, Slot::text(self.text_buffer, number.at, number.end, false, index));
            }
            Err(code) => self.note_value(code, input),
        }
    }

    /// Handles a string instead of a number or boolean, which is accepted for a decimal and if the definition says so.
    fn text_as_other(&mut self, buffer: &[u8], begin: usize, end: usize, input: InputId, index: u32) {
        let planned = &self.plan.inputs[input];
        if planned.reading.accept_text || matches!(planned.kind, InputKind::Decimal { .. }) {
            let mut text = Vec::with_capacity(end - begin + PADDING);
            text::unescape(&buffer[begin..end], &mut text);
            let length = text.len();
            match (planned.kind, text.as_slice()) {
                (InputKind::Bool, b"true") => return self.slots.push(input, Slot { value: 1, len: 0, index }),
                (InputKind::Bool, b"false") => return self.slots.push(input, Slot { value: 0, len: 0, index }),
                (InputKind::Int | InputKind::Float | InputKind::Decimal { .. }, _) => {
                    text.resize(length + PADDING, 0);
                    if let Ok(number) = number::scan(&text, 0)
                        && number.end == length
                    {
                        return self.number(&text, number, input, index);
                    }
                }
                _ => {}
            }
        }
        self.note_value(Code::WrongType, input);
    }
}
