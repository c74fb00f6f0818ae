//! Dead letters of a Kinesis stream in a lake on S3, processed again and discarded.

use serde_json::Value;

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX};

impl Cloud {
    /// Keys below a prefix of the lake.
    fn keys_below(&self, prefix: &str) -> Vec<String> {
        let prefix = format!("{PREFIX}{prefix}");
        self.s3.keys(BUCKET).into_iter().filter(|key| key.starts_with(&prefix)).collect()
    }
}

#[test]
fn records_that_fail_again_keep_their_identities_in_the_stream_and_their_pseudonyms() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(200);
    cloud.catch_up();
    let shown = |cloud: &Cloud| -> Vec<Value> {
        let text = cloud.folder.ok(&["deadletters", "show", "--limit", "9999"]);
        let mut dead_letters: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        dead_letters.sort_by_key(|letter| {
            let text = |key: &str| letter[key].as_str().unwrap().to_owned();
            (text("shardId"), text("sequenceNumber"), letter["subSequenceNumber"].as_u64())
        });
        dead_letters
    };
    let before = shown(&cloud);
    let broken = before.iter().filter(|letter| letter["errorCode"] == "Decode.BrokenAggregate").count();
    assert!(broken > 0 && before.iter().all(|letter| letter["partitionKey"].is_string()), "{before:?}");
    let done = cloud.folder.json(&["deadletters", "redrive"]);
    assert_eq!(done["taken"], before.len() - broken, "{done}");
    assert_eq!((&done["rows"], &done["left_alone"]), (&serde_json::json!({}), &broken.into()), "{done}");
    // Everything is as before but the attempts.
    let mut after = shown(&cloud);
    for letter in after.iter_mut().filter(|letter| letter["errorCode"] != "Decode.BrokenAggregate") {
        assert_eq!(letter["attemptsMade"], 2, "{letter}");
        letter["attemptsMade"] = 1.into();
    }
    assert_eq!(after, before);
    assert_eq!(cloud.keys_below("_replays/"), [] as [String; 0]);
    cloud.audit();

    let args = ["deadletters", "discard", "--code", "Decode.BrokenAggregate"];
    let done = cloud.folder.json(&args);
    assert_eq!(done["discarded"], broken, "{done}");
    assert_eq!(shown(&cloud).len(), before.len() - broken);
    assert!(!cloud.keys_below("_trash/").is_empty());
    let report = cloud.folder.json(&["verify"]);
    assert_eq!(report["clean"], true, "{report}");
    let denied = cloud.access.denied();
    assert!(denied.is_empty(), "the roles of deploy/worker.yaml do not allow {denied:#?}");
}
