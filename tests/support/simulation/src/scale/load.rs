//! A stream with an even load, as one worker reads it. It stores no record: each follows from its shard and its number.
//!
//! Owns: which records have arrived at which time, splits, and the pace of reads. It is that of the product's Kinesis source: five reads and
//! 2 MiB a second for each shard, shards listed every 30 s, the stream described before each commit. Does not own: the time of a request
//! (`requests`).
//!
//! A record counts as [`Load::record_bytes`] bytes of the stream, although it has some 50 itself. What depends on bytes (the pace, the size of
//! a read, the work of the processor, the backlog) is computed with the bytes that it counts as.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, SequenceNumber, ShardId, StreamName};
use pipeline::chunk::{Chunk, Frame, Framing};
use shardlake::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};
use tokio::time::Instant;

use super::requests::{Caller, Operation};

/// The time of the wall clock at which a run begins: milliseconds since 1970, the start of a day.
pub const BEGUN_MS: i64 = 1_767_225_600_000;
/// The mean bytes of a record in a chunk.
pub const RECORD_BYTES: f64 = 52.0;
/// What Kinesis allows for a shard.
const BETWEEN_READS: Duration = Duration::from_millis(200);
const BYTES_PER_SECOND: u64 = 2 << 20;
const ANSWER_BYTES_MAX: u64 = 10 << 20;
/// Shards of a page of ListShards.
const LIST_PAGE: usize = 1_000;

/// What is put into a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Bytes of the stream that a record counts as.
    pub record_bytes: u64,
    /// Milliseconds between two records of a shard at the beginning.
    pub record_every_ms: u64,
    /// The number of values of the column that the rows are partitioned by.
    pub partitions: u64,
}

/// From this time on a shard gets a record every so often; never, if that is 0.
#[derive(Debug, Clone, Copy)]
struct Phase {
    from_ms: u64,
    every_ms: u64,
}

#[derive(Debug, Clone)]
struct LoadShard {
    id: ShardId,
    parents: Vec<ShardId>,
    children: Vec<ShardId>,
    opened_ms: u64,
    closed_ms: Option<u64>,
    /// Of a shard that was split, each half gets half of the records.
    halvings: u32,
}

#[derive(Debug)]
struct State {
    phases: Vec<Phase>,
    shards: Vec<LoadShard>,
}

/// A stream. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct LoadStream {
    name: StreamName,
    load: Load,
    begun: Instant,
    state: Arc<Mutex<State>>,
}

fn id(number: usize) -> ShardId {
    ShardId::new(format!("shardId-{number:012}")).expect("a plain name")
}

fn number_of(shard: &ShardId) -> usize {
    let digits = shard.as_str().strip_prefix("shardId-").and_then(|digits| digits.parse().ok());
    digits.expect("it is a shard of this stream")
}

impl State {
    /// The times between which a shard gets records at one pace: from, to, and milliseconds between two records.
    fn spans(&self, shard: &LoadShard, now_ms: u64) -> Vec<(u64, u64, u64)> {
        let ends = self.phases.iter().skip(1).map(|phase| phase.from_ms).chain([u64::MAX]);
        let last = shard.closed_ms.unwrap_or(u64::MAX).min(now_ms);
        let span = |(phase, end): (&Phase, u64)| {
            let (from, to) = (phase.from_ms.max(shard.opened_ms), end.min(last));
            (phase.every_ms > 0 && from < to).then_some((from, to, phase.every_ms << shard.halvings))
        };
        self.phases.iter().zip(ends).filter_map(span).collect()
    }

    /// The number of records that have arrived.
    fn arrived(&self, shard: &LoadShard, now_ms: u64) -> u64 {
        self.spans(shard, now_ms).into_iter().map(|(from, to, every)| (to - from + offset(shard, every)) / every).sum()
    }

    /// When a record arrived, or will arrive at the pace of now: milliseconds since the run began.
    fn arrival_ms(&self, shard: &LoadShard, number: u64) -> u64 {
        let mut before = 0;
        for (from, to, every) in self.spans(shard, u64::MAX) {
            let count = (to - from).saturating_add(offset(shard, every)) / every;
            if number <= before + count {
                return (from + (number - before) * every).saturating_sub(offset(shard, every));
            }
            before += count;
        }
        u64::MAX
    }
}

/// Shards do not get their records at the same moments.
fn offset(shard: &LoadShard, every_ms: u64) -> u64 {
    (number_of(&shard.id) as u64).wrapping_mul(7_919) % every_ms
}

impl LoadStream {
    /// A stream of `shards` shards.
    pub fn new(shards: usize, load: Load) -> Self {
        let shard = |number| LoadShard {
            id: id(number),
            parents: Vec::new(),
            children: Vec::new(),
            opened_ms: 0,
            closed_ms: None,
            halvings: 0,
        };
        let phases = vec![Phase { from_ms: 0, every_ms: load.record_every_ms }];
        let state = State { phases, shards: (0..shards).map(shard).collect() };
        let name = StreamName::new("records").expect("a plain name");
        LoadStream { name, load, begun: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the run began.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Multiplies the load at the beginning from now on. With 0 nothing more arrives.
    pub fn multiply(&self, by: u64) {
        let (from_ms, before) = (self.now_ms(), self.load.record_every_ms);
        self.state().phases.push(Phase { from_ms, every_ms: before.checked_div(by).map_or(0, |every| every.max(1)) });
    }

    /// Splits every open shard into two.
    pub fn split_all(&self) {
        let now_ms = self.now_ms();
        let mut state = self.state();
        for parent in 0..state.shards.len() {
            if state.shards[parent].closed_ms.is_some() {
                continue;
            }
            let of = state.shards[parent].clone();
            for _ in 0..2 {
                let child = LoadShard {
                    id: id(state.shards.len()),
                    parents: vec![of.id.clone()],
                    children: Vec::new(),
                    opened_ms: now_ms,
                    closed_ms: None,
                    halvings: of.halvings + 1,
                };
                state.shards[parent].children.push(child.id.clone());
                state.shards.push(child);
            }
            state.shards[parent].closed_ms = Some(now_ms);
        }
    }

    /// The shards that were never split.
    pub fn open_shards(&self) -> usize {
        self.state().shards.iter().filter(|shard| shard.closed_ms.is_none()).count()
    }

    /// The records that have arrived in all shards.
    pub fn records(&self) -> u64 {
        let now_ms = self.now_ms();
        let state = self.state();
        state.shards.iter().map(|shard| state.arrived(shard, now_ms)).sum()
    }

    /// The age of the first record after a position, in milliseconds, and the number of records after it; `None` if there is none.
    pub fn after(&self, shard: &ShardId, position: &Position) -> Option<(u64, u64)> {
        let (now_ms, state) = (self.now_ms(), self.state());
        let shard = &state.shards[number_of(shard)];
        let (arrived, read) = (state.arrived(shard, now_ms), read_through(position));
        (read < arrived).then(|| (now_ms - state.arrival_ms(shard, read + 1).min(now_ms), arrived - read))
    }
}

/// The number of records up to a position.
fn read_through(position: &Position) -> u64 {
    match position {
        Position::At { sequence, .. } => sequence.to_string().parse().expect("a number of this stream"),
        Position::End => u64::MAX,
        _ => 0,
    }
}

/// A stream behind one worker's requests.
#[derive(Debug, Clone)]
pub struct CountedStream {
    pub(super) stream: LoadStream,
    pub(super) caller: Arc<Caller>,
}

impl CountedStream {
    async fn request(&self, operation: Operation, count: usize) {
        self.caller.charge(count as u64);
        self.caller.send(operation, count, 1).await;
    }
}

#[async_trait]
impl ShardSource for CountedStream {
    fn stream(&self) -> &StreamName {
        &self.stream.name
    }

    fn lists_every(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        let shards = self.stream.state().shards.len();
        self.request(Operation::ListShards, shards.div_ceil(LIST_PAGE)).await;
        let state = self.stream.state();
        let listed =
            |shard: &LoadShard| SourceShard { parents: shard.parents.clone(), ..SourceShard::alone(shard.id.clone()) };
        Ok(state.shards.iter().map(listed).collect())
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let (source, shard, after) = (self.clone(), shard.clone(), after.clone());
        let next = read_through(&after);
        Ok(Box::new(LoadReader {
            source,
            shard,
            after,
            next,
            not_before: Instant::now(),
            is_begun: false,
            behind: None,
        }))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        Ok(self.stream.after(shard, position).map_or(Behind::Nothing, |(ms, _)| Behind::Time(ms.max(1))))
    }

    async fn is_same(&self) -> Result<(), SourceError> {
        self.request(Operation::DescribeStreamSummary, 1).await;
        Ok(())
    }

    async fn may_commit(&self) -> Result<(), SourceError> {
        self.request(Operation::DescribeStreamSummary, 1).await;
        Ok(())
    }
}

struct LoadReader {
    source: CountedStream,
    shard: ShardId,
    after: Position,
    /// Records that were read.
    next: u64,
    not_before: Instant,
    is_begun: bool,
    behind: Option<Behind>,
}

/// What a response of the stream has.
enum Answer {
    Records { first: u64, arrivals: Vec<u64>, behind_ms: u64 },
    Tip,
    End(Vec<ShardId>),
}

impl LoadReader {
    fn answer(&self, bytes: usize) -> Answer {
        let stream = &self.source.stream;
        let (now_ms, state) = (stream.now_ms(), stream.state());
        let shard = &state.shards[number_of(&self.shard)];
        let arrived = state.arrived(shard, now_ms);
        if self.next >= arrived {
            return if shard.closed_ms.is_some() { Answer::End(shard.children.clone()) } else { Answer::Tip };
        }
        let most = (bytes as u64).min(ANSWER_BYTES_MAX) / stream.load.record_bytes;
        let count = (arrived - self.next).min(most.max(1));
        let arrivals = (1..=count).map(|number| state.arrival_ms(shard, self.next + number)).collect();
        let following = (self.next + count < arrived).then(|| state.arrival_ms(shard, self.next + count + 1));
        Answer::Records {
            first: self.next + 1,
            arrivals,
            behind_ms: following.map_or(0, |at| now_ms.saturating_sub(at)),
        }
    }

    fn chunk(&self, first: u64, arrivals: &[u64], mut buffer: Vec<u8>) -> Chunk {
        let (shard, partitions) = (number_of(&self.shard), self.source.stream.load.partitions);
        let mut text = String::new();
        let mut frames = Vec::with_capacity(arrivals.len());
        for (number, arrival_ms) in (first..).zip(arrivals) {
            let at = BEGUN_MS + i64::try_from(*arrival_ms).expect("a run lasts hours");
            let kind = (shard as u64 + number) % partitions;
            text.clear();
            let _ = write!(text, "{{\"id\":\"{shard}-{number}\",\"at\":{at},\"kind\":\"k{kind}\"}}");
            let begin = u32::try_from(buffer.len()).expect("chunks are small");
            buffer.extend_from_slice(text.as_bytes());
            let end = u32::try_from(buffer.len()).expect("chunks are small");
            buffer.push(b'\n');
            frames.push(Frame {
                bytes: begin..end,
                sequence: number.to_string().into(),
                sub_sequence: 0,
                arrival_ms: Some(at),
                partition_key: None,
                damage: None,
            });
        }
        let stream: Arc<str> = self.source.stream.name.as_str().into();
        Chunk::new(stream, self.shard.as_str().into(), 0, buffer, Framing::Records(frames))
    }
}

#[async_trait]
impl ShardReader for LoadReader {
    async fn ready(&mut self, idle: Duration) {
        tokio::time::sleep_until(self.not_before.max(Instant::now() + idle)).await;
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        if !self.is_begun {
            self.source.request(Operation::GetShardIterator, 1).await;
            self.is_begun = true;
        }
        self.source.caller.send(Operation::GetRecords, 1, 1).await;
        let answer = self.answer(bytes);
        let (records, record_bytes) = match &answer {
            Answer::Records { arrivals, .. } => (arrivals.len() as u64, self.source.stream.load.record_bytes),
            Answer::Tip | Answer::End(_) => (0, 0),
        };
        let read_bytes = records * record_bytes;
        let pace = Duration::from_micros(read_bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND);
        self.not_before = Instant::now() + pace.max(BETWEEN_READS);
        self.source.caller.process(read_bytes).await;
        Ok(match answer {
            Answer::End(children) => Read::End { children },
            Answer::Tip => {
                self.behind = Some(Behind::Nothing);
                Read::AtTip
            }
            Answer::Records { first, arrivals, behind_ms } => {
                self.behind = Some(if behind_ms == 0 { Behind::Nothing } else { Behind::Time(behind_ms) });
                self.next += records;
                self.after = Position::at(SequenceNumber::from(self.next));
                let chunk = self.chunk(first, &arrivals, buffer);
                Read::Chunk { chunk, through: self.after.clone(), source_bytes: read_bytes }
            }
        })
    }

    fn behind(&self) -> Option<Behind> {
        self.behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn records_arrive_at_the_pace_of_the_load_and_at_half_of_it_after_a_split() {
        let load = Load { record_bytes: 1_000, record_every_ms: 1_000, partitions: 1 };
        let stream = LoadStream::new(3, load);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(stream.records(), 300);
        stream.multiply(10);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(stream.records(), 600);
        stream.split_all();
        assert_eq!(stream.open_shards(), 6);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(stream.records(), 900);
        stream.multiply(0);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(stream.records(), 900);
        // Every record has a time, in order, and none arrives before it.
        let state = stream.state();
        for shard in &state.shards {
            let times: Vec<u64> =
                (1..=state.arrived(shard, 130_000)).map(|number| state.arrival_ms(shard, number)).collect();
            assert!(times.is_sorted() && times.last().is_some_and(|last| *last <= 120_000), "{times:?}");
            for (number, at) in (1..).zip(&times) {
                assert!(state.arrived(shard, *at) >= number, "record {number} of {} at {at}", shard.id);
            }
        }
    }
}
