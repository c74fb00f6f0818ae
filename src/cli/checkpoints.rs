//! `checkpoints`: the positions of all shards, and the named checkpoints that were saved of them.
//!
//! Owns: printing. Does not own: what a named checkpoint is and how it is stored (`commit::named_checkpoint`). Named checkpoints
//! are in the lake; only `list` and `save` read the lease table, and `list` shows the named ones without it.

use std::process::ExitCode;

use checkpoints::{Lease, Position, ShardKey, StoreError};
use pipeline::time::format_rfc3339;
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::cli::args::{CheckpointsArgs, CheckpointsCommand};
use crate::cli::output::{Table, shorten, show_count};
use crate::cli::{Usage, load};
use crate::clock::{Clock, SystemClock};
use crate::commit::{
    CheckpointName, NamedCheckpoint, delete_checkpoint, get_checkpoint, list_checkpoints, save_checkpoint,
};
use crate::config::Config;
use crate::lake::{ObjectStore, Retrying};
use crate::retry::RetryPolicy;
use crate::setup::{OpenError, load_aws, open_existing_lake, open_existing_leases};

pub(crate) async fn checkpoints(args: &CheckpointsArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (lake_args, name) = match &args.command {
        CheckpointsCommand::List { lake } => (lake, None),
        CheckpointsCommand::Save { lake, name }
        | CheckpointsCommand::Show { lake, name }
        | CheckpointsCommand::Delete { lake, name } => (lake, Some(name)),
    };
    let name = name.map(CheckpointName::new).transpose().map_err(|error| Usage(error.to_string()))?;
    let config = load(&lake_args.overrides())?;
    let aws = load_aws(&config).await?;
    let lake = Retrying::new(open_existing_lake(&config, aws.as_ref()).await?, RetryPolicy::default());
    match (&args.command, name) {
        (CheckpointsCommand::Save { .. }, Some(name)) => save(&config, aws.as_ref(), &lake, name).await,
        (CheckpointsCommand::Show { .. }, Some(name)) => show(&lake, &name, json).await,
        (CheckpointsCommand::Delete { .. }, Some(name)) => delete(&lake, &name).await,
        _ => list(&config, aws.as_ref(), &lake, json).await,
    }
}

async fn list(config: &Config, aws: Option<&Aws>, lake: &dyn ObjectStore, json: bool) -> anyhow::Result<ExitCode> {
    let (saved, unreadable) = list_checkpoints(lake).await?;
    // Named checkpoints are what is left when the lease table is lost: they are listed without it.
    let (leases, problem) = match leases(config, aws).await {
        Ok(leases) => (Some(leases), None),
        Err(error @ (OpenError::NoLeases { .. } | OpenError::Leases(StoreError::Unusable { .. }))) => {
            (None, Some(error.to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    let positions: Option<Vec<_>> =
        leases.as_ref().map(|leases| leases.iter().map(|lease| (&lease.key, &lease.checkpoint)).collect());
    let code = ExitCode::from(u8::from(!unreadable.is_empty()));
    if json {
        let names: Vec<Value> = saved
            .iter()
            .map(|one| json!({ "name": one.name, "saved_at": format_rfc3339(one.saved_at_ms), "shards": one.shards }))
            .collect();
        let positions = positions.as_deref().map(positions_json);
        let unreadable: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        println!("{}", json!({ "positions": positions, "problem": problem, "saved": names, "unreadable": unreadable }));
        return Ok(code);
    }
    if let Some(positions) = positions {
        print!("{}", positions_table(&positions).render(""));
    }
    if let Some(problem) = problem {
        println!("the current positions are not known: {problem}");
    }
    let mut table = Table::new(&["saved as", "at", ">shards"]);
    for one in saved {
        table.row([one.name.to_string(), format_rfc3339(one.saved_at_ms), show_count(one.shards as u64)]);
    }
    if !table.is_empty() {
        print!("\n{}", table.render(""));
    }
    for error in unreadable {
        println!("{error}");
    }
    Ok(code)
}

async fn save(
    config: &Config,
    aws: Option<&Aws>,
    lake: &dyn ObjectStore,
    name: CheckpointName,
) -> anyhow::Result<ExitCode> {
    let leases = leases(config, aws).await?;
    let checkpoint = NamedCheckpoint::of_leases(name, SystemClock.now_ms(), leases);
    let NamedCheckpoint { name, shards, .. } = &checkpoint;
    if !save_checkpoint(lake, &checkpoint).await? {
        let problem = format!("there is a checkpoint '{name}' already: delete it, or choose another name");
        return Err(Usage(problem).into());
    }
    println!("saved {} positions as {name}", shards.len());
    Ok(ExitCode::SUCCESS)
}

async fn show(lake: &dyn ObjectStore, name: &CheckpointName, json: bool) -> anyhow::Result<ExitCode> {
    let Some(found) = get_checkpoint(lake, name).await? else { return Err(absent(name)) };
    let positions: Vec<_> = found.shards.iter().map(|shard| (&shard.key, &shard.checkpoint)).collect();
    let saved_at = format_rfc3339(found.saved_at_ms);
    if json {
        println!("{}", json!({ "name": name, "saved_at": saved_at, "positions": positions_json(&positions) }));
    } else {
        println!("{name}, saved at {saved_at}");
        print!("{}", positions_table(&positions).render(""));
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(lake: &dyn ObjectStore, name: &CheckpointName) -> anyhow::Result<ExitCode> {
    if !delete_checkpoint(lake, name).await? {
        return Err(absent(name));
    }
    println!("deleted {name}");
    Ok(ExitCode::SUCCESS)
}

fn absent(name: &CheckpointName) -> anyhow::Error {
    Usage(format!("there is no checkpoint '{name}'")).into()
}

/// All rows of the lease table.
async fn leases(config: &Config, aws: Option<&Aws>) -> Result<Vec<Lease>, OpenError> {
    let leases = open_existing_leases(config, aws).await?;
    Ok(RetryPolicy::default().run("the lease store", || leases.list()).await?)
}

fn positions_table(positions: &[(&ShardKey, &Position)]) -> Table {
    let mut table = Table::new(&["stream", "shard", ">position"]);
    for (key, position) in positions {
        let (stream, shard) = (shorten(key.stream.as_str(), 40), shorten(key.shard.as_str(), 40));
        table.row([stream, shard, shorten(&position.to_string(), 24)]);
    }
    table
}

fn positions_json(positions: &[(&ShardKey, &Position)]) -> Vec<Value> {
    let one = |(key, position): &(&ShardKey, &Position)| json!({ "stream": key.stream, "shard": key.shard, "position": position });
    positions.iter().map(one).collect()
}
