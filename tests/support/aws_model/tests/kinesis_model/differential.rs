//! One script of calls has the same outcome with the model and with a local stand-in of Kinesis.
//!
//! The script has only what the stand-ins do as AWS does. The other files of this test have the rest (limits, filters at the
//! trim horizon, ends of subscriptions). It uses three shards: if 2^128 is a multiple of their number, kinesis-local
//! begins every shard one too low.

use std::sync::Arc;
use std::time::Duration;

use aws_model::clock::ModelClock;
use aws_model::faults::{Faults, ServiceName};
use aws_model::kinesis::{Kinesis, Settings};
use aws_model::server::{Server, Services};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    PutRecordsRequestEntry, ScalingType, ShardFilter, ShardFilterType, ShardIteratorType, StreamStatus,
};

use crate::client::{client_of, contents, refusal, shard};

const MIDDLE_OF_FIRST: &str = "85070591730234615865843651857942052864";

/// The outcome, in lines without anything that differs from run to run.
struct Script {
    client: Client,
    stream: String,
    message: Vec<String>,
}

impl Script {
    fn note(&mut self, line: impl Into<String>) {
        self.message.push(line.into());
    }

    fn note_refused<T, E: ProvideErrorMetadata>(&mut self, what: &str, answer: Result<T, SdkError<E>>) {
        let (kind, _) = refusal(answer);
        self.note(format!("{what}: {kind}"));
    }

    async fn active(&mut self) {
        loop {
            let described = self.client.describe_stream_summary().stream_name(&self.stream).send().await.unwrap();
            let summary = described.stream_description_summary.unwrap();
            if summary.stream_status == StreamStatus::Active {
                let (open, hours) = (summary.open_shard_count, summary.retention_period_hours);
                return self.note(format!("active: {open} open, {hours} hours"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn put(&mut self, key: &str, hash_key: Option<&str>) -> String {
        let put = self.client.put_record().stream_name(&self.stream).partition_key(key).data(Blob::new(key));
        let put = put.set_explicit_hash_key(hash_key.map(str::to_owned)).send().await.unwrap();
        self.note(format!("put {key}: {} with {} digits", put.shard_id, put.sequence_number.len()));
        put.sequence_number
    }

    async fn shards(&mut self) {
        let listed = self.client.list_shards().stream_name(&self.stream).send().await.unwrap();
        for shard in listed.shards() {
            let keys = shard.hash_key_range.as_ref().unwrap();
            let numbers = shard.sequence_number_range.as_ref().unwrap();
            self.note(format!(
                "{}: {}..={}, parents {:?} {:?}, closed {}",
                shard.shard_id,
                keys.starting_hash_key,
                keys.ending_hash_key,
                shard.parent_shard_id,
                shard.adjacent_parent_shard_id,
                numbers.ending_sequence_number.is_some(),
            ));
        }
    }

    async fn filtered(&mut self, kind: ShardFilterType, after: Option<u32>) {
        let filter = ShardFilter::builder().r#type(kind.clone()).set_shard_id(after.map(shard)).build().unwrap();
        let listed = self.client.list_shards().stream_name(&self.stream).shard_filter(filter).send().await.unwrap();
        let mut names: Vec<_> = listed.shards().iter().map(|shard| shard.shard_id.clone()).collect();
        names.sort();
        self.note(format!("{kind:?}: {names:?}"));
    }

    /// Reads a shard until it ends or returns no record.
    async fn read(&mut self, number: u32, kind: ShardIteratorType, sequence: Option<&str>) {
        let asked = self.client.get_shard_iterator().stream_name(&self.stream).shard_id(shard(number));
        let asked = asked.shard_iterator_type(kind.clone()).set_starting_sequence_number(sequence.map(str::to_owned));
        let mut iterator = asked.send().await.unwrap().shard_iterator;
        let (mut read, mut numbers, mut children) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(current) = iterator {
            let answer = self.client.get_records().shard_iterator(current).send().await.unwrap();
            read.extend(contents(&answer));
            numbers.extend(answer.records.iter().map(|record| record.sequence_number.clone()));
            children = answer
                .child_shards()
                .iter()
                .map(|child| (child.shard_id.clone(), child.parent_shards.clone()))
                .collect();
            // The order of the parents is not documented.
            children.iter_mut().for_each(|(_, parents)| parents.sort());
            children.sort();
            iterator = answer.next_shard_iterator;
            if answer.records.is_empty() && iterator.is_some() {
                self.note(format!("{kind:?} of {number}: open"));
                break;
            }
        }
        assert!(numbers.is_sorted());
        self.note(format!("{kind:?} of {number}: {read:?}, children {children:?}"));
    }

    async fn pages(&mut self) {
        let mut page = self.client.list_shards().stream_name(&self.stream).max_results(2).send().await.unwrap();
        loop {
            let names: Vec<_> = page.shards().iter().map(|shard| shard.shard_id.clone()).collect();
            self.note(format!("page: {names:?}"));
            let Some(token) = page.next_token else { return };
            page = self.client.list_shards().next_token(token).max_results(2).send().await.unwrap();
        }
    }

    async fn consumers(&mut self) {
        let described = self.client.describe_stream_summary().stream_name(&self.stream).send().await.unwrap();
        let arn = described.stream_description_summary.unwrap().stream_arn;
        let register = |name| self.client.register_stream_consumer().stream_arn(&arn).consumer_name(name).send();
        let consumer = register("one").await.unwrap().consumer.unwrap();
        let again = register("one").await;
        register("two").await.unwrap();
        let listed = self.client.list_stream_consumers().stream_arn(&arn).send().await.unwrap();
        let mut names: Vec<_> = listed.consumers().iter().map(|consumer| consumer.consumer_name.clone()).collect();
        names.sort();
        self.note_refused("registered again", again);
        self.note(format!("registered: {} of {names:?}", consumer.consumer_status));
    }
}

async fn run(client: Client) -> Vec<String> {
    let stream = format!("model-{}", std::process::id());
    let mut script = Script { client: client.clone(), stream: stream.clone(), message: Vec::new() };
    script.note_refused("no stream", client.describe_stream_summary().stream_name("no-such-stream").send().await);
    client.create_stream().stream_name(&stream).shard_count(3).send().await.unwrap();
    script.active().await;
    script.note_refused("created again", client.create_stream().stream_name(&stream).shard_count(3).send().await);
    script.shards().await;

    for key in ["a", "b", "c", "d"] {
        script.put(key, None).await;
    }
    let second = script.put("lowest", Some("0")).await;
    script.put("low", Some("1")).await;
    script.put("highest", Some(&u128::MAX.to_string())).await;
    let entries = (0..50).map(|number| format!("many {number}"));
    let entries = entries.map(|key| PutRecordsRequestEntry::builder().data(Blob::new(key.clone())).partition_key(key));
    let entries = entries.map(|entry| entry.build().unwrap()).collect();
    let put = client.put_records().stream_name(&stream).set_records(Some(entries)).send().await.unwrap();
    script.note(format!("failed: {:?}", put.failed_record_count));
    let placed: Vec<_> = put.records().iter().map(|placed| placed.shard_id.clone().unwrap()).collect();
    script.note(format!("placed: {placed:?}"));
    for number in 0..3 {
        script.read(number, ShardIteratorType::TrimHorizon, None).await;
        script.read(number, ShardIteratorType::Latest, None).await;
    }
    script.read(0, ShardIteratorType::AtSequenceNumber, Some(&second)).await;
    script.read(0, ShardIteratorType::AfterSequenceNumber, Some(&second)).await;
    let lost = client.get_shard_iterator().stream_name(&stream).shard_id(shard(9));
    script.note_refused("no shard", lost.shard_iterator_type(ShardIteratorType::Latest).send().await);

    let split = || client.split_shard().stream_name(&stream).shard_to_split(shard(0));
    script.note_refused("split outside", split().new_starting_hash_key(u128::MAX.to_string()).send().await);
    split().new_starting_hash_key(MIDDLE_OF_FIRST).send().await.unwrap();
    script.active().await;
    script.put("lowest after the split", Some("0")).await;
    script.put("at the split", Some(MIDDLE_OF_FIRST)).await;
    let merge = client.merge_shards().stream_name(&stream).shard_to_merge(shard(4)).adjacent_shard_to_merge(shard(1));
    merge.send().await.unwrap();
    script.active().await;
    script.put("after the merge", Some(&(u128::MAX / 3 + 9).to_string())).await;
    script.shards().await;
    for number in 0..6 {
        script.read(number, ShardIteratorType::TrimHorizon, None).await;
    }
    script.filtered(ShardFilterType::AtLatest, None).await;
    script.filtered(ShardFilterType::FromTrimHorizon, None).await;
    script.filtered(ShardFilterType::AfterShardId, Some(2)).await;
    script.pages().await;
    script.consumers().await;

    let longer = |hours| client.increase_stream_retention_period().stream_name(&stream).retention_period_hours(hours);
    longer(48).send().await.unwrap();
    script.active().await;
    script.note_refused("shorter by increase", longer(24).send().await);
    let shorter = client.decrease_stream_retention_period().stream_name(&stream).retention_period_hours(24);
    shorter.send().await.unwrap();
    script.active().await;
    let update = client.update_shard_count().stream_name(&stream).target_shard_count(4);
    update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
    script.active().await;
    client.delete_stream().stream_name(&stream).enforce_consumer_deletion(true).send().await.unwrap();
    script.message
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn the_model_and_a_stand_in_have_the_same_outcome() {
    let named = ["AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| std::env::var(name).ok());
    let endpoint = named.expect("AWS_ENDPOINT_URL_KINESIS or AWS_ENDPOINT_URL names the stand-in");
    let message = run(client_of(&endpoint)).await;
    let kinesis = Kinesis::new(ModelClock::tokio(crate::client::BEGINNING_MS), Settings::default());
    let services = Services::new().with(ServiceName::Kinesis, kinesis);
    let server = Server::start(services, Arc::new(Faults::new(0)));
    let modeled = run(client_of(&server.url())).await;
    for (line, (modeled, message)) in modeled.iter().zip(&message).enumerate() {
        assert_eq!(modeled, message, "line {line}");
    }
    assert_eq!(modeled.len(), message.len());
}
