//! What a comparison has found, as it is reported.
//!
//! Owns: the counts and examples, in types that can be serialized. Does not own: finding them, printing them (the command line).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::replay::diff::matching::Counts;
use crate::replay::diff::reading::Reader;

/// The differences of two sides: the old one, and the new one.
///
/// Each row of the old side is in one of `same`, `changed`, `only_old`, `to_dead_letters`, `to_other_datasets` and `doubled_old` of its
/// dataset, and each row of the new side likewise.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Whether the sides are the same, and nothing is doubled.
    pub same: bool,
    /// Rows by dataset.
    pub datasets: BTreeMap<String, DatasetDiff>,
    /// Dead letters.
    pub dead_letters: DeadLetterDiff,
    /// Examples, by kind.
    pub samples: Vec<Sample>,
    /// How often the objects were read, because memory is bounded.
    pub passes: u64,
}

/// Rows of one dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DatasetDiff {
    /// Rows of the old side.
    pub old: u64,
    /// Rows of the new side.
    pub new: u64,
    /// Rows with the same values on both sides.
    pub same: u64,
    /// Rows of both sides with other values.
    pub changed: u64,
    /// Rows whose record has become nothing on the new side.
    pub only_old: u64,
    /// Rows whose record had become nothing on the old side.
    pub only_new: u64,
    /// Rows of the new side that were dead letters.
    pub from_dead_letters: u64,
    /// Rows of the old side that are dead letters now.
    pub to_dead_letters: u64,
    /// Rows of the new side that were rows of another dataset.
    pub from_other_datasets: u64,
    /// Rows of the old side that are rows of another dataset now.
    pub to_other_datasets: u64,
    /// Rows of the old side beyond the first of their record.
    pub doubled_old: u64,
    /// Rows of the new side beyond the first of their record.
    pub doubled_new: u64,
    /// The columns with changed values.
    pub columns: BTreeMap<String, ColumnDiff>,
}

/// Values of a column that have changed, in rows of both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ColumnDiff {
    /// All changed values.
    pub changed: u64,
    /// Those that are null now.
    pub became_null: u64,
    /// Those that were null, or whose column was not there.
    pub was_null: u64,
}

/// Dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeadLetterDiff {
    /// Dead letters of the old side.
    pub old: u64,
    /// Dead letters of the new side.
    pub new: u64,
    /// Dead letters of both sides with the same code.
    pub same: u64,
    /// Dead letters of both sides with another code, by both codes: `old → new`.
    pub other_code: BTreeMap<String, u64>,
    /// Dead letters that have become rows.
    pub became_rows: u64,
    /// Dead letters that were rows.
    pub from_rows: u64,
    /// Dead letters whose record has become nothing on the new side.
    pub only_old: u64,
    /// Dead letters whose record had become nothing on the old side.
    pub only_new: u64,
    /// Dead letters of the old side beside a row or another dead letter of their record.
    pub doubled_old: u64,
    /// Dead letters of the new side beside a row or another dead letter of their record.
    pub doubled_new: u64,
    /// Counts by code.
    pub codes: BTreeMap<String, CodeCounts>,
}

/// Dead letters of one code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CodeCounts {
    /// Of the old side.
    pub old: u64,
    /// Of the new side.
    pub new: u64,
}

/// The kinds of differences that examples are given of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleKind {
    /// A row that only the old side has.
    OnlyOld,
    /// A row that only the new side has.
    OnlyNew,
    /// A dead letter that became a row.
    BecameRow,
    /// A row that became a dead letter.
    BecameDeadLetter,
    /// A row that is of another dataset now.
    OtherDataset,
    /// A dead letter that only the old side has.
    DeadLetterOnlyOld,
    /// A dead letter that only the new side has.
    DeadLetterOnlyNew,
    /// A dead letter with another code.
    OtherCode,
    /// One of several rows or dead letters of one record, on the old side.
    DoubledOld,
    /// The same on the new side.
    DoubledNew,
    /// A changed value.
    Changed,
}

/// An example of a difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// What differs.
    pub kind: SampleKind,
    /// The dataset of the row, or of the dead letter if it is known; of the new side, if both have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The stream of the record.
    pub stream: String,
    /// Its shard.
    pub shard: String,
    /// Its sequence number.
    pub sequence: String,
    /// The number of the document in the record, or of the record in its aggregate.
    pub subsequence: i64,
    /// The changed column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Values, datasets or codes: the old one and the new one. Values of columns that may be personal are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<[Value; 2]>,
}

impl Diff {
    pub(super) fn new(passes: u64, reader: &Reader) -> Self {
        let datasets = reader.datasets.iter().map(|name| (name.clone(), DatasetDiff::default())).collect();
        Diff { same: true, datasets, passes, ..Diff::default() }
    }

    /// Adds what was found in a part.
    pub(super) fn add(&mut self, found: &Counts, reader: &Reader) {
        for (number, counts) in found.rows.iter().enumerate() {
            let dataset = self.datasets.entry(reader.datasets[number].clone()).or_default();
            dataset.old += counts.sides[0];
            dataset.new += counts.sides[1];
            dataset.same += counts.same;
            dataset.changed += counts.changed;
            dataset.only_old += counts.only[0];
            dataset.only_new += counts.only[1];
            dataset.from_dead_letters += counts.from_dead_letters;
            dataset.to_dead_letters += counts.to_dead_letters;
            dataset.from_other_datasets += counts.from_other_datasets;
            dataset.to_other_datasets += counts.to_other_datasets;
            dataset.doubled_old += counts.doubled[0];
            dataset.doubled_new += counts.doubled[1];
            self.dead_letters.became_rows += counts.from_dead_letters;
            self.dead_letters.from_rows += counts.to_dead_letters;
        }
        let dead_letters = &mut self.dead_letters;
        dead_letters.same += found.dead_same;
        dead_letters.only_old += found.dead_only[0];
        dead_letters.only_new += found.dead_only[1];
        dead_letters.doubled_old += found.dead_doubled[0];
        dead_letters.doubled_new += found.dead_doubled[1];
        for (code, [old, new]) in &found.codes {
            let counts = dead_letters.codes.entry(reader.code(*code)).or_default();
            counts.old += old;
            counts.new += new;
            dead_letters.old += old;
            dead_letters.new += new;
        }
        for ((old, new), count) in &found.dead_other {
            let codes = format!("{} → {}", reader.code(*old), reader.code(*new));
            *dead_letters.other_code.entry(codes).or_default() += count;
        }
        self.same = self.datasets.values().all(DatasetDiff::is_same) && self.dead_letters.is_same();
    }

    /// Rows of both sides, old and new, of all datasets.
    pub fn rows(&self) -> [u64; 2] {
        let of = |side: fn(&DatasetDiff) -> u64| self.datasets.values().map(side).sum();
        [of(|dataset| dataset.old), of(|dataset| dataset.new)]
    }

    /// Rows and dead letters beyond the first of their record, on each side.
    pub fn doubled(&self) -> [u64; 2] {
        let rows = |side: fn(&DatasetDiff) -> u64| self.datasets.values().map(side).sum::<u64>();
        [
            rows(|dataset| dataset.doubled_old) + self.dead_letters.doubled_old,
            rows(|dataset| dataset.doubled_new) + self.dead_letters.doubled_new,
        ]
    }
}

impl DatasetDiff {
    /// Rows that both sides have.
    pub fn on_both(&self) -> u64 {
        self.same + self.changed
    }

    fn is_same(&self) -> bool {
        self.same == self.old && self.same == self.new
    }
}

impl DeadLetterDiff {
    fn is_same(&self) -> bool {
        self.same == self.old && self.same == self.new
    }
}
