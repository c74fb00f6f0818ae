//! The other workers of the fleet: which of them are alive.
//!
//! Owns: the counter of every lease of another worker, and since when none of a worker's counters has moved. Does not own:
//! what follows from a worker's death (`balance`).
//!
//! A worker counts as dead when none of its counters has moved for the failover time, by this process's monotonic clock. It
//! also counts as dead as soon as the store knows that its process has ended.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use checkpoints::{Lease, LeaseOwner, LeaseStore, ShardKey, StoreError};
use tokio::time::Instant;

/// What was seen of the other workers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// The counter of each lease of others in the last scan.
    counters: HashMap<ShardKey, u64>,
    /// Since when none of a worker's counters has moved.
    quiet_since: HashMap<LeaseOwner, Instant>,
}

impl Peers {
    /// Compares the counters with those of the last scan. Returns the workers that count as dead.
    pub(super) async fn find_dead(
        &mut self,
        me: &LeaseOwner,
        leases: &[Lease],
        failover: Duration,
        store: &dyn LeaseStore,
    ) -> Result<HashSet<LeaseOwner>, StoreError> {
        let mut dead = HashSet::new();
        for owner in self.observe(me, leases) {
            if self.is_quiet_for(&owner, failover) || store.owner_is_gone(&owner).await? {
                dead.insert(owner);
            }
        }
        Ok(dead)
    }

    /// Returns the other workers that hold leases.
    fn observe(&mut self, me: &LeaseOwner, leases: &[Lease]) -> BTreeSet<LeaseOwner> {
        let now = Instant::now();
        let mut owners = BTreeSet::new();
        for lease in leases {
            let Some(owner) = lease.holder.committer().filter(|owner| *owner != me) else {
                self.counters.remove(&lease.key);
                continue;
            };
            let has_moved = self.counters.insert(lease.key.clone(), lease.counter) != Some(lease.counter);
            let quiet_since = self.quiet_since.entry(owner.clone()).or_insert(now);
            if has_moved {
                *quiet_since = now;
            }
            owners.insert(owner.clone());
        }
        self.quiet_since.retain(|owner, _| owners.contains(owner));
        owners
    }

    /// A lease is no longer another worker's.
    pub(super) fn forget(&mut self, key: &ShardKey) {
        self.counters.remove(key);
    }

    /// Whether none of the worker's counters has moved for this time.
    pub(super) fn is_quiet_for(&self, owner: &LeaseOwner, time: Duration) -> bool {
        self.quiet_since.get(owner).is_some_and(|since| since.elapsed() >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{Holder, MemoryStore, NewLease, Position, ShardId, StreamName};

    fn owner(number: u8) -> LeaseOwner {
        LeaseOwner::from_random([number; 16])
    }

    fn lease(shard: &str, holder: u8, counter: u64) -> Lease {
        let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(shard).unwrap());
        Lease { holder: Holder::Held(owner(holder)), counter, ..Lease::new(NewLease::new(key, Position::Beginning)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_alive_while_any_of_its_counters_moves() {
        let (mut peers, store) = (Peers::default(), MemoryStore::new());
        let failover = Duration::from_secs(10);
        for counter in 0..4 {
            let leases = [lease("a", 1, 0), lease("b", 1, counter), lease("c", 2, 0), lease("d", 9, 0)];
            let dead = peers.find_dead(&owner(9), &leases, failover, &store).await.unwrap();
            let expected = if counter < 2 { HashSet::new() } else { HashSet::from([owner(2)]) };
            assert_eq!(dead, expected, "after {counter} rounds of six seconds");
            tokio::time::advance(Duration::from_secs(6)).await;
        }
        assert!(!peers.is_quiet_for(&owner(9), Duration::ZERO), "this worker is not one of its peers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_left_and_comes_back_starts_alive() {
        let (mut peers, store) = (Peers::default(), MemoryStore::new());
        let failover = Duration::from_secs(10);
        peers.find_dead(&owner(9), &[lease("a", 1, 0)], failover, &store).await.unwrap();
        peers.find_dead(&owner(9), &[lease("a", 9, 1)], failover, &store).await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        let dead = peers.find_dead(&owner(9), &[lease("a", 1, 2)], failover, &store).await.unwrap();
        assert_eq!(dead, HashSet::new());
    }
}
