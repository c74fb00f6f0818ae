//! No value can change the path that it becomes part of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use aws_model::kinesis::Put;
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};

use crate::common::folder::Folder;
use crate::security::cloud::{Cloud, STREAM};
use crate::security::lake::{Objects, files_below, lines};
use crate::security::search::percent_decoded;

/// The partition value that readers of Hive's layout take for null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Hostile values of a partition column.
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

/// Reads a path as Hive does: the decoded value after `=`; `None` for the default partition.
fn partition_of(segment: &str, column: &str) -> Option<String> {
    let written =
        segment.strip_prefix(&format!("{column}=")).unwrap_or_else(|| panic!("{segment} is not a folder of {column}"));
    let decoded = String::from_utf8(percent_decoded(written.as_bytes())).unwrap();
    (written != NULL).then_some(decoded)
}

/// Every record is in the partition of its value, or a dead letter, and no reader can misread an object's key.
fn check_partitions(lake: &Objects) {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (name, bytes) in lake.iter().filter(|(name, _)| name.starts_with("processed/")) {
        let segments: Vec<&str> = name.split('/').collect();
        assert_eq!(segments.len(), 6, "{name} has folders beside its partitions");
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
    let mut dead_letters = BTreeSet::new();
    for (name, bytes) in lake.iter().filter(|(name, _)| name.starts_with("error/")) {
        for line in lines(name, bytes) {
            let dead: Value = serde_json::from_slice(&line).unwrap();
            let raw = base64_simd::STANDARD.decode_to_vec(dead["rawData"].as_str().unwrap()).unwrap();
            let record: Value = serde_json::from_slice(&raw).unwrap();
            dead_letters.insert(record["id"].as_str().unwrap().to_owned());
        }
    }
    let mut landed = 0;
    for (number, value) in values().iter().enumerate() {
        let id = format!("r{number}");
        match found.remove(&id) {
            Some(read) => {
                assert_eq!(read.as_ref(), Some(value), "the path has another value");
                assert!(!dead_letters.contains(&id));
                landed += 1;
            }
            // Empty values, and those that are too long for the column or for a path.
            None => {
                assert!(dead_letters.contains(&id) && (value.is_empty() || value.len() >= 64), "{value:?} was lost");
            }
        }
    }
    assert!(found.is_empty() && landed >= values().len() - 5, "{landed} of {}: {found:?}", values().len());
}

#[test]
fn no_value_leads_out_of_the_lake_or_into_another_partition() {
    let folder = Folder::new();
    folder.write("work/in/a.ndjson", hostile_records().join("\n"));
    folder.write("work/beside", "as it was");
    let before: BTreeSet<String> = files_below(&folder.path("")).into_keys().collect();
    folder.ok(&["run", "--source", "work/in", "--lake", "work/lake", "--until-caught-up"]);
    folder.ok(&["verify", "--lake", "work/lake"]);
    let outside: BTreeSet<String> = files_below(&folder.path(""))
        .into_keys()
        .filter(|name| !name.starts_with("work/lake/") && !before.contains(name))
        .collect();
    assert_eq!(outside, BTreeSet::from(["work/lake.pseudonym.key".to_owned()]));
    check_partitions(&files_below(&folder.path("work/lake")));
}

#[test]
fn no_value_leads_out_of_the_prefix_of_a_bucket() {
    let cloud = Cloud::new();
    for record in hostile_records() {
        cloud.kinesis.put_record(STREAM, Put::new("../key", record)).unwrap();
    }
    let mut folder = Folder::new();
    cloud.configure(&mut folder, "");
    folder.ok(&["run", "--until-caught-up"]);
    folder.ok(&["verify"]);
    // The lake is read from all keys of the bucket: a key outside the prefix fails the test.
    check_partitions(&cloud.lake());
}

#[test]
fn files_outside_a_source_are_skipped_with_a_warning() {
    let folder = Folder::new();
    let record = |id: &str| record(0, &json!("t")).replace("r0", id);
    folder.write("other/secret.ndjson", record("secret"));
    folder.write("other/secret.json", record("secret"));
    folder.write("in/good.ndjson", record("good"));
    folder.write("in/folder/good.json", record("also-good"));
    symlink("good.ndjson", folder.path("in/again.ndjson")).unwrap();
    symlink(folder.path("other/secret.ndjson"), folder.path("in/leads-out.ndjson")).unwrap();
    symlink("../../other/secret.json", folder.path("in/folder/leads-out.json")).unwrap();
    symlink("../other", folder.path("in/folder-out")).unwrap();
    symlink("/dev/urandom", folder.path("in/device.ndjson")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path("in/pipe.ndjson")).status().unwrap();
    assert!(made.success());
    for name in ["new\nline.ndjson", "\u{1b}]0;title\u{7}.ndjson", "folder/new\nline.json"] {
        folder.write(&format!("in/{name}"), record("odd-name"));
    }
    folder.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let printed = folder.last_printed();
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
            printed.lines().any(|line| line.contains(name) && line.contains("file skipped")),
            "there is no warning about {name}: {printed}"
        );
    }
    assert!(!printed.contains(['\u{1b}', '\u{7}']), "a file's name reaches the terminal unescaped: {printed:?}");
    let mut ids = BTreeMap::new();
    for (name, bytes) in files_below(&folder.path("lake")) {
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
fn a_lease_of_a_path_outside_the_source_is_not_read() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", record(0, &json!("t")));
    folder.write("secret.ndjson", record(1, &json!("t")));
    folder.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    // An attacker who may write the table replaces the shard of a lease by a path outside the source.
    let table = folder.path("lake/_checkpoints.db");
    let mut bytes = Vec::new();
    fs::File::open(&table).unwrap().read_to_end(&mut bytes).unwrap();
    let at: Vec<usize> = memchr::memmem::find_iter(&bytes, "a.ndjson").collect();
    assert!(!at.is_empty());
    // The path is as long as the name that it replaces, so that the page of the database stays valid.
    for at in at {
        bytes[at..at + 8].copy_from_slice(b"../s.txt");
    }
    fs::write(&table, bytes).unwrap();
    let stolen: Vec<String> = (0..20).map(|number| record(number, &json!("stolen"))).collect();
    folder.write("s.txt", stolen.join("\n"));
    let output = folder.run(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let all = files_below(&folder.path("lake"));
    assert!(!all.keys().any(|name| name.contains("stolen")), "{:?}", output.status);
}
