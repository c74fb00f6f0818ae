//! Replays of a Kinesis stream into a lake on S3, with leases in DynamoDB, beside live workers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX, STREAM};
use crate::common::{pause, wait_for};

impl Cloud {
    /// Plans a replay: the plan, and its id.
    fn plan_replay(&self, flags: &[&str]) -> (Value, String) {
        let plan = self.folder.json(&[&["replay", "plan"], flags].concat());
        let id = plan["id"].as_str().unwrap().to_owned();
        (plan, id)
    }

    /// The shards of each stream in the lease table, with their counters, without those of replays and operations.
    fn live_leases(&self) -> BTreeMap<String, String> {
        let items = self.dynamodb.items(crate::aws::cloud::TABLE);
        let lease = |item: &Value| {
            let key = item["leaseKey"]["S"].as_str()?.to_owned();
            key.starts_with("shardId-").then(|| (key, item["leaseCounter"]["N"].to_string()))
        };
        items.iter().filter_map(lease).collect()
    }

    /// Keys below the aside lake of a replay.
    fn aside_keys(&self, id: &str) -> Vec<String> {
        let prefix = format!("{PREFIX}_replays/{id}/lake/");
        self.s3.keys(BUCKET).into_iter().filter(|key| key.starts_with(&prefix)).collect()
    }

    /// Rows and dead letters that are in the aside lake, by its commit records.
    fn aside_totals(&self, id: &str) -> (u64, u64, u64) {
        let records = self.aside_keys(id).into_iter().filter(|key| key.contains("/_commits/"));
        let mut totals = (0, 0, 0);
        for key in records {
            let record: Value = serde_json::from_slice(&self.s3.object(BUCKET, &key).unwrap()).unwrap();
            let sum =
                |value: &Value| value.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>();
            totals.0 += record["totals"]["records"].as_u64().unwrap();
            totals.1 += sum(&record["totals"]["rows"]);
            totals.2 += sum(&record["totals"]["dead_letters"]);
        }
        totals
    }
}

#[test]
fn a_stream_is_read_again_beside_live_workers_whose_leases_are_left_alone() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(150);
    cloud.catch_up();
    cloud.folder.ok(&["checkpoints", "save", "before"]);
    cloud.put(100);
    cloud.catch_up();
    let committed = cloud.expected();
    let status = cloud.folder.json(&["status"]);
    let sum = |value: &Value| value.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>();
    let all = (committed, sum(&status["totals"]["rows"]), sum(&status["totals"]["dead_letters"]));

    // Nobody holds a live lease, so nothing moves their counters but a replay that should not.
    let leases = cloud.live_leases();
    assert_eq!(leases.len(), 2);
    let (plan, id) = cloud.plan_replay(&["--from", "trim-horizon", "--prefer", "stream"]);
    assert_eq!((&plan["streams"][0], plan["totals"]["records"].as_u64()), (&STREAM.into(), Some(committed)), "{plan}");
    assert!(plan["estimate"]["dollars"].as_f64().unwrap() > 0.0, "{plan}");
    let summary = cloud.folder.json(&["replay", "start", &id]);
    assert_eq!(
        (&summary["ended"], summary["records_done"].as_u64()),
        (&"complete".into(), Some(committed)),
        "{summary}"
    );
    assert_eq!(cloud.aside_totals(&id), all, "records, rows and dead letters");
    assert_eq!(cloud.live_leases(), leases);

    // From a checkpoint, only the rest is read.
    let (plan, id) = cloud.plan_replay(&["--from", "checkpoint:before", "--prefer", "stream"]);
    let rest = plan["totals"]["records"].as_u64().unwrap();
    assert!(rest > 0 && rest < committed, "{plan}");
    let live = cloud.start(&[]);
    wait_for("the live worker", 30, || cloud.sole_holder(2).is_some());
    cloud.put(60);
    let summary = cloud.folder.json(&["replay", "start", &id, "--workers", "2"]);
    assert_eq!(summary["records_done"].as_u64(), Some(rest), "{summary}");
    assert_eq!(cloud.aside_totals(&id).0, rest);
    cloud.put(40);
    wait_for("the live worker to read the rest", 60, || cloud.everything_is_committed());
    assert!(cloud.sole_holder(2).is_some(), "the live worker holds all shards");
    live.stop();
    cloud.audit();

    // What is cancelled leaves nothing.
    cloud.folder.ok(&["replay", "cancel", &id]);
    assert_eq!(cloud.aside_keys(&id), [] as [String; 0]);
    let rows = cloud.dynamodb.items(crate::aws::cloud::TABLE);
    assert!(!rows.iter().any(|row| row.to_string().contains(&format!("_replay:{id}"))), "{rows:?}");
    cloud.audit();
}

#[test]
fn a_replay_is_promoted_beside_a_live_worker_and_undone_and_purged_and_every_version_is_clean() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(150);
    cloud.catch_up();
    let totals = |cloud: &Cloud| cloud.folder.json(&["status"])["totals"].clone();
    let before = totals(&cloud);
    let (_, id) = cloud.plan_replay(&["--from", "trim-horizon", "--prefer", "stream"]);
    cloud.folder.exits(2, &["replay", "promote", &id]);
    cloud.folder.ok(&["replay", "start", &id]);
    let live = cloud.start(&[]);
    cloud.put(50);
    let promoted = cloud.folder.json(&["replay", "promote", &id[..6], "--order", "remove-first"]);
    assert_eq!((&promoted["state"], &promoted["before"]), (&"promoted".into(), &false.into()), "{promoted}");
    assert_eq!(promoted["rows_added"], promoted["rows_removed"], "the definitions have not changed: {promoted}");
    let again = cloud.folder.json(&["replay", "promote", &id]);
    assert_eq!((&again["version"], &again["before"]), (&promoted["version"], &true.into()));
    wait_for("the live worker to read the rest", 60, || cloud.everything_is_committed());
    live.stop();
    cloud.audit();
    let status = cloud.folder.json(&["replay", "status", &id]);
    assert_eq!(status["state"], "promoted");
    let version = promoted["version"].to_string();
    let entry = cloud.folder.json(&["log", "show", &version]);
    assert_eq!((&entry["of"], &entry["kind"]), (&format!("replay:{id}").into(), &"replace".into()), "{entry}");

    let undone = cloud.folder.json(&["replay", "undo", &id]);
    assert_eq!(undone["rows_added"], promoted["rows_removed"]);
    cloud.audit();
    cloud.folder.exits(2, &["replay", "promote", &id]);
    let newest: u64 = undone["version"].as_u64().unwrap();
    for version in 1..=newest {
        let audit = cloud.folder.json(&["verify", "--at", &version.to_string()]);
        assert_eq!(audit["clean"], true, "version {version}: {audit}");
    }
    let of_first = cloud.folder.json(&["status", "--at", "1"])["totals"].clone();
    assert!(of_first["records"].as_u64() <= before["records"].as_u64());

    let would = cloud.folder.json(&["replay", "purge", &id, "--dry-run"]);
    let purged = cloud.folder.json(&["replay", "purge", &id]);
    assert_eq!(would["kept_objects"], purged["kept_objects"], "{would} {purged}");
    assert!(purged["aside_objects"].as_u64() > Some(0), "{purged}");
    let left = |folder: &str| {
        let prefix = format!("{PREFIX}{folder}");
        cloud.s3.keys(BUCKET).into_iter().filter(|key| key.starts_with(&prefix)).count()
    };
    assert_eq!((left("_trash/"), cloud.aside_keys(&id).len()), (0, 0));
    assert_eq!(cloud.folder.json(&["replay", "status", &id])["state"], "purged");
    cloud.audit();
}

#[test]
fn a_range_that_has_expired_is_refused_with_its_shards() {
    let cloud = Cloud::in_the_past(30, 2, &Options { raw: "enabled = false".to_owned(), ..Options::default() });
    cloud.put(40);
    cloud.catch_up();
    cloud.go_to_the_present();
    pause(50);
    let refused = cloud.folder.exits(2, &["replay", "plan", "--from", "trim-horizon"]);
    for part in ["shard shardId-000000000000 of stream orders", "cannot be read again", "the raw landing was off"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}
