//! Checks and transforms single values.

use regex::Regex;

use crate::anonymize::{self, Pseudonyms};
use crate::code::Code;
use crate::definition::Digits;
use crate::time::{DAY_US, TimeFormat, day_of, time_of};
use crate::value::Value;

/// A value's type in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Int32,
    Int64,
    Float64,
    /// A whole number of units of its last digit.
    Decimal(Digits),
    Bool,
    Date32,
    Timestamp,
}

/// The constraints and the transformation of a value.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) output: Output,
    /// The format, if it is a time.
    pub(crate) format: TimeFormat,
    pub(crate) required: bool,
    /// Whether a value that does not fit is null.
    pub(crate) is_lenient: bool,
    pub(crate) not_before_us: i64,
    pub(crate) not_after_us: i64,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// Lengths in Unicode characters.
    pub(crate) min_length: usize,
    pub(crate) max_length: usize,
    pub(crate) one_of: Option<Vec<String>>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) transform: Transform,
}

/// How a value is transformed.
#[derive(Debug)]
pub(crate) enum Transform {
    Keep,
    Pseudonym,
    AgeBand(Vec<i64>),
    Region(Vec<String>),
    TruncateIp,
    EmailDomain,
    /// Microseconds of the unit.
    TruncateTime(i64),
    Match(Regex),
}

impl Leaf {
    /// Checks a value and transforms it.
    pub(crate) fn apply(&self, value: &mut Value, pseudonyms: &Pseudonyms) -> Result<(), Code> {
        let applied = self.applied(value, pseudonyms);
        if applied.is_err() && self.is_lenient {
            *value = Value::Null;
            return Ok(());
        }
        applied
    }

    fn applied(&self, value: &mut Value, pseudonyms: &Pseudonyms) -> Result<(), Code> {
        match value {
            Value::Null if self.required => return Err(Code::MissingField),
            Value::Null | Value::Bool(_) => {}
            _ if self.output == Output::Date32 => {
                let day = day_of(value, &self.format)?;
                if day < self.not_before_us.div_euclid(DAY_US) || day > self.not_after_us.div_euclid(DAY_US) {
                    return Err(Code::OutOfRange);
                }
                *value = Value::Int(day);
            }
            _ if self.output == Output::Timestamp => {
                let mut us = time_of(value, &self.format)?;
                if us < self.not_before_us || us > self.not_after_us {
                    return Err(Code::OutOfRange);
                }
                if let Transform::TruncateTime(unit) = self.transform {
                    us -= us.rem_euclid(unit);
                }
                *value = Value::Int(us);
            }
            Value::Int(number) => {
                #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 are not written by hand")]
                let near = *number as f64;
                self.check_bounds(match self.output {
                    Output::Decimal(digits) => near / 10_f64.powi(digits.scale.into()),
                    _ => near,
                })?;
                if self.output == Output::Int32 && i32::try_from(*number).is_err() {
                    return Err(Code::OutOfRange);
                }
                if let Transform::AgeBand(bands) = &self.transform {
                    *value = Value::Text(anonymize::age_band(*number, bands));
                }
            }
            Value::Float(number) => self.check_bounds(*number)?,
            Value::Text(text) => {
                self.check_text(text)?;
                match &self.transform {
                    Transform::Pseudonym => *text = pseudonyms.of(text),
                    Transform::Region(keep) => *value = optional(anonymize::region(text, keep)),
                    Transform::TruncateIp => *value = optional(anonymize::network(text)),
                    Transform::EmailDomain => *value = optional(anonymize::email_domain(text)),
                    Transform::Match(pattern) if !pattern.is_match(text) => *value = Value::Null,
                    Transform::Match(_) | Transform::Keep | Transform::AgeBand(_) | Transform::TruncateTime(_) => {}
                }
            }
            Value::List(_) | Value::Map(_) | Value::Struct(_) => return Err(Code::WrongType),
        }
        Ok(())
    }

    fn check_bounds(&self, number: f64) -> Result<(), Code> {
        let below = self.min.is_some_and(|min| number < min);
        let above = self.max.is_some_and(|max| number > max);
        if below || above { Err(Code::OutOfRange) } else { Ok(()) }
    }

    fn check_text(&self, text: &str) -> Result<(), Code> {
        // A text has no more characters than bytes.
        let too_long = text.len() > self.max_length && text.chars().count() > self.max_length;
        let too_short = self.min_length > 0 && text.chars().count() < self.min_length;
        let chosen = self.one_of.as_ref().is_none_or(|choices| choices.iter().any(|choice| choice == text));
        let matches = self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
        if too_long || too_short || !chosen || !matches { Err(Code::ConstraintViolated) } else { Ok(()) }
    }
}

fn optional(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::Text)
}
