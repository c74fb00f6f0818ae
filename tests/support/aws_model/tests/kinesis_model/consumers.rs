//! Registered consumers and their subscriptions.

use aws_model::kinesis::Settings;
use aws_sdk_kinesis::operation::subscribe_to_shard::{SubscribeToShardError, SubscribeToShardOutput};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};

use crate::client::{BEGINNING_MS, STREAM, World, refusal, shard};

type Subscribed = Result<SubscribeToShardOutput, aws_sdk_kinesis::error::SdkError<SubscribeToShardError>>;

async fn registered(world: &World) -> String {
    let arn = world.kinesis.describe_stream_summary(STREAM).unwrap().arn;
    let consumer =
        world.client.register_stream_consumer().stream_arn(arn).consumer_name("reader").send().await.unwrap();
    consumer.consumer.unwrap().consumer_arn
}

async fn subscribe(world: &World, consumer: &str, position: StartingPosition) -> Subscribed {
    let asked = world.client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard(0));
    asked.starting_position(position).send().await
}

fn at(kind: ShardIteratorType) -> StartingPosition {
    StartingPosition::builder().r#type(kind).build().unwrap()
}

async fn next(output: &mut SubscribeToShardOutput) -> Option<SubscribeToShardEvent> {
    match output.event_stream.recv().await.unwrap() {
        Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => Some(event),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn data(event: &SubscribeToShardEvent) -> String {
    event.records.iter().map(|record| String::from_utf8_lossy(record.data.as_ref()).into_owned()).collect()
}

#[tokio::test]
async fn consumers_are_registered_up_to_twenty_and_become_active() {
    let world = World::new(1, Settings { consumer_status_ms: 200, ..Settings::default() });
    let arn = world.kinesis.describe_stream_summary(STREAM).unwrap().arn;
    let register = |name: String| world.client.register_stream_consumer().stream_arn(&arn).consumer_name(name).send();
    for number in 0..20 {
        let consumer = register(format!("consumer-{number}")).await.unwrap().consumer.unwrap();
        assert_eq!(consumer.consumer_status, ConsumerStatus::Creating);
    }
    assert_eq!(refusal(register("consumer-20".to_owned()).await).0, "LimitExceededException");
    assert_eq!(refusal(register("consumer-3".to_owned()).await).0, "ResourceInUseException");
    let described = || async {
        let asked = world.client.describe_stream_consumer().stream_arn(&arn).consumer_name("consumer-3");
        asked.send().await.unwrap().consumer_description.unwrap()
    };
    assert_eq!(described().await.consumer_status, ConsumerStatus::Creating);
    let early = subscribe(&world, &described().await.consumer_arn, at(ShardIteratorType::Latest)).await;
    assert_eq!(refusal(early).0, "ResourceInUseException");
    world.clock.advance_ms(200);
    let consumer = described().await;
    assert_eq!((consumer.consumer_status, consumer.stream_arn), (ConsumerStatus::Active, arn.clone()));
    let list = || world.client.list_stream_consumers().stream_arn(&arn).send();
    assert_eq!(list().await.unwrap().consumers().len(), 20);
    world.client.deregister_stream_consumer().consumer_arn(&consumer.consumer_arn).send().await.unwrap();
    assert_eq!(list().await.unwrap().consumers().len(), 19);
    let gone = world.client.describe_stream_consumer().consumer_arn(consumer.consumer_arn).send().await;
    assert_eq!(refusal(gone).0, "ResourceNotFoundException");
}

#[tokio::test]
async fn a_subscription_delivers_existing_and_new_records() {
    let world = World::new(1, Settings::default());
    let consumer = registered(&world).await;
    world.put("key", "a").await;
    world.clock.advance_ms(1000);
    let mut output = subscribe(&world, &consumer, at(ShardIteratorType::TrimHorizon)).await.unwrap();
    let first = next(&mut output).await.unwrap();
    assert_eq!((data(&first), first.millis_behind_latest), ("a".to_owned(), 0));
    world.put("key", "b").await;
    let second = next(&mut output).await.unwrap();
    assert_eq!(data(&second), "b");
    world.clock.advance_ms(5000);
    let idle = next(&mut output).await.unwrap();
    assert_eq!(data(&idle), "");
    assert!(idle.continuation_sequence_number > second.continuation_sequence_number);
    assert!(idle.child_shards.is_none());

    // After its continuation, no record is missed and none is repeated.
    world.put("key", "c").await;
    let position = StartingPosition::builder().sequence_number(idle.continuation_sequence_number);
    let position = position.r#type(ShardIteratorType::AfterSequenceNumber).build().unwrap();
    let mut again = subscribe(&world, &consumer, position).await.unwrap();
    assert_eq!(data(&next(&mut again).await.unwrap()), "c");
}

#[tokio::test]
async fn every_starting_position_begins_at_its_record() {
    let world = World::new(1, Settings::default());
    let consumer = registered(&world).await;
    let number = world.put("key", "a").await;
    world.clock.advance_ms(1000);
    world.put("key", "b").await;
    let with = |kind| StartingPosition::builder().r#type(kind);
    let cases = [
        (with(ShardIteratorType::TrimHorizon), "ab"),
        (with(ShardIteratorType::AtSequenceNumber).sequence_number(&number), "ab"),
        (with(ShardIteratorType::AfterSequenceNumber).sequence_number(&number), "b"),
        (with(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(BEGINNING_MS + 1)), "b"),
        (with(ShardIteratorType::Latest), ""),
    ];
    for (position, wanted) in cases {
        world.clock.advance_ms(5000);
        let mut output = subscribe(&world, &consumer, position.build().unwrap()).await.unwrap();
        assert_eq!(data(&next(&mut output).await.unwrap()), wanted);
    }
    world.clock.advance_ms(5000);
    let wrong = with(ShardIteratorType::AtSequenceNumber).sequence_number("1").build().unwrap();
    assert_eq!(refusal(subscribe(&world, &consumer, wrong).await).0, "InvalidArgumentException");
}

#[tokio::test]
async fn a_second_subscription_is_refused_within_five_seconds_and_takes_over_later() {
    let world = World::new(1, Settings::default());
    let consumer = registered(&world).await;
    let mut first = subscribe(&world, &consumer, at(ShardIteratorType::Latest)).await.unwrap();
    next(&mut first).await.unwrap();
    world.clock.advance_ms(4999);
    let early = subscribe(&world, &consumer, at(ShardIteratorType::Latest)).await;
    assert_eq!(refusal(early).0, "ResourceInUseException");
    world.clock.advance_ms(1);
    let mut second = subscribe(&world, &consumer, at(ShardIteratorType::Latest)).await.unwrap();
    next(&mut second).await.unwrap();
    let ended = loop {
        // An idle event was due when the clock moved.
        match first.event_stream.recv().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(ended.unwrap_err().into_service_error().is_resource_in_use_exception());
    world.put("key", "x").await;
    assert_eq!(data(&next(&mut second).await.unwrap()), "x");
}

#[tokio::test]
async fn a_subscription_ends_after_five_minutes() {
    let world = World::new(1, Settings::default());
    let consumer = registered(&world).await;
    let mut output = subscribe(&world, &consumer, at(ShardIteratorType::Latest)).await.unwrap();
    next(&mut output).await.unwrap();
    world.clock.advance_ms(299_999);
    assert_eq!(data(&next(&mut output).await.unwrap()), "");
    world.clock.advance_ms(1);
    assert_eq!(next(&mut output).await, None);
}

#[tokio::test]
async fn a_subscription_ends_at_the_shards_end_with_its_children() {
    let world = World::new(1, Settings::default());
    let consumer = registered(&world).await;
    let mut output = subscribe(&world, &consumer, at(ShardIteratorType::TrimHorizon)).await.unwrap();
    next(&mut output).await.unwrap();
    world.put("key", "last").await;
    assert_eq!(data(&next(&mut output).await.unwrap()), "last");
    world.split(0, "170141183460469231731687303715884105728").await;
    let end = next(&mut output).await.unwrap();
    let children: Vec<_> = end.child_shards().iter().map(|child| child.shard_id.clone()).collect();
    assert_eq!((data(&end).as_str(), children), ("", vec![shard(1), shard(2)]));
    assert_eq!(end.continuation_sequence_number, "", "the SDK's word for none");
    assert_eq!(next(&mut output).await, None);
}

#[tokio::test(start_paused = true)]
async fn sessions_run_under_paused_time_in_process() {
    use aws_model::clock::ModelClock;
    use aws_model::kinesis::{Kinesis, Put, Start};

    let began = tokio::time::Instant::now();
    let settings = Settings { visible_after_ms: 700, ..Settings::default() };
    let kinesis = Kinesis::new(ModelClock::tokio(BEGINNING_MS), settings);
    kinesis.create_stream(STREAM, Some(1)).unwrap();
    kinesis.register_consumer(STREAM, "reader").unwrap();
    let mut session = kinesis.subscribe(STREAM, "reader", &shard(0), &Start::TrimHorizon).unwrap();
    assert_eq!(session.next().await.unwrap().unwrap().records, []);
    kinesis.put_record(STREAM, Put::new("key", "a")).unwrap();
    assert_eq!(session.next().await.unwrap().unwrap().records.len(), 1);
    assert_eq!(began.elapsed().as_millis(), 700);
    let mut events = 0;
    while let Some(event) = session.next().await {
        assert_eq!(event.unwrap().records, []);
        events += 1;
    }
    assert_eq!((began.elapsed().as_millis(), events), (300_000, 59));
}
