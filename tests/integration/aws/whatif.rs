//! Definitions that are tried on a lake on S3 and a Kinesis stream, by somebody who may only read.

use serde_json::{Value, json};

use crate::aws::cloud::{BUCKET, Cloud, Options, TABLE};

const ASSESSMENTS: &str = include_str!("../../../pipeline/datasets/assessments.toml");

/// Everything in the bucket and in the lease table.
fn contents(cloud: &Cloud) -> (Vec<(String, Vec<u8>)>, Vec<Value>) {
    let object = |key: String| {
        let bytes = cloud.s3.object(BUCKET, &key).unwrap().to_vec();
        (key, bytes)
    };
    (cloud.s3.keys(BUCKET).into_iter().map(object).collect(), cloud.dynamodb.items(TABLE))
}

#[test]
fn whoever_may_only_read_can_try_a_definition_and_changes_nothing() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(150);
    cloud.catch_up();
    let before = contents(&cloud);
    let found =
        cloud.folder.json(&["whatif", "--from", "trim-horizon", "--fail-on", "dead-letters=0,rows=0,changed=0"]);
    assert_eq!((&found["diff"]["same"], found["records"].as_u64()), (&json!(true), Some(cloud.expected())), "{found}");
    // A definition that rejects all assessments with a score.
    cloud.folder.write("new.toml", ASSESSMENTS.replacen("min = 0\nmax = 100\n", "min = 101\nmax = 102\n", 1));
    let args = ["whatif", "--definition", "new.toml", "--last", "24h", "--json", "--fail-on", "dead-letters=+0"];
    let printed = cloud.folder.exits(1, &args);
    let found: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    let rows = &found["diff"]["datasets"]["assessments"];
    assert!(rows["to_dead_letters"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(rows["to_dead_letters"], found["diff"]["dead_letters"]["from_rows"]);
    assert_eq!(contents(&cloud), before);
    cloud.audit();
}

#[test]
fn whoever_may_only_read_can_compare_a_replay() {
    let cloud = Cloud::new(1, &Options::default());
    cloud.put(40);
    cloud.catch_up();
    let plan = cloud.folder.json(&["replay", "plan", "--from", "trim-horizon", "--prefer", "stream"]);
    let id = plan["id"].as_str().unwrap();
    cloud.folder.ok(&["replay", "start", id]);
    let before = contents(&cloud);
    let found = cloud.folder.json(&["replay", "diff", id]);
    assert_eq!((&found["diff"]["same"], &found["complete"]), (&json!(true), &json!(true)), "{found}");
    assert_eq!(contents(&cloud), before);
}
