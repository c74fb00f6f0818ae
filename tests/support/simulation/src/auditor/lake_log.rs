//! The rules of the lake log, checked after every effect on it.
//!
//! - Versions have no gap, and a version is written once.
//! - An entry has the hash of the one before it, and names the epochs of the hundred versions before it.
//! - An epoch enters once, with a commit record, and its entry says what that says.
//! - Entries are removed in ascending order, never the newest one, and none of an epoch that is pending.
//!
//! An entry that is written where one was removed is false: no reader begins so low, and nothing is expected of it.
//!
//! Owns: these rules, and what is known of the log. Does not own: that a checkpoint moves only once its epoch has entered
//! (`auditor`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Epochs that an entry repeats.
const RECENT_MAX: usize = 100;

/// What is known of the log.
#[derive(Debug, Default)]
pub(super) struct LogAudit {
    /// The epoch and the hash of each version, from 1.
    entries: Vec<(String, String)>,
    versions: HashMap<String, usize>,
    /// The versions up to this one were removed.
    trimmed: usize,
    /// Entries that were written where one had been removed.
    false_entries: u64,
}

impl LogAudit {
    /// Whether the epoch has entered.
    pub(super) fn has(&self, epoch: &str) -> bool {
        self.versions.contains_key(epoch)
    }

    /// The number of versions.
    pub(super) fn newest(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The epochs and operations up to a version.
    pub(super) fn epochs_through(&self, version: u64) -> HashSet<String> {
        let count = usize::try_from(version).unwrap_or(usize::MAX);
        self.entries.iter().take(count).map(|(epoch, _)| epoch.clone()).collect()
    }

    /// How many versions were removed.
    pub(super) fn trimmed(&self) -> u64 {
        self.trimmed as u64
    }

    /// How many entries were written where one had been removed.
    pub(super) fn false_entries(&self) -> u64 {
        self.false_entries
    }

    /// The object of a key below `_log/` may have changed. `record` reads a commit record; `is_pending` finds an epoch in the
    /// lease table. Returns the commit record of an epoch or operation that has entered now.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn check(
        &mut self,
        key: &str,
        bytes: Option<&[u8]>,
        record: impl FnOnce(&str) -> Option<Value>,
        is_pending: impl FnOnce(&str) -> bool,
    ) -> Result<Option<Value>, String> {
        let Some(version) = version_of(key) else { return Ok(None) };
        let Some(bytes) = bytes else { return self.check_removed(version, is_pending).map(|()| None) };
        let hash = hex(bytes);
        if version <= self.trimmed {
            self.false_entries += 1;
            return Ok(None);
        }
        if let Some((_, known)) = self.entries.get(version - 1) {
            return if *known == hash { Ok(None) } else { Err(format!("{key} was written again with other bytes")) };
        }
        if version != self.entries.len() + 1 {
            return Err(format!("{key} is written, but the log ends at version {}", self.entries.len()));
        }
        let entry: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("{key} is not valid JSON: {error}"))?;
        let epoch = entry["epoch"].as_str().unwrap_or_default().to_owned();
        if entry["version"].as_u64() != u64::try_from(version).ok() {
            return Err(format!("{key} says that it is version {}", entry["version"]));
        }
        if let Some(earlier) = self.versions.get(&epoch) {
            return Err(format!("{epoch} enters the log as version {version}, and is version {earlier}"));
        }
        let before = self.entries.last().map_or_else(|| "0".repeat(64), |(_, hash)| hash.clone());
        if entry["previous"].as_str() != Some(before.as_str()) {
            return Err(format!("{key} does not have the hash of the entry before it"));
        }
        let names: Vec<&str> = entry["recent"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let recent: Vec<&str> = self.entries.iter().rev().take(RECENT_MAX).map(|(epoch, _)| epoch.as_str()).collect();
        if names != recent {
            return Err(format!("{key} names other epochs than those of the versions before it"));
        }
        let Some(record) = record(&epoch) else {
            return Err(format!("{epoch} enters the log as version {version} without a commit record"));
        };
        if let Some(field) = difference(&entry, &record) {
            return Err(format!("'{field}' of {key} is not that of its commit record"));
        }
        self.versions.insert(epoch.clone(), version);
        self.entries.push((epoch, hash));
        Ok(Some(record))
    }

    fn check_removed(&mut self, version: usize, is_pending: impl FnOnce(&str) -> bool) -> Result<(), String> {
        if version <= self.trimmed || version > self.entries.len() {
            return Ok(());
        }
        if version == self.entries.len() {
            return Err(format!("version {version} of the log was removed, and is the newest"));
        }
        if version > self.trimmed + 1 {
            return Err(format!("version {version} of the log was removed before version {}", self.trimmed + 1));
        }
        if is_pending(&self.entries[version - 1].0) {
            return Err(format!("version {version} of the log was removed, and its epoch is pending"));
        }
        self.trimmed = version;
        Ok(())
    }
}

/// The first field of which the entry says something else than the commit record.
fn difference(entry: &Value, record: &Value) -> Option<&'static str> {
    const SAME: [&str; 9] =
        ["kind", "epoch", "written_at", "shards", "removed", "of", "totals", "edges", "definitions"];
    let mut added = record["objects"].as_array().cloned().unwrap_or_default();
    for object in added.iter_mut().filter_map(Value::as_object_mut) {
        object.retain(|field, _| field != "upload" && field != "parts");
    }
    if entry["added"].as_array() != Some(&added) {
        return Some("added");
    }
    let key = format!("_commits/{}.json", record["epoch"].as_str().unwrap_or_default());
    if entry["record"].as_str() != Some(key.as_str()) {
        return Some("record");
    }
    SAME.into_iter().find(|field| entry[*field] != record[*field])
}

/// `_log/<20 digits>.json`
fn version_of(key: &str) -> Option<usize> {
    let digits = key.strip_prefix("_log/")?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
