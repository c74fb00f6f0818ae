//! The stages one by one (criterion), on records from `shardlake produce`.
//!
//! - `push/<dataset>`: decode, validate, enrich, anonymize, batch, by bytes of JSON. Dictionaries are warm, as in a running
//!   worker. `push_gzip/…` and `push_zstd/…` are the same with raw landing: the difference is its cost.
//! - `push_records/…`, `push_records_plain/…`: records of a stream with raw landing, with their identities and without.
//! - `encode/<dataset>`: all row groups of 40,000 records, by bytes of their JSON.
//! - `pseudonym/<bytes>`: HMAC-SHA256 under a prepared key. The pipeline computes it once for each distinct value.
//!
//! `cargo bench --bench stages -- push/events` runs one. `benches/allocations.rs` counts allocations.

#[expect(dead_code, reason = "each bench is a program of its own, and uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use pipeline::anonymize::PseudonymKey;
use pipeline::chunk::{Chunk, Frame, Framing};
use pipeline::documents::Documents;
use pipeline::encode::{Encoder, EncoderConfig};
use pipeline::lane::{Lane, LaneConfig};
use pipeline::line_objects::LineCodec;
use samples::RecordKind;

/// The number of records in a sample.
const RECORDS: usize = 40_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    for kind in RecordKind::ALL {
        let lines = common::sample(kind, RECORDS);
        let (chunks, records) = (common::chunks(&lines), record_chunks(&lines));
        push(&mut criterion, kind, "push", &chunks, &common::lane_config(None));
        for (name, codec) in [("push_gzip", LineCodec::Gzip(1)), ("push_zstd", LineCodec::Zstd(1))] {
            push(&mut criterion, kind, name, &chunks, &common::lane_config(Some(codec)));
        }
        for (name, identities) in [("push_records", true), ("push_records_plain", false)] {
            let config = common::lane_config_with(Some(LineCodec::Gzip(1)), identities);
            push(&mut criterion, kind, name, &records, &config);
        }
        encode(&mut criterion, kind);
    }
    pseudonym(&mut criterion);
    criterion.final_summary();
}

/// Pushes one chunk of 2 MiB into a warm lane. Rows are discarded as often as a worker would encode them.
fn push(criterion: &mut Criterion, kind: RecordKind, name: &str, chunks: &[Chunk], config: &Arc<LaneConfig>) {
    let mut lane = Lane::new(Arc::clone(config));
    let mut next = chunks.iter().cycle();
    let bytes = chunks[0].bytes().len() as u64;
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(kind.dataset(), |bencher| {
        bencher.iter_batched(
            || next.next().cloned().expect("a cycle has no end"),
            |chunk| {
                let pushed = lane.push(0, chunk);
                if lane.memory() > common::ROWS_BYTES {
                    drop(lane.take_rows());
                }
                pushed
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn encode(criterion: &mut Criterion, kind: RecordKind) {
    let config = common::lane_config(None);
    let lines = common::sample(kind, RECORDS);
    let mut lane = Lane::new(config.clone());
    for chunk in common::chunks(&lines) {
        lane.push(0, chunk);
    }
    let all_rows = lane.take_rows();
    let mut encoder = Encoder::new(&config.datasets, &EncoderConfig::default()).expect("zstd has a level 1");
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(lines.len() as u64));
    group.bench_function(kind.dataset(), |bencher| {
        bencher.iter(|| {
            for rows in &all_rows {
                for partition in 0..rows.partitions().len() {
                    std::hint::black_box(encoder.row_group(rows, partition).expect("these rows can be encoded"));
                }
            }
        });
    });
    group.finish();
}

fn pseudonym(criterion: &mut Criterion) {
    let key = PseudonymKey::new(&[7; 32]).expect("32 bytes are enough");
    let mut group = criterion.benchmark_group("pseudonym");
    group.throughput(Throughput::Elements(1));
    for value in ["u-000123", "5cd9bd46-c128-45aa-b09e-8dee724af27a"] {
        group.bench_function(value.len().to_string(), |bencher| {
            bencher.iter(|| key.pseudonym(std::hint::black_box(value.as_bytes())));
        });
    }
    group.finish();
}

/// Chunks of a stream's records, one for each line, with sequence numbers as Kinesis builds them: a counter in the bits from 80 on, seconds
/// in those from 36 on, and the shard.
fn record_chunks(lines: &[u8]) -> Vec<Chunk> {
    const FIRST: [u128; 2] = [49_590_338_271_490_256_608_559_692_538, 361_571_095_921_575_989_136_588_898];
    const DIGITS: u128 = 1_000_000_000_000_000_000_000_000_000;
    // What one step of the counter, and one second, adds to the lower 27 digits and carries into the upper ones.
    const STEPS: [u128; 2] = [1 << 80, 1 << 36];
    let (stream, shard): (Arc<str>, Arc<str>) = ("bench".into(), "shardId-000000000001".into());
    let [mut high, mut low] = FIRST;
    let mut number = 0_u32;
    let mut chunks = Vec::new();
    for chunk in common::chunks(lines) {
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
                arrival_ms: Some(common::ARRIVAL_MS + i64::from(number)),
                partition_key: None,
                damage: None,
            });
            begin += length;
            number += 1;
        }
        let framing = Framing::Records(frames);
        let chunk =
            Chunk::new(Arc::clone(&stream), Arc::clone(&shard), common::ARRIVAL_MS, chunk.bytes().to_vec(), framing);
        chunks.push(chunk.with_documents(Documents::MANY));
    }
    chunks
}
