//! Three figures in CloudWatch's embedded metric format, for classic alarms and the scaling of ECS.
//!
//! Owns: the line, and writing one a minute. Everything else is pushed by OTLP: each combination of dimensions of a classic metric costs
//! money, and these have one dimension with one value. Does not own: the alarms (`artifacts`).
//!
//! Format: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::SharedClock;
use crate::telemetry::figures::{Figures, backlog_bytes};

/// How often a line is written: the finest resolution of a standard metric.
const EVERY: Duration = Duration::from_secs(60);
/// The namespace of the figures.
pub const NAMESPACE: &str = "Shardlake";
/// The dimension of the figures: what `OTEL_SERVICE_NAME` says, or `shardlake`.
pub const DIMENSION: &str = "Service";

/// A figure: its name, its unit in CloudWatch, the statistic that makes sense of all workers' values, and its meaning.
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The statistic over all workers.
    pub statistic: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

/// The figures.
pub static FIGURES: [Figure; 3] = [
    Figure {
        name: "backlog_per_task",
        unit: "Bytes",
        statistic: "Average",
        meaning: "Bytes that this worker's shards have and it has not read. The average over workers is what a fleet scales on.",
    },
    Figure {
        name: "oldest_age",
        unit: "Seconds",
        statistic: "Maximum",
        meaning: "The age of the oldest record of this worker's shards that is not in the lake.",
    },
    Figure {
        name: "dead_letters",
        unit: "Count",
        statistic: "Sum",
        meaning: "Records that became dead letters since the last line.",
    },
];

/// What a fleet scales on: the bytes that this worker has not read, and the age in seconds of its oldest record that is not in the lake.
pub fn backlog_and_age(figures: &Figures) -> (f64, f64) {
    let shards = figures.shards();
    let backlog = shards.iter().filter_map(backlog_bytes).sum();
    let age = shards.iter().filter_map(|shard| figures.data_age(shard)).fold(0.0, f64::max);
    (backlog, age)
}

/// The line of this moment. `dead_letters`: those since the last line.
fn line(figures: &Figures, service: &str, dead_letters: u64, now_ms: i64) -> Value {
    let (backlog, age) = backlog_and_age(figures);
    let metrics: Vec<Value> =
        FIGURES.iter().map(|figure| json!({ "Name": figure.name, "Unit": figure.unit })).collect();
    json!({
        "_aws": {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{ "Namespace": NAMESPACE, "Dimensions": [[DIMENSION]], "Metrics": metrics }],
        },
        DIMENSION: service,
        "backlog_per_task": backlog.round(),
        "oldest_age": age,
        "dead_letters": dead_letters,
    })
}

/// Writes a line a minute to stdout, for as long as it is polled.
pub async fn write_lines(figures: Arc<Figures>, clock: SharedClock) {
    let service = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let service = service.unwrap_or_else(|| "shardlake".to_owned());
    let mut before = 0;
    let mut ticks = tokio::time::interval(EVERY);
    // The first tick is at once, when nothing was read.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let all: u64 = figures.progress().dead_letters().values().sum();
        let line = line(&figures, &service, all.saturating_sub(before), clock.now_ms());
        before = all;
        // A log driver that is gone does not end the worker.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Settings;
    use crate::worker::Progress;

    #[test]
    fn a_line_names_each_figure_with_its_unit_and_has_its_value() {
        let settings = Settings {
            worker: "w".to_owned(),
            commit_interval: Duration::from_secs(60),
            freshness: Duration::from_secs(600),
            memory: 1 << 30,
        };
        let figures = Figures::new(Arc::new(Progress::default()), None, Arc::new(crate::clock::SystemClock), settings);
        let line = line(&figures, "orders", 7, 1_736_764_200_000);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], NAMESPACE);
        assert_eq!((&directive["Dimensions"][0][0], &line[DIMENSION]), (&json!("Service"), &json!("orders")));
        for (number, figure) in FIGURES.iter().enumerate() {
            assert_eq!(directive["Metrics"][number]["Name"], figure.name);
            assert!(line[figure.name].is_number(), "{}", figure.name);
        }
        assert_eq!((&line["dead_letters"], &line["_aws"]["Timestamp"]), (&json!(7), &json!(1_736_764_200_000_i64)));
    }
}
