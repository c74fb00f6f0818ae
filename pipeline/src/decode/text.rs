//! JSON strings as bytes: where they end, whether they are well-formed, and their text without escapes.
//!
//! Owns: the syntax of strings. Does not own: the values around them (`skip`, `scan`).
//!
//! Every buffer has [`PADDING`] bytes after its last record, of which the first is 0 (the sentinel). So reading 16 bytes ahead
//! needs no special case. No `unsafe`: the `wide` crate has a safe interface to SSE2 and NEON, and plain code elsewhere.

use wide::u8x16;

use crate::dead_letter::code::Code;

/// Bytes that a buffer must have after its last record, all 0.
pub(crate) const PADDING: usize = 64;

/// The first quote, backslash or control byte at or after `at`. Sets bits in `high` if a byte before it is not ASCII.
#[inline]
fn find_special(buffer: &[u8], mut at: usize, high: &mut u32) -> usize {
    loop {
        let Some(window) = buffer.get(at..).and_then(<[u8]>::first_chunk::<16>) else {
            return slow_special(buffer, at, high);
        };
        let bytes = u8x16::from(*window);
        let quote = bytes.simd_eq(u8x16::splat(b'"'));
        let backslash = bytes.simd_eq(u8x16::splat(b'\\'));
        let control = bytes.min(u8x16::splat(0x1F)).simd_eq(bytes);
        let special = (quote | backslash | control).to_bitmask();
        let wide = bytes.to_bitmask();
        if special != 0 {
            let length = special.trailing_zeros();
            *high |= wide & ((1 << length) - 1);
            return at + length as usize;
        }
        *high |= wide;
        at += 16;
    }
}

/// The same, byte by byte, at the very end of a buffer.
#[cold]
fn slow_special(buffer: &[u8], mut at: usize, high: &mut u32) -> usize {
    while let Some(&byte) = buffer.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            return at;
        }
        *high |= u32::from(byte >= 0x80);
        at += 1;
    }
    at
}

/// The end of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The end of its text.
    pub(crate) end: usize,
    /// Where the next token begins.
    pub(crate) next: usize,
    /// Whether it contains escapes.
    pub(crate) escaped: bool,
}

/// Why a string is not valid, and where.
pub(crate) type TextError = (Code, usize);

/// The end of the string whose text begins at `at`, just after the opening quote. All escapes are checked.
#[inline]
pub(crate) fn end_of_string(buffer: &[u8], at: usize, high: &mut u32) -> Result<End, TextError> {
    let end = find_special(buffer, at, high);
    if buffer.get(end) == Some(&b'"') {
        return Ok(End { end, next: end + 1, escaped: false });
    }
    end_of_escaped_string(buffer, end, high)
}

fn end_of_escaped_string(buffer: &[u8], mut at: usize, high: &mut u32) -> Result<End, TextError> {
    let mut escaped = false;
    loop {
        match buffer.get(at) {
            Some(b'"') => return Ok(End { end: at, next: at + 1, escaped }),
            Some(b'\\') => {
                at = end_of_escape(buffer, at)?;
                escaped = true;
            }
            _ => return Err((Code::NotJson, at)),
        }
        at = find_special(buffer, at, high);
    }
}

fn end_of_escape(buffer: &[u8], at: usize) -> Result<usize, TextError> {
    match buffer.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let unit = code_unit(buffer, at + 2)?;
            match unit {
                0xD800..0xDC00 => {
                    if buffer.get(at + 6..at + 8) != Some(b"\\u") {
                        // The string may have been cut off here, after the first half of the pair or the backslash.
                        return Err(match buffer.get(at + 6..at + 8) {
                            Some([0, _]) => (Code::NotJson, at + 6),
                            Some([b'\\', 0]) => (Code::NotJson, at + 7),
                            _ => (Code::UnpairedSurrogate, at + 6),
                        });
                    }
                    let low = code_unit(buffer, at + 8)?;
                    if (0xDC00..0xE000).contains(&low) { Ok(at + 12) } else { Err((Code::UnpairedSurrogate, at + 6)) }
                }
                0xDC00..0xE000 => Err((Code::UnpairedSurrogate, at)),
                _ => Ok(at + 6),
            }
        }
        _ => Err((Code::NotJson, at + 1)),
    }
}

fn code_unit(buffer: &[u8], at: usize) -> Result<u32, TextError> {
    let mut unit = 0;
    for place in at..at + 4 {
        let digit = buffer.get(place).and_then(|byte| char::from(*byte).to_digit(16));
        unit = unit << 4 | digit.ok_or((Code::NotJson, place))?;
    }
    Ok(unit)
}

/// The end of a string inside an escaped document; `at` is just after its opening `\"`. `None` if anything but the closing
/// `\"` is escaped, so that the document must be unescaped first.
#[inline]
pub(crate) fn end_of_inner_string(buffer: &[u8], at: usize, high: &mut u32) -> Option<End> {
    let end = find_special(buffer, at, high);
    (buffer.get(end..end + 2) == Some(b"\\\"")).then_some(End { end, next: end + 2, escaped: false })
}

/// Appends the text of the bytes of a well-formed JSON string.
pub(crate) fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(backslash) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..backslash]);
        let escape = text.get(backslash + 1).copied().unwrap_or(b'\\');
        let mut length = 2;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let unit = code_unit(text, backslash + 2).unwrap_or(0xFFFD);
                length = 6;
                let scalar = if (0xD800..0xDC00).contains(&unit) {
                    length = 12;
                    let low = code_unit(text, backslash + 8).unwrap_or(0xDC00);
                    0x10000 + ((unit - 0xD800) << 10) + low.wrapping_sub(0xDC00)
                } else {
                    unit
                };
                let character = char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
        text = text.get(backslash + length..).unwrap_or_default();
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> Result<(String, bool), TextError> {
        let mut buffer = text.as_bytes().to_vec();
        buffer.resize(buffer.len() + PADDING, 0);
        let mut high = 0;
        let end = end_of_string(&buffer, 0, &mut high)?;
        let mut out = Vec::new();
        unescape(&buffer[..end.end], &mut out);
        Ok((String::from_utf8(out).unwrap(), high != 0))
    }

    #[test]
    fn escapes_are_read_as_json_defines_them() {
        assert_eq!(scan(r#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z""#).unwrap().0, "a\"\\/\u{8}\u{c}\n\r\té😀z");
    }

    #[test]
    fn malformed_strings_are_refused_with_their_reason() {
        assert_eq!(scan(r#"\ud83d""#), Err((Code::UnpairedSurrogate, 6)));
        assert_eq!(scan(r#"\ud83d\u0041""#), Err((Code::UnpairedSurrogate, 6)));
        assert_eq!(scan(r#"\ude00""#), Err((Code::UnpairedSurrogate, 0)));
        assert_eq!(scan(r#"\x""#), Err((Code::NotJson, 1)));
        assert_eq!(scan(r#"\u12g4""#), Err((Code::NotJson, 4)));
        assert_eq!(scan("a\tb\""), Err((Code::NotJson, 1)));
        assert_eq!(scan("no end"), Err((Code::NotJson, 6)));
    }

    proptest! {
        #[test]
        fn any_text_round_trips_through_json(text in any::<String>(), ascii in any::<bool>()) {
            let json = serde_json::to_string(&text).unwrap();
            let json = if ascii { to_ascii(&json) } else { json };
            let (read, high) = scan(&json[1..]).unwrap();
            prop_assert_eq!(&read, &text);
            prop_assert_eq!(high, !json.is_ascii());
        }
    }

    fn to_ascii(json: &str) -> String {
        let mut out = String::new();
        for c in json.chars() {
            if c.is_ascii() {
                out.push(c);
            } else {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
        }
        out
    }
}
