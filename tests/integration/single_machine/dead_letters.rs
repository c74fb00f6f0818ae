//! Dead letters that are processed again after a definition was fixed, also by processes that are killed or run at once; and dead letters
//! that are discarded.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::{gzip, pause};
use crate::single_machine::CATCH_UP;

/// The definition of `flows`, with more about its column `protocol`.
fn flows(protocol: &str) -> String {
    format!(
        "name = \"flows\"\npartition_by = [\"kind\", \"year\"]\nrecognize = {{ present = [\"/n\"] }}\n\
         event_time = {{ pointer = \"/t\", format = \"epoch_ms\" }}\n\
         [[column]]\nname = \"n\"\npointer = \"/n\"\ntype = \"string\"\nrequired = true\n\
         [[column]]\nname = \"kind\"\npointer = \"/kind\"\ntype = \"string\"\n\
         [[column]]\nname = \"who\"\npointer = \"/who\"\ntype = \"string\"\nanonymize = {{ rule = \"pseudonym\" }}\n\
         [[column]]\nname = \"protocol\"\npointer = \"/protocol\"\ntype = \"int32\"\n{protocol}\n"
    )
}

const FIXED: &str = "accept_text = true";
const WRONG_TYPE: &str = "DataFormatConversion.MalformedData";
/// Records in all.
const RECORDS: usize = 6_000;
/// Of these, the ones with a number that is written as a text, and the ones that no definition can read.
const TEXTS: u64 = 1_980;
const BROKEN: u64 = 60;

fn record(number: usize) -> String {
    let protocol = if number.is_multiple_of(3) { format!("\"{number}\"") } else { number.to_string() };
    let kind = ["x", "y"][number % 2];
    let end = if number.is_multiple_of(100) { ",}" } else { "}" };
    format!(
        "{{\"n\":\"r{number}\",\"kind\":\"{kind}\",\"who\":\"w{}\",\"t\":1736942400000,\"protocol\":{protocol}{end}\n",
        number % 9
    )
}

/// A folder whose lake has many dead letters, in several objects, and whose definition was fixed since.
fn with_dead_letters() -> Folder {
    let folder = Folder::new();
    folder.write("shardlake.toml", "[[dataset]]\nfile = \"flows.toml\"\n");
    folder.write("flows.toml", flows(""));
    for part in 0..3 {
        let records: String = (part * RECORDS / 3..(part + 1) * RECORDS / 3).map(record).collect();
        folder.write(&format!("in/{part}.ndjson"), records);
        folder.ok(&CATCH_UP);
    }
    folder.write("flows.toml", flows(FIXED));
    assert_eq!(
        folder.dead_letters_by_code(),
        BTreeMap::from([(WRONG_TYPE.to_owned(), TEXTS), (SYNTAX.to_owned(), BROKEN)])
    );
    folder
}

const SYNTAX: &str = "DataFormatConversion.ParseError";

impl Folder {
    /// How many dead letters the lake has, by code.
    fn dead_letters_by_code(&self) -> BTreeMap<String, u64> {
        let list = self.json(&["deadletters", "list", "--lake", "lake"]);
        let mut dead_letters = BTreeMap::new();
        for group in list["deadLetters"].as_array().unwrap() {
            *dead_letters.entry(group["code"].as_str().unwrap().to_owned()).or_default() +=
                group["records"].as_u64().unwrap();
        }
        dead_letters
    }

    /// Every row below a folder, with its partition, and how often it is there.
    fn all_rows(&self, lake: &str) -> BTreeMap<String, u64> {
        let mut rows = BTreeMap::new();
        for path in self.files(&format!("{lake}/processed")) {
            let partition = path.parent().unwrap().strip_prefix(self.path(lake)).unwrap().display().to_string();
            for row in rows_of(&path) {
                *rows.entry(format!("{partition} {row}")).or_default() += 1;
            }
        }
        rows
    }

    /// The lake has the rows that a lake has which was read with the fixed definition at once, and the dead letters.
    fn assert_like_a_clean_run(&self) {
        self.ok(&["run", "--source", "in", "--lake", "clean", "--until-caught-up"]);
        // Pseudonyms are of the same key.
        let (found, expected) = (self.all_rows("lake"), self.all_rows("clean"));
        assert_eq!(expected.len() as u64, RECORDS as u64 - BROKEN);
        let differ: Vec<_> = expected.iter().filter(|(row, count)| found.get(*row) != Some(count)).take(3).collect();
        assert!(differ.is_empty() && found.len() == expected.len(), "{} {differ:?}", found.len());
        assert_eq!(self.dead_letters_by_code(), BTreeMap::from([(SYNTAX.to_owned(), BROKEN)]));
        self.assert_verified(RECORDS as u64);
        let aside = self.files("lake/_replays");
        assert!(aside.is_empty(), "{aside:?}");
    }

    fn redrive(&self, flags: &[&str]) -> Value {
        self.json(&[&["deadletters", "redrive", "--lake", "lake"], flags].concat())
    }
}

fn rows_of(path: &Path) -> Vec<String> {
    let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = file.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().to_string()).collect()
}

/// One pseudonym key for all lakes of a folder.
fn with_a_key(folder: &Folder) {
    folder.write("shardlake.toml", "[[dataset]]\nfile = \"flows.toml\"\n[anonymize]\nkey = \"file:the.key\"\n");
}

#[test]
fn dead_letters_become_the_rows_that_a_clean_run_makes_once_the_definition_is_fixed() {
    let folder = with_dead_letters();
    std::fs::copy(key_of(&folder), folder.path("the.key")).unwrap();
    with_a_key(&folder);
    let planned = folder.redrive(&["--code", WRONG_TYPE, "--dry-run"]);
    let selected = &planned["selected"];
    assert_eq!((&selected["dead_letters"], &selected["left_alone"]), (&TEXTS.into(), &BROKEN.into()), "{planned}");
    assert_eq!(selected["by_dataset"]["flows"], TEXTS, "{planned}");
    let none = folder.redrive(&["--dataset", "orders"]);
    assert_eq!((&none["taken"], &none["operations"]), (&0.into(), &0.into()), "{none}");
    let done = folder.redrive(&["--code", WRONG_TYPE]);
    let found = (&done["taken"], &done["rows"]["flows"], &done["failed_again"], &done["left_alone"]);
    assert_eq!(found, (&TEXTS.into(), &TEXTS.into(), &serde_json::json!({}), &BROKEN.into()), "{done}");
    folder.assert_like_a_clean_run();
    // Twice is once.
    let again = folder.ok(&["deadletters", "redrive", "--lake", "lake", "--code", WRONG_TYPE]);
    assert_eq!(again, "nothing to redrive; the lake has 60 other dead letters\n");
    // What fails again has one more attempt, and today's reason.
    let failed = ["deadletters", "redrive", "--lake", "lake", "--fail-on", "dead-letters"];
    let message = folder.exits(1, &failed);
    assert!(message.contains("60 dead letters again (--fail-on dead-letters)"), "{message}");
    let shown = folder.ok(&["deadletters", "show", "--lake", "lake", "--limit", "100"]);
    assert_eq!(shown.lines().filter(|line| line.contains("\"attemptsMade\":2")).count() as u64, BROKEN, "{shown}");
    folder.assert_like_a_clean_run();
    let log = folder.ok(&["log", "--lake", "lake"]);
    assert!(log.contains(&format!("redrive:{}", done["id"].as_str().unwrap())), "{log}");
}

/// The file of the pseudonym key that the first worker has made.
fn key_of(folder: &Folder) -> std::path::PathBuf {
    let files = folder.files("");
    files.into_iter().find(|path| path.extension().is_some_and(|end| end == "key")).expect("there is a key file")
}

#[test]
fn a_redrive_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let folder = with_dead_letters();
    std::fs::copy(key_of(&folder), folder.path("the.key")).unwrap();
    with_a_key(&folder);
    let args = ["deadletters", "redrive", "--lake", "lake", "--code", WRONG_TYPE];
    let mut killed = 0;
    for wait in [5, 30, 60, 90, 130, 170, 220, 280, 350, 450, 600, 800, 1_100, 1_500] {
        let mut process = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause(wait);
        killed += u64::from(process.try_wait().unwrap().is_none());
        let _ = process.kill();
        process.wait().unwrap();
    }
    assert!(killed > 3, "{killed}");
    // Whatever the last one has left is finished by the next one.
    folder.ok(&args);
    folder.assert_like_a_clean_run();
}

#[test]
fn of_redrives_at_the_same_time_one_does_the_work() {
    let folder = with_dead_letters();
    std::fs::copy(key_of(&folder), folder.path("the.key")).unwrap();
    with_a_key(&folder);
    let args = ["deadletters", "redrive", "--lake", "lake", "--code", WRONG_TYPE, "--json"];
    let processes: Vec<_> =
        (0..3).map(|_| folder.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    let (mut taken, mut refused) = (0, 0);
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => {
                let done: Value = serde_json::from_slice(&output.stdout).unwrap();
                taken += done["taken"].as_u64().unwrap();
            }
            Some(1) if said.contains("another redrive or discard works on the dead letters") => refused += 1,
            other => panic!("{other:?}: {said}"),
        }
    }
    assert_eq!(taken, TEXTS, "{refused} were refused");
    folder.assert_like_a_clean_run();
}

#[test]
fn dead_letters_are_discarded_by_what_they_are_and_shown_by_it() {
    let folder = with_dead_letters();
    let lake = ["--lake", "lake"];
    let message = folder.exits(2, &[&["deadletters", "discard"][..], &lake].concat());
    assert!(message.contains("name what to discard"), "{message}");
    let message = folder.exits(2, &[&["deadletters", "discard", "--since", "Tuesday"][..], &lake].concat());
    assert!(message.contains("'Tuesday' is not a valid time"), "{message}");
    let count = |flags: &[&str]| {
        let all = [&["deadletters", "show", "--limit", "9999"][..], &lake, flags].concat();
        folder.ok(&all).lines().count() as u64
    };
    assert_eq!((count(&["--dataset", "flows"]), count(&["--dataset", "orders"])), (TEXTS + BROKEN, 0));
    assert_eq!(count(&["--code", SYNTAX]), BROKEN);
    assert_eq!((count(&["--stream", "other"]), count(&["--until", "2020-01-01"])), (0, 0));
    assert_eq!(count(&["--since", "2020-01-01"]), TEXTS + BROKEN);
    let dry = [&["deadletters", "discard", "--dry-run", "--code", SYNTAX][..], &lake].concat();
    let planned = folder.json(&dry);
    assert_eq!(planned["selected"]["dead_letters"], BROKEN, "{planned}");
    let done = folder.json(&[&["deadletters", "discard", "--code", SYNTAX][..], &lake].concat());
    assert_eq!((&done["discarded"], &done["left_alone"]), (&BROKEN.into(), &TEXTS.into()), "{done}");
    assert_eq!(folder.dead_letters_by_code(), BTreeMap::from([(WRONG_TYPE.to_owned(), TEXTS)]));
    assert_eq!(count(&["--code", SYNTAX]), 0);
    assert!(!folder.files("lake/_trash").is_empty());
    let report = folder.json(&["verify", "--lake", "lake"]);
    assert_eq!(report["clean"], true, "{report}");
    let log = folder.ok(&["log", "--lake", "lake"]);
    assert!(log.contains(&format!("discard:{}", done["id"].as_str().unwrap())), "{log}");
}

#[test]
fn what_is_not_a_record_is_not_redriven() {
    let folder = with_dead_letters();
    let message = folder.exits(2, &["deadletters", "redrive", "--lake", "lake", "--code", "Decode.DamagedFile"]);
    assert!(message.contains("is not a record, but the part of a file that cannot be read"), "{message}");
    let message = folder.exits(2, &["deadletters", "redrive", "--lake", "lake", "--code", "Decode.Nothing"]);
    assert!(
        message.contains("there is no code 'Decode.Nothing'; known: DataFormatConversion.ParseError,"),
        "{message}"
    );
    let message = folder.exits(2, &["deadletters", "redrive", "--lake", "none"]);
    assert!(message.contains("there is no lake none"), "{message}");
}

#[test]
fn arrays_that_are_opened_since_become_rows_with_identities_of_their_own() {
    let folder = Folder::new();
    let line = |number: usize| record(number).trim_end().to_owned();
    folder.write("in/a.ndjson", format!("[{},{},{}]\n{}\n", line(1), line(2), line(4), line(5)));
    folder.write("flows.toml", flows(FIXED));
    let config = |arrays: bool| {
        format!(
            "[[source]]\nurl = \"in\"\narrays = {arrays}\n[lake]\nurl = \"lake\"\n[[dataset]]\nfile = \"flows.toml\"\n"
        )
    };
    folder.write("shardlake.toml", config(false));
    folder.ok(&["run", "--until-caught-up"]);
    assert_eq!(folder.dead_letters_by_code(), BTreeMap::from([("Decode.NotAnObject".to_owned(), 1)]));
    folder.write("shardlake.toml", config(true));
    let done = folder.redrive(&["--code", "Decode.NotAnObject"]);
    assert_eq!((&done["taken"], &done["rows"]["flows"]), (&1.into(), &3.into()), "{done}");
    let rows = folder.all_rows("lake");
    assert_eq!((rows.len(), folder.rows()), (4, 4), "{rows:?}");
    let subs = |number: u64| if number == 0 { 0 } else { (1 << 31) + (number << 32) };
    for sub in [subs(0), subs(1), subs(2)] {
        let with = rows.keys().filter(|row| row.contains(&format!("ingest_subsequence: {sub},"))).count();
        assert_eq!(with, if sub == 0 { 2 } else { 1 }, "{sub}: {rows:?}");
    }
    assert_eq!(folder.dead_letters_by_code(), BTreeMap::new());
    let report = folder.json(&["verify", "--lake", "lake"]);
    assert_eq!(report["clean"], true, "{report}");
}

#[test]
fn error_objects_of_firehose_are_redriven_once() {
    let folder = Folder::new();
    folder.write("shardlake.toml", "[[dataset]]\nfile = \"flows.toml\"\n");
    folder.write("flows.toml", flows(FIXED));
    let failure = |number: usize| {
        let raw = base64_simd::STANDARD.encode_to_string(record(number).trim_end().as_bytes());
        let error = "\"errorCode\":\"Lambda.FunctionError\",\"errorMessage\":\"it failed\"";
        format!("{{\"attemptsMade\":4,\"arrivalTimestamp\":1736942400123,{error},\"rawData\":\"{raw}\"}}\n")
    };
    let text: String = (1..100).map(failure).collect();
    let name = "failures/processing-failed/2025/01/15/12/events-1-2025-01-15-12-00-00-0a1b.gz";
    folder.write(name, gzip(text.as_bytes()));
    let args = ["deadletters", "redrive", "--from", "failures", "--lake", "lake"];
    let first = folder.json(&args);
    assert_eq!((&first["records"], &first["rows"]["flows"]), (&99.into(), &99.into()), "{first}");
    let second = folder.json(&args);
    assert_eq!(second["records"], 0, "{second}");
    folder.assert_verified(99);
    let message = folder.exits(2, &["deadletters", "redrive", "--from", "kinesis://orders", "--lake", "lake"]);
    assert!(message.contains("--from: expected s3://BUCKET/PREFIX or a folder"), "{message}");
}
