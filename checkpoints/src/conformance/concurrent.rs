//! Many calls at once, over several handles: their answers must be those of some sequential order.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Factory, advances, at, create, decide, decision, first, held, insist, key, manifest, owner, row};
use crate::decision::{Decision, Verdict};
use crate::lease::{Holder, ManifestName};
use crate::position::{Position, ShardRange};
use crate::shard::ShardKey;
use crate::store::{AdvanceOutcome, LeaseStore};

/// Runs `count` tasks at once, each on one of the handles, and returns their answers in the order of the tasks.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    task: impl Fn(usize) -> F,
) -> Vec<T> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let work = task(number);
        tasks.spawn(async move { (number, work.await) });
    }
    let mut answers: Vec<(usize, T)> = tasks.join_all().await;
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

pub async fn of_eight_workers_that_take_a_lease_at_once_one_gets_it(factory: &dyn Factory) {
    let fixture = factory.fresh(4).await;
    create(fixture.store(), 1).await;
    for round in 0..10 {
        let seen = row(fixture.store(), &key(0)).await.counter;
        let taken = at_once(8, |number| {
            let (store, shard) = (fixture.shared(number), key(0));
            let me = owner(&format!("{round}-{number}"));
            async move { insist(|| store.take(&me, &shard, seen)).await }
        })
        .await;
        let winners: Vec<_> = taken.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(row(fixture.store(), &key(0)).await, winners[0]);
        assert_eq!(winners[0].counter, seen + 1);
    }
}

pub async fn of_eight_workers_that_ask_for_a_lease_at_once_one_is_next(factory: &dyn Factory) {
    let fixture = factory.fresh(4).await;
    held(fixture.store(), &owner("from"), 1).await;
    let asked = at_once(8, |number| {
        let (store, shard) = (fixture.shared(number), key(0));
        let (me, from) = (owner(&number.to_string()), owner("from"));
        async move { insist(|| store.ask(&me, &shard, &from)).await }
    })
    .await;
    let winners: Vec<usize> = (0..8).filter(|number| asked[*number]).collect();
    assert_eq!(winners.len(), 1);
    let holder = Holder::HandingOver { from: owner("from"), to: owner(&winners[0].to_string()) };
    assert_eq!(row(fixture.store(), &key(0)).await.holder, holder);
}

pub async fn of_a_decision_and_a_take_at_once_either_may_come_first(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let keys = held(fixture.store(), &owner("me"), 10).await;
    for key in keys {
        let seen = row(fixture.store(), &key).await.counter;
        let epoch = decision(&owner("me"), &manifest(key.shard.as_str()), vec![(key.clone(), first(5))]);
        let (decider, taker) = (fixture.shared(0), fixture.shared(1));
        let deciding = tokio::spawn({
            let epoch = epoch.clone();
            async move { insist(|| decider.decide(&epoch)).await }
        });
        let taking = tokio::spawn({
            let (key, other) = (key.clone(), owner("other"));
            async move { insist(|| taker.take(&other, &key, seen)).await.expect("only a take moves it") }
        });
        let (decided, taken) = (deciding.await.unwrap(), taking.await.unwrap());
        let after = row(fixture.store(), &key).await;
        assert_eq!(after.holder, Holder::Held(owner("other")));
        assert_eq!(after.is_pending(epoch.manifest()), decided == Verdict::Decided);
        // The worker that takes the lease sees an earlier decision, and nothing is decided afterwards.
        assert_eq!(taken.pending, after.pending);
    }
}

pub async fn an_advance_and_a_rollback_exclude_each_other(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let me = owner("me");
    held(fixture.store(), &me, 3).await;
    for round in 0..10_u64 {
        let shards: Vec<(ShardKey, ShardRange)> = fixture
            .store()
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|lease| (lease.key, ShardRange::new(lease.checkpoint, at(round + 1)).unwrap()))
            .collect();
        let epoch = decision(&me, &manifest(&round.to_string()), shards);
        decide(fixture.store(), &epoch).await;
        let outcomes = at_once(2, |number| {
            let (store, epoch) = (fixture.shared(number), epoch.clone());
            async move {
                if number == 0 {
                    let advances = advances(&epoch);
                    let outcomes = insist(|| store.advance(epoch.manifest(), &advances)).await;
                    outcomes.iter().all(|outcome| *outcome == AdvanceOutcome::Advanced)
                } else {
                    let keys = epoch.keys();
                    insist(|| store.roll_back(epoch.manifest(), &keys)).await
                }
            }
        })
        .await;
        assert_ne!(outcomes[0], outcomes[1]);
        for lease in fixture.store().list().await.unwrap() {
            assert_eq!(lease.pending, None);
            assert_eq!(lease.was_advanced_by(epoch.manifest()), outcomes[0]);
            assert_eq!(lease.checkpoint == at(round + 1), outcomes[0]);
        }
    }
}

pub async fn many_concurrent_advances_of_one_epoch_do_no_harm(factory: &dyn Factory) {
    let fixture = factory.fresh(4).await;
    let me = owner("me");
    let shards = held(fixture.store(), &me, 3).await.into_iter().map(|key| (key, first(5))).collect();
    let epoch = decision(&me, &manifest("one"), shards);
    decide(fixture.store(), &epoch).await;
    let outcomes = at_once(8, |number| {
        let (store, epoch, advances) = (fixture.shared(number), epoch.clone(), advances(&epoch));
        async move { insist(|| store.advance(epoch.manifest(), &advances)).await }
    })
    .await;
    for shard in 0..3 {
        let moved = outcomes.iter().filter(|outcomes| outcomes[shard] == AdvanceOutcome::Advanced).count();
        let found = outcomes.iter().filter(|outcomes| outcomes[shard] == AdvanceOutcome::WasAdvanced).count();
        assert_eq!((moved, found), (1, 7));
    }
}

/// The size of the next test: shards, tasks, and epochs that each task commits.
const SHARDS: usize = 5;
const TASKS: usize = 8;
const EPOCHS: usize = 5;

/// Commits epochs over changing sets of shards that overlap with those of all other tasks. Returns them.
async fn commit_overlapping(store: Arc<dyn LeaseStore>, number: usize) -> Vec<Decision> {
    let mut decided = Vec::new();
    for turn in 0..10_000 {
        // Two to four shards, in changing order, so that locks are taken in every order.
        let keys: Vec<ShardKey> =
            (0..2 + turn % 3).map(|step| key((number * 3 + turn * 2 + step * (1 + turn % 2)) % SHARDS)).collect();
        let rows = store.get(&keys).await.unwrap();
        let shards: BTreeMap<ShardKey, ShardRange> = rows
            .into_iter()
            .flatten()
            .map(|lease| {
                let next = match &lease.checkpoint {
                    Position::At { sequence, .. } => sequence.as_str().parse::<u64>().unwrap() + 1 + number as u64,
                    Position::Beginning | Position::Since { .. } | Position::Latest | Position::End => 1,
                };
                (lease.key, ShardRange::new(lease.checkpoint, at(next)).unwrap())
            })
            .collect();
        let mut shards: Vec<_> = shards.into_iter().collect();
        if number.is_multiple_of(2) {
            shards.reverse();
        }
        let epoch = decision(&owner("me"), &manifest(&format!("{number}-{turn}")), shards);
        if insist(|| store.decide(&epoch)).await == Verdict::Decided {
            let advances = advances(&epoch);
            insist(|| store.advance(epoch.manifest(), &advances)).await;
            decided.push(epoch);
        }
        if decided.len() == EPOCHS {
            return decided;
        }
        // A refusal means that another task made progress, so all tasks finish.
        tokio::task::yield_now().await;
    }
    panic!("task {number} was refused again and again");
}

pub async fn many_overlapping_decisions_have_the_effect_of_some_sequential_order(factory: &dyn Factory) {
    let fixture = factory.fresh(4).await;
    held(fixture.store(), &owner("me"), SHARDS).await;
    let decided: Vec<Decision> = at_once(TASKS, |number| commit_overlapping(fixture.shared(number), number))
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(decided.len(), TASKS * EPOCHS);

    // For each shard, the ranges of the decided epochs are one chain from the beginning to the checkpoint.
    let mut followers: BTreeMap<ShardKey, BTreeMap<Position, (&Position, &ManifestName)>> = BTreeMap::new();
    for epoch in &decided {
        for (key, range) in epoch.shards() {
            let next = (range.through(), epoch.manifest());
            let doubled = followers.entry(key.clone()).or_default().insert(range.after().clone(), next);
            assert_eq!(doubled, None, "{key} was committed twice from {}", range.after());
        }
    }
    let mut order: BTreeMap<&ManifestName, Vec<&ManifestName>> = BTreeMap::new();
    for lease in fixture.store().list().await.unwrap() {
        assert_eq!(lease.pending, None);
        let links = followers.remove(&lease.key).unwrap_or_default();
        let (mut reached, mut last, mut length) = (&Position::Beginning, None, 0);
        while let Some((through, name)) = links.get(reached) {
            order.entry(name).or_default().extend(last);
            (reached, last, length) = (through, Some(*name), length + 1);
        }
        assert_eq!((reached, last, length), (&lease.checkpoint, lease.last_manifest.as_ref(), links.len()));
    }

    // The chains agree on one order: at any time there is an epoch whose predecessors are all done.
    let mut done: Vec<&ManifestName> = Vec::new();
    while done.len() < order.len() {
        let next = order
            .iter()
            .find(|(name, before)| !done.contains(name) && before.iter().all(|before| done.contains(before)));
        done.push(next.expect("two epochs came before each other").0);
    }
}
