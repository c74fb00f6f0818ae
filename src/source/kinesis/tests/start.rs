//! A stream's start is recorded once.

use super::*;
use crate::lake::{Fault, MemoryStore};

fn identity(created_ms: i64) -> Identity {
    Identity { arn: "arn:aws:kinesis:us-east-1:123456789012:stream/orders".to_owned(), created_ms }
}

async fn settled(
    lake: &Arc<dyn ObjectStore>,
    now: i64,
    identity: &Identity,
    start: Start,
) -> Result<Position, SourceError> {
    settle(lake, Some(now), &StreamName::new("orders").unwrap(), identity, start, RetryPolicy::CALL).await
}

#[tokio::test]
async fn latest_always_means_the_time_of_the_first_start() {
    let lake: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    let starts =
        [(1050, Start::Latest), (1090, Start::Latest), (1099, Start::TrimHorizon), (1099, Start::At { ms: 70 })];
    for (now, start) in starts {
        assert_eq!(settled(&lake, now, &identity(1000), start).await, Ok(Position::Since { ms: 50 }), "{start:?}");
    }
    let key = ObjectKey::new("_sources/orders.json").unwrap();
    let stands: serde_json::Value = serde_json::from_slice(&lake.get(&key).await.unwrap().unwrap()).unwrap();
    let expected = serde_json::json!({
        "format": 1, "stream": "orders", "arn": identity(0).arn, "created_ms": 1000, "start": "AT_TIMESTAMP:50"
    });
    assert_eq!(stands, expected);
}

#[tokio::test(start_paused = true)]
async fn an_object_written_by_a_request_whose_response_was_lost_counts() {
    let store = MemoryStore::new();
    store.fail("put_new", 0, Fault::LoseAfter);
    let lake: Arc<dyn ObjectStore> = Arc::new(store);
    assert_eq!(settled(&lake, 1050, &identity(1000), Start::Latest).await, Ok(Position::Since { ms: 50 }));
    assert_eq!(settled(&lake, 1060, &identity(1000), Start::Latest).await, Ok(Position::Since { ms: 50 }));
}

#[tokio::test]
async fn a_recreated_stream_is_refused() {
    let lake: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    settled(&lake, 50, &identity(1_000_123), Start::TrimHorizon).await.unwrap();
    // The same second: not every service keeps milliseconds.
    assert_eq!(settled(&lake, 50, &identity(1_000_000), Start::TrimHorizon).await, Ok(Position::Beginning));
    let elsewhere =
        Identity { arn: "arn:aws:kinesis:eu-west-1:123456789012:stream/orders".to_owned(), ..identity(1_000_123) };
    for other in [identity(2_000_000), elsewhere] {
        let message = settled(&lake, 50, &other, Start::TrimHorizon).await.unwrap_err();
        assert!(
            matches!(message, SourceError::Unreadable { .. }) && message.to_string().contains("needs another `name`"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_damaged_object_and_a_start_in_the_future_are_refused() {
    let lake: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    let message = settled(&lake, 50, &identity(1000), Start::At { ms: 2051 }).await.unwrap_err();
    assert!(message.to_string().contains("is in the future"), "{message}");
    lake.put_new(&key(&StreamName::new("orders").unwrap()), Bytes::from_static(b"{}")).await.unwrap();
    let message = settled(&lake, 50, &identity(1000), Start::Latest).await.unwrap_err();
    assert!(message.to_string().contains("damaged"), "{message}");
}

#[tokio::test]
async fn without_the_time_of_the_service_latest_is_refused_and_nothing_is_recorded() {
    let lake: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    let stream = StreamName::new("orders").unwrap();
    let error = settle(&lake, None, &stream, &identity(1000), Start::Latest, RetryPolicy::CALL).await.unwrap_err();
    assert!(error.to_string().contains("did not say what time it is"), "{error}");
    assert!(check(&lake, &stream, &identity(1000)).await.is_ok(), "nothing is known of it");
    let start = settle(&lake, None, &stream, &identity(1000), Start::At { ms: 70 }, RetryPolicy::CALL).await;
    assert_eq!(start, Ok(Position::Since { ms: 70 }));
    assert_eq!(
        settle(&lake, None, &stream, &identity(1000), Start::Latest, RetryPolicy::CALL).await,
        start,
        "recorded before"
    );
    assert!(
        check(&lake, &stream, &identity(1000)).await.is_ok() && check(&lake, &stream, &identity(5000)).await.is_err()
    );
}

#[test]
fn every_stream_has_its_own_key() {
    let names = ["orders", "Orders", "a/b", "a%2Fb", ".", "..", "ströme", "file:///x"].map(str::to_owned);
    let long = [format!("{}a", "x".repeat(900)), format!("{}b", "x".repeat(900))];
    let keys: std::collections::BTreeSet<_> =
        names.iter().chain(&long).map(|name| key(&StreamName::new(name.as_str()).unwrap())).collect();
    assert_eq!(keys.len(), 10);
    assert!(keys.iter().all(|key| key.as_str().starts_with("_sources/") && key.as_str().len() < 320));
}
