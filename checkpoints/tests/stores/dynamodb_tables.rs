//! The DynamoDB store and its tables: those that KCL wrote, those of several streams, and what a user reads about a bad one.
//!
//! A KCL wrote the leases of `kcl-lease-items.json`. Whatever is made up beside them says so.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use checkpoints::conformance::take;
use checkpoints::{
    Advance, AdvanceOutcome, Decision, DynamoStore, Holder, LeaseOwner, LeaseStore, ManifestName, NewLease, Position,
    ShardId, ShardKey, ShardRange, StoreError, StreamIds, StreamName, Verdict,
};
use serde_json::Value;

use crate::dynamodb::{client, id, streams, table};

type Item = HashMap<String, AttributeValue>;

/// The items that KCL wrote: "single" or "several".
fn kcl_items(of: &str) -> Vec<Item> {
    let fixture: Value = serde_json::from_str(include_str!("../kcl-lease-items.json")).unwrap();
    let attributes = |item: &Value| {
        let attributes = item.as_object().unwrap().iter();
        attributes.map(|(name, value)| (name.clone(), attribute(value))).collect()
    };
    fixture[of].as_array().unwrap().iter().map(attributes).collect()
}

fn attribute(typed: &Value) -> AttributeValue {
    let (kind, value) = typed.as_object().unwrap().iter().next().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match kind.as_str() {
        "S" => AttributeValue::S(text(value)),
        "N" => AttributeValue::N(text(value)),
        "SS" => AttributeValue::Ss(value.as_array().unwrap().iter().map(text).collect()),
        // "app-state": the only bytes of the fixture.
        "B" if value == "YXBwLXN0YXRl" => AttributeValue::B(Blob::new("app-state")),
        other => panic!("the fixture has an attribute of type {other}"),
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

async fn put(client: &Client, table: &str, items: impl IntoIterator<Item = Item>) {
    for item in items {
        client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }
}

async fn raw(client: &Client, table: &str, lease_key: &str) -> Item {
    let get = client.get_item().table_name(table).consistent_read(true).key("leaseKey", text(lease_key));
    get.send().await.unwrap().item.unwrap()
}

/// A table of KCL's: the store creates it, KCL's items fill it.
async fn kcl_table(client: &Client, items: Vec<Item>) -> String {
    let table = table();
    DynamoStore::open(client.clone(), &table, StreamIds::default()).await.unwrap();
    put(client, &table, items).await;
    table
}

fn key(stream: &str, shard: usize) -> ShardKey {
    let shard = ShardId::new(format!("shardId-{shard:012}")).unwrap();
    ShardKey::new(StreamName::new(stream).unwrap(), shard)
}

fn owner(name: &str) -> LeaseOwner {
    LeaseOwner::new(name).unwrap()
}

fn manifest(name: &str) -> ManifestName {
    ManifestName::new(format!("_intents/{name}.json")).unwrap()
}

/// Takes a lease and commits it through `through`.
async fn commit(store: &DynamoStore, key: &ShardKey, name: &str, through: Position) {
    let me = owner("me");
    let lease = take(store, &me, key).await;
    let range = ShardRange::new(lease.checkpoint, through.clone()).unwrap();
    let epoch = Decision::new(me, manifest(name), vec![(key.clone(), range)]).unwrap();
    assert_eq!(store.decide(&epoch).await.unwrap(), Verdict::Decided);
    let advances = [Advance::new(key.clone(), through)];
    assert_eq!(store.advance(epoch.manifest(), &advances).await.unwrap(), [AdvanceOutcome::Advanced]);
}

/// After every record that a KCL of the fixture has seen.
fn later() -> Position {
    Position::At { sequence: "59680484650097126270655887085907518179847457199764799538".try_into().unwrap(), sub: 2 }
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_table_of_kcl_is_read_and_taken_over_and_unknown_attributes_survive() {
    let client = client().await;
    let mut items = kcl_items("single");
    // KCL has no such attribute today.
    items[1].insert("attributeOfTheFuture".to_owned(), text("kept"));
    let before = items[1].clone();
    let table = kcl_table(&client, items).await;
    // As KCL 3.5 has them in the same table (made up from its source).
    let leader = [("leaseKey", "Leader"), ("entityType", "LEADER"), ("ownerName", "w1"), ("leaseDuration", "120000")];
    let metrics = [("leaseKey", "w1"), ("entityType", "WORKER_METRIC_STATS")];
    let others = [&leader[..], &metrics[..]];
    let others = others.map(|item| item.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect());
    put(&client, &table, others).await;

    let store = DynamoStore::open_existing(client.clone(), &table, streams(&["orders"])).await.unwrap();
    let leases = store.list().await.unwrap();
    let shards: Vec<ShardKey> = leases.iter().map(|lease| lease.key.clone()).collect();
    assert_eq!(shards, [0, 1, 3, 4].map(|shard| key("orders", shard)));
    let children = [3, 4].map(|shard| key("orders", shard).shard);
    assert_eq!((&leases[0].checkpoint, &leases[0].children), (&Position::End, &children.into()));
    assert_eq!(leases[1].holder, Holder::HandingOver { from: owner("w2"), to: owner("w1") });
    assert_eq!(leases[2].holder, Holder::Held(owner("w2")));
    assert_eq!(leases[2].parents, [key("orders", 0).shard].into());
    assert_eq!(leases[2].counter, 39);

    commit(&store, &key("orders", 3), "one", later()).await;
    let mut expected = before;
    expected.extend([
        ("leaseOwner".to_owned(), text("me")),
        ("leaseCounter".to_owned(), AttributeValue::N("40".to_owned())),
        ("checkpoint".to_owned(), text(later().checkpoint())),
        ("checkpointSubSequenceNumber".to_owned(), AttributeValue::N("2".to_owned())),
        // Our attributes.
        ("shardlakeStream".to_owned(), text("orders")),
        ("lastManifest".to_owned(), text("_intents/one.json")),
    ]);
    assert_eq!(raw(&client, &table, "shardId-000000000003").await, expected);
    // A hand-off in progress of KCL's ends when the lease is taken.
    assert_eq!(take(&store, &owner("me"), &key("orders", 1)).await.holder, Holder::Held(owner("me")));
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_pending_checkpoint_of_kcl_does_not_prevent_a_decision_whatever_its_state() {
    let client = client().await;
    let states = [
        None,
        Some(AttributeValue::N("0".to_owned())),
        Some(AttributeValue::B(Blob::new("app-state"))),
        Some(AttributeValue::B(Blob::new("_intent"))),
    ];
    for state in states {
        let mut items = kcl_items("several");
        items.truncate(1);
        items[0].remove("pendingCheckpointState");
        items[0].extend(state.clone().map(|state| ("pendingCheckpointState".to_owned(), state)));
        let table = kcl_table(&client, items).await;
        let store = DynamoStore::open_existing(client.clone(), &table, streams(&["msa", "msb"])).await.unwrap();
        assert_eq!(store.list().await.unwrap()[0].pending, None, "{state:?}");
        commit(&store, &key("msa", 0), "one", later()).await;
        let item = raw(&client, &table, &format!("{}:shardId-000000000000", id("msa"))).await;
        assert!(item.keys().all(|name| !name.starts_with("pending")), "{state:?}: {item:?}");
    }
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn streams_of_one_table_have_their_own_leases_and_share_a_decision() {
    let client = client().await;
    let table = kcl_table(&client, kcl_items("several")).await;
    let mut both = streams(&["msa", "msb"]);
    both.ids.insert(StreamName::new("msb").unwrap(), "000000000000:msb:1795423058".to_owned());
    let store = DynamoStore::open(client.clone(), &table, both).await.unwrap();
    let files = ShardKey::new(StreamName::new("file:///data/in").unwrap(), ShardId::new("a:b%.ndjson").unwrap());
    let new = [NewLease::new(key("msa", 5), Position::Beginning), NewLease::new(files.clone(), Position::Beginning)];
    assert_eq!(store.create(&new).await.unwrap().len(), 2);
    let keys = [files, key("msa", 0), key("msa", 5), key("msb", 1)];
    assert_eq!(store.list().await.unwrap().into_iter().map(|lease| lease.key).collect::<Vec<_>>(), keys);
    let made = raw(&client, &table, &format!("{}:shardId-000000000005", id("msa"))).await;
    for (name, value) in
        [("streamName", id("msa").as_str()), ("shardId", "shardId-000000000005"), ("entityType", "LEASE")]
    {
        assert_eq!(made[name], text(value));
    }

    let me = owner("me");
    let mut shards = Vec::new();
    for key in keys {
        let lease = take(&store, &me, &key).await;
        shards.push((key, ShardRange::new(lease.checkpoint, later()).unwrap()));
    }
    let epoch = Decision::new(me, manifest("all"), shards).unwrap();
    assert_eq!(store.decide(&epoch).await.unwrap(), Verdict::Decided);
    // A worker that knows none of these streams can still finish the epoch: the table shows how to find their rows.
    let stranger = DynamoStore::open_existing(client, &table, StreamIds::default()).await.unwrap();
    let advances: Vec<Advance> = epoch.keys().into_iter().map(|key| Advance::new(key, later())).collect();
    assert_eq!(stranger.advance(epoch.manifest(), &advances).await.unwrap(), [AdvanceOutcome::Advanced; 4]);
    assert_eq!(stranger.list().await.unwrap(), store.list().await.unwrap());
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_stream_added_to_the_table_later_is_found_by_a_store_that_did_not_know_it() {
    let client = client().await;
    let table = table();
    let old = DynamoStore::open(client.clone(), &table, streams(&["orders"])).await.unwrap();
    old.create(&[NewLease::new(key("orders", 0), Position::Beginning)]).await.unwrap();
    let new = DynamoStore::open(client, &table, streams(&["orders", "users"])).await.unwrap();
    new.create(&[NewLease::new(key("users", 0), Position::Beginning)]).await.unwrap();
    let both = [key("orders", 0), key("users", 0)];
    assert!(old.get(&both).await.unwrap().iter().all(Option::is_some));
    assert_eq!(old.list().await.unwrap(), new.list().await.unwrap());
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn the_only_stream_keeps_its_bare_keys_when_a_second_one_is_added() {
    let client = client().await;
    // Whether the table was KCL's or ours from the start.
    for items in [kcl_items("single"), Vec::new()] {
        let table = kcl_table(&client, items).await;
        let alone = DynamoStore::open(client.clone(), &table, streams(&["orders"])).await.unwrap();
        alone.create(&[NewLease::new(key("orders", 3), Position::Beginning)]).await.unwrap();
        commit(&alone, &key("orders", 3), "one", later()).await;
        let before = alone.list().await.unwrap();

        let both = DynamoStore::open(client.clone(), &table, streams(&["orders", "users"])).await.unwrap();
        assert_eq!(both.list().await.unwrap(), before);
        let new = [NewLease::new(key("orders", 3), Position::Beginning), NewLease::new(key("users", 3), later())];
        assert_eq!(both.create(&new).await.unwrap(), [key("users", 3)]);
        assert_eq!(raw(&client, &table, "shardId-000000000003").await["shardlakeStream"], text("orders"));
        raw(&client, &table, &format!("{}:shardId-000000000003", id("users"))).await;

        // When only the second one is left, its keys stay as they are, too.
        let users = DynamoStore::open(client.clone(), &table, streams(&["users"])).await.unwrap();
        assert_eq!(users.list().await.unwrap(), both.list().await.unwrap());
        assert_eq!(users.get(&[key("users", 3)]).await.unwrap()[0].as_ref().unwrap().checkpoint, later());
    }
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn rows_of_kcl_for_its_only_stream_need_that_stream_to_be_configured() {
    let client = client().await;
    let table = kcl_table(&client, kcl_items("single")).await;
    let error = DynamoStore::open(client, &table, streams(&["orders", "users"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error:?}");
    assert!(error.to_string().contains("KCL wrote it for its only stream"), "{error}");
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_new_table_that_many_open_at_once_is_created_once() {
    let table = table();
    let openings = (0..8).map(|_| {
        let table = table.clone();
        tokio::spawn(async move { DynamoStore::open(client().await, &table, streams(&["orders"])).await })
    });
    for opening in openings.collect::<Vec<_>>() {
        assert_eq!(opening.await.unwrap().unwrap().list().await.unwrap(), []);
    }
    let made = client().await.describe_table().table_name(&table).send().await.unwrap().table.unwrap();
    let billing = made.billing_mode_summary().unwrap().billing_mode();
    assert_eq!(billing, Some(&BillingMode::PayPerRequest));
    assert_eq!(made.global_secondary_indexes()[0].index_name(), Some("LeaseOwnerToLeaseKeyIndex"));
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_missing_table_is_reported_and_not_created() {
    let (client, table) = (client().await, table());
    let error = DynamoStore::open_existing(client.clone(), &table, streams(&["orders"])).await.unwrap_err();
    let message = format!(
        "cannot use the checkpoints in DynamoDB table {table}: there is no such table in this account and region"
    );
    assert_eq!(error.to_string(), message);
    assert!(client.describe_table().table_name(&table).send().await.is_err());
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_table_that_is_not_a_lease_table_is_reported_and_left_as_it_is() {
    let (client, table) = (client().await, table());
    let photo = AttributeDefinition::builder().attribute_name("photo").attribute_type(ScalarAttributeType::S);
    let element = KeySchemaElement::builder().attribute_name("photo").key_type(KeyType::Hash);
    let create = client.create_table().table_name(&table).billing_mode(BillingMode::PayPerRequest);
    let create = create.attribute_definitions(photo.build().unwrap()).key_schema(element.build().unwrap());
    create.send().await.unwrap();
    let error = DynamoStore::open(client, &table, streams(&["orders"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().ends_with("its key is photo instead of the text leaseKey alone"), "{error}");
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_manifest_that_kcl_could_have_written_is_refused() {
    let (client, table) = (client().await, table());
    let store = DynamoStore::open(client, &table, streams(&["orders"])).await.unwrap();
    store.create(&[NewLease::new(key("orders", 0), Position::Beginning)]).await.unwrap();
    take(&store, &owner("me"), &key("orders", 0)).await;
    let range = ShardRange::new(Position::Beginning, later()).unwrap();
    let name = ManifestName::new("app-state").unwrap();
    let epoch = Decision::new(owner("me"), name, vec![(key("orders", 0), range)]).unwrap();
    assert!(matches!(store.decide(&epoch).await.unwrap_err(), StoreError::Invalid { .. }));
}
