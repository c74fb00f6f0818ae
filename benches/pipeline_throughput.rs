//! The pipeline in memory, as a process of its own: bytes in memory → Parquet bytes, without files, tasks and commits.
//!
//! `pipeline_throughput [FILE] [--threads N] [--raw off|gzip|zstd]` reads a file of JSON lines, cuts it into chunks, and
//! only then starts its clocks. It does what the worker does with its lanes: each thread has a lane, takes the next chunk, and
//! encodes its rows when they are too many. In the end all threads share the remaining partitions. It prints one line of JSON:
//! `bytes`, `records`, `rows`, `output_bytes`, `raw_bytes`, `cpu_seconds` (of all threads, user and system), `wall_seconds`,
//! and the wall time of the two phases, `push_seconds` and `encode_seconds`.
//!
//! Without a file it makes 100,000 events and 100,000 assessments and prints a line for each, so that `cargo bench` works on its
//! own. `benches/compare.py` runs it in turn with its peers.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pipeline::chunk::Chunk;
use pipeline::encode::{EncodeError, Encoder, EncoderConfig, Provenance, RowGroup, Rows};
use pipeline::lane::{Lane, LaneConfig};
use pipeline::layout::PartitionPath;
use pipeline::line_objects::LineCodec;
use rustix::time::ClockId;
use samples::RecordKind;

/// A partition: dataset, path.
type PartitionKey = (usize, PartitionPath);

struct Arguments {
    file: Option<String>,
    threads: usize,
    raw: Option<LineCodec>,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let mut parsed = Arguments { file: None, threads: 1, raw: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                // What `cargo bench` passes to every bench.
                "--bench" => {}
                "--threads" => {
                    parsed.threads = value()?.parse().map_err(|_| "--threads must be a number".to_owned())?;
                }
                "--raw" => {
                    parsed.raw = match value()?.as_str() {
                        "off" => None,
                        "gzip" => Some(LineCodec::Gzip(1)),
                        "zstd" => Some(LineCodec::Zstd(1)),
                        other => return Err(format!("--raw must be off, gzip or zstd, not '{other}'")),
                    }
                }
                other if other.starts_with("--") => return Err(format!("there is no flag {other}")),
                file => parsed.file = Some(file.to_owned()),
            }
        }
        Ok(parsed)
    }
}

/// What was made of the bytes.
#[derive(Default)]
struct Output {
    records: u64,
    rows: u64,
    bytes: u64,
    raw_bytes: u64,
}

/// What one thread returns when all chunks are taken.
struct Pushed {
    rows: Vec<Rows>,
    groups: Vec<(PartitionKey, RowGroup)>,
    encoder: Encoder,
    records: u64,
    raw_bytes: u64,
}

fn main() -> Result<(), String> {
    let arguments = Arguments::parse()?;
    let inputs = match &arguments.file {
        Some(file) => vec![std::fs::read(file).map_err(|error| format!("{file}: {error}"))?],
        None => vec![common::sample(RecordKind::Events, 100_000), common::sample(RecordKind::Assessments, 100_000)],
    };
    let config = common::lane_config(arguments.raw);
    for input in inputs {
        let bytes = input.len();
        let chunks = common::chunks(&input);
        drop(input);
        let (wall, cpu) = (common::seconds(ClockId::Monotonic), common::seconds(ClockId::ProcessCPUTime));
        let (output, pushed_at) = run(&config, chunks, arguments.threads).map_err(|error| error.to_string())?;
        let (wall_end, cpu_end) = (common::seconds(ClockId::Monotonic), common::seconds(ClockId::ProcessCPUTime));
        let line = serde_json::json!({
            "bytes": bytes,
            "records": output.records,
            "rows": output.rows,
            "output_bytes": output.bytes,
            "raw_bytes": output.raw_bytes,
            "cpu_seconds": cpu_end - cpu,
            "wall_seconds": wall_end - wall,
            "push_seconds": pushed_at - wall,
            "encode_seconds": wall_end - pushed_at,
        });
        println!("{line}");
    }
    Ok(())
}

/// Pushes all chunks and encodes all rows. Also returns when the last chunk was pushed.
fn run(config: &Arc<LaneConfig>, chunks: Vec<Chunk>, threads: usize) -> Result<(Output, f64), EncodeError> {
    let chunks = Mutex::new(chunks.into_iter());
    let pushed = on_threads(threads, || push(config, &chunks, common::ROWS_BYTES / threads))?;
    let pushed_at = common::seconds(ClockId::Monotonic);

    let mut output = Output::default();
    let mut all_rows = Vec::new();
    let mut encoders = Vec::new();
    let mut parts: BTreeMap<PartitionKey, Part> = BTreeMap::new();
    for thread in pushed {
        output.records += thread.records;
        output.raw_bytes += thread.raw_bytes;
        encoders.push(thread.encoder);
        for (partition, group) in thread.groups {
            parts.entry(partition).or_default().groups.push(group);
        }
        for rows in thread.rows {
            for (index, partition) in rows.partitions().iter().enumerate() {
                let key = (rows.dataset(), partition.path.clone());
                parts.entry(key).or_default().rows.push((all_rows.len(), index));
            }
            all_rows.push(rows);
        }
    }
    let parts: Vec<(PartitionKey, Mutex<Part>)> =
        parts.into_iter().map(|(partition, part)| (partition, Mutex::new(part))).collect();
    let next = AtomicUsize::new(0);
    let encoders = Mutex::new(encoders);
    let finished = on_threads(threads, || {
        let encoder = encoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut encoder = encoder.expect("there is an encoder for each thread");
        let mut done = Output::default();
        while let Some((partition, part)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let part = std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner));
            let file = part.finish(config, &mut encoder, partition.0, &all_rows)?;
            done.rows += file.0;
            done.bytes += file.1;
        }
        Ok::<Output, EncodeError>(done)
    })?;
    output.rows = finished.iter().map(|done| done.rows).sum();
    output.bytes = finished.iter().map(|done| done.bytes).sum();
    Ok((output, pushed_at))
}

/// What there is of one partition: row groups, and rows that are not encoded yet.
#[derive(Default)]
struct Part {
    groups: Vec<RowGroup>,
    /// Index of the rows, index of the partition in them.
    rows: Vec<(usize, usize)>,
}

impl Part {
    /// Rows and bytes of the partition's file.
    fn finish(
        self,
        config: &LaneConfig,
        encoder: &mut Encoder,
        dataset: usize,
        all_rows: &[Rows],
    ) -> Result<(u64, u64), EncodeError> {
        let mut file = encoder.file(&config.datasets, dataset)?;
        for group in self.groups {
            file.append(group)?;
        }
        for (rows_index, partition) in self.rows {
            file.append(encoder.row_group(&all_rows[rows_index], partition)?)?;
        }
        let rows = file.rows();
        let bytes = file.finish(&Provenance { epoch: "bench".to_owned(), ranges: None })?.bytes;
        Ok((rows, bytes.len() as u64))
    }
}

/// One thread's lane: takes chunks until there are none.
fn push(
    config: &Arc<LaneConfig>,
    chunks: &Mutex<std::vec::IntoIter<Chunk>>,
    rows_bytes: usize,
) -> Result<Pushed, EncodeError> {
    let mut lane = Lane::new(Arc::clone(config));
    let mut encoder = Encoder::new(&config.datasets, &EncoderConfig::default())?;
    let mut groups = Vec::new();
    let (mut records, mut raw_bytes) = (0, 0);
    // The worker's buffers return to its readers. Here they are kept, so that freeing them is not measured.
    let mut buffers = Vec::new();
    loop {
        let chunk = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(chunk) = chunk else { break };
        let pushed = lane.push(0, chunk);
        records += pushed.records;
        raw_bytes += pushed.members.iter().map(|member| member.bytes.len() as u64).sum::<u64>();
        buffers.push(pushed.buffer);
        if lane.memory() > rows_bytes {
            for rows in lane.take_rows() {
                for (index, partition) in rows.partitions().iter().enumerate() {
                    let key = (rows.dataset(), partition.path.clone());
                    groups.push((key, encoder.row_group(&rows, index)?));
                }
            }
        }
    }
    raw_bytes += lane.take_lines().iter().map(|member| member.bytes.len() as u64).sum::<u64>();
    std::mem::forget(buffers);
    Ok(Pushed { rows: lane.take_rows(), groups, encoder, records, raw_bytes })
}

/// Does the same work on this many threads, and returns all results.
fn on_threads<T: Send>(
    threads: usize,
    work: impl Fn() -> Result<T, EncodeError> + Sync,
) -> Result<Vec<T>, EncodeError> {
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
