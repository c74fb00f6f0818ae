//! What a value may do to the path that it stands in: nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use aws_model::kinesis::Put;
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};

use crate::lake::{Objects, files_below, lines};
use crate::place::Place;
use crate::search::percent_decoded;
use crate::services::{Cloud, STREAM};

/// What Hive's readers take for null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Values of a partition column that somebody might send.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "..",
        ".",
        "...",
        "../../../../outside",
        "/etc/passwd",
        "..\\..\\outside",
        "a/b",
        "a//b",
        "/",
        "a/",
        "%2F",
        "%2e%2e%2f",
        "%",
        "%00",
        "%%32%46",
        "\0",
        "a\0b",
        "\n",
        "a\r\nb",
        "\t",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{85}",
        "\u{9b}31m",
        "=",
        "a=b",
        "type=x/year=1999",
        "year=1999",
        NULL,
        "__hive_default_partition__",
        "%5F_HIVE_DEFAULT_PARTITION__",
        "null",
        "NULL",
        "",
        " ",
        "  a  ",
        "a ",
        "a.",
        ".hidden",
        "_hidden",
        "_SUCCESS",
        "_commits",
        ".part",
        "Case",
        "case",
        "CASE",
        "\u{2028}",
        "\u{2029}",
        "\u{202e}gpj.exe",
        "\u{2066}x\u{2069}",
        "\u{feff}x",
        "\u{200b}",
        "a\u{301}",
        "\u{e1}",
        "CON",
        "nul.parquet",
        "~",
        "~root",
        "$HOME",
        "`id`",
        "$(id)",
        ";rm -rf",
        "|",
        "&",
        "a+b",
        "a b",
        "?x=y",
        "#x",
        "*",
        "[a-z]",
        "{a,b}",
        "'",
        "\"",
        "<script>",
        "日本語",
        "🦀",
        "\u{10ffff}",
        "s3://other/x",
        "//host/x",
        "C:\\x",
    ]
    .map(str::to_owned)
    .to_vec();
    values.extend(["x".repeat(64), "/".repeat(64), "é".repeat(64), "x".repeat(10_000), "../".repeat(3_000)]);
    values
}

fn record(number: usize, value: &Value) -> String {
    json!({ "id": format!("r{number}"), "user_id": "u", "type": value, "score": 1, "timestamp": "2025-01-13T10:00:00Z" }).to_string()
}

/// One record for each value, and one whose value is null, so that it is a dead letter.
fn hostile_records() -> Vec<String> {
    let mut all: Vec<String> = values().iter().enumerate().map(|(n, value)| record(n, &json!(value))).collect();
    all.push(record(values().len(), &Value::Null));
    all
}

/// Reads a path as Hive does: what stands behind `=`, decoded; nothing for the default partition.
fn partition_of(segment: &str, column: &str) -> Option<String> {
    let written = segment.strip_prefix(&format!("{column}=")).unwrap_or_else(|| panic!("{segment} is no {column}"));
    let decoded = String::from_utf8(percent_decoded(written.as_bytes())).unwrap();
    (written != NULL).then_some(decoded)
}

/// Every record is in the partition of its value, or a dead letter; no name of an object is one that a reader misreads.
fn partitions_are_right(lake: &Objects) {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (name, bytes) in lake.iter().filter(|(name, _)| name.starts_with("processed/")) {
        let segments: Vec<&str> = name.split('/').collect();
        assert_eq!(segments.len(), 6, "{name} has other folders than its partitions");
        assert_eq!((segments[1], segments[3], segments[4]), ("assessments", "year=2025", "month=01"), "{name}");
        assert!(segments.iter().all(|segment| segment.len() <= 255 && !segment.starts_with(['.', '_'])), "{name}");
        assert!(name.len() <= 1_024 - 256, "no room for a lake's prefix before {name}");
        let odd = |c: char| {
            c.is_control()
                || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\\' | '*' | '?' | '"' | '<')
        };
        assert!(!name.chars().any(odd), "{name:?}");
        let value = partition_of(segments[2], "type");
        for row in SerializedFileReader::new(Bytes::copy_from_slice(bytes)).unwrap().get_row_iter(None).unwrap() {
            let columns: BTreeMap<String, String> =
                row.unwrap().into_columns().into_iter().map(|(column, field)| (column, field.to_string())).collect();
            assert!(!columns.contains_key("type"), "a partition column is not in the file");
            assert_eq!(found.insert(columns["assessment_id"].trim_matches('"').to_owned(), value.clone()), None);
        }
    }
    let mut letters = BTreeSet::new();
    for (name, bytes) in lake.iter().filter(|(name, _)| name.starts_with("error/")) {
        for line in lines(name, bytes) {
            let letter: Value = serde_json::from_slice(&line).unwrap();
            let raw = base64_simd::STANDARD.decode_to_vec(letter["rawData"].as_str().unwrap()).unwrap();
            let record: Value = serde_json::from_slice(&raw).unwrap();
            letters.insert(record["id"].as_str().unwrap().to_owned());
        }
    }
    let mut landed = 0;
    for (number, value) in values().iter().enumerate() {
        let id = format!("r{number}");
        match found.remove(&id) {
            Some(read) => {
                assert_eq!(read.as_ref(), Some(value), "the path tells another value");
                assert!(!letters.contains(&id));
                landed += 1;
            }
            // Empty ones, and those that are too long for the column or for a path.
            None => assert!(letters.contains(&id) && (value.is_empty() || value.len() >= 64), "{value:?} is gone"),
        }
    }
    assert!(found.is_empty() && landed >= values().len() - 5, "{landed} of {}: {found:?}", values().len());
}

#[test]
fn no_value_leads_out_of_a_folder_nor_into_another_partition() {
    let mut place = Place::new();
    place.write("work/in/a.ndjson", hostile_records().join("\n"));
    place.write("work/beside", "as it was");
    let before: BTreeSet<String> = files_below(&place.path("")).into_keys().collect();
    place.ok(&["run", "--source", "work/in", "--lake", "work/lake", "--until-caught-up"]);
    place.ok(&["verify", "--lake", "work/lake"]);
    let outside: BTreeSet<String> = files_below(&place.path(""))
        .into_keys()
        .filter(|name| !name.starts_with("work/lake/") && !before.contains(name))
        .collect();
    assert_eq!(outside, BTreeSet::from(["work/lake.pseudonym.key".to_owned()]));
    partitions_are_right(&files_below(&place.path("work/lake")));
}

#[test]
fn no_value_leads_out_of_a_prefix() {
    let cloud = Cloud::new();
    for record in hostile_records() {
        cloud.kinesis.put_record(STREAM, Put::new("../key", record)).unwrap();
    }
    let mut place = Place::new();
    cloud.configure(&mut place, "");
    place.ok(&["run", "--until-caught-up"]);
    place.ok(&["verify"]);
    // The keys are those of the whole bucket: one outside of the prefix fails the test.
    partitions_are_right(&cloud.lake());
}

#[test]
fn files_outside_of_a_source_are_not_read_and_what_is_left_out_is_told() {
    let mut place = Place::new();
    let record = |id: &str| record(0, &json!("t")).replace("r0", id);
    place.write("other/secret.ndjson", record("secret"));
    place.write("other/secret.json", record("secret"));
    place.write("in/good.ndjson", record("good"));
    place.write("in/folder/good.json", record("also-good"));
    symlink("good.ndjson", place.path("in/again.ndjson")).unwrap();
    symlink(place.path("other/secret.ndjson"), place.path("in/leads-out.ndjson")).unwrap();
    symlink("../../other/secret.json", place.path("in/folder/leads-out.json")).unwrap();
    symlink("../other", place.path("in/folder-out")).unwrap();
    symlink("/dev/urandom", place.path("in/device.ndjson")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.path("in/pipe.ndjson")).status().unwrap();
    assert!(made.success());
    for name in ["new\nline.ndjson", "\u{1b}]0;title\u{7}.ndjson", "folder/new\nline.json"] {
        place.write(&format!("in/{name}"), record("odd-name"));
    }
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let (_, said) = place.said.last().unwrap();
    let said = String::from_utf8_lossy(said).into_owned();
    for name in [
        "leads-out.ndjson",
        "leads-out.json",
        "device.ndjson",
        "pipe.ndjson",
        "new\\nline.ndjson",
        "new\\nline.json",
        "title",
    ] {
        assert!(
            said.lines().any(|line| line.contains(name) && line.contains("file skipped")),
            "{name} is not told: {said}"
        );
    }
    assert!(!said.contains('\u{1b}') && !said.contains('\u{7}'), "a file's name talks to the terminal: {said:?}");
    let mut ids = BTreeMap::new();
    for (name, bytes) in files_below(&place.path("lake")) {
        if name.starts_with("raw/") {
            for line in lines(&name, &bytes) {
                let record: Value = serde_json::from_slice(&line).unwrap();
                *ids.entry(record["id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(ids, BTreeMap::from([("good".to_owned(), 2), ("also-good".to_owned(), 1)]));
}

#[test]
fn a_lease_table_that_names_places_outside_is_not_followed() {
    let mut place = Place::new();
    place.write("in/a.ndjson", record(0, &json!("t")));
    place.write("secret.ndjson", record(1, &json!("t")));
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    // A row of a shard that is no place of the source, put there by somebody who may write the table.
    let table = place.path("lake/_checkpoints.db");
    let mut bytes = Vec::new();
    fs::File::open(&table).unwrap().read_to_end(&mut bytes).unwrap();
    let at: Vec<usize> = memchr::memmem::find_iter(&bytes, "a.ndjson").collect();
    assert!(!at.is_empty());
    // As long as the name that it replaces, so that the page stays whole: '../s.txt'.
    for at in at {
        bytes[at..at + 8].copy_from_slice(b"../s.txt");
    }
    fs::write(&table, bytes).unwrap();
    let stolen: Vec<String> = (0..20).map(|number| record(number, &json!("stolen"))).collect();
    place.write("s.txt", stolen.join("\n"));
    let output = place.run(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let all = files_below(&place.path("lake"));
    assert!(!all.keys().any(|name| name.contains("stolen")), "{:?}", output.status);
}
