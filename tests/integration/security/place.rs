//! A folder that the binary runs in, and everything that it ever said there.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Where models stand in for AWS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(pub(crate) Vec<(String, String)>);

/// A folder of its own.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) environment: Environment,
    /// What each command printed: its arguments, standard output and standard error.
    pub(crate) said: Vec<(String, Vec<u8>)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place { folder: tempfile::tempdir().unwrap(), environment: Environment::default(), said: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The command, with the environment of the test and nothing of AWS beside.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardlake"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("AWS_") && name != "AWS_EC2_METADATA_DISABLED")
        {
            command.env_remove(name);
        }
        command.envs(self.environment.0.iter().cloned());
        command
    }

    /// Runs a command, and keeps what it says.
    pub(crate) fn run(&mut self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        self.said.push((args.join(" "), [&output.stdout[..], b"\n", &output.stderr].concat()));
        output
    }

    /// Runs a command that ends with this exit code.
    pub(crate) fn ends(&mut self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = &errors[errors.len().saturating_sub(3000)..];
        assert_eq!(output.status.code(), Some(code), "{args:?}: {last}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that succeeds.
    pub(crate) fn ok(&mut self, args: &[&str]) -> String {
        self.ends(0, args)
    }
}
