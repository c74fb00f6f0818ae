//! A Kinesis stream as shards.
//!
//! Owns: what all shards of a stream have in common: its identity, its start, how its shards are read. Each other concern has a file:
//!
//! | file | owns |
//! |---|---|
//! | `start` | where reading starts, permanently |
//! | `shards` | the list of shards |
//! | `polling`, `fanout`, `consumer` | the two ways to read |
//! | `answer`, `decode` | GetRecords |
//! | `batch`, `kpl` | records to frames |
//! | `cursor` | positions |
//! | `pace` | the rate of requests |
//! | `service` | what a failure means |
//! | `backend` | URL, keys of the configuration, permissions |
//!
//! Limits: those of the service, see [`Limits`].

mod answer;
pub(in crate::source) mod backend;
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
use pipeline::chunk::Chunk;
use pipeline::documents::Documents;

use crate::clock::SharedClock;
use crate::lake::ObjectStore;
use crate::retry::RetryPolicy;
use crate::source::kinesis::answer::GetRecordsClient;
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
    /// How records are read.
    pub mode: Mode,
    /// Bytes that a record may have; a larger one is a dead letter. If a record may have many documents, this is for each of them.
    pub record_bytes_max: usize,
    /// How many documents a record may have.
    pub documents: Documents,
    /// How responses are decoded.
    pub decode: Decode,
    /// What the service allows.
    pub limits: Limits,
    /// For how long trouble of the service is waited for: when the stream is opened, and for a shard that makes no progress.
    pub retry_within: Duration,
    /// The time that `latest` means, and the arrival time of a record without one.
    pub clock: SharedClock,
}

/// How records are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// By GetRecords. All consumers of a shard share 2 MB a second.
    Polling,
    /// By SubscribeToShard: 2 MB a second for this consumer alone, at a price.
    FanOut {
        /// The consumer's name. It is registered if it does not exist.
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
    /// The ARN of the consumer, if shards are subscribed to.
    consumer: Option<String>,
    /// A client whose calls the SDK retries.
    retrying_client: aws_sdk_kinesis::Client,
    /// A client whose calls are sent once: the reader decides how long to wait.
    client: aws_sdk_kinesis::Client,
    records: GetRecordsClient,
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
        let chunk = batch.into_chunk(self.name.as_str().into(), shard.as_str().into(), self.config.clock.now_ms());
        chunk.with_documents(self.config.documents)
    }
}

impl KinesisConfig {
    /// Bytes that a record of the stream may have, before it is divided into documents.
    fn whole_record_bytes_max(&self) -> usize {
        if self.documents.many { usize::MAX } else { self.record_bytes_max }
    }
}

impl KinesisSource {
    /// Opens a stream. Its start is recorded in the lake if this is the first time.
    ///
    /// # Errors
    /// There is no such stream, or it is not the one that the lake has under this name; a permission is missing; the service or the
    /// lake is unavailable.
    pub async fn open(
        client: aws_sdk_kinesis::Client,
        config: KinesisConfig,
        lake: Arc<dyn ObjectStore>,
    ) -> Result<Self, SourceError> {
        let place = format!("stream {}", config.stream);
        let name = StreamName::new(config.name.as_deref().unwrap_or(&config.stream))
            .map_err(|error| SourceError::Unreadable { place: place.clone(), problem: error.to_string() })?;
        let retry = RetryPolicy::within(config.retry_within);
        let described = retry.run(&format!("describing {place}"), || describe(&client, &config.stream)).await;
        let identity = described.map_err(|failure| failure.at(&place))?;
        let start = settle(&lake, &config.clock, &name, &identity, config.start, retry).await?;
        let consumer = match &config.mode {
            Mode::Polling => None,
            Mode::FanOut { consumer } => {
                let registering = || registered(&client, &identity, consumer, &place);
                let registered = retry.run(&format!("registering consumer {consumer}"), registering).await;
                registered.map_err(|failure| failure.at(&place))?
            }
        };
        let once = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        let once = aws_sdk_kinesis::Client::from_conf(once);
        let records = GetRecordsClient::new(once.clone(), config.decode);
        let stream = Stream { name, identity, start, config, consumer, retrying_client: client, client: once, records };
        Ok(KinesisSource { stream: Arc::new(stream) })
    }

    /// The stream's name in KCL if one application reads several streams: `account:stream:second of its creation`.
    pub fn serialized_id(&self) -> String {
        let Identity { arn, created_ms } = &self.stream.identity;
        let account = arn.split(':').nth(4).unwrap_or_default();
        format!("{account}:{}:{}", self.stream.config.stream, created_ms.div_euclid(1000))
    }
}

/// The ARN of the consumer; `None` if it cannot be registered, so that the stream is polled.
async fn registered(
    client: &aws_sdk_kinesis::Client,
    identity: &Identity,
    name: &str,
    place: &str,
) -> Result<Option<String>, Failure> {
    let registering = format!("registering consumer {name}");
    match RetryPolicy::REGISTER_CONSUMER.run(&registering, || consumer::consumer(client, &identity.arn, name)).await {
        Ok(arn) => Ok(Some(arn)),
        // The error for too many consumers is the same as for too many calls.
        Err(failure @ (Failure::Refused(_) | Failure::Throttled(_))) => {
            tracing::warn!(place, consumer = name, %failure, "failed to register the consumer; polling the stream");
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// The identity of the stream.
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
        StreamStatus::Creating => Err(Failure::InUse("the stream is still being created".to_owned())),
        StreamStatus::Deleting => Err(Failure::Refused("the stream is being deleted".to_owned())),
        _ => Ok(Identity { arn: stream_arn, created_ms: millis(&stream_creation_timestamp) }),
    }
}

#[async_trait]
impl ShardSource for KinesisSource {
    fn stream(&self) -> &StreamName {
        &self.stream.name
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::shard(self.stream.config.retry_within)
    }

    /// The end of a shard shows a reshard at once; this interval is for anything else.
    fn lists_every(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        let Stream { retrying_client, config, start, name, .. } = &*self.stream;
        // Whoever lists shards does so at intervals, and tells what fails.
        let listed = shards::list(retrying_client, &config.stream, start).await;
        listed.map_err(|failure| failure.at(&format!("stream {name}")))
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let Some(cursor) = Cursor::new(after) else { return Ok(Box::new(EndedReader)) };
        let (stream, shard) = (Arc::clone(&self.stream), shard.clone());
        match self.stream.consumer.clone() {
            None => Ok(Box::new(PollingReader::new(stream, shard, cursor))),
            Some(consumer) => Ok(Box::new(FanOutReader::new(stream, shard, consumer, cursor))),
        }
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let Some(cursor) = Cursor::new(position) else { return Ok(Behind::Nothing) };
        // This ignores the rest of an aggregate of which another consumer committed half.
        let begin = match cursor.begin() {
            Begin::At(sequence) => Begin::After(sequence.clone()),
            begin => begin.clone(),
        };
        let place = self.stream.place(shard);
        let behind = RetryPolicy::CALL.run(&format!("reading {place}"), || self.probe(shard, &begin)).await;
        if let Err(Failure::Forgotten(_)) = behind {
            return Ok(Behind::Nothing);
        }
        behind.map_err(|failure| failure.at(&place))
    }
}

impl KinesisSource {
    /// Reads the first record from there on.
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

/// The reader of a shard that was read to its end before.
struct EndedReader;

#[async_trait]
impl ShardReader for EndedReader {
    async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
        Ok(Read::End { children: Vec::new() })
    }
}

#[cfg(test)]
mod tests;
