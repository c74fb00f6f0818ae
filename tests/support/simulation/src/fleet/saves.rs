//! Named checkpoints among the events: saved by a command, and by the schedule of workers.
//!
//! Owns: when one is saved. Does not own: what must be true of it (`auditor`).

use std::sync::Arc;
use std::time::Duration;

use shardlake::commit::{CheckpointName, SavedBy, save_checkpoint};
use shardlake::config::CheckpointSchedule;
use shardlake::named_checkpoints::{Retentions, take};

use super::{Fleet, OPERATOR};
use crate::auditor::KEPT;
use crate::network::Network;
use crate::rng::Rng;

/// The saves of a fleet.
pub(super) struct Saves {
    rng: Rng,
    number: u64,
    every: Duration,
}

impl Saves {
    /// Saves that follow from `rng`.
    pub(super) fn new(mut rng: Rng) -> Self {
        let every = Duration::from_secs(rng.one_of(&[5, 20, 60]));
        Saves { rng, number: 0, every }
    }

    /// What the workers of the fleet save by themselves.
    pub(super) fn schedule(&self) -> CheckpointSchedule {
        CheckpointSchedule { every: self.every, keep: KEPT }
    }
}

impl Fleet {
    /// Saves a checkpoint while the workers run, in fleets that do so.
    pub(super) fn save(&mut self) {
        let Some(saves) = &mut self.saves else { return };
        if !saves.rng.chance(300) {
            return;
        }
        saves.number += 1;
        let name = CheckpointName::new(format!("saved-{:03}", saves.number)).expect("a plain name");
        let (rng, shared, within) = (saves.rng.fork(), Arc::clone(&self.shared), self.retry_within);
        let network = Network::new(OPERATOR, rng, self.rates, 0, false, within, shared);
        let clock = self.clock(&network);
        let (environment, auditor) = (Arc::clone(&self.environment), Arc::clone(&self.auditor));
        self.savers.push(Arc::clone(&network));
        tokio::spawn(async move {
            let Ok(connected) = environment.connect(&network, Arc::clone(&clock), false).await else { return };
            let committed = auditor.committed_epochs();
            let (stores, sources) = (&connected.stores, &connected.sources);
            let retentions = Retentions::ask(sources).await;
            let now_ms = clock.now_ms();
            let taken = take(stores, sources, &retentions, name.clone(), SavedBy::Command, now_ms).await;
            let Ok(checkpoint) = taken else { return };
            if let Ok(true) = save_checkpoint(&*stores.lake, &checkpoint).await {
                auditor.check_checkpoint_has(name.key().as_str(), &committed);
            }
        });
    }
}
