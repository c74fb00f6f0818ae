//! One dictionary: each distinct byte string gets a number, in the order of first occurrence.
//!
//! Owns: the values and their numbers. Does not own: what the values mean.
//!
//! Number 0 is null, so the first value is 1. A lookup is one hash, one cache line, one compare. The hash is seeded, so that
//! nobody who writes records can choose values that collide. The seed never affects the output, because numbers follow the
//! order of occurrence.
//!
//! Limits: 4 GiB of values. Nothing is ever removed.

use std::mem::size_of;

/// A dictionary under construction.
#[derive(Debug, Clone)]
pub(crate) struct Interner {
    /// Open addressing, a power of two: the hash's high half, then the number; 0 is empty.
    table: Vec<u64>,
    /// Position and length of each value; number 1 first.
    spans: Vec<(u32, u32)>,
    bytes: Vec<u8>,
    seed: u64,
    /// The number of the last value; 0 at first. Producers often repeat a value.
    last: u32,
    /// The numbers of values of one byte (choices, flags), 0 if there is none; empty before the first such value.
    single: Vec<u32>,
}

impl Interner {
    pub(crate) fn new(seed: u64) -> Self {
        Interner { table: vec![0; 16], spans: Vec::new(), bytes: Vec::new(), seed, last: 0, single: Vec::new() }
    }

    /// The number of a value; `true` if it is new.
    #[inline]
    pub(crate) fn intern(&mut self, value: &[u8]) -> (u32, bool) {
        if let [byte] = value {
            return self.intern_byte(*byte);
        }
        if self.last != 0 && same(self.get(self.last), value) {
            return (self.last, false);
        }
        let (number, new) = self.find_or_insert(value);
        self.last = number;
        (number, new)
    }

    #[inline]
    fn intern_byte(&mut self, byte: u8) -> (u32, bool) {
        let place = usize::from(byte);
        match self.single.get(place) {
            Some(0) | None => {
                self.single.resize(256, 0);
                self.single[place] = self.append(&[byte]);
                (self.single[place], true)
            }
            Some(number) => (*number, false),
        }
    }

    #[inline]
    fn find_or_insert(&mut self, value: &[u8]) -> (u32, bool) {
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
                if same(self.get(number), value) {
                    return (number, false);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Whether it is too large for the processor's cache, so that [`Interner::warm`] pays off.
    pub(crate) fn is_large(&self) -> bool {
        self.spans.len() > 2048
    }

    /// Loads what looking up these values will need into the cache. A lookup waits for three reads from memory, one after the
    /// other. Here the first reads of all values overlap, and so do the second ones.
    pub(crate) fn warm<'v>(&self, values: impl Iterator<Item = &'v [u8]>) {
        let mask = self.table.len() - 1;
        let mut entries = [(0, 0); WARM_VALUES];
        for ((tag, entry), value) in entries.iter_mut().zip(values) {
            let hash = hash(value, self.seed);
            *tag = hash & TAG;
            *entry = self.table[place(hash) & mask];
        }
        let span = |(tag, entry): (u64, u64)| {
            let number = (entry & !TAG) as usize;
            // If the tags differ, the entry belongs to another value, or the value comes later in the probes.
            if number != 0 && entry & TAG == tag { self.spans[number - 1].0 as usize } else { 0 }
        };
        let spans = entries.map(span);
        let first_bytes = spans.map(|at| self.bytes.get(at).copied().unwrap_or(0));
        std::hint::black_box(first_bytes);
    }

    #[cold]
    fn insert(&mut self, value: &[u8], at: usize, tag: u64) -> u32 {
        let number = self.append(value);
        self.table[at] = tag | u64::from(number);
        if self.spans.len() * 2 > self.table.len() {
            self.grow();
        }
        number
    }

    /// Appends a value that is known to be new, and returns its number. The value cannot be looked up afterwards: a dictionary
    /// is either appended to or looked up in.
    pub(crate) fn append(&mut self, value: &[u8]) -> u32 {
        let number = u32::try_from(self.spans.len() + 1).expect("a dictionary is cleared long before 2^32 values");
        let place = u32::try_from(self.bytes.len()).expect("a dictionary is cleared long before 4 GiB");
        #[expect(clippy::cast_possible_truncation, reason = "a value is part of a chunk, which is under 2 GiB")]
        self.spans.push((place, value.len() as u32));
        self.bytes.extend_from_slice(value);
        number
    }

    fn grow(&mut self) {
        let size = self.table.len() * 2;
        let mut table = vec![0; size];
        // An entry contains everything that its position depends on, so no value is read again.
        for &entry in self.table.iter().filter(|entry| **entry != 0) {
            let mut at = place(entry) & (size - 1);
            while table[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            table[at] = entry;
        }
        self.table = table;
    }

    /// The value of a number.
    ///
    /// # Panics
    /// If it is 0 (null) or was never assigned.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        let (at, len) = self.spans[number as usize - 1];
        &self.bytes[at as usize..at as usize + len as usize]
    }

    /// The values in the order of their numbers, without the first `skipped` ones.
    pub(crate) fn values_from(&self, skipped: usize) -> impl Iterator<Item = &[u8]> {
        self.spans[skipped..].iter().map(|(at, len)| &self.bytes[*at as usize..*at as usize + *len as usize])
    }

    /// How many distinct values there are.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        let table = self.table.len() * size_of::<u64>() + self.single.len() * size_of::<u32>();
        table + self.spans.capacity() * size_of::<(u32, u32)>() + self.bytes.capacity()
    }
}

/// How many values [`Interner::warm`] loads.
pub(crate) const WARM_VALUES: usize = 16;

/// The part of a table's entry that holds the hash's high half.
const TAG: u64 = 0xFFFF_FFFF_0000_0000;

/// Where the probes of a hash, or of an entry, begin, before the mask.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 32) as usize
}

/// Whether two byte strings are the same. Most are short: a few wide compares cost less than a call.
#[inline]
fn same(left: &[u8], right: &[u8]) -> bool {
    fn ends<const N: usize>(left: &[u8], right: &[u8]) -> bool {
        left.first_chunk::<N>() == right.first_chunk() && left.last_chunk::<N>() == right.last_chunk()
    }
    left.len() == right.len()
        && match left.len() {
            0 => true,
            1..4 => left[0] == right[0] && left[left.len() / 2] == right[left.len() / 2] && left.last() == right.last(),
            4..8 => ends::<4>(left, right),
            8..=16 => ends::<8>(left, right),
            17..=32 => ends::<16>(left, right),
            33..=64 => ends::<32>(left, right),
            _ => left == right,
        }
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
            // The last 16 bytes follow below, whether or not they overlap the last whole pair.
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
    // Values that differ in a few digits differ in a few bits of the product. Spread them over the whole word.
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
                prop_assert!(values.iter().all(|other| same(value, other) == (value == other)));
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
