//! Skipping a value that no column reads. It must still be well-formed.
//!
//! Owns: strict JSON syntax (RFC 8259), without recursion. Does not own: values that are read (`scan`).
//!
//! Limit: arrays and objects nested [`DEPTH_MAX`] deep.

use crate::dead_letter::code::Code;
use crate::decode::number;
use crate::decode::text::{self, TextError};

/// How deeply arrays and objects may be nested in a record, the record itself included.
pub(crate) const DEPTH_MAX: u32 = 128;

/// The first byte at or after `at` that is not white space.
#[inline]
pub(crate) fn white_space(buffer: &[u8], mut at: usize) -> usize {
    while matches!(buffer.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The end of the value that begins at `at`. `depth` is the number of arrays and objects that contain it.
pub(crate) fn value(buffer: &[u8], at: usize, depth: u32, high: &mut u32) -> Result<usize, TextError> {
    // One bit for each open container, innermost lowest: 1 is an object.
    let mut open: u128 = 0;
    let mut inside = 0_u32;
    let mut at = at;
    loop {
        // A value begins here.
        match buffer.get(at) {
            Some(b'"') => at = text::end_of_string(buffer, at + 1, high)?.next,
            Some(b'-' | b'0'..=b'9') => at = number::scan(buffer, at).map_err(|at| (Code::NotJson, at))?.end,
            Some(b't') => at = literal(buffer, at, b"true")?,
            Some(b'f') => at = literal(buffer, at, b"false")?,
            Some(b'n') => at = literal(buffer, at, b"null")?,
            Some(bracket @ (b'{' | b'[')) => {
                if depth + inside >= DEPTH_MAX {
                    return Err((Code::TooDeep, at));
                }
                let object = *bracket == b'{';
                at = white_space(buffer, at + 1);
                let empty = buffer.get(at) == Some(if object { &b'}' } else { &b']' });
                if !empty {
                    open = open << 1 | u128::from(object);
                    inside += 1;
                    if object {
                        at = key(buffer, at, high)?;
                    }
                    continue;
                }
                at += 1;
            }
            _ => return Err((Code::NotJson, at)),
        }
        // A value has ended: close the containers that end here, or continue with the next value.
        loop {
            if inside == 0 {
                return Ok(at);
            }
            at = white_space(buffer, at);
            let object = open & 1 == 1;
            match buffer.get(at) {
                Some(b',') => {
                    at = white_space(buffer, at + 1);
                    if object {
                        at = key(buffer, at, high)?;
                    }
                    break;
                }
                Some(b'}') if object => {}
                Some(b']') if !object => {}
                _ => return Err((Code::NotJson, at)),
            }
            at += 1;
            open >>= 1;
            inside -= 1;
        }
    }
}

/// From a key's quote to the beginning of its value.
fn key(buffer: &[u8], at: usize, high: &mut u32) -> Result<usize, TextError> {
    if buffer.get(at) != Some(&b'"') {
        return Err((Code::NotJson, at));
    }
    let end = text::end_of_string(buffer, at + 1, high)?;
    colon(buffer, end.next)
}

/// From the end of a key to the beginning of its value.
#[inline]
pub(crate) fn colon(buffer: &[u8], at: usize) -> Result<usize, TextError> {
    let at = if buffer.get(at) == Some(&b':') { at } else { white_space(buffer, at) };
    if buffer.get(at) != Some(&b':') {
        return Err((Code::NotJson, at));
    }
    Ok(white_space(buffer, at + 1))
}

/// The end of `true`, `false` or `null`.
#[inline]
pub(crate) fn literal(buffer: &[u8], at: usize, expected: &[u8]) -> Result<usize, TextError> {
    let found = buffer.get(at..).unwrap_or_default();
    if found.starts_with(expected) {
        return Ok(at + expected.len());
    }
    let same = found.iter().zip(expected).take_while(|(left, right)| left == right).count();
    Err((Code::NotJson, at + same))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::text::PADDING;
    use proptest::prelude::*;

    fn skip(text: &[u8]) -> Result<usize, TextError> {
        let mut buffer = text.to_vec();
        buffer.resize(text.len() + PADDING, 0);
        value(&buffer, 0, 0, &mut 0)
    }

    #[test]
    fn well_formed_values_are_skipped() {
        for text in
            ["0", "\"a\\n\"", "null", "[]", "{}", "[1, [2, {\"a\" : [ ] }] ]", "{\"a\":1 , \"b\":{\"c\":[true,false]}}"]
        {
            assert_eq!(skip(text.as_bytes()), Ok(text.len()), "{text}");
        }
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(skip(&nested(128)).is_ok());
        assert_eq!(skip(&nested(129)), Err((Code::TooDeep, 128)));
        assert_eq!(skip(&vec![b'['; 1_000_000]).unwrap_err().0, Code::TooDeep);
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts(text in "[\\[\\]{}:,\"a1 .eE+\\-tfnu\\\\]{0,12}") {
            // A value begins at its first byte; its caller skips what is before it.
            let text = text.trim_start();
            let ours = skip(text.as_bytes()).is_ok_and(|end| white_space(text.as_bytes(), end) == text.len());
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            // IgnoredAny does not check for lone surrogates; this alphabet cannot write one.
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }
}
