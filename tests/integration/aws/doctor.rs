//! `shardlake doctor` on AWS: each planted misconfiguration is found, and a sound fleet has none.
//!
//! Owns: the plants of what is wrong with a stream, a lease table, a bucket, credentials and the fleet. Does not own: those of a lake in a
//! folder (`single_machine::doctor`), which findings there are (`src/diagnosis/table.rs`).

use std::collections::BTreeSet;

use aws_model::faults::{Fault, Refusal, Rule, ServiceName, When};
use aws_model::http::{Request, Service};
use pipeline::layout;
use serde_json::{Value, json};

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX, STREAM, TABLE};
use crate::aws::failing::abort_between_decide_and_publish;
use crate::common::wait_for;

/// The lifecycle rules of a sound bucket.
const ABORT: &str = "<Rule><ID>abort</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>\
                     <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
                     </AbortIncompleteMultipartUpload></Rule>";
const OLD_VERSIONS: &str = "<Rule><ID>old</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>\
                            <NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays></NoncurrentVersionExpiration>\
                            </Rule>";

fn rules(rules: &[&str]) -> String {
    format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rules.concat())
}

/// A rule for the keys of the lake that begin with a prefix.
fn rule(prefix: &str, action: &str) -> String {
    format!(
        "<Rule><ID>planted</ID><Status>Enabled</Status><Filter><Prefix>{PREFIX}{prefix}</Prefix></Filter>{action}</Rule>"
    )
}

const EXPIRE: &str = "<Expiration><Days>90</Days></Expiration>";
const ARCHIVE: &str = "<Transition><Days>90</Days><StorageClass>GLACIER</StorageClass></Transition>";

fn options() -> Options {
    Options {
        checkpoints: "deletion_protection = true\npoint_in_time_recovery = true".to_owned(),
        limits: "threads = 1".to_owned(),
        ..Options::default()
    }
}

impl Cloud {
    /// A bucket, a table and a stream as `deploy/lake.yaml` makes them, and a lake with two epochs at least.
    fn sound(shards: u32) -> Self {
        let cloud = Cloud::new(shards, &options());
        cloud.make_sound();
        for _ in 0..2 {
            cloud.put(30);
            cloud.catch_up();
        }
        cloud
    }

    fn make_sound(&self) {
        self.s3.set_bucket_setting(BUCKET, "lifecycle", Some(&rules(&[ABORT, OLD_VERSIONS])));
        let versions = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        self.s3.set_bucket_setting(BUCKET, "versioning", Some(versions));
        self.kinesis.set_retention(STREAM, 72, true).unwrap();
    }

    /// What `doctor` reports; the exit code must be that of the worst finding.
    fn examined(&self, flags: &[&str]) -> Value {
        let watch = if flags.contains(&"--watch") { &[][..] } else { &["--watch", "300ms"] };
        let args = [&["doctor", "--json"][..], watch, flags].concat();
        let output = self.folder.run(&args);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: Value =
            serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        let is_checked = report["unchecked"].as_array().unwrap().is_empty();
        let expected = match (report["critical"].as_u64(), report["warnings"].as_u64()) {
            (Some(1..), _) => 3,
            (_, Some(1..)) => 1,
            _ => i32::from(!is_checked),
        };
        assert_eq!(output.status.code(), Some(expected), "{report:#}");
        report
    }

    /// The ids of all findings. Everything must have been examined.
    fn diagnosed(&self, flags: &[&str]) -> BTreeSet<String> {
        let report = self.examined(flags);
        assert_eq!(report["unchecked"], json!([]), "{report:#}");
        ids(&report)
    }

    fn dynamodb(&self, operation: &str, mut body: Value) {
        body["TableName"] = TABLE.into();
        let headers = [("x-amz-target".to_owned(), format!("DynamoDB_20120810.{operation}"))].into();
        let (method, path) = ("POST".to_owned(), "/".to_owned());
        let request = Request { method, path, query: [].into(), headers, body: body.to_string().into() };
        let answer = self.dynamodb.answer(&request);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
}

fn ids(report: &Value) -> BTreeSet<String> {
    report["findings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn set<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

#[test]
fn a_sound_fleet_has_no_findings_while_it_runs_and_when_it_has_ended() {
    let cloud = Cloud::sound(3);
    let requests = |cloud: &Cloud| {
        let writes = ["PutItem", "UpdateItem", "TransactWriteItems"];
        writes.map(|write| cloud.calls(ServiceName::DynamoDb, write))
    };
    let before = (cloud.s3.keys(BUCKET), requests(&cloud));
    assert_eq!(cloud.diagnosed(&["--skip-permissions"]), set([]));
    assert_eq!((cloud.s3.keys(BUCKET), requests(&cloud)), before, "it changes nothing");
    assert_eq!(cloud.diagnosed(&[]), set([]));
    assert_eq!(cloud.s3.keys(BUCKET), before.0, "the trials of the permissions leave nothing behind");
    assert_eq!(cloud.s3.uploads(BUCKET), []);
    let worker = cloud.start(&[]);
    wait_for("the worker to hold all shards", 30, || cloud.sole_holder(3).is_some());
    cloud.put(50);
    for _ in 0..3 {
        let report = cloud.examined(&["--watch", "2s"]);
        assert_eq!((ids(&report), &report["ok"]), (set([]), &true.into()), "{report:#}");
    }
    worker.stop();
    let text = cloud.folder.ok(&["doctor", "--watch", "100ms"]);
    assert_eq!(text.trim(), "everything is sound");
    cloud.audit();
}

#[test]
fn each_fault_of_the_bucket_is_found() {
    let cloud = Cloud::sound(1);
    let found_with = |planted: &[String]| {
        let planted: Vec<&str> = planted.iter().map(String::as_str).collect();
        cloud.s3.set_bucket_setting(BUCKET, "lifecycle", Some(&rules(&planted)));
        cloud.diagnosed(&["--skip-permissions"])
    };
    let with = |planted: String| found_with(&[ABORT.to_owned(), OLD_VERSIONS.to_owned(), planted]);
    for (prefix, action, expected) in [
        ("_commits/", EXPIRE, set(["lake-state-expires"])),
        ("_log/", EXPIRE, set(["lake-state-expires"])),
        ("", EXPIRE, set(["lake-state-expires", "rows-expire"])),
        ("processed/", EXPIRE, set(["rows-expire"])),
        ("_log/snapshots/", ARCHIVE, set(["lake-state-archived"])),
        ("processed/", ARCHIVE, set(["data-archived"])),
        ("raw/", EXPIRE, set([])),
    ] {
        assert_eq!(with(rule(prefix, action)), expected, "{prefix}: {action}");
    }
    let early = ABORT.replace(">7<", ">1<");
    assert_eq!(found_with(&[early, OLD_VERSIONS.to_owned()]), set(["uploads-aborted-early"]));
    assert_eq!(found_with(&[OLD_VERSIONS.to_owned()]), set(["uploads-not-aborted"]));
    assert_eq!(found_with(&[ABORT.to_owned()]), set(["old-versions-kept"]));
    let off = ABORT.replace("Enabled", "Disabled");
    assert_eq!(found_with(&[off, OLD_VERSIONS.to_owned()]), set(["uploads-not-aborted"]));
    cloud.s3.set_bucket_setting(BUCKET, "lifecycle", None);
    assert_eq!(cloud.diagnosed(&["--skip-permissions"]), set(["uploads-not-aborted", "old-versions-kept"]));
    cloud.make_sound();
    cloud.s3.set_bucket_setting(BUCKET, "versioning", None);
    assert_eq!(cloud.diagnosed(&["--skip-permissions"]), set(["bucket-not-versioned"]));
    cloud.make_sound();
    cloud.s3.set_bucket_setting(BUCKET, "publicAccessBlock", None);
    assert_eq!(cloud.diagnosed(&["--skip-permissions"]), set(["bucket-may-be-public"]));
}

#[test]
fn each_fault_of_the_table_and_of_the_stream_is_found() {
    let mut cloud = Cloud::sound(1);
    // The roles know one stream.
    cloud.folder.use_roles(false);
    let found = || cloud.diagnosed(&["--skip-permissions"]);
    let expires = |on: bool| json!({ "TimeToLiveSpecification": { "Enabled": on, "AttributeName": "ttl" } });
    cloud.dynamodb("UpdateTimeToLive", expires(true));
    let report = cloud.examined(&["--skip-permissions"]);
    let finding = &report["findings"][0];
    assert_eq!((&finding["id"], &finding["severity"]), (&"lease-rows-expire".into(), &"critical".into()));
    assert!(finding["what"].as_str().unwrap().contains("by the attribute ttl"), "{finding}");
    assert!(finding["fix"].as_str().unwrap().starts_with("aws dynamodb update-time-to-live"), "{finding}");
    cloud.dynamodb("UpdateTimeToLive", expires(false));
    let backups = |on: bool| json!({ "PointInTimeRecoverySpecification": { "PointInTimeRecoveryEnabled": on } });
    cloud.dynamodb("UpdateContinuousBackups", backups(false));
    assert_eq!(found(), set(["lease-table-not-backed-up"]));
    cloud.dynamodb("UpdateContinuousBackups", backups(true));
    cloud.dynamodb("UpdateTable", json!({ "DeletionProtectionEnabled": false }));
    assert_eq!(found(), set(["lease-table-unprotected"]));
    cloud.dynamodb("UpdateTable", json!({ "DeletionProtectionEnabled": true }));
    cloud.kinesis.set_retention(STREAM, 24, false).unwrap();
    assert_eq!(found(), set(["retention-short"]));
    cloud.kinesis.set_retention(STREAM, 72, true).unwrap();
    cloud.configure(&Options { interval: "20h".to_owned(), ..options() });
    assert_eq!(found(), set(["interval-near-retention", "freshness-unreachable"]));
    let second = "[[source]]\nurl = \"kinesis://absent\"".to_owned();
    cloud.configure(&Options { source: second, ..options() });
    assert_eq!(found(), set(["stream-missing"]));
    cloud.configure(&options());
    assert_eq!(found(), set([]));
    cloud.kinesis.delete_stream(STREAM, true).unwrap();
    cloud.kinesis.create_stream(STREAM, Some(1)).unwrap();
    cloud.kinesis.set_retention(STREAM, 72, true).unwrap();
    assert!(ids(&cloud.examined(&["--skip-permissions"])).contains("stream-replaced"));
}

#[test]
fn each_fault_of_the_history_is_found() {
    let cloud = Cloud::sound(1);
    let found = || cloud.diagnosed(&["--skip-permissions"]);
    let with_prefix = |prefix: &str| -> Vec<String> {
        cloud.s3.keys(BUCKET).into_iter().filter(|key| key.starts_with(&format!("{PREFIX}{prefix}"))).collect()
    };
    let put = |key: &str, text: &str| cloud.s3.put_object(BUCKET, key, text.to_owned());
    // A record in the middle of the chain, with what was made from it.
    let mut commits = with_prefix("_commits/");
    // Two epochs that begin in one second are not in order by their names.
    commits.sort_by_key(|key| {
        let record: Value = serde_json::from_slice(&cloud.s3.object(BUCKET, key).unwrap()).unwrap();
        record["written_at"].as_str().unwrap().to_owned()
    });
    let (oldest, newest) = (&commits[0], commits.last().unwrap());
    assert!(commits.len() > 1);
    for (key, expected) in [(oldest, "history-broken"), (newest, "lake-and-leases-differ")] {
        let bytes = cloud.s3.object(BUCKET, key).unwrap();
        assert!(cloud.s3.remove_object(BUCKET, key));
        assert!(ids(&cloud.examined(&["--skip-permissions"])).contains(expected), "{expected}");
        cloud.s3.put_object(BUCKET, key, bytes);
        assert_eq!(found(), set([]));
    }
    // An intent that should have gone.
    let record = cloud.s3.object(BUCKET, oldest).unwrap();
    let intent = oldest.replace("_commits/", "_intents/");
    cloud.s3.put_object(BUCKET, &intent, record);
    assert_eq!(found(), set(["leftovers"]));
    cloud.s3.remove_object(BUCKET, &intent);
    // A loss that nobody has accepted.
    let shard = "shardId-000000000000";
    let loss = format!("{PREFIX}{}", layout::loss(STREAM, shard));
    let text = json!({ "stream": STREAM, "shard": shard, "kind": "lost", "problem": "bytes are gone", "found_at": "2025-01-13T10:30:00.000Z" });
    put(&loss, &text.to_string());
    assert_eq!(found(), set(["data-lost"]));
    cloud.s3.remove_object(BUCKET, &loss);
    assert_eq!(found(), set([]));
}

#[test]
fn an_epoch_that_nobody_finishes_is_found_and_a_shard_that_nobody_reads() {
    let cloud = Cloud::sound(2);
    cloud.put(40);
    // Time since the last record: then the shards are behind.
    crate::common::pause(50);
    assert_eq!(cloud.diagnosed(&["--skip-permissions"]), set(["no-worker"]));
    cloud.catch_up();
    let worker = abort_between_decide_and_publish(&cloud, Fault::Hang, "/raw/");
    worker.kill();
    cloud.faults.clear();
    let young = ids(&cloud.examined(&["--skip-permissions"]));
    assert!(!young.contains("epoch-stalled"), "{young:?}");
    let intents = cloud.s3.keys(BUCKET).into_iter().filter(|key| key.starts_with(&format!("{PREFIX}_intents/")));
    for key in intents {
        let mut intent: Value = serde_json::from_slice(&cloud.s3.object(BUCKET, &key).unwrap()).unwrap();
        intent["written_at"] = "2020-01-01T00:00:00.000Z".into();
        cloud.s3.put_object(BUCKET, &key, intent.to_string());
    }
    let found = ids(&cloud.examined(&["--skip-permissions"]));
    assert!(found.is_superset(&set(["epoch-stalled"])), "{found:?}");
    // The next worker rolls it back, and the one after it sweeps.
    cloud.catch_up();
    cloud.catch_up();
    assert_eq!(cloud.diagnosed(&["--skip-permissions"]), set([]));
}

#[test]
fn what_leaves_the_stream_soon_is_found() {
    let cloud = Cloud::in_the_past(60, 1, &options());
    cloud.make_sound();
    cloud.put(20);
    cloud.catch_up();
    cloud.folder.ok(&["checkpoints", "save", "before"]);
    cloud.put(20);
    cloud.go_to_the_present();
    let found = cloud.diagnosed(&["--skip-permissions"]);
    assert!(found.is_superset(&set(["retention-running-out", "no-worker", "checkpoint-ending"])), "{found:?}");
    assert!(!found.contains("clock-wrong"), "{found:?}");
}

#[test]
fn a_wrong_clock_is_found() {
    for seconds in [600, -600] {
        let cloud = Cloud::behind_the_workers(seconds, 1, &options());
        cloud.make_sound();
        cloud.put(10);
        cloud.catch_up();
        let report = cloud.examined(&["--skip-permissions"]);
        assert!(ids(&report).contains("clock-wrong"), "{report:#}");
        let how = if seconds > 0 { "ahead of" } else { "after" };
        assert!(report.to_string().contains(&format!("s {how} that of AWS")), "{report:#}");
    }
}

#[test]
fn credentials_permissions_and_keys_are_examined() {
    let mut cloud = Cloud::sound(1);
    let refuse = |service, operation: &str, status, code: &str| {
        let refusal = Refusal::new(status, code, "refused by the test");
        Rule::new(service, operation, When::Always, Fault::Refuse(refusal))
    };
    cloud.faults.add(refuse(ServiceName::DynamoDb, "TransactWriteItems", 400, "AccessDeniedException"));
    cloud.faults.add(refuse(ServiceName::S3, "CreateMultipartUpload", 403, "AccessDenied"));
    let report = cloud.examined(&[]);
    assert_eq!(ids(&report), set(["permission-missing"]), "{report:#}");
    let what = report["findings"][0]["what"].as_str().unwrap();
    assert!(
        what.contains("dynamodb:PutItem (in a transaction) on leases") && what.contains("s3:PutObject on"),
        "{what}"
    );
    assert_eq!(cloud.diagnosed(&["--skip-permissions"]), set([]), "they may be a maintainer's");
    cloud.faults.clear();
    // What only doctor needs is not a finding: it could not be checked, and the others were.
    cloud.faults.add(refuse(ServiceName::S3, "GetBucketLifecycleConfiguration", 403, "AccessDenied"));
    cloud.kinesis.set_retention(STREAM, 24, false).unwrap();
    let report = cloud.examined(&["--skip-permissions"]);
    assert_eq!(ids(&report), set(["retention-short"]));
    assert!(
        report["unchecked"][0]["why"].as_str().unwrap().contains("allow s3:GetLifecycleConfiguration"),
        "{report:#}"
    );
    cloud.kinesis.set_retention(STREAM, 72, true).unwrap();
    cloud.faults.clear();
    cloud.faults.add(refuse(ServiceName::Kinesis, "GetRecords", 400, "KMSDisabledException"));
    assert!(ids(&cloud.examined(&[])).contains("encryption-key-unusable"));
    cloud.faults.clear();
    cloud.folder.use_roles(false);
    let printed = cloud.folder.run(&["doctor", "--lake", "s3://another-bucket", "--json", "--skip-permissions"]);
    let report: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert!(ids(&report).contains("bucket-missing"), "{report:#}");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        cloud.folder.unset(name);
    }
    let report = cloud.examined(&[]);
    assert_eq!(ids(&report), set(["no-credentials"]), "{report:#}");
    assert_eq!(report["unchecked"].as_array().unwrap().len(), 1, "{report:#}");
}

#[test]
fn a_table_of_something_else_and_a_lake_that_is_not_begun_are_found() {
    let cloud = Cloud::without_roles(1, &options());
    cloud.make_sound();
    assert_eq!(cloud.diagnosed(&[]), set(["not-begun"]));
    let table = json!({
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
    });
    cloud.dynamodb("CreateTable", table);
    let report = cloud.examined(&["--skip-permissions"]);
    assert!(ids(&report).contains("lease-table-unusable"), "{report:#}");
}
