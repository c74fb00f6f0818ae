//! Points in time since 1970-01-01T00:00:00Z: parsing, formatting, parts of the calendar.
//!
//! Owns: RFC 3339 text, calendar days (proleptic Gregorian, UTC), the first and the last instant that is accepted. Other
//! texts of times are in `written` and `pattern`. Does not own: the clock.
//!
//! Rows have microseconds (`us`); everything else has milliseconds (`ms`). Finer fractions are cut off. Limits: years 0001
//! to 9999 in UTC, which are within 59 bits of microseconds. RFC 3339 has a year 0000, but no reader of the lake does.

pub(crate) mod pattern;
pub(crate) mod written;

use std::fmt;

use crate::time::written::WrittenTime;

/// 0001-01-01T00:00:00Z in microseconds: the first instant that is accepted.
pub const FIRST_US: i64 = -62_135_596_800_000_000;

/// The end of year 9999 in microseconds: the first instant that is not accepted any more.
pub const END_US: i64 = 253_402_300_800_000_000;

/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;

/// Microseconds in a millisecond.
pub const MS_US: i64 = 1_000;

/// Microseconds in a day.
pub const DAY_US: i64 = DAY_MS * MS_US;

/// A calendar day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    /// Year, 1 to 9999.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, 1 to 31.
    pub day: u32,
}

impl Day {
    /// Whether the calendar has this day.
    pub fn is_valid(self) -> bool {
        day_of(days_of(self)) == self
    }
}

impl fmt::Display for Day {
    /// `2025-01-13`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Day { year, month, day } = self;
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// The calendar day of a number of days since 1970-01-01.
///
/// The algorithm is Howard Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date Algorithms", 2013).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "each part is bounded by the algorithm")]
pub fn day_of(days: i64) -> Day {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Day { year: year as i32, month: month as u32, day: day as u32 }
}

/// Days since 1970-01-01 of a calendar day; the inverse of [`day_of`].
pub fn days_of(day: Day) -> i64 {
    let year = i64::from(day.year) - i64::from(day.month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = i64::from(day.month);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day.day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// RFC 3339 text with milliseconds and `Z`.
pub fn format_rfc3339(ms: i64) -> String {
    let day = day_of(ms.div_euclid(DAY_MS));
    let rest = ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("{day}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1_000)
}

/// Parses RFC 3339 text to milliseconds; see [`parse_rfc3339_us`].
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    parse_rfc3339_us(text).map(|us| us.div_euclid(MS_US))
}

/// Parses RFC 3339 text (`2025-01-13T10:30:00.123456+01:00`) to microseconds. The offset is required, as in the RFC. `t`,
/// `z` and a space for `T` are accepted. A leap second counts as the second after it. `None` if the text is not a time, or
/// if the time is outside of the years 0001 to 9999 in UTC.
pub fn parse_rfc3339_us(text: &[u8]) -> Option<i64> {
    rfc3339(text).map(|time| time.us).filter(|us| is_in_bounds(*us))
}

/// Whether an instant in microseconds is within the years 0001 to 9999.
#[inline]
pub(crate) fn is_in_bounds(us: i64) -> bool {
    (FIRST_US..END_US).contains(&us)
}

/// The time of RFC 3339 text, which may be out of bounds.
#[inline]
pub(crate) fn rfc3339(text: &[u8]) -> Option<WrittenTime> {
    let (head, mut rest) = text.split_first_chunk::<19>()?;
    if head[4] != b'-' || head[7] != b'-' || !matches!(head[10], b'T' | b't' | b' ') || head[13] != b':' {
        return None;
    }
    if head[16] != b':' {
        return None;
    }
    let days = days_in(two(head, 0)? * 100 + two(head, 2)?, two(head, 5)?, two(head, 8)?)?;
    let mut us = days * DAY_US + us_of_day(two(head, 11)?, two(head, 14)?, two(head, 17)?)?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        us += us_of_fraction(&fraction[..digits]);
        rest = &fraction[digits..];
    }
    match *rest {
        [b'Z' | b'z'] => Some(WrittenTime::new(us, 0)),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(&[h1, h2], 0)?, two(&[m1, m2], 0)?);
            Some(WrittenTime::new(us, offset_minutes(sign, hours, minutes)?))
        }
        _ => None,
    }
}

/// Microseconds since midnight. A leap second counts as the second after it.
fn us_of_day(hour: u32, minute: u32, second: u32) -> Option<i64> {
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second)) * 1_000_000)
}

/// Microseconds of the digits after a decimal point; finer digits are cut off.
fn us_of_fraction(digits: &[u8]) -> i64 {
    let mut scale = 1_000_000;
    let mut us = 0;
    for digit in digits.iter().take(6) {
        scale /= 10;
        us += i64::from(digit - b'0') * scale;
    }
    us
}

/// An offset from UTC in minutes, less than a day in both directions.
fn offset_minutes(sign: u8, hours: u32, minutes: u32) -> Option<i16> {
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = i16::try_from(hours * 60 + minutes).ok()?;
    Some(if sign == b'-' { -offset } else { offset })
}

/// Parses `YYYY-MM-DD` to days since 1970-01-01. The first year is 0001.
pub fn parse_date(text: &[u8]) -> Option<i64> {
    date(text).filter(|days| is_in_bounds(days * DAY_US))
}

/// The same for a year that may also be 0000.
pub(crate) fn date(text: &[u8]) -> Option<i64> {
    let text: &[u8; 10] = text.try_into().ok()?;
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    days_in(two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?)
}

/// Parses either form to milliseconds; for configuration.
pub fn parse_rfc3339_or_date(text: &str) -> Option<i64> {
    parse_rfc3339(text.as_bytes()).or_else(|| parse_date(text.as_bytes()).map(|days| days * DAY_MS))
}

fn days_in(year: u32, month: u32, day: u32) -> Option<i64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    if day == 0 || day > last {
        return None;
    }
    #[expect(clippy::cast_possible_wrap, reason = "a year of four digits")]
    Some(days_of(Day { year: year as i32, month, day }))
}

fn two(text: &[u8], at: usize) -> Option<u32> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_3339_examples_parse() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2025-01-13T10:30:00.123Z", 1_736_764_200_123),
            ("2025-01-13t10:30:00.123456789z", 1_736_764_200_123),
            ("2025-01-13 11:30:00.1+01:00", 1_736_764_200_100),
            ("2024-02-29T23:59:60-00:30", 1_709_253_000_000),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn fractions_are_kept_to_the_microsecond_and_cut_off_after_it() {
        for (text, expected) in [
            ("2025-01-13T10:30:00.123456789z", 1_736_764_200_123_456),
            ("2025-01-13T10:30:00.000001+00:00", 1_736_764_200_000_001),
            ("2025-01-13T10:30:00.1Z", 1_736_764_200_100_000),
            ("2024-02-29T23:59:60.999999999Z", 1_709_251_200_999_999),
            // Cut off towards the past: the next microsecond would be in 1970.
            ("1969-12-31T23:59:59.9999999Z", -1),
            ("0001-01-01T00:00:00Z", FIRST_US),
            ("0001-01-01T02:00:00+02:00", FIRST_US),
            ("0000-12-31T23:00:00-01:00", FIRST_US),
            ("9999-12-31T23:59:59.999999Z", END_US - 1),
        ] {
            assert_eq!(parse_rfc3339_us(text.as_bytes()), Some(expected), "{text}");
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(expected.div_euclid(1000)), "{text}");
        }
    }

    #[test]
    fn a_time_is_bounded_in_utc_and_not_as_it_is_written() {
        for text in [
            "0000-01-01T00:00:00Z",
            "0000-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00+14:00",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(parse_rfc3339_us(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_date(b"0000-12-31"), None);
        assert_eq!(parse_date(b"0001-01-01").map(|days| days * DAY_US), Some(FIRST_US));
        assert_eq!(parse_date(b"9999-12-31").map(|days| days * DAY_US), Some(END_US - DAY_US));
    }

    #[test]
    fn text_that_is_not_rfc_3339_is_refused() {
        for text in [
            "",
            "2025-01-13",
            "2025-01-13T10:30:00",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-13T24:00:00Z",
            "2025-01-13T10:30:00.Z",
            "2025-01-13T10:30:00Zx",
            "2025-01-13T10:30:00+1:00",
            "x025-01-13T10:30:00Z",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_round_trips(ms in -62_135_596_800_000_i64..=253_402_300_799_999) {
            prop_assert_eq!(parse_rfc3339(format_rfc3339(ms).as_bytes()), Some(ms));
        }

        #[test]
        fn every_day_round_trips(days in -719_528_i64..=2_932_896) {
            prop_assert_eq!(days_of(day_of(days)), days);
        }
    }
}
