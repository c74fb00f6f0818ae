//! A folder in which the binary runs, and everything that its commands printed there.
//!
//! Owns: running commands to their end, with an environment that has nothing of the machine's own AWS settings. Does not own:
//! workers in the background (`worker`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use serde_json::Value;

use crate::common::roles::{DEVELOPER, MAINTENANCE, READER, WORKER};

/// A temporary folder.
pub(crate) struct Folder {
    root: tempfile::TempDir,
    environment: Vec<(String, String)>,
    by_role: bool,
    printed: Mutex<Vec<Printed>>,
    pub(crate) workers: Mutex<u64>,
}

/// Whose credentials a command has: the access key by which [`roles`](crate::common::roles) knows a role.
fn role_of(args: &[&str]) -> &'static str {
    match args.first() {
        // The workers of deploy/ read no files.
        Some(&"run") if args.contains(&"--source") => DEVELOPER,
        Some(&("run" | "config")) => WORKER,
        // It tries what a worker must be allowed to do.
        Some(&"doctor") if !args.contains(&"--skip-permissions") => WORKER,
        // Workers run in them, or they add and remove rows and dead letters.
        Some(&"deadletters") if matches!(args.get(1), Some(&("redrive" | "discard"))) => WORKER,
        Some(&"replay") if matches!(args.get(1), Some(&("start" | "cancel" | "promote" | "undo" | "purge"))) => WORKER,
        // They change nothing.
        Some(&"whatif") => READER,
        Some(&"replay") if args.get(1) == Some(&"diff") => READER,
        // It finishes epochs, as a worker does.
        Some(&"leases") if args.get(1) == Some(&"rebuild") => WORKER,
        Some(&("init" | "produce")) => DEVELOPER,
        _ => MAINTENANCE,
    }
}

/// What one command printed.
#[derive(Debug, Clone)]
pub(crate) struct Printed {
    /// Its arguments.
    pub(crate) command: String,
    /// Standard output, then standard error.
    pub(crate) bytes: Vec<u8>,
}

impl Printed {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Folder {
    pub(crate) fn new() -> Self {
        Folder {
            root: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
            by_role: false,
            printed: Mutex::default(),
            workers: Mutex::default(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn append(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Sets a variable for all commands that follow.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a variable for all commands that follow.
    pub(crate) fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// Whether a command from now on has the credentials of the role that deploy/ makes for it.
    pub(crate) fn use_roles(&mut self, by_role: bool) {
        self.by_role = by_role;
    }

    /// The command, ready to be started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardlake"));
        command.args(args).current_dir(self.root()).env_remove("RUST_LOG");
        let is_proxy = |name: &str| name.to_ascii_lowercase().ends_with("_proxy");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || is_proxy(name)) {
            command.env_remove(name);
        }
        command.env("AWS_EC2_METADATA_DISABLED", "true").envs(self.environment.iter().cloned());
        if self.by_role {
            command.env("AWS_ACCESS_KEY_ID", role_of(args));
        }
        command
    }

    /// Runs a command to its end, and keeps what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let bytes = [&output.stdout[..], b"\n", &output.stderr].concat();
        self.printed.lock().unwrap().push(Printed { command: args.join(" "), bytes });
        output
    }

    /// Runs a command that must end with this exit code: what it printed.
    pub(crate) fn exits(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let last = printed.char_indices().rev().nth(3_000).map_or(0, |(start, _)| start);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", &printed[last..]);
        printed
    }

    /// Runs a command that must succeed: its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with `--json` that must succeed: its standard output, parsed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// What every command has printed so far.
    pub(crate) fn printed(&self) -> Vec<Printed> {
        self.printed.lock().unwrap().clone()
    }

    /// What the last command printed.
    pub(crate) fn last_printed(&self) -> String {
        self.printed.lock().unwrap().last().unwrap().text()
    }

    /// Every file below a folder, sorted.
    pub(crate) fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path(below)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}
