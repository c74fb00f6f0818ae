//! `raw/` of a lake as the source of another one: every row, dead letter and raw line is the same again, from whatever source it came first.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

use aws_model::clock::ModelClock;
use aws_model::kinesis::{Put, Settings};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::aws::records::Draft;
use crate::common::folder::Folder;
use crate::common::services::{KEY, Services};
use crate::common::{gzip, now_ms};

const BUCKET: &str = "old-events";
const STREAM: &str = "orders";

/// A document over several lines, with a number.
fn pretty(number: usize) -> String {
    format!(
        "{{\n  \"id\": \"p{number}\",\n  \"user_id\": \"u{}\",\n  \"type\": \"skills\",\n  \"score\": 3,\n  \"duration\": 5,\n  \
         \"timestamp\": \"2025-01-{:02}T10:00:00Z\"\n}}\n",
        number % 7,
        number % 28 + 1
    )
}

fn line(number: usize) -> String {
    pretty(number).replace(['\n', ' '], "") + "\n"
}

/// Rows as text, each with its folder; and dead letters, of which partition keys and line ends are not in raw lines.
fn outcome(folder: &Folder, lake: &str) -> (Vec<String>, Vec<String>) {
    let root = folder.path(lake);
    let place = |path: &std::path::Path| path.parent().unwrap().strip_prefix(&root).unwrap().display().to_string();
    let (mut rows, mut dead) = (Vec::new(), Vec::new());
    for path in folder.files(&format!("{lake}/processed")) {
        let file = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
        for row in file.get_row_iter(None).unwrap() {
            rows.push(format!("{} {}", place(&path), row.unwrap()));
        }
    }
    for path in folder.files(&format!("{lake}/error")) {
        for line in unzipped(&path).lines() {
            let mut letter: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
            letter.remove("partitionKey");
            let raw = letter.remove("rawData").unwrap();
            let raw = base64_simd::STANDARD.decode_to_vec(raw.as_str().unwrap()).unwrap();
            let raw = String::from_utf8_lossy(&raw).replace('\n', " ");
            dead.push(format!("{} {letter:?} {raw}", place(&path)));
        }
    }
    rows.sort();
    dead.sort();
    (rows, dead)
}

fn unzipped(path: &std::path::Path) -> String {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn raw_lines(folder: &Folder, lake: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for path in folder.files(&format!("{lake}/raw")) {
        lines.extend(unzipped(&path).split('\n').map(str::to_owned).filter(|line| !line.is_empty()));
    }
    lines.sort();
    lines
}

fn catch_up(folder: &Folder, config: &str) -> Value {
    folder.json(&["run", "--config", config, "--until-caught-up", "--commit-interval", "400ms", "--threads", "2"])
}

fn config_of(lake: &str, sources: &str, more: &str) -> String {
    format!("{sources}\n[lake]\nurl = \"{lake}\"\n[anonymize]\nkey = \"env:{KEY}\"\n{more}")
}

/// A stream with aggregates and packed records, files, and objects; and a lake that has read them.
fn first_lake(raw: &str) -> (Services, Folder, u64) {
    let services = Services::start(STREAM, 3, BUCKET, Settings::default(), || ModelClock::tokio(now_ms()));
    let mut folder = Folder::new();
    services.set_environment(&mut folder);
    let mut records = 0;
    for number in 0..200_u64 {
        for draft in [Draft::new(number), Draft::several(number)] {
            services.kinesis.put_record(STREAM, Put::new(draft.partition_key.clone(), draft.data.clone())).unwrap();
            records += draft.holds.len() as u64;
        }
    }
    // Lines, documents over several lines, Windows line ends, a blank line, several on one line, a broken one, one that is too large.
    let mut text: String = (0..300).map(line).collect();
    text += &(300..320).map(pretty).collect::<String>();
    text += &(320..340).map(|number| line(number).replace('\n', "\r\n")).collect::<String>();
    text += &format!("\n\n{}{}\n{{\"id\":\n", line(340).trim_end(), line(341).trim_end());
    text += &format!("{{\"id\":\"{}\"}}\n{}", "x".repeat(200_000), line(342));
    folder.write("in/a.ndjson", &text);
    folder.write("in/b.ndjson.gz", gzip(text.replace("\"p", "\"q").as_bytes()));
    for number in 400..420 {
        folder.write(&format!("in/small/{number}.json"), pretty(number));
    }
    let mut cut = gzip(text.replace("\"p", "\"c").as_bytes());
    cut.truncate(cut.len() - 40);
    folder.write("in/small/cut.json.gz", cut);
    for number in 0..40 {
        services.s3.put_object(BUCKET, &format!("in/{number:03}.json"), line(500 + number) + &line(600 + number));
    }
    let sources = format!(
        "[[source]]\nurl = \"kinesis://{STREAM}\"\nregion = \"us-east-1\"\n[[source]]\nurl = \"in\"\n[[source]]\nurl = \
         \"s3://{BUCKET}/in\"\nregion = \"us-east-1\"\n"
    );
    let limits = "[limits]\nrecord_bytes = \"100 KB\"\n";
    folder.write("first.toml", config_of("first", &sources, &(raw.to_owned() + limits)));
    let summary = catch_up(&folder, "first.toml");
    assert!(summary["records"].as_u64().unwrap() > records + 700, "{summary}");
    let all = summary["records"].as_u64().unwrap();
    (services, folder, all)
}

#[test]
fn rows_dead_letters_and_raw_lines_are_the_same_when_raw_is_read_again() {
    for codec in ["gzip", "zstd"] {
        let raw = format!("[raw]\ncodec = \"{codec}\"\n");
        let (_services, folder, records) = first_lake(&raw);
        let limits = "[limits]\nrecord_bytes = \"100 KB\"\n";
        folder.write("second.toml", config_of("second", "[[source]]\nurl = \"objects://first/raw\"\n", limits));
        let again = catch_up(&folder, "second.toml");
        assert_eq!(again["records"], records, "{codec}: {again}");
        let ((rows, dead), (rows_again, dead_again)) = (outcome(&folder, "first"), outcome(&folder, "second"));
        assert_eq!((rows.len() + dead.len()) as u64, records);
        assert!(rows.len() > 1_000 && dead.len() > 80, "{} rows, {} dead letters", rows.len(), dead.len());
        for (number, (before, after)) in dead.iter().zip(&dead_again).enumerate() {
            assert_eq!(after, before, "{codec}: dead letter {number}");
        }
        assert!(rows == rows_again && dead.len() == dead_again.len(), "{codec}: rows differ");
        for lake in ["first", "second"] {
            let report = folder.json(&["verify", "--lake", lake]);
            assert_eq!((&report["clean"], &report["records"]), (&true.into(), &records.into()), "{report}");
        }
        // Identities survive any number of lakes.
        folder.write("third.toml", config_of("third", "[[source]]\nurl = \"objects://second/raw\"\n", limits));
        catch_up(&folder, "third.toml");
        assert!(outcome(&folder, "third") == (rows, dead), "{codec}: the third lake differs");
        assert_eq!(raw_lines(&folder, "third"), raw_lines(&folder, "second"), "{codec}");
        let twice = catch_up(&folder, "third.toml");
        assert_eq!(twice["records"], 0, "{twice}");
    }
}

#[test]
fn without_identities_the_records_of_raw_objects_are_new_ones() {
    let (_services, folder, records) = first_lake("[raw]\nidentities = false\n");
    let limits = "[limits]\nrecord_bytes = \"100 KB\"\n";
    folder.write("second.toml", config_of("second", "[[source]]\nurl = \"objects://first/raw\"\n", limits));
    let again = catch_up(&folder, "second.toml");
    assert!(again["records"].as_u64().unwrap() > records / 2, "{again}");
    let (rows, _) = outcome(&folder, "second");
    assert!(rows.iter().all(|row| row.contains("objects://")), "the identity is that of the object");
    assert_eq!(rows.len(), outcome(&folder, "first").0.len());
}
