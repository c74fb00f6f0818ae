//! A Kinesis stream as shards.
//!
//! Owns: what is common to all shards of a stream: its identity, its start, how its shards are read. Does not own: one
//! concern each of `start` (where reading starts, for good), `shards` (the list), `polling` and `fanout` (the two ways to
//! read), `answer` and `decode` (GetRecords), `batch` and `kpl` (records to frames), `cursor` (positions), `pace` (limits),
//! `service` (what a failure means).
//!
//! Permissions: `kinesis:DescribeStreamSummary`, `ListShards`, `GetShardIterator`, `GetRecords`; for enhanced fan-out also
//! `RegisterStreamConsumer`, `DescribeStreamConsumer`, `SubscribeToShard`; on an encrypted stream `kms:Decrypt`.
//!
//! Limits: those of the service, see [`Limits`].

mod answer;
mod batch;
mod consumer;
mod cursor;
mod decode;
mod fanout;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod kpl;
mod pace;
mod polling;
mod service;
mod shards;
mod start;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::types::{StreamDescriptionSummary, StreamStatus};
use checkpoints::{Position, ShardId, StreamName};
use pipeline::chunk::{Chunk, Framing};

use crate::clock::SharedClock;
use crate::lake::ObjectStore;
use crate::retry::RetryPolicy;
use crate::source::kinesis::answer::Asking;
use crate::source::kinesis::batch::{Batch, millis};
use crate::source::kinesis::cursor::{Begin, Cursor};
use crate::source::kinesis::fanout::FanOutReader;
use crate::source::kinesis::polling::PollingReader;
use crate::source::kinesis::service::Failure;
use crate::source::kinesis::start::{Identity, settle};
use crate::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};

pub use answer::Decode;
pub use pace::Limits;
pub use start::Start;

/// How a stream is read.
#[derive(Clone)]
pub struct KinesisConfig {
    /// The stream.
    pub stream: String,
    /// Its name in the lake; its own if `None`.
    pub name: Option<String>,
    /// Where the very first reading starts.
    pub start: Start,
    /// Asking for records, or being sent them.
    pub mode: Mode,
    /// Bytes that a record may have; a larger one is a dead letter.
    pub record_bytes_max: usize,
    /// How answers are decoded.
    pub decode: Decode,
    /// What the service allows.
    pub limits: Limits,
    /// Tells what `latest` means, and when a record without an arrival time arrived.
    pub clock: SharedClock,
}

/// The way records come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// They are asked for, with GetRecords. All consumers of a shard share 2 MB a second.
    Polling,
    /// They are sent, with SubscribeToShard: 2 MB a second for this consumer alone, at a price.
    FanOut {
        /// The consumer's name; registered if it is not there.
        consumer: String,
    },
}

/// A stream.
pub struct KinesisSource {
    stream: Arc<Stream>,
}

/// What all readers of a stream share.
struct Stream {
    name: StreamName,
    identity: Identity,
    start: Position,
    config: KinesisConfig,
    /// The ARN of the consumer, where shards are subscribed to.
    consumer: Option<String>,
    /// Repeats what failed, as the SDK does.
    patient: aws_sdk_kinesis::Client,
    /// Asks once: how long to wait is for the reader to say.
    client: aws_sdk_kinesis::Client,
    asking: Asking,
}

impl std::fmt::Debug for KinesisSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stream { name, identity, start, .. } = &*self.stream;
        f.debug_struct("KinesisSource").field("stream", name).field("identity", identity).field("start", start).finish()
    }
}

impl Stream {
    fn place(&self, shard: &ShardId) -> String {
        format!("shard {shard} of stream {}", self.name)
    }

    fn chunk(&self, shard: &ShardId, batch: Batch) -> Chunk {
        batch.into_chunk(self.name.as_str().into(), shard.as_str().into(), self.config.clock.now_ms())
    }

    /// A read that gave nothing, and moves nothing.
    fn nothing(&self, shard: &ShardId, position: &Position) -> Read {
        let (name, framing) = (self.name.as_str().into(), Framing::Records(Vec::new()));
        let chunk = Chunk::new(name, shard.as_str().into(), self.config.clock.now_ms(), Vec::new(), framing);
        Read::Chunk { chunk, through: position.clone(), source_bytes: 0 }
    }
}

impl KinesisSource {
    /// Opens a stream; its start is settled in the lake if it was not before.
    ///
    /// # Errors
    /// There is no such stream, or it is another one than the lake knows by this name; a permission is missing; service or
    /// lake stayed away.
    pub async fn open(
        client: aws_sdk_kinesis::Client,
        config: KinesisConfig,
        lake: Arc<dyn ObjectStore>,
    ) -> Result<Self, SourceError> {
        let place = format!("stream {}", config.stream);
        let name = StreamName::new(config.name.as_deref().unwrap_or(&config.stream))
            .map_err(|error| SourceError::Unreadable { place: place.clone(), problem: error.to_string() })?;
        let described = RetryPolicy::default().run(|| describe(&client, &config.stream)).await;
        let identity = described.map_err(|failure| failure.at(&place))?;
        let start = settle(&lake, &config.clock, &name, &identity, config.start).await?;
        let consumer = match &config.mode {
            Mode::Polling => None,
            Mode::FanOut { consumer } => registered(&client, &identity, consumer, &place).await?,
        };
        let once = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        let once = aws_sdk_kinesis::Client::from_conf(once);
        let asking = Asking::new(once.clone(), config.decode);
        let stream = Stream { name, identity, start, config, consumer, patient: client, client: once, asking };
        Ok(KinesisSource { stream: Arc::new(stream) })
    }

    /// The stream as KCL names it where one application reads several: `account:stream:second of its creation`.
    pub fn serialized_id(&self) -> String {
        let Identity { arn, created_ms } = &self.stream.identity;
        let account = arn.split(':').nth(4).unwrap_or_default();
        format!("{account}:{}:{}", self.stream.config.stream, created_ms.div_euclid(1000))
    }
}

/// The ARN of the consumer; `None` where there can't be one, and the stream is polled instead.
async fn registered(
    client: &aws_sdk_kinesis::Client,
    identity: &Identity,
    name: &str,
    place: &str,
) -> Result<Option<String>, SourceError> {
    let retry = RetryPolicy { retries: 4, first: Duration::from_millis(250), longest: Duration::from_secs(2) };
    match retry.run(|| consumer::consumer(client, &identity.arn, name)).await {
        Ok(arn) => Ok(Some(arn)),
        // Too many consumers is told in the same words as too many calls.
        Err(failure @ (Failure::Refused(_) | Failure::Throttled(_))) => {
            tracing::warn!(place, consumer = name, %failure, "no enhanced fan-out: the stream is polled");
            Ok(None)
        }
        Err(failure) => Err(failure.at(place)),
    }
}

/// Which stream this is.
async fn describe(client: &aws_sdk_kinesis::Client, stream: &str) -> Result<Identity, Failure> {
    let described = client.describe_stream_summary().stream_name(stream).send().await;
    let described = described.map_err(|error| match Failure::of("DescribeStreamSummary", &error) {
        Failure::NotFound(message) => {
            Failure::NotFound(format!("there is no such stream in this account and region ({message})"))
        }
        failure => failure,
    })?;
    let Some(summary) = described.stream_description_summary else {
        return Err(Failure::Unavailable("DescribeStreamSummary: no description".to_owned()));
    };
    let StreamDescriptionSummary { stream_arn, stream_creation_timestamp, stream_status, .. } = summary;
    match stream_status {
        StreamStatus::Creating => Err(Failure::InUse("the stream is still being made".to_owned())),
        StreamStatus::Deleting => Err(Failure::Refused("the stream is being deleted".to_owned())),
        _ => Ok(Identity { arn: stream_arn, created_ms: millis(&stream_creation_timestamp) }),
    }
}

#[async_trait]
impl ShardSource for KinesisSource {
    fn stream(&self) -> &StreamName {
        &self.stream.name
    }

    /// About five minutes: a service of Amazon's that stays away for longer is worth stopping for.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy { retries: 22, first: Duration::from_millis(200), longest: Duration::from_secs(20) }
    }

    /// A reshard is noticed at once by the end of a shard; this is for what else may come.
    fn lists_every(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        let Stream { patient, config, start, name, .. } = &*self.stream;
        let listed = RetryPolicy::default().run(|| shards::list(patient, &config.stream, start)).await;
        listed.map_err(|failure| failure.at(&format!("stream {name}")))
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let Some(cursor) = Cursor::new(after) else { return Ok(Box::new(Ended)) };
        let (stream, shard) = (Arc::clone(&self.stream), shard.clone());
        match self.stream.consumer.clone() {
            None => Ok(Box::new(PollingReader::new(stream, shard, cursor))),
            Some(consumer) => Ok(Box::new(FanOutReader::new(stream, shard, consumer, cursor))),
        }
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let Some(cursor) = Cursor::new(position) else { return Ok(Behind::Nothing) };
        // The rest of an aggregate of which another consumer committed half is not seen here.
        let begin = match cursor.begin() {
            Begin::At(sequence) => Begin::Behind(sequence.clone()),
            begin => begin.clone(),
        };
        let behind = RetryPolicy::default().run(|| self.probe(shard, &begin)).await;
        if let Err(Failure::Forgotten(_)) = behind {
            return Ok(Behind::Nothing);
        }
        behind.map_err(|failure| failure.at(&self.stream.place(shard)))
    }
}

impl KinesisSource {
    /// Looks at the first record from there on.
    async fn probe(&self, shard: &ShardId, begin: &Begin) -> Result<Behind, Failure> {
        let stream = &self.stream;
        let iterator = stream.iterator(shard, begin).await?;
        let call = stream.client.get_records().shard_iterator(iterator).limit(1);
        let answer = call.send().await.map_err(|error| Failure::of("GetRecords", &error))?;
        let behind_ms = u64::try_from(answer.millis_behind_latest.unwrap_or(0)).unwrap_or(0);
        Ok(match answer.records.first() {
            Some(record) => {
                let arrival_ms = record.approximate_arrival_timestamp.as_ref().map(millis);
                let age = arrival_ms.map_or(0, |arrival_ms| stream.config.clock.now_ms().saturating_sub(arrival_ms));
                Behind::Time(behind_ms.max(u64::try_from(age).unwrap_or(0)).max(1))
            }
            None if behind_ms == 0 || answer.next_shard_iterator.is_none() => Behind::Nothing,
            None => Behind::Time(behind_ms),
        })
    }
}

/// A shard that was read to its end before.
struct Ended;

#[async_trait]
impl ShardReader for Ended {
    async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
        Ok(Read::End { children: Vec::new() })
    }
}

#[cfg(test)]
mod tests;
