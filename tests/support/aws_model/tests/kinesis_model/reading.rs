//! GetShardIterator and GetRecords without limits; retention.

use std::num::NonZeroU64;

use aws_model::kinesis::Settings;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::client::{BEGINNING_MS, STREAM, World, contents, refusal, shard};

const HOUR_MS: u32 = 3_600_000;

#[tokio::test]
async fn each_kind_of_iterator_begins_at_its_record() {
    let world = World::new(1, Settings::default());
    let mut numbers = Vec::new();
    for data in ["a", "b", "c"] {
        numbers.push(world.put("key", data).await);
        world.clock.advance_ms(1000);
    }
    let asked =
        |kind| world.client.get_shard_iterator().stream_name(STREAM).shard_id(shard(0)).shard_iterator_type(kind);
    let at = |number: &String| asked(ShardIteratorType::AtSequenceNumber).starting_sequence_number(number);
    let after = |number: &String| asked(ShardIteratorType::AfterSequenceNumber).starting_sequence_number(number);
    let since = |ms: i64| asked(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(BEGINNING_MS + ms));
    let cases = [
        (asked(ShardIteratorType::TrimHorizon), "abcd"),
        (asked(ShardIteratorType::Latest), "d"),
        (at(&numbers[1]), "bcd"),
        (after(&numbers[1]), "cd"),
        (after(&numbers[2]), "d"),
        (since(0), "abcd"),
        (since(1), "bcd"),
        (since(1000), "bcd"),
        (since(2500), "d"),
    ];
    let mut iterators = Vec::new();
    for (asked, wanted) in cases {
        iterators.push((asked.send().await.unwrap().shard_iterator.unwrap(), wanted));
    }
    world.put("key", "d").await;
    for (iterator, wanted) in iterators {
        assert_eq!(contents(&world.get(iterator).await).concat(), wanted);
    }
}

#[tokio::test]
async fn sequence_numbers_of_other_shards_are_refused() {
    let world = World::new(2, Settings::default());
    let asked =
        |kind| world.client.get_shard_iterator().stream_name(STREAM).shard_id(shard(0)).shard_iterator_type(kind);
    let with = |number: &str| asked(ShardIteratorType::AfterSequenceNumber).starting_sequence_number(number);
    let theirs = world.kinesis.shards(STREAM).unwrap()[1].starting.to_string();
    world.clock.advance_ms(5000);
    world.kinesis.create_stream("another", Some(1)).unwrap();
    let elsewhere = world.kinesis.shards("another").unwrap()[0].starting.to_string();
    let cases = [
        (with("12345"), "is invalid."),
        (
            with(&theirs),
            "It encodes shardId-000000000001, while it was used in a call to a shard with shardId-000000000000",
        ),
        (with(&elsewhere), "is invalid because it did not come from this stream."),
        (
            asked(ShardIteratorType::AtSequenceNumber),
            "Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber.",
        ),
        (
            asked(ShardIteratorType::Latest).starting_sequence_number(&theirs),
            "Request specified LATEST and also a StartingSequenceNumber.",
        ),
        (asked(ShardIteratorType::AtTimestamp), "Current request has no timestamp parameter."),
        (
            asked(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(BEGINNING_MS + 5001)),
            &format!("timestampInMillis: {}, currentTimestampInMillis: {}", BEGINNING_MS + 5001, BEGINNING_MS + 5000),
        ),
    ];
    for (asked, wanted) in cases {
        let (kind, message) = refusal(asked.send().await);
        assert_eq!(kind, "InvalidArgumentException");
        assert!(message.ends_with(wanted), "{message}");
    }
    let elsewhere = world.client.get_shard_iterator().stream_name(STREAM).shard_id(shard(2));
    let (kind, _) = refusal(elsewhere.shard_iterator_type(ShardIteratorType::Latest).send().await);
    assert_eq!(kind, "ResourceNotFoundException");
}

#[tokio::test]
async fn an_iterator_is_valid_for_five_minutes_and_may_be_used_again() {
    let world = World::new(1, Settings::default());
    world.put("key", "a").await;
    let iterator = world.oldest(&shard(0)).await;
    world.clock.advance_ms(300_000);
    for _ in 0..2 {
        assert_eq!(contents(&world.get(&iterator).await), ["a"]);
    }
    world.clock.advance_ms(1);
    let (kind, _) = refusal(world.client.get_records().shard_iterator(&iterator).send().await);
    assert_eq!(kind, "ExpiredIteratorException");
    let (kind, message) = refusal(world.client.get_records().shard_iterator("bm9uZQ==").send().await);
    assert_eq!((kind.as_str(), message.as_str()), ("InvalidArgumentException", "Invalid ShardIterator."));
}

#[tokio::test]
async fn answers_contain_how_far_they_are_behind() {
    let world = World::new(1, Settings::default());
    for data in ["a", "b"] {
        world.put("key", data).await;
        world.clock.advance_ms(1000);
    }
    let limited =
        world.client.get_records().shard_iterator(world.oldest(&shard(0)).await).limit(1).send().await.unwrap();
    assert_eq!((contents(&limited), limited.millis_behind_latest), (vec!["a".to_owned()], Some(2000)));
    let rest = world.get(limited.next_shard_iterator.unwrap()).await;
    assert_eq!((contents(&rest), rest.millis_behind_latest), (vec!["b".to_owned()], Some(0)));
    let none = world.get(rest.next_shard_iterator.unwrap()).await;
    assert_eq!((none.records.len(), none.millis_behind_latest), (0, Some(0)));
    assert!(none.next_shard_iterator.is_some());
    for limit in [0, 10_001] {
        let asked = world.client.get_records().shard_iterator(world.oldest(&shard(0)).await).limit(limit);
        assert_eq!(refusal(asked.send().await).0, "ValidationException");
    }
}

#[tokio::test]
async fn an_answer_may_be_empty_although_there_are_records() {
    let world = World::new(1, Settings { empty_answer_every: NonZeroU64::new(2), ..Settings::default() });
    for data in ["a", "b", "c"] {
        world.put("key", data).await;
    }
    world.clock.advance_ms(100);
    let mut iterator = world.oldest(&shard(0)).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let answer = world.client.get_records().shard_iterator(iterator).limit(1).send().await.unwrap();
        seen.push((contents(&answer).concat(), answer.millis_behind_latest.unwrap() > 0));
        iterator = answer.next_shard_iterator.unwrap();
    }
    let seen: Vec<_> = seen.iter().map(|(data, behind)| (data.as_str(), *behind)).collect();
    assert_eq!(seen, [("a", true), ("", true), ("b", true), ("", true), ("c", false)]);
}

#[tokio::test]
async fn a_record_may_become_visible_after_a_delay() {
    let world = World::new(1, Settings { visible_after_ms: 300, ..Settings::default() });
    world.put("key", "a").await;
    world.kinesis.configure(|settings| settings.visible_after_ms = 0);
    world.put("key", "b").await;
    let early = world.get(world.oldest(&shard(0)).await).await;
    assert_eq!((early.records.len(), early.millis_behind_latest), (0, Some(0)));
    world.clock.advance_ms(300);
    let next = early.next_shard_iterator.unwrap();
    assert_eq!(contents(&world.get(next).await), ["a", "b"], "and one that cannot be read hides those behind it");
}

#[tokio::test]
async fn an_answer_holds_ten_mebibytes_at_most() {
    let world = World::new(1, Settings::default());
    for _ in 0..11 {
        world.put("key", vec![b'x'; (1 << 20) - 3]).await;
    }
    let answer = world.get(world.oldest(&shard(0)).await).await;
    assert_eq!(answer.records.len(), 10);
    assert!(answer.millis_behind_latest.unwrap() > 0);
    assert_eq!(world.get(answer.next_shard_iterator.unwrap()).await.records.len(), 1);
}

#[tokio::test]
async fn an_answer_holds_ten_thousand_records_at_most() {
    let world = World::new(1, Settings::default());
    for number in 0..10_001 {
        let put = aws_model::kinesis::Put::new("key", number.to_string());
        world.kinesis.put_record(STREAM, put).unwrap();
    }
    let answer = world.get(world.oldest(&shard(0)).await).await;
    assert_eq!(answer.records.len(), 10_000);
    assert_eq!(contents(&world.get(answer.next_shard_iterator.unwrap()).await), ["10000"]);
}

#[tokio::test]
async fn records_past_retention_are_trimmed_and_earlier_positions_begin_with_the_oldest() {
    let world = World::new(1, Settings::default());
    let old = world.put("key", "old").await;
    world.clock.advance_ms(2 * HOUR_MS);
    world.put("key", "new").await;
    let client = &world.client;
    let longer = |hours| client.increase_stream_retention_period().stream_name(STREAM).retention_period_hours(hours);
    let shorter = |hours| client.decrease_stream_retention_period().stream_name(STREAM).retention_period_hours(hours);
    longer(48).send().await.unwrap();
    assert_eq!(refusal(longer(24).send().await).0, "InvalidArgumentException");
    assert_eq!(refusal(shorter(72).send().await).0, "InvalidArgumentException");
    assert_eq!(refusal(longer(8761).send().await).0, "InvalidArgumentException");
    world.clock.advance_ms(23 * HOUR_MS);
    assert_eq!(world.contents(&shard(0)).await, ["old", "new"]);
    let before = world.oldest(&shard(0)).await;
    shorter(24).send().await.unwrap();
    assert_eq!(world.contents(&shard(0)).await, ["new"]);
    assert_eq!(contents(&world.get(before).await), ["new"]);
    let asked = client.get_shard_iterator().stream_name(STREAM).shard_id(shard(0)).starting_sequence_number(old);
    let asked = asked.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).send().await.unwrap();
    assert_eq!(contents(&world.get(asked.shard_iterator.unwrap()).await), ["new"]);
}
