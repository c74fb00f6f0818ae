//! Each kind of fault, on the wire.

use std::time::Duration;

use aws_model::faults::{Fault, FaultKind, Refusal, Rule, ServiceName, When};
use aws_model::kinesis::Settings;
use aws_sdk_kinesis::error::{DisplayErrorContext, SdkError};
use aws_sdk_kinesis::operation::put_record::PutRecordError;
use aws_sdk_kinesis::primitives::Blob;

use crate::client::{STREAM, World, refusal, shard};

fn world_with(operation: &str, when: When, fault: Fault) -> World {
    let world = World::new(1, Settings::default());
    world.faults.add(Rule::new(ServiceName::Kinesis, operation, when, fault));
    world
}

async fn put(world: &World, data: &str) -> Result<(), SdkError<PutRecordError>> {
    let put = world.client.put_record().stream_name(STREAM).partition_key("key").data(Blob::new(data));
    put.send().await.map(drop)
}

/// The contents of the stream after one put that met the fault and one that did not.
async fn after_two_puts(world: &World, kind: FaultKind) -> (Result<(), SdkError<PutRecordError>>, String) {
    let first = put(world, "a").await;
    put(world, "b").await.unwrap();
    assert_eq!(world.faults.happened().into_iter().collect::<Vec<_>>(), [(kind, 1)]);
    (first, world.contents(&shard(0)).await.concat())
}

#[tokio::test]
async fn a_refused_call_does_not_take_effect() {
    let cases = [
        (Refusal::internal(), 500),
        (Refusal::slow_down(), 503),
        (Refusal::throughput_exceeded(), 400),
        (Refusal::throttled(), 400),
        (Refusal::expired_iterator(), 400),
    ];
    for (wanted, status) in cases {
        let world = world_with("Put*", When::Nth(1), Fault::Refuse(wanted.clone()));
        let (first, held) = after_two_puts(&world, FaultKind::Refuse).await;
        assert_eq!(held, "b");
        assert_eq!(first.as_ref().unwrap_err().raw_response().unwrap().status().as_u16(), status);
        assert_eq!(refusal(first), (wanted.code, wanted.message));
    }
}

#[tokio::test]
async fn a_call_that_returned_an_error_may_have_taken_effect() {
    let world = world_with("PutRecord", When::Nth(1), Fault::RefuseAfter(Refusal::internal()));
    let (first, held) = after_two_puts(&world, FaultKind::RefuseAfter).await;
    assert_eq!((refusal(first).0.as_str(), held.as_str()), ("InternalFailure", "ab"));
}

#[tokio::test]
async fn a_connection_is_cut_before_the_call() {
    let world = world_with("PutRecord", When::Nth(1), Fault::CutBefore);
    let (first, held) = after_two_puts(&world, FaultKind::CutBefore).await;
    assert!(matches!(first, Err(SdkError::DispatchFailure(_))), "{first:?}");
    assert_eq!(held, "b");
}

#[tokio::test]
async fn a_connection_is_cut_after_the_call() {
    let world = world_with("PutRecord", When::Nth(1), Fault::CutAfter);
    let (first, held) = after_two_puts(&world, FaultKind::CutAfter).await;
    assert!(matches!(first, Err(SdkError::DispatchFailure(_))), "{first:?}");
    assert_eq!(held, "ab");
}

#[tokio::test]
async fn a_connection_is_cut_in_the_middle_of_the_answer() {
    let world = world_with("PutRecord", When::Nth(1), Fault::CutBody);
    let (first, held) = after_two_puts(&world, FaultKind::CutBody).await;
    let error = first.unwrap_err();
    assert!(matches!(error, SdkError::ResponseError(_)), "the head came: {}", DisplayErrorContext(&error));
    assert_eq!(held, "ab");
}

#[tokio::test]
async fn a_subscription_is_cut_after_its_first_event() {
    let world = world_with("SubscribeToShard", When::Always, Fault::CutBody);
    let consumer = world.kinesis.register_consumer(STREAM, "reader").unwrap().arn;
    let position = aws_sdk_kinesis::types::StartingPosition::builder();
    let position = position.r#type(aws_sdk_kinesis::types::ShardIteratorType::Latest).build().unwrap();
    let asked = world.client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard(0)).starting_position(position);
    let mut output = asked.send().await.unwrap();
    output.event_stream.recv().await.unwrap_err();
    assert_eq!(world.faults.count(FaultKind::CutBody), 1);
}

#[tokio::test]
async fn a_call_hangs_until_the_client_disconnects() {
    for (fault, kind, held) in [(Fault::Hang, FaultKind::Hang, ""), (Fault::HangAfter, FaultKind::HangAfter, "a")] {
        let world = world_with("PutRecord", When::Nth(1), fault);
        let gave_up = tokio::time::timeout(Duration::from_millis(200), put(&world, "a")).await;
        assert!(gave_up.is_err());
        assert_eq!(world.faults.count(kind), 1);
        assert_eq!(world.contents(&shard(0)).await.concat(), held);
    }
}

#[tokio::test]
async fn a_call_is_delayed() {
    let world = world_with("PutRecord", When::Nth(1), Fault::Delay(Duration::from_millis(300)));
    let began = tokio::time::Instant::now();
    let (first, held) = after_two_puts(&world, FaultKind::Delay).await;
    first.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(held, "ab");
}

#[tokio::test]
async fn rules_can_be_added_at_any_time_and_affect_only_the_calls_that_they_name() {
    let world = World::new(1, Settings::default());
    put(&world, "a").await.unwrap();
    let rule = Rule::new(ServiceName::Kinesis, "*", When::Always, Fault::CutBefore);
    world.faults.add(rule.touching("\"PartitionKey\""));
    put(&world, "b").await.unwrap_err();
    assert_eq!(world.contents(&shard(0)).await, ["a"], "reading names no partition key");
    let other = Rule::new(ServiceName::DynamoDb, "*", When::Always, Fault::CutBefore);
    world.faults.clear();
    world.faults.add(other);
    put(&world, "c").await.unwrap();
}
