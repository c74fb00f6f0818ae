//! `sweep`: removes what epochs that were never committed left behind, and old entries of the lake log.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::cli::args::SweepArgs;
use crate::cli::output::{counted, show_bytes};
use crate::cli::replay_promote::new_operator;
use crate::cli::{Usage, load};
use crate::clock::{Clock, SharedClock, SystemClock};
use crate::commit::Stores;
use crate::commit::log::{RollUpConfig, RolledUp, roll_up};
use crate::config::Config;
use crate::maintenance::purge::{Kept, old_trash, purge};
use crate::maintenance::{self, Swept, TRIM_AGE};
use crate::replay::promote::Aside;
use crate::replay::{find_plan, promote, replay_lake_of};
use crate::settings::units::parse_duration;
use crate::setup::open_existing;

/// The lowest age: a request may live that long.
const AGE_MIN: Duration = Duration::from_secs(3600);

pub(crate) async fn sweep(args: &SweepArgs, json: bool) -> anyhow::Result<ExitCode> {
    let age = parse_duration(&args.older_than).map_err(Usage)?;
    if age < AGE_MIN {
        return Err(Usage("--older-than must be at least 1h, because a request may take that long".to_owned()).into());
    }
    let config = load(&args.lake.overrides())?;
    let stores = open_existing(&config).await?;
    let Swept { uploads, intents, kept } = maintenance::sweep(&stores, SystemClock.now_ms(), age, args.dry_run).await?;
    let (purged, trash) = purge_old(&config, &stores, args.dry_run).await?;
    let trimmed = maintenance::trim_what_snapshots_have(&stores, TRIM_AGE, args.dry_run).await?.entries;
    let number = if args.dry_run { None } else { roll_up_if_due(&stores).await };
    if json {
        println!(
            "{}",
            json!({
                "uploads": uploads,
                "intents": intents,
                "kept": kept,
                "log_entries": trimmed,
                "purged_objects": purged,
                "purged_bytes": trash,
                "dry_run": args.dry_run,
                "roll_up": number
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    println!(
        "{verb} {} and {}; {kept} are young or still needed",
        counted(uploads, "upload"),
        counted(intents, "intent")
    );
    if purged > 0 {
        println!("{verb} {} ({}) that operations had replaced", counted(purged, "object"), show_bytes(trash));
    }
    if trimmed > 0 {
        println!("{verb} {} of the lake log, which snapshots have", counted(trimmed, "old version"));
    }
    if let Some(number) = number {
        println!("wrote roll-up {number} of the commit log");
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes what operations have replaced, once it is older than the configuration keeps it; also what their replays had made aside. Returns
/// the number of objects, and their size.
async fn purge_old(config: &Config, stores: &Stores, dry_run: bool) -> anyhow::Result<(u64, u64)> {
    let (old, _) = old_trash(&*stores.lake, config.undo_within).await?;
    let count = |old: &[Kept]| {
        let bytes = old.iter().map(|kept| kept.bytes).sum::<u64>();
        (old.iter().map(|kept| kept.objects).sum::<u64>(), bytes)
    };
    if old.is_empty() || dry_run {
        return Ok(count(&old));
    }
    let clock: SharedClock = Arc::new(SystemClock);
    let mut operator = new_operator(config, stores, &clock).await?;
    let purged = purge(&mut operator, stores, old).await?;
    let (mut objects, mut bytes) = (purged.objects, purged.bytes);
    for id in purged.operations.iter().filter_map(|(_, of)| of.as_deref()?.strip_prefix("replay:")) {
        let Ok(plan) = find_plan(&*stores.lake, id).await else { continue };
        let (aside, prefix) = (replay_lake_of(&stores.lake, &plan), plan.aside_prefix());
        let aside = Aside { lake: &aside, prefix: &prefix };
        match promote::purge(&mut operator, stores, &*clock, &plan, aside).await {
            Ok(done) => {
                objects += done.aside_objects + done.kept_objects;
                bytes += done.aside_bytes + done.kept_bytes;
            }
            Err(error) => tracing::warn!(replay = id, %error, "failed to purge a replay; run shardlake replay purge"),
        }
    }
    operator.close().await;
    Ok((objects, bytes))
}

/// Writes a roll-up if many commits have none, as where no worker runs for long: its number.
pub(crate) async fn roll_up_if_due(stores: &Stores) -> Option<u64> {
    match roll_up(stores, RollUpConfig::default()).await {
        Ok(RolledUp::Written { number, .. }) => Some(number),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "failed to write a roll-up of the commit log; a later one covers more");
            None
        }
    }
}
