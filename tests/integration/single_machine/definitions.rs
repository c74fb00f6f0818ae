//! Definitions that change: what a lake accepts, what it refuses before anything is touched, and what `schema` says of both.

use std::collections::BTreeMap;
use std::fs;

use crate::common::folder::Folder;
use crate::single_machine::{CATCH_UP, assessment};

/// The definition of `flows`, with the type of its column `protocol`.
fn flows(protocol: &str) -> String {
    format!(
        "name = \"flows\"\npartition_by = [\"kind\", \"year\"]\nrecognize = {{ present = [\"/n\"] }}\n\
         event_time = {{ pointer = \"/t\", format = \"epoch_ms\" }}\n\
         [[column]]\nname = \"n\"\npointer = \"/n\"\ntype = \"string\"\n\
         [[column]]\nname = \"kind\"\npointer = \"/kind\"\ntype = \"string\"\n\
         [[column]]\nname = \"who\"\npointer = \"/who\"\ntype = \"string\"\nanonymize = {{ rule = \"pseudonym\" }}\n\
         [[column]]\nname = \"protocol\"\npointer = \"/protocol\"\n{protocol}\n"
    )
}

const INT32: &str = "type = \"int32\"";

/// A folder whose lake has rows of `flows` with an int32.
fn with_rows() -> Folder {
    let folder = with_definition(&flows(INT32));
    folder.write("in/a.ndjson", "{\"n\":\"a\",\"kind\":\"x\",\"who\":\"w\",\"t\":1736942400000,\"protocol\":6}\n");
    folder.ok(&CATCH_UP);
    assert_eq!(folder.rows(), 1);
    folder.write("in/b.ndjson", "{\"n\":\"b\",\"kind\":\"x\",\"who\":\"w\",\"t\":1736942400000,\"protocol\":7}\n");
    folder
}

fn with_definition(text: &str) -> Folder {
    let folder = Folder::new();
    folder.write("shardlake.toml", "[[dataset]]\nfile = \"flows.toml\"\n");
    folder.write("flows.toml", text);
    folder
}

/// Every object of the lake with its bytes, without the lease table.
fn objects(folder: &Folder) -> BTreeMap<String, Vec<u8>> {
    let files = folder.files("lake").into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap()));
    files.filter(|(path, _)| !path.contains("_checkpoints.db")).collect()
}

#[test]
fn a_change_that_readers_cannot_unify_is_refused_before_anything_is_touched() {
    let folder = with_rows();
    let before = objects(&folder);
    let partitions = "[\"kind\", \"year\"]";
    for (from, to, part) in [
        (INT32, "type = \"int64\"", "'protocol' is int32 in the lake and int64 in the definition"),
        (INT32, "type = \"string\"", "'protocol' is int32 in the lake and string in the definition"),
        (INT32, "type = \"float64\"", "keep the type, or give the new column or the dataset another name"),
        (INT32, "type = \"timestamp\"\nformat = \"epoch_ms\"", "int32 in the lake and timestamp"),
        (INT32, "type = \"list\"\nelement = \"int32\"", "int32 in the lake and list<int32>"),
        (INT32, "type = \"struct\"\n[[column.field]]\nname = \"p\"\ntype = \"int32\"", "int32 in the lake and struct"),
        (partitions, "[\"kind\"]", "partition_by is kind, year in the lake and kind in the definition"),
        (partitions, "[\"year\", \"kind\"]", "partition_by is kind, year in the lake and year, kind in the definition"),
        (partitions, "[\"kind\", \"year\", \"month\"]", "give the dataset a new name"),
        ("\"/protocol\"", "\"/other\"", "the source of column 'protocol' is /protocol in the lake and /other"),
        ("anonymize = { rule = \"pseudonym\" }", "personal = false", "the form of column 'who' is pseudonyms"),
    ] {
        let text = flows(INT32);
        assert!(text.contains(from));
        folder.write("flows.toml", text.replace(from, to));
        for command in [&CATCH_UP[..], &["config", "check", "--offline", "--source", "in", "--lake", "lake"]] {
            let message = folder.exits(2, command);
            assert!(message.contains(part) && message.contains("dataset 'flows'"), "{command:?}: {message}");
        }
        let check = ["config", "check", "--source", "in", "--lake", "lake", "--json"];
        let check: serde_json::Value = serde_json::from_slice(&folder.run(&check).stdout).unwrap();
        assert!(check["ok"] == false && check["refused"].as_str().unwrap().contains(part), "{check}");
    }
    assert_eq!(objects(&folder), before, "a refused start changes nothing");
    folder.write("flows.toml", flows(INT32));
    folder.ok(&CATCH_UP);
    folder.assert_verified(2);
}

#[test]
fn added_and_removed_columns_and_other_constraints_pass() {
    let folder = with_rows();
    let added = "\n[[column]]\nname = \"more\"\npointer = \"/more\"\ntype = \"string\"\n";
    let wider = flows("type = \"int32\"\nrequired = true\nmin = 0\naccept_text = true") + added;
    folder.write("flows.toml", wider);
    folder.ok(&CATCH_UP);
    assert_eq!(folder.rows(), 2);
    // A column that was removed may come back, but not with another type.
    folder.write("flows.toml", flows(INT32));
    folder.write("in/c.ndjson", "{\"n\":\"c\",\"t\":1736942400000}\n");
    folder.ok(&CATCH_UP);
    folder.write("flows.toml", flows(INT32) + &added.replace("\"string\"", "\"bool\""));
    let message = folder.exits(2, &CATCH_UP);
    assert!(message.contains("'more' is string in the lake and bool in the definition"), "{message}");
    folder.assert_verified(3);
}

#[test]
fn a_dataset_without_rows_may_still_change_in_every_way() {
    let folder = with_definition(&flows("type = \"string\""));
    folder.write("in/a.ndjson", "{\"n\":\"a\",\"t\":1736942400000,\"protocol\":6}\n");
    folder.exits(1, &CATCH_UP);
    assert_eq!(folder.rows(), 0, "it is a dead letter");
    // So is a shipped dataset that is replaced before it has rows.
    folder.write("shardlake.toml", "[[dataset]]\nfile = \"flows.toml\"\n[[dataset]]\nfile = \"users.toml\"\n");
    folder.write(
        "users.toml",
        flows(INT32).replace("\"flows\"", "\"users\"").replace("/n", "/m").replace("who", "user_id"),
    );
    folder.write("flows.toml", flows(INT32).replace("[\"kind\", \"year\"]", "[\"day\"]"));
    folder
        .write("in/b.ndjson", "{\"n\":\"b\",\"t\":1736942400000,\"protocol\":6}\n{\"m\":\"c\",\"t\":1736942400000}\n");
    folder.ok(&CATCH_UP);
    assert_eq!(folder.rows(), 2);
    folder.assert_verified(3);
}

#[test]
fn a_lake_of_an_older_version_refuses_by_its_ids_and_keys() {
    let folder = with_rows();
    fs::remove_dir_all(folder.path("lake/_definitions")).unwrap();
    for changed in [flows("type = \"int64\""), flows(INT32).replace("[\"kind\", \"year\"]", "[\"kind\"]")] {
        folder.write("flows.toml", changed);
        assert!(folder.exits(2, &CATCH_UP).contains("does not fit the files"));
    }
    folder.write("flows.toml", flows(INT32));
    folder.ok(&CATCH_UP);
    assert!(folder.path("lake/_definitions/flows/00000001.json").exists());
}

#[test]
fn another_meaning_is_accepted_once_for_all_workers() {
    let folder = with_rows();
    folder.write("flows.toml", flows(INT32).replace("\"/protocol\"", "\"/other\""));
    assert!(folder.exits(2, &CATCH_UP).contains("--accept-changes"));
    folder.ok(&[&CATCH_UP[..], &["--accept-changes"]].concat());
    folder.ok(&CATCH_UP);
    // A type is never accepted.
    folder.write("flows.toml", flows("type = \"bool\""));
    folder.exits(2, &[&CATCH_UP[..], &["--accept-changes"]].concat());
}

#[test]
fn of_two_workers_that_begin_with_different_definitions_one_is_refused() {
    let folder = Folder::new();
    let run = |protocol: &str| {
        let source = format!("in-{protocol}");
        folder.write(&format!("{protocol}.toml"), flows(&format!("type = \"{protocol}\"")));
        folder.write(&format!("c-{protocol}.toml"), format!("[[dataset]]\nfile = \"{protocol}.toml\"\n"));
        let value = if protocol == "string" { "\"tcp\"" } else { "6" };
        folder.write(
            &format!("{source}/a.ndjson"),
            format!("{{\"n\":\"a\",\"t\":1736942400000,\"protocol\":{value}}}\n"),
        );
        let config = format!("c-{protocol}.toml");
        folder.start(&["--config", &config, "--source", &source, "--lake", "lake", "--until-caught-up"])
    };
    let mut workers = [run("int32"), run("string")];
    let mut codes = [0, 0];
    for (code, worker) in codes.iter_mut().zip(&mut workers) {
        *code = worker.wait(60).code().unwrap();
        assert!(*code == 0 || worker.log().contains("does not fit the files"), "{code}: {}", worker.log());
    }
    codes.sort_unstable();
    assert_eq!((codes, folder.rows()), ([0, 2], 1));
}

#[test]
fn schema_shows_the_differences_to_the_lake_without_a_lease_table() {
    let folder = with_rows();
    for file in ["_checkpoints.db", "_checkpoints.db-wal", "_checkpoints.db-shm"] {
        let _ = fs::remove_file(folder.path("lake").join(file));
    }
    let diff = ["schema", "flows", "--diff", "--lake", "lake"];
    let same = folder.ok(&diff);
    assert!(same.contains("9 columns unchanged; the definition fits the lake's files"), "{same}");
    let added = "\n[[column]]\nname = \"more\"\npointer = \"/more\"\ntype = \"string\"\n";
    folder.write("flows.toml", flows(INT32) + added);
    let text = folder.ok(&diff);
    assert!(text.lines().any(|line| line.starts_with("more") && line.contains("passes")), "{text}");
    folder.write(
        "flows.toml",
        flows("type = \"int64\"").replace("anonymize = { rule = \"pseudonym\" }", "personal = false") + added,
    );
    let text = folder.exits(1, &diff);
    let line = text.lines().find(|line| line.starts_with("protocol")).unwrap();
    assert!(["type", "int32", "int64", "refused", "another name"].iter().all(|part| line.contains(part)), "{text}");
    let json: serde_json::Value =
        serde_json::from_slice(&folder.run(&[&diff[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!((&json["verdict"], &json["has_files"]), (&"refused".into(), &true.into()), "{json}");
    let verdicts: Vec<_> =
        json["changes"].as_array().unwrap().iter().map(|change| (&change["subject"], &change["verdict"])).collect();
    let expected = ["protocol refused", "who needs consent", "more passes"];
    let shown = verdicts
        .iter()
        .map(|(subject, verdict)| format!("{} {}", subject.as_str().unwrap(), verdict.as_str().unwrap()));
    assert!(shown.eq(expected), "{json}");
    assert!(!folder.path("lake/_checkpoints.db").exists(), "a command created a lease table");
    assert!(folder.ok(&["schema", "events", "--diff", "--lake", "lake"]).contains("accepts every definition"));
    assert!(folder.exits(2, &["schema", "flows", "--diff", "--lake", "nowhere"]).contains("there is no lake"));
}

#[test]
fn schemas_and_graphs_of_a_lake_on_s3_need_no_lease_table() {
    let folder = Folder::new();
    let ddl = folder.ok(&["schema", "events", "--lake", "s3://the-lake/a/"]);
    assert!(
        ddl.contains("LOCATION 's3://the-lake/a/processed/events/'\n") && ddl.starts_with("CREATE EXTERNAL"),
        "{ddl}"
    );
    folder.write("shardlake.toml", "[lake]\nurl = \"s3://the-lake\"\n");
    assert!(folder.ok(&["schema", "events", "--format", "glue"]).contains("s3://the-lake/processed/events/"));
    assert!(folder.ok(&["graph"]).contains("validate/events"));
    assert!(folder.exits(2, &["status"]).contains("needs a lease store"));
}

#[test]
fn a_table_at_a_folder_says_that_athena_cannot_reach_it() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    let ddl = folder.ok(&["schema", "events", "--lake", "the lake"]);
    assert!(ddl.starts_with("-- Athena reads s3:// locations only."), "{ddl}");
    let folder_url = format!("LOCATION 'file://{}", fs::canonicalize(folder.root()).unwrap().display());
    assert!(ddl.contains(&folder_url) || ddl.contains("LOCATION 'file:///"), "the path is absolute: {ddl}");
    assert!(folder.exits(0, &["schema", "events", "--format", "glue"]).contains("s3:// locations only"));
}
