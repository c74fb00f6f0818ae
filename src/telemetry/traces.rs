//! Spans, pushed as traces.
//!
//! Owns: the layer that listens to the spans of [`crate::spans`], and its provider. Without a collector the layer is not made, and spans
//! cost nothing. Does not own: where spans begin and end (the worker), the client (`otlp`).
//!
//! The sampler is what `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say, by default everything.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::spans;
use crate::telemetry::otlp;

/// The provider of this process.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The layer that turns spans into traces; `None` if the environment names no collector.
///
/// # Errors
/// A sentence for the user: a variable of the environment cannot be used.
pub fn layer<S>() -> Result<Option<Box<dyn Layer<S> + Send + Sync>>, String>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    if !otlp::pushes_traces() {
        return Ok(None);
    }
    let exporter = otlp::span_exporter()?;
    let provider = SdkTracerProvider::builder();
    // The worker's name is not known yet: it is made at its start.
    let instance = crate::clock::random_bytes::<8>().map(u64::from_be_bytes).unwrap_or_default();
    let provider =
        provider.with_resource(super::resource(&format!("{instance:016x}"))).with_batch_exporter(exporter).build();
    let tracer = provider.tracer("shardlake");
    let _ = PROVIDER.set(provider);
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
    let layer = layer.with_tracked_inactivity(false);
    Ok(Some(layer.with_filter(filter_fn(|metadata| metadata.target() == spans::TARGET)).boxed()))
}

/// The ids of the current trace and span as hex digits; `None` if nothing is traced.
pub fn current_ids() -> Option<(String, String)> {
    let context = opentelemetry::Context::current();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| (span.trace_id().to_string(), span.span_id().to_string()))
}

/// Pushes what is left, within a time.
pub(super) async fn shut_down(within: Duration) {
    let Some(provider) = PROVIDER.get() else { return };
    let ending = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(within));
    // A collector that does not respond is reported by the client.
    let _ = tokio::time::timeout(within + Duration::from_millis(500), ending).await;
}
