//! `checkpoints`: the positions of all shards, and the named checkpoints that were saved of them.
//!
//! Owns: printing. Does not own: what a named checkpoint is and how it is stored (`commit::named_checkpoint`), what is put into one
//! and until when it can be used (`named_checkpoints`). Named checkpoints are in the lake; only `list` and `save` read the lease
//! table, and `list` shows the named ones without it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use checkpoints::{Lease, Position, ShardId, ShardKey, StoreError, StreamName};
use pipeline::time::format_rfc3339;
use serde_json::{Value, json};

use crate::cli::args::{CheckpointsArgs, CheckpointsCommand};
use crate::cli::output::{Table, counted, shorten, show_count};
use crate::cli::status::sources;
use crate::cli::{Usage, load};
use crate::clock::{Clock, SystemClock};
use crate::commit::{
    CheckpointName, CheckpointSummary, CommitError, NamedCheckpoint, SavedBy, SavedShard, Stores, delete_checkpoint,
    get_checkpoint, is_internal_stream, list_checkpoints, save_checkpoint,
};
use crate::config::Config;
use crate::lake::{LakeError, ObjectStore, Retrying};
use crate::named_checkpoints::{Retentions, Usability, Usable, take};
use crate::retry::RetryPolicy;
use crate::setup::{OpenError, load_aws, open_existing, open_existing_lake, open_existing_leases, stream_names};

/// Digits of a definition's hash that are shown to people.
const HASH_SHOWN: usize = 12;

pub(crate) async fn checkpoints(args: &CheckpointsArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (lake_args, name) = match &args.command {
        CheckpointsCommand::List { lake } => (lake, None),
        CheckpointsCommand::Save { lake, name }
        | CheckpointsCommand::Show { lake, name }
        | CheckpointsCommand::Delete { lake, name } => (lake, Some(name)),
    };
    let name = name.map(CheckpointName::new).transpose().map_err(|error| Usage(error.to_string()))?;
    let config = load(&lake_args.overrides())?.waiting_briefly();
    match (&args.command, name) {
        (CheckpointsCommand::Save { .. }, Some(name)) => save(&config, name, json).await,
        (CheckpointsCommand::Show { .. }, Some(name)) => show(&config, &open_lake(&config).await?, &name, json).await,
        (CheckpointsCommand::Delete { .. }, Some(name)) => delete(&*open_lake(&config).await?, &name, json).await,
        _ => list(&config, &open_lake(&config).await?, json).await,
    }
}

async fn open_lake(config: &Config) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let aws = load_aws(config).await?;
    let lake = open_existing_lake(config, aws.as_ref()).await?;
    Ok(Arc::new(Retrying::new(lake, RetryPolicy::default())))
}

async fn list(config: &Config, lake: &Arc<dyn ObjectStore>, json: bool) -> anyhow::Result<ExitCode> {
    let (saved, unreadable) = list_checkpoints(&**lake).await?;
    // Named checkpoints are what is left when the lease table is lost: they are listed without it.
    let (leases, problem) = match leases(config, lake).await {
        Ok(leases) => (Some(leases), None),
        Err(error @ (OpenError::NoLeases { .. } | OpenError::Leases(StoreError::Unusable { .. }))) => {
            (None, Some(error.to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    let retentions = retentions(config, lake, &saved).await;
    let code = ExitCode::from(u8::from(!unreadable.is_empty()));
    if json {
        let saved: Vec<Value> = saved.iter().map(|one| summary_json(one, &retentions)).collect();
        let positions = leases.as_deref().map(|leases| {
            let one = |lease: &Lease| json!({ "stream": lease.key.stream, "shard": lease.key.shard, "position": lease.checkpoint });
            leases.iter().map(one).collect::<Vec<Value>>()
        });
        let unreadable: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        println!("{}", json!({ "positions": positions, "problem": problem, "saved": saved, "unreadable": unreadable }));
        return Ok(code);
    }
    if let Some(leases) = leases {
        print!("{}", positions_table(leases.iter().map(|lease| (&lease.key, &lease.checkpoint))).render(""));
    }
    if let Some(problem) = problem {
        println!("the current positions are not known: {problem}");
    }
    let mut table = Table::new(&["saved as", "at", "by", ">log version", ">shards", "usable until"]);
    for one in &saved {
        let (usable, usability) = usability(one, &retentions);
        table.row([
            one.name.to_string(),
            format_rfc3339(one.saved_at_ms),
            show_saved_by(one.saved_by).to_owned(),
            one.log_version.map_or_else(String::new, |version| show_count(version.0)),
            show_count(one.shards as u64),
            show_usable(usable.as_ref(), usability),
        ]);
    }
    if !table.is_empty() {
        print!("\n{}", table.render(""));
    }
    for error in unreadable {
        println!("{error}");
    }
    Ok(code)
}

async fn save(config: &Config, name: CheckpointName, json: bool) -> anyhow::Result<ExitCode> {
    if name.is_reserved() {
        let problem = format!("'{name}' is not available: names that begin with auto- belong to [checkpoints] every");
        return Err(Usage(problem).into());
    }
    let stores = open_existing(config).await?;
    if get_checkpoint(&*stores.lake, &name).await.ok().flatten().is_some() {
        return Err(exists(&name));
    }
    let now_ms = SystemClock.now_ms();
    let streams: BTreeSet<StreamName> = stores.own_leases().await?.into_iter().map(|lease| lease.key.stream).collect();
    let sources = sources(config, &stores.lake, &streams).await;
    let retentions = Retentions::ask(&sources).await;
    let checkpoint = take(&stores, &sources, &retentions, name, SavedBy::Command, now_ms).await?;
    if !save_checkpoint(&*stores.lake, &checkpoint).await? {
        return Err(exists(&checkpoint.name));
    }
    let summary = summary(&*stores.lake, &checkpoint).await?;
    if json {
        println!("{}", summary_json(&summary, &retentions));
        return Ok(ExitCode::SUCCESS);
    }
    println!("saved {} as {}", counted(summary.shards as u64, "position"), summary.name);
    if let (Some(usable), usability) = usability(&summary, &retentions) {
        println!("usable until {}", usable.until());
        if usability != Usability::Usable {
            println!("that is soon: {}", usable.advice());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(
    config: &Config,
    lake: &Arc<dyn ObjectStore>,
    name: &CheckpointName,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Some(found) = get_checkpoint(&**lake, name).await? else { return Err(absent(name)) };
    let summary = summary(&**lake, &found).await?;
    let retentions = retentions(config, lake, std::slice::from_ref(&summary)).await;
    let NamedCheckpoint { definitions, behind_ms, shards, .. } = &found;
    if json {
        let mut value = summary_json(&summary, &retentions);
        value["positions"] = shards.iter().map(shard_json).collect();
        value["definitions"] = json!(definitions);
        value["behind_ms"] = json!(behind_ms);
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    let by = show_saved_by(found.saved_by);
    println!("{name}, saved by {by} at {}", format_rfc3339(found.saved_at_ms));
    if let Some(version) = found.log_version {
        println!("log version: {}, or one that was entered during the save", show_count(version.0));
    }
    if let (Some(usable), usability) = usability(&summary, &retentions) {
        println!("usable until: {}", show_usable(Some(&usable), usability));
        if usability == Usability::Expiring {
            println!("that is soon: {}", usable.advice());
        }
    }
    let mut table = Table::new(&["stream", "shard", ">position", "from", "became", "last epoch"]);
    for shard in shards {
        let last = shard.last_manifest.as_ref().map_or("", |name| name.as_str());
        let last = last.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        table.row([
            shorten(shard.key.stream.as_str(), 40),
            shorten(shard.key.shard.as_str(), 40),
            shorten(&shard.checkpoint.to_string(), 24),
            shorten(&ids(&shard.parents), 40),
            shorten(&ids(&shard.children), 40),
            last.to_owned(),
        ]);
    }
    print!("\n{}", table.render(""));
    let mut table = Table::new(&["dataset", "definition", ">schema version"]);
    for (dataset, definition) in definitions.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
        let hash = definition.hash.chars().take(HASH_SHOWN).collect();
        table.row([dataset.clone(), hash, definition.schema_version.to_string()]);
    }
    if !table.is_empty() {
        print!("\n{}", table.render(""));
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(lake: &dyn ObjectStore, name: &CheckpointName, json: bool) -> anyhow::Result<ExitCode> {
    if !delete_checkpoint(lake, name).await? {
        return Err(absent(name));
    }
    if json {
        println!("{}", json!({ "deleted": name }));
    } else {
        println!("deleted {name}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A checkpoint as a list shows it, with the time at which the store has written it.
async fn summary(lake: &dyn ObjectStore, checkpoint: &NamedCheckpoint) -> Result<CheckpointSummary, LakeError> {
    let key = checkpoint.name.key();
    let listed = lake.list(key.as_str()).await?;
    let stored = listed.into_iter().find(|object| object.key == key);
    Ok(checkpoint.summary(stored.map_or(checkpoint.saved_at_ms, |stored| stored.modified_ms)))
}

fn absent(name: &CheckpointName) -> anyhow::Error {
    Usage(format!("there is no checkpoint '{name}'")).into()
}

fn exists(name: &CheckpointName) -> anyhow::Error {
    Usage(format!("there is a checkpoint '{name}' already: delete it, or choose another name")).into()
}

/// The rows of this lake's streams.
async fn leases(config: &Config, lake: &Arc<dyn ObjectStore>) -> Result<Vec<Lease>, OpenError> {
    let aws = load_aws(config).await?;
    let leases = open_existing_leases(config, aws.as_ref()).await?;
    let stores = Stores::new(Arc::clone(lake), leases, RetryPolicy::CALL);
    match stores.with_streams(stream_names(config)).own_leases().await {
        Ok(mut leases) => {
            leases.retain(|lease| !is_internal_stream(&lease.key.stream));
            Ok(leases)
        }
        Err(CommitError::Leases(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    }
}

/// How long the streams of these checkpoints keep their records. Asks nothing if no checkpoint is saved.
async fn retentions(config: &Config, lake: &Arc<dyn ObjectStore>, saved: &[CheckpointSummary]) -> Retentions {
    let streams: BTreeSet<StreamName> = saved.iter().flat_map(|one| one.unfinished.iter().cloned()).collect();
    if streams.is_empty() {
        return Retentions::default();
    }
    Retentions::ask(&sources(config, lake, &streams).await).await
}

fn usability(one: &CheckpointSummary, retentions: &Retentions) -> (Option<Usable>, Usability) {
    let usable = Usable::of(one, retentions);
    let usability = usable.as_ref().map_or(Usability::Usable, |usable| usable.at(SystemClock.now_ms()));
    (usable, usability)
}

fn summary_json(one: &CheckpointSummary, retentions: &Retentions) -> Value {
    let (usable, usability) = usability(one, retentions);
    json!({
        "name": one.name,
        "saved_at": format_rfc3339(one.saved_at_ms),
        "saved_by": one.saved_by,
        "log_version": one.log_version,
        "shards": one.shards,
        "usable_until": usable.as_ref().map(|usable| format_rfc3339(usable.until_ms)),
        "usable_until_is_at_most": usable.as_ref().is_some_and(|usable| usable.is_at_most),
        "usability": usability,
    })
}

fn shard_json(shard: &SavedShard) -> Value {
    let SavedShard { key, checkpoint, parents, children, last_manifest } = shard;
    json!({
        "stream": key.stream,
        "shard": key.shard,
        "position": checkpoint,
        "parents": parents,
        "children": children,
        "last_manifest": last_manifest,
    })
}

fn show_saved_by(by: SavedBy) -> &'static str {
    match by {
        SavedBy::Command => "command",
        SavedBy::Schedule => "schedule",
    }
}

fn show_usable(usable: Option<&Usable>, usability: Usability) -> String {
    let Some(usable) = usable else { return String::new() };
    let note = match usability {
        Usability::Usable => "",
        Usability::Expiring => " (soon)",
        Usability::Expired => " (over)",
    };
    format!("{}{note}", usable.until())
}

fn ids(ids: &BTreeSet<ShardId>) -> String {
    ids.iter().map(ShardId::as_str).collect::<Vec<_>>().join(" ")
}

fn positions_table<'p>(positions: impl Iterator<Item = (&'p ShardKey, &'p Position)>) -> Table {
    let mut table = Table::new(&["stream", "shard", ">position"]);
    for (key, position) in positions {
        let (stream, shard) = (shorten(key.stream.as_str(), 40), shorten(key.shard.as_str(), 40));
        table.row([stream, shard, shorten(&position.to_string(), 24)]);
    }
    table
}
