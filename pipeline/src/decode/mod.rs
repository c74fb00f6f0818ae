//! The stage `decode`: bytes become slots. Records are framed, unwrapped, recognized and scanned.
//!
//! Owns: framing of lines, the base64 wrapping that Pinpoint uses if several apps share a stream, and the guess of a record's
//! dataset. Does not own: scanning one record (`scan`), columns.
//!
//! The guess is the dataset of the last record with the same first bytes. A wrong guess costs a second scan, never a wrong
//! result. The byte after a record is set to 0 during its scan, so that no loop needs to check for the end.

pub(crate) mod number;
pub(crate) mod scan;
pub(crate) mod skip;
pub(crate) mod slots;
pub(crate) mod text;

use std::ops::Range;

use crate::dataset::Datasets;
use crate::dataset::plan::Spot;
use crate::dead_letter::code::Code;
use crate::decode::scan::{Rejection, Scanned, Scanner};
use crate::decode::slots::Slots;
use crate::decode::text::PADDING;

/// What became of a record's scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The dataset, if it is known. Its slots hold the record unless it is rejected.
    pub(crate) dataset: Option<usize>,
    pub(crate) rejection: Option<Rejection>,
}

/// Scans records of all datasets.
#[derive(Debug)]
pub(crate) struct Decoder {
    scanners: Vec<Scanner>,
    pub(crate) slots: Vec<Slots>,
    guesses: Guesses,
}

impl Decoder {
    pub(crate) fn new(datasets: &Datasets) -> Self {
        Decoder {
            scanners: datasets.plans().iter().map(|plan| Scanner::new(plan)).collect(),
            slots: datasets.plans().iter().map(|plan| Slots::new(plan)).collect(),
            guesses: Guesses::default(),
        }
    }

    /// Scans the record at `bytes` of `buffer`, which ends in [`PADDING`] zeros. `assigned` is the dataset that the
    /// configuration assigns to all records of the source.
    pub(crate) fn record(
        &mut self,
        datasets: &Datasets,
        assigned: Option<usize>,
        buffer: &mut Vec<u8>,
        bytes: Range<usize>,
    ) -> Decoded {
        let Range { start, end } = unwrap_base64(buffer, bytes);
        let after = std::mem::replace(&mut buffer[end], 0);
        let decoded = self.scan(datasets, assigned, buffer, start, end);
        buffer[end] = after;
        decoded
    }

    fn scan(
        &mut self,
        datasets: &Datasets,
        assigned: Option<usize>,
        buffer: &[u8],
        begin: usize,
        end: usize,
    ) -> Decoded {
        let head = buffer[begin..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let guess = assigned.unwrap_or_else(|| self.guesses.get(head)).min(self.scanners.len() - 1);
        let scanned = self.scan_as(datasets, guess, buffer, begin, end);
        let recognized = assigned.or_else(|| datasets.recognize(scanned.marks));
        if scanned.broken {
            self.slots[guess].undo();
            return Decoded { dataset: recognized, rejection: scanned.rejection };
        }
        let not_an_object = scanned.rejection.filter(|rejection| rejection.code == Code::NotAnObject);
        match recognized {
            Some(dataset) if dataset == guess => self.finish(dataset, scanned),
            Some(dataset) => {
                self.slots[guess].undo();
                self.guesses.set(head, dataset);
                let scanned = self.scan_as(datasets, dataset, buffer, begin, end);
                self.finish(dataset, scanned)
            }
            None => {
                self.slots[guess].undo();
                let unknown = Rejection { code: Code::UnknownDataset, spot: Spot::Record };
                Decoded { dataset: None, rejection: Some(not_an_object.unwrap_or(unknown)) }
            }
        }
    }

    fn scan_as(&mut self, datasets: &Datasets, dataset: usize, buffer: &[u8], begin: usize, end: usize) -> Scanned {
        self.scanners[dataset].scan(datasets.plan(dataset), &mut self.slots[dataset], buffer, begin, end)
    }

    fn finish(&mut self, dataset: usize, scanned: Scanned) -> Decoded {
        match scanned.rejection {
            None => self.slots[dataset].keep(),
            Some(_) => self.slots[dataset].undo(),
        }
        Decoded { dataset: Some(dataset), rejection: scanned.rejection }
    }
}

/// The range of each line of a buffer, without its line end. Blank lines are skipped.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', bytes).chain(std::iter::once(bytes.len()));
    ends.filter_map(move |end| {
        let line = begin..end;
        begin = end + 1;
        trimmed(bytes, line)
    })
}

fn trimmed(bytes: &[u8], line: Range<usize>) -> Option<Range<usize>> {
    let text = bytes.get(line.clone())?;
    let end = line.start + if text.ends_with(b"\r") { text.len() - 1 } else { text.len() };
    let blank = bytes[line.start..end].iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    (!blank).then_some(line.start..end)
}

/// Bytes reserved for decoded records, once a chunk has one that is wrapped in base64.
const WRAPPED_BYTES_MIN: usize = 1 << 18;

/// The range of the record's JSON. If the record is base64 of something that begins like an object, it is decoded at the
/// end of the buffer; otherwise the range is that of the record.
fn unwrap_base64(buffer: &mut Vec<u8>, bytes: Range<usize>) -> Range<usize> {
    let record = &buffer[bytes.clone()];
    // The base64 may be in a JSON string.
    let text = record.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(record).trim_ascii();
    // `{` and a quote or space encode to `ey`, `{` and a line end to `ew`, `{}` to `e3`.
    if !matches!(text, [b'e', b'y' | b'w' | b'3', _, _, ..]) {
        return bytes;
    }
    let decoded =
        base64_simd::STANDARD.decode_to_vec(text).or_else(|_| base64_simd::STANDARD_NO_PAD.decode_to_vec(text));
    let Ok(decoded) = decoded else { return bytes };
    if decoded.first() != Some(&b'{') {
        return bytes;
    }
    let start = buffer.len();
    let end = start + decoded.len();
    if buffer.capacity() < end + PADDING {
        // Grow a little at a time: doubling a chunk for its only wrapped record would waste memory.
        buffer.reserve_exact((decoded.len() + PADDING).max(WRAPPED_BYTES_MIN));
    }
    buffer.extend_from_slice(&decoded);
    buffer.resize(end + PADDING, 0);
    start..end
}

/// The dataset of the last record that began with the same 8 bytes.
#[derive(Debug)]
struct Guesses([(u64, u16); 64]);

impl Default for Guesses {
    fn default() -> Self {
        Guesses([(0, 0); 64])
    }
}

impl Guesses {
    fn place(head: u64) -> usize {
        usize::from((head.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58).to_le_bytes()[0])
    }

    #[inline]
    fn get(&self, head: u64) -> usize {
        let (known, dataset) = self.0[Self::place(head)];
        if known == head { usize::from(dataset) } else { 0 }
    }

    fn set(&mut self, head: u64, dataset: usize) {
        self.0[Self::place(head)] = (head, u16::try_from(dataset).unwrap_or(0));
    }
}
