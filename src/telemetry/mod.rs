//! Telemetry: metrics, traces, and what is made from their tables.
//!
//! Owns: everything that a process says of itself beside its log and its page. Each concern has a file:
//!
//! | file | owns |
//! |---|---|
//! | `metrics` | the table of metrics |
//! | `alerts` | the table of alerts |
//! | `figures`, `process` | where the values come from |
//! | `instruments` | OpenTelemetry's instruments, made from the table |
//! | `prometheus` | the text of `/metrics` |
//! | `otlp` | pushing by OTLP |
//! | `traces` | spans |
//! | `emf` | three figures in CloudWatch's embedded metric format |
//! | `artifacts` | documents, dashboards and rules that are made from the tables |
//!
//! Does not own: counting. The worker, `aws` and `trouble` keep plain figures, and know nothing of telemetry. Telemetry reads them when
//! somebody asks, so whoever asks pays. It imports nothing that works on a lake.

pub mod alerts;
pub mod artifacts;
pub mod emf;
pub mod figures;
mod instruments;
pub mod metrics;
pub mod otlp;
mod process;
pub mod prometheus;
pub mod traces;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;

pub use figures::{Figures, LakeUpkeep, Settings, Upkeep};

/// How long the last push may take.
const LAST_PUSH: Duration = Duration::from_secs(1);

/// The metrics of a worker, for as long as it runs.
pub struct Telemetry {
    provider: SdkMeterProvider,
    registry: ::prometheus::Registry,
    figures: Arc<Figures>,
}

impl Telemetry {
    /// Makes the instruments, and pushes them if the environment names a collector.
    ///
    /// # Errors
    /// A sentence for the user: a variable of the environment cannot be used.
    pub fn start(figures: Figures) -> Result<Self, String> {
        let figures = Arc::new(figures);
        let registry = ::prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
        let exporter = exporter.scope_info_enabled(false).build().map_err(|error| error.to_string())?;
        let mut provider =
            SdkMeterProvider::builder().with_resource(resource(&figures.settings().worker)).with_reader(exporter);
        if let Some(reader) = otlp::metrics_reader()? {
            provider = provider.with_reader(reader);
        }
        let provider = provider.build();
        let durations = instruments::make(&provider.meter("shardlake"), &figures);
        figures.progress().observe(Box::new(durations.clone()));
        if let Some(requests) = figures.requests() {
            requests.observe(Arc::new(durations));
        }
        prometheus::set_registry(registry.clone());
        Ok(Telemetry { provider, registry, figures })
    }

    /// What the metrics are read from.
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        prometheus::text_of(&self.registry)
    }

    /// Pushes once more and ends. Waits for a collector for one and a half seconds at most: the platform allows 30 s from the signal to the
    /// end of the process, and commits come first.
    pub async fn shut_down(self) {
        let ending = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_PUSH));
        // A collector that does not respond is reported by the client.
        let metrics = tokio::time::timeout(LAST_PUSH + Duration::from_millis(500), ending);
        let _ = tokio::join!(metrics, traces::shut_down(LAST_PUSH));
    }
}

/// What is common to everything that a process sends. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are the SDK's.
pub(crate) fn resource(worker: &str) -> Resource {
    let is_named = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let has_name = is_named("OTEL_SERVICE_NAME")
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|value| value.contains("service.name="));
    let own = [
        opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        opentelemetry::KeyValue::new("service.instance.id", worker.to_owned()),
    ];
    let builder = Resource::builder().with_attributes(own);
    if has_name { builder.build() } else { builder.with_service_name("shardlake").build() }
}
