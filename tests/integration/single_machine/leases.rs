//! `leases` and `config check` as an operator uses them.

use std::collections::BTreeSet;

use crate::place::{Place, assessment, wait_for};

#[test]
fn leases_are_looked_at_let_go_and_taken_away() {
    let place = Place::new();
    for shard in 0..3 {
        place.write(&format!("in/{shard}.ndjson"), &assessment(shard));
    }
    let args = ["run", "--source", "in", "--lake", "lake", "--commit-interval", "500ms"];
    let worker = place.start(&args);
    wait_for("the worker to hold all and the rows to land", || place.held().len() == 3 && place.rows() == 3);

    let list = place.json(&["leases", "list", "--lake", "lake", "--watch", "4s"]);
    let states: BTreeSet<&str> =
        list["leases"].as_array().unwrap().iter().map(|lease| lease["state"].as_str().unwrap()).collect();
    assert_eq!(states, BTreeSet::from(["read"]), "{list}");
    assert_eq!((list["alive"].as_array().unwrap().len(), list["findings"].as_array().unwrap().len()), (1, 0), "{list}");
    let text = place.ok(&["leases", "list", "--lake", "lake", "--watch", "100ms"]);
    assert!(text.contains("3 leases of 1 worker"), "{text}");

    let shown = place.ok(&["leases", "inspect", "1.ndjson", "--lake", "lake"]);
    assert!(shown.contains("everything up to here is in the lake") && shown.contains("_commits/"), "{shown}");
    assert!(place.fails(2, &["leases", "inspect", "9.ndjson", "--lake", "lake"]).contains("no lease of a shard"));

    // Let go of, or taken away: the only worker there is takes it up again, and goes on where it was.
    for verb in ["release", "evict"] {
        let message = place.ok(&["leases", verb, "1.ndjson", "--lake", "lake"]);
        assert!(message.contains("1.ndjson"), "{message}");
        wait_for("the worker to hold all again", || place.held().len() == 3);
    }
    place.append("in/1.ndjson", &assessment(7));
    wait_for("the new row", || place.rows() == 4);
    worker.stop();
    place.verified(4);
    let list = place.json(&["leases", "list", "--lake", "lake", "--watch", "100ms"]);
    assert_eq!(list["leases"][0]["state"], "free", "{list}");
    assert!(place.ok(&["leases", "evict", "1.ndjson", "--lake", "lake"]).contains("nobody holds"));
}

#[test]
fn the_configuration_is_printed_as_it_is_understood_without_secrets() {
    let place = Place::new();
    place.write("in/a.ndjson", &assessment(0));
    place.write("the.key", "0123456789abcdef0123456789abcdef");
    place.write(
        "shardlake.toml",
        "[[source]]\nurl = \"in\"\n[anonymize]\nkey = \"file:the.key\"\n[commit]\ninterval = \"7s\"\n",
    );
    let message = place.ok(&["config", "check"]);
    for part in ["interval = \"7000ms\"", "key = \"file:the.key\"", "failover = \"10000ms\"", "url = \"in\""] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    assert!(!message.contains("0123456789abcdef"), "{message}");
    place.write(
        "shardlake.toml",
        "[lake]\nurl = \"s3://the-lake\"\nstorage_class = \"GLACIER\"\n[leases]\nfailovr = \"1s\"\n",
    );
    let message = place.fails(2, &["config", "check", "--offline"]);
    for part in ["failovr", "did you mean 'failover'"] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
}
