//! Pending epochs that this worker is recovering, one task for each.
//!
//! Owns: the tasks, and which shards wait for each. Does not own: how an epoch is recovered (`crate::commit::recover`), what a
//! result means for the shards (`shards`).
//!
//! Recovery may wait for ten seconds and for slow stores, and must not stop the shards that have nothing pending. One epoch is
//! pending on many shards. The first of them starts the task, and the others wait for the same one.
//!
//! - A shard stops waiting when its lease is lost or released. The task continues: anybody may finish a decided epoch.
//! - A result says nothing about the shards: leases may have moved meanwhile. Whoever continues reads the rows again.
//! - When the run ends, the tasks are aborted. That leaves the epoch as a crash would: pending, for the next holder to recover.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use checkpoints::{ManifestName, ShardKey};
use mutations::mutated;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::commit::{CommitError, Recovered, Stores, epoch_of, recover};
use crate::worker::compute::joined;

/// Epochs that are recovered at once. Each sends several requests at once.
const RECOVERIES_MAX: usize = 8;

/// What became of a pending epoch.
#[derive(Debug)]
pub(super) enum Recovery {
    /// This worker finished it.
    Done(Recovered),
    /// Another worker had finished it already.
    NotPending,
}

/// A recovery that has ended.
#[derive(Debug)]
pub(super) struct FinishedRecovery {
    pub(super) manifest: ManifestName,
    /// The shards that waited for it.
    pub(super) waiting: Vec<ShardKey>,
    pub(super) result: Result<Recovery, CommitError>,
}

/// The recoveries that are running.
pub(super) struct Recoveries {
    stores: Stores,
    running: JoinSet<(ManifestName, Result<Recovery, CommitError>)>,
    /// The shards that wait for each running recovery.
    waiting: BTreeMap<ManifestName, BTreeSet<ShardKey>>,
    permits: Arc<Semaphore>,
}

impl Recoveries {
    pub(super) fn new(stores: Stores) -> Self {
        let permits = Arc::new(Semaphore::new(RECOVERIES_MAX));
        Recoveries { stores, running: JoinSet::new(), waiting: BTreeMap::new(), permits }
    }

    /// A shard waits until the epoch that is pending on it is recovered.
    pub(super) fn wait_for(&mut self, manifest: ManifestName, key: ShardKey) {
        if let Some(waiting) = self.waiting.get_mut(&manifest) {
            waiting.insert(key);
            return;
        }
        tracing::info!(stream = %key.stream, shard = %key.shard, epoch = epoch_of(&manifest), "recovering a pending epoch");
        let (stores, name, first) = (self.stores.clone(), manifest.clone(), key.clone());
        let permits = Arc::clone(&self.permits);
        self.running.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            let result = recover_if_pending(&stores, &name, first).await;
            (name, result)
        });
        self.waiting.insert(manifest, BTreeSet::from([key]));
    }

    /// A shard waits no longer. The recovery continues.
    pub(super) fn forget(&mut self, key: &ShardKey) {
        for waiting in self.waiting.values_mut() {
            waiting.remove(key);
        }
    }

    /// Waits for the next recovery that ends; `None` if none is running. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<FinishedRecovery> {
        let (manifest, result) = self.running.join_next().await.map(joined)?;
        let mut waiting: Vec<ShardKey> = self.waiting.remove(&manifest).unwrap_or_default().into_iter().collect();
        if mutated!(ForgetWaitingShards) {
            waiting.truncate(1);
        }
        Some(FinishedRecovery { manifest, waiting, result })
    }

    /// Whether none is running.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Aborts all recoveries, and waits until they are gone.
    pub(super) async fn abort_all(&mut self) {
        self.running.shutdown().await;
        self.waiting.clear();
    }
}

/// Recovers an epoch, unless it is not pending on this shard any more. The lease event that named it may be old: the epoch may
/// have been recovered since, for another shard or by another worker.
async fn recover_if_pending(stores: &Stores, name: &ManifestName, key: ShardKey) -> Result<Recovery, CommitError> {
    let rows = stores.leases_of(vec![key]).await?;
    if rows.iter().any(|row| row.is_pending(name)) {
        recover(stores, name).await.map(Recovery::Done)
    } else {
        Ok(Recovery::NotPending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;
    use crate::retry::RetryPolicy;
    use checkpoints::{
        Decided, Decision, LeaseOwner, LeaseStore, LeaseStoreExt, MemoryStore as MemoryLeases, NewLease, Position,
        ShardId, ShardRange, StreamName,
    };

    fn key(shard: &str) -> ShardKey {
        ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(shard).unwrap())
    }

    fn manifest(number: u64) -> ManifestName {
        ManifestName::new(format!("_intents/{number}.json")).unwrap()
    }

    /// Leases of two shards, and an epoch that is pending on both, without an intent: it can't be recovered.
    async fn recoveries() -> Recoveries {
        let leases = MemoryLeases::new();
        let me = LeaseOwner::from_random([1; 16]);
        for shard in ["a", "b"] {
            leases.create(&[NewLease::new(key(shard), Position::Beginning)]).await.unwrap();
            leases.take(&me, &key(shard), 0).await.unwrap().unwrap();
        }
        let range = ShardRange::new(Position::Beginning, Position::at(7_u64.into())).unwrap();
        let shards = vec![(key("a"), range.clone()), (key("b"), range)];
        let decision = Decision::new(me, manifest(1), shards).unwrap();
        assert_eq!(leases.decide_once(&decision).await.unwrap(), Decided::Yes);
        Recoveries::new(Stores::new(Arc::new(MemoryStore::new()), Arc::new(leases), RetryPolicy::default()))
    }

    #[tokio::test]
    async fn shards_of_one_epoch_wait_for_the_same_recovery() {
        let mut recoveries = recoveries().await;
        assert!(recoveries.is_empty() && recoveries.next().await.is_none());
        recoveries.wait_for(manifest(1), key("a"));
        recoveries.wait_for(manifest(1), key("b"));
        let finished = recoveries.next().await.unwrap();
        assert_eq!((finished.manifest, finished.waiting), (manifest(1), vec![key("a"), key("b")]));
        assert!(matches!(finished.result, Err(CommitError::NoIntent { .. })), "{:?}", finished.result);
        assert!(recoveries.is_empty() && recoveries.next().await.is_none());
    }

    #[tokio::test]
    async fn a_recovery_ends_even_if_no_shard_waits_for_it_any_more() {
        let mut recoveries = recoveries().await;
        recoveries.wait_for(manifest(1), key("a"));
        recoveries.forget(&key("a"));
        assert!(!recoveries.is_empty());
        assert_eq!(recoveries.next().await.unwrap().waiting, []);
        // The next wait begins a new one.
        recoveries.wait_for(manifest(1), key("a"));
        assert_eq!(recoveries.next().await.unwrap().waiting, [key("a")]);
    }

    #[tokio::test]
    async fn an_epoch_that_is_not_pending_any_more_is_not_recovered() {
        let mut recoveries = recoveries().await;
        recoveries.wait_for(manifest(2), key("a"));
        let finished = recoveries.next().await.unwrap();
        assert!(matches!(finished.result, Ok(Recovery::NotPending)), "an old event named it");
    }

    #[tokio::test]
    async fn aborting_ends_all_recoveries() {
        let mut recoveries = recoveries().await;
        recoveries.wait_for(manifest(1), key("a"));
        recoveries.abort_all().await;
        assert!(recoveries.is_empty() && recoveries.waiting.is_empty());
    }
}
