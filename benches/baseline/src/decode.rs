//! Turns bytes into trees: splits a file into lines, decodes base64 records, parses JSON.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

use crate::code::Code;
use crate::strict;
use crate::tree::Json;

/// Each line that is not blank, with the offset of its first byte and without its line end (`\n`, `\r\n`).
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]);
    let lines = ends.map(move |end| {
        let line = (begin, &bytes[begin..end]);
        begin = end + 1;
        line
    });
    let lines = lines.map(|(begin, line)| (begin, line.strip_suffix(b"\r").unwrap_or(line)));
    lines.filter(|(_, line)| !line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')))
}

/// A record's JSON: the record itself, or the decoded bytes of base64 text that begin with a brace. The base64 text may be
/// bare or a JSON string.
pub(crate) fn unwrap(record: &[u8]) -> Cow<'_, [u8]> {
    let text = record.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(record).trim_ascii();
    // The base64 of a brace and what may follow it: a quote or a space, a line end, another brace.
    if ![b"ey", b"ew", b"e3"].iter().any(|begin| text.starts_with(*begin)) {
        return Cow::Borrowed(record);
    }
    match BASE64_STANDARD.decode(text).or_else(|_| BASE64_STANDARD_NO_PAD.decode(text)) {
        Ok(json) if json.starts_with(b"{") => Cow::Owned(json),
        _ => Cow::Borrowed(record),
    }
}

/// Parses one document. Only whole numbers without a fraction or an exponent are exact.
pub(crate) fn parse(bytes: &[u8]) -> Result<Json, Code> {
    serde_json::from_slice(bytes).or_else(|_| strict::parse(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_offsets_and_blank_ones_are_skipped() {
        let found: Vec<_> = lines(b"a\r\n\n \t\r\n b\nc").collect();
        assert_eq!(found, [(0, b"a".as_slice()), (8, b" b"), (11, b"c")]);
        assert_eq!(lines(b"").count(), 0);
    }

    #[test]
    fn base64_records_are_decoded() {
        for (record, expected) in [
            ("eyJhIjoxfQ==", r#"{"a":1}"#),
            ("eyJhIjoxfQ", r#"{"a":1}"#),
            ("\"eyJhIjoxfQ==\"", r#"{"a":1}"#),
            (" e30= ", "{}"),
            ("eyJhIjox*Q==", "eyJhIjox*Q=="),
            ("W10=", "W10="),
        ] {
            assert_eq!(unwrap(record.as_bytes()), expected.as_bytes(), "{record}");
        }
    }
}
