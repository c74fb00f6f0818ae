//! Rows in memory, column by column, block by block, until their partition is encoded.
//!
//! Owns: the compact form of a block of values, and reading a run of it. A value takes as many bytes as the block needs, and
//! none if the block is constant or entirely null. Does not own: what the values mean, dictionaries, the partition of a row.
//!
//! A block holds the rows of one micro-batch in the order of their partitions. So the rows of a partition are one run in each
//! block. Values are i64 or null.
//!
//! Limits: 2^32 values in a block.

use std::ops::Range;

use crate::columns::segments::{At, Segments};

/// Values of one column in blocks.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    blocks: Vec<Block>,
    data: Segments,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    /// Where its bytes begin.
    at: At,
    /// The value that the stored numbers are relative to.
    base: i64,
    /// Bytes of a value: 0, 1, 2, 4 or 8.
    width: u8,
    nulls: Nulls,
    count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nulls {
    None,
    All,
    /// A stored 0 is null, and every other number is one too large.
    Zero,
    /// A bitmap of valid values follows the values.
    Bitmap,
}

/// Values that were read from runs.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The values that are not null.
    pub(crate) values: Vec<i64>,
    /// For each value, whether it is present; empty if none is null.
    pub(crate) valid: Vec<bool>,
    /// How many values there are, nulls included.
    pub(crate) count: usize,
}

impl Gathered {
    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.valid.clear();
        self.count = 0;
    }

    fn note_valid(&mut self, count: usize) {
        if !self.valid.is_empty() {
            self.valid.resize(self.count + count, true);
        }
        self.count += count;
    }

    fn begin_nulls(&mut self) {
        if self.valid.is_empty() {
            self.valid.resize(self.count, true);
        }
    }
}

impl Packed {
    /// Adds a block in which every value is null.
    pub(crate) fn push_nulls(&mut self, count: usize) {
        self.push_block(At::default(), 0, 0, Nulls::All, count);
    }

    /// Adds a block in which every value is the same.
    pub(crate) fn push_constant(&mut self, value: i64, count: usize) {
        self.push_block(At::default(), value, 0, Nulls::None, count);
    }

    fn push_block(&mut self, at: At, base: i64, width: u8, nulls: Nulls, count: usize) {
        let count = u32::try_from(count).expect("a block has under 2^32 values");
        self.blocks.push(Block { at, base, width, nulls, count });
    }

    /// Adds a block of values. A value whose `valid` is false is null; without `valid`, none is null.
    pub(crate) fn push(&mut self, values: &[i64], valid: Option<&[bool]>) {
        let valid = valid.filter(|valid| valid.iter().any(|valid| !valid));
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        match valid {
            None => {
                for &value in values {
                    min = min.min(value);
                    max = max.max(value);
                }
            }
            Some(valid) => {
                for (&value, _) in values.iter().zip(valid).filter(|(_, valid)| **valid) {
                    min = min.min(value);
                    max = max.max(value);
                }
            }
        }
        if min > max {
            return self.push_nulls(values.len());
        }
        let range = max.wrapping_sub(min).cast_unsigned();
        if range == 0 && valid.is_none() {
            return self.push_constant(min, values.len());
        }
        let nulls = if valid.is_some() { Nulls::Zero } else { Nulls::None };
        let largest = range.saturating_add(u64::from(valid.is_some()));
        let width = match largest {
            0..0x100 => 1,
            0x100..0x1_0000 => 2,
            0x1_0000..0x1_0000_0000 => 4,
            _ => 8,
        };
        let nulls = if width == 8 && valid.is_some() { Nulls::Bitmap } else { nulls };
        let base = if width == 8 { 0 } else { min };
        let bitmap = if nulls == Nulls::Bitmap { values.len().div_ceil(8) } else { 0 };
        let (at, data) = self.data.begin(values.len() * usize::from(width) + bitmap);
        let stored = |n: usize, value: i64| match nulls {
            Nulls::Zero if valid.is_some_and(|valid| !valid[n]) => 0,
            Nulls::Zero => value.wrapping_sub(base).wrapping_add(1),
            _ => value.wrapping_sub(base),
        };
        let numbers = values.iter().enumerate().map(|(n, value)| stored(n, *value));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the width was chosen to fit")]
        match width {
            1 => data.extend(numbers.map(|number| number as u8)),
            2 => numbers.for_each(|number| data.extend_from_slice(&(number as u16).to_le_bytes())),
            4 => numbers.for_each(|number| data.extend_from_slice(&(number as u32).to_le_bytes())),
            _ => numbers.for_each(|number| data.extend_from_slice(&number.to_le_bytes())),
        }
        if let (Nulls::Bitmap, Some(valid)) = (nulls, valid) {
            data.extend(
                valid
                    .chunks(8)
                    .map(|bits| bits.iter().enumerate().fold(0_u8, |byte, (n, valid)| byte | u8::from(*valid) << n)),
            );
        }
        self.push_block(at, base, width, nulls, values.len());
    }

    /// Reads a run of a block, appending to `out`.
    pub(crate) fn read(&self, block: usize, start: usize, len: usize, out: &mut Gathered) {
        let Block { at, base, width, nulls, count } = self.blocks[block];
        assert!(start + len <= count as usize, "a run lies inside its block");
        if nulls == Nulls::All {
            out.begin_nulls();
            out.count += len;
            out.valid.resize(out.count, false);
            return;
        }
        let size = usize::from(width);
        let bytes = if size == 0 { &[] } else { self.data.bytes(at, start * size, (start + len) * size) };
        if nulls == Nulls::None {
            out.note_valid(len);
            match width {
                0 => out.values.extend(std::iter::repeat_n(base, len)),
                1 => out.values.extend(bytes.iter().map(|byte| base + i64::from(*byte))),
                2 => out.values.extend(bytes.as_chunks().0.iter().map(|b| base + i64::from(u16::from_le_bytes(*b)))),
                4 => out.values.extend(bytes.as_chunks().0.iter().map(|b| base + i64::from(u32::from_le_bytes(*b)))),
                _ => out.values.extend(bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b))),
            }
            return;
        }
        out.begin_nulls();
        out.count += len;
        let mut take = |valid: bool, value: i64| {
            out.valid.push(valid);
            if valid {
                out.values.push(value);
            }
        };
        if nulls == Nulls::Bitmap {
            let end = count as usize * size;
            let bitmap = self.data.bytes(at, end, end + (count as usize).div_ceil(8));
            for (n, value) in bytes.as_chunks().0.iter().enumerate() {
                let place = start + n;
                take(bitmap[place / 8] >> (place % 8) & 1 == 1, i64::from_le_bytes(*value));
            }
            return;
        }
        let base = base.wrapping_sub(1);
        match width {
            1 => bytes.iter().for_each(|byte| take(*byte != 0, base.wrapping_add(i64::from(*byte)))),
            2 => bytes.as_chunks().0.iter().map(|b| i64::from(u16::from_le_bytes(*b))).for_each(|number| {
                take(number != 0, base.wrapping_add(number));
            }),
            _ => bytes.as_chunks().0.iter().map(|b| i64::from(u32::from_le_bytes(*b))).for_each(|number| {
                take(number != 0, base.wrapping_add(number));
            }),
        }
    }

    /// One value of a block that has no nulls.
    pub(crate) fn get(&self, block: usize, place: usize) -> i64 {
        let Block { at, base, width, .. } = self.blocks[block];
        if width == 0 {
            return base;
        }
        let size = usize::from(width);
        match *self.data.bytes(at, place * size, (place + 1) * size) {
            [byte] => base + i64::from(byte),
            [low, high] => base + i64::from(u16::from_le_bytes([low, high])),
            ref bytes if size == 4 => {
                base + bytes.first_chunk().map_or(0, |bytes| i64::from(u32::from_le_bytes(*bytes)))
            }
            ref bytes => bytes.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes)),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.data.memory() + self.blocks.capacity() * size_of::<Block>()
    }
}

/// Byte strings of one column in blocks, for values that hardly repeat.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    /// Length plus one of each value; 0 is null.
    lengths: Packed,
    /// Where each block's bytes begin.
    begins: Vec<At>,
    data: Segments,
}

/// Byte strings that were read from runs.
#[derive(Debug, Default)]
pub(crate) struct GatheredStrings {
    /// The strings that are not null, concatenated.
    pub(crate) bytes: Vec<u8>,
    /// The length of each.
    pub(crate) lengths: Vec<u32>,
    /// For each value, whether it is present; empty if none is null.
    pub(crate) valid: Vec<bool>,
    /// How many values there are, nulls included.
    pub(crate) count: usize,
    scratch: Gathered,
}

impl GatheredStrings {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
        self.valid.clear();
        self.count = 0;
    }
}

impl Strings {
    /// Adds a block of values.
    pub(crate) fn push<'v>(&mut self, values: impl Iterator<Item = Option<&'v [u8]>> + Clone, scratch: &mut Vec<i64>) {
        scratch.clear();
        let mut bytes = 0;
        for value in values.clone() {
            scratch.push(value.map_or(0, |value| i64::try_from(value.len()).unwrap_or(i64::MAX) + 1));
            bytes += value.map_or(0, <[u8]>::len);
        }
        let (at, data) = self.data.begin(bytes);
        self.begins.push(at);
        values.flatten().for_each(|value| data.extend_from_slice(value));
        self.lengths.push(scratch, None);
    }

    /// How many values of a part of a block are not null.
    pub(crate) fn count(&self, block: usize, part: Range<usize>, scratch: &mut Gathered) -> usize {
        scratch.clear();
        self.lengths.read(block, part.start, part.len(), scratch);
        scratch.values.iter().filter(|length| **length != 0).count()
    }

    /// Reads a run of a block, appending to `out`.
    pub(crate) fn read(&self, block: usize, start: usize, len: usize, out: &mut GatheredStrings) {
        let GatheredStrings { bytes, lengths, valid, count, scratch } = out;
        scratch.clear();
        self.lengths.read(block, 0, start, scratch);
        let skipped: i64 = scratch.values.iter().map(|length| (length - 1).max(0)).sum();
        scratch.clear();
        self.lengths.read(block, start, len, scratch);
        let begin = usize::try_from(skipped).unwrap_or(0);
        let mut end = begin;
        for &length in &scratch.values {
            match u32::try_from(length - 1) {
                Ok(length) => {
                    lengths.push(length);
                    end += length as usize;
                    if !valid.is_empty() {
                        valid.push(true);
                    }
                }
                Err(_) => {
                    valid.resize(*count, true);
                    valid.push(false);
                }
            }
            *count += 1;
        }
        bytes.extend_from_slice(self.data.bytes(self.begins[block], begin, end));
    }

    pub(crate) fn memory(&self) -> usize {
        self.lengths.memory() + self.data.memory() + self.begins.capacity() * size_of::<At>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks() -> impl Strategy<Value = Vec<Vec<Option<i64>>>> {
        let value = prop_oneof![
            3 => (0_i64..10).prop_map(Some),
            2 => (-70_000_i64..70_000).prop_map(Some),
            1 => any::<i64>().prop_map(Some),
            2 => Just(None),
        ];
        let one = any::<i64>().prop_flat_map(|value| prop::collection::vec(Just(Some(value)), 1..20));
        let none = prop::collection::vec(Just(None), 1..20);
        let few = prop::collection::vec((0_i64..200).prop_map(Some), 1..40);
        let any = prop::collection::vec(value, 1..40);
        prop::collection::vec(prop_oneof![one, none, few, any], 1..6)
    }

    proptest! {
        #[test]
        fn runs_of_numbers_round_trip(blocks in blocks(), cuts in any::<prop::sample::Index>()) {
            let mut packed = Packed::default();
            for block in &blocks {
                let values: Vec<i64> = block.iter().map(|value| value.unwrap_or(-7)).collect();
                let valid: Vec<bool> = block.iter().map(Option::is_some).collect();
                packed.push(&values, Some(&valid));
            }
            let mut out = Gathered::default();
            let mut expected = Vec::new();
            for (number, block) in blocks.iter().enumerate() {
                let start = cuts.index(block.len());
                packed.read(number, start, block.len() - start, &mut out);
                expected.extend_from_slice(&block[start..]);
            }
            let values: Vec<i64> = expected.iter().copied().flatten().collect();
            prop_assert_eq!(&out.values, &values);
            prop_assert_eq!(out.count, expected.len());
            if out.values.len() < out.count {
                let valid: Vec<bool> = expected.iter().map(Option::is_some).collect();
                prop_assert_eq!(&out.valid, &valid);
            }
        }

        #[test]
        fn runs_of_strings_round_trip(
            blocks in prop::collection::vec(prop::collection::vec(prop::option::of("[a-c]{0,5}"), 1..20), 1..5),
            cuts in any::<prop::sample::Index>(),
        ) {
            let mut strings = Strings::default();
            let mut scratch = Vec::new();
            for block in &blocks {
                strings.push(block.iter().map(|value| value.as_ref().map(String::as_bytes)), &mut scratch);
            }
            let mut out = GatheredStrings::default();
            let mut expected = Vec::new();
            for (number, block) in blocks.iter().enumerate() {
                let start = cuts.index(block.len());
                strings.read(number, start, block.len() - start, &mut out);
                expected.extend_from_slice(&block[start..]);
            }
            let text: String = expected.iter().flatten().map(String::as_str).collect();
            prop_assert_eq!(out.bytes.as_slice(), text.as_bytes());
            let lengths: Vec<u32> = expected.iter().flatten().map(|text| u32::try_from(text.len()).unwrap()).collect();
            prop_assert_eq!(&out.lengths, &lengths);
            prop_assert_eq!(out.count, expected.len());
            if !out.valid.is_empty() {
                let valid: Vec<bool> = expected.iter().map(Option::is_some).collect();
                prop_assert_eq!(&out.valid, &valid);
            } else {
                prop_assert_eq!(lengths.len(), expected.len());
            }
        }
    }

    #[test]
    fn single_values_are_found() {
        let mut packed = Packed::default();
        packed.push(&[5, 300, 7], None);
        packed.push_constant(9, 4);
        packed.push(&[i64::MIN, i64::MAX], None);
        assert_eq!(
            [packed.get(0, 1), packed.get(1, 3), packed.get(2, 0), packed.get(2, 1)],
            [300, 9, i64::MIN, i64::MAX]
        );
    }
}
