//! The forms of a point in time in a record.
//!
//! Owns: their names, and what follows from each of them. Does not own: parsing a time (`columns::times`, `time`).

use serde_json::{Value, json};

use crate::dataset::input_kind::InputKind;

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

impl TimeFormat {
    /// The names of the formats in a definition.
    pub(crate) const NAMES: [&str; 4] = ["rfc3339", "epoch_ms", "epoch_s", "date"];

    /// The format of a name in a definition.
    pub(crate) fn parse(name: &str) -> Option<TimeFormat> {
        Some(match name {
            "rfc3339" => TimeFormat::Rfc3339,
            "epoch_ms" => TimeFormat::EpochMs,
            "epoch_s" => TimeFormat::EpochS,
            "date" => TimeFormat::Date,
            _ => return None,
        })
    }

    /// What the scanner reads.
    pub(crate) fn input(self) -> InputKind {
        match self {
            TimeFormat::Rfc3339 | TimeFormat::Date => InputKind::Text,
            TimeFormat::EpochMs => InputKind::Int,
            TimeFormat::EpochS => InputKind::Float,
        }
    }

    /// JSON Schema of a time in a record.
    pub(crate) fn json_schema(self) -> Value {
        match self {
            TimeFormat::Rfc3339 => json!({ "type": "string", "format": "date-time" }),
            TimeFormat::Date => json!({ "type": "string", "format": "date" }),
            TimeFormat::EpochMs => json!({ "type": "integer", "description": "milliseconds since 1970" }),
            TimeFormat::EpochS => json!({ "type": "number", "description": "seconds since 1970" }),
        }
    }
}
