//! `doctor` on models of AWS: it finds what was planted, and nothing in a sound fleet.

use std::collections::BTreeSet;

use aws_model::faults::{Fault, Refusal, Rule, ServiceName, When};
use aws_model::http::Request;
use serde_json::{Value, json};

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX, STREAM, TABLE};
use crate::common::wait_for;

const ABORTS: &str = "<Rule><ID>abort</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>\
                      <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>";
const BLOCKED: &str = "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>\
                       <BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>";

/// The rules of a bucket, with one more beside the one that every bucket should have.
fn rules(more: &str) -> String {
    format!("<LifecycleConfiguration>{ABORTS}{more}</LifecycleConfiguration>")
}

fn expiring(prefix: &str) -> String {
    format!(
        "<Rule><ID>cleanup</ID><Status>Enabled</Status><Filter><Prefix>{prefix}</Prefix></Filter>\
         <Expiration><Days>30</Days></Expiration></Rule>"
    )
}

/// A fleet with nothing wrong: a worker has committed, and another one runs.
fn sound() -> Cloud {
    let options = Options {
        checkpoints: "point_in_time_recovery = true".to_owned(),
        leases: "failover = \"5s\"".to_owned(),
        ..Options::default()
    };
    let cloud = Cloud::without_roles(2, &options);
    cloud.s3.set_bucket(BUCKET, "lifecycle", &rules(""));
    cloud.s3.set_bucket(
        BUCKET,
        "versioning",
        "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    );
    cloud.s3.set_bucket(BUCKET, "publicAccessBlock", BLOCKED);
    cloud.kinesis.set_retention(STREAM, 168, true).unwrap();
    cloud.put(20);
    cloud
}

/// What `doctor` finds: ids, and the whole report.
fn found(cloud: &Cloud, args: &[&str]) -> (BTreeSet<String>, Value, Option<i32>) {
    let output = cloud.folder.run(&[&["doctor", "--json", "--watch", "4s"], args].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let ids = report["findings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
    (ids.collect(), report, output.status.code())
}

#[test]
fn a_sound_fleet_has_no_findings_and_each_planted_fault_is_found() {
    let cloud = sound();
    let worker = cloud.start(&[]);
    wait_for("the first commit", 20, || cloud.everything_is_committed());
    let (ids, report, code) = found(&cloud, &[]);
    assert_eq!((ids.len(), code), (0, Some(0)), "{report:#}");
    assert_eq!(report["not_checked"], json!([]), "{report:#}");
    let text = cloud.folder.ok(&["doctor", "--watch", "4s"]);
    assert!(text.trim_end().ends_with("all well"), "{text}");

    // What the bucket, the table and the stream themselves say.
    let planted = |what: &str, plant: &dyn Fn(), expected: &[&str], code: i32, heal: &dyn Fn()| {
        plant();
        let (ids, report, ended) = found(&cloud, &["--skip-permissions"]);
        let expected: BTreeSet<String> = expected.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!((&ids, ended), (&expected, Some(code)), "{what}: {report:#}");
        heal();
    };
    let s3 = |setting: &'static str, xml: String| move |cloud: &Cloud| cloud.s3.set_bucket(BUCKET, setting, &xml);
    let healthy = || s3("lifecycle", rules(""))(&cloud);
    for (what, rule, id, code) in [
        ("a rule for everything", expiring(""), "lifecycle-removes-the-log", 3),
        ("a rule for the log", expiring(&format!("{PREFIX}_log/")), "lifecycle-removes-the-log", 3),
        ("a rule for rows", expiring(&format!("{PREFIX}processed/")), "lifecycle-expires-data", 1),
        ("uploads aborted after a day", ABORTS.replace(">7<", ">1<"), "lifecycle-aborts-early", 3),
    ] {
        planted(what, &|| s3("lifecycle", rules(&rule))(&cloud), &[id], code, &healthy);
    }
    planted(
        "rules for raw, and for another lake",
        &|| s3("lifecycle", rules(&(expiring(&format!("{PREFIX}raw/")) + &expiring("elsewhere/"))))(&cloud),
        &[],
        0,
        &healthy,
    );
    planted(
        "no rules",
        &|| s3("lifecycle", "<LifecycleConfiguration/>".to_owned())(&cloud),
        &["lifecycle-missing"],
        1,
        &healthy,
    );
    planted(
        "a public bucket",
        &|| s3("publicAccessBlock", BLOCKED.replacen("true", "false", 1))(&cloud),
        &["bucket-public"],
        1,
        &|| s3("publicAccessBlock", BLOCKED.to_owned())(&cloud),
    );
    planted(
        "no versions",
        &|| s3("versioning", "<VersioningConfiguration/>".to_owned())(&cloud),
        &["bucket-without-versions"],
        0,
        &|| {
            let on = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
            s3("versioning", on.to_owned())(&cloud);
        },
    );
    let table = |operation: &str, body: Value| {
        let headers = [("x-amz-target".to_owned(), format!("DynamoDB_20120810.{operation}"))].into();
        let (method, path) = ("POST".to_owned(), "/".to_owned());
        let query = std::collections::BTreeMap::new();
        cloud.services().answer(&Request { method, path, query, headers, body: body.to_string().into() });
    };
    let ttl = |on: bool| {
        table(
            "UpdateTimeToLive",
            json!({ "TableName": TABLE, "TimeToLiveSpecification": { "Enabled": on, "AttributeName": "t" } }),
        );
    };
    planted("rows that expire", &|| ttl(true), &["lease-table-expires"], 3, &|| ttl(false));
    let backups = |on: bool| {
        let specification = json!({ "PointInTimeRecoveryEnabled": on });
        table(
            "UpdateContinuousBackups",
            json!({ "TableName": TABLE, "PointInTimeRecoverySpecification": specification }),
        );
    };
    planted("no backups", &|| backups(false), &["lease-table-unprotected"], 0, &|| backups(true));
    let retention = |hours, longer| cloud.kinesis.set_retention(STREAM, hours, longer).unwrap();
    planted("a short retention", &|| retention(24, false), &["retention-short"], 1, &|| retention(168, true));
    let stray = format!("{PREFIX}_backup/x.json");
    planted(
        "an object of somebody else",
        &|| cloud.s3.put_object(BUCKET, &stray, "{}"),
        &["foreign-objects"],
        1,
        &|| assert!(cloud.s3.remove_object(BUCKET, &stray)),
    );
    // Services that refuse or fail are reported as what could not be checked.
    let denied = Refusal::new(403, "AccessDenied", "Access Denied");
    let refuses = |service, operation: &str, refusal: &Refusal| {
        cloud.faults.add(Rule::new(service, operation, When::Always, Fault::Refuse(refusal.clone())));
    };
    refuses(ServiceName::S3, "GetBucketVersioning", &denied);
    let (ids, report, code) = found(&cloud, &["--skip-permissions"]);
    assert_eq!((ids.len(), code), (0, Some(1)), "{report:#}");
    assert!(report["not_checked"][0]["what"].as_str().unwrap().contains("s3:GetBucketVersioning"), "{report:#}");
    cloud.faults.clear();
    refuses(ServiceName::Kinesis, "GetShardIterator", &Refusal::new(400, "AccessDeniedException", "no"));
    let (ids, report, code) = found(&cloud, &[]);
    assert!(ids.contains("permission-missing") && code == Some(3), "{report:#}");
    cloud.faults.clear();

    // The fleet.
    worker.kill();
    wait_for("the worker to be silent", 20, || {
        let (ids, report, code) = found(&cloud, &["--skip-permissions"]);
        assert!(ids.iter().all(|id| ["no-worker", "silent-worker"].contains(&id.as_str())), "{report:#}");
        ids.len() == 2 && code == Some(3)
    });
}
