//! How many differences are too many: what `--fail-on` says.
//!
//! Owns: the form of thresholds, and what each of them counts. Does not own: the comparison.
//!
//! A threshold is `WHAT=LIMIT`. The limit is a number, or a percentage with `%`. It is exceeded if there are more differences than it
//! says.
//!
//! | threshold | counts | a percentage is of |
//! |---|---|---|
//! | `dead-letters=+N` | records that are dead letters now and were not | all old rows and dead letters |
//! | `dead-letters=-N` | records that were dead letters and are not any more | the same |
//! | `dead-letters=N` | both, and dead letters with another code | the same |
//! | `rows=-N` | rows whose record is not a row of that dataset any more | old rows |
//! | `rows=+N` | rows whose record was not a row of that dataset | old rows |
//! | `rows=N` | both | old rows |
//! | `changed=N` | rows on both sides with another value in any column | rows on both sides |
//! | `changed:DATASET.COLUMN=N` | changed values of one column | rows of the dataset on both sides |
//! | `doubled=N` | rows and dead letters beyond the first of their record, on the new side | new rows and dead letters |
//!
//! Records are counted one by one: ten new dead letters exceed `dead-letters=+0` even if ten others have become rows.

use std::fmt;
use std::str::FromStr;

use crate::replay::diff::{DatasetDiff, Diff};

/// A limit of one kind of difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    text: String,
    what: What,
    limit: Limit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    DeadLetters(Direction),
    Rows(Direction),
    Changed,
    ChangedColumn { dataset: String, column: String },
    Doubled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    More,
    Fewer,
    Either,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Count(u64),
    Percent(f64),
}

/// A threshold that is exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The threshold, as it was written.
    pub threshold: String,
    /// What was counted, for people.
    pub what: String,
    /// How many there are.
    pub count: u64,
    /// Of how many.
    pub of: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exceeded { threshold, what, count, of } = self;
        write!(f, "{count} of {of} {what} (--fail-on {threshold})")
    }
}

const FORMS: &str = "dead-letters=[+|-]N[%], rows=[+|-]N[%], changed=N[%], changed:DATASET.COLUMN=N[%], doubled=N[%]";

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("'{text}' is not a threshold: expected one of {FORMS}");
        let (name, limit) = text.split_once('=').ok_or_else(invalid)?;
        let (direction, limit) = match limit.as_bytes().first() {
            Some(b'+') => (Direction::More, &limit[1..]),
            Some(b'-') => (Direction::Fewer, &limit[1..]),
            _ => (Direction::Either, limit),
        };
        let what = match (name, direction) {
            ("dead-letters", direction) => What::DeadLetters(direction),
            ("rows", direction) => What::Rows(direction),
            ("changed", Direction::Either) => What::Changed,
            ("doubled", Direction::Either) => What::Doubled,
            (name, Direction::Either) => {
                let column = name.strip_prefix("changed:").and_then(|name| name.split_once('.'));
                let (dataset, column) =
                    column.filter(|(dataset, column)| !dataset.is_empty() && !column.is_empty()).ok_or_else(invalid)?;
                What::ChangedColumn { dataset: dataset.to_owned(), column: column.to_owned() }
            }
            _ => return Err(invalid()),
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let limit = match limit.strip_suffix('%') {
            Some(percent) if is_number(percent) => {
                let percent = percent.parse().map_err(|_| invalid())?;
                if percent > 100.0 {
                    return Err(format!("'{text}' is not a threshold: a percentage is at most 100"));
                }
                Limit::Percent(percent)
            }
            Some(_) => return Err(invalid()),
            None => Limit::Count(limit.parse().ok().filter(|_| is_number(limit)).ok_or_else(invalid)?),
        };
        Ok(Threshold { text: text.to_owned(), what, limit })
    }
}

impl Threshold {
    /// Reads all thresholds of a command line.
    ///
    /// # Errors
    /// What is wrong with the first one that is not valid.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Threshold>, String> {
        texts.iter().map(|text| text.parse()).collect()
    }

    /// The dataset and the column whose values it limits, if it limits those of one.
    pub fn column(&self) -> Option<(&str, &str)> {
        match &self.what {
            What::ChangedColumn { dataset, column } => Some((dataset, column)),
            _ => None,
        }
    }

    /// Whether it limits what is doubled.
    pub fn is_of_doubles(&self) -> bool {
        self.what == What::Doubled
    }

    /// What exceeds it, if anything does.
    pub fn exceeded(&self, diff: &Diff) -> Option<Exceeded> {
        let (count, of, what) = self.count(diff);
        let is_exceeded = match self.limit {
            Limit::Count(limit) => count > limit,
            #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
            Limit::Percent(percent) => count as f64 * 100.0 > percent * of as f64,
        };
        is_exceeded.then(|| Exceeded { threshold: self.text.clone(), what: what.to_owned(), count, of })
    }

    fn count(&self, diff: &Diff) -> (u64, u64, &'static str) {
        let rows = |count: fn(&DatasetDiff) -> u64| diff.datasets.values().map(count).sum::<u64>();
        let dead = &diff.dead_letters;
        let [old_rows, new_rows] = diff.rows();
        match &self.what {
            What::DeadLetters(direction) => {
                let (more, fewer) = (dead.from_rows + dead.only_new, dead.became_rows + dead.only_old);
                let other = dead.other_code.values().sum::<u64>();
                let of = old_rows + dead.old;
                match direction {
                    Direction::More => (more, of, "records became dead letters"),
                    Direction::Fewer => (fewer, of, "records are not dead letters any more"),
                    Direction::Either => {
                        (more + fewer + other, of, "records became dead letters, or other ones, or are none any more")
                    }
                }
            }
            What::Rows(direction) => {
                let fewer = rows(|dataset| dataset.only_old + dataset.to_dead_letters + dataset.to_other_datasets);
                let more = rows(|dataset| dataset.only_new + dataset.from_dead_letters + dataset.from_other_datasets);
                match direction {
                    Direction::Fewer => (fewer, old_rows, "rows are missing"),
                    Direction::More => (more, old_rows, "rows are new"),
                    Direction::Either => (fewer + more, old_rows, "rows are missing or new"),
                }
            }
            What::Changed => (rows(|dataset| dataset.changed), rows(DatasetDiff::on_both), "rows have changed values"),
            What::ChangedColumn { dataset, column } => {
                let dataset = diff.datasets.get(dataset);
                let changed =
                    dataset.and_then(|dataset| dataset.columns.get(column)).map_or(0, |column| column.changed);
                (changed, dataset.map_or(0, DatasetDiff::on_both), "values of the column have changed")
            }
            What::Doubled => (diff.doubled()[1], new_rows + dead.new, "rows and dead letters are doubled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::diff::{ColumnDiff, DeadLetterDiff};

    fn diff() -> Diff {
        let columns = [("score".to_owned(), ColumnDiff { changed: 5, became_null: 1, was_null: 0 })];
        let dataset = DatasetDiff {
            old: 1000,
            new: 1001,
            same: 985,
            changed: 10,
            only_old: 2,
            only_new: 1,
            from_dead_letters: 4,
            to_dead_letters: 3,
            doubled_new: 1,
            columns: columns.into(),
            ..DatasetDiff::default()
        };
        let dead_letters = DeadLetterDiff {
            old: 10,
            new: 9,
            same: 5,
            other_code: [("a → b".to_owned(), 1)].into(),
            became_rows: 4,
            from_rows: 3,
            ..DeadLetterDiff::default()
        };
        Diff { datasets: [("quiz".to_owned(), dataset)].into(), dead_letters, ..Diff::default() }
    }

    #[test]
    fn a_threshold_is_exceeded_by_one_difference_more_than_it_says() {
        for (just_right, too_low) in [
            ("dead-letters=+3", "dead-letters=+2"),
            ("dead-letters=-4", "dead-letters=-3"),
            ("dead-letters=8", "dead-letters=7"),
            ("rows=-5", "rows=-4"),
            ("rows=+5", "rows=+4"),
            ("rows=10", "rows=9"),
            ("changed=10", "changed=9"),
            ("changed=1.01%", "changed=1%"),
            ("changed:quiz.score=5", "changed:quiz.score=4"),
            ("changed:quiz.score=0.51%", "changed:quiz.score=0.5%"),
            ("doubled=1", "doubled=0"),
            ("rows=-0.5%", "rows=-0.49%"),
        ] {
            assert_eq!(just_right.parse::<Threshold>().unwrap().exceeded(&diff()), None, "{just_right}");
            let exceeded = too_low.parse::<Threshold>().unwrap().exceeded(&diff());
            assert_eq!(exceeded.unwrap().threshold, too_low);
        }
        let other = "changed:quiz.other=0".parse::<Threshold>().unwrap();
        assert_eq!((other.exceeded(&diff()), other.column()), (None, Some(("quiz", "other"))));
        let exceeded = "dead-letters=+0".parse::<Threshold>().unwrap().exceeded(&diff()).unwrap();
        assert_eq!(exceeded.to_string(), "3 of 1010 records became dead letters (--fail-on dead-letters=+0)");
    }

    #[test]
    fn nothing_but_the_documented_forms_is_a_threshold() {
        for text in [
            "",
            "rows",
            "rows=",
            "rows=+",
            "rows=x",
            "rows=1.5",
            "rows=-1e3",
            "rows=%",
            "rows=101%",
            "changed=+1",
            "changed:=1",
            "changed:a=1",
            "changed:.b=1",
            "doubled=-1",
            "lines=1",
            "rows=++1",
            "rows=1..2%",
            "rows= 1",
        ] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
        assert!("rows=x".parse::<Threshold>().unwrap_err().contains("expected one of dead-letters="));
    }
}
