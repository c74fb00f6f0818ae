//! Pushing metrics and traces by OTLP over HTTP, in protobuf.
//!
//! Owns: whether the environment names a collector, and the readers and exporters that push to it. Does not own: sending a request
//! (`client`), what is pushed. The variables are OpenTelemetry's own (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>), and
//! its SDK reads them.
//!
//! A collector that is down costs nothing but what it would have got: an export has one thread, one attempt within the timeout, and a
//! queue that is bounded. Metrics are sums since the start, so the next export has what the last one missed. Spans are dropped.

mod client;

use std::time::Duration;

use opentelemetry_otlp::{MetricExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::metrics::PeriodicReader;

use client::OtlpClient;

pub use client::connect;

/// The default of OpenTelemetry for the time of an export.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The variables that name a collector: for one signal, and for all.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const METRICS_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.trim().is_empty())
}

/// Whether the user has turned everything, or a signal, off.
fn is_off(exporter: &str) -> bool {
    std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"))
        || std::env::var(exporter).is_ok_and(|value| value == "none")
}

/// Whether metrics are pushed.
pub fn pushes_metrics() -> bool {
    (is_set(ENDPOINT) || is_set(METRICS_ENDPOINT)) && !is_off("OTEL_METRICS_EXPORTER")
}

/// Whether traces are pushed.
pub fn pushes_traces() -> bool {
    (is_set(ENDPOINT) || is_set(TRACES_ENDPOINT)) && !is_off("OTEL_TRACES_EXPORTER")
}

/// How long an export may take.
fn timeout(signal: &str) -> Result<Duration, String> {
    for name in [format!("OTEL_EXPORTER_OTLP_{signal}_TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT".to_owned()] {
        if let Some(text) = std::env::var(&name).ok().filter(|text| !text.is_empty()) {
            let millis: u64 = text
                .trim()
                .parse()
                .map_err(|_| format!("invalid {name} '{text}': expected milliseconds, such as 10000"))?;
            return Ok(Duration::from_millis(millis.max(1)));
        }
    }
    Ok(TIMEOUT)
}

/// Refuses variables that cannot be used, if something is pushed.
///
/// # Errors
/// A sentence for the user.
pub fn check() -> Result<(), String> {
    if pushes_metrics() || pushes_traces() {
        check_protocol()?;
        timeout("METRICS")?;
        timeout("TRACES")?;
        for name in [ENDPOINT, METRICS_ENDPOINT, TRACES_ENDPOINT] {
            if let Some(url) = std::env::var(name).ok().filter(|url| !url.trim().is_empty())
                && !(url.starts_with("http://") || url.starts_with("https://"))
            {
                return Err(format!("{name} is not the URL of a collector, such as http://collector:4318"));
            }
        }
    }
    Ok(())
}

/// Only protobuf over HTTP is supported.
fn check_protocol() -> Result<(), String> {
    for name in
        ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]
    {
        if let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty() && text != "http/protobuf") {
            return Err(format!(
                "{name} is '{text}', but only http/protobuf is supported; collectors have it on port 4318"
            ));
        }
    }
    Ok(())
}

/// What pushes metrics; `None` if the environment names no collector.
///
/// # Errors
/// A sentence for the user: a variable cannot be used.
pub(super) fn metrics_reader() -> Result<Option<PeriodicReader<MetricExporter>>, String> {
    if !pushes_metrics() {
        return Ok(None);
    }
    check_protocol()?;
    let timeout = timeout("METRICS")?;
    let exporter = MetricExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_timeout(timeout);
    let exporter = exporter.with_http_client(OtlpClient::new("pushing metrics", timeout));
    let exporter = exporter.with_retry_policy(RetryPolicy::disabled()).build();
    let exporter = exporter.map_err(|error| format!("metrics cannot be pushed: {error}"))?;
    // OTEL_METRIC_EXPORT_INTERVAL says how often.
    Ok(Some(PeriodicReader::builder(exporter).build()))
}

/// What pushes spans.
///
/// # Errors
/// A sentence for the user: a variable cannot be used.
pub(super) fn span_exporter() -> Result<SpanExporter, String> {
    check_protocol()?;
    let timeout = timeout("TRACES")?;
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_timeout(timeout);
    let exporter = exporter.with_http_client(OtlpClient::new("pushing traces", timeout));
    let exporter = exporter.with_retry_policy(RetryPolicy::disabled()).build();
    exporter.map_err(|error| format!("traces cannot be pushed: {error}"))
}
