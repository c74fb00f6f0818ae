//! The members of a raw object, each with the field that has the identities of its lines.
//!
//! Owns: where a gzip member or a zstd frame begins and ends, and finding the field. Does not own: what a field says
//! (`pipeline::line_objects::identities`), lines.
//!
//! Bytes are given as they come. A call that needs more of them fails with `WouldBlock`, and continues when it is repeated.
//!
//! Limits: a window of 8 MiB, as for all texts. A field has at most 64 KiB; a skippable frame of others is skipped, whatever its size.

use std::collections::VecDeque;
use std::io::{self, BufRead, Chain, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use pipeline::line_objects::identities::{
    EMPTY_FRAME, FIELD_BYTES_MAX, SKIPPABLE_MAGIC, SUBFIELD, field_of_extra, field_of_frame,
};

use crate::source::text::decompress::WINDOW_LOG_MAX;

/// Text that one call decodes.
const BLOCK: usize = 64 << 10;
/// How many of an object's first bytes show whether it has identities.
pub(in crate::source) const FIRST_BYTES: u64 = 24;

/// What one call decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A member begins, with this field.
    Begun(Option<Vec<u8>>),
    /// Text of it was appended.
    Text,
    /// It has ended.
    Finished,
    /// The object has ended.
    Ended,
}

/// Whether an object that begins with these bytes has identities: its first member has.
pub(in crate::source) fn has_identities(first: &[u8]) -> bool {
    match first.strip_prefix(&EMPTY_FRAME).unwrap_or(first) {
        // RFC 1952: the flag for an extra field, its length after ten bytes, and its first subfield.
        [0x1f, 0x8b, 8, flags, _, _, _, _, _, _, _, _, rest @ ..] => flags & 4 != 0 && rest.starts_with(&SUBFIELD),
        // RFC 8878: a skippable frame, and its length.
        [a, b, c, d, _, _, _, _, rest @ ..] => [*a, *b, *c, *d] == SKIPPABLE_MAGIC && rest.starts_with(&SUBFIELD),
        _ => false,
    }
}

/// The bytes that were given and not read yet.
#[derive(Debug, Default)]
struct Given {
    parts: VecDeque<Bytes>,
    has_ended: bool,
}

/// Reads what was given.
struct Input {
    current: Bytes,
    given: Arc<Mutex<Given>>,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let bytes = available.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&available[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            match given.parts.pop_front() {
                Some(part) => self.current = part,
                None if given.has_ended => return Ok(&[]),
                None => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, bytes: usize) {
        self.current.advance(bytes);
    }
}

/// The first bytes of a member, which were read to find out what it is, and the others.
type Source = Chain<Cursor<Vec<u8>>, Input>;

enum State {
    /// Between two members. `head`: what was read of the next one. `skip`: bytes of a frame that is left out.
    Between { input: Input, head: Vec<u8>, skip: u64, field: Option<Vec<u8>> },
    /// In a gzip member.
    Member { decoder: Box<flate2::bufread::GzDecoder<Source>>, is_begun: bool },
    /// In a zstd frame.
    Frame(Box<zstd::stream::read::Decoder<'static, Source>>),
}

/// The members of one object.
pub(super) struct Members {
    given: Arc<Mutex<Given>>,
    /// `None` after a failure.
    state: Option<State>,
}

impl Members {
    pub(super) fn new() -> Self {
        let given = Arc::new(Mutex::new(Given::default()));
        let input = Input { current: Bytes::new(), given: Arc::clone(&given) };
        Members { given, state: Some(State::Between { input, head: Vec::new(), skip: 0, field: None }) }
    }

    /// Gives the next bytes.
    pub(super) fn give(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.given.lock().unwrap_or_else(PoisonError::into_inner).parts.push_back(bytes);
        }
    }

    /// Says that there are no more bytes.
    pub(super) fn end(&mut self) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).has_ended = true;
    }

    /// Decodes the next part, and appends its text.
    ///
    /// # Errors
    /// `WouldBlock`: more bytes are needed. Any other: the object is damaged.
    pub(super) fn decode(&mut self, text: &mut Vec<u8>) -> io::Result<Decoded> {
        let mut state = self.state.take().ok_or(io::ErrorKind::InvalidData)?;
        let decoded = step(&mut state, text);
        match decoded {
            Ok((next, decoded)) => {
                self.state = Some(next.unwrap_or(state));
                Ok(decoded)
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.state = Some(state);
                }
                Err(error)
            }
        }
    }
}

/// One step of the decoder, and its next state if that is another one.
fn step(state: &mut State, text: &mut Vec<u8>) -> io::Result<(Option<State>, Decoded)> {
    match state {
        State::Between { .. } => between(state),
        State::Member { decoder, is_begun } => {
            if !*is_begun {
                // Reads the header only.
                let nothing = decoder.read(&mut [])?;
                debug_assert_eq!(nothing, 0, "no byte was asked for");
                let header = decoder.header().ok_or(io::ErrorKind::InvalidData)?;
                let field = header.extra().and_then(field_of_extra).map(<[u8]>::to_vec);
                *is_begun = true;
                return Ok((None, Decoded::Begun(field)));
            }
            if append(decoder, text)? > 0 {
                return Ok((None, Decoded::Text));
            }
            Ok((Some(after(decoder.get_mut())), Decoded::Finished))
        }
        State::Frame(decoder) => {
            if append(decoder, text)? > 0 {
                return Ok((None, Decoded::Text));
            }
            Ok((Some(after(decoder.get_mut())), Decoded::Finished))
        }
    }
}

/// The state after a member: what it did not read comes next.
fn after(source: &mut Source) -> State {
    let (head, input) = source.get_mut();
    let read = usize::try_from(head.position()).unwrap_or(usize::MAX).min(head.get_ref().len());
    let head = head.get_mut().split_off(read);
    let input = Input { current: std::mem::take(&mut input.current), given: Arc::clone(&input.given) };
    State::Between { input, head, skip: 0, field: None }
}

/// Appends text. Returns how many bytes; none at the end of the member.
fn append(decoder: &mut impl Read, text: &mut Vec<u8>) -> io::Result<usize> {
    let before = text.len();
    text.resize(before + BLOCK, 0);
    let read = loop {
        match decoder.read(&mut text[before..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    text.truncate(before + read.as_ref().map_or(0, |read| *read));
    read
}

/// Finds out what comes next.
fn between(state: &mut State) -> io::Result<(Option<State>, Decoded)> {
    loop {
        let State::Between { input, head, skip, field } = state else { return Err(io::ErrorKind::InvalidData.into()) };
        if *skip > 0 {
            let available = input.fill_buf()?.len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let skipped = available.min(usize::try_from(*skip).unwrap_or(usize::MAX));
            input.consume(skipped);
            *skip -= skipped as u64;
            continue;
        }
        if head.is_empty() && skip_zeros(input)? {
            return Ok((None, Decoded::Ended));
        }
        fill(input, head, 4)?;
        match head[..] {
            [0x1f, 0x8b, ..] => {
                let source = source_of(input, head);
                let decoder = Box::new(flate2::bufread::GzDecoder::new(source));
                *state = State::Member { decoder, is_begun: false };
                return step(state, &mut Vec::new());
            }
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                fill(input, head, 8)?;
                let length = head[4..8].first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if head[..4] != SKIPPABLE_MAGIC || length > FIELD_BYTES_MAX + SUBFIELD.len() {
                    let passed = head.len() - 8;
                    *skip = length.saturating_sub(passed) as u64;
                    head.clear();
                    continue;
                }
                fill(input, head, 8 + length)?;
                *field = field_of_frame(&head[8..8 + length]).map(<[u8]>::to_vec);
                head.drain(..8 + length);
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let field = field.take();
                let source = source_of(input, head);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?.single_frame();
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                return Ok((Some(State::Frame(Box::new(decoder))), Decoded::Begun(field)));
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn source_of(input: &mut Input, head: &mut Vec<u8>) -> Source {
    let input = Input { current: std::mem::take(&mut input.current), given: Arc::clone(&input.given) };
    Read::chain(Cursor::new(std::mem::take(head)), input)
}

/// Skips zeros, which pad a file to whole blocks. Returns true at the end of the object.
fn skip_zeros(input: &mut Input) -> io::Result<bool> {
    loop {
        let available = input.fill_buf()?;
        let zeros = available.iter().take_while(|byte| **byte == 0).count();
        let (is_end, is_other) = (available.is_empty(), zeros < available.len());
        input.consume(zeros);
        if is_end || is_other {
            return Ok(is_end);
        }
    }
}

/// Reads into the head until it has this many bytes.
fn fill(input: &mut Input, head: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
    while head.len() < bytes {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = available.len().min(bytes - head.len());
        head.extend_from_slice(&available[..taken]);
        input.consume(taken);
    }
    Ok(())
}
