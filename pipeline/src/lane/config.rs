//! What lanes share, and what a lane reports of a chunk.

use crate::anonymize::PseudonymKey;
use crate::dataset::Datasets;
use crate::dead_letter::code::Code;
use crate::graph::{Counts, Graph};
use crate::line_objects::{LineCodec, LineMember};

/// What a lane needs to know, shared by all lanes of a worker.
#[derive(Debug)]
pub struct LaneConfig {
    /// The datasets.
    pub datasets: Datasets,
    /// The graph whose edges are counted.
    pub graph: Graph,
    /// The secret pseudonym key.
    pub key: Option<PseudonymKey>,
    /// For each source of the graph, the dataset of all its records, if its configuration names one.
    pub assigned: Vec<Option<usize>>,
    /// How raw records are compressed; `None`: the raw landing is off.
    pub raw: Option<LineCodec>,
    /// How dead letters are compressed.
    pub dead_letters: LineCodec,
    /// Bytes that a record may have.
    pub record_bytes_max: usize,
    /// Seed of the dictionaries' hashes; never visible in the output.
    pub hash_seed: u64,
}

/// What became of a pushed chunk.
#[derive(Debug)]
pub struct Pushed {
    /// Records in it.
    pub records: u64,
    /// What passed along the graph's edges.
    pub counts: Counts,
    /// Dead letters, by code.
    pub dead_letters: Vec<(Code, u64)>,
    /// Keys of free-form objects that were not on an allow-list, by dataset.
    pub denied_keys: Vec<u64>,
    /// Line members that are complete.
    pub members: Vec<LineMember>,
    /// Hashes of the partitions, over all datasets, that the lane's rows did not have before. Each becomes one more object,
    /// unless other lanes have the partition too.
    pub new_partitions: Vec<u64>,
    /// The chunk's buffer, empty, to be filled again.
    pub buffer: Vec<u8>,
}
