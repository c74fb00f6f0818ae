//! What the benches share: records, lanes configured as in the worker, and clocks.

use std::sync::Arc;

use pipeline::anonymize::PseudonymKey;
use pipeline::chunk::{Chunk, Frame, Framing};
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
const ARRIVAL_MS: i64 = 1_767_225_600_000;

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

/// Chunks of a stream's records, one for each line, with sequence numbers as Kinesis builds them: a counter in the bits from 80 on, seconds
/// in those from 36 on, and the shard.
pub(crate) fn record_chunks(lines: &[u8]) -> Vec<Chunk> {
    const FIRST: [u128; 2] = [49_590_338_271_490_256_608_559_692_538, 361_571_095_921_575_989_136_588_898];
    const DIGITS: u128 = 1_000_000_000_000_000_000_000_000_000;
    // What one step of the counter, and one second, adds to the lower 27 digits and carries into the upper ones.
    const STEPS: [u128; 2] = [1 << 80, 1 << 36];
    let (stream, shard): (Arc<str>, Arc<str>) = ("bench".into(), "shardId-000000000001".into());
    let [mut high, mut low] = FIRST;
    let mut number = 0_u32;
    let mut chunks = Vec::new();
    for chunk in self::chunks(lines) {
        let mut frames = Vec::new();
        let mut begin = 0_u32;
        for line in chunk.bytes().split_inclusive(|byte| *byte == b'\n') {
            let length = u32::try_from(line.len()).expect("a line is short");
            // A shard takes a thousand records a second; the counter is that of the whole stream.
            low += STEPS[0] * u128::from(1 + number % 7) + if number.is_multiple_of(1000) { STEPS[1] } else { 0 };
            high += low / DIGITS;
            low %= DIGITS;
            frames.push(Frame {
                bytes: begin..begin + length - 1,
                sequence: format!("{high}{low:027}").into(),
                sub_sequence: 0,
                arrival_ms: Some(ARRIVAL_MS + i64::from(number)),
                partition_key: None,
                damage: None,
            });
            begin += length;
            number += 1;
        }
        let framing = Framing::Records(frames);
        let chunk = Chunk::new(Arc::clone(&stream), Arc::clone(&shard), ARRIVAL_MS, chunk.bytes().to_vec(), framing);
        chunks.push(chunk.with_documents(Documents::MANY));
    }
    chunks
}

/// The seconds of one of the system's clocks.
#[expect(clippy::cast_precision_loss, reason = "a process does not run for 2^53 seconds")]
pub(crate) fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
