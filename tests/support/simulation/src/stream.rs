//! A stream in memory. Its shards receive records, split, merge, and are forgotten once they are read.
//!
//! Owns: what is in the stream at which time, and reading it through a worker's network. Does not own: what the records
//! contain (`records`). It is simpler than Kinesis on purpose: it implements the product's trait for sources. What only Kinesis
//! has (iterators, aggregates, trimming) is in `cloud`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, SequenceNumber, ShardId, StreamName};
use pipeline::chunk::{Chunk, Frame, Framing};
use shardlake::retry::RetryPolicy;
use shardlake::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};
use tokio::time::Instant;

use crate::faults::FaultKind;
use crate::network::{Network, NetworkError, Service};

/// The stream's clock when it was created: milliseconds since 1970.
const BEGUN_MS: i64 = 1_737_000_000_000;
/// The longest time after which a record that was put can be read, in milliseconds.
const LATE_MAX_MS: i64 = 3_000;
/// Most records of one read.
const RECORDS_MAX: usize = 40;

/// A shard.
#[derive(Debug, Clone)]
struct SimShard {
    id: ShardId,
    parents: Vec<ShardId>,
    children: Vec<ShardId>,
    records: Vec<SimRecord>,
    is_closed: bool,
}

#[derive(Debug, Clone)]
struct SimRecord {
    sequence: u64,
    bytes: Vec<u8>,
    arrived_ms: i64,
    visible_at: Instant,
}

/// A stream. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct SimStream {
    name: StreamName,
    begun: Instant,
    shards: Arc<Mutex<Vec<SimShard>>>,
    unlisted: Arc<Mutex<BTreeSet<ShardId>>>,
}

impl SimStream {
    /// A stream of `shards` shards.
    pub fn new(name: &str, shards: u64) -> Self {
        let name = StreamName::new(name).expect("a plain name");
        let stream = SimStream { name, begun: Instant::now(), shards: Arc::default(), unlisted: Arc::default() };
        for _ in 0..shards {
            stream.add(Vec::new());
        }
        stream
    }

    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// The stream's clock at an instant: milliseconds since 1970.
    pub fn arrived_ms(&self, at: Instant) -> i64 {
        let passed = at.saturating_duration_since(self.begun).as_millis();
        BEGUN_MS + i64::try_from(passed).expect("a run lasts hours")
    }

    fn shards(&self) -> MutexGuard<'_, Vec<SimShard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, parents: Vec<ShardId>) -> ShardId {
        let mut shards = self.shards();
        let id = ShardId::new(format!("shardId-{:03}", shards.len())).expect("a plain name");
        shards.push(SimShard { id: id.clone(), parents, children: Vec::new(), records: Vec::new(), is_closed: false });
        id
    }

    /// The shards that accept records.
    pub fn open_shards(&self) -> Vec<ShardId> {
        self.shards().iter().filter(|shard| !shard.is_closed).map(|shard| shard.id.clone()).collect()
    }

    /// The shards that accept no more records.
    pub fn closed_shards(&self) -> Vec<ShardId> {
        self.shards().iter().filter(|shard| shard.is_closed).map(|shard| shard.id.clone()).collect()
    }

    /// Puts a record after a gap of `gap` sequence numbers. It can be read after `late`. Returns its sequence number.
    pub fn put(&self, shard: &ShardId, gap: u64, bytes: Vec<u8>, late: Duration) -> u64 {
        let arrived_ms = self.arrived_ms(Instant::now());
        let mut shards = self.shards();
        let shard = shards.iter_mut().find(|open| open.id == *shard).expect("it is open");
        let last = shard.records.last();
        let sequence = last.map_or(0, |last| last.sequence) + 1 + gap;
        // Records are read in order.
        let visible_at = (Instant::now() + late).max(last.map_or_else(Instant::now, |last| last.visible_at));
        shard.records.push(SimRecord { sequence, bytes, arrived_ms, visible_at });
        sequence
    }

    /// Splits a shard into two.
    pub fn split(&self, shard: &ShardId) {
        let children = [self.add(vec![shard.clone()]), self.add(vec![shard.clone()])];
        self.close(shard, children.to_vec());
    }

    /// Merges two shards into one.
    pub fn merge(&self, left: &ShardId, right: &ShardId) {
        let child = self.add(vec![left.clone(), right.clone()]);
        self.close(left, vec![child.clone()]);
        self.close(right, vec![child]);
    }

    fn close(&self, id: &ShardId, children: Vec<ShardId>) {
        let mut shards = self.shards();
        let shard = shards.iter_mut().find(|shard| shard.id == *id).expect("it is there");
        (shard.is_closed, shard.children) = (true, children);
    }

    /// Stops listing a shard. Returns false if it was not listed.
    pub fn unlist(&self, shard: ShardId) -> bool {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).insert(shard)
    }

    fn find(&self, id: &ShardId) -> Option<SimShard> {
        self.shards().iter().find(|shard| shard.id == *id).cloned()
    }

    fn list(&self) -> Vec<SourceShard> {
        let unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        let shards = self.shards();
        let listed = shards.iter().filter(|shard| !unlisted.contains(&shard.id));
        listed
            .map(|shard| SourceShard { parents: shard.parents.clone(), ..SourceShard::alone(shard.id.clone()) })
            .collect()
    }
}

impl SimShard {
    /// The number of records up to a position.
    fn read_through(&self, position: &Position) -> usize {
        match position {
            Position::Beginning | Position::Since { .. } => 0,
            Position::Latest => self.visible(),
            Position::End => self.records.len(),
            Position::At { sequence, .. } => {
                self.records.iter().take_while(|record| SequenceNumber::from(record.sequence) <= *sequence).count()
            }
        }
    }

    fn visible(&self) -> usize {
        let now = Instant::now();
        self.records.iter().take_while(|record| record.visible_at <= now).count()
    }
}

/// A stream behind a worker's network.
#[derive(Debug, Clone)]
pub struct NetworkedStream {
    pub(crate) network: Arc<Network>,
    pub(crate) stream: SimStream,
}

fn source_error(place: impl std::fmt::Display, error: NetworkError) -> SourceError {
    let place = place.to_string();
    match error {
        NetworkError::Refused => SourceError::Unreadable { place, problem: "refused by the simulation".to_owned() },
        _ => SourceError::Unavailable { place, problem: "lost by the simulation".to_owned() },
    }
}

#[async_trait]
impl ShardSource for NetworkedStream {
    fn stream(&self) -> &StreamName {
        &self.stream.name
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::shard(self.network.retry_within)
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        let stream = self.stream.clone();
        let listed = self.network.send(Service::Stream, "ListShards", "", async move { stream.list() }).await;
        listed.map_err(|error| source_error("the stream", error))
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let found = self.stream.find(shard).ok_or_else(|| source_error(shard, NetworkError::Refused))?;
        let next = found.read_through(after);
        let (source, shard, after) = (self.clone(), shard.clone(), after.clone());
        Ok(Box::new(SimReader { source, shard, next, after, reads: 0, has_failed: false, tip_as_of_ms: None }))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let (stream, id) = (self.stream.clone(), shard.clone());
        let found = self.network.send(Service::Stream, "Behind", shard.as_str(), async move { stream.find(&id) }).await;
        let found = found
            .map_err(|error| source_error(shard, error))?
            .ok_or_else(|| source_error(shard, NetworkError::Refused))?;
        let left = found.visible().saturating_sub(found.read_through(position));
        let ended = *position == Position::End || !found.is_closed;
        Ok(if left == 0 && ended { Behind::Nothing } else { Behind::Bytes(left as u64 + 1) })
    }
}

struct SimReader {
    source: NetworkedStream,
    shard: ShardId,
    next: usize,
    after: Position,
    reads: u64,
    /// Whether the last read failed, so that the next one waits.
    has_failed: bool,
    /// Everything that arrived before this time was returned, if the last read came to the tip.
    tip_as_of_ms: Option<i64>,
}

#[async_trait]
impl ShardReader for SimReader {
    async fn ready(&mut self, idle: Duration) {
        tokio::time::sleep(if self.has_failed { Duration::from_secs(1) } else { idle }).await;
    }

    async fn read(&mut self, bytes: usize, mut buffer: Vec<u8>) -> Result<Read, SourceError> {
        let asked_ms = self.source.stream.arrived_ms(Instant::now());
        self.tip_as_of_ms = None;
        let (stream, id) = (self.source.stream.clone(), self.shard.clone());
        let found = async move { stream.find(&id) };
        let found = self.source.network.send(Service::Stream, "GetRecords", self.shard.as_str(), found).await;
        let shard = found.map_err(|error| source_error(&self.shard, error))?.expect("it was opened");
        self.reads += 1;
        let visible = shard.visible();
        let stream: Arc<str> = self.source.stream.name.as_str().into();
        self.has_failed = self.source.network.is_stuck(&self.shard);
        if self.has_failed && self.reads.is_multiple_of(2) {
            return Ok(Read::Failed { error: source_error(&self.shard, NetworkError::Lost), is_normal: false });
        }
        // A read without records that is a failure.
        if self.has_failed || self.next < visible && self.reads.is_multiple_of(7) {
            // No records for now, although there are more.
            self.source.network.tally().note(FaultKind::EmptyAnswer);
            let chunk = Chunk::new(stream, shard.id.as_str().into(), 0, Vec::new(), Framing::Records(Vec::new()));
            return Ok(Read::Chunk { chunk, through: self.after.clone(), source_bytes: 0 });
        }
        if self.next == visible {
            let at_end = shard.is_closed && visible == shard.records.len();
            self.tip_as_of_ms = Some(asked_ms - LATE_MAX_MS);
            return Ok(if at_end { Read::End { children: shard.children } } else { Read::AtTip });
        }
        let mut frames = Vec::new();
        let most = 1 + self.next % RECORDS_MAX;
        for record in shard.records[self.next..visible].iter().take(most) {
            if !frames.is_empty() && buffer.len() + record.bytes.len() > bytes {
                break;
            }
            let begin = u32::try_from(buffer.len()).expect("chunks are small");
            buffer.extend_from_slice(&record.bytes);
            let end = u32::try_from(buffer.len()).expect("chunks are small");
            buffer.push(b'\n');
            frames.push(Frame {
                bytes: begin..end,
                sequence: record.sequence.to_string().into(),
                sub_sequence: 0,
                arrival_ms: Some(record.arrived_ms),
                partition_key: None,
                damage: None,
            });
            self.after = Position::at(record.sequence.into());
        }
        self.next += frames.len();
        let bytes = buffer.len() as u64;
        let chunk = Chunk::new(stream, shard.id.as_str().into(), 0, buffer, Framing::Records(frames));
        Ok(Read::Chunk { chunk, through: self.after.clone(), source_bytes: bytes })
    }
    fn tip_as_of_ms(&self) -> Option<i64> {
        self.tip_as_of_ms
    }
}
