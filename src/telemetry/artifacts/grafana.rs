//! The dashboard of Grafana.
//!
//! Format: <https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/>. One panel for each metric of
//! the table, by groups of names, so that a new metric has its panel.

use serde_json::{Value, json};

use crate::telemetry::alerts::ALERTS;
use crate::telemetry::metrics::{Kind, METRICS, Metric};

/// The groups of panels: what their metrics' names begin with, and their titles. A metric belongs to the first that fits.
const GROUPS: [(&str, &str); 7] = [
    ("shardlake.shard.", "Shards"),
    ("shardlake.fleet.", "Fleet"),
    ("shardlake.edge.", "Stages"),
    ("shardlake.aws.", "Requests to AWS"),
    ("rpc.", "Requests to AWS"),
    ("process.", "Process"),
    ("", "Worker and lake"),
];

fn group_of(metric: &Metric) -> &'static str {
    GROUPS.iter().find(|(prefix, _)| metric.name.starts_with(prefix)).map_or("", |(_, title)| *title)
}

/// Units by Grafana's names.
fn unit_of(metric: &Metric) -> &'static str {
    match (metric.unit, metric.kind) {
        ("s", _) if metric.name == "process.cpu.time" => "percentunit",
        ("s", _) => "s",
        ("By", Kind::Counter) => "Bps",
        ("By", _) => "bytes",
        ("1", _) => "percentunit",
        (_, Kind::Counter) => "cps",
        _ => "short",
    }
}

fn expression_of(metric: &Metric) -> String {
    let name = metric.prometheus_name();
    let by: Vec<String> = metric.attributes.iter().map(|attribute| attribute.replace('.', "_")).collect();
    let by = if by.is_empty() { "instance".to_owned() } else { by.join(", ") };
    match metric.kind {
        Kind::Counter => format!("sum by ({by}) (rate({name}[$__rate_interval]))"),
        Kind::Gauge => format!("max by ({by}) ({name})"),
        Kind::Histogram => {
            format!("histogram_quantile(0.99, sum by ({by}, le) (rate({name}_bucket[$__rate_interval])))")
        }
    }
}

fn panel(metric: &Metric, id: usize, (x, y): (usize, usize)) -> Value {
    let legend: Vec<String> =
        metric.attributes.iter().map(|attribute| format!("{{{{{}}}}}", attribute.replace('.', "_"))).collect();
    json!({
        "id": id,
        "type": "timeseries",
        "title": metric.name,
        "description": metric.meaning,
        "gridPos": { "x": x, "y": y, "w": 8, "h": 7 },
        "datasource": { "type": "prometheus", "uid": "${datasource}" },
        "fieldConfig": { "defaults": { "unit": unit_of(metric), "min": 0 }, "overrides": [] },
        "targets": [{
            "refId": "A",
            "expr": expression_of(metric),
            "legendFormat": if legend.is_empty() { "{{instance}}".to_owned() } else { legend.join(" ") },
        }],
    })
}

/// The dashboard as JSON.
pub fn text() -> String {
    let mut panels = Vec::new();
    let mut y = 0;
    let alerts = ALERTS.iter().map(|alert| alert.name).collect::<Vec<_>>().join("|");
    panels.push(json!({
        "id": 1,
        "type": "timeseries",
        "title": "Alerts that fire",
        "description": "The alerts of deploy/alerts.yaml; docs/runbooks.md says what to do.",
        "gridPos": { "x": 0, "y": y, "w": 24, "h": 6 },
        "datasource": { "type": "prometheus", "uid": "${datasource}" },
        "fieldConfig": { "defaults": { "unit": "short", "min": 0 }, "overrides": [] },
        "targets": [{
            "refId": "A",
            "expr": format!("sum by (alertname) (ALERTS{{alertstate=\"firing\", alertname=~\"{alerts}\"}})"),
            "legendFormat": "{{alertname}}",
        }],
    }));
    y += 6;
    let mut titles: Vec<&str> = Vec::new();
    for (_, title) in GROUPS {
        if !titles.contains(&title) {
            titles.push(title);
        }
    }
    for title in titles {
        let id = panels.len() + 1;
        panels.push(json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
        }));
        y += 1;
        let of_group: Vec<&Metric> = METRICS.iter().filter(|metric| group_of(metric) == title).collect();
        for (number, metric) in of_group.iter().enumerate() {
            let id = panels.len() + 1;
            panels.push(panel(metric, id, (number % 3 * 8, y + number / 3 * 7)));
        }
        y += of_group.len().div_ceil(3) * 7;
    }
    let dashboard = json!({
        "title": "Shardlake",
        "uid": "shardlake",
        "tags": ["shardlake"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "refresh": "30s",
        "time": { "from": "now-3h", "to": "now" },
        "templating": { "list": [{ "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source" }] },
        "annotations": { "list": [] },
        "panels": panels,
    });
    serde_json::to_string_pretty(&dashboard).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_one_panel_and_panels_do_not_overlap() {
        let dashboard: Value = serde_json::from_str(&text()).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        for metric in METRICS {
            assert_eq!(panels.iter().filter(|panel| panel["title"] == metric.name).count(), 1, "{}", metric.name);
        }
        let mut cells = std::collections::BTreeSet::new();
        for panel in panels {
            let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(cells.insert((x, y)), "{} overlaps", panel["title"]);
                }
            }
        }
        let mut ids: Vec<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), panels.len());
    }
}
