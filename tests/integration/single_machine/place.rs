//! A folder to run the binary in, and what is asked of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A good record.
pub(crate) fn assessment(number: usize) -> String {
    format!(
        "{{\"id\":\"a{number}\",\"user_id\":\"u{}\",\"type\":\"skills\",\"score\":{},\"duration\":{number},\
         \"timestamp\":\"2025-01-{:02}T10:00:00Z\"}}\n",
        number % 7,
        number % 101,
        number % 28 + 1
    )
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Waits for a state of the world, a minute at most.
pub(crate) fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..600 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited a minute for {what}");
}

/// A folder of its own.
pub(crate) struct Place(tempfile::TempDir);

/// A worker that runs until it is stopped, or killed when the test fails.
pub(crate) struct Worker(Child);

impl Worker {
    /// SIGTERM, then its end.
    pub(crate) fn stop(mut self) {
        let sent = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
        let ended = self.0.wait().unwrap();
        assert_eq!(ended.code(), Some(0));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn append(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardlake"));
        command.args(args).current_dir(self.0.path()).env_remove("RUST_LOG");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that succeeds: what it prints.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// Runs a command that fails with this exit code: what it prints.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let message = [output.stdout, output.stderr].concat();
        let message = String::from_utf8_lossy(&message).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
        message
    }

    pub(crate) fn start(&self, args: &[&str]) -> Worker {
        Worker(self.command(args).stdout(Stdio::null()).spawn().unwrap())
    }

    /// Rows that a reader of the lake would count now.
    pub(crate) fn rows(&self) -> u64 {
        self.files("processed").iter().map(|path| rows_of(path)).sum()
    }

    /// The Parquet files below a folder of the lake, in order.
    pub(crate) fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("lake").join(below)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet") {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Who holds which shard.
    pub(crate) fn held(&self) -> BTreeMap<String, String> {
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

    pub(crate) fn owners(&self) -> Vec<String> {
        self.held().into_values().collect()
    }

    /// `verify` finds nothing, and so many records.
    pub(crate) fn verified(&self, records: u64) {
        let message = self.json(&["verify", "--lake", "lake"]);
        assert_eq!((&message["clean"], &message["records"]), (&true.into(), &records.into()), "{message}");
    }
}

fn rows_of(path: &Path) -> u64 {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    // A file that a rollback has just removed is none.
    let Ok(file) = fs::File::open(path) else { return 0 };
    let rows = SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows();
    u64::try_from(rows).unwrap()
}
