//! A lane at its limits: thousands of partitions, large lists, maps and texts, many pages, many cycles, and columns whose
//! storage changes between cycles.

use std::collections::BTreeMap;

use crate::common::{ARRIVAL_MS, File, Run, STREAM, Setup, ndjson};
use bytes::Bytes;
use parquet::basic::{Encoding, PageType};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use pipeline::chunk::{Chunk, Framing};
use pipeline::dead_letter::code::Code;
use serde_json::{Value, json};

/// A small dataset, partitioned by a string.
const SMALL: &str = r#"
name = "small"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["place", "year"]
column = [
  { name = "place", pointer = "/place", type = "string" },
  { name = "n", pointer = "/n", type = "int64" },
  { name = "kind", pointer = "/kind", type = "string" },
]
"#;

/// A dataset with columns that can be stored in several ways, in one partition.
const WIDE: &str = r#"
name = "wide"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["year"]
column = [
  { name = "n", pointer = "/n", type = "int64" },
  { name = "few", pointer = "/few", type = "string" },
  { name = "many", pointer = "/many", type = "string", max_length = 6000000 },
  { name = "token", pointer = "/token", type = "string", unique = true },
  { name = "person", pointer = "/person", type = "string", anonymize = { rule = "pseudonym" } },
  { name = "network", pointer = "/address", type = "string", anonymize = { rule = "truncate_ip" } },
  { name = "double", pointer = "/double", type = "float64" },
  { name = "step", pointer = "/step", type = "float64" },
  { name = "flag", pointer = "/flag", type = "bool" },
  { name = "small", pointer = "/small", type = "int32" },
  { name = "numbers", pointer = "/numbers", type = "list", element = "int64" },
  { name = "items", pointer = "/items", type = "list", field = [{ name = "a", type = "string" }, { name = "b", type = "int32" }] },
  { name = "totals", pointer = "/totals", type = "map", value = "float64", allow = ["*"] },
]
"#;

const T: i64 = 1_736_764_200_123;

fn small(n: usize, partitions: usize) -> String {
    format!(r#"{{"t":{T},"place":"place-{}","n":{n},"kind":"k{}"}}"#, n % partitions, n % 3)
}

#[test]
fn ten_thousand_partitions_of_one_lane_round_trip() {
    const PARTITIONS: usize = 10_000;
    let mut run = Setup::of(&[SMALL]).without_raw().run();
    let mut memory = Vec::new();
    for half in 0..2 {
        for chunk in 0..4 {
            let begin = half * PARTITIONS + chunk * PARTITIONS / 4;
            let lines: Vec<String> = (begin..begin + PARTITIONS / 4).map(|n| small(n, PARTITIONS)).collect();
            run.lines(ndjson(&lines));
        }
        memory.push(run.lane.memory());
    }
    // About 60 bytes of JSON each; every row is its own run, in a partition that has a path.
    assert!(memory[0] < PARTITIONS * 400, "{memory:?}");
    assert!(memory[1] < memory[0] * 2, "{memory:?}");
    let outcome = run.take();
    assert_eq!((outcome.files.len(), outcome.dead_letters.len()), (PARTITIONS, 0));
    let mut seen = vec![false; 2 * PARTITIONS];
    for file in &outcome.files {
        assert_eq!(file.rows.len(), 2);
        for row in &file.rows {
            let n = usize::try_from(row["n"].as_u64().unwrap()).unwrap();
            assert_eq!(file.path, format!("place=place-{}/year=2025", n % PARTITIONS));
            assert_eq!(row["kind"], format!("k{}", n % 3));
            assert!(!std::mem::replace(&mut seen[n], true), "row {n} is there once");
        }
    }
    assert!(seen.iter().all(|seen| *seen));
    assert!(run.lane.memory() < 10_000, "an empty lane holds next to nothing: {}", run.lane.memory());
}

#[test]
fn reported_memory_grows_with_the_rows_that_are_held() {
    let mut run = Setup::of(&[WIDE]).without_raw().run();
    let empty = run.lane.memory();
    let mut held = Vec::new();
    let payload = "x".repeat(180);
    for chunk in 0..8 {
        let record =
            |n: usize| format!(r#"{{"t":{T},"n":{n},"token":"{payload}{:020}","few":"a"}}"#, chunk * 1_000 + n);
        run.lines(ndjson(&(0..1_000).map(record).collect::<Vec<_>>()));
        held.push(run.lane.memory() - empty);
    }
    assert!(held.is_sorted(), "{held:?}");
    let tokens = 8_000 * 200;
    assert!(held[7] > tokens && held[7] < tokens * 5 / 2, "{held:?} for {tokens} bytes of texts");
    run.lane.take_rows();
    assert!(run.lane.memory() < empty + 20_000);
}

/// The row of a record of [`WIDE`] that is between two others.
fn between_others(record: &str) -> serde_json::Map<String, Value> {
    let other =
        |n: usize| format!(r#"{{"t":{T},"n":{n},"numbers":[1,null],"totals":{{"a":1}},"many":"m","items":[{{}}]}}"#);
    let mut run = Setup::of(&[WIDE]).record_bytes_max(20 << 20).without_raw().run();
    let outcome = run.lines(ndjson(&[other(1).as_str(), record, &other(3)])).take();
    assert_eq!(
        outcome.dead_letters.len(),
        0,
        "{:?}",
        outcome.dead_letters.first().map(|dead_letter| &dead_letter.about)
    );
    let mut rows = outcome.rows("wide");
    assert!(rows.iter().map(|row| &row["n"]).eq([&json!(1), &json!(2), &json!(3)]));
    for row in [&rows[0], &rows[2]] {
        assert_eq!(row["numbers"], json!([1, null]));
        assert_eq!(row["totals"], json!({ "a": 1.0 }));
        assert_eq!((&row["many"], &row["items"]), (&json!("m"), &json!([{ "a": null, "b": null }])));
    }
    rows.remove(1)
}

#[test]
fn a_list_may_have_a_hundred_thousand_elements() {
    let numbers: Vec<Option<i64>> = (0..100_000).map(|n| (n % 7 != 3).then_some(n * n - 5_000_000)).collect();
    let items: Vec<Value> = (0..100_000).map(|n| json!({ "a": format!("a{}", n % 10), "b": n })).collect();
    let record = json!({ "t": T, "n": 2, "numbers": numbers, "items": items });
    let row = between_others(&record.to_string());
    assert_eq!(row["numbers"], json!(numbers));
    assert_eq!(row["items"], json!(items));
}

#[test]
fn a_list_of_more_elements_makes_its_record_a_dead_letter_and_its_neighbours_rows() {
    for (field, items) in [("numbers", "1,".repeat(100_000) + "1"), ("items", "{},".repeat(100_000) + "{}")] {
        let record = format!(r#"{{"t":{T},"n":2,"{field}":[{items}],"few":"a"}}"#);
        let broken = format!(r#"{{"t":{T},"n":2,"{field}":[{items},x]}}"#);
        let good = |n: usize| format!(r#"{{"t":{T},"n":{n},"numbers":[1,null]}}"#);
        let mut run = Setup::of(&[WIDE]).record_bytes_max(20 << 20).without_raw().run();
        let outcome = run.lines(ndjson(&[&good(1), &record, &good(3), &broken, &good(5)])).take();
        let found: Vec<_> =
            outcome.dead_letters.iter().map(|dead_letter| (dead_letter.code, dead_letter.field.clone())).collect();
        assert_eq!(found, [(Code::NotJson, None), (Code::TooLarge, Some(format!("/{field}")))]);
        assert!(outcome.rows("wide").iter().map(|row| &row["n"]).eq([&json!(1), &json!(3), &json!(5)]));
    }
}

#[test]
fn a_map_may_have_five_thousand_keys() {
    let totals: BTreeMap<String, f64> = (0..5_000).map(|n| (format!("key-{n}"), f64::from(n) / 4.0)).collect();
    let row = between_others(&json!({ "t": T, "n": 2, "totals": totals }).to_string());
    assert_eq!(row["totals"], json!(totals));
}

#[test]
fn a_text_may_have_five_megabytes() {
    let plain = "0123456789abcde\n".repeat(5 << 16);
    for column in ["many", "token"] {
        let row = between_others(&json!({ "t": T, "n": 2, column: plain, "few": "é" }).to_string());
        let found = row[column].as_str().unwrap();
        assert_eq!(found.len(), 5 << 20);
        assert!(found == plain, "the text is the same");
    }
}

#[test]
fn five_thousand_unread_fields_are_skipped() {
    let mut record = json!({ "t": T, "n": 2 });
    for n in 0..5_000 {
        record[format!("unread-{n}")] = json!({ "n": [n, null, "x"] });
    }
    assert_eq!(between_others(&record.to_string())["n"], 2);
}

#[test]
fn every_row_of_many_cycles_is_returned_once() {
    let mut run = Setup::of(&[SMALL]).run();
    let mut seen = vec![0; 60 * 40];
    for cycle in 0..60 {
        let lines: Vec<String> = (0..40).map(|n| small(cycle * 40 + n, 1 + cycle % 7)).collect();
        let outcome = run.lines(ndjson(&lines[..20])).lines(ndjson(&lines[20..])).take();
        assert_eq!(outcome.files.len(), 1 + cycle % 7);
        for row in outcome.rows("small") {
            seen[usize::try_from(row["n"].as_u64().unwrap()).unwrap()] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count == 1));
}

/// Record `n` of [`WIDE`]: `many` and `person` never repeat, the others do.
fn wide(n: usize) -> Value {
    let number = i32::try_from(n).expect("a test has few records");
    json!({
        "t": T,
        "n": n,
        "few": if n % 11 == 5 { Value::Null } else { json!(format!("few-{}", n % 6)) },
        "many": if n % 13 == 7 { Value::Null } else { json!(format!("many-é-{n}\"")) },
        "token": format!("token-{n:06}"),
        "person": format!("person-{n}"),
        "address": format!("10.{}.{}.{}", n / 200 % 200, n % 200, n % 251),
        "double": f64::from(number) * 0.37 - 1_000.0,
        "step": f64::from(number % 10) / 4.0,
        "flag": if n.is_multiple_of(5) { Value::Null } else { json!(n.is_multiple_of(2)) },
        "small": number % 1000 - 500,
        "numbers": if n.is_multiple_of(4) { Value::Null } else { json!((0..n % 4).collect::<Vec<_>>()) },
        "totals": { format!("k{}", n % 3): n % 17 },
    })
}

/// The columns of a row that must equal its record.
const SAME: [&str; 8] = ["n", "few", "many", "token", "double", "step", "flag", "small"];

fn wide_file(run: &mut Run, from: usize, to: usize) -> File {
    for begin in (from..to).step_by(5_000) {
        let lines: Vec<String> = (begin..to.min(begin + 5_000)).map(|n| wide(n).to_string()).collect();
        run.lines(ndjson(&lines));
    }
    let mut outcome = run.take();
    assert_eq!((outcome.files.len(), outcome.dead_letters.len()), (1, 0), "{:?}", outcome.dead_letters.first());
    let file = outcome.files.remove(0);
    assert_eq!(file.rows.len(), to - from);
    for (row, n) in file.rows.iter().zip(from..) {
        let expected = wide(n);
        for name in SAME {
            assert_eq!(row[name], expected[name], "{name} of {n}");
        }
        assert_eq!(row["numbers"], expected["numbers"]);
        assert_eq!(row["totals"][format!("k{}", n % 3)].as_f64(), expected["totals"][format!("k{}", n % 3)].as_f64());
        assert_eq!(row["network"], format!("10.{}.{}.0/24", n / 200 % 200, n % 200));
        assert!(row["person"].as_str().is_some_and(|person| person.len() == 32));
    }
    file
}

fn open(bytes: &Bytes) -> SerializedFileReader<Bytes> {
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new()
        .with_page_index()
        .with_reader_properties(properties)
        .with_encoding_stats_as_mask(false)
        .build();
    SerializedFileReader::new_with_options(bytes.clone(), options).expect("the file can be opened")
}

/// The position of a column of [`WIDE`] in its file, and the encodings of its data pages.
fn encoding_of(reader: &SerializedFileReader<Bytes>, name: &str) -> (usize, Vec<Encoding>) {
    let group = reader.metadata().row_group(0);
    let place = group.columns().iter().position(|column| column.column_path().string() == name).expect("it is there");
    let stats = group.column(place).page_encoding_stats().expect("there are some");
    let pages = stats.iter().filter(|stats| stats.page_type == PageType::DATA_PAGE);
    (place, pages.map(|stats| stats.encoding).collect())
}

#[test]
fn a_column_that_hardly_repeats_gives_the_same_values_with_and_without_a_dictionary() {
    let mut run = Setup::of(&[WIDE]).without_raw().run();
    let first = wide_file(&mut run, 0, 12_000);
    // From now on the lane stores `many` and `person` without a dictionary.
    let second = wide_file(&mut run, 0, 12_000);
    let third = wide_file(&mut run, 0, 300);
    let without_sequence = |file: &File| {
        let mut rows = file.rows.clone();
        rows.iter_mut().for_each(|row| drop(row.remove("ingest_sequence")));
        rows
    };
    assert!(without_sequence(&first) == without_sequence(&second), "the values are the same");
    assert!(without_sequence(&first)[..300] == without_sequence(&third), "and in a small file");
    let encodings = |bytes: &Bytes, name: &str| encoding_of(&open(bytes), name).1;
    for bytes in [&third.bytes, &third.compact] {
        assert_eq!(encodings(bytes, "few"), [Encoding::RLE_DICTIONARY]);
    }
    assert_eq!(encodings(&third.bytes, "many"), [Encoding::PLAIN], "it has changed");
    assert_eq!(encodings(&third.compact, "many"), [Encoding::DELTA_LENGTH_BYTE_ARRAY], "it has changed");
    let fresh = wide_file(&mut Setup::of(&[WIDE]).without_raw().run(), 0, 300);
    assert_eq!(encodings(&fresh.bytes, "many"), [Encoding::RLE_DICTIONARY], "it begins with a dictionary");
}

#[test]
fn the_encodings_of_a_column_follow_from_its_values_and_the_configuration() {
    use Encoding::{DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, PLAIN, RLE_DICTIONARY};
    let file = wide_file(&mut Setup::of(&[WIDE]).without_raw().run(), 0, 12_000);
    let expected = [
        // Numbers that repeat; those that do not; a constant.
        ("small", RLE_DICTIONARY, DELTA_BINARY_PACKED),
        ("numbers.list.element", RLE_DICTIONARY, DELTA_BINARY_PACKED),
        ("n", PLAIN, DELTA_BINARY_PACKED),
        ("ingest_subsequence", RLE_DICTIONARY, DELTA_BINARY_PACKED),
        ("ingest_arrival_time", RLE_DICTIONARY, DELTA_BINARY_PACKED),
        ("step", RLE_DICTIONARY, RLE_DICTIONARY),
        ("double", PLAIN, PLAIN),
        ("flag", PLAIN, PLAIN),
        ("few", RLE_DICTIONARY, RLE_DICTIONARY),
        ("token", PLAIN, DELTA_LENGTH_BYTE_ARRAY),
        ("person", PLAIN, DELTA_LENGTH_BYTE_ARRAY),
        ("ingest_sequence", PLAIN, DELTA_BYTE_ARRAY),
    ];
    for (name, compatible, compact) in expected {
        assert_eq!(encoding_of(&open(&file.bytes), name).1.last(), Some(&compatible), "{name}");
        assert_eq!(encoding_of(&open(&file.compact), name).1.last(), Some(&compact), "{name}");
    }
}

#[test]
fn numbers_of_every_range_round_trip_in_many_batches() {
    // 400,000 elements are gathered in two batches. `far` leaves the range of the first one, `edge` has all of 64 bits.
    let definition = r#"
name = "ranges"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["year"]
column = [
  { name = "near", pointer = "/near", type = "list", element = "int32" },
  { name = "far", pointer = "/far", type = "list", element = "int64" },
  { name = "edge", pointer = "/edge", type = "list", element = "int64" },
  { name = "last", pointer = "/last", type = "list", element = "int64" },
]
"#;
    let mut run = Setup::of(&[definition]).without_raw().run();
    let record = |row: i64| {
        let list = |value: &dyn Fn(i64) -> i64| (0..100).map(|n| value(row * 100 + n)).collect::<Vec<i64>>();
        let far = if row < 3_900 { 0 } else { 1 << 30 };
        let extremes = [i64::MIN, -1, 0, 1, i64::MAX];
        json!({
            "t": T,
            "near": list(&|n| n * 7919 % 1_000 - 500),
            "far": list(&|n| n % 50 + far),
            "edge": list(&|n| extremes[usize::try_from(n % 5).unwrap()]),
            "last": list(&|n| i64::MAX - n % 3),
        })
    };
    for begin in (0..4_000).step_by(500) {
        run.lines(ndjson(&(begin..begin + 500).map(|row| record(row).to_string()).collect::<Vec<_>>()));
    }
    let mut outcome = run.take();
    let file = outcome.files.remove(0);
    assert_eq!(file.rows.len(), 4_000);
    for (row, n) in file.rows.iter().zip(0..) {
        let expected = record(n);
        for name in ["near", "far", "edge", "last"] {
            assert_eq!(row[name], expected[name], "{name} of row {n}");
        }
    }
    let encoding = |name: &str| encoding_of(&open(&file.bytes), &format!("{name}.list.element")).1;
    assert_eq!(encoding("near"), [Encoding::RLE_DICTIONARY]);
    assert_eq!(encoding("far"), [Encoding::PLAIN]);
    assert_eq!(encoding("edge"), [Encoding::RLE_DICTIONARY]);
    assert_eq!(encoding("last"), [Encoding::RLE_DICTIONARY]);
}

#[test]
fn a_pseudonym_has_a_bloom_filter_with_and_without_a_dictionary() {
    let mut run = Setup::of(&[WIDE]).without_raw().run();
    for cycle in 0..2 {
        let file = wide_file(&mut run, 0, 10_500);
        let reader = open(&file.bytes);
        let (place, _) = encoding_of(&reader, "person");
        let group = reader.get_row_group(0).unwrap();
        let filter = group.get_column_bloom_filter(place);
        let filter = filter.unwrap_or_else(|| panic!("there is a bloom filter in cycle {cycle}"));
        let person = |row: &serde_json::Map<String, Value>| row["person"].as_str().unwrap().to_owned();
        assert!(file.rows.iter().all(|row| filter.check(&person(row).as_str())));
        let others = (0..1_000).filter(|n| filter.check(&format!("{n:032x}").as_str())).count();
        assert!(others < 90, "{others} of 1000 values that are not there are found");
        let (few, _) = encoding_of(&reader, "few");
        assert!(group.get_column_bloom_filter(few).is_none());
    }
}

#[test]
fn each_record_may_have_its_own_shard() {
    // As with a folder of files with one JSON object each: every record is in another shard, cycle after cycle.
    let mut run = Setup::of(&[SMALL]).without_raw().run();
    for cycle in 0..3 {
        for n in 0..10_400 {
            let chunk = |shard: String, n: usize| {
                let bytes = small(n, 2).into_bytes();
                Chunk::new(STREAM.into(), shard.into(), ARRIVAL_MS, bytes, Framing::Lines { base: 0 })
            };
            run.push(chunk(format!("assessment_{cycle}_{n}.json"), n));
        }
        let rows = run.take().rows("small");
        assert_eq!(rows.len(), 10_400);
        for row in rows {
            assert_eq!(row["ingest_shard"], format!("assessment_{cycle}_{}.json", row["n"]));
        }
    }
}

#[test]
fn a_joined_column_that_hardly_repeats_is_still_joined() {
    let definition = r#"
name = "joined"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["year"]
column = [
  { name = "code", pointer = "/code", type = "string" },
  { name = "label", from = "lookup.codes.label", type = "string" },
]
lookup = { name = "codes", file = "codes.csv", key = "code", on = "code" }
"#;
    let table: String = (0..11_000).map(|n| format!("c{n},label {n}\n")).collect();
    let mut run = Setup::of(&[definition]).table("codes.csv", format!("code,label\n{table}")).without_raw().run();
    for _ in 0..2 {
        let records: Vec<String> = (0..11_000).map(|n| format!(r#"{{"t":{T},"code":"c{n}"}}"#)).collect();
        let rows = run.lines(ndjson(&records)).take().rows("joined");
        assert_eq!(rows.len(), 11_000);
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(row["label"], format!("label {n}"));
        }
    }
}

/// Whether the bounds of a page in a column index hold for these values.
fn page_holds(index: &ColumnIndexMetaData, page: usize, values: &[&Value]) -> bool {
    let numbers = || values.iter().filter_map(|value| value.as_i64());
    let texts = || values.iter().filter_map(|value| value.as_str()).map(str::as_bytes);
    match index {
        ColumnIndexMetaData::INT64(index) => {
            (index.min_value(page), index.max_value(page)) == (numbers().min().as_ref(), numbers().max().as_ref())
        }
        ColumnIndexMetaData::INT32(index) => {
            let found =
                (index.min_value(page).map(|min| i64::from(*min)), index.max_value(page).map(|max| i64::from(*max)));
            found == (numbers().min(), numbers().max())
        }
        ColumnIndexMetaData::DOUBLE(index) => {
            let doubles = || values.iter().filter_map(|value| value.as_f64());
            let least = doubles().fold(f64::INFINITY, f64::min);
            let most = doubles().fold(f64::NEG_INFINITY, f64::max);
            (index.min_value(page), index.max_value(page)) == (Some(&least), Some(&most))
        }
        ColumnIndexMetaData::BYTE_ARRAY(index) => {
            (index.min_value(page), index.max_value(page)) == (texts().min(), texts().max())
        }
        other => panic!("no column of the test has {other:?}"),
    }
}

#[test]
fn a_partition_of_many_pages_round_trips_and_its_index_is_correct() {
    const ROWS: usize = 45_000;
    let file = wide_file(&mut Setup::of(&[WIDE]).without_raw().run(), 0, ROWS);
    let reader = open(&file.bytes);
    let index = reader.metadata().page_index_for_row_group(0);
    // `many` and `person` have a dictionary that is too large to be sorted, so their pages have no bounds.
    for name in ["n", "few", "token", "double", "step", "small", "network"] {
        let (place, _) = encoding_of(&reader, name);
        let pages = index.page_locations(place).expect("there is an offset index");
        let mut begins: Vec<usize> =
            pages.iter().map(|page| usize::try_from(page.first_row_index).expect("a row")).collect();
        assert!(begins.len() >= 3, "{name}: {begins:?}");
        begins.push(ROWS);
        let bounds = index.column_index(place).expect("there is a column index");
        for (page, rows) in begins.windows(2).enumerate() {
            let values: Vec<&Value> = file.rows[rows[0]..rows[1]].iter().map(|row| &row[name]).collect();
            let values: Vec<&Value> = values.into_iter().filter(|value| !value.is_null()).collect();
            assert!(page_holds(bounds, page, &values), "page {page} of {name}");
            let nulls = i64::try_from(rows[1] - rows[0] - values.len()).ok();
            assert_eq!(bounds.null_count(page), nulls, "nulls of page {page} of {name}");
        }
    }
}
