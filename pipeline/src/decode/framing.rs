//! From bytes to the JSON of single records.
//!
//! Owns: the lines of a buffer, and the base64 wrapping that Pinpoint uses if several apps share a stream. Does not own:
//! frames of a stream's records (`chunk`), scanning a record (`scan`).

use std::ops::Range;

use crate::decode::text::PADDING;

/// The range of each line of a buffer, without its line end. Blank lines are skipped.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', bytes).chain(std::iter::once(bytes.len()));
    ends.filter_map(move |end| {
        let line = begin..end;
        begin = end + 1;
        trimmed(bytes, line)
    })
}

/// The range of a line without its carriage return; `None` if it is blank.
pub(crate) fn trimmed(bytes: &[u8], line: Range<usize>) -> Option<Range<usize>> {
    let text = bytes.get(line.clone())?;
    let end = line.start + if text.ends_with(b"\r") { text.len() - 1 } else { text.len() };
    let blank = bytes[line.start..end].iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    (!blank).then_some(line.start..end)
}

/// Bytes reserved for decoded records, once a chunk has one that is wrapped in base64.
const WRAPPED_BYTES_MIN: usize = 1 << 18;

/// The range of the record's JSON. If the record is base64 of something that begins like an object, it is decoded at the
/// end of the buffer; otherwise the range is that of the record.
pub(crate) fn unwrap_base64(buffer: &mut Vec<u8>, bytes: Range<usize>) -> Range<usize> {
    let record = &buffer[bytes.clone()];
    // The base64 may be in a JSON string.
    let text = record.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(record).trim_ascii();
    // `{` and a quote or space encode to `ey`, `{` and a line end to `ew`, `{}` to `e3`.
    if !matches!(text, [b'e', b'y' | b'w' | b'3', _, _, ..]) {
        return bytes;
    }
    let decoded =
        base64_simd::STANDARD.decode_to_vec(text).or_else(|_| base64_simd::STANDARD_NO_PAD.decode_to_vec(text));
    let Ok(decoded) = decoded else { return bytes };
    if decoded.first() != Some(&b'{') {
        return bytes;
    }
    append(buffer, &decoded)
}

/// Appends a decoded text to the buffer, with the padding that a scan needs. Returns its range.
pub(crate) fn append(buffer: &mut Vec<u8>, decoded: &[u8]) -> Range<usize> {
    let start = buffer.len();
    let end = start + decoded.len();
    if buffer.capacity() < end + PADDING {
        // Grow a little at a time: doubling a chunk for its only wrapped record would waste memory.
        buffer.reserve_exact((decoded.len() + PADDING).max(WRAPPED_BYTES_MIN));
    }
    buffer.extend_from_slice(decoded);
    buffer.resize(end + PADDING, 0);
    start..end
}
