//! Bad records, such as broken producers send. Each is made from a good record.
//!
//! A bad record must be bad for **every** careful reader:
//!
//! - a value of a wrong type is never one that a lenient reader might convert, such as `"12"` for a number;
//! - a change of meaning affects a required field;
//! - a violation of the grammar of RFC 8259 may be anywhere, except after a whole record, which a reader of many documents
//!   keeps.
//!
//! It should be bad in one way only, so that a test can expect one result. It has no raw line break, so it is one line of a
//! file, and it is not blank.

use super::RecordKind;
use super::draft::Good;
use super::random::Rng;
use super::write::{Utc, base64, put};

/// The way in which a record is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BadKind {
    /// Not JSON: a line of a log, HTML, CSV, a bare `NaN`, a missing colon, a trailing comma, `True`, a number such as
    /// `007`.
    NotJson,
    /// Bytes inside a string that are not UTF-8: a stray byte, a truncated sequence, an overlong form, an encoded surrogate.
    NotUtf8,
    /// The first part of a record, truncated anywhere.
    Truncated,
    /// A required identifier twice in one object, with the same or another value.
    DuplicateKey,
    /// A required field that is absent or null. If the dataset is recognized by this field, the record may count as one of
    /// no dataset.
    MissingField,
    /// A required identifier, or the type, that is an empty string.
    EmptyIdentifier,
    /// A value that cannot be read as the type of its field: an object, list or word for a number, a list for a text.
    WrongType,
    /// A number outside the range of its field: a score of 250, an age of 900, a duration or a time beyond its
    /// integer type.
    OutOfRange,
    /// A well-formed number beyond the range of a double: `1e999`.
    NotFinite,
    /// A negative duration; assessments only.
    NegativeDuration,
    /// A JSON object of no dataset.
    UnknownDataset,
    /// JSON, but not an object: a list, a text, a number, a literal.
    NotAnObject,
    /// An event time before 2010, such as from a clock that was never set, or seconds taken for milliseconds.
    EventTimeTooOld,
    /// An event time in 2099.
    EventTimeInFuture,
    /// An event time that is not an RFC 3339 text; not for events, whose times are numbers.
    BadTimestamp,
    /// An endpoint (a document inside a string) that is not a JSON object; events only.
    BadEmbeddedJson,
    /// A further field whose value has 200 levels of nesting.
    TooDeep,
    /// An escape of half a surrogate pair, `\ud83d`, in an identifier or any other string.
    UnpairedSurrogate,
    /// An escape that JSON does not have: `\x41`, `\'`, `\u00g1`.
    BadEscape,
    /// A raw control character inside a string: a tab, NUL, ESC.
    ControlCharacter,
    /// Base64 that is damaged or does not contain a JSON document; only for events, which may be wrapped in base64.
    BadBase64,
    /// A record that is good except for its size; only with [`super::Options::too_large_bytes`].
    TooLarge,
}

impl BadKind {
    /// Every kind.
    pub const ALL: [BadKind; 22] = [
        BadKind::NotJson,
        BadKind::NotUtf8,
        BadKind::Truncated,
        BadKind::DuplicateKey,
        BadKind::MissingField,
        BadKind::EmptyIdentifier,
        BadKind::WrongType,
        BadKind::OutOfRange,
        BadKind::NotFinite,
        BadKind::NegativeDuration,
        BadKind::UnknownDataset,
        BadKind::NotAnObject,
        BadKind::EventTimeTooOld,
        BadKind::EventTimeInFuture,
        BadKind::BadTimestamp,
        BadKind::BadEmbeddedJson,
        BadKind::TooDeep,
        BadKind::UnpairedSurrogate,
        BadKind::BadEscape,
        BadKind::ControlCharacter,
        BadKind::BadBase64,
        BadKind::TooLarge,
    ];

    /// Whether a record of `kind` can be bad in this way.
    pub fn applies_to(self, kind: RecordKind) -> bool {
        match self {
            BadKind::NegativeDuration => kind == RecordKind::Assessments,
            BadKind::BadTimestamp => kind != RecordKind::Events,
            BadKind::BadBase64 | BadKind::BadEmbeddedJson => kind == RecordKind::Events,
            _ => true,
        }
    }
}

/// Appends a record that is bad in the way of `bad`, made from a good one of `kind`. A [`BadKind::TooLarge`] record has more
/// than `too_large_bytes`.
pub(super) fn corrupt(
    good: &Good<'_>,
    kind: RecordKind,
    bad: BadKind,
    too_large_bytes: usize,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) {
    let fields = Fields::of(kind);
    match bad {
        BadKind::NotJson => not_json(good, fields, rng, out),
        BadKind::NotUtf8 => {
            let bytes =
                rng.pick::<&[u8]>(&[b"\xff", b"\xc3", b"\xe2\x82", b"\xc0\xaf", b"\xed\xa0\xbd", b"\xf5\x80\x80\x80"]);
            put_into_any_string(good, bytes, true, rng, out);
        }
        BadKind::Truncated => out.extend_from_slice(truncated(good.text, rng)),
        BadKind::DuplicateKey => {
            let member = good.member(rng.pick(fields.texts)).expect("a good record has all required texts");
            let same = &good.text[member.value..member.end];
            let value = if rng.chance(5_000) { same } else { b"\"another\"" };
            if rng.chance(2_000) {
                // The same key, with an escape for its first character.
                let (first, rest) = member.name.split_at(1);
                good.put_with_another(&format!("\\u00{:02x}{rest}", first.as_bytes()[0]), value, out);
            } else {
                good.put_with_another(member.name, value, out);
            }
        }
        BadKind::MissingField => {
            let name = rng.pick(fields.required);
            if rng.chance(2_500) { good.put_with(name, b"null", out) } else { good.put_without(name, out) }
        }
        BadKind::EmptyIdentifier => good.put_with(rng.pick(fields.texts), b"\"\"", out),
        BadKind::WrongType => wrong_type(good, fields, rng, out),
        BadKind::OutOfRange => put_change(good, fields.out_of_range, rng, out),
        BadKind::NotFinite => {
            let value = rng.pick(&["1e999", "-1e999", "1.5E+400", "123456789e400"]);
            good.put_with(fields.numbers[0], value.as_bytes(), out);
        }
        BadKind::NegativeDuration => {
            put_change(good, &[("duration", "-1"), ("duration", "-3600"), ("duration", "-86400")], rng, out);
        }
        BadKind::UnknownDataset => unknown_dataset(rng, out),
        BadKind::NotAnObject => not_an_object(good, rng, out),
        // 1970 to 2009. The first weeks of 1970 are what seconds look like when they are taken for milliseconds.
        BadKind::EventTimeTooOld if rng.chance(5_000) => {
            put_at(good, fields, 1_736_764_200 + rng.bits() % 250_000, out);
        }
        BadKind::EventTimeTooOld => put_at(good, fields, rng.bits() % 1_262_300_000_000, out),
        BadKind::EventTimeInFuture => put_at(good, fields, 4_070_908_800_000 + rng.bits() % 31_536_000_000, out),
        BadKind::BadTimestamp => {
            let value =
                rng.pick(&["yesterday", "13/01/2025 10:30", "2025-02-30T10:00:00Z", "2025-01-13T25:61:00Z", ""]);
            put_at_text(good, fields, value, out);
        }
        BadKind::BadEmbeddedJson => {
            let endpoint = rng.pick(&[
                r#""{\"ChannelType\":\"GCM\",\"User\":{\"UserId\":\"u-00""#,
                r#""[object Object]""#,
                r#""GCM""#,
            ]);
            good.put_with("client_context", format!(r#"{{"custom":{{"endpoint":{endpoint}}}}}"#).as_bytes(), out);
        }
        BadKind::TooDeep => {
            let (open, close) = rng.pick(&[("[", "]"), (r#"{"a":"#, "}"), (r#"[{"b":"#, "}]")]);
            good.put_with_another("nested", format!("{}0{}", open.repeat(200), close.repeat(200)).as_bytes(), out);
        }
        BadKind::UnpairedSurrogate => {
            let escape = rng.pick(&["\\ud83d", "\\ude00", "\\uD83D\\u0041", "\\ude00\\ud83d", "\\ud83dx"]);
            if rng.chance(5_000) {
                let member = good.member(rng.pick(fields.texts)).expect("a good record has all required texts");
                put_inserted(good, member.end - 1, escape.as_bytes(), out);
            } else {
                put_into_any_string(good, escape.as_bytes(), false, rng, out);
            }
        }
        BadKind::BadEscape => {
            let escape = rng.pick(&["\\x41", "\\'", "\\u00g1", "\\a", "\\U0001F600", "\\u12"]);
            put_into_any_string(good, escape.as_bytes(), true, rng, out);
        }
        BadKind::ControlCharacter => {
            let control = rng.pick(&["\t", "\t", "\0", "\u{1}", "\u{8}", "\u{1b}[1m"]);
            put_into_any_string(good, control.as_bytes(), true, rng, out);
        }
        BadKind::BadBase64 => bad_base64(good, rng, out),
        BadKind::TooLarge => {
            good.put_with_another("padding", format!("\"{}\"", "x".repeat(too_large_bytes)).as_bytes(), out);
        }
    }
}

/// The fields of a kind of record that its dataset checks, all at the top level.
struct Fields {
    /// Texts that must be present and not empty.
    texts: &'static [&'static str],
    /// Fields that must be present.
    required: &'static [&'static str],
    /// Numbers, which may be absent.
    numbers: &'static [&'static str],
    /// Fields, and values that they must not have.
    out_of_range: &'static [(&'static str, &'static str)],
    /// The event time, and other times of the same form.
    times: &'static [&'static str],
}

impl Fields {
    fn of(kind: RecordKind) -> &'static Fields {
        match kind {
            RecordKind::Events => &Fields {
                texts: &["event_type"],
                required: &["event_type", "event_timestamp"],
                numbers: &["event_timestamp", "arrival_timestamp"],
                out_of_range: &[
                    ("event_timestamp", "92233720368547758080"),
                    ("event_timestamp", "17367642001230000000000"),
                    ("arrival_timestamp", "-9223372036854775809"),
                ],
                times: &["event_timestamp"],
            },
            RecordKind::Assessments => &Fields {
                texts: &["id", "user_id", "type"],
                required: &["id", "user_id", "type", "timestamp"],
                numbers: &["score", "duration", "user_age"],
                out_of_range: &[
                    ("score", "250"),
                    ("score", "-0.1"),
                    ("score", "1e3"),
                    ("duration", "3000000000"),
                    ("duration", "92233720368547758080"),
                    ("user_age", "900"),
                    ("user_age", "-3"),
                ],
                times: &["timestamp"],
            },
            RecordKind::Users => &Fields {
                texts: &["user_id"],
                required: &["user_id", "updated_at"],
                numbers: &["age"],
                // Not 900: a definition that reduces the age to bands may have no limit for it.
                out_of_range: &[("age", "92233720368547758080"), ("age", "-9223372036854775809")],
                times: &["signed_up_at", "updated_at"],
            },
        }
    }
}

/// The first part of a text, at least one byte. It ends between two characters, because half a character would be a second
/// fault.
fn truncated<'t>(text: &'t [u8], rng: &mut Rng) -> &'t [u8] {
    let mut end = rng.between(1, text.len() as u32) as usize;
    while text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &text[..end]
}

fn put_change(good: &Good<'_>, changes: &[(&str, &str)], rng: &mut Rng, out: &mut Vec<u8>) {
    let (name, value) = rng.pick(changes);
    good.put_with(name, value.as_bytes(), out);
}

/// Appends the record with the instant `ms` as its event time, in the form of its kind.
fn put_at(good: &Good<'_>, fields: &Fields, ms: u64, out: &mut Vec<u8>) {
    if fields.numbers.contains(&fields.times[0]) {
        good.put_with(fields.times[0], ms.to_string().as_bytes(), out);
    } else {
        let mut text = Vec::new();
        put!(&mut text; Utc(ms as i64));
        let text = String::from_utf8(text).expect("a time is ASCII");
        put_at_text(good, fields, &text, out);
    }
}

/// Appends the record with `text` as all of its times.
fn put_at_text(good: &Good<'_>, fields: &Fields, text: &str, out: &mut Vec<u8>) {
    let mut copied = 0;
    for member in good.members.iter().filter(|member| fields.times.contains(&member.name)) {
        out.extend_from_slice(&good.text[copied..member.value]);
        put!(out; "\"", text, "\"");
        copied = member.end;
    }
    out.extend_from_slice(&good.text[copied..]);
}

/// Appends the record with `bytes` before its byte `at`.
fn put_inserted(good: &Good<'_>, at: usize, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&good.text[..at]);
    out.extend_from_slice(bytes);
    out.extend_from_slice(&good.text[at..]);
}

/// Appends the record with `bytes` at the end of one of its strings, at any depth. `in_keys`: the string may be a key.
fn put_into_any_string(good: &Good<'_>, bytes: &[u8], in_keys: bool, rng: &mut Rng, out: &mut Vec<u8>) {
    let mut ends = Vec::new();
    let mut inside = false;
    let mut at = 0;
    while at < good.text.len() {
        match good.text[at] {
            b'\\' => at += 1,
            b'"' => {
                if inside && (in_keys || good.text[at + 1] != b':') {
                    ends.push(at);
                }
                inside = !inside;
            }
            _ => {}
        }
        at += 1;
    }
    put_inserted(good, rng.pick(&ends), bytes, out);
}

fn not_json(good: &Good<'_>, fields: &Fields, rng: &mut Rng, out: &mut Vec<u8>) {
    const LINES: [&str; 8] = [
        "2025-01-13T10:30:00Z INFO request finished in 12 ms",
        "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>",
        "u-000123,skills,73.5,\"2025-01-13\",true",
        "undefined",
        "NaN",
        "{'id': '1', 'type': 'skills'}",
        "{]",
        "\\",
    ];
    const INVALID_VALUES: [&str; 13] =
        ["NaN", "-Infinity", "True", "None", "undefined", "'x'", "007", "+1", ".5", "1.", "0x1F", "1_000", "2e"];
    let text = good.text;
    let first = good.members[0];
    match rng.below(7) {
        0 | 1 => put!(out; rng.pick(&LINES)),
        2 => good.put_with(rng.pick(fields.numbers), rng.pick(&INVALID_VALUES).as_bytes(), out),
        // A comma before the last brace; no colon after the first key; no quotes around it; text before the record.
        3 => put_inserted(good, text.len() - 1, b",", out),
        4 => {
            out.extend_from_slice(&text[..first.value - 1]);
            put!(out; rng.pick(&["=", " ", ",", "=>"]));
            out.extend_from_slice(&text[first.value..]);
        }
        5 => {
            put!(out; "{", first.name, ":");
            out.extend_from_slice(&text[first.value..]);
        }
        _ => {
            put!(out; rng.pick(&[")]}',", "// exported ", "callback(", "data: ", "\u{1e}", "\0"]));
            out.extend_from_slice(text);
        }
    }
}

fn wrong_type(good: &Good<'_>, fields: &Fields, rng: &mut Rng, out: &mut Vec<u8>) {
    let number = rng.chance(5_000);
    let name = rng.pick(if number { fields.numbers } else { fields.texts });
    let value = if number {
        rng.pick(&[r#"{"value":1}"#, "[1]", "\"very high\"", "true", "\"\""])
    } else {
        rng.pick(&[r#"{"value":"x"}"#, r#"["x"]"#, "{}", "[]"])
    };
    good.put_with(name, value.as_bytes(), out);
}

fn unknown_dataset(rng: &mut Rng, out: &mut Vec<u8>) {
    match rng.below(4) {
        0 => {
            put!(out; r#"{"metric":"cpu","host":"web-"#, rng.below(40));
            put!(out; r#"","unit":"percent","value":"#, rng.below(100), "}");
        }
        1 => {
            put!(out; r#"{"level":"info","message":"order placed","order":{"number":"#, rng.below(100_000));
            put!(out; r#","lines":[{"sku":"A-1","count":2}]},"service":"shop"}"#);
        }
        2 => put!(out; r#"{"Records":[{"eventSource":"aws:s3","s3":{"object":{"size":"#, rng.below(100_000), "}}}]}"),
        _ => put!(out; "{}"),
    }
}

fn not_an_object(good: &Good<'_>, rng: &mut Rng, out: &mut Vec<u8>) {
    match rng.below(6) {
        0 => {
            put!(out; "[");
            out.extend_from_slice(good.text);
            put!(out; "]");
        }
        1 => put!(out; "\"heartbeat ", rng.below(1000), "\""),
        2 => put!(out; rng.below(1_000_000)),
        3 => put!(out; "-", rng.below(1000), ".5e3"),
        4 => put!(out; "[]"),
        _ => put!(out; rng.pick(&["null", "true", "false"])),
    }
}

fn bad_base64(good: &Good<'_>, rng: &mut Rng, out: &mut Vec<u8>) {
    let text = good.text;
    match rng.below(4) {
        0 => base64(out, b"not a JSON document, but long enough to look like one"),
        1 => base64(out, truncated(text, rng)),
        2 => {
            let start = out.len();
            base64(out, text);
            let middle = start + (out.len() - start) / 2;
            out[middle] = b'*';
        }
        _ => {
            // The last group of four lacks a character, so the document lacks its end.
            base64(out, text);
            while out.last() == Some(&b'=') {
                out.pop();
            }
            out.pop();
        }
    }
}
