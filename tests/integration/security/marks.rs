//! A mark in every field of every kind of record, and a search of everything that the product writes, prints or logs.
//!
//! The binary and all libraries log at level trace, in both formats.

use std::collections::BTreeSet;

use serde_json::json;

use crate::common::collector::Collector;
use crate::common::folder::Folder;
use crate::common::gzip;
use crate::security::cloud::Cloud;
use crate::security::lake::{Objects, Search, files_below};
use crate::security::records::{RECORD_BYTES_MAX, Record, records};
use crate::security::rules::{Dataset, shipped};
use crate::security::search::Marks;

/// Commands that print what they find; `{at}` is replaced by the flags that name the lake.
const COMMANDS: [&str; 18] = [
    "status {at}",
    "status {at} --json",
    "verify {at}",
    "verify {at} --json",
    "sweep {at} --dry-run",
    "deadletters list {at}",
    "deadletters list {at} --json",
    "deadletters show {at} --limit 1000000",
    "checkpoints save now {at}",
    "checkpoints list {at}",
    "checkpoints list {at} --json",
    "checkpoints show now {at}",
    "checkpoints show now {at} --json",
    "leases list {at} --watch 100ms",
    "leases list {at} --watch 100ms --json",
    "graph",
    "schema events {at}",
    "config check {at} --offline",
];

fn run_every_command(folder: &Folder, at: &str) {
    for (command, format) in COMMANDS.iter().zip(["text", "json"].iter().cycle()) {
        let line = format!("{} --log-format {format}", command.replace("{at}", at));
        let args: Vec<&str> = line.split(' ').collect();
        folder.ok(&args);
    }
}

fn log_everything(folder: &mut Folder) {
    folder.set("RUST_LOG", "trace");
    folder.set("RUST_BACKTRACE", "full");
}

/// Reads records from files of every kind.
fn read_files(folder: &Folder, records: &[Record], raw: &str) {
    let pieces: Vec<&[Record]> = records.chunks(records.len().div_ceil(4)).collect();
    let text =
        |records: &[Record]| records.iter().flat_map(|record| [&record.0[..], b"\n"].concat()).collect::<Vec<u8>>();
    folder.write("in/a.ndjson", text(pieces[0]));
    folder.write("in/b.ndjson.gz", gzip(&text(pieces[1])));
    folder.write("in/c.json", text(pieces[2]));
    let mut zstd = zstd::bulk::compress(&text(pieces[3]), 1).unwrap();
    // The last records are truncated.
    zstd.truncate(zstd.len() - 100);
    folder.write("in/d.ndjson.zst", zstd);
    folder.write(
        "shardlake.toml",
        format!("[limits]\nrecord_bytes = {RECORD_BYTES_MAX}\nmemory = \"64 MiB\"\nthreads = 1\n"),
    );
    for format in ["text", "json"] {
        folder.ok(&[
            "run",
            "--source",
            "in",
            "--lake",
            "lake",
            "--until-caught-up",
            "--raw",
            raw,
            "--commit-interval",
            "1s",
            "--log-format",
            format,
        ]);
    }
}

fn search_all<'a>(marks: &'a Marks, datasets: &'a [Dataset], folder: &Folder, lake: &Objects) -> Search<'a> {
    let mut search = Search::new(marks, datasets);
    search.lake(lake);
    folder.printed().iter().for_each(|printed| search.output(&printed.command, &printed.bytes));
    search
}

#[test]
fn no_value_of_a_file_leaks() {
    let datasets = shipped();
    let mut marks = Marks::default();
    let records = records(&mut marks);
    let half = records.len() / 2;
    for (raw, records) in [("gzip", &records[..]), ("zstd", &records[..half]), ("off", &records[half..])] {
        let mut folder = Folder::new();
        log_everything(&mut folder);
        read_files(&folder, records, raw);
        if raw == "gzip" {
            run_every_command(&folder, "--lake lake");
        }
        let lake = files_below(&folder.path("lake"));
        let search = search_all(&marks, &datasets, &folder, &lake);
        search.finds_no_leak();
        let landed = |area: &str| search.landed.get(area).map_or(0, BTreeSet::len);
        let seen = (landed("raw/"), landed("rawData"), landed("processed/"));
        if raw == "gzip" {
            let codes = lake.keys().filter_map(|name| name.strip_prefix("error/reason=")?.split('/').next());
            let codes: BTreeSet<&str> = codes.collect();
            assert!(codes.len() >= 17, "the records fail in too few ways: {codes:?}");
            assert!(
                seen.0 * 10 > marks.len() * 8 && seen.1 > 1_500 && seen.2 > 500,
                "{seen:?} of {} marks",
                marks.len()
            );
        }
        assert_eq!(seen.0 > 0, raw != "off");
        assert!(seen.1 > 500 && seen.2 > 100, "{seen:?}");
    }
}

#[test]
fn no_value_of_a_stream_leaks() {
    let datasets = shipped();
    let mut marks = Marks::default();
    let records: Vec<Record> = records(&mut marks).into_iter().step_by(3).collect();
    let cloud = Cloud::new();
    let keys = cloud.put(&records, &mut marks);
    assert!(keys > 500);
    for (format, raw) in [("text", "to = \"lake\""), ("json", "to = \"firehose:raw\"")] {
        let mut folder = Folder::new();
        log_everything(&mut folder);
        cloud.configure(&mut folder, raw);
        let collector = Collector::start(200);
        folder.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
        folder.set("OTEL_METRIC_EXPORT_INTERVAL", "200");
        cloud.fail_some_calls();
        folder.ok(&["run", "--until-caught-up", "--log-format", format]);
        cloud.fail_no_more();
        if format == "text" {
            run_every_command(&folder, "--config shardlake.toml");
            folder.ok(&["config", "check"]);
            folder.ok(&["init", "--json"]);
        }
        let lake = cloud.lake();
        let mut search = search_all(&marks, &datasets, &folder, &lake);
        // The same figures are at /metrics.
        let exports = collector.exports();
        assert!(
            ["metrics", "traces"].iter().all(|signal| exports.iter().any(|export| export.target.ends_with(signal)))
        );
        exports.iter().for_each(|export| search.nothing_in("a push of metrics or traces", &export.body));
        for item in cloud.items() {
            search.nothing_in("the lease table", item.to_string().as_bytes());
        }
        search.finds_no_leak();
        let landed = |area: &str| search.landed.get(area).map_or(0, BTreeSet::len);
        assert!(
            landed("rawData") > 500 && landed("processed/") > 150,
            "{:?}",
            (landed("rawData"), landed("processed/"))
        );
        // The next worker reads everything again.
        cloud.use_another_lake();
    }
}

/// Proves the search of a lake: it is shown lakes that leak in one place each.
#[test]
fn the_search_finds_a_leak_in_any_place() {
    let datasets = shipped();
    let mut marks = Marks::default();
    let user = marks.code("assessments", "/user_id");
    let kind = marks.code("assessments", "/type");
    let line = json!({ "id": "a", "user_id": user, "type": kind, "score": 3, "timestamp": "2025-01-13T10:00:00Z" });
    let folder = Folder::new();
    folder.write("in/a.ndjson", format!("{line}\n{}\n", line.to_string().replace('3', "300")));
    folder.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let lake = files_below(&folder.path("lake"));
    let clean = search_all(&marks, &datasets, &folder, &lake);
    clean.finds_no_leak();
    assert_eq!(clean.landed["raw/"].len() + clean.landed["rawData"].len(), 2 + 2, "{:?}", clean.landed);

    let hashed: String =
        <sha2::Sha256 as sha2::Digest>::digest(&user).iter().map(|byte| format!("{byte:02x}")).collect();
    let key_in = |area: &str| lake.keys().find(|key| key.starts_with(area)).unwrap().clone();
    let (file, dead_letters, record) = (key_in("processed/"), key_in("error/"), key_in("_commits/"));
    let mut leaking: Vec<(String, Objects)> = Vec::new();
    for leak in [user.clone(), hashed, user.to_lowercase(), base64_simd::URL_SAFE_NO_PAD.encode_to_string(&user)] {
        let mut with = |what: &str, name: String, bytes: Vec<u8>| {
            let mut lake = lake.clone();
            lake.insert(name, bytes);
            leaking.push((what.to_owned(), lake));
        };
        let dead = json!({ "errorMessage": format!("bad value {leak}"), "rawData": "", "arrivalTimestamp": 1 });
        with("a dead letter's message", dead_letters.clone(), gzip(format!("{dead}\n").as_bytes()));
        with("a commit record", record.clone(), [&lake[&record][..], leak.as_bytes()].concat());
        for (column, id) in [("user_id", 2), ("region", 9), ("extra", 17)] {
            let line = String::from_utf8(lake[&record].clone()).unwrap();
            let entry = format!("\"columns\":[[{id},1,2,0,\"{leak}\",\"{leak}\"],");
            let line = line.replacen("\"columns\":[", &entry, 1);
            assert!(line.contains(&leak));
            with(&format!("the bounds of {column}"), record.clone(), line.into_bytes());
        }
        with("the lease table", "_checkpoints.db".to_owned(), [&lake["_checkpoints.db"][..], leak.as_bytes()].concat());
        with("an object's key", format!("processed/assessments/type={leak}/x.parquet"), lake[&file].clone());
        with("a folder of raw objects", format!("raw/{leak}/x.json.gz"), gzip(b"{}\n"));
        with("a column", file.clone(), parquet_with("user_id", &leak, ""));
        with("another column", file.clone(), parquet_with("region", &leak, ""));
        with("a file's footer", file.clone(), parquet_with("region", "CH", &leak));
    }
    for (what, lake) in &leaking {
        let search = search_all(&marks, &datasets, &folder, lake);
        assert!(!search.leaks.is_empty(), "a leak in {what} is not found");
    }
    // A value that may land unchanged may not land as a digest, in another column, or in a message.
    for (column, value, leaks) in [("type", kind.clone(), false), ("region", kind.clone(), true)] {
        let mut lake = lake.clone();
        lake.insert(file.clone(), parquet_with(column, &value, ""));
        assert_eq!(!search_all(&marks, &datasets, &folder, &lake).leaks.is_empty(), leaks, "{column}");
    }
    let mut search = search_all(&marks, &datasets, &folder, &lake);
    search.output("run", format!("WARN bad type {kind}").as_bytes());
    assert_eq!(search.leaks.len(), 1);
}

/// A Parquet file of one row and one column of text, with a note in its footer.
fn parquet_with(column: &str, value: &str, note: &str) -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    let schema = parse_message_type(&format!("message m {{ required binary {column} (UTF8); }}")).unwrap();
    let notes = vec![KeyValue { key: "note".to_owned(), value: Some(note.to_owned()) }];
    let properties = Arc::new(WriterProperties::builder().set_key_value_metadata(Some(notes)).build());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut values = group.next_column().unwrap().unwrap();
    values.typed::<ByteArrayType>().write_batch(&[ByteArray::from(value)], None, None).unwrap();
    values.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}
