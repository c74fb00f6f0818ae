//! What the lake shows: its log, losses, leftovers, foreign objects, replays.

use std::sync::Arc;
use std::time::Duration;

use pipeline::layout;

use crate::clock::SharedClock;
use crate::commit::Stores;
use crate::config::Config;
use crate::findings::{self, Findings};
use crate::inspect::{Fault, check_log};
use crate::lake::{ObjectInfo, Retrying};
use crate::maintenance::{self, purge};
use crate::replay::status::{State, status_of};
use crate::replay::{SavedPlan, list_plans, replay_lake_of};
use crate::retry::RetryPolicy;
use crate::setup::open_existing;
use crate::source::losses;

/// The age from which what a worker left behind is nobody's.
const ORPHANED_AFTER: Duration = Duration::from_secs(86_400);
/// Findings of one kind that are listed one by one.
const LISTED_MAX: usize = 10;

pub(super) async fn examine(config: &Config, clock: &SharedClock) -> Findings {
    let mut all = Findings::default();
    let stores = match open_existing(config).await {
        Ok(stores) => stores,
        Err(error) => {
            all.unknown("the lake", &error);
            return all;
        }
    };
    let lake = &*stores.lake;
    match check_log(&stores).await {
        Ok(audit) => {
            // Losses have a finding of their own.
            let faults: Vec<&Fault> =
                audit.faults.iter().filter(|fault| !matches!(fault, Fault::Loss { .. })).collect();
            for fault in faults.iter().take(LISTED_MAX) {
                all.add(&findings::LOG_DAMAGED, fault.to_string());
            }
            if let Some(more @ 1..) = faults.len().checked_sub(LISTED_MAX) {
                all.add(&findings::LOG_DAMAGED, format!("and {more} more"));
            }
        }
        Err(error) => all.unknown("the log of the lake", &error),
    }
    match losses::list(lake).await {
        Ok(losses) => {
            for (loss, _) in losses.iter().filter(|(_, then)| then.is_none()).take(LISTED_MAX) {
                all.add(&findings::DATA_LOST, format!("{}: {}", loss.key(), loss.problem));
            }
        }
        Err(error) => all.unknown("losses", &error),
    }
    match maintenance::sweep(&stores, clock.now_ms(), ORPHANED_AFTER, true).await {
        Ok(swept) if swept.uploads + swept.intents > 0 => {
            all.add(&findings::ORPHANS, format!("{} uploads and {} intents", swept.uploads, swept.intents));
        }
        Ok(_) => {}
        Err(error) => all.unknown("what ended workers left behind", &error),
    }
    let is_foreign =
        |object: &&ObjectInfo| !layout::HIDDEN.iter().any(|prefix| object.key.as_str().starts_with(prefix));
    // What is below processed/, raw/ and error/ is compared by verify, which reads all of it.
    match lake.list("_").await {
        Ok(objects) => {
            let foreign: Vec<_> = objects.iter().filter(is_foreign).collect();
            for object in foreign.iter().take(LISTED_MAX) {
                all.add(&findings::FOREIGN, object.key.to_string());
            }
            if let Some(more @ 1..) = foreign.len().checked_sub(LISTED_MAX) {
                all.add(&findings::FOREIGN, format!("and {more} more"));
            }
        }
        Err(error) => all.unknown("foreign objects", &error),
    }
    match purge::old_trash(lake, config.undo_within).await {
        Ok((old, _)) if !old.is_empty() => {
            all.add(&findings::OLD_TRASH, format!("what {} operations replaced", old.len()));
        }
        Ok(_) => {}
        Err(error) => all.unknown("what operations have replaced", &error),
    }
    examine_replays(&stores, &mut all).await;
    all
}

async fn examine_replays(stores: &Stores, all: &mut Findings) {
    let plans = match list_plans(&*stores.lake).await {
        Ok((plans, _)) => plans,
        Err(error) => return all.unknown("replays", &error),
    };
    for SavedPlan { plan, .. } in plans {
        let aside = Retrying::new(Arc::new(replay_lake_of(&stores.lake, &plan)), RetryPolicy::NONE);
        match status_of(&*stores.lake, &aside, Some(&*stores.leases), &plan).await {
            Ok(status) if status.state == State::Stopped => {
                let (done, of) = (status.slices_done, status.slices);
                all.add(&findings::REPLAY_STOPPED, format!("replay {} has read {done} of {of} slices", plan.id));
            }
            Ok(_) => {}
            Err(error) => all.unknown(&format!("replay {}", plan.id), &error),
        }
    }
}
