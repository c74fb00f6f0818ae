//! `shardlake leases`, beside a worker that runs.

use std::collections::BTreeSet;

use crate::common::folder::Folder;
use crate::common::wait_for;
use crate::single_machine::assessment;

#[test]
fn leases_are_listed_inspected_released_and_evicted() {
    let folder = Folder::new();
    for shard in 0..3 {
        folder.write(&format!("in/{shard}.ndjson"), assessment(shard));
    }
    let worker = folder.start(&["--source", "in", "--lake", "lake", "--commit-interval", "500ms"]);
    wait_for("the worker to hold all shards and the rows to land", 60, || {
        folder.rows() == 3 && folder.holders().len() == 3
    });

    let list = folder.json(&["leases", "list", "--lake", "lake", "--watch", "4s"]);
    let states: BTreeSet<&str> =
        list["leases"].as_array().unwrap().iter().map(|lease| lease["state"].as_str().unwrap()).collect();
    assert_eq!(states, BTreeSet::from(["read"]), "{list}");
    assert_eq!((list["alive"].as_array().unwrap().len(), list["findings"].as_array().unwrap().len()), (1, 0), "{list}");
    let text = folder.ok(&["leases", "list", "--lake", "lake", "--watch", "100ms"]);
    assert!(text.contains("3 leases of 1 worker"), "{text}");

    let shown = folder.ok(&["leases", "inspect", "1.ndjson", "--lake", "lake"]);
    assert!(shown.contains("everything up to here is in the lake") && shown.contains("_commits/"), "{shown}");
    assert!(folder.exits(2, &["leases", "inspect", "9.ndjson", "--lake", "lake"]).contains("no lease of a shard"));

    // The only worker takes the lease again, and continues where it was.
    for verb in ["release", "evict"] {
        let message = folder.ok(&["leases", verb, "1.ndjson", "--lake", "lake"]);
        assert!(message.contains("1.ndjson"), "{message}");
        wait_for("the worker to hold all shards again", 60, || folder.holders().len() == 3);
    }
    folder.append("in/1.ndjson", &assessment(7));
    wait_for("the new row", 60, || folder.rows() == 4);
    worker.stop();
    folder.assert_verified(4);
    let list = folder.json(&["leases", "list", "--lake", "lake", "--watch", "100ms"]);
    assert_eq!(list["leases"][0]["state"], "free", "{list}");
    assert!(folder.ok(&["leases", "evict", "1.ndjson", "--lake", "lake"]).contains("nobody holds"));
}
