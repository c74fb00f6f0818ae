//! What a worker has done so far, for whoever watches it.
//!
//! Owns: counters of one run, which can be read while it runs. Does not own: counting (the parts of the worker do), showing
//! them (the command line).

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use checkpoints::ShardKey;
use pipeline::graph::{Counts, Edge, EdgeId, EdgeIndex, Graph};
use pipeline::lane::{DeniedNames, Pushed};
use pipeline::stage::Stage;
use std::time::Duration;

use crate::commit::{EdgeTotal, Manifest, ObjectKind, Totals};
use crate::worker::fleet::FleetFigures;
use crate::worker::live::{Live, LiveEpoch, LiveShard};
use crate::worker::memory_plan::ByteBudget;
use crate::worker::pulse::Pulse;

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
    /// Signs of life.
    pub pulse: Pulse,
    committed: Mutex<Committed>,
    processed: Mutex<Processed>,
    steps: Mutex<[StepTotal; CommitStep::ALL.len()]>,
    observer: OnceLock<Box<dyn Observer>>,
    input_budget: OnceLock<ByteBudget>,
    fleet: Mutex<Option<FleetFigures>>,
    pub(super) live: Live,
}

/// A step of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitStep {
    /// The last rows are encoded, and all uploads end.
    Stage,
    /// The lake learns the definitions, and the intent is written.
    Intent,
    /// The lease table decides.
    Decide,
    /// Objects and the commit record become visible.
    Publish,
    /// The epoch enters the lake log.
    Enter,
    /// The checkpoints move.
    Advance,
}

impl CommitStep {
    /// All steps, in their order.
    pub const ALL: [CommitStep; 6] = [
        CommitStep::Stage,
        CommitStep::Intent,
        CommitStep::Decide,
        CommitStep::Publish,
        CommitStep::Enter,
        CommitStep::Advance,
    ];

    /// Its name in metrics and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            CommitStep::Stage => "stage",
            CommitStep::Intent => "intent",
            CommitStep::Decide => "decide",
            CommitStep::Publish => "publish",
            CommitStep::Enter => "enter",
            CommitStep::Advance => "advance",
        }
    }
}

/// How often a step of a commit was made, and how long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepTotal {
    /// How often.
    pub count: u64,
    /// All of them together.
    pub took: Duration,
    /// The last one.
    pub last: Duration,
}

/// Learns of what cannot be read from counters: how long single things took.
pub trait Observer: Send + Sync {
    /// A step of a commit has ended. Must not wait.
    fn on_commit_step(&self, step: CommitStep, took: Duration);
}

impl std::fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// What went through the lanes, and what became of it, whether it is committed or not.
#[derive(Debug, Default)]
struct Processed {
    /// The edges of the stage graph, and what has passed along each.
    edges: Option<(Vec<Edge>, Counts)>,
    dead_letters: BTreeMap<&'static str, u64>,
    /// Objects that were committed, and their bytes, by kind and dataset. Raw lines and dead letters are of no dataset.
    written: BTreeMap<(ObjectKind, String), (u64, u64)>,
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
    /// The shards that this worker holds, as they are now, in the order of their keys. Does not wait for the worker.
    pub fn shards(&self) -> Vec<LiveShard> {
        self.live.shards()
    }

    /// The open epochs, one for each group of shards. Does not wait for the worker.
    pub fn open_epochs(&self) -> Vec<LiveEpoch> {
        self.live.epochs()
    }

    /// Records and bytes along each edge of the stage graph since the start, whether they are committed or not, in the order of the
    /// graph. What is read again counts again. Bytes after `encode` are those of committed objects.
    pub fn edges(&self) -> Vec<(EdgeId, EdgeTotal)> {
        let processed = self.processed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((edges, counts)) = &processed.edges else { return Vec::new() };
        let total = |index: EdgeIndex| EdgeTotal(counts[index].records, counts[index].bytes);
        edges.iter().enumerate().map(|(number, edge)| (edge.id.clone(), total(EdgeIndex::of(number)))).collect()
    }

    /// Dead letters by code since the start, whether they are committed or not. What is read again counts again.
    pub fn dead_letters(&self) -> BTreeMap<&'static str, u64> {
        self.processed.lock().unwrap_or_else(PoisonError::into_inner).dead_letters.clone()
    }

    /// Records that went through the lanes.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Epochs by what became of them. Rolled forward and back are those that others had left.
    pub fn outcomes(&self) -> [(&'static str, u64); 4] {
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        let epochs = self.epochs.load(Ordering::Relaxed);
        let Committed { rolled_forward, rolled_back, aborted, .. } = &*committed;
        [
            ("committed", epochs),
            ("aborted", *aborted),
            ("rolled_forward", *rolled_forward),
            ("rolled_back", *rolled_back),
        ]
    }

    /// Objects that were committed and their bytes, by kind and dataset. Raw lines and dead letters have an empty name.
    pub fn written(&self) -> BTreeMap<(ObjectKind, String), (u64, u64)> {
        self.processed.lock().unwrap_or_else(PoisonError::into_inner).written.clone()
    }

    /// How long each step of the commits took.
    pub fn commit_steps(&self) -> Vec<(CommitStep, StepTotal)> {
        let steps = *self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        CommitStep::ALL.into_iter().zip(steps).collect()
    }

    /// The share of the memory for chunks that is in use, and all of it, in bytes. `None` before the worker has begun.
    pub fn input_memory(&self) -> Option<(u64, u64)> {
        self.input_budget.get().map(ByteBudget::usage)
    }

    /// What the last scan of the lease table showed; `None` before the first one.
    pub fn fleet(&self) -> Option<FleetFigures> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports to `observer` what happens from now on. Only the first observer counts.
    pub fn observe(&self, observer: Box<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    pub(super) fn begin(&self, graph: &Graph, input_budget: ByteBudget) {
        let edges = graph.edges().map(|(_, edge)| edge.clone()).collect();
        self.processed.lock().unwrap_or_else(PoisonError::into_inner).edges = Some((edges, graph.counts()));
        let _ = self.input_budget.set(input_budget);
    }

    /// A chunk went through a lane.
    pub(crate) fn on_processed(&self, key: &ShardKey, pushed: &Pushed) {
        self.records.fetch_add(pushed.records, Ordering::Relaxed);
        self.live.on_processed(key, pushed.records);
        let mut processed = self.processed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counts)) = &mut processed.edges {
            counts.merge(&pushed.counts);
        }
        for (code, count) in &pushed.dead_letters {
            *processed.dead_letters.entry(code.as_str()).or_default() += count;
        }
    }

    /// A step of a commit has ended.
    pub(crate) fn on_commit_step(&self, step: CommitStep, took: Duration) {
        let index = CommitStep::ALL.iter().position(|other| *other == step).unwrap_or_default();
        let total = &mut self.steps.lock().unwrap_or_else(PoisonError::into_inner)[index];
        *total = StepTotal { count: total.count + 1, took: total.took + took, last: took };
        if let Some(observer) = self.observer.get() {
            observer.on_commit_step(step, took);
        }
    }

    /// The lease table was scanned.
    pub(crate) fn on_scan(&self, figures: FleetFigures) {
        *self.fleet.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures);
    }

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
        let mut processed = self.processed.lock().unwrap_or_else(PoisonError::into_inner);
        for object in &manifest.objects {
            let dataset = object.dataset.clone().unwrap_or_default();
            let (count, bytes) = processed.written.entry((object.kind, dataset)).or_default();
            (*count, *bytes) = (*count + 1, *bytes + object.bytes);
        }
        let Some((edges, counts)) = &mut processed.edges else { return };
        // What became of the records is known only now: the lanes have counted the edges before.
        for (number, edge) in edges.iter().enumerate() {
            let Some(EdgeTotal(records, bytes)) = manifest.edges.get(&edge.id.to_string()) else { continue };
            match edge.id.stage {
                Stage::Encode | Stage::Raw | Stage::Commit => counts.add(EdgeIndex::of(number), *records, *bytes),
                Stage::DeadLetters => counts.add(EdgeIndex::of(number), 0, *bytes),
                _ => {}
            }
        }
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
