//! Dictionaries of columns of numbers: whole numbers, times, doubles.
//!
//! Owns: whether such a column gets a dictionary, and the numbering of its values. Does not own: pages (`column`). Texts have
//! their dictionary since decoding (`columns::intern`).
//!
//! A dictionary is found in one of two ways:
//!
//! - Whole numbers within a small range are marked in a table of that range. The dictionary is sorted at no cost.
//! - Of others a sample decides. If its values repeat, all of them are hashed.
//!
//! A dictionary is used only if it is estimated to be smaller than the plain values after compression.

use std::collections::{HashMap, HashSet};

use crate::encode::gather::{Column, LeafRows};
use crate::encode::levels::bit_width;

/// The largest range that is marked in a table: 1 MiB of memory.
const RANGE_MAX: usize = 1 << 18;
/// The most values in a dictionary of hashed numbers.
const HASHED_MAX: usize = 1 << 16;
/// Values of the sample.
const SAMPLE: usize = 1024;
/// Bits that a plain value takes after compression, beyond those of the range. Measured: zstd's codes are for bytes.
const PLAIN_OVERHEAD_BITS: usize = 2;
/// Bits of a dictionary entry after compression: sorted and dense, or hashed.
const SORTED_ENTRY_BITS: usize = 12;
const HASHED_ENTRY_BITS: usize = 40;
/// Bits of a dictionary page's header and of its compressed frame.
const PAGE_BITS: usize = 8 * 40;

/// What kind of numbers a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    /// The bits of doubles.
    Doubles,
}

/// The dictionary of a column of numbers.
#[derive(Debug)]
pub(super) struct NumberDictionary {
    /// The values, by their number.
    pub(super) values: Vec<i64>,
    /// Whether they are in ascending order.
    pub(super) is_sorted: bool,
    numbers: Numbering,
}

#[derive(Debug)]
enum Numbering {
    /// For each value of a range that begins at `base`, its number.
    Range {
        base: i64,
        table: Vec<u32>,
    },
    Hashed(HashMap<i64, u32, Mix>),
}

impl NumberDictionary {
    /// The dictionary of a leaf's rows; `None` if plain values are smaller. Leaves the first batch in `column` if there is
    /// only one.
    pub(super) fn find(rows: &LeafRows<'_>, column: &mut Column, kind: Kind) -> Option<Self> {
        column.gather(rows, 0);
        if kind == Kind::Whole
            && let Some(marked) = Marked::new(&column.numbers, rows.batches() > 1)
        {
            return marked.dictionary(rows, column);
        }
        let sample: HashSet<i64, Mix> = column.numbers.iter().take(SAMPLE).copied().collect();
        if sample.is_empty() || sample.len() * 2 > column.numbers.len().min(SAMPLE) {
            return None;
        }
        Self::hashed(rows, column, kind)
    }

    fn hashed(rows: &LeafRows<'_>, column: &mut Column, kind: Kind) -> Option<Self> {
        let mut numbers: HashMap<i64, u32, Mix> = HashMap::default();
        let mut values: Vec<i64> = Vec::new();
        let mut count = 0;
        for batch in 0..rows.batches() {
            if batch > 0 {
                column.gather(rows, batch);
            }
            count += column.numbers.len();
            for value in &column.numbers {
                let next = u32::try_from(values.len()).ok()?;
                if *numbers.entry(*value).or_insert(next) == next {
                    values.push(*value);
                }
            }
            if values.len() > HASHED_MAX {
                return None;
            }
        }
        let plain_bits = match kind {
            // Doubles that repeat are worth it: they have no high bytes in common.
            Kind::Doubles => usize::MAX,
            Kind::Whole => count * plain_bits(*values.iter().min()?, *values.iter().max()?),
        };
        let bits = PAGE_BITS + values.len() * HASHED_ENTRY_BITS + count * id_width(values.len()) as usize;
        let dictionary = NumberDictionary { values, is_sorted: false, numbers: Numbering::Hashed(numbers) };
        (bits < plain_bits).then_some(dictionary)
    }

    /// Writes the numbers of these values, all of which the dictionary has, to `ids`.
    pub(super) fn number(&self, values: &[i64], ids: &mut Vec<u32>) {
        ids.clear();
        match &self.numbers {
            Numbering::Range { base, table } => ids.extend(values.iter().map(|value| table[place(*value, *base)])),
            Numbering::Hashed(numbers) => ids.extend(values.iter().map(|value| numbers[value])),
        }
    }
}

/// Values that are marked in a table of their range.
struct Marked {
    base: i64,
    /// 1 for each value that occurs.
    table: Vec<u32>,
}

impl Marked {
    /// An empty table for the range of these values, which are a part of the column if there are `more`. `None` if the range
    /// is too large for them.
    fn new(values: &[i64], more: bool) -> Option<Marked> {
        let first = *values.first()?;
        let (min, max) = values.iter().fold((first, first), |(min, max), value| (min.min(*value), max.max(*value)));
        let range = usize::try_from(max.checked_sub(min)?).ok()?.checked_add(1)?;
        if range > RANGE_MAX || range > 256.max(2 * values.len()) {
            return None;
        }
        if !more {
            return Some(Marked { base: min, table: vec![0; range] });
        }
        // Later values may lie on both sides of the first ones.
        let below = i64::try_from((RANGE_MAX - range) / 2).ok()?;
        Some(Marked { base: min.saturating_sub(below), table: vec![0; RANGE_MAX] })
    }

    fn dictionary(mut self, rows: &LeafRows<'_>, column: &mut Column) -> Option<NumberDictionary> {
        let mut count = 0;
        for batch in 0..rows.batches() {
            if batch > 0 {
                column.gather(rows, batch);
            }
            count += column.numbers.len();
            for value in &column.numbers {
                // Beyond the range: the dictionary would be too large.
                *self.table.get_mut(place(*value, self.base))? = 1;
            }
        }
        let mut values = Vec::new();
        for (value, mark) in (0..).zip(&mut self.table).filter(|(_, mark)| **mark == 1) {
            *mark = u32::try_from(values.len()).ok()?;
            values.push(self.base.wrapping_add(value));
        }
        let plain_bits = count * plain_bits(*values.first()?, *values.last()?);
        let bits = PAGE_BITS + values.len() * SORTED_ENTRY_BITS + count * id_width(values.len()) as usize;
        let numbers = Numbering::Range { base: self.base, table: self.table };
        (bits < plain_bits).then_some(NumberDictionary { values, is_sorted: true, numbers })
    }
}

/// The place of a value in a table that begins at `base`; beyond every table if the value is less.
#[inline]
fn place(value: i64, base: i64) -> usize {
    usize::try_from(value.wrapping_sub(base).cast_unsigned()).unwrap_or(usize::MAX)
}

/// Estimated bits of a plain value after compression.
fn plain_bits(min: i64, max: i64) -> usize {
    PLAIN_OVERHEAD_BITS + (u64::BITS - max.wrapping_sub(min).cast_unsigned().leading_zeros()) as usize
}

/// Bits of a number in a dictionary of this size.
pub(super) fn id_width(entries: usize) -> u32 {
    bit_width(u32::try_from(entries.saturating_sub(1)).unwrap_or(u32::MAX))
}

/// A fast hash of numbers. Its table lives for one column chunk, so collisions cost time and nothing else.
#[derive(Debug, Default, Clone, Copy)]
struct Mix;

impl std::hash::BuildHasher for Mix {
    type Hasher = MixHasher;

    fn build_hasher(&self) -> MixHasher {
        MixHasher(0)
    }
}

struct MixHasher(u64);

impl std::hash::Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }

    fn write_i64(&mut self, value: i64) {
        let mixed = u128::from(value.cast_unsigned() ^ 0xD6E8_FEB8_6659_FD93) * 0x9E37_79B9_7F4A_7C15_u128;
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded together")]
        let folded = mixed as u64 ^ (mixed >> 64) as u64;
        self.0 = folded;
    }
}
