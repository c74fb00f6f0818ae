//! The records of the chunk in hand: each is found, gets its identity, and is decoded.
//!
//! Owns: which bytes are a record, and its identity. Does not own: where documents begin and end (`documents`), unpacking
//! (`decode::unpack`), decoding one record (`decode`), what becomes of it (`lane`).
//!
//! Each document is a record, and its identity depends on nothing but the bytes that the source has:
//!
//! | where it is | sequence number | subsequence number |
//! |---|---|---|
//! | a text of a file | of its first byte | 0 |
//! | a packed record (gzip, base64) in a text | of the packed record's first byte | its number in what was unpacked |
//! | a record of a stream | that of the record | its number in the record |
//! | record *i* of an aggregate | that of the aggregate | *i*, plus 2³² times its number in that record |
//!
//! Numbers begin at 0. So a record of one document has the identity that it has if every record is one document.
//!
//! A dead letter that is processed again keeps its identity. It may have several documents now, as an array has if arrays are opened. Its
//! first document has the identity of the dead letter. To the subsequence number of document *n* are added 2³¹ and 2³² times *n*. No
//! record has such a number otherwise: a record has fewer than 2³¹ documents, and an aggregate fewer than 2³¹ records. What has a number
//! from 2³¹ on is not divided again, and neither is what begins with a broken document.
//!
//! The fast path decodes a line, or a record of a stream, as one document. Only one that is not is divided and unpacked.

use std::ops::Range;

use crate::chunk::{Damage, Frame, Framing, Source, Text};
use crate::columns::micro_batch::{BATCH_RECORDS, Record, Sequence};
use crate::dead_letter::code::Code;
use crate::dead_letter::syntax::SyntaxError;
use crate::decode::diagnose::diagnose;
use crate::decode::framing::{lines, trimmed};
use crate::decode::scan::Rejection;
use crate::decode::text::PADDING;
use crate::decode::unpack::{Unpacked, is_gzip_text, unpack};
use crate::decode::{BrokenAt, Decoded};
use crate::documents::{Item, Next, OpenArrays, Rules, Split, end_of_text};
use crate::lane::{Lane, Pushed, Seen};
use crate::line_objects::identities::Line;

/// Bytes of unpacked records that may wait in the buffer before what was decoded is settled.
const UNPACKED_BYTES: usize = 4 << 20;
/// What the number of a document is multiplied with, if its record is one of an aggregate.
const DOCUMENT: u64 = 1 << 32;

/// What is added to the number of a document of a dead letter, except for the first one.
const OF_DEAD_LETTER: u64 = 1 << 31;

/// The chunk in hand.
pub(super) struct InHand<'c> {
    pub(super) source: &'c Source,
    pub(super) source_number: usize,
    pub(super) assigned: Option<usize>,
    pub(super) framing: &'c Framing,
    /// Length of the chunk in the buffer, with its padding. What was unpacked comes after it.
    pub(super) bytes: usize,
    pub(super) buffer: Vec<u8>,
    pub(super) pushed: Pushed,
}

/// What the identity of a record begins with.
#[derive(Clone, Copy)]
struct Origin<'c> {
    /// The frame and its number, if the chunk has frames.
    frame: Option<(u32, &'c Frame)>,
    /// The sequence number, if it has none.
    sequence: u64,
    /// When it arrived, if the source knows.
    arrival_ms: Option<i64>,
    /// The number of the document, if documents are numbered.
    document: u64,
    /// What the number is multiplied with.
    step: u64,
    /// What is added to the number of every document but the first.
    extra: u64,
    /// Whether the record is a part of what the source has as one, so that its bytes may have line ends.
    is_divided: bool,
    /// What its raw line is.
    line: Line,
}

impl<'c> Origin<'c> {
    fn of_text(sequence: u64, arrival_ms: Option<i64>) -> Self {
        let (step, extra, is_divided, line) = (1, 0, false, Line::Document);
        Origin { frame: None, sequence, arrival_ms, document: 0, step, extra, is_divided, line }
    }

    fn sub_sequence(&self) -> u64 {
        let first = self.frame.map_or(0, |(_, frame)| frame.sub_sequence);
        if self.document == 0 {
            return first;
        }
        first.saturating_add(self.extra).saturating_add(self.document.saturating_mul(self.step))
    }

    fn record(&self) -> Record {
        Record {
            number: 0,
            sequence: match self.frame {
                Some((_, frame)) => Sequence::Text(frame.sequence.clone()),
                None => Sequence::Number(self.sequence),
            },
            sub_sequence: self.sub_sequence(),
            arrival_ms: self.arrival_ms,
        }
    }
}

impl Lane {
    /// Decodes the chunk's records.
    pub(super) fn decode<'c>(&mut self, hand: &mut InHand<'c>) {
        let framing: &'c Framing = hand.framing;
        match framing {
            Framing::Lines { base } => {
                let length = hand.bytes - PADDING;
                self.text(hand, 0..length, *base, None, false);
            }
            Framing::Texts(texts) => {
                for Text { bytes, base, arrival_ms, is_record, is_end, damage } in texts {
                    let bytes = bytes.start as usize..bytes.end as usize;
                    let record = Origin { is_divided: true, ..Origin::of_text(*base, Some(*arrival_ms)) };
                    match damage {
                        Some(damage) => self.damaged(hand, &record, bytes, *damage),
                        None if *is_record => self.one(hand, &record, bytes),
                        None => self.text(hand, bytes, *base, Some(*arrival_ms), *is_end),
                    }
                }
            }
            Framing::Records(frames) => {
                for (number, frame) in (0_u32..).zip(frames) {
                    // Records of an aggregate have its sequence number.
                    let next = frames.get(number as usize + 1);
                    let is_part = frame.sub_sequence > 0 || next.is_some_and(|next| next.sequence == frame.sequence);
                    let is_letter = hand.source.attempts.is_some();
                    let step = if is_part || is_letter { DOCUMENT } else { 1 };
                    let extra = if is_letter { OF_DEAD_LETTER } else { 0 };
                    let frame_of = Some((number, frame));
                    let origin = Origin { frame: frame_of, step, extra, ..Origin::of_text(0, frame.arrival_ms) };
                    self.frame(hand, origin, frame);
                    self.bound(hand);
                }
            }
        }
    }

    /// Settles what was decoded if much of it was unpacked, so that a chunk of packed records takes bounded memory.
    fn bound(&mut self, hand: &mut InHand<'_>) {
        if hand.buffer.len() > hand.bytes + UNPACKED_BYTES {
            self.settle(hand);
            hand.buffer.truncate(hand.bytes);
            hand.buffer.shrink_to(hand.bytes + UNPACKED_BYTES);
        }
    }

    /// Decodes the text of a file. The sequence number of its first byte is `base`. `is_end`: the file ends where the text does.
    fn text(&mut self, hand: &mut InHand<'_>, bytes: Range<usize>, base: u64, arrival_ms: Option<i64>, is_end: bool) {
        let origin_at = |at: usize| Origin::of_text(base + (at - bytes.start) as u64, arrival_ms);
        if !hand.source.documents.many {
            let begin = bytes.start;
            let places: Vec<Range<usize>> = lines(&hand.buffer[bytes.clone()]).collect();
            for place in places {
                let place = begin + place.start..begin + place.end;
                let origin = origin_at(place.start);
                self.one(hand, &origin, place);
                self.bound(hand);
            }
            return;
        }
        let mut at = bytes.start;
        let mut open = OpenArrays::default();
        while at < bytes.end {
            let end = memchr::memchr(b'\n', &hand.buffer[at..bytes.end]).map_or(bytes.end, |end| at + end);
            let Some(line) = trimmed(&hand.buffer, at..end) else {
                at = end + 1;
                continue;
            };
            let line = line.start..end_of_text(&hand.buffer, line.end);
            if line.len() <= self.config.record_bytes_max {
                let decoded = self.decode_one(hand, line.clone());
                if !may_be_many(hand, &line, &decoded) {
                    self.note(hand, &origin_at(line.start), line, &decoded);
                    at = end + 1;
                    continue;
                }
            }
            // Until the next item begins a line, where the fast path continues.
            let tried = at;
            loop {
                let item;
                (item, at) = next_item(hand, &bytes, at, true, &mut open);
                let Some(item) = item else { break };
                let start = item.range.start;
                if start != tried && hand.buffer[start - 1] == b'\n' {
                    at = start;
                    break;
                }
                self.item(hand, origin_at(start), item);
                self.bound(hand);
                let rest = &hand.buffer[at..bytes.end];
                let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
                if rest.get(blank) == Some(&b'\n') {
                    at += blank + 1;
                    break;
                }
            }
        }
        if is_end && open.depth > 0 {
            // The file ends inside an array. Its bracket represents what is missing.
            let begin = bytes.start + open.begin;
            self.damaged(hand, &origin_at(begin), begin..begin + 1, Damage::Truncated);
        }
    }

    /// Decodes a record of a stream.
    fn frame(&mut self, hand: &mut InHand<'_>, origin: Origin<'_>, frame: &Frame) {
        let bytes = frame.bytes.start as usize..frame.bytes.end as usize;
        if let Some(damage) = frame.damage {
            return self.damaged(hand, &origin, bytes, damage);
        }
        if !hand.source.documents.many {
            return self.one(hand, &origin, bytes);
        }
        let is_letter = hand.source.attempts.is_some();
        if bytes.len() <= self.config.record_bytes_max {
            let decoded = self.decode_one(hand, bytes.clone());
            if !may_be_many(hand, &bytes, &decoded) || (is_letter && frame.sub_sequence >= OF_DEAD_LETTER) {
                return self.note(hand, &origin, bytes, &decoded);
            }
        }
        let origin = Origin { is_divided: true, ..origin };
        let unpacked = unpack(&mut hand.buffer, bytes.clone(), self.config.record_bytes_max);
        if is_letter && !may_be_divided(hand, &unpacked, &bytes) {
            return self.one(hand, &origin, bytes);
        }
        match unpacked {
            Unpacked::Plain => self.documents(hand, origin, bytes, None),
            Unpacked::Unwrapped(text) => self.documents(hand, origin, text, Some(&bytes)),
            Unpacked::Unzipped(text) => self.documents(hand, origin, text, None),
            Unpacked::Rejected(code) => self.rejected(hand, &origin, bytes, code),
        }
    }

    /// Decodes one item of a text, which may be packed.
    fn item(&mut self, hand: &mut InHand<'_>, origin: Origin<'_>, item: Item) {
        let Item { range, whole } = item;
        let origin = Origin { is_divided: true, ..origin };
        if whole || range.len() > self.config.record_bytes_max {
            return self.one(hand, &origin, range);
        }
        match unpack(&mut hand.buffer, range.clone(), self.config.record_bytes_max) {
            Unpacked::Plain => self.one(hand, &origin, range),
            Unpacked::Unwrapped(text) => self.documents(hand, origin, text, Some(&range)),
            Unpacked::Unzipped(text) => self.documents(hand, origin, text, None),
            Unpacked::Rejected(code) => self.rejected(hand, &origin, range, code),
        }
    }

    /// Decodes the documents of a record, and numbers them. If there is only one, its bytes are those `received`.
    fn documents(
        &mut self,
        hand: &mut InHand<'_>,
        mut origin: Origin<'_>,
        bytes: Range<usize>,
        received: Option<&Range<usize>>,
    ) {
        let mut open = OpenArrays::default();
        let (mut item, mut at) = next_item(hand, &bytes, bytes.start, false, &mut open);
        while let Some(Item { range, whole }) = item {
            let end = range.end;
            if !whole {
                // A broken element takes the rest of its array with it.
                open = OpenArrays::default();
            }
            let next;
            (next, at) = next_item(hand, &bytes, at, false, &mut open);
            match received {
                Some(received)
                    if next.is_none() && origin.document == 0 && range.len() <= self.config.record_bytes_max =>
                {
                    let decoded = self.decode_one(hand, range);
                    let line = Line::Packed(hand.source.documents);
                    self.note(hand, &Origin { line, ..origin }, received.clone(), &decoded);
                }
                _ => self.one(hand, &origin, range),
            }
            origin.document += 1;
            if next.is_none() && open.depth > 0 {
                // The record ends inside an array. What there is of it after the last document represents the rest.
                self.damaged(hand, &origin, end..bytes.end, Damage::Truncated);
            }
            item = next;
        }
    }

    /// Decodes a record that is one document.
    fn one(&mut self, hand: &mut InHand<'_>, origin: &Origin<'_>, bytes: Range<usize>) {
        if bytes.len() > self.config.record_bytes_max {
            return self.rejected(hand, origin, bytes, Code::TooLarge);
        }
        let decoded = self.decode_one(hand, bytes.clone());
        if hand.source.documents.many || !may_be_many(hand, &bytes, &decoded) {
            return self.note(hand, origin, bytes, &decoded);
        }
        // It may be packed: then it is one document too.
        match unpack(&mut hand.buffer, bytes.clone(), self.config.record_bytes_max) {
            Unpacked::Unzipped(text) if text.len() > self.config.record_bytes_max => {
                self.rejected(hand, origin, bytes, Code::TooLarge);
            }
            Unpacked::Unzipped(text) => {
                let decoded = self.decode_one(hand, text.clone());
                self.note(hand, &Origin { is_divided: true, ..*origin }, text, &decoded);
            }
            // The decoder unwraps base64 itself.
            Unpacked::Plain | Unpacked::Unwrapped(_) => self.note(hand, origin, bytes, &decoded),
            Unpacked::Rejected(code) => self.rejected(hand, origin, bytes, code),
        }
    }

    #[inline]
    fn decode_one(&mut self, hand: &mut InHand<'_>, bytes: Range<usize>) -> Decoded {
        self.decoder.record(&self.config.datasets, hand.assigned, &mut hand.buffer, bytes)
    }

    /// A record that cannot be decoded, because of what its source has of it.
    fn damaged(&mut self, hand: &mut InHand<'_>, origin: &Origin<'_>, bytes: Range<usize>, damage: Damage) {
        let origin = Origin { line: Line::Damaged(damage), ..*origin };
        self.rejected(hand, &origin, bytes, code_of(damage));
    }

    /// A record that is not decoded.
    fn rejected(&mut self, hand: &mut InHand<'_>, origin: &Origin<'_>, bytes: Range<usize>, code: Code) {
        let seen = Seen { dataset: hand.assigned, damage: Some(code), ..Seen::default() };
        self.see(hand, origin, bytes, &seen);
    }

    /// Notes what became of a record. The slots of a good one wait until there are enough of them for a micro-batch.
    #[inline]
    fn note(&mut self, hand: &mut InHand<'_>, origin: &Origin<'_>, bytes: Range<usize>, decoded: &Decoded) {
        let Decoded { dataset, mut rejection, broken } = *decoded;
        let mut syntax = None;
        if let (Some(BrokenAt { begin, end, at }), Some(rejection)) = (broken, &mut rejection) {
            let error: SyntaxError;
            (rejection.code, error) = diagnose(&hand.buffer[begin..end], rejection.code, at - begin);
            syntax = Some(error);
        }
        self.see(hand, origin, bytes, &Seen { dataset, rejection, syntax, ..Seen::default() });
    }

    /// Adds a record, of which is known what became of it.
    #[inline]
    fn see(&mut self, hand: &mut InHand<'_>, origin: &Origin<'_>, bytes: Range<usize>, seen: &Seen) {
        let good = seen.rejection.is_none() && seen.damage.is_none();
        let number = u32::try_from(self.seen.len()).expect("a chunk is under 2 GiB, and so are its records");
        let arrival_ms = origin.arrival_ms.unwrap_or(hand.source.arrival_ms);
        self.seen.push(Seen {
            bytes,
            frame: origin.frame.map_or(0, |(number, _)| number),
            sequence: origin.sequence,
            sub_sequence: origin.sub_sequence(),
            spans_lines: origin.is_divided,
            arrival_ms,
            source_ms: arrival_ms,
            line: origin.line,
            dataset: seen.dataset,
            rejection: seen.rejection,
            damage: seen.damage,
            syntax: seen.syntax,
        });
        if let (true, Some(dataset)) = (good, seen.dataset) {
            self.waiting[dataset].push(Record { number, ..origin.record() });
            if self.waiting[dataset].len() >= BATCH_RECORDS {
                self.columns(dataset, hand.source, &hand.buffer, &mut hand.pushed);
            }
        }
    }
}

/// Whether a record that was decoded as one document may be several, or packed.
#[inline]
fn may_be_many(hand: &InHand<'_>, bytes: &Range<usize>, decoded: &Decoded) -> bool {
    let is_other = |rejection: Rejection| rejection.code == Code::NotAnObject;
    decoded.broken.is_some()
        || decoded.rejection.is_some_and(is_other)
            && (hand.source.documents.arrays || is_gzip_text(&hand.buffer[bytes.clone()]))
}

/// Whether a dead letter may be divided. One that has no document stays a dead letter. So does the rest of an array whose element is
/// broken: the whole documents of its record have landed already.
fn may_be_divided(hand: &InHand<'_>, unpacked: &Unpacked, bytes: &Range<usize>) -> bool {
    let first = |text: &Range<usize>| next_item(hand, text, text.start, false, &mut OpenArrays::default()).0;
    match unpacked {
        Unpacked::Plain => first(bytes).is_some_and(|item| item.whole),
        Unpacked::Unwrapped(text) | Unpacked::Unzipped(text) => first(text).is_some(),
        Unpacked::Rejected(_) => true,
    }
}

/// The next item of a text of the buffer, and where the one after it is searched from. `lines`: it is the text of a file.
fn next_item(
    hand: &InHand<'_>,
    bytes: &Range<usize>,
    at: usize,
    lines: bool,
    open: &mut OpenArrays,
) -> (Option<Item>, usize) {
    let rules = Rules { arrays: hand.source.documents.arrays, lines };
    let mut split = Split::new(&hand.buffer[bytes.clone()], at - bytes.start, rules, true);
    split.open = *open;
    let next = split.next();
    *open = split.open;
    let at = bytes.start + split.at();
    match next {
        Next::Item(Item { range, whole }) => {
            (Some(Item { range: bytes.start + range.start..bytes.start + range.end, whole }), at)
        }
        Next::Pending(_) | Next::End => (None, bytes.end),
    }
}

fn code_of(damage: Damage) -> Code {
    match damage {
        Damage::TooLarge => Code::TooLarge,
        Damage::DamagedFile => Code::DamagedFile,
        Damage::BrokenAggregate => Code::BrokenAggregate,
        Damage::Truncated => Code::Truncated,
    }
}
