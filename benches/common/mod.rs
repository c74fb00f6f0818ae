//! What the benches share: records, lanes configured as in the worker, and clocks.

use std::sync::Arc;

use pipeline::anonymize::PseudonymKey;
use pipeline::chunk::{Chunk, Framing};
use pipeline::dataset::{Datasets, shipped};
use pipeline::documents::Documents;
use pipeline::graph::Graph;
use pipeline::lane::LaneConfig;
use pipeline::line_objects::LineCodec;
use rustix::time::{ClockId, clock_gettime};
use samples::{Generator, Kinds, Options, RecordKind};

/// The bytes that a reader of the worker requests.
pub(crate) const CHUNK_BYTES: usize = 2 << 20;
/// The bytes of rows that the worker's lanes hold together before they encode them: three sixteenths of the default
/// `[limits] memory`.
pub(crate) const ROWS_BYTES: usize = 96 << 20;
/// The arrival time of records that have none of their own: 2026-01-01.
pub(crate) const ARRIVAL_MS: i64 = 1_767_225_600_000;

/// The configuration of a lane in `shardlake run`, for the shipped datasets.
pub(crate) fn lane_config(raw: Option<LineCodec>) -> Arc<LaneConfig> {
    lane_config_with(raw, true)
}

/// The same, with identities in raw objects or without.
pub(crate) fn lane_config_with(raw: Option<LineCodec>, raw_identities: bool) -> Arc<LaneConfig> {
    let no_tables = |_: &str, _: &str| Err("the shipped datasets join no tables".to_owned());
    let datasets = Datasets::compile(&shipped(), &no_tables).expect("the shipped datasets compile");
    Arc::new(LaneConfig {
        graph: Graph::new(&["bench".to_owned()], &datasets, raw.is_some()),
        key: Some(PseudonymKey::new(&[7; 32]).expect("32 bytes are enough")),
        assigned: vec![None],
        raw,
        raw_identities,
        dead_letters: LineCodec::Gzip(1),
        record_bytes_max: 10 << 20,
        hash_seed: 42,
        denied_names: false,
        datasets,
    })
}

/// Lines of records of one kind from `shardlake produce`, 0.5 % of them bad.
pub(crate) fn sample(kind: RecordKind, records: usize) -> Vec<u8> {
    let options = Options { seed: 1, kinds: Kinds::only(kind), bad_ratio: 0.005, ..Options::default() };
    let mut generator = Generator::new(options).expect("these options are valid");
    let mut lines = Vec::new();
    for _ in 0..records {
        generator.next_into(&mut lines);
        lines.push(b'\n');
    }
    lines
}

/// Chunks of whole lines, as the worker's reader cuts a file.
pub(crate) fn chunks(lines: &[u8]) -> Vec<Chunk> {
    let (stream, shard): (Arc<str>, Arc<str>) = ("bench".into(), "records.ndjson".into());
    let mut chunks = Vec::new();
    let mut begin = 0;
    while begin < lines.len() {
        let limit = (begin + CHUNK_BYTES).min(lines.len());
        let last_end = lines[begin..limit].iter().rposition(|byte| *byte == b'\n');
        let end = last_end.map_or(limit, |last| begin + last + 1);
        let framing = Framing::Lines { base: begin as u64 };
        // The worker's buffers are reused, so that they have room after the records for decoded base64.
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        bytes.extend_from_slice(&lines[begin..end]);
        let chunk = Chunk::new(Arc::clone(&stream), Arc::clone(&shard), ARRIVAL_MS, bytes, framing);
        // As a source has it by default.
        chunks.push(chunk.with_documents(Documents::MANY));
        begin = end;
    }
    chunks
}

/// The seconds of one of the system's clocks.
#[expect(clippy::cast_precision_loss, reason = "a process does not run for 2^53 seconds")]
pub(crate) fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
