//! A mark in every field of every kind of record, and a search of all that the product writes or says.
//!
//! The binary runs at the most talkative level of its logs and of those of all libraries, in both formats.

use std::io::Write;

use serde_json::json;

use crate::lake::{Objects, Search, files_below};
use crate::place::Place;
use crate::records::{RECORD_BYTES_MAX, Record, records};
use crate::rules::{Dataset, shipped};
use crate::search::Marks;
use crate::services::{Cloud, LAKE, STREAM, TABLE};

/// Commands that print what they find; `{at}` stands for the flags that say where.
const LOOKS: [&str; 18] = [
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

fn look_at_everything(place: &mut Place, at: &str) {
    for (look, format) in LOOKS.iter().zip(["text", "json"].iter().cycle()) {
        let line = format!("{} --log-format {format}", look.replace("{at}", at));
        let args: Vec<&str> = line.split(' ').collect();
        place.ok(&args);
    }
}

fn talkative(place: &mut Place) {
    place.environment.0.push(("RUST_LOG".to_owned(), "trace".to_owned()));
    place.environment.0.push(("RUST_BACKTRACE".to_owned(), "full".to_owned()));
}

/// Reads records in a folder of files of every kind.
fn read_folder(place: &mut Place, records: &[Record], raw: &str) {
    let pieces: Vec<&[Record]> = records.chunks(records.len().div_ceil(4)).collect();
    let text =
        |records: &[Record]| records.iter().flat_map(|record| [&record.0[..], b"\n"].concat()).collect::<Vec<u8>>();
    place.write("in/a.ndjson", text(pieces[0]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text(pieces[1])).unwrap();
    place.write("in/b.ndjson.gz", gzip.finish().unwrap());
    place.write("in/c.json", text(pieces[2]));
    let mut zstd = zstd::bulk::compress(&text(pieces[3]), 1).unwrap();
    // The last records are cut off.
    zstd.truncate(zstd.len() - 100);
    place.write("in/d.ndjson.zst", zstd);
    place.write(
        "shardlake.toml",
        format!("[limits]\nrecord_bytes = {RECORD_BYTES_MAX}\nmemory = \"64 MiB\"\nthreads = 1\n"),
    );
    for format in ["text", "json"] {
        place.ok(&[
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

fn search_all<'a>(marks: &'a Marks, datasets: &'a [Dataset], place: &Place, lake: &Objects) -> Search<'a> {
    let mut search = Search::new(marks, datasets);
    search.lake(lake);
    for (command, said) in &place.said {
        search.said(command, said);
    }
    search
}

#[test]
fn no_mark_of_a_file_is_where_it_must_not_be() {
    let datasets = shipped();
    let mut marks = Marks::default();
    let records = records(&mut marks);
    let half = records.len() / 2;
    for (raw, records) in [("gzip", &records[..]), ("zstd", &records[..half]), ("off", &records[half..])] {
        let mut place = Place::new();
        talkative(&mut place);
        read_folder(&mut place, records, raw);
        if raw == "gzip" {
            look_at_everything(&mut place, "--lake lake");
        }
        let lake = files_below(&place.path("lake"));
        let search = search_all(&marks, &datasets, &place, &lake);
        search.finds_no_leak();
        let landed = |place: &str| search.landed.get(place).map_or(0, std::collections::BTreeSet::len);
        let seen = (landed("raw/"), landed("rawData"), landed("processed/"));
        if raw == "gzip" {
            let codes = lake.keys().filter_map(|name| name.strip_prefix("error/reason=")?.split('/').next());
            let codes: std::collections::BTreeSet<&str> = codes.collect();
            assert!(codes.len() >= 17, "the records fail in many ways: {codes:?}");
            assert!(
                seen.0 * 10 > marks.len() * 8 && seen.1 > 2_000 && seen.2 > 500,
                "{seen:?} of {} marks",
                marks.len()
            );
        }
        assert_eq!(seen.0 > 0, raw != "off");
        assert!(seen.1 > 500 && seen.2 > 100, "{seen:?}");
    }
}

#[test]
fn no_mark_of_a_stream_is_where_it_must_not_be() {
    let datasets = shipped();
    let mut marks = Marks::default();
    let records: Vec<Record> = records(&mut marks).into_iter().step_by(3).collect();
    let cloud = Cloud::new();
    let keys = cloud.put(&records, &mut marks);
    assert!(keys > 500);
    for (format, raw) in [("text", "to = \"lake\""), ("json", "to = \"firehose:raw\"")] {
        let mut place = Place::new();
        talkative(&mut place);
        cloud.configure(&mut place, raw);
        cloud.fail_sometimes();
        place.ok(&["run", "--until-caught-up", "--log-format", format]);
        cloud.fail_no_more();
        if format == "text" {
            look_at_everything(&mut place, "--config shardlake.toml");
            place.ok(&["config", "check"]);
            place.ok(&["init", "--json"]);
        }
        let lake = cloud.lake();
        let mut search = search_all(&marks, &datasets, &place, &lake);
        for item in cloud.items() {
            search.nothing_in("the lease table", item.to_string().as_bytes());
        }
        search.finds_no_leak();
        let landed = |place: &str| search.landed.get(place).map_or(0, std::collections::BTreeSet::len);
        assert!(
            landed("rawData") > 500 && landed("processed/") > 150,
            "{:?}",
            (landed("rawData"), landed("processed/"))
        );
        // The next worker reads all of it again.
        cloud.begin_again();
    }
    assert_eq!((STREAM, TABLE, LAKE), ("people", "leases", "s3://lake-of-people/main/"));
}

/// The search of a lake is proven by a lake that leaks in one place at a time.
#[test]
fn a_leak_in_any_place_is_found() {
    let datasets = shipped();
    let mut marks = Marks::default();
    let user = marks.code("assessments", "/user_id");
    let kind = marks.code("assessments", "/type");
    let line = json!({ "id": "a", "user_id": user, "type": kind, "score": 3, "timestamp": "2025-01-13T10:00:00Z" });
    let mut place = Place::new();
    place.write("in/a.ndjson", format!("{line}\n{}\n", line.to_string().replace('3', "300")));
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let lake = files_below(&place.path("lake"));
    let clean = search_all(&marks, &datasets, &place, &lake);
    clean.finds_no_leak();
    assert_eq!(clean.landed["raw/"].len() + clean.landed["rawData"].len(), 2 + 2, "{:?}", clean.landed);

    let hashed: String =
        <sha2::Sha256 as sha2::Digest>::digest(&user).iter().map(|byte| format!("{byte:02x}")).collect();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let name_of = |begin: &str| lake.keys().find(|name| name.starts_with(begin)).unwrap().clone();
    let (file, letters, record) = (name_of("processed/"), name_of("error/"), name_of("_commits/"));
    let mut doctored: Vec<(&str, Objects)> = Vec::new();
    for leak in [user.clone(), hashed, user.to_lowercase(), base64_simd::URL_SAFE_NO_PAD.encode_to_string(&user)] {
        let mut with = |what: &'static str, name: String, bytes: Vec<u8>| {
            let mut lake = lake.clone();
            lake.insert(name, bytes);
            doctored.push((what, lake));
        };
        let letter = json!({ "errorMessage": format!("bad value {leak}"), "rawData": "", "arrivalTimestamp": 1 });
        with("a dead letter's message", letters.clone(), gzip(&format!("{letter}\n")));
        with("a commit record", record.clone(), [&lake[&record][..], leak.as_bytes()].concat());
        with("the lease table", "_checkpoints.db".to_owned(), [&lake["_checkpoints.db"][..], leak.as_bytes()].concat());
        with("an object's name", format!("processed/assessments/type={leak}/x.parquet"), lake[&file].clone());
        with("a folder of raw objects", format!("raw/{leak}/x.json.gz"), gzip("{}\n"));
        with("a column", file.clone(), parquet_with("user_id", &leak, ""));
        with("another column", file.clone(), parquet_with("region", &leak, ""));
        with("a file's footer", file.clone(), parquet_with("region", "CH", &leak));
    }
    for (what, lake) in &doctored {
        let search = search_all(&marks, &datasets, &place, lake);
        assert!(!search.leaks.is_empty(), "a leak in {what} is not found");
    }
    // What may land as it is may not land as a digest, nor in another column, nor in a message.
    for (column, value, leaks) in [("type", kind.clone(), false), ("region", kind.clone(), true)] {
        let mut lake = lake.clone();
        lake.insert(file.clone(), parquet_with(column, &value, ""));
        assert_eq!(!search_all(&marks, &datasets, &place, &lake).leaks.is_empty(), leaks, "{column}");
    }
    place.said.push(("run".to_owned(), format!("WARN bad type {kind}").into_bytes()));
    assert_eq!(search_all(&marks, &datasets, &place, &lake).leaks.len(), 1);
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
