//! `metrics`: prints what is made from the tables of metrics and alerts.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::args::{MetricsArgs, MetricsFormat};
use crate::telemetry::alerts::ALERTS;
use crate::telemetry::artifacts;
use crate::telemetry::metrics::METRICS;

pub(crate) fn metrics(args: &MetricsArgs, json: bool) -> ExitCode {
    if json {
        println!("{}", as_json());
        return ExitCode::SUCCESS;
    }
    let text = match args.format {
        MetricsFormat::Docs => artifacts::docs(),
        MetricsFormat::Grafana => artifacts::grafana(),
        MetricsFormat::PrometheusRules => artifacts::prometheus_rules(args.faster),
        MetricsFormat::Cloudwatch => artifacts::cloudwatch(),
    };
    print!("{text}");
    ExitCode::SUCCESS
}

fn as_json() -> Value {
    let metrics: Vec<Value> = METRICS
        .iter()
        .map(|metric| {
            json!({
                "name": metric.name,
                "prometheus": metric.prometheus_name(),
                "kind": metric.kind.as_str(),
                "unit": metric.unit,
                "attributes": metric.attributes,
                "meaning": metric.meaning,
                "known_as": metric.known,
            })
        })
        .collect();
    let alerts: Vec<Value> = ALERTS
        .iter()
        .map(|alert| {
            json!({
                "name": alert.name,
                "expression": alert.expression(1),
                "for": alert.hold(1),
                "severity": alert.severity.as_str(),
                "meaning": alert.meaning,
                "runbook": alert.runbook(),
            })
        })
        .collect();
    json!({ "metrics": metrics, "alerts": alerts })
}
