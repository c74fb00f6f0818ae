//! A Kinesis stream as shards.
//!
//! Owns: what all shards of a stream have in common: its start, how its shards are read. Each other concern has a file:
//!
//! | file | owns |
//! |---|---|
//! | `identity` | which stream this is, and the time of the service |
//! | `start` | where reading starts, permanently |
//! | `shards` | the list of shards |
//! | `polling`, `fanout`, `subscription`, `consumer` | the two ways to read |
//! | `answer`, `decode` | GetRecords |
//! | `batch`, `kpl` | records to frames |
//! | `cursor` | positions |
//! | `pace` | the rate of requests |
//! | `requests` | how a request names the stream |
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
mod diagnose;
mod fanout;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod identity;
mod kpl;
mod pace;
mod polling;
mod requests;
mod service;
mod shards;
mod start;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::types::StreamStatus;
use checkpoints::{Position, ShardId, StreamName};
use mutations::mutated;
use pipeline::chunk::Chunk;
use pipeline::documents::Documents;

use crate::clock::SharedClock;
use crate::lake::ObjectStore;
use crate::retry::RetryPolicy;
use crate::source::kinesis::answer::GetRecordsClient;
use crate::source::kinesis::batch::{Batch, millis};
use crate::source::kinesis::cursor::{Begin, Cursor};
use crate::source::kinesis::fanout::FanOutReader;
use crate::source::kinesis::identity::{DATE_MARGIN_MS, Described, Identity, ServiceClock, Watch};
use crate::source::kinesis::polling::PollingReader;
use crate::source::kinesis::service::Failure;
use crate::source::kinesis::start::settle;
use crate::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};

pub use answer::Decode;
pub use pace::Limits;
pub use start::Start;

/// How a stream is read.
#[derive(Clone)]
pub struct KinesisConfig {
    /// The stream's name, or its ARN.
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
    /// Whether reading ends at what was there when the stream was opened, although more arrives.
    pub bounded: bool,
    /// The arrival time of a record without one.
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
    watch: Watch,
    /// The time of the service.
    clock: ServiceClock,
    /// Records that arrived at this time or later need not be read. Milliseconds since 1970.
    goal_ms: Option<i64>,
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
        self.watch.returning(batch.newest_ms());
        let chunk = batch.into_chunk(self.name.as_str().into(), shard.as_str().into(), self.config.clock.now_ms());
        chunk.with_documents(self.config.documents)
    }

    /// The time of the service, or this machine's if the service never said it.
    fn now_ms(&self) -> i64 {
        self.clock.now_ms().unwrap_or_else(|| self.config.clock.now_ms())
    }

    /// Whether a record that arrived then was not there when the stream was opened, and reading ends at what was.
    fn is_past_goal(&self, arrival_ms: Option<i64>) -> bool {
        self.goal_ms.zip(arrival_ms).is_some_and(|(goal_ms, arrival_ms)| arrival_ms >= goal_ms)
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
        // Boxed: the futures of the SDK are deep.
        Box::pin(Self::open_unboxed(client, config, lake)).await
    }

    async fn open_unboxed(
        client: aws_sdk_kinesis::Client,
        config: KinesisConfig,
        lake: Arc<dyn ObjectStore>,
    ) -> Result<Self, SourceError> {
        let place = format!("stream {}", config.stream);
        let name = StreamName::new(config.name.as_deref().unwrap_or(requests::own_name(&config.stream)))
            .map_err(|error| SourceError::Unreadable { place: place.clone(), problem: error.to_string() })?;
        let retry = RetryPolicy::within(config.retry_within);
        let clock = ServiceClock::default();
        let described = retry.run(&format!("describing {place}"), || describe(&client, &config.stream, &clock)).await;
        let identity = described.map_err(|failure| failure.at(&place))?;
        let now_ms = if mutated!(LatestByOwnClock) { Some(config.clock.now_ms()) } else { clock.now_ms() };
        let start = settle(&lake, now_ms, &name, &identity, config.start, retry).await?;
        // A header has whole seconds, rounded down.
        let goal_ms = clock.now_ms().filter(|_| config.bounded).map(|now_ms| now_ms + 1_000 + DATE_MARGIN_MS);
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
        let records = GetRecordsClient::new(once.clone(), &config.stream, config.decode);
        let watch = Watch::default();
        let retrying_client = client;
        let stream = Stream {
            name,
            identity,
            watch,
            clock,
            goal_ms,
            start,
            config,
            consumer,
            retrying_client,
            client: once,
            records,
        };
        Ok(KinesisSource { stream: Arc::new(stream) })
    }

    /// The stream's name in KCL if one application reads several streams: `account:stream:second of its creation`.
    pub fn serialized_id(&self) -> String {
        let Identity { arn, created_ms } = &self.stream.identity;
        let account = arn.split(':').nth(4).unwrap_or_default();
        format!("{account}:{}:{}", requests::own_name(&self.stream.config.stream), created_ms.div_euclid(1000))
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

/// The identity of a stream that can be read.
async fn describe(client: &aws_sdk_kinesis::Client, stream: &str, clock: &ServiceClock) -> Result<Identity, Failure> {
    let described = identity::describe(client, stream, clock).await.map_err(|failure| match failure {
        Failure::NotFound(message) => {
            Failure::NotFound(format!("there is no such stream in this account and region ({message})"))
        }
        failure => failure,
    })?;
    let Described { identity, status, .. } = described;
    match status {
        StreamStatus::Creating => Err(Failure::InUse("the stream is still being created".to_owned())),
        StreamStatus::Deleting => Err(Failure::Refused("the stream is being deleted".to_owned())),
        _ => Ok(identity),
    }
}

/// Checks that a stream is the one that the lake has under this name, if the lake has one. A stream that cannot be described passes.
async fn check_identity(
    client: &aws_sdk_kinesis::Client,
    stream: &str,
    name: &StreamName,
    lake: &Arc<dyn ObjectStore>,
) -> Result<(), SourceError> {
    let clock = ServiceClock::default();
    let described = RetryPolicy::CALL
        .run(&format!("describing stream {name}"), || identity::describe(client, stream, &clock))
        .await;
    match described {
        Ok(Described { identity, .. }) => start::check(lake, name, &identity).await,
        Err(_) => Ok(()),
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
        if let Err(Failure::NotFound(_)) = listed {
            self.stream.watch.suspect();
            self.stream.is_same().await?;
        }
        listed.map_err(|failure| failure.at(&format!("stream {name}")))
    }

    async fn is_same(&self) -> Result<(), SourceError> {
        self.stream.is_same().await
    }

    async fn may_commit(&self) -> Result<(), SourceError> {
        self.stream.may_commit().await
    }

    async fn replaced(&self) -> SourceError {
        self.stream.watch.replaced().await
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let Some(cursor) = Cursor::new(after) else { return Ok(Box::new(EndedReader)) };
        let (stream, shard) = (Arc::clone(&self.stream), shard.clone());
        match self.stream.consumer.clone() {
            None => Ok(Box::new(PollingReader::new(stream, shard, cursor))),
            Some(consumer) => Ok(Box::new(FanOutReader::new(stream, shard, consumer, cursor))),
        }
    }

    async fn retention(&self) -> Result<Option<Duration>, SourceError> {
        let stream = &*self.stream;
        let place = format!("stream {}", stream.name);
        let asking = || identity::describe(&stream.retrying_client, &stream.config.stream, &stream.clock);
        let described = RetryPolicy::CALL.run(&format!("describing {place}"), asking).await;
        let Described { identity, retention, .. } = described.map_err(|failure| failure.at(&place))?;
        if !stream.identity.is(&identity) {
            return Err(stream.identity.replaced_by(&identity, &place));
        }
        Ok(Some(retention))
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
            // There is nothing left of a shard that the stream has forgotten.
            self.stream.is_same().await?;
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
        let call = requests::records(&stream.client, &stream.config.stream).shard_iterator(iterator).limit(1);
        let answer = call.send().await.map_err(|error| Failure::of("GetRecords", &error))?;
        let behind_ms = answer.millis_behind_latest.unwrap_or(0).max(0);
        let first_ms = answer.records.first().map(|record| record.approximate_arrival_timestamp.as_ref().map(millis));
        Ok(match first_ms {
            Some(arrival_ms) if stream.is_past_goal(arrival_ms) => Behind::Nothing,
            Some(arrival_ms) => {
                let age = arrival_ms.map_or(0, |arrival_ms| stream.now_ms().saturating_sub(arrival_ms));
                Behind::Time(u64::try_from(behind_ms.max(age).max(1)).unwrap_or(1))
            }
            None if behind_ms == 0 || answer.next_shard_iterator.is_none() => Behind::Nothing,
            None => Behind::Time(u64::try_from(behind_ms).unwrap_or(1)),
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
