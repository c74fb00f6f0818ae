//! What the worker has done so far, for those who watch it: counters that are read while it runs.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::commit::{Manifest, ObjectKind, Totals};

/// Counters of a run. Reading them never waits for the worker.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the sources that lie ahead, as far as is known.
    pub bytes_total: AtomicU64,
    /// Bytes of the sources that were read.
    pub bytes_read: AtomicU64,
    /// Records that went through the lanes.
    pub records: AtomicU64,
    /// Epochs committed.
    pub epochs: AtomicU64,
    committed: Mutex<Committed>,
}

/// What was committed.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Records, rows, dead letters.
    pub totals: Totals,
    /// Objects and their bytes: processed, raw, error.
    pub objects: [(u64, u64); 3],
    /// Partitions that were written to, by dataset: a hash of each one's path, since a worker may see very many in its life.
    pub partitions: BTreeMap<String, HashSet<u64>>,
    /// Bytes of records.
    pub input_bytes: u64,
    /// Epochs that were rolled forward for a worker that had not finished them.
    pub rolled_forward: u64,
    /// Epochs that were rolled back.
    pub rolled_back: u64,
    /// Epochs that were given up because a lease had been lost.
    pub aborted: u64,
}

impl Progress {
    /// What was committed so far.
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
            let place = match object.kind {
                ObjectKind::Processed => 0,
                ObjectKind::Raw => 1,
                ObjectKind::Error => 2,
            };
            self.objects[place].0 += 1;
            self.objects[place].1 += object.bytes;
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
