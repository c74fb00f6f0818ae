//! What a scan of the lease table shows of the whole fleet.
//!
//! Owns: counting shards and workers, and since when a shard has no owner or an epoch is pending, as this worker has seen it. Does not
//! own: scanning (`leases`), what is wrong with too long a time (the table of alerts).
//!
//! Times are those of this worker's monotonic clock since its own first scan that showed the fact. So they begin again with each start of a
//! process, and no other clock counts.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use checkpoints::{Holder, Lease, LeaseOwner, ManifestName, ShardKey};
use tokio::time::Instant;

/// The fleet, as the last scan of the lease table showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetFigures {
    /// When the scan ended.
    pub scanned: Instant,
    /// Workers that hold a shard.
    pub workers: u64,
    /// Shards that can be read now: not done, and with parents that are done.
    pub shards: u64,
    /// Shards that wait for their parents.
    pub waiting: u64,
    /// Shards that can be read and that nobody holds.
    pub unowned: u64,
    /// For how long one of them has been seen without an owner.
    pub unowned_for: Duration,
    /// Epochs that are decided and not finished.
    pub pending: u64,
    /// For how long one of them has been seen pending.
    pub pending_for: Duration,
    /// Whether this worker holds the first shard that is not done. Such a worker does what one of the fleet should do.
    pub is_first: bool,
}

/// Remembers since when something is as it should not stay.
#[derive(Debug, Default)]
pub(super) struct FleetWatch {
    unowned: HashMap<ShardKey, Instant>,
    pending: HashMap<ManifestName, Instant>,
}

/// Keeps those that are still there, with the time at which each was seen first. Returns how many there are and the longest time.
fn keep<K: std::hash::Hash + Eq + Clone>(
    since: &mut HashMap<K, Instant>,
    now: Instant,
    there: &HashSet<&K>,
) -> (u64, Duration) {
    since.retain(|key, _| there.contains(key));
    for key in there {
        since.entry((*key).clone()).or_insert(now);
    }
    let longest = since.values().map(|at| now.duration_since(*at)).max().unwrap_or_default();
    (there.len() as u64, longest)
}

impl FleetWatch {
    /// Takes a scan into account. `is_ready`: whether a shard can be read now.
    pub(super) fn on_scan(
        &mut self,
        me: &LeaseOwner,
        leases: &[Lease],
        is_ready: impl Fn(&Lease) -> bool,
    ) -> FleetFigures {
        let now = Instant::now();
        let (mut unowned, mut pending, mut workers) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut shards, mut waiting) = (0, 0);
        let mut first: Option<&Lease> = None;
        for lease in leases {
            workers.extend(lease.holder.committer());
            pending.extend(lease.pending.as_ref().map(|pending| &pending.manifest));
            if lease.is_done() {
                continue;
            }
            if first.is_none_or(|first| lease.key < first.key) {
                first = Some(lease);
            }
            if !is_ready(lease) {
                waiting += 1;
                continue;
            }
            shards += 1;
            if lease.holder == Holder::Nobody {
                unowned.insert(&lease.key);
            }
        }
        let (unowned, unowned_for) = keep(&mut self.unowned, now, &unowned);
        let (pending, pending_for) = keep(&mut self.pending, now, &pending);
        FleetFigures {
            scanned: now,
            workers: workers.len() as u64,
            shards,
            waiting,
            unowned,
            unowned_for,
            pending,
            pending_for,
            is_first: first.is_some_and(|first| first.holder.is(me)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::testing::{at, lease};
    use checkpoints::{Pending, Position};

    fn owner(number: u8) -> LeaseOwner {
        LeaseOwner::from_random([number; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn times_without_an_owner_and_of_pending_epochs_grow_until_they_end() {
        let held = |shard: &str, by: u8| Lease { holder: Holder::Held(owner(by)), ..lease(shard, at(5)) };
        let pending_on = |lease: Lease, name: &str| {
            let manifest = ManifestName::new(name).unwrap();
            Lease { pending: Some(Pending { through: at(9), manifest }), ..lease }
        };
        let mut watch = FleetWatch::default();
        let mut scan = |leases: &[Lease]| watch.on_scan(&owner(1), leases, |lease| lease.key.shard.as_str() != "w");
        let leases = [
            pending_on(held("a", 1), "m1"),
            pending_on(held("b", 2), "m1"),
            lease("c", at(5)),
            lease("w", Position::Beginning),
            lease("done", Position::End),
        ];
        let figures = scan(&leases);
        assert_eq!((figures.workers, figures.shards, figures.waiting), (2, 3, 1));
        assert_eq!((figures.unowned, figures.unowned_for), (1, Duration::ZERO));
        assert_eq!((figures.pending, figures.pending_for, figures.is_first), (1, Duration::ZERO, true));
        tokio::time::advance(Duration::from_secs(7)).await;
        let figures = scan(&leases);
        assert_eq!((figures.unowned_for, figures.pending_for), (Duration::from_secs(7), Duration::from_secs(7)));
        // Another epoch and another shard begin again.
        let leases = [pending_on(held("a", 2), "m2"), held("c", 2), lease("b", at(5))];
        let figures = scan(&leases);
        assert_eq!((figures.unowned_for, figures.pending_for), (Duration::ZERO, Duration::ZERO));
        assert!(!figures.is_first);
        let figures = scan(&[held("a", 1)]);
        assert_eq!((figures.unowned, figures.pending), (0, 0));
    }
}
