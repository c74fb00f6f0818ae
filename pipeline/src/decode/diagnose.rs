//! The kind of a syntax error, found from the place where the scan ended.
//!
//! Owns: the judgement. Does not own: the scan, the names of the kinds (`dead_letter::syntax`). It runs for records that are
//! dead letters already, so it need not be fast.

use crate::dead_letter::code::Code;
use crate::dead_letter::syntax::{SyntaxError, SyntaxKind};
use crate::decode::skip;
use crate::decode::unpack::GZIP;

/// What is wrong with a text whose scan ended at `at` with this code. The code may become a better one.
#[cold]
pub(crate) fn diagnose(text: &[u8], code: Code, at: usize) -> (Code, SyntaxError) {
    let error = |kind, at: usize| SyntaxError { kind, offset: at as u64 };
    match code {
        Code::NotUtf8 | Code::NotJson if is_utf16(text) => (Code::NotUtf8, error(Some(SyntaxKind::Utf16), 0)),
        Code::NotUtf8 if text.starts_with(GZIP) => (code, error(Some(SyntaxKind::Gzip), 0)),
        Code::NotUtf8 if text.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) => (code, error(Some(SyntaxKind::Zstd), 0)),
        Code::NotJson => {
            let (kind, at) = kind_of(text, at);
            (code, error(Some(kind), at))
        }
        _ => (code, error(None, at)),
    }
}

/// Whether a text is UTF-16: by its byte order mark, or because every other byte is NUL. A single NUL is half of a line end.
fn is_utf16(text: &[u8]) -> bool {
    text.starts_with(b"\xFF\xFE")
        || text.starts_with(b"\xFE\xFF")
        || matches!(text, [0] | [0, 1..=0x7F, 0, 1..=0x7F, ..] | [1..=0x7F, 0, 1..=0x7F, 0, ..])
}

/// The kind of a syntax error that was found at `at`, and where the token at fault begins.
fn kind_of(text: &[u8], at: usize) -> (SyntaxKind, usize) {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.' | b'$');
    let before = &text[..at.min(text.len())];
    let Some(&byte) = text.get(at) else { return (SyntaxKind::UnexpectedByte, at) };
    let mut begin = at - before.iter().rev().take_while(|byte| is_word(byte)).count();
    if !is_word(&byte) && skip::value(&text[begin..at], 0, 0, &mut 0) == Ok(at - begin) {
        // The value before the error is not at fault.
        begin = at;
    }
    let word = &text[begin..];
    let word = &word[..word.iter().take_while(|byte| is_word(byte)).count()];
    let unsigned = word.strip_prefix(b"-").unwrap_or(word);
    let is_not_a_number = [&b"nan"[..], b"infinity", b"inf"].iter().any(|name| unsigned.eq_ignore_ascii_case(name));
    let first = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    if is_not_a_number {
        return (SyntaxKind::NotANumber, begin);
    }
    if !matches!(text[first], b'{' | b'[') {
        return (SyntaxKind::NotADocument, first);
    }
    if ends_in_escape(before) && is_in_string(before) {
        return (SyntaxKind::BadEscape, at);
    }
    if byte < 0x20 && is_in_string(before) {
        return (SyntaxKind::ControlCharacter, at);
    }
    let last = before.iter().rposition(|byte| !byte.is_ascii_whitespace());
    let last_byte = last.map_or(0, |last| before[last]);
    let kind = match byte {
        b'}' | b']' if last_byte == b',' => return (SyntaxKind::TrailingComma, last.unwrap_or(at)),
        b'\'' => SyntaxKind::SingleQuote,
        b'/' | b'#' => SyntaxKind::Comment,
        _ if !word.is_empty() => {
            let after = before[..begin].trim_ascii_end().last().copied().unwrap_or(0);
            let kind = match word.first() {
                Some(b'0'..=b'9' | b'+' | b'-' | b'.') => SyntaxKind::BadNumber,
                _ => SyntaxKind::UnknownWord,
            };
            let kind = if after.is_ascii_alphanumeric() || matches!(after, b'"' | b'}' | b']') {
                SyntaxKind::MissingSeparator
            } else {
                kind
            };
            return (kind, begin);
        }
        // An opening quote or bracket after the end of a value.
        b'"' | b'{' | b'[' if !matches!(last_byte, b',' | b':' | b'{' | b'[') => SyntaxKind::MissingSeparator,
        b'}' | b']' => SyntaxKind::MismatchedBracket,
        _ => SyntaxKind::UnexpectedByte,
    };
    (kind, at)
}

/// Whether a text ends inside an escape: after its backslash, or among its digits.
fn ends_in_escape(text: &[u8]) -> bool {
    let digits = text.iter().rev().take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
    text.ends_with(b"\\") || text[..text.len() - digits].ends_with(b"\\u")
}

/// Whether a text ends inside a string.
fn is_in_string(text: &[u8]) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_recognized_at_its_place() {
        let cases: &[(&str, SyntaxKind)] = &[
            (r#"{"a":1^,}"#, SyntaxKind::TrailingComma),
            ("{\"a\":[1^, \n]}", SyntaxKind::TrailingComma),
            (r#"{"a":1 ^"b":2}"#, SyntaxKind::MissingSeparator),
            (r#"{"a":1 ^2}"#, SyntaxKind::MissingSeparator),
            (r#"{"a" ^"b"}"#, SyntaxKind::MissingSeparator),
            (r#"{"a" ^1}"#, SyntaxKind::MissingSeparator),
            (r#"{"a":^NaN}"#, SyntaxKind::NotANumber),
            (r#"{"a":^nan}"#, SyntaxKind::NotANumber),
            (r#"{"a":^-Infinity}"#, SyntaxKind::NotANumber),
            ("^NaN", SyntaxKind::NotANumber),
            (r#"{"a":^007}"#, SyntaxKind::BadNumber),
            (r#"{"a":^+1}"#, SyntaxKind::BadNumber),
            (r#"{"a":^.5}"#, SyntaxKind::BadNumber),
            (r#"{"a":^1.}"#, SyntaxKind::BadNumber),
            (r#"{"a":^True}"#, SyntaxKind::UnknownWord),
            (r#"{"a":^nil}"#, SyntaxKind::UnknownWord),
            (r#"{^a:1}"#, SyntaxKind::UnknownWord),
            (r#"{^'a':1}"#, SyntaxKind::SingleQuote),
            (r#"{"a":1,^// no"#, SyntaxKind::Comment),
            ("{\"a\":\"x^\ty\"}", SyntaxKind::ControlCharacter),
            ("{\"a\":\"x^\ny\"}", SyntaxKind::ControlCharacter),
            (r#"{"a":"\^x41"}"#, SyntaxKind::BadEscape),
            (r#"{"a":"\u00^g1"}"#, SyntaxKind::BadEscape),
            (r#"{"a":[1^}"#, SyntaxKind::MismatchedBracket),
            (r#"{"a"^;1}"#, SyntaxKind::UnexpectedByte),
            ("^2025-01-13 INFO done", SyntaxKind::NotADocument),
            ("^<html>", SyntaxKind::NotADocument),
        ];
        for (marked, kind) in cases {
            let offset = marked.find('^').unwrap();
            let text = marked.replacen('^', "", 1);
            let mut padded = text.clone().into_bytes();
            padded.resize(text.len() + 64, 0);
            let scanned = skip::value(&padded, 0, 0, &mut 0);
            let at = scanned.map_or_else(|(_, at)| at, |end| skip::white_space(&padded, end));
            let (_, found) = diagnose(text.as_bytes(), Code::NotJson, at);
            assert_eq!(found, SyntaxError { kind: Some(*kind), offset: offset as u64 }, "{text}");
        }
    }

    #[test]
    fn utf_16_is_not_utf_8() {
        for text in [&b"\xFF\xFE{\0"[..], b"\xFE\xFF\0{", b"{\0\"\0a\0", b"\0{\0\"", b"\0"] {
            let (code, error) = diagnose(text, Code::NotJson, 1);
            assert_eq!((code, error.kind), (Code::NotUtf8, Some(SyntaxKind::Utf16)), "{text:?}");
        }
    }
}
