//! Health checks and the status page while services fail, and what they cost.

use aws_model::faults::{Fault, Refusal, Rule, ServiceName, When};

use crate::aws::cloud::{Cloud, Options};
use crate::common::http::{LISTEN, address_of, fleet, get};
use crate::common::{pause, wait_for};

#[test]
fn a_lease_table_that_fails_makes_a_worker_not_ready_and_keeps_it_alive() {
    let leases = "failover = \"2s\"\n[retry]\nwithin = \"60s\"".to_owned();
    let cloud = Cloud::new(2, &Options { leases, ..Options::default() });
    cloud.put(50);
    let worker = cloud.start(&LISTEN);
    let address = address_of(&worker);
    assert_eq!(get(&address, "/healthz").code, 200, "also while it starts");
    wait_for("the worker to be ready", 30, || get(&address, "/readyz").code == 200);
    wait_for("the first commit", 30, || cloud.everything_is_committed());
    cloud.faults.add(Rule::new(ServiceName::DynamoDb, "*", When::Always, Fault::Refuse(Refusal::internal())));
    wait_for("the worker not to be ready", 30, || get(&address, "/readyz").code == 503);
    let report = get(&address, "/readyz").json();
    assert!(report["reasons"][0].as_str().unwrap().contains("the lease table has not answered for"), "{report}");
    assert_eq!(get(&address, "/healthz").code, 200, "a restart would not help");
    wait_for("the page to say so", 30, || {
        let shown = fleet(&address);
        let problems = shown["problems"].to_string();
        shown["worker"]["ready"] == false && problems.contains("Cannot read the lease table")
    });
    assert_eq!(fleet(&address)["shard_counts"]["total"], 2, "what was read before stays");
    cloud.faults.clear();
    wait_for("the worker to be ready again", 30, || get(&address, "/readyz").code == 200);
    wait_for("the page to say so no more", 30, || {
        !fleet(&address)["problems"].to_string().contains("ShardlakeServiceFailing")
    });
    worker.stop();
    cloud.audit();
}

#[test]
fn an_idle_worker_makes_no_request_for_its_page_unless_somebody_watches() {
    let cloud = Cloud::new(2, &Options { interval: "2s".to_owned(), ..Options::default() });
    cloud.put(20);
    let worker = cloud.start(&LISTEN);
    let address = address_of(&worker);
    wait_for("the first commit", 30, || cloud.everything_is_committed());
    let lists = || cloud.calls(ServiceName::S3, "ListObjectsV2");
    let scans = || cloud.calls(ServiceName::DynamoDb, "Scan");
    pause(3000);
    let (before, scans_before) = (lists(), scans());
    pause(6000);
    // Checks of health read nothing.
    assert_eq!((get(&address, "/healthz").code, get(&address, "/readyz").code), (200, 200));
    assert_eq!(lists(), before, "the page is read only while somebody watches");
    let idle_scans = scans() - scans_before;
    let shown = fleet(&address);
    assert_eq!(shown["lake"]["records"], cloud.expected());
    assert!(lists() > before);
    // With the role of deploy/, so all of this is permitted.
    assert!(!shown["problems"].to_string().contains("ShardlakeServiceFailing"), "{}", shown["problems"]);
    let retention = shown["shards"][0]["retention_used"].as_f64();
    assert!(retention.is_some_and(|share| share < 0.01), "{}", shown["shards"][0]);
    // One read serves all who watch.
    let scans_before = scans();
    for _ in 0..40 {
        fleet(&address);
    }
    assert!(scans() - scans_before <= idle_scans + 2, "{} and {idle_scans}", scans() - scans_before);
    worker.stop();
    cloud.audit();
}
