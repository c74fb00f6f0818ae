//! Several workers on one stream: they share its shards, stop, are killed, and stall.

use std::time::{Duration, Instant};

use aws_model::kinesis::Put;

use crate::aws::cloud::{BUCKET, Cloud, Options, STREAM};
use crate::common::worker::Worker;
use crate::common::{pause, wait_for};

#[test]
fn two_workers_read_a_stream_exactly_once() {
    let cloud = Cloud::new(4, &Options::default());
    cloud.put(3_000);
    let workers = [0, 1].map(|_| cloud.start(&["--until-caught-up"]));
    let summaries = workers.map(|worker| worker.finish(60));
    let read = summaries.iter().map(|summary| summary["records"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(read, cloud.expected(), "{summaries:?}");
    assert_eq!(cloud.s3.uploads(BUCKET), [], "an upload is left");
    assert!(cloud.rows().iter().all(|row| row.owner.is_none()), "a lease is still held");
    cloud.audit();
    // Nothing is left to do.
    assert_eq!(cloud.catch_up()["records"], 0);
    cloud.audit();
}

#[test]
fn workers_killed_again_and_again_lose_and_repeat_nothing() {
    let options = Options { leases: "failover = \"1s\"".to_owned(), ..Options::default() };
    let cloud = Cloud::new(4, &options);
    let mut workers = vec![cloud.start(&[]), cloud.start(&[])];
    for round in 0..10_u64 {
        cloud.put(60);
        // At a different moment of the epoch each time. Sometimes both are killed.
        pause(300 + 170 * (round % 6));
        cloud.put(30);
        workers.remove(0).kill();
        if round % 3 == 2 {
            workers.remove(0).kill();
            workers.push(cloud.start(&[]));
        }
        workers.push(cloud.start(&[]));
    }
    wait_for("a commit", 20, || cloud.committed() > 0);
    workers.into_iter().for_each(Worker::kill);
    cloud.put(40);
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_worker_stalled_beyond_its_leases_commits_nothing_when_it_resumes() {
    let options = Options { interval: "1s".to_owned(), ..Options::default() };
    let cloud = Cloud::new(4, &options);
    let mut stalled = cloud.start(&[]);
    wait_for("the first worker to hold all", 20, || cloud.sole_holder(4).is_some());
    let name = cloud.sole_holder(4).unwrap();
    cloud.put(200);
    let other = cloud.start(&[]);
    wait_for("both to hold something", 30, || cloud.shares().is_some_and(|shares| shares.len() == 2));
    cloud.put(200);
    // In the middle of an open epoch.
    pause(400);
    stalled.signal("STOP");
    cloud.put(200);
    wait_for("the other to take over", 15, || cloud.sole_holder(4).is_some_and(|holder| holder != name));
    cloud.put(200);
    wait_for("the other to commit all", 15, || cloud.everything_is_committed());
    stalled.signal("CONT");
    cloud.put(200);
    wait_for("everything to be committed", 15, || cloud.everything_is_committed());
    pause(2_000);
    assert_eq!(stalled.exit_status(), None, "it must continue");
    stalled.stop();
    other.stop();
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_stopping_worker_hands_over_its_shards_at_once() {
    // With the default failover time, for which a hand-over must not wait.
    let options = Options { leases: String::new(), ..Options::default() };
    let cloud = Cloud::new(6, &options);
    let mut staying = cloud.start(&[]);
    wait_for("the first worker to hold all", 20, || cloud.sole_holder(6).is_some());
    let mut took = Vec::new();
    for _ in 0..2 {
        let name = cloud.shares().unwrap().into_keys().next().unwrap();
        let next = cloud.start(&[]);
        wait_for("both to hold three", 30, || cloud.shares().is_some_and(|shares| shares.values().eq(&[3, 3])));
        cloud.put(300);
        pause(200);
        // The older one stops, and the newer one takes everything.
        let started = Instant::now();
        staying.signal("TERM");
        wait_for("the newer one to hold all", 10, || cloud.sole_holder(6).is_some_and(|holder| holder != name));
        took.push(started.elapsed());
        staying.finish(40);
        staying = next;
    }
    eprintln!("measured: from SIGTERM until the other held all: {took:?}");
    cloud.put(100);
    wait_for("everything to be committed", 15, || cloud.everything_is_committed());
    staying.stop();
    cloud.audit();
}

#[test]
fn a_new_worker_gets_its_share_and_takes_over_from_a_killed_one() {
    let options = Options { leases: String::new(), ..Options::default() };
    let cloud = Cloud::new(6, &options);
    let first = cloud.start(&[]);
    wait_for("the first worker to hold all", 20, || cloud.sole_holder(6).is_some());
    let name = cloud.sole_holder(6).unwrap();
    cloud.put(300);
    let started = Instant::now();
    let second = cloud.start(&[]);
    wait_for("both to hold three", 30, || cloud.shares().is_some_and(|shares| shares.values().eq(&[3, 3])));
    let shared = started.elapsed();
    cloud.put(300);
    pause(200);
    let started = Instant::now();
    first.kill();
    wait_for("the second worker to hold all", 15, || cloud.sole_holder(6).is_some_and(|holder| holder != name));
    let taken = started.elapsed();
    eprintln!("measured: its share after {shared:?}; the shards of the killed one after {taken:?}");
    assert!(taken > Duration::from_secs(5), "it took over before the failover time");
    cloud.put(100);
    wait_for("everything to be committed", 15, || cloud.everything_is_committed());
    second.stop();
    cloud.audit();
}

#[test]
fn shards_beyond_the_limit_of_a_transaction_are_committed_in_groups() {
    let limits = "threads = 1\nrecord_bytes = \"1 MiB\"\nmemory = \"64 MiB\"".to_owned();
    let cloud = Cloud::new(120, &Options { limits, interval: "2s".to_owned(), ..Options::default() });
    cloud.put(4_000);
    let worker = cloud.start(&[]);
    wait_for("one worker to hold all", 30, || cloud.sole_holder(120).is_some());
    cloud.put(1_000);
    wait_for("everything to be committed", 60, || cloud.everything_is_committed());
    let peak = worker.peak_memory();
    worker.stop();
    let shards = |commit: &serde_json::Value| commit["shards"].as_array().unwrap().len();
    let groups: Vec<usize> = cloud.commits().iter().map(shards).collect();
    eprintln!("measured: a peak of {} MiB; shards of each epoch: {groups:?}", peak >> 20);
    assert!(groups.iter().all(|count| *count <= 100), "{groups:?}");
    assert!(groups.len() > 1, "{groups:?}");
    assert!(peak < 192 << 20, "{} MiB", peak >> 20);
    cloud.audit();
}

/// The service pushes 40 events of megabytes at once, and a worker of 64 MiB takes them one after another.
#[test]
fn pushed_events_wait_at_the_service_until_there_is_memory() {
    const SHARDS: u32 = 40;
    const RECORDS: usize = 200;
    let limits = "threads = 1\nrecord_bytes = \"2 MiB\"\nmemory = \"64 MiB\"".to_owned();
    let cloud = Cloud::new(SHARDS, &Options { limits, source: "read = \"fan-out\"".to_owned(), ..Options::default() });
    let record = |number: usize| Put::new(format!("key {number}"), vec![b'x'; 1_000_000]);
    for first in (0..RECORDS).step_by(4) {
        let placed = cloud.kinesis.put_records(STREAM, (first..first + 4).map(record).collect()).unwrap();
        assert!(placed.iter().all(Result::is_ok));
    }
    let worker = cloud.start(&[]);
    wait_for("everything to be committed", 120, || cloud.committed() == RECORDS as u64);
    let peak = worker.peak_memory();
    let summary = worker.stop();
    eprintln!("measured: a peak of {} MiB", peak >> 20);
    assert!(peak < 192 << 20, "{} MiB", peak >> 20);
    let requests = summary["requests"].as_object().unwrap();
    assert!(requests["Kinesis.SubscribeToShard"].as_u64().unwrap() >= u64::from(SHARDS), "{requests:?}");
    assert_eq!(requests.get("Kinesis.GetRecords"), None, "nothing is polled");
}
