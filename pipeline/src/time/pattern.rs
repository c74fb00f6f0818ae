//! Times in a format that a definition spells out, in the notation of `strftime`: `%d/%b/%Y:%H:%M:%S %z`.
//!
//! Owns: the notation, and reading a text by it. Does not own: ISO 8601 and RFC 3339 texts (`written`), which need no pattern.
//!
//! The directives are those of C and Python. `%L` is Ruby's and Fluent Bit's word for a fraction, `%.f` and `%:z` are those of
//! Rust's chrono, which Vector uses. Limit: 32 directives and characters, so that a pattern is a small value that is copied.

use std::fmt;

use crate::time::us_of_fraction;
use crate::time::written::{self, WrittenTime};

/// The most directives and other characters of a pattern.
const ITEMS_MAX: usize = 32;

/// The added bit of a directive; other items are characters of ASCII.
const DIRECTIVE: u8 = 0x80;

/// How a time is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimePattern {
    items: [u8; ITEMS_MAX],
    len: u8,
}

/// The characters of the directives: each is what follows `%`. A fraction with its point is `.`.
const DIRECTIVES: &[u8] = b"YymdebBaAHIpMSfLzZ.";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl TimePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence for the user: an unknown directive, a missing part of a date, a part that is there twice.
    pub(crate) fn parse(text: &str) -> Result<TimePattern, String> {
        let mut pattern = TimePattern { items: [0; ITEMS_MAX], len: 0 };
        pattern.add(text, text)?;
        pattern.check(text).map(|()| pattern)
    }

    /// Adds the items of `part`, which is the pattern `text` or what one of its directives is short for.
    fn add(&mut self, part: &str, text: &str) -> Result<(), String> {
        let mut rest = part;
        while let Some(character) = rest.chars().next() {
            rest = &rest[character.len_utf8()..];
            let item = if character == '%' {
                let length = if rest.starts_with(":z") || rest.starts_with(".f") { 2 } else { 1 };
                let directive = rest.get(..length).unwrap_or(rest);
                rest = &rest[directive.len()..];
                match directive {
                    "F" => return self.add("%Y-%m-%d", text).and_then(|()| self.add(rest, text)),
                    "T" => return self.add("%H:%M:%S", text).and_then(|()| self.add(rest, text)),
                    "R" => return self.add("%H:%M", text).and_then(|()| self.add(rest, text)),
                    "D" => return self.add("%m/%d/%y", text).and_then(|()| self.add(rest, text)),
                    "%" => b'%',
                    ":z" => b'z' | DIRECTIVE,
                    ".f" => b'.' | DIRECTIVE,
                    other => match other.as_bytes() {
                        [letter] if *letter != b'.' && DIRECTIVES.contains(letter) => letter | DIRECTIVE,
                        _ => {
                            return Err(format!(
                                "'{text}': '%{other}' is not known; use %Y %m %d %H %M %S, %f or %.f for a fraction, %z for \
                                 an offset, %b or %B for a month's name, %y %e %I %p %a %A %Z %F %T"
                            ));
                        }
                    },
                }
            } else {
                match u8::try_from(character) {
                    Ok(byte) if (b' '..=b'~').contains(&byte) => byte,
                    _ => return Err(format!("'{text}': a pattern has printable characters of ASCII only")),
                }
            };
            let Some(place) = self.items.get_mut(usize::from(self.len)) else {
                return Err(format!("'{text}' has more than {ITEMS_MAX} directives and characters"));
            };
            *place = item;
            self.len += 1;
        }
        Ok(())
    }

    fn check(&self, text: &str) -> Result<(), String> {
        let one_of = |names: &[u8]| names.iter().map(|name| self.count(*name)).sum::<usize>();
        for (names, what) in [
            (b"Yy".as_slice(), "a year"),
            (b"mbB", "a month"),
            (b"de", "a day"),
            (b"HI", "an hour"),
            (b"p", "%p"),
            (b"M", "minutes"),
            (b"S", "seconds"),
            (b"fL.", "a fraction"),
            (b"zZ", "an offset"),
        ] {
            if one_of(names) > 1 {
                return Err(format!("'{text}' has {what} twice"));
            }
        }
        if one_of(b"Yy") == 0 || one_of(b"mbB") == 0 || one_of(b"de") == 0 {
            return Err(format!("'{text}' needs a year (%Y), a month (%m) and a day (%d)"));
        }
        if self.count(b'I') != self.count(b'p') {
            return Err(format!("'{text}': an hour of twelve (%I) needs %p, and %p needs %I"));
        }
        let (hour, minute, second) = (one_of(b"HI"), self.count(b'M'), self.count(b'S'));
        if minute > hour || second > minute || one_of(b"fL.") > second || one_of(b"zZ") > hour {
            return Err(format!(
                "'{text}': minutes and an offset need an hour, seconds need minutes, a fraction seconds"
            ));
        }
        Ok(())
    }

    fn items(&self) -> &[u8] {
        &self.items[..usize::from(self.len)]
    }

    fn count(&self, letter: u8) -> usize {
        self.items().iter().filter(|item| **item == letter | DIRECTIVE).count()
    }

    /// Whether it has a time of day, and not only a date.
    pub(crate) fn has_time(&self) -> bool {
        self.count(b'H') + self.count(b'I') > 0
    }

    /// Whether it has an offset from UTC.
    pub(crate) fn has_offset(&self) -> bool {
        self.count(b'z') + self.count(b'Z') > 0
    }

    /// Reads a text. `zone` is the offset in minutes of a text that has none.
    pub(crate) fn read(&self, text: &[u8], zone: i16) -> Option<WrittenTime> {
        let mut parts = Parts { offset: zone, ..Parts::default() };
        let mut rest = text;
        for item in self.items() {
            rest = if item & DIRECTIVE == 0 {
                rest.strip_prefix(&[*item])?
            } else {
                parts.read(item ^ DIRECTIVE, rest)?
            };
        }
        if rest.is_empty() { parts.time() } else { None }
    }
}

impl fmt::Display for TimePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items().iter().try_for_each(|item| match item ^ DIRECTIVE {
            b'.' => f.write_str("%.f"),
            letter if item & DIRECTIVE != 0 => write!(f, "%{}", char::from(letter)),
            _ if *item == b'%' => f.write_str("%%"),
            _ => write!(f, "{}", char::from(*item)),
        })
    }
}

impl fmt::Debug for TimePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimePattern({self})")
    }
}

/// The parts of a time that were read so far.
#[derive(Debug, Default)]
struct Parts {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    is_pm: Option<bool>,
    minute: u32,
    second: u32,
    us: i64,
    offset: i16,
}

impl Parts {
    /// Reads the part of a directive; returns the rest of the text.
    fn read<'t>(&mut self, letter: u8, text: &'t [u8]) -> Option<&'t [u8]> {
        let two_digits = |text| digits(text, 1, 2);
        let rest;
        match letter {
            b'Y' => (self.year, rest) = digits(text, 4, 4)?,
            b'y' => {
                let (year, after) = digits(text, 2, 2)?;
                // POSIX: 69 to 99 are years of the twentieth century.
                (self.year, rest) = (if year < 69 { 2000 + year } else { 1900 + year }, after);
            }
            b'm' => (self.month, rest) = two_digits(text)?,
            b'd' => (self.day, rest) = two_digits(text)?,
            b'e' => (self.day, rest) = two_digits(text.strip_prefix(b" ").unwrap_or(text))?,
            b'H' => (self.hour, rest) = two_digits(text)?,
            b'I' => {
                (self.hour, rest) = two_digits(text)?;
                if !(1..=12).contains(&self.hour) {
                    return None;
                }
            }
            b'M' => (self.minute, rest) = two_digits(text)?,
            b'S' => (self.second, rest) = two_digits(text)?,
            b'b' | b'B' => {
                let (number, after) = name(text, &MONTHS, letter == b'b')?;
                (self.month, rest) = (number + 1, after);
            }
            b'a' | b'A' => (_, rest) = name(text, &WEEKDAYS, letter == b'a')?,
            b'p' => {
                let (number, after) = name(text, &["AM", "PM"], false)?;
                (self.is_pm, rest) = (Some(number == 1), after);
            }
            b'f' | b'L' => (self.us, rest) = fraction(text)?,
            b'.' => match text {
                [b'.' | b',', after @ ..] => (self.us, rest) = fraction(after)?,
                _ => rest = text,
            },
            // `z` and `Z`: an offset, or the name of UTC.
            _ => {
                let (offset, length) = written::offset(text)?;
                (self.offset, rest) = (offset, &text[length..]);
            }
        }
        Some(rest)
    }

    fn time(&self) -> Option<WrittenTime> {
        let hour = self.is_pm.map_or(self.hour, |is_pm| self.hour % 12 + if is_pm { 12 } else { 0 });
        let us = crate::time::us_of_day(hour, self.minute, self.second)? + self.us;
        written::midnight(self.year, self.month, self.day, us, self.offset)
    }
}

/// The number of the next digits, as many as there are up to `max`.
fn digits(text: &[u8], min: usize, max: usize) -> Option<(u32, &[u8])> {
    let count = text.iter().take(max).take_while(|byte| byte.is_ascii_digit()).count();
    let value = text[..count].iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    (count >= min).then_some((value, &text[count..]))
}

/// The microseconds of one to nine digits after a decimal point.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let count = text.iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then(|| (us_of_fraction(&text[..count]), &text[count..]))
}

/// The number of the name that the text begins with, in upper or lower case; `short`: of its first three characters.
fn name<'t>(text: &'t [u8], names: &[&str], short: bool) -> Option<(u32, &'t [u8])> {
    (0..).zip(names).find_map(|(number, name)| {
        let name = if short { &name[..3] } else { name };
        let (begin, rest) = text.split_at_checked(name.len())?;
        begin.eq_ignore_ascii_case(name.as_bytes()).then_some((number, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{day_of, format_rfc3339, parse_rfc3339};
    use proptest::prelude::*;

    fn read(pattern: &str, text: &str) -> Option<String> {
        let time = TimePattern::parse(pattern).unwrap().read(text.as_bytes(), 0)?;
        Some(format_rfc3339(time.us.div_euclid(1000)))
    }

    #[test]
    fn times_are_read_by_their_pattern() {
        for (pattern, text, expected) in [
            ("%d/%b/%Y:%H:%M:%S %z", "08/Jul/2025:20:40:00 +0200", "2025-07-08T18:40:00.000Z"),
            ("%a, %d %b %Y %H:%M:%S %Z", "Tue, 08 Jul 2025 18:40:00 GMT", "2025-07-08T18:40:00.000Z"),
            ("%A %e %B %Y", "tuesday  8 JULY 2025", "2025-07-08T00:00:00.000Z"),
            ("%m/%d/%y %I:%M %p", "7/8/25 6:40 pm", "2025-07-08T18:40:00.000Z"),
            ("%m/%d/%y %I:%M %p", "7/8/69 12:40 AM", "1969-07-08T00:40:00.000Z"),
            ("%Y%m%d%H%M%S%f", "20250708184000123456789", "2025-07-08T18:40:00.123Z"),
            ("%FT%T%.f%:z", "2025-07-08T18:40:00,5-01:30", "2025-07-08T20:10:00.500Z"),
            ("%FT%T%.f%:z", "2025-07-08T18:40:00Z", "2025-07-08T18:40:00.000Z"),
            ("%d.%m.%Y 100%%", "8.7.2025 100%", "2025-07-08T00:00:00.000Z"),
            ("%F %R", "2025-07-08 18:40", "2025-07-08T18:40:00.000Z"),
        ] {
            assert_eq!(read(pattern, text).as_deref(), Some(expected), "{pattern}: {text}");
        }
    }

    #[test]
    fn a_text_of_another_form_is_not_read() {
        for (pattern, text) in [
            ("%d/%b/%Y", "08/Jul/25"),
            ("%d/%b/%Y", "08/Jux/2025"),
            ("%d/%b/%Y", "08/Jul/2025 "),
            ("%d/%m/%Y", "30/02/2025"),
            ("%d/%m/%Y", "1/13/2025"),
            ("%F %T", "2025-07-08 24:00:00"),
            ("%F %I %p", "2025-07-08 13 pm"),
            ("%F %I %p", "2025-07-08 0 am"),
            ("%F %T%z", "2025-07-08 18:40:00"),
            ("%F %T", ""),
        ] {
            assert_eq!(read(pattern, text), None, "{pattern}: {text}");
        }
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_refused_with_the_reason() {
        let problem = |pattern: &str| TimePattern::parse(pattern).unwrap_err();
        assert_eq!(problem("%H:%M"), "'%H:%M' needs a year (%Y), a month (%m) and a day (%d)");
        assert_eq!(problem("%F %m"), "'%F %m' has a month twice");
        assert!(problem("%F %I").contains("needs %p"), "{}", problem("%F %I"));
        assert!(problem("%F %H %f").contains("a fraction seconds"));
        assert!(problem("%F %Q").contains("'%Q' is not known"));
        assert!(problem("%F %").contains("'%' is not known"));
        assert!(problem("%F ä").contains("ASCII"));
        assert!(problem(&format!("%F{}", "-".repeat(40))).contains("more than 32"));
    }

    #[test]
    fn a_pattern_is_written_as_it_was_read() {
        for text in ["%Y-%m-%dT%H:%M:%S%.f%z", "100%% %e %b %y %I%p"] {
            assert_eq!(TimePattern::parse(text).unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn every_second_of_the_calendar_comes_back(ms in -62_135_596_800_i64..253_402_300_800) {
            let ms = ms * 1000;
            let text = format_rfc3339(ms);
            let day = day_of(ms.div_euclid(86_400_000));
            let other = format!("{:02}/{}/{:04} {}", day.day, &MONTHS[day.month as usize - 1][..3], day.year, &text[11..19]);
            let time = TimePattern::parse("%d/%b/%Y %T").unwrap().read(other.as_bytes(), 0);
            prop_assert_eq!(time.map(|time| time.us / 1000), parse_rfc3339(text.as_bytes()));
        }

        #[test]
        fn no_text_is_a_fault(text in "[0-9APMJul /:+-]{0,24}") {
            for pattern in ["%d/%b/%Y:%H:%M:%S %z", "%m/%d/%y %I:%M %p", "%Y%m%d%H%M%S%.f", "%A %e %B %Y"] {
                let _ = TimePattern::parse(pattern).unwrap().read(text.as_bytes(), 60);
            }
        }
    }
}
