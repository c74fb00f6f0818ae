//! Reading by subscription: the same records as by polling, whatever happens to a subscription.

use std::task::{Context, Waker};

use serde_json::json;
use tokio::time::Instant;

use super::service::event;
use super::*;
use crate::source::kinesis::fanout::{BETWEEN_SUBSCRIPTIONS, POLLED, SUBSCRIBE_MAX};

async fn source(fake: &Fake) -> KinesisSource {
    let mode = Mode::FanOut { consumer: "c".to_owned() };
    let config = KinesisConfig { mode, ..config(Start::TrimHorizon, Decode::Fast) };
    KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap()
}

fn texts(sequences: impl IntoIterator<Item = u64>) -> Vec<String> {
    sequences.into_iter().map(|sequence| format!("{sequence}:0=r{sequence}")).collect()
}

async fn reader(fake: &Fake, after: &Position) -> Box<dyn ShardReader> {
    source(fake).await.open(&shard("a"), after).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_read_to_its_tip_from_any_position() {
    let fake = Fake::new(vec![open_shard("a", 1..=7)]);
    for after in 0..=7 {
        let position = if after == 0 { Position::Beginning } else { at(after, 0) };
        let mut reader = reader(&fake, &position).await;
        let message = read_all(&mut *reader).await.unwrap();
        assert_eq!((message.records, message.end), (texts(after + 1..=7), None), "after {after}");
        fake.with(|state| state.shards[0].held.push(record(8, b"r8")));
        assert_eq!(read_all(&mut *reader).await.unwrap().records, texts([8]), "what came later");
        fake.with(|state| state.shards[0].held.truncate(7));
    }
    assert_eq!(fake.calls("GetRecords").len(), 0);
    let begins: Vec<_> = fake.calls("SubscribeToShard").iter().map(|call| call["StartingPosition"].clone()).collect();
    assert_eq!(begins[0], json!({ "Type": "TRIM_HORIZON" }));
    assert_eq!(begins[1], json!({ "Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "7" }));
    assert_eq!(begins[2], json!({ "Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "1" }));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_names_its_children() {
    for held in [vec![], vec![record(1, b"r1")], vec![record(1, b"r1"), record(2, b"r2"), Held::Gap]] {
        let expected = held.iter().filter(|held| matches!(held, Held::Record(..))).count() as u64;
        let closed = Some(vec!["b".to_owned(), "c".to_owned()]);
        let fake = Fake::new(vec![FakeShard { held, closed, ..open_shard("a", []) }]);
        let mut reader = reader(&fake, &Position::Beginning).await;
        let message = read_all(&mut *reader).await.unwrap();
        assert_eq!((message.records, message.end), (texts(1..=expected), Some(vec!["b".to_owned(), "c".to_owned()])));
        assert!(read_all(&mut *reader).await.unwrap().end.is_some(), "and stays");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_subscription_is_renewed_after_a_pause_and_loses_and_repeats_nothing() {
    for code in ["ResourceInUseException", "LimitExceededException", "InternalFailure", "body:", "body:no event stream"]
    {
        let fake = Fake::new(vec![open_shard("a", 1..=5)]);
        let mut reader = reader(&fake, &Position::Beginning).await;
        (0..4).for_each(|_| fake.fail("SubscribeToShard", code));
        let begun = Instant::now();
        let message = read_all(&mut *reader).await.unwrap();
        assert_eq!((message.records, message.through), (texts(1..=5), Some(at(5, 0))), "{code}");
        assert!(begun.elapsed() >= BETWEEN_SUBSCRIPTIONS * 4, "{code}: {:?}", begun.elapsed());
        assert_eq!((fake.calls("SubscribeToShard").len(), fake.calls("GetRecords").len()), (5, 0), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_subscribed_to_is_polled_and_subscribed_to_later() {
    for (code, times) in [("LimitExceededException", 5), ("AccessDeniedException", 1)] {
        let fake = Fake::new(vec![open_shard("a", 1..=3)]);
        let mut reader = reader(&fake, &Position::Beginning).await;
        (0..times).for_each(|_| fake.fail("SubscribeToShard", code));
        assert_eq!(read_all(&mut *reader).await.unwrap().records, texts(1..=3), "{code}");
        assert!(!fake.calls("GetRecords").is_empty());
        fake.with(|state| state.calls.clear());
        tokio::time::sleep(POLLED).await;
        fake.with(|state| state.shards[0].held.push(record(4, b"r4")));
        assert_eq!(read_all(&mut *reader).await.unwrap().records, texts([4]), "{code}");
        assert_eq!((fake.calls("SubscribeToShard").len(), fake.calls("GetRecords").len()), (1, 0), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_continues_where_the_last_event_said() {
    let fake = Fake::new(vec![open_shard("a", [])]);
    let mut reader = reader(&fake, &Position::Since { ms: 5000 }).await;
    let message = json!({ "Records": [], "ContinuationSequenceNumber": "77", "MillisBehindLatest": 500 });
    let mut body = event("initial-response", &json!({}));
    body.extend(event("SubscribeToShardEvent", &message));
    fake.with(|state| state.raw.push_back(("SubscribeToShard", body)));
    let message = read_all(&mut *reader).await.unwrap();
    assert_eq!((message.records.len(), message.through, message.empty), (0, None, 2));
    let begins: Vec<_> = fake.calls("SubscribeToShard").iter().map(|call| call["StartingPosition"].clone()).collect();
    assert_eq!(begins[0], json!({ "Type": "AT_TIMESTAMP", "Timestamp": 5 }));
    assert_eq!(begins[1], json!({ "Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "77" }));
}

/// Some implementations do not report a shard's end to its subscribers.
#[tokio::test(start_paused = true)]
async fn subscriptions_that_keep_ending_early_are_replaced_by_polling() {
    let closed = Some(vec!["b".to_owned()]);
    let fake = Fake::new(vec![FakeShard { closed, ..open_shard("a", [1]) }]);
    let message = json!({ "Records": [], "ContinuationSequenceNumber": "1", "MillisBehindLatest": 5 });
    let body = [event("initial-response", &json!({})), event("SubscribeToShardEvent", &message)].concat();
    (0..9).for_each(|_| fake.with(|state| state.raw.push_back(("SubscribeToShard", body.clone()))));
    let mut reader = reader(&fake, &at(1, 0)).await;
    let message = read_all(&mut *reader).await.unwrap();
    assert_eq!((message.records.len(), message.end), (0, Some(vec!["b".to_owned()])));
    assert_eq!(fake.calls("SubscribeToShard").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_arrived_before_a_read_is_not_lost() {
    let fake = Fake::new(vec![open_shard("a", 1..=6)]);
    let mut reader = reader(&fake, &Position::Beginning).await;
    let mut records = Vec::new();
    for polls in [0, 1, 2, 3, 5, 8, 13] {
        // The wait is dropped after this many polls of its future.
        let mut ready = reader.ready(Duration::ZERO);
        for _ in 0..polls {
            if ready.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                break;
            }
        }
        drop(ready);
        let mut message = Observed::default();
        message.add(reader.read(100, Vec::new()).await.unwrap());
        records.extend(message.records);
    }
    assert_eq!(records, texts(1..=6));
}

#[tokio::test(start_paused = true)]
async fn a_silent_subscription_is_renewed() {
    let fake = Fake::new(vec![open_shard("a", 1..=2)]);
    let mut reader = reader(&fake, &Position::Beginning).await;
    fake.with(|state| state.silent = 1);
    let begun = Instant::now();
    assert_eq!(read_all(&mut *reader).await.unwrap().records, texts(1..=2));
    assert!(begun.elapsed() >= SUBSCRIBE_MAX, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_consumer_cannot_be_registered_is_polled() {
    for code in ["AccessDeniedException", "LimitExceededException"] {
        let fake = Fake::new(vec![open_shard("a", [1])]);
        fake.fail("DescribeStreamConsumer", "ResourceNotFoundException");
        (0..30).for_each(|_| fake.fail("RegisterStreamConsumer", code));
        (0..30).for_each(|_| fake.fail("DescribeStreamConsumer", "ResourceNotFoundException"));
        let mut reader = reader(&fake, &Position::Beginning).await;
        assert_eq!(read_all(&mut *reader).await.unwrap().records, texts([1]), "{code}");
        assert_eq!(fake.calls("SubscribeToShard").len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_consumer_is_registered_even_by_two_workers_at_once() {
    for raced in [false, true] {
        let fake = Fake::new(vec![open_shard("a", [1])]);
        fake.fail("DescribeStreamConsumer", "ResourceNotFoundException");
        if raced {
            fake.fail("RegisterStreamConsumer", "ResourceInUseException");
        }
        let mut reader = reader(&fake, &Position::Beginning).await;
        assert_eq!(read_all(&mut *reader).await.unwrap().records, texts([1]));
        assert_eq!((fake.calls("RegisterStreamConsumer").len(), fake.calls("GetRecords").len()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_can_neither_be_subscribed_to_nor_polled_only_fails() {
    for code in ["InternalFailure", "LimitExceededException", "ExpiredTokenException"] {
        let fake = Fake::new(vec![open_shard("a", 1..=3)]);
        let mut reader = reader(&fake, &Position::Beginning).await;
        for operation in ["SubscribeToShard", "GetShardIterator", "GetRecords"] {
            (0..200).for_each(|_| fake.fail(operation, code));
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(300) {
            reader.ready(Duration::ZERO).await;
            let read = reader.read(100, Vec::new()).await.unwrap();
            assert!(matches!(read, Read::Failed { .. }), "{code}: {read:?}");
        }
        let requests = ["SubscribeToShard", "GetShardIterator", "GetRecords"].map(|name| fake.calls(name).len());
        assert!(requests.iter().sum::<usize>() < 70, "{code}: {requests:?}");
    }
}
