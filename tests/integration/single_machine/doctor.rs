//! `doctor` on one machine: each planted fault is found, with its id and its exit code, and a sound lake has none.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::{CATCH_UP, assessment};
use crate::common::folder::Folder;

const ARGS: [&str; 5] = ["doctor", "--json", "--watch", "100ms", "--config"];

/// A lake that was written by a run that has ended.
fn sound() -> Folder {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..50).map(assessment).collect::<String>());
    folder.write("good.toml", config("", ""));
    folder.ok(&CATCH_UP);
    folder
}

fn config(limits: &str, more: &str) -> String {
    format!(
        "[[source]]\nurl = \"in\"\n[lake]\nurl = \"lake\"\n[limits]\nmemory = \"512 MiB\"\nthreads = 2\n{limits}\n{more}"
    )
}

/// The ids that `doctor` finds, and its exit code.
fn found(folder: &Folder, file: &str) -> (BTreeSet<String>, Option<i32>, Value) {
    let output = folder.run(&[&ARGS[..], &[file]].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let ids = report["findings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
    (ids.collect(), output.status.code(), report)
}

fn assert_found(folder: &Folder, file: &str, expected: &[&str], code: i32) {
    let (ids, ended, report) = found(folder, file);
    let expected: BTreeSet<String> = expected.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!((&ids, ended), (&expected, Some(code)), "{report:#}");
}

#[test]
fn a_sound_lake_has_no_findings() {
    let folder = sound();
    let (ids, code, report) = found(&folder, "good.toml");
    assert_eq!((ids.len(), code), (0, Some(0)), "{report:#}");
    assert_eq!(report["not_checked"].as_array().unwrap().len(), 0, "{report:#}");
    assert!(folder.ok(&["doctor", "--watch", "100ms", "--config", "good.toml"]).trim_end().ends_with("all well"));
}

#[test]
fn settings_that_hurt_are_found() {
    let folder = sound();
    let cases = [
        ("failover", "[leases]\nfailover = \"1s\"", "failover-short", 1),
        ("stop", "[stop]\nwithin = \"5m\"", "stop-too-long", 1),
        ("page", "[server]\nlisten = \"0.0.0.0:8470\"", "page-exposed", 0),
        ("raw", "[raw]\nenabled = false", "raw-off", 0),
    ];
    for (name, more, id, code) in cases {
        let file = format!("{name}.toml");
        folder.write(&file, config("", more));
        assert_found(&folder, &file, &[id], code);
    }
    folder.write("memory.toml", config("", "").replace("threads = 2", "threads = 16"));
    assert_found(&folder, "memory.toml", &["memory-small"], 1);
}

#[test]
fn a_lake_that_is_damaged_or_not_the_one_is_found() {
    let folder = sound();
    folder.write("none.toml", config("", "").replace("\"lake\"", "\"nowhere\""));
    assert_found(&folder, "none.toml", &["lake-missing"], 3);

    // An object of somebody else, and a loss that nobody has accepted.
    folder.write("lake/_backup/x.json", "{}");
    assert_found(&folder, "good.toml", &["foreign-objects"], 1);
    fs::remove_dir_all(folder.path("lake/_backup")).unwrap();
    let more: String = (50..60).map(assessment).collect();
    folder.append("in/a.ndjson", &more);
    folder.ok(&CATCH_UP);
    folder.write("in/a.ndjson", (0..3).map(assessment).collect::<String>());
    folder.exits(1, &CATCH_UP);
    assert_found(&folder, "good.toml", &["data-lost"], 3);
}

#[test]
fn a_log_with_a_hole_lost_rows_and_another_key_are_found() {
    let folder = sound();
    let more: String = (50..60).map(assessment).collect();
    folder.append("in/a.ndjson", &more);
    folder.ok(&CATCH_UP);
    let records = folder.files("lake/_commits");
    let (moved, kept) = (records[0].clone(), folder.path("record"));
    fs::rename(&moved, &kept).unwrap();
    let (ids, code, report) = found(&folder, "good.toml");
    assert!(ids.contains("log-damaged") && code == Some(3), "{report:#}");
    fs::rename(&kept, &moved).unwrap();
    assert_found(&folder, "good.toml", &[], 0);

    let key = folder.path("lake.pseudonym.key");
    let bytes = fs::read(&key).unwrap();
    fs::write(&key, "another key, which is long enough for all").unwrap();
    assert_found(&folder, "good.toml", &["pseudonym-key"], 3);
    fs::remove_file(&key).unwrap();
    assert_found(&folder, "good.toml", &["pseudonym-key"], 3);
    fs::write(&key, bytes).unwrap();

    fs::remove_file(folder.path("lake/_checkpoints.db")).unwrap();
    let (ids, code, report) = found(&folder, "good.toml");
    assert!(ids.contains("lease-rows-lost") && code == Some(3), "{report:#}");
}

#[test]
fn a_definition_that_does_not_fit_the_lake_is_found() {
    let folder = Folder::new();
    let definition = |kind: &str| {
        format!(
            "name = \"orders\"\npartition_by = [\"year\"]\n[event_time]\npointer = \"/at\"\n\
             [[column]]\nname = \"n\"\npointer = \"/n\"\ntype = \"{kind}\"\n"
        )
    };
    let dataset =
        "[[source]]\nurl = \"in\"\ndataset = \"orders\"\n[lake]\nurl = \"lake\"\n[[dataset]]\nfile = \"orders.toml\"\n";
    folder.write("shardlake.toml", dataset);
    folder.write("in/a.ndjson", "{\"n\":1,\"at\":\"2025-01-13T10:30:00Z\"}\n");
    folder.write("orders.toml", definition("int64"));
    let ran = folder.run(&["run", "--until-caught-up"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    folder.write("orders.toml", definition("string"));
    let (ids, code, report) = found(&folder, "shardlake.toml");
    assert!(ids.contains("definition-refused") && code == Some(3), "{report:#}");
}
