//! The memory store as the model: for any calls in any order, every store gives the same answers.
//!
//! The other tests of the suite cover cases that somebody thought of. This one makes long sequences of calls by few workers on
//! few shards. Most calls make sense and some do not. It compares every answer and every row. The sequences come from fixed
//! seeds, so a failure can be reproduced.

use super::{Factory, at, key, manifest, owner};
use crate::decision::Decision;
use crate::error::StoreError;
use crate::lease::{Lease, LeaseOwner, ManifestName, NewLease, ThroughputKbps};
use crate::memory::MemoryStore;
use crate::position::{Position, ShardRange};
use crate::shard::{ShardId, ShardKey};
use crate::store::{Advance, LeaseStore, Renewal};

/// Calls in one sequence.
const STEPS: usize = 300;
/// Shards and workers: few, so that they collide often.
const SHARDS: usize = 3;
const WORKERS: usize = 3;

/// A call with its arguments.
#[derive(Debug)]
enum Step {
    Create(Vec<NewLease>),
    Renew(LeaseOwner, Vec<Renewal>),
    Take(LeaseOwner, ShardKey, u64),
    Ask(LeaseOwner, ShardKey, LeaseOwner),
    HandOver(LeaseOwner, ShardKey),
    Release(LeaseOwner, ShardKey),
    Remove(ShardKey),
    Decide(Decision),
    Advance(ManifestName, Vec<Advance>),
    RollBack(ManifestName, Vec<ShardKey>),
}

impl Step {
    /// The answer as a text. An error counts by its kind only: each store has its own messages.
    async fn run(&self, store: &dyn LeaseStore) -> String {
        match self {
            Self::Create(new) => answer(store.create(new).await),
            Self::Renew(me, renewals) => answer(store.renew(me, renewals).await),
            Self::Take(me, key, seen) => answer(store.take(me, key, *seen).await),
            Self::Ask(me, key, from) => answer(store.ask(me, key, from).await),
            Self::HandOver(me, key) => answer(store.hand_over(me, key).await),
            Self::Release(me, key) => answer(store.release(me, key).await),
            Self::Remove(key) => answer(store.remove(key).await),
            Self::Decide(decision) => answer(store.decide(decision).await),
            Self::Advance(manifest, advances) => answer(store.advance(manifest, advances).await),
            Self::RollBack(manifest, keys) => answer(store.roll_back(manifest, keys).await),
        }
    }
}

fn answer<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{:?}", std::mem::discriminant(&error)),
    }
}

/// Random numbers (SplitMix64) and the calls made from them.
struct Dice {
    state: u64,
    manifests: Vec<(ManifestName, Vec<(ShardKey, Position)>)>,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self { state: seed, manifests: vec![(manifest("never"), vec![(key(0), at(1))])] }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    /// True in `of` of ten cases.
    fn often(&mut self, of: usize) -> bool {
        self.below(10) < of
    }

    fn worker(&mut self) -> LeaseOwner {
        owner(&format!("worker-{}", self.below(WORKERS)))
    }

    /// The holder of the lease, mostly.
    fn holder(&mut self, lease: &Lease) -> LeaseOwner {
        let holder = lease.holder.committer().filter(|_| self.often(8)).cloned();
        holder.unwrap_or_else(|| self.worker())
    }

    /// The current counter, mostly.
    fn counter(&mut self, lease: &Lease) -> u64 {
        if self.often(8) { lease.counter } else { (lease.counter + 1).saturating_sub(self.below(3) as u64) }
    }

    /// A position after another, for a valid range; sometimes the end.
    fn after(&mut self, position: &Position) -> Position {
        match position {
            _ if self.below(8) == 0 => Position::End,
            Position::Beginning | Position::Since { .. } | Position::Latest => at(1 + self.below(20) as u64),
            Position::At { sequence, sub } if self.often(3) => {
                Position::At { sequence: sequence.clone(), sub: sub + 1 }
            }
            Position::At { sequence, .. } => {
                let number: u64 = sequence.as_str().parse().unwrap();
                at(number + 1 + self.below(20) as u64)
            }
            Position::End => Position::End,
        }
    }

    fn decision(&mut self, leases: &[Lease]) -> Option<Decision> {
        let me = self.holder(&leases[0]);
        let mut shards = Vec::new();
        for lease in leases {
            let mine = lease.holder.is(&me) && lease.pending.is_none();
            if (mine && self.often(8)) || self.below(20) == 0 {
                let after = if self.often(9) { lease.checkpoint.clone() } else { at(self.below(30) as u64) };
                let through = self.after(&after);
                shards.push((lease.key.clone(), ShardRange::new(after, through).ok()?));
            }
        }
        let name = if self.often(9) {
            manifest(&format!("{}-{}", self.state, self.manifests.len()))
        } else {
            self.manifests[self.manifests.len() - 1].0.clone()
        };
        let decision = Decision::new(me, name.clone(), shards).ok()?;
        let ends = decision.shards().iter().map(|(key, range)| (key.clone(), range.through().clone())).collect();
        self.manifests.push((name, ends));
        Some(decision)
    }

    /// One of the last manifests, with its shards' ends.
    fn manifest(&mut self, leases: &[Lease]) -> (ManifestName, Vec<(ShardKey, Position)>) {
        let pending = leases.iter().filter_map(|lease| lease.pending.as_ref()).next();
        if let Some(pending) = pending.filter(|_| self.often(7)) {
            let of_it = |lease: &&Lease| lease.is_pending(&pending.manifest);
            let end = |lease: &Lease| Some((lease.key.clone(), lease.pending.as_ref()?.through.clone()));
            return (pending.manifest.clone(), leases.iter().filter(of_it).filter_map(end).collect());
        }
        let back = self.below(4).min(self.manifests.len() - 1);
        self.manifests[self.manifests.len() - 1 - back].clone()
    }

    fn step(&mut self, leases: &[Lease]) -> Step {
        if leases.len() < SHARDS && self.often(5) {
            return Step::Create(vec![NewLease::new(key(self.below(SHARDS)), Position::Beginning)]);
        }
        // If there is no row, the calls are made as if there were one.
        let missing = Lease::new(NewLease::new(key(self.below(SHARDS)), Position::Beginning));
        let leases = if leases.is_empty() { std::slice::from_ref(&missing) } else { leases };
        let lease = leases[self.below(leases.len())].clone();
        let me = self.holder(&lease);
        match self.below(20) {
            0 => Step::Create(vec![NewLease::new(lease.key, at(1))]),
            1 | 2 => {
                let renew = |dice: &mut Self, lease: &Lease| Renewal {
                    key: lease.key.clone(),
                    counter: dice.counter(lease),
                    throughput: ThroughputKbps::new(u8::try_from(dice.below(100)).unwrap().into()),
                };
                Step::Renew(me, leases.iter().map(|lease| renew(self, lease)).collect())
            }
            3 | 4 => Step::Take(self.worker(), lease.key.clone(), self.counter(&lease)),
            5 | 6 => Step::Ask(self.worker(), lease.key, me),
            7 | 8 => Step::HandOver(me, lease.key),
            9 => Step::Release(me, lease.key),
            10 => Step::Remove(lease.key),
            11..=14 => self.decision(leases).map_or(Step::Release(me, key(9)), Step::Decide),
            15..=18 => {
                let (manifest, ends) = self.manifest(leases);
                let part = 1 + self.below(ends.len().max(1));
                let advance = |(key, through): (ShardKey, Position)| match through {
                    Position::End => Advance::to_end(key, [ShardId::new("shardId-child").unwrap()]),
                    through => Advance::new(key, through),
                };
                Step::Advance(manifest, ends.into_iter().take(part).map(advance).collect())
            }
            _ => {
                let (manifest, ends) = self.manifest(leases);
                Step::RollBack(manifest, ends.into_iter().map(|(key, _)| key).collect())
            }
        }
    }
}

pub async fn every_sequence_of_calls_gets_the_memory_stores_answers(factory: &dyn Factory) {
    for seed in 1..=3 {
        let fixture = factory.fresh(2).await;
        let model = MemoryStore::new().with_decision_shards_max(fixture.store().decision_shards_max());
        let mut dice = Dice::new(seed);
        for number in 0..STEPS {
            let rows = model.list().await.unwrap();
            let step = dice.step(&rows);
            let (expected, found) = (step.run(&model).await, step.run(fixture.handle(number % 2)).await);
            assert_eq!(found, expected, "seed {seed}, step {number}: {step:?}, on {rows:#?}");
            let (expected, found) = (model.list().await.unwrap(), fixture.handle(number % 2).list().await.unwrap());
            assert_eq!(found, expected, "seed {seed}, after step {number}: {step:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Holder;

    /// Guards the suite against sequences that get stuck.
    #[tokio::test]
    async fn the_sequences_reach_every_kind_of_state() {
        let (mut pending, mut handing_over, mut ended, mut advanced, mut decided) = (0, 0, 0, 0, 0);
        for seed in 1..=3 {
            let model = MemoryStore::new();
            let mut dice = Dice::new(seed);
            for _ in 0..STEPS {
                let step = dice.step(&model.list().await.unwrap());
                decided += usize::from(step.run(&model).await == "Decided");
                for lease in model.list().await.unwrap() {
                    pending += usize::from(lease.pending.is_some());
                    handing_over += usize::from(matches!(lease.holder, Holder::HandingOver { .. }));
                    ended += usize::from(lease.checkpoint == Position::End);
                    advanced += usize::from(lease.last_manifest.is_some());
                }
            }
        }
        for (count, what) in [
            (pending, "pending"),
            (handing_over, "handing over"),
            (ended, "ended"),
            (advanced, "advanced"),
            (decided, "decided"),
        ] {
            assert!(count >= 20, "{what} was reached {count} times only");
        }
    }
}
