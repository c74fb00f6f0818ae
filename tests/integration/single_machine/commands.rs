//! Commands beside `run`, as an operator uses them.

use std::fs;

use crate::common::folder::Folder;
use crate::single_machine::{CATCH_UP, assessment};

#[test]
fn verify_reports_missing_altered_and_unknown_objects() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..50).map(assessment).collect::<String>());
    folder.ok(&CATCH_UP);
    let file = folder.files("lake/processed").pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    let assert_reported = |fault: &str| {
        let report = folder.exits(1, &["verify", "--lake", "lake"]);
        assert!(report.contains(fault) && report.contains(".parquet"), "{report}");
    };

    fs::remove_file(&file).unwrap();
    assert_reported("missing");

    let mut altered = bytes.clone();
    altered[100] ^= 1;
    fs::write(&file, altered).unwrap();
    assert_reported("altered");

    fs::write(&file, &bytes).unwrap();
    fs::write(file.with_file_name("copy.parquet"), &bytes).unwrap();
    assert_reported("unknown");

    fs::remove_file(file.with_file_name("copy.parquet")).unwrap();
    folder.assert_verified(50);
}

#[test]
fn graphs_and_schemas_print_in_every_format() {
    let folder = Folder::new();
    assert!(folder.ok(&["graph", "--format", "mermaid"]).starts_with("flowchart LR"));
    assert!(folder.ok(&["graph", "--format", "dot"]).starts_with("digraph"));
    assert!(folder.ok(&["graph"]).contains("validate/events"));
    // The JSON schema describes the records, the others describe the rows.
    for (format, field) in [
        ("athena", "completion_time"),
        ("glue", "completion_time"),
        ("arrow", "completion_time"),
        ("json-schema", "duration"),
    ] {
        assert!(folder.ok(&["schema", "assessments", "--format", format]).contains(field), "{format}");
    }
}

#[test]
fn config_check_prints_the_effective_configuration_without_secrets() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    folder.write("the.key", "0123456789abcdef0123456789abcdef");
    folder.write(
        "shardlake.toml",
        "[[source]]\nurl = \"in\"\n[anonymize]\nkey = \"file:the.key\"\n[commit]\ninterval = \"7s\"\n",
    );
    let printed = folder.ok(&["config", "check"]);
    for part in ["interval = \"7s\"", "key = \"file:the.key\"", "failover = \"10s\"", "url = \"in\""] {
        assert!(printed.contains(part), "{part} is missing in {printed}");
    }
    assert!(!printed.contains("0123456789abcdef"), "{printed}");
    folder.write(
        "shardlake.toml",
        "[lake]\nurl = \"s3://the-lake\"\nstorage_class = \"GLACIER\"\n[leases]\nfailovr = \"1s\"\n",
    );
    let message = folder.exits(2, &["config", "check", "--offline"]);
    for part in ["failovr", "did you mean 'failover'"] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
}

#[test]
fn checkpoints_save_list_show_and_delete_positions() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    folder.ok(&CATCH_UP);
    folder.ok(&["checkpoints", "save", "before", "--lake", "lake"]);
    folder.append("in/a.ndjson", &assessment(1));
    folder.ok(&CATCH_UP);
    let saved = folder.ok(&["checkpoints", "show", "before", "--lake", "lake"]);
    let last = (assessment(0).len() - 1).to_string();
    assert!(saved.contains("a.ndjson") && saved.contains(&last), "{saved}");
    assert!(folder.ok(&["checkpoints", "list", "--lake", "lake"]).contains("before"));
    folder.ok(&["checkpoints", "delete", "before", "--lake", "lake"]);
    assert!(!folder.ok(&["checkpoints", "list", "--lake", "lake"]).contains("before"));
}

#[test]
fn saved_positions_outlive_the_lease_table() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    folder.ok(&CATCH_UP);
    folder.ok(&["checkpoints", "save", "before", "--lake", "lake"]);
    let message = folder.exits(2, &["checkpoints", "save", "before", "--lake", "lake"]);
    assert!(message.contains("there is a checkpoint 'before' already"), "{message}");
    for file in ["_checkpoints.db", "_checkpoints.db-wal", "_checkpoints.db-shm"] {
        let _ = fs::remove_file(folder.path("lake").join(file));
    }
    let list = folder.json(&["checkpoints", "list", "--lake", "lake"]);
    assert_eq!((&list["positions"], &list["saved"][0]["name"]), (&serde_json::Value::Null, &"before".into()), "{list}");
    let text = folder.ok(&["checkpoints", "list", "--lake", "lake"]);
    assert!(text.contains("before") && text.contains("the current positions are not known"), "{text}");
    let shown = folder.json(&["checkpoints", "show", "before", "--lake", "lake"]);
    let end = (assessment(0).len() - 1).to_string();
    assert_eq!(
        (&shown["positions"][0]["shard"], &shown["positions"][0]["position"]),
        (&"a.ndjson".into(), &end.into())
    );
    assert!(folder.exits(2, &["checkpoints", "save", "after", "--lake", "lake"]).contains("_checkpoints.db"));
    folder.ok(&["checkpoints", "delete", "before", "--lake", "lake"]);
    assert!(!folder.path("lake/_checkpoints/before.json").exists());
    assert!(!folder.path("lake/_checkpoints.db").exists(), "a command created a lease table");
}

#[test]
fn the_tables_of_a_template_are_written_checked_and_never_guessed() {
    let folder = Folder::new();
    let (begin, end) =
        ("  # ── Generated by shardlake schema --format cloudformation ──", "  # ── End of the generated part ──");
    let template = |part: &str| format!("Resources:\n  A:\n{begin}\n{part}{end}\n  B:\n");
    folder.write("t.yaml", template(""));
    let into = ["schema", "--format", "cloudformation", "--into", "t.yaml"];
    let check = [&into[..], &["--check"]].concat();
    assert!(folder.exits(1, &check).contains("t.yaml: stale"));
    assert_eq!(fs::read_to_string(folder.path("t.yaml")).unwrap(), template(""), "a check writes nothing");
    assert!(folder.ok(&into).contains("t.yaml: written"));
    let tables = folder.ok(&["schema", "--format", "cloudformation"]);
    assert_eq!(fs::read_to_string(folder.path("t.yaml")).unwrap(), template(&tables));
    assert!(tables.contains("  EventsTable:") && tables.contains("  AssessmentsTable:"), "{tables}");
    assert!(folder.ok(&check).contains("t.yaml: up to date") && folder.ok(&into).contains("t.yaml: up to date"));
    folder.write("t.yaml", "Resources:\n");
    assert!(folder.exits(2, &into).contains("does not have the two comments around a generated part"));
    assert_eq!(fs::read_to_string(folder.path("t.yaml")).unwrap(), "Resources:\n");
    assert!(
        folder.exits(2, &["schema", "--format", "cloudformation", "--into", "none.yaml"]).contains("failed to read")
    );
    assert!(folder.exits(2, &["schema", "events", "--format", "cloudformation"]).contains("leave out the name"));
    assert!(
        folder.exits(2, &["schema", "events", "--into", "t.yaml"]).contains("--into is for --format cloudformation")
    );
    assert!(folder.exits(2, &["schema"]).contains("which dataset? known: events, assessments"));
}
