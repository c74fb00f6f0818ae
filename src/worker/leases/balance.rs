//! Which leases this worker should hold: a pure function of all leases.
//!
//! Owns: what this worker takes and asks for, given all leases and the workers that count as dead. Does not own: the requests
//! (`manager`). There is no leader. Every worker judges by the same rows, and if two workers want the same lease, the
//! conditional writes decide.
//!
//! The work is balanced by *throughput*, as the holders measured it (KCL's `throughputKBps`). Each shard also has a fixed
//! weight, so that idle shards are spread by count.
//!
//! - A worker takes free leases while it has less than the mean. Not all workers can have the mean or more while a lease is
//!   free, so every lease is taken by somebody.
//! - A worker asks the busiest one only for leases after which the busiest is still ahead of it by a margin. So few leases
//!   move, and none moves back.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use checkpoints::{Holder, Lease, LeaseOwner, ShardKey};
use mutations::mutated;

/// The fixed weight of a shard: kilobytes per second, and a part of the mean throughput.
const SHARD_KBPS: f64 = 1.0;
const SHARD_PART: f64 = 0.1;
/// How far the busiest worker must stay ahead for a lease to move, as a part of the mean load.
const MARGIN: f64 = 0.1;
/// So many leases are shared out quickly, even if all workers try to take them in the same order.
const FEW: usize = 64;

/// What a worker should do.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Free leases to take.
    pub(crate) take: Vec<ShardKey>,
    /// Leases to ask their holders for.
    pub(crate) ask: Vec<(ShardKey, LeaseOwner)>,
}

/// Whether a shard can be read now: it is not done, and its parents are.
pub(crate) fn is_ready(lease: &Lease, by_key: &HashMap<&ShardKey, &Lease>) -> bool {
    // A parent without a row is done: `Discovery::add_parents_not_shown` has read the parents that the scan did not show.
    let parents_done = lease.parents_done(|key| by_key.get(key).copied());
    !lease.is_done() && (parents_done || mutated!(ChildBeforeParent))
}

/// What `me` should take and ask for. `active` are the leases of shards that can be read now.
pub(crate) fn rebalance(me: &LeaseOwner, active: &[&Lease], dead: &HashSet<LeaseOwner>) -> Plan {
    let weights = Weights::of(active);
    let mut loads: BTreeMap<&LeaseOwner, f64> = BTreeMap::from([(me, 0.0)]);
    let mut coming = 0.0;
    for lease in active {
        let weight = weights.of_lease(lease);
        if let Some(owner) = lease.holder.committer().filter(|owner| !dead.contains(*owner)) {
            *loads.entry(owner).or_default() += weight;
        }
        // A dead worker hands nothing over: what it was asked for is free.
        if matches!(&lease.holder, Holder::HandingOver { from, to } if to == me && !dead.contains(from)) {
            coming += weight;
        }
    }
    let fair = active.iter().map(|lease| weights.of_lease(lease)).sum::<f64>() / count(loads.len());
    let mut mine = loads.get(me).copied().unwrap_or(0.0) + coming;
    let mut plan = Plan::default();
    let is_free = |lease: &Lease| match &lease.holder {
        Holder::Nobody => true,
        Holder::Held(owner) | Holder::HandingOver { from: owner, .. } => owner != me && dead.contains(owner),
    };
    for lease in weights.heaviest_first(me, active.iter().copied().filter(|lease| is_free(lease))) {
        if mine >= fair {
            break;
        }
        mine += weights.of_lease(lease);
        plan.take.push(lease.key.clone());
    }
    // The leases of each worker that it may be asked for, heaviest first. Each is considered once: what would make the busiest the lighter one
    // will not fit later either, because loads of others only fall and `mine` only grows.
    let mut to_ask: HashMap<&LeaseOwner, VecDeque<&Lease>> = HashMap::new();
    if mine < fair {
        for lease in weights.heaviest_first(me, active.iter().copied()) {
            if let Holder::Held(owner) = &lease.holder {
                to_ask.entry(owner).or_default().push_back(lease);
            }
        }
    }
    while mine < fair {
        let busiest = loads.iter().filter(|(owner, _)| **owner != me).max_by(|left, right| left.1.total_cmp(right.1));
        let Some((owner, load)) = busiest.map(|(owner, load)| (*owner, *load)) else { break };
        let of_busiest = to_ask.entry(owner).or_default();
        let fits = |lease: &Lease| mine + weights.of_lease(lease) <= load - MARGIN * fair;
        while of_busiest.front().is_some_and(|lease| !fits(lease)) {
            of_busiest.pop_front();
        }
        let Some(lease) = of_busiest.pop_front() else { break };
        let weight = weights.of_lease(lease);
        mine += weight;
        loads.insert(owner, load - weight);
        plan.ask.push((lease.key.clone(), owner.clone()));
    }
    plan
}

/// The weight of each shard.
struct Weights {
    fixed: f64,
    are_many: bool,
}

impl Weights {
    fn of(active: &[&Lease]) -> Self {
        let total: f64 = active.iter().map(|lease| lease.throughput.get()).sum();
        let fixed = SHARD_KBPS + SHARD_PART * total / count(active.len().max(1));
        Weights { fixed, are_many: active.len() > FEW }
    }

    fn of_lease(&self, lease: &Lease) -> f64 {
        self.fixed + lease.throughput.get()
    }

    /// Heaviest first, and by key. Where there are many leases, each worker has an order of its own of those that weigh the same, which follows
    /// from its name. Otherwise a hundred workers that start at once would all try to take the same ones, and one would get them.
    fn heaviest_first<'l>(&self, me: &LeaseOwner, leases: impl Iterator<Item = &'l Lease>) -> Vec<&'l Lease> {
        let rank = |lease: &Lease| {
            let mut hasher = DefaultHasher::new();
            (me.as_str(), lease.key.shard.as_str()).hash(&mut hasher);
            if self.are_many { hasher.finish() } else { 0 }
        };
        let mut leases: Vec<(f64, u64, &Lease)> =
            leases.map(|lease| (self.of_lease(lease), rank(lease), lease)).collect();
        leases.sort_by(|left, right| {
            right.0.total_cmp(&left.0).then_with(|| (left.1, &left.2.key).cmp(&(right.1, &right.2.key)))
        });
        leases.into_iter().map(|(.., lease)| lease).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of shards and workers are small")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{NewLease, Position, ShardId, StreamName, ThroughputKbps};
    use proptest::prelude::*;

    fn owner(number: usize) -> LeaseOwner {
        LeaseOwner::new(format!("w{number}")).unwrap()
    }

    fn lease(number: usize, held_by: Option<usize>, kbps: f64) -> Lease {
        let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(format!("{number:03}")).unwrap());
        let mut lease = Lease::new(NewLease::new(key, Position::Beginning));
        lease.holder = held_by.map_or(Holder::Nobody, |number| Holder::Held(owner(number)));
        lease.throughput = ThroughputKbps::new(kbps);
        lease
    }

    /// Lets workers judge in turn and carries out each plan at once, until nobody wants anything. Returns the load of each
    /// worker, and the number of moves.
    fn settle(leases: &mut [Lease], workers: usize, dead: &HashSet<LeaseOwner>) -> (Vec<f64>, usize) {
        let mut moves = 0;
        for round in 0..200 {
            let mut quiet = true;
            for worker in 0..workers {
                let me = owner(worker);
                if dead.contains(&me) {
                    continue;
                }
                let Plan { take, ask } = rebalance(&me, &leases.iter().collect::<Vec<_>>(), dead);
                let wanted: HashSet<ShardKey> = take.into_iter().chain(ask.into_iter().map(|(key, _)| key)).collect();
                quiet &= wanted.is_empty();
                moves += wanted.len();
                for lease in leases.iter_mut().filter(|lease| wanted.contains(&lease.key)) {
                    lease.holder = Holder::Held(me.clone());
                }
            }
            if quiet {
                let load = |worker| {
                    let held = leases.iter().filter(|lease| lease.holder.is(&owner(worker)));
                    held.map(|lease| lease.throughput.get()).sum()
                };
                return ((0..workers).map(load).collect(), moves);
            }
            assert!(round < 199, "leases must not move back and forth");
        }
        unreachable!("it settles or fails")
    }

    #[test]
    fn idle_shards_are_balanced_by_count() {
        let mut leases: Vec<Lease> = (0..8).map(|number| lease(number, None, 0.0)).collect();
        let (_, moves) = settle(&mut leases, 1, &HashSet::new());
        assert_eq!(moves, 8);
        // Three more workers judge in turn, and each takes its share of what it sees.
        let (_, moves) = settle(&mut leases, 4, &HashSet::new());
        assert!(moves <= 4 + 2 + 2, "{moves}");
        for worker in 0..4 {
            assert_eq!(leases.iter().filter(|lease| lease.holder.is(&owner(worker))).count(), 2);
        }
    }

    #[test]
    fn a_single_shard_does_not_move() {
        let leases = [lease(0, Some(0), 100.0)];
        assert_eq!(rebalance(&owner(1), &[&leases[0]], &HashSet::new()), Plan::default());
    }

    #[test]
    fn busy_shards_weigh_more() {
        // One shard has as much throughput as the other four together.
        let mut leases: Vec<Lease> =
            (0..5).map(|number| lease(number, Some(0), if number == 0 { 400.0 } else { 100.0 })).collect();
        let (loads, _) = settle(&mut leases, 2, &HashSet::new());
        assert!(loads.iter().all(|load| (*load - 400.0).abs() < 1.0), "{loads:?}");
    }

    #[test]
    fn workers_that_start_at_once_choose_different_leases() {
        let leases: Vec<Lease> = (0..1_000).map(|number| lease(number, None, 0.0)).collect();
        let mut active: Vec<Lease> = leases;
        // All of them hold something already, and so each has a share of a hundredth.
        active.extend((0..100).map(|number| lease(1_000 + number, Some(number), 0.0)));
        let active: Vec<&Lease> = active.iter().collect();
        let taken: HashSet<ShardKey> =
            (0..100).flat_map(|number| rebalance(&owner(number), &active, &HashSet::new()).take).collect();
        assert!(taken.len() > 550, "a hundred workers try to take {} of a thousand leases", taken.len());
    }

    #[test]
    fn half_of_ten_thousand_leases_are_asked_for_in_one_pass() {
        let leases: Vec<Lease> = (0..10_000).map(|number| lease(number, Some(0), 0.0)).collect();
        let Plan { take, ask } = rebalance(&owner(1), &leases.iter().collect::<Vec<_>>(), &HashSet::new());
        assert_eq!(take, []);
        // The margin of a tenth stays with the busiest.
        assert!((4_700..=5_000).contains(&ask.len()), "{}", ask.len());
        let asked: HashSet<&ShardKey> = ask.iter().map(|(key, _)| key).collect();
        assert_eq!(asked.len(), ask.len(), "none is asked for twice");
    }

    #[test]
    fn the_leases_of_a_dead_worker_are_taken_by_the_others() {
        let mut leases: Vec<Lease> = (0..9).map(|number| lease(number, Some(number % 3), 10.0)).collect();
        let dead = HashSet::from([owner(2)]);
        let (loads, moves) = settle(&mut leases, 3, &dead);
        assert!(moves == 3 && loads[2] < 1.0, "{moves} {loads:?}");
        assert!(loads[0] + loads[1] > 89.0);
    }

    #[test]
    fn a_lease_that_is_being_handed_over_is_not_asked_for_twice() {
        let mut leases: Vec<Lease> = (0..4).map(|number| lease(number, Some(0), 0.0)).collect();
        for lease in &mut leases[..2] {
            lease.holder = Holder::HandingOver { from: owner(0), to: owner(1) };
        }
        assert_eq!(rebalance(&owner(1), &leases.iter().collect::<Vec<_>>(), &HashSet::new()), Plan::default());
    }

    #[test]
    fn leases_that_a_dead_worker_was_asked_for_are_taken_like_its_others() {
        let mut leases: Vec<Lease> = (0..4).map(|number| lease(number, Some(0), 0.0)).collect();
        for lease in &mut leases[..2] {
            lease.holder = Holder::HandingOver { from: owner(0), to: owner(1) };
        }
        let Plan { take, ask } = rebalance(&owner(1), &leases.iter().collect::<Vec<_>>(), &HashSet::from([owner(0)]));
        assert_eq!((take.len(), ask.len()), (4, 0));
    }

    proptest! {
        #[test]
        fn every_lease_is_taken_and_then_none_moves(
            shards in prop::collection::vec((prop::option::of(0_usize..5), 0.0_f64..2000.0), 1..60),
            workers in 1_usize..6,
        ) {
            let held = |(number, (holder, kbps)): (usize, &(Option<usize>, f64))| {
                lease(number, holder.filter(|holder| *holder < workers), *kbps)
            };
            let mut leases: Vec<Lease> = shards.iter().enumerate().map(held).collect();
            settle(&mut leases, workers, &HashSet::new());
            prop_assert!(leases.iter().all(|lease| lease.holder != Holder::Nobody));
        }
    }
}
