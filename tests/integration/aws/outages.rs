//! Outages: a service that fails, throttles or does not respond for longer than a moment, and shards that cannot be read.
//!
//! Workers are processes, so time is real. `[retry] within` is short where a worker is to give up.

use std::time::{Duration, Instant};

use aws_model::faults::{Fault, FaultKind, Refusal, Rule, ServiceName, When};

use crate::aws::cloud::{BUCKET, Cloud, Options, TABLE};
use crate::common::worker::Worker;
use crate::common::{pause, wait_for};

/// The most lines at level `warn` or `error` that one trouble may have in a test of half a minute: three a minute, its end, and a
/// line about what follows.
const LINES_MAX: usize = 6;

/// A stream of two shards, and workers that wait for a service for this time.
fn cloud(within: &str) -> Cloud {
    let leases = format!("failover = \"2s\"\n[retry]\nwithin = \"{within}\"");
    Cloud::new(2, &Options { leases, ..Options::default() })
}

fn warnings(worker: &Worker) -> Vec<String> {
    let log = worker.log();
    log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR ")).map(str::to_owned).collect()
}

fn always(cloud: &Cloud, service: ServiceName, operation: &str, fault: Fault) {
    cloud.faults.add(Rule::new(service, operation, When::Always, fault));
}

/// A worker is reading when the calls begin to meet this fault, which lasts for this time. It must go on afterwards: the same process,
/// with its leases and its epoch.
fn survives(service: ServiceName, operation: &str, fault: &Fault, seconds: u64) {
    let cloud = cloud("60s");
    cloud.put(100);
    let worker = cloud.start(&[]);
    wait_for("the first commit", 20, || cloud.everything_is_committed());
    let holder = cloud.sole_holder(2).expect("one worker holds both");
    always(&cloud, service, operation, fault.clone());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        cloud.put(10);
        pause(500);
    }
    assert_eq!(cloud.sole_holder(2), Some(holder.clone()), "the leases are kept");
    cloud.faults.clear();
    wait_for("everything to be committed", 40, || cloud.everything_is_committed());
    let lines = warnings(&worker);
    assert!((1..=LINES_MAX).contains(&lines.len()), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("fails; retrying")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("works again")), "{lines:#?}");
    assert_eq!(cloud.sole_holder(2), Some(holder));
    let summary = worker.stop();
    assert_eq!(summary["epochs"]["aborted"], 0, "the epoch is kept: {summary}");
    cloud.audit();
}

#[test]
fn half_a_minute_of_slow_down_is_survived() {
    survives(ServiceName::S3, "*", &Fault::Refuse(Refusal::slow_down()), 30);
}

#[test]
fn half_a_minute_without_decisions_is_survived() {
    survives(ServiceName::DynamoDb, "TransactWriteItems", &Fault::Refuse(Refusal::throughput_exceeded()), 34);
}

#[test]
fn half_a_minute_of_completions_that_are_never_answered_is_survived() {
    survives(ServiceName::S3, "CompleteMultipartUpload", &Fault::Hang, 30);
}

#[test]
fn expired_credentials_pass_in_every_service() {
    let threads: Vec<_> = [
        (ServiceName::S3, "*", "ExpiredToken"),
        (ServiceName::S3, "*", "RequestTimeTooSkewed"),
        (ServiceName::DynamoDb, "*", "ExpiredTokenException"),
        (ServiceName::DynamoDb, "*", "RequestExpired"),
        (ServiceName::Kinesis, "*", "ExpiredTokenException"),
        (ServiceName::Kinesis, "*", "ExpiredToken"),
    ]
    .into_iter()
    .map(|(service, operation, code)| {
        let fault = Fault::Refuse(Refusal::new(400, code, "The security token included in the request is expired"));
        std::thread::spawn(move || survives(service, operation, &fault, 6))
    })
    .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Whether an intent is in the lake.
fn has_intent(cloud: &Cloud) -> bool {
    cloud.s3.keys(BUCKET).iter().any(|key| key.contains("_intents/"))
}

/// A lake that does not respond any more, from now on: the worker says so within seconds, and ends when its time is over.
fn ends_within_its_time(cloud: &Cloud, worker: &mut Worker) {
    always(cloud, ServiceName::S3, "*", Fault::Hang);
    let hung_before = cloud.faults.count(FaultKind::Hang);
    cloud.put(100);
    wait_for("a call to hang", 20, || cloud.faults.count(FaultKind::Hang) > hung_before);
    let begun = Instant::now();
    wait_for("the first warning", 30, || warnings(worker).iter().any(|line| line.contains("no response for 10 s")));
    // An attempt that is under way when the time is over is waited for.
    assert_eq!(worker.wait(75).code(), Some(1), "{}", worker.log());
    assert!(begun.elapsed() > Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(warnings(worker).len() <= LINES_MAX + 2, "{}", worker.log());
    assert!(cloud.rows().iter().all(|row| row.owner.is_none()), "every lease is released");
    cloud.faults.clear();
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_lake_that_does_not_respond_ends_a_worker_within_its_time_and_is_logged_within_seconds() {
    let cloud = cloud("20s");
    cloud.put(100);
    let mut worker = cloud.start(&[]);
    wait_for("the first commit", 20, || cloud.everything_is_committed());
    ends_within_its_time(&cloud, &mut worker);
}

/// A list may take long, so it is not watched as a whole; each of its pages is.
#[test]
fn a_lake_that_does_not_list_is_logged_within_seconds() {
    let cloud = cloud("20s");
    cloud.put(100);
    always(&cloud, ServiceName::S3, "ListObjectsV2", Fault::Hang);
    let mut worker = cloud.start(&[]);
    wait_for("a list to hang", 20, || cloud.faults.count(FaultKind::Hang) > 0);
    wait_for("the first warning", 20, || warnings(&worker).iter().any(|line| line.contains("no response for 10 s")));
    cloud.faults.clear();
    worker.signal("KILL");
    worker.wait(10);
    cloud.catch_up();
    cloud.audit();
}

/// The last step of a commit is waited for without a word, since a sweep does it otherwise.
#[test]
fn a_lake_that_stops_responding_in_the_last_step_of_a_commit_is_logged_within_seconds() {
    let cloud = cloud("20s");
    always(&cloud, ServiceName::S3, "DeleteObject", Fault::Hang);
    cloud.put(100);
    let mut worker = cloud.start(&[]);
    wait_for("the last step of the first commit", 20, || cloud.faults.count(FaultKind::Hang) > 0);
    assert!(cloud.everything_is_committed() && has_intent(&cloud));
    ends_within_its_time(&cloud, &mut worker);
}

#[test]
fn a_start_waits_for_services_that_fail() {
    let threads: Vec<_> = [
        (ServiceName::S3, "ListObjectsV2", Refusal::slow_down()),
        (ServiceName::S3, "GetObject", Refusal::slow_down()),
        (ServiceName::DynamoDb, "DescribeTable", Refusal::new(500, "InternalServerError", "later")),
        (ServiceName::DynamoDb, "CreateTable", Refusal::new(400, "LimitExceededException", "later")),
        (ServiceName::DynamoDb, "Scan", Refusal::throughput_exceeded()),
        (ServiceName::Kinesis, "DescribeStreamSummary", Refusal::new(400, "LimitExceededException", "later")),
        (ServiceName::Kinesis, "ListShards", Refusal::internal()),
    ]
    .into_iter()
    .map(|(service, operation, refusal)| {
        std::thread::spawn(move || {
            let cloud = cloud("60s");
            cloud.faults.add(Rule::new(service, operation, When::First(12), Fault::Refuse(refusal)));
            cloud.put(50);
            let worker = cloud.start(&["--until-caught-up"]);
            wait_for("the faults", 40, || cloud.faults.count(FaultKind::Refuse) == 12);
            let log = worker.log();
            worker.finish(40);
            assert!(log.contains("fails; retrying"), "{operation}: {log}");
            cloud.audit();
        })
    })
    .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_start_that_is_refused_ends_at_once() {
    let cloud = cloud("60s");
    let denied = Refusal::new(403, "AccessDenied", "Access Denied");
    always(&cloud, ServiceName::S3, "*", Fault::Refuse(denied));
    let mut worker = cloud.start(&[]);
    assert_eq!(worker.wait(10).code(), Some(1), "{}", worker.log());
    cloud.faults.clear();
    let mut nowhere = cloud.start(&["--checkpoints", "dynamodb://no", "--lake", "s3://no-such-bucket/x"]);
    assert!(nowhere.wait(10).code().is_some_and(|code| code > 0), "{}", nowhere.log());
    assert!(cloud.dynamodb.items(TABLE).is_empty());
}

#[test]
fn a_shard_that_cannot_be_read_ends_a_run_until_caught_up_and_is_reported_once() {
    let faults = [
        Fault::Refuse(Refusal::internal()),
        Fault::Refuse(Refusal::throughput_exceeded()),
        Fault::Refuse(Refusal::expired_iterator()),
        Fault::CutBefore,
        Fault::CutBody,
        Fault::Hang,
    ];
    let threads = faults.map(|fault| {
        std::thread::spawn(move || {
            let cloud = cloud("15s");
            cloud.put(50);
            always(&cloud, ServiceName::Kinesis, "GetRecords", fault.clone());
            let begun = Instant::now();
            let mut worker = cloud.start(&["--until-caught-up"]);
            assert_eq!(worker.wait(60).code(), Some(1), "{}", worker.log());
            let took = begun.elapsed().as_secs();
            assert!((14..50).contains(&took), "{fault:?}: {took} s");
            let log = worker.log();
            assert!(log.contains("shards were not read to the end") && log.contains("no progress for"), "{log}");
            for shard in ["shardId-000000000000", "shardId-000000000001"] {
                let released = log.lines().filter(|line| line.contains("releasing it") && line.contains(shard)).count();
                assert_eq!(released, 1, "{fault:?}: {log}");
            }
            assert!(warnings(&worker).len() <= LINES_MAX, "{fault:?}: {log}");
            let calls = cloud.calls(ServiceName::Kinesis, "GetRecords");
            assert!(calls < 40, "{fault:?}: {calls} requests");
            cloud.faults.clear();
            cloud.catch_up();
            cloud.audit();
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn what_lasts_for_a_minute_is_logged_a_few_times() {
    let kinds = [
        (ServiceName::Kinesis, "ListShards", Refusal::new(400, "AccessDeniedException", "no")),
        (ServiceName::Kinesis, "GetRecords", Refusal::internal()),
        (ServiceName::DynamoDb, "UpdateItem", Refusal::throughput_exceeded()),
        (ServiceName::DynamoDb, "Scan", Refusal::throughput_exceeded()),
    ];
    let threads = kinds.map(|(service, operation, refusal)| {
        std::thread::spawn(move || {
            let cloud = cloud("5m");
            cloud.put(50);
            let worker = cloud.start(&[]);
            wait_for("the first commit", 20, || cloud.everything_is_committed());
            always(&cloud, service, operation, Fault::Refuse(refusal));
            // Where a shard is split meanwhile, its children cannot be seen.
            pause(40_000);
            let lines = warnings(&worker);
            assert!((1..=LINES_MAX).contains(&lines.len()), "{operation}: {lines:#?}");
            cloud.faults.clear();
            cloud.put(50);
            wait_for("everything to be committed", 30, || cloud.everything_is_committed());
            worker.stop();
            cloud.audit();
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_stop_during_an_outage_ends_in_the_time_for_it() {
    let leases = "failover = \"2s\"\n[stop]\nwithin = \"4s\"".to_owned();
    let cloud = Cloud::new(2, &Options { leases, ..Options::default() });
    cloud.put(100);
    let mut worker = cloud.start(&[]);
    wait_for("the first commit", 20, || cloud.everything_is_committed());
    always(&cloud, ServiceName::S3, "*", Fault::Refuse(Refusal::slow_down()));
    cloud.put(100);
    wait_for("a commit to fail", 20, || cloud.faults.count(FaultKind::Refuse) > 5);
    worker.signal("TERM");
    let took = wait_for("the worker's end", 20, || worker.exit_status().is_some());
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(worker.exit_status().unwrap().code(), Some(1));
    assert!(cloud.rows().iter().all(|row| row.owner.is_none()), "every lease is released");
    cloud.faults.clear();
    cloud.catch_up();
    cloud.audit();
}
