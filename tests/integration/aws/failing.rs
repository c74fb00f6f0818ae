//! Requests that fail, hang, or take effect without an answer; leases and uploads that somebody else takes away.

use std::num::NonZeroU64;

use aws_model::dynamodb::Refusal as DynamoRefusal;
use aws_model::faults::{Fault, FaultKind, Refusal, Rule, ServiceName, When};
use serde_json::json;

use crate::cloud::{BUCKET, Cloud, Options, PREFIX, TABLE, wait_for};
use crate::worker::{Worker, pause};

/// Calls that take effect in one of the three services, whose answers are lost in turn.
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
    fn put_until(&self, what: &str, seconds: u64, mut there: impl FnMut() -> bool) {
        wait_for(what, seconds, || {
            self.put(20);
            pause(80);
            there()
        });
    }
}

#[test]
fn every_call_that_writes_may_lose_its_answer_or_fail_in_every_way() {
    let cloud = Cloud::new(2, &Options::default());
    for (service, operation) in WRITES {
        let rule = |when, fault| Rule::new(service, operation, when, fault);
        cloud.faults.add(rule(When::Nth(2), Fault::CutAfter));
        cloud.faults.add(rule(When::Nth(4), Fault::RefuseAfter(server_error(service))));
        cloud.faults.add(rule(When::Nth(6), Fault::CutBody));
        cloud.faults.add(rule(When::Nth(8), Fault::Refuse(throttled(service))));
        cloud.faults.add(rule(When::Nth(9), Fault::Refuse(server_error(service))));
        cloud.faults.add(rule(When::Nth(10), Fault::CutBefore));
        // Three in a row: the SDK's own attempts are used up.
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
        worker.stop(&cloud);
    }
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_transaction_that_is_canceled_for_any_reason_is_decided_once_or_not_at_all() {
    let cloud = Cloud::new(2, &Options::default());
    let refusals = [
        DynamoRefusal::TransactionConflict,
        DynamoRefusal::Throttling,
        DynamoRefusal::ThroughputExceeded,
        DynamoRefusal::RequestLimitExceeded,
        DynamoRefusal::InProgress,
        DynamoRefusal::Internal,
    ];
    // Every second transaction, so that each refused one is repeated; and the same for single writes.
    let nths = (1..).map(|place| 2 * place);
    for (nth, refusal) in nths.zip(refusals) {
        cloud.dynamodb.refuse_transaction(nth, usize::try_from(nth % 3).unwrap(), refusal);
        cloud.dynamodb.refuse_write(4 * nth, refusal);
    }
    cloud.put(100);
    let worker = cloud.start(&[]);
    let seen = |operation| cloud.dynamodb.requests().get(operation).copied().unwrap_or(0);
    cloud.put_until("every refusal", 45, || seen("TransactWriteItems") > 12 && seen("UpdateItem") > 4 * 12);
    worker.stop(&cloud);
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_few_calls_of_a_hundred_fail_everywhere() {
    let cloud = Cloud::new(3, &Options::default());
    cloud.kinesis.configure(|settings| settings.empty_answer_every = NonZeroU64::new(5));
    // By script: calls that hang until the client gives up, before and after their effect; the client waits 10 s.
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
    let begun = std::time::Instant::now();
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
        // A worker may end of what it met; as under any supervisor, another one is started.
        for worker in &mut workers {
            if worker.has_ended().is_some() {
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
        kinds.iter().all(enough) && begun.elapsed().as_secs() >= 10
    });
    eprintln!("measured: {:?}", cloud.faults.happened());
    // Until the end they stay: stopping has to bear them, too.
    for worker in workers {
        worker.signal("TERM");
        let mut worker = worker;
        wait_for("a worker's end", 40, || worker.has_ended().is_some());
    }
    cloud.faults.clear();
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_lake_that_refuses_an_object_is_told_long_before_the_epoch_would_end() {
    let cloud = Cloud::new(1, &Options::default());
    let denied = Fault::Refuse(Refusal::new(403, "AccessDenied", "Access Denied"));
    cloud.faults.add(Rule::new(ServiceName::S3, "CreateMultipartUpload", When::Every(1), denied));
    cloud.put(20_000);
    let mut worker = cloud.start(&["--commit-interval", "1h"]);
    wait_for("a worker's end", 40, || worker.has_ended().is_some());
    assert_eq!(worker.has_ended().unwrap().code(), Some(1), "{}", worker.log(&cloud));
    let log = worker.log(&cloud);
    assert!(log.contains("AccessDenied") || log.contains("Access Denied"), "{log}");
    cloud.faults.clear();
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_lease_that_is_stolen_takes_its_open_epoch_with_it() {
    let options = Options { interval: "1500ms".to_owned(), ..Options::default() };
    let cloud = Cloud::new(3, &options);
    let worker = cloud.start(&[]);
    wait_for("the worker to hold all", 20, || cloud.sole_holder(3).is_some());
    let name = cloud.sole_holder(3).unwrap();
    for round in 0..3 {
        // At other moments of the open epoch: at its beginning, in the middle, and just before it is decided.
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
    // The thief never shows that it is alive, so the worker takes the leases back.
    wait_for("everything to be committed", 30, || cloud.committed() == cloud.owed());
    assert!(worker.log(&cloud).contains("the lease is lost"));
    let message = worker.stop(&cloud);
    assert!(message["epochs"]["aborted"].as_u64().unwrap() > 0, "{message}");
    cloud.audit();
}

/// Begins an epoch whose completions meet `fault`, and aborts its uploads once it is decided.
fn abort_between_decide_and_publish(cloud: &Cloud, fault: Fault, touching: &str) -> Worker {
    cloud.put(300);
    let complete = Rule::new(ServiceName::S3, "CompleteMultipartUpload", When::Always, fault);
    cloud.faults.add(complete.touching(touching));
    let worker = cloud.start(&[]);
    wait_for("an epoch to be decided", 20, || {
        let published = || cloud.s3.keys(BUCKET).iter().any(|key| key.starts_with(&format!("{PREFIX}processed/")));
        let decided = cloud.rows().iter().any(|row| row.is_pending);
        // Where only some objects are held up, the others are visible already.
        decided && cloud.faults.happened().values().sum::<u64>() > 0 && (touching.is_empty() || published())
    });
    assert!(cloud.s3.abort_uploads(BUCKET, u64::MAX) > 0);
    worker
}

#[test]
fn an_epoch_whose_uploads_are_aborted_before_they_are_published_is_rolled_back_by_its_own_worker() {
    let cloud = Cloud::new(2, &Options::default());
    let late = Fault::Delay(std::time::Duration::from_secs(3));
    let worker = abort_between_decide_and_publish(&cloud, late, "");
    cloud.faults.clear();
    wait_for("everything to be committed", 30, || cloud.committed() == cloud.owed());
    let message = worker.stop(&cloud);
    assert_eq!(message["epochs"]["rolled_back"], 1, "{message}");
    cloud.audit();
}

#[test]
fn an_epoch_whose_uploads_are_aborted_while_some_are_visible_is_rolled_back_by_the_next_worker() {
    let cloud = Cloud::new(2, &Options::default());
    let worker = abort_between_decide_and_publish(&cloud, Fault::Hang, "/raw/");
    worker.kill();
    cloud.faults.clear();
    let message = cloud.catch_up();
    assert_eq!(message["epochs"]["rolled_back"], 1, "{message}");
    cloud.audit();
}

#[test]
fn a_worker_killed_while_its_completions_hang_is_rolled_forward() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(300);
    // Half of them took effect.
    cloud.faults.add(Rule::new(ServiceName::S3, "CompleteMultipartUpload", When::Every(2), Fault::HangAfter));
    cloud.faults.add(Rule::new(ServiceName::S3, "CompleteMultipartUpload", When::Always, Fault::Hang));
    let worker = cloud.start(&[]);
    wait_for("completions to hang", 20, || cloud.faults.count(FaultKind::HangAfter) >= 2);
    worker.kill();
    cloud.faults.clear();
    let message = cloud.catch_up();
    // Once, though it is pending on both shards.
    assert_eq!(message["epochs"]["rolled_forward"], 1, "{message}");
    // While it waited for the dead worker's leases, it did not ask all the time.
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
    let took = wait_for("a worker's end", 20, || worker.has_ended().is_some());
    let log = worker.log(&cloud);
    assert_eq!(worker.has_ended().unwrap().code(), Some(1), "{log}");
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
fn records_as_received_reach_firehose_at_least_once_and_the_lake_exactly_once() {
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
    // An epoch that is read again is sent again.
    worker.kill();
    cloud.put(100);
    cloud.catch_up();
    cloud.audit_records();
    let delivered = cloud.firehose.delivered("landing");
    let landed: std::collections::BTreeSet<&[u8]> =
        delivered.iter().map(|record| record.strip_suffix(b"\n").unwrap()).collect();
    let ledger = cloud.ledger.lock().unwrap();
    // In Firehose a record is as it was received, to the byte.
    let missing = ledger.values().filter(|owed| !landed.contains(&*owed.received)).count();
    assert_eq!(missing, 0, "of {} records", ledger.len());
    assert!(delivered.len() > ledger.len(), "nothing came twice: did the faults happen?");
}
