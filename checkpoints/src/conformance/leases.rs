//! Holding a lease: taking, renewing, releasing.

use super::{Factory, commit, create, decide, decision, first, held, key, manifest, owner, renewal, row, take};
use crate::lease::{Holder, Lease, ThroughputKbps};
use crate::store::{Renewal, RenewalOutcome};

pub async fn a_free_lease_is_taken(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    create(store, 1).await;
    let before = row(store, &key(0)).await;
    let taken = store.take(&owner("me"), &key(0), 0).await.unwrap();
    let expected =
        Lease { holder: Holder::Held(owner("me")), counter: 1, owner_switches_since_checkpoint: 1, ..before };
    assert_eq!(taken, Some(expected.clone()));
    assert_eq!(row(store, &key(0)).await, expected);
}

pub async fn taking_needs_the_current_counter(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (me, other) = (owner("me"), owner("other"));
    held(store, &me, 1).await;
    let seen = row(store, &key(0)).await;
    store.renew(&me, &[renewal(&seen)]).await.unwrap();
    let before = row(store, &key(0)).await;
    for counter in [seen.counter, before.counter + 1] {
        assert_eq!(store.take(&other, &key(0), counter).await.unwrap(), None);
    }
    assert_eq!(store.take(&other, &key(9), 0).await.unwrap(), None);
    assert_eq!(row(store, &key(0)).await, before);
}

pub async fn taking_a_lease_from_another_worker_counts_a_switch(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    held(store, &owner("dead"), 1).await;
    let before = row(store, &key(0)).await;
    let taken = take(store, &owner("me"), &key(0)).await;
    let expected = Lease {
        holder: Holder::Held(owner("me")),
        counter: before.counter + 1,
        owner_switches_since_checkpoint: before.owner_switches_since_checkpoint + 1,
        ..before
    };
    assert_eq!(taken, expected);
}

pub async fn taking_a_lease_that_one_already_holds_counts_no_switch(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    held(store, &owner("me"), 1).await;
    let before = row(store, &key(0)).await;
    let taken = take(store, &owner("me"), &key(0)).await;
    assert_eq!(taken, Lease { counter: before.counter + 1, ..before });
}

pub async fn taking_leaves_the_checkpoint_and_the_pending_manifest(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 1).await;
    commit(store, &decision(&me, &manifest("one"), vec![(key(0), first(5))])).await;
    decide(store, &decision(&me, &manifest("two"), vec![(key(0), super::range(5, 9))])).await;
    let before = row(store, &key(0)).await;
    let taken = take(store, &owner("other"), &key(0)).await;
    assert_eq!((&taken.checkpoint, &taken.pending), (&before.checkpoint, &before.pending));
    assert_eq!(taken.last_manifest, Some(manifest("one")));
    assert!(taken.is_pending(&manifest("two")));
}

pub async fn a_renewal_moves_the_counter_and_stores_the_measurement(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    held(store, &owner("me"), 1).await;
    let before = row(store, &key(0)).await;
    for step in 1..=3_u32 {
        let throughput = ThroughputKbps::new(0.5 * f64::from(step));
        let counter = before.counter + u64::from(step);
        let renewal = Renewal { key: key(0), counter: counter - 1, throughput };
        assert_eq!(store.renew(&owner("me"), &[renewal]).await.unwrap(), [RenewalOutcome::Renewed { counter }]);
        assert_eq!(row(store, &key(0)).await, Lease { counter, throughput, ..before.clone() });
    }
}

pub async fn a_renewal_after_another_worker_took_the_lease_is_lost(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (me, other) = (owner("me"), owner("other"));
    held(store, &me, 1).await;
    let seen = row(store, &key(0)).await;
    let taken = take(store, &other, &key(0)).await;
    // Also with the current counter: knowing it makes nobody the holder.
    for counter in [seen.counter, taken.counter] {
        let renewal = Renewal { counter, ..renewal(&seen) };
        assert_eq!(store.renew(&me, &[renewal]).await.unwrap(), [RenewalOutcome::Lost]);
    }
    assert_eq!(row(store, &key(0)).await, taken);
}

pub async fn a_renewal_of_a_free_or_missing_lease_is_lost(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    create(store, 1).await;
    let free = row(store, &key(0)).await;
    let renewals = [renewal(&free), Renewal { key: key(9), ..renewal(&free) }];
    assert_eq!(store.renew(&owner("me"), &renewals).await.unwrap(), [RenewalOutcome::Lost, RenewalOutcome::Lost]);
    assert_eq!(row(store, &key(0)).await, free);
}

pub async fn a_renewal_with_another_counter_changes_nothing_and_returns_the_counter(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    held(store, &owner("me"), 1).await;
    let before = row(store, &key(0)).await;
    for counter in [before.counter - 1, before.counter + 1] {
        let throughput = ThroughputKbps::new(7.0);
        let outcomes = store.renew(&owner("me"), &[Renewal { key: key(0), counter, throughput }]).await.unwrap();
        assert_eq!(outcomes, [RenewalOutcome::CounterAt { counter: before.counter }]);
    }
    assert_eq!(row(store, &key(0)).await, before);
}

pub async fn one_lost_lease_does_not_prevent_the_renewal_of_the_others(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    let keys = held(store, &me, 4).await;
    let mut renewals = Vec::new();
    for key in &keys {
        renewals.push(renewal(&row(store, key).await));
    }
    take(store, &owner("other"), &keys[1]).await;
    store.ask(&owner("other"), &keys[2], &me).await.unwrap();
    let outcomes = store.renew(&me, &renewals).await.unwrap();
    let counter = 2;
    let expected = [
        RenewalOutcome::Renewed { counter },
        RenewalOutcome::Lost,
        RenewalOutcome::HandOffAsked { counter, to: owner("other") },
        RenewalOutcome::Renewed { counter },
    ];
    assert_eq!(outcomes, expected);
}

pub async fn renewing_leaves_a_commit_in_progress_alone(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 1).await;
    let epoch = decision(&me, &manifest("one"), vec![(key(0), first(5))]);
    for step in ["open", "decided", "advanced"] {
        match step {
            "decided" => decide(store, &epoch).await,
            "advanced" => drop(store.advance(epoch.manifest(), &super::advances(&epoch)).await.unwrap()),
            _ => {}
        }
        let before = row(store, &key(0)).await;
        let outcomes = store.renew(&me, &[renewal(&before)]).await.unwrap();
        assert_eq!(outcomes, [RenewalOutcome::Renewed { counter: before.counter + 1 }], "when {step}");
        assert_eq!(row(store, &key(0)).await, Lease { counter: before.counter + 1, ..before });
    }
    assert_eq!(row(store, &key(0)).await.checkpoint, super::at(5));
}

pub async fn a_released_lease_is_free_and_only_its_holder_releases_it(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 1).await;
    let before = row(store, &key(0)).await;
    assert!(!store.release(&owner("other"), &key(0)).await.unwrap());
    assert!(!store.release(&me, &key(9)).await.unwrap());
    assert_eq!(row(store, &key(0)).await, before);

    assert!(store.release(&me, &key(0)).await.unwrap());
    let released = row(store, &key(0)).await;
    assert_eq!(released, Lease { holder: Holder::Nobody, counter: before.counter + 1, ..before });
    assert!(!store.release(&me, &key(0)).await.unwrap());
    assert_eq!(row(store, &key(0)).await, released);
}

pub async fn a_registered_worker_never_counts_as_gone(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let (mine, others) = (fixture.handle(0), fixture.handle(1));
    let me = owner("registered");
    mine.register(&me).await.unwrap();
    mine.register(&me).await.unwrap();
    assert!(!others.owner_is_gone(&me).await.unwrap());
    assert!(!mine.owner_is_gone(&me).await.unwrap());
    mine.deregister(&me).await.unwrap();
    mine.deregister(&me).await.unwrap();
}
