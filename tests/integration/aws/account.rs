//! Resources of other accounts and regions, the lease table that a worker makes, and what `config check` finds before a worker runs.

use aws_model::faults::{Fault, Refusal, Rule, ServiceName, Signature, When};
use aws_model::http::{Request, Service};
use aws_model::sts::Sts;
use serde_json::{Value, json};

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX, STREAM, TABLE};
use crate::common::services::KEY;

/// The account that has the stream and the table.
const OTHER: &str = "222222222222";

fn denied(service: ServiceName, operation: &str) -> Rule {
    let refusal = match service {
        ServiceName::S3 => {
            Refusal::new(403, "AccessDenied", "not authorized, with an explicit deny in a resource-based policy")
        }
        _ => Refusal::new(400, "AccessDeniedException", "User is not authorized"),
    };
    Rule::new(service, operation, When::Always, Fault::Refuse(refusal))
}

/// Writes the configuration with these lines in its sections.
fn configure(cloud: &Cloud, source: &str, lake: &str, checkpoints: &str) {
    let text = format!(
        "[[source]]\n{source}\n[lake]\nurl = \"s3://{BUCKET}/{PREFIX}\"\n{lake}\n[checkpoints]\n{checkpoints}\n\
         [anonymize]\nkey = \"env:{KEY}\"\n[commit]\ninterval = \"500ms\"\n[leases]\nfailover = \"2s\"\n[limits]\nthreads = 1\n"
    );
    cloud.folder.write("shardlake.toml", text);
}

fn by_name(cloud: &Cloud, lake: &str) {
    configure(cloud, &format!("url = \"kinesis://{STREAM}\""), lake, &format!("url = \"dynamodb://{TABLE}\""));
}

/// Who signed requests to a service: access key and region.
fn signed(cloud: &Cloud, service: ServiceName) -> Vec<(String, String)> {
    let of_service = cloud.faults.signatures().into_iter().filter(|signature| signature.service == service);
    of_service.map(|Signature { region, access_key, .. }| (access_key, region)).collect()
}

/// The permissions that `config check` found missing.
fn missing(cloud: &Cloud, code: i32) -> Vec<String> {
    let printed = cloud.folder.exits(code, &["config", "check", "--json"]);
    let start = printed.find('{').unwrap();
    let checked: Value = serde_json::Deserializer::from_str(&printed[start..]).into_iter().next().unwrap().unwrap();
    let tried = checked["permissions"].as_array().unwrap().iter().filter(|trial| trial["ok"] == false);
    tried.map(|trial| format!("{}: {}", trial["action"].as_str().unwrap(), trial["found"].as_str().unwrap())).collect()
}

#[test]
fn a_stream_and_a_table_by_arn_are_reached_in_their_own_region_under_a_role() {
    for read in ["polling", "fan-out"] {
        let cloud = Cloud::without_roles(2, &Options::default());
        let role = format!("role_arn = \"arn:aws:iam::{OTHER}:role/path/reader\"\nexternal_id = \"data-team\"");
        let (stream, table) = (
            format!("arn:aws:kinesis:ap-southeast-2:{OTHER}:stream/{STREAM}"),
            format!("arn:aws:dynamodb:eu-west-1:000000000000:table/{TABLE}"),
        );
        configure(
            &cloud,
            &format!("url = \"kinesis://{stream}\"\nread = \"{read}\"\n{role}"),
            "region = \"eu-central-1\"",
            &format!("url = \"dynamodb://{table}\""),
        );
        // The stream is another account's: its name says nothing.
        cloud.faults.add(denied(ServiceName::Kinesis, "*").touching("\"StreamName\""));
        cloud.put(60);
        assert_eq!(missing(&cloud, 0), Vec::<String>::new());
        assert_eq!(cloud.catch_up()["ok"], true);
        cloud.audit();
        assert_eq!(missing(&cloud, 0), Vec::<String>::new());
        let of = |key: &str, region: &str| vec![(key.to_owned(), region.to_owned())];
        assert_eq!(signed(&cloud, ServiceName::Kinesis), of(&Sts::access_key(OTHER), "ap-southeast-2"));
        assert_eq!(signed(&cloud, ServiceName::DynamoDb), of("test", "eu-west-1"));
        assert_eq!(signed(&cloud, ServiceName::S3), of("test", "eu-central-1"));
        assert_eq!(signed(&cloud, ServiceName::Sts), of("test", "us-east-1"));
        let form = &cloud.sts.assumed()[0];
        assert!(form.contains("RoleSessionName=shardlake") && form.contains("ExternalId=data-team"), "{form}");
        assert!(
            cloud.commits().iter().all(|commit| commit.to_string().contains("\"orders\"")),
            "the stream's own name"
        );
    }
}

#[test]
fn a_bucket_in_another_region_is_found_and_the_stream_stays_where_it_is() {
    let cloud = Cloud::without_roles(1, &Options::default());
    cloud.s3.set_region("eu-west-1");
    cloud.put(20);
    assert_eq!(missing(&cloud, 0), Vec::<String>::new());
    assert_eq!(cloud.catch_up()["ok"], true);
    cloud.audit();
    assert_eq!(signed(&cloud, ServiceName::Kinesis), [("test".to_owned(), "us-east-1".to_owned())]);

    by_name(&cloud, "region = \"us-west-2\"");
    let printed = cloud.folder.exits(1, &["run", "--until-caught-up"]);
    assert!(printed.contains("is in eu-west-1: set region = \"eu-west-1\" in [lake]"), "{printed}");
    by_name(&cloud, "region = \"eu-west-1\"");
    assert_eq!(cloud.catch_up()["ok"], true);
}

#[test]
fn a_delivery_stream_by_arn_is_reached_in_its_own_region() {
    let options = Options {
        raw: "to = \"firehose:arn:aws:firehose:eu-north-1:000000000000:deliverystream/landing\"".to_owned(),
        limits: "threads = 1\nrecord_bytes = \"512 KiB\"".to_owned(),
        ..Options::default()
    };
    let cloud = Cloud::without_roles(1, &options);
    cloud.firehose.create("landing");
    cloud.put(20);
    assert_eq!(missing(&cloud, 0), Vec::<String>::new());
    assert_eq!(cloud.catch_up()["ok"], true);
    cloud.audit_records();
    assert_eq!(signed(&cloud, ServiceName::Firehose), [("test".to_owned(), "eu-north-1".to_owned())]);
    assert!(!cloud.firehose.delivered("landing").is_empty());
}

#[test]
fn samples_are_put_into_a_stream_by_its_arn() {
    let cloud = Cloud::without_roles(1, &Options::default());
    cloud.faults.add(denied(ServiceName::Kinesis, "*").touching("\"StreamName\""));
    for to in ["kinesis://arn", "arn"] {
        let to = to.replace("arn", &format!("arn:aws:kinesis:eu-north-1:{OTHER}:stream/{STREAM}"));
        cloud.folder.ok(&["produce", "--count", "20", "--to", &to]);
    }
    assert_eq!(signed(&cloud, ServiceName::Kinesis), [("test".to_owned(), "eu-north-1".to_owned())]);
    cloud.folder.exits(2, &["produce", "--count", "1", "--to", "arn:aws:s3:::bucket"]);
    assert_eq!(cloud.folder.files("").len(), 1, "the configuration file alone");
}

#[test]
fn a_secret_by_arn_is_read_in_its_own_region() {
    let cloud = Cloud::without_roles(1, &Options::default());
    let path = cloud.folder.path("shardlake.toml");
    let secret = "secretsmanager:arn:aws:secretsmanager:ap-south-1:000000000000:secret:key";
    let text = std::fs::read_to_string(&path).unwrap().replace(&format!("env:{KEY}"), secret);
    cloud.folder.write("shardlake.toml", text);
    // There is no model of Secrets Manager; the server notes who signed the request all the same.
    let printed = cloud.folder.exits(2, &["run", "--until-caught-up"]);
    assert!(printed.contains("the pseudonym key: the secret arn:aws:secretsmanager"), "{printed}");
    let regions: Vec<String> = cloud.faults.signatures().into_iter().map(|signature| signature.region).collect();
    assert!(regions.contains(&"ap-south-1".to_owned()), "{regions:?}");
}

#[test]
fn a_role_that_cannot_be_assumed_is_reported_at_once() {
    let role = format!("role_arn = \"arn:aws:iam::{OTHER}:role/reader\"");
    let cloud = Cloud::without_roles(1, &Options { source: role, ..Options::default() });
    let refusal = Refusal::new(403, "AccessDenied", "User is not authorized to perform: sts:AssumeRole");
    cloud.faults.add(Rule::new(ServiceName::Sts, "*", When::Always, Fault::Refuse(refusal)));
    let begun = std::time::Instant::now();
    let printed = cloud.folder.exits(1, &["run", "--until-caught-up"]);
    let advice = format!("cannot assume the role arn:aws:iam::{OTHER}:role/reader");
    assert!(printed.contains(&advice) && printed.contains("allow sts:AssumeRole on it"), "{printed}");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    assert!(missing(&cloud, 2)[0].contains(&advice));
}

#[test]
fn the_table_is_made_with_tags_protection_backups_and_a_key() {
    let cloud = Cloud::without_roles(1, &Options::default());
    let options = "tags = { team = \"data\", \"cost centre\" = \"7\" }\ndeletion_protection = true\n\
                   point_in_time_recovery = true\nkms_key = \"alias/leases\"";
    let checkpoints = format!("url = \"dynamodb://{TABLE}\"\n{options}");
    configure(&cloud, &format!("url = \"kinesis://{STREAM}\""), "", &checkpoints);
    // A policy of the organization that wants the tag.
    cloud.faults.add(denied(ServiceName::DynamoDb, "CreateTable").sparing("\"cost centre\""));
    let too_new = Refusal::new(400, "ContinuousBackupsUnavailableException", "Backups are being enabled for the table");
    let fault = Fault::Refuse(too_new);
    cloud.faults.add(Rule::new(ServiceName::DynamoDb, "UpdateContinuousBackups", When::First(2), fault));
    cloud.put(20);
    assert_eq!(missing(&cloud, 0), Vec::<String>::new());
    assert_eq!(cloud.catch_up()["ok"], true);
    let made = cloud.dynamodb.creation(TABLE).unwrap();
    let tags = made["Tags"].as_array().unwrap();
    for tag in [json!({ "Key": "team", "Value": "data" }), json!({ "Key": "cost centre", "Value": "7" })] {
        assert!(tags.contains(&tag), "{made}");
    }
    assert_eq!(made["DeletionProtectionEnabled"], true);
    let encryption = json!({ "Enabled": true, "SSEType": "KMS", "KMSMasterKeyId": "alias/leases" });
    assert_eq!(made["SSESpecification"], encryption);
    assert!(cloud.dynamodb.has_backups(TABLE));
    // What cannot be switched on is said, and the worker works.
    cloud.faults.add(denied(ServiceName::DynamoDb, "UpdateContinuousBackups"));
    let worker = cloud.start(&["--until-caught-up"]);
    wait_and_expect(worker, "point-in-time recovery of the lease table is not on");
}

fn wait_and_expect(mut worker: crate::common::worker::Worker, logged: &str) {
    assert_eq!(worker.wait(60).code(), Some(0), "{}", worker.log());
    assert!(worker.log().contains(logged), "{}", worker.log());
}

#[test]
fn config_check_sends_what_a_worker_sends() {
    let kms = "encryption = \"aws:kms\"\nkms_key = \"alias/lake\"";
    for (header, options) in [
        ("x-amz-server-side-encryption:aws:kms", kms),
        ("x-amz-server-side-encryption:AES256", "encryption = \"AES256\""),
        ("x-amz-tagging:team=data", "tags = { team = \"data\" }"),
        ("x-amz-expected-bucket-owner:000000000000", "bucket_owner = \"000000000000\""),
    ] {
        let cloud = Cloud::without_roles(1, &Options::default());
        for operation in ["CreateMultipartUpload", "PutObject"] {
            cloud.faults.add(denied(ServiceName::S3, operation).sparing(header));
        }
        by_name(&cloud, options);
        cloud.put(20);
        assert_eq!(missing(&cloud, 0), Vec::<String>::new(), "{header}");
        assert_eq!(cloud.s3.keys(BUCKET), Vec::<String>::new(), "the check leaves nothing behind");
        assert_eq!(cloud.s3.uploads(BUCKET), []);
        assert_eq!(cloud.catch_up()["ok"], true, "{header}");

        by_name(&cloud, "");
        let found = missing(&cloud, 2);
        assert!(
            found.iter().all(|found| found.starts_with("s3:PutObject") && found.ends_with(": DENIED")),
            "{found:?}"
        );
        assert_eq!(found.len(), 2, "data objects and small objects: {found:?}");
        for command in [&["config", "check"][..], &["run", "--until-caught-up"]] {
            cloud.put(5);
            let code = if command[0] == "run" { 1 } else { 2 };
            let printed = cloud.folder.exits(code, command);
            assert!(
                printed.contains("set encryption, kms_key, tags, storage_class or bucket_owner in [lake]"),
                "{printed}"
            );
        }
    }
}

#[test]
fn config_check_sees_what_a_worker_would_fail_at() {
    let cloud = Cloud::without_roles(1, &Options::default());
    // A bucket of another account.
    by_name(&cloud, "bucket_owner = \"999999999999\"");
    assert!(missing(&cloud, 2).iter().any(|found| found == "s3:ListBucket: DENIED"));
    let printed = cloud.folder.exits(1, &["run", "--until-caught-up"]);
    assert!(printed.contains("correct bucket_owner in [lake]"), "{printed}");
    by_name(&cloud, "");
    // No table, and no permission to make one.
    cloud.faults.add(denied(ServiceName::DynamoDb, "CreateTable"));
    assert_eq!(missing(&cloud, 2), ["dynamodb:CreateTable: DENIED"]);
    cloud.faults.clear();
    assert_eq!(missing(&cloud, 0), Vec::<String>::new());
    assert_eq!(cloud.dynamodb.creation(TABLE), None, "the check makes no table");
    // The table of something else.
    let table = json!({
        "TableName": TABLE, "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
    });
    let request = Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        query: [].into(),
        headers: [("x-amz-target".to_owned(), "DynamoDB_20120810.CreateTable".to_owned())].into(),
        body: table.to_string().into(),
    };
    assert_eq!(cloud.dynamodb.answer(&request).status, 200);
    let sentence = "it is not a lease table: its key is pk instead of the text leaseKey alone";
    let found = missing(&cloud, 2);
    assert!(found.len() == 1 && found[0].contains(sentence), "{found:?}");
    assert!(cloud.folder.exits(1, &["run", "--until-caught-up"]).contains(sentence));
}

#[test]
fn a_table_of_another_account_is_never_replaced_by_one_of_this_account() {
    let cloud = Cloud::without_roles(1, &Options::default());
    let table = format!("url = \"dynamodb://arn:aws:dynamodb:us-east-1:{OTHER}:table/{TABLE}\"");
    configure(&cloud, &format!("url = \"kinesis://{STREAM}\""), "", &table);
    // The model has one account, so it would find the table whatever the ARN says.
    let absent = Refusal::new(400, "ResourceNotFoundException", "Requested resource not found");
    cloud
        .faults
        .add(Rule::new(ServiceName::DynamoDb, "DescribeTable", When::Always, Fault::Refuse(absent)).touching(OTHER));
    cloud.put(20);
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        let printed = cloud.folder.exits(1, &["run", "--until-caught-up"]);
        assert!(printed.contains("name that table, or create this one in its own account"), "{printed}");
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
    assert_eq!(cloud.committed(), 0);
}

#[test]
fn each_application_has_a_consumer_of_its_own() {
    let cloud = Cloud::without_roles(1, &Options { source: "read = \"fan-out\"".to_owned(), ..Options::default() });
    cloud.put(20);
    assert_eq!(cloud.catch_up()["ok"], true);
    let names = || -> Vec<String> {
        cloud.kinesis.list_consumers(STREAM).unwrap().into_iter().map(|consumer| consumer.name).collect()
    };
    let first = names();
    assert!(first.len() == 1 && first[0].starts_with("shardlake-leases-"), "{first:?}");
    assert_eq!(cloud.catch_up()["ok"], true);
    assert_eq!(names(), first, "all workers of one application share it");
    let flags = ["--lake", &format!("s3://{BUCKET}/second"), "--checkpoints", "dynamodb://second"];
    let summary = cloud.start(&[&["--until-caught-up"][..], &flags].concat()).finish(60);
    assert_eq!(summary["ok"], true);
    assert_eq!(names().len(), 2, "{:?}", names());
}
