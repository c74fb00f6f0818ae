//! How much data there is, and what runs for it.
//!
//! Owns: the figures that an estimate starts from, checking them, and the four phases of growth. Does not own: what follows from
//! them (`requests`, `storage`, `estimate`).
//!
//! # The phases
//!
//! They are those of the architecture that Shardlake was built for. It names a number of uploads, a volume, or what is stored. One
//! GB of 10,000 uploads a month makes 100 KB of JSON for each assessment, and 10 GB of 100,000 the same. So all phases have
//! records of 100 KB. What it does not name is in `taken`.

use std::time::Duration;

use serde::Serialize;

use super::HOURS;

/// Kinesis's largest record, if the stream allows it: 10 MiB.
const RECORD_BYTES_MAX: u64 = 10 << 20;
/// Bytes and records that a provisioned shard takes each second.
const SHARD_BYTES_PER_SECOND: f64 = 1_048_576.0;
const SHARD_RECORDS_PER_SECOND: f64 = 1000.0;
/// Shards that one stream may have here: AWS's highest quota.
const SHARDS_MAX: u32 = 20_000;
/// Shards of a new on-demand stream.
const ON_DEMAND_SHARDS: u32 = 4;
/// How far the busiest second is assumed to be above the mean, if the number of shards is not given.
const PEAK: f64 = 3.0;
/// Partitions that an epoch of the built-in datasets has rows of: six types of `assessments`, a day of `events` and of `users`.
pub(super) const PARTITIONS: u32 = 8;

/// How a stream is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// By the shard and hour.
    Provisioned,
    /// By the stream and hour, and by the GB.
    OnDemand,
}

/// How the workers reach AWS's services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Tasks in a public subnet, each with a public address.
    PublicIp,
    /// Tasks in a private subnet, behind one NAT gateway.
    Nat,
}

/// The figures that an estimate starts from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// Records a day.
    pub records_per_day: u64,
    /// Mean bytes of a record.
    pub record_bytes: u64,
    /// Shards of the stream.
    pub shards: u32,
    /// How the stream is paid for.
    pub capacity: Capacity,
    /// Whether the workers read with enhanced fan-out.
    pub fan_out: bool,
    /// Tasks that run all the time.
    pub workers: u32,
    /// Whether each task has an EC2 instance of its own, instead of Fargate.
    pub on_ec2: bool,
    /// vCPUs of a task on Fargate.
    pub vcpu: f64,
    /// GB of memory of a task on Fargate.
    pub memory_gb: f64,
    /// How the tasks reach AWS.
    pub network: Network,
    /// `[commit] interval`.
    pub commit_interval: Duration,
    /// Partitions that the rows of an epoch may belong to.
    pub partitions: u32,
    /// Which month after the start: what is stored grows from month to month.
    pub month: u32,
    /// TB that Athena scans in a month.
    pub athena_tb: f64,
    /// Whether a Glue crawler runs every day.
    pub crawler: bool,
    /// Authors of QuickSight.
    pub quicksight_authors: u32,
}

impl Workload {
    /// A workload of this size, with one small task and no analytics.
    pub fn new(records_per_day: u64, record_bytes: u64, shards: Option<u32>, capacity: Capacity) -> Self {
        let mut workload = Workload {
            records_per_day,
            record_bytes,
            shards: shards.unwrap_or(1),
            capacity,
            fan_out: false,
            workers: 1,
            on_ec2: false,
            vcpu: 0.5,
            memory_gb: 1.0,
            network: Network::PublicIp,
            commit_interval: Duration::from_secs(300),
            partitions: PARTITIONS,
            month: 12,
            athena_tb: 0.0,
            crawler: false,
            quicksight_authors: 0,
        };
        if shards.is_none() {
            let least = if capacity == Capacity::OnDemand { ON_DEMAND_SHARDS } else { 1 };
            workload.shards = workload.shards_for(PEAK).max(least);
        }
        workload
    }

    /// Records of a month.
    pub fn records(&self) -> f64 {
        as_f64(self.records_per_day) / 24.0 * HOURS
    }

    /// Bytes of a month's records.
    pub fn bytes(&self) -> f64 {
        self.records() * as_f64(self.record_bytes)
    }

    /// Bytes of a month's records if each is rounded up to a multiple of `step` bytes.
    pub fn bytes_in_steps_of(&self, step: u64) -> f64 {
        self.records() * as_f64(self.record_bytes.div_ceil(step) * step)
    }

    /// The fewest shards that take `factor` times the mean.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    fn shards_for(&self, factor: f64) -> u32 {
        let per_second = as_f64(self.records_per_day) / 86_400.0 * factor;
        let by_bytes = per_second * as_f64(self.record_bytes) / SHARD_BYTES_PER_SECOND;
        let shards = by_bytes.max(per_second / SHARD_RECORDS_PER_SECOND).ceil();
        shards.clamp(1.0, f64::from(u32::MAX)) as u32
    }

    /// Checks every figure.
    ///
    /// # Errors
    /// A sentence for each that is out of bounds.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut check = |fits: bool, problem: String| {
            if !fits {
                problems.push(problem);
            }
        };
        let Workload { records_per_day, record_bytes, shards, .. } = *self;
        check((1..=1_000_000_000_000).contains(&records_per_day), "--records-per-day must be 1 to 10^12".to_owned());
        check(
            (1..=RECORD_BYTES_MAX).contains(&record_bytes),
            format!("--bytes must be 1 to {RECORD_BYTES_MAX}, which is the largest record of Kinesis"),
        );
        check((1..=SHARDS_MAX).contains(&shards), format!("--shards must be 1 to {SHARDS_MAX}"));
        let needed = self.shards_for(1.0);
        check(
            self.capacity == Capacity::OnDemand || needed <= shards.max(1),
            format!(
                "--shards {shards} is too few: the mean alone needs {needed} (1 MiB and 1,000 records a second for each shard)"
            ),
        );
        check((1..=1000).contains(&self.workers), "--workers must be 1 to 1000".to_owned());
        check((0.25..=16.0).contains(&self.vcpu), "--vcpu must be 0.25 to 16".to_owned());
        check((0.5..=120.0).contains(&self.memory_gb), "--memory-gb must be 0.5 to 120".to_owned());
        let interval = self.commit_interval;
        check(
            (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&interval),
            "--commit-interval must be 100ms to 24h".to_owned(),
        );
        check((1..=10_000).contains(&self.partitions), "--partitions must be 1 to 10000".to_owned());
        check((1..=120).contains(&self.month), "--month must be 1 to 120".to_owned());
        check((0.0..=1e6).contains(&self.athena_tb), "--athena-tb must be 0 to 1000000".to_owned());
        check(self.quicksight_authors <= 100_000, "--quicksight-authors must be 100000 at most".to_owned());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures of an estimate")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A phase of growth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Phase {
    /// Its number, from 1.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What the architecture expects it to cost in a month, in US dollars: from, to.
    pub expected_usd: (f64, f64),
    /// What the architecture names.
    pub named: &'static str,
    /// What it does not name, and was taken instead.
    pub taken: &'static str,
    /// Records of a month.
    pub records_per_month: u64,
    /// TB that Athena scans in a month.
    pub athena_tb: f64,
    /// Whether a Glue crawler runs every day.
    pub crawler: bool,
    /// Authors of QuickSight.
    pub quicksight_authors: u32,
}

/// Bytes of a record in all phases.
const PHASE_RECORD_BYTES: u64 = 100_000;

/// The four phases.
pub const PHASES: [Phase; 4] = [
    Phase {
        number: 1,
        name: "direct uploads",
        expected_usd: (1.0, 5.0),
        named: "10,000 uploads a month, 1 GB",
        taken: "records of 100 KB, which is 1 GB by 10,000",
        records_per_month: 10_000,
        athena_tb: 0.0,
        crawler: false,
        quicksight_authors: 0,
    },
    Phase {
        number: 2,
        name: "processing",
        expected_usd: (10.0, 50.0),
        named: "100,000 invocations a month, 10 GB",
        taken: "records of 100 KB, which is 10 GB by 100,000",
        records_per_month: 100_000,
        athena_tb: 0.0,
        crawler: false,
        quicksight_authors: 0,
    },
    Phase {
        number: 3,
        name: "streaming",
        expected_usd: (100.0, 200.0),
        named: "500 GB a month through Firehose, 100 GB stored",
        taken: "records of 100 KB, 1 TB scanned by Athena, one author of QuickSight",
        records_per_month: 5_000_000,
        athena_tb: 1.0,
        crawler: false,
        quicksight_authors: 1,
    },
    Phase {
        number: 4,
        name: "full analytics",
        expected_usd: (500.0, 2000.0),
        named: "1 TB stored; Athena, Glue and QuickSight by their unit prices",
        taken: "ten times the records of phase 3, as ten times as much is stored; 10 TB scanned, 10 authors, a daily crawler",
        records_per_month: 50_000_000,
        athena_tb: 10.0,
        crawler: true,
        quicksight_authors: 10,
    },
];

impl Phase {
    /// The workload of the phase.
    pub fn workload(&self, capacity: Capacity) -> Workload {
        // 365 days have twelve months of 730 hours.
        let records_per_day = (self.records_per_month * 12).div_ceil(365);
        let workload = Workload::new(records_per_day, PHASE_RECORD_BYTES, None, capacity);
        let Phase { athena_tb, crawler, quicksight_authors, .. } = *self;
        Workload { athena_tb, crawler, quicksight_authors, ..workload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload::new(86_400, 1000, Some(2), Capacity::Provisioned)
    }

    #[test]
    fn a_month_has_730_hours_of_records() {
        assert_eq!(workload().records(), 2_628_000.0);
        assert_eq!(workload().bytes(), 2_628_000_000.0);
        assert_eq!(workload().bytes_in_steps_of(5 << 10), 2_628_000.0 * 5120.0);
        assert_eq!(Workload { record_bytes: 5121, ..workload() }.bytes_in_steps_of(5 << 10), 2_628_000.0 * 10_240.0);
    }

    #[test]
    fn shards_that_are_not_given_carry_three_times_the_mean() {
        // 10 MiB a second.
        let new = |capacity| Workload::new(86_400 * 10 * 1024, 1024, None, capacity).shards;
        assert_eq!(
            new(Capacity::Provisioned),
            31,
            "10,240 records a second need 11 shards; three times as many need 31"
        );
        assert_eq!(Workload::new(1, 1, None, Capacity::Provisioned).shards, 1);
        assert_eq!(Workload::new(1, 1, None, Capacity::OnDemand).shards, 4);
    }

    #[test]
    fn every_figure_out_of_bounds_is_reported() {
        assert_eq!(workload().check(), Ok(()));
        let bad = Workload {
            records_per_day: 0,
            record_bytes: 11 << 20,
            shards: 0,
            workers: 0,
            vcpu: f64::NAN,
            memory_gb: -1.0,
            commit_interval: Duration::ZERO,
            partitions: 0,
            month: 0,
            athena_tb: f64::INFINITY,
            ..workload()
        };
        assert_eq!(bad.check().unwrap_err().len(), 10);
        let few = Workload { records_per_day: 86_400 * 2001, ..workload() }.check().unwrap_err();
        assert!(few.len() == 1 && few[0].contains("--shards 2 is too few: the mean alone needs 3"), "{few:?}");
    }

    #[test]
    fn the_phases_have_the_volumes_that_the_architecture_names() {
        for phase in &PHASES {
            let workload = phase.workload(Capacity::Provisioned);
            assert_eq!(workload.check(), Ok(()), "phase {}", phase.number);
            let records = workload.records();
            let wanted = as_f64(phase.records_per_month);
            assert!(records >= wanted && records < wanted * 1.01, "phase {}: {records}", phase.number);
        }
        assert_eq!(PHASES[0].workload(Capacity::Provisioned).records_per_day, 329);
        assert!((PHASES[2].workload(Capacity::Provisioned).bytes() / 500e9 - 1.0).abs() < 0.01);
    }
}
