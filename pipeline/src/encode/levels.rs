//! Encodes levels and dictionary ids with Parquet's hybrid of run lengths and bit packing.
//!
//! Owns: the hybrid encoding, bit packing, variable-length integers. Does not own: what is encoded (`column`).
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/> ("Run Length Encoding / Bit-Packing
//! Hybrid"). A run of eight or more equal values is written as a run length. Everything between is bit-packed in groups of
//! eight, the last one padded with zeros.

/// The number of bits that every value up to `max` fits in.
pub(crate) fn bit_width(max: u32) -> u32 {
    u32::BITS - max.leading_zeros()
}

/// Appends values of `width` bits each.
pub(crate) fn encode<T: Copy + PartialEq + Into<u32>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let mut at = 0;
    while at < values.len() {
        let run = run_length(&values[at..]);
        if run >= 8 || at + run == values.len() {
            encode_run(values[at].into(), run, width, out);
            at += run;
            continue;
        }
        let mut end = at + 8;
        while end < values.len() && !begins_run(&values[end..]) {
            end += 8;
        }
        let literal = &values[at..end.min(values.len())];
        let groups = literal.len().div_ceil(8);
        write_varint((groups as u64) << 1 | 1, out);
        pack_groups(literal, width, out);
        at = end;
    }
}

/// Appends one value `count` times.
pub(crate) fn encode_run(value: u32, count: usize, width: u32, out: &mut Vec<u8>) {
    write_varint((count as u64) << 1, out);
    let bytes = value.to_le_bytes();
    out.extend_from_slice(&bytes[..width.div_ceil(8) as usize]);
}

fn run_length<T: Copy + PartialEq>(values: &[T]) -> usize {
    let first = values[0];
    values.iter().take_while(|value| **value == first).count()
}

fn begins_run<T: Copy + PartialEq>(values: &[T]) -> bool {
    values.first_chunk::<8>().is_some_and(|group| group[1..].iter().all(|value| *value == group[0]))
}

/// Appends values of `width` bits each in groups of eight, lowest bits first. The last group is padded with zeros.
fn pack_groups<T: Copy + Into<u32>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let groups = values.len().div_ceil(8);
    if width > 16 {
        return pack(values.iter().map(|value| u64::from((*value).into())), groups * 8, width, out);
    }
    // A group of eight values has as many bytes as a value has bits. Each half fits in 64 bits. A group is written as 16
    // bytes; the next group overwrites those that are too many.
    let mut at = out.len();
    let end = at + groups * width as usize;
    out.resize(end + 16, 0);
    let half = |values: &[T]| {
        let bits = values.iter().rev().map(|value| u64::from((*value).into()));
        bits.fold(0_u64, |packed, value| packed.unbounded_shl(width) | value)
    };
    let mut write = |low: u64, high: u64| {
        let bytes = (u128::from(low) | u128::from(high) << (4 * width)).to_le_bytes();
        out[at..at + 16].copy_from_slice(&bytes);
        at += width as usize;
    };
    let (whole, rest) = values.as_chunks::<8>();
    for group in whole {
        write(half(&group[..4]), half(&group[4..]));
    }
    if !rest.is_empty() {
        write(half(&rest[..rest.len().min(4)]), half(rest.get(4..).unwrap_or_default()));
    }
    out.truncate(end);
}

/// Appends `count` values of `width` bits each, lowest bits first. Values that the iterator lacks are 0.
pub(crate) fn pack(values: impl Iterator<Item = u64>, count: usize, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let end = out.len() + (count * width as usize).div_ceil(8);
    out.reserve(end - out.len() + 16);
    let mut bits: u128 = 0;
    let mut filled = 0;
    for value in values {
        bits |= u128::from(value) << filled;
        filled += width;
        if filled >= 64 {
            #[expect(clippy::cast_possible_truncation, reason = "the low half is taken")]
            out.extend_from_slice(&(bits as u64).to_le_bytes());
            bits >>= 64;
            filled -= 64;
        }
    }
    if filled > 0 {
        out.extend_from_slice(&bits.to_le_bytes()[..filled.div_ceil(8) as usize]);
    }
    out.resize(end, 0);
}

/// Appends an unsigned integer as LEB128.
pub(crate) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn decode(mut bytes: &[u8], width: u32, count: usize) -> Vec<u32> {
        let mut values = Vec::new();
        while values.len() < count {
            let header = read_varint(&mut bytes);
            let length = usize::try_from(header >> 1).unwrap();
            if header & 1 == 0 {
                let size = width.div_ceil(8) as usize;
                let mut value = [0; 4];
                value[..size].copy_from_slice(&bytes[..size]);
                bytes = &bytes[size..];
                values.extend(std::iter::repeat_n(u32::from_le_bytes(value), length));
            } else {
                let size = length * width as usize;
                for n in 0..length * 8 {
                    let mut value = 0;
                    for bit in 0..width as usize {
                        let at = n * width as usize + bit;
                        value |= u32::from(bytes[at / 8] >> (at % 8) & 1) << bit;
                    }
                    values.push(value);
                }
                bytes = &bytes[size..];
            }
        }
        assert!(bytes.is_empty(), "nothing is left over");
        values.truncate(count);
        values
    }

    proptest! {
        #[test]
        fn values_round_trip(
            runs in prop::collection::vec((any::<u32>(), 1_usize..30), 0..30),
            width in 1_u32..=32,
        ) {
            let mask = u32::MAX >> (32 - width);
            let values: Vec<u32> =
                runs.iter().flat_map(|(value, count)| std::iter::repeat_n(value & mask, *count)).collect();
            let mut out = Vec::new();
            encode(&values, width, &mut out);
            prop_assert_eq!(decode(&out, width, values.len()), values);
        }
    }

    #[test]
    fn constant_values_take_a_few_bytes() {
        let mut out = Vec::new();
        encode(&vec![1_u8; 20_000], 1, &mut out);
        assert!(out.len() <= 4);
        assert_eq!([bit_width(0), bit_width(1), bit_width(3), bit_width(255), bit_width(256)], [0, 1, 2, 8, 9]);
    }
}
