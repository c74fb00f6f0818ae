//! A dataset as its TOML file defines it.
//!
//! Owns: the types of a definition. Does not own: reading it (`read`), whether it makes sense as a whole (`check`), nor
//! how it is decoded (`plan`). The format is documented for users in `docs/datasets.md`.

use crate::dataset::pointer::Pointer;
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

/// One way in which a record of the dataset is told from others: all conditions hold.
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
}

/// Where the event time is, and which times are absurd.
#[derive(Debug, Clone)]
pub(crate) struct EventTime {
    pub(crate) field: TimeField,
    pub(crate) not_before_ms: i64,
    pub(crate) ahead_max_ms: i64,
}

/// How a point in time is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// RFC 3339 text; an offset is required.
    Rfc3339,
    /// Milliseconds since 1970, a whole number.
    EpochMs,
    /// Seconds since 1970, a number.
    EpochS,
    /// `YYYY-MM-DD` text.
    Date,
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

/// What of a point in time a computed column takes.
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
    Scalar(ScalarKind),
    List(ScalarKind),
    ListOfStructs(Vec<Member>),
    Map(ScalarKind),
    Struct(Vec<Member>),
}

/// A scalar type of a column; Arrow's name for it is the name a definition uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    String,
    Int32,
    Int64,
    Float64,
    Bool,
    Date32(TimeFormat),
    TimestampMillis(TimeFormat),
    Json,
}

/// A field of a struct, or of the structs of a list.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: At<String>,
    pub(crate) pointer: Pointer,
    pub(crate) kind: ScalarKind,
    pub(crate) field: FieldRules,
}

/// What holds for the values of a column or of a struct's field.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldRules {
    pub(crate) required: bool,
    pub(crate) accept_text: bool,
    /// A hint that the values hardly repeat, so that no dictionary is tried.
    pub(crate) unique: bool,
    pub(crate) personal: Option<bool>,
    pub(crate) anonymize: Option<At<Rule>>,
    pub(crate) allow: Option<At<Vec<String>>>,
    pub(crate) min: Option<At<f64>>,
    pub(crate) max: Option<At<f64>>,
    pub(crate) min_length: Option<At<i64>>,
    pub(crate) max_length: Option<At<i64>>,
    pub(crate) one_of: Option<At<Vec<Scalar>>>,
    pub(crate) pattern: Option<At<String>>,
}

/// What becomes of a personal value before it lands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rule {
    /// Keyed HMAC, the same for the same value everywhere.
    Pseudonym,
    /// An age in years becomes a band such as `25-34`; the numbers are each band's first age.
    AgeBand(Vec<i64>),
    /// A region code becomes its country; names are kept only if listed.
    Region(Vec<String>),
    /// The value never lands: the column is not in the file.
    Drop,
    /// An IP address becomes its /24 or /48 network.
    TruncateIp,
    /// A point in time becomes the start of its hour.
    TruncateToHour,
    /// A point in time becomes the start of its day.
    TruncateToDay,
    /// A value that does not match becomes null: coded answers stay, free text goes.
    Match(String),
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
