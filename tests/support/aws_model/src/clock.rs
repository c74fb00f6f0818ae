//! The models' time: milliseconds since 1970, either moved by hand or taken from tokio's clock.
//!
//! Invariant: it never moves back. Does not own: the wall clock, which no model reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A clock. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct ModelClock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Manual(Arc<watch::Sender<i64>>),
    Tokio { start_ms: i64, began: Instant },
}

impl ModelClock {
    /// A clock that shows `start_ms` until it is moved.
    pub fn manual(start_ms: i64) -> Self {
        ModelClock(Kind::Manual(Arc::new(watch::Sender::new(start_ms))))
    }

    /// A clock that shows `start_ms` now and runs as tokio's clock does: it is paused while tokio's is paused. Its readers must
    /// be in the same runtime, since each runtime pauses separately.
    pub fn tokio(start_ms: i64) -> Self {
        ModelClock(Kind::Tokio { start_ms, began: Instant::now() })
    }

    /// The time.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Kind::Manual(now) => *now.borrow(),
            Kind::Tokio { start_ms, began } => {
                start_ms + i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
            }
        }
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// If it is tokio's clock, which tokio's own `advance` moves.
    pub fn advance_ms(&self, by_ms: u32) {
        match &self.0 {
            Kind::Manual(now) => now.send_modify(|now| *now += i64::from(by_ms)),
            Kind::Tokio { .. } => panic!("tokio's clock is moved by tokio::time::advance"),
        }
    }

    /// Waits until the clock shows `at_ms` or later.
    pub async fn wait_until(&self, at_ms: i64) {
        match &self.0 {
            Kind::Manual(now) => {
                let mut changes = now.subscribe();
                // The sender lives as long as this clock, so waiting can't fail.
                let _ = changes.wait_for(|now| *now >= at_ms).await;
            }
            Kind::Tokio { start_ms, began } => {
                let after_ms = u64::try_from(at_ms - start_ms).unwrap_or(0);
                tokio::time::sleep_until(*began + Duration::from_millis(after_ms)).await;
            }
        }
    }
}
