//! How often the lease manager renews and scans.
//!
//! Owns: the time between two beats, and how many beats pass between two scans. Does not own: what happens at a beat (`manager`).
//!
//! A scan reads every row, and every worker scans. So what they read together grows with the rows and with the workers, and a table can be
//! read only so fast. In a large fleet most scans are left out, except those of a worker that waits for leases, or that suspects another one to be dead. Then a dead worker's leases are taken later, by up to twice the
//! failover time. Whoever wants fewer scans chooses a longer one (`[leases] failover`).

use std::time::Duration;

/// The longest time between two beats.
const BEAT_MAX: Duration = Duration::from_millis(1500);
/// The least number of beats from one scan to the next: a renewal and a scan in turn.
pub(super) const BEATS_MIN: u64 = 2;
/// Read units a second that the scans of a fleet take together before they become rarer: a third of what DynamoDB takes of one partition.
const SCAN_UNITS_PER_SECOND: f64 = 1000.0;
/// Rows of 500 bytes in a unit of 4 KiB.
const ROWS_PER_UNIT: f64 = 8.0;

/// The time between two beats.
pub(super) fn beat_every(failover: Duration) -> Duration {
    (failover / 7).min(BEAT_MAX)
}

/// Beats from one scan to the next in a table of this many rows, which this many workers scan.
///
/// A scan waits for the failover time at most, and a little: so the second one after the end of a worker shows that it is quiet.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers that are not negative"
)]
pub(super) fn scans_every(rows: usize, workers: u64, failover: Duration) -> u64 {
    let beat = beat_every(failover).as_secs_f64();
    let units = rows as f64 / ROWS_PER_UNIT * workers as f64;
    let longest = (failover.as_secs_f64() / beat).round() as u64 + 1;
    ((units / SCAN_UNITS_PER_SECOND / beat).ceil() as u64).clamp(BEATS_MIN, longest.max(BEATS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_become_rarer_as_rows_and_workers_grow_but_not_rarer_than_the_failover_time() {
        let failover = Duration::from_secs(10);
        let every = |rows, workers| scans_every(rows, workers, failover);
        assert_eq!([every(1, 1), every(100, 100), every(1_000, 10), every(10_000, 2)], [2; 4]);
        assert_eq!([every(3_000, 10), every(1_000, 50)], [3, 5]);
        assert_eq!([every(1_000, 100), every(10_000, 100)], [8, 8]);
        assert!(beat_every(failover) * 8 > failover);
        assert_eq!(scans_every(10_000, 100, Duration::from_secs(60)), 41);
        assert_eq!(scans_every(10_000, 100, Duration::from_millis(500)), 8);
    }
}
