//! Requests that fail, hang, or take effect without a response; leases and uploads that another process takes away.

use std::num::NonZeroU64;

use aws_model::dynamodb::Refusal as DynamoRefusal;
use aws_model::faults::{Fault, FaultKind, Refusal, Rule, ServiceName, When};
use serde_json::json;

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX, TABLE};
use crate::common::worker::Worker;
use crate::common::{pause, wait_for};

/// Calls that take effect, and whose responses are lost in turn.
const WRITES: [(ServiceName, &str); 6] = [
    (ServiceName::DynamoDb, "TransactWriteItems"),
    (ServiceName::DynamoDb, "UpdateItem"),
    (ServiceName::S3, "CreateMultipartUpload"),
    (ServiceName::S3, "UploadPart"),
    (ServiceName::S3, "CompleteMultipartUpload"),
    (ServiceName::S3, "PutObject"),
];

/// Calls that only read.
const READS: [(ServiceName, &str); 6] = [
    (ServiceName::Kinesis, "GetRecords"),
    (ServiceName::Kinesis, "GetShardIterator"),
    (ServiceName::Kinesis, "ListShards"),
    (ServiceName::DynamoDb, "Scan"),
    (ServiceName::S3, "GetObject"),
    (ServiceName::S3, "ListObjectsV2"),
];

fn server_error(service: ServiceName) -> Refusal {
    match service {
        ServiceName::DynamoDb => Refusal::new(500, "InternalServerError", "The request processing has failed."),
        ServiceName::S3 => Refusal::new(500, "InternalError", "We encountered an internal error. Please try again."),
        _ => Refusal::internal(),
    }
}

fn throttled(service: ServiceName) -> Refusal {
    match service {
        ServiceName::S3 => Refusal::slow_down(),
        _ => Refusal::throughput_exceeded(),
    }
}

impl Cloud {
    /// Puts records until the condition holds, so that there is always something to commit.
    fn put_until(&self, what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
        wait_for(what, seconds, || {
            self.put(20);
            pause(80);
            holds()
        });
    }
}

#[test]
fn every_writing_call_may_fail_in_every_way_or_lose_its_response() {
    let cloud = Cloud::new(2, &Options::default());
    for (service, operation) in WRITES {
        let rule = |when, fault| Rule::new(service, operation, when, fault);
        cloud.faults.add(rule(When::Nth(2), Fault::CutAfter));
        cloud.faults.add(rule(When::Nth(4), Fault::RefuseAfter(server_error(service))));
        cloud.faults.add(rule(When::Nth(6), Fault::CutBody));
        cloud.faults.add(rule(When::Nth(8), Fault::Refuse(throttled(service))));
        cloud.faults.add(rule(When::Nth(9), Fault::Refuse(server_error(service))));
        cloud.faults.add(rule(When::Nth(10), Fault::CutBefore));
        // Three in a row exhaust the SDK's own attempts.
        for nth in 12..=14 {
            cloud.faults.add(rule(When::Nth(nth), Fault::CutAfter));
        }
    }
    cloud.put(200);
    let workers = [cloud.start(&[]), cloud.start(&[])];
    cloud.put_until("every fault to happen", 45, || {
        WRITES.iter().all(|(service, operation)| cloud.calls(*service, operation) > 14)
    });
    let six = WRITES.len() as u64;
    let happened = cloud.faults.happened();
    assert_eq!(happened[&FaultKind::CutAfter], 4 * six, "{happened:?}");
    for kind in [FaultKind::RefuseAfter, FaultKind::CutBody, FaultKind::CutBefore] {
        assert_eq!(happened[&kind], six, "{kind:?}");
    }
    assert_eq!(happened[&FaultKind::Refuse], 2 * six);
    for worker in workers {
        worker.stop();
    }
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn an_epoch_whose_transaction_is_canceled_for_any_reason_is_decided_at_most_once() {
    let cloud = Cloud::new(2, &Options::default());
    let refusals = [
        DynamoRefusal::TransactionConflict,
        DynamoRefusal::Throttling,
        DynamoRefusal::ThroughputExceeded,
        DynamoRefusal::RequestLimitExceeded,
        DynamoRefusal::InProgress,
        DynamoRefusal::Internal,
    ];
    // Every second transaction fails, so that each is repeated; and the same for single writes.
    let nths = (1..).map(|place| 2 * place);
    for (nth, refusal) in nths.zip(refusals) {
        cloud.dynamodb.refuse_transaction(nth, usize::try_from(nth % 3).unwrap(), refusal);
        cloud.dynamodb.refuse_write(4 * nth, refusal);
    }
    cloud.put(100);
    let worker = cloud.start(&[]);
    let seen = |operation| cloud.dynamodb.requests().get(operation).copied().unwrap_or(0);
    cloud.put_until("every refusal", 45, || seen("TransactWriteItems") > 12 && seen("UpdateItem") > 4 * 12);
    worker.stop();
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn two_percent_of_all_calls_may_fail_in_every_way() {
    let cloud = Cloud::new(3, &Options::default());
    cloud.kinesis.configure(|settings| settings.empty_answer_every = NonZeroU64::new(5));
    // Calls that hang until the client times out after 10 s, before and after their effect.
    for (service, operation, fault) in [
        (ServiceName::Kinesis, "GetRecords", Fault::Hang),
        (ServiceName::DynamoDb, "UpdateItem", Fault::Hang),
        (ServiceName::DynamoDb, "TransactWriteItems", Fault::HangAfter),
    ] {
        cloud.faults.add(Rule::new(service, operation, When::Nth(9), fault));
    }
    let few = When::Probability(0.02);
    for (service, operation) in WRITES {
        for fault in [
            Fault::CutBefore,
            Fault::CutAfter,
            Fault::CutBody,
            Fault::RefuseAfter(server_error(service)),
            Fault::Refuse(server_error(service)),
            Fault::Refuse(throttled(service)),
            Fault::Delay(std::time::Duration::from_millis(300)),
        ] {
            cloud.faults.add(Rule::new(service, operation, few, fault));
        }
    }
    for (service, operation) in READS {
        for fault in [
            Fault::CutBefore,
            Fault::CutBody,
            Fault::Refuse(server_error(service)),
            Fault::Refuse(throttled(service)),
            Fault::Delay(std::time::Duration::from_millis(300)),
        ] {
            cloud.faults.add(Rule::new(service, operation, few, fault));
        }
    }
    let records = |when, refusal| Rule::new(ServiceName::Kinesis, "GetRecords", when, Fault::Refuse(refusal));
    cloud.faults.add(records(When::Every(15), Refusal::expired_iterator()));
    cloud.faults.add(records(When::Every(7), Refusal::throughput_exceeded()));
    for nth in 1..=3 {
        cloud.s3.conflict_with(10 * nth);
    }
    cloud.put(300);
    let mut workers: Vec<Worker> = vec![cloud.start(&[]), cloud.start(&[])];
    let started = std::time::Instant::now();
    let kinds = [
        FaultKind::Refuse,
        FaultKind::Delay,
        FaultKind::Hang,
        FaultKind::CutBefore,
        FaultKind::CutAfter,
        FaultKind::RefuseAfter,
        FaultKind::HangAfter,
        FaultKind::CutBody,
    ];
    cloud.put_until("faults of every kind", 60, || {
        // A worker may end because of a fault. Like any supervisor, the test starts another one.
        for worker in &mut workers {
            if worker.exit_status().is_some() {
                *worker = cloud.start(&[]);
            }
        }
        let enough = |kind: &FaultKind| {
            let least = match kind {
                FaultKind::HangAfter => 1,
                FaultKind::Hang => 2,
                _ => 3,
            };
            cloud.faults.count(*kind) >= least
        };
        kinds.iter().all(enough) && started.elapsed().as_secs() >= 10
    });
    eprintln!("measured: {:?}", cloud.faults.happened());
    // The faults remain while the workers stop.
    for mut worker in workers {
        worker.signal("TERM");
        worker.wait(40);
    }
    cloud.faults.clear();
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_lake_that_denies_an_upload_stops_the_worker_long_before_the_end_of_the_epoch() {
    let cloud = Cloud::new(1, &Options::default());
    let denied = Fault::Refuse(Refusal::new(403, "AccessDenied", "Access Denied"));
    cloud.faults.add(Rule::new(ServiceName::S3, "CreateMultipartUpload", When::Every(1), denied));
    cloud.put(20_000);
    let mut worker = cloud.start(&["--commit-interval", "1h"]);
    let status = worker.wait(40);
    let log = worker.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("AccessDenied") || log.contains("Access Denied"), "{log}");
    cloud.faults.clear();
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn an_open_epoch_is_aborted_when_another_worker_takes_one_of_its_leases() {
    let options = Options { interval: "1500ms".to_owned(), ..Options::default() };
    let cloud = Cloud::new(3, &options);
    let worker = cloud.start(&[]);
    wait_for("the worker to hold all", 20, || cloud.sole_holder(3).is_some());
    let name = cloud.sole_holder(3).unwrap();
    for round in 0..3 {
        // At three moments of the open epoch: at its beginning, in the middle, and just before it is decided.
        wait_for("the worker to hold all", 20, || cloud.sole_holder(3) == Some(name.clone()));
        cloud.put(100);
        pause(300 + 550 * round);
        let mut items = cloud.dynamodb.items(TABLE);
        let stolen = items.iter_mut().find(|item| item["leaseOwner"]["S"] == name.as_str()).unwrap();
        let counter: u64 = stolen["leaseCounter"]["N"].as_str().unwrap().parse().unwrap();
        stolen["leaseOwner"] = json!({ "S": "a-thief" });
        stolen["leaseCounter"] = json!({ "N": (counter + 1).to_string() });
        cloud.dynamodb.put_past_checks(TABLE, stolen).unwrap();
        cloud.put(100);
    }
    // The thief never renews its leases, so the worker takes them back.
    wait_for("everything to be committed", 30, || cloud.everything_is_committed());
    assert!(worker.log().contains("lost the lease"));
    let summary = worker.stop();
    assert!(summary["epochs"]["aborted"].as_u64().unwrap() > 0, "{summary}");
    cloud.audit();
}

/// Starts an epoch whose completions meet `fault`, and aborts its uploads once it is decided.
pub(super) fn abort_between_decide_and_publish(cloud: &Cloud, fault: Fault, touching: &str) -> Worker {
    cloud.put(300);
    let complete = Rule::new(ServiceName::S3, "CompleteMultipartUpload", When::Always, fault);
    cloud.faults.add(complete.touching(touching));
    let worker = cloud.start(&[]);
    wait_for("an epoch to be decided", 20, || {
        let published = || cloud.s3.keys(BUCKET).iter().any(|key| key.starts_with(&format!("{PREFIX}processed/")));
        let decided = cloud.rows().iter().any(|row| row.is_pending);
        // If the fault hits only some objects, the others must be visible already.
        decided && cloud.faults.happened().values().sum::<u64>() > 0 && (touching.is_empty() || published())
    });
    assert!(cloud.s3.abort_uploads(BUCKET, u64::MAX) > 0);
    worker
}

#[test]
fn a_decided_epoch_whose_uploads_are_gone_is_rolled_back_by_its_own_worker() {
    let cloud = Cloud::new(2, &Options::default());
    let late = Fault::Delay(std::time::Duration::from_secs(3));
    let worker = abort_between_decide_and_publish(&cloud, late, "");
    cloud.faults.clear();
    wait_for("everything to be committed", 30, || cloud.everything_is_committed());
    let summary = worker.stop();
    assert_eq!(summary["epochs"]["rolled_back"], 1, "{summary}");
    cloud.audit();
}

#[test]
fn a_partly_published_epoch_whose_uploads_are_gone_is_rolled_back_by_the_next_worker() {
    let cloud = Cloud::new(2, &Options::default());
    let worker = abort_between_decide_and_publish(&cloud, Fault::Hang, "/raw/");
    worker.kill();
    cloud.faults.clear();
    let summary = cloud.catch_up();
    assert_eq!(summary["epochs"]["rolled_back"], 1, "{summary}");
    cloud.audit();
}

#[test]
fn the_epoch_of_a_worker_killed_while_it_publishes_is_rolled_forward() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(300);
    // Half of them took effect.
    cloud.faults.add(Rule::new(ServiceName::S3, "CompleteMultipartUpload", When::Every(2), Fault::HangAfter));
    cloud.faults.add(Rule::new(ServiceName::S3, "CompleteMultipartUpload", When::Always, Fault::Hang));
    let worker = cloud.start(&[]);
    wait_for("completions to hang", 20, || cloud.faults.count(FaultKind::HangAfter) >= 2);
    worker.kill();
    cloud.faults.clear();
    let summary = cloud.catch_up();
    // Once, although it is pending on both shards.
    assert_eq!(summary["epochs"]["rolled_forward"], 1, "{summary}");
    // While it waited for the dead worker's leases, it did not list the shards all the time.
    let lists = cloud.calls(ServiceName::Kinesis, "ListShards");
    assert!(lists < 40, "{lists} calls of ListShards");
    cloud.audit();
}

#[test]
fn a_worker_that_cannot_commit_before_its_time_to_stop_is_over_releases_its_leases() {
    // Without a release the next worker would wait for half a minute.
    let options = Options { leases: "failover = \"30s\"\n[stop]\nwithin = \"4s\"".to_owned(), ..Options::default() };
    let cloud = Cloud::new(2, &options);
    cloud.put(300);
    cloud.faults.add(Rule::new(ServiceName::S3, "CompleteMultipartUpload", When::Always, Fault::Hang));
    let mut worker = cloud.start(&[]);
    wait_for("completions to hang", 20, || cloud.faults.count(FaultKind::Hang) > 0);
    worker.signal("TERM");
    let took = wait_for("a worker's end", 20, || worker.exit_status().is_some());
    let log = worker.log();
    assert_eq!(worker.exit_status().unwrap().code(), Some(1), "{log}");
    assert!(took < std::time::Duration::from_secs(6), "{took:?}");
    assert!(log.contains("the worker was stopped before its commits finished ([stop] within = 4s)"), "{log}");
    assert!(cloud.rows().iter().all(|row| row.owner.is_none()), "every lease is released");
    cloud.faults.clear();
    let took = std::time::Instant::now();
    cloud.catch_up();
    assert!(took.elapsed() < std::time::Duration::from_secs(20), "{:?}", took.elapsed());
    cloud.audit();
}

#[test]
fn raw_records_reach_firehose_at_least_once_and_rows_the_lake_exactly_once() {
    let options = Options {
        raw: "to = \"firehose:landing\"".to_owned(),
        limits: "threads = 1\nrecord_bytes = \"512 KiB\"".to_owned(),
        ..Options::default()
    };
    let cloud = Cloud::new(2, &options);
    cloud.firehose.create("landing");
    cloud.firehose.fail_records(1, [0, 3, 4]);
    cloud.firehose.refuse_batch(2);
    cloud.firehose.fail_records(4, 0..500);
    cloud.firehose.fail_records(6, [1]);
    let put = |nth, fault| Rule::new(ServiceName::Firehose, "PutRecordBatch", When::Nth(nth), fault);
    cloud.faults.add(put(3, Fault::CutAfter));
    cloud.faults.add(put(5, Fault::Refuse(Refusal::internal())));
    cloud.faults.add(put(7, Fault::RefuseAfter(Refusal::internal())));
    cloud.put(400);
    let worker = cloud.start(&[]);
    cloud.put_until("enough batches", 30, || cloud.calls(ServiceName::Firehose, "PutRecordBatch") > 10);
    // The next worker reads the open epoch again, and sends it again.
    worker.kill();
    cloud.put(100);
    cloud.catch_up();
    cloud.audit_records();
    let delivered = cloud.firehose.delivered("landing");
    let landed: std::collections::BTreeSet<&[u8]> =
        delivered.iter().map(|record| record.strip_suffix(b"\n").unwrap()).collect();
    let ledger = cloud.ledger.lock().unwrap();
    // Firehose gets the exact bytes of each record.
    let missing = ledger.values().filter(|expected| !landed.contains(&*expected.received)).count();
    assert_eq!(missing, 0, "of {} records", ledger.len());
    assert!(delivered.len() > ledger.len(), "no record arrived twice: the faults did not happen");
}
