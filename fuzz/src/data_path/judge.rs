//! What a record is, decided without the code under test: framing by `split`, JSON by serde_json.

use pipeline::dead_letter::code::Code;
use serde_json::{Map, Value, json};

/// The nesting up to which serde_json decides. It fails at 128 levels.
const DEPTH_SURE: usize = 120;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    NotUtf8,
    NotJson,
    NotAnObject,
    Object,
    /// Nested too deep for serde_json.
    Deep,
}

impl Verdict {
    /// Whether such a record may have this code.
    pub(crate) fn allows(self, code: Code, is_assigned: bool) -> bool {
        let grammar = matches!(
            code,
            Code::NotJson | Code::Truncated | Code::MultipleDocuments | Code::TrailingBytes | Code::UnpairedSurrogate
        );
        match self {
            // Random bytes that begin as gzip data does are never whole.
            Verdict::NotUtf8 => matches!(code, Code::NotUtf8 | Code::DamagedGzip),
            Verdict::NotJson => grammar || code == Code::DamagedGzip,
            Verdict::NotAnObject => matches!(code, Code::NotAnObject | Code::DamagedGzip),
            Verdict::Object => {
                let of_bytes = grammar
                    || matches!(code, Code::NotUtf8 | Code::NotAnObject | Code::TooDeep)
                    || matches!(code, Code::TooLarge | Code::DamagedFile | Code::DamagedGzip | Code::BrokenAggregate);
                !(of_bytes || is_assigned && code == Code::UnknownDataset)
            }
            Verdict::Deep => code != Code::NotUtf8,
        }
    }
}

/// The verdict on a record's bytes, or on their content if they are base64.
pub(crate) fn verdict(record: &[u8]) -> Verdict {
    let document = unwrapped(record);
    let document = document.as_deref().unwrap_or(record);
    let Ok(text) = std::str::from_utf8(document) else { return Verdict::NotUtf8 };
    // UTF-16 of ASCII characters, or half of a line end of it.
    if document == b"\0" {
        return Verdict::NotUtf8;
    }
    if let [a, b, c, d, ..] = document
        && ((a | c) == 0 && b.min(d) > &0 || (b | d) == 0 && a > &0 && c > &0)
    {
        return Verdict::NotUtf8;
    }
    if depth(document) > DEPTH_SURE {
        return Verdict::Deep;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => Verdict::Object,
        Ok(_) => Verdict::NotAnObject,
        // A number beyond the range of a double is well-formed.
        Err(error) if error.to_string().starts_with("number out of range") => number_too_large(text),
        Err(_) => Verdict::NotJson,
    }
}

/// The verdict on a text with numbers that are too large for serde_json, which are replaced by small ones one after the other.
fn number_too_large(text: &str) -> Verdict {
    let mut text = text.to_owned();
    loop {
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(_)) => return Verdict::Object,
            Ok(_) => return Verdict::NotAnObject,
            Err(error) if error.to_string().starts_with("number out of range") => {
                // The column is the end of the number, in bytes of its line.
                let line_begin: usize = text.split('\n').take(error.line() - 1).map(|line| line.len() + 1).sum();
                let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
                let bytes = text.as_bytes();
                let near = (line_begin + error.column()).min(bytes.len());
                let before = bytes[..near].iter().rev().take_while(|byte| is_part(byte)).count();
                let after = bytes[near..].iter().take_while(|byte| is_part(byte)).count();
                assert!(before + after > 1, "there is no number at the position of the error: {text}");
                // serde_json stops at the digit that makes it too large, and does not check the rest.
                if !is_number(&bytes[near - before..near + after]) {
                    return Verdict::NotJson;
                }
                text.replace_range(near - before..near + after, "1");
            }
            Err(_) => return Verdict::NotJson,
        }
    }
}

/// Whether it is a number of RFC 8259, section 6.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then(|| &text[count..])
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let leads_with_zero = text.len() > 1 && text[0] == b'0' && text[1].is_ascii_digit();
    let Some(mut rest) = digits(text).filter(|_| !leads_with_zero) else { return false };
    if let Some(fraction) = rest.strip_prefix(b".") {
        let Some(after) = digits(fraction) else { return false };
        rest = after;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let Some(after) = digits(exponent) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// The content of a record that is base64, if it begins like an object.
fn unwrapped(record: &[u8]) -> Option<Vec<u8>> {
    let text = record.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(record).trim_ascii();
    // The beginnings of an object in base64: `{` followed by a quote or space, a line end, or `}`.
    if !matches!(text, [b'e', b'y' | b'w' | b'3', _, _, ..]) {
        return None;
    }
    let decoded = base64_simd::STANDARD.decode_to_vec(text);
    let decoded = decoded.or_else(|_| base64_simd::STANDARD_NO_PAD.decode_to_vec(text));
    decoded.ok().filter(|decoded| decoded.first() == Some(&b'{'))
}

/// How deep brackets are nested, outside of strings.
fn depth(document: &[u8]) -> usize {
    let (mut depth, mut deepest, mut inside, mut at) = (0_usize, 0, false, 0);
    while at < document.len() {
        match document[at] {
            b'\\' if inside => at += 1,
            b'"' => inside = !inside,
            b'{' | b'[' if !inside => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !inside => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// A line that is a record.
pub(crate) struct Line<'a> {
    pub(crate) offset: usize,
    /// Without its line end.
    pub(crate) text: &'a [u8],
    /// Without its line feed.
    pub(crate) whole: &'a [u8],
}

/// The lines that are records. Blank lines are not.
pub(crate) fn lines(data: &[u8]) -> Vec<Line<'_>> {
    let mut offset = 0;
    let mut found = Vec::new();
    for whole in data.split(|byte| *byte == b'\n') {
        let text = whole.strip_suffix(b"\r").unwrap_or(whole);
        if text.iter().any(|byte| !matches!(byte, b' ' | b'\t' | b'\r')) {
            found.push(Line { offset, text, whole });
        }
        offset += whole.len() + 1;
    }
    found
}

/// A record as one line.
pub(crate) fn as_line(record: &[u8]) -> Vec<u8> {
    record.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect()
}

/// Records that have a value at each JSON Pointer of a definition's text: first a value that seems to fit, then the same value at all
/// pointers, for each kind of value, then a different kind at each pointer.
pub(crate) fn records_for(text: &str) -> Vec<String> {
    let quoted = text.split_inclusive(['"', '\'']).scan(0, |at, part| {
        let begin = *at;
        *at += part.len();
        Some((begin, part.trim_end_matches(['"', '\''])))
    });
    let pointers: Vec<(usize, &str)> =
        quoted.filter(|(_, part)| part.starts_with('/') && part.len() < 200).take(60).collect();
    let values = [
        json!("text"),
        json!("2025-01-13T10:30:00.123+01:00"),
        json!(1_736_764_200_123_i64),
        json!(-7.25),
        json!(true),
        json!(["a", null, "2025-01-13", 3]),
        json!([{"a": 1, "b": "x", "name": {"c": [1]}}, {}]),
        json!({"a": 1, "code": "DE", "c": {"d": "e"}}),
        json!("{\"a\":\"\\u00e9\",\"b\":{\"c\":\"DE\"}}"),
        json!("DE"),
        Value::Null,
    ];
    let fitting: Vec<Value> = pointers
        .iter()
        .enumerate()
        .map(|(number, (at, _))| {
            let end = pointers.get(number + 1).map_or(text.len(), |(next, _)| *next);
            let table = text[..*at].rsplit_once('[').map_or("", |(_, table)| table);
            fitting(table.contains("_time"), &text[*at..end])
        })
        .collect();
    let record = |value: &dyn Fn(usize) -> Value| {
        let mut record = Map::new();
        for (number, (_, pointer)) in pointers.iter().enumerate() {
            let keys: Vec<String> =
                pointer[1..].split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect();
            if keys.len() < 30 {
                put(&mut record, &keys, &value(number));
            }
        }
        Value::Object(record).to_string()
    };
    let kinds = values.len();
    let mut records = vec![record(&|number| fitting[number].clone())];
    // All values fit except one, which is null or of another kind.
    records.extend((0..pointers.len().min(8)).map(|odd| {
        record(&|number| {
            if number == odd { values[(odd + kinds - 1) % kinds].clone() } else { fitting[number].clone() }
        })
    }));
    records.push(record(&|number| fitting[number].clone()));
    records.extend((0..kinds).map(|kind| record(&|_| values[kind].clone())));
    records.extend((0..kinds).map(|turn| record(&|number| values[(number + turn) % kinds].clone())));
    records
}

/// A value that probably fits what a definition says after a pointer, judged by a few words.
fn fitting(is_time: bool, after: &str) -> Value {
    let says = |word: &str| after.contains(word);
    let scalar = if says("epoch_ms") {
        json!(1_736_764_200_123_i64)
    } else if says("epoch_s") {
        json!(1_736_764_200.5)
    } else if says("\"date") {
        json!("2025-01-13")
    } else if is_time || says("timestamp") || says("rfc3339") {
        json!("2025-01-13T10:30:00Z")
    } else if says("\"int") || says("age_band") {
        json!(7)
    } else if says("\"float") {
        json!(7.5)
    } else if says("\"bool") {
        json!(false)
    } else {
        json!("DE")
    };
    if says("field") {
        let members = json!({ "a": {"b": 1}, "b": "x", "name": {"c": 3}, "c": {"d": "e"} });
        let item = if says("\"json") { members } else { json!({ "a": 1, "b": 2, "c": {"d": "e"}, "name": {"c": 3} }) };
        if says("\"struct") { item } else { json!([item, item, {}]) }
    } else if says("\"list") {
        json!([scalar, null, scalar])
    } else if says("\"map") {
        json!({ "a": scalar, "bc": scalar, "z": null })
    } else {
        scalar
    }
}

/// Puts a value at a path, unless the path leads through a value that is not an object.
fn put(record: &mut Map<String, Value>, keys: &[String], value: &Value) {
    match keys {
        [] => {}
        [last] => {
            record.entry(last.clone()).or_insert_with(|| value.clone());
        }
        [first, rest @ ..] => {
            let below = record.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}
