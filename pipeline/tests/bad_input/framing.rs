//! Framing, and what a source knows of its records: lines, records with their own sequence numbers, wrapping, the dataset of a
//! record, arrival times and the folders that follow from them.

use pipeline::chunk::{Chunk, Framing};
use pipeline::dead_letter::code::Code;
use serde_json::json;

use crate::common::{
    ARRIVAL_MS, BASE, Outcome, RECORD_BYTES_MAX, SHARD, STREAM, Setup, TestFrame, ndjson, outcome_of, pseudonym,
};

const ASSESSMENT: &str = r#"{"id":"a-1","user_id":"u-1","type":"skills","timestamp":"2025-01-13T10:30:00Z"}"#;
const EVENT: &str = r#"{"event_type":"a","event_timestamp":1736764200123}"#;
const USER: &str = r#"{"user_id":"u-1","updated_at":"2025-01-13T10:30:00Z"}"#;
const DAY_MS: i64 = 86_400_000;

fn encoded(record: &str) -> String {
    base64_simd::STANDARD.encode_to_string(record)
}

/// The number of rows, and the codes of the dead letters.
fn both(outcome: &Outcome) -> (usize, Vec<Code>) {
    (outcome.row_count(), outcome.codes())
}

#[test]
fn a_blank_line_is_not_a_record() {
    let text = format!("\n\n{EVENT}\n\r\n  \t \n\t\r\n{USER}\n \n");
    let mut run = Setup::shipped().run();
    run.lines(&text);
    assert_eq!(run.records, 2);
    let outcome = run.take();
    assert_eq!(both(&outcome), (2, vec![]));
    let place = |record: &str| (BASE + text.find(record).unwrap() as u64).to_string();
    assert_eq!(outcome.row("events")["ingest_sequence"], place(EVENT));
    assert_eq!(outcome.row("users")["ingest_sequence"], place(USER));
    assert_eq!(outcome.raw.len(), 2);
}

#[test]
fn an_empty_chunk_has_no_record() {
    for text in ["", "\n", "\r\n", " "] {
        let mut run = Setup::shipped().run();
        run.lines(text);
        let outcome = run.take();
        assert_eq!((run.records, both(&outcome), outcome.raw.len()), (0, (0, vec![]), 0));
    }
    let outcome = Setup::shipped().run().frames(&[]).take();
    assert_eq!(both(&outcome), (0, vec![]));
}

#[test]
fn a_line_may_end_in_carriage_return_and_line_feed() {
    let outcome = outcome_of(format!("{EVENT}\r\n{ASSESSMENT}\r\n{{\"id\":\r\n"));
    assert_eq!(both(&outcome), (2, vec![Code::Truncated]));
    assert_eq!(outcome.dead_letter().raw, b"{\"id\":");
    let raw: Vec<&[u8]> = outcome.raw.iter().map(|line| line.text.as_slice()).collect();
    assert!(raw.contains(&EVENT.as_bytes()) && raw.contains(&ASSESSMENT.as_bytes()) && raw.contains(&&b"{\"id\":"[..]));
}

#[test]
fn the_last_line_needs_no_line_end() {
    for end in ["", "\n", "\r\n", "\r"] {
        assert_eq!(both(&outcome_of(format!("{EVENT}\n{USER}{end}"))), (2, vec![]), "{end:?}");
    }
    assert_eq!(both(&outcome_of(format!("{EVENT}\n{{\"id\":1"))), (1, vec![Code::Truncated]));
    assert_eq!(both(&outcome_of(format!("{EVENT}\n{{\"id\":tru"))), (1, vec![Code::Truncated]));
}

#[test]
fn white_space_around_a_record_and_its_tokens_is_ignored() {
    let record = " \t{ \"event_type\" :\t\"a\" , \"event_timestamp\" : 1736764200123 , \"attributes\" : { \"screen\" : \"b\" } } \t";
    assert_eq!(outcome_of(record).row("events")["attributes"], json!({ "screen": "b" }));
}

#[test]
fn a_record_may_have_exactly_as_many_bytes_as_the_limit() {
    for (bytes, expected) in [(RECORD_BYTES_MAX, vec![]), (RECORD_BYTES_MAX + 1, vec![Code::TooLarge])] {
        let pad = bytes - EVENT.len() - r#","x":"""#.len();
        let record = format!("{},\"x\":\"{}\"}}", &EVENT[..EVENT.len() - 1], "x".repeat(pad));
        assert_eq!(record.len(), bytes);
        assert_eq!(outcome_of(&record).codes(), expected);
        let framed = Setup::shipped().run().frames(&[TestFrame::new(record.as_bytes(), "1")]).take();
        assert_eq!(framed.codes(), expected);
    }
}

#[test]
fn a_wrapped_record_is_unwrapped() {
    let text = encoded(EVENT);
    let wrapped = [
        text.clone(),
        format!("\"{text}\""),
        text.trim_end_matches('=').to_owned(),
        format!("  {text} "),
        encoded(&format!("{{ {}", &EVENT[1..])),
        encoded(&format!("{{\n{}", &EVENT[1..])),
    ];
    let plain = outcome_of(EVENT).row("events");
    for record in wrapped {
        let mut row = outcome_of(&record).row("events");
        row.insert("ingest_sequence".to_owned(), plain["ingest_sequence"].clone());
        assert_eq!(row, plain, "{record}");
    }
    assert_eq!(outcome_of(encoded(ASSESSMENT)).row("assessments")["assessment_id"], "a-1");
}

#[test]
fn the_dead_letter_of_a_wrapped_record_holds_the_bytes_as_received() {
    let bad = encoded(r#"{"event_type":"a","event_timestamp":"yesterday"}"#);
    let outcome = outcome_of(ndjson(&[encoded(EVENT), bad.clone(), encoded(USER), encoded("{}"), encoded("[1]")]));
    assert_eq!(both(&outcome), (2, vec![Code::WrongType, Code::UnknownDataset, Code::NotJson]));
    assert_eq!(
        outcome.dead_letters.iter().find(|dead_letter| dead_letter.code == Code::WrongType).unwrap().raw,
        bad.as_bytes()
    );
    assert_eq!(outcome.raw.iter().filter(|line| line.text == bad.as_bytes()).count(), 1);
}

#[test]
fn datasets_may_be_mixed_in_one_chunk_in_any_order() {
    let records = [ASSESSMENT, EVENT, USER];
    let mut order = 1_u32;
    let mut lines = Vec::new();
    for _ in 0..3_000 {
        order = order.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        lines.push(records[(order >> 16) as usize % 3]);
    }
    let mut expected: [Vec<String>; 3] = Default::default();
    let mut at = BASE;
    for line in &lines {
        let of = records.iter().position(|record| record == line).unwrap();
        expected[of].push(at.to_string());
        at += line.len() as u64 + 1;
    }
    let outcome = outcome_of(ndjson(&lines));
    for (dataset, expected) in ["assessments", "events", "users"].into_iter().zip(expected) {
        let rows = outcome.rows(dataset);
        let sequences: Vec<&str> = rows.iter().map(|row| row["ingest_sequence"].as_str().unwrap()).collect();
        assert_eq!(sequences, expected);
    }
    assert_eq!(outcome.dead_letters.len(), 0);
}

#[test]
fn records_with_their_own_sequence_numbers_keep_them() {
    let long = "49590338271490256608559692538361571095921575989136588898";
    let frames = [
        TestFrame { arrival_ms: Some(1_736_764_300_000), ..TestFrame::new(EVENT.as_bytes(), long) },
        TestFrame { sub_sequence: 1, ..TestFrame::new(EVENT.as_bytes(), long) },
        TestFrame { sub_sequence: u64::from(u32::MAX), ..TestFrame::new(EVENT.as_bytes(), long) },
        TestFrame::new(EVENT.as_bytes(), "7"),
        TestFrame { partition_key: Some("k\n\"é"), ..TestFrame::new(b"[]", "8") },
    ];
    let outcome = Setup::shipped().run().frames(&frames).take();
    let rows = outcome.rows("events");
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            (row["ingest_sequence"].clone(), row["ingest_subsequence"].clone(), row["ingest_arrival_time"].clone())
        })
        .collect();
    assert_eq!(
        found,
        [
            (json!("7"), json!(0), json!(ARRIVAL_MS * 1000)),
            (json!(long), json!(0), json!(1_736_764_300_000_000_i64)),
            (json!(long), json!(1), json!(ARRIVAL_MS * 1000)),
            (json!(long), json!(u32::MAX), json!(ARRIVAL_MS * 1000)),
        ]
    );
    assert!(rows.iter().all(|row| row["ingest_stream"] == STREAM && row["ingest_shard"] == SHARD));
    let dead_letter = outcome.dead_letter();
    assert_eq!((dead_letter.sequence.as_str(), dead_letter.partition_key.clone()), ("8", Some(pseudonym("k\n\"é"))));
}

#[test]
fn chunks_of_lines_and_of_numbered_records_may_alternate() {
    let mut run = Setup::shipped().run();
    run.lines(ndjson(&[EVENT, EVENT]))
        .frames(&[TestFrame::new(EVENT.as_bytes(), "77"), TestFrame::new(EVENT.as_bytes(), "78")]);
    run.lines(EVENT);
    let rows = run.take().rows("events");
    let sequences: Vec<&str> = rows.iter().map(|row| row["ingest_sequence"].as_str().unwrap()).collect();
    assert_eq!(sequences, ["77", "78", "5000", "5051", "5102"]);
}

#[test]
fn a_record_ends_where_its_frame_ends() {
    // The byte after each record would continue it if it were read.
    let bytes = b"{\"event_type\":\"a\",\"event_timestamp\":17367642001234tru1}".to_vec();
    let cuts = [(0_u32, 49_u32), (50, 53), (53, 53)];
    let frames = cuts.map(|(start, end)| pipeline::chunk::Frame {
        bytes: start..end,
        sequence: start.to_string().into(),
        sub_sequence: u64::from(end),
        arrival_ms: None,
        partition_key: None,
        damage: None,
    });
    let chunk = Chunk::new(STREAM.into(), SHARD.into(), ARRIVAL_MS, bytes, Framing::Records(frames.into()));
    let outcome = Setup::shipped().run().push(chunk).take();
    let codes: Vec<_> =
        outcome.dead_letters.iter().map(|dead_letter| (dead_letter.code, dead_letter.raw.len())).collect();
    assert_eq!(outcome.row_count(), 0);
    assert_eq!(codes.len(), 3);
    assert!(codes.contains(&(Code::Truncated, 49)) && codes.contains(&(Code::Truncated, 3)), "{codes:?}");
    assert!(codes.contains(&(Code::NotJson, 0)), "nothing is not JSON: {codes:?}");
}

#[test]
fn a_record_of_several_lines_is_one_row_and_one_raw_line() {
    let pretty = "{\n  \"event_type\": \"a\",\r\n  \"event_timestamp\": 1736764200123\n}\n";
    let outcome = Setup::shipped().run().frames(&[TestFrame::new(pretty.as_bytes(), "1")]).take();
    assert_eq!(outcome.row("events")["event_timestamp"], 1_736_764_200_123_000_i64);
    assert_eq!(outcome.raw.len(), 1);
    assert_eq!(outcome.raw[0].text, pretty.replace('\n', " ").as_bytes());
}

#[test]
fn a_record_that_two_datasets_recognize_belongs_to_the_first() {
    let record = r#"{"event_type":"a","event_timestamp":1736764200123,"id":"1","user_id":"u","type":"t","score":1,"updated_at":"x"}"#;
    assert_eq!(outcome_of(record).row("events")["event_type"], "a");
}

#[test]
fn the_keys_that_identify_a_dataset_may_come_late_or_have_escapes() {
    let late = format!(
        "{{\"unread\":{{\"a\":[1,2]}},\"user_id\":\"u\",{}",
        &ASSESSMENT[1..].replace("\"user_id\":\"u-1\",", "")
    );
    let escaped =
        EVENT.replace("event_type", "\\u0065vent\\u005ftype").replace("event_timestamp", "event_timestam\\u0070");
    let outcome = outcome_of(ndjson(&[late.as_str(), &escaped, USER, &late, &escaped]));
    assert_eq!(both(&outcome), (5, vec![]));
    assert_eq!((outcome.rows("assessments").len(), outcome.rows("events").len()), (2, 2));
}

#[test]
fn records_of_a_source_with_an_assigned_dataset_need_no_recognizable_key() {
    let nameless = r#"{"user_id":"u-1","id":"1","type":"t","timestamp":"2025-01-13T10:30:00Z"}"#;
    let records = ndjson(&[nameless, EVENT, "[1]", "{\"id\":", "{}"]);
    let outcome = Setup::shipped().assigned("assessments").run().lines(records).take();
    assert_eq!(both(&outcome), (1, vec![Code::MissingField, Code::NotAnObject, Code::Truncated, Code::MissingField]));
    assert!(outcome.dead_letters.iter().all(|dead_letter| dead_letter.dataset.as_deref() == Some("assessments")));
    assert!(outcome.raw.iter().all(|line| line.folder.to_string().starts_with("raw/assessments/")));
}

#[test]
fn the_arrival_time_is_that_of_the_record_else_of_the_field_else_of_the_chunk() {
    let day = |n: i64| ARRIVAL_MS + n * DAY_MS;
    let field = format!(r#"{{"event_type":"f","event_timestamp":1736764200123,"arrival_timestamp":{}}}"#, day(1));
    let frames = [
        TestFrame { arrival_ms: Some(day(2)), ..TestFrame::new(field.as_bytes(), "1") },
        TestFrame::new(field.as_bytes(), "2"),
        TestFrame::new(EVENT.as_bytes(), "3"),
        TestFrame { arrival_ms: Some(day(2)), ..TestFrame::new(USER.as_bytes(), "4") },
    ];
    let outcome = Setup::shipped().run().frames(&frames).take();
    let arrivals: Vec<i64> =
        outcome.rows("events").iter().map(|row| row["ingest_arrival_time"].as_i64().unwrap()).collect();
    assert_eq!(arrivals, [day(2), day(1), day(0)].map(|ms| ms * 1000));
    let mut folders: Vec<String> = outcome.raw.iter().map(|line| line.folder.to_string()).collect();
    folders.sort_unstable();
    assert_eq!(
        folders,
        [
            "raw/events/year=2025/month=02/day=01",
            "raw/events/year=2025/month=02/day=02",
            "raw/events/year=2025/month=02/day=03",
            "raw/users/year=2025/month=02/day=03",
        ]
    );
}

#[test]
fn a_dead_letter_is_in_the_folder_of_its_arrival_day() {
    let late = r#"{"event_type":"","event_timestamp":1736764200123,"arrival_timestamp":1738540800000}"#;
    let frames = [
        TestFrame { arrival_ms: Some(ARRIVAL_MS - 1), ..TestFrame::new(b"nothing", "1") },
        TestFrame::new(b"nothing", "2"),
        TestFrame::new(late.as_bytes(), "3"),
        TestFrame { arrival_ms: Some(ARRIVAL_MS - 1), ..TestFrame::new(late.as_bytes(), "4") },
    ];
    let outcome = Setup::shipped().run().frames(&frames).take();
    let mut found: Vec<(&str, i64, &str)> = outcome
        .dead_letters
        .iter()
        .map(|dead_letter| (dead_letter.sequence.as_str(), dead_letter.arrival_ms, dead_letter.folder.as_str()))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("1", ARRIVAL_MS - 1, "error/reason=DataFormatConversion.ParseError/year=2025/month=01/day=31"),
            ("2", ARRIVAL_MS, "error/reason=DataFormatConversion.ParseError/year=2025/month=02/day=01"),
            ("3", 1_738_540_800_000, "error/reason=Validate.ConstraintViolated/year=2025/month=02/day=03"),
            ("4", ARRIVAL_MS - 1, "error/reason=Validate.ConstraintViolated/year=2025/month=01/day=31"),
        ]
    );
}

#[test]
fn an_event_may_be_at_most_a_day_ahead_of_its_arrival() {
    let at = |ms: i64, more: &str| format!(r#"{{"event_type":"a","event_timestamp":{ms}{more}}}"#);
    let limit = ARRIVAL_MS + DAY_MS;
    let outcome = outcome_of(ndjson(&[
        at(1_262_304_000_000, ""),
        at(1_262_303_999_999, ""),
        at(limit, ""),
        at(limit + 1, ""),
        at(limit + 1, &format!(",\"arrival_timestamp\":{}", ARRIVAL_MS + 1)),
        at(ARRIVAL_MS, &format!(",\"arrival_timestamp\":{}", ARRIVAL_MS - DAY_MS - 1)),
    ]));
    assert_eq!(both(&outcome), (3, vec![Code::EventTimeOutOfBounds; 3]));
    let own = Setup::shipped()
        .run()
        .frames(&[
            TestFrame { arrival_ms: Some(ARRIVAL_MS + 1), ..TestFrame::new(at(limit + 1, "").as_bytes(), "1") },
            TestFrame { arrival_ms: Some(ARRIVAL_MS - 1), ..TestFrame::new(at(limit, "").as_bytes(), "2") },
        ])
        .take();
    assert_eq!(both(&own), (1, vec![Code::EventTimeOutOfBounds]));
}
