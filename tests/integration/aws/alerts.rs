//! Every alert of the table, fired by a fault and cleared again, in a real Prometheus that scrapes real workers.
//!
//! It needs Debian's `prometheus` in the path, or `PROMETHEUS`, and takes two minutes, so it is ignored unless asked for:
//! `cargo nextest run --workspace --locked --run-ignored only -E 'test(every_alert)'`. The times of the alerts are divided by 600. What
//! was shortened holds for five seconds at least.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_model::faults::{Fault, Refusal, Rule, ServiceName, When};
use aws_model::kinesis::Put;
use pipeline::layout;
use serde_json::{Value, json};
use shardlake::telemetry::alerts::ALERTS;

use crate::aws::cloud::{Cloud, Options, STREAM};
use crate::common::folder::Folder;
use crate::common::services::KEY;
use crate::common::worker::Worker;
use crate::common::{pause, wait_for};

/// What the times of the alerts are divided by.
const FASTER: &str = "600";
/// How long an alert may take to fire or to clear.
const WITHIN: u64 = 60;

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A Prometheus that evaluates the rules every second.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(folder: &Folder, targets: &[u16]) -> Self {
        let port = free_port();
        folder.write("rules.yaml", folder.ok(&["metrics", "--format", "prometheus-rules", "--faster", FASTER]));
        let targets: Vec<String> = targets.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\n\
             scrape_configs:\n  - job_name: shardlake\n    static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        );
        folder.write("prometheus.yaml", config);
        let program = std::env::var("PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
        let child = Command::new(program)
            .arg(format!("--config.file={}", folder.path("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed");
        let started = Prometheus { child, port };
        wait_for("Prometheus", 30, || started.get("/-/ready").contains("200 OK"));
        started
    }

    fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return String::new() };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let mut response = String::new();
        let _ = stream.read_to_string(&mut response);
        response
    }

    /// The alerts that fire, and how each rule is.
    fn firing(&self) -> BTreeSet<String> {
        let response = self.get("/api/v1/rules");
        let Some((_, body)) = response.split_once("\r\n\r\n") else { return BTreeSet::new() };
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let rules = body["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        for rule in &rules {
            assert_ne!(rule["health"], "err", "{rule}");
        }
        let firing = rules.iter().filter(|rule| rule["state"] == "firing");
        firing.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The test's Prometheus and what it has seen.
struct Watch {
    prometheus: Prometheus,
    fired: BTreeSet<String>,
    cleared: BTreeSet<String>,
    begun: Instant,
}

impl Watch {
    /// Waits until all of these have fired, while `meanwhile` is done again and again.
    fn fire(&mut self, names: &[&str], mut meanwhile: impl FnMut()) {
        let mut left: BTreeSet<&str> = names.iter().copied().collect();
        let begun = Instant::now();
        while !left.is_empty() {
            assert!(
                begun.elapsed() < Duration::from_secs(WITHIN),
                "not fired: {left:?}; firing: {:?}",
                self.prometheus.firing()
            );
            meanwhile();
            let firing = self.prometheus.firing();
            left.retain(|name| !firing.contains(*name));
            self.fired.extend(firing);
            pause(200);
        }
        eprintln!("{:3} s: fired {names:?}", self.begun.elapsed().as_secs());
    }

    /// Waits until none of these fires.
    fn clear(&mut self, names: &[&str], mut meanwhile: impl FnMut()) {
        let begun = Instant::now();
        loop {
            let firing = self.prometheus.firing();
            let left: Vec<&&str> = names.iter().filter(|name| firing.contains(**name)).collect();
            if left.is_empty() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(WITHIN), "not cleared: {left:?}");
            meanwhile();
            pause(200);
        }
        self.cleared.extend(names.iter().map(|name| (*name).to_owned()));
        eprintln!("{:3} s: cleared {names:?}", self.begun.elapsed().as_secs());
    }
}

fn refuse(service: ServiceName, operation: &str, when: When, refusal: Refusal) -> Rule {
    Rule::new(service, operation, when, Fault::Refuse(refusal))
}

/// How many workers have open uploads in the folder's lake. The name of each begins with that of its worker, a UUID.
fn staging_workers(folder: &Folder) -> usize {
    let names = std::fs::read_dir(folder.path("lake/_staging")).into_iter().flatten().flatten();
    let workers = names.map(|entry| entry.file_name().to_string_lossy().chars().take(36).collect::<String>());
    workers.collect::<BTreeSet<String>>().len()
}

/// A worker on a folder.
fn folder_fleet(port: u16) -> (Folder, Worker) {
    let mut folder = Folder::new();
    folder.set(KEY, "0123456789abcdef0123456789abcdef");
    let config = format!(
        "[[source]]\nurl = \"in\"\nname = \"files\"\n[lake]\nurl = \"lake\"\n[anonymize]\nkey = \"env:{KEY}\"\n\
         [commit]\ninterval = \"60s\"\n[leases]\nfailover = \"1s\"\n[limits]\nthreads = 1\nmemory = \"64MiB\"\nrecord_bytes = \"1MiB\"\n[telemetry]\nlake_every = \"1s\"\n"
    );
    folder.write("shardlake.toml", config);
    std::fs::create_dir(folder.path("in")).unwrap();
    let worker = folder.start(&["--listen", &format!("127.0.0.1:{port}")]);
    (folder, worker)
}

#[test]
#[ignore = "needs prometheus, and takes two minutes"]
fn every_alert_fires_by_a_fault_and_clears_again() {
    // Records of 20 hours ago, of which the stream keeps 24.
    let lake = "\n[telemetry]\nlake_every = \"1s\"\n".to_owned();
    let leases = "failover = \"2s\"".to_owned();
    let mut cloud = Cloud::in_the_past(20, 2, &Options { lake, leases, ..Options::default() });
    cloud.folder.use_roles(false);
    let large = |number: usize| {
        Put::new(format!("key-{number}"), format!("{{\"x\":\"{}\"}}", "y".repeat(100_000)).into_bytes())
    };
    for batch in (0..300).collect::<Vec<usize>>().chunks(20) {
        let puts = batch.iter().map(|number| large(*number)).collect();
        cloud.kinesis.put_records(STREAM, puts).unwrap().into_iter().for_each(|put| drop(put.unwrap()));
        cloud.clock.advance_ms(5_000);
    }
    cloud.go_to_the_present();
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let prometheus = Prometheus::start(&cloud.folder, &ports[..3]);
    let mut watch = Watch { prometheus, fired: BTreeSet::new(), cleared: BTreeSet::new(), begun: Instant::now() };
    let start = |port: u16| cloud.start(&["--listen", &format!("127.0.0.1:{port}")]);

    // The source is slow and throttled, and the workers are far behind.
    let slow =
        || Rule::new(ServiceName::Kinesis, "GetRecords", When::Always, Fault::Delay(Duration::from_millis(1_500)));
    cloud.faults.add(slow());
    let (first, second) = (start(ports[0]), start(ports[1]));
    let (folder, files) = folder_fleet(ports[2]);
    wait_for("the leases", 30, || cloud.rows().len() == 2 && cloud.shares().is_some());
    cloud.folder.ok(&["checkpoints", "save", "before-the-night"]);
    cloud.faults.clear();
    cloud.faults.add(refuse(ServiceName::Kinesis, "GetRecords", When::Every(2), Refusal::throughput_exceeded()));
    cloud.faults.add(slow());
    let behind = [
        "ShardlakeShardBehind",
        "ShardlakeRetentionHalfUsed",
        "ShardlakeDataNotFresh",
        "ShardlakeThrottled",
        "ShardlakeDeadLetters",
        "ShardlakeNewDeadLetterCode",
        "ShardlakeCheckpointExpiring",
    ];
    watch.fire(&behind, || {});
    cloud.faults.clear();
    cloud.folder.ok(&["checkpoints", "delete", "before-the-night"]);
    watch.clear(&behind, || {});

    // On the folder: a worker is killed whose uploads are open, and another worker has noted a loss.
    let killed = folder.start(&["--listen", "off"]);
    folder.ok(&["produce", "--to", "in/b.ndjson", "--count", "40000"]);
    folder.ok(&["produce", "--to", "in/c.ndjson", "--count", "40000", "--seed", "2"]);
    wait_for("open uploads of both workers", 60, || staging_workers(&folder) == 2);
    killed.kill();
    let loss = json!({ "stream": "files", "shard": "gone.ndjson", "kind": "lost", "problem": "the file is gone", "found_at": "2025-01-13T10:30:00.000Z" });
    let key = folder.path("lake").join(layout::loss("files", "gone.ndjson"));
    std::fs::create_dir_all(key.parent().unwrap()).unwrap();
    std::fs::write(key, loss.to_string()).unwrap();
    watch.fire(&["ShardlakeDataLost"], || {});

    // The lake does not make objects visible.
    cloud.faults.add(refuse(ServiceName::S3, "CompleteMultipartUpload", When::Always, Refusal::internal()));
    let stuck = ["ShardlakeEpochStalled", "ShardlakeNoCommit", "ShardlakeServiceFailing"];
    watch.fire(&stuck, || cloud.put_unseen(5));
    cloud.faults.clear();
    watch.clear(&stuck, || {});

    // Nobody may read the shards.
    let denied = || Refusal::new(400, "AccessDeniedException", "User is not authorized to perform this.");
    for operation in ["GetRecords", "GetShardIterator"] {
        cloud.faults.add(refuse(ServiceName::Kinesis, operation, When::Always, denied()));
    }
    watch.fire(&["ShardlakeShardWithoutOwner"], || {});
    cloud.faults.clear();
    // A worker that has not failed takes them at once.
    let third = cloud.start(&["--listen", "off"]);
    watch.clear(&["ShardlakeShardWithoutOwner"], || {});

    // Leases are taken again and again, and a worker is killed.
    let mut second = Some(second);
    watch.fire(&["ShardlakeEpochsAborted", "ShardlakeWorkerDown"], || {
        if let Some(second) = second.take() {
            second.kill();
        }
        cloud.put_unseen(20);
        for row in cloud.rows() {
            cloud.folder.run(&["leases", "evict", &row.shard]);
        }
    });
    let again = start(ports[1]);
    watch.clear(&["ShardlakeEpochsAborted", "ShardlakeWorkerDown"], || {});

    watch.fire(&["ShardlakeOrphanedUploads"], || {});
    folder.ok(&["sweep"]);
    folder.ok(&["losses", "accept", "gone.ndjson"]);
    watch.clear(&["ShardlakeOrphanedUploads", "ShardlakeDataLost"], || {});

    let all: BTreeSet<String> = ALERTS.iter().map(|alert| alert.name.to_owned()).collect();
    assert_eq!(watch.fired, all, "every alert of the table has fired");
    assert_eq!(watch.cleared, all, "and has been cleared");
    for worker in [first, third, again, files] {
        worker.stop();
    }
}
