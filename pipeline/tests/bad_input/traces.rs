//! What remains of records that fail and of epochs that are discarded, and the counts of all records.

use pipeline::dead_letter::code::Code;
use pipeline::graph::NodeKind;
use pipeline::stage::Stage;
use serde_json::{Value, json};

use crate::common::{ARRIVAL_MS, Run, Setup, TestFrame, ndjson};

/// A dataset in which records can fail at every stage, and in the middle of any value.
const VISITS: &str = r#"
name = "visits"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["place", "year"]
embedded = ["/doc"]
column = [
  { name = "place", pointer = "/place", type = "string" },
  { name = "country", pointer = "/country", type = "string" },
  { name = "currency", from = "lookup.countries.currency", type = "string" },
  { name = "n", pointer = "/n", type = "int64" },
  { name = "text", pointer = "/text", type = "string", max_length = 40 },
  { name = "token", pointer = "/token", type = "string", unique = true },
  { name = "numbers", pointer = "/numbers", type = "list", element = "int64", max = 1000000 },
  { name = "words", pointer = "/words", type = "list", element = "string", max_length = 20 },
  { name = "totals", pointer = "/totals", type = "map", value = "float64", allow = ["*"] },
  { name = "items", pointer = "/items", type = "list", field = [
    { name = "a", type = "int64" },
    { name = "b", type = "string" },
  ] },
  { name = "pair", pointer = "/pair", type = "struct", field = [
    { name = "left", type = "int64" },
    { name = "right", type = "string" },
  ] },
  { name = "of_doc", pointer = "/doc/list", type = "list", element = "string" },
  { name = "doc_value", pointer = "/doc/value", type = "string" },
  { name = "rest", from = "unknown_fields", type = "json", allow = ["x"] },
]
lookup = { name = "countries", file = "countries.csv", key = "code", on = "country", missing = "reject" }
"#;

fn visits() -> Setup {
    Setup::of(&[VISITS]).table("countries.csv", "code,currency\nDE,EUR\nUS,USD\n")
}

/// Record `n`, with something in every column.
fn good(n: usize) -> Value {
    let words: Vec<String> = (0..n % 4).map(|word| format!("w{}", n + word)).collect();
    json!({
        "t": 1_736_764_200_123_i64,
        "place": format!("p{}", n % 5),
        "country": if n.is_multiple_of(2) { "DE" } else { "US" },
        "n": n,
        "text": format!("text {}", n % 7),
        "token": format!("token-{n}"),
        "numbers": (0..n % 3).map(|number| number + n).collect::<Vec<_>>(),
        "words": words,
        "totals": { format!("k{}", n % 3): n, "other": 0.5 },
        "items": (0..n % 3).map(|item| json!({"a": n + item, "b": format!("b{item}")})).collect::<Vec<_>>(),
        "pair": { "left": n, "right": format!("r{}", n % 2) },
        "doc": json!({ "value": format!("v{n}"), "list": words }).to_string(),
        "x": { "n": n },
    })
}

/// The expected row of record `n`.
fn row(n: usize) -> Vec<(&'static str, Value)> {
    let good = good(n);
    let doc: Value = serde_json::from_str(good["doc"].as_str().unwrap_or_default()).expect("a document is JSON");
    let totals = good["totals"].as_object().into_iter().flatten();
    let totals = totals.map(|(key, value)| (key.clone(), json!(value.as_f64())));
    vec![
        ("country", good["country"].clone()),
        ("currency", json!(["EUR", "USD"][n % 2])),
        ("n", good["n"].clone()),
        ("text", good["text"].clone()),
        ("token", good["token"].clone()),
        ("numbers", good["numbers"].clone()),
        ("words", good["words"].clone()),
        ("totals", Value::Object(totals.collect())),
        ("items", good["items"].clone()),
        ("pair", good["pair"].clone()),
        ("of_doc", doc["list"].clone()),
        ("doc_value", doc["value"].clone()),
        ("rest", json!(json!({ "x": { "n": n } }).to_string())),
    ]
}

/// Record `n`, corrupted in one of many ways near its end; and the expected code.
fn corrupted(n: usize) -> (String, Code) {
    let mut record = good(n);
    let text = record.to_string();
    let replace = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let code = match n % 20 {
        0 => return (text[..text.len() - 1].to_owned(), Code::Truncated),
        1 => return (text.clone() + &text, Code::MultipleDocuments),
        2 => {
            record["numbers"] = json!([1, 2, "three", 4]);
            Code::WrongType
        }
        3 => {
            record["numbers"] = json!([1, 2_000_000, 3]);
            Code::OutOfRange
        }
        4 => {
            record["words"] = json!(["trace", "a".repeat(21)]);
            Code::ConstraintViolated
        }
        5 => {
            record["totals"] = json!({"trace": 1, "b": "two"});
            Code::WrongType
        }
        6 => return (replace("\"other\":0.5", "\"other\":1e999"), Code::NotFinite),
        7 => return (replace("\"other\":0.5", "\"tr\":1,\"tr\":2"), Code::DuplicateKey),
        8 => {
            record["items"] = json!([{"a": 1, "b": "trace"}, {"a": 2.5}]);
            Code::WrongType
        }
        9 => {
            record["items"] = json!([{"a": 1, "b": "trace"}, 7]);
            Code::WrongType
        }
        10 => {
            record["pair"] = json!({"left": 1, "right": ["trace"]});
            Code::WrongType
        }
        11 => {
            record["doc"] = json!(r#"{"list":["trace","trace"],"value":"trace""#);
            Code::BadEmbeddedJson
        }
        12 => {
            record["doc"] = json!(r#"{"list":["tr\nace",7],"value":"trace"}"#);
            Code::WrongType
        }
        13 => {
            record["country"] = json!("trace");
            Code::LookupMissing
        }
        14 => {
            record["place"] = json!("/".repeat(100));
            Code::PartitionTooLong
        }
        15 => {
            record["t"] = json!(1);
            Code::EventTimeOutOfBounds
        }
        16 => {
            record["text"] = json!("trace ".repeat(9));
            Code::ConstraintViolated
        }
        17 => return (replace("\"token\":\"token", "\"token\":\"\\ud83dtoken"), Code::UnpairedSurrogate),
        18 => return (replace("\"x\":{\"n\":", "\"x\":{\"n\":--"), Code::NotJson),
        _ => return (text[..text.len() - 1].to_owned() + ",\"n\":1}", Code::DuplicateKey),
    };
    (record.to_string(), code)
}

#[test]
fn a_record_that_fails_at_any_point_leaves_no_trace() {
    // Bad ones at every position of a micro-batch: alone, several in a row, at both ends.
    let is_bad = |n: usize| n % 3 == 1 || (500..530).contains(&n) || n == 0 || n == 2_399;
    let mut lines = Vec::new();
    let (mut expected_rows, mut expected_codes) = (Vec::new(), Vec::new());
    for n in 0..2_400 {
        if is_bad(n) {
            let (record, code) = corrupted(n);
            lines.push(record);
            expected_codes.push(code);
        } else {
            lines.push(good(n).to_string());
            expected_rows.push(n);
        }
    }
    let mut run = visits().run();
    run.lines(ndjson(&lines));
    let outcome = run.take();
    assert_eq!(outcome.codes(), expected_codes);
    let rows = outcome.rows("visits");
    assert_eq!(rows.len(), expected_rows.len());
    for (found, n) in rows.iter().zip(expected_rows) {
        for (name, expected) in row(n) {
            assert_eq!(found[name], expected, "column {name} of record {n}");
        }
    }
    for dead_letter in &outcome.dead_letters {
        assert!(!dead_letter.about.contains("trace"), "{}", dead_letter.about);
    }
    check_counts(&run, 2_400);
}

/// Asserts the equations between the counts of a graph's edges.
fn check_counts(run: &Run, sent: u64) {
    let graph = &run.config.graph;
    let names: Vec<&str> = run.config.datasets.names().collect();
    let of_all =
        |stage: &str, port: &str| names.iter().map(|name| run.count(&format!("{stage}/{name}/{port}"))).sum::<u64>();
    assert_eq!((run.count("source/in/out"), run.records), (sent, sent));
    let undecoded = run.count("decode/rejected");
    let rejected = [of_all("validate", "rejected"), of_all("enrich", "rejected"), of_all("batch", "rejected")];
    assert_eq!(sent, undecoded + of_all("decode", "out"));
    assert_eq!(of_all("decode", "out"), rejected[0] + of_all("validate", "out"));
    assert_eq!(of_all("validate", "out"), rejected[1] + of_all("enrich", "out"));
    assert_eq!(of_all("enrich", "out"), of_all("anonymize", "out"));
    assert_eq!(of_all("anonymize", "out"), rejected[2] + of_all("batch", "out"));
    let dead_letters = run.count("dead_letters/out");
    assert_eq!(dead_letters, undecoded + rejected.iter().sum::<u64>());
    assert_eq!(dead_letters, run.by_code.values().sum::<u64>());
    assert_eq!(sent, of_all("batch", "out") + dead_letters);
    let by_stage = |stage: Stage| {
        run.by_code.iter().filter(|(code, _)| code.stage() == stage).map(|(_, count)| count).sum::<u64>()
    };
    let stages = [Stage::Decode, Stage::Validate, Stage::Enrich, Stage::Batch];
    assert_eq!([undecoded, rejected[0], rejected[1], rejected[2]], stages.map(by_stage));
    if let Some([into, ..]) = graph.raw_edges() {
        assert_eq!(run.counts[into].records, sent);
        assert_eq!(run.counts[into].bytes, run.counts[graph.source_edge(0)].bytes);
    }
}

#[test]
fn the_counts_of_the_graphs_edges_add_up() {
    let lines = [
        r#"{"id":"a","user_id":"u","type":"t","timestamp":"2025-01-13T10:30:00Z"}"#,
        r#"{"id":"a","user_id":"u","type":"t","timestamp":"2025-01-13T10:30:00Z","score":101}"#,
        r#"{"event_type":"a","event_timestamp":1736764200123}"#,
        r#"{"event_type":"a","event_timestamp":1736764200123,"score":1"#,
        r#"{"event_type":"a"}"#,
        r#"{"user_id":"u","updated_at":"2025-01-13T10:30:00Z"}"#,
        "{}",
        "[]",
    ];
    let mut run = Setup::shipped().run();
    run.lines(ndjson(&lines)).lines(ndjson(&lines[..3])).lines("");
    check_counts(&run, 11);
    assert_eq!(run.count("decode/assessments/out"), 4);
    assert_eq!(run.count("validate/assessments/rejected"), 2);
    assert_eq!(run.count("batch/events/out"), 2);
    let bytes = |lines: &[&str]| lines.iter().map(|line| line.len() as u64).sum::<u64>();
    assert_eq!(run.counts[run.config.graph.source_edge(0)].bytes, bytes(&lines) + bytes(&lines[..3]));
    let outcome = run.take();
    assert_eq!((outcome.row_count(), outcome.dead_letters.len(), outcome.raw.len()), (5, 6, 11));
}

#[test]
fn a_lane_without_raw_landing_writes_no_raw_line() {
    let mut run = visits().without_raw().run();
    run.lines(ndjson(&[good(1).to_string(), "x".to_owned()]));
    assert!(run.config.graph.raw_edges().is_none());
    check_counts(&run, 2);
    let outcome = run.take();
    assert_eq!((outcome.row_count(), outcome.dead_letters.len(), outcome.raw.len()), (1, 1, 0));
    assert!(run.config.graph.nodes().iter().all(|node| node.kind != NodeKind::Sink || node.name != "raw/"));
}

#[test]
fn keys_that_are_not_on_an_allow_list_are_counted() {
    let event = |attributes: &str| {
        format!(r#"{{"event_type":"a","event_timestamp":1736764200123,"attributes":{attributes},"metrics":{{"q":1}}}}"#)
    };
    let mut run = Setup::shipped().run();
    run.lines(ndjson(&[
        event(r#"{"screen":"s","secret":"x","other":"y"}"#),
        event("{}"),
        event(r#"{"secret":7,"screen":8,"screen":8}"#),
    ]));
    assert_eq!(run.denied_keys, 4, "those of a record that fails do not count");
    assert_eq!(run.take().rows("events")[0]["attributes"], json!({ "screen": "s" }));
}

#[test]
fn a_lane_that_discards_its_contents_is_like_a_new_one() {
    let before: Vec<String> = (0..700).map(|n| if n % 5 == 0 { corrupted(n).0 } else { good(n).to_string() }).collect();
    let after: Vec<String> = (0..300).map(|n| good(n * 7).to_string()).collect();
    let mut run = visits().run();
    let empty = run.lane.memory();
    run.lines(ndjson(&before));
    assert!(run.lane.memory() > empty + 10_000);
    run.lane.forget();
    assert_eq!(run.lane.memory(), empty);
    assert!(run.lane.take_rows().is_empty() && run.lane.take_lines().is_empty());

    let frames: Vec<TestFrame<'_>> = after.iter().map(|record| TestFrame::new(record.as_bytes(), "9")).collect();
    let again = run.frames(&frames).take();
    let fresh = visits().run().frames(&frames).take();
    assert_eq!(again.row_count(), 300);
    assert_eq!((again.dead_letters.len(), &again.raw), (0, &fresh.raw));
    for (found, expected) in again.files.iter().zip(&fresh.files) {
        assert_eq!((&found.path, &found.bytes), (&expected.path, &expected.bytes));
    }
}

#[test]
fn rows_and_lines_are_returned_only_once() {
    let mut run = visits().run();
    run.lines(ndjson(&[good(1).to_string(), "x".to_owned()]));
    assert_eq!(run.take().row_count(), 1);
    let nothing = run.take();
    assert_eq!((nothing.row_count(), nothing.dead_letters.len(), nothing.raw.len()), (0, 0, 0));
    run.lines_at(good(2).to_string(), ARRIVAL_MS + 1);
    assert_eq!(run.take().row("visits")["n"], 2);
}
