//! Workers as their users start them: the real binary, as processes.
//!
//! Owns: starting, signalling and ending them, and what they said. Does not own: the services that they speak to (`cloud`).

use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::cloud::{Cloud, wait_for};

/// A running worker; killed when the test ends before it.
pub(crate) struct Worker {
    child: Child,
    number: u64,
}

impl Cloud {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardlake"));
        command.args(args).current_dir(self.folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command
            .env("AWS_ENDPOINT_URL", self.url())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("KEY_OF_TESTS", "0123456789abcdef0123456789abcdef")
            .env("RUST_LOG", "shardlake=info,shardlake_checkpoints=info,warn");
        command
    }

    /// Starts `shardlake run` with these arguments.
    pub(crate) fn start(&self, args: &[&str]) -> Worker {
        let number = self.next_worker();
        let file = |ending: &str| File::create(self.path(&format!("worker-{number}.{ending}"))).unwrap();
        let child = self
            .command(&[&["run", "--json"], args].concat())
            .stdout(Stdio::from(file("json")))
            .stderr(Stdio::from(file("log")))
            .spawn()
            .unwrap();
        Worker { child, number }
    }

    /// Has a worker do all that is left to do: what it says at its end.
    pub(crate) fn catch_up(&self) -> Value {
        self.start(&["--until-caught-up"]).ends_well(self, 60)
    }

    /// Runs another command that succeeds: what it prints as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.command(&[args, &["--json"]].concat()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?}: {message}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Worker {
    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success(), "the worker is gone already");
    }

    /// The most memory that it had at once, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Its exit status, once it has ended.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end with exit code 0: what it says.
    pub(crate) fn ends_well(mut self, cloud: &Cloud, seconds: u64) -> Value {
        let mut ended = None;
        wait_for("a worker's end", seconds, || {
            ended = self.has_ended();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(0), "{}", self.log(cloud));
        let message = std::fs::read_to_string(cloud.path(&format!("worker-{}.json", self.number))).unwrap();
        serde_json::from_str(&message).unwrap()
    }

    /// SIGTERM, then its end: what it says.
    pub(crate) fn stop(self, cloud: &Cloud) -> Value {
        self.signal("TERM");
        self.ends_well(cloud, 40)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it logged.
    pub(crate) fn log(&self, cloud: &Cloud) -> String {
        std::fs::read_to_string(cloud.path(&format!("worker-{}.log", self.number))).unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets time pass.
pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
