//! Workers in the background: the real binary, as processes.
//!
//! Owns: starting, signalling and ending them, and their logs. Does not own: the services that they use (`services`).

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::wait_for;

/// A running worker. It is killed when the test ends before it.
pub(crate) struct Worker {
    child: Child,
    summary: PathBuf,
    log: PathBuf,
}

impl Folder {
    /// Starts `shardlake run --json` with these arguments.
    pub(crate) fn start(&self, args: &[&str]) -> Worker {
        let number = {
            let mut workers = self.workers.lock().unwrap();
            *workers += 1;
            *workers
        };
        let (summary, log) = (self.path(&format!("worker-{number}.json")), self.path(&format!("worker-{number}.log")));
        let child = self
            .command(&[&["run", "--json"], args].concat())
            .stdout(Stdio::from(File::create(&summary).unwrap()))
            .stderr(Stdio::from(File::create(&log).unwrap()))
            .spawn()
            .unwrap();
        Worker { child, summary, log }
    }
}

impl Worker {
    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success(), "the worker has ended already");
    }

    /// The peak of its resident memory, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id()).unwrap()
    }

    /// Its exit status, once it has ended.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self, seconds: u64) -> ExitStatus {
        let mut ended = None;
        wait_for("a worker's end", seconds, || {
            ended = self.exit_status();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// Waits for its end with exit code 0: its summary.
    pub(crate) fn finish(mut self, seconds: u64) -> Value {
        let status = self.wait(seconds);
        assert_eq!(status.code(), Some(0), "{}", self.log());
        serde_json::from_str(&std::fs::read_to_string(&self.summary).unwrap()).unwrap()
    }

    /// SIGTERM, then its end: its summary.
    pub(crate) fn stop(self) -> Value {
        self.signal("TERM");
        self.finish(40)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The peak of a process's resident memory so far, in bytes. `None` once it has ended.
pub(crate) fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10)
}
