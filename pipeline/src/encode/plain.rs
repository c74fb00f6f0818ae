//! Encodes values with Parquet's `PLAIN` encoding, which every reader knows.
//!
//! Owns: the bytes of plain numbers and texts. Does not own: which column gets them (`column`).
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>. Numbers are little-endian. A text is its
//! length in four bytes and its bytes.

use crate::encode::delta::Width;

/// Appends whole numbers, or the bits of doubles.
pub(super) fn encode_numbers(values: &[i64], width: Width, out: &mut Vec<u8>) {
    let begin = out.len();
    match width {
        Width::Bits32 => {
            out.resize(begin + size_of::<i32>() * values.len(), 0);
            for (bytes, value) in out[begin..].as_chunks_mut().0.iter_mut().zip(values) {
                #[expect(clippy::cast_possible_truncation, reason = "the column's values are 32 bits wide")]
                let value = *value as i32;
                *bytes = value.to_le_bytes();
            }
        }
        Width::Bits64 => {
            out.resize(begin + size_of_val(values), 0);
            for (bytes, value) in out[begin..].as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
        }
    }
}

/// Appends texts, which are concatenated in `bytes`.
pub(super) fn encode_texts(lengths: &[u32], bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + size_of_val(lengths));
    let mut begin = 0;
    for length in lengths {
        let end = begin + *length as usize;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&bytes[begin..end]);
        begin = end;
    }
}
