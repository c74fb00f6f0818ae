//! The tables of `docs/metrics.md`.

use std::fmt::Write;

use crate::telemetry::alerts::ALERTS;
use crate::telemetry::emf::{DIMENSION, FIGURES, NAMESPACE};
use crate::telemetry::metrics::METRICS;

/// The tables in Markdown.
pub fn text() -> String {
    let mut out = String::from(
        "\n## Metrics\n\n| name | in Prometheus | kind, unit | attributes | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for metric in METRICS {
        let unit = match metric.unit {
            "" => String::new(),
            unit => format!(", {}", unit.trim_matches(['{', '}'])),
        };
        let attributes: Vec<String> =
            metric.attributes.iter().map(|name| format!("`{}`", name.replace('.', "_"))).collect();
        let known = match metric.known {
            "" => String::new(),
            known => format!(" Elsewhere: {known}."),
        };
        let _ = writeln!(
            out,
            "| `{}` | `{}` | {}{unit} | {} | {}{known} |",
            metric.name,
            metric.prometheus_name(),
            metric.kind.as_str(),
            attributes.join(", "),
            metric.meaning,
        );
    }
    out.push_str("\n## Alerts\n\n| alert | condition | for | severity | meaning |\n| --- | --- | --- | --- | --- |\n");
    for alert in &ALERTS {
        let meaning = plain(alert.meaning);
        let condition = alert.expression(1).replace('|', "\\|");
        let link = alert.runbook().trim_start_matches("docs/").to_owned();
        let (name, hold, severity) = (alert.name, alert.hold(1), alert.severity.as_str());
        let _ = writeln!(out, "| [{name}]({link}) | `{condition}` | {hold} | {severity} | {meaning} |");
    }
    let _ = writeln!(
        out,
        "\n## Figures in CloudWatch\n\nNamespace `{NAMESPACE}`, dimension `{DIMENSION}`.\n\n| figure | unit | statistic | meaning |\n| --- | --- | --- | --- |"
    );
    for figure in &FIGURES {
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", figure.name, figure.unit, figure.statistic, figure.meaning);
    }
    out.push('\n');
    out
}

/// A text without the templates of Prometheus: each becomes the name of its value.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((template, after)) = after.split_once("}}") else { break };
        let name = template.trim().split(' ').next().unwrap_or_default();
        out.push('*');
        out.push_str(name.trim_start_matches("$labels.").trim_start_matches('$'));
        out.push('*');
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_become_the_names_of_their_values() {
        assert_eq!(plain("{{ $value | humanize }} of {{ $labels.shard }}."), "*value* of *shard*.");
    }
}
