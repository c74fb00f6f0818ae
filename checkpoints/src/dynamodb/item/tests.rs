//! Tests of the item: the round trip, KCL's own items, and malformed items.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::lease;
use crate::dynamodb::keys::StreamIds;
use crate::lease::{Holder, LeaseOwner, Pending, ThroughputKbps};
use crate::position::Position;
use crate::shard::{ShardId, ShardKey, StreamName};

/// A lease as our stores write it: its manifests have the beginning that all of ours have.
fn ours(lease: Lease) -> Lease {
    let named = |name: &ManifestName| ManifestName::new(format!("{MANIFEST_PREFIX}{name}")).unwrap();
    let pending = lease
        .pending
        .as_ref()
        .map(|Pending { through, manifest }| Pending { through: through.clone(), manifest: named(manifest) });
    let kbps = lease.throughput.get();
    let kept = if kbps < NUMBER_BOUNDS.0 { 0.0 } else { kbps.min(NUMBER_BOUNDS.1) };
    Lease { pending, throughput: ThroughputKbps::new(kept), ..lease }
}

proptest! {
    #[test]
    fn a_lease_round_trips_through_an_item(lease in lease(), bare in any::<bool>(), id in any::<bool>()) {
        let lease = ours(lease);
        let stream = lease.key.stream.clone();
        let ids = id.then(|| (stream.clone(), "000000000000:a:1".to_owned())).into_iter().collect();
        let keys = Keys::new(StreamIds { ids, bare: bare.then_some(stream) });
        let item = encode(&lease, &keys.row_key(&lease.key).unwrap()).unwrap();
        prop_assert_eq!(decode(&item, &keys).unwrap(), Some(lease));
    }

    #[test]
    fn every_throughput_becomes_a_number_that_dynamodb_takes(kbps in any::<f64>()) {
        let AttributeValue::N(text) = throughput(ThroughputKbps::new(kbps).get()) else { panic!("it is a number") };
        let digits = text.split('e').next().unwrap().bytes().filter(u8::is_ascii_digit).count();
        prop_assert!(digits <= 38, "{}", text);
        let number: f64 = text.parse().unwrap();
        prop_assert!(number == 0.0 || (1e-130..=1e125).contains(&number), "{}", text);
    }
}

fn orders() -> Keys {
    Keys::new(StreamIds { bare: Some(StreamName::new("orders").unwrap()), ..StreamIds::default() })
}

/// An item that KCL wrote: see the file.
fn kcl_item(of: &str, number: usize) -> Item {
    let fixture: serde_json::Value = serde_json::from_str(include_str!("../../../tests/kcl-lease-items.json")).unwrap();
    let typed = |value: &serde_json::Value| match value.as_object().unwrap().iter().next().unwrap() {
        (kind, value) if kind == "S" => text(value.as_str().unwrap()),
        (kind, value) if kind == "N" => AttributeValue::N(value.as_str().unwrap().to_owned()),
        (kind, value) if kind == "SS" => {
            AttributeValue::Ss(value.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect())
        }
        (_, base64) => AttributeValue::B(Blob::new(base64.as_str().unwrap())),
    };
    let item = fixture[of][number].as_object().unwrap();
    item.iter().map(|(name, value)| (name.clone(), typed(value))).collect()
}

#[test]
fn a_lease_of_kcl_for_its_only_stream_is_read() {
    let lease = decode(&kcl_item("single", 3), &orders()).unwrap().unwrap();
    let owner = |name: &str| LeaseOwner::new(name).unwrap();
    assert_eq!(lease.key.to_string(), "shard shardId-000000000001 of stream orders");
    assert_eq!(lease.holder, Holder::HandingOver { from: owner("w2"), to: owner("w1") });
    assert_eq!(lease.throughput.get(), 171.708_371);
    assert_eq!((lease.counter, lease.pending, lease.last_manifest), (6, None, None));
}

#[test]
fn a_lease_of_kcl_for_one_of_several_streams_is_read_without_its_pending_checkpoint() {
    let stream = StreamName::new("orders").unwrap();
    let ids = [(stream.clone(), "000000000000:msa:1795423056".to_owned())].into();
    let keys = Keys::new(StreamIds { ids, bare: None });
    let item = kcl_item("several", 0);
    assert!(item.contains_key(PENDING) && item.contains_key(PENDING_STATE));
    let lease = decode(&item, &keys).unwrap().unwrap();
    assert_eq!(lease.key, ShardKey::new(stream, ShardId::new("shardId-000000000000").unwrap()));
    assert_eq!((lease.checkpoint, lease.pending), (Position::Beginning, None));
}

#[test]
fn an_item_of_another_entity_is_not_a_lease() {
    for entity in ["STREAM", "LEADER", "CLIENT_VERSION_MIGRATION", "TABLE_MIGRATION", "WORKER_METRIC_STATS"] {
        let item = [(LEASE_KEY.to_owned(), text("x")), (ENTITY_TYPE.to_owned(), text(entity))].into();
        assert_eq!(decode(&item, &orders()).unwrap(), None);
    }
}

#[test]
fn a_malformed_item_is_an_error_that_names_its_shard() {
    let pending = [(PENDING, text("8")), (PENDING_SUB, number(0)), (PENDING_STATE, text("x"))];
    assert!(decode(&with(&pending), &orders()).unwrap().unwrap().pending.is_none());
    let ours = (PENDING_STATE, AttributeValue::B(Blob::new("_intents/1.json")));
    let malformed = [
        vec![(LEASE_COUNTER, text("39"))],
        vec![(LEASE_COUNTER, AttributeValue::N("1.5".to_owned()))],
        vec![(LEASE_COUNTER, number(-1))],
        vec![(LEASE_OWNER, number(1))],
        vec![(CHECKPOINT, text("?"))],
        vec![(CHILDREN, text("shardId-0"))],
        vec![(THROUGHPUT, text("fast"))],
        vec![ours.clone()],
        vec![ours, (PENDING, text("8")), (PENDING_SUB, number(0))],
        vec![(PENDING_STATE, AttributeValue::B(Blob::new(b"_intents/\xff")))],
    ];
    for attributes in malformed {
        let error = decode(&with(&attributes), &orders()).expect_err(&format!("{attributes:?} was accepted"));
        let message = error.to_string();
        let beginning = "the stored lease of shard shardId-000000000003 of stream orders is malformed: ";
        assert!(message.starts_with(beginning), "{attributes:?}: {message}");
    }
    for missing in [LEASE_COUNTER, CHECKPOINT, CHECKPOINT_SUB] {
        let mut item = kcl_item("single", 1);
        item.remove(missing);
        let message = decode(&item, &orders()).unwrap_err().to_string();
        assert!(message.ends_with(&format!("it has no {missing}")), "{message}");
    }
}

/// A lease of KCL's with some attributes replaced.
fn with(attributes: &[(&str, AttributeValue)]) -> Item {
    let mut item = kcl_item("single", 1);
    item.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    item
}
