//! How fast a shard may be read, and how long to wait after a failure.
//!
//! Owns: when the next request may be sent. Does not own: the requests, the policy of waits ([`RetryPolicy::shard`]).
//!
//! Kinesis lets all readers of a shard together read it five times and 2 MB a second. After a response of 10 MB it refuses reads for
//! up to five seconds. A reader that is alone on its shard keeps to that by itself. One that shares it is throttled by the service,
//! and waits longer each time. The jitter follows from the shard's name and the number of the failure, so that shards do not wait
//! alike and a simulation is reproducible.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use checkpoints::ShardId;
use tokio::time::Instant;

use crate::retry::RetryPolicy;

/// The waits after failures. For how long a shard may fail is up to the reader's task.
const WAITS: RetryPolicy = RetryPolicy::shard(Duration::ZERO);

/// What the service allows for one shard. The defaults are those of Amazon's service; another implementation may allow more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The least time between two reads.
    pub between_reads: Duration,
    /// Bytes of records a second.
    pub bytes_per_second: u64,
}

impl Default for Limits {
    /// Five reads and 2 MiB a second.
    fn default() -> Self {
        Limits { between_reads: Duration::from_millis(200), bytes_per_second: 2 << 20 }
    }
}

/// The pace of one shard's reader.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Limits,
    seed: u64,
    /// No request is sent before this time.
    next: Option<Instant>,
    failures: u32,
}

impl Pace {
    pub(super) fn new(limits: Limits, shard: &ShardId) -> Self {
        let mut hasher = DefaultHasher::new();
        shard.as_str().hash(&mut hasher);
        Pace { limits, seed: hasher.finish(), next: None, failures: 0 }
    }

    /// Waits for `idle`, and until a request may be sent.
    pub(super) async fn wait(&self, idle: Duration) {
        let now = Instant::now();
        let until = self.next.map_or(now, |next| next.max(now)).max(now + idle);
        tokio::time::sleep_until(until).await;
    }

    /// Notes that a read returned this many bytes.
    pub(super) fn read(&mut self, bytes: u64) {
        let micros = bytes.saturating_mul(1_000_000) / self.limits.bytes_per_second.max(1);
        self.next = Some(Instant::now() + self.limits.between_reads.max(Duration::from_micros(micros)));
        self.succeeded();
    }

    /// Delays the next request until this time.
    pub(super) fn not_before(&mut self, time: Instant) {
        self.next = Some(self.next.map_or(time, |next| next.max(time)));
    }

    /// Notes that the requests succeed again.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure, after which the next request waits. Returns the number of failures in a row.
    pub(super) fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        let longest = WAITS.wait_after(usize::try_from(self.failures).unwrap_or(usize::MAX));
        self.not_before(Instant::now() + longest.mul_f64(0.5 + self.jitter() / 2.0));
        self.failures
    }

    /// A number from 0 to 1.
    fn jitter(&self) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.failures).hash(&mut hasher);
        f64::from((hasher.finish() >> 40) as u32 & 0xff_ffff) / f64::from(1 << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Limits::default(), &ShardId::new("shardId-0").unwrap())
    }

    async fn waited(pace: &Pace, idle: Duration) -> Duration {
        let begun = Instant::now();
        pace.wait(idle).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn reads_keep_the_distance_that_the_service_demands() {
        let mut pace = pace();
        assert!(waited(&pace, Duration::ZERO).await < Duration::from_millis(2));
        pace.read(1000);
        let small = waited(&pace, Duration::ZERO).await;
        assert!((200..203).contains(&small.as_millis()), "{small:?}");
        pace.read(10 << 20);
        let large = waited(&pace, Duration::from_secs(1)).await;
        assert!((5000..5003).contains(&large.as_millis()), "{large:?}");
        pace.read(1000);
        let idle = waited(&pace, Duration::from_secs(1)).await;
        assert!((1000..1003).contains(&idle.as_millis()), "{idle:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_with_each_failure_and_a_read_resets_them() {
        let mut pace = pace();
        let mut waits = Vec::new();
        for failure in 1..=9 {
            assert_eq!(pace.failed(), failure);
            waits.push(waited(&pace, Duration::ZERO).await);
        }
        let RetryPolicy { first, longest, .. } = WAITS;
        assert!(waits[0] >= first / 2 && waits[8] >= longest / 2 && waits.iter().all(|wait| *wait <= longest * 2));
        pace.read(0);
        assert_eq!(pace.failed(), 1);
    }
}
