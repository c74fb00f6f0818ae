//! OpenTelemetry's instruments, made from the table of metrics.
//!
//! Owns: one instrument for each entry, and recording durations. Does not own: the table (`metrics`), the values (`figures`), who reads
//! them (`prometheus`, `otlp`).

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};

use crate::aws::{RequestKind, RequestObserver};
use crate::telemetry::figures::{Figures, Read};
use crate::telemetry::metrics::{Kind, METRICS, Metric};
use crate::worker::{CommitStep, Observer};

/// Bounds of durations in seconds: from a request of a millisecond to an outage of minutes.
const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 20.0, 60.0];

/// Durations that are recorded when something has ended.
#[derive(Clone)]
pub(super) struct Durations {
    commit_step: Option<Histogram<f64>>,
    request: Option<Histogram<f64>>,
}

/// Makes the instruments, which read from `figures`.
pub(super) fn make(meter: &Meter, figures: &Arc<Figures>) -> Durations {
    let mut durations = Durations { commit_step: None, request: None };
    for metric in METRICS {
        match metric.read {
            Read::Figures(read) => observable(meter, metric, figures, read),
            Read::CommitStep => durations.commit_step = Some(histogram(meter, metric)),
            Read::Request => durations.request = Some(histogram(meter, metric)),
        }
    }
    durations
}

fn histogram(meter: &Meter, metric: &Metric) -> Histogram<f64> {
    let builder = meter.f64_histogram(metric.name).with_description(metric.meaning).with_unit(metric.unit);
    builder.with_boundaries(SECONDS.to_vec()).build()
}

fn observable(
    meter: &Meter,
    metric: &'static Metric,
    figures: &Arc<Figures>,
    read: fn(&Figures, super::figures::Observe<'_>),
) {
    let figures = Arc::clone(figures);
    if metric.kind == Kind::Counter {
        let builder = meter.f64_observable_counter(metric.name);
        let builder = builder.with_description(metric.meaning).with_unit(metric.unit);
        let _ = builder
            .with_callback(move |observer| read(&figures, &mut |value, attributes| observer.observe(value, attributes)))
            .build();
    } else {
        let builder = meter.f64_observable_gauge(metric.name);
        let builder = builder.with_description(metric.meaning).with_unit(metric.unit);
        let _ = builder
            .with_callback(move |observer| read(&figures, &mut |value, attributes| observer.observe(value, attributes)))
            .build();
    }
}

impl Observer for Durations {
    fn on_commit_step(&self, step: CommitStep, took: Duration) {
        if let Some(histogram) = &self.commit_step {
            histogram.record(took.as_secs_f64(), &[KeyValue::new("step", step.as_str())]);
        }
    }
}

impl RequestObserver for Durations {
    fn on_request(&self, request: &RequestKind, took: Duration) {
        if let Some(histogram) = &self.request {
            let attributes = [
                KeyValue::new("rpc.service", request.service.clone()),
                KeyValue::new("rpc.method", request.operation.clone()),
            ];
            histogram.record(took.as_secs_f64(), &attributes);
        }
    }
}
