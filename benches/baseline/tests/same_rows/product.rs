//! Runs the product's data path on NDJSON bytes, in memory.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use pipeline::anonymize::PseudonymKey;
use pipeline::chunk::{Chunk, Framing};
use pipeline::dataset::{Datasets, DefinitionText, shipped};
use pipeline::encode::{Encoder, EncoderConfig, FileStats, FinishedFile, ParquetFile, Provenance};
use pipeline::graph::Graph;
use pipeline::lane::{Lane, LaneConfig};
use pipeline::layout::Area;
use pipeline::line_objects::{LineCodec, LineMember};

/// The pseudonym key, on both sides.
pub(crate) const KEY: [u8; 32] = [7; 32];
/// The arrival time of records without one of their own: 2026-01-01.
pub(crate) const ARRIVAL_MS: i64 = 1_767_225_600_000;
pub(crate) const STREAM: &str = "file:///ström";
pub(crate) const SHARD: &str = "a \"b\".ndjson";

/// How the product is fed.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    pub(crate) definitions: Vec<DefinitionText>,
    /// Approximate sizes of the chunks, in turn. A chunk ends at the end of a line.
    pub(crate) chunk_bytes: Vec<usize>,
    /// Rows are encoded after this many chunks, so that files have several row groups.
    pub(crate) take_every: usize,
    pub(crate) base_sequence: u64,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { definitions: shipped(), chunk_bytes: vec![1 << 20], take_every: usize::MAX, base_sequence: 1_000 }
    }
}

/// The output of the product.
#[derive(Debug, Default)]
pub(crate) struct Landed {
    /// Files by dataset and partition.
    pub(crate) files: BTreeMap<(String, String), Bytes>,
    /// The statistics of each file, as a manifest has them.
    pub(crate) stats: BTreeMap<(String, String), FileStats>,
    /// Dead letters: sequence number, code, record.
    pub(crate) dead_letters: Vec<(u64, String, Vec<u8>)>,
    /// Raw lines.
    pub(crate) raw: Vec<Vec<u8>>,
}

/// Feeds lines of JSON to the product.
pub(crate) fn run(ndjson: &[u8], feed: &Feed) -> Landed {
    let datasets = Datasets::compile(&feed.definitions, &|_, _| Err("no lookups here".into()));
    let datasets = datasets.unwrap_or_else(|problems| panic!("{problems}"));
    let config = Arc::new(LaneConfig {
        graph: Graph::new(&["in".to_owned()], &datasets, true),
        key: Some(PseudonymKey::new(&KEY).unwrap()),
        assigned: vec![None],
        raw: Some(LineCodec::Gzip(1)),
        raw_identities: true,
        dead_letters: LineCodec::Gzip(1),
        record_bytes_max: baseline::RECORD_BYTES_MAX,
        hash_seed: 42,
        denied_names: false,
        datasets,
    });
    let mut lane = Lane::new(Arc::clone(&config));
    let mut encoder = Encoder::new(&config.datasets, &EncoderConfig::default()).unwrap();
    let mut open: BTreeMap<(String, String), ParquetFile> = BTreeMap::new();
    let mut landed = Landed::default();
    let mut encode = |lane: &mut Lane| {
        for rows in lane.take_rows() {
            let dataset = config.datasets.names().nth(rows.dataset()).unwrap().to_owned();
            for (number, partition) in rows.partitions().iter().enumerate() {
                let group = encoder.row_group(&rows, number).unwrap();
                assert_eq!(group.rows, partition.rows);
                let file = open
                    .entry((dataset.clone(), partition.path.to_string()))
                    .or_insert_with(|| encoder.file(&config.datasets, rows.dataset()).unwrap());
                file.append(group).unwrap();
            }
        }
    };
    let mut at = 0;
    let mut buffer = Vec::new();
    for (number, size) in (1..).zip(feed.chunk_bytes.iter().cycle()) {
        if at == ndjson.len() {
            break;
        }
        let end = end_of_chunk(ndjson, at, *size);
        buffer.extend_from_slice(&ndjson[at..end]);
        let framing = Framing::Lines { base: feed.base_sequence + at as u64 };
        let pushed = lane.push(0, Chunk::new(STREAM.into(), SHARD.into(), ARRIVAL_MS, buffer, framing));
        buffer = pushed.buffer;
        landed.read_lines(pushed.members);
        at = end;
        if number % feed.take_every == 0 {
            encode(&mut lane);
        }
    }
    encode(&mut lane);
    landed.read_lines(lane.take_lines());
    let provenance = Provenance { epoch: "epoch-1".to_owned(), ranges: Some("[\"all\"]".to_owned()) };
    for (key, file) in open {
        let FinishedFile { bytes, stats, .. } = file.finish(&provenance).unwrap();
        landed.stats.insert(key.clone(), stats);
        landed.files.insert(key, bytes.into());
    }
    landed.dead_letters.sort();
    landed
}

/// The end of the last whole line within `size` bytes, or of the first line if it is longer.
fn end_of_chunk(ndjson: &[u8], at: usize, size: usize) -> usize {
    let window = &ndjson[at..ndjson.len().min(at + size)];
    if at + window.len() == ndjson.len() {
        return ndjson.len();
    }
    let within = window.iter().rposition(|byte| *byte == b'\n');
    let first = || ndjson[at..].iter().position(|byte| *byte == b'\n');
    within.or_else(first).map_or(ndjson.len(), |end| at + end + 1)
}

impl Landed {
    fn read_lines(&mut self, members: Vec<LineMember>) {
        for member in members {
            let mut text = Vec::new();
            flate2::read::MultiGzDecoder::new(member.bytes.as_slice()).read_to_end(&mut text).unwrap();
            let lines: Vec<&[u8]> = text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').collect();
            assert_eq!(lines.len() as u64, member.lines);
            if member.folder.area() == Area::Raw {
                self.raw.extend(lines.into_iter().map(<[u8]>::to_vec));
                continue;
            }
            for line in lines {
                let dead_letter: serde_json::Value = serde_json::from_slice(line).unwrap();
                let code = dead_letter["errorCode"].as_str().unwrap();
                let folder = member.folder.to_string();
                assert!(folder.starts_with(&format!("error/reason={code}/year=")), "{folder}");
                assert_eq!((&dead_letter["stream"], &dead_letter["shardId"]), (&STREAM.into(), &SHARD.into()));
                let sequence = dead_letter["sequenceNumber"].as_str().unwrap().parse().unwrap();
                let raw = BASE64_STANDARD.decode(dead_letter["rawData"].as_str().unwrap()).unwrap();
                self.dead_letters.push((sequence, code.to_owned(), raw));
            }
        }
    }
}
