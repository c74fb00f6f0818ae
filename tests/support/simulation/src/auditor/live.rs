//! What is live at each version of the lake, and what operations add and remove.
//!
//! - What a version removes was live in the version before.
//! - Every record is in one live object at every version: an operation removes no record that it does not add, and adds none that it does
//!   not remove. Only a discard removes dead letters, and a later replay may make them again.
//! - An undo removes what its operation has added, and adds what that has removed: as many objects in each folder, with the same bytes.
//! - An object that is live is in the lake, or a decided operation that swaps objects has moved it to the trash. One that is committed goes
//!   only if a version has removed it.
//! - What is removed is in the trash before it goes, byte for byte. It stays there until the replay is purged that has removed it, or that
//!   was undone.
//! - What a decided operation copies stays until the copy is visible.
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

/// What has changed with a version.
#[derive(Default)]
pub(super) struct Entered {
    /// Keys of objects.
    pub(super) added: Vec<String>,
    /// Keys of objects.
    pub(super) removed: Vec<String>,
    /// Records whose dead letters were discarded.
    pub(super) dropped: Vec<RecordId>,
}

/// What an operation has changed.
struct Changed {
    of: String,
    added: BTreeSet<String>,
    /// The folders and contents of the objects that it has removed.
    removed: Vec<(String, Bytes)>,
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
    /// What operations have changed.
    operations: HashMap<String, Changed>,
}

/// What an operation is, by its intent or commit record. `None`: it is an epoch, or neither is there.
pub(super) fn operation(environment: &dyn Environment, epoch: &str) -> Option<Value> {
    let found = [format!("_intents/{epoch}.json"), format!("_commits/{epoch}.json")];
    let bytes = found.iter().find_map(|key| environment.object(key))?;
    let manifest: Value = serde_json::from_slice(&bytes).ok()?;
    (manifest["kind"] != "epoch").then_some(manifest)
}

fn folder_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
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

    /// An epoch or operation has entered as the next version. `record`: its commit record. `swapped`: what is in the trash already.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn enter(&mut self, record: &Value, objects: &Objects, swapped: &Objects) -> Result<Entered, String> {
        let version = self.versions.len() + 1;
        let epoch = record["epoch"].as_str().unwrap_or_default();
        let (added, removed) = (keys(&record["objects"]), keys(&record["removed"]));
        let of = record["of"].as_str().unwrap_or_default();
        let mut contents = Vec::new();
        let mut gone: BTreeSet<(bool, RecordId)> = BTreeSet::new();
        for key in &removed {
            if !self.live.remove(key) {
                return Err(format!("version {version} removes {key}, which was not live"));
            }
            let Some(object) = objects.get(key).or_else(|| swapped.get(key)) else {
                return Err(format!("version {version} removes {key}, which was gone before"));
            };
            self.removed.insert(key.clone(), epoch.to_owned());
            contents.push((folder_of(key).to_owned(), object.bytes.clone()));
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
        self.versions.push((added.clone(), removed.clone()));
        if let Some(operation) = of.strip_prefix("undo:") {
            self.check_undo(version, operation, (&added, &removed), objects)?;
        }
        if record["kind"] != "epoch" {
            let change = Changed { of: of.to_owned(), added: added.iter().cloned().collect(), removed: contents };
            self.operations.insert(epoch.to_owned(), change);
        }
        let is_lost = |(is_raw, id): &(bool, RecordId)| !self.counts[usize::from(*is_raw)].contains_key(id);
        let mut lost = gone.into_iter().filter(is_lost).peekable();
        let only_errors = || removed.iter().all(|key| key.starts_with("error/"));
        match lost.peek() {
            // An undo of a replay takes away the dead letters that the replay has made again.
            Some((_, id)) if !(of.starts_with("undo:") || of.starts_with("discard:") && only_errors()) => {
                Err(format!("version {version} removes {id:?}, and does not add it"))
            }
            _ => {
                let dropped = lost.map(|(_, id)| id).collect();
                Ok(Entered { added, removed, dropped })
            }
        }
    }

    /// An undo of this operation has entered.
    fn check_undo(
        &self,
        version: usize,
        operation: &str,
        (added, removed): (&[String], &[String]),
        objects: &Objects,
    ) -> Result<(), String> {
        let Some(undone) = self.operations.get(operation) else {
            return Err(format!("version {version} undoes {operation}, which is in no version"));
        };
        if removed.iter().cloned().collect::<BTreeSet<_>>() != undone.added {
            return Err(format!("version {version} undoes {operation}, and does not remove what that has added"));
        }
        let content = |key: &String| Some((folder_of(key).to_owned(), objects.get(key)?.bytes.clone()));
        let mut restored: Vec<(String, Bytes)> = added.iter().filter_map(content).collect();
        let mut before = undone.removed.clone();
        restored.sort();
        before.sort();
        if restored == before {
            Ok(())
        } else {
            Err(format!("version {version} undoes {operation}, and adds other objects than that has removed"))
        }
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

    /// An object in the trash, or of a replay, may have appeared or disappeared. `pending`: the operations that are decided and not
    /// finished.
    ///
    /// # Errors
    /// The rule that was violated.
    pub(super) fn check_kept(
        &mut self,
        environment: &dyn Environment,
        key: &str,
        is_there: bool,
        objects: &Objects,
        pending: &BTreeSet<String>,
    ) -> Result<(), String> {
        let in_trash = key.strip_prefix("_trash/").and_then(|rest| rest.split('/').next());
        if is_there {
            if in_trash.is_some() {
                self.trash.insert(key.to_owned());
            }
            return Ok(());
        }
        for name in pending {
            let Some(manifest) = operation(environment, name) else { continue };
            let copies = manifest["swap"]["copies"].as_object();
            let mut copies = copies.into_iter().flatten().filter(|(_, source)| source.as_str() == Some(key));
            if let Some((copy, _)) = copies.find(|(copy, _)| !objects.contains_key(*copy)) {
                return Err(format!("{key} is gone, and {name}, which is decided, makes {copy} of it"));
            }
        }
        match in_trash {
            Some(operation) if self.trash.contains(key) && !self.is_purged(environment, operation) => {
                Err(format!("{key} is gone, and was not purged"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the replay was purged that an operation belongs to, or that it has undone.
    fn is_purged(&self, environment: &dyn Environment, operation: &str) -> bool {
        let Some(Changed { of, .. }) = self.operations.get(operation) else { return false };
        if let Some(undone) = of.strip_prefix("undo:") {
            return self.is_purged(environment, undone);
        }
        let replay = of.strip_prefix("replay:");
        replay.is_some_and(|id| environment.object(&format!("_replays/{id}/purged.json")).is_some())
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
