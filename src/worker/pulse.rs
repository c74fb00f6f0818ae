//! Signs of life of a worker, for its health checks.
//!
//! Owns: when the loop of the coordinator turned last, and when the lease table answered last. Recording and reading are atomic, so
//! neither waits for the other. Does not own: what follows from it (`server::health`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When things happened last, on tokio's clock.
#[derive(Debug)]
pub struct Pulse {
    base: Instant,
    /// Milliseconds since `base`, plus one; zero: never.
    loop_at: AtomicU64,
    leases_at: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse { base: Instant::now(), loop_at: AtomicU64::new(0), leases_at: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// The coordinator handles its next event.
    pub(crate) fn loop_turned(&self) {
        self.note(&self.loop_at);
    }

    /// The lease table has answered a renewal or a scan.
    pub(crate) fn leases_reached(&self) {
        self.note(&self.leases_at);
    }

    /// The time since the loop turned last; `None` before its first turn.
    pub fn since_loop_turned(&self) -> Option<Duration> {
        self.since(&self.loop_at)
    }

    /// The time since the lease table answered last; `None` before its first answer.
    pub fn since_leases_reached(&self) -> Option<Duration> {
        self.since(&self.leases_at)
    }

    fn note(&self, at: &AtomicU64) {
        let now = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        at.store(now + 1, Ordering::Relaxed);
    }

    fn since(&self, at: &AtomicU64) -> Option<Duration> {
        let noted = at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.base.elapsed().saturating_sub(Duration::from_millis(noted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pulse_says_how_long_ago_something_happened() {
        let pulse = Pulse::default();
        assert_eq!((pulse.since_loop_turned(), pulse.since_leases_reached()), (None, None));
        pulse.loop_turned();
        tokio::time::advance(Duration::from_secs(7)).await;
        pulse.leases_reached();
        assert_eq!(pulse.since_loop_turned(), Some(Duration::from_secs(7)));
        assert_eq!(pulse.since_leases_reached(), Some(Duration::ZERO));
    }
}
