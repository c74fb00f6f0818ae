//! Named checkpoints: what a saved one says must be true of one moment.
//!
//! - Each epoch is in it whole: on all of its shards, or on none of them. A position is the end of an epoch, or where reading began.
//! - Every epoch up to the version of the lake log that it names is in it, and every epoch that was committed before it was begun.
//! - Every record up to its positions is in the lake (checked by the auditor).
//! - It never changes. What was saved by a command stays; of those of the schedule, the newest stay.
//!
//! Owns: these rules, and the ranges of committed epochs. Does not own: when checkpoints are saved (`fleet::saves`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use checkpoints::{Position, ShardKey};
use serde_json::Value;

use crate::auditor::key_of;

/// How many checkpoints the schedule of a simulated fleet keeps.
pub const KEPT: usize = 2;

/// The range of an epoch in a shard.
#[derive(Debug)]
struct Range {
    key: ShardKey,
    after: Position,
    through: Position,
}

/// What is known of named checkpoints.
#[derive(Default)]
pub(super) struct NamedAudit {
    /// The ranges of each committed epoch.
    epochs: HashMap<String, Vec<Range>>,
    /// The checkpoints that exist, and whether the schedule has saved each.
    saved: BTreeMap<String, (Bytes, bool)>,
    /// How many were saved by a command, and how many by the schedule.
    counts: [u64; 2],
}

/// The positions of a checkpoint.
pub(super) type Cut = BTreeMap<ShardKey, Position>;

fn position(value: &Value) -> Option<Position> {
    value.as_str()?.parse().ok()
}

impl NamedAudit {
    /// An epoch was committed. `record`: its commit record.
    pub(super) fn committed(&mut self, record: &Value) {
        if record["kind"] != "epoch" {
            return;
        }
        let range = |shard: &Value| {
            let (after, through) = (position(&shard["range"]["after"])?, position(&shard["range"]["through"])?);
            Some(Range { key: key_of(shard)?, after, through })
        };
        let ranges = record["shards"].as_array().into_iter().flatten().filter_map(range).collect();
        self.epochs.insert(record["epoch"].as_str().unwrap_or_default().to_owned(), ranges);
    }

    /// How many were saved by a command, and how many by the schedule.
    pub(super) fn counts(&self) -> [u64; 2] {
        self.counts
    }

    /// The object of a checkpoint may have appeared or disappeared. `has_row`: whether a shard has a row in the lease table. `entered`:
    /// the epochs up to a version of the lake log. Returns the positions of a new one.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn check(
        &mut self,
        key: &str,
        bytes: Option<&Bytes>,
        has_row: impl Fn(&ShardKey) -> bool,
        entered: impl FnOnce(u64) -> HashSet<String>,
    ) -> Result<Option<Cut>, String> {
        let Some(bytes) = bytes else {
            let Some((_, is_scheduled)) = self.saved.remove(key) else { return Ok(None) };
            let newer = self.saved.iter().filter(|(name, (_, is_scheduled))| *is_scheduled && name.as_str() > key);
            return match newer.count() {
                newer if is_scheduled && newer >= KEPT => Ok(None),
                newer if is_scheduled => Err(format!("the schedule removes {key}, and only {newer} are newer")),
                _ => Err(format!("{key} was saved by a command, and is gone")),
            };
        };
        if let Some((known, _)) = self.saved.get(key) {
            return if known == bytes { Ok(None) } else { Err(format!("{key} was written again with other bytes")) };
        }
        let stored: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("{key} is not valid JSON: {error}"))?;
        let is_scheduled = stored["saved_by"] == "schedule";
        self.counts[usize::from(is_scheduled)] += 1;
        self.saved.insert(key.to_owned(), (bytes.clone(), is_scheduled));
        let shards = stored["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
        let cut: Cut =
            shards.iter().filter_map(|shard| Some((key_of(shard)?, position(&shard["checkpoint"])?))).collect();
        let mut whole: HashSet<&str> = HashSet::new();
        for (epoch, ranges) in &self.epochs {
            let mut is_in: BTreeSet<bool> = BTreeSet::new();
            for range in ranges {
                is_in.insert(match cut.get(&range.key) {
                    Some(at) if *at > range.after && *at < range.through => {
                        return Err(format!("{key} has {} at {at}, in the middle of {epoch}", range.key));
                    }
                    Some(at) => *at >= range.through,
                    // Its row was made after the rows were read, or was removed before, once its children were read.
                    None => !has_row(&range.key),
                });
            }
            if is_in.len() > 1 {
                return Err(format!("{key} has {epoch} on some of its shards, and not on others"));
            }
            if is_in.contains(&true) {
                whole.insert(epoch);
            }
        }
        if let Some(version) = stored["log_version"].as_u64() {
            let lacks = entered(version).into_iter();
            let lacks = lacks.filter(|epoch| self.epochs.contains_key(epoch) && !whole.contains(epoch.as_str())).min();
            if let Some(epoch) = lacks {
                return Err(format!("{key} names version {version} of the lake log, and does not have {epoch} of it"));
            }
        }
        Ok(Some(cut))
    }

    /// The epochs that are committed.
    pub(super) fn epochs(&self) -> BTreeSet<String> {
        self.epochs.keys().cloned().collect()
    }

    /// A checkpoint was saved by a command that began when these epochs were committed.
    ///
    /// # Errors
    /// It does not have one of them.
    pub(super) fn check_begun_after(&self, key: &str, epochs: &BTreeSet<String>) -> Result<(), String> {
        let Some((bytes, _)) = self.saved.get(key) else { return Err(format!("{key} was saved, and is not there")) };
        let stored: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let shards = stored["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
        let cut: Cut =
            shards.iter().filter_map(|shard| Some((key_of(shard)?, position(&shard["checkpoint"])?))).collect();
        for epoch in epochs {
            for range in self.epochs.get(epoch).into_iter().flatten() {
                if cut.get(&range.key).is_some_and(|at| *at < range.through) {
                    return Err(format!("{key} does not have {epoch}, which was committed before it was begun"));
                }
            }
        }
        Ok(())
    }
}
