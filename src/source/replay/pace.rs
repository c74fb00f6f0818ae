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
        self.state().piece().map_or(bytes, |piece| bytes.min(usize::try_from(piece).unwrap_or(usize::MAX)))
    }

    /// Waits until something may be read, and reserves it: many readers must not begin at once. Returns the reserved bytes, which
    /// [`settle`](Self::settle) takes back.
    pub(super) async fn admitted(&self) -> u64 {
        loop {
            let wait = {
                let mut state = self.state();
                let now = Instant::now();
                let wait = state.free_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
                if wait.is_zero() {
                    let piece = state.piece().unwrap_or(0);
                    state.charge(now, piece);
                    return piece;
                }
                wait
            };
            tokio::time::sleep(wait.min(WAIT_MAX)).await;
        }
    }

    /// Counts bytes that were read, for which `reserved` bytes were reserved.
    pub(super) fn settle(&self, reserved: u64, bytes: u64) {
        self.spent.fetch_add(bytes, Ordering::Relaxed);
        let mut state = self.state();
        if bytes >= reserved {
            return state.charge(Instant::now(), bytes - reserved);
        }
        let back = state.time_of(reserved - bytes);
        state.free_at = state.free_at.and_then(|at| at.checked_sub(back));
    }
}

impl State {
    /// Bytes of one read; `None` without a limit.
    fn piece(&self) -> Option<u64> {
        self.bytes_per_second.map(|rate| (rate / 4).max(PIECE_MIN))
    }

    /// The time that the rate gives these bytes.
    fn time_of(&self, bytes: u64) -> Duration {
        let micros = |rate: u64| bytes.saturating_mul(1_000_000) / rate;
        self.bytes_per_second.map_or(Duration::ZERO, |rate| Duration::from_micros(micros(rate)))
    }

    /// Nothing may be read until these bytes are paid for.
    fn charge(&mut self, now: Instant, bytes: u64) {
        if self.bytes_per_second.is_some() {
            let free_at = self.free_at.map_or(now, |at| at.max(now)) + self.time_of(bytes);
            self.free_at = Some(free_at.min(now + DEBT_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_together_keep_to_the_rate_also_when_they_begin_at_once() {
        let pace = Pace::default();
        pace.set(Some(100_000));
        let begun = Instant::now();
        let reader = async || {
            for _ in 0..5 {
                let reserved = pace.admitted().await;
                pace.settle(reserved, 20_000);
            }
        };
        tokio::join!(
            reader(),
            reader(),
            reader(),
            reader(),
            reader(),
            reader(),
            reader(),
            reader(),
            reader(),
            reader()
        );
        let seconds = begun.elapsed().as_secs_f64();
        assert!((9.0..=11.0).contains(&seconds), "1,000,000 bytes at 100,000 a second took {seconds} s");
        assert_eq!(pace.spent(), 1_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_returns_nothing_costs_nothing_and_without_a_limit_nobody_waits() {
        let pace = Pace::default();
        pace.set(Some(1_000_000));
        assert_eq!([pace.piece(4_000_000), pace.piece(100)], [250_000, 100]);
        let begun = Instant::now();
        for _ in 0..100 {
            let reserved = pace.admitted().await;
            assert_eq!(reserved, 250_000);
            pace.settle(reserved, 0);
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        pace.set(None);
        assert_eq!(pace.piece(4_000_000), 4_000_000);
        let begun = Instant::now();
        for _ in 0..3 {
            let reserved = pace.admitted().await;
            pace.settle(reserved, 1 << 40);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
