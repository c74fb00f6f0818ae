//! The binary as its users start it: processes, signals, files that grow, flags that are wrong.
//!
//! Nothing here measures time: what must happen is waited for, for a minute at most. What the worker does when requests
//! are lost or processes die at the worst moment is `tests/support/simulation`'s and `tests/outside/exactly_once.py`'s.

#![expect(clippy::disallowed_methods, reason = "these tests wait for processes, whose time is the real one")]
#![expect(clippy::unwrap_used, reason = "a test: what fails, fails it")]

mod leases;
mod place;

use std::collections::BTreeSet;
use std::fs;

use place::{Place, assessment, wait_for};

#[test]
fn a_second_run_finds_everything_done() {
    let place = Place::new();
    place.write("in/a.ndjson", &(0..50).map(assessment).collect::<String>());
    let first = place.json(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    assert_eq!((&first["records"], &first["rows"]["assessments"]), (&50.into(), &50.into()), "{first}");
    let second = place.json(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    assert_eq!(second["records"], 0, "{second}");
    place.verified(50);
}

#[test]
fn files_that_grow_and_files_that_are_new_are_followed() {
    let place = Place::new();
    place.write("in/a.ndjson", &assessment(0));
    place.write("in/year=2025/assessment_001.json", &assessment(1));
    let worker = place.start(&["run", "--source", "in", "--lake", "lake", "--commit-interval", "500ms"]);
    wait_for("the first rows", || place.rows() == 2);
    // Half a line is no record until its end is there.
    let next = assessment(2);
    place.append("in/a.ndjson", &next[..20]);
    place.write("in/year=2025/assessment_000.json", &assessment(3));
    wait_for("the new object", || place.rows() == 3);
    place.append("in/a.ndjson", &next[20..]);
    wait_for("the grown file", || place.rows() == 4);
    place.write("in/b.ndjson", &assessment(4));
    wait_for("the new file", || place.rows() == 5);
    worker.stop();
    place.verified(5);
}

#[test]
fn a_worker_that_is_told_to_stop_commits_what_it_read_and_lets_go() {
    let place = Place::new();
    place.write("in/a.ndjson", &(0..1_000).map(assessment).collect::<String>());
    let worker = place.start(&["run", "--source", "in", "--lake", "lake", "--commit-interval", "1h"]);
    wait_for("the shard to be held", || place.owners().len() == 1);
    // An hour has not passed: only stopping commits.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(place.rows(), 0);
    worker.stop();
    assert_eq!(place.rows(), 1_000);
    assert!(place.owners().is_empty(), "a lease is still held");
    place.verified(1_000);
}

#[test]
fn a_worker_that_comes_later_gets_its_share_and_one_that_goes_leaves_it() {
    let place = Place::new();
    for shard in 0..6 {
        place.write(&format!("in/{shard}.ndjson"), &assessment(shard));
    }
    let args = ["run", "--source", "in", "--lake", "lake", "--commit-interval", "500ms"];
    let first = place.start(&args);
    wait_for("the first worker to hold all", || place.held().len() == 6);
    let second = place.start(&args);
    wait_for("both to hold three", || {
        let held = place.held();
        let owners: BTreeSet<&String> = held.values().collect();
        held.len() == 6 && owners.iter().all(|owner| held.values().filter(|one| one == owner).count() == 3)
    });
    for shard in 0..6 {
        place.append(&format!("in/{shard}.ndjson"), &assessment(10 + shard));
    }
    wait_for("all rows", || place.rows() == 12);
    first.stop();
    wait_for("the second worker to hold all", || {
        let held = place.held();
        held.len() == 6 && held.values().collect::<BTreeSet<_>>().len() == 1
    });
    place.append("in/3.ndjson", &assessment(20));
    wait_for("the last row", || place.rows() == 13);
    second.stop();
    place.verified(13);
}

#[test]
fn a_damaged_file_gives_what_can_be_read_and_a_dead_letter() {
    let place = Place::new();
    let whole = place::gzip((0..2_000).map(assessment).collect::<String>().as_bytes());
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/cut.ndjson.gz"), &whole[..whole.len() / 2]).unwrap();
    place.write("in/good.ndjson", &assessment(5_000));
    let message = place.json(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    assert_eq!(message["dead_letters"]["Decode.DamagedFile"], 1, "{message}");
    let rows = message["rows"]["assessments"].as_u64().unwrap();
    assert!((2..2_000).contains(&rows), "{rows}");
    let shown = place.ok(&["deadletters", "show", "--code", "Decode.DamagedFile", "--lake", "lake"]);
    assert!(shown.contains("cut.ndjson.gz"), "{shown}");
}

#[test]
fn a_lake_takes_no_second_key() {
    let place = Place::new();
    place.write("in/a.ndjson", &assessment(0));
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    place.write("other.key", "0123456789abcdef0123456789abcdef");
    place.write("shardlake.toml", "[anonymize]\nkey = \"file:other.key\"\n");
    let message = place.fails(2, &["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    assert!(message.contains("another key"), "{message}");
    assert!(!message.contains("0123456789abcdef"), "the key is told: {message}");
}

#[test]
fn checkpoints_of_another_lake_are_refused_and_nothing_is_made() {
    let place = Place::new();
    let run = ["run", "--source", "in", "--lake", "lake", "--checkpoints", "sqlite://leases.db", "--until-caught-up"];
    let refused = |why: &str| {
        let message = place.fails(2, &run);
        assert!(message.contains("committed in another lake") && message.contains("--new-lake"), "{why}: {message}");
    };
    place.write("in/a.ndjson", &assessment(0));
    place.ok(&run);
    place.ok(&run);
    // The disk of the lake is not mounted; or it is, and its mount point is all that is there.
    fs::rename(place.path("lake"), place.path("away")).unwrap();
    refused("no folder");
    assert!(!place.path("lake").exists());
    fs::create_dir(place.path("lake")).unwrap();
    refused("an empty one");
    assert_eq!(fs::read_dir(place.path("lake")).unwrap().count(), 0);
    // Another lake, which has commits of its own.
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    refused("another lake");
    // Another source has no checkpoints there.
    place.write("more/a.ndjson", &assessment(1));
    place.ok(&[
        "run",
        "--source",
        "more",
        "--lake",
        "lake",
        "--checkpoints",
        "sqlite://leases.db",
        "--until-caught-up",
    ]);
    fs::rename(place.path("lake"), place.path("other")).unwrap();
    fs::rename(place.path("away"), place.path("lake")).unwrap();
    place.append("in/a.ndjson", &assessment(2));
    place.ok(&run);
    assert_eq!(place.rows(), 2);
    // A new lake on purpose holds what comes from now on.
    fs::rename(place.path("lake"), place.path("away")).unwrap();
    place.append("in/a.ndjson", &assessment(3));
    place.ok(&[&run[..], &["--new-lake"]].concat());
    assert_eq!(place.rows(), 1);
    place.ok(&run);
}

#[test]
fn wrong_configuration_is_told_at_once_and_nothing_is_touched() {
    let place = Place::new();
    place.write("in/a.ndjson", &assessment(0));
    place.write(
        "shardlake.toml",
        "[commit]\nintervall = \"5m\"\n[limits]\nmemory = \"lots\"\n[raw]\ncodec = \"brotli\"\n[[dataset]]\nfile = \"none.toml\"\n",
    );
    let message = place.fails(2, &["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    for part in ["intervall", "did you mean 'interval'", "invalid size 'lots'", "brotli"] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    assert!(!place.path("lake").exists() && !place.path("lake.pseudonym.key").exists());
}

#[test]
fn a_personal_column_without_a_rule_is_refused_before_anything_is_read() {
    let place = Place::new();
    place.write("in/a.ndjson", "{\"id\":1,\"t\":1736942400000,\"contactEmail\":\"a@example.com\"}\n");
    place.write("shardlake.toml", "[[dataset]]\nfile = \"people.toml\"\n");
    place.write(
        "people.toml",
        "name = \"people\"\n[[recognize]]\npresent = [\"/id\"]\n[event_time]\npointer = \"/t\"\nformat = \"epoch_ms\"\n\
         [[column]]\nname = \"contact\"\npointer = \"/contactEmail\"\ntype = \"string\"\n",
    );
    let message = place.fails(2, &["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    assert!(
        message.contains("people.toml") && message.contains("'contact' (/contactEmail) looks like an e-mail address"),
        "{message}"
    );
    assert!(!place.path("lake").exists());
}

#[test]
fn wrong_flags_and_places_are_wrong_usage() {
    let place = Place::new();
    place.write("in/a.ndjson", &assessment(0));
    for (args, part) in [
        (vec!["run", "--source", "nowhere", "--until-caught-up"], "no such file or folder"),
        (vec!["run", "--source", "in", "--lake", "in/lake", "--until-caught-up"], "would read itself"),
        (vec!["run", "--source", "in", "--memory", "1 MiB", "--until-caught-up"], "memory"),
        (vec!["run", "--source", "in", "--raw", "brotli", "--until-caught-up"], "brotli"),
        (vec!["run", "--untl-caught-up"], "--until-caught-up"),
        (vec!["verify", "--lake", "nowhere"], "nowhere"),
        (vec!["schema", "event"], "events"),
        (vec!["frobnicate"], "frobnicate"),
    ] {
        let message = place.fails(2, &args);
        assert!(message.contains(part), "{args:?}: {part} is missing in {message}");
    }
    assert_eq!(fs::read_dir(place.path(".")).unwrap().count(), 1, "something was made");
}

#[test]
fn verify_names_what_is_wrong() {
    let place = Place::new();
    place.write("in/a.ndjson", &(0..50).map(assessment).collect::<String>());
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let file = place.files("processed").pop().unwrap();
    let bytes = fs::read(&file).unwrap();

    fs::remove_file(&file).unwrap();
    let message = place.fails(1, &["verify", "--lake", "lake"]);
    assert!(message.contains("missing") && message.contains(".parquet"), "{message}");

    let mut altered = bytes.clone();
    altered[100] ^= 1;
    fs::write(&file, altered).unwrap();
    place.fails(1, &["verify", "--lake", "lake"]);

    fs::write(&file, &bytes).unwrap();
    fs::write(file.with_file_name("copy.parquet"), &bytes).unwrap();
    place.fails(1, &["verify", "--lake", "lake"]);

    fs::remove_file(file.with_file_name("copy.parquet")).unwrap();
    place.verified(50);
}

#[test]
fn a_graph_and_schemas_are_printed_in_every_format() {
    let place = Place::new();
    assert!(place.ok(&["graph", "--format", "mermaid"]).starts_with("flowchart LR"));
    assert!(place.ok(&["graph", "--format", "dot"]).starts_with("digraph"));
    assert!(place.ok(&["graph"]).contains("validate/events"));
    // The JSON schema is of the records, the others are of the rows.
    for (format, field) in [
        ("athena", "completion_time"),
        ("glue", "completion_time"),
        ("arrow", "completion_time"),
        ("json-schema", "duration"),
    ] {
        assert!(place.ok(&["schema", "assessments", "--format", format]).contains(field), "{format}");
    }
}

#[test]
fn positions_are_saved_under_a_name() {
    let place = Place::new();
    place.write("in/a.ndjson", &assessment(0));
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    place.ok(&["checkpoints", "save", "before", "--lake", "lake"]);
    place.append("in/a.ndjson", &assessment(1));
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let saved = place.ok(&["checkpoints", "show", "before", "--lake", "lake"]);
    let last = (assessment(0).len() - 1).to_string();
    assert!(saved.contains("a.ndjson") && saved.contains(&last), "{saved}");
    assert!(place.ok(&["checkpoints", "list", "--lake", "lake"]).contains("before"));
    place.ok(&["checkpoints", "delete", "before", "--lake", "lake"]);
    assert!(!place.ok(&["checkpoints", "list", "--lake", "lake"]).contains("before"));
}

#[test]
fn saved_positions_outlive_the_lease_table() {
    let place = Place::new();
    place.write("in/a.ndjson", &assessment(0));
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    place.ok(&["checkpoints", "save", "before", "--lake", "lake"]);
    let message = place.fails(2, &["checkpoints", "save", "before", "--lake", "lake"]);
    assert!(message.contains("there is a checkpoint 'before' already"), "{message}");
    for file in ["_checkpoints.db", "_checkpoints.db-wal", "_checkpoints.db-shm"] {
        let _ = fs::remove_file(place.path("lake").join(file));
    }
    let list = place.json(&["checkpoints", "list", "--lake", "lake"]);
    assert_eq!((&list["positions"], &list["saved"][0]["name"]), (&serde_json::Value::Null, &"before".into()), "{list}");
    let text = place.ok(&["checkpoints", "list", "--lake", "lake"]);
    assert!(text.contains("before") && text.contains("the current positions are not known"), "{text}");
    let shown = place.json(&["checkpoints", "show", "before", "--lake", "lake"]);
    let end = (assessment(0).len() - 1).to_string();
    assert_eq!(
        (&shown["positions"][0]["shard"], &shown["positions"][0]["position"]),
        (&"a.ndjson".into(), &end.into())
    );
    assert!(place.fails(2, &["checkpoints", "save", "after", "--lake", "lake"]).contains("_checkpoints.db"));
    place.ok(&["checkpoints", "delete", "before", "--lake", "lake"]);
    assert!(!place.path("lake/_checkpoints/before.json").exists());
    assert!(!place.path("lake/_checkpoints.db").exists(), "no command made a new lease table");
}
