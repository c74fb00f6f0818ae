//! `sweep`: removes what epochs that were never committed left behind, and old entries of the lake log.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::cli::args::SweepArgs;
use crate::cli::output::counted;
use crate::cli::{Usage, load};
use crate::clock::{Clock, SystemClock};
use crate::commit::Stores;
use crate::commit::log::{RollUpConfig, RolledUp, roll_up};
use crate::maintenance::{self, Swept, TRIM_AGE};
use crate::redrive::remove_leftovers;
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
    let trimmed = maintenance::trim_what_snapshots_have(&stores, TRIM_AGE, args.dry_run).await?.entries;
    let redrives = remove_leftovers(&stores, SystemClock.now_ms(), age, args.dry_run).await?;
    let number = if args.dry_run { None } else { roll_up_if_due(&stores).await };
    if json {
        println!(
            "{}",
            json!({
                "uploads": uploads,
                "intents": intents,
                "kept": kept,
                "log_entries": trimmed,
                "redrives": redrives,
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
    if trimmed > 0 {
        println!("{verb} {} of the lake log, which snapshots have", counted(trimmed, "old version"));
    }
    if redrives > 0 {
        println!("{verb} what {} left aside that had ended", counted(redrives, "redrive"));
    }
    if let Some(number) = number {
        println!("wrote roll-up {number} of the commit log");
    }
    Ok(ExitCode::SUCCESS)
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
