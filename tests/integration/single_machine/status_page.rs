//! The status page of a worker that reads files, and its health checks.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::time::Instant;

use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::http::{LISTEN, address_of, ask, fleet, get, send};
use crate::common::wait_for;
use crate::single_machine::assessment;

const RUN: [&str; 8] = ["--source", "in", "--lake", "lake", "--commit-interval", "500ms", "--threads", "1"];

/// Checkpoints and owners by shard, as `status --json` or `/api/fleet` has them.
fn shards(value: &Value) -> BTreeMap<String, (Value, Value)> {
    let shard = |shard: &Value| {
        (shard["shard"].as_str().unwrap().to_owned(), (shard["checkpoint"].clone(), shard["owner"].clone()))
    };
    value["shards"].as_array().unwrap().iter().map(shard).collect()
}

#[test]
fn the_page_shows_what_status_says_and_ends_with_the_worker() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..50).map(assessment).collect::<String>());
    folder.write("in/b.ndjson", format!("{}not json kim@example.com\n", assessment(50)));
    let worker = folder.start(&[&RUN[..], &LISTEN].concat());
    let address = address_of(&worker);
    wait_for("the rows on the page", 60, || fleet(&address)["lake"]["rows"]["assessments"] == 51);
    let (status, shown) = (folder.json(&["status", "--lake", "lake"]), fleet(&address));
    assert_eq!(shards(&shown), shards(&status));
    let lake = &shown["lake"];
    assert_eq!(lake["epochs"], status["epochs"]);
    assert_eq!((&lake["records"], &lake["rows"]), (&status["totals"]["records"], &status["totals"]["rows"]));
    assert_eq!(lake["objects"], status["objects"]);
    assert_eq!(lake["watermarks"], status["watermarks"]);
    assert_eq!(shown["worker"]["ready"], true, "{}", shown["worker"]);
    assert_eq!(shown["problems"], Value::Array(Vec::new()));
    let dead = &lake["dead_letters"][0];
    assert_eq!((&dead["records"], &dead["last_hour"]), (&1.into(), &1.into()));
    wait_for("the position of the dead letter", 60, || {
        fleet(&address)["lake"]["dead_letters"][0]["newest"][0]["shard"]
            .as_str()
            .is_some_and(|shard| shard.contains("b.ndjson"))
    });
    let edges = shown["graph"]["edges"].as_array().unwrap();
    let read: u64 = edges
        .iter()
        .filter(|edge| edge["id"].as_str().unwrap().starts_with("source/"))
        .filter_map(|edge| edge["records"].as_u64())
        .sum();
    assert_eq!(read, 52);

    // Nothing of a record is in any response.
    for path in ["/", "/api/fleet", "/api/status", "/metrics", "/healthz", "/readyz"] {
        let answer = get(&address, path);
        assert!(!answer.body.contains("kim@example.com") && !answer.body.contains("not json"), "{path}");
        assert!(answer.head.contains("cache-control: no-store"), "{path}: {}", answer.head);
    }
    assert_eq!(get(&address, "/").code, 200);
    assert_eq!(ask(&address, "POST", "/", &address).code, 405);
    assert_eq!(ask(&address, "GET", "/api/fleet", "rebound.example").code, 421);

    let url = format!("http://{address}");
    assert!(folder.ok(&["health", "--url", &url]).starts_with("ok (running)"));
    let ready = folder.json(&["health", "--ready", "--url", &url]);
    assert_eq!((&ready["ok"], &ready["state"]), (&true.into(), &"running".into()));

    // An open page does not hold up the end.
    let mut events = send(&address, "GET", "/events", &address);
    let mut bytes = [0; 1024];
    assert!(events.read(&mut bytes).unwrap() > 0);
    let begun = Instant::now();
    worker.stop();
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    let _ = events.read_to_end(&mut Vec::new());
    assert!(folder.exits(1, &["health", "--url", &url]).contains("no worker answers"));
    assert!(folder.exits(2, &["health", "--url", "https://example.org"]).contains("is not a valid URL of a worker"));
}

#[test]
fn an_address_that_is_taken_is_reported_before_anything_is_touched() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = [&["run", "--until-caught-up"], &RUN[..]].concat();
    let printed = folder.exits(2, &[&run[..], &["--listen", &address]].concat());
    assert!(printed.contains(&format!("cannot listen on {address}")) && printed.contains("--listen off"), "{printed}");
    assert!(!folder.path("lake").exists());
    let printed = folder.exits(2, &[&run[..], &["--listen", "everywhere"]].concat());
    assert!(printed.contains("listen must be off, or an address and a port"), "{printed}");
    folder.write("shardlake.toml", format!("[server]\nlisten = \"{address}\"\n"));
    assert!(folder.exits(2, &run).contains(&format!("cannot listen on {address}")));
    // The flag counts before the file.
    folder.ok(&[&run[..], &["--listen", "off"]].concat());
    folder.assert_verified(1);
}
