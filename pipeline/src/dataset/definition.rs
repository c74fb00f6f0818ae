//! A dataset as its TOML file defines it.
//!
//! Owns: the types of a definition. Does not own: reading it (`read`), whether it makes sense as a whole (`check`), scalar
//! types (`types`) and rules for personal values (`rule`), how records are decoded (`plan`). The format is documented for
//! users in `docs/datasets.md`.

use crate::dataset::input_kind::{InputKind, Reading};
use crate::dataset::pointer::Pointer;
use crate::dataset::rule::Rule;
use crate::dataset::time_format::TimeFormat;
use crate::dataset::types::ScalarType;
use crate::toml_reader::{At, Scalar};

/// A definition as read; see `docs/datasets.md` for the meaning of each field.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) name: At<String>,
    pub(crate) description: String,
    pub(crate) recognize: Vec<Recognize>,
    pub(crate) event_time: EventTime,
    pub(crate) arrival_time: Option<TimeField>,
    pub(crate) partition_by: At<Vec<String>>,
    pub(crate) embedded: Vec<At<Pointer>>,
    pub(crate) columns: Vec<Column>,
    pub(crate) lookups: Vec<Lookup>,
}

/// One way to recognize a record of the dataset: all conditions hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recognize {
    pub(crate) present: Vec<At<Pointer>>,
    pub(crate) absent: Vec<At<Pointer>>,
    pub(crate) equals: Vec<(At<Pointer>, Vec<String>)>,
}

/// A field that holds a point in time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TimeField {
    pub(crate) pointer: At<Pointer>,
    pub(crate) format: TimeFormat,
    /// Whether a number may come as a string.
    pub(crate) accept_text: bool,
}

/// Where the event time is, and which times are plausible.
#[derive(Debug, Clone)]
pub(crate) struct EventTime {
    pub(crate) field: TimeField,
    pub(crate) not_before_ms: i64,
    /// The last plausible millisecond; the greatest number if there is no such bound.
    pub(crate) not_after_ms: i64,
    pub(crate) ahead_max_ms: i64,
}

/// One column of the dataset.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: At<String>,
    pub(crate) description: String,
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) field: FieldRules,
}

/// Where a column's values come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// A field of the record.
    Pointer(Pointer),
    /// The event time, or a part of it.
    EventTime(TimePart),
    /// The time when the record arrived in the stream.
    ArrivalTime,
    /// The record's top-level fields that no column reads, as one JSON object.
    UnknownFields,
    /// A column of a lookup table.
    Lookup { lookup: String, column: String },
}

/// Which part of a point in time a computed column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimePart {
    Whole,
    Year,
    Month,
    Day,
    Hour,
}

/// The shape of a column.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Scalar(ScalarType),
    List(ScalarType),
    ListOfStructs(Vec<Member>),
    Map(ScalarType),
    /// A map from a string to a list of these values.
    MapOfLists(ScalarType),
    Struct(Vec<Member>),
}

/// A field of a struct, or of the structs of a list.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: At<String>,
    pub(crate) pointer: Pointer,
    pub(crate) kind: ScalarType,
    pub(crate) field: FieldRules,
}

/// Constraints, hints and rules for the values of a column or of a struct's field.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldRules {
    pub(crate) required: bool,
    /// Whether a number or boolean may come as a string.
    pub(crate) accept_text: bool,
    /// Whether a string may come as a number: it becomes the number's text.
    pub(crate) accept_number: bool,
    /// Whether a string may come as `true` or `false`.
    pub(crate) accept_bool: bool,
    /// Whether a decimal with too many digits after its point is rounded.
    pub(crate) round: bool,
    /// What a value costs that does not fit; `None` until the default of the definition is applied.
    pub(crate) on_error: Option<At<OnError>>,
    /// A hint that the values hardly repeat, so that they get no dictionary.
    pub(crate) unique: bool,
    pub(crate) personal: Option<bool>,
    pub(crate) anonymize: Option<At<Rule>>,
    pub(crate) allow: Option<At<Vec<String>>>,
    pub(crate) min: Option<At<f64>>,
    pub(crate) max: Option<At<f64>>,
    /// The first and the last time that are accepted, in microseconds.
    pub(crate) not_before: Option<At<i64>>,
    pub(crate) not_after: Option<At<i64>>,
    pub(crate) min_length: Option<At<i64>>,
    pub(crate) max_length: Option<At<i64>>,
    pub(crate) one_of: Option<At<Vec<Scalar>>>,
    pub(crate) pattern: Option<At<String>>,
}

/// What a value costs that is not of its type, or breaks a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    /// The record becomes a dead letter.
    Reject,
    /// The value becomes null, and is counted.
    Null,
}

impl FieldRules {
    /// Whether a value that does not fit becomes null.
    pub(crate) fn is_lenient(&self) -> bool {
        self.on_error.as_ref().is_some_and(|at| at.value == OnError::Null)
    }

    /// How the scanner reads the values.
    pub(crate) fn reading(&self) -> Reading {
        let FieldRules { accept_text, accept_number, accept_bool, round, .. } = *self;
        Reading { accept_text, accept_number, accept_bool, round, is_lenient: self.is_lenient() }
    }

    /// The rule for personal values.
    pub(crate) fn rule(&self) -> Option<&Rule> {
        self.anonymize.as_ref().map(|at| &at.value)
    }

    /// Whether the values are never written.
    pub(crate) fn is_dropped(&self) -> bool {
        matches!(self.rule(), Some(Rule::Drop))
    }

    /// What the scanner reads where a rule changes it.
    pub(crate) fn input_of_rule(&self) -> Option<InputKind> {
        self.rule().and_then(Rule::input)
    }

    /// What the scanner reads for a value of this type.
    pub(crate) fn input(&self, kind: ScalarType) -> InputKind {
        self.input_of_rule().unwrap_or_else(|| kind.spec().input)
    }
}

/// A reference table that is joined to the records.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    pub(crate) name: At<String>,
    pub(crate) file: At<String>,
    pub(crate) key: At<String>,
    pub(crate) on: At<String>,
    pub(crate) reject_missing: bool,
}
