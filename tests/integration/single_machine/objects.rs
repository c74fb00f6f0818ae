//! Objects in a folder as a source: many small ones through many kills, and what is refused.

use std::collections::BTreeMap;
use std::fs;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use crate::common::folder::Folder;
use crate::common::{gzip, pause, wait_for};
use crate::single_machine::assessment;

/// Small objects, as old Lambdas wrote them: one document in each.
const OBJECTS: usize = 20_000;
const KILLS: usize = 20;
const WORKER: [&str; 8] =
    ["--source", "objects://old", "--lake", "lake", "--commit-interval", "300ms", "--threads", "1"];

impl Folder {
    /// Writes small objects as a rename puts them there, in folders by day.
    fn write_objects(&self, range: std::ops::Range<usize>) {
        for n in range {
            let folder = self.path(&format!("old/2025/01/{:02}", n % 28 + 1));
            fs::create_dir_all(&folder).unwrap();
            // Later objects sort anywhere among those before.
            let name = format!("{:08x}.json", u32::try_from(n).unwrap().wrapping_mul(2_654_435_761));
            fs::write(folder.join(format!(".{name}")), assessment(n)).unwrap();
            fs::rename(folder.join(format!(".{name}")), folder.join(name)).unwrap();
        }
    }

    /// How often each identity and each record's own id is in the rows of the lake.
    fn identities(&self) -> (BTreeMap<(String, String), u64>, BTreeMap<String, u64>) {
        let (mut identities, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for path in self.files("lake/processed") {
            let file = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
            for row in file.get_row_iter(None).unwrap() {
                let columns: BTreeMap<String, Field> = row.unwrap().into_columns().into_iter().collect();
                let text = |name: &str| match &columns[name] {
                    Field::Str(text) => text.clone(),
                    other => panic!("{name} is {other:?}"),
                };
                *identities.entry((text("ingest_shard"), text("ingest_sequence"))).or_default() += 1;
                *ids.entry(text("assessment_id")).or_default() += 1;
            }
        }
        (identities, ids)
    }
}

#[test]
fn workers_that_are_killed_twenty_times_read_twenty_thousand_objects_once() {
    let folder = Folder::new();
    folder.write_objects(0..OBJECTS / 2);
    let start = || folder.start(&WORKER);
    let mut workers = [start(), start()];
    let (mut written, mut peak) = (OBJECTS / 2, 0);
    for kill in 0..KILLS {
        let more = OBJECTS / 2 / KILLS;
        folder.write_objects(written..written + more);
        written += more;
        let commits = || folder.files("lake/_commits").len();
        let before = commits();
        // Until an epoch was committed, or for a while that differs.
        for _ in 0..60 + 19 * (kill % 7) {
            if commits() != before {
                break;
            }
            pause(5);
        }
        let victim = &mut workers[kill % 2];
        assert!(victim.exit_status().is_none(), "a worker ended by itself: {}", victim.log());
        peak = peak.max(victim.peak_memory());
        std::mem::replace(victim, start()).kill();
    }
    folder.write_objects(written..OBJECTS);
    for worker in workers {
        worker.kill();
    }
    let rest = [(); 2].map(|()| folder.start(&[&WORKER[..], &["--until-caught-up"]].concat()));
    for worker in rest {
        let summary = worker.finish(180);
        assert_eq!(summary["ok"], true, "{summary}");
    }
    assert!(peak < 400 << 20, "{peak}");
    let (identities, ids) = folder.identities();
    assert_eq!((identities.len(), ids.len()), (OBJECTS, OBJECTS));
    assert!(identities.values().chain(ids.values()).all(|times| *times == 1), "each is there once");
    folder.assert_verified(OBJECTS as u64);
    // Neither leases nor lake objects grow with the number of source objects.
    let status = folder.json(&["status", "--lake", "lake"]);
    assert_eq!(status["shards"].as_array().unwrap().len(), 8, "{status}");
    assert!(folder.files("lake/_sources").len() < 200);
}

#[test]
fn objects_that_appear_while_a_worker_runs_are_read_whatever_their_keys_are() {
    let folder = Folder::new();
    folder.write(
        "shardlake.toml",
        "[[source]]\nurl = \"objects://old\"\nlist_every = \"1s\"\nshards = 2\n[lake]\nurl = \"lake\"\n[commit]\ninterval = \"300ms\"\n",
    );
    folder.write("old/m.json", assessment(0));
    let worker = folder.start(&[]);
    wait_for("the first row", 60, || folder.rows() == 1);
    folder.write("old/a.json", assessment(1));
    folder.write("old/z/deep/er.json.gz", gzip(assessment(2).as_bytes()));
    folder.write(
        "old/delivery-1-2025-07-08-18-40-00-0a1b2c3d",
        assessment(3).trim_end().to_owned() + assessment(4).trim_end(),
    );
    wait_for("the rows of the new objects", 60, || folder.rows() == 5);
    worker.stop();
    folder.assert_verified(5);
    folder.write("old/a.json", assessment(9));
    let message = folder.exits(1, &["run", "--until-caught-up", "--fail-on", "dead-letters"]);
    assert!(message.contains("overwritten"), "{message}");
    assert_eq!(folder.rows(), 5, "it is not read in silence");
    let listed = folder.run(&["losses", "list", "--lake", "lake", "--json"]);
    let losses: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((listed.status.code(), &losses["open"]), (Some(1), &1.into()), "{losses}");
    let shard = losses["losses"][0]["loss"]["shard"].as_str().unwrap_or_else(|| panic!("{losses}")).to_owned();
    folder.ok(&["losses", "accept", &shard, "--then", "start", "--lake", "lake"]);
    folder.ok(&["run", "--until-caught-up"]);
    assert_eq!(folder.rows(), 6);
    folder.ok(&["run", "--until-caught-up"]);
    assert_eq!(folder.rows(), 6);
}

#[test]
fn a_source_that_holds_the_lake_and_one_that_does_not_exist_are_refused() {
    let folder = Folder::new();
    folder.write("old/a.json", assessment(0));
    for (source, lake) in [("objects://old", "old/lake"), ("objects://old/raw", "old"), ("objects://none", "lake")] {
        fs::create_dir_all(folder.path("old/raw")).unwrap();
        let message = folder.exits(2, &["run", "--source", source, "--lake", lake, "--until-caught-up"]);
        assert!(message.contains("overlap") || message.contains("no such folder"), "{message}");
    }
    assert!(!folder.path("lake").exists() && !folder.path("old/lake").exists(), "nothing was touched");
}
