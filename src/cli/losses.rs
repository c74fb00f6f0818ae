//! `losses`: what was lost in sources, and files about which somebody must decide.
//!
//! Owns: printing. Does not own: losses as they are stored (`source::losses`).

use std::process::ExitCode;

use checkpoints::ShardKey;
use serde_json::json;

use crate::cli::args::{LossesArgs, LossesCommand, ThenArg};
use crate::cli::output::Table;
use crate::cli::{Usage, load};
use crate::lake::{ObjectStore, Retrying};
use crate::retry::RetryPolicy;
use crate::setup::{load_aws, open_existing_lake};
use crate::source::losses::{self, Loss, LossKind, Then};

pub(crate) async fn losses(args: &LossesArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (LossesCommand::List { lake } | LossesCommand::Accept { lake, .. }) = &args.command;
    let config = load(&lake.overrides())?;
    let aws = load_aws(&config).await?;
    let lake = Retrying::new(open_existing_lake(&config, aws.as_ref()).await?, RetryPolicy::default());
    match &args.command {
        LossesCommand::List { .. } => list(&lake, json).await,
        LossesCommand::Accept { shard, then, .. } => accept(&lake, shard, *then).await,
    }
}

/// What was decided, in words.
fn decision(then: Option<Then>) -> &'static str {
    match then {
        None => "open",
        Some(Then::Start) => "accepted, then start",
        Some(Then::Position) => "accepted, then position",
    }
}

async fn list(lake: &dyn ObjectStore, json: bool) -> anyhow::Result<ExitCode> {
    let all = losses::list(lake).await?;
    let open = all.iter().filter(|(_, then)| then.is_none()).count();
    if json {
        let all: Vec<_> = all.iter().map(|(loss, then)| json!({ "loss": loss, "then": then })).collect();
        println!("{}", json!({ "losses": all, "open": open }));
    } else {
        let mut table = Table::new(&["shard", "found", "state", "problem"]);
        for (loss, then) in &all {
            let Loss { shard, found_at, problem, .. } = loss;
            table.row([shard.to_string(), found_at.clone(), decision(*then).to_owned(), problem.clone()]);
        }
        if table.is_empty() { println!("no losses") } else { print!("{}", table.render("")) }
    }
    Ok(ExitCode::from(u8::from(open > 0)))
}

async fn accept(lake: &dyn ObjectStore, shard: &str, then: Option<ThenArg>) -> anyhow::Result<ExitCode> {
    let all = losses::list(lake).await?;
    let is_meant = |key: &ShardKey| key.shard.as_str() == shard || format!("{}/{}", key.stream, key.shard) == shard;
    let mut found = all.iter().filter(|(loss, then)| then.is_none() && is_meant(&loss.key()));
    let loss = match (found.next(), found.next()) {
        (Some((loss, _)), None) => loss,
        (None, _) => return Err(Usage(format!("there is no open loss of a shard '{shard}'; see `losses list`")).into()),
        _ => return Err(Usage(format!("several streams have a loss of a shard '{shard}'; write STREAM/SHARD")).into()),
    };
    let then = match (loss.kind, then) {
        (LossKind::Lost, Some(_)) => {
            return Err(Usage("the bytes are gone, so there is nothing to decide: leave out --then".to_owned()).into());
        }
        (LossKind::Lost, None) | (LossKind::Unclear, Some(ThenArg::Start)) => Then::Start,
        (LossKind::Unclear, Some(ThenArg::Position)) => Then::Position,
        (LossKind::Unclear, None) => {
            let problem = "say what the file is now: --then start reads it from its start as a new file, --then position continues \
                           where reading was";
            return Err(Usage(problem.to_owned()).into());
        }
    };
    losses::accept(lake, loss, then).await?;
    println!("accepted the loss of {}", loss.key());
    Ok(ExitCode::SUCCESS)
}
