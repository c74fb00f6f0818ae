//! Records with a mark in every field, good and bad in every way.
//!
//! Owns: the records that are made from the sample records: for each field of each kind of record a good one, and one for each
//! way in which that field can be invalid; and records that are invalid as a whole. Does not own: the marks (`search`).

use std::collections::BTreeMap;

use samples::{Generator, Kinds, Options, RecordKind};
use serde_json::{Map, Value};

use crate::security::search::Marks;

/// Where the sample events have a document inside a string.
const EMBEDDED: &str = "/client_context/custom/endpoint";
/// A placeholder in a document, to be replaced by raw JSON.
const PLACEHOLDER: &str = "\u{1}placeholder\u{1}";
/// The maximal size of a record in these tests.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 10;

/// A sample record as a document. Documents inside strings are parsed, too.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) dataset: &'static str,
    value: Value,
    is_embedded: bool,
}

impl Document {
    fn of(kind: RecordKind, mut value: Value) -> Self {
        let text = value.pointer(EMBEDDED).and_then(Value::as_str);
        let inner = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let is_embedded = inner.is_some();
        if let (Some(inner), Some(at)) = (inner, value.pointer_mut(EMBEDDED)) {
            *at = inner;
        }
        Document { dataset: kind.dataset(), value, is_embedded }
    }

    /// The record's bytes.
    fn render(&self) -> String {
        let mut value = self.value.clone();
        if let (true, Some(at)) = (self.is_embedded, value.pointer_mut(EMBEDDED)) {
            *at = Value::String(at.to_string());
        }
        value.to_string()
    }

    /// The record's bytes with raw JSON at a pointer. Inside a document in a string, the JSON is escaped like the rest.
    fn with(&self, pointer: &str, raw: &str) -> String {
        let mut changed = self.clone();
        let is_inner = self.is_embedded && pointer.starts_with(EMBEDDED) && pointer != EMBEDDED;
        if let Some(at) = changed.value.pointer_mut(pointer) {
            *at = Value::String(PLACEHOLDER.to_owned());
        }
        changed.is_embedded &= pointer != EMBEDDED;
        let placeholder = Value::String(PLACEHOLDER.to_owned()).to_string();
        if !is_inner {
            return changed.render().replace(&placeholder, raw);
        }
        let inner = changed.value.pointer(EMBEDDED).unwrap().to_string().replace(&placeholder, raw);
        changed.value.pointer_mut(EMBEDDED).unwrap().clone_from(&Value::String(inner));
        changed.is_embedded = false;
        changed.render()
    }

    /// Every scalar, and every empty object or list: pointer and value.
    fn leaves(&self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        leaves(&self.value, "", &mut found);
        found
    }
}

fn leaves(value: &Value, above: &str, found: &mut Vec<(String, Value)>) {
    let below = |key: &str| format!("{above}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(key, value)| leaves(value, &below(key), found));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(n, value)| leaves(value, &below(&n.to_string()), found));
        }
        _ => found.push((above.to_owned(), value.clone())),
    }
}

/// The pointer with every number replaced by 0, because items of a list are alike.
fn shape(pointer: &str) -> String {
    let part =
        |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty() { "0" } else { part }.to_owned();
    pointer.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Good sample records, which together have every kind of event and every field of each dataset.
pub(crate) fn documents() -> Vec<Document> {
    let mut documents = Vec::new();
    for kind in RecordKind::ALL {
        let options = Options { kinds: Kinds::only(kind), seed: 23, ..Options::default() };
        let mut generator = Generator::new(options).unwrap();
        let mut known: BTreeMap<String, ()> = BTreeMap::new();
        for _ in 0..2_000 {
            let mut record = Vec::new();
            generator.next_into(&mut record);
            let Ok(value) = serde_json::from_slice::<Value>(&record) else { continue };
            let document = Document::of(kind, value);
            let event = document.value["event_type"].to_string();
            let mut seen: Vec<String> = document.leaves().iter().map(|(pointer, _)| shape(pointer)).collect();
            seen.push(event);
            if seen.into_iter().filter(|one| known.insert(one.clone(), ()).is_none()).count() > 0 {
                documents.push(document);
            }
        }
    }
    documents
}

/// A record.
#[derive(Debug, Clone)]
pub(crate) struct Record(pub(crate) Vec<u8>);

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// All records, each with marks of its own.
pub(crate) fn records(marks: &mut Marks) -> Vec<Record> {
    let documents = documents();
    let mut records = Vec::new();
    let mut known: BTreeMap<(&str, String), ()> = BTreeMap::new();
    for (number, document) in documents.iter().enumerate() {
        all_at_once(document, marks, &mut records);
        if number % 8 == 0 || documents[number - 1].dataset != document.dataset {
            whole(document, marks, &mut records);
        }
        for (pointer, value) in document.leaves() {
            if known.insert((document.dataset, shape(&pointer)), ()).is_none() {
                good_at(document, &pointer, &value, marks, &mut records);
                bad_at(document, &pointer, &value, marks, &mut records);
            }
        }
    }
    records
}

/// Marks every text of the record at once, except those that decide its dataset or its time.
fn all_at_once(document: &Document, marks: &mut Marks, records: &mut Vec<Record>) {
    for is_code in [true, false] {
        let mut marked = document.clone();
        for (pointer, value) in document.leaves() {
            let is_time = pointer.ends_with("_at") || pointer.ends_with("Date") || pointer.ends_with("timestamp");
            if value.is_string() && !is_time && pointer != "/event_type" && pointer != "/date_of_birth" {
                let mark = if is_code {
                    marks.code(document.dataset, &pointer)
                } else {
                    marks.prose(document.dataset, &pointer)
                };
                *marked.value.pointer_mut(&pointer).unwrap() = Value::String(mark);
            }
        }
        let text = marked.render();
        records.push(Record(base64_simd::STANDARD.encode_to_string(&text).into_bytes()));
        records.push(Record(text.into_bytes()));
    }
}

/// Records with a mark in one field, most of them valid.
fn good_at(document: &Document, pointer: &str, value: &Value, marks: &mut Marks, records: &mut Vec<Record>) {
    let dataset = document.dataset;
    let mut push = |text: String| records.push(Record(text.into_bytes()));
    if value.is_number() {
        push(document.with(pointer, &marks.number(dataset, pointer)));
        push(document.with(pointer, &format!("{}.5", marks.number(dataset, pointer))));
        push(document.with(pointer, &format!("{}e-1", marks.number(dataset, pointer))));
    }
    push(document.with(pointer, &quoted(&marks.code(dataset, pointer))));
    push(document.with(pointer, &quoted(&marks.prose(dataset, pointer))));
    // Written with escapes.
    let spelled: String = marks.code(dataset, pointer).chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect();
    push(document.with(pointer, &format!("\"{spelled}\"")));
    push(document.with(pointer, &format!("\"{}\\u00e9\\n\"", marks.code(dataset, pointer))));
    // As a key beside it, with a value of its own.
    let (above, key) = pointer.rsplit_once('/').unwrap_or_default();
    if !key.bytes().all(|byte| byte.is_ascii_digit()) {
        let name = marks.code(dataset, &format!("{above}/(key)"));
        let beside = marks.prose(dataset, &format!("{above}/{name}"));
        push(document.with(pointer, &format!("{value},{}:{}", quoted(&name), quoted(&beside))));
        let number = marks.number(dataset, &format!("{above}/{name}"));
        push(document.with(pointer, &format!("{value},{}:{number}", quoted(&name))));
    }
}

/// Records that are invalid in one field, in every way.
fn bad_at(document: &Document, pointer: &str, value: &Value, marks: &mut Marks, records: &mut Vec<Record>) {
    let dataset = document.dataset;
    let mut push = |bytes: Vec<u8>| records.push(Record(bytes));
    let mut next = || marks.code(dataset, pointer);
    // Another type.
    for raw in [format!("{{\"{}\":\"{}\"}}", next(), next()), format!("[\"{}\",{{}}]", next()), "[[[]]]".to_owned()] {
        push(document.with(pointer, &raw).into_bytes());
    }
    // Another document inside a string, broken or whole.
    push(document.with(pointer, &quoted(&format!("{{\"{}\":\"{}\"}}", next(), next()))).into_bytes());
    push(document.with(pointer, &quoted(&format!("{{\"{}\":", next()))).into_bytes());
    // Too long for any column or path.
    push(document.with(pointer, &quoted(&format!("{}{}", next(), "/é".repeat(600)))).into_bytes());
    // Truncated after the mark, inside it, and after its quote.
    let mark = next();
    let text = document.with(pointer, &quoted(&mark));
    let at = text.find(&mark).unwrap();
    for end in [at + mark.len(), at + mark.len() - 1, at + mark.len() + 1] {
        push(text.as_bytes()[..end].to_vec());
    }
    // Characters and escapes that a JSON string may not have.
    for wrong in ["\\ud83d", "\\x41", "\t", "\u{0}"] {
        push(document.with(pointer, &format!("\"{}{wrong}\"", next())).into_bytes());
    }
    let bytes = document.with(pointer, &format!("\"{}\u{e9}\"", next())).into_bytes();
    push(bytes.into_iter().map(|byte| if byte == 0xC3 { 0xFF } else { byte }).collect());
    // Not JSON; numbers out of range.
    push(document.with(pointer, &next()).into_bytes());
    let mut number = || marks.number(dataset, pointer);
    for raw in [
        format!("-{}", number()),
        format!("{}e999", number()),
        format!("{}0000000000000", number()),
        format!("0{}", number()),
    ] {
        push(document.with(pointer, &raw).into_bytes());
    }
    // The same key again.
    let (_, key) = pointer.rsplit_once('/').unwrap_or_default();
    if !key.bytes().all(|byte| byte.is_ascii_digit()) {
        let again = marks.prose(dataset, pointer);
        push(document.with(pointer, &format!("{value},{}:{}", quoted(key), quoted(&again))).into_bytes());
    }
}

/// Marked records that are invalid as a whole.
fn whole(document: &Document, marks: &mut Marks, records: &mut Vec<Record>) {
    let text = document.render();
    let mut mark = || marks.code("", "");
    let open = &text[..text.len() - 1];
    let mut all = vec![
        format!("{text}{}", mark()),
        format!("{text}{{\"{}\":1}}", mark()),
        format!("{}{text}", mark()),
        format!("[{text},\"{}\"]", mark()),
        quoted(&mark()),
        mark(),
        format!("{{\"{}\":\"{}\"}}", mark(), mark()),
        format!("{open},\"{}\":{}1{}}}", mark(), "[".repeat(200), "]".repeat(200)),
        format!("{open},\"further\":\"{}{}\"}}", mark(), "x".repeat(RECORD_BYTES_MAX)),
        format!("{}{}", base64_simd::STANDARD.encode_to_string(format!("{open},\"x\":\"{}\"", mark())), "A=="),
        format!("2025-01-13 INFO user {} logged in", mark()),
        format!("{},{},7", mark(), mark()),
    ];
    // Without a required field.
    for field in ["user_id", "type", "timestamp", "event_type", "event_timestamp", "updated_at"] {
        let mut without: Map<String, Value> = document.value.as_object().unwrap().clone();
        if without.remove(field).is_some() {
            without.insert("further".to_owned(), Value::String(mark()));
            all.push(Value::Object(without).to_string());
        }
    }
    records.extend(all.into_iter().map(|text| Record(text.into_bytes())));
}
