//! Which shards are read: leases that come and go.
//!
//! Owns: what the coordinator does when the keeper tells it of a lease. A lease that is gained has its pending epoch
//! finished before its shard is read; one that is lost takes the open epoch with it, if that has records of its shard; one
//! that is asked for is handed over after an early commit. Does not own: leases themselves (`leases`).

use std::sync::Arc;

use checkpoints::{Lease, Position, ShardKey};
use mutations::mutated;

use crate::commit::{CommitError, Recovered, recover};
use crate::worker::WorkerError;
use crate::worker::coordinator::{Coordinator, Epoch, Group, Reading};
use crate::worker::leases::{LeaseCommand, LeaseEvent};
use crate::worker::reader::{ReaderTask, Session};

impl Coordinator {
    pub(super) async fn hear(&mut self, news: LeaseEvent) -> Result<(), WorkerError> {
        match news {
            LeaseEvent::Gained(lease) => {
                self.look_again = None;
                self.told_of_gain(*lease).await
            }
            LeaseEvent::Lost(key) => {
                self.look_again = None;
                tracing::warn!(%key, "the lease is lost");
                self.lost(key).await
            }
            LeaseEvent::Asked(key) => {
                tracing::info!(%key, "another worker asks for the lease");
                self.asked.insert(key);
                Ok(())
            }
            LeaseEvent::Snapshot(leases) => self.judge_end(&leases).await,
            LeaseEvent::Failed(error) => Err(error.into()),
        }
    }

    /// The keeper has gained a lease. Its shard may be read already: an epoch that was given up has its shards read again
    /// by what their rows say, and a row names us as soon as the lease is taken, which may be before the keeper tells.
    async fn told_of_gain(&mut self, lease: Lease) -> Result<(), WorkerError> {
        match self.readings.get(&lease.key) {
            None => self.gained(lease).await,
            Some(reading) if reading.committed == lease.checkpoint && lease.pending.is_none() => Ok(()),
            Some(_) => {
                // ReaderEventKind the open epoch has of the shard was read from another place: it can't go on from this one.
                let key = lease.key.clone();
                self.lost(key.clone()).await?;
                if self.readings.contains_key(&key) { Ok(()) } else { self.gained(lease).await }
            }
        }
    }

    /// A lease is ours: what is pending is finished first, then its shard is read.
    pub(super) async fn gained(&mut self, mut lease: Lease) -> Result<(), WorkerError> {
        let key = lease.key.clone();
        if self.group_of_open(&key).is_some() {
            // It was let go and taken again while the news crossed: what the open epoch has of the shard ends elsewhere.
            return Box::pin(self.lost(key)).await;
        }
        while let Some(pending) = lease.pending.clone().filter(|_| !mutated!(SkipRecovery)) {
            // One epoch is pending on many shards, and is finished for all of them with the first that is gained.
            let Some(row) = self.still_ours(&key).await? else { return Ok(()) };
            lease = row;
            if lease.pending.as_ref() != Some(&pending) {
                continue;
            }
            tracing::info!(%key, manifest = %pending.manifest, "finishing an epoch that was left pending");
            match recover(&self.config.stores, &pending.manifest).await {
                Ok(Recovered::Forward(_)) => self.progress.note(|committed| committed.rolled_forward += 1),
                Ok(Recovered::Back) => self.progress.note(|committed| committed.rolled_back += 1),
                // It is the lake that fails, not this shard: the worker ends, as when it can't finish an epoch of its own. One
                // that went on would keep the lease, and nobody would read the shard, however well the lake is later.
                Err(error) if error.is_retryable() || matches!(error, CommitError::Lake(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%key, %error, "the shard can't be read on");
                    self.give_up(key.clone(), format!("{key}: {error}"));
                    return Ok(());
                }
            }
            let Some(row) = self.still_ours(&key).await? else { return Ok(()) };
            lease = row;
        }
        if lease.is_done() {
            let _ = self.lease_commands.send(LeaseCommand::LetGo(key));
            return Ok(());
        }
        self.start_reading(lease)
    }

    /// The row of a lease that was gained, if it still is ours.
    async fn still_ours(&self, key: &ShardKey) -> Result<Option<Lease>, WorkerError> {
        let Some(lease) = self.config.stores.leases_of(vec![key.clone()]).await?.pop() else { return Ok(None) };
        if lease.holder.is(&self.config.me) {
            return Ok(Some(lease));
        }
        self.not_ours(&lease);
        Ok(None)
    }

    /// A lease that was ours is another's, and its shard is not read on. The keeper may not know: taken, and come back before it
    /// looked, the lease would be ours, and nobody would read.
    pub(super) fn not_ours(&self, lease: &Lease) {
        if lease.holder.committer() != Some(&self.config.me) && !mutated!(HideDisownedLeases) {
            let _ = self.lease_commands.send(LeaseCommand::NotOurs(lease.key.clone()));
        }
    }

    fn start_reading(&mut self, lease: Lease) -> Result<(), WorkerError> {
        let source = self.config.sources.iter().find(|source| *source.stream() == lease.key.stream).map(Arc::clone);
        let Some(source) = source else { return Ok(()) };
        self.stop_reading(&lease.key);
        self.failed.remove(&lease.key);
        let group = self.group_with_room()?;
        self.sessions += 1;
        let session = Session(self.sessions);
        let task = ReaderTask {
            session,
            key: lease.key.clone(),
            retry: source.retry(),
            source,
            after: lease.checkpoint.clone(),
            chunk_bytes: self.chunk_bytes,
            budget: self.budget.clone(),
            coordinator: self.reader_events.clone(),
        };
        let reading = Reading {
            session,
            group,
            task: tokio::spawn(task.run()),
            taken_over: lease.last_manifest.is_none() && matches!(lease.checkpoint, Position::At { .. }),
            committed: lease.checkpoint.clone(),
            read: lease.checkpoint,
            at_tip: false,
            ended: false,
        };
        self.readings.insert(lease.key, reading);
        Ok(())
    }

    pub(super) fn stop_reading(&mut self, key: &ShardKey) {
        if let Some(reading) = self.readings.remove(key) {
            reading.task.abort();
        }
    }

    pub(super) fn stop_readers(&mut self) {
        for reading in self.readings.values() {
            reading.task.abort();
        }
    }

    /// A lease is gone. If the open epoch has records of its shard, it can't be committed any more.
    pub(super) async fn lost(&mut self, key: ShardKey) -> Result<(), WorkerError> {
        self.stop_reading(&key);
        self.asked.remove(&key);
        if let Some(group) = self.group_of_open(&key) {
            let keys = self.groups[group].epoch.as_ref().map(|epoch| epoch.ledger.keys()).unwrap_or_default();
            self.abort_open(group).await?;
            self.read_again(keys).await?;
        }
        Ok(())
    }

    /// The group whose open epoch has a range of the shard.
    fn group_of_open(&self, key: &ShardKey) -> Option<usize> {
        let has = |group: &Group| group.epoch.as_ref().is_some_and(|epoch| epoch.ledger.has(key));
        self.groups.iter().position(has)
    }

    /// A shard can't be read on: it is let go, so that another worker may try, or this one later. One that runs until it has
    /// caught up does not wait for it, and says so at its end.
    pub(super) fn give_up(&mut self, key: ShardKey, problem: String) {
        self.failed.insert(key.clone(), problem);
        self.given_up.insert(key);
    }

    /// Commits early, and hands over what was asked for or given up.
    pub(super) async fn hand_over(&mut self) -> Result<(), WorkerError> {
        let given_up = std::mem::take(&mut self.given_up);
        let mut asked = std::mem::take(&mut self.asked);
        asked.extend(given_up.iter().cloned());
        for key in &asked {
            if let Some(reading) = self.readings.get(key) {
                reading.task.abort();
            }
        }
        for group in 0..self.groups.len() {
            let has = |epoch: &Epoch| asked.iter().any(|key| epoch.ledger.has(key));
            if self.groups[group].epoch.as_ref().is_some_and(has) {
                self.commit(group).await?;
            }
        }
        for key in asked {
            self.stop_reading(&key);
            let go = if given_up.contains(&key) { LeaseCommand::GiveUp(key) } else { LeaseCommand::LetGo(key) };
            let _ = self.lease_commands.send(go);
        }
        Ok(())
    }
}
