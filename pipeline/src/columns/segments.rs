//! Bytes that only grow, in segments.
//!
//! Owns: the position of a block's bytes. Does not own: what they mean (`store`).
//!
//! One buffer that doubles when it is full would hold up to twice its contents, and three times during the copy. Segments hold
//! at most a quarter more, and nothing is copied.
//!
//! Limits: 4 GiB a block.

/// The fewest bytes of a segment.
const SEGMENT_BYTES_MIN: usize = 512;
/// The most bytes of a segment, unless its first block is longer. It limits the memory that is reserved and not used.
const SEGMENT_BYTES_MAX: usize = 64 << 10;

/// Where a block's bytes begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct At {
    segment: u32,
    offset: u32,
}

/// Blocks of bytes, each in one piece.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    segments: Vec<Vec<u8>>,
    held: usize,
}

impl Segments {
    /// Begins a block of this length: returns its position, and the buffer to append its bytes to.
    pub(crate) fn begin(&mut self, bytes: usize) -> (At, &mut Vec<u8>) {
        let room = self.segments.last().map_or(0, |last| last.capacity() - last.len());
        if self.segments.is_empty() || room < bytes {
            let size = (self.held / 4).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).max(bytes);
            self.segments.push(Vec::with_capacity(size));
            self.held += size;
        }
        let segment = self.segments.len() - 1;
        let last = &mut self.segments[segment];
        let at = At {
            segment: u32::try_from(segment).expect("rows are encoded long before there are 2^32 segments"),
            offset: u32::try_from(last.len()).expect("a segment is under 4 GiB, as its blocks are"),
        };
        (at, last)
    }

    /// The bytes from `begin` to `end` of the block that begins at `at`.
    #[inline]
    pub(crate) fn bytes(&self, at: At, begin: usize, end: usize) -> &[u8] {
        let offset = at.offset as usize;
        &self.segments[at.segment as usize][offset + begin..offset + end]
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        self.held + self.segments.capacity() * size_of::<Vec<u8>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_round_trip_and_little_memory_is_unused(lengths in prop::collection::vec(0_usize..3000, 1..200)) {
            let mut segments = Segments::default();
            let mut places = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let (at, into) = segments.begin(*length);
                into.resize(into.len() + length, u8::try_from(number % 251).unwrap());
                places.push(at);
            }
            for ((number, length), at) in lengths.iter().enumerate().zip(places) {
                let expected = vec![u8::try_from(number % 251).unwrap(); *length];
                prop_assert_eq!(segments.bytes(at, 0, *length), expected.as_slice());
                prop_assert_eq!(segments.bytes(at, length / 2, *length), &expected[length / 2..]);
            }
            let used: usize = lengths.iter().sum();
            // The end of each segment is unused if the next block did not fit into it.
            prop_assert!(segments.memory() <= used * 2 + (2 << 10) + 24 * 256, "{} for {used}", segments.memory());
        }
    }
}
