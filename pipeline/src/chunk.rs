//! A chunk: what one read of one shard returned, as bytes and the positions of records in them.
//!
//! Owns: the padding that the scanner relies on, and how the sequence number of a line follows from its position. Does not
//! own: reading, the content of the records.
//!
//! Limits: a chunk is under 2 GiB, so that a position in it has 31 bits.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::decode::framing::lines;
use crate::decode::text::PADDING;
use crate::documents::{Documents, Item, Next, Rules, Split};

/// The most bytes in a chunk.
pub const CHUNK_BYTES_MAX: usize = i32::MAX as usize - PADDING;

/// How a chunk's bytes are divided into records. Each record, or the text of a file, may have many documents
/// ([`Chunk::documents`]); then each document is a record.
#[derive(Debug, Clone)]
pub enum Framing {
    /// One record a line, unless documents span lines; blank lines are skipped. The sequence number of a record is `base` plus
    /// the offset of its first byte in the chunk.
    Lines {
        /// Sequence number of the chunk's first byte.
        base: u64,
    },
    /// Texts of several files, or of several parts of one. Between any two there is at least one byte that belongs to neither.
    Texts(Vec<Text>),
    /// Records with their own sequence numbers. Between any two there is at least one byte that belongs to neither.
    Records(Vec<Frame>),
}

/// A text of a chunk that is divided into records as [`Framing::Lines`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its bytes in the chunk.
    pub bytes: Range<u32>,
    /// Sequence number of its first byte.
    pub base: u64,
    /// When its records arrived, in milliseconds since 1970.
    pub arrival_ms: i64,
    /// It is one record, whatever its lines are.
    pub is_record: bool,
    /// The text ends here: an array that is open is not complete.
    pub is_end: bool,
    /// Set where the source could not read the text: it is one record.
    pub damage: Option<Damage>,
}

/// One record of a chunk, as its source numbered it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its bytes in the chunk.
    pub bytes: Range<u32>,
    /// Sequence number, decimal digits.
    pub sequence: Box<str>,
    /// Place in its aggregated record; 0 for a plain one. Documents of a record have further numbers, see `lane`.
    pub sub_sequence: u64,
    /// When it arrived in the stream, in milliseconds since 1970; `None` if the source does not know.
    pub arrival_ms: Option<i64>,
    /// Its partition key, if the source has one. Records of an aggregate with the same key share it.
    pub partition_key: Option<Arc<str>>,
    /// Set where the source could not read the record itself.
    pub damage: Option<Damage>,
}

/// What a source found wrong with a record before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Damage {
    /// It has more bytes than a record may have; the chunk holds its first ones.
    TooLarge,
    /// The compressed file is damaged or cut off here; the chunk holds what could still be read.
    DamagedFile,
    /// It is marked as an aggregate of records, and cannot be opened; the chunk holds all of it.
    BrokenAggregate,
    /// It ended inside an array when it was first read; the chunk holds what represents the rest.
    Truncated,
}

/// What one read of one shard returned.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The stream that was read.
    pub stream: Arc<str>,
    /// The shard of it.
    pub shard: Arc<str>,
    /// The arrival time of records without one of their own, in milliseconds since 1970.
    pub arrival_ms: i64,
    /// How many documents a record may have: one, unless its source says otherwise.
    pub documents: Documents,
    /// Set if arrival times are times of files, which may be wrong: the time of reading, in milliseconds since 1970. It counts for a
    /// record whose event is later than the file.
    pub read_ms: Option<i64>,
    /// Set if the records are dead letters: how often each frame was processed before ([`Chunk::with_attempts`]).
    attempts: Option<Vec<u64>>,
    /// Set if its records were read by another source before: then nothing follows from their times of arrival about what has not
    /// been read.
    pub is_past: bool,
    framing: Framing,
    /// The bytes, then [`PADDING`] zeros.
    padded: Vec<u8>,
}

impl Chunk {
    /// A chunk of these bytes.
    ///
    /// # Panics
    /// If there are more than [`CHUNK_BYTES_MAX`] bytes, or a frame is outside of them. Both are bugs of the source.
    pub fn new(stream: Arc<str>, shard: Arc<str>, arrival_ms: i64, mut bytes: Vec<u8>, framing: Framing) -> Self {
        assert!(bytes.len() <= CHUNK_BYTES_MAX, "a chunk of {} bytes is too large", bytes.len());
        let ends: Vec<u32> = match &framing {
            Framing::Lines { .. } => Vec::new(),
            Framing::Texts(texts) => texts.iter().map(|text| text.bytes.end).collect(),
            Framing::Records(frames) => frames.iter().map(|frame| frame.bytes.end).collect(),
        };
        assert!(
            ends.is_sorted() && ends.last().is_none_or(|end| *end as usize <= bytes.len()),
            "frames are ordered and inside the chunk"
        );
        bytes.reserve_exact(PADDING);
        bytes.resize(bytes.len() + PADDING, 0);
        let (read_ms, is_past, attempts, documents) = (None, false, None, Documents::ONE);
        Chunk { stream, shard, arrival_ms, read_ms, is_past, attempts, documents, framing, padded: bytes }
    }

    /// The same chunk, whose records may have this many documents.
    pub fn with_documents(self, documents: Documents) -> Self {
        Chunk { documents, ..self }
    }

    /// The same chunk, whose records are dead letters that are processed again. `attempts`: for each frame, how often it was processed
    /// before. The partition keys of the frames are pseudonyms, as dead letters have them.
    ///
    /// # Panics
    /// If it has not as many frames. That is a bug of the source.
    #[must_use]
    pub fn with_attempts(self, attempts: Vec<u64>) -> Self {
        let frames = if let Framing::Records(frames) = &self.framing { frames.len() } else { 0 };
        assert_eq!(frames, attempts.len(), "each dead letter has a number of attempts");
        Chunk { attempts: Some(attempts), ..self }
    }

    /// The same chunk without the records after a position: those with a higher sequence number, or with this one and a higher number
    /// in its aggregate. `sequence` has decimal digits without leading zeros. The position must be the end of a record.
    #[must_use]
    pub fn through(self, sequence: &str, sub_sequence: u64) -> Self {
        let Chunk { framing, mut padded, .. } = self;
        let bytes = padded.len() - PADDING;
        // Offsets have fewer digits than numbers that no offset reaches.
        let last: u64 = sequence.parse().unwrap_or(u64::MAX);
        // Of the bytes whose first one has the number `base`, those up to the position.
        let kept = |base: u64, length: u64| length.min(last.saturating_add(1).saturating_sub(base));
        let (framing, end) = match framing {
            Framing::Lines { base } => (Framing::Lines { base }, kept(base, bytes as u64)),
            Framing::Texts(texts) => {
                let keep = |mut text: Text| {
                    let length = u64::from(text.bytes.end - text.bytes.start);
                    let left = kept(text.base, length);
                    if left < length && !text.is_record && text.damage.is_none() {
                        text.bytes.end = text.bytes.start + u32::try_from(left).expect("it is shorter than it was");
                        text.is_end = false;
                    }
                    (text.base <= last).then_some(text)
                };
                let texts: Vec<Text> = texts.into_iter().filter_map(keep).collect();
                let end = texts.last().map_or(0, |text| u64::from(text.bytes.end));
                (Framing::Texts(texts), end)
            }
            Framing::Records(mut frames) => {
                let is_kept = |frame: &Frame| {
                    let own = (frame.sequence.len(), &*frame.sequence, frame.sub_sequence);
                    own <= (sequence.len(), sequence, sub_sequence)
                };
                frames.retain(is_kept);
                let end = frames.last().map_or(0, |frame| u64::from(frame.bytes.end));
                (Framing::Records(frames), end)
            }
        };
        let end = usize::try_from(end).expect("a chunk is smaller than 2 GiB");
        padded.truncate(end);
        padded.resize(end + PADDING, 0);
        Chunk { framing, padded, ..self }
    }

    /// The bytes as received, without the padding.
    pub fn bytes(&self) -> &[u8] {
        &self.padded[..self.padded.len() - PADDING]
    }

    /// How the bytes are divided into records.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// When its last record arrived, in milliseconds since 1970; `None` if its source does not know of each record when it arrived.
    /// Times of files are not times of arrival: a file may be changed later, and another one may appear with an older time.
    pub fn last_arrival_ms(&self) -> Option<i64> {
        match &self.framing {
            Framing::Records(frames) if !self.is_past => frames.last().and_then(|frame| frame.arrival_ms),
            _ => None,
        }
    }

    /// When its first record arrived, in milliseconds since 1970; `None` if its source does not know of each record when it arrived.
    pub fn first_arrival_ms(&self) -> Option<i64> {
        match &self.framing {
            Framing::Records(frames) => frames.first().and_then(|frame| frame.arrival_ms),
            _ => None,
        }
    }

    /// The records as received, each as one line. What is packed is not unpacked.
    pub fn records_received(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let place = |bytes: &Range<u32>| bytes.start as usize..bytes.end as usize;
        let mut items = Vec::new();
        match &self.framing {
            Framing::Lines { .. } => self.divide(0..self.bytes().len(), true, &mut items),
            Framing::Texts(texts) => {
                for text in texts {
                    if text.is_record || text.damage.is_some() {
                        items.push(Item { range: place(&text.bytes), whole: true });
                    } else {
                        self.divide(place(&text.bytes), true, &mut items);
                    }
                }
            }
            Framing::Records(frames) => {
                for frame in frames {
                    if self.documents.many && frame.damage.is_none() {
                        self.divide(place(&frame.bytes), false, &mut items);
                    } else {
                        items.push(Item { range: place(&frame.bytes), whole: false });
                    }
                }
            }
        }
        items.into_iter().map(|Item { range, whole }| {
            let record = &self.padded[range];
            if whole && memchr::memchr(b'\n', record).is_some() {
                // A line end between a document's tokens is white space. Other bytes are kept as they are.
                return record.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect::<Vec<u8>>().into();
            }
            record.into()
        })
    }

    /// Adds the records of a text. `is_file`: it is the text of a file.
    fn divide(&self, bytes: Range<usize>, is_file: bool, items: &mut Vec<Item>) {
        let text = &self.padded[bytes.clone()];
        let in_chunk = |Item { range, whole }: Item| Item {
            range: bytes.start + range.start..bytes.start + range.end,
            whole: whole || is_file,
        };
        if !self.documents.many {
            items.extend(lines(text).map(|range| in_chunk(Item { range, whole: true })));
            return;
        }
        let mut split = Split::new(text, 0, Rules { arrays: self.documents.arrays, lines: is_file }, true);
        while let Next::Item(item) = split.next() {
            items.push(in_chunk(item));
        }
    }

    /// The chunk's buffer, emptied, to be filled again.
    pub fn into_buffer(self) -> Vec<u8> {
        let mut buffer = self.padded;
        buffer.clear();
        buffer
    }

    pub(crate) fn into_parts(self) -> (Source, Framing, Vec<u8>) {
        let Chunk { stream, shard, arrival_ms, read_ms, is_past: _, attempts, documents, framing, padded } = self;
        (Source { stream, shard, arrival_ms, read_ms, attempts, documents }, framing, padded)
    }
}

/// Where a chunk's records come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) stream: Arc<str>,
    pub(crate) shard: Arc<str>,
    pub(crate) arrival_ms: i64,
    pub(crate) documents: Documents,
    pub(crate) read_ms: Option<i64>,
    /// How often each frame was processed before, if they are dead letters.
    pub(crate) attempts: Option<Vec<u64>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &str, framing: Framing) -> Chunk {
        Chunk::new("s".into(), "a".into(), 0, bytes.as_bytes().to_vec(), framing)
    }

    fn records(chunk: &Chunk) -> Vec<String> {
        chunk.records_received().map(|record| String::from_utf8(record.into_owned()).unwrap()).collect()
    }

    #[test]
    fn lines_are_cut_after_the_last_byte_of_a_position() {
        let lines = || chunk("{1}\n{22}\n{3}\n", Framing::Lines { base: 100 });
        assert_eq!(records(&lines().through("103", 0)), ["{1}"]);
        assert_eq!(records(&lines().through("108", 0)), ["{1}", "{22}"]);
        assert_eq!(records(&lines().through("112", 0)), ["{1}", "{22}", "{3}"]);
        assert_eq!(records(&lines().through("9000", 7)), ["{1}", "{22}", "{3}"]);
        assert_eq!(records(&lines().through("99", 0)).len(), 0);
    }

    #[test]
    fn texts_of_several_files_are_cut_between_and_inside_them() {
        let text = |bytes: Range<u32>, base: u64| Text {
            bytes,
            base,
            arrival_ms: 0,
            is_record: false,
            is_end: true,
            damage: None,
        };
        let texts = || chunk("{1}\n{2}\n\n{3}\n", Framing::Texts(vec![text(0..8, 1_000), text(9..13, 2_000)]));
        assert_eq!(records(&texts().through("1003", 0)), ["{1}"]);
        assert_eq!(records(&texts().through("1007", 0)), ["{1}", "{2}"]);
        assert_eq!(records(&texts().through("2003", 0)), ["{1}", "{2}", "{3}"]);
        let Framing::Texts(cut) = texts().through("1003", 0).framing().clone() else { panic!() };
        assert_eq!(cut.iter().map(|text| text.is_end).collect::<Vec<_>>(), [false], "the rest of the text follows");
    }

    #[test]
    fn records_are_cut_by_their_numbers_also_inside_an_aggregate() {
        let frame = |bytes: Range<u32>, sequence: &str, sub_sequence: u64| Frame {
            bytes,
            sequence: sequence.into(),
            sub_sequence,
            arrival_ms: None,
            partition_key: None,
            damage: None,
        };
        let frames = vec![frame(0..3, "9", 0), frame(4..7, "10", 0), frame(8..11, "10", 1), frame(12..15, "11", 0)];
        let all = || chunk("{1}\n{2}\n{3}\n{4}\n", Framing::Records(frames.clone()));
        assert_eq!(records(&all().through("9", 0)), ["{1}"]);
        assert_eq!(records(&all().through("10", 0)), ["{1}", "{2}"]);
        assert_eq!(records(&all().through("10", 1)), ["{1}", "{2}", "{3}"]);
        let cut = all().through("10", 1);
        assert_eq!(cut.bytes(), b"{1}\n{2}\n{3}");
        assert_eq!(records(&all().through("49590338271490256608559692538361571095921575989136588898", 0)).len(), 4);
        assert_eq!(records(&all().through("8", 0)).len(), 0);
    }
}
