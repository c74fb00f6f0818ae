//! What is live at each version of the lake, and what operations add and remove.
//!
//! - What a version removes was live in the version before.
//! - Every record is in one live object at every version: an operation removes no record that it does not add, and adds none that it does
//!   not remove.
//! - An object that is live is in the lake, or a decided operation that swaps objects has moved it to the trash. One that is committed goes
//!   only if a version has removed it.
//! - What is removed is in the trash before it goes, byte for byte, and stays there.
//! - When the row of an operation advances, nothing that it removes is visible any more.
//!
//! Owns: these rules, and what is known for them. Does not own: what a reader finds in objects (`object_reader`), the entries themselves
//! (`lake_log`).

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use serde_json::Value;

use crate::auditor::ObjectRecords;
use crate::environment::{Environment, RecordId};

/// The records in objects, by their keys.
type Objects = HashMap<String, ObjectRecords>;

/// What became of an object that is gone.
pub(super) enum Gone {
    /// A version has removed it, or its epoch was rolled back.
    Removed,
    /// A decided operation has moved it to the trash, and has not entered the log.
    Swapped,
}

/// What is live, and what was.
#[derive(Default)]
pub(super) struct LiveAudit {
    /// The live objects of the newest version.
    live: BTreeSet<String>,
    /// In how many live objects each record is: as a row or dead letter, and as a raw line.
    counts: [HashMap<RecordId, u32>; 2],
    /// What versions have removed, with the operation.
    removed: HashMap<String, String>,
    /// What each version adds and removes, from 1.
    versions: Vec<(Vec<String>, Vec<String>)>,
    /// By operation, the records in the objects that it removes, while its own become visible.
    replaced: HashMap<String, HashSet<RecordId>>,
    /// What is in the trash.
    trash: HashSet<String>,
}

/// What an operation is, by its intent or commit record. `None`: it is an epoch, or neither is there.
pub(super) fn operation(environment: &dyn Environment, epoch: &str) -> Option<Value> {
    let found = [format!("_intents/{epoch}.json"), format!("_commits/{epoch}.json")];
    let bytes = found.iter().find_map(|key| environment.object(key))?;
    let manifest: Value = serde_json::from_slice(&bytes).ok()?;
    (manifest["kind"] != "epoch").then_some(manifest)
}

/// The keys of objects in a list of a manifest.
pub(super) fn keys(list: &Value) -> Vec<String> {
    let keys = list.as_array().into_iter().flatten().filter_map(|object| object["key"].as_str());
    keys.map(str::to_owned).collect()
}

impl LiveAudit {
    /// Whether an operation replaces the record: it is in an object that the operation removes.
    pub(super) fn replaces(
        &mut self,
        environment: &dyn Environment,
        (objects, swapped): (&Objects, &Objects),
        epoch: &str,
        id: &RecordId,
    ) -> bool {
        let replaced = self.replaced.entry(epoch.to_owned()).or_insert_with(|| {
            let removed = operation(environment, epoch).map(|manifest| keys(&manifest["removed"])).unwrap_or_default();
            let found = removed.iter().filter_map(|key| objects.get(key).or_else(|| swapped.get(key)));
            found.flat_map(|object| object.ids.iter().cloned()).collect()
        });
        replaced.contains(id)
    }

    /// An epoch or operation has entered as the next version. `record`: its commit record. `swapped`: what is in the trash already. Returns
    /// what it removes.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn enter(
        &mut self,
        record: &Value,
        objects: &Objects,
        swapped: &Objects,
    ) -> Result<Vec<String>, String> {
        let version = self.versions.len() + 1;
        let epoch = record["epoch"].as_str().unwrap_or_default();
        let (added, removed) = (keys(&record["objects"]), keys(&record["removed"]));
        let mut gone: BTreeSet<(bool, RecordId)> = BTreeSet::new();
        for key in &removed {
            if !self.live.remove(key) {
                return Err(format!("version {version} removes {key}, which was not live"));
            }
            let Some(object) = objects.get(key).or_else(|| swapped.get(key)) else {
                return Err(format!("version {version} removes {key}, which was gone before"));
            };
            self.removed.insert(key.clone(), epoch.to_owned());
            for id in &object.ids {
                self.counts[usize::from(object.is_raw)].remove(id);
                gone.insert((object.is_raw, id.clone()));
            }
        }
        for key in &added {
            let Some(object) = objects.get(key) else {
                return Err(format!("version {version} adds {key}, which is not visible"));
            };
            self.live.insert(key.clone());
            for id in &object.ids {
                let count = self.counts[usize::from(object.is_raw)].entry(id.clone()).or_default();
                *count += 1;
                if *count > 1 {
                    return Err(format!("{id:?} is in two live objects in version {version}, one of them {key}"));
                }
            }
        }
        self.versions.push((added, removed.clone()));
        let lost = gone.iter().find(|(is_raw, id)| !self.counts[usize::from(*is_raw)].contains_key(id));
        lost.map_or(Ok(removed), |(_, id)| Err(format!("version {version} removes {id:?}, and does not add it")))
    }

    /// An object of data is gone, which had these bytes. `pending`: the operations that are decided and not finished.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn deleted(
        &self,
        environment: &dyn Environment,
        key: &str,
        bytes: &Bytes,
        is_committed: bool,
        pending: &BTreeSet<String>,
    ) -> Result<Gone, String> {
        let is_kept = |operation: &str| match environment.object(&format!("_trash/{operation}/{key}")) {
            Some(kept) if kept == *bytes => Ok(()),
            Some(_) => Err(format!("{key} is gone, and is in the trash of {operation} with other bytes")),
            None => Err(format!("{key} is gone, and is not in the trash of {operation}")),
        };
        if self.live.contains(key) {
            let swaps = |name: &&String| {
                let manifest = operation(environment, name);
                manifest.is_some_and(|manifest| {
                    !manifest["swap"].is_null() && keys(&manifest["removed"]).iter().any(|of| of == key)
                })
            };
            let Some(operation) = pending.iter().find(swaps) else { return Err(format!("{key} is gone, and is live")) };
            return is_kept(operation).map(|()| Gone::Swapped);
        }
        match self.removed.get(key) {
            Some(operation) => is_kept(operation).map(|()| Gone::Removed),
            None if is_committed => {
                Err(format!("{key} is gone, its epoch is committed, and no version has removed it"))
            }
            None => Ok(Gone::Removed),
        }
    }

    /// An object in the trash may have appeared or disappeared.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn check_trash(&mut self, key: &str, is_there: bool) -> Result<(), String> {
        if is_there {
            self.trash.insert(key.to_owned());
            return Ok(());
        }
        if self.trash.contains(key) { Err(format!("{key} is gone, and was not purged")) } else { Ok(()) }
    }

    /// The row of an operation has advanced.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn advanced(&self, epoch: &str, objects: &Objects) -> Result<(), String> {
        let left = self.removed.iter().filter(|(_, operation)| *operation == epoch).map(|(key, _)| key);
        match left.filter(|key| objects.contains_key(*key)).min() {
            Some(key) => Err(format!("operation {epoch} has advanced, and {key}, which it removes, is visible")),
            None => Ok(()),
        }
    }

    /// What is visible, once nothing is half-way, must be what is live.
    ///
    /// # Errors
    /// The first object that is not.
    pub(super) fn check_visible(&self, objects: &Objects) -> Result<(), String> {
        let visible: BTreeSet<&String> = objects.keys().collect();
        let live: BTreeSet<&String> = self.live.iter().collect();
        match live.symmetric_difference(&visible).next() {
            Some(key) if visible.contains(key) => Err(format!("{key} is visible, and is not live")),
            Some(key) => Err(format!("{key} is live, and is not visible")),
            None => Ok(()),
        }
    }

    /// What the product says is live in a version.
    ///
    /// # Errors
    /// The first object that it has or lacks.
    pub(super) fn check_at(&self, version: u64, keys: &BTreeSet<String>) -> Result<(), String> {
        let mut live: BTreeSet<&String> = BTreeSet::new();
        for (added, removed) in self.versions.iter().take(usize::try_from(version).unwrap_or(usize::MAX)) {
            live.retain(|key| !removed.contains(key));
            live.extend(added);
        }
        match live.symmetric_difference(&keys.iter().collect()).next() {
            Some(key) if keys.contains(*key) => {
                Err(format!("{key} is read in version {version}, and is not live in it"))
            }
            Some(key) => Err(format!("{key} is live in version {version}, and is not read in it")),
            None => Ok(()),
        }
    }
}
