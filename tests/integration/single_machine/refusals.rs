//! Wrong flags and wrong configuration: exit code 2, a message that says what to do, and nothing touched.

use std::fs;

use crate::common::folder::Folder;
use crate::single_machine::{CATCH_UP, assessment};

#[test]
fn a_lake_refuses_another_pseudonym_key() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    folder.ok(&CATCH_UP);
    folder.write("other.key", "0123456789abcdef0123456789abcdef");
    folder.write("shardlake.toml", "[anonymize]\nkey = \"file:other.key\"\n");
    let message = folder.exits(2, &CATCH_UP);
    assert!(message.contains("another pseudonym key"), "{message}");
    assert!(!message.contains("0123456789abcdef"), "the message contains the key: {message}");
}

#[test]
fn all_problems_of_a_configuration_are_reported_and_nothing_is_touched() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    folder.write(
        "shardlake.toml",
        "[commit]\nintervall = \"5m\"\n[limits]\nmemory = \"lots\"\n[raw]\ncodec = \"brotli\"\n[[dataset]]\nfile = \"none.toml\"\n",
    );
    let message = folder.exits(2, &CATCH_UP);
    for part in ["intervall", "did you mean 'interval'", "invalid size 'lots'", "brotli"] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    assert!(!folder.path("lake").exists() && !folder.path("lake.pseudonym.key").exists());
}

#[test]
fn a_personal_column_without_a_rule_is_refused_before_anything_is_read() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", "{\"id\":1,\"t\":1736942400000,\"contactEmail\":\"a@example.com\"}\n");
    folder.write("shardlake.toml", "[[dataset]]\nfile = \"people.toml\"\n");
    folder.write(
        "people.toml",
        "name = \"people\"\n[[recognize]]\npresent = [\"/id\"]\n[event_time]\npointer = \"/t\"\nformat = \"epoch_ms\"\n\
         [[column]]\nname = \"contact\"\npointer = \"/contactEmail\"\ntype = \"string\"\n",
    );
    let message = folder.exits(2, &CATCH_UP);
    assert!(
        message.contains("people.toml") && message.contains("'contact' (/contactEmail) looks like an e-mail address"),
        "{message}"
    );
    assert!(!folder.path("lake").exists());
}

#[test]
fn invalid_flags_and_paths_exit_with_code_2() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    for (args, part) in [
        (vec!["run", "--source", "nowhere", "--until-caught-up"], "no such file or folder"),
        (vec!["run", "--source", "in", "--lake", "in/lake", "--until-caught-up"], "would read its own output"),
        (vec!["run", "--source", "in", "--memory", "1 MiB", "--until-caught-up"], "memory"),
        (vec!["run", "--source", "in", "--raw", "brotli", "--until-caught-up"], "brotli"),
        (vec!["run", "--untl-caught-up"], "--until-caught-up"),
        (vec!["verify", "--lake", "nowhere"], "nowhere"),
        (vec!["schema", "event"], "events"),
        (vec!["frobnicate"], "frobnicate"),
    ] {
        let message = folder.exits(2, &args);
        assert!(message.contains(part), "{args:?}: {part} is missing in {message}");
    }
    assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 1, "a command created something");
}
