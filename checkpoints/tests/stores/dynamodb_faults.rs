//! The DynamoDB store and a service that fails: what is reported, what is repeated and by whom.
//!
//! The service is a script of answers behind a socket of this machine, so these tests need no server and can lose any reply.
//! The answers have AWS's form; their texts are made up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use checkpoints::conformance::{advances, at, decision, key, manifest};
use checkpoints::{
    AdvanceOutcome, DynamoStore, Holder, LeaseOwner, LeaseStore, Position, Refusal, RefusalReason, Renewal,
    RenewalOutcome, ShardRange, StoreError, StreamIds, ThroughputKbps, Verdict,
};

use crate::dynamodb::streams;

/// The answers to opening a table that exists and is empty.
const OPENING: [(u16, &str); 3] = [(200, DESCRIBED), (200, DESCRIBED), (200, r#"{"Items":[]}"#)];
const DESCRIBED: &str = r#"{"Table":{"TableName":"leases","TableStatus":"ACTIVE",
    "KeySchema":[{"AttributeName":"leaseKey","KeyType":"HASH"}],
    "AttributeDefinitions":[{"AttributeName":"leaseKey","AttributeType":"S"}]}}"#;
const BROKEN: (u16, &str) = (500, r#"{"__type":"com.amazon.coral#InternalServerError","message":"try later"}"#);
const REFUSED: (u16, &str) =
    (400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"no"}"#);

/// A service that gives these answers, one for each request, and then none.
struct Service {
    client: Client,
    /// The requested operations in order, as "UpdateItem".
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn new(answers: Vec<(u16, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for (status, body) in answers {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let (mut length, mut target) = (0, String::new());
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    let line = line.trim_end();
                    if line.is_empty() {
                        break;
                    }
                    let (name, value) = line.split_once(": ").unwrap_or((line, ""));
                    if name.eq_ignore_ascii_case("content-length") {
                        length = value.parse().unwrap();
                    } else if name.eq_ignore_ascii_case("x-amz-target") {
                        value.clone_into(&mut target);
                    }
                }
                stream.read_exact(&mut vec![0; length]).unwrap();
                notes.lock().unwrap().push(target.rsplit('.').next().unwrap().to_owned());
                let head = "Content-Type: application/x-amz-json-1.0\r\nConnection: close";
                let answer = format!("HTTP/1.1 {status} x\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(endpoint)
            .region(Region::new("us-east-1"))
            .retry_config(RetryConfig::standard().with_initial_backoff(std::time::Duration::from_millis(1)))
            .credentials_provider(Credentials::new("test", "secret-text", None, None, "test"))
            .build();
        Self { client: Client::from_conf(config), asked }
    }

    /// The operations that were requested since the table was opened.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().skip(OPENING.len()).cloned().collect()
    }
}

/// An open store, and the answers that the service gives from then on.
async fn opened(answers: &[(u16, &str)]) -> (Service, DynamoStore) {
    let all = OPENING.iter().chain(answers).map(|(status, body)| (*status, (*body).to_owned())).collect();
    let service = Service::new(all);
    let store = DynamoStore::open(service.client.clone(), "leases", streams(&["orders"])).await.unwrap();
    (service, store)
}

fn me() -> LeaseOwner {
    LeaseOwner::new("me").unwrap()
}

/// An item of shard 0, held by `owner`, with more attributes.
fn item(owner: &str, more: &str) -> String {
    format!(
        r#"{{"leaseKey":{{"S":"shardId-000000000000"}},"leaseCounter":{{"N":"8"}},"leaseOwner":{{"S":"{owner}"}},
        "checkpoint":{{"S":"TRIM_HORIZON"}},"checkpointSubSequenceNumber":{{"N":"0"}}{more}}}"#
    )
}

fn epoch() -> checkpoints::Decision {
    let range = ShardRange::new(Position::Beginning, at(5)).unwrap();
    decision(&me(), &manifest("one"), vec![(key(0), range)])
}

#[tokio::test]
async fn a_write_whose_second_attempt_would_look_refused_is_sent_once() {
    // A service that may have carried out each request answers so. A repeated request would look refused.
    let (service, store) = opened(&[BROKEN; 5]).await;
    assert!(store.take(&me(), &key(0), 7).await.unwrap_err().is_retryable());
    assert!(store.ask(&me(), &key(0), &LeaseOwner::new("other").unwrap()).await.unwrap_err().is_retryable());
    assert!(store.hand_over(&me(), &key(0)).await.unwrap_err().is_retryable());
    assert!(store.release(&me(), &key(0)).await.unwrap_err().is_retryable());
    assert!(store.remove(&key(0)).await.unwrap_err().is_retryable());
    assert_eq!(service.asked(), ["UpdateItem", "UpdateItem", "UpdateItem", "UpdateItem", "DeleteItem"]);
}

#[tokio::test]
async fn a_write_whose_second_attempt_shows_the_effect_of_the_first_is_repeated() {
    let renewed = format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"no","Item":{}}}"#,
        item("me", "")
    );
    let (service, store) = opened(&[BROKEN, (400, &renewed)]).await;
    let renewal = Renewal { key: key(0), counter: 7, throughput: ThroughputKbps::default() };
    let outcomes = store.renew(&me(), &[renewal]).await.unwrap();
    assert_eq!(outcomes, [RenewalOutcome::CounterAt { counter: 8 }]);
    assert_eq!(service.asked(), ["UpdateItem", "UpdateItem"]);
}

#[tokio::test]
async fn a_refusal_without_its_item_is_resolved_by_a_read() {
    let last = r#","lastManifest":{"S":"_intents/one.json"}"#;
    let read = format!(r#"{{"Responses":{{"leases":[{}]}},"UnprocessedKeys":{{}}}}"#, item("other", last));
    let (service, store) = opened(&[REFUSED, (200, &read)]).await;
    let outcomes = store.advance(&manifest("one"), &advances(&epoch())).await.unwrap();
    assert_eq!(outcomes, [AdvanceOutcome::WasAdvanced]);
    assert_eq!(service.asked(), ["UpdateItem", "BatchGetItem"]);
}

#[tokio::test]
async fn keys_that_were_not_processed_are_asked_for_again() {
    let none = r#"{"Responses":{},"UnprocessedKeys":{"leases":{"ConsistentRead":true,
        "Keys":[{"leaseKey":{"S":"shardId-000000000000"}}]}}}"#;
    let all = format!(r#"{{"Responses":{{"leases":[{}]}},"UnprocessedKeys":{{}}}}"#, item("me", ""));
    let (service, store) = opened(&[(200, none), (200, none), (200, &all)]).await;
    let rows = store.get(&[key(0), key(0)]).await.unwrap();
    assert!(rows.iter().flatten().all(|lease| lease.holder == Holder::Held(me())) && rows.len() == 2);
    assert_eq!(service.asked(), ["BatchGetItem"; 3]);
    // But not forever.
    let (service, store) = opened(&[(200, none); 8]).await;
    assert!(store.get(&[key(0)]).await.unwrap_err().is_retryable());
    assert_eq!(service.asked().len(), 8);
}

/// The answer that a transaction was cancelled, for these reasons.
fn cancelled(reasons: &str) -> String {
    format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","message":"cancelled",
        "CancellationReasons":[{reasons}]}}"#
    )
}

#[tokio::test]
async fn a_cancelled_transaction_is_a_refusal_only_if_a_condition_failed() {
    let refused = format!(r#"{{"Code":"ConditionalCheckFailed","Message":"no","Item":{}}}"#, item("other", ""));
    let (_service, store) = opened(&[(400, &cancelled(&refused))]).await;
    let reason = RefusalReason::NotHeld(Holder::Held(LeaseOwner::new("other").unwrap()));
    let verdict = store.decide(&epoch()).await.unwrap();
    assert_eq!(verdict, Verdict::Refused(vec![Refusal { key: key(0), reason }]));

    for code in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"] {
        let answer = cancelled(&format!(r#"{{"Code":"{code}","Message":"later"}}"#));
        let (_service, store) = opened(&[(400, answer.as_str()); 2]).await;
        assert!(store.decide(&epoch()).await.unwrap_err().is_retryable(), "{code}");
        assert!(store.roll_back(&manifest("one"), &[key(0)]).await.unwrap_err().is_retryable(), "{code}");
    }
    let answer = cancelled(r#"{"Code":"ValidationError","Message":"no"}"#);
    let (_service, store) = opened(&[(400, &answer)]).await;
    assert!(matches!(store.decide(&epoch()).await.unwrap_err(), StoreError::Invalid { .. }));
    let answer = cancelled(r#"{"Code":"ItemCollectionSizeLimitExceeded","Message":"no"}"#);
    let (_service, store) = opened(&[(400, &answer)]).await;
    assert!(matches!(store.decide(&epoch()).await.unwrap_err(), StoreError::Unusable { .. }));
}

#[tokio::test]
async fn a_missing_permission_is_reported_with_its_action_and_its_table() {
    let denied = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"user x may not"}"#;
    let (_service, store) = opened(&[(400, denied)]).await;
    let message = "cannot use the checkpoints in DynamoDB table leases: could not list the leases: this needs the \
                permission dynamodb:Scan on the table: user x may not";
    assert_eq!(store.list().await.unwrap_err().to_string(), message);
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_a_retryable_error() {
    // The service gives no answer and is gone: its port is closed.
    let service = Service::new(Vec::new());
    let error = DynamoStore::open(service.client, "leases", StreamIds::default()).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("could not describe the table: ") && message.len() < 400, "{message}");
    assert!(!message.contains("secret-text"), "{message}");
}
