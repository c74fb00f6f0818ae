//! Times as producers write them: ISO 8601 text that is not quite RFC 3339.
//!
//! Owns: which deviations from RFC 3339 have one meaning only, and a time together with its offset. Does not own: RFC 3339
//! itself (the parent module), formats that a definition spells out (`pattern`).
//!
//! Accepted besides RFC 3339, since programs write each of them by default:
//!
//! - no seconds (`2025-07-08T18:40Z`, Java's `OffsetDateTime`), a comma before the fraction (Python's `logging`);
//! - an offset without a colon or without minutes (`+0200`, `+02`), after a space, or as ` UTC` or ` GMT`;
//! - the name of a time zone after the offset (`+02:00[Europe/Berlin]`, Java's `ZonedDateTime`). The offset counts.
//! - no offset, if the definition names the zone of such times.

use crate::time::{DAY_US, days_in, offset_minutes, two, us_of_day, us_of_fraction};

/// Microseconds in a minute.
const MINUTE_US: i64 = 60_000_000;

/// A point in time and the offset that it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrittenTime {
    /// Microseconds since 1970 in UTC; the caller checks the bounds.
    pub(crate) us: i64,
    /// The offset from UTC in minutes.
    pub(crate) offset: i16,
}

impl WrittenTime {
    /// The time that a clock shows `local_us` at, in a zone with this offset in minutes.
    #[inline]
    pub(crate) fn new(local_us: i64, offset: i16) -> Self {
        WrittenTime { us: local_us - i64::from(offset) * MINUTE_US, offset }
    }

    /// What the clock of its zone shows, in microseconds since 1970-01-01 00:00 there.
    pub(crate) fn local_us(self) -> i64 {
        self.us + i64::from(self.offset) * MINUTE_US
    }
}

/// Parses a time. `zone` is the offset in minutes of times that have none of their own; without it they are refused.
#[cold]
pub(crate) fn parse(text: &[u8], zone: Option<i16>) -> Option<WrittenTime> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let days = crate::time::date(date)?;
    let (head, mut rest) = rest.split_first_chunk::<6>()?;
    if !matches!(head[0], b'T' | b't' | b' ') || head[3] != b':' {
        return None;
    }
    let (hour, minute) = (two(head, 1)?, two(head, 4)?);
    let mut second = 0;
    let mut fraction_us = 0;
    if let [b':', tens, ones, after @ ..] = rest {
        second = two(&[*tens, *ones], 0)?;
        rest = after;
        if let [b'.' | b',', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            fraction_us = us_of_fraction(&fraction[..digits]);
            rest = &fraction[digits..];
        }
    }
    let local_us = days * DAY_US + us_of_day(hour, minute, second)? + fraction_us;
    if rest.is_empty() {
        return Some(WrittenTime::new(local_us, zone?));
    }
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (offset, length) = offset(rest)?;
    let is_zone = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(byte));
    match &rest[length..] {
        [] => {}
        [b'[', name @ .., b']'] if !name.is_empty() && is_zone(name) => {}
        _ => return None,
    }
    Some(WrittenTime::new(local_us, offset))
}

/// The offset in minutes at the beginning of a text, and its length: `Z`, `UTC`, `GMT`, `+02`, `+0200`, `+02:00`.
pub(crate) fn offset(text: &[u8]) -> Option<(i16, usize)> {
    if let [sign @ (b'+' | b'-'), h1, h2, rest @ ..] = text {
        let hours = two(&[*h1, *h2], 0)?;
        let (minutes, length) = match rest {
            [b':', m1, m2, ..] => (two(&[*m1, *m2], 0)?, 6),
            [m1 @ b'0'..=b'9', m2 @ b'0'..=b'9', ..] => (two(&[*m1, *m2], 0)?, 5),
            _ => (0, 3),
        };
        return Some((offset_minutes(*sign, hours, minutes)?, length));
    }
    let begins = |name: &str| text.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()));
    ["UTC", "GMT", "Z"].into_iter().find(|name| begins(name)).map(|name| (0, name.len()))
}

/// The time at midnight of a date, in a zone with this offset in minutes.
pub(crate) fn midnight(year: u32, month: u32, day: u32, us: i64, offset: i16) -> Option<WrittenTime> {
    Some(WrittenTime::new(days_in(year, month, day)? * DAY_US + us, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{format_rfc3339, rfc3339};
    use proptest::prelude::*;

    #[test]
    fn deviations_that_have_one_meaning_are_read() {
        for (text, expected) in [
            ("2025-07-08T20:40:00.123+0200", "2025-07-08T18:40:00.123Z"),
            ("2025-07-08T20:40:00+02", "2025-07-08T18:40:00.000Z"),
            ("2025-07-08 18:40:00 +0000", "2025-07-08T18:40:00.000Z"),
            ("2025-07-08 18:40:00 UTC", "2025-07-08T18:40:00.000Z"),
            ("2025-07-08 18:40:00,123 GMT", "2025-07-08T18:40:00.123Z"),
            ("2025-07-08T18:40:00utc", "2025-07-08T18:40:00.000Z"),
            ("2025-07-08T18:40Z", "2025-07-08T18:40:00.000Z"),
            ("2025-07-08T18:40-01:30", "2025-07-08T20:10:00.000Z"),
            ("2025-07-08T20:40:00+02:00[Europe/Berlin]", "2025-07-08T18:40:00.000Z"),
            ("2025-07-08T18:40:00,9999999Z", "2025-07-08T18:40:00.999Z"),
            ("2025-07-08T18:40:60Z", "2025-07-08T18:41:00.000Z"),
        ] {
            let us = parse(text.as_bytes(), None).unwrap_or_else(|| panic!("{text}")).us;
            assert_eq!(format_rfc3339(us.div_euclid(1000)), expected, "{text}");
        }
    }

    #[test]
    fn a_local_time_is_read_in_the_zone_of_the_definition_only() {
        for text in ["2025-07-08T18:40:00", "2025-07-08 18:40:00.000", "2025-07-08 18:40"] {
            assert_eq!(parse(text.as_bytes(), None), None, "{text}");
            let in_zone = |zone| parse(text.as_bytes(), Some(zone)).map(|time| format_rfc3339(time.us / 1000));
            assert_eq!(in_zone(0).unwrap(), "2025-07-08T18:40:00.000Z");
            assert_eq!(in_zone(120).unwrap(), "2025-07-08T16:40:00.000Z");
            assert_eq!(in_zone(-330).unwrap(), "2025-07-09T00:10:00.000Z");
        }
        // An offset in the text counts more.
        let written = parse(b"2025-07-08T18:40:00+0100", Some(0)).unwrap();
        assert_eq!((format_rfc3339(written.us / 1000).as_str(), written.offset), ("2025-07-08T17:40:00.000Z", 60));
    }

    #[test]
    fn texts_with_no_or_several_meanings_are_refused() {
        for text in [
            "",
            "2025-07-08",
            "2025-07-08T24:00:00Z",
            "2025-07-08T18Z",
            "2025-07-08T18:40:00.Z",
            "2025-07-08T18:40.5Z",
            "2025-07-08T18:40:00+2",
            "2025-07-08T18:40:00+020",
            "2025-07-08T18:40:00+24",
            "2025-07-08T18:40:00 CET",
            "2025-07-08T18:40:00[Europe/Berlin]",
            "2025-07-08T18:40:00Z[",
            "2025-07-08T18:40:00Z[]",
            "2025-07-08T18:40:00Z[!x]",
            "2025-07-08T18:40:00  Z",
            "2025-07-08T18:40:00Zx",
            "+10000-01-01T00:00:00Z",
            "Tue, 08 Jul 2025 18:40:00 GMT",
            "2025-07-08T18:40:00\u{2212}02:00",
        ] {
            assert_eq!(parse(text.as_bytes(), Some(0)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_rfc_3339_has_is_read_alike(text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])") {
            prop_assert_eq!(parse(text.as_bytes(), None), rfc3339(text.as_bytes()));
        }

        #[test]
        fn no_text_is_a_fault(text in prop::collection::vec(any::<u8>(), 0..40), zone in prop::option::of(-720_i16..=840)) {
            let _ = parse(&text, zone);
        }
    }
}
