//! What each record has become on both sides.
//!
//! Owns: sorting records by identity, and what follows for one identity. Does not own: reading (`reading`), columns (`columns`).
//!
//! On each side one row or one dead letter represents the record. If a side has several of one record, it has more than it should: those
//! beyond the first are counted as doubled. The one that represents the record is chosen so that both sides agree as well as possible.

use std::collections::BTreeMap;

use crate::commit::ObjectKind;
use crate::replay::diff::reading::{Reader, Which, code_of};
use crate::replay::diff::report::SampleKind;

/// A row or a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// The hash of its identity.
    pub(super) id: u128,
    /// The hash of its values; of a dead letter its code, and whether it counts.
    pub(super) hash: u64,
    /// The number of its object.
    pub(super) object: u32,
    /// Its number in the object, from 0.
    pub(super) row: u32,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) object: u32,
    pub(super) row: u32,
}

impl Record {
    fn place(&self) -> Place {
        Place { object: self.object, row: self.row }
    }
}

/// Examples of a kind of difference: the identity, and the places on both sides.
pub(super) type Examples = BTreeMap<SampleKind, Vec<(Option<Place>, Option<Place>)>>;

/// Counts of rows of one dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowCounts {
    pub(super) sides: [u64; 2],
    pub(super) doubled: [u64; 2],
    /// Rows that only this side has.
    pub(super) only: [u64; 2],
    pub(super) same: u64,
    pub(super) changed: u64,
    pub(super) from_dead_letters: u64,
    pub(super) to_dead_letters: u64,
    pub(super) from_other_datasets: u64,
    pub(super) to_other_datasets: u64,
}

/// All counts of a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// By the number of the dataset.
    pub(super) rows: Vec<RowCounts>,
    /// Dead letters by code, on each side.
    pub(super) codes: BTreeMap<u32, [u64; 2]>,
    pub(super) dead_doubled: [u64; 2],
    pub(super) dead_only: [u64; 2],
    pub(super) dead_same: u64,
    /// Dead letters whose code is another one, by both codes.
    pub(super) dead_other: BTreeMap<(u32, u32), u64>,
}

/// What was found in a part.
#[derive(Debug, Default)]
pub(super) struct Matched {
    pub(super) counts: Counts,
    /// Rows of one dataset with other values: the old one and the new one.
    pub(super) pairs: Vec<(Place, Place)>,
    pub(super) wanted: Examples,
}

/// Matches the records of a part.
pub(super) fn match_records(reader: &Reader, mut records: Vec<Record>, samples: usize) -> Matched {
    records.sort_unstable_by_key(|record| (record.id, record.object, record.row));
    let mut matching = Matching { reader, samples, found: Matched::default() };
    matching.found.counts.rows = vec![RowCounts::default(); reader.datasets.len()];
    for group in records.chunk_by(|left, right| left.id == right.id) {
        matching.add(group);
    }
    matching.found
}

struct Matching<'r> {
    reader: &'r Reader,
    samples: usize,
    found: Matched,
}

/// What represents a record on one side.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Nothing,
    Row(Record),
    DeadLetter(Record),
}

impl Matching<'_> {
    fn is_row(&self, record: &Record) -> bool {
        self.reader.source(record.object).object.kind == ObjectKind::Processed
    }

    fn dataset(&self, record: &Record) -> usize {
        self.reader.source(record.object).dataset
    }

    fn side(&self, record: &Record) -> Which {
        self.reader.source(record.object).side
    }

    /// Adds everything that has one identity.
    fn add(&mut self, group: &[Record]) {
        // The most common cases: one row on each side.
        let old_end = group.partition_point(|record| self.side(record) == Which::Old);
        let sides = group.split_at(old_end);
        let (old, new) = match sides {
            ([old], [new]) => (self.single(old), self.single(new)),
            (old, new) => self.choose(old, new),
        };
        for (side, records) in [sides.0, sides.1].into_iter().enumerate() {
            self.count_side(side, records);
        }
        self.compare(old, new);
    }

    fn single(&self, record: &Record) -> Fate {
        if self.is_row(record) { Fate::Row(*record) } else { Fate::DeadLetter(*record) }
    }

    /// Chooses what represents the record on each side: a row before a dead letter, and what is the same on both sides before others.
    fn choose(&self, old: &[Record], new: &[Record]) -> (Fate, Fate) {
        let rows = |records: &[Record]| -> Vec<Record> {
            records.iter().filter(|record| self.is_row(record)).copied().collect()
        };
        let candidates = |records: &[Record]| {
            let rows = rows(records);
            if rows.is_empty() { records.to_vec() } else { rows }
        };
        let (old, new) = (candidates(old), candidates(new));
        // What agrees best is found without comparing each with each: a record may be there a million times.
        let key = |record: &Record| (self.is_row(record), self.dataset(record), record.hash);
        let mut by_key: BTreeMap<(bool, usize, u64), Record> = BTreeMap::new();
        for record in &new {
            by_key.entry(key(record)).or_insert(*record);
        }
        let same = old.iter().find_map(|record| Some((*record, *by_key.get(&key(record))?)));
        let same_dataset = || {
            old.iter().find_map(|record| {
                let (is_row, dataset, _) = key(record);
                let range = (is_row, dataset, 0)..=(is_row, dataset, u64::MAX);
                Some((*record, *by_key.range(range).next()?.1))
            })
        };
        let fate = |record: Option<Record>| record.map_or(Fate::Nothing, |record| self.single(&record));
        match same.or_else(same_dataset) {
            Some((old, new)) => (fate(Some(old)), fate(Some(new))),
            None => (fate(old.first().copied()), fate(new.first().copied())),
        }
    }

    /// Counts what one side has of a record, and what it has too often.
    fn count_side(&mut self, side: usize, records: &[Record]) {
        let has_row = records.iter().any(|record| self.is_row(record));
        let mut is_first = true;
        for record in records {
            if self.is_row(record) {
                let dataset = self.dataset(record);
                let counts = &mut self.found.counts.rows[dataset];
                counts.sides[side] += 1;
                counts.doubled[side] += u64::from(!is_first);
                if !is_first {
                    self.example([SampleKind::DoubledOld, SampleKind::DoubledNew][side], side, record);
                }
                is_first = false;
                continue;
            }
            let (code, counts) = code_of(record.hash);
            if counts {
                self.found.counts.codes.entry(code).or_default()[side] += 1;
                let is_doubled = has_row || !is_first;
                self.found.counts.dead_doubled[side] += u64::from(is_doubled);
                if is_doubled {
                    self.example([SampleKind::DoubledOld, SampleKind::DoubledNew][side], side, record);
                }
            }
            is_first &= has_row;
        }
    }

    fn compare(&mut self, old: Fate, new: Fate) {
        use Fate::{DeadLetter, Nothing, Row};
        match (old, new) {
            (Row(old), Row(new)) => self.compare_rows(&old, &new),
            (Row(old), Nothing) => self.only(0, &old),
            (Nothing, Row(new)) => self.only(1, &new),
            (DeadLetter(old), Row(new)) => {
                let dataset = self.dataset(&new);
                self.found.counts.rows[dataset].from_dead_letters += 1;
                self.examples(SampleKind::BecameRow, Some(&old), Some(&new));
            }
            (Row(old), DeadLetter(new)) => {
                let dataset = self.dataset(&old);
                self.found.counts.rows[dataset].to_dead_letters += 1;
                self.examples(SampleKind::BecameDeadLetter, Some(&old), Some(&new));
            }
            (DeadLetter(old), DeadLetter(new)) => {
                let ((old_code, old_counts), (new_code, new_counts)) = (code_of(old.hash), code_of(new.hash));
                match (old_counts, new_counts) {
                    (false, false) => {}
                    (true, false) => self.only_dead_letter(0, &old),
                    (false, true) => self.only_dead_letter(1, &new),
                    (true, true) if old_code == new_code => self.found.counts.dead_same += 1,
                    (true, true) => {
                        *self.found.counts.dead_other.entry((old_code, new_code)).or_default() += 1;
                        self.examples(SampleKind::OtherCode, Some(&old), Some(&new));
                    }
                }
            }
            (DeadLetter(old), Nothing) if code_of(old.hash).1 => self.only_dead_letter(0, &old),
            (Nothing, DeadLetter(new)) if code_of(new.hash).1 => self.only_dead_letter(1, &new),
            (Nothing | DeadLetter(_), Nothing) | (Nothing, DeadLetter(_)) => {}
        }
    }

    fn compare_rows(&mut self, old: &Record, new: &Record) {
        let (from, to) = (self.dataset(old), self.dataset(new));
        if from != to {
            self.found.counts.rows[from].to_other_datasets += 1;
            self.found.counts.rows[to].from_other_datasets += 1;
            self.examples(SampleKind::OtherDataset, Some(old), Some(new));
        } else if old.hash == new.hash {
            self.found.counts.rows[from].same += 1;
        } else {
            self.found.counts.rows[from].changed += 1;
            self.found.pairs.push((old.place(), new.place()));
        }
    }

    fn only(&mut self, side: usize, record: &Record) {
        let dataset = self.dataset(record);
        self.found.counts.rows[dataset].only[side] += 1;
        self.example([SampleKind::OnlyOld, SampleKind::OnlyNew][side], side, record);
    }

    fn only_dead_letter(&mut self, side: usize, record: &Record) {
        self.found.counts.dead_only[side] += 1;
        self.example([SampleKind::DeadLetterOnlyOld, SampleKind::DeadLetterOnlyNew][side], side, record);
    }

    fn example(&mut self, kind: SampleKind, side: usize, record: &Record) {
        let (old, new) = if side == 0 { (Some(record), None) } else { (None, Some(record)) };
        self.examples(kind, old, new);
    }

    fn examples(&mut self, kind: SampleKind, old: Option<&Record>, new: Option<&Record>) {
        let wanted = self.found.wanted.entry(kind).or_default();
        if wanted.len() < self.samples {
            wanted.push((old.map(Record::place), new.map(Record::place)));
        }
    }
}
