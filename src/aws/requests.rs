//! The requests that a process sends to AWS.
//!
//! Owns: counting them by outcome, how long each attempt took, and the context of a trace in their headers. Does not own: who shows the
//! counts (`cli`, `telemetry`), how long a failed call is retried (`retry`).
//!
//! The header `traceparent` (<https://www.w3.org/TR/trace-context/>) is added after the request is signed, and not signed itself: a proxy
//! on the way may replace it, and the service would refuse a request whose signed headers have changed. Services ignore it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use opentelemetry::trace::TraceContextExt;
use tokio::time::Instant;

use crate::clock::SharedClock;

/// What services call throttling, in the code of an error.
const THROTTLED: [&str; 7] = [
    "ProvisionedThroughputExceeded",
    "ThrottlingException",
    "Throttling",
    "LimitExceededException",
    "RequestLimitExceeded",
    "SlowDown",
    "TooManyRequests",
];

/// What became of an attempt of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestOutcome {
    /// The service did what it was asked.
    Ok,
    /// The service said that there were too many.
    Throttled,
    /// The service refused it: it is wrong, not allowed, or its condition does not hold.
    Refused,
    /// The service failed, or did not respond.
    Failed,
}

impl RequestOutcome {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestOutcome::Ok => "ok",
            RequestOutcome::Throttled => "throttled",
            RequestOutcome::Refused => "refused",
            RequestOutcome::Failed => "failed",
        }
    }

    /// By the status of the response and, if it is an error, its body.
    fn of(status: Option<u16>, body: Option<&[u8]>, is_ok: bool) -> Self {
        let says_throttled = || {
            let text = String::from_utf8_lossy(body.unwrap_or_default());
            THROTTLED.iter().any(|code| text.contains(code))
        };
        match status {
            Some(200..400) if is_ok => RequestOutcome::Ok,
            Some(429) => RequestOutcome::Throttled,
            Some(400..) if says_throttled() => RequestOutcome::Throttled,
            Some(304 | 400..500) => RequestOutcome::Refused,
            _ => RequestOutcome::Failed,
        }
    }
}

/// A service and an operation of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// Such as `Kinesis`.
    pub service: String,
    /// Such as `GetRecords`.
    pub operation: String,
}

/// Learns how long single attempts took.
pub trait RequestObserver: Send + Sync {
    /// An attempt has ended. Must not wait.
    fn on_request(&self, request: &RequestKind, took: Duration);
}

/// Counts requests when they are sent, and what became of them.
#[derive(Clone, Default)]
pub struct RequestCounter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sent: Mutex<BTreeMap<RequestKind, u64>>,
    ended: Mutex<BTreeMap<(RequestKind, RequestOutcome), u64>>,
    observer: OnceLock<Arc<dyn RequestObserver>>,
    clock: OnceLock<SharedClock>,
    ahead_ms: Mutex<Option<i64>>,
}

/// When an attempt was sent.
#[derive(Debug)]
struct SentAt(Instant);

impl Storable for SentAt {
    type Storer = StoreReplace<Self>;
}

impl RequestCounter {
    /// The requests that were sent, by `Service.Operation`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().map(|(kind, count)| (format!("{}.{}", kind.service, kind.operation), *count)).collect()
    }

    /// The attempts that have ended, by outcome.
    pub fn outcomes(&self) -> BTreeMap<(RequestKind, RequestOutcome), u64> {
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports each attempt that ends from now on. Only the first observer counts.
    pub fn observe(&self, observer: Arc<dyn RequestObserver>) {
        let _ = self.0.observer.set(observer);
    }

    /// Compares this clock with the services' clocks from now on. Only the first clock counts.
    pub fn compare_clocks(&self, clock: SharedClock) {
        let _ = self.0.clock.set(clock);
    }

    /// By how many milliseconds the compared clock is ahead of the services' (behind, if negative): the largest difference so far, and
    /// as exact as whole seconds and the time of a request allow. `None` if no response had a date.
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        *self.0.ahead_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_date(&self, date: &str) {
        let Some(clock) = self.0.clock.get() else { return };
        let Ok(date) = DateTime::from_str(date, Format::HttpDate) else { return };
        let Ok(date_ms) = date.to_millis() else { return };
        let ahead_ms = clock.now_ms().saturating_sub(date_ms);
        let mut largest = self.0.ahead_ms.lock().unwrap_or_else(PoisonError::into_inner);
        if largest.is_none_or(|known| known.abs() < ahead_ms.abs()) {
            *largest = Some(ahead_ms);
        }
    }
}

impl std::fmt::Debug for RequestCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestCounter").finish_non_exhaustive()
    }
}

fn kind_of(config: &ConfigBag) -> Option<RequestKind> {
    let metadata = config.load::<Metadata>()?;
    Some(RequestKind { service: metadata.service().to_owned(), operation: metadata.name().to_owned() })
}

/// The context of the current span as a header; `None` if nothing is traced.
fn traceparent() -> Option<String> {
    let context = opentelemetry::Context::current();
    let span = context.span().span_context().clone();
    let flags = span.trace_flags().to_u8();
    (span.is_valid() && span.is_sampled()).then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

impl Intercept for RequestCounter {
    fn name(&self) -> &'static str {
        "RequestCounter"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(traceparent) = traceparent() {
            context.request_mut().headers_mut().insert("traceparent", traceparent);
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(kind) = kind_of(config) {
            *self.0.sent.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
            config.interceptor_state().store_put(SentAt(Instant::now()));
        }
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // An attempt that was not sent has failed before, such as without credentials.
        let (Some(kind), Some(SentAt(at))) = (kind_of(config), config.load::<SentAt>()) else { return Ok(()) };
        let response = context.response();
        if let Some(date) = response.and_then(|response| response.headers().get("date")) {
            self.note_date(date);
        }
        let is_ok = context.output_or_error().is_some_and(|result| result.is_ok());
        let status = response.map(|response| response.status().as_u16());
        let outcome = RequestOutcome::of(status, response.and_then(|response| response.body().bytes()), is_ok);
        if let Some(observer) = self.0.observer.get() {
            observer.on_request(&kind, at.elapsed());
        }
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, outcome)).or_default() += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_difference_of_the_clocks_counts() {
        struct At(i64);
        impl crate::clock::Clock for At {
            fn now_ms(&self) -> i64 {
                self.0
            }
        }
        let counter = RequestCounter::default();
        counter.note_date("Mon, 23 Nov 2026 20:45:04 GMT");
        assert_eq!(counter.clock_ahead_ms(), None, "there is no clock to compare");
        counter.compare_clocks(Arc::new(At(1_795_466_704_500)));
        counter.note_date("Mon, 23 Nov 2026 20:45:04 GMT");
        assert_eq!(counter.clock_ahead_ms(), Some(500));
        counter.note_date("not a date");
        counter.note_date("Mon, 23 Nov 2026 20:55:04 GMT");
        counter.note_date("Mon, 23 Nov 2026 20:45:03 GMT");
        assert_eq!(counter.clock_ahead_ms(), Some(-599_500));
    }

    #[test]
    fn an_attempt_is_throttled_if_the_service_says_so_in_any_of_its_ways() {
        let outcome = |status: u16, body: &str| RequestOutcome::of(Some(status), Some(body.as_bytes()), status == 200);
        assert_eq!(outcome(200, "SlowDown in a value"), RequestOutcome::Ok);
        let kinesis = r#"{"__type":"ProvisionedThroughputExceededException"}"#;
        assert_eq!(outcome(400, kinesis), RequestOutcome::Throttled);
        assert_eq!(outcome(503, "<Error><Code>SlowDown</Code></Error>"), RequestOutcome::Throttled);
        assert_eq!(outcome(429, ""), RequestOutcome::Throttled);
        assert_eq!(outcome(400, r#"{"__type":"ValidationException"}"#), RequestOutcome::Refused);
        assert_eq!(outcome(404, "NoSuchKey"), RequestOutcome::Refused);
        assert_eq!(outcome(500, "InternalError"), RequestOutcome::Failed);
        assert_eq!(RequestOutcome::of(None, None, false), RequestOutcome::Failed, "no response");
        assert_eq!(RequestOutcome::of(Some(200), None, false), RequestOutcome::Failed, "a body that broke off");
    }
}
