//! An epoch's changes of the table: decide, advance, roll back.

use super::{
    Factory, advances, at, commit, create, decide, decision, first, held, key, manifest, owner, range, refused, row,
    take,
};
use crate::decision::{RefusalReason, Verdict};
use crate::error::StoreError;
use crate::lease::{Holder, Lease, Pending};
use crate::position::{Position, ShardRange};
use crate::shard::{ShardId, ShardKey};
use crate::store::{Advance, AdvanceOutcome};

pub async fn a_decision_makes_the_manifest_pending_on_every_shard_and_changes_nothing_else(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 3).await;
    let before = store.list().await.unwrap();
    decide(store, &decision(&me, &manifest("one"), vec![(key(0), first(5)), (key(2), first(7))])).await;
    let pending = |through| Some(Pending { through: at(through), manifest: manifest("one") });
    let expected = [
        Lease { pending: pending(5), ..before[0].clone() },
        before[1].clone(),
        Lease { pending: pending(7), ..before[2].clone() },
    ];
    assert_eq!(store.list().await.unwrap(), expected);
}

pub async fn a_zombie_cannot_decide(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let (zombies, others) = (fixture.handle(0), fixture.handle(1));
    let zombie = owner("zombie");
    held(zombies, &zombie, 1).await;
    let epoch = decision(&zombie, &manifest("late"), vec![(key(0), first(5))]);
    take(others, &owner("other"), &key(0)).await;
    let before = row(others, &key(0)).await;
    let reason = RefusalReason::NotHeld(Holder::Held(owner("other")));
    assert_eq!(zombies.decide(&epoch).await.unwrap(), refused([(key(0), reason)]));
    assert!(others.release(&owner("other"), &key(0)).await.unwrap());
    let reason = RefusalReason::NotHeld(Holder::Nobody);
    assert_eq!(zombies.decide(&epoch).await.unwrap(), refused([(key(0), reason)]));
    assert_eq!(row(others, &key(0)).await.pending, before.pending);
}

pub async fn a_zombie_that_took_the_lease_back_cannot_decide_what_others_have_committed(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (zombie, other) = (owner("zombie"), owner("other"));
    held(store, &zombie, 1).await;
    let late = decision(&zombie, &manifest("late"), vec![(key(0), first(5))]);
    take(store, &other, &key(0)).await;
    commit(store, &decision(&other, &manifest("other"), vec![(key(0), first(3))])).await;
    take(store, &zombie, &key(0)).await;
    let verdict = store.decide(&late).await.unwrap();
    assert_eq!(verdict, refused([(key(0), RefusalReason::CheckpointAt(at(3)))]));
}

pub async fn a_decision_is_all_or_nothing_and_names_every_shard_that_prevents_it(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 5).await;
    take(store, &owner("other"), &key(1)).await;
    decide(store, &decision(&me, &manifest("before"), vec![(key(2), first(5))])).await;
    commit(store, &decision(&me, &manifest("done"), vec![(key(3), first(5))])).await;
    let before = store.list().await.unwrap();

    let reasons = [
        (key(1), RefusalReason::NotHeld(Holder::Held(owner("other")))),
        (key(2), RefusalReason::Pending(manifest("before"))),
        (key(3), RefusalReason::CheckpointAt(at(5))),
        (key(9), RefusalReason::Missing),
    ];
    let all = [0, 1, 2, 3, 4, 9].map(|number| (key(number), first(8)));
    let verdict = store.decide(&decision(&me, &manifest("all"), all.into())).await.unwrap();
    assert_eq!(verdict, refused(reasons.clone()));
    for (bad, reason) in reasons {
        for shards in [[key(0), bad.clone(), key(4)], [bad.clone(), key(0), key(4)], [key(0), key(4), bad.clone()]] {
            let name = manifest(&format!("with-{}-{}", shards[0].shard, bad.shard));
            let shards = shards.map(|key| (key, first(8))).into();
            let verdict = store.decide(&decision(&me, &name, shards)).await.unwrap();
            assert_eq!(verdict, refused([(bad.clone(), reason.clone())]));
        }
    }
    assert_eq!(store.list().await.unwrap(), before);
    decide(store, &decision(&me, &manifest("good"), vec![(key(0), first(8)), (key(4), first(8))])).await;
}

pub async fn a_decision_that_is_in_effect_is_refused_with_its_own_manifest(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 2).await;
    let epoch = decision(&me, &manifest("one"), vec![(key(0), first(5)), (key(1), first(5))]);
    decide(store, &epoch).await;
    let before = store.list().await.unwrap();
    let reason = || RefusalReason::Pending(manifest("one"));
    assert_eq!(store.decide(&epoch).await.unwrap(), refused([(key(0), reason()), (key(1), reason())]));
    assert_eq!(store.list().await.unwrap(), before);
}

pub async fn a_range_starts_at_the_checkpoint_to_the_sub_record(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 1).await;
    let sub = |sub| Position::At { sequence: 5_u64.into(), sub };
    let from_to = |after, through| vec![(key(0), ShardRange::new(after, through).unwrap())];
    commit(store, &decision(&me, &manifest("one"), from_to(Position::Beginning, sub(2)))).await;
    for wrong in [Position::Beginning, at(4), sub(0), sub(1), sub(3)] {
        let name = manifest(&format!("after-{wrong}"));
        let verdict = store.decide(&decision(&me, &name, from_to(wrong, at(9)))).await.unwrap();
        assert_eq!(verdict, refused([(key(0), RefusalReason::CheckpointAt(sub(2)))]));
    }
    decide(store, &decision(&me, &manifest("two"), from_to(sub(2), sub(3)))).await;
}

pub async fn a_decision_takes_as_many_shards_as_the_store_states_and_no_more(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    let shards_max = store.decision_shards_max();
    assert!(shards_max >= 100);
    let count = if shards_max > 1_000 { 200 } else { shards_max + 1 };
    let shards: Vec<(ShardKey, ShardRange)> =
        held(store, &me, count).await.into_iter().map(|key| (key, first(5))).collect();
    if count > shards_max {
        let error = store.decide(&decision(&me, &manifest("too-many"), shards.clone())).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
        assert!(store.list().await.unwrap().iter().all(|lease| lease.pending.is_none()));
    }
    let most = decision(&me, &manifest("most"), shards.into_iter().take(shards_max).collect());
    decide(store, &most).await;
    assert!(store.roll_back(most.manifest(), &most.keys()).await.unwrap());
    commit(store, &decision(&me, &manifest("again"), most.shards().to_vec())).await;
}

pub async fn an_advance_moves_the_checkpoint_and_clears_the_pending_manifest(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 1).await;
    let epoch = decision(&me, &manifest("one"), vec![(key(0), first(5))]);
    decide(store, &epoch).await;
    let before = row(store, &key(0)).await;
    assert_ne!(before.owner_switches_since_checkpoint, 0);
    let outcomes = store.advance(epoch.manifest(), &advances(&epoch)).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::Advanced]);
    let expected = Lease {
        checkpoint: at(5),
        pending: None,
        last_manifest: Some(manifest("one")),
        owner_switches_since_checkpoint: 0,
        ..before
    };
    assert_eq!(row(store, &key(0)).await, expected);
}

pub async fn anyone_may_finish_a_decided_epoch(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let (mine, others) = (fixture.handle(0), fixture.handle(1));
    let me = owner("me");
    held(mine, &me, 3).await;
    let epoch = decision(&me, &manifest("one"), [0, 1, 2].map(|number| (key(number), first(5))).into());
    decide(mine, &epoch).await;
    take(others, &owner("other"), &key(0)).await;
    mine.release(&me, &key(1)).await.unwrap();
    let outcomes = others.advance(epoch.manifest(), &advances(&epoch)).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::Advanced; 3]);
    let leases = others.list().await.unwrap();
    assert!(leases.iter().all(|lease| lease.checkpoint == at(5)));
    let holders = [Holder::Held(owner("other")), Holder::Nobody, Holder::Held(me)];
    assert_eq!(leases.into_iter().map(|lease| lease.holder).collect::<Vec<_>>(), holders);
}

pub async fn an_advance_may_be_repeated_and_done_in_parts(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 2).await;
    let epoch = decision(&me, &manifest("one"), vec![(key(0), first(5)), (key(1), first(6))]);
    decide(store, &epoch).await;
    let all = advances(&epoch);
    let outcomes = store.advance(epoch.manifest(), &all[..1]).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::Advanced]);
    assert_eq!(row(store, &key(1)).await.checkpoint, Position::Beginning);
    let outcomes = store.advance(epoch.manifest(), &all).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::WasAdvanced, AdvanceOutcome::Advanced]);
    let done = store.list().await.unwrap();
    let outcomes = store.advance(epoch.manifest(), &all).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::WasAdvanced; 2]);
    assert_eq!(store.list().await.unwrap(), done);
}

pub async fn an_advance_does_nothing_where_its_manifest_is_not_pending(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 3).await;
    let old = decision(&me, &manifest("old"), vec![(key(1), first(5)), (key(2), first(5))]);
    commit(store, &old).await;
    commit(store, &decision(&me, &manifest("new"), vec![(key(1), range(5, 9))])).await;
    decide(store, &decision(&me, &manifest("newer"), vec![(key(2), range(5, 9))])).await;
    let before = store.list().await.unwrap();
    let late = [0, 1, 2, 9].map(|number| Advance::new(key(number), at(5)));
    let outcomes = store.advance(old.manifest(), &late).await.unwrap();
    let expected = [
        AdvanceOutcome::NotPending,
        AdvanceOutcome::NotPending,
        // Another manifest is pending here, but the old one is still the one that moved the checkpoint.
        AdvanceOutcome::WasAdvanced,
        AdvanceOutcome::NotPending,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(store.list().await.unwrap(), before);
}

pub async fn an_advance_to_another_position_than_the_decided_one_is_an_error(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 1).await;
    decide(store, &decision(&me, &manifest("one"), vec![(key(0), first(5))])).await;
    let before = row(store, &key(0)).await;
    let sub_record = Position::At { sequence: 5_u64.into(), sub: 1 };
    for elsewhere in [at(4), at(6), sub_record, Position::End] {
        let advance = [Advance::new(key(0), elsewhere)];
        let error = store.advance(&manifest("one"), &advance).await.unwrap_err();
        assert!(matches!(error, StoreError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains("shardId-000000000000"), "{error}");
    }
    assert_eq!(row(store, &key(0)).await, before);
}

pub async fn a_shard_that_ends_gets_its_children(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 2).await;
    commit(store, &decision(&me, &manifest("one"), vec![(key(0), first(5))])).await;
    let end = |after| ShardRange::new(after, Position::End).unwrap();
    let last = decision(&me, &manifest("last"), vec![(key(0), end(at(5))), (key(1), end(Position::Beginning))]);
    decide(store, &last).await;
    let children = ["shardId-c", "shardId-d"].map(|id| ShardId::new(id).unwrap());
    // The second shard ends without children, as a file ends.
    let to_end = [Advance::to_end(key(0), children.clone()), Advance::to_end(key(1), [])];
    assert_eq!(store.advance(last.manifest(), &to_end).await.unwrap(), [AdvanceOutcome::Advanced; 2]);
    let [ended, file] = [row(store, &key(0)).await, row(store, &key(1)).await];
    assert_eq!((ended.checkpoint, ended.children), (Position::End, children.into()));
    assert_eq!((file.checkpoint, file.children), (Position::End, [].into()));
}

pub async fn a_rollback_leaves_the_checkpoints_and_lets_others_decide(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (me, other) = (owner("me"), owner("other"));
    held(store, &me, 2).await;
    commit(store, &decision(&me, &manifest("one"), vec![(key(0), first(5))])).await;
    let gone = decision(&me, &manifest("gone"), vec![(key(0), range(5, 9)), (key(1), first(9))]);
    let before = store.list().await.unwrap();
    decide(store, &gone).await;
    // Not by its owner: another worker took the lease and found the uploads gone.
    let taken = take(store, &other, &key(0)).await;
    assert!(store.roll_back(gone.manifest(), &gone.keys()).await.unwrap());
    let after = store.list().await.unwrap();
    assert_eq!(after[0], Lease { pending: None, ..taken });
    assert_eq!(after[1], before[1]);
    assert_eq!(after[0].last_manifest, Some(manifest("one")));
    assert!(!store.roll_back(gone.manifest(), &gone.keys()).await.unwrap());
    commit(store, &decision(&other, &manifest("two"), vec![(key(0), range(5, 8))])).await;
    commit(store, &decision(&me, &manifest("three"), vec![(key(1), first(9))])).await;
}

pub async fn a_rollback_is_refused_once_one_shard_has_advanced(factory: &dyn Factory) {
    for advanced in [0, 2] {
        let fixture = factory.fresh(1).await;
        let store = fixture.store();
        let me = owner("me");
        held(store, &me, 3).await;
        let epoch = decision(&me, &manifest("one"), [0, 1, 2].map(|number| (key(number), first(5))).into());
        decide(store, &epoch).await;
        let all = advances(&epoch);
        store.advance(epoch.manifest(), &all[advanced..=advanced]).await.unwrap();
        let before = store.list().await.unwrap();
        assert!(!store.roll_back(epoch.manifest(), &epoch.keys()).await.unwrap());
        assert_eq!(store.list().await.unwrap(), before);
        store.advance(epoch.manifest(), &all).await.unwrap();
        assert!(!store.roll_back(epoch.manifest(), &epoch.keys()).await.unwrap());
        assert!(store.list().await.unwrap().iter().all(|lease| lease.checkpoint == at(5)));
    }
}

pub async fn a_rollback_is_refused_where_its_manifest_is_not_pending(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 3).await;
    decide(store, &decision(&me, &manifest("one"), vec![(key(0), first(5))])).await;
    decide(store, &decision(&me, &manifest("two"), vec![(key(1), first(5))])).await;
    let before = store.list().await.unwrap();
    for keys in [[key(0), key(1)], [key(0), key(2)], [key(0), key(9)], [key(9), key(0)]] {
        assert!(!store.roll_back(&manifest("one"), &keys).await.unwrap());
    }
    assert_eq!(store.list().await.unwrap(), before);
}

pub async fn an_advance_after_a_rollback_does_nothing(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 2).await;
    let gone = decision(&me, &manifest("gone"), vec![(key(0), first(5)), (key(1), first(5))]);
    decide(store, &gone).await;
    assert!(store.roll_back(gone.manifest(), &gone.keys()).await.unwrap());
    // Another epoch is already pending on one of its shards.
    decide(store, &decision(&me, &manifest("next"), vec![(key(1), first(5))])).await;
    let before = store.list().await.unwrap();
    let outcomes = store.advance(gone.manifest(), &advances(&gone)).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::NotPending; 2]);
    assert_eq!(store.list().await.unwrap(), before);
}

pub async fn consecutive_epochs_leave_no_gap(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    create(store, 1).await;
    // Each epoch is another worker's. The numbers grow in digits: as texts, 9 would come after 10.
    let mut after = Position::Beginning;
    for (step, through) in
        ["9", "10", "99", "100", "9999999999999999999999", "10000000000000000000000"].iter().enumerate()
    {
        let me = owner(&format!("worker-{step}"));
        take(store, &me, &key(0)).await;
        let through = Position::at((*through).try_into().unwrap());
        let range = ShardRange::new(after, through.clone()).unwrap();
        let epoch = decision(&me, &manifest(&step.to_string()), vec![(key(0), range)]);
        commit(store, &epoch).await;
        assert_ne!(store.decide(&epoch).await.unwrap(), Verdict::Decided);
        assert_eq!(row(store, &key(0)).await.checkpoint, through);
        after = through;
    }
}
