//! What a worker has done so far, for whoever watches it.
//!
//! Owns: counters of one run, which can be read while it runs. Does not own: counting (the parts of the worker do), showing
//! them (the command line).

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pipeline::lane::DeniedNames;

use crate::commit::{Manifest, ObjectKind, Totals};

/// Counters of a run. Reading them never waits for the worker.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the sources that are still to be read, where a source knows.
    pub bytes_total: AtomicU64,
    /// Bytes of the sources that were read, compressed as they are there.
    pub bytes_read: AtomicU64,
    /// Records that went through the lanes.
    pub records: AtomicU64,
    /// Epochs committed.
    pub epochs: AtomicU64,
    committed: Mutex<Committed>,
}

/// What a run has committed.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Records, rows, dead letters.
    pub totals: Totals,
    /// The number of objects and their bytes: processed, raw, error.
    pub objects: [(u64, u64); 3],
    /// Partitions that were written to, by dataset. Only a hash of each path is kept, because a worker may see very many.
    pub partitions: BTreeMap<String, HashSet<u64>>,
    /// Names of keys that no allow-list has, if they are asked for. They are kept in memory only, and are not a part of the
    /// lake; those of an epoch that is abandoned are here too.
    pub denied_names: DeniedNames,
    /// Bytes of records.
    pub input_bytes: u64,
    /// Pending epochs of other workers that this one rolled forward.
    pub rolled_forward: u64,
    /// Epochs that were rolled back after their decision.
    pub rolled_back: u64,
    /// Epochs that were abandoned before their decision, because a lease was lost.
    pub aborted: u64,
}

impl Progress {
    /// A copy of what was committed so far.
    pub fn committed(&self) -> Committed {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Committed)) {
        change(&mut self.committed.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn add_epoch(&self, manifest: &Manifest) {
        self.epochs.fetch_add(1, Ordering::Relaxed);
        self.note(|committed| committed.add(manifest));
    }
}

impl Committed {
    fn add(&mut self, manifest: &Manifest) {
        self.totals.add(&manifest.totals);
        self.input_bytes += manifest.shards.iter().map(|shard| shard.bytes).sum::<u64>();
        for object in &manifest.objects {
            let index = match object.kind {
                ObjectKind::Processed => 0,
                ObjectKind::Raw => 1,
                ObjectKind::Error => 2,
            };
            self.objects[index].0 += 1;
            self.objects[index].1 += object.bytes;
            if let (ObjectKind::Processed, Some(dataset)) = (object.kind, &object.dataset) {
                let folder = object.key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
                self.partitions.entry(dataset.clone()).or_default().insert(hash_of(folder));
            }
        }
    }
}

fn hash_of(folder: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    hasher.finish()
}
