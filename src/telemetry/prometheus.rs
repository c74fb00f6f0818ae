//! The text of `/metrics`.
//!
//! Owns: the registry that Prometheus's text is made from, and the text. Does not own: the server (`server`), the instruments.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::sync::OnceLock;

use prometheus::{Encoder, Registry, TextEncoder};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The registry of this process.
static REGISTRY: OnceLock<Registry> = OnceLock::new();

pub(super) fn set_registry(registry: Registry) {
    // One worker runs in a process. A second one, as in a test, is not shown.
    let _ = REGISTRY.set(registry);
}

/// All metrics of this process as they are now. Empty before a worker has begun. Does not wait for the worker.
pub fn text() -> String {
    REGISTRY.get().map(text_of).unwrap_or_default()
}

pub(super) fn text_of(registry: &Registry) -> String {
    let mut families = registry.gather();
    // Each series comes as a family of its own, and a family may be written once.
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut merged: Vec<prometheus::proto::MetricFamily> = Vec::with_capacity(families.len());
    for mut family in families {
        match merged.last_mut() {
            Some(last) if last.name() == family.name() => {
                let mut metrics = last.take_metric();
                metrics.extend(family.take_metric());
                last.set_metric(metrics);
            }
            _ => merged.push(family),
        }
    }
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&merged, &mut text) {
        tracing::warn!(%error, "failed to write the metrics");
    }
    String::from_utf8(text).unwrap_or_default()
}
