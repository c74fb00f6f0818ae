//! Definitions that are tried before they are used, and replays that are compared with what they would replace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::folder::Folder;
use crate::single_machine::{CATCH_UP, assessment};

const SHIPPED: &str = include_str!("../../../pipeline/datasets/assessments.toml");
/// Records of the lake. The scores are 0 to 100, twice.
const RECORDS: usize = 202;

impl Folder {
    /// A lake of good records in several files.
    fn with_assessments() -> Self {
        let folder = Folder::new();
        for (file, numbers) in [(1, 0..100), (2, 100..150), (3, 150..RECORDS)] {
            folder.write(&format!("in/{file}.ndjson"), numbers.map(assessment).collect::<String>());
        }
        folder.ok(&CATCH_UP);
        folder.assert_verified(RECORDS as u64);
        folder
    }

    /// The shipped definition of assessments with a text in place of another one.
    fn define(&self, file: &str, text: &str, other: &str) {
        assert!(SHIPPED.contains(text), "{text}");
        self.write(file, SHIPPED.replacen(text, other, 1));
    }

    /// Every file of the lake, with its bytes.
    fn bytes_of_lake(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = self.files("lake").into_iter().filter(|path| !path.to_string_lossy().contains("_checkpoints.db"));
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn leases(&self) -> Value {
        self.json(&["leases", "list", "--lake", "lake"])
    }

    /// A `whatif` that must end with this exit code: its JSON.
    fn whatif(&self, code: i32, flags: &[&str]) -> Value {
        let args = [&["whatif", "--lake", "lake", "--source", "in", "--json"][..], flags].concat();
        let output = self.run(&args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
    }
}

/// Makes half of the scores invalid: those above 50.
fn lower_the_limit(folder: &Folder) {
    folder.define("new.toml", "max = 100\n", "max = 50\n");
}

#[test]
fn the_definition_that_made_the_lake_changes_nothing() {
    let folder = Folder::with_assessments();
    let gate = "dead-letters=+0,dead-letters=-0,rows=0,changed=0,doubled=0";
    let found = folder.whatif(0, &["--from", "trim-horizon", "--fail-on", gate]);
    assert_eq!(
        (&found["ok"], &found["diff"]["same"], &found["records"]),
        (&json!(true), &json!(true), &json!(RECORDS))
    );
    let rows = &found["diff"]["datasets"]["assessments"];
    assert_eq!((&rows["old"], &rows["new"], &rows["same"]), (&json!(RECORDS), &json!(RECORDS), &json!(RECORDS)));
    folder.write("same.toml", SHIPPED);
    let text =
        folder.ok(&["whatif", "--lake", "lake", "--source", "in", "--definition", "same.toml", "--last", "9999h"]);
    assert!(text.contains("202 records in ") && text.ends_with("the same: 202 rows and 0 dead letters\n"), "{text}");
}

#[test]
fn what_a_definition_would_change_is_counted_and_decides_the_exit_code() {
    let folder = Folder::with_assessments();
    lower_the_limit(&folder);
    let flags = ["--definition", "new.toml", "--from", "trim-horizon"];
    let found = folder.whatif(0, &flags);
    let rows = &found["diff"]["datasets"]["assessments"];
    assert_eq!(
        (&rows["old"], &rows["new"], &rows["to_dead_letters"]),
        (&json!(202), &json!(102), &json!(100)),
        "{found}"
    );
    let dead = &found["diff"]["dead_letters"];
    assert_eq!((&dead["old"], &dead["new"], &dead["from_rows"]), (&json!(0), &json!(100), &json!(100)), "{found}");
    let samples = found["diff"]["samples"].as_array().unwrap();
    assert!(samples.iter().any(|sample| sample["kind"] == "became_dead_letter"), "{found}");

    for (code, fail_on) in
        [(0, "dead-letters=+100"), (1, "dead-letters=+99"), (0, "rows=-50%"), (1, "rows=-49%"), (0, "changed=0")]
    {
        let found = folder.whatif(code, &[&flags[..], &["--fail-on", fail_on]].concat());
        assert_eq!(found["ok"], json!(code == 0));
    }
    let args = [&["whatif", "--lake", "lake", "--source", "in", "--fail-on", "dead-letters=+0"][..], &flags].concat();
    let text = folder.exits(1, &args);
    for part in [
        "rows         old  new  same  changed  missing  added",
        "assessments  202  102   102        0      100      0",
        "rows that became dead letters    100",
        "rows 202 → 102 (-100 +0), 0 with changed values (0.00 %); dead letters 0 → 100",
        "shardlake: 100 of 202 records became dead letters (--fail-on dead-letters=+0)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().filter(|line| !line.contains("file://")).all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn changed_values_are_counted_by_column() {
    let folder = Folder::with_assessments();
    // The score of record n is n modulo 101, and its duration is n.
    let column = "pointer = \"/duration\"\ntype = \"int32\"";
    folder.define("new.toml", column, "pointer = \"/score\"\ntype = \"int32\"");
    let flags = ["--definition", "new.toml", "--from", "trim-horizon", "--sample", "2"];
    let found = folder.whatif(0, &flags);
    let rows = &found["diff"]["datasets"]["assessments"];
    assert_eq!((&rows["same"], &rows["changed"]), (&json!(101), &json!(101)), "{found}");
    let changed = json!({ "changed": 101, "became_null": 0, "was_null": 0 });
    assert_eq!(rows["columns"], json!({ "completion_time": changed }), "{found}");
    let samples = found["diff"]["samples"].as_array().unwrap();
    let values: Vec<(i64, i64)> = samples
        .iter()
        .map(|sample| (sample["values"][0].as_i64().unwrap(), sample["values"][1].as_i64().unwrap()))
        .collect();
    assert!(values.len() == 2 && values.iter().all(|(old, new)| old - new == 101), "{found}");
    folder.whatif(0, &[&flags[..], &["--fail-on", "changed:assessments.completion_time=50%"]].concat());
    folder.whatif(1, &[&flags[..], &["--fail-on", "changed:assessments.completion_time=49%"]].concat());
}

#[test]
fn nothing_is_written_outside_of_the_scratch_folder() {
    let folder = Folder::with_assessments();
    lower_the_limit(&folder);
    let (lake, leases) = (folder.bytes_of_lake(), folder.leases());
    let own: Vec<PathBuf> = folder.files("in").into_iter().chain([folder.path("lake.pseudonym.key")]).collect();
    let others: Vec<Vec<u8>> = own.iter().map(|path| fs::read(path).unwrap()).collect();
    folder.whatif(0, &["--definition", "new.toml", "--from", "trim-horizon"]);
    folder.whatif(0, &["--definition", "new.toml", "--from", "trim-horizon", "--into", "kept"]);
    assert_eq!(folder.bytes_of_lake(), lake);
    assert_eq!(folder.leases(), leases);
    assert_eq!(own.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>(), others);
    let mut places: Vec<String> =
        fs::read_dir(folder.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    places.sort();
    assert_eq!(places, ["in", "kept", "lake", "lake.pseudonym.key", "new.toml"]);
    assert!(!folder.files("kept/processed/assessments").is_empty() && !folder.files("kept/error").is_empty());
    assert!(folder.files("kept/raw").is_empty());
    folder.assert_verified(RECORDS as u64);
}

#[test]
fn records_that_the_lake_has_not_read_are_not_compared() {
    let folder = Folder::with_assessments();
    folder.append("in/3.ndjson", &assessment(1_000));
    folder.write("in/4.ndjson", assessment(1_001));
    let found = folder.whatif(0, &["--from", "trim-horizon", "--fail-on", "rows=0"]);
    assert_eq!((&found["diff"]["same"], &found["records"]), (&json!(true), &json!(RECORDS)), "{found}");
}

#[test]
fn a_mistake_is_reported_before_anything_is_read() {
    let folder = Folder::with_assessments();
    lower_the_limit(&folder);
    folder.write("bad.toml", SHIPPED.replacen("max = 100\n", "max = \"many\"\n", 1));
    folder.write("full/file", "x");
    let args = |flags: &[&'static str]| [&["whatif", "--lake", "lake", "--source", "in"][..], flags].concat();
    for (flags, problem) in [
        (&["--definition", "new.toml"][..], "--last <TIME>|--from <WHERE>"),
        (&["--from", "trim-horizon", "--last", "24h"], "cannot be used with"),
        (&["--from", "yesterday"], "--from must be checkpoint:NAME, a time"),
        (&["--from", "checkpoint:none"], "there is no checkpoint 'none'"),
        (&["--last", "soon"], "--last: "),
        (&["--last", "1h", "--definition", "bad.toml"], "bad.toml:"),
        (&["--last", "1h", "--definition", "none.toml"], "none.toml: failed to read the file"),
        (&["--last", "1h", "--fail-on", "lines=1"], "'lines=1' is not a threshold: expected one of"),
        (&["--last", "1h", "--fail-on", "changed:quiz.score=1"], "there is no dataset 'quiz'"),
        (&["--last", "1h", "--into", "full"], "full is not empty"),
    ] {
        let text = folder.exits(2, &args(flags));
        assert!(text.contains(problem), "{flags:?}: {text}");
    }
    // A key that is not there is not made.
    fs::rename(folder.path("lake.pseudonym.key"), folder.path("away")).unwrap();
    let text = folder.exits(2, &args(&["--from", "trim-horizon"]));
    assert!(text.contains("the pseudonym key") && !folder.path("lake.pseudonym.key").exists(), "{text}");
    // Neither is another one accepted.
    folder.write("lake.pseudonym.key", "another key of at least sixteen bytes\n");
    let text = folder.exits(2, &args(&["--from", "trim-horizon"]));
    assert!(text.contains("key"), "{text}");
}

#[test]
fn a_replay_is_compared_with_what_it_would_replace() {
    let folder = Folder::with_assessments();
    let lake = ["--lake", "lake"];
    let plan = folder.json(&["replay", "plan", "--source", "in", "--from", "trim-horizon", "--lake", "lake"]);
    let id = plan["id"].as_str().unwrap();
    let text = folder.exits(2, &[&["replay", "diff", id][..], &lake].concat());
    assert!(text.contains("has made nothing yet: start it with"), "{text}");
    lower_the_limit(&folder);
    folder.write("shardlake.toml", "[[dataset]]\nfile = \"new.toml\"\n");
    folder.ok(&[&["replay", "start", id, "--source", "in"][..], &lake].concat());
    let files = folder.bytes_of_lake();
    let found = folder.json(&[&["replay", "diff", &id[..4]][..], &lake].concat());
    let rows = &found["diff"]["datasets"]["assessments"];
    assert_eq!((&rows["same"], &rows["to_dead_letters"]), (&json!(102), &json!(100)), "{found}");
    assert_eq!((&found["complete"], &found["id"]), (&json!(true), &plan["id"]));
    let text = folder.exits(1, &[&["replay", "diff", id, "--fail-on", "rows=-99"][..], &lake].concat());
    assert!(text.contains("shardlake: 100 of 202 rows are missing (--fail-on rows=-99)"), "{text}");
    let text = folder.exits(2, &[&["replay", "diff", "ffffffff"][..], &lake].concat());
    assert!(text.contains("there is no replay 'ffffffff'"), "{text}");
    assert_eq!(folder.bytes_of_lake(), files);
}
