//! Handing a lease over from one live worker to another, and everything that may happen in between.

use super::{Factory, at, create, decide, decision, first, held, key, manifest, owner, refused, renewal, row, take};
use crate::decision::RefusalReason;
use crate::lease::{Holder, Lease, LeaseOwner};
use crate::store::{AdvanceOutcome, LeaseStore, RenewalOutcome};

/// A shard that `from` was asked to hand over to `to`.
async fn asked(store: &dyn LeaseStore) -> (LeaseOwner, LeaseOwner, Lease) {
    let (from, to) = (owner("from"), owner("to"));
    held(store, &from, 1).await;
    assert!(store.ask(&to, &key(0), &from).await.unwrap());
    (from, to, row(store, &key(0)).await)
}

pub async fn asking_names_the_next_holder_and_leaves_the_counter(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    held(store, &owner("from"), 1).await;
    let before = row(store, &key(0)).await;
    assert!(store.ask(&owner("to"), &key(0), &owner("from")).await.unwrap());
    let holder = Holder::HandingOver { from: owner("from"), to: owner("to") };
    assert_eq!(row(store, &key(0)).await, Lease { holder, ..before });
}

pub async fn asking_needs_the_current_holder_and_no_earlier_request(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    create(store, 2).await;
    take(store, &owner("from"), &key(0)).await;
    let before = store.list().await.unwrap();
    assert!(!store.ask(&owner("to"), &key(0), &owner("another")).await.unwrap());
    assert!(!store.ask(&owner("from"), &key(0), &owner("from")).await.unwrap());
    assert!(!store.ask(&owner("to"), &key(1), &owner("from")).await.unwrap());
    assert!(!store.ask(&owner("to"), &key(9), &owner("from")).await.unwrap());
    assert_eq!(store.list().await.unwrap(), before);

    assert!(store.ask(&owner("to"), &key(0), &owner("from")).await.unwrap());
    let asked = row(store, &key(0)).await;
    assert!(!store.ask(&owner("third"), &key(0), &owner("from")).await.unwrap());
    assert!(!store.ask(&owner("third"), &key(0), &owner("to")).await.unwrap());
    assert!(!store.ask(&owner("to"), &key(0), &owner("from")).await.unwrap());
    assert_eq!(row(store, &key(0)).await, asked);
}

pub async fn the_holder_learns_of_the_request_when_it_renews_and_stays_alive(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (from, to, asked) = asked(store).await;
    let counter = asked.counter + 1;
    let outcomes = store.renew(&from, &[renewal(&asked)]).await.unwrap();
    assert_eq!(outcomes, [RenewalOutcome::HandOffAsked { counter, to: to.clone() }]);
    assert_eq!(row(store, &key(0)).await, Lease { counter, ..asked.clone() });
    // A worker that saw the old counter can't take the holder for dead.
    assert_eq!(store.take(&to, &key(0), asked.counter).await.unwrap(), None);
}

pub async fn the_asker_does_not_hold_the_lease_until_it_is_handed_over(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (_, to, asked) = asked(store).await;
    assert_eq!(store.renew(&to, &[renewal(&asked)]).await.unwrap(), [RenewalOutcome::Lost]);
    assert!(!store.hand_over(&to, &key(0)).await.unwrap());
    assert!(!store.release(&to, &key(0)).await.unwrap());
    assert_eq!(row(store, &key(0)).await, asked);
}

pub async fn during_a_hand_off_the_holder_may_decide_and_the_asker_may_not(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (from, to, asked) = asked(store).await;
    let by = |me: &LeaseOwner, name| decision(me, &manifest(name), vec![(key(0), first(5))]);
    let verdict = store.decide(&by(&to, "asker")).await.unwrap();
    assert_eq!(verdict, refused([(key(0), RefusalReason::NotHeld(asked.holder.clone()))]));
    assert_eq!(row(store, &key(0)).await, asked);

    let last = by(&from, "holder");
    decide(store, &last).await;
    let outcomes = store.advance(last.manifest(), &super::advances(&last)).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::Advanced]);
    let advanced = row(store, &key(0)).await;
    assert_eq!((advanced.holder, advanced.checkpoint), (asked.holder, at(5)));
}

pub async fn a_lease_that_is_handed_over_belongs_to_the_asker(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (from, to, asked) = asked(store).await;
    assert!(store.hand_over(&from, &key(0)).await.unwrap());
    let handed_over = row(store, &key(0)).await;
    let expected = Lease {
        holder: Holder::Held(to.clone()),
        counter: asked.counter + 1,
        owner_switches_since_checkpoint: asked.owner_switches_since_checkpoint + 1,
        ..asked
    };
    assert_eq!(handed_over, expected);
    assert!(!store.hand_over(&from, &key(0)).await.unwrap());
    assert_eq!(store.renew(&from, &[renewal(&handed_over)]).await.unwrap(), [RenewalOutcome::Lost]);
    let by = |me: &LeaseOwner| decision(me, &manifest(me.as_str()), vec![(key(0), first(5))]);
    let verdict = store.decide(&by(&from)).await.unwrap();
    assert_eq!(verdict, refused([(key(0), RefusalReason::NotHeld(handed_over.holder))]));
    decide(store, &by(&to)).await;
}

pub async fn a_lease_that_nobody_asked_for_is_not_handed_over(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    create(store, 2).await;
    take(store, &owner("me"), &key(0)).await;
    let before = store.list().await.unwrap();
    for number in [0, 1, 9] {
        assert!(!store.hand_over(&owner("me"), &key(number)).await.unwrap());
    }
    assert_eq!(store.list().await.unwrap(), before);
}

pub async fn releasing_a_lease_that_was_asked_for_hands_it_over(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (from, to, asked) = asked(store).await;
    assert!(store.release(&from, &key(0)).await.unwrap());
    let released = row(store, &key(0)).await;
    assert_eq!((released.holder, released.counter), (Holder::Held(to), asked.counter + 1));
    assert!(!store.release(&from, &key(0)).await.unwrap());
}

pub async fn an_overdue_hand_off_is_ended_by_taking(factory: &dyn Factory) {
    for taker in ["to", "third", "from"] {
        let fixture = factory.fresh(1).await;
        let store = fixture.store();
        let (from, to, asked) = asked(store).await;
        let taken = store.take(&owner(taker), &key(0), asked.counter).await.unwrap();
        let expected = Lease {
            holder: Holder::Held(owner(taker)),
            counter: asked.counter + 1,
            owner_switches_since_checkpoint: asked.owner_switches_since_checkpoint + 1,
            ..asked
        };
        assert_eq!(taken, Some(expected.clone()), "taken by {taker}");
        // The late hand-over has no effect.
        assert!(!store.hand_over(&from, &key(0)).await.unwrap());
        assert_eq!(row(store, &key(0)).await, expected);
        for me in [from, to] {
            let epoch = decision(&me, &manifest(me.as_str()), vec![(key(0), first(5))]);
            let verdict = store.decide(&epoch).await.unwrap();
            assert_eq!(verdict == crate::Verdict::Decided, me == owner(taker), "{me} decides, taken by {taker}");
        }
    }
}

pub async fn a_pending_manifest_survives_a_hand_off(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (from, to, _) = asked(store).await;
    let last = decision(&from, &manifest("last"), vec![(key(0), first(5))]);
    decide(store, &last).await;
    assert!(store.hand_over(&from, &key(0)).await.unwrap());
    let next = decision(&to, &manifest("next"), vec![(key(0), first(6))]);
    let verdict = store.decide(&next).await.unwrap();
    assert_eq!(verdict, refused([(key(0), RefusalReason::Pending(manifest("last")))]));
    let outcomes = store.advance(last.manifest(), &super::advances(&last)).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::Advanced]);
    assert_eq!(row(store, &key(0)).await.checkpoint, at(5));
}

pub async fn counters_and_checkpoints_only_grow(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (a, b) = (owner("a"), owner("b"));
    create(store, 1).await;
    let mut seen = vec![row(store, &key(0)).await];
    for step in 0..30_u64 {
        let before = seen[seen.len() - 1].clone();
        let me = before.holder.committer().unwrap_or(&a).clone();
        let other = if me == a { &b } else { &a };
        let name = manifest(&step.to_string());
        match step % 10 {
            0 | 8 => assert!(store.take(other, &key(0), before.counter).await.unwrap().is_some()),
            1 | 4 | 9 => drop(store.renew(&me, &[renewal(&before)]).await.unwrap()),
            2 => {
                let through = crate::ShardRange::new(before.checkpoint, at(step + 1)).unwrap();
                super::commit(store, &decision(&me, &name, vec![(key(0), through)])).await;
            }
            3 => assert!(store.ask(other, &key(0), &me).await.unwrap()),
            5 => assert!(store.hand_over(&me, &key(0)).await.unwrap()),
            6 => {
                let through = crate::ShardRange::new(before.checkpoint, at(step + 1)).unwrap();
                decide(store, &decision(&me, &name, vec![(key(0), through)])).await;
                assert!(store.roll_back(&name, &[key(0)]).await.unwrap());
            }
            _ => assert!(store.release(&me, &key(0)).await.unwrap()),
        }
        seen.push(row(store, &key(0)).await);
    }
    assert!(seen.windows(2).all(|pair| pair[0].counter <= pair[1].counter));
    assert!(seen.windows(2).all(|pair| pair[0].checkpoint <= pair[1].checkpoint));
    assert_eq!((seen[30].counter, &seen[30].checkpoint), (21, &at(23)));
}
