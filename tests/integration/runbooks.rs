//! `docs/runbooks.md` has a section for each alert, and its commands are those of the program.
//!
//! Every line `shardlake …` of a code block is run in a lake of samples. It may find faults (exit code 1) but must not be wrong usage.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::folder::Folder;

fn text(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The commands in the code blocks of a page, without the name of the program, each once.
fn commands(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_code = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_code = line == "```sh";
        } else if is_code && let Some(command) = line.strip_prefix("shardlake ") {
            found.insert(command.split(" #").next().unwrap_or(command).trim().to_owned());
        }
    }
    found
}

#[test]
fn each_alert_has_a_runbook_with_commands_and_no_runbook_is_left_over() {
    let rules = text("deploy/alerts.yaml");
    let alerts: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let page = text("docs/runbooks.md");
    let sections: Vec<(&str, &str)> =
        page.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    assert_eq!(sections.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), alerts);
    for (name, section) in sections {
        for part in ["**Means**", "```sh", "**Over**"] {
            assert!(section.contains(part), "{name} lacks {part}");
        }
    }
}

#[test]
fn the_commands_of_the_runbooks_are_accepted_by_the_program() {
    let folder = Folder::new();
    folder.ok(&["produce", "--to", "in", "--count", "2000", "--bad-ratio", "0.05"]);
    folder.write("shardlake.toml", "[[source]]\nurl = \"in\"\n[lake]\nurl = \"lake\"\n");
    folder.ok(&["run", "--until-caught-up"]);
    let status = folder.json(&["status"]);
    let shard = status["shards"][0]["shard"].as_str().unwrap().to_owned();
    let commands = commands(&text("docs/runbooks.md"));
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let command = command.replace("shardId-000000000003", &shard);
        let args: Vec<&str> = command.split_whitespace().collect();
        let output = folder.run(&args);
        let errors = String::from_utf8_lossy(&output.stderr);
        // The shard has no holder here, which the program reports as wrong usage.
        let has_no_holder = args.starts_with(&["leases", "evict"]) && !errors.contains("unexpected argument");
        assert!(matches!(output.status.code(), Some(0 | 1)) || has_no_holder, "shardlake {command}: {errors}");
    }
}
