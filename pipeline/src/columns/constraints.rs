//! Whether a value keeps the constraints of its column.
//!
//! Owns: the comparison of one value. Does not own: the constraints (`plan`), what happens to a value that breaks one
//! (`validate`).

use crate::columns::times::InvalidTime;
use crate::dataset::plan::{Checks, TextChecks};
use crate::dead_letter::code::{Code, Reason};

impl Checks {
    #[inline]
    pub(super) fn holds(&self, value: i64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 are not written by hand")]
        let value = value as f64;
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    /// A time that is not before the first one and not after the last one; in microseconds, or days of a date.
    #[inline]
    pub(super) fn bounded(&self, time: i64) -> Result<i64, InvalidTime> {
        match self.times {
            Some((first, _)) if time < first => Err((Code::OutOfRange, Some(Reason::TimeTooEarly))),
            Some((_, last)) if time > last => Err((Code::OutOfRange, Some(Reason::TimeTooLate))),
            _ => Ok(time),
        }
    }

    /// Whether they hold for a whole number of 10^-scale. Only the comparison is one of doubles: it is exact up to 15 digits.
    pub(super) fn hold_decimal(&self, value: i64, scale: u8) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 are not written by hand")]
        let value = value as f64 / 10_f64.powi(scale.into());
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

impl TextChecks {
    pub(super) fn hold(&self, value: &[u8]) -> bool {
        // Bytes of UTF-8 that begin a character.
        let length = || value.iter().filter(|byte| (**byte).cast_signed() >= -64).count();
        let long_enough = self.min_length == 0 || length() >= self.min_length;
        let short_enough = value.len() <= self.max_length || length() <= self.max_length;
        let chosen = self.one_of.as_ref().is_none_or(|choices| choices.iter().any(|choice| **choice == *value));
        long_enough && short_enough && chosen && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(value))
    }
}
