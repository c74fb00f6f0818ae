//! `status`: shards, their owners and checkpoints, how far they are behind, and what has passed through the graph.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use checkpoints::StreamName;
use pipeline::time::format_rfc3339;

use crate::cli::output::{Table, counted, shorten, show_bytes, show_count, show_holder, show_version};
use crate::cli::show_args::StatusArgs;
use crate::cli::status_watch::watch;
use crate::cli::{load, of_history, version_or_time};
use crate::clock::{Clock, SharedClock, SystemClock};
use crate::commit::lake_log::{extent, lake_at, resolve};
use crate::commit::log::{Complete, Watermark};
use crate::commit::{EdgeTotal, log};
use crate::config::Config;
use crate::inspect::{EdgeStatus, ShardStatus, Status, how_far_behind};
use crate::lake::ObjectStore;
use crate::named_checkpoints::{EndingCheckpoint, Usability, ending_checkpoints};
use crate::setup::{load_aws, open_by_name, open_existing, open_sources};
use crate::source::{ShardSource, losses};

/// Problems that the text shows.
const PROBLEMS_SHOWN: usize = 10;

pub(crate) async fn status(args: &StatusArgs, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(every) = &args.watch {
        return watch(args, every, json).await;
    }
    let at = args.at.at.as_deref().map(version_or_time).transpose()?;
    let config = load(&args.lake.overrides())?.waiting_briefly();
    let stores = open_existing(&config).await?;
    if let Some(at) = at {
        let extent = extent(&*stores.lake).await?;
        let version = resolve(&*stores.lake, &extent, at).await.map_err(of_history)?;
        let status = Status::at(lake_at(&*stores.lake, &extent, version).await.map_err(of_history)?);
        return print(&status, json);
    }
    let log = log::read(&stores).await?;
    let streams = log.leases.iter().map(|lease| lease.key.stream.clone()).collect();
    let sources = sources(&config, &stores.lake, &streams).await;
    let behind = how_far_behind(&sources, &log.leases).await;
    let mut status = Status::new(log, &behind);
    let losses = losses::list(&*stores.lake).await?;
    status.losses = losses.into_iter().filter(|(_, then)| then.is_none()).map(|(loss, _)| loss).collect();
    status.ending_checkpoints = ending_checkpoints(&*stores.lake, &sources, SystemClock.now_ms()).await?;
    print(&status, json)
}

fn print(status: &Status, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(status)?);
    } else {
        print_text(status);
    }
    Ok(ExitCode::SUCCESS)
}

/// The sources of the configuration, and those of other streams whose names are their URLs. Those that cannot be opened are left out,
/// and why is logged.
pub(crate) async fn sources(
    config: &Config,
    lake: &Arc<dyn ObjectStore>,
    streams: &BTreeSet<StreamName>,
) -> Vec<Arc<dyn ShardSource>> {
    let clock: SharedClock = Arc::new(SystemClock);
    let opened = match load_aws(config).await {
        Ok(aws) => open_sources(config, lake, &clock, true, aws.as_ref()).await,
        Err(error) => Err(error),
    };
    let mut sources: Vec<Arc<dyn ShardSource>> = match opened {
        Ok(opened) => opened.into_iter().map(|opened| opened.source).collect(),
        // Nobody has configured the source of the demonstration, and most commands run where there is none.
        Err(error) if config.demo => {
            tracing::debug!(%error, "there is no demonstration here");
            Vec::new()
        }
        Err(error) => {
            tracing::warn!(%error, "cannot open the configured sources; not showing what only they know");
            Vec::new()
        }
    };
    for stream in streams {
        if !sources.iter().any(|source| source.stream() == stream)
            && let Some(source) = open_by_name(stream, lake, &clock).await
        {
            sources.push(source);
        }
    }
    sources
}

fn print_text(status: &Status) {
    if let Some(at) = &status.at {
        println!("{}", show_version(at));
    }
    let mut table = Table::new(&["shard", "owner", ">checkpoint", ">behind", "pending"]);
    for shard in &status.shards {
        table.row([
            shorten(shard.shard.as_str(), 48),
            show_holder(shard.owner.as_ref(), shard.handed_to.as_ref()),
            shorten(&shard.checkpoint.to_string(), 24),
            show_behind(shard),
            shard.pending.as_ref().map_or_else(String::new, |manifest| shorten(manifest.as_str(), 32)),
        ]);
    }
    let streams: BTreeSet<&str> = status.shards.iter().map(|shard| shard.stream.as_str()).collect();
    for stream in streams {
        println!("stream {stream}");
    }
    print!("{}", table.render("  "));
    let last = status.last_commit.as_ref().map_or_else(String::new, |at| format!(", the last at {at}"));
    println!("\n{} committed{last}", counted(status.epochs, "epoch"));
    print_watermarks(&status.watermarks);
    for loss in status.losses.iter().take(PROBLEMS_SHOWN) {
        println!("loss: {}: {}; see `shardlake losses list`", loss.key(), loss.problem);
    }
    if let Some(more @ 1..) = status.losses.len().checked_sub(PROBLEMS_SHOWN) {
        println!("{more} more losses; `shardlake losses list` shows them all");
    }
    for EndingCheckpoint { name, usable, usability } in status.ending_checkpoints.iter().take(PROBLEMS_SHOWN) {
        match usability {
            Usability::Expired => println!("checkpoint {name}: was usable until {}", usable.until()),
            _ => println!("checkpoint {name}: usable until {}; {}", usable.until(), usable.advice()),
        }
    }
    if let Some(more @ 1..) = status.ending_checkpoints.len().checked_sub(PROBLEMS_SHOWN) {
        println!("{more} more checkpoints; `shardlake checkpoints list` shows them all");
    }
    for problem in status.unreadable.iter().take(PROBLEMS_SHOWN) {
        println!("{problem}");
    }
    if let Some(more @ 1..) = status.unreadable.len().checked_sub(PROBLEMS_SHOWN) {
        println!("{more} more manifests cannot be read; `status --json` lists them all");
    }
    let mut passed = Table::new(&["passed along", ">records", ">bytes"]);
    for EdgeStatus { id, total: EdgeTotal(records, bytes) } in &status.edges {
        passed.row([id.clone(), show_count(*records), show_bytes(*bytes)]);
    }
    if !passed.is_empty() {
        println!();
        print!("{}", passed.render("  "));
    }
}

fn print_watermarks(watermarks: &[Watermark]) {
    let mut table = Table::new(&["dataset", "complete up to", "held back by"]);
    // Of a dataset that is read from files only, nothing can be said.
    for watermark in watermarks.iter().filter(|one| one.streams.iter().any(|stream| stream.has_times)) {
        let (through, shard) = match &watermark.complete {
            Complete::Through { complete_through, held_back_by } => {
                (format_rfc3339(*complete_through), Some(held_back_by))
            }
            Complete::Unknown { held_back_by } => ("?".to_owned(), Some(held_back_by)),
            Complete::Ended => ("the end of all shards".to_owned(), None),
        };
        let shard = shard.map_or_else(String::new, |key| {
            format!("{} of {}", shorten(key.shard.as_str(), 32), shorten(key.stream.as_str(), 32))
        });
        table.row([watermark.dataset.clone(), through, shard]);
    }
    if !table.is_empty() {
        println!();
        print!("{}", table.render("  "));
    }
}

pub(crate) fn show_behind(shard: &ShardStatus) -> String {
    match (shard.behind_bytes, shard.behind_ms) {
        (Some(0), _) | (_, Some(0)) => "0".to_owned(),
        (Some(bytes), _) => show_bytes(bytes),
        (None, Some(ms)) => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        (None, None) => "?".to_owned(),
    }
}
