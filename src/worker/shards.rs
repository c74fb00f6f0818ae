//! The shards whose leases this worker holds: each is recovered first, then read, and in the end released.
//!
//! Owns: what a lease that is gained means for its shard, the readers, which shards are to be released and why, and which of
//! them failed. Does not own: leases themselves (`leases`), open epochs (the coordinator). The coordinator ends an epoch that
//! has records of a shard before the shard is read from another position.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoints::{Lease, LeaseOwner, Position, ShardKey, StoreError};
use mutations::mutated;
use tokio::sync::mpsc;

use crate::commit::{CommitError, Manifest, Recovered, Stores, recover};
use crate::worker::WorkerError;
use crate::worker::leases::LeaseCommand;
use crate::worker::progress::Progress;
use crate::worker::reader::ReaderEvent;
use crate::worker::readers::{ReaderSettings, ReaderUpdate, Readers};

/// Why a shard is released. The greater reason counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Release {
    /// Another worker asked for it.
    Requested,
    /// It can't be read here. Another worker may try, or this one later.
    Abandoned,
}

pub(super) struct Shards {
    me: LeaseOwner,
    stores: Stores,
    lease_commands: mpsc::UnboundedSender<LeaseCommand>,
    progress: Arc<Progress>,
    readers: Readers,
    /// Shards that are to be released once no open epoch has records of them.
    releases: BTreeMap<ShardKey, Release>,
    /// Shards that could not be read, and why.
    failed: BTreeMap<ShardKey, String>,
}

impl Shards {
    pub(super) fn new(
        me: LeaseOwner,
        stores: Stores,
        lease_commands: mpsc::UnboundedSender<LeaseCommand>,
        progress: Arc<Progress>,
        readers: ReaderSettings,
    ) -> Self {
        let readers = Readers::new(readers);
        Shards { me, stores, lease_commands, progress, readers, releases: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// A lease is ours, and no open epoch has records of its shard. What is pending is finished first, then the shard is
    /// read.
    pub(super) async fn on_gained(&mut self, mut lease: Lease) -> Result<(), WorkerError> {
        let key = lease.key.clone();
        while let Some(pending) = lease.pending.clone().filter(|_| !mutated!(SkipRecovery)) {
            // One epoch is pending on many shards, and is finished for all of them with the first that is gained.
            let Some(row) = self.own_row(&key).await? else { return Ok(()) };
            lease = row;
            if lease.pending.as_ref() != Some(&pending) {
                continue;
            }
            tracing::info!(%key, manifest = %pending.manifest, "finishing an epoch that was left pending");
            match recover(&self.stores, &pending.manifest).await {
                Ok(Recovered::Forward(_)) => self.progress.note(|committed| committed.rolled_forward += 1),
                Ok(Recovered::Back) => self.progress.note(|committed| committed.rolled_back += 1),
                // The lake fails, not this shard. The worker ends, as it does when it can't finish an epoch of its own. If it
                // continued, it would keep the lease, and nobody would read the shard.
                Err(error) if error.is_retryable() || matches!(error, CommitError::Lake(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%key, %error, "failed to recover pending epoch; releasing the shard");
                    self.abandon(key.clone(), format!("{key}: {error}"));
                    return Ok(());
                }
            }
            let Some(row) = self.own_row(&key).await? else { return Ok(()) };
            lease = row;
        }
        if lease.is_done() {
            let _ = self.lease_commands.send(LeaseCommand::Release(key));
            return Ok(());
        }
        self.failed.remove(&key);
        self.readers.start(lease);
        Ok(())
    }

    /// The row of a lease that was gained, if it is still ours.
    async fn own_row(&self, key: &ShardKey) -> Result<Option<Lease>, StoreError> {
        let Some(lease) = self.stores.leases_of(vec![key.clone()]).await?.pop() else { return Ok(None) };
        if lease.holder.is(&self.me) {
            return Ok(Some(lease));
        }
        self.disown(&lease);
        Ok(None)
    }

    /// Tells the lease manager that a lease is another worker's. The manager may not know: if the lease was taken and came
    /// back between two scans, the manager would believe that the shard is still being read.
    fn disown(&self, lease: &Lease) {
        if !mutated!(HideDisownedLeases) {
            let _ = self.lease_commands.send(LeaseCommand::Disown(lease.key.clone()));
        }
    }

    /// Reads shards again from their checkpoints, those that are still ours.
    pub(super) async fn read_again(&mut self, keys: Vec<ShardKey>) -> Result<(), WorkerError> {
        for key in &keys {
            self.stop(key);
        }
        for lease in self.stores.leases_of(keys).await? {
            if lease.holder.is(&self.me) {
                self.on_gained(lease).await?;
            } else {
                self.disown(&lease);
            }
        }
        Ok(())
    }

    /// Whether the shard is read already, and nothing in its row says otherwise.
    pub(super) fn reads_from(&self, lease: &Lease) -> bool {
        self.readers.reads_from(lease)
    }

    /// Stops reading a shard.
    pub(super) fn stop(&mut self, key: &ShardKey) {
        self.readers.stop(key);
        self.releases.remove(key);
    }

    /// Stops reading all shards.
    pub(super) async fn stop_all(&mut self) {
        self.readers.stop_all().await;
    }

    /// Takes a reader's event into account. A shard that fails is abandoned.
    pub(super) fn on_reader_event(&mut self, event: ReaderEvent) -> ReaderUpdate {
        match self.readers.on_event(event) {
            ReaderUpdate::Failed(key, error) => {
                tracing::error!(%key, %error, "failed to read shard; releasing it");
                self.abandon(key.clone(), error.to_string());
                ReaderUpdate::Failed(key, error)
            }
            update => update,
        }
    }

    /// An epoch of this worker is committed. Shards that have ended are released.
    pub(super) fn on_committed(&mut self, manifest: &Manifest) {
        for shard in &manifest.shards {
            if *shard.range.through() == Position::End && self.readers.has(&shard.key) {
                self.readers.stop(&shard.key);
                let _ = self.lease_commands.send(LeaseCommand::Release(shard.key.clone()));
            } else {
                self.readers.on_committed(&shard.key, shard.range.through());
            }
        }
    }

    /// Another worker asks for a shard.
    pub(super) fn request(&mut self, key: ShardKey) {
        self.releases.entry(key).or_insert(Release::Requested);
    }

    /// A shard can't be read. It is released, so that another worker may try, or this one later. A run that ends when it has
    /// caught up does not wait for the shard, and reports the problem at its end.
    fn abandon(&mut self, key: ShardKey, problem: String) {
        self.failed.insert(key.clone(), problem);
        self.releases.insert(key, Release::Abandoned);
    }

    /// Stops reading the shards that are to be released, and returns them: the coordinator commits their epochs, then calls
    /// [`Shards::release`] for each.
    pub(super) fn take_releases(&mut self) -> BTreeMap<ShardKey, Release> {
        let releases = std::mem::take(&mut self.releases);
        releases.keys().for_each(|key| self.readers.stop(key));
        releases
    }

    /// Releases the lease of a shard that no open epoch has records of.
    pub(super) fn release(&mut self, key: ShardKey, release: Release) {
        // If the commit was refused, the shard is being read again, or could not be read.
        let release = self.releases.get(&key).copied().unwrap_or(release).max(release);
        self.stop(&key);
        let _ = self.lease_commands.send(match release {
            Release::Requested => LeaseCommand::Release(key),
            Release::Abandoned => LeaseCommand::Abandon(key),
        });
    }

    /// Notes that a shard can't be read, without releasing it.
    pub(super) fn fail(&mut self, key: ShardKey, problem: String) {
        self.failed.insert(key, problem);
    }

    /// Whether the shard could not be read.
    pub(super) fn has_failed(&self, key: &ShardKey) -> bool {
        self.failed.contains_key(key)
    }

    /// What is wrong with the shards that could not be read.
    pub(super) fn problems(&self) -> Vec<String> {
        self.failed.values().cloned().collect()
    }

    /// Whether everything of a shard has been read and committed, for now.
    pub(super) fn has_committed_all(&self, key: &ShardKey) -> bool {
        self.readers.has_committed_all(key)
    }

    /// Whether no shard has anything more to read, for now.
    pub(super) fn are_all_at_tip(&self) -> bool {
        self.readers.are_all_at_tip()
    }
}
