//! What a caller knows after a lost request or a lost reply: by `decide_once`, and for every other call by a read.

use std::sync::Arc;

use super::{
    Factory, Fixture, advances, at, commit, create, decide, decision, first, held, key, manifest, owner, range,
    renewal, row, take,
};
use crate::decide_once::{Decided, LeaseStoreExt};
use crate::decision::{Decision, RefusalReason};
use crate::faulty::{Fault, Faulty, Operation, Script};
use crate::lease::{Holder, Lease, LeaseOwner};
use crate::position::{Position, ShardRange};
use crate::store::{Advance, AdvanceOutcome, LeaseStore, RenewalOutcome};

/// A worker that loses requests, and its epoch over two shards.
struct World {
    fixture: Fixture,
    script: Script,
    mine: Faulty<dyn LeaseStore>,
    me: LeaseOwner,
    epoch: Decision,
}

impl World {
    async fn new(factory: &dyn Factory) -> Self {
        let fixture = factory.fresh(2).await;
        let me = owner("me");
        held(fixture.store(), &me, 2).await;
        let script = Script::new();
        let mine = Faulty::new(fixture.shared(1), script.clone());
        let epoch = decision(&me, &manifest("mine"), vec![(key(0), first(5)), (key(1), first(5))]);
        Self { fixture, script, mine, me, epoch }
    }

    /// The store as all other workers see it.
    fn others(&self) -> &dyn LeaseStore {
        self.fixture.store()
    }

    /// Sends the decision, which is lost; the worker does nothing more before others act.
    async fn lose_decide(&self, fault: Fault) {
        self.script.lose_next(Operation::Decide, fault);
        assert!(self.mine.decide(&self.epoch).await.unwrap_err().is_retryable());
    }

    /// Another worker takes a shard and commits a range of it.
    async fn other_commits(&self, number: usize, range: ShardRange) {
        let other = owner("other");
        take(self.others(), &other, &key(number)).await;
        let name = manifest(&format!("other-{number}-{}", range.through()));
        commit(self.others(), &decision(&other, &name, vec![(key(number), range)])).await;
    }

    async fn roll_forward(&self, shards: std::ops::Range<usize>) {
        let outcomes = self.others().advance(self.epoch.manifest(), &advances(&self.epoch)[shards]).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == AdvanceOutcome::Advanced));
    }

    async fn decide_once(&self) -> Decided {
        self.mine.decide_once(&self.epoch).await.unwrap()
    }
}

pub async fn a_decision_without_faults_takes_one_request(factory: &dyn Factory) {
    let world = World::new(factory).await;
    assert_eq!(world.decide_once().await, Decided::Yes);
    assert_eq!((world.script.count(Operation::Decide), world.script.count(Operation::Get)), (1, 0));
}

pub async fn a_decision_whose_reply_was_lost_is_known_in_the_same_call(factory: &dyn Factory) {
    let world = World::new(factory).await;
    world.script.lose_next(Operation::Decide, Fault::LoseAfter);
    assert_eq!(world.decide_once().await, Decided::Yes);
    assert!(row(world.others(), &key(0)).await.is_pending(world.epoch.manifest()));
}

pub async fn a_decision_whose_request_was_lost_is_unknown_until_it_is_repeated(factory: &dyn Factory) {
    let world = World::new(factory).await;
    world.script.lose_next(Operation::Decide, Fault::LoseBefore);
    // The request may still be on its way, so this is not a refusal.
    assert!(world.mine.decide_once(&world.epoch).await.unwrap_err().is_retryable());
    assert_eq!(world.decide_once().await, Decided::Yes);
    assert_eq!(world.decide_once().await, Decided::Yes);
}

pub async fn a_decision_whose_reply_and_read_were_lost_is_known_when_it_is_repeated(factory: &dyn Factory) {
    for fault in [Fault::LoseBefore, Fault::LoseAfter] {
        let world = World::new(factory).await;
        world.script.lose_next(Operation::Decide, fault);
        world.script.lose_next(Operation::Get, Fault::LoseBefore);
        assert!(world.mine.decide_once(&world.epoch).await.unwrap_err().is_retryable());
        assert_eq!(world.decide_once().await, Decided::Yes);
    }
}

pub async fn a_decision_that_another_worker_rolled_forward_is_known_as_decided(factory: &dyn Factory) {
    for rolled_forward in [0..0, 0..1, 1..2, 0..2] {
        let world = World::new(factory).await;
        world.lose_decide(Fault::LoseAfter).await;
        take(world.others(), &owner("other"), &key(0)).await;
        world.roll_forward(rolled_forward).await;
        assert_eq!(world.decide_once().await, Decided::Yes);
    }
}

pub async fn one_shard_that_still_shows_the_manifest_is_proof_enough(factory: &dyn Factory) {
    for rolled_forward in [0..1, 0..2] {
        let world = World::new(factory).await;
        world.lose_decide(Fault::LoseAfter).await;
        world.roll_forward(rolled_forward).await;
        world.other_commits(0, range(5, 9)).await;
        assert_eq!(world.decide_once().await, Decided::Yes);
    }
}

pub async fn a_decision_that_every_shard_has_passed_is_superseded(factory: &dyn Factory) {
    let rolled_forward_and_on = (Fault::LoseAfter, range(5, 9));
    let (others_went_further, others_went_as_far) = ((Fault::LoseBefore, first(9)), (Fault::LoseBefore, first(5)));
    for (fault, next) in [rolled_forward_and_on, others_went_further, others_went_as_far] {
        let world = World::new(factory).await;
        world.lose_decide(fault).await;
        if fault == Fault::LoseAfter {
            world.roll_forward(0..2).await;
        }
        for number in [0, 1] {
            world.other_commits(number, next.clone()).await;
        }
        assert_eq!(world.decide_once().await, Decided::Superseded);
    }
}

pub async fn a_decision_whose_rows_are_gone_is_superseded(factory: &dyn Factory) {
    let world = World::new(factory).await;
    world.lose_decide(Fault::LoseAfter).await;
    world.roll_forward(0..2).await;
    for number in [0, 1] {
        world.other_commits(number, ShardRange::new(at(5), Position::End).unwrap()).await;
        assert!(world.others().remove(&key(number)).await.unwrap());
    }
    assert_eq!(world.decide_once().await, Decided::Superseded);
}

pub async fn a_decision_that_never_arrived_is_refused_once_a_lease_is_lost(factory: &dyn Factory) {
    let world = World::new(factory).await;
    world.lose_decide(Fault::LoseBefore).await;
    take(world.others(), &owner("other"), &key(1)).await;
    // It makes no difference whether the next request is lost too.
    for lost in [false, true] {
        if lost {
            world.script.lose_next(Operation::Decide, Fault::LoseBefore);
        }
        let Decided::No(refusals) = world.decide_once().await else { panic!("it never arrived") };
        let reasons: Vec<_> = refusals.into_iter().map(|refusal| (refusal.key, refusal.reason)).collect();
        assert_eq!(reasons, [(key(1), RefusalReason::NotHeld(Holder::Held(owner("other"))))]);
    }
    assert!(world.others().list().await.unwrap().iter().all(|lease| lease.pending.is_none()));
}

pub async fn a_decision_that_never_arrived_is_refused_although_another_worker_committed_some_of_its_records(
    factory: &dyn Factory,
) {
    // One shard stayed where it was, or went less far than this epoch: so no epoch of both can have been committed.
    for through in [[Some(5), None], [Some(9), None], [None, Some(4)], [Some(4), Some(9)], [Some(5), Some(4)]] {
        let world = World::new(factory).await;
        world.lose_decide(Fault::LoseBefore).await;
        for (number, through) in through.into_iter().enumerate() {
            if let Some(through) = through {
                world.other_commits(number, first(through)).await;
            }
        }
        assert!(matches!(world.decide_once().await, Decided::No(_)), "{through:?}");
    }
}

pub async fn a_decision_that_another_worker_rolled_back_is_refused(factory: &dyn Factory) {
    let world = World::new(factory).await;
    world.lose_decide(Fault::LoseAfter).await;
    take(world.others(), &owner("other"), &key(0)).await;
    assert!(world.others().roll_back(world.epoch.manifest(), &world.epoch.keys()).await.unwrap());
    assert!(matches!(world.decide_once().await, Decided::No(_)));
    assert!(world.others().list().await.unwrap().iter().all(|lease| lease.pending.is_none()));
}

pub async fn an_invalid_decision_is_refused_at_once(factory: &dyn Factory) {
    let world = World::new(factory).await;
    let epoch = decision(&world.me, &manifest("wrong"), vec![(key(0), range(3, 5)), (key(9), first(5))]);
    let Decided::No(refusals) = world.mine.decide_once(&epoch).await.unwrap() else { panic!("it is refused") };
    let messages: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    let expected = [
        "shard shardId-000000000000 of stream orders is committed through TRIM_HORIZON",
        "shard shardId-000000000009 of stream orders has no lease",
    ];
    assert_eq!(messages, expected);
}

pub async fn a_commit_is_finished_once_whichever_of_its_requests_is_lost(factory: &dyn Factory) {
    for lost in [Operation::Decide, Operation::Get, Operation::Advance] {
        for fault in [Fault::LoseBefore, Fault::LoseAfter] {
            let world = World::new(factory).await;
            world.script.lose_next(lost, fault);
            if lost == Operation::Get {
                world.script.lose_next(Operation::Decide, Fault::LoseAfter);
            }
            let mut decided = world.mine.decide_once(&world.epoch).await;
            while decided.as_ref().is_err_and(crate::StoreError::is_retryable) {
                decided = world.mine.decide_once(&world.epoch).await;
            }
            assert_eq!(decided.unwrap(), Decided::Yes, "{lost:?} {fault:?}");
            let advances = advances(&world.epoch);
            let mut advanced = world.mine.advance(world.epoch.manifest(), &advances).await;
            while advanced.is_err() {
                advanced = world.mine.advance(world.epoch.manifest(), &advances).await;
            }
            assert!(!advanced.unwrap().contains(&AdvanceOutcome::NotPending), "{lost:?} {fault:?}");
            for lease in world.others().list().await.unwrap() {
                assert_eq!((&lease.checkpoint, lease.was_advanced_by(world.epoch.manifest())), (&at(5), true));
            }
        }
    }
}

pub async fn an_advance_shows_whether_the_epoch_was_finished_by_another_worker(factory: &dyn Factory) {
    let world = World::new(factory).await;
    decide(&world.mine, &world.epoch).await;
    world.roll_forward(0..2).await;
    let outcomes = world.mine.advance(world.epoch.manifest(), &advances(&world.epoch)).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::WasAdvanced; 2]);

    let next = decision(&world.me, &manifest("next"), vec![(key(0), range(5, 9)), (key(1), range(5, 9))]);
    decide(&world.mine, &next).await;
    assert!(world.others().roll_back(next.manifest(), &next.keys()).await.unwrap());
    let outcomes = world.mine.advance(next.manifest(), &advances(&next)).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::NotPending; 2]);
}

pub async fn a_renewal_whose_reply_was_lost_is_recognized(factory: &dyn Factory) {
    let world = World::new(factory).await;
    let before = row(world.others(), &key(0)).await;
    world.script.lose_next(Operation::Renew, Fault::LoseAfter);
    world.mine.renew(&world.me, &[renewal(&before)]).await.unwrap_err();
    let after = row(world.others(), &key(0)).await;
    assert_eq!(after, Lease { counter: before.counter + 1, ..before.clone() });
    let outcomes = world.mine.renew(&world.me, &[renewal(&before)]).await.unwrap();
    assert_eq!(outcomes, [RenewalOutcome::CounterAt { counter: after.counter }]);
    let outcomes = world.mine.renew(&world.me, &[renewal(&after)]).await.unwrap();
    assert_eq!(outcomes, [RenewalOutcome::Renewed { counter: after.counter + 1 }]);
}

pub async fn every_change_of_the_holder_is_recognized_although_its_reply_was_lost(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let (script, seen) = (Script::new(), fixture.store());
    let mine = Faulty::new(fixture.shared(1), script.clone());
    let (me, other) = (owner("me"), owner("other"));
    create(seen, 1).await;
    for operation in [
        Operation::Take,
        Operation::Ask,
        Operation::HandOver,
        Operation::Release,
        Operation::Advance,
        Operation::Create,
    ] {
        script.lose_next(operation, Fault::LoseAfter);
    }
    mine.take(&me, &key(0), 0).await.unwrap_err();
    assert_eq!(mine.take(&me, &key(0), 0).await.unwrap(), None);
    let lease = row(seen, &key(0)).await;
    assert_eq!((lease.holder, lease.counter), (Holder::Held(me.clone()), 1));

    mine.ask(&other, &key(0), &me).await.unwrap_err();
    assert!(!mine.ask(&other, &key(0), &me).await.unwrap());
    let asked = Holder::HandingOver { from: me.clone(), to: other.clone() };
    assert_eq!(row(seen, &key(0)).await.holder, asked);

    mine.hand_over(&me, &key(0)).await.unwrap_err();
    assert!(!mine.hand_over(&me, &key(0)).await.unwrap());
    assert_eq!(row(seen, &key(0)).await.holder, Holder::Held(other.clone()));

    mine.release(&other, &key(0)).await.unwrap_err();
    assert!(!mine.release(&other, &key(0)).await.unwrap());
    assert_eq!(row(seen, &key(0)).await.holder, Holder::Nobody);
}

pub async fn a_rollback_whose_reply_was_lost_is_recognized(factory: &dyn Factory) {
    let world = World::new(factory).await;
    decide(&world.mine, &world.epoch).await;
    world.script.lose_next(Operation::RollBack, Fault::LoseAfter);
    world.mine.roll_back(world.epoch.manifest(), &world.epoch.keys()).await.unwrap_err();
    assert!(!world.mine.roll_back(world.epoch.manifest(), &world.epoch.keys()).await.unwrap());
    for lease in world.others().list().await.unwrap() {
        assert_eq!((lease.checkpoint, lease.pending, lease.last_manifest), (Position::Beginning, None, None));
    }
}

pub async fn the_script_records_every_call_and_every_loss(factory: &dyn Factory) {
    let world = World::new(factory).await;
    world.script.lose(Operation::Advance, 2, Fault::LoseBefore);
    for _ in 0..3 {
        let _ = world.mine.advance(&manifest("none"), &[Advance::new(key(0), at(1))]).await;
    }
    let faults: Vec<_> = world.script.calls().into_iter().map(|call| (call.operation, call.nth, call.fault)).collect();
    let advance = Operation::Advance;
    assert_eq!(faults, [(advance, 1, None), (advance, 2, Some(Fault::LoseBefore)), (advance, 3, None)]);
    let passed_on: Arc<dyn LeaseStore> = Arc::new(world.mine);
    assert_eq!(passed_on.decision_shards_max(), world.fixture.store().decision_shards_max());
}
