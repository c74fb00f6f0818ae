//! A lease store that repeats calls while they fail with an error that may be retried.
//!
//! Owns: which calls are repeated. [`LeaseStore`] says for each call what a caller does after a lost reply. Repeated here are
//! the reads, and the writes of which it says "repeat it" or "may be repeated". All other calls pass through once: a repeated
//! `take`, `ask` or `release` would answer that its condition does not hold, although the first request took effect.
//! [`Stores`](crate::commit::Stores) repeats `decide` and `roll_back`, together with the reads that show their outcome.

use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{
    Advance, AdvanceOutcome, Decision, Lease, LeaseOwner, LeaseStore, ManifestName, NewLease, Renewal, RenewalOutcome,
    ShardKey, StoreError, Verdict,
};

use crate::retry::{Retry, Retryable};

impl Retryable for StoreError {
    fn is_retryable(&self) -> bool {
        StoreError::is_retryable(self)
    }
}

/// Repeats calls of another store.
pub(crate) struct RetryingLeases {
    store: Arc<dyn LeaseStore>,
    retry: Retry,
}

impl RetryingLeases {
    pub(crate) fn new(store: Arc<dyn LeaseStore>, retry: Retry) -> Self {
        RetryingLeases { store, retry }
    }
}

#[async_trait]
impl LeaseStore for RetryingLeases {
    fn decision_shards_max(&self) -> usize {
        self.store.decision_shards_max()
    }

    fn is_metered(&self) -> bool {
        self.store.is_metered()
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.retry.run_long(|| self.store.list()).await
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        self.retry.run(|| self.store.get(keys)).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        self.retry.run(|| self.store.create(leases)).await
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        self.store.renew(me, renewals).await
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        self.store.take(me, key, seen_counter).await
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        self.store.ask(me, key, from).await
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.store.hand_over(me, key).await
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.store.release(me, key).await
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        self.store.remove(key).await
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        self.store.decide(decision).await
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        self.retry.run(|| self.store.advance(manifest, advances)).await
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        self.store.roll_back(manifest, keys).await
    }

    async fn register(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        self.retry.run(|| self.store.register(me)).await
    }

    async fn deregister(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        self.retry.run(|| self.store.deregister(me)).await
    }

    async fn owner_is_gone(&self, owner: &LeaseOwner) -> Result<bool, StoreError> {
        self.retry.run(|| self.store.owner_is_gone(owner)).await
    }
}
