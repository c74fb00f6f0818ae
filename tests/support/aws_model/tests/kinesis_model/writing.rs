//! PutRecord, PutRecords, and the operations of streams.

use aws_model::kinesis::{Settings, hash_key};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamMode, StreamModeDetails, StreamStatus};

use crate::client::{BEGINNING_MS, STREAM, World, refusal, shard};

fn entry(key: &str, data: impl Into<Vec<u8>>) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data.into())).build().unwrap()
}

#[tokio::test]
#[expect(clippy::cast_possible_truncation, reason = "a time of this century")]
async fn a_record_is_read_back_unchanged_from_the_shard_of_its_hash_key() {
    let world = World::new(4, Settings::default());
    world.clock.advance_ms(1234);
    let put = world.client.put_record().stream_name(STREAM).partition_key("ä key").data(Blob::new([0, 255, 10]));
    let put = put.send().await.unwrap();
    let quarter = u32::try_from(hash_key("ä key") >> 126).unwrap();
    assert_eq!(put.shard_id, shard(quarter));
    let answer = world.get(world.oldest(&put.shard_id).await).await;
    let [record] = &answer.records[..] else { panic!("one record") };
    assert_eq!(record.sequence_number, put.sequence_number);
    assert_eq!((record.partition_key.as_deref(), record.data.as_ref()), (Some("ä key"), &[0, 255, 10][..]));
    let arrived = record.approximate_arrival_timestamp.unwrap();
    // Seconds with a fraction: the SDK's `to_millis` may lose a millisecond.
    assert_eq!((arrived.as_secs_f64() * 1000.0).round() as i64, BEGINNING_MS + 1234);
}

#[tokio::test]
async fn an_explicit_hash_key_overrides_the_partition_key() {
    let world = World::new(2, Settings::default());
    for (key, number) in [("0", 0), (&u128::MAX.to_string(), 1)] {
        let put = world.client.put_record().stream_name(STREAM).partition_key("same").explicit_hash_key(key);
        assert_eq!(put.data(Blob::new("x")).send().await.unwrap().shard_id, shard(number));
    }
    let put = world
        .client
        .put_record()
        .stream_name(STREAM)
        .partition_key("same")
        .explicit_hash_key("340282366920938463463374607431768211456");
    let (kind, message) = refusal(put.data(Blob::new("x")).send().await);
    assert_eq!(kind, "InvalidArgumentException");
    assert!(message.starts_with("Invalid ExplicitHashKey."), "{message}");
}

#[tokio::test]
async fn sequence_numbers_grow_along_a_shard_and_are_unique_over_the_stream() {
    let world = World::new(3, Settings::default());
    let mut all = Vec::new();
    for round in 0..4 {
        let records = (0..50).map(|number| entry(&format!("key {round} {number}"), "x"));
        let put = world.client.put_records().stream_name(STREAM).set_records(Some(records.collect()));
        let put = put.send().await.unwrap();
        assert_eq!(put.failed_record_count, Some(0));
        all.extend(put.records.into_iter().map(|placed| (placed.shard_id.unwrap(), placed.sequence_number.unwrap())));
        world.clock.advance_ms(700);
    }
    assert!(all.iter().all(|(_, number)| number.len() == 56));
    for name in (0..3).map(shard) {
        let numbers: Vec<_> = all.iter().filter(|(of, _)| *of == name).map(|(_, number)| number).collect();
        assert!(numbers.len() > 20 && numbers.is_sorted());
    }
    let unique: std::collections::BTreeSet<_> = all.iter().map(|(_, number)| number).collect();
    assert_eq!(unique.len(), all.len());
}

#[tokio::test]
async fn some_records_of_a_request_fail_and_the_others_are_stored() {
    let world = World::new(1, Settings { failed_record_every: std::num::NonZeroU64::new(3), ..Settings::default() });
    let records = (0..6).map(|number| entry("key", number.to_string()));
    let put = world.client.put_records().stream_name(STREAM).set_records(Some(records.collect())).send().await.unwrap();
    assert_eq!(put.failed_record_count, Some(2));
    let codes: Vec<_> = put.records.iter().map(|placed| placed.error_code.as_deref()).collect();
    assert_eq!(codes, [None, None, Some("InternalFailure"), None, None, Some("InternalFailure")]);
    assert_eq!(world.contents(&shard(0)).await, ["0", "1", "3", "4"]);
}

#[tokio::test]
async fn large_records_are_refused_unless_the_stream_allows_them() {
    let world = World::new(1, Settings::default());
    let many = (0..501).map(|_| entry("key", "x"));
    let put = world.client.put_records().stream_name(STREAM).set_records(Some(many.collect()));
    let (kind, message) = refusal(put.send().await);
    assert_eq!(kind, "ValidationException");
    assert!(message.ends_with("Member must have length less than or equal to 500"), "{message}");

    let large =
        || world.client.put_record().stream_name(STREAM).partition_key("key").data(Blob::new(vec![b'x'; 3 << 20]));
    assert_eq!(refusal(large().send().await).0, "InvalidArgumentException");
    let arn = world.kinesis.describe_stream_summary(STREAM).unwrap().arn;
    let update = |kib| world.client.update_max_record_size().stream_arn(&arn).max_record_size_in_kib(kib);
    assert_eq!(refusal(update(10_241).send().await).0, "ValidationException");
    update(10_240).send().await.unwrap();
    large().send().await.unwrap();
    let answer = world.get(world.oldest(&shard(0)).await).await;
    assert_eq!(answer.records[0].data.as_ref().len(), 3 << 20);
}

#[tokio::test]
async fn streams_are_created_described_and_deleted() {
    let world = World::new(2, Settings { status_ms: 500, ..Settings::default() });
    let client = &world.client;
    let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().unwrap();
    client.create_stream().stream_name("another").stream_mode_details(mode).send().await.unwrap();
    let summary = || async {
        let described = client.describe_stream_summary().stream_name("another").send().await.unwrap();
        described.stream_description_summary.unwrap()
    };
    assert_eq!(summary().await.stream_status, StreamStatus::Creating);
    world.clock.advance_ms(500);
    let described = summary().await;
    assert_eq!(described.stream_status, StreamStatus::Active);
    assert_eq!((described.open_shard_count, described.retention_period_hours), (4, 24));
    assert_eq!(described.stream_creation_timestamp.to_millis().unwrap(), BEGINNING_MS);

    let again = client.create_stream().stream_name("another").shard_count(1).send().await;
    assert_eq!(refusal(again).0, "ResourceInUseException");
    assert_eq!(client.list_streams().send().await.unwrap().stream_names, ["another", STREAM]);
    client.delete_stream().stream_name("another").send().await.unwrap();
    let (kind, message) = refusal(client.describe_stream().stream_name("another").send().await);
    assert_eq!(kind, "ResourceNotFoundException");
    assert_eq!(message, "Stream another under account 000000000000 not found.");
}

#[tokio::test]
async fn a_stream_is_also_found_by_its_arn() {
    let world = World::new(1, Settings::default());
    let arn = world.kinesis.describe_stream_summary(STREAM).unwrap().arn;
    world.client.put_record().stream_arn(&arn).partition_key("key").data(Blob::new("x")).send().await.unwrap();
    assert_eq!(world.client.list_shards().stream_arn(&arn).send().await.unwrap().shards().len(), 1);
    assert_eq!(world.contents(&shard(0)).await, ["x"]);
}
