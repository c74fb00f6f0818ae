//! What a fleet costs in requests, and how long it takes to settle, stays within bounds. `benches/scaling.py` measures larger fleets.

use std::time::Duration;

use serde_json::Value;
use simulation::scale::load::Load;
use simulation::scale::{Scale, Scenario, measure};

/// A fleet that commits every minute, and whose shards get a record each two seconds. Ends with a panic unless each record landed once.
fn measured(shards: usize, workers: usize, scenario: Scenario) -> Value {
    let scale = Scale::new(shards, workers, scenario);
    let measured = measure(&Scale {
        interval: Duration::from_secs(60),
        counted: Duration::from_secs(300),
        load: Load { record_bytes: 10_000, record_every_ms: 2_000, ..scale.load },
        ..scale
    });
    eprintln!(
        "{}",
        serde_json::json!({ "counted": measured["counted"], "aborted": measured["aborted"], "held_s": measured["held_s"],
        "balanced_s": measured["balanced_s"], "held_again_s": measured["held_again_s"], "balanced_again_s": measured["balanced_again_s"] })
    );
    measured
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::INFINITY)
}

#[test]
fn the_requests_of_a_calm_fleet_stay_within_bounds_and_repeat() {
    let (shards, workers) = (60.0, 4.0);
    let fleet = measured(60, 4, Scenario::Calm);
    assert!(number(&fleet["held_s"]) <= 5.0 && number(&fleet["balanced_s"]) <= 60.0, "{fleet}");
    let counted = &fleet["counted"];
    let seconds = number(&counted["seconds"]);
    let hourly = |operation: &str| number(&counted["requests"][operation]) * 3600.0 / seconds;
    // A shard with a few new records is read once a second: a request takes some milliseconds more.
    assert!((0.8..=1.05).contains(&(hourly("kinesis.GetRecords") / shards / 3600.0)), "{counted}");
    // A scan each 2.86 s, and each of them reads the whole table: 60 rows of some 500 bytes are 8 units.
    assert!(hourly("dynamodb.Scan") / workers <= 1_270.0, "{counted}");
    assert!(number(&counted["read_units"]) <= 8.0 * number(&counted["requests"]["dynamodb.Scan"]) * 1.3, "{counted}");
    // Of each worker a sign of life each 2.86 s; of each shard a renewal a minute, and an update a commit.
    let writes = 1_260.0 * workers + 2.0 * 60.0 * shards;
    assert!(hourly("dynamodb.UpdateItem") <= 1.05 * writes, "{counted}");
    // Each worker lists each 30 s, and the one with the first shard asks for the identity of the stream with each list and commit.
    assert!(hourly("kinesis.ListShards") <= 1.05 * workers * 120.0, "{counted}");
    assert_eq!(counted["throttled"], 0);
    assert_eq!(fleet["aborted"], 0);
    assert_eq!(fleet, measured(60, 4, Scenario::Calm), "the same seed gives the same figures");
}

#[test]
fn the_shards_of_a_dead_worker_are_read_again_within_twenty_seconds() {
    let fleet = measured(60, 4, Scenario::Recover);
    assert!(number(&fleet["held_again_s"]) <= 20.0, "{fleet}");
    assert!(number(&fleet["oldest_max_s"]) <= 60.0 + 60.0 + 20.0 + 10.0, "{fleet}");
}

#[test]
fn a_worker_that_joins_gets_half_of_two_hundred_shards_without_an_epoch_lost() {
    let fleet = measured(200, 1, Scenario::Join);
    assert!(number(&fleet["balanced_again_s"]) <= 40.0, "{fleet}");
    assert_eq!(fleet["aborted"], 0);
}

#[test]
fn every_shard_that_is_split_is_followed_by_its_children() {
    let fleet = measured(30, 3, Scenario::Reshard);
    // The ends of the parents are committed with the epoch.
    assert!(number(&fleet["children_held_s"]) <= 60.0 + 30.0, "{fleet}");
}
