//! `produce`: sample records to a file, a folder, standard output or (`produce_stream`) a stream.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use pipeline::time::parse_rfc3339_or_date;
use serde_json::json;

use crate::aws::arn::is_arn;
use crate::cli::Usage;
use crate::cli::args::{ProduceArgs, ProduceKind};
use crate::cli::output::{show_bytes, show_count};
use crate::cli::produce_stream::put;
use crate::cli::progress_bar::bar;
use crate::settings::url::Url;
use crate::source::backends::SourceUrl;
use samples::{Generator, Kinds, Options, RecordKind};

pub(crate) async fn produce(args: &ProduceArgs, json: bool) -> anyhow::Result<ExitCode> {
    let start_ms = parse_rfc3339_or_date(&args.start)
        .ok_or_else(|| Usage(format!("--start '{}' is not a valid time such as 2025-01-13T00:00:00Z", args.start)))?;
    let kinds = match args.kind {
        ProduceKind::Events => Kinds::only(RecordKind::Events),
        ProduceKind::Assessments => Kinds::only(RecordKind::Assessments),
        ProduceKind::Users => Kinds::only(RecordKind::Users),
        ProduceKind::Mixed => Kinds::MIXED,
    };
    let options =
        Options { seed: args.seed, kinds, bad_ratio: args.bad_ratio, start_ms, days: args.days, ..Options::default() };
    let generator = Generator::new(options).map_err(|error| Usage(error.to_string()))?;
    if args.to.starts_with("kinesis://") || is_arn(&args.to) {
        // An ARN of something else is refused.
        let SourceUrl::Kinesis(stream) = SourceUrl::parse(&args.to).map_err(Usage)? else {
            unreachable!("the scheme is kinesis");
        };
        let bytes = put(generator, stream.resource(), args.count, args.rate).await?;
        if json {
            println!("{}", json!({ "records": args.count, "bytes": bytes, "to": args.to }));
        } else {
            println!("{} records, {}: {}", show_count(args.count), show_bytes(bytes), args.to);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.to.contains("://") && !args.to.starts_with("file://") {
        return Err(
            Usage(format!("'{}': records go to kinesis://STREAM, a file, a folder or -", Url::new(&args.to))).into()
        );
    }
    let to = args.to.strip_prefix("file://").unwrap_or(&args.to);
    if to == "-" {
        write_records(generator, args.count, args.rate, &mut std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = Path::new(to);
    let is_folder = to.ends_with('/') || path.is_dir() || args.files > 1;
    let (files, bytes) = if is_folder {
        write_folder(generator, path, args)?
    } else {
        (1, write_file(generator, path, args.count, args.rate)?)
    };
    if json {
        println!("{}", json!({ "records": args.count, "files": files, "bytes": bytes, "to": to }));
    } else {
        let files = if files == 1 { String::new() } else { format!(" in {files} files") };
        println!("{} records, {}{files}: {to}", show_count(args.count), show_bytes(bytes));
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the records of the demonstration, unless they are there.
pub(crate) fn make_sample(folder: &Path, count: u64) -> anyhow::Result<bool> {
    if folder.is_dir() {
        return Ok(false);
    }
    let options = Options { kinds: Kinds::MIXED, bad_ratio: 0.005, ..Options::default() };
    let generator = Generator::new(options)?;
    // Under another name until it is whole: a half-made sample is never read.
    let making = folder.with_extension("making");
    let path = making.join("records.ndjson");
    write_file(generator, &path, count, None)?;
    std::fs::rename(&making, folder).with_context(|| format!("could not make {}", folder.display()))?;
    Ok(true)
}

fn write_folder(mut generator: Generator, folder: &Path, args: &ProduceArgs) -> anyhow::Result<(u64, u64)> {
    let files = u64::from(args.files.max(1));
    let mut bytes = 0;
    for number in 0..files {
        let from = args.count * number / files;
        let to = args.count * (number + 1) / files;
        generator.seek(from);
        let path = folder.join(format!("records-{number:04}.ndjson"));
        bytes += write_file(generator.clone(), &path, to - from, args.rate)?;
    }
    Ok((files, bytes))
}

fn write_file(generator: Generator, path: &Path, count: u64, rate: Option<u64>) -> anyhow::Result<u64> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    let file = File::create(path).with_context(|| format!("could not make {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let bytes = write_records(generator, count, rate, &mut out)
        .and_then(|bytes| out.flush().map(|()| bytes))
        .with_context(|| format!("could not write {}", path.display()))?;
    Ok(bytes)
}

fn write_records(mut generator: Generator, count: u64, rate: Option<u64>, out: &mut dyn Write) -> std::io::Result<u64> {
    let bar =
        if std::io::stdout().is_terminal() { bar(count, "{bar:30} {percent:>3}%  {pos} records") } else { bar(0, "") };
    let mut buffer = Vec::with_capacity(1 << 20);
    let mut bytes = 0;
    let begun = tokio::time::Instant::now();
    for number in 1..=count {
        generator.next_into(&mut buffer);
        buffer.push(b'\n');
        if buffer.len() >= 1 << 20 || number == count || rate.is_some() {
            out.write_all(&buffer)?;
            bytes += buffer.len() as u64;
            buffer.clear();
            bar.set_position(number);
        }
        if let Some(rate) = rate.filter(|rate| *rate > 0) {
            out.flush()?;
            pace(begun, number, rate);
        }
    }
    bar.finish_and_clear();
    Ok(bytes)
}

/// Waits until it is time for the next record.
#[expect(
    clippy::disallowed_methods,
    reason = "a command of its own, outside of the worker: it has the thread to itself"
)]
fn pace(begun: tokio::time::Instant, number: u64, rate: u64) {
    let due = std::time::Duration::from_micros(number.saturating_mul(1_000_000) / rate);
    std::thread::sleep(due.saturating_sub(begun.elapsed()));
}
