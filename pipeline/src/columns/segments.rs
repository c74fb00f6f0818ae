//! Bytes that only grow, in segments.
//!
//! Owns: where a block's bytes lie. One buffer that doubles as it grows would hold up to twice what is in it, and while it
//! is copied three times; segments hold a quarter more at most, and nothing is copied. Limits: 4 GiB a block.

/// Bytes of a segment at least, unless its first block is longer.
const SEGMENT_BYTES_MIN: usize = 512;
/// Bytes of a segment at most, unless its first block is longer: the share of a buffer that may lie idle.
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
    /// Begins a block of so many bytes: where they will be, and the buffer to append them to.
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
        fn blocks_read_back_and_little_lies_idle(lengths in prop::collection::vec(0_usize..3000, 1..200)) {
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
            // What the last block did not fit into is lost of each segment, too.
            prop_assert!(segments.memory() <= used * 2 + (2 << 10) + 24 * 256, "{} for {used}", segments.memory());
        }
    }
}
