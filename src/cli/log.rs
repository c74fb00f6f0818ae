//! `log`: the versions of the lake, the newest first, and one version whole.
//!
//! Owns: printing. Does not own: what the lines say (`inspect`).

use std::process::ExitCode;

use serde_json::to_string;

use crate::cli::output::{Table, counted, shorten, show_bytes, show_count};
use crate::cli::show_args::{LogArgs, LogCommand};
use crate::cli::{Usage, load, of_history, version_or_time};
use crate::commit::lake_log::LogVersion;
use crate::inspect::{EntryDetails, LogLine, LogQuery, log_entry, log_lines};
use crate::lake::{ObjectStore, Retrying};
use crate::retry::RetryPolicy;
use crate::setup::{load_aws, open_existing_lake};

/// Folders that the text shows of one version.
const FOLDERS_SHOWN: usize = 40;

pub(crate) async fn log(args: &LogArgs, json: bool) -> anyhow::Result<ExitCode> {
    let lake_args = match &args.command {
        Some(LogCommand::Show { lake, .. }) => lake,
        None => &args.lake,
    };
    let query = LogQuery {
        limit: args.limit,
        since: args.since.as_deref().map(version_or_time).transpose()?,
        until: args.until.as_deref().map(version_or_time).transpose()?,
        dataset: args.dataset.clone(),
    };
    let config = load(&lake_args.overrides())?;
    let aws = load_aws(&config).await?;
    // The log is in the lake: no lease table is needed.
    let lake = Retrying::new(open_existing_lake(&config, aws.as_ref()).await?, RetryPolicy::default());
    match &args.command {
        Some(LogCommand::Show { version, .. }) => show(&lake, LogVersion(*version), json).await,
        None => list(&lake, &query, json).await,
    }
}

async fn list(lake: &dyn ObjectStore, query: &LogQuery, json: bool) -> anyhow::Result<ExitCode> {
    let lines = log_lines(lake, query).await.map_err(of_history)?;
    if json {
        for line in &lines {
            println!("{}", to_string(line)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if lines.is_empty() {
        println!("no versions");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table =
        Table::new(&[">version", "entered", "kind", "worker", ">rows", ">dead letters", ">objects", ">size", "of"]);
    for line in &lines {
        table.row([
            line.version.to_string(),
            // Seconds are enough for people.
            line.entered_at.get(..19).map_or_else(|| line.entered_at.clone(), |seconds| seconds.replace('T', " ")),
            kind_name(line),
            line.worker.as_deref().map_or_else(String::new, |worker| worker.chars().take(8).collect()),
            show_change(line.rows.values().sum(), line.rows_removed.values().sum()),
            show_change(line.dead_letters, line.dead_letters_removed),
            show_objects(line.objects_added, line.objects_removed),
            show_bytes(line.bytes_added),
            line.of.clone().unwrap_or_default(),
        ]);
    }
    print!("{}", table.render(""));
    Ok(ExitCode::SUCCESS)
}

fn kind_name(line: &LogLine) -> String {
    serde_json::to_value(line.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What was added; beside it what was removed, if anything was.
fn show_change(added: u64, removed: u64) -> String {
    if removed == 0 { show_count(added) } else { show_objects(added, removed) }
}

fn show_objects(added: u64, removed: u64) -> String {
    match (added, removed) {
        (added, 0) => format!("+{}", show_count(added)),
        (0, removed) => format!("-{}", show_count(removed)),
        (added, removed) => format!("+{} -{}", show_count(added), show_count(removed)),
    }
}

async fn show(lake: &dyn ObjectStore, version: LogVersion, json: bool) -> anyhow::Result<ExitCode> {
    let found = log_entry(lake, version).await.map_err(of_history)?.and_then(EntryDetails::new);
    let Some(details) = found else {
        return Err(Usage(format!("the lake log has no version {version}; `shardlake log` lists the versions")).into());
    };
    if json {
        println!("{}", to_string(&details)?);
        return Ok(ExitCode::SUCCESS);
    }
    let line = &details.line;
    println!("version {}, entered at {}", line.version, line.entered_at);
    println!("{} {}", kind_name(line), line.epoch);
    if let Some(of) = &line.of {
        println!("of {of}");
    }
    println!("commit record {}", details.record);
    println!("hash {}", details.hash);
    println!("hash of the version before {}", details.previous);
    let rows: Vec<String> = line.rows.iter().map(|(name, count)| format!("{name} {}", show_count(*count))).collect();
    println!(
        "\n{}; rows: {}",
        counted(line.records, "record"),
        if rows.is_empty() { "none".to_owned() } else { rows.join(", ") }
    );
    for (code, count) in &details.dead_letters_by_code {
        println!("dead letters: {code} {}", show_count(*count));
    }
    let mut shards = Table::new(&["stream", "shard", ">after", ">through", ">records"]);
    for shard in &details.shards {
        shards.row([
            shorten(shard.key.stream.as_str(), 32),
            shorten(shard.key.shard.as_str(), 32),
            shorten(&shard.range.after().to_string(), 24),
            shorten(&shard.range.through().to_string(), 24),
            show_count(shard.records),
        ]);
    }
    print!("\n{}", shards.render(""));
    let mut folders = Table::new(&["folder", ">objects", ">rows", ">size"]);
    for change in details.partitions.iter().take(FOLDERS_SHOWN) {
        folders.row([
            shorten(&change.folder, 72),
            show_objects(change.added, change.removed),
            show_change(change.rows, change.rows_removed),
            show_bytes(change.bytes),
        ]);
    }
    if !folders.is_empty() {
        print!("\n{}", folders.render(""));
    }
    if let Some(more @ 1..) = details.partitions.len().checked_sub(FOLDERS_SHOWN) {
        println!("{more} more folders; `--json` lists all");
    }
    Ok(ExitCode::SUCCESS)
}
