//! Compressed line objects: raw records and dead letters.
//!
//! Owns: collecting lines by folder, and compressing them into members. Members (gzip members, zstd frames) can be
//! concatenated, so a large object is written piece by piece. Does not own: naming and storing objects.
//!
//! Limits: 1 MiB of lines wait for each folder, and 4 MiB for all folders. Each day of arrival has its own folder, and a
//! source may have records of years.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::write::GzEncoder;

use crate::layout::Folder;

/// Bytes of lines that are compressed together.
const MEMBER_BYTES: usize = 1 << 20;
/// Bytes of lines that wait, in all folders.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// How lines are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineCodec {
    /// gzip at this level, 1 (fast) to 9; every tool reads it.
    Gzip(u32),
    /// zstd at this level; faster and smaller.
    Zstd(i32),
}

impl LineCodec {
    /// The extension of an object's name.
    pub fn extension(self) -> &'static str {
        match self {
            LineCodec::Gzip(_) => "json.gz",
            LineCodec::Zstd(_) => "json.zst",
        }
    }

    fn compress(self, lines: &[u8]) -> Vec<u8> {
        match self {
            LineCodec::Gzip(level) => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(lines.len() / 4), flate2::Compression::new(level));
                encoder.write_all(lines).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
            }
            LineCodec::Zstd(level) => zstd::bulk::compress(lines, level).expect("compressing in memory does not fail"),
        }
    }
}

/// A compressed piece of a line object.
#[derive(Debug)]
pub struct LineMember {
    /// The folder of the object.
    pub folder: Folder,
    /// How many lines it has.
    pub lines: u64,
    /// Compressed bytes.
    pub bytes: Vec<u8>,
}

/// Lines that wait to be compressed, by folder.
#[derive(Debug)]
pub(crate) struct Lines {
    codec: LineCodec,
    waiting: BTreeMap<Folder, Waiting>,
    waiting_bytes: usize,
    members: Vec<LineMember>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: u64,
    text: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(codec: LineCodec) -> Self {
        Lines { codec, waiting: BTreeMap::new(), waiting_bytes: 0, members: Vec::new() }
    }

    /// Adds lines to a folder's object. `write` appends them, each with its line end, and returns how many there are.
    pub(crate) fn add(&mut self, folder: &Folder, write: impl FnOnce(&mut Vec<u8>) -> u64) {
        if !self.waiting.contains_key(folder) {
            self.waiting.insert(folder.clone(), Waiting::default());
        }
        let Some(waiting) = self.waiting.get_mut(folder) else { return };
        let before = waiting.text.len();
        waiting.lines += write(&mut waiting.text);
        self.waiting_bytes += waiting.text.len() - before;
        if waiting.text.len() >= MEMBER_BYTES {
            self.compress(folder);
        }
        if self.waiting_bytes > WAITING_BYTES_MAX {
            self.compress_largest();
        }
    }

    /// Compresses the lines of the fullest folders, until at most half of the limit waits.
    fn compress_largest(&mut self) {
        let mut folders: Vec<(usize, Folder)> =
            self.waiting.iter().map(|(folder, waiting)| (waiting.text.len(), folder.clone())).collect();
        folders.sort_unstable_by(|left, right| right.cmp(left));
        for (_, folder) in folders {
            if self.waiting_bytes <= WAITING_BYTES_MAX / 2 {
                break;
            }
            self.compress(&folder);
        }
    }

    fn compress(&mut self, folder: &Folder) {
        if let Some((folder, Waiting { lines, text })) = self.waiting.remove_entry(folder)
            && lines > 0
        {
            self.waiting_bytes -= text.len();
            self.members.push(LineMember { folder, lines, bytes: self.codec.compress(&text) });
        }
    }

    /// The members that are complete so far.
    pub(crate) fn take_members(&mut self) -> Vec<LineMember> {
        std::mem::take(&mut self.members)
    }

    /// Compresses all waiting lines, and returns all members.
    pub(crate) fn flush(&mut self) -> Vec<LineMember> {
        let folders: Vec<Folder> = self.waiting.keys().cloned().collect();
        folders.iter().for_each(|folder| self.compress(folder));
        self.take_members()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::day_of;
    use std::io::Read;

    fn folder(dataset: &str, day: i64) -> Folder {
        Folder::Raw { dataset: Some(dataset.into()), day: day_of(day) }
    }

    fn decompress(codec: LineCodec, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match codec {
            LineCodec::Gzip(_) => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap(),
            LineCodec::Zstd(_) => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text).unwrap(),
        };
        text
    }

    #[test]
    fn concatenated_members_are_one_readable_object() {
        for codec in [LineCodec::Gzip(1), LineCodec::Zstd(1)] {
            let mut lines = Lines::new(codec);
            let mut expected = (Vec::new(), Vec::new());
            for n in 0..60_000 {
                let line = format!("{{\"n\":{n},\"text\":\"a line of some length\"}}\n");
                lines.add(&folder("a", 1), |out| {
                    out.extend_from_slice(line.as_bytes());
                    1
                });
                expected.0.extend_from_slice(line.as_bytes());
                if n % 1000 == 0 {
                    lines.add(&folder("b", 1), |out| {
                        out.extend_from_slice(line.as_bytes());
                        1
                    });
                    expected.1.extend_from_slice(line.as_bytes());
                }
            }
            let members = lines.flush();
            let object = |folder: &Folder| {
                let members: Vec<_> = members.iter().filter(|member| member.folder == *folder).collect();
                let bytes: Vec<u8> = members.iter().flat_map(|member| member.bytes.clone()).collect();
                (members.len(), members.iter().map(|member| member.lines).sum::<u64>(), decompress(codec, &bytes))
            };
            assert_eq!(object(&folder("a", 1)), (3, 60_000, expected.0));
            assert_eq!(object(&folder("b", 1)), (1, 60, expected.1));
            assert!(lines.flush().is_empty());
        }
    }

    #[test]
    fn lines_of_many_folders_wait_in_bounded_memory() {
        let mut lines = Lines::new(LineCodec::Gzip(1));
        let mut largest = 0;
        for n in 0..40_000 {
            lines.add(&folder("a", n % 1000), |out| {
                out.extend_from_slice(&[b'x'; 1023]);
                out.push(b'\n');
                1
            });
            largest = largest.max(lines.waiting_bytes);
        }
        assert!(largest <= WAITING_BYTES_MAX, "{largest}");
        let members = lines.flush();
        assert_eq!(members.iter().map(|member| member.lines).sum::<u64>(), 40_000);
        assert_eq!(lines.waiting_bytes, 0);
        let folders: std::collections::BTreeSet<&Folder> = members.iter().map(|member| &member.folder).collect();
        assert_eq!(folders.len(), 1000);
    }
}
