//! The forms of a point in time in a record.
//!
//! Owns: their names, the zone of local times, which day a time belongs to, and what follows from each of them. Does not own:
//! parsing a time (`columns::times`, `time`).

use serde_json::{Value, json};

use crate::dataset::input_kind::InputKind;
use crate::time::pattern::TimePattern;
use crate::time::written::offset;

/// How a point in time is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeFormat {
    pub(crate) form: TimeForm,
    /// The offset from UTC, in minutes, of times that are written without one.
    pub(crate) zone: Option<i16>,
    /// Whether the day of a `date32` is the day as written, in the zone of the text, and not the day in UTC.
    pub(crate) day_as_written: bool,
}

/// The form of a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// RFC 3339 text, or ISO 8601 text that means the same; see `time::written`.
    Rfc3339,
    /// Seconds since 1970, a number.
    EpochS,
    /// Milliseconds since 1970, a whole number.
    EpochMs,
    /// Microseconds since 1970, a whole number.
    EpochUs,
    /// Nanoseconds since 1970, a whole number.
    EpochNs,
    /// `YYYY-MM-DD` text.
    Date,
    /// Text in a format that the definition spells out.
    Pattern(TimePattern),
}

impl TimeForm {
    /// The names of the forms in a definition; a text with `%` is a pattern.
    pub(crate) const NAMES: [&str; 6] = ["rfc3339", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "date"];

    /// The form of a name or pattern in a definition.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn parse(name: &str) -> Result<TimeForm, String> {
        Ok(match name {
            "rfc3339" => TimeForm::Rfc3339,
            "epoch_s" => TimeForm::EpochS,
            "epoch_ms" => TimeForm::EpochMs,
            "epoch_us" => TimeForm::EpochUs,
            "epoch_ns" => TimeForm::EpochNs,
            "date" => TimeForm::Date,
            pattern if pattern.contains('%') => TimeForm::Pattern(TimePattern::parse(pattern)?),
            _ => {
                let known = TimeForm::NAMES.join(", ");
                return Err(format!(
                    "unknown format '{name}'; known: {known}, or a pattern such as \"%d/%m/%Y %H:%M:%S\""
                ));
            }
        })
    }

    /// Whether times of this form are texts.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self, TimeForm::Rfc3339 | TimeForm::Date | TimeForm::Pattern(_))
    }

    /// Whether it has a time of day.
    pub(crate) fn has_time(&self) -> bool {
        match self {
            TimeForm::Date => false,
            TimeForm::Pattern(pattern) => pattern.has_time(),
            _ => true,
        }
    }
}

impl From<TimeForm> for TimeFormat {
    fn from(form: TimeForm) -> Self {
        TimeFormat { form, zone: None, day_as_written: false }
    }
}

impl TimeFormat {
    /// What the scanner reads.
    pub(crate) fn input(&self) -> InputKind {
        match self.form {
            TimeForm::Rfc3339 | TimeForm::Date | TimeForm::Pattern(_) => InputKind::Text,
            TimeForm::EpochMs | TimeForm::EpochUs | TimeForm::EpochNs => InputKind::Int,
            TimeForm::EpochS => InputKind::Float,
        }
    }

    /// JSON Schema of a time in a record.
    pub(crate) fn json_schema(&self) -> Value {
        let whole = |unit: &str| json!({ "type": "integer", "description": format!("{unit} since 1970") });
        match self.form {
            TimeForm::Rfc3339 if self.zone.is_some() => {
                json!({ "type": "string", "description": "ISO 8601; the offset may be absent" })
            }
            TimeForm::Rfc3339 => json!({ "type": "string", "format": "date-time" }),
            TimeForm::Date => json!({ "type": "string", "format": "date" }),
            TimeForm::Pattern(pattern) => json!({ "type": "string", "description": format!("a time as {pattern}") }),
            TimeForm::EpochS => json!({ "type": "number", "description": "seconds since 1970" }),
            TimeForm::EpochMs => whole("milliseconds"),
            TimeForm::EpochUs => whole("microseconds"),
            TimeForm::EpochNs => whole("nanoseconds"),
        }
    }

    /// What is wrong with the zone and the day, given whether only the day is kept.
    pub(crate) fn problem(&self, is_date: bool) -> Option<&'static str> {
        let with_offset = matches!(&self.form, TimeForm::Pattern(pattern) if pattern.has_offset());
        let without_offset = matches!(&self.form, TimeForm::Pattern(pattern) if !pattern.has_offset());
        if self.zone.is_some() && !self.form.is_text() {
            return Some("zone is for texts: a number since 1970 is UTC");
        }
        if self.zone.is_some() && with_offset {
            return Some("zone is for times without an offset, and this format has one");
        }
        if self.zone.is_none() && without_offset && self.form.has_time() && !is_date {
            return Some("times of this format have no offset: set zone = \"UTC\", or an offset such as \"+02:00\"");
        }
        if self.day_as_written && (!is_date || !self.form.is_text() || !self.form.has_time()) {
            return Some("day is for a date32 that is made of a text with a time of day");
        }
        None
    }
}

/// The offset in minutes of a zone in a definition.
///
/// # Errors
/// A sentence that says what to write.
pub(crate) fn parse_zone(text: &str) -> Result<i16, String> {
    match offset(text.as_bytes()) {
        Some((minutes, length)) if length == text.len() => Ok(minutes),
        _ => Err(format!(
            "'{text}' is not a zone: write \"UTC\", or an offset such as \"+02:00\". The name of a zone would need its \
             history of summer times"
        )),
    }
}
