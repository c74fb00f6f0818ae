//! The stage graph: what a record passes through, as an object built from the configuration.
//!
//! Owns: the nodes, the edges and what has passed along each edge ([`Counts`]). The lanes count along the graph's edges,
//! the commit records keep the counts of each epoch, and status adds them up, so that what is drawn is what runs. Does
//! not own: running.
//!
//! Along an edge before `encode` a record counts with the bytes it arrived with; after it, with the bytes of its object.

use std::fmt::Write;
use std::ops::{AddAssign, Index, IndexMut};

use crate::dataset::Datasets;
use crate::dead_letter::code::Stage;

/// Number of an edge in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeId(usize);

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
    /// Unique name, such as `validate/events`.
    pub name: String,
    /// What it does, in a few words.
    pub detail: String,
    /// Its kind.
    pub kind: NodeKind,
}

/// An edge of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Number of the node it leaves.
    pub from: usize,
    /// Number of the node it enters.
    pub to: usize,
    /// Whether it is the way of records that failed.
    pub dead_letters: bool,
}

/// The edges that the records of one dataset pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DatasetEdges {
    pub(crate) decoded: EdgeId,
    pub(crate) validated: EdgeId,
    pub(crate) enriched: EdgeId,
    pub(crate) anonymized: EdgeId,
    pub(crate) batched: EdgeId,
    pub(crate) encoded: EdgeId,
    pub(crate) landed: EdgeId,
    pub(crate) refused: [EdgeId; 3],
}

/// The compiled graph.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    sources: Vec<EdgeId>,
    pub(crate) undecoded: EdgeId,
    pub(crate) datasets: Vec<DatasetEdges>,
    raw: Option<[EdgeId; 3]>,
    letters: [EdgeId; 2],
}

impl Graph {
    /// The graph of these sources and datasets; `raw`: whether records also land as they came.
    pub fn new(sources: &[String], datasets: &Datasets, raw: bool) -> Graph {
        let mut builder = Builder { nodes: Vec::new(), edges: Vec::new() };
        let decode = builder.node("decode", "JSON, once over the bytes; which dataset", NodeKind::Stage);
        let letters = builder.node("dead letters", "why, where, and the original bytes", NodeKind::Stage);
        let commit = builder.node("commit", "stage, describe, decide, publish, advance", NodeKind::Stage);
        let error = builder.node("error/", "dead letters, by code and arrival day", NodeKind::Sink);
        let sources = sources
            .iter()
            .map(|source| {
                let node = builder.node(source, "", NodeKind::Source);
                builder.edge(node, decode, false)
            })
            .collect();
        let undecoded = builder.edge(decode, letters, true);
        let datasets = (0..datasets.plans().len())
            .map(|dataset| builder.dataset(datasets, dataset, decode, letters, commit))
            .collect();
        let raw = raw.then(|| {
            let collect = builder.node("raw", "every record as received", NodeKind::Stage);
            let sink = builder.node("raw/", "JSON lines, by dataset and arrival day", NodeKind::Sink);
            [
                builder.edge(decode, collect, false),
                builder.edge(collect, commit, false),
                builder.edge(commit, sink, false),
            ]
        });
        let letters = [builder.edge(letters, commit, true), builder.edge(commit, error, true)];
        Graph { nodes: builder.nodes, edges: builder.edges, sources, undecoded, datasets, raw, letters }
    }

    /// The nodes, by number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The edges with their numbers.
    pub fn edges(&self) -> impl Iterator<Item = (EdgeId, Edge)> {
        self.edges.iter().enumerate().map(|(number, edge)| (EdgeId(number), *edge))
    }

    /// An edge's name in commit records and metrics: `validate/events → enrich/events`.
    pub fn edge_name(&self, edge: EdgeId) -> String {
        let Edge { from, to, .. } = self.edges[edge.0];
        format!("{} → {}", self.nodes[from].name, self.nodes[to].name)
    }

    /// The edge of a name.
    pub fn find_edge(&self, name: &str) -> Option<EdgeId> {
        (0..self.edges.len()).map(EdgeId).find(|edge| self.edge_name(*edge) == name)
    }

    /// Counts that are all zero.
    pub fn counts(&self) -> Counts {
        Counts(vec![Count::default(); self.edges.len()])
    }

    /// The edge from a source to the decoder: everything that was read.
    pub fn source_edge(&self, source: usize) -> EdgeId {
        self.sources[source]
    }

    /// The edges on which a dataset's rows leave the encoder, and land.
    pub fn row_edges(&self, dataset: usize) -> [EdgeId; 2] {
        [self.datasets[dataset].encoded, self.datasets[dataset].landed]
    }

    /// The edges into the raw landing, out of it, and into the lake, if it is on.
    pub fn raw_edges(&self) -> Option<[EdgeId; 3]> {
        self.raw
    }

    /// The edges on which dead letters go to the commit, and land.
    pub fn letter_edges(&self) -> [EdgeId; 2] {
        self.letters
    }

    pub(crate) fn refused_edge(&self, dataset: Option<usize>, stage: Stage) -> EdgeId {
        let Some(dataset) = dataset else { return self.undecoded };
        let [validate, enrich, batch] = self.datasets[dataset].refused;
        match stage {
            Stage::Decode => self.undecoded,
            Stage::Validate => validate,
            Stage::Enrich => enrich,
            Stage::Batch => batch,
        }
    }

    /// The graph as lines for people, with what has passed along each edge where counts are given.
    pub fn text(&self, counts: Option<&Counts>) -> String {
        let mut out = String::new();
        let from_width = self.edges.iter().map(|edge| self.nodes[edge.from].name.chars().count()).max().unwrap_or(0);
        let to_width = self.edges.iter().map(|edge| self.nodes[edge.to].name.chars().count()).max().unwrap_or(0);
        let mut drawn: Vec<usize> = (0..self.edges.len()).collect();
        drawn.sort_by_key(|edge| (self.rank(self.edges[*edge].from), self.edges[*edge].dead_letters));
        for number in drawn {
            let edge = self.edges[number];
            let (from, to) = (&self.nodes[edge.from], &self.nodes[edge.to]);
            let arrow = if edge.dead_letters { "··>" } else { "──>" };
            let from_name = format!("{:<from_width$}", from.name);
            let last = match counts {
                Some(counts) => {
                    let Count { records, bytes } = counts[EdgeId(number)];
                    format!("{:<to_width$}  {records:>12} records  {bytes:>15} bytes", to.name)
                }
                None if to.detail.is_empty() => to.name.clone(),
                None => format!("{:<to_width$}  {}", to.name, to.detail),
            };
            let _ = writeln!(out, "{from_name}  {arrow}  {}", last.trim_end());
        }
        out
    }

    /// The graph as a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let name = node.name.replace('"', "#quot;");
            let _ = match node.kind {
                NodeKind::Source => writeln!(out, "  n{number}[(\"{name}\")]"),
                NodeKind::Stage => writeln!(out, "  n{number}[\"{name}\"]"),
                NodeKind::Sink => writeln!(out, "  n{number}[/\"{name}\"/]"),
            };
        }
        for edge in &self.edges {
            let arrow = if edge.dead_letters { "-.->" } else { "-->" };
            let _ = writeln!(out, "  n{} {arrow} n{}", edge.from, edge.to);
        }
        out
    }

    /// The graph in Graphviz's DOT language.
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph shardlake {\n  rankdir=LR;\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let shape = match node.kind {
                NodeKind::Source => "cylinder",
                NodeKind::Stage => "box",
                NodeKind::Sink => "folder",
            };
            let name = node.name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(out, "  n{number} [shape={shape}, label=\"{name}\"];");
        }
        for edge in &self.edges {
            let style = if edge.dead_letters { " [style=dashed]" } else { "" };
            let _ = writeln!(out, "  n{} -> n{}{style};", edge.from, edge.to);
        }
        out.push_str("}\n");
        out
    }

    /// Where a node stands on the records' way, for listing.
    fn rank(&self, node: usize) -> usize {
        let Node { name, kind, .. } = &self.nodes[node];
        let order =
            ["decode", "validate/", "enrich/", "anonymize/", "batch/", "encode/", "raw", "dead letters", "commit"];
        match kind {
            NodeKind::Source => 0,
            _ => 1 + order.iter().position(|prefix| name.starts_with(prefix)).unwrap_or(order.len()),
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

    fn edge(&mut self, from: usize, to: usize, dead_letters: bool) -> EdgeId {
        self.edges.push(Edge { from, to, dead_letters });
        EdgeId(self.edges.len() - 1)
    }

    fn dataset(
        &mut self,
        all: &Datasets,
        dataset: usize,
        decode: usize,
        letters: usize,
        commit: usize,
    ) -> DatasetEdges {
        let plan = all.plan(dataset);
        let name = &plan.name;
        let lookups: Vec<&str> = all.lookups(dataset).collect();
        let joined = if lookups.is_empty() { String::new() } else { format!("; lookups: {}", lookups.join(", ")) };
        let partitions: Vec<&str> = all.partition_columns(dataset).collect();
        let mut stage = |stage: &str, detail: &str| self.node(&format!("{stage}/{name}"), detail, NodeKind::Stage);
        let validate = stage("validate", "types and constraints");
        let enrich = stage("enrich", &format!("ingest columns, times{joined}"));
        let anonymize = stage("anonymize", &plan.rules().join(", "));
        let batch = stage("batch", &format!("by {}", partitions.join(", ")));
        let encode = stage("encode", "Parquet");
        let sink = self.node(&format!("processed/{name}/"), "rows, by event time", NodeKind::Sink);
        DatasetEdges {
            decoded: self.edge(decode, validate, false),
            validated: self.edge(validate, enrich, false),
            enriched: self.edge(enrich, anonymize, false),
            anonymized: self.edge(anonymize, batch, false),
            batched: self.edge(batch, encode, false),
            encoded: self.edge(encode, commit, false),
            landed: self.edge(commit, sink, false),
            refused: [
                self.edge(validate, letters, true),
                self.edge(enrich, letters, true),
                self.edge(batch, letters, true),
            ],
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
    /// Counts one record along an edge.
    #[inline]
    pub fn add(&mut self, edge: EdgeId, records: u64, bytes: u64) {
        self.0[edge.0] += Count { records, bytes };
    }

    /// Adds the counts of the same graph.
    pub fn merge(&mut self, other: &Counts) {
        assert_eq!(self.0.len(), other.0.len(), "counts of one graph are added up");
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += *theirs);
    }
}

impl Index<EdgeId> for Counts {
    type Output = Count;

    fn index(&self, edge: EdgeId) -> &Count {
        &self.0[edge.0]
    }
}

impl IndexMut<EdgeId> for Counts {
    fn index_mut(&mut self, edge: EdgeId) -> &mut Count {
        &mut self.0[edge.0]
    }
}
