//! A dataset's definition, read from its TOML file by serde.
//!
//! Unknown keys are refused, so that a new key of the format cannot be overlooked here. Lookups are not supported.

use serde::Deserialize;

/// A definition file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    pub(crate) name: String,
    #[serde(default, rename = "description")]
    _description: String,
    #[serde(default)]
    pub(crate) recognize: Vec<Recognize>,
    pub(crate) event_time: EventTime,
    pub(crate) arrival_time: Option<TimeField>,
    #[serde(default = "by_day")]
    pub(crate) partition_by: Vec<String>,
    #[serde(default)]
    pub(crate) embedded: Vec<String>,
    pub(crate) on_error: Option<OnError>,
    #[serde(rename = "column")]
    pub(crate) columns: Vec<Column>,
}

/// What a value costs that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnError {
    Reject,
    Null,
}

/// One way to recognize a record of the dataset: all conditions hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recognize {
    #[serde(default)]
    pub(crate) present: Vec<String>,
    #[serde(default)]
    pub(crate) absent: Vec<String>,
    #[serde(default)]
    pub(crate) equals: std::collections::BTreeMap<String, OneOrMany>,
}

/// A list of texts, or a single text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// The event time and its bounds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventTime {
    pub(crate) pointer: String,
    #[serde(default)]
    pub(crate) format: Form,
    pub(crate) zone: Option<String>,
    #[serde(default)]
    pub(crate) accept_text: bool,
    #[serde(default = "year_2010")]
    pub(crate) not_before: String,
    pub(crate) not_after: Option<String>,
    #[serde(default = "one_day")]
    pub(crate) ahead_max_hours: f64,
}

/// A field that holds a time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeField {
    pub(crate) pointer: String,
    #[serde(default)]
    pub(crate) format: Form,
    pub(crate) zone: Option<String>,
    #[serde(default)]
    pub(crate) accept_text: bool,
}

/// How a time is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) enum Form {
    #[default]
    Rfc3339,
    EpochS,
    EpochMs,
    EpochUs,
    EpochNs,
    Date,
    Pattern(String),
}

impl From<String> for Form {
    fn from(name: String) -> Self {
        match name.as_str() {
            "rfc3339" => Form::Rfc3339,
            "epoch_s" => Form::EpochS,
            "epoch_ms" => Form::EpochMs,
            "epoch_us" => Form::EpochUs,
            "epoch_ns" => Form::EpochNs,
            "date" => Form::Date,
            _ => Form::Pattern(name),
        }
    }
}

/// A column, or a field of a struct (which has fewer keys).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(default, rename = "description")]
    _description: String,
    pub(crate) pointer: Option<String>,
    pub(crate) from: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Type,
    pub(crate) format: Option<Form>,
    pub(crate) zone: Option<String>,
    pub(crate) day: Option<String>,
    pub(crate) element: Option<Type>,
    pub(crate) value: Option<Type>,
    #[serde(default, rename = "field")]
    pub(crate) members: Vec<Column>,
    #[serde(default)]
    pub(crate) required: bool,
    #[serde(default)]
    pub(crate) accept_text: bool,
    #[serde(default)]
    pub(crate) accept_number: bool,
    #[serde(default)]
    pub(crate) accept_bool: bool,
    #[serde(default)]
    pub(crate) round: bool,
    pub(crate) on_error: Option<OnError>,
    #[serde(default, rename = "unique")]
    _unique: bool,
    #[serde(rename = "personal")]
    _personal: Option<bool>,
    pub(crate) anonymize: Option<Rule>,
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) not_before: Option<String>,
    pub(crate) not_after: Option<String>,
    pub(crate) min_length: Option<usize>,
    pub(crate) max_length: Option<usize>,
    pub(crate) one_of: Option<Vec<String>>,
    pub(crate) pattern: Option<String>,
}

/// A type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Type {
    String,
    Int32,
    Int64,
    Float64,
    Decimal(Digits),
    Bool,
    Date32,
    Timestamp,
    Json,
    List,
    Map,
    Struct,
}

/// The digits of a decimal: all of them, and those after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digits {
    pub(crate) precision: u8,
    pub(crate) scale: u8,
}

impl TryFrom<String> for Type {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Ok(match name.as_str() {
            "string" => Type::String,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "float64" => Type::Float64,
            "bool" => Type::Bool,
            "date32" => Type::Date32,
            // `timestamp_millis` was its name before times had microseconds.
            "timestamp" | "timestamp_millis" => Type::Timestamp,
            "json" => Type::Json,
            "list" => Type::List,
            "map" => Type::Map,
            "struct" => Type::Struct,
            other => {
                let digits = other.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')?.split_once(','));
                let digits = digits.and_then(|(precision, scale)| {
                    Some(Digits { precision: precision.trim().parse().ok()?, scale: scale.trim().parse().ok()? })
                });
                Type::Decimal(digits.ok_or_else(|| format!("unknown type '{other}'"))?)
            }
        })
    }
}

/// How a personal value is anonymized.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Rule {
    Pseudonym,
    AgeBand {
        #[serde(default = "age_bands")]
        bands: Vec<i64>,
    },
    Region {
        #[serde(default)]
        keep: Vec<String>,
    },
    Drop,
    TruncateIp,
    EmailDomain,
    TruncateTime {
        #[serde(default)]
        to: Unit,
    },
    Match {
        pattern: String,
    },
}

/// The unit that a time is truncated to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    #[default]
    Hour,
    Day,
}

fn by_day() -> Vec<String> {
    ["year", "month", "day"].map(str::to_owned).to_vec()
}

fn year_2010() -> String {
    "2010-01-01".to_owned()
}

fn one_day() -> f64 {
    24.0
}

fn age_bands() -> Vec<i64> {
    vec![18, 25, 35, 45, 55, 65, 80]
}
