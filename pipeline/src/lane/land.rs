//! Records that are stored as lines: dead letters, and raw records as received.
//!
//! Owns: which line object a record goes to, and what is known of a dead letter. Does not own: the format of a dead letter
//! (`dead_letter`), compressing lines (`line_objects`), how identities of raw lines are stored (`line_objects::identities`).

use std::borrow::Cow;
use std::sync::Arc;

use crate::chunk::{Damage, Frame, Framing, Source};
use crate::dead_letter::DeadLetter;
use crate::dead_letter::code::Code;
use crate::lane::config::LaneConfig;
use crate::lane::{Seen, day_of_ms};
use crate::layout::Folder;
use crate::line_objects::Lines;
use crate::line_objects::identities::{Line, NewLines, Sequence};
use crate::time::DAY_MS;

/// The chunk in hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Landing<'c> {
    pub(super) config: &'c LaneConfig,
    pub(super) source: &'c Source,
    pub(super) framing: &'c Framing,
    pub(super) buffer: &'c [u8],
}

impl Landing<'_> {
    /// Writes the dead letter of a record.
    pub(super) fn dead_letter(&self, seen: &Seen, code: Code, dead_letters: &mut Lines) {
        let Landing { config, source, framing, buffer } = self;
        let frame: Option<&Frame> = match framing {
            Framing::Records(frames) => frames.get(seen.frame as usize),
            Framing::Lines { .. } | Framing::Texts(_) => None,
        };
        let sequence: Cow<'_, str> =
            frame.map_or_else(|| seen.sequence.to_string().into(), |frame| (&*frame.sequence).into());
        let plan = seen.dataset.map(|dataset| config.datasets.plan(dataset));
        let field = plan.zip(seen.rejection).and_then(|(plan, rejection)| plan.pointer_of(rejection.spot));
        let attempts_before = source.attempts.as_ref().map(|attempts| attempts[seen.frame as usize]);
        // A partition key is often somebody's id or address. Its pseudonym finds the same records, and reveals nothing. A dead letter that
        // is processed again has a pseudonym already.
        let partition_key = frame.and_then(|frame| frame.partition_key.as_deref());
        let partition_key: Option<Cow<'_, str>> = match (attempts_before, &config.key) {
            (Some(_), _) => partition_key.map(Cow::Borrowed),
            (None, Some(key)) => partition_key.map(|partition_key| {
                String::from_utf8_lossy(&key.pseudonym(partition_key.as_bytes())).into_owned().into()
            }),
            (None, None) => None,
        };
        let dead_letter = DeadLetter {
            code,
            reason: seen.rejection.filter(|_| seen.damage.is_none()).and_then(|rejection| rejection.reason),
            syntax: seen.syntax,
            dataset: plan.map(|plan| (&*plan.name).into()),
            field: field.as_deref().map(Into::into),
            stream: (&*source.stream).into(),
            shard: (&*source.shard).into(),
            sequence,
            sub_sequence: seen.sub_sequence,
            partition_key,
            arrival_ms: seen.arrival_ms,
            attempts: attempts_before.unwrap_or(0).saturating_add(1),
            raw: buffer[seen.bytes.clone()].into(),
        };
        dead_letters.add(&Folder::Error { code, day: day_of_ms(seen.arrival_ms) }, |out| {
            dead_letter.write(out);
            1
        });
    }

    /// Writes every record of the chunk as one raw line. Neighbours that go to the same object are copied in one piece.
    pub(super) fn raw(&self, records: &[Seen], raw: &mut Lines) {
        let Landing { config, framing, buffer, .. } = self;
        let whole_lines = !matches!(framing, Framing::Records(_));
        let identified = config.raw_identities;
        let target = |seen: &Seen| (seen.dataset, seen.arrival_ms.div_euclid(DAY_MS));
        let joins = |left: &Seen, right: &Seen| {
            let adjacent = whole_lines && left.bytes.end + 1 == right.bytes.start && buffer[left.bytes.end] == b'\n';
            // Of one text, whose offsets continue, and of one time.
            let follows = || {
                let between = (right.bytes.start - left.bytes.start) as u64;
                right.sequence == left.sequence + between && arrival_of(left) == arrival_of(right)
            };
            adjacent
                && !left.spans_lines
                && !right.spans_lines
                && target(left) == target(right)
                && (!identified || follows())
        };
        for group in records.chunk_by(joins) {
            let (first, last) = (&group[0], &group[group.len() - 1]);
            let dataset = first.dataset.map(|dataset| Arc::clone(&config.datasets.plan(dataset).name));
            let folder = Folder::Raw { dataset, day: day_of_ms(first.arrival_ms) };
            let write = |out: &mut Vec<u8>| {
                let bytes = &buffer[first.bytes.start..last.bytes.end];
                let begin = out.len();
                out.extend_from_slice(bytes);
                if !whole_lines || first.spans_lines {
                    // A line end between a document's tokens is white space; a record is one line.
                    out[begin..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
                }
                out.push(b'\n');
                group.len() as u64
            };
            if identified {
                raw.add_identified(&folder, &self.identity(first, last, group.len()), write);
            } else {
                raw.add(&folder, write);
            }
        }
    }

    /// The identities of lines that follow each other.
    fn identity<'l>(&'l self, first: &Seen, last: &Seen, count: usize) -> NewLines<'l> {
        let Landing { config, source, framing, .. } = self;
        let (sequence, has_arrival) = match framing {
            Framing::Records(frames) => match frames.get(first.frame as usize) {
                Some(frame) => (Sequence::Digits(&frame.sequence), frame.arrival_ms.is_some()),
                None => (Sequence::Digits(""), false),
            },
            Framing::Lines { .. } => (Sequence::Number(first.sequence), false),
            Framing::Texts(_) => (Sequence::Number(first.sequence), true),
        };
        let line = match first.line {
            // All of it is in the raw line, and whoever reads it again sees that it is too large.
            Line::Damaged(Damage::TooLarge) if first.bytes.len() > config.record_bytes_max => Line::Document,
            line => line,
        };
        NewLines {
            stream: &source.stream,
            shard: &source.shard,
            sequence,
            sub_sequence: first.sub_sequence,
            arrival_ms: arrival_of(first),
            // Without either, the record itself may know when it arrived, as if it had been read at the beginning of time.
            read_ms: source.read_ms.or((!has_arrival).then_some(i64::MIN)),
            line,
            count: count as u64,
            bytes: (last.bytes.end - first.bytes.start) as u64,
            last_bytes: last.bytes.len() as u64,
        }
    }
}

/// The time of arrival from which the lane makes the same record again. What becomes a row is corrected again; for a dead letter that
/// depends on the chunk that it came in.
fn arrival_of(seen: &Seen) -> i64 {
    let is_failed = seen.damage.is_some() || seen.rejection.is_some();
    if is_failed { seen.arrival_ms } else { seen.source_ms }
}
