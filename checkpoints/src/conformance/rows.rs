//! Rows as such: creating, reading and removing them.

use super::{Factory, advances, at, commit, create, decide, decision, first, held, key, manifest, owner, row, take};
use crate::lease::{HashRange, Holder, Lease, NewLease, Pending, ThroughputKbps};
use crate::position::{Position, ShardRange};
use crate::shard::{ShardId, ShardKey, StreamName};
use crate::store::{Advance, Renewal};

pub async fn a_new_row_is_free_and_has_nothing_pending(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let new = NewLease {
        key: key(0),
        checkpoint: at(7),
        parents: [ShardId::new("shardId-a").unwrap(), ShardId::new("shardId-b").unwrap()].into(),
        hash_range: HashRange::new(0, u128::MAX),
        children: [ShardId::new("shardId-c").unwrap()].into(),
        last_manifest: Some(manifest("one")),
    };
    assert_eq!(store.create(std::slice::from_ref(&new)).await.unwrap(), [key(0)]);
    let lease = row(store, &key(0)).await;
    assert_eq!(lease, Lease::new(new));
    assert_eq!((lease.holder, lease.counter, lease.pending), (Holder::Nobody, 0, None));
}

pub async fn every_part_of_a_row_is_read_back(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (me, other) = (owner("me"), owner("other"));
    let sequence = "49590338271490256608559692538361571095921575989136588898";
    let through = Position::At { sequence: sequence.try_into().unwrap(), sub: 3 };
    let new = NewLease {
        parents: [ShardId::new("shardId-p").unwrap()].into(),
        hash_range: HashRange::new(1, 340_282_366_920_938_463_463_374_607_431_768_211_454),
        ..NewLease::new(key(0), Position::Beginning)
    };
    store.create(std::slice::from_ref(&new)).await.unwrap();
    let taken = take(store, &me, &key(0)).await;
    let throughput = ThroughputKbps::new(191.386_017);
    store.renew(&me, &[Renewal { key: key(0), counter: taken.counter, throughput }]).await.unwrap();
    let to_sub_record = ShardRange::new(Position::Beginning, through.clone()).unwrap();
    commit(store, &decision(&me, &manifest("one"), vec![(key(0), to_sub_record)])).await;
    assert!(store.ask(&other, &key(0), &me).await.unwrap());
    let to_end = ShardRange::new(through.clone(), Position::End).unwrap();
    decide(store, &decision(&me, &manifest("two"), vec![(key(0), to_end)])).await;

    let expected = Lease {
        holder: Holder::HandingOver { from: me, to: other },
        counter: 2,
        checkpoint: through,
        pending: Some(Pending { through: Position::End, manifest: manifest("two") }),
        last_manifest: Some(manifest("one")),
        throughput,
        ..Lease::new(new)
    };
    assert_eq!(row(store, &key(0)).await, expected);
    assert_eq!(store.list().await.unwrap(), [expected]);
}

pub async fn creating_an_existing_row_changes_nothing(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    held(store, &owner("me"), 1).await;
    let before = row(store, &key(0)).await;
    let new = [NewLease::new(key(0), at(9)), NewLease::new(key(1), at(9)), NewLease::new(key(1), at(10))];
    assert_eq!(store.create(&new).await.unwrap(), [key(1)]);
    assert_eq!(row(store, &key(0)).await, before);
    assert_eq!(row(store, &key(1)).await.checkpoint, at(9));
}

pub async fn rows_are_listed_in_the_order_of_their_keys(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    assert_eq!(store.list().await.unwrap(), []);
    for number in [2, 0, 1] {
        store.create(&[NewLease::new(key(number), Position::Beginning)]).await.unwrap();
    }
    let keys: Vec<ShardKey> = store.list().await.unwrap().into_iter().map(|lease| lease.key).collect();
    assert_eq!(keys, [key(0), key(1), key(2)]);
}

pub async fn rows_are_read_in_the_requested_order_with_gaps_for_missing_ones(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    create(store, 2).await;
    let rows = store.get(&[key(1), key(9), key(0), key(1)]).await.unwrap();
    let keys: Vec<Option<ShardKey>> = rows.into_iter().map(|row| row.map(|lease| lease.key)).collect();
    assert_eq!(keys, [Some(key(1)), None, Some(key(0)), Some(key(1))]);
    assert_eq!(store.get(&[]).await.unwrap(), []);
}

pub async fn one_shard_id_in_two_streams_is_two_rows(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let of = |stream: &str, shard: &str| ShardKey::new(StreamName::new(stream).unwrap(), ShardId::new(shard).unwrap());
    // The last two would be one key if the two names were only concatenated.
    let keys =
        [of("a", "x"), of("b", "x"), of("file:///data/in", "year=2025/part-0.ndjson"), of("a:b", "c"), of("a", "b:c")];
    for key in &keys {
        let made = store.create(&[NewLease::new(key.clone(), Position::Beginning)]).await.unwrap();
        assert_eq!(made.as_slice(), std::slice::from_ref(key));
    }
    take(store, &owner("me"), &keys[0]).await;
    assert_eq!(row(store, &keys[1]).await.holder, Holder::Nobody);
    for key in keys {
        assert_eq!(row(store, &key).await.key, key);
    }
}

pub async fn another_handle_sees_what_was_written(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let (one, other) = (fixture.handle(0), fixture.handle(1));
    create(one, 1).await;
    for turn in 1..=5 {
        let (writer, reader) = if turn % 2 == 0 { (one, other) } else { (other, one) };
        take(writer, &owner("me"), &key(0)).await;
        assert_eq!(row(reader, &key(0)).await.counter, turn);
    }
}

pub async fn only_a_shard_that_is_done_is_removed(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 2).await;
    assert!(!store.remove(&key(0)).await.unwrap());

    let to_end = ShardRange::new(Position::Beginning, Position::End).unwrap();
    let last = decision(&me, &manifest("last"), vec![(key(0), to_end), (key(1), first(5))]);
    decide(store, &last).await;
    assert!(!store.remove(&key(0)).await.unwrap());

    let children = [ShardId::new("shardId-c").unwrap()];
    let to_end = [Advance::to_end(key(0), children.clone()), advances(&last).remove(1)];
    store.advance(last.manifest(), &to_end).await.unwrap();
    assert_eq!(row(store, &key(0)).await.children, children.into());
    assert!(!store.remove(&key(1)).await.unwrap());
    assert!(store.remove(&key(0)).await.unwrap());
    assert!(!store.remove(&key(0)).await.unwrap());
    assert_eq!(store.get(&[key(0)]).await.unwrap(), [None]);
    assert_eq!(store.list().await.unwrap().len(), 1);
}
