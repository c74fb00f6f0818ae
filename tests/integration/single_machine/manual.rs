//! Completions and manual pages are made from the arguments, and are accepted by the programs that read them.

use std::fs;
use std::process::Command;

use crate::common::folder::Folder;

#[test]
fn completions_are_scripts_that_a_shell_accepts_and_know_every_command() {
    let folder = Folder::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = folder.ok(&["completions", shell]);
        for word in ["deadletters", "redrive", "until-caught-up"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
        folder.write(&format!("completions.{shell}"), &script);
    }
    let checked = Command::new("bash").arg("-n").arg(folder.path("completions.bash")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    folder.exits(2, &["completions", "csh"]);
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let folder = Folder::new();
    let page = folder.ok(&["man"]);
    assert!(
        page.starts_with(".ie") && page.contains(".TH shardlake 1") && page.contains("shardlake\\-deadletters(1)"),
        "{page}"
    );
    folder.ok(&["man", "--out", "pages"]);
    let names: Vec<String> = fs::read_dir(folder.path("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["shardlake.1", "shardlake-run.1", "shardlake-replay-promote.1", "shardlake-doctor.1"] {
        assert!(names.iter().any(|found| found == name), "{names:?} lacks {name}");
    }
    let replay = fs::read_to_string(folder.path("pages/shardlake-replay-promote.1")).unwrap();
    assert!(replay.contains("shardlake\\-replay\\-promote") && replay.contains("accept"), "{replay}");
}
