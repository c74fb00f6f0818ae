//! Limits of a shard, when they are switched on.

use aws_model::kinesis::{Put, Settings};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;

use crate::client::{STREAM, World, refusal, shard};

fn reads() -> Settings {
    Settings { read_limits: true, ..Settings::default() }
}

fn writes() -> Settings {
    Settings { write_limits: true, ..Settings::default() }
}

#[tokio::test]
async fn a_shard_is_read_five_times_a_second() {
    let world = World::new(2, reads());
    let iterator = world.oldest(&shard(0)).await;
    let get = || world.client.get_records().shard_iterator(&iterator).send();
    for _ in 0..5 {
        world.clock.advance_ms(100);
        get().await.unwrap();
    }
    let (kind, message) = refusal(get().await);
    assert_eq!(kind, "ProvisionedThroughputExceededException");
    assert_eq!(message, "Rate exceeded for shard shardId-000000000000 in stream stream under account 000000000000.");
    world.get(world.oldest(&shard(1)).await).await;
    world.clock.advance_ms(599);
    get().await.unwrap_err();
    world.clock.advance_ms(1);
    get().await.unwrap();
    get().await.unwrap_err();
}

#[tokio::test]
async fn a_shard_returns_two_mebibytes_a_second_and_pauses_five_seconds_after_ten_at_once() {
    let world = World::new(1, reads());
    for _ in 0..12 {
        world.kinesis.put_record(STREAM, Put::new("key", vec![b'x'; (1 << 20) - 3])).unwrap();
    }
    let iterator = world.oldest(&shard(0)).await;
    let get = |limit| world.client.get_records().shard_iterator(&iterator).limit(limit).send();
    for _ in 0..2 {
        get(1).await.unwrap();
    }
    assert_eq!(refusal(get(1).await).0, "ProvisionedThroughputExceededException");
    world.clock.advance_ms(1000);
    assert_eq!(get(10_000).await.unwrap().records.len(), 10);
    world.clock.advance_ms(4999);
    assert_eq!(refusal(get(1).await).0, "ProvisionedThroughputExceededException");
    world.clock.advance_ms(1);
    get(1).await.unwrap();
}

#[tokio::test]
async fn a_shard_takes_a_thousand_records_a_second_and_refuses_only_the_others() {
    let world = World::new(1, writes());
    for round in 0..3 {
        let entries = (0..400).map(|_| PutRecordsRequestEntry::builder().partition_key("key").data(Blob::new("x")));
        let entries = entries.map(|entry| entry.build().unwrap()).collect();
        let put = world.client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await.unwrap();
        assert_eq!(put.failed_record_count, Some(if round == 2 { 200 } else { 0 }));
        let refused = put.records.iter().filter_map(|placed| placed.error_code.as_deref());
        assert!(refused.clone().all(|code| code == "ProvisionedThroughputExceededException"));
        world.clock.advance_ms(10);
    }
    let one = || world.client.put_record().stream_name(STREAM).partition_key("key").data(Blob::new("x")).send();
    assert_eq!(refusal(one().await).0, "ProvisionedThroughputExceededException");
    world.clock.advance_ms(970);
    one().await.unwrap();
    assert_eq!(world.contents(&shard(0)).await.len(), 1001);
}

#[tokio::test]
async fn a_shard_takes_a_mebibyte_a_second_and_more_only_in_one_record() {
    let world = World::new(1, writes());
    world.kinesis.update_max_record_size(STREAM, 10_240).unwrap();
    let put = |size: usize| {
        world.client.put_record().stream_name(STREAM).partition_key("key").data(Blob::new(vec![b'x'; size])).send()
    };
    put(600_000).await.unwrap();
    assert_eq!(refusal(put(600_000).await).0, "ProvisionedThroughputExceededException");
    put(400_000).await.unwrap();
    world.clock.advance_ms(1000);
    put((4 << 20) - 3).await.unwrap();
    world.clock.advance_ms(3999);
    assert_eq!(refusal(put(1).await).0, "ProvisionedThroughputExceededException");
    world.clock.advance_ms(1);
    put(1).await.unwrap();
}
