//! A shard whose records are sent: enhanced fan-out.
//!
//! Owns: the subscription, when it is renewed, and when the shard is asked instead. Does not own: the consumer (`consumer`),
//! what an event's records become (`batch`), the position (`cursor`).
//!
//! A subscription lasts five minutes at most and sends an event every five seconds at least, also an empty one. The next one
//! begins behind what was read, where the last event said to go on; what an old one still had on its way is sent again by
//! the new one. So it makes no difference why a subscription ends, or whether an event was lost with it.
//!
//! | what happens | what is done |
//! |---|---|
//! | the subscription ends at its time | the next one |
//! | no event for 20 s | the next one, after a pause |
//! | a failure that may pass: an end before its time, a subscription too soon after the last (5 s) | the next one, after a pause |
//! | five failures without a record between them, or one that does not pass | the shard is polled for 10 minutes, then subscribed to again |
//!
//! So a failure is never this reader's: if the shard can't be read at all, polling says so.
//!
//! Limits: one event waits in memory for its place in the budget, a few MB a shard at most; what the service has sent
//! beyond is held up by HTTP/2's flow control.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{SubscribeToShardEvent, SubscribeToShardEventStream};
use checkpoints::{SequenceNumber, ShardId};
use tokio::time::Instant;

use crate::retry::Retryable;
use crate::source::kinesis::Stream;
use crate::source::kinesis::answer::add_all;
use crate::source::kinesis::batch::Batch;
use crate::source::kinesis::cursor::Cursor;
use crate::source::kinesis::pace::Pace;
use crate::source::kinesis::polling::PollingReader;
use crate::source::kinesis::service::Failure;
use crate::source::{Read, ShardReader, SourceError};

/// The longest silence of a subscription that is well.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// The age at which a subscription may end; the service ends it at five minutes.
const AGE_MIN: Duration = Duration::from_secs(240);
/// How long a subscription may take to begin.
pub(super) const SUBSCRIBE_MAX: Duration = Duration::from_secs(15);
/// The least time between the beginnings of two subscriptions.
pub(super) const BETWEEN_SUBSCRIPTIONS: Duration = Duration::from_secs(5);
/// Failures in a row after which a shard is polled.
const FAILURES_MAX: u32 = 5;
/// How long it is polled then.
pub(super) const POLLED: Duration = Duration::from_secs(600);

/// Reads a shard by subscribing to it.
pub(super) struct FanOutReader {
    stream: Arc<Stream>,
    shard: ShardId,
    /// ARN.
    consumer: String,
    way: Way,
}

/// How the shard is read for now.
enum Way {
    Sent(Box<Sent>),
    Asked { reader: Box<PollingReader>, until: Instant },
}

/// A shard that is subscribed to, or will be.
struct Sent {
    cursor: Cursor,
    pace: Pace,
    session: Option<Session>,
    /// What came while nobody read.
    came: Option<Came>,
    /// Set at the shard's end.
    children: Option<Vec<ShardId>>,
}

/// A subscription.
struct Session {
    output: SubscribeToShardOutput,
    begun: Instant,
}

/// What came of waiting.
enum Came {
    Event(Box<SubscribeToShardEvent>),
    Failure(Failure),
}

impl FanOutReader {
    pub(super) fn new(stream: Arc<Stream>, shard: ShardId, consumer: String, cursor: Cursor) -> Self {
        let way = Way::Sent(Box::new(Sent::new(&stream, &shard, cursor)));
        FanOutReader { stream, shard, consumer, way }
    }

    /// Goes on behind what was read, by the other way.
    fn poll(&mut self, cursor: Cursor, failure: &Failure) {
        let shard = &self.shard;
        tracing::warn!(%shard, %failure, minutes = POLLED.as_secs() / 60, "the shard is polled, and subscribed to again later");
        let reader = Box::new(PollingReader::new(Arc::clone(&self.stream), shard.clone(), cursor));
        self.way = Way::Asked { reader, until: Instant::now() + POLLED };
    }
}

impl Sent {
    fn new(stream: &Stream, shard: &ShardId, cursor: Cursor) -> Self {
        Sent { cursor, pace: Pace::new(stream.config.limits, shard), session: None, came: None, children: None }
    }

    /// Waits until something came. May be dropped meanwhile: a subscription that was being looked at is dropped with it,
    /// and with it an event that may have been taken from it.
    async fn wait(&mut self, stream: &Stream, shard: &ShardId, consumer: &str) {
        while self.came.is_none() {
            self.came = self.step(stream, shard, consumer).await;
        }
    }

    async fn step(&mut self, stream: &Stream, shard: &ShardId, consumer: &str) -> Option<Came> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match self.subscribe(stream, shard, consumer).await {
                Ok(session) => session,
                Err(failure) => return Some(Came::Failure(failure)),
            },
        };
        let unavailable = |problem: &str| Some(Came::Failure(Failure::Unavailable(problem.to_owned())));
        match tokio::time::timeout(SILENCE_MAX, session.output.event_stream.recv()).await {
            Ok(Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)))) => {
                self.session = Some(session);
                Some(Came::Event(Box::new(event)))
            }
            // An event of a later version of the service.
            Ok(Ok(Some(_))) => {
                self.session = Some(session);
                None
            }
            Ok(Ok(None)) if session.begun.elapsed() >= AGE_MIN => None,
            Ok(Ok(None)) => unavailable("SubscribeToShard: the subscription ended before its time"),
            Ok(Err(error)) => Some(Came::Failure(Failure::of_event(&error))),
            Err(_) => unavailable("SubscribeToShard: no event for 20 s"),
        }
    }

    async fn subscribe(&mut self, stream: &Stream, shard: &ShardId, consumer: &str) -> Result<Session, Failure> {
        self.pace.wait(Duration::ZERO).await;
        // Before the request: if it takes effect and its answer is lost, the five seconds count all the same.
        self.pace.not_before(Instant::now() + BETWEEN_SUBSCRIPTIONS);
        let now_ms = stream.config.clock.now_ms();
        let begin = self.cursor.begin();
        let call = stream.client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard.as_str());
        let call = call.starting_position(begin.starting_position());
        let output = match tokio::time::timeout(SUBSCRIBE_MAX, call.send()).await {
            Ok(answer) => answer.map_err(|error| begin.refused(Failure::of("SubscribeToShard", &error)))?,
            Err(_) => return Err(Failure::Unavailable("SubscribeToShard: no answer in time".to_owned())),
        };
        self.cursor.begun(now_ms);
        Ok(Session { output, begun: Instant::now() })
    }

    /// An event becomes a chunk, the tip, or the end.
    async fn event(
        &mut self,
        event: SubscribeToShardEvent,
        stream: &Stream,
        shard: &ShardId,
        buffer: Vec<u8>,
    ) -> Result<Read, Failure> {
        let batch = Batch::new(buffer, self.cursor.position().clone(), stream.config.record_bytes_max);
        let batch = add_all(batch, event.records).await?;
        self.cursor.read(&batch, shard);
        // An empty event proves nothing: some stand-ins send one on a closed shard, and never say that it has ended.
        if batch.records() > 0 || self.session.as_ref().is_some_and(|session| session.begun.elapsed() >= AGE_MIN) {
            self.pace.succeeded();
        }
        let children = event.child_shards.unwrap_or_default();
        let has_ended = !children.is_empty() || event.continuation_sequence_number.is_empty();
        let (records, source_bytes) = (batch.records(), batch.bytes());
        if has_ended {
            self.session = None;
            let children = children.into_iter().filter_map(|child| ShardId::new(child.shard_id).ok());
            let children = self.children.insert(children.collect());
            if records == 0 {
                return Ok(Read::End { children: children.clone() });
            }
        } else {
            if let Ok(sequence) = SequenceNumber::try_from(event.continuation_sequence_number) {
                self.cursor.go_on_behind(sequence);
            }
            if records == 0 && event.millis_behind_latest <= 0 {
                return Ok(Read::AtTip);
            }
        }
        let through = batch.through();
        Ok(Read::Chunk { chunk: stream.chunk(shard, batch), through, source_bytes })
    }
}

#[async_trait]
impl ShardReader for FanOutReader {
    async fn ready(&mut self, idle: Duration) {
        let FanOutReader { stream, shard, consumer, way } = self;
        match way {
            Way::Sent(sent) if sent.children.is_some() => {}
            Way::Sent(sent) => sent.wait(stream, shard, consumer).await,
            Way::Asked { reader, until } if Instant::now() >= *until && !reader.has_ended() => {
                let mut sent = Box::new(Sent::new(stream, shard, reader.cursor().clone()));
                sent.wait(stream, shard, consumer).await;
                *way = Way::Sent(sent);
            }
            Way::Asked { reader, .. } => reader.ready(idle).await,
        }
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        let FanOutReader { stream, shard, consumer, way } = &mut *self;
        let sent = match way {
            Way::Asked { reader, .. } => return reader.read(bytes, buffer).await,
            Way::Sent(sent) => sent,
        };
        if let Some(children) = &sent.children {
            return Ok(Read::End { children: children.clone() });
        }
        sent.wait(stream, shard, consumer).await;
        let failure = match sent.came.take().expect("it was waited for") {
            Came::Failure(failure) => failure,
            Came::Event(event) => match sent.event(*event, stream, shard, buffer).await {
                Ok(read) => return Ok(read),
                Err(failure) => failure,
            },
        };
        sent.session = None;
        let (times, _) = sent.pace.failed();
        let cursor = sent.cursor.clone();
        let nothing = stream.nothing(shard, cursor.position());
        if !failure.is_retryable() || times >= FAILURES_MAX {
            self.poll(cursor, &failure);
        } else {
            tracing::debug!(shard = %self.shard, times, %failure, "the shard is subscribed to again");
        }
        Ok(nothing)
    }
}
