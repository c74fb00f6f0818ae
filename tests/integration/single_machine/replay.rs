//! Replays of files: planned, run aside beside live workers, killed, paused, cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::{pause, wait_for};
use crate::single_machine::{CATCH_UP, assessment};

/// Flags of every `replay` command.
const LAKE: [&str; 2] = ["--lake", "lake"];
/// The first identity of a row: stream, shard, sequence number, sub-sequence number.
type Identity = (String, String, String, i64);

/// How often each identity occurs in the rows below a folder.
fn identities(folder: &Folder, below: &str) -> BTreeMap<Identity, u64> {
    let mut found = BTreeMap::new();
    for path in folder.files(below).iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")) {
        for identity in identities_of(path) {
            *found.entry(identity).or_default() += 1;
        }
    }
    found
}

fn identities_of(path: &Path) -> Vec<Identity> {
    let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let rows = file.get_row_iter(None).unwrap().map(Result::unwrap);
    let identity = |row: parquet::record::Row| {
        let fields: BTreeMap<&String, &Field> = row.get_column_iter().collect();
        let text = |name: &str| match fields[&name.to_owned()] {
            Field::Str(text) => text.clone(),
            other => panic!("{name} is {other}"),
        };
        let Field::Long(sub) = fields[&"ingest_subsequence".to_owned()] else { panic!("it is a number") };
        (text("ingest_stream"), text("ingest_shard"), text("ingest_sequence"), *sub)
    };
    rows.map(identity).collect()
}

impl Folder {
    /// Plans a replay of everything from here on: the plan.
    fn plan(&self, from: &str) -> Value {
        self.json(&[&["replay", "plan", "--source", "in", "--from", from][..], &LAKE].concat())
    }

    /// A `replay` command on a replay, which must succeed: what it printed, parsed.
    fn replay(&self, command: &str, id: &str) -> Value {
        self.json(&[&["replay", command, id][..], &LAKE].concat())
    }

    /// Runs a replay to its end: its summary.
    fn complete(&self, id: &str) -> Value {
        let summary = self.json(&[&["replay", "start", id, "--source", "in"][..], &LAKE].concat());
        assert_eq!(summary["ended"], "complete", "{summary}");
        summary
    }

    /// Starts a process of a replay in the background.
    fn start_replay(&self, id: &str, flags: &[&str]) -> Child {
        let args = [&["replay", "start", id, "--source", "in", "--json"][..], &LAKE, flags].concat();
        self.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn aside(&self, id: &str) -> String {
        format!("lake/_replays/{id}/lake/processed")
    }
}

fn id_of(plan: &Value) -> String {
    plan["id"].as_str().unwrap().to_owned()
}

fn epochs_of(plan: &Value) -> usize {
    plan["epochs"].as_array().unwrap().len()
}

#[test]
fn what_came_after_a_checkpoint_is_processed_again_aside_with_the_first_identities() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..40).map(assessment).collect::<String>());
    folder.write("in/year=2025/x.json", assessment(100));
    folder.ok(&CATCH_UP);
    folder.ok(&["checkpoints", "save", "before", "--lake", "lake"]);
    let before = identities(&folder, "lake/processed");
    folder.append("in/a.ndjson", &(40..70).map(assessment).collect::<String>());
    folder.append("in/a.ndjson", "{\"id\":\"broken\n");
    folder.write("in/year=2025/y.json", assessment(101));
    folder.ok(&CATCH_UP);

    let plan = folder.plan("checkpoint:before");
    let id = id_of(&plan);
    assert_eq!((&plan["totals"]["records"], &plan["totals"]["dead_letters"]), (&32.into(), &1.into()), "{plan}");
    assert_eq!((epochs_of(&plan), &plan["totals"]["rows"]["assessments"]), (1, &31.into()), "{plan}");
    assert_eq!(folder.replay("status", &id)["state"], "planned");
    let text = folder.ok(&[&["replay", "plan", "--source", "in", "--from", "checkpoint:before"][..], &LAKE].concat());
    assert!(text.lines().all(|line| line.chars().count() <= 120), "it fits a terminal:\n{text}");
    assert!(text.contains("the same rows will be made again"), "{text}");

    let summary = folder.complete(&id);
    assert_eq!((&summary["records_done"], &summary["rows"]["assessments"]), (&32.into(), &31.into()), "{summary}");
    let mut expected = identities(&folder, "lake/processed");
    expected.retain(|identity, _| !before.contains_key(identity));
    assert_eq!(expected.len(), 31);
    assert_eq!(identities(&folder, &folder.aside(&id)), expected);
    assert_eq!(folder.replay("status", &id[..3])["state"], "complete");
    folder.assert_verified(73);

    // Again, nothing is left to do. From the beginning, both epochs are.
    assert_eq!(folder.complete(&id)["records_done"], 32);
    let all = folder.plan("trim-horizon");
    assert_eq!((epochs_of(&all), &all["totals"]["records"]), (2, &73.into()));
    let summary = folder.complete(&id_of(&all));
    assert_eq!((&summary["records_done"], &summary["rows"]["assessments"]), (&73.into(), &72.into()), "{summary}");
    assert_eq!(identities(&folder, &folder.aside(&id_of(&all))), identities(&folder, "lake/processed"));
    let list = folder.json(&["replay", "list", "--lake", "lake"]);
    let states: BTreeSet<&str> =
        list["replays"].as_array().unwrap().iter().map(|replay| replay["state"].as_str().unwrap()).collect();
    assert_eq!(states, BTreeSet::from(["complete", "planned"]));
}

#[test]
fn a_replay_that_is_killed_again_and_again_makes_every_row_once_beside_a_live_worker() {
    let folder = Folder::new();
    folder.write("shardlake.toml", "[commit]\ninterval = \"300ms\"\n[limits]\nthreads = 1\n");
    for file in 0..6 {
        let lines: String = (0..3_000).map(|line| assessment(file * 10_000 + line)).collect();
        folder.write(&format!("in/{file}.ndjson"), lines);
    }
    folder.ok(&CATCH_UP);
    let expected = identities(&folder, "lake/processed");
    let plan = folder.plan("trim-horizon");
    let id = id_of(&plan);
    folder.write("in/live.ndjson", assessment(90_100));
    let live = folder.start(&["--source", "in", "--lake", "lake"]);
    let (mut written, mut killed_at) = (18_001, 0);
    for kill in 0..20 {
        // Two processes at once, every other time.
        let mut processes = vec![folder.start_replay(&id, &["--rate", "0.15", "--workers", "2"])];
        if kill % 2 == 1 {
            processes.push(folder.start_replay(&id, &["--rate", "0.15"]));
        }
        folder.append("in/live.ndjson", &assessment(90_000 + kill));
        written += 1;
        pause(400 + 137 * (kill as u64 % 5));
        for process in &mut processes {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let done = folder.replay("status", &id)["records_done"].as_u64().unwrap();
        killed_at += u64::from((1..18_000).contains(&done));
    }
    let summary = folder.complete(&id);
    assert_eq!(summary["records_done"], 18_000, "{summary}");
    assert_eq!(identities(&folder, &folder.aside(&id)), expected);
    assert!(expected.values().all(|count| *count == 1) && expected.len() == 18_000);
    assert!(killed_at > 0, "a kill hit the replay while it had committed some of it");
    wait_for("the rows of the live worker", 60, || folder.rows() >= written);
    live.stop();
    folder.assert_verified(written);
}

#[test]
fn a_replay_is_paused_resumed_and_cancelled_from_elsewhere() {
    let folder = Folder::new();
    folder.write("shardlake.toml", "[commit]\ninterval = \"300ms\"\n[limits]\nthreads = 1\n");
    for file in 0..4 {
        let lines: String = (0..4_000).map(|line| assessment(file * 10_000 + line)).collect();
        folder.write(&format!("in/{file}.ndjson"), lines);
    }
    folder.ok(&CATCH_UP);
    let plan = folder.plan("trim-horizon");
    let id = id_of(&plan);
    let state = || folder.replay("status", &id)["state"].as_str().unwrap().to_owned();
    let done = || folder.replay("status", &id)["records_done"].as_u64().unwrap();
    let mut process = folder.start_replay(&id, &["--rate", "0.2"]);
    wait_for("a commit of the replay", 60, || done() > 0);
    assert_eq!(state(), "running");
    folder.replay("pause", &id);
    wait_for("the workers to stop", 30, || folder.replay("status", &id)["workers"] == Value::Array(Vec::new()));
    let at_pause = done();
    pause(1_500);
    assert_eq!((state().as_str(), done()), ("paused", at_pause));
    folder.replay("resume", &id);
    wait_for("more to be read", 60, || done() > at_pause);

    let refused = folder.exits(2, &["replay", "status", "zz", "--lake", "lake"]);
    assert!(refused.contains("there is no replay 'zz'"), "{refused}");
    let dry = folder.json(&["replay", "cancel", &id, "--dry-run", "--lake", "lake"]);
    assert!(dry["objects"].as_u64().unwrap() > 0 && state() == "running", "{dry}");
    let removed = folder.replay("cancel", &id);
    assert!(removed["removed"]["objects"].as_u64().unwrap() > 0, "{removed}");
    assert_eq!(process.wait().unwrap().code(), Some(1), "the process ends");
    assert_eq!(state(), "cancelled");
    assert_eq!(folder.files(&format!("lake/_replays/{id}/lake")).len(), 0);
    let leases = folder.json(&["leases", "list", "--watch", "0s", "--lake", "lake"]);
    assert!(!leases.to_string().contains("_replay:"), "{leases}");
    let refused = folder.exits(2, &["replay", "start", &id, "--source", "in", "--lake", "lake"]);
    assert!(refused.contains("was cancelled"), "{refused}");
    folder.assert_verified(16_000);
}

#[test]
fn of_two_streams_each_record_keeps_its_stream_and_the_dataset_of_its_source() {
    let folder = Folder::new();
    let source = |name: &str| format!("[[source]]\nurl = \"{name}\"\nname = \"{name}\"\ndataset = \"assessments\"\n");
    folder.write("shardlake.toml", format!("{}{}[lake]\nurl = \"lake\"\n", source("first"), source("second")));
    for epoch in 0..3 {
        for (number, name) in ["first", "second"].iter().enumerate() {
            let from = 1_000 * number + 100 * epoch;
            folder.write(&format!("{name}/{epoch}.ndjson"), (from..from + 30).map(assessment).collect::<String>());
        }
        folder.ok(&["run", "--until-caught-up"]);
    }
    let plan = folder.json(&["replay", "plan", "--from", "trim-horizon", "--stream", "second"]);
    let id = id_of(&plan);
    assert_eq!((&plan["totals"]["records"], &plan["streams"]), (&180.into(), &serde_json::json!(["first", "second"])));
    let widened = plan["widened"].as_array().unwrap();
    assert!(widened.len() == 3 && widened.iter().all(|one| one["because"] == "other_shards"), "{plan}");
    let summary = folder.json(&["replay", "start", &id, "--workers", "3"]);
    assert_eq!((&summary["ended"], &summary["records_done"]), (&"complete".into(), &180.into()), "{summary}");
    let made = identities(&folder, &folder.aside(&id));
    assert_eq!(made, identities(&folder, "lake/processed"));
    let streams: BTreeSet<&str> = made.keys().map(|(stream, ..)| stream.as_str()).collect();
    assert_eq!(streams, BTreeSet::from(["first", "second"]));

    // By time: the last epoch only. Files have no times of arrival, so those of the epochs count.
    let record =
        |path: &std::path::PathBuf| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let written = |record: Value| record["written_at"].as_str().unwrap().to_owned();
    let last = folder.files("lake/_commits").iter().map(|path| written(record(path))).max().unwrap();
    let plan = folder.json(&["replay", "plan", "--from", &last]);
    assert_eq!((epochs_of(&plan), &plan["totals"]["records"]), (1, &60.into()), "{plan}");
    let plan = folder.json(&["replay", "plan", "--from", "trim-horizon", "--to", &last]);
    assert!(epochs_of(&plan) >= 2, "{plan}");
}

#[test]
fn a_range_that_is_nowhere_is_refused_and_named() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..10).map(assessment).collect::<String>());
    folder.write("in/b.ndjson", (10..20).map(assessment).collect::<String>());
    folder.ok(&[&CATCH_UP[..], &["--raw", "off"]].concat());
    std::fs::remove_file(folder.path("in/b.ndjson")).unwrap();
    let args = [&["replay", "plan", "--source", "in", "--from", "trim-horizon"][..], &LAKE].concat();
    let refused = folder.exits(2, &args);
    for part in ["shard b.ndjson", "does not have it any more", "the raw landing was off"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(folder.json(&["replay", "list", "--lake", "lake"])["replays"], Value::Array(Vec::new()));
    for (flag, value, problem) in [
        ("--from", "yesterday", "must be checkpoint:NAME"),
        ("--from", "checkpoint:none", "there is no checkpoint 'none'"),
        ("--from", "2099-01-01", "there is nothing to replay"),
        ("--into", "processed/x/", "belongs to the lake itself"),
        ("--dataset", "none", "there is no dataset 'none'"),
        ("--stream", "none", "has no records of stream 'none'"),
    ] {
        let from: &[&str] = if flag == "--from" { &[] } else { &["--from", "trim-horizon"] };
        let args = [&["replay", "plan", "--source", "in", flag, value][..], from, &LAKE].concat();
        let refused = folder.exits(2, &args);
        assert!(refused.contains(problem), "{problem}: {refused}");
    }
}

/// Every row below a folder with its partition and all its values, and every dead letter, whose line ends are spaces in raw lines.
fn outcome(folder: &Folder, lake: &str) -> (Vec<String>, Vec<String>) {
    let place = |path: &Path| path.parent().unwrap().strip_prefix(folder.path(lake)).unwrap().display().to_string();
    let (mut rows, mut dead) = (Vec::new(), Vec::new());
    for path in folder.files(&format!("{lake}/processed")) {
        let file = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        rows.extend(file.get_row_iter(None).unwrap().map(|row| format!("{} {}", place(&path), row.unwrap())));
    }
    for path in folder.files(&format!("{lake}/error")) {
        let mut text = String::new();
        let file = std::fs::File::open(&path).unwrap();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let mut letter: Value = serde_json::from_str(line).unwrap();
            let raw = base64_simd::STANDARD.decode_to_vec(letter["rawData"].take().as_str().unwrap()).unwrap();
            dead.push(format!("{} {letter} {}", place(&path), String::from_utf8_lossy(&raw).replace('\n', " ")));
        }
    }
    rows.sort();
    dead.sort();
    (rows, dead)
}

#[test]
fn records_whose_files_are_gone_are_made_again_from_raw_objects() {
    for codec in ["gzip", "zstd"] {
        let folder = Folder::new();
        folder.write("shardlake.toml", format!("[raw]\ncodec = \"{codec}\"\n[limits]\nrecord_bytes = \"20 KB\"\n"));
        let lines = |from: usize| (from..from + 400).map(assessment).collect::<String>();
        let broken = format!("{{\"id\":\n{{\"id\":\"{}\"}}\n[1]\n", "x".repeat(40_000));
        folder.write("in/a.ndjson", lines(0) + &broken + &lines(1_000));
        folder.write("in/b.ndjson.gz", crate::common::gzip(lines(2_000).replace(',', ",\n").as_bytes()));
        for n in 0..30 {
            folder.write(
                &format!("in/small/{n}.json"),
                assessment(3_000 + n).trim_end().to_owned() + &assessment(4_000 + n),
            );
        }
        folder.ok(&CATCH_UP);
        folder.append("in/a.ndjson", &lines(5_000));
        folder.ok(&CATCH_UP);
        let expected = outcome(&folder, "lake");
        assert_eq!((expected.0.len(), expected.1.len()), (1_660, 3), "{:?}", expected.1);
        std::fs::remove_dir_all(folder.path("in")).unwrap();
        std::fs::create_dir(folder.path("in")).unwrap();

        let plan = folder.plan("trim-horizon");
        let id = id_of(&plan);
        let is_raw = |slice: &Value| slice["from"]["kind"] == "raw";
        assert!(plan["slices"].as_array().unwrap().iter().all(is_raw), "{plan}");
        // Killed after it has begun, and started again.
        let mut first = folder.start_replay(&id, &[]);
        pause(300);
        first.kill().unwrap();
        first.wait().unwrap();
        let summary = folder.complete(&id);
        assert_eq!(summary["records_done"], 1_663, "{summary}");
        let made = outcome(&folder, &format!("lake/_replays/{id}/lake"));
        assert!(made == expected, "{codec}: {} of {} rows, {:?}", made.0.len(), expected.0.len(), made.1);
    }
}
