//! When a run with `--until-caught-up` ends.
//!
//! Owns: the judgement that every shard of every source has been read and committed, by whichever worker. Own shards must
//! be at their tips; then all leases are looked at once more, as they are after the last commit, because others may still
//! be at work. Does not own: what is done then (`coordinator`).
//!
//! While others are at work, or a dead worker's leases are not yet to be taken, it looks again only so often: each look is
//! a scan of the lease table and a list of every stream's shards. What wakes it is the keeper, who looks by itself.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use checkpoints::{Lease, Position, ShardKey};
use mutations::mutated;
use tokio::time::Instant;

use crate::source::Behind;
use crate::worker::WorkerError;
use crate::worker::coordinator::{Coordinator, Reading};
use crate::worker::leases::LeaseCommand;
use crate::worker::leases::missing;

/// The least time between two looks while nothing of our own changes.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Coordinator {
    /// When all own shards are at their tips, commits and asks for a look at everybody's.
    pub(super) async fn consider_end(&mut self) -> Result<(), WorkerError> {
        let done = |reading: &Reading| reading.at_tip || reading.ended;
        if !self.busy.is_empty() || !self.readings.values().all(done) {
            return Ok(());
        }
        self.commit_all().await?;
        if mutated!(CaughtUpByItself) {
            self.caught_up = true;
            return Ok(());
        }
        if !self.looking && self.look_again.is_none_or(|at| Instant::now() >= at) {
            self.looking = true;
            let _ = self.lease_commands.send(LeaseCommand::Look);
        }
        Ok(())
    }

    /// Whether every shard of every source is read and committed.
    pub(super) async fn judge_end(&mut self, leases: &[Lease]) -> Result<(), WorkerError> {
        let looking = std::mem::replace(&mut self.looking, false);
        let idle = self.busy.is_empty() && self.groups.iter().all(|group| group.epoch.is_none());
        if !self.config.until_caught_up || !looking || !idle {
            return Ok(());
        }
        self.look_again = Some(Instant::now() + LOOK_AGAIN);
        let checkpoints: HashMap<ShardKey, Position> = leases
            .iter()
            .filter(|lease| lease.pending.is_none())
            .map(|lease| (lease.key.clone(), lease.checkpoint.clone()))
            .collect();
        let rows: HashSet<&ShardKey> = leases.iter().map(|lease| &lease.key).collect();
        for source in self.config.sources.clone() {
            let shards = match source.shards().await {
                Ok(shards) => shards,
                Err(error) => {
                    tracing::warn!(%error, "the shards can't be listed");
                    return Ok(());
                }
            };
            if !missing(source.stream(), shards.clone(), leases).is_empty() {
                return Ok(());
            }
            for shard in shards {
                let key = ShardKey::new(source.stream().clone(), shard.id.clone());
                if self.failed.contains_key(&key) {
                    continue;
                }
                if !rows.contains(&key) {
                    // Read to its end long since, and its row removed.
                    continue;
                }
                let Some(checkpoint) = checkpoints.get(&key) else { return Ok(()) };
                let own =
                    self.readings.get(&key).is_some_and(|reading| reading.at_tip && reading.committed == reading.read);
                if own {
                    continue;
                }
                match source.behind(&shard.id, checkpoint).await {
                    Ok(Behind::Nothing) => {}
                    Ok(Behind::Bytes(_) | Behind::Time(_)) => return Ok(()),
                    Err(error) => {
                        tracing::error!(%key, %error, "the shard can't be read on");
                        self.failed.insert(key, error.to_string());
                    }
                }
            }
        }
        self.caught_up = true;
        Ok(())
    }
}
