//! Texts of files and objects, whatever keeps them.
//!
//! Owns: decompressing a text (`decompress`), and cutting the text of a complete file or object into records (`complete`). Raw objects whose
//! lines have identities (`members`, `identified`). Records that a delivery stream could not process (`failures`). Whether a text is a
//! complete document. Does not own: which files and objects there are, or reading their bytes (`files`, `objects`, `replay`).

pub(in crate::source) mod complete;
pub(in crate::source) mod decompress;
mod failures;
pub(in crate::source) mod identified;
pub(in crate::source) mod members;
pub(crate) mod raw_lines;
#[cfg(test)]
pub(in crate::source) mod testing;

/// The arrival time of records of a text that was modified at this time, in milliseconds since 1970. A modification time in the future,
/// or at the beginning of a calendar (of Unix, or of DOS in 1980), is not a time of arrival: then it is the time of reading, `now_ms`.
pub(in crate::source) fn arrival_of(modified_ms: i64, now_ms: i64) -> i64 {
    const TWO_DAYS: i64 = 2 * 86_400_000;
    const DOS_EPOCH: i64 = 315_532_800_000;
    let is_known = modified_ms >= TWO_DAYS && (modified_ms - DOS_EPOCH).abs() >= TWO_DAYS && modified_ms <= now_ms;
    if is_known { modified_ms } else { now_ms }
}

/// Whether a text without a line end is a complete record: a JSON document, or one in base64. What can still become one by more bytes
/// is not, and neither is a number or a word, which may continue.
pub(in crate::source) fn is_complete(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text).trim_ascii();
    match text.first() {
        Some(b'{' | b'[') => is_closed(text),
        Some(b'"') => text.len() > 1 && is_closed(text),
        Some(b'e') if text.len().is_multiple_of(4) => base64_simd::STANDARD
            .decode_to_vec(text)
            .is_ok_and(|decoded| decoded.first() == Some(&b'{') && is_closed(&decoded)),
        _ => false,
    }
}

/// Whether all braces, brackets and strings of a text are closed at its end.
pub(in crate::source) fn is_closed(text: &[u8]) -> bool {
    let (mut depth, mut inside, mut escaped) = (0_i64, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'{' | b'[' if !inside => depth += 1,
            b'}' | b']' if !inside => depth -= 1,
            _ => {}
        }
    }
    // With too many closing ones it is malformed, and no more bytes can change that.
    depth <= 0 && !inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_more_bytes_could_complete_is_not_complete() {
        let cases: [(&[u8], bool); 12] = [
            (b"{\"a\":1}", true),
            (b" {\"a\":[1,{\"b\":\"}\"}]} \r", true),
            (b"\xEF\xBB\xBF{}", true),
            (b"{\"a\":1}}", true),
            (b"eyJhIjoxfQ==", true),
            (b"{\"a\":1", false),
            (b"{\"a\":\"}", false),
            (b"[{\"a\":1},", false),
            (b"eyJhIjox", false),
            (b"12", false),
            (b"2025-01-13 INFO", false),
            (b"", false),
        ];
        for (text, expected) in cases {
            assert_eq!(is_complete(text), expected, "{}", String::from_utf8_lossy(text));
        }
        let whole = b"{\"a\":{\"b\":[1,\"}\\\"]\"]}}";
        assert!((1..whole.len()).all(|end| !is_complete(&whole[..end])) && is_complete(whole));
    }
}
