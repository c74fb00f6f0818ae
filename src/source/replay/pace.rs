//! How fast a replay reads.
//!
//! Owns: the rate that all readers of a process share, and what they have read. Does not own: which rate it is (`replay::throttle`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest wait after which a reader asks for the rate again, which may have changed.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// The least bytes of one read.
const PIECE_MIN: u64 = 16 << 10;
/// The longest time for which one read is paid. A rate that is raised then takes effect soon.
const DEBT_MAX: Duration = Duration::from_secs(10);

/// The rate of a replay in one process. Unlimited at first.
#[derive(Debug, Default)]
pub struct Pace {
    state: Mutex<State>,
    spent: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    bytes_per_second: Option<u64>,
    /// Nothing may be read before this time.
    free_at: Option<Instant>,
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the rate in bytes of records a second; `None`: as fast as it can.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        let mut state = self.state();
        state.bytes_per_second = bytes_per_second.map(|rate| rate.max(1));
        if bytes_per_second.is_none() {
            state.free_at = None;
        }
    }

    /// The rate in bytes of records a second.
    pub fn limit(&self) -> Option<u64> {
        self.state().bytes_per_second
    }

    /// Bytes of records that were read so far.
    pub fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// How much one read should return at most, if it could return `bytes`: what the rate allows in a quarter of a second.
    pub(super) fn piece(&self, bytes: usize) -> usize {
        let Some(rate) = self.limit() else { return bytes };
        bytes.min(usize::try_from((rate / 4).max(PIECE_MIN)).unwrap_or(usize::MAX))
    }

    /// Waits until something may be read.
    pub(super) async fn admitted(&self) {
        loop {
            let wait = self.state().free_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait.min(WAIT_MAX)).await;
        }
    }

    /// Counts bytes that were read.
    pub(super) fn spend(&self, bytes: u64) {
        self.spent.fetch_add(bytes, Ordering::Relaxed);
        let mut state = self.state();
        let Some(rate) = state.bytes_per_second else { return };
        let now = Instant::now();
        let micros = bytes.saturating_mul(1_000_000) / rate;
        let free_at = state.free_at.map_or(now, |at| at.max(now)) + Duration::from_micros(micros);
        state.free_at = Some(free_at.min(now + DEBT_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_together_keep_to_the_rate() {
        let pace = Pace::default();
        pace.set(Some(1_000));
        let begun = Instant::now();
        for _ in 0..20 {
            pace.admitted().await;
            pace.spend(500);
        }
        let seconds = begun.elapsed().as_secs_f64();
        assert!((9.0..=10.5).contains(&seconds), "10,000 bytes at 1,000 a second took {seconds} s");
        assert_eq!(pace.spent(), 10_000);
        pace.set(Some(1_000_000));
        assert_eq!([pace.piece(4_000_000), pace.piece(100)], [250_000, 100]);
        pace.set(None);
        assert_eq!(pace.piece(4_000_000), 4_000_000);
        let begun = Instant::now();
        pace.admitted().await;
        pace.spend(1 << 40);
        pace.admitted().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "without a limit nobody waits");
    }
}
