//! `find`: where a record is, and why it is nowhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use flate2::read::MultiGzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::common::folder::Folder;
use crate::single_machine::CATCH_UP;

const DEFINITION: &str = "name = \"flows\"\npartition_by = [\"kind\", \"year\"]\nrecognize = { present = [\"/n\"] }\n\
    event_time = { pointer = \"/t\", format = \"epoch_ms\" }\n\
    [[column]]\nname = \"n\"\npointer = \"/n\"\ntype = \"string\"\nrequired = true\nunique = true\n\
    [[column]]\nname = \"kind\"\npointer = \"/kind\"\ntype = \"string\"\n\
    [[column]]\nname = \"who\"\npointer = \"/who/name\"\ntype = \"string\"\nanonymize = { rule = \"pseudonym\" }\n\
    [[column]]\nname = \"amount\"\npointer = \"/amount\"\ntype = \"decimal(9,2)\"\n\
    [[column]]\nname = \"port\"\npointer = \"/port\"\ntype = \"int32\"\n";
/// Records of a file.
const RECORDS: usize = 2_000;
const FILES: usize = 3;

/// A record; each hundredth has a port that is a text, and becomes a dead letter.
fn record(number: usize) -> String {
    let port = if number % 100 == 7 { format!("\"{number}\"") } else { (number % 50).to_string() };
    format!(
        "{{\"n\":\"r{number}\",\"kind\":\"{}\",\"who\":{{\"name\":\"person-{}\"}},\"t\":1736942400000,\"amount\":{}.5,\"port\":{port}}}\n",
        ["x", "y z"][number % 2],
        number % 9,
        number % 77,
    )
}

struct Searched {
    folder: Folder,
    /// The offset of each record in its file.
    offsets: Vec<usize>,
}

fn shard_of(number: usize) -> String {
    format!("{}.ndjson", number / RECORDS)
}

impl Searched {
    /// A lake of three epochs.
    fn new() -> Self {
        let folder = Folder::new();
        folder.write("shardlake.toml", "[[dataset]]\nfile = \"flows.toml\"\n[lake]\nurl = \"lake\"\n");
        folder.write("flows.toml", DEFINITION);
        let mut offsets = Vec::new();
        for file in 0..FILES {
            let mut text = String::new();
            for number in file * RECORDS..(file + 1) * RECORDS {
                offsets.push(text.len());
                text.push_str(&record(number));
            }
            folder.write(&format!("in/{file}.ndjson"), text);
            folder.ok(&CATCH_UP);
        }
        Searched { folder, offsets }
    }

    fn find(&self, args: &[&str]) -> Value {
        self.folder.json(&[&["find"], args].concat())
    }

    fn by_sequence(&self, number: usize) -> Value {
        let (shard, sequence) = (shard_of(number), self.offsets[number].to_string());
        self.find(&["--sequence", &sequence, "--shard", &shard])
    }

    /// Asserts that each place has the record that it is said to have. Returns the places by their kind.
    fn check(&self, found: &Value, number: usize) -> BTreeMap<String, u64> {
        let mut kinds = BTreeMap::new();
        for place in found["found"].as_array().unwrap() {
            let (kind, at) = (place["kind"].as_str().unwrap(), place["number"].as_u64().unwrap());
            *kinds.entry(kind.to_owned()).or_default() += 1;
            assert_eq!(place["sequence"], self.offsets[number].to_string(), "{place}");
            assert_eq!(place["shard"], shard_of(number), "{place}");
            let path = self.folder.path("lake").join(place["object"].as_str().unwrap());
            if kind == "processed" {
                let file = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
                let row = file.get_row_iter(None).unwrap().nth(usize::try_from(at).unwrap()).unwrap().unwrap();
                let n = row.get_column_iter().find(|(name, _)| *name == "n").unwrap().1;
                assert_eq!(n, &Field::Str(format!("r{number}")), "{place}");
                continue;
            }
            let lines = BufReader::new(MultiGzDecoder::new(File::open(&path).unwrap())).lines();
            let line = lines.map(Result::unwrap).nth(usize::try_from(at).unwrap() - 1).unwrap();
            match kind {
                "raw" => assert_eq!(format!("{line}\n"), record(number), "{place}"),
                _ => assert!(line.contains(&format!("\"sequenceNumber\":\"{}\"", self.offsets[number])), "{place}"),
            }
        }
        kinds
    }
}

fn kinds(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

#[test]
fn a_record_is_found_by_its_number_by_its_values_and_by_its_id() {
    let lake = Searched::new();
    for number in [0, 1, 1_999, 2_000, 4_321, 5_999] {
        let found = lake.by_sequence(number);
        assert_eq!(lake.check(&found, number), kinds(&[("processed", 1), ("raw", 1)]), "{found}");
        assert_eq!(
            (&found["read"][0]["state"], &found["read"][0]["version"]),
            (&"committed".into(), &(number / 2_000 + 1).into())
        );
        let (condition, id) = (format!("n=r{number}"), format!("r{number}"));
        for args in [&["--column", condition.as_str()][..], &["--id", &id]] {
            let found = lake.find(args);
            assert_eq!(lake.check(&found, number), kinds(&[("processed", 1), ("raw", 1)]), "{args:?}: {found}");
        }
    }
    for number in [107, 3_007] {
        let by_id = lake.find(&["--id", &format!("r{number}")]);
        for found in [lake.by_sequence(number), by_id] {
            assert_eq!(lake.check(&found, number), kinds(&[("error", 1), ("raw", 1)]), "{found}");
            assert_eq!(found["found"].as_array().unwrap().iter().filter(|place| !place["code"].is_null()).count(), 1);
        }
    }
    // Without a shard, every file may have the number.
    let all = lake.find(&["--sequence", "0"]);
    assert_eq!((all["found"].as_array().unwrap().len(), all["read"].as_array().unwrap().len()), (6, 3), "{all}");
    let text = lake.folder.ok(&["find", "--sequence", "0"]);
    assert!(text.contains("record 0 of ") && text.contains("row 0 of flows in processed/flows/kind="), "{text}");
}

#[test]
fn values_are_compared_as_the_columns_have_them_and_personal_ones_are_not_printed() {
    let lake = Searched::new();
    let count = |args: &[&str]| {
        let found = lake.find(&[args, &["--limit", "100000"]].concat());
        assert_eq!(found["is_cut"], false);
        let found = found["found"].as_array().unwrap();
        let of = |kind: &str| found.iter().filter(|place| place["kind"] == kind).count();
        (of("processed"), of("error"))
    };
    let expected = |wants: &dyn Fn(usize) -> bool| {
        let all = (0..FILES * RECORDS).filter(|number| wants(*number));
        let (failed, good): (Vec<usize>, Vec<usize>) = all.partition(|number| number % 100 == 7);
        (good.len(), failed.len())
    };
    assert_eq!(count(&["--column", "who=person-3"]), expected(&|number| number % 9 == 3));
    assert_eq!(count(&["--column", "kind=y z"]), expected(&|number| number % 2 == 1));
    assert_eq!(count(&["--column", "amount=12.50"]).0, expected(&|number| number % 77 == 12).0);
    assert_eq!(
        count(&["--column", "port=31", "--column", "who=person-4"]),
        expected(&|number| number % 50 == 31 && number % 9 == 4)
    );
    assert_eq!(
        count(&["--column", "year=2025", "--column", "kind=x"]).0,
        expected(&|number| number.is_multiple_of(2)).0
    );

    // Half of the files is not read: their partition is another one.
    let one = lake.find(&["--column", "kind=x", "--column", "n=r4"]);
    assert_eq!(lake.check(&one, 4), kinds(&[("processed", 1), ("raw", 1)]));
    let cut = lake.find(&["--column", "kind=x", "--limit", "5"]);
    let rows = cut["found"].as_array().unwrap().iter().filter(|place| place["kind"] == "processed").count();
    assert_eq!((&cut["is_cut"], rows), (&true.into(), 5), "{cut}");

    // From standard input, and never on the output.
    for args in [&["find", "--column", "who"][..], &["find", "--id", "-"], &["find", "--column", "who=-", "--json"]] {
        let mut child = lake
            .folder
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"person-3\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && !printed.contains("person-3"), "{printed}");
        assert!(printed.contains("processed/flows/kind="), "{printed}");
    }
    let since = lake.folder.exits(1, &["find", "--column", "who=person-3", "--until", "2025-01-13"]);
    assert!(since.contains("nothing was found"), "{since}");

    // Without the key, pseudonyms are found by themselves only, and that is said.
    let key = lake.folder.path("lake.pseudonym.key");
    assert!(key.exists());
    std::fs::rename(&key, lake.folder.path("elsewhere")).unwrap();
    let without = lake.folder.exits(0, &["find", "--column", "who=person-3"]);
    assert!(without.contains("values were not searched as pseudonyms") && !without.contains("row "), "{without}");
    assert!(!key.exists(), "no key is made");
    lake.folder.write("lake.pseudonym.key", "another key, of more than sixteen bytes\n");
    let refused = lake.folder.exits(2, &["find", "--column", "who=person-3"]);
    assert!(refused.contains("key"), "{refused}");
    for refused in [
        &["find", "--column", "nobody=1"][..],
        &["find", "--sequence", "x"],
        &["find"],
        &["find", "--id", "1", "--dataset", "q"],
    ] {
        lake.folder.exits(2, refused);
    }
}

#[test]
fn a_record_that_was_redriven_or_discarded_or_is_not_committed_is_explained() {
    let lake = Searched::new();
    lake.folder.write("flows.toml", format!("{DEFINITION}accept_text = true\n"));
    lake.folder.ok(&["deadletters", "redrive"]);
    let found = lake.by_sequence(107);
    assert_eq!(lake.check(&found, 107), kinds(&[("processed", 1), ("raw", 1)]), "{found}");
    let by = found["read"][0]["changed_by"][0]["of"].as_str().unwrap();
    assert!(by.starts_with("redrive:"), "{found}");
    // Its raw line is in the epoch that read it, and not in the operation.
    let by_id = lake.find(&["--id", "r107"]);
    assert_eq!(lake.check(&by_id, 107), kinds(&[("processed", 1), ("raw", 1)]), "{by_id}");

    let begin = std::fs::metadata(lake.folder.path("in/2.ndjson")).unwrap().len();
    let broken = format!("{}\n", record(9_999).trim_end().replace("\"n\"", "n"));
    lake.folder.append("in/2.ndjson", &format!("{broken}{}", record(9_998)));
    let shard = ["find", "--shard", "2.ndjson", "--sequence"];
    let position = begin.to_string();
    let waiting = lake.folder.exits(1, &[&shard[..], &[&position]].concat());
    assert!(waiting.contains("is committed up to") && waiting.contains("nobody holds the shard"), "{waiting}");
    lake.folder.ok(&CATCH_UP);
    let failed = lake.find(&[&shard[1..], &[&position]].concat());
    assert_eq!(failed["found"].as_array().unwrap().len(), 2, "{failed}");
    lake.folder.ok(&["deadletters", "discard", "--all"]);
    let discarded = lake.find(&[&shard[1..], &[&position]].concat());
    assert_eq!(discarded["found"].as_array().unwrap().len(), 1, "the raw line is left: {discarded}");
    assert!(discarded["read"][0]["changed_by"].to_string().contains("discard:"), "{discarded}");
    let between = lake.folder.exits(1, &[&shard[..], &["3"]].concat());
    assert!(between.contains("no record in the range has this number"), "{between}");
}

#[test]
fn the_state_is_watched_until_it_is_interrupted() {
    let lake = Searched::new();
    let start = |args: &[&str]| {
        lake.folder.command(&[&["status", "--watch=200ms"], args].concat()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let interrupt = |child: &std::process::Child| {
        let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    };
    let mut child = start(&["--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let status: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (&status["epochs"], &status["totals"]["records"]),
            (&3.into(), &(FILES * RECORDS).into()),
            "{status}"
        );
    }
    interrupt(&child);
    assert!(child.wait().unwrap().success());

    let mut child = start(&[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first: Vec<String> = lines.by_ref().take_while(|line| line != "0.ndjson").take(12).collect();
    let first = first.join("\n");
    assert!(
        first.contains("6,000 records") && first.contains("3 epochs committed") && first.contains("2.ndjson"),
        "{first}"
    );
    interrupt(&child);
    assert!(child.wait().unwrap().success());
    lake.folder.exits(2, &["status", "--watch=soon"]);
}
