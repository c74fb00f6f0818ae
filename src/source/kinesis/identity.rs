//! Which stream this is, and what time it is for the service.
//!
//! Owns: asking the service who the stream is, noticing that it is gone or was replaced by another one of the same name, and the time
//! of the service. Does not own: what the lake keeps of the stream (`start`), what follows from a replacement (`worker`).
//!
//! A stream that is deleted and created again has the same name and ARN, and its shards have the same ids. Only its creation time
//! differs. So the service is asked again:
//!
//! | when | what for |
//! |---|---|
//! | a call finds no such stream or shard, or a position is not in its shard | until the answer is "the same stream", nothing more is read of it |
//! | before an epoch is decided ([`Stream::may_commit`]) | everything in the epoch was read before the question |
//! | before rows are created or removed by a list of shards, and with some lists | the list was read before the question |
//! | before a run counts as caught up | likewise |
//!
//! So nothing of another stream is committed, however late a reader notices. One line is drawn by the service's own times: if no record
//! that was read arrived at or after the creation of the new stream, all of them are of the old one, and are committed.
//!
//! The time of the service is the `Date` header of its responses. It has whole seconds, rounded down. The machine's clock may be wrong by
//! hours, since the SDK corrects its signatures.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::types::{StreamDescriptionSummary, StreamStatus};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use mutations::mutated;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::retry::RetryPolicy;
use crate::source::SourceError;
use crate::source::kinesis::Stream;
use crate::source::kinesis::batch::millis;
use crate::source::kinesis::requests;
use crate::source::kinesis::service::Failure;

/// By how much a `Date` header may be after the service's other times: hosts differ by a little.
pub(super) const DATE_MARGIN_MS: i64 = 1_000;

/// How long the answer counts that there is no stream.
const GONE_FOR: Duration = Duration::from_secs(5);

/// The identity of the stream, as the service describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) arn: String,
    /// Milliseconds since 1970.
    pub(super) created_ms: i64,
}

impl Identity {
    /// Whether both are the same stream. In seconds, as in KCL: not every service keeps more.
    pub(super) fn is(&self, other: &Identity) -> bool {
        self.arn == other.arn && self.created_ms.div_euclid(1000) == other.created_ms.div_euclid(1000)
    }

    /// The error for another stream than this one, which the lake has.
    pub(super) fn replaced_by(&self, other: &Identity, place: &str) -> SourceError {
        let problem = format!(
            "the lake has another stream with this name, {} created at {} ms since 1970; this one is {} created at {}. A stream \
             that was recreated needs another `name` in the configuration",
            self.arn, self.created_ms, other.arn, other.created_ms
        );
        SourceError::Unreadable { place: place.to_owned(), problem }
    }
}

/// A stream as the service describes it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) identity: Identity,
    pub(super) status: StreamStatus,
    /// How long a record is kept after its arrival.
    pub(super) retention: Duration,
}

/// Asks the service for a stream. `clock` takes the time of the response.
pub(super) async fn describe(
    client: &aws_sdk_kinesis::Client,
    stream: &str,
    clock: &ServiceClock,
) -> Result<Described, Failure> {
    let call = requests::describe(client, stream).customize();
    let described = call.interceptor(clock.clone()).send().await;
    let described = described.map_err(|error| Failure::of("DescribeStreamSummary", &error))?;
    let Some(summary) = described.stream_description_summary else {
        return Err(Failure::Unavailable("DescribeStreamSummary: no description".to_owned()));
    };
    let StreamDescriptionSummary { stream_arn, stream_creation_timestamp, stream_status, .. } = summary;
    let identity = Identity { arn: stream_arn, created_ms: millis(&stream_creation_timestamp) };
    let hours = u64::try_from(summary.retention_period_hours).unwrap_or_default();
    Ok(Described { identity, status: stream_status, retention: Duration::from_secs(3600 * hours) })
}

/// The time of the service. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceClock(Arc<Mutex<Option<(i64, Instant)>>>);

impl ServiceClock {
    /// The time in milliseconds since 1970: the last `Date` header, and what has passed since. Never more than [`DATE_MARGIN_MS`] after
    /// the service's own clock. `None` if no response had one.
    pub(super) fn now_ms(&self) -> Option<i64> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|(ms, at)| ms.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    fn note(&self, date: &str) {
        if let Ok(date) = DateTime::from_str(date, Format::HttpDate) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((millis(&date), Instant::now()));
        }
    }
}

impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.note(date);
        }
        Ok(())
    }
}

/// What is known of the stream's identity while it is read.
#[derive(Debug)]
pub(super) struct Watch {
    /// Set while it is not known whether the stream is still the same.
    is_suspect: AtomicBool,
    /// When the newest record arrived that was returned.
    newest_ms: AtomicI64,
    /// When the stream that has the name now was created, if it is another one.
    replaced_ms: AtomicI64,
    replaced: watch::Sender<Option<SourceError>>,
    /// When the last question began whose answer was "the same stream", or "there is none". One question at a time.
    asked: tokio::sync::Mutex<Option<(Instant, Presence)>>,
}

/// The answer of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Same,
    Gone,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            is_suspect: AtomicBool::new(false),
            newest_ms: AtomicI64::new(i64::MIN),
            replaced_ms: AtomicI64::new(i64::MIN),
            replaced: watch::Sender::new(None),
            asked: tokio::sync::Mutex::default(),
        }
    }
}

impl Watch {
    /// Nothing more is read until the service has answered that the stream is the same.
    pub(super) fn suspect(&self) {
        self.is_suspect.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// Notes when the newest record arrived that is about to be returned.
    pub(super) fn returning(&self, newest_ms: Option<i64>) {
        if let Some(ms) = newest_ms {
            self.newest_ms.fetch_max(ms, Ordering::Relaxed);
        }
    }

    /// Waits until the stream is found to be another one.
    pub(super) async fn replaced(&self) -> SourceError {
        let mut replaced = self.replaced.subscribe();
        let found = replaced.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        match found {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

impl Stream {
    /// Asks the service, unless an answer is known to a question that began later than this call. An answer is shared by all who ask
    /// at once. That there is no stream counts for `gone_for`: a thousand shards of a deleted stream must not use up the calls of an
    /// account.
    async fn ask(&self, retry: &RetryPolicy, gone_for: Duration) -> Result<Presence, SourceError> {
        let since = Instant::now();
        let place = format!("stream {}", self.name);
        if mutated!(TrustStreamName) {
            return Ok(Presence::Same);
        }
        let mut asked = self.watch.asked.lock().await;
        if let Some(error) = self.watch.replaced.borrow().clone() {
            return Err(error);
        }
        if let Some((at, presence)) = *asked
            && (at > since || (presence == Presence::Gone && at.elapsed() < gone_for))
        {
            return Ok(presence);
        }
        let (begun, what) = (Instant::now(), format!("describing {place}"));
        let described = retry.run(&what, || describe(&self.retrying_client, &self.config.stream, &self.clock)).await;
        let presence = match described {
            Ok(Described { identity, .. }) if self.identity.is(&identity) => {
                self.watch.is_suspect.store(false, Ordering::Relaxed);
                Presence::Same
            }
            Ok(Described { identity, .. }) => {
                let error = self.identity.replaced_by(&identity, &place);
                tracing::error!(stream = %self.name, %error, "the stream was replaced; nothing more of it is read or committed");
                self.watch.suspect();
                self.watch.replaced_ms.store(identity.created_ms.div_euclid(1000) * 1000, Ordering::Relaxed);
                self.watch.replaced.send_replace(Some(error.clone()));
                return Err(error);
            }
            Err(Failure::NotFound(_)) => {
                self.watch.suspect();
                Presence::Gone
            }
            Err(failure) => return Err(failure.at(&place)),
        };
        if asked.is_none_or(|(_, before)| before != presence) && presence == Presence::Gone {
            tracing::error!(stream = %self.name, "the stream was deleted; waiting until it is there again");
        }
        *asked = Some((begun, presence));
        Ok(presence)
    }

    /// Whether the stream is the one that was opened.
    pub(super) async fn is_same(&self) -> Result<(), SourceError> {
        match self.ask(&RetryPolicy::CALL, GONE_FOR).await? {
            Presence::Same => Ok(()),
            Presence::Gone => Err(SourceError::Unavailable {
                place: format!("stream {}", self.name),
                problem: "there is no such stream any more: it was deleted".to_owned(),
            }),
        }
    }

    /// Whether what was returned before this call is of the stream that was opened.
    pub(super) async fn may_commit(&self) -> Result<(), SourceError> {
        match self.ask(&RetryPolicy::within(self.config.retry_within), Duration::ZERO).await {
            // What was read of a stream that is gone cannot be read again, and no other stream has its name.
            Ok(Presence::Same | Presence::Gone) => Ok(()),
            Err(error) => {
                let replaced_ms = self.watch.replaced_ms.load(Ordering::Relaxed);
                let is_all_old = replaced_ms > self.watch.newest_ms.load(Ordering::Relaxed);
                if is_all_old { Ok(()) } else { Err(error) }
            }
        }
    }
}
