//! What lanes share, and what a lane reports of a chunk.

use std::collections::BTreeMap;

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
    /// Whether raw objects have the identities of their lines.
    pub raw_identities: bool,
    /// How dead letters are compressed.
    pub dead_letters: LineCodec,
    /// Bytes that a record may have.
    pub record_bytes_max: usize,
    /// Seed of the dictionaries' hashes; never visible in the output.
    pub hash_seed: u64,
    /// Whether the names of denied keys are collected. A producer may build keys of personal values.
    pub denied_names: bool,
}

/// Names of keys that no allow-list has: some of each dataset, with how often each occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeniedNames {
    /// By dataset, the object's JSON Pointer and the key.
    counts: BTreeMap<(usize, String, String), u64>,
}

impl DeniedNames {
    /// The most names of a dataset.
    pub const NAMES_MAX: usize = 100;
    /// The most characters of a name; the rest is cut off.
    pub const NAME_CHARS_MAX: usize = 64;

    /// Adds a key of an object of a dataset.
    pub(crate) fn add(&mut self, dataset: usize, object: &str, key: &[u8]) {
        let text = String::from_utf8_lossy(key);
        let is_longer = text.chars().nth(Self::NAME_CHARS_MAX).is_some();
        let clean = |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
        let name = text.chars().take(Self::NAME_CHARS_MAX).map(clean).chain(is_longer.then_some('…')).collect();
        self.count((dataset, object.to_owned(), name), 1);
    }

    /// Adds the names of another chunk or lane.
    pub fn merge(&mut self, other: DeniedNames) {
        other.counts.into_iter().for_each(|(name, count)| self.count(name, count));
    }

    /// The names: dataset, JSON Pointer of the object, key, and how often it occurred.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &str, &str, u64)> {
        self.counts.iter().map(|((dataset, object, key), count)| (*dataset, object.as_str(), key.as_str(), *count))
    }

    fn count(&mut self, name: (usize, String, String), count: u64) {
        if let Some(sum) = self.counts.get_mut(&name) {
            *sum = sum.saturating_add(count);
        } else if self.counts.keys().filter(|(dataset, ..)| *dataset == name.0).count() < Self::NAMES_MAX {
            self.counts.insert(name, count);
        }
    }
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
    /// Values that did not fit and became null, by dataset and the field's JSON Pointer.
    pub nulled_values: BTreeMap<(usize, String), u64>,
    /// Keys of free-form objects that were not on an allow-list, by dataset.
    pub denied_keys: Vec<u64>,
    /// Some of these keys, if they are asked for.
    pub denied_names: DeniedNames,
    /// Line members that are complete.
    pub members: Vec<LineMember>,
    /// Hashes of the partitions, over all datasets, that the lane's rows did not have before. Each becomes one more object,
    /// unless other lanes have the partition too.
    pub new_partitions: Vec<u64>,
    /// The chunk's buffer, empty, to be filled again.
    pub buffer: Vec<u8>,
}
