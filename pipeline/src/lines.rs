//! Compressed line objects: the raw landing and the dead letters.
//!
//! Owns: collecting lines by destination, and compressing them into members that can be put one after another (gzip
//! members, zstd frames), so that a large object is written piece by piece. Does not own: naming and storing objects.
//!
//! Limit: 1 MiB of lines wait for each destination.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::write::GzEncoder;

/// Bytes of lines that are compressed together.
const MEMBER_BYTES: usize = 1 << 20;

/// How lines are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineCodec {
    /// gzip at this level, 1 (fast) to 9: what every tool reads.
    Gzip(u32),
    /// zstd at this level: faster and smaller.
    Zstd(i32),
}

impl LineCodec {
    /// What an object's name ends with.
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
    /// Folder of the object, as `raw/events/year=2025/month=01/day=13`.
    pub folder: String,
    /// How many lines are in it.
    pub lines: u64,
    /// Compressed bytes.
    pub bytes: Vec<u8>,
}

/// Lines that wait to be compressed, by destination.
#[derive(Debug)]
pub(crate) struct Lines {
    codec: LineCodec,
    waiting: BTreeMap<String, Waiting>,
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

    /// Adds lines to a folder's object; `write` appends them, each with its line end, and says how many they are.
    pub(crate) fn add(&mut self, folder: &str, write: impl FnOnce(&mut Vec<u8>) -> u64) {
        if !self.waiting.contains_key(folder) {
            self.waiting.insert(folder.to_owned(), Waiting::default());
        }
        let Some(waiting) = self.waiting.get_mut(folder) else { return };
        let before = waiting.text.len();
        waiting.lines += write(&mut waiting.text);
        self.waiting_bytes += waiting.text.len() - before;
        if waiting.text.len() >= MEMBER_BYTES {
            self.waiting_bytes -= waiting.text.len();
            let bytes = self.codec.compress(&waiting.text);
            self.members.push(LineMember { folder: folder.to_owned(), lines: waiting.lines, bytes });
            waiting.text.clear();
            waiting.lines = 0;
        }
    }

    /// Bytes of lines that wait.
    pub(crate) fn memory(&self) -> usize {
        self.waiting_bytes + self.waiting.len() * 128
    }

    /// The members that are complete so far.
    pub(crate) fn take_members(&mut self) -> Vec<LineMember> {
        std::mem::take(&mut self.members)
    }

    /// Compresses everything that waits, and gives up all members.
    pub(crate) fn flush(&mut self) -> Vec<LineMember> {
        for (folder, waiting) in std::mem::take(&mut self.waiting) {
            if waiting.lines > 0 {
                let bytes = self.codec.compress(&waiting.text);
                self.members.push(LineMember { folder, lines: waiting.lines, bytes });
            }
        }
        self.waiting_bytes = 0;
        self.take_members()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn decompress(codec: LineCodec, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match codec {
            LineCodec::Gzip(_) => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap(),
            LineCodec::Zstd(_) => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text).unwrap(),
        };
        text
    }

    #[test]
    fn members_put_together_are_one_readable_object() {
        for codec in [LineCodec::Gzip(1), LineCodec::Zstd(1)] {
            let mut lines = Lines::new(codec);
            let mut expected = (Vec::new(), Vec::new());
            for n in 0..60_000 {
                let line = format!("{{\"n\":{n},\"text\":\"a line of some length\"}}\n");
                lines.add("raw/a", |out| {
                    out.extend_from_slice(line.as_bytes());
                    1
                });
                expected.0.extend_from_slice(line.as_bytes());
                if n % 1000 == 0 {
                    lines.add("raw/b", |out| {
                        out.extend_from_slice(line.as_bytes());
                        1
                    });
                    expected.1.extend_from_slice(line.as_bytes());
                }
            }
            let members = lines.flush();
            let object = |folder: &str| {
                let members: Vec<_> = members.iter().filter(|member| member.folder == folder).collect();
                let bytes: Vec<u8> = members.iter().flat_map(|member| member.bytes.clone()).collect();
                (members.len(), members.iter().map(|member| member.lines).sum::<u64>(), decompress(codec, &bytes))
            };
            assert_eq!(object("raw/a"), (3, 60_000, expected.0));
            assert_eq!(object("raw/b"), (1, 60, expected.1));
            assert!(lines.flush().is_empty());
        }
    }
}
