//! A file of which some parts are in memory.
//!
//! Owns: finding bytes in these parts. Does not own: which parts are needed (`find`), getting them.

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// Parts of a file.
#[derive(Debug, Clone, Default)]
pub struct FileParts {
    length: u64,
    /// Each with the offset of its first byte.
    parts: Vec<(u64, Bytes)>,
}

impl FileParts {
    /// A file of this many bytes, of which nothing is in memory yet.
    pub fn new(length: u64) -> Self {
        FileParts { length, parts: Vec::new() }
    }

    /// A file that is in memory whole.
    pub fn whole(bytes: Bytes) -> Self {
        FileParts { length: bytes.len() as u64, parts: vec![(0, bytes)] }
    }

    /// Adds a part that begins at an offset.
    pub fn add(&mut self, offset: u64, bytes: Bytes) {
        self.parts.push((offset, bytes));
    }

    /// Whether these bytes are in memory, in one part.
    pub fn has(&self, begin: u64, end: u64) -> bool {
        self.from(begin).is_some_and(|bytes| bytes.len() as u64 >= end.saturating_sub(begin))
    }

    /// What there is from an offset on, in the part that has most.
    fn from(&self, begin: u64) -> Option<Bytes> {
        let rest = |(offset, bytes): &(u64, Bytes)| {
            let skipped = usize::try_from(begin.checked_sub(*offset)?).ok()?;
            (skipped < bytes.len()).then(|| bytes.slice(skipped..))
        };
        self.parts.iter().filter_map(rest).max_by_key(Bytes::len)
    }
}

impl Length for FileParts {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for FileParts {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.from(start).map(Buf::reader).ok_or_else(|| missing(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.from(start).filter(|bytes| bytes.len() >= length).ok_or_else(|| missing(start))?;
        Ok(bytes.slice(..length))
    }
}

fn missing(start: u64) -> ParquetError {
    ParquetError::EOF(format!("what it has from byte {start} on was not read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_in_the_part_that_has_them() {
        let mut parts = FileParts::new(20);
        parts.add(0, Bytes::from_static(b"01234"));
        parts.add(3, Bytes::from_static(b"3456789"));
        parts.add(15, Bytes::from_static(b"56789"));
        assert_eq!(parts.get_bytes(3, 5).unwrap(), "34567");
        assert_eq!(parts.get_bytes(0, 5).unwrap(), "01234");
        assert_eq!(parts.get_bytes(15, 5).unwrap(), "56789");
        assert!(parts.get_bytes(10, 1).is_err() && parts.get_bytes(15, 6).is_err());
        assert!(parts.has(3, 10) && !parts.has(9, 12) && !parts.has(12, 13));
        assert_eq!(parts.len(), 20);
    }
}
