//! Sequence numbers as Kinesis writes them: 188 bits, 56 decimal digits.
//!
//! Layout (version 2, as kinesalite decoded it), from the highest bit:
//!
//! | bits | contents |
//! |---|---|
//! | 4 | `2` |
//! | 36 | the shard's creation, in seconds |
//! | 4 | the shard's number modulo 16 |
//! | 64 | the record's index in the shard |
//! | 8 | zeros |
//! | 36 | the record's arrival, in seconds |
//! | 32 | the shard's number |
//! | 4 | the version `2` |
//!
//! So numbers grow along a shard and differ between shards. A child is created at least a second after its parents, so its
//! numbers are greater than theirs. A shard's index 0 is its starting number, which no record has. Does not own: which number a
//! record gets (`shard`).

use std::fmt;

/// A sequence number, in the order of its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    high: u64,
    low: u128,
}

/// The index that ends a closed shard's range.
const INDEX_OF_END: u64 = i64::MAX as u64;

impl SequenceNumber {
    pub(super) fn new(created_s: u64, shard: u32, index: u64, arrived_s: u64) -> Self {
        let high = (2 << 56) | (created_s << 20) | (u64::from(shard & 15) << 16) | (index >> 48);
        let low = (u128::from(index) << 80) | (u128::from(arrived_s) << 36) | (u128::from(shard) << 4) | 2;
        SequenceNumber { high, low }
    }

    pub(super) fn end_of(created_s: u64, shard: u32, closed_s: u64) -> Self {
        Self::new(created_s, shard, INDEX_OF_END, closed_s)
    }

    /// Parses decimal digits; `None` if they are not a sequence number of Kinesis.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 56 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (mut high, mut low) = (0_u128, 0_u128);
        for chunk in text.as_bytes().chunks(8) {
            let digits: u128 = std::str::from_utf8(chunk).ok()?.parse().ok()?;
            let scale = 10_u128.pow(u32::try_from(chunk.len()).ok()?);
            let bottom = (low & u128::from(u64::MAX)) * scale + digits;
            let middle = (low >> 64) * scale + (bottom >> 64);
            high = high * scale + (middle >> 64);
            low = (middle << 64) | (bottom & u128::from(u64::MAX));
        }
        let high = u64::try_from(high).ok()?;
        (high >> 56 == 2 && low & 15 == 2).then_some(SequenceNumber { high, low })
    }

    /// When its shard was created, in seconds since 1970.
    pub(super) fn created_s(self) -> u64 {
        (self.high >> 20) & ((1 << 36) - 1)
    }

    /// The number of its shard.
    #[expect(clippy::cast_possible_truncation, reason = "the shard's 32 bits are cut out")]
    pub(super) fn shard(self) -> u32 {
        (self.low >> 4) as u32
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GROUP: u128 = 10_000_000_000_000_000_000;
        let mut limbs = [u128::from(self.high), self.low >> 64, self.low & u128::from(u64::MAX)];
        let mut groups = [0_u128; 3];
        for group in groups.iter_mut().rev() {
            let mut rest = 0;
            for limb in &mut limbs {
                let whole = (rest << 64) | *limb;
                *limb = whole / GROUP;
                rest = whole % GROUP;
            }
            *group = rest;
        }
        write!(out, "{}{:019}{:019}", groups[0], groups[1], groups[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_back_as_it_was_written_and_has_56_digits() {
        for (created, shard, index) in [(1, 0, 0), (1_763_930_000, 7, 1), (1_763_930_000, u32::MAX, u64::MAX >> 1)] {
            let number = SequenceNumber::new(created, shard, index, created + 5);
            let text = number.to_string();
            assert_eq!(text.len(), 56, "{text}");
            assert_eq!(SequenceNumber::parse(&text), Some(number));
            assert_eq!((number.created_s(), number.shard()), (created, shard));
        }
    }

    /// An example from Kinesis's documentation.
    #[test]
    fn a_number_of_aws_is_read() {
        let text = "49546986683135544286507457936321625675700192471156785154";
        let number = SequenceNumber::parse(text).unwrap();
        assert_eq!(number.to_string(), text);
        assert_eq!(number.shard(), 0);
    }

    #[test]
    fn the_order_is_that_of_the_digits_and_children_follow_parents() {
        let parent_end = SequenceNumber::end_of(1000, 900, 5000);
        let child = SequenceNumber::new(1001, 0, 0, 1001);
        assert!(child > parent_end);
        assert!(child.to_string() > parent_end.to_string());
        assert!(SequenceNumber::new(1000, 3, 9, 2000) < SequenceNumber::new(1000, 3, 10, 1000));
    }

    #[test]
    fn other_texts_are_no_sequence_numbers() {
        for text in [
            "",
            "0",
            "TRIM_HORIZON",
            &"9".repeat(56),
            &"1".repeat(57),
            "4954698668313554428650745793632162567570019247115678515x",
        ] {
            assert_eq!(SequenceNumber::parse(text), None, "{text}");
        }
    }
}
