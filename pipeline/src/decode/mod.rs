//! The stage `decode`: bytes become slots. Records are framed, unwrapped, recognized and scanned.
//!
//! Owns: the order of these steps, and the guess of a record's dataset. Does not own: framing and unwrapping (`framing`),
//! scanning one record (`scan`), columns.
//!
//! The guess is the dataset of the last record with the same first bytes. A wrong guess costs a second scan, never a wrong
//! result. The byte after a record is set to 0 during its scan, so that no loop needs to check for the end.

pub(crate) mod diagnose;
pub(crate) mod framing;
pub(crate) mod number;
pub(crate) mod scan;
pub(crate) mod skip;
pub(crate) mod slots;
pub(crate) mod text;
pub(crate) mod unpack;

use std::ops::Range;
use std::sync::Arc;

use crate::dataset::Datasets;
use crate::dataset::plan::{Plan, Spot};
use crate::dead_letter::code::Code;
use crate::decode::framing::unwrap_base64;
use crate::decode::scan::{Rejection, Scanned, Scanner};
use crate::decode::slots::Slots;

/// What became of a record's scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The dataset, if it is known. Its slots hold the record unless it is rejected.
    pub(crate) dataset: Option<usize>,
    pub(crate) rejection: Option<Rejection>,
    /// Where a syntax error ended the scan.
    pub(crate) broken: Option<BrokenAt>,
}

/// The place of a syntax error: the text that was scanned, which is at the end of the buffer if the record is base64, and the
/// position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokenAt {
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) at: usize,
}

/// Scans records of all datasets.
#[derive(Debug)]
pub(crate) struct Decoder {
    scanners: Vec<Scanner>,
    pub(crate) slots: Vec<Slots>,
    guesses: Guesses,
}

impl Decoder {
    /// `denied_names`: whether the names of denied keys are collected.
    pub(crate) fn new(datasets: &Datasets, denied_names: bool) -> Self {
        let slots = |plan: &Arc<Plan>| {
            let mut slots = Slots::new(plan);
            slots.denied_names = denied_names.then(Vec::new);
            slots
        };
        Decoder {
            scanners: datasets.plans().iter().map(|plan| Scanner::new(plan)).collect(),
            slots: datasets.plans().iter().map(slots).collect(),
            guesses: Guesses::default(),
        }
    }

    /// Scans the record at `bytes` of `buffer`, which ends in [`text::PADDING`] zeros. `assigned` is the dataset that the
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
        if let Some(at) = scanned.broken {
            self.slots[guess].undo();
            return Decoded {
                dataset: recognized,
                rejection: scanned.rejection,
                broken: Some(BrokenAt { begin, end, at: at.clamp(begin, end) }),
            };
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
                let unknown = Rejection::new(Code::UnknownDataset, Spot::Record);
                Decoded { dataset: None, rejection: Some(not_an_object.unwrap_or(unknown)), broken: None }
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
        Decoded { dataset: Some(dataset), rejection: scanned.rejection, broken: None }
    }
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
