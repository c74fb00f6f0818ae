//! `baseline INPUT.ndjson OUT_DIR`: the baseline as a process of its own, for benchmarks.
//!
//! It reads a file of JSON lines in pieces of 4 MiB and writes `OUT_DIR/<dataset>/<partition>/part.parquet` for the shipped
//! definitions. With `-` for `OUT_DIR` it writes nothing. It prints one line of JSON: `records`, `rows`, `rejects` by code,
//! `input_bytes`, `output_bytes`, `files`, and `cpu_seconds` (user and system time of the process). The arrival time of
//! records without one of their own is the modification time of the file.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

use baseline::Baseline;
use rustix::time::{ClockId, clock_gettime};

const DEFINITIONS: [&str; 3] = [
    include_str!("../../../pipeline/datasets/events.toml"),
    include_str!("../../../pipeline/datasets/assessments.toml"),
    include_str!("../../../pipeline/datasets/users.toml"),
];
/// The pseudonym key, which is not a secret here.
const KEY: [u8; 32] = [7; 32];
const PIECE_BYTES: usize = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, out] = arguments.as_slice() else { return Err("usage: baseline INPUT.ndjson OUT_DIR".into()) };
    let mut baseline = Baseline::new(&DEFINITIONS, &KEY)?;
    let input_bytes = push_file(&mut baseline, Path::new(input))?;
    let output = baseline.finish()?;
    if out != "-" {
        for file in &output.files {
            let folder = Path::new(out).join(&file.dataset).join(&file.partition);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join("part.parquet"), &file.bytes)?;
        }
    }
    let rows: u64 = output.files.iter().map(|file| file.rows).sum();
    let mut rejects: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, code) in &output.rejects {
        *rejects.entry(code.as_str()).or_default() += 1;
    }
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let line = serde_json::json!({
        "records": rows + output.rejects.len() as u64,
        "rows": rows,
        "rejects": rejects,
        "input_bytes": input_bytes,
        "output_bytes": output.files.iter().map(|file| file.bytes.len() as u64).sum::<u64>(),
        "files": output.files.len(),
        "cpu_seconds": serde_json::Number::from_f64(seconds(cpu.tv_sec, cpu.tv_nsec)),
    });
    println!("{line}");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a process does not run for 2^53 seconds")]
fn seconds(seconds: i64, nanoseconds: i64) -> f64 {
    seconds as f64 + nanoseconds as f64 / 1e9
}

/// Pushes the lines of a file, piece by piece. Returns its size.
fn push_file(baseline: &mut Baseline, path: &Path) -> Result<u64, Box<dyn Error>> {
    let mut file = File::open(path)?;
    let written = file.metadata()?.modified()?.duration_since(UNIX_EPOCH)?;
    let arrival_ms = i64::try_from(written.as_millis())?;
    let shard = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut piece = Vec::new();
    let mut base = 0;
    loop {
        let read = file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        let whole_lines = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let end = if read == 0 { piece.len() } else { whole_lines };
        baseline.push(&piece[..end], base, "file", &shard, arrival_ms)?;
        base += end as u64;
        piece.drain(..end);
        if read == 0 {
            return Ok(base);
        }
    }
}
