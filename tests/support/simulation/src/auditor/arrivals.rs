//! What commit records say about times of arrival: that a shard was read to a position when everything that had arrived before a time
//! was at or before that position.
//!
//! Owns: comparing this with the records that were put. Does not own: the watermark that follows from it.

use checkpoints::Position;
use pipeline::time::parse_rfc3339;
use serde_json::Value;

use crate::auditor::{AuditLedger, key_of};
use crate::environment::Environment;

/// Checks the ranges and the idle shards of a commit record. An environment without times of arrival is not checked.
pub(super) fn check_arrivals(ledger: &mut AuditLedger, environment: &dyn Environment, name: &str, record: &Value) {
    let of_ranges = record["shards"].as_array().into_iter().flatten().map(|shard| (shard, &shard["range"]["through"]));
    let of_idle = record["idle"].as_array().into_iter().flatten().map(|shard| (shard, &shard["at"]));
    for (shard, position) in of_ranges.chain(of_idle) {
        let time = shard["arrived_through"].as_str().and_then(|time| parse_rfc3339(time.as_bytes()));
        let position = position.as_str().and_then(|text| text.parse::<Position>().ok());
        let (Some(time), Some(position), Some(key)) = (time, position, key_of(shard)) else { continue };
        let records = ledger.expected.get(&key).map(Vec::as_slice).unwrap_or_default();
        let is_before = |put_at| environment.arrived_ms(put_at).is_some_and(|arrived| arrived < time);
        let missed = records.iter().find(|record| record.position > position && is_before(record.put_at));
        if let Some(missed) = missed {
            let what = &missed.position;
            ledger.violated(format!(
                "{name} says that all that arrived in {key} before {time} was read through {position}, but {what} had arrived"
            ));
        }
    }
}
