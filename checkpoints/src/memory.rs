//! The lease store in memory: for tests and for the simulation of a fleet.
//!
//! A [`MemoryStore`] is a handle; its clones share one table, as workers share one in DynamoDB. Every call takes one lock
//! and never waits while it holds it. The store has no clock and no randomness: the same calls in the same order give the
//! same answers. It keeps nothing when the process ends, and does not know whether an owner is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::decision::{Decision, Verdict};
use crate::error::StoreError;
use crate::lease::{Lease, LeaseOwner, ManifestName, NewLease};
use crate::rules::{self, Rows};
use crate::shard::ShardKey;
use crate::store::{Advance, AdvanceOutcome, LeaseStore, Renewal, RenewalOutcome};

/// A lease store in memory. Clones share the table.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    decision_shards_max: usize,
    metered: bool,
}

#[derive(Debug, Default)]
struct Tables {
    leases: BTreeMap<ShardKey, Lease>,
    hidden: BTreeSet<ShardKey>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { tables: Arc::default(), decision_shards_max: usize::MAX, metered: false }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This handle, with a limit on the shards of a decision as another store has it.
    #[must_use]
    pub fn with_decision_shards_max(self, decision_shards_max: usize) -> Self {
        Self { decision_shards_max, ..self }
    }

    /// This handle, as a store whose callers should make as few requests as they can.
    #[must_use]
    pub fn with_metering(self) -> Self {
        Self { metered: true, ..self }
    }

    /// All rows at one moment.
    #[must_use]
    pub fn rows(&self) -> Vec<Lease> {
        self.tables().leases.values().cloned().collect()
    }

    /// Leaves a row out of lists, as a scan of several requests may do, or shows it again.
    pub fn hide(&self, key: &ShardKey, hidden: bool) {
        let mut tables = self.tables();
        if hidden {
            tables.hidden.insert(key.clone());
        } else {
            tables.hidden.remove(key);
        }
    }

    /// Deletes a row, as somebody may do by hand. No condition is checked.
    pub fn lose(&self, key: &ShardKey) {
        self.tables().leases.remove(key);
    }

    /// The tables. A panic while they were locked left them whole: `rules.rs` checks all rows before it changes the first.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows for BTreeMap<ShardKey, Lease> {
    type Error = StoreError;

    fn get(&self, key: &ShardKey) -> Result<Option<Lease>, StoreError> {
        Ok(self.get(key).cloned())
    }

    fn put(&mut self, lease: Lease) -> Result<(), StoreError> {
        self.insert(lease.key.clone(), lease);
        Ok(())
    }

    fn delete(&mut self, key: &ShardKey) -> Result<(), StoreError> {
        self.remove(key);
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    fn decision_shards_max(&self) -> usize {
        self.decision_shards_max
    }

    fn is_metered(&self) -> bool {
        self.metered
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        let tables = self.tables();
        let shown = tables.leases.values().filter(|lease| !tables.hidden.contains(&lease.key));
        Ok(shown.cloned().collect())
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        let tables = self.tables();
        Ok(keys.iter().map(|key| tables.leases.get(key).cloned()).collect())
    }

    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        rules::create(&mut self.tables().leases, leases)
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        rules::renew(&mut self.tables().leases, me, renewals)
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        rules::take(&mut self.tables().leases, me, key, seen_counter)
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        rules::ask(&mut self.tables().leases, me, key, from)
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        rules::hand_over(&mut self.tables().leases, me, key)
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        rules::release(&mut self.tables().leases, me, key)
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        rules::remove(&mut self.tables().leases, key)
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        rules::decide(&mut self.tables().leases, decision, self.decision_shards_max)
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        rules::advance(&mut self.tables().leases, manifest, advances)
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        rules::roll_back(&mut self.tables().leases, manifest, keys)
    }
}
