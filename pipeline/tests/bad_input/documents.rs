//! Several documents in one record or line, and packed records: each document is a record with its own identity.
//!
//! Chunks have one document in each record unless their source says otherwise; here it says `many`.

#![expect(clippy::unwrap_used, reason = "in a test, a failure fails the test")]

use std::io::Write;

use pipeline::chunk::{Chunk, Framing, Text};
use pipeline::dead_letter::code::Code;
use pipeline::documents::{Documents, Skipper, cut};
use proptest::prelude::*;
use serde_json::Value;

use crate::common::{ARRIVAL_MS, BASE, Outcome, RECORD_BYTES_MAX, Run, SHARD, STREAM, Setup, TestFrame, chunk_of};

const ARRAYS: Documents = Documents { arrays: true, ..Documents::MANY };

/// A record without a number in its text that another record has.
fn event(number: usize) -> String {
    format!(r#"{{"event_type":"e{number}","event_timestamp":1736764200123,"attributes":{{"screen":"[{{\"}}"}}}}"#)
}

fn pretty(number: usize) -> String {
    let value: Value = serde_json::from_str(&event(number)).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

fn text_chunk(text: &[u8], documents: Documents) -> Chunk {
    let framing = Framing::Lines { base: BASE };
    Chunk::new(STREAM.into(), SHARD.into(), ARRIVAL_MS, text.to_vec(), framing).with_documents(documents)
}

fn run_of(chunk: Chunk) -> (Run, Outcome) {
    let mut run = Setup::shipped().run();
    let outcome = run.push(chunk).take();
    let found = outcome.row_count() + outcome.dead_letters.len();
    assert_eq!(run.records, found as u64, "each record is a row or a dead letter");
    assert_eq!(outcome.raw.len(), found, "each record is a raw line");
    (run, outcome)
}

/// The text of a file.
fn file(text: impl AsRef<[u8]>) -> Outcome {
    run_of(text_chunk(text.as_ref(), Documents::MANY)).1
}

/// One record of a stream.
fn record(bytes: impl AsRef<[u8]>) -> Outcome {
    run_of(chunk_of(&[TestFrame::new(bytes.as_ref(), "7")]).with_documents(Documents::MANY)).1
}

/// The rows' types, with sequence and subsequence numbers.
fn found(outcome: &Outcome) -> Vec<(String, u64, u64)> {
    let mut found: Vec<_> = outcome
        .rows("events")
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            let sub = row["ingest_subsequence"].as_u64().unwrap();
            (text("event_type"), text("ingest_sequence").parse().unwrap(), sub)
        })
        .collect();
    found.sort_by_key(|(_, sequence, sub)| (*sequence, *sub));
    found
}

fn types(outcome: &Outcome) -> Vec<String> {
    found(outcome).into_iter().map(|(name, ..)| name).collect()
}

fn codes_and_raw(outcome: &Outcome) -> Vec<(Code, String)> {
    let mut dead_letters: Vec<_> = outcome.dead_letters.iter().collect();
    dead_letters.sort_by_key(|dead_letter| (dead_letter.sequence.parse::<u64>().unwrap(), dead_letter.sub_sequence));
    dead_letters.iter().map(|letter| (letter.code, String::from_utf8_lossy(&letter.raw).into_owned())).collect()
}

#[test]
fn documents_side_by_side_are_records_of_their_own_in_a_line_and_in_a_record() {
    let (one, two, three) = (event(1), event(2), event(3));
    for separator in ["", " ", "\n", "\r\n", "\n\n", "\t", ",", ", ", ",\n", "\\n", "\\r\\n", "\u{feff}", "\n\u{feff}"]
    {
        let text = [one.as_str(), &two, &three].join(separator);
        let outcome = file(&text);
        // A line's white space belongs to its record.
        let offset =
            |number: usize, document: &str| (format!("e{number}"), BASE + text.find(document).unwrap() as u64, 0);
        assert_eq!(found(&outcome), [offset(1, &one), offset(2, &two), offset(3, &three)], "{separator:?}");
        assert_eq!(outcome.dead_letters.len(), 0, "{separator:?}");
        let raw: Vec<&[u8]> = outcome.raw.iter().map(|line| line.text.as_slice()).collect();
        for document in [&one, &two, &three] {
            let lands = |line: &[u8]| line.trim_ascii() == document.as_bytes();
            assert_eq!(raw.iter().filter(|line| lands(line)).count(), 1, "{separator:?}");
        }
        let outcome = record(text + separator);
        let numbered = |number: u64| (format!("e{}", number + 1), 7, number);
        assert_eq!(found(&outcome), [numbered(0), numbered(1), numbered(2)], "{separator:?}");
        assert_eq!(outcome.dead_letters.len(), 0, "{separator:?}");
    }
}

#[test]
fn documents_of_many_lines_are_whole_records() {
    let text = format!("{}\n{}{}\n\n{}\n", pretty(1), pretty(2), event(3), pretty(4));
    for outcome in [file(&text), record(&text)] {
        assert_eq!(types(&outcome), ["e1", "e2", "e3", "e4"]);
        assert_eq!(outcome.dead_letters.len(), 0);
        assert!(outcome.raw.iter().all(|line| serde_json::from_slice::<Value>(&line.text).is_ok()));
    }
    let outcome = file(&text);
    assert_eq!(found(&outcome)[0].1, BASE);
    assert_eq!(found(&outcome)[2].1, BASE + text.find(&event(3)).unwrap() as u64);
}

#[test]
fn a_record_of_one_document_has_the_identity_that_it_has_without_this() {
    for text in [format!("  {}  \n\n{}\r\n", event(1), event(2)), format!("{}\n \n{}", event(1), event(2))] {
        let one = run_of(text_chunk(text.as_bytes(), Documents::ONE)).1;
        assert_eq!(found(&file(&text)), found(&one));
    }
    assert_eq!(found(&record(event(1))), [("e1".to_owned(), 7, 0)]);
}

#[test]
fn a_record_of_only_white_space_is_not_a_record() {
    for text in ["", "\n", "  \r\n\n", "\u{feff}", "\u{feff}\r\n", "\n,\n"] {
        let (run, outcome) = run_of(chunk_of(&[TestFrame::new(text.as_bytes(), "7")]).with_documents(Documents::MANY));
        assert_eq!((run.records, outcome.raw.len()), (0, 0), "{text:?}");
        assert_eq!(file(text).raw.len(), 0, "{text:?}");
    }
}

#[test]
fn documents_in_an_aggregate_have_numbers_that_no_other_record_of_it_has() {
    let two = event(2) + &event(3);
    let frames = [
        TestFrame::new(event(1).leak().as_bytes(), "7"),
        TestFrame { sub_sequence: 1, ..TestFrame::new(two.as_bytes(), "7") },
        TestFrame { sub_sequence: 2, ..TestFrame::new(two.as_bytes(), "7") },
        TestFrame::new(two.as_bytes(), "8"),
    ];
    let outcome = run_of(chunk_of(&frames).with_documents(Documents::MANY)).1;
    let subs: Vec<(u64, u64)> = found(&outcome).iter().map(|(_, sequence, sub)| (*sequence, *sub)).collect();
    let second = 1 << 32;
    assert_eq!(subs, [(7, 0), (7, 1), (7, 2), (7, second + 1), (7, second + 2), (8, 0), (8, 1)]);
    // Half an aggregate gives the same numbers.
    let outcome = run_of(chunk_of(&frames[2..3]).with_documents(Documents::MANY)).1;
    let subs: Vec<u64> = found(&outcome).iter().map(|(.., sub)| *sub).collect();
    assert_eq!(subs, [2, second + 2]);
    let first =
        [TestFrame::new(two.as_bytes(), "7"), TestFrame { sub_sequence: 1, ..TestFrame::new(two.as_bytes(), "7") }];
    let outcome = run_of(chunk_of(&first).with_documents(Documents::MANY)).1;
    let subs: Vec<u64> = found(&outcome).iter().map(|(.., sub)| *sub).collect();
    assert_eq!(subs, [0, 1, second, second + 1]);
}

#[test]
fn a_broken_document_does_not_stop_those_before_and_after_it() {
    let broken = r#"{"event_type":"b","event_timestamp":nope}"#;
    let text = format!("{}{broken}{}\n{}\n", event(1), event(2), event(3));
    for outcome in [file(&text), record(&text)] {
        assert_eq!(types(&outcome), ["e1", "e3"]);
        assert_eq!(codes_and_raw(&outcome), [(Code::NotJson, format!("{broken}{}", event(2)))]);
    }
    let text = format!("{} rest of a line\n{}", event(1), event(2));
    for outcome in [file(&text), record(&text)] {
        assert_eq!(types(&outcome), ["e1", "e2"]);
        assert_eq!(codes_and_raw(&outcome), [(Code::NotJson, "rest of a line".to_owned())]);
    }
    let cut = &event(2)[..30];
    for outcome in [file(event(1) + cut), record(event(1) + cut)] {
        assert_eq!(types(&outcome), ["e1"]);
        assert_eq!(codes_and_raw(&outcome), [(Code::Truncated, cut.to_owned())]);
    }
    assert_eq!(record(event(1) + cut).dead_letter().sub_sequence, 1);
}

#[test]
fn a_line_that_was_cut_off_takes_no_other_line_with_it() {
    let good = event(1);
    for cut in
        ["{", "{\"a\":", "{\"a\":[", "{\"a\":{\"b\":1", "{\"a\":\"b", "[", "[1,", "{\"a\":1,", "{]", "{\"a\":tru"]
    {
        for (before, between) in [("", ""), ("", "  "), ("\t", " "), ("", "\n \n")] {
            let text = format!("{good}\n{before}{cut}\n{between}{good}\n{cut}\n{good}\n{cut}");
            let outcome = file(&text);
            assert_eq!(outcome.row_count(), 3, "{text}");
            assert_eq!(outcome.dead_letters.len(), 3, "{text}: {:?}", outcome.dead_letters);
        }
    }
}

#[test]
fn a_broken_document_of_many_lines_is_one_dead_letter() {
    let broken = pretty(2).replace("1736764200123", "1736764200123,,");
    for text in [
        format!("{}\n{broken}\n{}\n{}\n", pretty(1), pretty(3), event(4)),
        format!("{}\n{broken}\n{}\n{}\n", event(1), event(3), pretty(4)),
    ] {
        for outcome in [file(&text), record(&text)] {
            assert_eq!(types(&outcome), ["e1", "e3", "e4"]);
            assert_eq!(codes_and_raw(&outcome), [(Code::NotJson, broken.clone())]);
        }
    }
}

#[test]
fn a_record_without_any_document_is_one_dead_letter() {
    for bytes in [&b"a\nlog\nof lines"[..], b"\x00\x01\n\x02\n\n\xff", b"\xFF\xFE{\0\n\0}\0", b"a,b\n1,2\n3,4\n"] {
        let outcome = record(bytes);
        assert_eq!(outcome.dead_letter().raw, bytes);
    }
    // In a file each line is one.
    assert_eq!(file("a\nlog\nof lines").dead_letters.len(), 3);
}

#[test]
fn the_limit_is_for_a_document_and_not_for_its_line_or_record() {
    let events: Vec<String> = (0..200).map(event).collect();
    let mut text = events.concat();
    assert!(text.len() > 2 * event(0).len());
    let setup = || Setup::shipped().record_bytes_max(1_000).run();
    let large = format!("{{\"event_type\":\"{}\"}}", "x".repeat(1_000));
    text += &large;
    text += &event(200);
    for chunk in [
        text_chunk(text.as_bytes(), Documents::MANY),
        chunk_of(&[TestFrame::new(text.as_bytes(), "7")]).with_documents(Documents::MANY),
    ] {
        let outcome = setup().push(chunk).take();
        assert_eq!(outcome.row_count(), 201);
        assert_eq!(codes_and_raw(&outcome), [(Code::TooLarge, large.clone())]);
    }
}

#[test]
fn an_array_is_one_dead_letter_unless_arrays_are_opened() {
    let texts = [
        format!("[{},{}]", event(1), event(2)),
        format!("[\n{},\n{}\n]\n", event(1), event(2)),
        format!("[\n  {},\n  {}\n]", pretty(1), pretty(2)),
        format!("[{}]\n[{}]", event(1), event(2)),
        format!("\u{feff} [ {} , {} ] ", event(1), event(2)),
    ];
    for text in &texts {
        let arrays = text.matches("[{\"event").count().max(1) as u64;
        for chunk in [text_chunk(text.as_bytes(), Documents::MANY), chunk_of(&[TestFrame::new(text.as_bytes(), "7")])] {
            let (_, outcome) = run_of(chunk.with_documents(Documents::MANY));
            assert_eq!(outcome.row_count(), 0, "{text}");
            assert!(outcome.codes().iter().all(|code| *code == Code::NotAnObject), "{text}");
            assert!(outcome.dead_letters.len() as u64 <= arrays.max(2), "{text}");
        }
        for chunk in [text_chunk(text.as_bytes(), ARRAYS), chunk_of(&[TestFrame::new(text.as_bytes(), "7")])] {
            let (_, outcome) = run_of(chunk.with_documents(ARRAYS));
            assert_eq!((types(&outcome), outcome.dead_letters.len()), (vec!["e1".into(), "e2".into()], 0), "{text}");
        }
    }
}

#[test]
fn an_element_that_is_not_a_record_is_a_dead_letter_and_its_neighbours_are_rows() {
    let text = format!("[1,{},\"a,]\",{},null]", event(1), event(2));
    for chunk in [text_chunk(text.as_bytes(), ARRAYS), chunk_of(&[TestFrame::new(text.as_bytes(), "7")])] {
        let outcome = run_of(chunk.with_documents(ARRAYS)).1;
        assert_eq!(types(&outcome), ["e1", "e2"]);
        let expected = ["1", "\"a,]\"", "null"].map(|raw| (Code::NotAnObject, raw.to_owned()));
        assert_eq!(codes_and_raw(&outcome), expected);
    }
}

#[test]
fn an_array_that_is_not_closed_or_broken_leaves_a_dead_letter() {
    for (text, rows) in [
        (format!("[{},{}", event(1), event(2)), 2),
        (format!("[{},", event(1)), 1),
        (format!("[{},{{\"a\":nope}},{}]", event(1), event(2)), 1),
    ] {
        let chunk = chunk_of(&[TestFrame::new(text.as_bytes(), "7")]).with_documents(ARRAYS);
        let outcome = run_of(chunk).1;
        assert_eq!((outcome.row_count(), outcome.dead_letters.len()), (rows, 1), "{text}");
    }
}

#[test]
fn an_array_that_a_file_does_not_close_leaves_a_dead_letter_for_its_bracket() {
    let text = format!("{}\n[{},\n{},", event(1), event(2), event(3));
    for (is_end, closing, dead) in [(true, "", 1), (true, "]", 0), (false, "", 0)] {
        let text = format!("{text}{closing}").into_bytes();
        let bytes = 0..u32::try_from(text.len()).unwrap();
        let part = Text { bytes, base: BASE, arrival_ms: ARRIVAL_MS, is_record: false, is_end, damage: None };
        let chunk = Chunk::new(STREAM.into(), SHARD.into(), 0, text, Framing::Texts(vec![part]));
        let outcome = run_of(chunk.with_documents(ARRAYS)).1;
        assert_eq!((outcome.row_count(), outcome.dead_letters.len()), (3, dead));
        if dead == 1 {
            let sequence = (BASE + event(1).len() as u64 + 1).to_string();
            let dead_letter = outcome.dead_letter();
            assert_eq!(
                (dead_letter.code, &*dead_letter.raw, dead_letter.sequence.clone()),
                (Code::Truncated, &b"["[..], sequence)
            );
        }
    }
}

#[test]
fn packed_records_are_unpacked() {
    let text = format!("\u{feff}{}\n{}{}", event(1), event(2), pretty(3));
    let middle = 40;
    let packed: [Vec<u8>; 6] = [
        gzip(text.as_bytes()),
        [gzip(&text.as_bytes()[..middle]), gzip(&text.as_bytes()[middle..])].concat(),
        [gzip(event(1).as_bytes()), gzip("\u{feff}".as_bytes()), gzip((event(2) + &event(3)).as_bytes())].concat(),
        base64(&gzip(text.as_bytes())).into_bytes(),
        format!("\"{}\"\n", base64(&gzip(text.as_bytes()))).into_bytes(),
        base64((event(1) + "\n" + &event(2) + &event(3)).as_bytes()).into_bytes(),
    ];
    for bytes in &packed {
        let outcome = record(bytes);
        assert_eq!(found(&outcome), [("e1".into(), 7, 0), ("e2".into(), 7, 1), ("e3".into(), 7, 2)]);
        assert!(outcome.raw.iter().all(|line| serde_json::from_slice::<Value>(&line.text).is_ok()));
    }
    // A line of a file: the offset is that of the line.
    let outcome = file([b"\n".as_slice(), &packed[3], b"\n", event(4).as_bytes()].concat());
    assert_eq!(
        found(&outcome)[..3],
        [("e1".into(), BASE + 1, 0), ("e2".into(), BASE + 1, 1), ("e3".into(), BASE + 1, 2)]
    );
    assert_eq!(types(&outcome)[3], "e4");
    // One document is one record, whether many are allowed or not.
    for documents in [Documents::ONE, Documents::MANY] {
        let bytes = gzip(event(1).as_bytes());
        let outcome = run_of(chunk_of(&[TestFrame::new(&bytes, "7")]).with_documents(documents)).1;
        assert_eq!(found(&outcome), [("e1".into(), 7, 0)]);
    }
}

#[test]
fn a_subscription_of_cloudwatch_logs_is_one_document() {
    let message = |kind: &str| format!(r#"{{"messageType":"{kind}","logEvents":[{{"id":"1","message":"m"}}]}}"#);
    for kind in ["DATA_MESSAGE", "CONTROL_MESSAGE"] {
        let outcome = record(gzip(message(kind).as_bytes()));
        assert_eq!(codes_and_raw(&outcome), [(Code::UnknownDataset, message(kind))]);
    }
}

#[test]
fn what_cannot_be_unpacked_is_one_dead_letter_with_the_bytes_as_received() {
    let whole = gzip(event(1).as_bytes());
    let bomb = gzip(&vec![b' '; 8 * RECORD_BYTES_MAX]);
    for (bytes, code) in [
        (whole[..whole.len() - 2].to_vec(), Code::DamagedGzip),
        ([whole.as_slice(), b"rest"].concat(), Code::DamagedGzip),
        (bomb.clone(), Code::TooLarge),
        (base64(&bomb).into_bytes(), Code::TooLarge),
    ] {
        for documents in [Documents::ONE, Documents::MANY] {
            let outcome = run_of(chunk_of(&[TestFrame::new(&bytes, "7")]).with_documents(documents)).1;
            assert_eq!((outcome.dead_letter().code, &outcome.dead_letter().raw), (code, &bytes));
        }
    }
}

#[test]
fn a_chunk_of_packed_records_takes_bounded_memory() {
    // Each unpacks to many times its size; together to much more than waits at once.
    let text: String = (0..2_000).map(event).collect::<Vec<_>>().join("\n");
    let padded = format!("{text}{}", " ".repeat(3 * RECORD_BYTES_MAX - text.len()));
    let bytes = gzip(padded.as_bytes());
    let sequences: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let frames: Vec<TestFrame<'_>> = sequences.iter().map(|sequence| TestFrame::new(&bytes, sequence)).collect();
    let (run, outcome) = run_of(chunk_of(&frames).with_documents(Documents::MANY));
    assert_eq!((run.records, outcome.row_count()), (80_000, 80_000));
    let mut identities = found(&outcome);
    identities.dedup();
    assert_eq!(identities.len(), 80_000);
}

#[test]
fn a_syntax_error_has_its_kind_and_its_place_and_no_value() {
    let pad = "x".repeat(3_970);
    let long = format!("{{\"event_type\":\"{pad}\",\"unread\":1,}}");
    let comma = long.len() - 2;
    for (text, kind, offset, message) in [
        (long.as_str(), "TrailingComma", comma, "the record is not JSON: a trailing comma at byte "),
        ("{\"a\":NaN}", "NotANumber", 5, "the record is not JSON: NaN or Infinity"),
        (
            "2025-01-13 INFO secret",
            "NotADocument",
            0,
            "the record is not JSON: text that does not begin like JSON at byte 0",
        ),
        ("{\"a\":\"b\tc\"}", "ControlCharacter", 7, "the record is not JSON: a control character at byte 7"),
    ] {
        for documents in [Documents::ONE, Documents::MANY] {
            let outcome = run_of(text_chunk(text.as_bytes(), documents)).1;
            let about: Value = serde_json::from_str(&outcome.dead_letter().about).unwrap();
            assert_eq!((about["errorKind"].as_str(), about["errorOffset"].as_u64()), (Some(kind), Some(offset as u64)));
            assert!(about["errorMessage"].as_str().unwrap().starts_with(message), "{about}");
            assert!(!about.to_string().contains("secret"));
        }
    }
    // The offset counts from the beginning of the document that is broken.
    let outcome = file(event(1) + "{\"a\":nope}");
    let about: Value = serde_json::from_str(&outcome.dead_letter().about).unwrap();
    assert_eq!((about["errorKind"].as_str(), about["errorOffset"].as_u64()), (Some("UnknownWord"), Some(5)));
    for text in [&b"\xFF\xFE{\0\"\0a\0\"\0"[..], b"\xFE\xFF\0{\0\"\0a"] {
        let outcome = record(text);
        assert_eq!(outcome.dead_letter().code, Code::NotUtf8);
        assert!(outcome.dead_letter().about.contains("UTF-16"), "{}", outcome.dead_letter().about);
    }
    let outcome = file(b"{\"a\":\"\xff\"}");
    assert!(outcome.dead_letter().about.contains("the record is not UTF-8, at byte 6"));
    assert!(file("{\"a\":1").dead_letter().about.contains("at byte 6"));
}

#[test]
fn texts_of_several_files_are_divided_each_for_itself() {
    let (first, second) = (pretty(1), event(2) + &event(3));
    let bytes = format!("{first}\n{second}\n").into_bytes();
    let place = |at: usize| u32::try_from(at).unwrap();
    let text = |start: usize, end: usize, base: u64, is_record: bool| Text {
        bytes: place(start)..place(end),
        base,
        arrival_ms: ARRIVAL_MS,
        is_record,
        is_end: false,
        damage: None,
    };
    let texts = vec![text(0, first.len(), 1_000_000, false), text(first.len() + 1, bytes.len() - 1, 2_000_000, false)];
    let chunk = Chunk::new(STREAM.into(), SHARD.into(), 0, bytes.clone(), Framing::Texts(texts));
    let received = |chunk: &Chunk| chunk.records_received().map(|record| record.len()).collect::<Vec<_>>();
    let chunk = chunk.with_documents(Documents::MANY);
    assert_eq!(received(&chunk), [first.len(), event(2).len(), event(3).len()]);
    let outcome = run_of(chunk).1;
    let offset = 2_000_000 + event(2).len() as u64;
    assert_eq!(found(&outcome), [("e1".into(), 1_000_000, 0), ("e2".into(), 2_000_000, 0), ("e3".into(), offset, 0)]);
    // One record, although it has lines.
    let texts = vec![text(0, first.len(), 1_000_000, true)];
    let chunk = Chunk::new(STREAM.into(), SHARD.into(), 0, bytes, Framing::Texts(texts));
    assert_eq!(received(&chunk), [first.len()]);
    assert_eq!(types(&run_of(chunk).1), ["e1"]);
}

/// Any JSON object with strings that have brackets, quotes and line ends in them.
fn documents() -> impl Strategy<Value = Vec<Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[a{}\\[\\],:\"\\\\\\n ]{0,8}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c{\"]{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let object = prop::collection::btree_map("[a-c{\"]{0,3}", value, 0..4);
    prop::collection::vec(object.prop_map(|map| Value::Object(map.into_iter().collect())), 0..6)
}

proptest! {
    #[test]
    fn any_documents_with_any_white_space_between_and_in_them_are_found_again(
        documents in documents(),
        gaps in prop::collection::vec("[ \\t\\r\\n]{0,3}", 7),
        is_pretty in prop::collection::vec(any::<bool>(), 7),
    ) {
        let mut text = gaps[0].clone();
        for (number, document) in documents.iter().enumerate() {
            let json = if is_pretty[number] {
                serde_json::to_string_pretty(document).unwrap()
            } else {
                document.to_string()
            };
            text += &json;
            text += &gaps[number + 1];
        }
        let received = text_chunk(text.as_bytes(), Documents::MANY);
        let found: Vec<Value> =
            received.records_received().map(|record| serde_json::from_slice(&record).unwrap()).collect();
        prop_assert_eq!(&found, &documents, "{}", text);
        // No dataset recognizes them, so each becomes a dead letter with its bytes.
        for outcome in [file(&text), record(&text)] {
            let mut dead_letters = outcome.dead_letters.clone();
            dead_letters.sort_by_key(|letter| (letter.sequence.parse::<u64>().unwrap(), letter.sub_sequence));
            let found: Vec<Value> =
                dead_letters.iter().map(|letter| serde_json::from_slice(&letter.raw).unwrap()).collect();
            prop_assert_eq!(&found, &documents, "{}", text);
        }
    }

    #[test]
    fn nothing_of_any_text_is_lost_but_separators(text in "[{}\\[\\],:\"a1 \\n\\\\]{0,40}", arrays in any::<bool>()) {
        let documents = Documents { arrays, ..Documents::MANY };
        let outcome = run_of(text_chunk(text.as_bytes(), documents)).1;
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| matches!(byte, b'{' | b'}' | b':' | b'"' | b'a' | b'1')).count();
        let kept: usize = outcome.raw.iter().map(|line| count(&line.text)).sum();
        prop_assert_eq!(kept, count(text.as_bytes()), "{}", text);
    }
}

/// Reads a text as a source does that gets `step` bytes at a time: each record's offset and bytes.
fn read_in_steps(text: &[u8], step: usize, documents: Documents) -> Vec<(u64, u64, Vec<u8>)> {
    let config = Setup::shipped();
    let mut run = config.run();
    let (mut base, mut have) = (0, 0);
    loop {
        have = (have + step).min(text.len());
        let end = match cut(&text[base..have], documents) {
            Some(end) => base + end,
            None if have == text.len() => have,
            None => continue,
        };
        let framing = Framing::Lines { base: base as u64 };
        let chunk = Chunk::new(STREAM.into(), SHARD.into(), ARRIVAL_MS, text[base..end].to_vec(), framing);
        run.push(chunk.with_documents(documents));
        base = end;
        if base == text.len() {
            break;
        }
    }
    let outcome = run.take();
    assert_eq!(outcome.row_count(), 0);
    let mut read: Vec<_> = outcome
        .dead_letters
        .iter()
        .map(|letter| (letter.sequence.parse().unwrap(), letter.sub_sequence, letter.raw.clone()))
        .collect();
    read.sort();
    read
}

/// Lines of many kinds, whole, cut and broken.
fn text_of_lines() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{\"a\":1}",
        "{\"a\":[{}]}",
        "{\n  \"a\": {\n    \"b\": 1\n  }\n}",
        "{\"a\":",
        "{\"a\":\"x",
        "[{\"a\":1},{\"b\":2}]",
        "[",
        "]",
        "}",
        "{",
        ",",
        "log line",
        "12",
        "\"text\"",
        "\u{feff}",
        "\\n",
        "{\"a\":nope}",
        "{\n \"a\": nope,\n \"b\": {\n  \"c\": 1\n }\n}",
        "{\"long\":\"0123456789012345678901234567890123456789\"}",
        "eyJhIjoxfQ==",
        "\r",
    ]);
    let gap = prop::sample::select(vec!["", "\n", "\n", "\n", " ", "\n  ", " \n", ",", ",\n", "\r\n"]);
    prop::collection::vec((piece, gap), 0..14)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, gap)| [piece, gap]).collect())
}

proptest! {
    #[test]
    fn records_do_not_depend_on_where_a_text_is_cut(text in text_of_lines(), step in 1_usize..80, arrays in any::<bool>()) {
        let documents = Documents { arrays, ..Documents::MANY };
        let whole = read_in_steps(text.as_bytes(), text.len().max(1), documents);
        prop_assert_eq!(&read_in_steps(text.as_bytes(), step, documents), &whole, "{:?}", text);
        let mut identities: Vec<_> = whole.iter().map(|(sequence, sub, _)| (*sequence, *sub)).collect();
        identities.dedup();
        prop_assert_eq!(identities.len(), whole.len(), "{:?}", text);
    }

    #[test]
    fn a_document_that_is_too_large_ends_where_it_ends_if_it_is_read(
        documents in documents(),
        is_pretty in any::<bool>(),
        head in 1_usize..30,
        step in 1_usize..40,
    ) {
        for document in documents {
            let json = if is_pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
            let text = json.clone() + "{\"next\":1}\n";
            let head = head.min(json.len() - 1);
            let mut skipper = Skipper::new(Documents::MANY, &text.as_bytes()[..head]);
            let mut at = head;
            let end = loop {
                let piece = &text.as_bytes()[at..(at + step).min(text.len())];
                match skipper.feed(piece) {
                    Some(end) => break at + end,
                    None => at += piece.len(),
                }
            };
            prop_assert_eq!(end, json.len(), "{}", text);
        }
    }
}

#[test]
fn a_document_that_is_too_large_and_broken_ends_before_the_next_one() {
    fn rest_of(text: &str, head: usize) -> Option<&str> {
        let mut skipper = Skipper::new(Documents::MANY, &text.as_bytes()[..head]);
        text.as_bytes()[head..].iter().position(|byte| skipper.feed(&[*byte]).is_some()).map(|at| &text[head + at..])
    }
    assert_eq!(rest_of("{\"a\":\"no end\n{\"b\":1}\n", 4), Some("{\"b\":1}\n"));
    assert_eq!(rest_of("{\n  \"a\": [\n  {\n{\"b\":1}\n", 4), Some("{\"b\":1}\n"));
    assert_eq!(rest_of("a line of a log\n{\"b\":1}\n", 4), Some("\n{\"b\":1}\n"));
    assert_eq!(rest_of("{\"a\":\"}\\\"}\"}{\"b\":1}\n", 4), Some("}{\"b\":1}\n"));
}

/// Dead letters that are processed again, with how often they were processed before.
fn again<const N: usize>(dead_letters: [(TestFrame<'_>, u64); N], documents: Documents) -> Outcome {
    let attempts = dead_letters.iter().map(|(_, attempts)| *attempts).collect();
    let frames = dead_letters.map(|(letter, _)| letter);
    run_of(chunk_of(&frames).with_documents(documents).with_attempts(attempts)).1
}

#[test]
fn a_dead_letter_that_is_processed_again_keeps_its_identity_and_counts_its_attempts() {
    let (good, bad) = (event(1), "{\"event_type\":\"e2\"}");
    let pseudonym = Some("0123456789abcdef0123456789abcdef");
    let letter = |text: &'static [u8], sub_sequence| TestFrame {
        sub_sequence,
        arrival_ms: Some(ARRIVAL_MS - 5),
        partition_key: pseudonym,
        ..TestFrame::new(text, "7")
    };
    let good = TestFrame { bytes: good.as_bytes(), ..letter(b"", 3) };
    // Dead letters of one record are neighbours, as records of an aggregate are.
    let outcome = again([(good, 1), (letter(bad.as_bytes(), 4), 1), (letter(bad.as_bytes(), 5), 8)], Documents::MANY);
    assert_eq!(found(&outcome), [("e1".to_owned(), 7, 3)]);
    let mut dead_letters: Vec<_> =
        outcome.dead_letters.iter().map(|letter| (letter.sub_sequence, letter.attempts)).collect();
    dead_letters.sort_unstable();
    assert_eq!(dead_letters, [(4, 2), (5, 9)]);
    for letter in &outcome.dead_letters {
        assert_eq!(letter.partition_key.as_deref(), pseudonym, "it is a pseudonym already");
        assert_eq!((&*letter.sequence, letter.arrival_ms), ("7", ARRIVAL_MS - 5));
    }
}

#[test]
fn documents_of_a_dead_letter_have_numbers_that_no_other_record_has() {
    // A record of three documents, each an array. Then arrays are opened.
    let array = |first: usize| format!("[{},{},{}]", event(first), event(first + 1), event(first + 2));
    let text = [array(1), event(9), array(4)].join("\n");
    let mut used: Vec<u64> = Vec::new();
    for sub_sequence in [0, 1, 2] {
        let frame = |sub_sequence| TestFrame { sub_sequence, ..TestFrame::new(text.as_bytes(), "7") };
        let next = TestFrame { sub_sequence: 3, ..TestFrame::new(b"{}", "7") };
        // Plain records, and records of an aggregate.
        for frames in [vec![frame(0)], vec![frame(sub_sequence), next]] {
            let first = run_of(chunk_of(&frames).with_documents(Documents::MANY)).1;
            used.extend(found(&first).iter().map(|(.., sub)| *sub));
            let dead_letters: Vec<_> =
                first.dead_letters.iter().filter(|letter| letter.code == Code::NotAnObject).collect();
            assert_eq!(dead_letters.len(), 2);
            for letter in dead_letters {
                let frame = TestFrame { sub_sequence: letter.sub_sequence, ..TestFrame::new(&letter.raw, "7") };
                let outcome = again([(frame, 1)], ARRAYS);
                if letter.sub_sequence >= 1 << 31 {
                    assert_eq!(codes_and_raw(&outcome)[0].0, Code::NotAnObject, "it is not divided");
                    continue;
                }
                let subs: Vec<u64> = found(&outcome).iter().map(|(.., sub)| *sub).collect();
                let numbers = |number: u64| letter.sub_sequence + (1 << 31) + number * (1 << 32);
                assert_eq!(subs, [letter.sub_sequence, numbers(1), numbers(2)]);
                assert!(subs[1..].iter().all(|sub| !used.contains(sub)), "{subs:?} {used:?}");
            }
        }
    }
}

#[test]
fn a_dead_letter_is_divided_only_if_it_begins_with_a_whole_document() {
    let letter = |text: &str, documents: Documents| again([(TestFrame::new(text.as_bytes(), "7"), 1)], documents);
    let rest = format!("{{\"a\":}}, {}]", event(3));
    for documents in [Documents::ONE, Documents::MANY, ARRAYS] {
        let outcome = letter(&rest, documents);
        assert_eq!((outcome.dead_letters.len(), found(&outcome).len()), (1, 0), "{documents:?}");
    }
    let two = [event(1), event(2)].join(" ");
    assert_eq!(types(&letter(&two, Documents::MANY)), ["e1", "e2"]);
    assert_eq!(codes_and_raw(&letter(&two, Documents::ONE))[0].0, Code::MultipleDocuments);
    let packed = base64(&gzip(two.as_bytes()));
    assert_eq!(types(&letter(&packed, Documents::MANY)), ["e1", "e2"]);
}
