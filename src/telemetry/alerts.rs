//! The table of alerts.
//!
//! Owns: on what condition each alert fires, after which time, and how urgent it is. Prometheus's rules, the documentation and the rows of
//! the dashboard come from this table. Does not own: the metrics (`metrics`), what to do (`docs/runbooks.md`, which has a section for each).
//!
//! In a condition, times are written as `<15m>` where a number of seconds belongs, and as `[5m]` where PromQL has a range. So a test can make
//! all of them shorter.

use crate::settings::units::{parse_duration, write_duration};
use std::time::Duration;

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Somebody must act now, at night too.
    Page,
    /// Somebody must act on a working day.
    Ticket,
}

impl Severity {
    /// Its name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Page => "page",
            Severity::Ticket => "ticket",
        }
    }
}

/// An alert.
#[derive(Debug, Clone, Copy)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// The condition in PromQL; see the module.
    condition: &'static str,
    /// For how long the condition must hold.
    hold: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// What has happened, in one sentence. PromQL's labels may be in it.
    pub meaning: &'static str,
}

/// Every alert.
pub static ALERTS: [Alert; 15] = [
    Alert {
        name: "ShardlakeWorkerDown",
        condition: r#"up{job="shardlake"} == 0"#,
        hold: "2m",
        severity: Severity::Page,
        meaning: "Worker {{ $labels.instance }} does not respond to scrapes.",
    },
    Alert {
        name: "ShardlakeShardBehind",
        condition: "max by (stream, shard) (shardlake_shard_lag_seconds) > <15m>",
        hold: "5m",
        severity: Severity::Ticket,
        meaning: "Shard {{ $labels.shard }} of stream {{ $labels.stream }} is {{ $value | humanizeDuration }} behind.",
    },
    Alert {
        name: "ShardlakeRetentionHalfUsed",
        condition: "max by (stream, shard) (shardlake_shard_retention_used_ratio) > 0.5",
        hold: "1m",
        severity: Severity::Page,
        meaning: "Shard {{ $labels.shard }} of stream {{ $labels.stream }} is behind by {{ $value | humanizePercentage }} of the retention. At \
                  100 % records are lost.",
    },
    Alert {
        name: "ShardlakeDataNotFresh",
        condition: "max by (stream, shard) (shardlake_shard_data_age_seconds \
                    / on (instance) group_left () shardlake_freshness_objective_seconds) > 2",
        hold: "5m",
        severity: Severity::Page,
        meaning: "The oldest record of shard {{ $labels.shard }} of stream {{ $labels.stream }} that is not in the lake is \
                  {{ $value | humanize }} times as old as the objective.",
    },
    Alert {
        name: "ShardlakeNoCommit",
        condition: "max by (stream, shard) (shardlake_shard_uncommitted_wait_seconds \
                    / on (instance) group_left () shardlake_commit_interval_seconds) > 3",
        hold: "1m",
        severity: Severity::Page,
        meaning: "What was read of shard {{ $labels.shard }} of stream {{ $labels.stream }} has waited for its commit for \
                  {{ $value | humanize }} intervals.",
    },
    Alert {
        name: "ShardlakeEpochStalled",
        condition: "max(shardlake_fleet_epochs_pending_age_seconds) > <5m>",
        hold: "1m",
        severity: Severity::Page,
        meaning: "An epoch has been pending for {{ $value | humanizeDuration }}: decided and not finished.",
    },
    Alert {
        name: "ShardlakeShardWithoutOwner",
        condition: "max(shardlake_fleet_shards_unowned_age_seconds) > <5m>",
        hold: "1m",
        severity: Severity::Page,
        meaning: "No worker has held one of the shards for {{ $value | humanizeDuration }}.",
    },
    Alert {
        name: "ShardlakeThrottled",
        condition: r#"sum by (rpc_service) (rate(shardlake_aws_requests_total{outcome="throttled"}[2m])) > 0.1"#,
        hold: "5m",
        severity: Severity::Ticket,
        meaning: "{{ $labels.rpc_service }} throttles {{ $value | humanize }} requests a second.",
    },
    Alert {
        name: "ShardlakeServiceFailing",
        condition: "max by (service) (shardlake_service_failing_seconds) > <1m>",
        hold: "1m",
        severity: Severity::Page,
        meaning: "This has failed for {{ $value | humanizeDuration }}: {{ $labels.service }}.",
    },
    Alert {
        name: "ShardlakeDeadLetters",
        condition: "sum(rate(shardlake_dead_letters_total[5m])) / sum(rate(shardlake_records_total[5m])) > 0.01",
        hold: "5m",
        severity: Severity::Ticket,
        meaning: "{{ $value | humanizePercentage }} of the records become dead letters.",
    },
    Alert {
        name: "ShardlakeNewDeadLetterCode",
        condition: "sum by (code) (increase(shardlake_dead_letters_total[10m])) > 0 \
                    unless sum by (code) (increase(shardlake_dead_letters_total[24h] offset 10m)) > 0",
        hold: "0s",
        severity: Severity::Ticket,
        meaning: "Dead letters with code {{ $labels.code }} have come that were not there in the day before.",
    },
    Alert {
        name: "ShardlakeDataLost",
        condition: "sum(increase(shardlake_data_lost_total[10m])) > 0 or max(shardlake_losses_open) > 0",
        hold: "0s",
        severity: Severity::Page,
        meaning: "Records of a source are lost, or may be. The log says which: DATA LOSS.",
    },
    Alert {
        name: "ShardlakeEpochsAborted",
        condition: r#"sum(increase(shardlake_epochs_total{outcome="aborted"}[15m])) > 3"#,
        hold: "0s",
        severity: Severity::Ticket,
        meaning: "{{ $value | humanize }} epochs were aborted in 15 minutes, because workers lose their leases again and again.",
    },
    Alert {
        name: "ShardlakeCheckpointExpiring",
        condition: "max(shardlake_checkpoints_ending) > 0",
        hold: "5m",
        severity: Severity::Ticket,
        meaning: "{{ $value }} saved checkpoints can soon not be used any more, since the stream's retention ends.",
    },
    Alert {
        name: "ShardlakeOrphanedUploads",
        condition: "max(shardlake_uploads_orphaned) > 0",
        hold: "6h",
        severity: Severity::Ticket,
        meaning: "{{ $value }} uploads of ended workers are left, and cost as stored objects do.",
    },
];

impl Alert {
    /// The condition in PromQL. Its times are divided by `faster`.
    pub fn expression(&self, faster: u32) -> String {
        let seconds = replace(self.condition, ('<', '>'), |time| (time / faster).as_secs_f64().to_string());
        let ranges = replace(&seconds, ('[', ']'), |time| format!("[{}]", written(time, faster, RANGE_MIN)));
        // An offset ends at the next parenthesis.
        match ranges.split_once("offset ") {
            None => ranges,
            Some((before, rest)) => {
                let end = rest.find(')').unwrap_or(rest.len());
                let offset = parse_duration(&rest[..end]).unwrap_or_default();
                format!("{before}offset {}{}", written(offset, faster, RANGE_MIN), &rest[end..])
            }
        }
    }

    /// For how long the condition must hold, divided by `faster`, as Prometheus writes it.
    pub fn hold(&self, faster: u32) -> String {
        written(parse_duration(self.hold).unwrap_or_default(), faster, HOLD_MIN)
    }

    /// Where it is explained what to do.
    pub fn runbook(&self) -> String {
        format!("docs/runbooks.md#{}", self.name.to_ascii_lowercase())
    }
}

/// The least range and the least time of a condition that are shortened, in seconds: some scrapes must be in them.
const RANGE_MIN: u64 = 15;
const HOLD_MIN: u64 = 5;

/// A time as Prometheus writes it; at least so many seconds if it was shortened.
fn written(time: Duration, faster: u32, least: u64) -> String {
    if time.is_zero() {
        return "0s".to_owned();
    }
    if faster == 1 {
        return write_duration(time).replace(' ', "");
    }
    format!("{}s", (time / faster).as_secs().max(least))
}

/// Replaces each time between two marks. What is between them and is not a time stays.
fn replace(text: &str, (open, close): (char, char), with: impl Fn(Duration) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(open) {
        let (before, from) = rest.split_at(begin);
        out.push_str(before);
        let end = from.find(close);
        match end.and_then(|end| parse_duration(&from[1..end]).ok().map(|time| (end, time))) {
            Some((end, time)) => {
                out.push_str(&with(time));
                rest = &from[end + 1..];
            }
            None => {
                out.push(open);
                rest = &from[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{METRICS, Metric};

    fn find(name: &str) -> Alert {
        *ALERTS.iter().find(|alert| alert.name == name).unwrap()
    }

    #[test]
    fn conditions_name_metrics_of_the_table_only() {
        let known: Vec<String> = METRICS.iter().map(Metric::prometheus_name).collect();
        for alert in &ALERTS {
            let expression = alert.expression(1);
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let named: Vec<&str> = words.filter(|word| word.starts_with("shardlake_")).collect();
            for name in &named {
                assert!(known.iter().any(|known| known == name), "{}: {name}", alert.name);
            }
            assert!(!named.is_empty() || alert.name == "ShardlakeWorkerDown", "{}", alert.name);
        }
    }

    #[test]
    fn times_become_numbers_and_ranges_and_may_be_shorter() {
        let behind = find("ShardlakeShardBehind");
        assert!(behind.expression(1).ends_with("> 900") && behind.expression(60).ends_with("> 15"));
        assert_eq!((behind.hold(1).as_str(), behind.hold(60).as_str()), ("5m", "5s"));
        let code = find("ShardlakeNewDeadLetterCode");
        assert!(code.expression(1).contains("[10m]") && code.expression(1).ends_with("offset 10m)) > 0"));
        assert!(code.expression(60).contains("[15s]") && code.expression(60).contains("[1440s] offset 15s)"));
        assert_eq!(code.hold(60), "0s");
        assert!(code.expression(1).contains("[24h]"), "{}", code.expression(1));
        assert_eq!(find("ShardlakeWorkerDown").expression(60), r#"up{job="shardlake"} == 0"#);
    }
}
