//! What a file is, whatever its name: its device and inode, and hashes of its beginning.
//!
//! Owns: these hashes, and comparing a file with them. Does not own: which file belongs to which shard (`catalog`).
//!
//! An inode alone does not identify a file. File systems give the inode of a deleted file to the next one, and `copytruncate` keeps
//! the inode and replaces the content. So the beginning must be the same as well. It is hashed at several lengths, so that a file
//! that is shorter than before can still be compared.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::source::files::list::modified_ms;

/// The most bytes of a file's beginning that identify it.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// The shortest beginning of a longer file that is compared.
const SHORTEST: usize = 64;
/// Bytes before the end of a complete file that show whether it only grew.
const TAIL_BYTES: u64 = 1 << 10;

/// Hashes of a file's beginning, by length. The last one is of everything that was hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head(Box<[(u64, u64)]>);

/// How a file's beginning compares with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It begins with everything that the head is of.
    Same,
    /// It is shorter than what the head is of, and what there is of it is the same.
    Shorter,
    /// It differs, or is too short to be compared.
    Differs,
}

/// The first 8 bytes of a SHA-256.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

impl Head {
    /// The head of a file that begins with these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(HEAD_BYTES)];
        let lengths = std::iter::successors(Some(SHORTEST), |length| Some(length * 2));
        // Structured logs have long beginnings in common, but rarely a whole line.
        let line = memchr::memchr(b'\n', bytes).map(|end| end + 1).filter(|end| *end > SHORTEST);
        let mut lengths: Vec<usize> = lengths.take_while(|length| *length < bytes.len()).chain(line).collect();
        lengths.push(bytes.len());
        lengths.sort_unstable();
        lengths.dedup();
        Head(lengths.into_iter().map(|length| (length as u64, hash(&bytes[..length]))).collect())
    }

    /// Bytes that it is of.
    pub(super) fn bytes(&self) -> u64 {
        self.0.last().map_or(0, |(length, _)| *length)
    }

    /// Compares a file that begins with these bytes.
    pub(super) fn compare(&self, now: &[u8]) -> Likeness {
        let comparable = |(length, _): &&(u64, u64)| usize::try_from(*length).is_ok_and(|length| length <= now.len());
        match self.0.iter().rev().find(comparable) {
            Some((length, known)) if hash(&now[..usize::try_from(*length).unwrap_or(0)]) == *known => {
                if *length == self.bytes() { Likeness::Same } else { Likeness::Shorter }
            }
            _ => Likeness::Differs,
        }
    }

    /// Whether the head should cover more of a file of which `read` bytes were read: all of the first kilobyte, and at least half
    /// of what follows. So it is stored a few times for each file, and not for every line of a slow log.
    pub(super) fn is_short_of(&self, read: u64) -> bool {
        let bytes = self.bytes();
        bytes < HEAD_BYTES as u64 && read > if bytes < 1 << 10 { bytes } else { 2 * bytes }
    }
}

/// What a directory entry says about a file without reading it. If nothing of it changes, the content is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stat {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) bytes: u64,
    pub(super) modified: (i64, i64),
    changed: (i64, i64),
    pub(super) modified_ms: i64,
}

impl Stat {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Stat {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified_ms: modified_ms(metadata),
        }
    }

    /// Whether both are of one inode.
    pub(super) fn is_same_inode(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The first bytes of a file, up to [`HEAD_BYTES`].
pub(super) fn read_head(file: &File) -> io::Result<Vec<u8>> {
    read_range(file, 0, HEAD_BYTES)
}

/// Bytes of a file from an offset; fewer if it ends before.
pub(super) fn read_range(file: &File, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// The hash of the bytes before `end`: those that change if a complete file is replaced and not only grown.
pub(super) fn tail_hash(file: &File, end: u64) -> io::Result<u64> {
    let begin = end.saturating_sub(TAIL_BYTES);
    Ok(hash(&read_range(file, begin, usize::try_from(end - begin).unwrap_or(0))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grew_is_the_same_and_one_that_was_cut_is_shorter() {
        let text: Vec<u8> = (0..40_000_u32).map(|n| b'a' + u8::try_from(n * n % 23).unwrap()).collect();
        for length in [1, 63, 64, 65, 1000, 16_384, 20_000] {
            let head = Head::of(&text[..length]);
            assert_eq!(head.bytes(), length.min(HEAD_BYTES) as u64);
            assert_eq!(head.compare(&text[..length]), Likeness::Same);
            assert_eq!(head.compare(&text), Likeness::Same);
            let mut other = text.clone();
            other[length.min(HEAD_BYTES) - 1] = b'Z';
            assert_eq!(head.compare(&other), Likeness::Differs);
        }
        let head = Head::of(&text[..1000]);
        assert_eq!(head.compare(&text[..999]), Likeness::Shorter);
        assert_eq!(head.compare(&text[..64]), Likeness::Shorter);
        assert_eq!(head.compare(&text[..63]), Likeness::Differs, "too short to be compared");
        assert_eq!(head.compare(b""), Likeness::Differs);
    }

    #[test]
    fn a_first_line_of_another_file_is_not_mistaken_for_a_cut_one() {
        let line = |n: u32| format!("{{\"service\":\"{}\",\"n\":{n}}}\n", "x".repeat(90));
        let head = Head::of((0..9).map(line).collect::<String>().as_bytes());
        assert_eq!(head.compare(line(0).as_bytes()), Likeness::Shorter);
        assert_eq!(head.compare(line(7).as_bytes()), Likeness::Differs);
    }

    #[test]
    fn a_head_is_extended_a_few_times_only() {
        let text = vec![b'x'; 1 << 20];
        let (mut head, mut times) = (Head::of(&text[..10]), 0);
        for read in (0..text.len()).step_by(100) {
            if head.is_short_of(read as u64) {
                head = Head::of(&text[..read]);
                times += 1;
            }
        }
        assert_eq!((head.bytes(), times <= 16), (HEAD_BYTES as u64, true), "{times}");
    }
}
