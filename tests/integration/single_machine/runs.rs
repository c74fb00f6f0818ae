//! Workers that read files into a lake, alone and side by side.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use crate::common::folder::Folder;
use crate::common::{gzip, pause, wait_for};
use crate::single_machine::{CATCH_UP, assessment};

/// Flags of a worker that keeps running.
const KEEP_RUNNING: [&str; 6] = ["--source", "in", "--lake", "lake", "--commit-interval", "500ms"];

#[test]
fn a_second_run_reads_nothing_again() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..50).map(assessment).collect::<String>());
    let first = folder.json(&CATCH_UP);
    assert_eq!((&first["records"], &first["rows"]["assessments"]), (&50.into(), &50.into()), "{first}");
    let second = folder.json(&CATCH_UP);
    assert_eq!(second["records"], 0, "{second}");
    folder.assert_verified(50);
}

#[test]
fn values_that_became_null_and_denied_keys_are_in_the_summary() {
    let event = |members: &str| format!("{{\"event_type\":\"a\",\"event_timestamp\":1736764200123,{members}}}\n");
    let records = [
        event(r#""session":{"start_timestamp":1736764200},"metrics":{"score":12,"my_metric":3.5}"#),
        event(r#""session":{"start_timestamp":"x"},"metrics":{"score":"y","kim@example.com":1}"#),
    ];
    let folder = Folder::new();
    folder.write("in/a.ndjson", records.concat());
    let text = folder.ok(&CATCH_UP);
    for line in ["events/session/start_timestamp", "events/metrics/score", "events: keys of maps", "--show-denied-keys"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    folder.assert_verified(2);
    let totals = folder.json(&["status", "--lake", "lake"])["totals"].clone();
    assert_eq!(totals["nulled_values"]["events/session/start_timestamp"], 2, "{totals}");

    let other = Folder::new();
    other.write("in/a.ndjson", records.concat());
    let summary = other.json(&[&CATCH_UP[..], &["--show-denied-keys"]].concat());
    assert_eq!(summary["nulled_values"], json!({ "events/metrics/score": 1, "events/session/start_timestamp": 2 }));
    assert_eq!(summary["denied_keys"], json!({ "events": 2 }));
    let name = |key: &str| json!({ "dataset": "events", "field": "/metrics", "key": key, "count": 1 });
    assert_eq!(summary["denied_names"], json!([name("kim@example.com"), name("my_metric")]));

    // A key may be a personal value: it is printed on request, and in nothing else.
    for (folder, asked) in [(&folder, false), (&other, true)] {
        for printed in folder.printed() {
            assert!(asked || !printed.text().contains("kim@example.com"), "{}", printed.text());
        }
        for file in folder.files("lake/_commits").into_iter().chain(folder.files("lake/_log")) {
            let bytes = fs::read(&file).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("kim@example.com"), "{}", file.display());
        }
    }
}

#[test]
fn growing_files_and_new_files_are_read() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    folder.write("in/year=2025/assessment_001.json", assessment(1));
    let worker = folder.start(&KEEP_RUNNING);
    wait_for("the first rows", 60, || folder.rows() == 2);
    // Half a line is not a record until its end has been written.
    let next = assessment(2);
    folder.append("in/a.ndjson", &next[..20]);
    folder.write("in/year=2025/assessment_000.json", assessment(3));
    wait_for("the row of the new object", 60, || folder.rows() == 3);
    folder.append("in/a.ndjson", &next[20..]);
    wait_for("the row of the grown file", 60, || folder.rows() == 4);
    folder.write("in/b.ndjson", assessment(4));
    wait_for("the row of the new file", 60, || folder.rows() == 5);
    worker.stop();
    folder.assert_verified(5);
}

#[test]
fn sigterm_commits_what_was_read_and_releases_the_leases() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..1_000).map(assessment).collect::<String>());
    let worker = folder.start(&["--source", "in", "--lake", "lake", "--commit-interval", "1h"]);
    wait_for("the shard to be held", 60, || folder.holders().len() == 1);
    // The commit interval has not elapsed, so only the shutdown commits.
    pause(500);
    assert_eq!(folder.rows(), 0);
    worker.stop();
    assert_eq!(folder.rows(), 1_000);
    assert!(folder.holders().is_empty(), "a lease is still held");
    folder.assert_verified(1_000);
}

#[test]
fn workers_share_the_shards_when_one_joins_and_when_one_leaves() {
    let folder = Folder::new();
    for shard in 0..6 {
        folder.write(&format!("in/{shard}.ndjson"), assessment(shard));
    }
    let first = folder.start(&KEEP_RUNNING);
    wait_for("the first worker to hold all shards", 60, || folder.holders().len() == 6);
    let second = folder.start(&KEEP_RUNNING);
    wait_for("both to hold three", 60, || {
        let held = folder.holders();
        let holders: BTreeSet<&String> = held.values().collect();
        held.len() == 6 && holders.iter().all(|holder| held.values().filter(|one| one == holder).count() == 3)
    });
    for shard in 0..6 {
        folder.append(&format!("in/{shard}.ndjson"), &assessment(10 + shard));
    }
    wait_for("all rows", 60, || folder.rows() == 12);
    first.stop();
    wait_for("the second worker to hold all shards", 60, || {
        let held = folder.holders();
        held.len() == 6 && held.values().collect::<BTreeSet<_>>().len() == 1
    });
    folder.append("in/3.ndjson", &assessment(20));
    wait_for("the last row", 60, || folder.rows() == 13);
    second.stop();
    folder.assert_verified(13);
}

#[test]
fn a_damaged_file_yields_its_readable_records_and_a_dead_letter() {
    let folder = Folder::new();
    let whole = gzip((0..2_000).map(assessment).collect::<String>().as_bytes());
    folder.write("in/truncated.ndjson.gz", &whole[..whole.len() / 2]);
    // Otherwise it may still be arriving.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(folder.path("in/truncated.ndjson.gz")).unwrap().set_modified(old).unwrap();
    folder.write("in/good.ndjson", assessment(5_000));
    let summary = folder.json(&CATCH_UP);
    assert_eq!(summary["dead_letters"]["Decode.DamagedFile"], 1, "{summary}");
    let rows = summary["rows"]["assessments"].as_u64().unwrap();
    assert!((2..2_000).contains(&rows), "{rows}");
    let shown = folder.ok(&["deadletters", "show", "--code", "Decode.DamagedFile", "--lake", "lake"]);
    assert!(shown.contains("truncated.ndjson.gz"), "{shown}");
}

#[test]
fn checkpoints_are_refused_in_another_lake_until_it_is_called_new() {
    let folder = Folder::new();
    let run = ["run", "--source", "in", "--lake", "lake", "--checkpoints", "sqlite://leases.db", "--until-caught-up"];
    let assert_refused = |why: &str| {
        let message = folder.exits(2, &run);
        assert!(message.contains("committed in another lake") && message.contains("--new-lake"), "{why}: {message}");
    };
    folder.write("in/a.ndjson", assessment(0));
    folder.ok(&run);
    folder.ok(&run);
    // The lake's disk is not mounted: the folder is missing, or it is an empty mount point. Nothing is created.
    fs::rename(folder.path("lake"), folder.path("away")).unwrap();
    assert_refused("a missing folder");
    assert!(!folder.path("lake").exists());
    fs::create_dir(folder.path("lake")).unwrap();
    assert_refused("an empty folder");
    assert_eq!(fs::read_dir(folder.path("lake")).unwrap().count(), 0);
    // Another lake, which has commits of its own.
    folder.ok(&CATCH_UP);
    assert_refused("another lake");
    // Another source has no checkpoints in this table, and may use it with that lake.
    folder.write("more/a.ndjson", assessment(1));
    let other =
        ["run", "--source", "more", "--lake", "lake", "--checkpoints", "sqlite://leases.db", "--until-caught-up"];
    folder.ok(&other);
    fs::rename(folder.path("lake"), folder.path("other")).unwrap();
    fs::rename(folder.path("away"), folder.path("lake")).unwrap();
    folder.append("in/a.ndjson", &assessment(2));
    folder.ok(&run);
    assert_eq!(folder.rows(), 2);
    // With the flag, the new lake holds what arrives from now on.
    fs::rename(folder.path("lake"), folder.path("away")).unwrap();
    folder.append("in/a.ndjson", &assessment(3));
    folder.ok(&[&run[..], &["--new-lake"]].concat());
    assert_eq!(folder.rows(), 1);
    folder.ok(&run);
}

#[test]
fn a_lake_that_knows_files_whose_positions_are_lost_is_refused_until_they_are_made_again() {
    let folder = Folder::new();
    for number in 0..3 {
        folder.write(&format!("in/{number}.ndjson"), assessment(number));
    }
    folder.write("more/a.ndjson", assessment(7));
    let run = ["run", "--source", "in", "--source", "more", "--lake", "lake", "--until-caught-up"];
    folder.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    // Only one of two sources is known to the lake.
    let lose = || {
        for entry in fs::read_dir(folder.path("lake")).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("_checkpoints.db") {
                let path = entry.path();
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
    };
    for checkpoints in ["sqlite://lake/_checkpoints.db", "sqlite://mistyped.db"] {
        lose();
        let flags = ["--checkpoints", checkpoints];
        let message = folder.exits(2, &[&run[..], &flags].concat());
        assert!(
            message.contains("3 shards of stream file://") && message.contains("/in, which has no row"),
            "{message}"
        );
        assert!(!message.contains("/more"), "{message}");
        let check = ["config", "check", "--source", "in", "--lake", "lake"];
        let message = folder.exits(2, &[&check[..], &flags].concat());
        assert!(message.contains("shardlake leases rebuild"), "{message}");
        assert!(!folder.path("mistyped.db").exists(), "nothing is touched");
    }
    let rebuilt = folder.json(&["leases", "rebuild", "--lake", "lake"]);
    assert_eq!((rebuilt["created"].as_array().unwrap().len(), rebuilt["existing"].as_u64()), (3, Some(0)), "{rebuilt}");
    folder.append("in/1.ndjson", &assessment(3));
    folder.ok(&run);
    folder.assert_verified(5);
    let again = folder.ok(&["leases", "rebuild", "--lake", "lake"]);
    assert!(again.contains("created 0 rows; 4 existed"), "{again}");
    lose();
    folder.ok(&[&run[..], &["--new-checkpoints"]].concat());
    assert_eq!(folder.rows(), 10, "with consent everything is read again");
}
