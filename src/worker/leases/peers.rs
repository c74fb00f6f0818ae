//! The other workers of the fleet: which of them are alive.
//!
//! Owns: the counter of every lease of another worker, and since when none of a worker's counters has moved. Does not own:
//! what follows from a worker's death (`balance`).
//!
//! A worker counts as dead when none of its counters has moved for the failover time, by this process's monotonic clock. It
//! also counts as dead as soon as the store knows that its process has ended.
//!
//! Where most scans are left out, two scans alone do not show it: what a worker renewed between them may be leases that it has
//! handed over since. So the time between them counts as half of the failover time at most. Then the worker is a *suspect*, and scans follow
//! each other at full pace.

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
    /// Whether one of them was quiet in the last scan for half of the failover time.
    has_suspects: bool,
}

impl Peers {
    /// Compares the counters with those of the last scan. Returns the workers that count as dead. `is_sparse`: whether scans are left out.
    pub(super) async fn find_dead(
        &mut self,
        me: &LeaseOwner,
        leases: &[Lease],
        failover: Duration,
        store: &dyn LeaseStore,
        is_sparse: bool,
    ) -> Result<HashSet<LeaseOwner>, StoreError> {
        let mut dead = HashSet::new();
        let (owners, now) = (self.observe(me, leases), Instant::now());
        if is_sparse && !self.has_suspects {
            for since in self.quiet_since.values_mut() {
                *since = (*since).max(now - failover / 2);
            }
        }
        self.has_suspects = self.quiet_since.values().any(|since| now.duration_since(*since) >= failover / 2);
        for owner in owners {
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

    /// Whether a worker was quiet in the last scan for half of the failover time.
    pub(super) fn has_suspects(&self) -> bool {
        self.has_suspects
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
            let dead = peers.find_dead(&owner(9), &leases, failover, &store, false).await.unwrap();
            let expected = if counter < 2 { HashSet::new() } else { HashSet::from([owner(2)]) };
            assert_eq!(dead, expected, "after {counter} rounds of six seconds");
            tokio::time::advance(Duration::from_secs(6)).await;
        }
        assert!(!peers.is_quiet_for(&owner(9), Duration::ZERO), "this worker is not one of its peers");
    }

    #[tokio::test(start_paused = true)]
    async fn where_scans_are_left_out_a_quiet_worker_is_a_suspect_before_it_counts_as_dead() {
        let (mut peers, store) = (Peers::default(), MemoryStore::new());
        let failover = Duration::from_secs(10);
        let mut scan = async |shard: &str, counter: u64| {
            let leases = [lease(shard, 1, counter)];
            let dead = peers.find_dead(&owner(9), &leases, failover, &store, true).await.unwrap();
            (peers.has_suspects(), dead.len())
        };
        assert_eq!(scan("b", 3).await, (false, 0));
        tokio::time::advance(Duration::from_secs(12)).await;
        // It renewed `a`, and has handed that over since.
        assert_eq!(scan("b", 3).await, (true, 0));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(scan("b", 4).await, (false, 0), "it lives");
        for (seconds, expected) in [(12, (true, 0)), (3, (true, 0)), (3, (true, 1))] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(scan("b", 4).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_left_and_comes_back_starts_alive() {
        let (mut peers, store) = (Peers::default(), MemoryStore::new());
        let failover = Duration::from_secs(10);
        peers.find_dead(&owner(9), &[lease("a", 1, 0)], failover, &store, false).await.unwrap();
        peers.find_dead(&owner(9), &[lease("a", 9, 1)], failover, &store, false).await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        let dead = peers.find_dead(&owner(9), &[lease("a", 1, 2)], failover, &store, false).await.unwrap();
        assert_eq!(dead, HashSet::new());
    }
}
