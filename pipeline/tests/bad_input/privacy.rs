//! What must never occur: values of a record in the metadata of its dead letter, and personal values in a row.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::common::{Setup, TestFrame, ndjson};
use samples::{Generator, Kinds, Options, RecordKind};

/// The text that is put into every field.
const MARKER: &str = "Zx7-marker";

/// Good sample records as documents, without the wrapped ones.
fn documents(kind: RecordKind, count: usize) -> Vec<Value> {
    let options = Options { kinds: Kinds::only(kind), seed: 11, ..Options::default() };
    let mut generator = Generator::new(options).expect("the options make sense");
    let next = || {
        let mut record = Vec::new();
        generator.next_into(&mut record);
        serde_json::from_slice(&record).ok()
    };
    std::iter::repeat_with(next).flatten().take(count).collect()
}

/// The document with the marker instead of every text, and as one more key of every object.
fn marked(document: &Value) -> Value {
    match document {
        Value::String(_) => json!(MARKER),
        Value::Array(items) => items.iter().map(marked).collect(),
        Value::Object(members) => {
            let mut all: Map<String, Value> = members.iter().map(|(key, value)| (key.clone(), marked(value))).collect();
            all.insert(format!("{MARKER}-key"), json!(MARKER));
            Value::Object(all)
        }
        other => other.clone(),
    }
}

/// The JSON Pointer of each value in a document.
fn places(document: &Value, above: &str, found: &mut Vec<String>) {
    let mut go_on = |key: &str, value: &Value| {
        let place = format!("{above}/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(place.clone());
        places(value, &place, found);
    };
    match document {
        Value::Object(members) => members.iter().for_each(|(key, value)| go_on(key, value)),
        Value::Array(items) => items.iter().enumerate().take(2).for_each(|(n, value)| go_on(&n.to_string(), value)),
        _ => {}
    }
}

/// The document with a correct event time, corrupted in every way at every position, and as a whole.
fn corrupted(kind: RecordKind, document: &Value) -> Vec<String> {
    let mut planted = marked(document);
    match kind {
        RecordKind::Events => planted["event_timestamp"] = json!(1_736_764_200_123_i64),
        RecordKind::Assessments => planted["timestamp"] = json!("2025-01-13T10:30:00Z"),
        RecordKind::Users => {
            planted["updated_at"] = json!("2025-01-13T10:30:00Z");
            planted["signed_up_at"] = json!("2025-01-13T10:30:00Z");
        }
    }
    let mut all = Vec::new();
    let text = planted.to_string();
    all.push(text[..text.len() - 1].to_owned());
    all.push(text.clone() + &text);
    all.push(text.clone() + MARKER);
    all.push(format!("[{text}]"));
    all.push(format!("{MARKER}{text}"));
    all.push(format!("\"{MARKER}\""));
    all.push(text.replacen(MARKER, &format!("{MARKER}\\ud83d"), 1));
    all.push(text.replacen(MARKER, &format!("{MARKER}\t"), 1));
    all.push(json!({ MARKER: MARKER }).to_string());
    let mut places_found = Vec::new();
    places(&planted, "", &mut places_found);
    let values = [
        json!({ MARKER: MARKER }),
        json!([MARKER]),
        json!(MARKER.repeat(40)),
        json!(format!("{{\"{MARKER}\":\"{MARKER}\"}}")),
        json!(-9_876_543_210_987_i64),
        Value::Null,
    ];
    for place in &places_found {
        for value in &values {
            let mut changed = planted.clone();
            if let Some(at) = changed.pointer_mut(place) {
                *at = value.clone();
            }
            all.push(changed.to_string());
        }
        // The same key again, in the object that contains it.
        let (above, key) = place.rsplit_once('/').expect("a pointer has a slash");
        if above.is_empty() {
            all.push(format!("{},\"{key}\":\"{MARKER}\"}}", &text[..text.len() - 1]));
        }
    }
    all
}

#[test]
fn the_metadata_of_a_dead_letter_has_no_value_of_the_record() {
    let mut codes = BTreeSet::new();
    for (kind, documents) in [
        (RecordKind::Events, documents(RecordKind::Events, 30)),
        (RecordKind::Assessments, documents(RecordKind::Assessments, 2)),
        (RecordKind::Users, documents(RecordKind::Users, 2)),
    ] {
        for document in &documents {
            let mut run = Setup::shipped().run();
            run.lines(ndjson(&corrupted(kind, document)));
            let members = run.lane.take_lines();
            let folders: Vec<String> = members.iter().map(|member| member.folder.to_string()).collect();
            assert!(folders.iter().all(|folder| !folder.contains("marker")), "{folders:?}");
            run.keep(members);
            let outcome = run.take();
            assert!(outcome.dead_letters.len() > 20);
            for dead_letter in &outcome.dead_letters {
                // Only the arrival time may come from the record.
                let about = dead_letter.about.replace(&format!("\"arrivalTimestamp\":{}", dead_letter.arrival_ms), "");
                assert!(!about.contains("marker") && !about.contains("9876543210987"), "{about}");
                assert!(String::from_utf8_lossy(&dead_letter.raw).contains("marker"));
                codes.insert(dead_letter.code);
            }
        }
    }
    assert!(codes.len() >= 10, "the records fail in many ways: {codes:?}");
}

#[test]
fn the_field_in_a_dead_letter_is_a_pointer_of_the_definition() {
    let key = format!("{MARKER}-key");
    let record = json!({
        "user_id": "u", "updated_at": "2025-01-13T10:30:00Z", "attributes": { key: 7, "industry": 7 }
    });
    let dead_letter = Setup::shipped().run().frames(&[TestFrame::new(record.to_string().as_bytes(), "1")]).take();
    // The definition lists the key that has the fault. The other key is not reported.
    assert_eq!(dead_letter.dead_letter().field.as_deref(), Some("/attributes/industry"));
}

/// Keys of the sample records whose values are personal.
const PERSONAL: [&str; 31] = [
    "user_id",
    "UserId",
    "email",
    "contact_email",
    "name",
    "phone",
    "date_of_birth",
    "last_ip",
    "Address",
    "City",
    "PostalCode",
    "Latitude",
    "Longitude",
    "client_id",
    "cognito_id",
    "session_id",
    "Id",
    "ip_address",
    "from_address",
    "destination",
    "headers",
    "common_headers",
    "recipients",
    "user_agent",
    "link",
    "comment",
    "text",
    "origination_phone_number",
    "destination_phone_number",
    "email_address",
    "UserAttributes",
];

/// All texts and numbers under the personal keys of a document, as text.
fn personal_values(document: &Value, is_personal: bool, found: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            for (key, value) in members {
                // The names of the SDK and the platform belong to nobody.
                let named = PERSONAL.contains(&key.as_str()) && !(key == "name" && members.contains_key("version"));
                personal_values(value, is_personal || named, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| personal_values(item, is_personal, found)),
        Value::String(text) if text.starts_with('{') => {
            if let Ok(inner) = serde_json::from_str(text) {
                personal_values(&inner, is_personal, found);
            }
        }
        Value::String(text) if is_personal => found.push(text.clone()),
        Value::Number(number) if is_personal => found.push(number.to_string()),
        _ => {}
    }
}

/// All texts and numbers of a row, as text.
fn row_values(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| row_values(value, found)),
        Value::Array(items) => items.iter().for_each(|item| row_values(item, found)),
        Value::String(text) => {
            found.insert(text.clone());
        }
        Value::Number(number) => {
            found.insert(number.to_string());
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[test]
fn no_personal_value_of_a_sample_record_is_in_a_row() {
    for (kind, at_least) in [(RecordKind::Events, 3_000), (RecordKind::Assessments, 1_000), (RecordKind::Users, 3_000)]
    {
        let documents = documents(kind, 1_000);
        let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
        let outcome = Setup::shipped().run().lines(ndjson(&lines)).take();
        let rows = outcome.rows(kind.dataset());
        assert_eq!(rows.len(), documents.len(), "{:?}", outcome.dead_letters);
        let mut looked_for = 0;
        for (row, document) in rows.iter().zip(&documents) {
            let mut row = Value::Object(row.clone());
            let mut landed = BTreeSet::new();
            row_values(&row, &mut landed);
            // The name of a time zone contains that of a city, which need not be where somebody lives.
            row["endpoint_timezone"].take();
            let text = row.to_string();
            let mut personal = Vec::new();
            personal_values(document, false, &mut personal);
            // The client of an SMS may be the account that pays for it.
            let is_no_one =
                |value: &&String| value.len() <= 2 || Some(value.as_str()) == document["awsAccountId"].as_str();
            for value in personal.iter().filter(|value| !is_no_one(value)) {
                looked_for += 1;
                assert!(!landed.contains(value), "{value} lands: {text}");
                assert!(value.len() < 12 || !text.contains(value.as_str()), "{value} lands in a longer text: {text}");
            }
        }
        assert!(looked_for >= at_least, "{kind:?}: {looked_for}");
    }
}
