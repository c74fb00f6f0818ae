//! A shard that one worker cannot read, though its reads seem to succeed.

use std::sync::Mutex;

use async_trait::async_trait;
use checkpoints::{Position, ShardId, StreamName};
use pipeline::chunk::{Chunk, Framing};

use super::*;
use crate::source::{Behind, Read, ShardReader, SourceError, SourceShard};

/// The time without progress after which a shard is released.
const WITHIN: Duration = Duration::from_secs(300);

/// The stream over a way that fails for one shard.
#[derive(Clone)]
struct BadWay {
    stream: TestStream,
    stuck: Arc<Mutex<Option<&'static str>>>,
}

struct BadReader {
    way: BadWay,
    shard: ShardId,
    reader: Box<dyn ShardReader>,
    reads: u64,
}

impl BadReader {
    fn is_stuck(&self) -> bool {
        *self.way.stuck.lock().unwrap() == Some(self.shard.as_str())
    }
}

#[async_trait]
impl ShardSource for BadWay {
    fn stream(&self) -> &StreamName {
        self.stream.stream()
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::shard(WITHIN)
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        self.stream.shards().await
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let reader = self.stream.open(shard, after).await?;
        Ok(Box::new(BadReader { way: self.clone(), shard: shard.clone(), reader, reads: 0 }))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        self.stream.behind(shard, position).await
    }
}

#[async_trait]
impl ShardReader for BadReader {
    async fn ready(&mut self, idle: Duration) {
        tokio::time::sleep(if self.is_stuck() { Duration::from_secs(1) } else { idle }).await;
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        if !self.is_stuck() {
            return self.reader.read(bytes, buffer).await;
        }
        self.reads += 1;
        if self.reads.is_multiple_of(2) {
            let (name, framing) = (self.stream_name().into(), Framing::Records(Vec::new()));
            let chunk = Chunk::new(name, self.shard.as_str().into(), 0, Vec::new(), framing);
            return Ok(Read::Chunk { chunk, through: Position::Beginning, source_bytes: 0 });
        }
        let (place, problem) = (format!("shard {}", self.shard), "InternalFailure".to_owned());
        Ok(Read::Failed { error: SourceError::Unavailable { place, problem }, is_normal: false })
    }
}

impl BadReader {
    fn stream_name(&self) -> &str {
        self.way.stream.name.as_str()
    }
}

/// A worker that cannot read shard `a`.
fn start_bad(environment: &Environment, until_caught_up: bool) -> (Worker, BadWay) {
    let way = BadWay { stream: environment.stream.clone(), stuck: Arc::new(Mutex::new(Some("a"))) };
    (environment.start_reading(1, until_caught_up, Arc::new(way.clone())), way)
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_one_worker_cannot_read_is_read_by_another_and_stays_there() {
    let environment = Environment::new(&[("a", 3), ("b", 3), ("c", 3)], 100);
    let (bad, _) = start_bad(&environment, false);
    seconds(5).await;
    assert_eq!(["a", "b", "c"].map(|shard| environment.committed(shard)), [0, 3, 3], "the others are read meanwhile");
    let good = environment.start(2, false);
    // It is busier than the other one, and so would not take a lease.
    for _ in 0..150 {
        environment.stream.put("b", 40);
        environment.stream.put("c", 40);
        seconds(2).await;
    }
    seconds(40).await;
    assert_eq!(environment.committed("a"), 3);
    assert!(environment.row("a").holder.is(&good.me) && !bad.task.is_finished());
    for _ in 0..60 {
        environment.stream.put("a", 1);
        seconds(20).await;
        assert!(environment.row("a").holder.is(&good.me), "the first worker does not ask for it");
    }
    assert_eq!(environment.committed("a"), 63);
    bad.stop().await.unwrap();
    good.stop().await.unwrap();
    assert_eq!(environment.audited_records().await, 6000 * 2 + 63 + 6);
}

#[tokio::test(start_paused = true)]
async fn a_run_until_caught_up_ends_with_the_shard_that_cannot_be_read() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 100);
    let begun = tokio::time::Instant::now();
    let (bad, _) = start_bad(&environment, true);
    let error = bad.task.await.unwrap().unwrap_err();
    let took = begun.elapsed().as_secs();
    assert!((300..320).contains(&took), "{took} s");
    let WorkerError::Shards { problems } = error else { panic!("{error}") };
    assert!(
        problems.len() == 1 && problems[0].starts_with("failed to read shard a: no progress for 30"),
        "{problems:?}"
    );
    assert_eq!((environment.committed("a"), environment.committed("b")), (0, 3));
    assert!(environment.leases.rows().iter().all(|row| row.holder.committer().is_none()), "every lease is released");
}

#[tokio::test(start_paused = true)]
async fn a_lone_worker_tries_again_and_reads_what_becomes_readable() {
    let environment = Environment::new(&[("a", 3), ("b", 3)], 100);
    let (lines, _guard) = crate::trouble::tests::Lines::collect();
    let (bad, way) = start_bad(&environment, false);
    // A round takes the time without progress, and a minute of rest.
    seconds(1000).await;
    let logged = lines.take();
    let released = logged.iter().filter(|line| line.contains("releasing it")).count();
    assert!(released == 2, "{released} in {logged:?}");
    assert!(logged.len() < 70, "{} lines in 17 minutes: {logged:?}", logged.len());
    environment.stream.put("a", 4);
    *way.stuck.lock().unwrap() = None;
    seconds(70).await;
    assert_eq!(environment.committed("a"), 7);
    bad.stop().await.unwrap();
    assert_eq!(environment.audited_records().await, 10);
}
