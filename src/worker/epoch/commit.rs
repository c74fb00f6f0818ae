//! The end of an epoch: committed, or given up.
//!
//! Owns: the order of drain, stage, describe, decide, publish and advance, and what follows from each outcome for the readers.
//! Does not own: the steps themselves (`crate::commit`), when an epoch is due (`coordinator`).

use checkpoints::{Position, ShardKey};
use mutations::mutated;

use crate::commit::{DecidedEpoch, Manifest, ObjectKind, Outcome, Recovered, Staged, abort_uploads, recover};
use crate::worker::WorkerError;
use crate::worker::coordinator::{Coordinator, Epoch};
use crate::worker::epoch::encode::encode_rest;
use crate::worker::leases::LeaseCommand;

impl Coordinator {
    /// Commits every open epoch.
    pub(in crate::worker) async fn commit_all(&mut self) -> Result<(), WorkerError> {
        for group in 0..self.groups.len() {
            self.commit(group).await?;
        }
        Ok(())
    }

    /// Commits a group's open epoch, if there is one.
    pub(in crate::worker) async fn commit(&mut self, group: usize) -> Result<(), WorkerError> {
        self.drain(group).await?;
        let Some(epoch) = self.groups[group].epoch.take() else { return Ok(()) };
        let keys = epoch.ledger.keys();
        let manifest = self.stage(group, epoch).await?;
        let has_no_rows = manifest.totals.rows.is_empty();
        if manifest.shards.is_empty() || (has_no_rows && mutated!(SkipEpochsWithoutRows)) {
            return Ok(());
        }
        self.look_again = None;
        let stores = self.config.stores.clone();
        let intended = match Staged::new(manifest).write_intent(&stores).await {
            Ok(intended) => intended,
            Err((manifest, error)) => {
                abort_uploads(&stores, manifest).await;
                return Err(error.into());
            }
        };
        match intended.decide(&stores).await? {
            Outcome::Decided(decided) => self.finish(decided, keys).await,
            Outcome::Refused(manifest, refusals) => {
                let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                tracing::warn!(epoch = %manifest.epoch, reasons = reasons.join("; "), "the epoch was refused");
                self.progress.note(|committed| committed.aborted += 1);
                if mutated!(ReadOnAfterRefusal) {
                    return Ok(());
                }
                self.read_again(keys).await
            }
        }
    }

    /// Publishes and advances a decided epoch.
    async fn finish(&mut self, decided: DecidedEpoch, keys: Vec<ShardKey>) -> Result<(), WorkerError> {
        let stores = self.config.stores.clone();
        let committed = match decided.publish(&stores).await? {
            Ok(published) => published.advance(&stores).await?.0,
            Err((decided, _)) => {
                // An upload of ours is gone: somebody rolled the epoch back, or it must be.
                let name = decided.into_manifest().epoch.manifest_name();
                match recover(&stores, &name).await? {
                    Recovered::Forward(committed) => (*committed).0,
                    Recovered::Back => {
                        self.progress.note(|committed| committed.rolled_back += 1);
                        return self.read_again(keys).await;
                    }
                }
            }
        };
        tracing::info!(
            epoch = %committed.epoch,
            records = committed.totals.records,
            objects = committed.objects.len(),
            "committed"
        );
        self.progress.add_epoch(&committed);
        self.roll_ups.maybe_roll_up();
        for shard in &committed.shards {
            let Some(reading) = self.readings.get_mut(&shard.key) else { continue };
            reading.committed = shard.range.through().clone();
            reading.taken_over = false;
            if reading.committed == Position::End {
                self.stop_reading(&shard.key);
                let _ = self.lease_commands.send(LeaseCommand::LetGo(shard.key.clone()));
            }
        }
        Ok(())
    }

    /// Encodes all rows that the lanes hold, and closes every object: the manifest of the epoch.
    async fn stage(&mut self, group: usize, epoch: Epoch) -> Result<Manifest, WorkerError> {
        let Epoch { ledger, mut objects, forward, .. } = epoch;
        if let Some(forward) = forward
            && let Err(error) = forward.finish().await
        {
            objects.abort().await;
            return Err(error.into());
        }
        objects.set_provenance(ledger.provenance());
        match encode_rest(&self.config, &mut self.groups[group].idle, &mut objects, ledger.provenance()).await {
            Ok(()) => {}
            Err(error) => {
                objects.abort().await;
                return Err(error);
            }
        }
        let mut objects = objects.seal().await?;
        if mutated!(ForgetDeadLetters) {
            objects.retain(|object| object.kind != ObjectKind::Error);
        }
        if mutated!(ForgetRawLines) {
            objects.retain(|object| object.kind != ObjectKind::Raw);
        }
        let config = &self.config;
        let (graph, datasets) = (&config.lanes.graph, &config.lanes.datasets);
        Ok(ledger.manifest(&config.me, config.clock.now_ms(), graph, datasets, objects))
    }

    /// A group's open epoch never happens.
    pub(in crate::worker) async fn abort_open(&mut self, group: usize) -> Result<(), WorkerError> {
        let epoch = self.groups[group].epoch.take();
        // Lanes of this group that come back find no epoch, and forget. Those of others go on with theirs.
        let drained = self.drain(group).await;
        for unit in self.groups[group].idle.iter_mut().filter(|_| !mutated!(KeepRowsOfAbortedEpoch)) {
            unit.lane.forget();
        }
        if let Some(epoch) = epoch {
            self.progress.note(|committed| committed.aborted += 1);
            epoch.objects.abort().await;
        }
        drained
    }

    /// Reads shards again from their checkpoints, as far as they are still ours.
    pub(in crate::worker) async fn read_again(&mut self, keys: Vec<ShardKey>) -> Result<(), WorkerError> {
        for key in &keys {
            self.stop_reading(key);
        }
        for lease in self.config.stores.leases_of(keys).await? {
            if lease.holder.is(&self.config.me) {
                self.gained(lease).await?;
            } else {
                self.not_ours(&lease);
            }
        }
        Ok(())
    }
}
