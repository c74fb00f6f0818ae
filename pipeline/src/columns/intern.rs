//! One dictionary: each distinct byte string gets a number, in the order of first sight.
//!
//! Number 0 is null, so the first value is 1. A look-up is one hash, one cache line, one compare. The hash is seeded, so
//! that nobody who writes records can choose values that collide; the seed never shows in the output, since numbers
//! follow the order of sight.
//!
//! Limits: 4 GiB of values. Nothing is ever removed.

use std::mem::size_of;

/// A dictionary under construction.
#[derive(Debug, Clone)]
pub(crate) struct Interner {
    /// Open addressing, a power of two: the hash's high half, then the number; 0 is empty.
    table: Vec<u64>,
    /// Place and length of each value; number 1 first.
    spans: Vec<(u32, u32)>,
    bytes: Vec<u8>,
    seed: u64,
}

impl Interner {
    pub(crate) fn new(seed: u64) -> Self {
        Interner { table: vec![0; 16], spans: Vec::new(), bytes: Vec::new(), seed }
    }

    /// The number of a value; `true` if it is new.
    #[inline]
    pub(crate) fn intern(&mut self, value: &[u8]) -> (u32, bool) {
        let hash = hash(value, self.seed);
        let mask = self.table.len() - 1;
        let tag = hash & TAG;
        let mut at = place(hash) & mask;
        loop {
            let entry = self.table[at];
            if entry == 0 {
                return (self.insert(value, at, tag), true);
            }
            if entry & TAG == tag {
                let number = (entry & !TAG) as u32;
                if self.get(number) == value {
                    return (number, false);
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn insert(&mut self, value: &[u8], at: usize, tag: u64) -> u32 {
        let number = u32::try_from(self.spans.len() + 1).expect("a dictionary is cleared long before 2^32 values");
        let place = u32::try_from(self.bytes.len()).expect("a dictionary is cleared long before 4 GiB");
        self.table[at] = tag | u64::from(number);
        #[expect(clippy::cast_possible_truncation, reason = "a value lies in a chunk, which is under 2 GiB")]
        self.spans.push((place, value.len() as u32));
        self.bytes.extend_from_slice(value);
        if self.spans.len() * 2 > self.table.len() {
            self.grow();
        }
        number
    }

    fn grow(&mut self) {
        let size = self.table.len() * 2;
        let mut table = vec![0; size];
        for number in 1..=self.spans.len() {
            #[expect(clippy::cast_possible_truncation, reason = "checked when it was inserted")]
            let number = number as u32;
            let hash = hash(self.get(number), self.seed);
            let mut at = place(hash) & (size - 1);
            while table[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            table[at] = hash & TAG | u64::from(number);
        }
        self.table = table;
    }

    /// The value of a number.
    ///
    /// # Panics
    /// If it is 0 (null) or was never given out.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        let (at, len) = self.spans[number as usize - 1];
        &self.bytes[at as usize..at as usize + len as usize]
    }

    /// How many distinct values there are.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        self.table.len() * size_of::<u64>() + self.spans.capacity() * size_of::<(u32, u32)>() + self.bytes.capacity()
    }
}

/// The part of a table's entry that holds the hash's high half.
const TAG: u64 = 0xFFFF_FFFF_0000_0000;

/// Where a hash's probes begin, before the mask: its high bits are its best.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 20) as usize
}

/// A seeded hash of a byte string by folded multiplication (the idea of wyhash and foldhash): 16 bytes a step.
#[inline]
fn hash(value: &[u8], seed: u64) -> u64 {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    let mut state = seed ^ value.len() as u64;
    let (low, high) = match value.len() {
        0 => (0, 0),
        1..4 => (u64::from(value[0]) << 8 | u64::from(value[value.len() / 2]), u64::from(value[value.len() - 1])),
        4..8 => (value.first_chunk().map_or(0, half), value.last_chunk().map_or(0, half)),
        8..=16 => (value.first_chunk().map_or(0, word), value.last_chunk().map_or(0, word)),
        _ => {
            let (pairs, _) = value.as_chunks::<16>();
            // The last 16 bytes are taken below, whether or not they overlap the last whole pair.
            for pair in &pairs[..(value.len() - 1) / 16] {
                let (low, high) = pair.split_at(8);
                let low = low.first_chunk().map_or(0, word);
                let high = high.first_chunk().map_or(0, word);
                state = fold(low ^ state, high ^ FIRST);
            }
            let tail = &value[value.len() - 16..];
            (tail.first_chunk().map_or(0, word), tail.last_chunk().map_or(0, word))
        }
    };
    let folded = fold(low ^ state, high ^ SECOND);
    // Values that differ in a few digits differ in a few bits of the product: spread them over the whole word.
    (folded ^ folded >> 29).wrapping_mul(FIRST)
}

const FIRST: u64 = 0x9E37_79B9_7F4A_7C15;
const SECOND: u64 = 0xD6E8_FEB8_6659_FD93;

#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded together")]
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_numbers_values_as_a_map_would(
            values in prop::collection::vec(prop::collection::vec(0_u8..4, 0..40), 0..400),
            seed in any::<u64>(),
        ) {
            let mut interner = Interner::new(seed);
            let mut expected: HashMap<Vec<u8>, u32> = HashMap::new();
            for value in &values {
                let next = u32::try_from(expected.len() + 1).unwrap();
                let new = !expected.contains_key(value);
                let number = *expected.entry(value.clone()).or_insert(next);
                prop_assert_eq!(interner.intern(value), (number, new));
                prop_assert_eq!(interner.get(number), value.as_slice());
            }
            prop_assert_eq!(interner.len(), expected.len());
        }
    }

    #[test]
    fn hashes_spread() {
        let mut low: HashMap<usize, u32> = HashMap::new();
        for n in 0..4096 {
            *low.entry(place(hash(format!("u-{n:06}").as_bytes(), 7)) & 4095).or_default() += 1;
        }
        assert!(low.len() > 2400, "{} of 4096 slots are hit", low.len());
        assert!(low.values().all(|count| *count < 12));
    }
}
