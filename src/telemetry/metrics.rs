//! The table of metrics.
//!
//! Owns: every metric that a worker has, with its meaning and where its value comes from. Instruments, documentation, dashboards and the
//! checks of alerts come from this table. Does not own: the values (`figures`), thresholds (`alerts`).
//!
//! Names follow OpenTelemetry's conventions: dots, units apart, `process.*` for the process and `rpc.*` for requests. Prometheus shows
//! them with underscores, the unit and, for counters, `_total` ([`Metric::prometheus_name`]).
//!
//! Only shards that the worker holds have attributes of their own. So a fleet has one series for each shard and metric, whatever the
//! number of workers.

use crate::telemetry::figures::{self, Read};

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins at 0 with the process.
    Counter,
    /// A value of the moment.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl Kind {
    /// Its name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric.
pub struct Metric {
    /// Its name by OpenTelemetry's conventions.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its unit by the UCUM, as OpenTelemetry writes it; empty for pure information.
    pub unit: &'static str,
    /// The attributes of its series.
    pub attributes: &'static [&'static str],
    /// What it says, in one sentence.
    pub meaning: &'static str,
    /// What people know it as elsewhere; empty if nobody does.
    pub known: &'static str,
    /// Where its value comes from.
    pub(crate) read: Read,
}

/// Attributes of a shard.
const SHARD: &[&str] = &["stream", "shard"];

impl Metric {
    /// Its name as Prometheus has it.
    pub fn prometheus_name(&self) -> String {
        let base = self.name.replace('.', "_");
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            "1" => "_ratio",
            _ => "",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{base}{unit}{total}")
    }
}

macro_rules! metrics {
    ($($kind:ident $name:literal [$unit:literal] $attributes:expr, $read:expr; $meaning:literal $(, known as $known:literal)?;)+) => {
        /// Every metric.
        pub static METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            attributes: $attributes,
            meaning: $meaning,
            known: concat!("" $(, $known)?),
            read: $read,
        }),+];
    };
}

metrics! {
    Gauge "shardlake.shard.lag" ["s"] SHARD, Read::Figures(figures::shard_lag);
        "How far the last response of the stream was from the shard's tip, as the stream said.",
        known as "`MillisBehindLatest` (KCL), `IteratorAge` (Kinesis, Lambda)";
    Gauge "shardlake.shard.backlog" ["By"] SHARD, Read::Figures(figures::shard_backlog);
        "Bytes that the shard has and the worker has not read: as the source says, or the lag times the rate at which its records arrived.",
        known as "consumer lag (Kafka), in bytes";
    Gauge "shardlake.shard.data.age" ["s"] SHARD, Read::Figures(figures::shard_data_age);
        "The age of the oldest record that is not in the lake: not read, or read and not committed.",
        known as "`DataFreshness` (Firehose), `OldestRecordAge`";
    Gauge "shardlake.shard.retention.used" ["1"] SHARD, Read::Figures(figures::shard_retention_used);
        "The lag as a share of the stream's retention. At 1 records expire unread.";
    Gauge "shardlake.shard.response.age" ["s"] SHARD, Read::Figures(figures::shard_response_age);
        "Time since the stream last responded to a read of the shard.";
    Gauge "shardlake.shard.uncommitted.age" ["s"] SHARD, Read::Figures(figures::shard_uncommitted_age);
        "The age of the oldest record that was read and is not committed; 0 if there is none.";
    Gauge "shardlake.shard.uncommitted.wait" ["s"] SHARD, Read::Figures(figures::shard_uncommitted_wait);
        "For how long something that was read has waited for its commit; 0 if nothing waits.";
    Gauge "shardlake.shard.uncommitted.records" ["{record}"] SHARD, Read::Figures(figures::shard_uncommitted_records);
        "Records that went through the stages and are not committed.";
    Gauge "shardlake.shard.commit.age" ["s"] SHARD, Read::Figures(figures::shard_commit_age);
        "Time since this worker last committed records of the shard.";
    Counter "shardlake.shard.records" ["{record}"] SHARD, Read::Figures(figures::shard_records);
        "Records of the shard that went through the stages.",
        known as "`RecordsProcessed` (KCL)";
    Counter "shardlake.shard.read" ["By"] SHARD, Read::Figures(figures::shard_read);
        "Bytes of records that were read from the shard.",
        known as "`DataBytesProcessed` (KCL)";

    Gauge "shardlake.worker.shards" ["{shard}"] &[], Read::Figures(figures::worker_shards);
        "Shards whose leases this worker holds.",
        known as "`CurrentLeases`, `LeasesToTake` (KCL)";
    Counter "shardlake.records" ["{record}"] &[], Read::Figures(figures::records);
        "Records that went through the stages.",
        known as "`RecordsProcessed` (KCL), `IncomingRecords` (Firehose)";
    Counter "shardlake.edge.records" ["{record}"] &["edge"], Read::Figures(figures::edge_records);
        "Records along an edge of the stage graph.";
    Counter "shardlake.edge.size" ["By"] &["edge"], Read::Figures(figures::edge_size);
        "Bytes along an edge of the stage graph: of records before `encode`, of objects after it.";
    Counter "shardlake.dead_letters" ["{record}"] &["code"], Read::Figures(figures::dead_letters);
        "Records that became dead letters, by code. Every code is there from the start.",
        known as "`FailedRecordCount`, `FailedConversion.Records` (Firehose)";
    Counter "shardlake.data.lost" ["{loss}"] &[], Read::Figures(figures::data_lost);
        "Losses in a stream that this worker has announced as `DATA LOSS`, or that it may have had.";

    Counter "shardlake.epochs" ["{epoch}"] &["outcome"], Read::Figures(figures::epochs);
        "Epochs by outcome: `committed`, `aborted` before the decision, and those that others had left: `rolled_forward`, `rolled_back`.",
        known as "`numberOfCompletedCheckpoints` (Flink)";
    Histogram "shardlake.commit.duration" ["s"] &["step"], Read::CommitStep;
        "How long each step of a commit took.",
        known as "`lastCheckpointDuration` (Flink)";
    Gauge "shardlake.commit.interval" ["s"] &[], Read::Figures(figures::commit_interval);
        "The interval of commits that is configured.";
    Gauge "shardlake.freshness.objective" ["s"] &[], Read::Figures(figures::freshness_objective);
        "The age of the lake's data that is configured as the objective.";
    Gauge "shardlake.epoch.open.age" ["s"] &[], Read::Figures(figures::epoch_age);
        "The age of the oldest open epoch; 0 if none is open.";
    Gauge "shardlake.epoch.open.size" ["By"] &[], Read::Figures(figures::epoch_size);
        "Bytes of records that the open epochs have read.";
    Counter "shardlake.objects" ["{object}"] &["kind", "dataset"], Read::Figures(figures::objects);
        "Objects that were committed.";
    Counter "shardlake.objects.size" ["By"] &["kind", "dataset"], Read::Figures(figures::objects_size);
        "Bytes of the objects that were committed.",
        known as "`DeliveryToS3.Bytes` (Firehose)";

    Gauge "shardlake.fleet.workers" ["{worker}"] &[], Read::Figures(figures::fleet_workers);
        "Workers that hold a shard, as the last scan of the lease table showed it.";
    Gauge "shardlake.fleet.shards" ["{shard}"] &[], Read::Figures(figures::fleet_shards);
        "Shards that can be read now.";
    Gauge "shardlake.fleet.shards.waiting" ["{shard}"] &[], Read::Figures(figures::fleet_waiting);
        "Shards that wait until their parents are read to the end.";
    Gauge "shardlake.fleet.shards.unowned" ["{shard}"] &[], Read::Figures(figures::fleet_unowned);
        "Shards that can be read and that no worker holds.",
        known as "`ExpiredLeases` (KCL)";
    Gauge "shardlake.fleet.shards.unowned.age" ["s"] &[], Read::Figures(figures::fleet_unowned_age);
        "For how long this worker has seen one of them without an owner.";
    Gauge "shardlake.fleet.epochs.pending" ["{epoch}"] &[], Read::Figures(figures::fleet_pending);
        "Epochs that are decided and not finished.";
    Gauge "shardlake.fleet.epochs.pending.age" ["s"] &[], Read::Figures(figures::fleet_pending_age);
        "For how long this worker has seen one of them pending.";
    Gauge "shardlake.fleet.scan.age" ["s"] &[], Read::Figures(figures::fleet_scan_age);
        "Time since this worker last scanned the lease table.";

    Gauge "shardlake.losses.open" ["{loss}"] &[], Read::Figures(figures::losses);
        "Losses that the lake has noted and nobody has accepted. Only the worker that holds the first shard has this metric, and the three after it.";
    Gauge "shardlake.checkpoints.ending" ["{checkpoint}"] &[], Read::Figures(figures::checkpoints_ending);
        "Saved checkpoints that can soon not be used any more, or cannot be used.";
    Gauge "shardlake.uploads.orphaned" ["{upload}"] &[], Read::Figures(figures::orphaned_uploads);
        "Uploads of ended workers that a sweep would abort.";
    Gauge "shardlake.intents.orphaned" ["{intent}"] &[], Read::Figures(figures::orphaned_intents);
        "Intents of ended workers that a sweep would remove.";

    Gauge "shardlake.service.failing" ["s"] &["service"], Read::Figures(figures::service_failing);
        "For how long a service has failed without a success; 0 if it works. Throttling counts.";
    Counter "shardlake.aws.requests" ["{request}"] &["rpc.service", "rpc.method", "outcome"], Read::Figures(figures::requests);
        "Attempts of requests to AWS by outcome: `ok`, `throttled`, `refused`, `failed`.",
        known as "`ReadProvisionedThroughputExceeded` (Kinesis), `ThrottledRequests` (DynamoDB), `503 Slow Down` (S3)";
    Histogram "rpc.client.call.duration" ["s"] &["rpc.service", "rpc.method"], Read::Request;
        "How long an attempt of a request to AWS took.",
        known as "`KinesisDataFetcher.getRecords.Time` (KCL)";

    Gauge "shardlake.memory.limit" ["By"] &[], Read::Figures(figures::memory_limit);
        "The memory limit that is configured.";
    Gauge "shardlake.memory.input.usage" ["By"] &[], Read::Figures(figures::input_usage);
        "Bytes of the share for chunks that are taken. A full share makes readers wait.";
    Gauge "shardlake.memory.input.limit" ["By"] &[], Read::Figures(figures::input_limit);
        "Bytes of the share for chunks.";
    Gauge "shardlake.build.info" [""] &["version", "build"], Read::Figures(figures::build_info);
        "1; the version is in the attributes.";
    Counter "process.cpu.time" ["s"] &["cpu.mode"], Read::Figures(figures::cpu_time);
        "Processor time of the process.";
    Gauge "process.memory.usage" ["By"] &[], Read::Figures(figures::memory_usage);
        "Memory of the process that is resident.";
    Gauge "process.uptime" ["s"] &[], Read::Figures(figures::uptime);
        "Time since the worker began.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_by_the_conventions() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        let prometheus: BTreeSet<String> = METRICS.iter().map(Metric::prometheus_name).collect();
        assert_eq!((names.len(), prometheus.len()), (METRICS.len(), METRICS.len()));
        for metric in METRICS {
            let is_plain = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'.' | b'_'));
            assert!(is_plain(metric.name) && metric.attributes.iter().all(|name| is_plain(name)), "{}", metric.name);
            assert!(
                !metric.name.ends_with("_total") && !metric.name.contains("seconds"),
                "{}: units are apart",
                metric.name
            );
            let unit = metric.unit;
            assert!(matches!(unit, "" | "s" | "By" | "1") || (unit.starts_with('{') && unit.ends_with('}')), "{unit}");
            assert!(metric.meaning.ends_with('.'), "{}: a sentence", metric.name);
        }
    }
}
