//! A reader of records that knows the required fields of each dataset. It is careful, not complete: it must accept every
//! good record, and refuse every bad one for a reason that fits the way in which it is bad.
//!
//! It shares no code with the generator: serde_json decides what is JSON, and times are counted day by day.

use serde_json::Value;

use super::TOO_LARGE_BYTES;
use crate::{BadKind, END_MS_MAX, RecordKind, START_MS_MIN};

/// The document of a record: the record itself, or its decoded base64. (`true` and `null` are both JSON and base64.)
pub(super) fn unwrapped(record: Vec<u8>) -> Vec<u8> {
    if record.len() > 4 && !record.starts_with(b"{") { from_base64(&record).unwrap_or(record) } else { record }
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) || text.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for chunk in digits.chunks(4) {
        let mut group = 0_u32;
        for &digit in chunk {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(value);
        }
        group <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&group.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

/// Why a reader of datasets must refuse a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The parser refuses it.
    Syntax,
    TooLarge,
    DuplicateKey,
    NotAnObject,
    UnknownDataset,
    Missing(&'static str),
    Empty(&'static str),
    Type(&'static str),
    Range(&'static str),
    Embedded,
    EventTime,
}

pub(super) fn refusal(kind: RecordKind, record: &[u8]) -> Option<Refusal> {
    if record.len() > TOO_LARGE_BYTES {
        return Some(Refusal::TooLarge);
    }
    let document = unwrapped(record.to_vec());
    let Ok(value) = serde_json::from_slice::<Value>(&document) else { return Some(Refusal::Syntax) };
    if keys(&value) != colons(&document) {
        return Some(Refusal::DuplicateKey);
    }
    if !value.is_object() {
        return Some(Refusal::NotAnObject);
    }
    if ["event_type", "event_timestamp", "user_id", "id", "type"].iter().all(|name| value.get(name).is_none()) {
        return Some(Refusal::UnknownDataset);
    }
    let refusal = match kind {
        RecordKind::Events => event_refusal(&value),
        RecordKind::Assessments => texts(&value, &["id", "user_id", "type"])
            .and_then(|()| number(&value, "score", 0.0, 100.0))
            .and_then(|()| number(&value, "duration", 0.0, f64::from(i32::MAX)))
            .and_then(|()| number(&value, "user_age", 0.0, 130.0))
            .and_then(|()| time(&value, "timestamp")),
        RecordKind::Users => texts(&value, &["user_id"])
            .and_then(|()| number(&value, "age", 0.0, 130.0))
            .and_then(|()| time(&value, "updated_at")),
    };
    refusal.err()
}

fn event_refusal(value: &Value) -> Result<(), Refusal> {
    texts(value, &["event_type"])?;
    for name in ["event_timestamp", "arrival_timestamp"] {
        match &value[name] {
            Value::Null => return Err(Refusal::Missing(name)),
            Value::Number(number) if number.as_i64().is_none() => return Err(Refusal::Range(name)),
            Value::Number(_) => {}
            _ => return Err(Refusal::Type(name)),
        }
    }
    if let Some(endpoint) = value.pointer("/client_context/custom/endpoint") {
        let document = serde_json::from_str::<Value>(endpoint.as_str().unwrap_or_default());
        if !document.is_ok_and(|document| document.is_object()) {
            return Err(Refusal::Embedded);
        }
    }
    in_time(value["event_timestamp"].as_i64().unwrap())
}

fn texts(value: &Value, names: &[&'static str]) -> Result<(), Refusal> {
    for &name in names {
        match &value[name] {
            Value::Null => return Err(Refusal::Missing(name)),
            Value::String(text) if text.is_empty() => return Err(Refusal::Empty(name)),
            Value::String(_) => {}
            _ => return Err(Refusal::Type(name)),
        }
    }
    Ok(())
}

fn number(value: &Value, name: &'static str, low: f64, high: f64) -> Result<(), Refusal> {
    match &value[name] {
        Value::Null => Ok(()),
        Value::Number(number) if (low..=high).contains(&number.as_f64().unwrap()) => Ok(()),
        Value::Number(_) => Err(Refusal::Range(name)),
        _ => Err(Refusal::Type(name)),
    }
}

fn time(value: &Value, name: &'static str) -> Result<(), Refusal> {
    match &value[name] {
        Value::Null => Err(Refusal::Missing(name)),
        Value::String(text) => in_time(epoch_ms(text).ok_or(Refusal::Type(name))?),
        _ => Err(Refusal::Type(name)),
    }
}

fn in_time(ms: i64) -> Result<(), Refusal> {
    if (START_MS_MIN..END_MS_MAX).contains(&ms) { Ok(()) } else { Err(Refusal::EventTime) }
}

/// RFC 3339 as the generator writes it. Days are counted, so that nothing is shared with the code under test.
pub(super) fn epoch_ms(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last_day = *months.get(usize::try_from(month - 1).ok()?)?;
    if day < 1 || day > last_day || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let years: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let days = years + months[..month as usize - 1].iter().sum::<i64>() + day - 1;
    let (fraction, offset_hours) = match text.get(19..)? {
        "Z" => (0, 0),
        rest if rest.ends_with('Z') && rest.len() == 5 => (number(20, 23)?, 0),
        rest if rest.ends_with(":00") && rest.len() == 10 => (number(20, 23)?, number(24, 26)?),
        _ => return None,
    };
    Some(((days * 24 + hour - offset_hours) * 60 + minute) * 60_000 + second * 1000 + fraction)
}

/// The number of keys in the parsed document. Of two equal keys in an object, the parser keeps one.
pub(super) fn keys(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.len() + members.values().map(keys).sum::<usize>(),
        Value::Array(items) => items.iter().map(keys).sum(),
        _ => 0,
    }
}

/// The number of keys in the text of the document: colons outside strings.
pub(super) fn colons(document: &[u8]) -> usize {
    let (mut colons, mut inside, mut at) = (0, false, 0);
    while at < document.len() {
        match document[at] {
            b'\\' => at += 1,
            b'"' => inside = !inside,
            b':' if !inside => colons += 1,
            _ => {}
        }
        at += 1;
    }
    colons
}

/// Whether a refusal fits the way in which a record is bad.
pub(super) fn fits(bad: BadKind, kind: RecordKind, refusal: Refusal) -> bool {
    let times = ["timestamp", "updated_at"];
    match bad {
        BadKind::NotJson
        | BadKind::NotUtf8
        | BadKind::Truncated
        | BadKind::NotFinite
        | BadKind::TooDeep
        | BadKind::UnpairedSurrogate
        | BadKind::BadEscape
        | BadKind::ControlCharacter
        | BadKind::BadBase64 => refusal == Refusal::Syntax,
        BadKind::DuplicateKey => refusal == Refusal::DuplicateKey,
        // Without its user, a profile is a record of no dataset.
        BadKind::MissingField if refusal == Refusal::UnknownDataset => kind == RecordKind::Users,
        BadKind::MissingField => matches!(refusal, Refusal::Missing(_)),
        BadKind::EmptyIdentifier => matches!(refusal, Refusal::Empty(_)),
        BadKind::WrongType => matches!(refusal, Refusal::Type(_)),
        BadKind::OutOfRange => matches!(refusal, Refusal::Range(_)),
        BadKind::NegativeDuration => refusal == Refusal::Range("duration"),
        BadKind::UnknownDataset => refusal == Refusal::UnknownDataset,
        BadKind::NotAnObject => refusal == Refusal::NotAnObject,
        BadKind::EventTimeTooOld | BadKind::EventTimeInFuture => refusal == Refusal::EventTime,
        BadKind::BadTimestamp => matches!(refusal, Refusal::Type(name) if times.contains(&name)),
        BadKind::BadEmbeddedJson => refusal == Refusal::Embedded,
        BadKind::TooLarge => refusal == Refusal::TooLarge,
    }
}
