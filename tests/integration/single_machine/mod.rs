//! A lake in a folder, as the users of one machine work with it: runs, workers side by side, mistakes, commands.

mod commands;
mod cost;
mod dead_letters;
mod definitions;
mod doctor;
mod documents;
mod files;
mod find;
mod history;
mod leases;
mod manual;
mod objects;
mod refusals;
mod replay;
mod runs;
mod statistics;
mod status_page;
mod whatif;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::folder::Folder;

/// Runs a worker until it has caught up.
const CATCH_UP: [&str; 6] = ["run", "--source", "in", "--lake", "lake", "--until-caught-up"];

/// A line with a good record.
fn assessment(number: usize) -> String {
    format!(
        "{{\"id\":\"a{number}\",\"user_id\":\"u{}\",\"type\":\"skills\",\"score\":{},\"duration\":{number},\
         \"timestamp\":\"2025-01-{:02}T10:00:00Z\"}}\n",
        number % 7,
        number % 101,
        number % 28 + 1
    )
}

impl Folder {
    /// The number of rows that a reader of the lake counts now.
    fn rows(&self) -> u64 {
        self.files("lake/processed").iter().map(|path| rows_of(path)).sum()
    }

    /// The holder of each shard that has one.
    fn holders(&self) -> BTreeMap<String, String> {
        if !self.path("lake/_checkpoints.db").exists() {
            return BTreeMap::new();
        }
        let status = self.json(&["status", "--lake", "lake"]);
        let shards = status["shards"].as_array().unwrap();
        let held = shards.iter().filter_map(|shard| {
            Some((shard["shard"].as_str().unwrap().to_owned(), shard["owner"].as_str()?.to_owned()))
        });
        held.collect()
    }

    /// Asserts that `verify` finds no fault, and this many records.
    fn assert_verified(&self, records: u64) {
        let report = self.json(&["verify", "--lake", "lake"]);
        assert_eq!((&report["clean"], &report["records"]), (&true.into(), &records.into()), "{report}");
    }
}

fn rows_of(path: &Path) -> u64 {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    // A roll-back may have just removed the file.
    let Ok(file) = fs::File::open(path) else { return 0 };
    let rows = SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows();
    u64::try_from(rows).unwrap()
}
