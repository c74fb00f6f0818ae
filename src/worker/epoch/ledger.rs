//! The ledger of an epoch: what was read since the last commit, and what it became so far.
//!
//! Owns: the range of each shard, the totals, and making the manifest of both. Does not own: the objects (`objects`), the
//! manifest's format (`crate::commit`).
//!
//! Position belongs to what was read, not to what survived. A range moves with every chunk, even if the chunk has no valid
//! record or no record at all.

use std::collections::{BTreeMap, BTreeSet};

use checkpoints::{LeaseOwner, Position, ShardId, ShardKey, ShardRange, StreamName};
use pipeline::dataset::Datasets;
use pipeline::encode::{Provenance, RANGES_MAX};
use pipeline::graph::{Counts, Graph};
use pipeline::lane::Pushed;
use pipeline::time::format_rfc3339;
use serde_json::json;
use tokio::time::Instant;

use crate::commit::lake_log::LogVersion;
use crate::commit::{
    DefinitionOfEpoch, EdgeTotal, EpochId, FORMAT, IdleShard, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch,
    ShardOfEpoch, Totals,
};

/// What was read of one shard.
#[derive(Debug, Clone)]
struct ShardProgress {
    after: Position,
    through: Position,
    children: Vec<ShardId>,
    taken_over: bool,
    records: u64,
    bytes: u64,
    arrived_through: Option<i64>,
}

/// What an epoch has read.
#[derive(Debug)]
pub(crate) struct EpochLedger {
    pub(crate) id: EpochId,
    pub(crate) begun: Instant,
    /// Bytes of records that were read.
    pub(crate) input_bytes: u64,
    shards: BTreeMap<ShardKey, ShardProgress>,
    idle: Vec<IdleShard>,
    counts: Counts,
    totals: Totals,
    rows: Vec<u64>,
    /// By dataset and field.
    nulled: BTreeMap<(usize, String), u64>,
    denied: Vec<u64>,
}

impl EpochLedger {
    pub(crate) fn new(id: EpochId, graph: &Graph, datasets: &Datasets, raw: bool) -> Self {
        EpochLedger {
            id,
            begun: Instant::now(),
            input_bytes: 0,
            shards: BTreeMap::new(),
            idle: Vec::new(),
            counts: graph.counts(),
            totals: Totals { raw_lines: raw.then_some(0), ..Totals::default() },
            rows: vec![0; datasets.names().count()],
            nulled: BTreeMap::new(),
            denied: vec![0; datasets.names().count()],
        }
    }

    /// Whether the epoch has a range of the shard.
    pub(crate) fn has(&self, key: &ShardKey) -> bool {
        self.shards.contains_key(key)
    }

    /// Extends a shard's range from `from` to `through`.
    ///
    /// # Panics
    /// If `from` is not where the range ends. A range with a gap would lose records.
    pub(crate) fn read(&mut self, key: &ShardKey, from: &Position, through: Position, bytes: u64) {
        let progress = self.shards.entry(key.clone()).or_insert_with(|| ShardProgress {
            after: from.clone(),
            through: from.clone(),
            children: Vec::new(),
            taken_over: false,
            records: 0,
            bytes: 0,
            arrived_through: None,
        });
        assert_eq!(progress.through, *from, "the range of {key} has no gap");
        progress.through = through;
        progress.bytes += bytes;
        self.input_bytes += bytes;
    }

    /// Notes when the last record of a chunk arrived: milliseconds since 1970, by the stream's clock.
    pub(crate) fn arrived(&mut self, key: &ShardKey, last_ms: Option<i64>) {
        if let Some(progress) = self.shards.get_mut(key) {
            progress.arrived_through = progress.arrived_through.max(last_ms);
        }
    }

    /// Adds the shards that are at their tips. What arrived before was read up to there: in the range of the shard, if the epoch has
    /// one, or before the epoch.
    pub(crate) fn at_tip(&mut self, tips: Vec<IdleShard>) {
        // Of these streams it is asked before the decision whether they are still the same.
        let streams: BTreeSet<StreamName> = self.shards.keys().map(|key| key.stream.clone()).collect();
        for tip in tips.into_iter().filter(|tip| streams.contains(&tip.key.stream)) {
            match self.shards.get_mut(&tip.key) {
                Some(progress) if progress.through == tip.at => {
                    progress.arrived_through = progress.arrived_through.max(Some(tip.arrived_through));
                }
                // The range ends elsewhere: what the tip says is not about it.
                Some(_) => {}
                None => self.idle.push(tip),
            }
        }
    }

    /// Notes that the shard's range begins where another program had stopped.
    pub(crate) fn take_over(&mut self, key: &ShardKey) {
        if let Some(progress) = self.shards.get_mut(key) {
            progress.taken_over = true;
        }
    }

    /// Extends a shard's range to its end.
    pub(crate) fn end(&mut self, key: &ShardKey, from: &Position, children: Vec<ShardId>) {
        self.read(key, from, Position::End, 0);
        if let Some(progress) = self.shards.get_mut(key) {
            progress.children = children;
        }
    }

    /// Counts a chunk that went through a lane.
    pub(crate) fn pushed(&mut self, key: &ShardKey, pushed: &Pushed) {
        if let Some(progress) = self.shards.get_mut(key) {
            progress.records += pushed.records;
        }
        self.totals.records += pushed.records;
        self.counts.merge(&pushed.counts);
        for (code, count) in &pushed.dead_letters {
            *self.totals.dead_letters.entry(code.as_str().to_owned()).or_default() += count;
        }
        for ((dataset, field), count) in &pushed.nulled_values {
            *self.nulled.entry((*dataset, field.clone())).or_default() += count;
        }
        self.denied.iter_mut().zip(&pushed.denied_keys).for_each(|(mine, new)| *mine += new);
    }

    /// The number of shards that have a range in the epoch.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shards that have a range in the epoch.
    pub(crate) fn keys(&self) -> Vec<ShardKey> {
        self.shards.keys().cloned().collect()
    }

    /// The provenance for the footers of files.
    pub(crate) fn provenance(&self) -> Provenance {
        let ranges = (self.shards.len() <= RANGES_MAX).then(|| {
            let ranges: Vec<_> = self
                .shards
                .iter()
                .map(|(key, progress)| {
                    json!({ "stream": key.stream, "shard": key.shard, "after": progress.after, "through": progress.through })
                })
                .collect();
            serde_json::Value::Array(ranges).to_string()
        });
        Provenance { epoch: self.id.as_str().to_owned(), ranges }
    }

    /// The manifest of the epoch with these objects.
    pub(crate) fn manifest(
        mut self,
        worker: &LeaseOwner,
        now_ms: i64,
        graph: &Graph,
        datasets: &Datasets,
        objects: Vec<ObjectOfEpoch>,
    ) -> Manifest {
        self.count_objects(graph, datasets, &objects);
        let names: Vec<&str> = datasets.names().collect();
        let by_name = |counts: &[u64]| {
            let named = names.iter().zip(counts).filter(|(_, count)| **count > 0);
            named.map(|(name, count)| ((*name).to_owned(), *count)).collect::<BTreeMap<_, _>>()
        };
        let nulled_values =
            self.nulled.into_iter().map(|((dataset, field), count)| (format!("{}{field}", names[dataset]), count));
        let totals = Totals {
            rows: by_name(&self.rows),
            nulled_values: nulled_values.collect(),
            denied_keys: by_name(&self.denied),
            ..self.totals
        };
        let edges = graph
            .edges()
            .map(|(index, edge)| (edge.id.to_string(), EdgeTotal(self.counts[index].records, self.counts[index].bytes)))
            .filter(|(_, total)| *total != EdgeTotal::default())
            .collect();
        let shards = self
            .shards
            .into_iter()
            .filter_map(|(key, progress)| {
                // A range that did not move is empty.
                let ShardProgress { after, through, children, taken_over, records, bytes, arrived_through } = progress;
                let range = ShardRange::new(after, through).ok()?;
                Some(ShardOfEpoch {
                    key,
                    parents: Vec::new(),
                    range,
                    children,
                    taken_over,
                    records,
                    bytes,
                    arrived_through,
                })
            })
            .collect();
        Manifest {
            format: FORMAT,
            kind: ManifestKind::Epoch,
            epoch: self.id,
            worker: worker.clone(),
            written_at: format_rfc3339(now_ms),
            // Known only when the intent is written.
            head: LogVersion::EMPTY,
            shards,
            objects,
            idle: self.idle,
            removed: Vec::new(),
            of: None,
            sources: Vec::new(),
            swap: None,
            totals,
            edges,
            definitions: names
                .iter()
                .enumerate()
                .map(|(dataset, name)| {
                    let hash = datasets.version(dataset).to_owned();
                    ((*name).to_owned(), DefinitionOfEpoch { hash, schema_version: datasets.schema_version(dataset) })
                })
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Counts the edges of the graph from the encoders to the lake, and the rows and lines of the objects.
    fn count_objects(&mut self, graph: &Graph, datasets: &Datasets, objects: &[ObjectOfEpoch]) {
        for object in objects {
            let edges = match object.kind {
                ObjectKind::Processed => {
                    let Some(dataset) = object.dataset.as_deref().and_then(|name| datasets.find(name)) else {
                        continue;
                    };
                    self.rows[dataset] += object.rows;
                    graph.row_edges(dataset)
                }
                ObjectKind::Raw => {
                    if let Some(lines) = &mut self.totals.raw_lines {
                        *lines += object.rows;
                    }
                    let Some([_, out, landed]) = graph.raw_edges() else { continue };
                    [out, landed]
                }
                ObjectKind::Error => {
                    let [into, landed] = graph.dead_letter_edges();
                    // The records were counted when they failed. Their bytes are known only now.
                    self.counts.add(into, 0, object.bytes);
                    self.counts.add(landed, object.rows, object.bytes);
                    continue;
                }
            };
            for edge in edges {
                self.counts.add(edge, object.rows, object.bytes);
            }
        }
    }
}
