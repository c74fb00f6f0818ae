//! Properties of all records: every record comes out unchanged, whatever its shape, the chunk boundaries and the order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use crate::common::{File, Outcome, Setup, ndjson};
use parquet::data_type::AsBytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::statistics::Statistics;
use pipeline::dead_letter::code::Code;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// A dataset with a column of each shape.
const THINGS: &str = r#"
name = "things"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["place", "month"]
embedded = ["/doc"]
column = [
  { name = "place", pointer = "/place", type = "string" },
  { name = "n", pointer = "/n", type = "int64" },
  { name = "small", pointer = "/small", type = "int32" },
  { name = "double", pointer = "/double", type = "float64" },
  { name = "flag", pointer = "/flag", type = "bool" },
  { name = "at", pointer = "/at", type = "timestamp", format = "epoch_ms" },
  { name = "text", pointer = "/text", type = "string" },
  { name = "token", pointer = "/token", type = "string", unique = true },
  { name = "numbers", pointer = "/numbers", type = "list", element = "int64" },
  { name = "words", pointer = "/words", type = "list", element = "string" },
  { name = "totals", pointer = "/totals", type = "map", value = "float64", allow = ["*"] },
  { name = "items", pointer = "/items", type = "list", field = [
    { name = "a", type = "int32" },
    { name = "b", type = "string" },
  ] },
  { name = "pair", pointer = "/pair", type = "struct", field = [
    { name = "left", type = "int64" },
    { name = "right", type = "string" },
  ] },
  { name = "of_doc", pointer = "/doc/value", type = "string" },
]
"#;

/// 2025-01-13, noon; records are of this month and the previous one.
const T: i64 = 1_736_769_600_000;
const MONTH_MS: i64 = 31 * 86_400_000;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-c]{0,3}", 1 => any::<String>(), 1 => "\\PC{0,40}"]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![2 => select(vec![0.0, 0.25, -1.5]), 1 => any::<f64>().prop_filter("finite", |value| value.is_finite())]
}

/// A member that is absent, null, or present.
fn member(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(Value::Null)), 6 => value.prop_map(Some)].boxed()
}

/// The members of a good record.
fn thing() -> impl Strategy<Value = Map<String, Value>> {
    let item = (option::of(any::<i32>()), option::of(text())).prop_map(|(a, b)| json!({ "a": a, "b": b }));
    let pair = (option::of(any::<i64>()), option::of(text()))
        .prop_map(|(left, right)| json!({ "left": left, "right": right }));
    let members: Vec<(&str, BoxedStrategy<Option<Value>>)> = vec![
        ("t", select(vec![T, T - MONTH_MS]).prop_map(|ms| Some(json!(ms))).boxed()),
        ("place", member(prop_oneof![4 => "[a-c]", 1 => "[/%=é ]{0,3}"].prop_map(Value::from))),
        ("n", member(any::<i64>().prop_map(Value::from))),
        ("small", member(any::<i32>().prop_map(Value::from))),
        ("double", member(double().prop_map(Value::from))),
        ("flag", member(any::<bool>().prop_map(Value::from))),
        ("at", member((-62_135_596_800_000..253_402_300_800_000_i64).prop_map(Value::from))),
        ("text", member(text().prop_map(Value::from))),
        ("token", member(text().prop_map(Value::from))),
        ("numbers", member(vec(option::of(any::<i64>()), 0..5).prop_map(|list| json!(list)))),
        ("words", member(vec(option::of(text()), 0..5).prop_map(|list| json!(list)))),
        ("totals", member(btree_map(text(), option::of(double()), 0..5).prop_map(|map| json!(map)))),
        ("items", member(vec(item, 0..4).prop_map(Value::Array))),
        ("pair", member(pair)),
        ("doc", member(text().prop_map(|value| json!(json!({ "value": value }).to_string())))),
    ];
    let (names, values): (Vec<&str>, Vec<_>) = members.into_iter().unzip();
    values.prop_map(move |values| {
        let all = names.iter().zip(values);
        all.filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect()
    })
}

/// A record, or something that is not a record.
#[derive(Debug, Clone)]
struct Sent {
    line: String,
    good: Option<Map<String, Value>>,
}

fn sent() -> impl Strategy<Value = Sent> {
    (thing(), any::<bool>(), 0..12_u32).prop_map(|(thing, ascii, corruption)| {
        let line = Value::Object(thing.clone()).to_string();
        let line = if ascii { to_ascii(&line) } else { line };
        let cut = line.len() - 1;
        let corrupted = match corruption {
            0 => line[..cut].to_owned(),
            1 => format!("{},\"n\":\"x\",\"n\":1}}", &line[..cut]),
            2 => format!("{},\"items\":[{{\"a\":1}},{{\"a\":\"x\"}}],\"more\":1}}", &line[..cut]),
            _ => return Sent { line, good: Some(thing) },
        };
        Sent { line: corrupted, good: None }
    })
}

fn to_ascii(json: &str) -> String {
    let mut out = String::new();
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

/// The expected value of a column for a record.
fn expected(thing: &Map<String, Value>, column: &str) -> Value {
    let value = |name: &str| thing.get(name).cloned().unwrap_or(Value::Null);
    match column {
        "of_doc" => match value("doc").as_str() {
            Some(doc) => serde_json::from_str::<Value>(doc).expect("a document is JSON")["value"].take(),
            None => Value::Null,
        },
        "at" => value("at").as_i64().map_or(Value::Null, |ms| (ms * 1000).into()),
        other => value(other),
    }
}

const COLUMNS: [&str; 13] =
    ["n", "small", "double", "flag", "at", "text", "token", "numbers", "words", "totals", "items", "pair", "of_doc"];

/// Everything of several outcomes that does not depend on the positions of records in chunks.
fn sorted_rows(outcomes: &[Outcome]) -> (Vec<String>, Vec<(Code, Vec<u8>)>) {
    let mut rows = Vec::new();
    let mut dead_letters = Vec::new();
    for outcome in outcomes {
        for file in &outcome.files {
            for row in &file.rows {
                let mut row = row.clone();
                row.remove("ingest_sequence");
                rows.push(format!("{} {} {}", file.dataset, file.path, Value::Object(row)));
            }
        }
        dead_letters.extend(outcome.dead_letters.iter().map(|dead_letter| (dead_letter.code, dead_letter.raw.clone())));
    }
    rows.sort();
    dead_letters.sort();
    (rows, dead_letters)
}

/// Asserts that a file's statistics hold for its rows, and are exact where they claim to be.
fn check_statistics(file: &File) {
    let reader = SerializedFileReader::new(file.bytes.clone()).expect("the file can be opened");
    for column in reader.metadata().row_group(0).columns() {
        let path = column.column_path();
        let [name] = path.parts() else { continue };
        let values: Vec<&Value> = file.rows.iter().map(|row| &row[name]).filter(|value| !value.is_null()).collect();
        let statistics = column.statistics().expect("there are some");
        assert_eq!(statistics.null_count_opt(), Some((file.rows.len() - values.len()) as u64), "nulls of {name}");
        if values.is_empty() {
            assert!(statistics.min_bytes_opt().is_none() && statistics.max_bytes_opt().is_none(), "bounds of {name}");
            continue;
        }
        let numbers = || values.iter().filter_map(|value| value.as_i64());
        let doubles = || values.iter().filter_map(|value| value.as_f64());
        let texts = || values.iter().filter_map(|value| value.as_str()).map(str::as_bytes);
        let bools = || values.iter().filter_map(|value| value.as_bool());
        let holds = match statistics {
            Statistics::Boolean(found) => {
                (found.min_opt(), found.max_opt()) == (bools().min().as_ref(), bools().max().as_ref())
            }
            Statistics::Int32(found) => {
                let found = (found.min_opt().map(|min| i64::from(*min)), found.max_opt().map(|max| i64::from(*max)));
                found == (numbers().min(), numbers().max())
            }
            Statistics::Int64(found) => {
                (found.min_opt(), found.max_opt()) == (numbers().min().as_ref(), numbers().max().as_ref())
            }
            Statistics::Double(found) => {
                let least = doubles().fold(f64::INFINITY, f64::min);
                let most = doubles().fold(f64::NEG_INFINITY, f64::max);
                found.min_opt() == Some(&least) && found.max_opt() == Some(&most)
            }
            Statistics::ByteArray(found) => {
                let (min, max) = (found.min_opt().map(AsBytes::as_bytes), found.max_opt().map(AsBytes::as_bytes));
                let exact = |bound: Option<&[u8]>, value: Option<&[u8]>, is_exact: bool| !is_exact || bound == value;
                texts().all(|text| min.is_some_and(|min| min <= text) && max.is_none_or(|max| text <= max))
                    && exact(min, texts().min(), found.min_is_exact())
                    && exact(max, texts().max(), found.max_is_exact())
            }
            other => panic!("{name} has no such statistics: {other:?}"),
        };
        assert!(holds, "{name}: {statistics:?} for {values:?}");
    }
}

/// The lines of the stored inputs of the fuzz targets: good and bad records of all datasets.
fn stored_lines() -> &'static [Vec<u8>] {
    static LINES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    LINES.get_or_init(read_stored_lines)
}

fn read_stored_lines() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/record");
    let files: BTreeSet<_> =
        std::fs::read_dir(folder).expect("there are inputs").map(|file| file.expect("a file").path()).collect();
    let bytes = files.iter().map(|file| std::fs::read(file).expect("it can be read"));
    let lines = bytes.flat_map(|bytes| bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>());
    // A lone carriage return at the end of a line would belong to the line end if a line feed followed.
    lines.filter(|line| !line.trim_ascii().is_empty() && !line.ends_with(b"\r")).collect()
}

/// Any JSON, with keys and values that the shipped datasets know.
fn any_json() -> impl Strategy<Value = Value> {
    let known = vec![
        "id",
        "user_id",
        "type",
        "score",
        "duration",
        "timestamp",
        "user_age",
        "user_region",
        "answers",
        "question",
        "answer",
        "milliseconds",
        "event_type",
        "event_timestamp",
        "arrival_timestamp",
        "application",
        "client",
        "sdk",
        "attributes",
        "metrics",
        "screen",
        "client_context",
        "custom",
        "endpoint",
        "User",
        "UserId",
        "Metrics",
        "completed",
        "updated_at",
        "tags",
        "age",
        "email",
        "facets",
        "email_channel",
        "mail_event",
        "device",
        "",
    ];
    let key = prop_oneof![9 => select(known).prop_map(str::to_owned), 1 => any::<String>()];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        double().prop_map(Value::from),
        text().prop_map(Value::from),
        select(vec!["2025-01-13T10:30:00Z", "{\"Id\":\"e\"}", "{\"a\":[", "u-1", "123"]).prop_map(Value::from),
        select(vec![T, 12, 73]).prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            btree_map(key.clone(), inner, 0..8).prop_map(|members| json!(members)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_good_record_becomes_the_expected_row(
        sent in vec(sent(), 1..80),
        cuts in vec((any::<prop::sample::Index>(), any::<bool>()), 0..4),
    ) {
        let mut ends: BTreeMap<usize, bool> = cuts.iter().map(|(cut, take)| (cut.index(sent.len()), *take)).collect();
        ends.insert(sent.len(), true);
        let mut run = Setup::of(&[THINGS]).run();
        let mut outcomes = Vec::new();
        let mut begin = 0;
        for (end, take) in ends {
            let lines: Vec<&str> = sent[begin..end].iter().map(|sent| sent.line.as_str()).collect();
            run.lines(ndjson(&lines));
            if take {
                outcomes.push(run.take());
            }
            begin = end;
        }
        // In each outcome the rows have the order in which they were sent.
        let mut rows = outcomes.iter().flat_map(|outcome| outcome.rows("things"));
        for thing in sent.iter().filter_map(|sent| sent.good.as_ref()) {
            let row = rows.next().expect("every good record is a row");
            for column in COLUMNS {
                prop_assert_eq!(&row[column], &expected(thing, column), "column {}", column);
            }
        }
        prop_assert!(rows.next().is_none());
        let dead_letters: usize = outcomes.iter().map(|outcome| outcome.dead_letters.len()).sum();
        prop_assert_eq!(dead_letters, sent.iter().filter(|sent| sent.good.is_none()).count());
        for file in outcomes.iter().flat_map(|outcome| &outcome.files) {
            check_statistics(file);
            prop_assert!(file.path.ends_with("/month=01") || file.path.ends_with("/month=12"), "{}", file.path);
        }
    }

    #[test]
    fn a_partition_path_is_always_a_valid_object_key(
        values in vec(prop_oneof![any::<String>(), "\\PC{100,255}", "[\u{80}-\u{9f}.]{1,4}"], 9),
    ) {
        let columns = |count: usize| {
            let column = |n| format!("{{ name = \"p{n}\", pointer = \"/p{n}\", type = \"string\" }},");
            let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
            format!(
                "name = \"t\"\npartition_by = {names:?}\nevent_time = {{ pointer = \"/t\", format = \"epoch_ms\" }}\n\
                 recognize = {{ present = [\"/t\"] }}\ncolumn = [{}]\n",
                (0..count).map(column).collect::<String>()
            )
        };
        for count in [1, 4, 8] {
            let mut record = json!({ "t": T });
            for (n, value) in values.iter().enumerate() {
                record[format!("p{n}")] = json!(value);
            }
            let outcome = Setup::of(&[columns(count)]).run().lines(record.to_string()).take();
            let too_long = outcome.dead_letters.iter().all(|dead_letter| dead_letter.code == Code::PartitionTooLong);
            prop_assert!(too_long && outcome.row_count() + outcome.dead_letters.len() == 1);
            for file in &outcome.files {
                // A valid object key, with room for the lake's prefix before it and the file's name after it.
                prop_assert!(!file.path.chars().any(char::is_control), "{:?}", file.path);
                prop_assert!(file.path.len() <= 800, "{} bytes: {}", file.path.len(), file.path);
                let segments: Vec<&str> = file.path.split('/').collect();
                prop_assert_eq!(segments.len(), count);
                let in_order = segments.iter().enumerate().all(|(n, segment)| segment.starts_with(&format!("p{n}=")));
                prop_assert!(in_order, "{}", file.path);
                prop_assert!(segments.iter().all(|segment| segment.len() <= 255));
            }
        }
    }

    #[test]
    fn chunk_boundaries_do_not_matter(
        picks in vec(any::<prop::sample::Index>(), 1..40),
        cuts in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let pool = stored_lines();
        let lines: Vec<&Vec<u8>> = picks.iter().map(|pick| pick.get(pool)).collect();
        let together = Setup::shipped().run().lines(ndjson(&lines)).take();
        let mut ends: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(lines.len())).collect();
        ends.insert(lines.len());
        let mut run = Setup::shipped().run();
        let mut begin = 0;
        for end in ends {
            run.lines(ndjson(&lines[begin..end]));
            begin = end;
        }
        let apart = run.take();
        for dataset in ["assessments", "events", "users"] {
            prop_assert_eq!(together.rows(dataset), apart.rows(dataset));
        }
        prop_assert_eq!(together.codes(), apart.codes());
        prop_assert_eq!(together.row_count() + together.dead_letters.len(), lines.len());
    }

    #[test]
    fn the_order_of_records_changes_only_the_order_of_rows(
        (lines, shuffled) in vec(any::<prop::sample::Index>(), 1..40)
            .prop_map(|picks| picks.iter().map(|pick| pick.index(10_000)).collect::<Vec<_>>())
            .prop_flat_map(|picks| (Just(picks.clone()), Just(picks).prop_shuffle())),
    ) {
        let pool = stored_lines();
        let outcome = |picks: &[usize]| {
            let lines: Vec<&Vec<u8>> = picks.iter().map(|pick| &pool[pick % pool.len()]).collect();
            [Setup::shipped().run().lines(ndjson(&lines)).take()]
        };
        prop_assert_eq!(sorted_rows(&outcome(&lines)), sorted_rows(&outcome(&shuffled)));
    }

    #[test]
    fn any_json_is_a_row_or_a_dead_letter(values in vec(any_json(), 1..60)) {
        let lines: Vec<String> = values.iter().map(Value::to_string).collect();
        let mut run = Setup::shipped().run();
        run.lines(ndjson(&lines));
        let outcome = run.take();
        prop_assert_eq!(outcome.row_count() + outcome.dead_letters.len(), lines.len());
        for dead_letter in &outcome.dead_letters {
            let grammar = [
                Code::NotJson, Code::NotUtf8, Code::Truncated, Code::MultipleDocuments, Code::TrailingBytes,
                Code::UnpairedSurrogate, Code::TooDeep, Code::TooLarge, Code::DamagedFile, Code::BrokenAggregate,
                Code::DuplicateKey,
            ];
            let is_list_or_scalar = dead_letter.code == Code::NotAnObject;
            prop_assert!(!grammar.contains(&dead_letter.code), "{}: {}", dead_letter.about, String::from_utf8_lossy(&dead_letter.raw));
            prop_assert_eq!(is_list_or_scalar, dead_letter.raw.first() != Some(&b'{'));
        }
    }
}
