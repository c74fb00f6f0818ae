//! Thousands of sample records, good ones and bad ones of every kind, as `shardlake produce` makes them.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::dataset::SchemaFormat;
use pipeline::dead_letter::code::Code;
use serde_json::Value;

use crate::common::{BASE, RECORD_BYTES_MAX, Setup};
use samples::{BadKind, Generator, Kinds, Options, Produced, RecordKind};

#[path = "json_schema.rs"]
mod json_schema;

/// The codes that a bad record of a kind may get; each of them occurs at least once.
fn possible_codes(kind: RecordKind, bad: BadKind) -> &'static [Code] {
    match (bad, kind) {
        (BadKind::NotJson | BadKind::BadEscape | BadKind::ControlCharacter, _) => &[Code::NotJson],
        (BadKind::NotUtf8, _) => &[Code::NotUtf8],
        (BadKind::Truncated, _) => &[Code::Truncated],
        (BadKind::DuplicateKey, _) => &[Code::DuplicateKey],
        (BadKind::MissingField, _) => &[Code::MissingField],
        (BadKind::EmptyIdentifier, _) => &[Code::ConstraintViolated],
        (BadKind::WrongType, _) => &[Code::WrongType],
        // A whole number that is too large is out of range; a double that is too large is not finite.
        (BadKind::NotFinite, RecordKind::Assessments) => &[Code::NotFinite],
        (BadKind::OutOfRange | BadKind::NegativeDuration | BadKind::NotFinite, _) => &[Code::OutOfRange],
        (BadKind::UnknownDataset, _) => &[Code::UnknownDataset],
        (BadKind::NotAnObject, _) => &[Code::NotAnObject],
        (BadKind::EventTimeTooOld | BadKind::EventTimeInFuture, _) => &[Code::EventTimeOutOfBounds],
        (BadKind::BadTimestamp, _) => &[Code::BadTimestamp],
        (BadKind::BadEmbeddedJson, _) => &[Code::BadEmbeddedJson],
        (BadKind::TooDeep, _) => &[Code::TooDeep],
        (BadKind::UnpairedSurrogate, _) => &[Code::UnpairedSurrogate],
        // Base64 of half a document is half a document; what is not base64 is not JSON either.
        (BadKind::BadBase64, _) => &[Code::NotJson, Code::Truncated],
        (BadKind::TooLarge, _) => &[Code::TooLarge],
    }
}

/// The first `count` records of a kind.
fn records(kind: RecordKind, bad_ratio: f64, too_large_bytes: Option<usize>, count: usize) -> Vec<(Produced, Vec<u8>)> {
    let kinds = Kinds::only(kind);
    let mut generator = Generator::new(Options { seed: 3, kinds, bad_ratio, too_large_bytes, ..Options::default() })
        .expect("the options make sense");
    let next = || {
        let mut record = Vec::new();
        (generator.next_into(&mut record), record)
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn every_kind_of_bad_record_gets_its_code_and_every_good_record_is_a_row() {
    for kind in RecordKind::ALL {
        let mut seen: BTreeMap<BadKind, BTreeSet<Code>> = BTreeMap::new();
        let limit = 20_000;
        assert!(limit < RECORD_BYTES_MAX);
        let records = records(kind, 0.7, Some(limit), 4_000);
        let mut run = Setup::shipped().record_bytes_max(limit).run();
        let mut at = BASE;
        let mut by_sequence = BTreeMap::new();
        for chunk in records.chunks(700) {
            let mut bytes = Vec::new();
            for (produced, record) in chunk {
                by_sequence.insert((at + bytes.len() as u64).to_string(), (produced, record));
                bytes.extend_from_slice(record);
                bytes.push(b'\n');
            }
            at += bytes.len() as u64;
            run.lines(bytes);
        }
        let outcome = run.take();
        assert_eq!(outcome.row_count() + outcome.dead_letters.len(), records.len());
        for dead_letter in &outcome.dead_letters {
            let (produced, record) = by_sequence.remove(&dead_letter.sequence).expect("the record was sent");
            let shown = String::from_utf8_lossy(record);
            let bad =
                produced.bad.unwrap_or_else(|| panic!("a good record is refused: {}: {shown}", dead_letter.about));
            assert!(
                possible_codes(kind, bad).contains(&dead_letter.code),
                "{kind:?} {bad:?}: {}: {shown}",
                dead_letter.about
            );
            assert!(dead_letter.dataset.as_deref().is_none_or(|dataset| dataset == kind.dataset()));
            assert_eq!(&dead_letter.raw, record);
            seen.entry(bad).or_default().insert(dead_letter.code);
        }
        for row in outcome.rows(kind.dataset()) {
            let (produced, record) = by_sequence.remove(row["ingest_sequence"].as_str().unwrap()).expect("it was sent");
            assert_eq!(produced.bad, None, "a bad record is a row: {}", String::from_utf8_lossy(record));
            let time = match kind {
                RecordKind::Events => "event_timestamp",
                RecordKind::Assessments => "completed_at",
                RecordKind::Users => "updated_at",
            };
            assert_eq!(row[time], produced.event_ms * 1000);
        }
        assert!(by_sequence.is_empty(), "every record is in one place");
        for bad in BadKind::ALL.into_iter().filter(|bad| bad.applies_to(kind)) {
            let expected: BTreeSet<Code> = possible_codes(kind, bad).iter().copied().collect();
            assert_eq!(seen.get(&bad), Some(&expected), "{kind:?} {bad:?}");
        }
    }
}

#[test]
fn a_mix_of_sample_records_goes_to_its_datasets() {
    let mut generator = Generator::new(Options { bad_ratio: 0.1, seed: 5, ..Options::default() }).unwrap();
    let mut run = Setup::shipped().run();
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    let mut bad = 0;
    for _ in 0..5 {
        let mut bytes = Vec::new();
        for _ in 0..800 {
            let produced = generator.next_into(&mut bytes);
            bytes.extend_from_slice(b"\n");
            if produced.bad.is_some() {
                bad += 1;
            } else {
                *expected.entry(produced.kind.dataset()).or_default() += 1;
            }
        }
        run.lines(bytes);
    }
    let outcome = run.take();
    for (dataset, count) in expected {
        assert_eq!(outcome.rows(dataset).len(), count, "{dataset}");
    }
    assert_eq!(outcome.dead_letters.len(), bad);
    assert_eq!(outcome.raw.len(), 4_000);
}

#[test]
fn the_json_schema_for_producers_accepts_good_records_and_refuses_bad_values() {
    let datasets = Setup::shipped().datasets();
    for kind in RecordKind::ALL {
        let number = datasets.find(kind.dataset()).expect("it is shipped");
        let schema = datasets.schema(number, SchemaFormat::JsonSchema, "s3://lake");
        let schema: Value = serde_json::from_str(&schema).expect("a JSON Schema is JSON");
        let mut judged = 0;
        for (produced, record) in records(kind, 0.3, None, 3_000) {
            let Ok(document) = serde_json::from_slice::<Value>(&record) else { continue };
            let shown = String::from_utf8_lossy(&record);
            let verdict = json_schema::check(&schema, &document);
            match produced.bad {
                None if document.is_string() => {}
                None => {
                    assert_eq!(verdict, Ok(()), "{shown}");
                    judged += 1;
                }
                // For times, the schema only says how they are written.
                Some(BadKind::OutOfRange) if kind == RecordKind::Events => {}
                Some(
                    BadKind::MissingField
                    | BadKind::EmptyIdentifier
                    | BadKind::WrongType
                    | BadKind::OutOfRange
                    | BadKind::NegativeDuration
                    | BadKind::BadTimestamp
                    | BadKind::NotAnObject,
                ) => {
                    assert!(verdict.is_err(), "{:?}: {shown}", produced.bad);
                    judged += 1;
                }
                Some(_) => {}
            }
        }
        assert!(judged > 2_000, "{judged}");
    }
}
