//! `replay promote`, `replay undo` and `replay purge`; and of `replay cancel`, that no promotion can follow.
//!
//! Owns: opening what they need, and printing. Does not own: what they do (`replay::promote`).

use std::process::ExitCode;
use std::sync::Arc;

use checkpoints::LeaseOwner;
use serde_json::{Value, json, to_value};

use crate::cli::args::LakeArgs;
use crate::cli::output::{counted, show_bytes, show_count};
use crate::cli::replay::of_plan;
use crate::cli::replay_args::{OrderArg, PromoteArgs, PurgeArgs, UndoArgs};
use crate::cli::{Usage, load};
use crate::clock::{SharedClock, SystemClock, random_bytes};
use crate::commit::{Stores, SwapOrder};
use crate::config::Config;
use crate::lake::{DefinitionClaims, InsideLake, preview_fields};
use crate::maintenance::operation::Operator;
use crate::replay::promote::{Aside, Changed, PromoteError, PromoteOptions, PurgedReplay};
use crate::replay::{Plan, ReplayId, find_plan, promote, replay_lake_of};
use crate::setup::open_existing;

/// What a command on one replay works with.
struct Opened {
    config: Config,
    stores: Stores,
    clock: SharedClock,
    plan: Plan,
    aside: InsideLake,
    prefix: String,
}

impl Opened {
    async fn open(args: &LakeArgs, id: &str) -> anyhow::Result<Self> {
        let config = load(&args.overrides())?;
        let stores = open_existing(&config).await?;
        let plan = find_plan(&*stores.lake, id).await.map_err(of_plan)?;
        let (aside, prefix) = (replay_lake_of(&stores.lake, &plan), plan.aside_prefix());
        Ok(Opened { config, stores, clock: Arc::new(SystemClock), plan, aside, prefix })
    }

    fn aside(&self) -> Aside<'_> {
        Aside { lake: &self.aside, prefix: &self.prefix }
    }

    async fn operator(&self) -> anyhow::Result<Operator> {
        new_operator(&self.config, &self.stores, &self.clock).await
    }
}

/// A process that runs operations on the lake.
pub(crate) async fn new_operator(config: &Config, stores: &Stores, clock: &SharedClock) -> anyhow::Result<Operator> {
    let (me, failover) = (LeaseOwner::from_random(random_bytes()?), config.worker.leases.failover);
    Ok(Operator::new(me, stores.clone(), Arc::clone(clock), failover, random_bytes()?).await?)
}

fn order_of(order: OrderArg) -> SwapOrder {
    match order {
        OrderArg::AddFirst => SwapOrder::AddFirst,
        OrderArg::RemoveFirst => SwapOrder::RemoveFirst,
    }
}

/// What the caller can act on is a mistake of the caller, and nothing was changed.
fn of_promote(error: PromoteError) -> anyhow::Error {
    if error.is_usage() { Usage(error.to_string()).into() } else { error.into() }
}

pub(crate) async fn promote(args: &PromoteArgs, json: bool) -> anyhow::Result<ExitCode> {
    let mut opened = Opened::open(&args.lake, &args.id).await?;
    preview_fields(&*opened.stores.lake, &mut opened.config.datasets).await?;
    let mut operator = opened.operator().await?;
    let claims = DefinitionClaims::default();
    let options = PromoteOptions { order: order_of(args.order), accept_difference: args.accept_difference };
    let definitions = (&claims, &opened.config.datasets);
    let (stores, clock, plan) = (&opened.stores, &*opened.clock, &opened.plan);
    let done = promote::promote(&mut operator, stores, clock, plan, opened.aside(), definitions, options).await;
    operator.close().await;
    let done = done.map_err(of_promote)?;
    print(&plan.id, "promoted", &done, json)?;
    if !json {
        println!("to take it back, until it is purged: shardlake replay undo {}", plan.id);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn undo(args: &UndoArgs, json: bool) -> anyhow::Result<ExitCode> {
    let opened = Opened::open(&args.lake, &args.id).await?;
    let mut operator = opened.operator().await?;
    let (stores, clock, plan) = (&opened.stores, &*opened.clock, &opened.plan);
    let done = promote::undo(&mut operator, stores, clock, plan, order_of(args.order)).await;
    operator.close().await;
    print(&plan.id, "undone", &done.map_err(of_promote)?, json)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn purge(args: &PurgeArgs, json: bool) -> anyhow::Result<ExitCode> {
    let opened = Opened::open(&args.lake, &args.id).await?;
    let (stores, clock, plan) = (&opened.stores, &*opened.clock, &opened.plan);
    let purged = if args.dry_run {
        promote::purgeable(&*stores.lake, plan, opened.aside()).await.map_err(of_promote)?
    } else {
        let mut operator = opened.operator().await?;
        let purged = promote::purge(&mut operator, stores, clock, plan, opened.aside()).await;
        operator.close().await;
        purged.map_err(of_promote)?
    };
    if json {
        let mut value = to_value(purged)?;
        (value["id"], value["dry_run"]) = (Value::from(plan.id.as_str()), Value::from(args.dry_run));
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    let PurgedReplay { kept_objects, kept_bytes, aside_objects, aside_bytes } = purged;
    println!(
        "{} of replay {}: {} that were replaced ({}), and {} that were made aside ({})",
        if args.dry_run { "would remove" } else { "removed" },
        plan.id,
        counted(kept_objects, "object"),
        show_bytes(kept_bytes),
        counted(aside_objects, "object"),
        show_bytes(aside_bytes),
    );
    Ok(ExitCode::SUCCESS)
}

/// Cancels a replay, unless it was promoted. Afterwards nobody promotes it.
pub(crate) async fn cancel(args: &LakeArgs, id: &str) -> anyhow::Result<()> {
    let opened = Opened::open(args, id).await?;
    let mut operator = opened.operator().await?;
    let (stores, clock, plan) = (&opened.stores, &*opened.clock, &opened.plan);
    let cancelled = promote::cancel(&mut operator, stores, clock, plan, opened.aside()).await;
    operator.close().await;
    cancelled.map_err(of_promote)
}

fn print(id: &ReplayId, what: &str, done: &Changed, json: bool) -> anyhow::Result<()> {
    if json {
        let mut value = json!({ "id": id, "state": what });
        for (name, field) in to_value(done)?.as_object().into_iter().flatten() {
            value[name] = field.clone();
        }
        println!("{value}");
        return Ok(());
    }
    let version = done.version.map_or_else(String::new, |version| format!(" in version {version}"));
    let before = if done.before { "was already " } else { "" };
    println!("replay {id} {before}{what}{version}");
    println!(
        "added {} with {} rows and dead letters; removed {} with {}",
        counted(done.added, "object"),
        show_count(done.rows_added),
        counted(done.removed, "object"),
        show_count(done.rows_removed)
    );
    Ok(())
}
