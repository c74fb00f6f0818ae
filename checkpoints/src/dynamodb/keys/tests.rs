//! Tests of the keys: no two shards have the same one, each is read back, and the table's forms stay.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::shard_key;

const ORDERS_ID: &str = "000000000000:orders:1795423056";

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn key(of: &str, shard: &str) -> ShardKey {
    ShardKey::new(stream(of), ShardId::new(shard).unwrap())
}

fn ids(of: &[(&str, &str)], bare: Option<&str>) -> StreamIds {
    let ids = of.iter().map(|(name, id)| (stream(name), (*id).to_owned())).collect();
    StreamIds { ids, bare: bare.map(stream) }
}

/// A row of KCL's.
fn kcl(lease_key: &str, stream_name: Option<&str>) -> KeyAttributes {
    let shard_id = stream_name.map(|_| last_part(lease_key).to_owned());
    KeyAttributes {
        lease_key: lease_key.to_owned(),
        shardlake_stream: None,
        stream_name: stream_name.map(str::to_owned),
        shard_id,
    }
}

/// A row of ours.
fn ours(keys: &Keys, key: &ShardKey) -> KeyAttributes {
    keys.row_key(key).unwrap().attributes(key)
}

proptest! {
    #[test]
    fn a_key_is_read_back(key in shard_key(), bare in any::<bool>(), with_id in any::<bool>()) {
        let id = if with_id { vec![(key.stream.as_str(), ORDERS_ID)] } else { Vec::new() };
        let keys = Keys::new(ids(&id, bare.then_some(key.stream.as_str())));
        prop_assert_eq!(keys.shard(&ours(&keys, &key)).unwrap(), Some(key));
    }

    #[test]
    fn no_two_shards_have_the_same_key(one in "[a:%3A]{1,4}", shard in "[a:%3A]{1,4}", other in "[a:%3A]{1,4}", of in "[a:%3A]{1,4}") {
        let (one, other) = (key(&one, &shard), key(&other, &of));
        let bare = Keys::new(ids(&[], Some(one.stream.as_str())));
        for keys in [Keys::new(StreamIds::default()), bare] {
            let same = keys.row_key(&one).unwrap() == keys.row_key(&other).unwrap();
            prop_assert_eq!(same, one == other);
        }
    }
}

#[test]
fn keys_have_the_form_of_kcl() {
    let lease_key = |keys: &Keys, of: &str| keys.row_key(&key(of, "shardId-000000000000")).unwrap().lease_key;
    let alone = Keys::new(ids(&[("orders", ORDERS_ID)], Some("orders")));
    assert_eq!(lease_key(&alone, "orders"), "shardId-000000000000");
    let several = Keys::new(ids(&[("orders", ORDERS_ID)], None));
    assert_eq!(lease_key(&several, "orders"), "000000000000:orders:1795423056:shardId-000000000000");
    assert_eq!(lease_key(&several, "file:///in"), "file:///in:shardId-000000000000");
}

#[test]
fn a_key_that_dynamodb_does_not_take_is_refused() {
    let keys = Keys::new(StreamIds::default());
    assert!(keys.row_key(&key("orders", &"x".repeat(1_024))).is_ok());
    let error = keys.row_key(&key("orders", &":".repeat(1_024))).unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
}

#[test]
fn bare_rows_of_a_stream_stay_bare_whatever_is_configured() {
    let first = Keys::new(ids(&[("orders", ORDERS_ID)], Some("orders")));
    let shard = key("orders", "shardId-0");
    let row = ours(&first, &shard);
    let later = [
        ids(&[("orders", ORDERS_ID), ("users", "0:users:1")], None),
        ids(&[("users", "0:users:1")], Some("users")),
        StreamIds::default(),
    ];
    for configured in later {
        let mut keys = Keys::new(configured);
        keys.learn(std::slice::from_ref(&row)).unwrap();
        assert_eq!(keys.row_key(&shard).unwrap().lease_key, "shardId-0");
        assert_ne!(keys.row_key(&key("users", "shardId-0")).unwrap().lease_key, "shardId-0");
        assert_eq!(keys.shard(&row).unwrap(), Some(shard.clone()));
    }
}

#[test]
fn rows_behind_a_stream_id_stay_there_when_their_stream_is_the_only_one_left() {
    for row in [
        ours(&Keys::new(ids(&[("orders", ORDERS_ID)], None)), &key("orders", "shardId-0")),
        kcl(&format!("{ORDERS_ID}:shardId-0"), Some(ORDERS_ID)),
        ours(&Keys::new(StreamIds::default()), &key("orders", "shardId-0")),
    ] {
        let mut keys = Keys::new(ids(&[("orders", ORDERS_ID)], Some("orders")));
        keys.learn(std::slice::from_ref(&row)).unwrap();
        assert_eq!(keys.row_key(&key("orders", "shardId-0")).unwrap().lease_key, row.lease_key);
    }
}

#[test]
fn a_stream_that_is_not_configured_is_found_as_the_table_has_it() {
    let newer = "000000000000:orders:1795423999";
    let rows = [ORDERS_ID, newer].map(|id| ours(&Keys::new(ids(&[("orders", id)], None)), &key("orders", "shardId-0")));
    let mut keys = Keys::new(StreamIds::default());
    assert!(!keys.know([&stream("orders")].into_iter()));
    keys.learn(&rows).unwrap();
    assert!(keys.know([&stream("orders")].into_iter()));
    assert_eq!(keys.row_key(&key("orders", "shardId-0")).unwrap().lease_key, rows[1].lease_key);
}

#[test]
fn rows_of_a_stream_that_was_created_again_are_ignored() {
    let old = ours(&Keys::new(ids(&[("orders", ORDERS_ID)], None)), &key("orders", "shardId-0"));
    for bare in [None, Some("orders")] {
        let mut keys = Keys::new(ids(&[("orders", "000000000000:orders:1795423999")], bare));
        keys.learn(std::slice::from_ref(&old)).unwrap();
        assert_eq!(keys.shard(&old).unwrap(), None);
        assert_ne!(keys.row_key(&key("orders", "shardId-0")).unwrap().lease_key, old.lease_key);
    }
}

#[test]
fn a_row_of_kcl_belongs_to_the_stream_of_its_id_or_to_the_bare_one() {
    let mut keys = Keys::new(ids(&[("orders", ORDERS_ID)], None));
    let row = kcl(&format!("{ORDERS_ID}:shardId-0"), Some(ORDERS_ID));
    let other = kcl("0:users:1:shardId-0", Some("0:users:1"));
    keys.learn(&[row.clone(), other.clone()]).unwrap();
    assert_eq!(keys.shard(&row).unwrap(), Some(key("orders", "shardId-0")));
    // Of a stream that is not configured: the id is its name, and its rows are found by that too.
    assert_eq!(keys.shard(&other).unwrap(), Some(key("0:users:1", "shardId-0")));
    assert_eq!(keys.row_key(&key("0:users:1", "shardId-0")).unwrap().lease_key, other.lease_key);

    let bare = kcl("shardId-0", None);
    assert!(matches!(keys.learn(std::slice::from_ref(&bare)), Err(StoreError::Malformed { .. })));
    assert!(matches!(keys.shard(&bare), Err(StoreError::Malformed { .. })));
    let mut alone = Keys::new(ids(&[("orders", ORDERS_ID)], Some("orders")));
    alone.learn(std::slice::from_ref(&bare)).unwrap();
    assert_eq!(alone.shard(&bare).unwrap(), Some(key("orders", "shardId-0")));
}

#[test]
fn streams_that_began_together_keep_the_keys_that_they_have() {
    let row = |of: &str, shard: &str| KeyAttributes { shardlake_stream: Some(of.to_owned()), ..kcl(shard, None) };
    let mut keys = Keys::new(ids(&[("users", "0:users:1")], Some("users")));
    let lease_key = |keys: &Keys, shard: &str| keys.row_key(&key("users", shard)).unwrap().lease_key;
    assert_eq!(lease_key(&keys, "shardId-0"), "shardId-0");
    // The other stream was first: this one's rows go behind its id.
    let theirs = row("orders", "shardId-0");
    assert!(!keys.expect(&key("orders", "shardId-0"), "shardId-0"), "so that the keys are learned again");
    keys.learn(std::slice::from_ref(&theirs)).unwrap();
    assert_eq!(keys.shard(&theirs).unwrap(), Some(key("orders", "shardId-0")));
    assert_eq!(lease_key(&keys, "shardId-0"), "0:users:1:shardId-0");
    // Both have bare rows, since they have no shard id in common: they keep them.
    keys.learn(&[theirs, row("users", "shardId-7")]).unwrap();
    assert_eq!(lease_key(&keys, "shardId-7"), "shardId-7");
    // A shard id that is taken.
    keys.except(&key("users", "shardId-0"));
    assert_eq!(lease_key(&keys, "shardId-0"), "0:users:1:shardId-0");
    let behind = keys.row_key(&key("users", "shardId-0")).unwrap().attributes(&key("users", "shardId-0"));
    keys.learn(&[row("orders", "shardId-0"), row("users", "shardId-7"), behind]).unwrap();
    assert_eq!(lease_key(&keys, "shardId-0"), "0:users:1:shardId-0", "it is found again");
}

#[test]
fn rows_that_contradict_themselves_are_reported() {
    let mut keys = Keys::new(ids(&[], Some("orders")));
    let marked = |name: &str| KeyAttributes { shardlake_stream: Some(name.to_owned()), ..kcl("shardId-0", None) };
    keys.learn(&[marked("orders")]).unwrap();
    let contradictions = [
        kcl("a:b", None),
        kcl("%", None),
        kcl("b:shardId-0", Some("a")),
        KeyAttributes { shard_id: Some("shardId-1".to_owned()), ..kcl("a:shardId-0", Some("a")) },
    ];
    for row in contradictions {
        assert!(matches!(keys.shard(&row), Err(StoreError::Malformed { .. })), "{row:?}");
    }
}
