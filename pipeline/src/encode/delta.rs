//! Encodes numbers and texts with Parquet's delta encodings.
//!
//! Owns: `DELTA_BINARY_PACKED`, `DELTA_LENGTH_BYTE_ARRAY` and `DELTA_BYTE_ARRAY`. Does not own: which column gets which
//! (`column`).
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>. Blocks have 128 values in four miniblocks
//! of 32.

use crate::encode::levels::{pack, write_varint};

const BLOCK: usize = 128;
const MINIBLOCKS: usize = 4;
const MINIBLOCK: usize = BLOCK / MINIBLOCKS;

/// The width of a column's numbers. Differences wrap around within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Bits32,
    Bits64,
}

/// Appends whole numbers as `DELTA_BINARY_PACKED`.
pub(crate) fn encode_numbers(values: &[i64], width: Width, out: &mut Vec<u8>) {
    write_varint(BLOCK as u64, out);
    write_varint(MINIBLOCKS as u64, out);
    write_varint(values.len() as u64, out);
    write_zigzag(values.first().copied().unwrap_or(0), out);
    let mut deltas = [0_i64; BLOCK];
    let mut previous = values.first().copied().unwrap_or(0);
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        for (delta, &value) in deltas.iter_mut().zip(block) {
            *delta = difference(value, previous, width);
            previous = value;
        }
        let deltas = &deltas[..block.len()];
        let min = deltas.iter().copied().min().unwrap_or(0);
        write_zigzag(min, out);
        let widths = out.len();
        out.extend_from_slice(&[0; MINIBLOCKS]);
        for (number, miniblock) in deltas.chunks(MINIBLOCK).enumerate() {
            let above = |delta: &i64| match width {
                Width::Bits32 => delta.wrapping_sub(min).cast_unsigned() & u64::from(u32::MAX),
                Width::Bits64 => delta.wrapping_sub(min).cast_unsigned(),
            };
            let bits = u64::BITS - miniblock.iter().map(above).fold(0, |all, value| all | value).leading_zeros();
            out[widths + number] = bits.to_le_bytes()[0];
            pack(miniblock.iter().map(above), MINIBLOCK, bits, out);
        }
    }
}

#[inline]
fn difference(value: i64, previous: i64, width: Width) -> i64 {
    match width {
        #[expect(clippy::cast_possible_truncation, reason = "the column's values are 32 bits wide")]
        Width::Bits32 => i64::from((value as i32).wrapping_sub(previous as i32)),
        Width::Bits64 => value.wrapping_sub(previous),
    }
}

fn write_zigzag(value: i64, out: &mut Vec<u8>) {
    write_varint((value << 1 ^ value >> 63).cast_unsigned(), out);
}

/// Appends texts as `DELTA_LENGTH_BYTE_ARRAY`: all lengths, then all bytes.
pub(crate) fn encode_texts(lengths: &[u32], bytes: &[u8], scratch: &mut Vec<i64>, out: &mut Vec<u8>) {
    scratch.clear();
    scratch.extend(lengths.iter().map(|length| i64::from(*length)));
    encode_numbers(scratch, Width::Bits32, out);
    out.extend_from_slice(bytes);
}

/// Appends texts as `DELTA_BYTE_ARRAY`: the length of the prefix that each shares with the one before it, then the rest.
pub(crate) fn encode_prefixed(lengths: &[u32], bytes: &[u8], scratch: &mut Vec<i64>, out: &mut Vec<u8>) {
    scratch.clear();
    let mut suffix_lengths = Vec::with_capacity(lengths.len());
    let mut suffixes = Vec::with_capacity(bytes.len() / 2);
    let mut at = 0;
    let mut previous: &[u8] = &[];
    for &length in lengths {
        let text = &bytes[at..at + length as usize];
        at += length as usize;
        let shared = text.iter().zip(previous).take_while(|(left, right)| left == right).count();
        scratch.push(i64::try_from(shared).unwrap_or(0));
        suffix_lengths.push(length - u32::try_from(shared).unwrap_or(0));
        suffixes.extend_from_slice(&text[shared..]);
        previous = text;
    }
    encode_numbers(scratch, Width::Bits32, out);
    encode_texts(&suffix_lengths, &suffixes, scratch, out);
}
