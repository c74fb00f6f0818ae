//! Times, by chrono.

use chrono::{DateTime, Datelike, NaiveDate};

use crate::code::Code;
use crate::definition::TimeFormat;
use crate::value::Value;

/// Microseconds in a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01T00:00:00Z.
const FIRST_MS: i64 = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z.
const LAST_MS: i64 = 253_402_300_799_999;
/// 10000-01-01T00:00:00Z, which is exact as a double.
const END_US: f64 = 253_402_300_800_000_000.0;

/// Microseconds of RFC 3339 text; finer fractions are cut off. chrono also accepts a minus sign outside of ASCII, which the
/// RFC does not have.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(text).ok().filter(|_| text.is_ascii())?;
    Some(time.timestamp_micros())
}

/// Microseconds of the start of a day in the form `YYYY-MM-DD`.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let lengths = (year.len(), month.len(), day.len());
    if lengths != (4, 2, 2) || parts.next().is_some() || ![year, month, day].iter().all(|part| digits(part)) {
        return None;
    }
    let day = NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

/// The time of a value in this format, in microseconds since 1970.
pub(crate) fn time_of(value: &Value, format: TimeFormat) -> Result<i64, Code> {
    match (format, value) {
        (TimeFormat::Rfc3339, Value::Text(text)) => parse_rfc3339(text).ok_or(Code::BadTimestamp),
        (TimeFormat::Date, Value::Text(text)) => parse_date(text).ok_or(Code::BadTimestamp),
        (TimeFormat::EpochMs, Value::Int(ms)) if (FIRST_MS..=LAST_MS).contains(ms) => Ok(*ms * 1000),
        (TimeFormat::EpochMs, Value::Int(_)) => Err(Code::OutOfRange),
        (TimeFormat::EpochS, Value::Float(seconds)) => {
            let us = (seconds * 1e6).round();
            #[expect(clippy::cast_possible_truncation, reason = "bounded just before")]
            if us.abs() < END_US { Ok(us as i64) } else { Err(Code::OutOfRange) }
        }
        _ => Err(Code::WrongType),
    }
}

/// Year, month and day of a time, in UTC.
pub(crate) fn date_of(us: i64) -> (i32, u32, u32) {
    let date = DateTime::from_timestamp_micros(us).map(|time| time.date_naive()).unwrap_or_default();
    (date.year(), date.month(), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_rfc3339("2025-01-13T10:30:00.1239+01:00"), Some(1_736_760_600_123_900));
        assert_eq!(parse_rfc3339("2016-12-31T23:59:60.5Z"), Some(1_483_228_800_500_000));
        assert_eq!(parse_rfc3339("2025-01-13T10:30:00\u{2212}01:00"), None);
        assert_eq!(parse_rfc3339("2025-01-13T10:30:00"), None);
        assert_eq!(parse_date("1970-01-02"), Some(DAY_US));
        assert_eq!([parse_date("1970-1-2"), parse_date("1970-02-30"), parse_date("+970-01-02")], [None; 3]);
        assert_eq!(date_of(-1), (1969, 12, 31));
    }
}
