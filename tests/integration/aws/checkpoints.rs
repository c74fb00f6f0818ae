//! Named checkpoints of a stream: until when they can be used, and those that workers save by a schedule.

use aws_model::http::Request;
use serde_json::Value;

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX, STREAM};
use crate::common::now_ms;

const HOUR_MS: i64 = 3_600_000;

impl Cloud {
    /// The names of the checkpoints in the bucket.
    fn checkpoints(&self) -> Vec<String> {
        let prefix = format!("{PREFIX}_checkpoints/");
        let keys = self.s3.keys(BUCKET);
        keys.iter().filter_map(|key| Some(key.strip_prefix(&prefix)?.strip_suffix(".json")?.to_owned())).collect()
    }

    /// Puts a checkpoint into the bucket that a worker, or somebody, has saved long ago.
    pub(crate) fn put_checkpoint(&self, name: &str, saved_by: &str) {
        let text = format!(
            "{{\"format\":2,\"name\":\"{name}\",\"saved_at\":\"2020-01-01T00:00:00.000Z\",\"saved_by\":\"{saved_by}\",\"shards\":[]}}"
        );
        let (method, path) = ("PUT".to_owned(), format!("/{BUCKET}/{PREFIX}_checkpoints/{name}.json"));
        let (query, headers) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        self.services().answer(&Request { method, path, query, headers, body: text.into() });
    }
}

/// Milliseconds from now until the time that a command printed.
fn left_ms(value: &Value) -> i64 {
    let text = value["usable_until"].as_str().unwrap_or_else(|| panic!("{value}"));
    pipeline::time::parse_rfc3339(text.as_bytes()).unwrap() - now_ms()
}

#[test]
fn a_checkpoint_is_usable_as_long_as_the_stream_keeps_what_follows_it() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(60);
    cloud.catch_up();
    let saved = cloud.folder.json(&["checkpoints", "save", "before"]);
    assert_eq!((&saved["usability"], &saved["usable_until_is_at_most"]), (&"usable".into(), &false.into()), "{saved}");
    assert!((left_ms(&saved) - 24 * HOUR_MS).abs() < 60_000, "{saved}");
    let shown = cloud.folder.json(&["checkpoints", "show", "before"]);
    assert_eq!(shown["behind_ms"][STREAM], 0, "everything was read: {shown}");
    assert!(shown["definitions"]["assessments"][0]["hash"].as_str().is_some_and(|hash| hash.len() > 20), "{shown}");
    assert_eq!(shown["positions"].as_array().map(Vec::len), Some(2), "{shown}");
    assert!(
        shown["positions"][0]["last_manifest"].as_str().is_some_and(|name| name.starts_with("_intents/")),
        "{shown}"
    );
    // What a longer retention keeps is known at once.
    cloud.kinesis.set_retention(STREAM, 168, true).unwrap();
    let listed = cloud.folder.json(&["checkpoints", "list"]);
    assert!((left_ms(&listed["saved"][0]) - 168 * HOUR_MS).abs() < 60_000, "{listed}");
    let text = cloud.folder.ok(&["checkpoints", "list"]);
    assert!(text.contains("usable until") && !text.contains("(soon)"), "{text}");
    let status = cloud.folder.json(&["status"]);
    assert!(status.get("ending_checkpoints").is_none(), "{status}");
}

#[test]
fn a_checkpoint_that_ends_soon_is_warned_of_by_every_command_that_shows_it() {
    // The services' clock is 22 hours behind, so what is stored is that old.
    let old = Cloud::behind_the_workers(22 * 3600, 1, &Options::default());
    old.put(20);
    old.catch_up();
    let text = old.folder.ok(&["checkpoints", "save", "old"]);
    assert!(text.contains("that is soon: replay from it before then, raise the retention"), "{text}");
    let status = old.folder.json(&["status"]);
    assert_eq!(status["ending_checkpoints"][0]["name"], "old", "{status}");
    assert_eq!(status["ending_checkpoints"][0]["usability"], "expiring", "{status}");
    let text = old.folder.ok(&["status"]);
    assert!(text.contains("checkpoint old: usable until") && text.contains("raise the retention"), "{text}");
    let text = old.folder.ok(&["checkpoints", "show", "old"]);
    assert!(text.contains("(soon)") && text.contains("that is soon"), "{text}");
    assert!(old.folder.ok(&["checkpoints", "list"]).contains("(soon)"));
    // A longer retention is what helps.
    old.kinesis.set_retention(STREAM, 168, true).unwrap();
    assert!(old.folder.json(&["status"]).get("ending_checkpoints").is_none());
}

#[test]
fn workers_save_one_checkpoint_an_interval_and_keep_the_newest() {
    let options = Options { checkpoints: "every = \"1h\"\nkeep = 2".to_owned(), ..Options::default() };
    let cloud = Cloud::new(2, &options);
    for (name, saved_by) in [
        ("auto-20200101T000000Z", "schedule"),
        ("auto-20200102T000000Z", "schedule"),
        ("auto-20200103T000000Z", "command"),
        ("mine", "command"),
    ] {
        cloud.put_checkpoint(name, saved_by);
    }
    let hour = |ms: i64| ms / HOUR_MS;
    let first = hour(now_ms());
    for _ in 0..3 {
        cloud.put(40);
        let workers = [cloud.start(&["--until-caught-up"]), cloud.start(&["--until-caught-up"])];
        for worker in workers {
            worker.finish(60);
        }
    }
    let hours = usize::try_from(hour(now_ms()) - first).unwrap() + 1;
    let names = cloud.checkpoints();
    let new: Vec<&String> =
        names.iter().filter(|name| name.starts_with("auto-") && !name.starts_with("auto-2020")).collect();
    assert!((1..=hours).contains(&new.len()), "{names:?} in {hours} hours");
    // Of the names of the schedule, the two newest stay; what somebody has saved stays in any case.
    for name in ["auto-20200103T000000Z", "mine"] {
        assert!(names.iter().any(|one| one == name), "{names:?}");
    }
    assert!(!names.iter().any(|one| one == "auto-20200101T000000Z"), "{names:?}");
    let shown = cloud.folder.json(&["checkpoints", "show", new[0]]);
    assert_eq!(
        (&shown["saved_by"], shown["positions"].as_array().map(Vec::len)),
        (&"schedule".into(), Some(2)),
        "{shown}"
    );
    let message = cloud.folder.exits(2, &["checkpoints", "save", "auto-mine"]);
    assert!(message.contains("names that begin with auto- belong to [checkpoints] every"), "{message}");
}
