//! The source against a local stack.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::StreamStatus;

use super::*;
use crate::aws::Aws;
use crate::clock::SystemClock;
use crate::source::kinesis::kpl::tests::aggregate;

/// A new stream, deleted at the end of a test.
struct Stand {
    client: aws_sdk_kinesis::Client,
    stream: String,
    sent: u32,
}

impl Stand {
    async fn new(shards: i32) -> Self {
        let client = Aws::load().await.unwrap().kinesis();
        let random = crate::clock::random_bytes::<6>().unwrap();
        let stream = format!("test-{}", random.map(|byte| format!("{byte:02x}")).concat());
        client.create_stream().stream_name(&stream).shard_count(shards).send().await.unwrap();
        let stand = Stand { client, stream, sent: 0 };
        stand.settled().await;
        stand
    }

    async fn settled(&self) {
        for _ in 0..100 {
            let described = self.client.describe_stream_summary().stream_name(&self.stream).send().await.unwrap();
            if described.stream_description_summary.unwrap().stream_status == StreamStatus::Active {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the stream does not settle");
    }

    async fn send(&mut self, count: u32) {
        for number in self.sent..self.sent + count {
            let put = self.client.put_record().stream_name(&self.stream).partition_key(format!("k{number}"));
            put.data(Blob::new(format!("r{number}"))).send().await.unwrap();
        }
        self.sent += count;
    }

    fn config(&self, start: Start, mode: Mode) -> KinesisConfig {
        KinesisConfig { stream: self.stream.clone(), mode, clock: Arc::new(SystemClock), ..config(start, Decode::Fast) }
    }

    async fn open(&self, start: Start, mode: Mode) -> KinesisSource {
        let lake = Arc::new(MemoryStore::new());
        KinesisSource::open(self.client.clone(), self.config(start, mode), lake).await.unwrap()
    }

    async fn split(&self, shard: &ShardId) {
        let middle = (u128::MAX / 2 + 1).to_string();
        let split = self.client.split_shard().stream_name(&self.stream).shard_to_split(shard.as_str());
        split.new_starting_hash_key(middle).send().await.unwrap();
        self.settled().await;
    }

    async fn delete(self) {
        self.client.delete_stream().stream_name(&self.stream).enforce_consumer_deletion(true).send().await.unwrap();
    }
}

/// Reads all shards to their tips, parents before children: the texts, each with the number of times it was read.
async fn read_stream(source: &KinesisSource, positions: &mut BTreeMap<ShardId, Position>) -> BTreeMap<String, u32> {
    let mut texts = BTreeMap::new();
    let mut done = HashSet::new();
    loop {
        let shards = source.shards().await.unwrap();
        let ended = |positions: &BTreeMap<_, _>, id: &ShardId| positions.get(id) == Some(&Position::End);
        let next = shards
            .iter()
            .find(|shard| !done.contains(&shard.id) && shard.parents.iter().all(|parent| ended(positions, parent)));
        let Some(next) = next else { return texts };
        done.insert(next.id.clone());
        let after = positions.entry(next.id.clone()).or_insert_with(|| next.first.clone());
        let message = read_shard(source, next.id.as_str(), after).await.unwrap();
        for record in message.records {
            *texts.entry(record.split_once('=').unwrap().1.to_owned()).or_insert(0) += 1;
        }
        *after = message.through.unwrap_or_else(|| after.clone());
        if let Some(children) = message.end {
            *after = Position::End;
            let listed: BTreeSet<String> =
                source.shards().await.unwrap().iter().map(|shard| shard.id.to_string()).collect();
            assert!(children.iter().all(|child| listed.contains(child)), "{children:?}");
        }
    }
}

fn each_once(numbers: std::ops::Range<u32>) -> BTreeMap<String, u32> {
    numbers.map(|number| (format!("r{number}"), 1)).collect()
}

async fn splits_and_merges_lose_and_repeat_nothing(mode: Mode) {
    let mut stand = Stand::new(1).await;
    let source = stand.open(Start::TrimHorizon, mode).await;
    let mut positions = BTreeMap::new();
    stand.send(30).await;
    assert_eq!(read_stream(&source, &mut positions).await, each_once(0..30));
    stand.send(10).await;
    let parent = source.shards().await.unwrap()[0].id.clone();
    stand.split(&parent).await;
    stand.send(20).await;
    assert_eq!(read_stream(&source, &mut positions).await, each_once(30..60));
    assert_eq!((positions.len(), &positions[&parent]), (3, &Position::End));
    stand.send(10).await;
    let children: Vec<String> = positions.keys().skip(1).map(ToString::to_string).collect();
    let merge = stand.client.merge_shards().stream_name(&stand.stream).shard_to_merge(&children[0]);
    merge.adjacent_shard_to_merge(&children[1]).send().await.unwrap();
    stand.settled().await;
    stand.send(10).await;
    assert_eq!(read_stream(&source, &mut positions).await, each_once(60..80));
    assert_eq!(positions.values().filter(|position| **position == Position::End).count(), 3);
    // A new worker reads everything again.
    assert_eq!(read_stream(&source, &mut BTreeMap::new()).await, each_once(0..80));
    stand.delete().await;
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn splits_and_merges_lose_and_repeat_nothing_by_polling() {
    splits_and_merges_lose_and_repeat_nothing(Mode::Polling).await;
}

/// No split here: some local stacks never end the subscription of a closed shard.
#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn subscriptions_read_every_record_once() {
    let mut stand = Stand::new(2).await;
    stand.send(20).await;
    let source = stand.open(Start::TrimHorizon, Mode::FanOut { consumer: "shardlake".to_owned() }).await;
    let mut positions = BTreeMap::new();
    assert_eq!(read_stream(&source, &mut positions).await, each_once(0..20));
    stand.send(20).await;
    assert_eq!(read_stream(&source, &mut positions).await, each_once(20..40));
    // Another worker with the same consumer, right after this one.
    let other = stand.open(Start::TrimHorizon, Mode::FanOut { consumer: "shardlake".to_owned() }).await;
    assert_eq!(read_stream(&other, &mut BTreeMap::new()).await, each_once(0..40));
    stand.delete().await;
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_start_at_a_time_leaves_out_earlier_records_even_across_a_split() {
    let mut stand = Stand::new(1).await;
    stand.send(10).await;
    // `latest` may be up to two seconds early: the time of the service has whole seconds, and a margin.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let source = stand.open(Start::Latest, Mode::Polling).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stand.send(10).await;
    let parent = source.shards().await.unwrap()[0].id.clone();
    stand.split(&parent).await;
    stand.send(10).await;
    assert_eq!(read_stream(&source, &mut BTreeMap::new()).await, each_once(10..30));
    stand.delete().await;
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn aggregates_are_opened_and_positions_within_them_are_kept() {
    let stand = Stand::new(1).await;
    let packed = aggregate(&["a", "b"], &[(0, b"r0"), (1, b"r1"), (0, b"r2")]);
    let put = stand.client.put_record().stream_name(&stand.stream).partition_key("a");
    let sequence = put.data(Blob::new(packed)).send().await.unwrap().sequence_number;
    let source = stand.open(Start::TrimHorizon, Mode::Polling).await;
    let id = source.shards().await.unwrap()[0].id.to_string();
    let all = read_shard(&source, &id, &Position::Beginning).await.unwrap();
    assert_eq!(all.records, (0..3).map(|sub| format!("{sequence}:{sub}=r{sub}")).collect::<Vec<_>>());
    let half: Position = format!("{sequence}:1").parse().unwrap();
    assert_eq!(read_shard(&source, &id, &half).await.unwrap().records, [format!("{sequence}:2=r2")]);
    assert_eq!(read_shard(&source, &id, &all.through.unwrap()).await.unwrap().records, [""; 0]);
    stand.delete().await;
}

#[tokio::test]
#[ignore = "needs the local AWS stack: localstack/run"]
async fn a_recreated_or_missing_stream_is_refused() {
    let stand = Stand::new(1).await;
    let lake: Arc<MemoryStore> = Arc::new(MemoryStore::new());
    let config = stand.config(Start::Latest, Mode::Polling);
    let open = || KinesisSource::open(stand.client.clone(), config.clone(), lake.clone());
    open().await.unwrap();
    open().await.unwrap();
    stand.client.delete_stream().stream_name(&stand.stream).send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let message = open().await.unwrap_err();
    assert!(message.to_string().contains("there is no such stream"), "{message}");
    stand.client.create_stream().stream_name(&stand.stream).shard_count(1).send().await.unwrap();
    stand.settled().await;
    let message = open().await.unwrap_err();
    assert!(message.to_string().contains("needs another `name`"), "{message}");
    stand.delete().await;
}
