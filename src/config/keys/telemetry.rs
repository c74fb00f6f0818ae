//! The keys of `[telemetry]`.

use std::time::Duration;

use crate::config::{CloudWatchMetrics, Settings};
use crate::settings::{Fallback, Key, Kind};

pub(super) fn telemetry_keys() -> Vec<Key<Settings>> {
    vec![
        Key {
            name: "cloudwatch_metrics",
            kind: Kind::Text {
                form: "`off`, `stdout`",
                read: |settings, text| {
                    settings.worker.telemetry.cloudwatch_metrics = match text {
                        "off" => CloudWatchMetrics::Off,
                        "stdout" => CloudWatchMetrics::Stdout,
                        _ => return Err(format!("cloudwatch_metrics must be off or stdout, not '{text}'")),
                    };
                    Ok(())
                },
                show: |settings| {
                    let text = match settings.worker.telemetry.cloudwatch_metrics {
                        CloudWatchMetrics::Off => "off",
                        CloudWatchMetrics::Stdout => "stdout",
                    };
                    Some(text.to_owned())
                },
            },
            default: Fallback::Is("off"),
            doc: "`stdout`: a worker writes three figures a minute to stdout, in CloudWatch's embedded metric format, for classic alarms and the \
                  scaling of ECS ([metrics.md](metrics.md#cloudwatch)).",
        },
        Key {
            name: "freshness",
            kind: Kind::Time(|settings| &mut settings.worker.telemetry.freshness, Duration::from_secs(1)),
            default: Fallback::Is("10m"),
            doc: "The age that the lake's data should not exceed. It changes no behaviour: the alert `ShardlakeDataNotFresh` fires at twice the age.",
        },
        Key {
            name: "lake_every",
            kind: Kind::Time(|settings| &mut settings.worker.telemetry.lake_every, Duration::from_secs(1)),
            default: Fallback::Is("10m"),
            doc: "How often one worker of the fleet looks for losses, ending checkpoints and orphaned uploads, and each worker for the \
                  retention of its streams. Each time costs some lists.",
        },
    ]
}
