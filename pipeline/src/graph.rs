//! The stage graph: the logical view of what a record passes through, built from the configuration.
//!
//! Owns: the nodes, the edges with their stable ids, and what has passed along each edge ([`Counts`]). Lanes count along the
//! graph's edges, commit records keep the counts of each epoch, and `status` adds them up. Does not own: running.
//!
//! It is the logical view: it shows which stages a record passes and in which order. The program runs each stage over a
//! micro-batch of records, column by column (`columns`), and `commit` outside of this crate.
//!
//! Along an edge before `encode`, a record counts with the bytes it arrived with. After `encode`, the bytes are those of
//! the object that holds it.

use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};
use std::str::FromStr;

use crate::dataset::Datasets;
use crate::layout::Area;
use crate::stage::Stage;

mod draw;

/// The place of an edge in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeIndex(usize);

impl EdgeIndex {
    /// The place of the edge with this number, in the order of [`Graph::edges`].
    pub fn of(number: usize) -> Self {
        EdgeIndex(number)
    }
}

/// The stable id of an edge: the stage that it leaves, and through which port. Commit records keep counts by it, so a port or
/// stage that has once been written keeps its name.
///
/// As text it is `stage/port`, or `stage/name/port` where there are several nodes of the stage: `decode/rejected`,
/// `validate/events/out`, `source/orders/out`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId {
    /// The stage that the edge leaves.
    pub stage: Stage,
    /// The dataset, or the stream of a source.
    pub name: Option<String>,
    /// The port of the stage.
    pub port: Port,
}

/// Where an edge leaves its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// To the next stage.
    Out,
    /// To the dead letters.
    Rejected,
    /// From `commit` to `processed/`.
    Processed,
    /// From `decode` to the raw landing, and from `commit` to `raw/`.
    Raw,
    /// From `commit` to `error/`.
    Error,
}

impl Port {
    const ALL: [Port; 5] = [Port::Out, Port::Rejected, Port::Processed, Port::Raw, Port::Error];

    fn as_str(self) -> &'static str {
        match self {
            Port::Out => "out",
            Port::Rejected => "rejected",
            Port::Processed => "processed",
            Port::Raw => "raw",
            Port::Error => "error",
        }
    }
}

impl fmt::Display for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}/{}", self.stage, self.port.as_str()),
            None => write!(f, "{}/{}", self.stage, self.port.as_str()),
        }
    }
}

/// A text that is not a valid id of an edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a valid edge id: expected stage/port or stage/name/port")]
pub struct InvalidEdgeId(String);

impl FromStr for EdgeId {
    type Err = InvalidEdgeId;

    fn from_str(text: &str) -> Result<EdgeId, InvalidEdgeId> {
        let parse = || {
            let (stage, rest) = text.split_once('/')?;
            // The name of a stream may have slashes of its own.
            let (name, port) = rest.rsplit_once('/').map_or((None, rest), |(name, port)| (Some(name), port));
            Some(EdgeId {
                stage: Stage::from_name(stage)?,
                name: name.map(str::to_owned),
                port: Port::ALL.into_iter().find(|known| known.as_str() == port)?,
            })
        };
        parse().ok_or_else(|| InvalidEdgeId(text.to_owned()))
    }
}

/// What kind of thing a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Where records come from.
    Source,
    /// What is done to them.
    Stage,
    /// Where they end.
    Sink,
}

/// A node of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique name for people, such as `validate/events`.
    pub name: String,
    /// What it does, in a few words.
    pub detail: String,
    /// Its kind.
    pub kind: NodeKind,
}

/// An edge of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Its stable id.
    pub id: EdgeId,
    /// Number of the node it leaves.
    pub from: usize,
    /// Number of the node it enters.
    pub to: usize,
    /// Whether records that failed pass along it.
    pub dead_letters: bool,
}

/// The edges that the records of one dataset pass.
#[derive(Debug, Clone)]
struct DatasetEdges {
    /// From `decode` to `encode`: each stage's edge to the next one, in their order.
    passed: Vec<(Stage, EdgeIndex)>,
    /// The edge to the dead letters of each stage that rejects records.
    rejected: Vec<(Stage, EdgeIndex)>,
    encoded: EdgeIndex,
    processed: EdgeIndex,
}

/// The compiled graph.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    sources: Vec<EdgeIndex>,
    undecoded: EdgeIndex,
    datasets: Vec<DatasetEdges>,
    raw: Option<[EdgeIndex; 3]>,
    dead_letters: [EdgeIndex; 2],
}

impl Graph {
    /// The graph of these sources and datasets. `raw`: whether records are also stored as received.
    pub fn new(sources: &[String], datasets: &Datasets, raw: bool) -> Graph {
        let mut builder = Builder { nodes: Vec::new(), edges: Vec::new() };
        let decode = builder.node("decode", "JSON, scanned once; which dataset", NodeKind::Stage);
        let dead_letters = builder.node("dead letters", "why, where, and the original bytes", NodeKind::Stage);
        let commit = builder.node("commit", "stage, write intent, decide, publish, advance", NodeKind::Stage);
        let error = builder.node(Area::Error.prefix(), "dead letters, by code and arrival day", NodeKind::Sink);
        let sources = sources
            .iter()
            .map(|source| {
                let node = builder.node(source, "", NodeKind::Source);
                builder.edge(node, decode, (Stage::Source, Some(source), Port::Out))
            })
            .collect();
        let undecoded = builder.edge(decode, dead_letters, (Stage::Decode, None, Port::Rejected));
        let datasets = (0..datasets.plans().len())
            .map(|dataset| builder.dataset(datasets, dataset, decode, dead_letters, commit))
            .collect();
        let raw = raw.then(|| {
            let collect = builder.node("raw", "every record as received", NodeKind::Stage);
            let sink = builder.node(Area::Raw.prefix(), "JSON lines, by dataset and arrival day", NodeKind::Sink);
            [
                builder.edge(decode, collect, (Stage::Decode, None, Port::Raw)),
                builder.edge(collect, commit, (Stage::Raw, None, Port::Out)),
                builder.edge(commit, sink, (Stage::Commit, None, Port::Raw)),
            ]
        });
        let dead_letters = [
            builder.edge(dead_letters, commit, (Stage::DeadLetters, None, Port::Out)),
            builder.edge(commit, error, (Stage::Commit, None, Port::Error)),
        ];
        Graph { nodes: builder.nodes, edges: builder.edges, sources, undecoded, datasets, raw, dead_letters }
    }

    /// The nodes, by number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The edges with their places.
    pub fn edges(&self) -> impl Iterator<Item = (EdgeIndex, &Edge)> {
        self.edges.iter().enumerate().map(|(number, edge)| (EdgeIndex(number), edge))
    }

    /// The edge of an id.
    pub fn find_edge(&self, id: &EdgeId) -> Option<EdgeIndex> {
        self.edges.iter().position(|edge| edge.id == *id).map(EdgeIndex)
    }

    /// Counts that are all zero.
    pub fn counts(&self) -> Counts {
        Counts(vec![Count::default(); self.edges.len()])
    }

    /// The edge from a source to the decoder: everything that was read.
    pub fn source_edge(&self, source: usize) -> EdgeIndex {
        self.sources[source]
    }

    /// The edges from `encode` to `commit` and from there into `processed/`, for a dataset's rows.
    pub fn row_edges(&self, dataset: usize) -> [EdgeIndex; 2] {
        [self.datasets[dataset].encoded, self.datasets[dataset].processed]
    }

    /// The edges into the raw landing, from there to `commit`, and into `raw/`, if the raw landing is on.
    pub fn raw_edges(&self) -> Option<[EdgeIndex; 3]> {
        self.raw
    }

    /// The edges on which dead letters go to `commit`, and into `error/`.
    pub fn dead_letter_edges(&self) -> [EdgeIndex; 2] {
        self.dead_letters
    }

    /// Counts one record of a source along its way, up to the stage that rejected it or to `encode`. The bytes of a dead
    /// letter are counted when its object is complete.
    pub(crate) fn count_record(
        &self,
        source: usize,
        dataset: Option<usize>,
        rejected_at: Option<Stage>,
        bytes: u64,
        counts: &mut Counts,
    ) {
        counts.add(self.sources[source], 1, bytes);
        let edges = dataset.map(|dataset| &self.datasets[dataset]);
        if let Some(stage) = rejected_at {
            let rejected = edges.and_then(|edges| edges.rejected.iter().find(|(at, _)| *at == stage));
            counts.add(rejected.map_or(self.undecoded, |(_, edge)| *edge), 1, bytes);
            counts.add(self.dead_letters[0], 1, 0);
        }
        for (stage, edge) in edges.iter().flat_map(|edges| &edges.passed) {
            if rejected_at == Some(*stage) {
                break;
            }
            counts.add(*edge, 1, bytes);
        }
    }
}

struct Builder {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

impl Builder {
    fn node(&mut self, name: &str, detail: &str, kind: NodeKind) -> usize {
        self.nodes.push(Node { name: name.to_owned(), detail: detail.to_owned(), kind });
        self.nodes.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize, (stage, name, port): (Stage, Option<&str>, Port)) -> EdgeIndex {
        let dead_letters = port == Port::Rejected || port == Port::Error || stage == Stage::DeadLetters;
        let id = EdgeId { stage, name: name.map(str::to_owned), port };
        self.edges.push(Edge { id, from, to, dead_letters });
        EdgeIndex(self.edges.len() - 1)
    }

    fn dataset(
        &mut self,
        all: &Datasets,
        dataset: usize,
        decode: usize,
        dead_letters: usize,
        commit: usize,
    ) -> DatasetEdges {
        let plan = all.plan(dataset);
        let name = &*plan.name;
        let lookups: Vec<&str> = all.lookups(dataset).collect();
        let joined = if lookups.is_empty() { String::new() } else { format!("; lookups: {}", lookups.join(", ")) };
        let partitions: Vec<&str> = all.partition_columns(dataset).collect();
        let mut passed = Vec::new();
        let mut rejected = Vec::new();
        let mut before = (Stage::Decode, decode);
        for stage in Stage::ALL.into_iter().filter(|stage| stage.is_per_dataset()) {
            let detail = match stage {
                Stage::Validate => "types and constraints".to_owned(),
                Stage::Enrich => format!("ingest columns, times{joined}"),
                Stage::Anonymize => plan.rules().join(", "),
                Stage::Batch => format!("by {}", partitions.join(", ")),
                _ => "Parquet".to_owned(),
            };
            let node = self.node(&format!("{stage}/{name}"), &detail, NodeKind::Stage);
            passed.push((before.0, self.edge(before.1, node, (before.0, Some(name), Port::Out))));
            if stage.rejects() {
                rejected.push((stage, self.edge(node, dead_letters, (stage, Some(name), Port::Rejected))));
            }
            before = (stage, node);
        }
        let sink = self.node(&format!("{}{name}/", Area::Processed.prefix()), "rows, by event time", NodeKind::Sink);
        DatasetEdges {
            passed,
            rejected,
            encoded: self.edge(before.1, commit, (before.0, Some(name), Port::Out)),
            processed: self.edge(commit, sink, (Stage::Commit, Some(name), Port::Processed)),
        }
    }
}

/// What has passed along one edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Records, rows or lines.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// What has passed along each edge of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(Vec<Count>);

impl Counts {
    /// Counts records along an edge.
    #[inline]
    pub fn add(&mut self, edge: EdgeIndex, records: u64, bytes: u64) {
        self.0[edge.0] += Count { records, bytes };
    }

    /// Adds the counts of the same graph.
    pub fn merge(&mut self, other: &Counts) {
        assert_eq!(self.0.len(), other.0.len(), "both counts are of the same graph");
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += *theirs);
    }
}

impl Index<EdgeIndex> for Counts {
    type Output = Count;

    fn index(&self, edge: EdgeIndex) -> &Count {
        &self.0[edge.0]
    }
}

impl IndexMut<EdgeIndex> for Counts {
    fn index_mut(&mut self, edge: EdgeIndex) -> &mut Count {
        &mut self.0[edge.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::shipped;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_edge_id_round_trips(
            stage in prop::sample::select(Stage::ALL.to_vec()),
            name in prop::option::of("\\PC{0,20}"),
            port in prop::sample::select(Port::ALL.to_vec()),
        ) {
            let id = EdgeId { stage, name, port };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn what_is_not_an_edge_id_is_refused() {
        for text in ["", "validate", "validate/", "validate/events", "valid/out", "decode → validate/events", "/out"]
        {
            assert_eq!(text.parse::<EdgeId>(), Err(InvalidEdgeId(text.to_owned())));
        }
    }

    #[test]
    fn every_edge_is_found_by_its_id_and_ids_keep_their_spelling() {
        let no_table = |_: &str, _: &str| Err("there is none".to_owned());
        let datasets = Datasets::compile(&shipped()[2..3], &no_table).unwrap();
        let graph = Graph::new(&["orders".to_owned()], &datasets, true);
        let mut ids: Vec<&EdgeId> = graph.edges().map(|(_, edge)| &edge.id).collect();
        for (index, edge) in graph.edges() {
            assert_eq!(graph.find_edge(&edge.id), Some(index));
        }
        ids.sort();
        let ids: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
        // In the order of the stages; lakes hold these names.
        assert_eq!(
            ids,
            [
                "source/orders/out",
                "decode/rejected",
                "decode/raw",
                "decode/users/out",
                "validate/users/out",
                "validate/users/rejected",
                "enrich/users/out",
                "enrich/users/rejected",
                "anonymize/users/out",
                "batch/users/out",
                "batch/users/rejected",
                "encode/users/out",
                "raw/out",
                "dead_letters/out",
                "commit/raw",
                "commit/error",
                "commit/users/processed",
            ]
        );
    }
}
