//! A shard that is read by subscribing to it: enhanced fan-out.
//!
//! Owns: when the subscription is renewed, and when the shard is polled instead. Does not own: the consumer (`consumer`), receiving
//! events (`subscription`), what an event's records become (`batch`), the position (`cursor`).
//!
//! A subscription lasts at most five minutes and sends an event at least every five seconds, even an empty one. The next
//! subscription begins after what was read, where the last event said to continue. It sends again what the old one had sent
//! and this reader had not read. So it makes no difference why a subscription ends, or whether an event was lost with it.
//!
//! | what happens | what follows |
//! |---|---|
//! | the subscription ends after its time | the next one |
//! | no event for 20 s | the next one, after a pause |
//! | a retryable failure: an early end, a subscription too soon after the last (5 s) | a failed read, then the next one, after a pause |
//! | five failures without a record between them, or a permanent one | the shard is polled for 10 minutes, then subscribed to again |
//!
//! So this reader never ends with an error itself: if the shard cannot be read at all, polling reports it.
//!
//! An event is received and decoded only in [`read`](ShardReader::read), for which the worker has taken memory from its budget. So
//! shards that wait hold next to nothing, however many there are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::types::{SubscribeToShardEvent, SubscribeToShardEventStream};
use checkpoints::{SequenceNumber, ShardId};
use tokio::time::Instant;

use crate::retry::Retryable;
use crate::source::kinesis::Stream;
use crate::source::kinesis::answer::add_all;
use crate::source::kinesis::batch::Batch;
use crate::source::kinesis::cursor::Cursor;
use crate::source::kinesis::identity::DATE_MARGIN_MS;
use crate::source::kinesis::pace::Pace;
use crate::source::kinesis::polling::{PollingReader, behind, is_nearer};
use crate::source::kinesis::service::Failure;
use crate::source::kinesis::subscription::Subscription;
use crate::source::{Behind, Read, ShardReader, SourceError};

/// The longest silence of a working subscription.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// The age from which a subscription may end; the service ends it after five minutes.
const AGE_MIN: Duration = Duration::from_secs(240);
/// How long a subscription may take to start.
pub(super) const SUBSCRIBE_MAX: Duration = Duration::from_secs(15);
/// The least time between the starts of two subscriptions.
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

/// How the shard is read at the moment.
enum Way {
    Subscribed(Box<Subscribed>),
    Polled { reader: Box<PollingReader>, until: Instant },
}

/// A shard that is subscribed to, or will be.
struct Subscribed {
    cursor: Cursor,
    pace: Pace,
    subscription: Option<Subscription>,
    /// Why the last wait failed. The next read handles it.
    failure: Option<Failure>,
    /// The least distance from the tip that an event without records has shown, since the last record.
    behind_least: Option<i64>,
    /// What the last event said about its distance from the tip, in milliseconds.
    behind_ms: Option<i64>,
    /// Set at the shard's end.
    children: Option<Vec<ShardId>>,
}

fn silence() -> Failure {
    Failure::Unavailable("SubscribeToShard: no event for 20 s".to_owned())
}

impl FanOutReader {
    pub(super) fn new(stream: Arc<Stream>, shard: ShardId, consumer: String, cursor: Cursor) -> Self {
        let way = Way::Subscribed(Box::new(Subscribed::new(&stream, &shard, cursor)));
        FanOutReader { stream, shard, consumer, way }
    }

    /// Continues after what was read, by polling.
    fn poll(&mut self, cursor: Cursor, failure: &Failure) {
        let shard = &self.shard;
        tracing::warn!(stream = %self.stream.name, %shard, %failure, minutes = POLLED.as_secs() / 60, "subscription failed; polling the shard, subscribing again later");
        let reader = Box::new(PollingReader::new(Arc::clone(&self.stream), shard.clone(), cursor));
        self.way = Way::Polled { reader, until: Instant::now() + POLLED };
    }
}

impl Subscribed {
    fn new(stream: &Stream, shard: &ShardId, cursor: Cursor) -> Self {
        Subscribed {
            cursor,
            pace: Pace::new(stream.config.limits, shard),
            subscription: None,
            failure: None,
            behind_least: None,
            behind_ms: None,
            children: None,
        }
    }

    /// Waits until an event begins to arrive, or something fails. It may be dropped while it waits.
    async fn ready(&mut self, stream: &Stream, shard: &ShardId, consumer: &str) {
        if self.failure.is_some() {
            return;
        }
        let ready = match self.subscribed(stream, shard, consumer).await {
            Ok(subscription) => tokio::time::timeout(SILENCE_MAX, subscription.ready()).await.map_err(|_| silence()),
            Err(failure) => Err(failure),
        };
        self.failure = ready.err();
    }

    /// The subscription; a new one if there is none.
    async fn subscribed(&mut self, stream: &Stream, shard: &ShardId, consumer: &str) -> Result<&Subscription, Failure> {
        let subscription = match self.subscription.take() {
            Some(subscription) => subscription,
            None => self.subscribe(stream, shard, consumer).await?,
        };
        Ok(self.subscription.insert(subscription))
    }

    /// Receives an event; `None` if the subscription has ended after its time, or sent something unknown.
    async fn receive(
        &mut self,
        stream: &Stream,
        shard: &ShardId,
        consumer: &str,
    ) -> Result<Option<SubscribeToShardEvent>, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.subscribed(stream, shard, consumer).await?;
        let Some(mut subscription) = self.subscription.take() else { return Ok(None) };
        match tokio::time::timeout(SILENCE_MAX, subscription.next()).await {
            Ok(Ok(Some(event))) => {
                self.subscription = Some(subscription);
                match event {
                    SubscribeToShardEventStream::SubscribeToShardEvent(event) => Ok(Some(event)),
                    // An event of a later version of the API.
                    _ => Ok(None),
                }
            }
            Ok(Ok(None)) if subscription.begun().elapsed() >= AGE_MIN => Ok(None),
            Ok(Ok(None)) => Err(Failure::Unavailable("SubscribeToShard: the subscription ended early".to_owned())),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(silence()),
        }
    }

    async fn subscribe(&mut self, stream: &Stream, shard: &ShardId, consumer: &str) -> Result<Subscription, Failure> {
        self.pace.wait(Duration::ZERO).await;
        // Before the request: the five seconds also count if its response is lost.
        self.pace.not_before(Instant::now() + BETWEEN_SUBSCRIPTIONS);
        let begin = self.cursor.begin();
        let call = stream.client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard.as_str());
        let call = call.starting_position(begin.starting_position());
        let subscribing = Subscription::begin(call, stream.clock.clone());
        let subscription = match tokio::time::timeout(SUBSCRIBE_MAX, subscribing).await {
            Ok(begun) => begun.map_err(|failure| begin.refused(failure))?,
            Err(_) => return Err(Failure::Unavailable("SubscribeToShard: no response in time".to_owned())),
        };
        self.cursor.begun(stream.now_ms() - DATE_MARGIN_MS);
        Ok(subscription)
    }

    /// Turns an event into a chunk, the tip, or the end.
    async fn on_event(
        &mut self,
        event: SubscribeToShardEvent,
        stream: &Stream,
        shard: &ShardId,
        buffer: Vec<u8>,
    ) -> Result<Read, Failure> {
        let batch = Batch::new(buffer, self.cursor.position().clone(), stream.config.whole_record_bytes_max());
        let batch = add_all(batch, event.records).await?;
        self.cursor.read(&batch, &stream.name, shard);
        self.behind_ms = Some(event.millis_behind_latest);
        // An empty event proves nothing: some implementations send one on a closed shard, and never report its end.
        if batch.records() > 0
            || self.subscription.as_ref().is_some_and(|subscription| subscription.begun().elapsed() >= AGE_MIN)
        {
            self.pace.succeeded();
        }
        let children = event.child_shards.unwrap_or_default();
        let has_ended = !children.is_empty() || event.continuation_sequence_number.is_empty();
        let (records, source_bytes) = (batch.records(), batch.bytes());
        if has_ended {
            self.subscription = None;
            let children = children.into_iter().filter_map(|child| ShardId::new(child.shard_id).ok());
            let children = self.children.insert(children.collect());
            if records == 0 {
                return Ok(Read::End { children: children.clone() });
            }
        } else {
            if let Ok(sequence) = SequenceNumber::try_from(event.continuation_sequence_number) {
                self.cursor.continue_after(sequence);
            }
            if records == 0 && event.millis_behind_latest <= 0 {
                return Ok(Read::AtTip);
            }
            if records == 0 {
                return Ok(Read::Empty { moved: is_nearer(&mut self.behind_least, event.millis_behind_latest) });
            }
        }
        self.behind_least = None;
        let through = batch.through();
        Ok(Read::Chunk { chunk: stream.chunk(shard, batch), through, source_bytes })
    }
}

#[async_trait]
impl ShardReader for FanOutReader {
    async fn ready(&mut self, idle: Duration) {
        let FanOutReader { stream, shard, consumer, way } = self;
        match way {
            Way::Subscribed(subscribed) if subscribed.children.is_some() => {}
            Way::Subscribed(subscribed) if stream.is_past_goal(subscribed.cursor.newest_ms()) => {
                subscribed.subscription = None;
                tokio::time::sleep(idle).await;
            }
            Way::Subscribed(subscribed) => subscribed.ready(stream, shard, consumer).await,
            Way::Polled { reader, until } if Instant::now() >= *until && !reader.has_ended() => {
                let mut subscribed = Box::new(Subscribed::new(stream, shard, reader.cursor().clone()));
                subscribed.ready(stream, shard, consumer).await;
                *way = Way::Subscribed(subscribed);
            }
            Way::Polled { reader, .. } => reader.ready(idle).await,
        }
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        let FanOutReader { stream, shard, consumer, way } = &mut *self;
        let subscribed = match way {
            Way::Polled { reader, .. } => return reader.read(bytes, buffer).await,
            Way::Subscribed(subscribed) => subscribed,
        };
        if let Some(children) = &subscribed.children {
            return Ok(Read::End { children: children.clone() });
        }
        if stream.is_past_goal(subscribed.cursor.newest_ms()) {
            return Ok(Read::AtTip);
        }
        let received = match subscribed.receive(stream, shard, consumer).await {
            Ok(Some(event)) => subscribed.on_event(event, stream, shard, buffer).await,
            // The memory is not kept while the shard is subscribed to again.
            Ok(None) => return Ok(Read::Empty { moved: false }),
            Err(failure) => Err(failure),
        };
        let failure = match received {
            Ok(read) => return Ok(read),
            Err(failure) => failure,
        };
        subscribed.subscription = None;
        let times = subscribed.pace.failed();
        let cursor = subscribed.cursor.clone();
        let (place, problem) = (stream.place(shard), failure.to_string());
        if !failure.is_retryable() || times >= FAILURES_MAX {
            self.poll(cursor, &failure);
        } else {
            tracing::debug!(stream = %stream.name, %shard, times, %failure, "subscription failed; subscribing again");
        }
        Ok(Read::Failed { error: SourceError::Unavailable { place, problem }, is_normal: true })
    }

    fn tip_as_of_ms(&self) -> Option<i64> {
        match &self.way {
            Way::Polled { reader, .. } => reader.tip_as_of_ms(),
            // An event may have waited for long before it is read, and it does not say when it was sent.
            Way::Subscribed(_) => None,
        }
    }

    fn behind(&self) -> Option<Behind> {
        match &self.way {
            Way::Polled { reader, .. } => reader.behind(),
            Way::Subscribed(subscribed) => subscribed.behind_ms.map(behind),
        }
    }
}
