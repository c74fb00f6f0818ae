//! A simulated stream: shards with records, some of which split into children.

use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{Position, SequenceNumber, ShardId, StreamName};
use pipeline::chunk::{Chunk, Frame, Framing};
use shardlake::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};

use crate::mortal::Rng;

/// A shard: its records, one number each, and what it became.
#[derive(Debug, Clone)]
pub(crate) struct SimShard {
    pub(crate) id: ShardId,
    pub(crate) parents: Vec<ShardId>,
    pub(crate) children: Vec<ShardId>,
    /// Sequence number and text of each record.
    pub(crate) records: Vec<(u64, String)>,
    /// It has been split: after its last record comes its end.
    closed: bool,
}

/// A stream that is all there from the start.
#[derive(Debug)]
pub(crate) struct SimStream {
    name: StreamName,
    pub(crate) shards: Arc<Vec<SimShard>>,
}

impl SimStream {
    /// A stream of some shards, some of them split once or twice, with good and bad records and gaps in their numbers.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut shards: Vec<SimShard> = Vec::new();
        for _ in 0..2 + rng.below(4) {
            let id = add(&mut shards, rng, Vec::new());
            if rng.chance(400) {
                let children = split(&mut shards, rng, id);
                if rng.chance(300) {
                    split(&mut shards, rng, children[0]);
                }
            }
        }
        SimStream { name: StreamName::new("simulated").unwrap(), shards: Arc::new(shards) }
    }

    fn shard(&self, id: &ShardId) -> &SimShard {
        self.shards.iter().find(|shard| shard.id == *id).expect("the shard is of this stream")
    }
}

fn add(shards: &mut Vec<SimShard>, rng: &mut Rng, parents: Vec<ShardId>) -> usize {
    let id = ShardId::new(format!("shardId-{:03}", shards.len())).unwrap();
    let mut sequence = rng.below(1000);
    let records = (0..rng.below(120))
        .map(|_| {
            sequence += 1 + rng.below(9);
            let at = 1_736_764_200_000 + rng.below(200_000_000);
            let text = match rng.below(20) {
                0 => "{\"broken\":".to_owned(),
                1 => format!("{{\"at\":{at}}}"),
                _ => format!("{{\"id\":\"{id}-{sequence}\",\"at\":{at},\"kind\":\"k{}\"}}", rng.below(3)),
            };
            (sequence, text)
        })
        .collect();
    shards.push(SimShard { id, parents, children: Vec::new(), records, closed: false });
    shards.len() - 1
}

fn split(shards: &mut Vec<SimShard>, rng: &mut Rng, parent: usize) -> [usize; 2] {
    let id = shards[parent].id.clone();
    let children = [add(shards, rng, vec![id.clone()]), add(shards, rng, vec![id])];
    let ids = children.map(|child| shards[child].id.clone());
    shards[parent].children = ids.to_vec();
    shards[parent].closed = true;
    children
}

fn read_through(shard: &SimShard, position: &Position) -> usize {
    match position {
        Position::Beginning | Position::Since { .. } | Position::Latest => 0,
        Position::End => shard.records.len(),
        Position::At { sequence, .. } => {
            let at: u64 = sequence.as_str().parse().unwrap();
            shard.records.iter().take_while(|(number, _)| *number <= at).count()
        }
    }
}

#[async_trait]
impl ShardSource for SimStream {
    fn stream(&self) -> &StreamName {
        &self.name
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        Ok(self
            .shards
            .iter()
            .map(|shard| SourceShard { parents: shard.parents.clone(), ..SourceShard::alone(shard.id.clone()) })
            .collect())
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let shard = self.shard(shard).clone();
        let next = read_through(&shard, after);
        Ok(Box::new(SimReader { stream: self.name.as_str().into(), shard, next, chunks: 0 }))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let shard = self.shard(shard);
        let left = shard.records.len() - read_through(shard, position);
        let ended = *position == Position::End || !shard.closed;
        Ok(if left == 0 && ended { Behind::Nothing } else { Behind::Bytes(left as u64 + 1) })
    }
}

struct SimReader {
    stream: Arc<str>,
    shard: SimShard,
    next: usize,
    chunks: u64,
}

#[async_trait]
impl ShardReader for SimReader {
    async fn read(&mut self, _: usize, mut buffer: Vec<u8>) -> Result<Read, SourceError> {
        // The size of an answer follows from where it is, so that it is the same whoever asks.
        tokio::time::sleep(std::time::Duration::from_millis(5 + self.next as u64 % 40)).await;
        self.chunks += 1;
        if self.next == self.shard.records.len() {
            let children = self.shard.children.clone();
            return Ok(if self.shard.closed { Read::End { children } } else { Read::AtTip });
        }
        let count = (1 + self.next % 17).min(self.shard.records.len() - self.next);
        let mut frames = Vec::new();
        let mut last = 0;
        for (sequence, text) in &self.shard.records[self.next..self.next + count] {
            let begin = u32::try_from(buffer.len()).unwrap();
            buffer.extend_from_slice(text.as_bytes());
            let end = u32::try_from(buffer.len()).unwrap();
            buffer.push(b'\n');
            frames.push(Frame {
                bytes: begin..end,
                sequence: sequence.to_string().into(),
                sub_sequence: 0,
                arrival_ms: Some(1_737_000_000_000),
                partition_key: None,
                damage: None,
            });
            last = *sequence;
        }
        self.next += count;
        let bytes = buffer.len() as u64;
        let framing = Framing::Records(frames);
        let chunk = Chunk::new(Arc::clone(&self.stream), self.shard.id.as_str().into(), 0, buffer, framing);
        Ok(Read::Chunk { chunk, through: Position::at(SequenceNumber::from(last)), source_bytes: bytes })
    }
}
