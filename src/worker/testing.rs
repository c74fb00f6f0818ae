//! What the tests of the worker's parts share: a stream in memory, and the settings of lanes and epochs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Lease, LeaseOwner, NewLease, Position, ShardId, ShardKey, StreamName};
use pipeline::chunk::{Chunk, Frame, Framing};
use pipeline::dataset::{Datasets, DefinitionText};
use pipeline::encode::EncoderConfig;
use pipeline::graph::Graph;
use pipeline::lane::LaneConfig;
use pipeline::line_objects::LineCodec;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::commit::Stores;
use crate::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};
use crate::worker::Progress;
use crate::worker::compute::Compute;
use crate::worker::epoch::encode::Encoding;
use crate::worker::epoch::open::{EpochSettings, OpenEpochs};
use crate::worker::memory_plan::{ByteBudget, MemoryPlan};
use crate::worker::reader::{BufferPool, ReadChunk, ReaderEvent};
use crate::worker::readers::{ReadRange, ReadWhat, ReaderSettings};

const DEFINITION: &str = r#"
name = "orders"
partition_by = ["day"]
[[recognize]]
present = ["/at"]
[event_time]
pointer = "/at"
format = "epoch_ms"
[[column]]
name = "id"
pointer = "/id"
type = "string"
required = true
"#;

/// A stream whose shards hold as many records as the tests have put. The n-th record of a shard has sequence number n.
#[derive(Clone)]
pub(super) struct TestStream {
    pub(super) name: StreamName,
    shards: Arc<Mutex<BTreeMap<ShardId, u64>>>,
    /// What its readers say of the tip.
    pub(super) tip_as_of_ms: Option<i64>,
}

impl TestStream {
    /// The stream `orders` with these shards and numbers of records.
    pub(super) fn new(shards: &[(&str, u64)]) -> Self {
        let shards = shards.iter().map(|(shard, records)| (ShardId::new(*shard).unwrap(), *records)).collect();
        TestStream {
            name: StreamName::new("orders").unwrap(),
            shards: Arc::new(Mutex::new(shards)),
            tip_as_of_ms: None,
        }
    }

    fn records(&self, shard: &ShardId) -> u64 {
        self.shards.lock().unwrap()[shard]
    }

    pub(super) fn put(&self, shard: &str, count: u64) {
        *self.shards.lock().unwrap().get_mut(&ShardId::new(shard).unwrap()).unwrap() += count;
    }
}

/// The number of records up to a position.
pub(super) fn records_up_to(position: &Position) -> u64 {
    match position {
        Position::At { sequence, .. } => sequence.to_string().parse().unwrap(),
        _ => 0,
    }
}

#[async_trait]
impl ShardSource for TestStream {
    fn stream(&self) -> &StreamName {
        &self.name
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        Ok(self.shards.lock().unwrap().keys().cloned().map(SourceShard::alone).collect())
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(TestReader { stream: self.clone(), shard: shard.clone(), read: records_up_to(after) }))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let left = self.records(shard) - records_up_to(position);
        Ok(if left == 0 { Behind::Nothing } else { Behind::Bytes(left) })
    }
}

struct TestReader {
    stream: TestStream,
    shard: ShardId,
    read: u64,
}

#[async_trait]
impl ShardReader for TestReader {
    async fn read(&mut self, _: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        if self.read == self.stream.records(&self.shard) {
            return Ok(Read::AtTip);
        }
        self.read += 1;
        let chunk = chunk(self.shard.as_str(), self.read, buffer);
        Ok(Read::Chunk { chunk, through: Position::at(self.read.into()), source_bytes: 1 })
    }

    fn tip_as_of_ms(&self) -> Option<i64> {
        self.stream.tip_as_of_ms
    }
}

#[derive(Debug)]
pub(super) struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> i64 {
        1_736_764_200_000
    }
}

/// A chunk that holds the n-th record of a shard.
fn chunk(shard: &str, number: u64, mut buffer: Vec<u8>) -> Chunk {
    let record = format!("{{\"id\":\"{shard}-{number}\",\"at\":1736764200000}}");
    buffer.extend_from_slice(record.as_bytes());
    let frame = Frame {
        bytes: 0..u32::try_from(buffer.len()).unwrap(),
        sequence: number.to_string().into(),
        sub_sequence: 0,
        arrival_ms: Some(1_736_764_200_000),
        partition_key: None,
        damage: None,
    };
    Chunk::new("orders".into(), shard.into(), 0, buffer, Framing::Records(vec![frame]))
}

/// What a reader of group 0 returns for the n-th record of a shard.
pub(super) async fn read(shard: &str, number: u64) -> ReadRange {
    let chunk = chunk(shard, number, Vec::new());
    let memory = ByteBudget::new(1 << 10).take(1).await.unwrap();
    ReadRange {
        key: key(shard),
        group: 0,
        source: 0,
        from: if number == 1 { Position::Beginning } else { at(number - 1) },
        is_taken_over: false,
        what: ReadWhat::Chunk(ReadChunk { chunk, through: at(number), source_bytes: 1, memory }),
    }
}

pub(super) fn key(shard: &str) -> ShardKey {
    ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(shard).unwrap())
}

pub(super) fn at(number: u64) -> Position {
    Position::at(number.into())
}

/// The figures of a worker that holds these shards. Each has read some bytes, and is behind by an hour, a second more for each.
pub(crate) fn figures_of(keys: impl Iterator<Item = ShardKey>) -> Arc<Progress> {
    let progress = Arc::new(Progress::default());
    for (number, key) in (0..).zip(keys) {
        progress.live.hold(&key);
        progress.live.of_reader(&key).on_response(0, Some(Behind::Time(3_600_000 + 1000 * number)), false);
        progress.live.on_processed(&key, 10);
    }
    progress
}

/// A new row of the lease table.
pub(super) fn lease(shard: &str, checkpoint: Position) -> Lease {
    Lease::new(NewLease::new(key(shard), checkpoint))
}

pub(crate) fn lane_config() -> LaneConfig {
    let text = DefinitionText { file: "orders.toml".to_owned(), text: DEFINITION.to_owned() };
    let datasets = Datasets::compile(&[text], &|_, _| Err("none".to_owned())).unwrap();
    LaneConfig {
        graph: Graph::new(&["orders".to_owned()], &datasets, false),
        key: None,
        assigned: vec![Some(0)],
        raw: None,
        raw_identities: true,
        dead_letters: LineCodec::Gzip(1),
        record_bytes_max: 1000,
        hash_seed: 1,
        denied_names: false,
        datasets,
    }
}

/// Lanes run in place, and files are as large as they get.
pub(super) fn encoding() -> Encoding {
    Encoding {
        lanes: Arc::new(lane_config()),
        compute: Compute::Inline,
        encoder: EncoderConfig::default(),
        file_bytes: 1 << 30,
    }
}

/// Epochs that are due after a minute, or a kilobyte of input.
pub(super) fn open_epochs(stores: Stores, memory: MemoryPlan) -> OpenEpochs {
    OpenEpochs::new(EpochSettings {
        me: LeaseOwner::from_random([1; 16]),
        stores,
        clock: Arc::new(StoppedClock),
        encoding: encoding(),
        memory,
        raw_sink: None,
        raw_retry: crate::retry::Retry::new(crate::retry::RetryPolicy::CALL, "the raw landing"),
        open_objects: 4,
        interval: Duration::from_secs(60),
        input_bytes: 1 << 10,
    })
}

/// Settings of readers, and the events that they send.
pub(super) fn reader_settings(source: Arc<dyn ShardSource>) -> (ReaderSettings, mpsc::Receiver<ReaderEvent>) {
    let (coordinator, events) = mpsc::channel(1);
    let settings = ReaderSettings {
        sources: vec![source],
        chunk_bytes: 1 << 10,
        budget: ByteBudget::new(1 << 20),
        buffers: BufferPool::default(),
        coordinator,
        clock: Arc::new(StoppedClock),
        progress: Arc::default(),
        group_shards_max: 100,
    };
    (settings, events)
}
