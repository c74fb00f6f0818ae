//! Compressed line objects: raw records and dead letters.
//!
//! Owns: collecting lines by folder, and compressing them into members. Members (gzip members, zstd frames) can be
//! concatenated, so a large object is written piece by piece. Does not own: naming and storing objects, the identities of raw lines
//! (`identities`).
//!
//! Limits: 1 MiB of lines wait for each folder, and 4 MiB for all folders. Each day of arrival has its own folder, and a
//! source may have records of years.
//!
//! The compressor and the buffers live as long as their lane. A new compressor for each member, and buffers that grow from
//! nothing, would cost a fifth of a run: memory of a megabyte is returned to the system when it is freed, and cleared when
//! it is used again.

use std::collections::BTreeMap;
use std::fmt;

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::layout::Folder;
use crate::line_objects::identities::{EMPTY_FRAME, Identities, NewLines, SKIPPABLE_MAGIC, SUBFIELD};

pub mod identities;

/// Bytes of lines that are compressed together.
const MEMBER_BYTES: usize = 1 << 20;
/// Bytes of lines that wait, in all folders.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Empty buffers that are kept for the next folders, and the most bytes of each.
const SPARE_BUFFERS: usize = 1;
const SPARE_BYTES_MAX: usize = 2 << 20;

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
}

/// Compresses one member after another.
struct Compressor {
    kind: Kind,
    /// The member in hand, in a buffer that fits the worst case.
    packed: Vec<u8>,
}

enum Kind {
    Gzip(Box<Compress>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    fn new(codec: LineCodec) -> Self {
        let kind = match codec {
            LineCodec::Gzip(level) => Kind::Gzip(Box::new(Compress::new_gzip(Compression::new(level), 15))),
            LineCodec::Zstd(level) => {
                Kind::Zstd(zstd::bulk::Compressor::new(level).expect("the configuration allows levels that zstd has"))
            }
        };
        Compressor { kind, packed: Vec::new() }
    }

    /// One gzip member or zstd frame, with the identities of its lines.
    fn member(&mut self, lines: &[u8], identities: Option<&[u8]>) -> Vec<u8> {
        let packed = self.compress(lines);
        let Some(field) = identities else { return packed.into() };
        let length = |bytes: usize| u16::try_from(bytes).expect("a field is smaller than 64 KiB").to_le_bytes();
        let frame = |bytes: usize| u32::try_from(bytes).expect("a field is smaller than 64 KiB").to_le_bytes();
        // Room for a header, so that a member waits for its upload without spare memory.
        let mut member = Vec::with_capacity(packed.len() + field.len() + 19);
        match packed {
            // RFC 1952: ten bytes of header, the fourth of which has the flags.
            [0x1f, 0x8b, 8, 0, head @ ..] if head.len() > 6 => {
                const EXTRA: u8 = 4;
                let (rest_of_header, data) = head.split_at(6);
                member.extend_from_slice(&[0x1f, 0x8b, 8, EXTRA]);
                member.extend_from_slice(rest_of_header);
                member.extend_from_slice(&length(field.len() + 4));
                member.extend_from_slice(&SUBFIELD);
                member.extend_from_slice(&length(field.len()));
                member.extend_from_slice(field);
                member.extend_from_slice(data);
            }
            _ => {
                member.extend_from_slice(&EMPTY_FRAME);
                member.extend_from_slice(&SKIPPABLE_MAGIC);
                member.extend_from_slice(&frame(field.len() + SUBFIELD.len()));
                member.extend_from_slice(&SUBFIELD);
                member.extend_from_slice(field);
                member.extend_from_slice(packed);
            }
        }
        member.shrink_to_fit();
        member
    }

    /// Compresses lines into the buffer.
    fn compress(&mut self, lines: &[u8]) -> &[u8] {
        let Compressor { kind, packed } = self;
        packed.clear();
        match kind {
            Kind::Gzip(deflate) => {
                deflate.reset();
                // A literal takes nine bits at most; beyond that, deflate stores bytes as they are.
                packed.reserve(lines.len() + lines.len() / 8 + 256);
                let mut read = 0;
                loop {
                    let status = deflate.compress_vec(&lines[read..], packed, FlushCompress::Finish);
                    if status.expect("compressing in memory does not fail") == Status::StreamEnd {
                        break;
                    }
                    read = usize::try_from(deflate.total_in()).expect("what was read is in memory");
                    packed.reserve(lines.len() / 8 + 256);
                }
            }
            Kind::Zstd(compressor) => {
                packed.reserve(zstd::zstd_safe::compress_bound(lines.len()));
                compressor.compress_to_buffer(lines, packed).expect("compressing in memory does not fail");
            }
        }
        packed
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
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
    compressor: Compressor,
    waiting: BTreeMap<Folder, Waiting>,
    waiting_bytes: usize,
    /// Empty buffers of lines.
    spare: Vec<Vec<u8>>,
    members: Vec<LineMember>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: u64,
    text: Vec<u8>,
    /// Of raw lines, if they are kept.
    identities: Option<Box<Identities>>,
}

impl Waiting {
    /// About how many bytes of memory it has in use.
    fn bytes(&self) -> usize {
        self.text.len() + self.identities.as_ref().map_or(0, |identities| identities.bytes())
    }
}

impl Lines {
    pub(crate) fn new(codec: LineCodec) -> Self {
        Lines {
            compressor: Compressor::new(codec),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            spare: Vec::new(),
            members: Vec::new(),
        }
    }

    /// Adds lines to a folder's object. `write` appends them, each with its line end, and returns how many there are.
    pub(crate) fn add(&mut self, folder: &Folder, write: impl FnOnce(&mut Vec<u8>) -> u64) {
        self.add_lines(folder, None, write);
    }

    /// Adds lines to a folder's object, with their identities. `write` appends them.
    pub(crate) fn add_identified(
        &mut self,
        folder: &Folder,
        lines: &NewLines<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> u64,
    ) {
        let is_full = |identities: &Identities| !identities.has_room(lines.stream, lines.shard);
        let waiting = self.waiting.get(folder);
        if waiting.and_then(|waiting| waiting.identities.as_deref()).is_some_and(is_full) {
            self.compress(folder);
        }
        self.add_lines(folder, Some(lines), write);
    }

    fn add_lines(&mut self, folder: &Folder, lines: Option<&NewLines<'_>>, write: impl FnOnce(&mut Vec<u8>) -> u64) {
        if !self.waiting.contains_key(folder) {
            let text = self.spare.pop().unwrap_or_default();
            let identities = lines.map(|_| Box::default());
            self.waiting.insert(folder.clone(), Waiting { lines: 0, text, identities });
        }
        let Some(waiting) = self.waiting.get_mut(folder) else { return };
        let before = waiting.bytes();
        waiting.lines += write(&mut waiting.text);
        if let (Some(identities), Some(lines)) = (&mut waiting.identities, lines) {
            identities.add(lines);
        }
        self.waiting_bytes += waiting.bytes() - before;
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
            self.waiting.iter().map(|(folder, waiting)| (waiting.bytes(), folder.clone())).collect();
        folders.sort_unstable_by(|left, right| right.cmp(left));
        for (_, folder) in folders {
            if self.waiting_bytes <= WAITING_BYTES_MAX / 2 {
                break;
            }
            self.compress(&folder);
        }
    }

    fn compress(&mut self, folder: &Folder) {
        let Some((folder, waiting)) = self.waiting.remove_entry(folder) else { return };
        self.waiting_bytes -= waiting.bytes();
        let Waiting { lines, mut text, identities } = waiting;
        if lines > 0 {
            let field = identities.and_then(|identities| identities.finish());
            let bytes = self.compressor.member(&text, field.as_deref());
            self.members.push(LineMember { folder, lines, bytes });
        }
        if self.spare.len() < SPARE_BUFFERS && text.capacity() <= SPARE_BYTES_MAX {
            text.clear();
            self.spare.push(text);
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
    fn every_member_of_one_compressor_is_complete() {
        // Bytes that cannot be compressed, next to nothing, and many that can.
        let mut state = 1_u64;
        let mut random = Vec::new();
        while random.len() < 3 << 20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
        }
        for codec in (1..=9).map(LineCodec::Gzip).chain([1, 3, 19].map(LineCodec::Zstd)) {
            let mut compressor = Compressor::new(codec);
            for lines in [&random[..], b"\n", &[b'x'; 100_000], &random[..1 << 20], b"{}\n"] {
                let member = compressor.member(lines, None);
                let field: Vec<u8> = lines.iter().copied().take(identities::FIELD_BYTES_MAX).collect();
                let identified = compressor.member(lines, Some(&field));
                assert!(decompress(codec, &identified) == lines, "{codec:?}, {} bytes", lines.len());
                let found = match codec {
                    LineCodec::Gzip(_) => {
                        let decoder = flate2::bufread::GzDecoder::new(&identified[..]);
                        let extra = decoder.header().unwrap().extra().unwrap().to_vec();
                        identities::field_of_extra(&extra).unwrap().to_vec()
                    }
                    LineCodec::Zstd(_) => {
                        identities::field_of_frame(&identified[17..field.len() + 19]).unwrap().to_vec()
                    }
                };
                assert!(found == field, "{codec:?}");
                assert_eq!(identified.capacity(), identified.len());
                assert!(decompress(codec, &member) == lines, "{codec:?}, {} bytes", lines.len());
                assert_eq!(member.capacity(), member.len(), "it waits for its upload without spare memory");
            }
        }
    }

    #[test]
    fn buffers_are_used_again_and_their_number_is_bounded() {
        let mut lines = Lines::new(LineCodec::Gzip(1));
        for n in 0..200 {
            lines.add(&folder("a", n % 20), |out| {
                out.extend_from_slice(&[b'x'; 100_000]);
                out.push(b'\n');
                1
            });
        }
        lines.flush();
        assert_eq!((lines.waiting.len(), lines.spare.len()), (0, SPARE_BUFFERS));
        assert!(lines.spare.iter().all(|buffer| buffer.is_empty() && buffer.capacity() <= SPARE_BYTES_MAX));
        let kept = lines.spare.last().map(Vec::as_ptr);
        lines.add(&folder("a", 1), |out| {
            out.extend_from_slice(b"{}\n");
            1
        });
        assert_eq!(lines.waiting.values().next().map(|waiting| waiting.text.as_ptr()), kept);
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
