//! The list of permissions: it names every request that a worker sends, and `config check` tries what is in it.

use std::collections::BTreeSet;

use shardlake::setup::permissions::all;

use crate::aws::cloud::{Cloud, Options};

#[test]
fn every_request_of_a_worker_is_in_the_list_of_permissions() {
    let options = Options {
        raw: "to = \"firehose:landing\"".to_owned(),
        limits: "threads = 1\nrecord_bytes = \"512 KiB\"".to_owned(),
        ..Options::default()
    };
    let cloud = Cloud::new(2, &options);
    cloud.firehose.create("landing");
    cloud.put(100);
    let summary = cloud.catch_up();
    let sent: BTreeSet<&str> = summary["requests"].as_object().unwrap().keys().map(String::as_str).collect();
    let permissions = all();
    let listed: BTreeSet<&str> = permissions.iter().flat_map(|permission| permission.requests).copied().collect();
    for service in ["Kinesis.", "DynamoDB.", "S3.", "Firehose."] {
        assert!(sent.iter().any(|request| request.starts_with(service)), "{service} is not in {sent:?}");
    }
    let missing: Vec<_> = sent.difference(&listed).collect();
    assert!(missing.is_empty(), "no permission lists the requests {missing:?}");
}

#[test]
fn config_check_tries_actions_of_the_list() {
    let cloud = Cloud::new(1, &Options::default());
    let catch_up = cloud.catch_up();
    assert_eq!(catch_up["ok"], true);
    let checked = cloud.folder.json(&["config", "check"]);
    let tried = checked["permissions"].as_array().unwrap();
    let actions: BTreeSet<&str> = all().iter().map(|permission| permission.action).collect();
    assert!(tried.len() > 10, "{tried:?}");
    for trial in tried {
        let action = trial["action"].as_str().unwrap();
        let action = action.split(' ').next().unwrap();
        assert!(actions.contains(action) && trial["ok"] == true, "{trial}");
    }
}
