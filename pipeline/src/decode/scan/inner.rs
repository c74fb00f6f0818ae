//! The small steps of a scan, in a document and in one inside a string (`INNER`), where every quote is written `\"`.
//!
//! Owns: quotes, strings, white space, colons and skipped values, in both forms. Does not own: what is done with them.
//!
//! Invariant: inside a string no step reports a syntax error. Anything unexpected ends the scan with [`Stop::Unescape`]. Then
//! the record is scanned once more with its document unescaped.

use crate::dead_letter::code::Code;
use crate::decode::number;
use crate::decode::scan::{Stop, Walk};
use crate::decode::skip::{self, DEPTH_MAX, white_space};
use crate::decode::text;

impl Walk<'_> {
    #[inline]
    pub(super) fn open_quote<const INNER: bool>(&self, buffer: &[u8], at: usize) -> Result<usize, Stop> {
        match (INNER, buffer.get(at), buffer.get(at + 1)) {
            (false, Some(b'"'), _) => Ok(at + 1),
            (true, Some(b'\\'), Some(b'"')) => Ok(at + 2),
            (true, ..) => Err(Stop::Unescape),
            (false, ..) => Err(Stop::Broken(Code::NotJson, at)),
        }
    }

    #[inline]
    pub(super) fn string<const INNER: bool>(&mut self, buffer: &[u8], begin: usize) -> Result<text::End, Stop> {
        if INNER {
            text::end_of_inner_string(buffer, begin, &mut self.high).ok_or(Stop::Unescape)
        } else {
            Ok(text::end_of_string(buffer, begin, &mut self.high)?)
        }
    }

    /// Skips a value. In an escaped document a value with quotes cannot be skipped, so the document is unescaped instead.
    pub(super) fn skip<const INNER: bool>(&mut self, buffer: &[u8], at: usize, depth: u32) -> Result<usize, Stop> {
        if !INNER {
            return Ok(skip::value(buffer, at, depth, &mut self.high)?);
        }
        self.skip_inner(buffer, at, depth)
    }

    /// The same for a value inside an escaped document.
    fn skip_inner(&mut self, buffer: &[u8], at: usize, depth: u32) -> Result<usize, Stop> {
        let at = match buffer.get(at) {
            Some(b'\\') => {
                let begin = self.open_quote::<true>(buffer, at)?;
                return Ok(self.string::<true>(buffer, begin)?.next);
            }
            Some(b'{' | b'[') => at + 1,
            Some(b'-' | b'0'..=b'9') => return number::scan(buffer, at).map(|n| n.end).map_err(|_| Stop::Unescape),
            Some(b't') => return skip::literal(buffer, at, b"true").map_err(|_| Stop::Unescape),
            Some(b'f') => return skip::literal(buffer, at, b"false").map_err(|_| Stop::Unescape),
            Some(b'n') => return skip::literal(buffer, at, b"null").map_err(|_| Stop::Unescape),
            _ => return Err(Stop::Unescape),
        };
        if depth >= DEPTH_MAX {
            return Err(Stop::Unescape);
        }
        let object = buffer[at - 1] == b'{';
        let close = if object { b'}' } else { b']' };
        let mut at = gap::<true>(buffer, at);
        if buffer.get(at) == Some(&close) {
            return Ok(at + 1);
        }
        loop {
            at = gap::<true>(buffer, at);
            if object {
                let begin = self.open_quote::<true>(buffer, at)?;
                let end = self.string::<true>(buffer, begin)?;
                at = colon::<true>(buffer, end.next)?;
            }
            at = gap::<true>(buffer, self.skip_inner(buffer, at, depth + 1)?);
            match buffer.get(at) {
                Some(b',') => at += 1,
                Some(byte) if *byte == close => return Ok(at + 1),
                _ => return Err(Stop::Unescape),
            }
        }
    }
}

/// The first byte at or after `at` that is not white space. Inside an escaped document only a space is itself: a line end or
/// tab would be one of the surrounding string, where JSON does not allow it.
#[inline]
pub(super) fn gap<const INNER: bool>(buffer: &[u8], mut at: usize) -> usize {
    if !INNER {
        return white_space(buffer, at);
    }
    while buffer.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// From the end of a key to the beginning of its value.
#[inline]
pub(super) fn colon<const INNER: bool>(buffer: &[u8], at: usize) -> Result<usize, Stop> {
    if !INNER {
        return Ok(skip::colon(buffer, at)?);
    }
    let at = gap::<INNER>(buffer, at);
    if buffer.get(at) == Some(&b':') { Ok(gap::<INNER>(buffer, at + 1)) } else { Err(Stop::Unescape) }
}

/// A syntax error. Inside an escaped document its cause may be an escape, so the document is unescaped and scanned again.
#[cold]
pub(super) fn broken<const INNER: bool>(code: Code, at: usize) -> Stop {
    if INNER { Stop::Unescape } else { Stop::Broken(code, at) }
}
