//! What the key of an object says.
//!
//! Owns: which objects are read, the time of arrival that a key has, and which objects hold records that a delivery stream could not
//! process. Does not own: what the objects contain.
//!
//! | layout | time |
//! | --- | --- |
//! | Firehose: `…/STREAM-1-2025-01-13-10-30-00-<uuid>` | the time in the name |
//! | `raw/` of a lake: `…/year=2025/month=01/day=13/20250113T103000Z-…` | the time in the name, if it is on this day |
//! | `…/year=2025/month=01/day=13[/hour=10]/…`, `…/2025/01/13/10/…` | the object's modification time, if it is in this day or hour; otherwise the beginning of it |
//! | any other | the object's modification time |

use pipeline::time::parse_rfc3339;

use crate::source::files::kind_of;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// What an object may be written later than the last record in it arrived: the longest buffer of a delivery stream.
const BUFFER_MS: i64 = 900_000;

/// Whether an object of this key is read. Hidden names are ignored without a word; names of other files are counted.
pub(super) fn is_hidden(key: &str) -> bool {
    key.is_empty() || key.ends_with('/') || key.split('/').any(|part| part.starts_with(['.', '_']))
}

/// Whether an object of this key is read, by the ending of its name.
pub(super) fn is_read(key: &str) -> bool {
    kind_of(name_of(key)).is_some()
}

/// The last part of a key.
pub(super) fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// Whether the object holds records that a delivery stream could not process: it is in a folder such as `processing-failed` or
/// `format-conversion-failed`.
pub(super) fn has_failures(key: &str) -> bool {
    let mut folders = key.rsplit('/').skip(1);
    folders.any(|folder| folder.ends_with("-failed") && folder.len() > "-failed".len())
}

/// When the records of an object arrived, in milliseconds since 1970, by its key and its modification time.
pub(super) fn arrival_ms(key: &str, modified_ms: i64) -> i64 {
    let name = name_of(key);
    if let Some(delivered) = delivery_time(name) {
        return delivered;
    }
    let Some((begin, length)) = period(key) else { return modified_ms };
    let is_in = |ms: &i64| (begin..begin + length + BUFFER_MS).contains(ms);
    epoch_time(name).filter(is_in).or(Some(modified_ms).filter(is_in)).unwrap_or(begin)
}

/// The time in a name that Firehose wrote: `-2025-01-13-10-30-00-`.
fn delivery_time(name: &str) -> Option<i64> {
    let parts: Vec<&str> = name.split('-').collect();
    let is_number = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
    // A version precedes it, and a random part follows.
    let at = (2..parts.len().saturating_sub(6))
        .find(|at| is_number(parts[*at], 4) && parts[at + 1..at + 6].iter().all(|part| is_number(part, 2)))?;
    let [year, month, day, hour, minute, second] = parts[at..at + 6] else { return None };
    parse_rfc3339(format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z").as_bytes())
}

/// The time at the beginning of the name of an epoch's object: `20250113T103000Z-`.
fn epoch_time(name: &str) -> Option<i64> {
    let (time, _) = name.split_once('-').filter(|(time, _)| time.len() == 16 && time.is_ascii())?;
    let (day, clock) = time.strip_suffix('Z')?.split_once('T').filter(|(day, _)| day.len() == 8)?;
    let text = format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &clock[..2], &clock[2..4], &clock[4..]);
    parse_rfc3339(text.as_bytes())
}

/// The day or hour that the folders of a key name, as its beginning and its length in milliseconds.
fn period(key: &str) -> Option<(i64, i64)> {
    let folders: Vec<&str> = key.split('/').collect();
    let folders = &folders[..folders.len() - 1];
    let number = |folder: &str, name: &str, digits: usize| {
        let value = folder.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).unwrap_or(folder);
        (value.len() == digits && value.bytes().all(|byte| byte.is_ascii_digit())).then(|| value.to_owned())
    };
    // The last place where a year, a month and a day follow each other.
    (0..folders.len().saturating_sub(2)).rev().find_map(|at| {
        let year = number(folders[at], "year", 4)?;
        let month = number(folders[at + 1], "month", 2)?;
        let day = number(folders[at + 2], "day", 2)?;
        let hour = folders.get(at + 3).and_then(|folder| number(folder, "hour", 2));
        let length = if hour.is_some() { HOUR_MS } else { DAY_MS };
        let text = format!("{year}-{month}-{day}T{}:00:00Z", hour.as_deref().unwrap_or("00"));
        Some((parse_rfc3339(text.as_bytes())?, length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        parse_rfc3339(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_time_of_arrival_is_that_of_the_layout_where_it_has_one() {
        let modified = at("2025-01-13T10:47:11Z");
        for (key, expected) in [
            ("a/b.json", "2025-01-13T10:47:11Z"),
            ("2025/01/13/10/orders-1-2025-01-13-10-42-08-6d0c9b52-1d1a-4a0e-9c3f-0d1c6a2f7a11", "2025-01-13T10:42:08Z"),
            ("x/orders-eu-12-2025-01-13-10-42-08-6d0c9b52-1d1a-4a0e-9c3f-0d1c6a2f7a11.gz", "2025-01-13T10:42:08Z"),
            ("2025/01/13/10/part", "2025-01-13T10:47:11Z"),
            ("2025/01/13/09/part", "2025-01-13T09:00:00Z"),
            ("2024/12/31/part", "2024-12-31T00:00:00Z"),
            ("year=2025/month=01/day=13/hour=07/part.json.gz", "2025-01-13T07:00:00Z"),
            (
                "raw/sales/year=2025/month=01/day=13/20250113T093000Z-3f2a91c0-000001-00001.json.gz",
                "2025-01-13T09:30:00Z",
            ),
            (
                "raw/sales/year=2025/month=01/day=12/20250113T093000Z-3f2a91c0-000001-00001.json.gz",
                "2025-01-12T00:00:00Z",
            ),
            ("2025/13/45/part", "2025-01-13T10:47:11Z"),
            ("7/2025/1/3", "2025-01-13T10:47:11Z"),
        ] {
            assert_eq!(arrival_ms(key, modified), at(expected), "{key}");
        }
    }

    #[test]
    fn folders_of_failures_and_hidden_names_are_recognized() {
        for key in ["err/processing-failed/2025/01/13/10/a-1-b", "format-conversion-failed/a"] {
            assert!(has_failures(key), "{key}");
        }
        for key in ["-failed/a", "a/processing-failed", "failed/a", "a.json"] {
            assert!(!has_failures(key), "{key}");
        }
        for (key, hidden) in [("a/_x/b.json", true), (".a", true), ("a/", true), ("", true), ("a/b_c.json", false)] {
            assert_eq!(is_hidden(key), hidden, "{key}");
        }
        assert!(is_read("a/b.json.gz") && is_read("a/part-0000") && !is_read("a/b.parquet"));
    }
}
