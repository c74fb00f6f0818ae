//! Times, by chrono and regular expressions.

use std::sync::OnceLock;

use chrono::{DateTime, Datelike, NaiveDate};
use regex::Regex;

use crate::code::Code;
use crate::definition::Form;
use crate::value::Value;

/// Microseconds in a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01T00:00:00Z.
const FIRST_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z.
const LAST_US: i64 = 253_402_300_799_999_999;

/// How a time is written.
#[derive(Debug, Clone)]
pub(crate) struct TimeFormat {
    form: Form,
    /// The regular expression of a text.
    text: Regex,
    /// Seconds that local times are ahead of UTC.
    zone: Option<i64>,
    /// Whether the day is that of the text, and not that in UTC.
    day_as_written: bool,
}

/// ISO 8601 in the forms that have one meaning.
const ISO: &str = r"(?<Y>\d{4})-(?<m>\d\d)-(?<d>\d\d)[Tt ](?<H>\d\d):(?<M>\d\d)(:(?<S>\d\d)([.,](?<f>\d+))?)?( ?(?<z>[Zz]|(?i:utc|gmt)|[+-]\d\d(:?\d\d)?)(\[[A-Za-z0-9/_+-]+\])?)?";

impl TimeFormat {
    pub(crate) fn new(form: Form, zone: Option<&str>, day_as_written: bool) -> Result<Self, String> {
        let text = match &form {
            Form::Pattern(pattern) => regex_of(pattern)?,
            Form::Date => r"(?<Y>\d{4})-(?<m>\d\d)-(?<d>\d\d)".to_owned(),
            _ => ISO.to_owned(),
        };
        let ascii_digits = text.replace(r"\d", "[0-9]");
        let text = Regex::new(&format!("^(?:{ascii_digits})$")).map_err(|error| error.to_string())?;
        let zone = zone.map(|zone| offset(zone).ok_or_else(|| format!("zone '{zone}'"))).transpose()?;
        Ok(TimeFormat { form, text, zone, day_as_written })
    }

    /// The instant in UTC and the clock of its zone, in microseconds.
    fn written(&self, text: &str) -> Option<(i64, i64)> {
        let parts = self.text.captures(text)?;
        let number = |name: &str| parts.name(name).map_or(Some(0), |part| part.as_str().trim().parse::<u32>().ok());
        let month = match parts.name("b") {
            Some(name) => {
                1 + u32::try_from(MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name.as_str()))?).ok()?
            }
            None => number("m")?,
        };
        let day = NaiveDate::from_ymd_opt(number("Y")?.try_into().ok()?, month, number("d")?)?;
        let (hour, minute, second) = (number("H")?, number("M")?, number("S")?);
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let seconds = i64::from(hour * 3600 + minute * 60 + second);
        let digits: String =
            parts.name("f").map_or("", |part| part.as_str()).chars().chain("000000".chars()).take(6).collect();
        let local = day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros()
            + seconds * 1_000_000
            + digits.parse::<i64>().ok()?;
        let ahead = match parts.name("z") {
            Some(offset_text) => offset(offset_text.as_str())?,
            None => match &self.form {
                Form::Rfc3339 => self.zone?,
                _ => self.zone.unwrap_or(0),
            },
        };
        Some((local - ahead * 1_000_000, local))
    }
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Seconds that an offset is ahead of UTC.
fn offset(text: &str) -> Option<i64> {
    static OFFSET: OnceLock<Regex> = OnceLock::new();
    let offset = OFFSET.get_or_init(|| Regex::new("^([+-])([0-9]{2}):?([0-9]{2})?$").expect("a valid expression"));
    let Some(parts) = offset.captures(text) else {
        return ["z", "utc", "gmt"].contains(&text.to_lowercase().as_str()).then_some(0);
    };
    let part = |n: usize| parts.get(n).map_or(Some(0), |part| part.as_str().parse::<i64>().ok());
    let (hours, minutes) = (part(2)?, part(3)?);
    let seconds = hours * 3600 + minutes * 60;
    (hours < 24 && minutes < 60).then_some(if &parts[1] == "-" { -seconds } else { seconds })
}

/// The regular expression of a pattern.
fn regex_of(pattern: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push_str(&regex::escape(&character.to_string()));
            continue;
        }
        text.push_str(match characters.next() {
            Some('Y') => r"(?<Y>\d{4})",
            Some('m') => r"(?<m>\d\d?)",
            Some('d') => r"(?<d>\d\d?)",
            Some('H') => r"(?<H>\d\d?)",
            Some('M') => r"(?<M>\d\d?)",
            Some('S') => r"(?<S>\d\d?)",
            Some('f') => r"(?<f>\d{1,9})",
            Some('b') => "(?<b>[A-Za-z]{3})",
            Some('z') => r"(?<z>[Zz]|(?i:utc|gmt)|[+-]\d\d(:?\d\d)?)",
            other => return Err(format!("'%{other:?}' is not supported here")),
        });
    }
    Ok(text)
}

fn bounded(us: i64) -> Result<i64, Code> {
    if (FIRST_US..=LAST_US).contains(&us) { Ok(us) } else { Err(Code::OutOfRange) }
}

/// A bound of a definition, in microseconds. The last day of a bound belongs to it as a whole.
pub(crate) fn bound(text: &str, is_last: bool) -> Result<i64, String> {
    let plain = |form| TimeFormat::new(form, None, false);
    let time = plain(Form::Rfc3339)?.written(text).map(|(us, _)| us);
    let date = plain(Form::Date)?.written(text).map(|(us, _)| us + if is_last { DAY_US - 1 } else { 0 });
    time.or(date).ok_or_else(|| format!("'{text}' is not a time"))
}

/// The time of a value in this format, in microseconds since 1970.
pub(crate) fn time_of(value: &Value, format: &TimeFormat) -> Result<i64, Code> {
    match (&format.form, value) {
        (Form::Rfc3339 | Form::Date | Form::Pattern(_), Value::Text(text)) => {
            bounded(format.written(text).ok_or(Code::BadTimestamp)?.0)
        }
        (Form::EpochMs, Value::Int(ms)) => bounded(ms.saturating_mul(1000)),
        (Form::EpochUs, Value::Int(us)) => bounded(*us),
        (Form::EpochNs, Value::Int(ns)) => Ok(ns.div_euclid(1000)),
        (Form::EpochS, Value::Float(seconds)) =>
        {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a double that is too large becomes the largest number"
            )]
            bounded((seconds * 1e6).round() as i64)
        }
        _ => Err(Code::WrongType),
    }
}

/// The day of a value in this format, in days since 1970.
pub(crate) fn day_of(value: &Value, format: &TimeFormat) -> Result<i64, Code> {
    let us = match value {
        Value::Text(text) if format.day_as_written => bounded(format.written(text).ok_or(Code::BadTimestamp)?.1)?,
        value => time_of(value, format)?,
    };
    Ok(us.div_euclid(DAY_US))
}

/// Year, month and day of a time, in UTC.
pub(crate) fn date_of(us: i64) -> (i32, u32, u32) {
    let date = DateTime::from_timestamp_micros(us).map(|time| time.date_naive()).unwrap_or_default();
    (date.year(), date.month(), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: Form, text: &str) -> Option<i64> {
        TimeFormat::new(form, None, false).unwrap().written(text).map(|(us, _)| us)
    }

    #[test]
    fn times_are_read() {
        let rfc3339 = |text| read(Form::Rfc3339, text);
        assert_eq!(rfc3339("2025-01-13T10:30:00.1239+01:00"), Some(1_736_760_600_123_900));
        assert_eq!(rfc3339("2025-01-13 10:30:00,1239 +01"), Some(1_736_760_600_123_900));
        assert_eq!(rfc3339("2016-12-31T23:59:60.5Z"), Some(1_483_228_800_500_000));
        assert_eq!(rfc3339("2025-01-13T10:30:00\u{2212}01:00"), None);
        assert_eq!(rfc3339("2025-01-13T10:30:00"), None);
        let date = |text| read(Form::Date, text);
        assert_eq!(date("1970-01-02"), Some(DAY_US));
        assert_eq!([date("1970-1-2"), date("1970-02-30"), date("+970-01-02")], [None; 3]);
        let clf = Form::Pattern("%d/%b/%Y:%H:%M:%S %z".to_owned());
        assert_eq!(read(clf, "13/Jan/2025:11:30:00 +0100"), Some(1_736_764_200_000_000));
        assert_eq!(date_of(-1), (1969, 12, 31));
    }
}
