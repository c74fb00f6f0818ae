//! The lake's past: commits, losses, saved checkpoints, replays, what was left behind, and files that are not its own.
//!
//! Owns: turning what other modules find into findings. Does not own: the audit (`inspect::verify`), losses (`source`), checkpoints
//! (`named_checkpoints`), sweeping (`maintenance`), replays (`replay`).

use std::sync::Arc;
use std::time::Duration;

use pipeline::layout::{ANALYTICS, Area, DataObject};

use crate::clock::SharedClock;
use crate::commit::Stores;
use crate::config::Config;
use crate::diagnosis::{Diagnosis, FindingKind};
use crate::doctor::Patient;
use crate::inspect::{Fault, check_log};
use crate::lake::ObjectStore;
use crate::maintenance;
use crate::named_checkpoints::{Usability, ending_checkpoints};
use crate::replay::status::{Evidence, State, status_of};
use crate::replay::{list_plans, replay_lake_of};
use crate::source::losses;

/// The age from which what an epoch left is a finding, as at the start of a worker.
const LEFT_FOR: Duration = Duration::from_secs(86_400);

/// Whether commit records, lake log and leases agree, without reading an object.
pub(super) async fn chains(stores: &Stores) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    match check_log(stores).await {
        Ok(audit) => {
            let faults: Vec<&Fault> =
                audit.faults.iter().filter(|fault| !matches!(fault, Fault::Loss { .. })).collect();
            diagnosis.find_all(FindingKind::HistoryBroken, &faults, str::to_owned);
        }
        Err(error) => diagnosis.cannot_check("the history of commits", error.to_string()),
    }
    diagnosis
}

/// Losses that nobody has accepted, and checkpoints that people saved and that end.
pub(super) async fn losses_and_checkpoints(patient: &Patient, lake: &Arc<dyn ObjectStore>) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    match losses::list(&**lake).await {
        Ok(losses) => {
            let open: Vec<String> = losses
                .iter()
                .filter(|(_, then)| then.is_none())
                .map(|(loss, _)| format!("{}: {}", loss.key(), loss.problem))
                .collect();
            diagnosis.find_all(FindingKind::DataLost, &open, str::to_owned);
        }
        Err(error) => diagnosis.cannot_check("losses in sources", error.to_string()),
    }
    match ending_checkpoints(&**lake, &patient.sources, patient.clock.now_ms()).await {
        Ok(ending) => {
            for one in ending {
                let verb = if one.usability == Usability::Expired { "was" } else { "is" };
                let what = format!("checkpoint {} {verb} usable until {}", one.name, one.usable.until());
                diagnosis.find(FindingKind::CheckpointEnding, what);
            }
        }
        Err(error) => diagnosis.cannot_check("saved checkpoints", error.to_string()),
    }
    diagnosis
}

/// Uploads and intents of epochs that were never committed.
pub(super) async fn leftovers(stores: &Stores, clock: &SharedClock) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    match maintenance::sweep(stores, clock.now_ms(), LEFT_FOR, true).await {
        Ok(swept) if swept.uploads + swept.intents > 0 => {
            let what = format!("{} uploads and {} intents were left behind", swept.uploads, swept.intents);
            diagnosis.find(FindingKind::Leftovers, what);
        }
        Ok(_) => {}
        Err(error) => diagnosis.cannot_check("what uncommitted epochs left", error.to_string()),
    }
    diagnosis
}

/// Replays that nobody continues.
pub(super) async fn replays(stores: &Stores) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let plans = match list_plans(&*stores.lake).await {
        Ok((plans, unreadable)) => {
            for error in unreadable {
                diagnosis.cannot_check("a replay", error.to_string());
            }
            plans
        }
        Err(error) => {
            diagnosis.cannot_check("the replays", error.to_string());
            return diagnosis;
        }
    };
    let mut stopped = Vec::new();
    for saved in &plans {
        let aside = replay_lake_of(&stores.lake, &saved.plan);
        match status_of(&*stores.lake, &aside, Some(&*stores.leases), &saved.plan, Evidence::Log).await {
            Ok(status) if status.state == State::Stopped => stopped.push(status.id),
            Ok(_) => {}
            Err(error) => diagnosis.cannot_check(format!("replay {}", saved.plan.id), error.to_string()),
        }
    }
    diagnosis.find_all(FindingKind::ReplayStopped, &stopped, |ids| format!("nobody continues replay {ids}"));
    diagnosis
}

/// Files among the data of a lake in a folder that no worker writes. A bucket may have millions of objects, which `verify` lists.
pub(super) async fn foreign_files(config: &Config, lake: &Arc<dyn ObjectStore>) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    if config.lake.backend().folder().is_none() {
        return diagnosis;
    }
    let mut foreign = Vec::new();
    for area in Area::ALL {
        match lake.list(area.prefix()).await {
            Ok(listed) => {
                let keys = listed.into_iter().map(|object| object.key);
                foreign.extend(
                    keys.filter(|key| {
                        !key.as_str().starts_with(ANALYTICS) && key.as_str().parse::<DataObject>().is_err()
                    }),
                );
            }
            Err(error) => diagnosis.cannot_check(format!("the files of {}", area.prefix()), error.to_string()),
        }
    }
    diagnosis.find_all(FindingKind::ForeignFiles, &foreign, |keys| format!("no worker writes {keys}"));
    diagnosis
}
