//! A replay gives way to the live workers.
//!
//! Owns: how far the live workers are behind, and the rate of the replay that follows from it. Does not own: waiting for the rate
//! (`source::replay::Pace`), the live workers' leases, which are only read.
//!
//! The live workers are behind if the first record after a shard's checkpoint is older than they need for a commit, or if many bytes of
//! files are unread. Then the rate is halved every ten seconds. It is doubled again while they are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use checkpoints::{Holder, LeaseStore, StreamName};
use tokio::time::Instant;

use crate::source::replay::Pace;
use crate::source::{Behind, ShardSource};

/// How often the live workers are checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Shards of each stream that are asked about in one check.
const SHARDS_ASKED: usize = 8;
/// The age of the first unread record, beyond the commit interval, from which the live workers are behind.
const LAG_MAX: Duration = Duration::from_secs(60);
/// Unread bytes from which the live workers are behind.
const LAG_BYTES_MAX: u64 = 256 << 20;
/// The lowest rate: a replay never stops by itself.
const RATE_MIN: u64 = 64 << 10;

/// What is shown of the throttle.
#[derive(Debug, Default)]
pub struct ThrottleState {
    is_slowed: AtomicBool,
    slowed_ms: AtomicU64,
}

impl ThrottleState {
    /// Whether the replay is slower now, because the live workers are behind.
    pub fn is_slowed(&self) -> bool {
        self.is_slowed.load(Ordering::Relaxed)
    }

    /// For how long it was, in milliseconds.
    pub fn slowed_ms(&self) -> u64 {
        self.slowed_ms.load(Ordering::Relaxed)
    }
}

/// The rate of a replay that gives way.
pub struct Throttle {
    pub(crate) pace: Arc<Pace>,
    /// The rate that was asked for, in bytes of records a second.
    pub(crate) rate: Option<u64>,
    /// The configured streams.
    pub(crate) live: Vec<Arc<dyn ShardSource>>,
    /// The table with the live workers' leases.
    pub(crate) leases: Arc<dyn LeaseStore>,
    /// The time between two commits of the live workers.
    pub(crate) commit_interval: Duration,
    pub(crate) state: Arc<ThrottleState>,
}

/// How far live workers are behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lag {
    ms: u64,
    bytes: u64,
}

impl Throttle {
    /// Adjusts the rate until it is dropped.
    pub async fn run(self) {
        self.pace.set(self.rate);
        let mut ticks = tokio::time::interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick comes at once, and nothing was read by then.
        ticks.tick().await;
        let (mut spent, mut checked, mut full) = (self.pace.spent(), Instant::now(), None);
        loop {
            ticks.tick().await;
            let lag = self.lag().await;
            let (now_spent, now) = (self.pace.spent(), Instant::now());
            let elapsed = now.duration_since(checked);
            let rate =
                (now_spent - spent).saturating_mul(1000) / u64::try_from(elapsed.as_millis()).unwrap_or(1).max(1);
            (spent, checked) = (now_spent, now);
            if self.state.is_slowed() {
                let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                self.state.slowed_ms.fetch_add(ms, Ordering::Relaxed);
            }
            self.adjust(lag, rate, &mut full);
        }
    }

    /// One step. `rate`: what was read a second since the last one. `full`: the rate before the replay was slowed.
    fn adjust(&self, lag: Lag, rate: u64, full: &mut Option<u64>) {
        let lag_max = self.commit_interval.saturating_mul(3) / 2 + LAG_MAX;
        let is_behind = u128::from(lag.ms) > lag_max.as_millis() || lag.bytes > LAG_BYTES_MAX;
        match (is_behind, *full) {
            (true, before) => {
                let now = self.pace.limit().unwrap_or(rate).min(rate.max(RATE_MIN));
                if before.is_none() {
                    *full = Some(self.rate.unwrap_or(rate).max(RATE_MIN));
                    let (lag_s, bytes) = (lag.ms / 1000, lag.bytes);
                    tracing::warn!(lag_s, bytes, "the live workers are behind; the replay slows down");
                }
                self.pace.set(Some((now / 2).max(RATE_MIN)));
            }
            (false, Some(before)) => {
                let next = self.pace.limit().unwrap_or(before).saturating_mul(2);
                if next >= before {
                    *full = None;
                    self.pace.set(self.rate);
                    tracing::info!("the live workers have caught up; the replay reads at its full rate again");
                } else {
                    self.pace.set(Some(next));
                }
            }
            (false, None) => {}
        }
        self.state.is_slowed.store(full.is_some(), Ordering::Relaxed);
    }

    /// How far the live workers are behind. What cannot be asked counts as nothing: the replay must not stop for it.
    async fn lag(&self) -> Lag {
        let mut lag = Lag::default();
        let leases = match self.leases.list().await {
            Ok(leases) => leases,
            Err(error) => {
                tracing::debug!(%error, "cannot tell how far the live workers are behind");
                return lag;
            }
        };
        for source in &self.live {
            let stream: &StreamName = source.stream();
            let live = leases
                .iter()
                .filter(|lease| lease.key.stream == *stream && !lease.is_done() && lease.holder != Holder::Nobody);
            for lease in live.take(SHARDS_ASKED) {
                match source.behind(&lease.key.shard, &lease.checkpoint).await {
                    Ok(Behind::Nothing) => {}
                    Ok(Behind::Time(ms)) => lag.ms = lag.ms.max(ms),
                    Ok(Behind::Bytes(bytes)) => lag.bytes = lag.bytes.saturating_add(bytes),
                    Err(error) => {
                        tracing::debug!(stream = %lease.key.stream, shard = %lease.key.shard, %error, "cannot tell how far the live workers are behind");
                    }
                }
            }
        }
        lag
    }
}

#[cfg(test)]
mod tests {
    use checkpoints::MemoryStore;

    use super::*;

    fn throttle(rate: Option<u64>) -> Throttle {
        Throttle {
            pace: Arc::new(Pace::default()),
            rate,
            live: Vec::new(),
            leases: Arc::new(MemoryStore::new()),
            commit_interval: Duration::from_secs(60),
            state: Arc::default(),
        }
    }

    #[test]
    fn a_replay_slows_down_while_the_live_workers_are_behind_and_recovers_after() {
        let throttle = throttle(None);
        let (mut full, mb) = (None, 1 << 20);
        let (fine, behind) = (Lag { ms: 140_000, bytes: 0 }, Lag { ms: 151_000, bytes: 0 });
        throttle.adjust(fine, 16 * mb, &mut full);
        assert_eq!(
            (throttle.pace.limit(), throttle.state.is_slowed()),
            (None, false),
            "a commit interval does not count"
        );
        for expected in [8 * mb, 4 * mb, 2 * mb] {
            throttle.adjust(behind, throttle.pace.limit().unwrap_or(16 * mb), &mut full);
            assert_eq!((throttle.pace.limit(), throttle.state.is_slowed()), (Some(expected), true));
        }
        for expected in [4 * mb, 8 * mb] {
            throttle.adjust(fine, throttle.pace.limit().unwrap(), &mut full);
            assert_eq!(throttle.pace.limit(), Some(expected));
        }
        throttle.adjust(fine, 8 * mb, &mut full);
        assert_eq!((throttle.pace.limit(), throttle.state.is_slowed()), (None, false));
    }

    #[test]
    fn a_rate_that_was_asked_for_is_never_exceeded_and_never_becomes_nothing() {
        let throttle = throttle(Some(1 << 20));
        throttle.pace.set(throttle.rate);
        let mut full = None;
        let behind = Lag { ms: 0, bytes: LAG_BYTES_MAX + 1 };
        for _ in 0..20 {
            throttle.adjust(behind, throttle.pace.limit().unwrap(), &mut full);
        }
        assert_eq!(throttle.pace.limit(), Some(RATE_MIN));
        for _ in 0..20 {
            throttle.adjust(Lag::default(), throttle.pace.limit().unwrap(), &mut full);
        }
        assert_eq!((throttle.pace.limit(), full), (Some(1 << 20), None));
    }
}
