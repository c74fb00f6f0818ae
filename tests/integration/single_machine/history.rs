//! What reads the lake log: `log`, `status --at`, `deadletters list --at`, `verify` and `verify --at`, on a lake of many commits.
//!
//! The lake is made without a worker (`inspect::sample_lake`). `a_lake_of_100000_commits` measures; it is run by its name, see
//! docs/benchmarks.md.

use std::fs;
use std::path::Path;
use std::time::Instant;

use checkpoints::{LeaseStore, SqliteStore};
use pipeline::layout;
use serde_json::Value;
use shardlake::commit::Stores;
use shardlake::commit::lake_log::write_snapshot;
use shardlake::commit::log::{RollUpConfig, roll_up};
use shardlake::inspect::sample_lake::SampleLake;
use shardlake::lake::LocalStore;
use shardlake::retry::RetryPolicy;

use crate::common::folder::Folder;
use crate::single_machine::{CATCH_UP, assessment};

/// How a lake is made.
struct Size {
    commits: u64,
    shards: usize,
    files: u64,
}

impl Folder {
    /// Makes a lake with its lease table, its roll-up, and a snapshot of its log after each `snapshot_every` versions.
    fn make_lake(&self, size: &Size, snapshot_every: u64) {
        // The worker makes what identifies a lake, and finds nothing to read.
        fs::create_dir_all(self.path("empty")).unwrap();
        self.exits(1, &["run", "--source", "empty", "--lake", "lake", "--until-caught-up"]);
        let root = self.path("lake");
        let write = |key: &str, bytes: &[u8]| {
            let path = root.join(key);
            if fs::write(&path, bytes).is_err() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, bytes).unwrap();
            }
        };
        // By this object the lake knows the stream as its own.
        write(&layout::stream_start("orders"), b"{}");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut sample = SampleLake::new(size.shards, |key, bytes| write(key.as_str(), &bytes));
        let open = |root: &Path| {
            let (lake, database) = (root.to_owned(), root.join("_checkpoints.db"));
            async move {
                let lake = LocalStore::open(&lake).unwrap();
                let leases = SqliteStore::open(database).await.unwrap();
                (std::sync::Arc::new(lake), std::sync::Arc::new(leases))
            }
        };
        for commit in 1..=size.commits {
            sample.commit(size.files);
            if commit % snapshot_every == 0 {
                runtime.block_on(async {
                    let (lake, leases) = open(&root).await;
                    let stores = Stores::new(lake, leases, RetryPolicy::NONE);
                    write_snapshot(&stores, &format!("w-{commit}"), 1).await.unwrap();
                });
            }
        }
        let rows = sample.rows();
        runtime.block_on(async {
            let (lake, leases) = open(&root).await;
            leases.create(&rows).await.unwrap();
            let stores = Stores::new(lake, leases, RetryPolicy::NONE).with_streams([SampleLake::key(0).stream]);
            roll_up(&stores, RollUpConfig { every: 1, ..RollUpConfig::default() }).await.unwrap();
        });
    }

    /// The versions that `log` shows.
    fn versions(&self, args: &[&str]) -> Vec<u64> {
        let printed = self.ok(&[&["log", "--lake", "lake", "--json"], args].concat());
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["version"].as_u64().unwrap();
        printed.lines().map(line).collect()
    }
}

#[test]
fn a_lake_is_shown_as_it_was_at_each_version_and_time() {
    let folder = Folder::new();
    folder.make_lake(&Size { commits: 60, shards: 2, files: 5 }, 25);
    assert_eq!(folder.versions(&[]), (41..=60).rev().collect::<Vec<u64>>());
    assert_eq!(folder.versions(&["--limit", "100"]).len(), 60);
    assert_eq!(folder.versions(&["--since", "55"]), [60, 59, 58, 57, 56, 55]);
    assert_eq!(folder.versions(&["--until", "3", "--since", "2"]), [3, 2]);
    assert_eq!(folder.versions(&["--dataset", "users", "--limit", "2"]), [60, 59]);
    assert_eq!(folder.versions(&["--dataset", "assessments"]), [0; 0]);
    // Version 3 was entered three minutes after the beginning.
    assert_eq!(folder.versions(&["--until", "2025-01-13T10:33:00Z"]), [3, 2, 1]);
    assert_eq!(folder.versions(&["--until", "2025-01-13T10:32:59Z"]), [2, 1]);
    assert_eq!(folder.versions(&["--since", "2025-01-13T11:29:00Z"]), [60, 59]);
    let text = folder.ok(&["log", "--lake", "lake", "--limit", "3"]);
    assert!(text.contains("version") && text.contains("2025-01-13 11:30:00") && text.contains("+7"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    let shown = folder.ok(&["log", "show", "7", "--lake", "lake"]);
    assert!(shown.contains("version 7, entered at 2025-01-13T10:37:00.000Z"), "{shown}");
    assert!(shown.contains("shard-1") && shown.contains("processed/users/year=2025/month=01/day=05"), "{shown}");
    let json = folder.json(&["log", "show", "7", "--lake", "lake"]);
    assert_eq!((&json["version"], json["added"].as_array().unwrap().len()), (&7.into(), 7));

    for version in [0, 1, 24, 25, 26, 60] {
        let name = version.to_string();
        let status = folder.json(&["status", "--lake", "lake", "--at", &name]);
        assert_eq!((&status["epochs"], &status["version"]), (&version.into(), &version.into()), "{status}");
        assert_eq!(status["totals"]["records"], 20 * version);
        let verified = folder.json(&["verify", "--lake", "lake", "--at", &name]);
        assert_eq!((&verified["clean"], &verified["objects"]), (&true.into(), &(7 * version).into()), "{verified}");
        let dead = folder.json(&["deadletters", "list", "--lake", "lake", "--at", &name]);
        assert_eq!(
            dead["deadLetters"].as_array().unwrap().first().map(|group| &group["records"]),
            (version > 0).then_some(&version.into())
        );
    }
    let status = folder.json(&["status", "--lake", "lake"]);
    let before = folder.json(&["status", "--lake", "lake", "--at", "2025-01-13T11:29:59Z"]);
    assert_eq!((&before["version"], &before["entered_at"]), (&59.into(), &"2025-01-13T11:29:00.000Z".into()));
    for (status, time) in [(&status, "2025-01-13T11:29:58.000Z"), (&before, "2025-01-13T11:28:58.000Z")] {
        let watermark = &status["watermarks"][0];
        assert_eq!((&watermark["dataset"], &watermark["complete_through"]), (&"events".into(), &time.into()));
        assert_eq!(
            watermark["held_back_by"]["shard"], "shard-1",
            "it was read two seconds less far than the other one"
        );
    }
    let text = folder.ok(&["status", "--lake", "lake"]);
    assert!(text.contains("complete up to") && text.contains("shard-1 of orders"), "{text}");

    let report = folder.json(&["verify", "--lake", "lake"]);
    assert_eq!((&report["clean"], &report["log_version"], &report["snapshots"]), (&true.into(), &60.into(), &2.into()));
    assert_eq!(folder.json(&["verify", "--lake", "lake", "--quick"])["clean"], true);
    // Names that nobody knows, in the folder of the log.
    folder.write("lake/_log/later.json", "?");
    folder.write("lake/_log/snapshots/later/1.json", "?");
    assert_eq!(folder.json(&["verify", "--lake", "lake"])["clean"], true);

    for wrong in [
        ["status", "--at", "61"],
        ["status", "--at", "yesterday"],
        ["log", "--until", "2025-13-01"],
        ["verify", "--at", "-"],
    ] {
        let refused = folder.exits(2, &[&wrong[..], &["--lake", "lake"]].concat());
        assert!(refused.contains("version"), "{wrong:?}: {refused}");
    }
    assert!(folder.exits(2, &["log", "show", "61", "--lake", "lake"]).contains("has no version 61"));
    // A file of the log that was changed, and one that is missing.
    let entry = folder.path("lake/_log/00000000000000000058.json");
    let kept = fs::read_to_string(&entry).unwrap();
    fs::write(&entry, kept.replace("\"records\":20", "\"records\":21")).unwrap();
    let report = folder.exits(1, &["verify", "--lake", "lake"]);
    assert!(report.contains("version 58 differs from the commit record"), "{report}");
    assert!(report.contains("version 59 does not follow the version before it"), "{report}");
    fs::remove_file(&entry).unwrap();
    let report = folder.exits(1, &["verify", "--lake", "lake"]);
    assert!(report.contains("the versions between 57 and 59 are missing"), "{report}");
    let refused = folder.exits(1, &["status", "--at", "60", "--lake", "lake"]);
    assert!(refused.contains("version 58 of the lake log is missing"), "{refused}");
}

#[test]
fn what_workers_commit_is_in_the_log_and_shown_as_it_was_before_the_next_run() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..50).map(assessment).collect::<String>());
    folder.ok(&CATCH_UP);
    let first = folder.versions(&[]);
    assert_eq!(first, (1..=first.len() as u64).rev().collect::<Vec<u64>>());
    assert!(!first.is_empty());
    folder.write("in/b.ndjson", (50..80).map(assessment).chain(["not JSON\n".to_owned()]).collect::<String>());
    folder.ok(&CATCH_UP);
    let both = folder.versions(&[]);
    assert!(both.len() > first.len(), "{both:?}");
    let (before, now) = (first[0].to_string(), both[0].to_string());
    for (version, records, dead_letters) in [("0", 0, 0), (&*before, 50, 0), (&*now, 81, 1)] {
        let status = folder.json(&["status", "--lake", "lake", "--at", version]);
        assert_eq!(status["totals"]["records"], records, "{status}");
        let dead = folder.json(&["deadletters", "list", "--lake", "lake", "--at", version]);
        assert_eq!(dead["deadLetters"].as_array().unwrap().len(), dead_letters);
        assert_eq!(folder.json(&["verify", "--lake", "lake", "--at", version])["clean"], true);
    }
    let report = folder.json(&["verify", "--lake", "lake"]);
    assert_eq!((&report["clean"], &report["log_version"]), (&true.into(), &both[0].into()), "{report}");
    // Files have no watermark.
    let status = folder.json(&["status", "--lake", "lake"]);
    assert_eq!(
        (&status["watermarks"][0]["dataset"], &status["watermarks"][0]["state"]),
        (&"assessments".into(), &"unknown".into())
    );
    // Whoever deletes the log of a lake is reported.
    for entry in folder.files("lake/_log") {
        fs::remove_file(entry).unwrap();
    }
    let report = folder.exits(1, &["verify", "--lake", "lake"]);
    assert!(report.contains("is committed, and no version has it"), "{report}");
}

/// The time of a command in milliseconds, and the most memory that it had in MiB.
fn measured(folder: &Folder, args: &[&str]) -> (u128, u64) {
    let begun = Instant::now();
    let mut child = folder.command(args).stdout(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let code = loop {
        if let Ok(text) = fs::read_to_string(&status)
            && let Some(line) = text.lines().find(|line| line.starts_with("VmHWM"))
        {
            most = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(most);
        }
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        crate::common::pause(2);
    };
    assert!(code.success(), "{args:?}");
    (begun.elapsed().as_millis(), most / 1024)
}

#[test]
#[ignore = "it takes minutes: a measurement, not a test"]
fn a_lake_of_100000_commits() {
    let number = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let commits = number("COMMITS", 100_000);
    let folder = Folder::new();
    folder.make_lake(&Size { commits, shards: 4, files: number("FILES", 0) }, number("SNAPSHOT_EVERY", 1_000));
    let middle = (commits / 2 + 1).to_string();
    for args in [
        vec!["status"],
        vec!["deadletters", "list"],
        vec!["status", "--at", &middle],
        vec!["log"],
        vec!["log", "--until", "2025-01-20"],
        vec!["log", "--limit", "1000000", "--json"],
        vec!["verify", "--quick"],
        vec!["verify"],
        vec!["verify", "--at", &middle],
    ] {
        let all = [&args[..], &["--lake", "lake"]].concat();
        let (ms, mib) = measured(&folder, &all);
        println!("{commits} commits: {}: {ms} ms, {mib} MiB", args.join(" "));
    }
}
