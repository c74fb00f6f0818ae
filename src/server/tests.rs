//! The site with stores in memory, and requests over real connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use checkpoints::{LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, ShardKey};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SharedClock};
use crate::commit::Stores;
use crate::inspect::sample_lake::SampleLake;
use crate::lake::{Fault, MemoryStore};
use crate::retry::RetryPolicy;
use crate::server::site::Watcher;
use crate::server::{Listen, Mode, Server, Site, View, bind};
use crate::telemetry::alerts::ALERTS;
use crate::worker::Progress;
use crate::worker::testing::{figures_of, lane_config};

struct At(i64);

impl Clock for At {
    fn now_ms(&self) -> i64 {
        self.0
    }
}

struct Parts {
    lake: MemoryStore,
    leases: MemoryLeases,
    me: LeaseOwner,
    clock: SharedClock,
    stop: CancellationToken,
}

/// A lake with this many commits of this many shards, and a lease table in which this worker holds those that `mine` says.
async fn parts(shards: usize, commits: usize, mine: impl Fn(usize) -> bool) -> Parts {
    let (lake, leases) = (MemoryStore::new(), MemoryLeases::new());
    let me = LeaseOwner::from_random([1; 16]);
    let writing = lake.clone();
    let mut sample = SampleLake::new(shards, move |key, bytes| writing.tamper(key, Some(bytes)));
    for _ in 0..commits {
        sample.commit(5);
    }
    leases.create(&sample.rows()).await.unwrap();
    let other = LeaseOwner::from_random([2; 16]);
    for shard in 0..shards {
        let owner = if mine(shard) { &me } else { &other };
        leases.take(owner, &SampleLake::key(shard), 0).await.unwrap().unwrap();
    }
    let clock: SharedClock = Arc::new(At(sample.now_ms() + 10_000));
    Parts { lake, leases, me, clock, stop: CancellationToken::new() }
}

impl Parts {
    fn site(&self) -> Arc<Site> {
        Site::new(Arc::clone(&self.clock), true, self.stop.clone())
    }

    fn view(&self, progress: Arc<Progress>) -> View {
        let stores = Stores::new(Arc::new(self.lake.clone()), Arc::new(self.leases.clone()), RetryPolicy::NONE);
        View {
            me: Some(self.me.clone()),
            mode: Mode::Run,
            lake: "s3://lake/".to_owned(),
            place: "--lake s3://lake/ --checkpoints dynamodb://leases".to_owned(),
            stores: stores.with_streams([SampleLake::key(0).stream]),
            sources: Vec::new(),
            lanes: Arc::new(lane_config()),
            progress,
            failover: Duration::from_secs(10),
            clock: Arc::clone(&self.clock),
            commit_interval: Duration::from_secs(60),
            freshness: Duration::from_secs(120),
            retry_within: Duration::from_secs(300),
        }
    }

    /// Serves a worker with these figures on a free port.
    async fn serve(&self, progress: &Arc<Progress>) -> (Server, Arc<Site>) {
        let site = self.site();
        let bound = bind(Listen::parse("127.0.0.1:0").unwrap()).await.unwrap().unwrap();
        let server = Server::start(bound, Arc::clone(&site));
        site.attach(self.view(Arc::clone(progress)));
        (server, site)
    }
}

fn keys(shards: std::ops::Range<usize>) -> impl Iterator<Item = ShardKey> {
    shards.map(SampleLake::key)
}

/// The response to a request: its code, its head and its body.
async fn ask(server: &Server, method: &str, path: &str, host: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

async fn get(server: &Server, path: &str) -> (u16, String, String) {
    ask(server, "GET", path, "127.0.0.1").await
}

async fn fleet(server: &Server) -> Value {
    let (code, _, body) = get(server, "/api/fleet").await;
    assert_eq!(code, 200);
    serde_json::from_str(&body).unwrap()
}

fn problem_names(fleet: &Value) -> Vec<&str> {
    fleet["problems"].as_array().unwrap().iter().map(|problem| problem["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_fleet_shows_own_shards_from_the_worker_and_others_from_the_stores() {
    let parts = parts(4, 3, |shard| shard < 2).await;
    let progress = figures_of(keys(0..2));
    let (server, _site) = parts.serve(&progress).await;
    let fleet = fleet(&server).await;
    assert_eq!((&fleet["format"], &fleet["state"], &fleet["is_loaded"]), (&1.into(), &"running".into(), &true.into()));
    let shards = fleet["shards"].as_array().unwrap();
    let of = |name: &str| shards.iter().find(|shard| shard["shard"] == name).unwrap();
    let (mine, other) = (of("shard-1"), of("shard-3"));
    assert_eq!(
        (&mine["is_here"], &mine["behind_s"], &mine["owner"]),
        (&true.into(), &3601.0.into(), &parts.me.as_str().into())
    );
    assert_eq!((&mine["uncommitted_records"], &mine["at_tip"]), (&10.into(), &false.into()));
    // The newest epoch has everything that arrived up to 4 s before it was written, and 10 s have passed.
    assert_eq!((&other["is_here"], &other["behind_s"], &other["state"]), (&false.into(), &14.0.into(), &"read".into()));
    assert!(other.get("uncommitted_records").is_none());
    assert_eq!(fleet["shard_counts"], serde_json::json!({"total": 4, "read": 4, "free": 0, "done": 0, "listed": 4}));
    assert_eq!(fleet["workers"].as_array().unwrap().len(), 2);
    assert_eq!((&fleet["workers"][0]["is_this"], &fleet["workers"][1]["shards"]), (&true.into(), &2.into()));
    let lake = &fleet["lake"];
    assert_eq!((&lake["version"], &lake["epochs"], &lake["records"]), (&3.into(), &3.into(), &120.into()));
    assert_eq!((&lake["commits"][0]["version"], &lake["commits"][2]["version"]), (&3.into(), &1.into()));
    assert_eq!(lake["files"][0]["version"], 3);
    assert_eq!(lake["watermarks"][0]["state"], "through");
    let dead = &lake["dead_letters"][0];
    assert_eq!(
        (&dead["code"], &dead["records"], &dead["last_hour"]),
        (&"Decode.Truncated".into(), &3.into(), &3.into())
    );
    let by_minute = fleet["charts"]["committed_by_minute"].as_array().unwrap();
    assert_eq!((by_minute.len(), by_minute.iter().filter_map(Value::as_u64).sum::<u64>()), (60, 120));
    // An hour behind is said first, and the command names the lake.
    let behind =
        fleet["problems"].as_array().unwrap().iter().find(|one| one["name"] == "ShardlakeShardBehind").unwrap();
    assert_eq!(behind["command"], "shardlake status --lake s3://lake/ --checkpoints dynamodb://leases");
    assert!(
        behind["what"].as_str().unwrap().starts_with("2 shards are behind; the worst is shard-1, by 1 h 0 min"),
        "{behind}"
    );
    assert_eq!(fleet["graph"]["nodes"][0]["name"], "decode");
}

#[tokio::test]
async fn new_commits_are_read_one_by_one_and_nothing_is_read_while_nobody_watches() {
    let parts = parts(1, 2, |_| true).await;
    let (server, _site) = parts.serve(&figures_of(keys(0..1))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(parts.lake.calls().is_empty(), "an idle worker makes no requests for its page");
    assert_eq!(fleet(&server).await["lake"]["version"], 2);
    let gets = || {
        parts
            .lake
            .calls()
            .into_iter()
            .filter(|(_, key)| key.starts_with("_log/0"))
            .filter(|(call, _)| *call == "get")
            .count()
    };
    let before = gets();
    assert!(before >= 2, "{:?}", parts.lake.calls());
    // The log has grown by two entries.
    let writing = parts.lake.clone();
    let mut sample = SampleLake::new(1, move |key, bytes| writing.tamper(key, Some(bytes)));
    (0..4).for_each(|_| drop(sample.commit(5)));
    let mut version = Value::Null;
    for _ in 0..80 {
        version = fleet(&server).await["lake"]["version"].clone();
        if version == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(version, 4);
    assert_eq!(gets() - before, 2, "{:?}", parts.lake.calls());
}

#[tokio::test]
async fn a_thousand_shards_and_many_commits_are_answered_in_50_ms() {
    let parts = parts(1000, 40, |_| true).await;
    let (server, _site) = parts.serve(&figures_of(keys(0..1000))).await;
    assert_eq!(fleet(&server).await["shard_counts"]["total"], 1000);
    let mut times = Vec::new();
    for path in ["/", "/api/fleet", "/", "/api/fleet", "/", "/api/fleet", "/", "/api/fleet", "/", "/api/fleet"] {
        let begun = Instant::now();
        let (code, _, body) = get(&server, path).await;
        times.push(begun.elapsed());
        assert!(code == 200 && body.len() > 10_000, "{path}: {}", body.len());
    }
    times.sort();
    // The rest of the machine may be busy, so the best half counts.
    assert!(times[times.len() / 2] < Duration::from_millis(50), "{times:?}");
}

#[tokio::test]
async fn only_get_is_answered_and_every_response_forbids_what_the_page_does_not_need() {
    let parts = parts(1, 1, |_| true).await;
    let (server, site) = parts.serve(&figures_of(keys(0..1))).await;
    site.serve_metrics(Arc::new(|| Ok("shardlake_up 1\n".to_owned())));
    let mut policies = BTreeMap::new();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/api/fleet", "application/json"),
        ("/api/status", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
        ("/nothing", "text/plain; charset=utf-8"),
    ] {
        let (code, head, _) = get(&server, path).await;
        assert_eq!(code == 404, path == "/nothing", "{path}: {code}");
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{path}: {head}");
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(header), "{path}: {header}: {head}");
        }
        assert!(!head.contains("access-control"), "no other site may read it: {head}");
        let policy = head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap().to_owned();
        policies.insert(path, policy);
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let (code, _, _) = ask(&server, method, path, "localhost:1").await;
            assert!(code == 405 || path == "/nothing", "{method} {path}: {code}");
        }
    }
    assert!(policies["/"].contains("script-src 'sha256-") && policies["/"].contains("connect-src 'self'"));
    assert!(policies["/metrics"].contains("default-src 'none'"));
    let (code, _, body) = ask(&server, "GET", "/api/fleet", "rebound.example:8470").await;
    assert_eq!(code, 421, "{body}");
    assert!(!body.contains("shard"), "{body}");
}

#[tokio::test]
async fn events_are_sent_to_pages_that_are_open_and_their_number_is_bounded() {
    let parts = parts(1, 1, |_| true).await;
    let (server, site) = parts.serve(&figures_of(keys(0..1))).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let (mut text, mut bytes) = (String::new(), [0; 8192]);
    while text.matches("event: fleet\ndata: {").count() < 3 {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0);
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert!(text.to_ascii_lowercase().contains("content-type: text/event-stream"), "{text}");
    assert!(site.is_watched());
    let watchers: Vec<Watcher> = (0..31).map(|_| Watcher::new(&site).unwrap()).collect();
    assert!(Watcher::new(&site).is_none());
    assert_eq!(get(&server, "/events").await.0, 503);
    assert_eq!(get(&server, "/healthz").await.0, 200, "health checks have connections of their own");
    drop((watchers, stream));
    for _ in 0..100 {
        if Watcher::new(&site).is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a page that was closed still counts");
}

#[tokio::test]
async fn a_client_that_sends_half_a_request_is_cut_off_and_others_are_served() {
    let parts = parts(1, 1, |_| true).await;
    let (server, _site) = parts.serve(&figures_of(keys(0..1))).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(get(&server, "/healthz").await.0, 200);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "x".repeat(200 << 10));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "a head has a limit");
}

#[tokio::test]
async fn a_worker_that_starts_is_alive_and_not_ready() {
    let parts = parts(1, 1, |_| true).await;
    let site = parts.site();
    let bound = bind(Listen::parse("127.0.0.1:0").unwrap()).await.unwrap().unwrap();
    let server = Server::start(bound, Arc::clone(&site));
    let (code, _, body) = get(&server, "/healthz").await;
    assert_eq!((code, serde_json::from_str::<Value>(&body).unwrap()["state"].clone()), (200, "starting".into()));
    assert_eq!(get(&server, "/readyz").await.0, 503);
    assert_eq!(get(&server, "/metrics").await.0, 503);
    assert_eq!(fleet(&server).await["state"], "starting");
    let progress = figures_of(keys(0..1));
    site.attach(parts.view(Arc::clone(&progress)));
    let (code, _, body) = get(&server, "/readyz").await;
    assert!(code == 503 && body.contains("the lease table has not answered yet"), "{body}");
    progress.pulse.leases_reached();
    assert_eq!(get(&server, "/readyz").await.0, 200);
    parts.stop.cancel();
    let (code, _, body) = get(&server, "/readyz").await;
    assert!(code == 503 && body.contains("\"state\":\"stopping\""), "{body}");
    assert_eq!(get(&server, "/healthz").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn readiness_needs_the_lease_table_and_progress_and_liveness_only_a_loop_that_turns() {
    let parts = parts(2, 1, |_| true).await;
    let site = parts.site();
    let progress = figures_of(keys(0..2));
    site.attach(parts.view(Arc::clone(&progress)));
    let reasons = |report: crate::server::health::Report| (report.ok, report.reasons.join("; "));
    let pulse = async |seconds: u64| {
        for _ in 0..seconds {
            progress.pulse.leases_reached();
            progress.pulse.loop_turned();
            site.note_progress();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    pulse(60).await;
    assert_eq!(reasons(site.readiness()), (true, String::new()));
    // The lease table does not answer: not ready, and alive, since a restart would not help.
    tokio::time::advance(Duration::from_secs(11)).await;
    let (ready, why) = reasons(site.readiness());
    assert!(!ready && why.contains("the lease table has not answered for 12 s"), "{why}");
    assert!(site.liveness().ok);
    // It answers again, but nothing is read of shards that are behind.
    pulse(60).await;
    let (ready, why) = reasons(site.readiness());
    assert!(!ready && why.contains("nothing was read or committed for 2 min"), "{why}");
    progress.records.fetch_add(1, Ordering::Relaxed);
    assert_eq!(reasons(site.readiness()), (true, String::new()));
    // An outage that the worker waits for, however long, does not call for a restart; a loop that hangs does.
    tokio::time::advance(Duration::from_secs(29 * 60)).await;
    assert!(site.liveness().ok);
    tokio::time::advance(Duration::from_secs(120)).await;
    let (alive, why) = reasons(site.liveness());
    assert!(!alive && why.contains("the loop of the worker has not turned for 31 min"), "{why}");
    // A replay may be paused for days.
    let (replay, mode) = (parts.site(), Mode::Replay(SampleLake::key(0).stream));
    replay.attach(View { mode, ..parts.view(Arc::clone(&progress)) });
    assert!(replay.liveness().ok && replay.readiness().ok);
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_and_a_shard_without_owner_are_problems_until_they_are_gone() {
    let parts = parts(3, 1, |shard| shard == 0).await;
    let progress = figures_of(keys(0..1));
    let site = parts.site();
    site.attach(parts.view(Arc::clone(&progress)));
    let keeping = tokio::spawn(super::fleet::keep_fresh(Arc::clone(&site)));
    let show = async || {
        progress.pulse.leases_reached();
        progress.records.fetch_add(1, Ordering::Relaxed);
        serde_json::from_slice::<Value>(&site.fleet().await).unwrap()
    };
    let first = show().await;
    assert!(!problem_names(&first).contains(&"ShardlakeWorkerDown"), "{}", first["problems"]);
    // The other worker's counters stand still, and this worker's move.
    let other = LeaseOwner::from_random([2; 16]);
    parts.leases.release(&other, &SampleLake::key(2)).await.unwrap();
    let mut shown = Value::Null;
    for counter in 1..30 {
        let renewal = checkpoints::Renewal { key: SampleLake::key(0), counter, throughput: Default::default() };
        parts.leases.renew(&parts.me, &[renewal]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        shown = show().await;
    }
    let names = problem_names(&shown);
    assert!(names.contains(&"ShardlakeWorkerDown") && names.contains(&"ShardlakeShardWithoutOwner"), "{names:?}");
    let workers = shown["workers"].as_array().unwrap();
    assert_eq!((&workers[0]["state"], &workers[1]["state"]), (&"alive".into(), &"silent".into()));
    assert_eq!(shown["shard_counts"]["free"], 2);
    // This worker takes both.
    for shard in [1, 2] {
        let lease = parts.leases.get(&[SampleLake::key(shard)]).await.unwrap().remove(0).unwrap();
        parts.leases.take(&parts.me, &lease.key, lease.counter).await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    let after = show().await;
    let names = problem_names(&after);
    assert!(!names.contains(&"ShardlakeWorkerDown") && !names.contains(&"ShardlakeShardWithoutOwner"), "{names:?}");
    keeping.abort();
}

#[tokio::test]
async fn every_problem_has_the_name_of_an_alert() {
    let text = include_str!("fleet/problems.rs");
    let names = text.split("\"Shardlake").skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name);
    let mut count = 0;
    for name in names {
        let name = format!("Shardlake{name}");
        // A note calls nobody, so it is not an alert.
        let is_note = ["ShardlakeWorkerStopping", "ShardlakeReplayStopped"].contains(&name.as_str());
        assert!(is_note || ALERTS.iter().any(|alert| alert.name == name), "{name}");
        count += 1;
    }
    assert!(count > 12, "{count}");
}

#[tokio::test]
async fn stores_that_fail_are_a_problem_and_what_was_read_before_stays() {
    let parts = parts(2, 2, |_| true).await;
    let (server, _site) = parts.serve(&figures_of(keys(0..2))).await;
    assert_eq!(fleet(&server).await["lake"]["version"], 2);
    (0..50).for_each(|_| parts.lake.fail("list", 0, Fault::LoseBefore));
    let mut shown = Value::Null;
    for _ in 0..100 {
        shown = fleet(&server).await;
        if problem_names(&shown).contains(&"ShardlakeServiceFailing")
            && shown["problems"].to_string().contains("Cannot read the log of the lake")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(shown["problems"].to_string().contains("Cannot read the log of the lake"), "{}", shown["problems"]);
    assert_eq!((&shown["lake"]["version"], &shown["shard_counts"]["total"]), (&2.into(), &2.into()));
}
