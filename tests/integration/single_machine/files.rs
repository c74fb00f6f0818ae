//! Files that rotate, are still being written, are not read or are removed: what a run and the other commands say, and its exit code.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::common::folder::Folder;
use crate::common::{gzip, pause, wait_for};
use crate::single_machine::{CATCH_UP, assessment};

const FOLLOW: [&str; 6] = ["--source", "in", "--lake", "lake", "--commit-interval", "500ms"];

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(assessment).collect()
}

impl Folder {
    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Sets the time of a file's last change to this long ago.
    fn set_age(&self, name: &str, seconds: u64) {
        let modified = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(self.path(name)).unwrap().set_modified(modified).unwrap();
    }
}

#[test]
fn a_log_that_is_rotated_while_a_worker_follows_it_loses_and_doubles_nothing() {
    for copy_truncate in [false, true] {
        let folder = Folder::new();
        folder.write("in/app.ndjson", lines(0..6));
        let worker = folder.start(&FOLLOW);
        wait_for("the first rows", 60, || folder.rows() == 6);
        if copy_truncate {
            fs::copy(folder.path("in/app.ndjson"), folder.path("app.ndjson.1")).unwrap();
            folder.write("in/app.ndjson", "");
            pause(300);
        } else {
            folder.rename("in/app.ndjson", "app.ndjson.1");
        }
        folder.write("in/app.ndjson", lines(20..23));
        wait_for("the rows of the new file", 60, || folder.rows() == 9);
        folder.append("in/app.ndjson", &lines(23..28));
        wait_for("the rows that were appended", 60, || folder.rows() == 14);
        worker.stop();
        let summary = folder.json(&CATCH_UP);
        assert_eq!((&summary["records"], &summary["ok"]), (&0.into(), &true.into()), "{summary}");
        folder.assert_verified(14);
    }
}

#[test]
fn a_compressed_file_that_arrives_slowly_is_read_whole() {
    let folder = Folder::new();
    folder.write("in/first.ndjson", lines(0..1));
    let worker = folder.start(&FOLLOW);
    wait_for("the first row", 60, || folder.rows() == 1);
    let whole = gzip(lines(1..2_001).as_bytes());
    for part in 0..4 {
        let bytes = &whole[whole.len() * part / 4..whole.len() * (part + 1) / 4];
        let mut file = File::options().create(true).append(true).open(folder.path("in/slow.ndjson.gz")).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        // In one case longer than a file takes to settle.
        pause(if part == 1 { 5_000 } else { 500 });
    }
    wait_for("all rows", 60, || folder.rows() == 2_001);
    let summary = worker.stop();
    assert_eq!(summary["dead_letters"], serde_json::json!({}), "{summary}");
    folder.assert_verified(2_001);
}

#[test]
fn what_is_half_written_stays_unread_and_a_run_says_so() {
    let folder = Folder::new();
    let half = assessment(9);
    folder.write("in/live.ndjson", lines(0..2) + &half[..30]);
    folder.write("in/doc.json", &half[..40]);
    folder.write("in/whole.ndjson", half.trim_end().replace("a9", "b9"));
    let text = folder.ok(&CATCH_UP);
    for name in ["live.ndjson", "doc.json"] {
        assert!(text.contains(&format!("not read: {name}: ")), "{name}: {text}");
    }
    assert!(!text.contains("dead letters"), "{text}");
    let message = folder.exits(1, &[&CATCH_UP[..], &["--fail-on", "unread"]].concat());
    assert!(message.contains("2 files not read to the end"), "{message}");
    folder.append("in/live.ndjson", &half[30..]);
    folder.append("in/doc.json", &half[40..].replace("a9", "c9"));
    let summary = folder.json(&[&CATCH_UP[..], &["--fail-on", "dead-letters,unread"]].concat());
    assert_eq!(summary["dead_letters"], serde_json::json!({}), "{summary}");
    assert_eq!(folder.rows(), 2 + 3);
    folder.assert_verified(5);
}

#[test]
fn names_that_are_not_read_are_reported_and_a_source_without_files_fails() {
    let folder = Folder::new();
    folder.write("in/a.log", lines(0..1));
    folder.write("in/b.log", lines(0..1));
    let message = folder.exits(1, &CATCH_UP);
    assert!(message.contains("2 files are not read because of the endings of their names: .log (2)"), "{message}");
    assert!(message.contains("has no file that is read"), "{message}");
    // As Firehose names what it delivers.
    folder.write("in/pinpoint-fh-6-2025-07-08-18-40-00-0a1b2c3d", lines(0..3));
    let summary = folder.json(&CATCH_UP);
    assert_eq!((&summary["records"], &summary["names_not_read"][".log"]), (&3.into(), &2.into()), "{summary}");
    folder.exits(1, &[&CATCH_UP[..], &["--fail-on", "unread"]].concat());
}

#[test]
fn a_run_whose_records_all_became_dead_letters_fails() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", "not json\n{}\n");
    let message = folder.exits(1, &CATCH_UP);
    assert!(message.contains("every record became a dead letter"), "{message}");
    folder.ok(&CATCH_UP);
    folder.append("in/a.ndjson", &(lines(0..1) + "not json\n"));
    folder.exits(1, &[&CATCH_UP[..], &["--fail-on", "dead-letters"]].concat());
    folder.append("in/a.ndjson", &(lines(1..2) + "not json\n"));
    folder.ok(&CATCH_UP);
}

#[test]
fn removing_what_was_read_is_not_a_failure() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", lines(0..1));
    folder.write("in/b.ndjson.gz", gzip(lines(1..2).as_bytes()));
    folder.write("in/c.json", lines(2..3));
    folder.write("in/sub/d.json", lines(3..4));
    folder.ok(&CATCH_UP);
    for name in ["in/a.ndjson", "in/b.ndjson.gz", "in/c.json"] {
        fs::remove_file(folder.path(name)).unwrap();
    }
    fs::remove_dir_all(folder.path("in/sub")).unwrap();
    for _ in 0..2 {
        folder.ok(&CATCH_UP);
    }
    assert!(!folder.ok(&["status", "--lake", "lake"]).contains('?'));
    folder.assert_verified(4);
}

#[test]
fn a_loss_is_reported_once_by_a_run_and_by_verify_until_it_is_accepted() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", lines(0..100));
    folder.write("in/b.ndjson", lines(0..1));
    // Its shard is known, and nothing of it is committed.
    let worker = folder.start(&["--source", "in", "--lake", "lake", "--commit-interval", "1h"]);
    wait_for("the shards to be held", 60, || folder.holders().len() == 2);
    worker.kill();
    fs::remove_file(folder.path("in/a.ndjson")).unwrap();
    let message = folder.exits(1, &CATCH_UP);
    assert!(message.contains("DATA LOSS: the file is gone"), "{message}");
    assert_eq!(folder.rows(), 1, "its neighbour is read");
    folder.ok(&CATCH_UP);
    for command in [&["verify", "--lake", "lake"][..], &["verify", "--quick", "--lake", "lake"]] {
        assert!(folder.exits(1, command).contains("loss: shard a.ndjson"), "{command:?}");
    }
    assert!(folder.ok(&["status", "--lake", "lake"]).contains("loss: shard a.ndjson"));
    assert!(folder.exits(1, &["losses", "list", "--lake", "lake"]).contains("a.ndjson"));
    folder.ok(&["losses", "accept", "a.ndjson", "--lake", "lake"]);
    folder.exits(2, &["losses", "accept", "a.ndjson", "--lake", "lake"]);
    assert!(folder.ok(&["losses", "list", "--lake", "lake"]).contains("accepted"));
    assert!(folder.ok(&["verify", "--lake", "lake"]).contains("1 loss in sources accepted"));
}

#[test]
fn a_file_that_was_cut_fails_every_run_until_somebody_decides() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", lines(0..10));
    folder.ok(&CATCH_UP);
    folder.write("in/a.ndjson", lines(0..4));
    for _ in 0..2 {
        let message = folder.exits(1, &CATCH_UP);
        assert!(message.contains("losses accept 'a.ndjson' --then start"), "{message}");
        folder.append("in/a.ndjson", &lines(20..30));
    }
    let message = folder.exits(2, &["losses", "accept", "a.ndjson", "--lake", "lake"]);
    assert!(message.contains("--then start"), "{message}");
    folder.ok(&["losses", "accept", "a.ndjson", "--then", "start", "--lake", "lake"]);
    folder.ok(&CATCH_UP);
    folder.ok(&CATCH_UP);
    assert_eq!(folder.rows(), 10 + 4 + 20);
}

#[test]
fn a_backfill_of_old_files_lands_and_arrives_when_it_is_read() {
    let folder = Folder::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    folder.write("in/epoch.ndjson", lines(0..3) + "not json\n");
    folder.set_age("in/epoch.ndjson", now);
    folder.write("in/old.ndjson", lines(3..5) + "not json\n");
    // 2024-01-01; the records are of 2025.
    folder.set_age("in/old.ndjson", now - 1_704_067_200);
    folder.write("in/old.json", lines(5..6));
    folder.set_age("in/old.json", now - 1_704_067_200);
    let summary = folder.json(&CATCH_UP);
    assert_eq!((&summary["rows"]["assessments"], folder.rows()), (&6.into(), 6), "{summary}");
    let year = |below: &str| -> Vec<String> {
        let mut years: Vec<String> = folder
            .files(below)
            .iter()
            .map(|path| path.to_string_lossy().split("/year=").nth(1).unwrap()[..4].to_owned())
            .collect();
        years.dedup();
        years
    };
    for below in ["lake/raw", "lake/error"] {
        let years = year(below);
        assert!(!years.is_empty() && years.iter().all(|year| year.as_str() > "2024"), "{below}: {years:?}");
    }
    // A plausible time is believed, unless the source says otherwise.
    folder.write("in/recent.ndjson", lines(6..7));
    folder.set_age("in/recent.ndjson", now - 1_750_000_000);
    folder.ok(&CATCH_UP);
    assert!(folder.files("lake/raw").iter().any(|path| path.to_string_lossy().contains("year=2025/month=06/day=15")));
    folder.write("in/recent2.ndjson", lines(7..8));
    folder.set_age("in/recent2.ndjson", now - 1_750_100_000);
    folder.write("shardlake.toml", "[[source]]\nurl = \"in\"\narrival = \"now\"\n[lake]\nurl = \"lake\"\n");
    folder.ok(&["run", "--until-caught-up"]);
    assert_eq!(folder.rows(), 8);
    assert!(!folder.files("lake/raw").iter().any(|path| path.to_string_lossy().contains("month=06/day=16")));
}
