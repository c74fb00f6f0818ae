//! Which requests the workers send in a month, from how they work.
//!
//! Owns: the formulas. Does not own: the steps of a commit (`commit`), when the lease manager acts (`worker::leases`); the constants
//! below repeat what is written there, and tests of the binary count the requests of real runs.
//!
//! With `T` the seconds of a month, `I` the commit interval, and `r` the records a second of a *group* (the shards that one worker
//! commits together, 100 at most):
//!
//! | what | how many |
//! | --- | --- |
//! | epochs of a group | `T ÷ (I + 1/r)`: an epoch begins with its first record; at least `bytes ÷ 16 GiB` |
//! | shards of an epoch | `spread(shards of the group, records of the epoch)` |
//! | objects of an epoch | `spread(partitions, records)` for rows, the same with 3 datasets for raw lines and with 4 codes for dead letters; one more for every 128 MiB |
//! | S3, each object | 1 `CreateMultipartUpload`, 1 `UploadPart` for every 5 MiB begun, 1 `CompleteMultipartUpload` |
//! | S3, each epoch | 3 `PutObject` (intent, commit record, entry of the lake log), 1 `HeadObject`, 1 `DeleteObject`, which is free |
//! | S3, each epoch, where several workers commit | 1 list and 1 `GetObject`: the end of the lake log |
//! | S3, every 256 epochs of a worker | 1 `PutObject`, 3 lists, 257 `GetObject`: a roll-up of the commit log |
//! | DynamoDB, each worker that holds shards | a renewal and a scan in turn, one of them every 1.43 s; beyond 1,000 read units a second of the fleet, fewer scans |
//! | DynamoDB, each shard but one of each worker | a renewal each minute |
//! | DynamoDB, each epoch | a transaction over its shards, which costs two write units for each, and one update for each |
//!
//! `spread(kinds, count)` is how many of `kinds` are hit when `count` things fall on them evenly and at random. Requests that are
//! sent again, starts and hand-overs come on top.

use serde::Serialize;

use super::storage::{ERROR_RATIO, PROCESSED_RATIO, RAW_RATIO};
use super::workload::Workload;
use super::{HOURS, spread};

/// Shards that one decision covers: `checkpoints`, the limit of a DynamoDB transaction.
const GROUP_SHARDS: u32 = 100;
/// `[commit] input_bytes`.
const INPUT_BYTES: f64 = 17_179_869_184.0;
/// `[parquet] file_bytes`.
const FILE_BYTES: f64 = 134_217_728.0;
/// The part of an upload (`lake::s3`).
const PART_BYTES: f64 = 5_242_880.0;
/// Commits of a worker between two roll-ups (`commit::log::RollUpConfig`).
const ROLL_UP_EVERY: f64 = 256.0;
/// Seconds between two beats of the lease manager at the default failover: 10 s ÷ 7. Renewals and scans take turns.
const BEAT_S: f64 = 10.0 / 7.0;
/// Beats between two scans of one worker, least and most, and the read units a second beyond which they become rarer; there a unit has
/// eight rows (`worker::leases::pace`).
const SCAN_BEATS: (f64, f64) = (2.0, 8.0);
const SCAN_UNITS: f64 = 1000.0;
const SCAN_ROWS: f64 = 8.0;
/// How often each lease is renewed.
const RENEW_ALL_S: f64 = 60.0;
/// Bytes of a lease row, rounded up. A write of up to 1 KB is one unit.
const ROW_BYTES: f64 = 1024.0;
/// Bytes of one consistent read unit.
const READ_UNIT: f64 = 4096.0;
/// Datasets that raw lines are kept apart by.
pub(super) const DATASETS: f64 = 3.0;
/// The part of the records that become dead letters, and the number of codes that they have.
pub(super) const DEAD_LETTERS: f64 = 0.001;
const CODES: f64 = 4.0;
/// Bytes of a commit record, and of an entry of the lake log: its head, and each object with the statistics of its columns.
const RECORD_HEAD_BYTES: f64 = 2500.0;
const RECORD_OBJECT_BYTES: f64 = 1500.0;
/// Bytes of a worker's log for each epoch.
const LOG_BYTES: f64 = 1000.0;

/// The requests of all workers in a month.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorkerRequests {
    /// Epochs that are committed.
    pub epochs: f64,
    /// Objects with rows.
    pub processed_objects: f64,
    /// Objects with records as received.
    pub raw_objects: f64,
    /// Objects with dead letters.
    pub error_objects: f64,
    /// Parts of all objects.
    pub parts: f64,
    /// Requests to S3 at the price of a PUT: uploads, intents, commit records, entries of the lake log, roll-ups, lists.
    pub s3_puts: f64,
    /// Requests to S3 at the price of a GET.
    pub s3_gets: f64,
    /// Write units of the lease table.
    pub lease_writes: f64,
    /// Read units of the lease table.
    pub lease_reads: f64,
    /// Bytes of the commit records and of the entries of the lake log that are written.
    pub record_bytes: f64,
    /// Bytes of the workers' logs.
    pub log_bytes: f64,
}

impl WorkerRequests {
    /// The requests for a workload.
    pub fn of(workload: &Workload) -> Self {
        let seconds = HOURS * 3600.0;
        let shards = f64::from(workload.shards);
        let busy_workers = f64::from(workload.workers.min(workload.shards));
        let per_worker = workload.shards.div_ceil(workload.workers.min(workload.shards).max(1));
        let groups = busy_workers * f64::from(per_worker.div_ceil(GROUP_SHARDS));

        let records_per_second = workload.records() / seconds / groups;
        let by_time = seconds / (workload.commit_interval.as_secs_f64() + 1.0 / records_per_second);
        let by_input = workload.bytes() / groups / INPUT_BYTES;
        let epochs = groups * by_time.max(by_input);
        let records = workload.records() / epochs;
        let bytes = workload.bytes() / epochs;

        let area = |kinds: f64, records: f64, bytes: f64| {
            let objects = spread(kinds, records) + (bytes / FILE_BYTES).floor();
            let parts = objects * (bytes / objects / PART_BYTES).ceil().max(1.0);
            (epochs * objects, epochs * parts)
        };
        let (processed_objects, processed_parts) =
            area(f64::from(workload.partitions), records, bytes * PROCESSED_RATIO);
        let (raw_objects, raw_parts) = area(DATASETS, records, bytes * RAW_RATIO);
        let (error_objects, error_parts) = area(CODES, records * DEAD_LETTERS, bytes * ERROR_RATIO);
        let objects = processed_objects + raw_objects + error_objects;
        let parts = processed_parts + raw_parts + error_parts;

        let roll_ups = epochs / ROLL_UP_EVERY;
        // A worker that is alone knows the end of the lake log.
        let ends_found = if busy_workers > 1.0 { epochs } else { 0.0 };
        let renewals = busy_workers * seconds / BEAT_S / 2.0 + (shards - busy_workers) * seconds / RENEW_ALL_S;
        // A worker without shards has nothing to renew, and scans at every beat.
        let idle_workers = f64::from(workload.workers) - busy_workers;
        let beats = (shards / SCAN_ROWS * busy_workers / SCAN_UNITS / BEAT_S).ceil().clamp(SCAN_BEATS.0, SCAN_BEATS.1);
        let scans = (busy_workers / beats + idle_workers) * seconds / BEAT_S;
        let shards_of_epoch = spread(shards / groups, records);
        WorkerRequests {
            epochs,
            processed_objects,
            raw_objects,
            error_objects,
            parts,
            s3_puts: 2.0 * objects + parts + 3.0 * epochs + ends_found + 4.0 * roll_ups,
            s3_gets: epochs + ends_found + (ROLL_UP_EVERY + 1.0) * roll_ups,
            lease_writes: renewals + 3.0 * shards_of_epoch * epochs,
            lease_reads: scans * (shards * ROW_BYTES / READ_UNIT).ceil(),
            record_bytes: 2.0 * (RECORD_HEAD_BYTES * epochs + RECORD_OBJECT_BYTES * objects),
            log_bytes: LOG_BYTES * epochs,
        }
    }

    /// Objects that become visible in `processed/`, `raw/` and `error/`.
    pub fn objects(&self) -> f64 {
        self.processed_objects + self.raw_objects + self.error_objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::workload::Capacity;

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn a_busy_stream_commits_every_interval_and_writes_every_partition() {
        // 1,000 records of 1,000 bytes a second: 300,000 records and 300 MB in 5 minutes.
        let workload = Workload::new(86_400_000, 1000, Some(4), Capacity::Provisioned);
        let requests = WorkerRequests::of(&workload);
        let epochs = 2_628_000.0 / 300.001;
        close(requests.epochs, epochs);
        close(requests.processed_objects, 8.0 * epochs);
        close(requests.raw_objects, 3.0 * epochs);
        close(requests.error_objects, 4.0 * epochs);
        // 84 MB of raw lines in 3 objects: 28 MB are 6 parts each. All other objects have one part.
        close(requests.parts, (8.0 + 3.0 * 6.0 + 4.0) * epochs);
        // 15 objects begun and completed, their parts, three small objects; 4 of 256 epochs for the roll-up.
        close(requests.s3_puts, (2.0 * 15.0 + 30.0 + 3.0 + 4.0 / 256.0) * epochs);
        close(requests.s3_gets, (1.0 + 257.0 / 256.0) * epochs);
        let two = WorkerRequests::of(&Workload { workers: 2, ..workload });
        close(two.s3_gets, (2.0 + 257.0 / 256.0) * two.epochs);
        // 919,800 beats that renew; 3 leases each minute; 4 shards in each epoch.
        close(requests.lease_writes, 919_800.0 + 3.0 * 43_800.0 + 3.0 * 4.0 * epochs);
        close(requests.lease_reads, 919_800.0);
    }

    #[test]
    fn a_quiet_stream_commits_once_for_each_record() {
        let workload = Workload::new(24, 1000, Some(1), Capacity::Provisioned);
        let requests = WorkerRequests::of(&workload);
        // A record each hour: an epoch lasts 5 minutes and waits an hour for its first record.
        close(requests.epochs, 2_628_000.0 / 3900.0);
        assert!(requests.processed_objects > requests.epochs && requests.processed_objects < requests.epochs * 1.1);
        assert!(requests.objects() <= 3.0 * 730.0, "{}", requests.objects());
    }

    #[test]
    fn a_large_stream_has_several_groups_and_larger_scans() {
        let workload = Workload::new(86_400_000, 1000, Some(250), Capacity::Provisioned);
        let one = WorkerRequests::of(&workload);
        close(one.epochs, 3.0 * 2_628_000.0 / 300.003);
        close(one.lease_reads, 919_800.0 * 63.0);
        let three = WorkerRequests::of(&Workload { workers: 3, ..workload.clone() });
        close(three.epochs, one.epochs);
        close(three.lease_reads, 3.0 * one.lease_reads);
        let idle = WorkerRequests::of(&Workload { workers: 251, ..workload });
        // All of them together would read 11,000 units a second: a scan each 6 beats is enough.
        close(idle.lease_reads, (250.0 / 6.0 + 1.0) * 2_628_000.0 / (10.0 / 7.0) * 63.0);
    }

    #[test]
    fn much_input_commits_before_the_interval_is_over() {
        let workload = Workload::new(1_000_000_000, 1_000_000, Some(20_000), Capacity::OnDemand);
        let requests =
            WorkerRequests::of(&Workload { commit_interval: std::time::Duration::from_secs(86_400), ..workload });
        close(requests.epochs, 1e9 / 24.0 * 730.0 * 1e6 / (16.0 * 1_073_741_824.0));
    }
}
