//! The source against a fake service behind the real SDK, and in `stack` against a local stack.

mod fanout;
mod identity;
mod polling;
mod service;
mod stack;

use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Position, ShardId};
use pipeline::chunk::Framing;
use pipeline::documents::Documents;

use self::service::{Fake, FakeShard, Held};
use super::{Decode, KinesisConfig, KinesisSource, Limits, Mode, Start};
use crate::clock::Clock;
use crate::lake::MemoryStore;
use crate::source::{Read, ShardReader, ShardSource, SourceError};

/// The time of the tests, in milliseconds since 1970.
const NOW_MS: i64 = 1_700_000_100_000;

struct Now;

impl Clock for Now {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

fn config(start: Start, decode: Decode) -> KinesisConfig {
    KinesisConfig {
        stream: "orders".to_owned(),
        name: None,
        start,
        mode: Mode::Polling,
        record_bytes_max: 1 << 20,
        documents: Documents::ONE,
        decode,
        limits: Limits::default(),
        retry_within: Duration::from_secs(300),
        bounded: false,
        clock: Arc::new(Now),
    }
}

async fn source(fake: &Fake) -> KinesisSource {
    let config = config(Start::TrimHorizon, Decode::Fast);
    KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap()
}

fn shard(id: &str) -> ShardId {
    ShardId::new(id).unwrap()
}

fn at(sequence: u64, sub: u64) -> Position {
    Position::At { sequence: sequence.into(), sub }
}

/// A record that arrived at its sequence number's second.
fn record(sequence: u64, data: &[u8]) -> Held {
    Held::Record(sequence, i64::try_from(sequence).unwrap() * 1000, data.to_vec())
}

/// An open shard with records of these sequence numbers.
fn open_shard(id: &str, sequences: impl IntoIterator<Item = u64>) -> FakeShard {
    let held = sequences.into_iter().map(|sequence| record(sequence, format!("r{sequence}").as_bytes())).collect();
    FakeShard { id: id.to_owned(), held, ..FakeShard::default() }
}

/// What reading returned: records as `sequence:sub=text`, then how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Observed {
    records: Vec<String>,
    through: Option<Position>,
    /// The children, if it reached the end; `None` at the tip.
    end: Option<Vec<String>>,
    /// Reads without records: of a failed call, or before the tip.
    empty: usize,
}

impl Observed {
    fn add(&mut self, read: Read) -> bool {
        match read {
            Read::AtTip => return false,
            Read::Empty { .. } | Read::Failed { .. } => self.empty += 1,
            Read::End { children } => {
                self.end = Some(children.iter().map(ToString::to_string).collect());
                return false;
            }
            Read::Chunk { chunk, through, .. } => {
                let Framing::Records(frames) = chunk.framing() else { panic!("records of Kinesis have frames") };
                self.empty += usize::from(frames.is_empty());
                for frame in frames {
                    let bytes = &chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize];
                    let text = String::from_utf8_lossy(bytes);
                    let damage = frame.damage.map_or(String::new(), |damage| format!(" {damage:?}"));
                    self.records.push(format!("{}:{}={text}{damage}", frame.sequence, frame.sub_sequence));
                }
                assert!(self.through.as_ref().is_none_or(|before| *before <= through), "positions only grow");
                self.through = Some(through);
            }
        }
        true
    }
}

/// Reads to the tip or the end.
async fn read_all(reader: &mut dyn ShardReader) -> Result<Observed, SourceError> {
    let mut observed = Observed::default();
    loop {
        reader.ready(Duration::ZERO).await;
        if !observed.add(reader.read(1 << 20, Vec::new()).await?) {
            return Ok(observed);
        }
    }
}

async fn read_shard(source: &KinesisSource, id: &str, after: &Position) -> Result<Observed, SourceError> {
    let mut reader = source.open(&shard(id), after).await?;
    read_all(&mut *reader).await
}
