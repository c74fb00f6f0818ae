//! How long a worker may take to end after it was asked to stop.
//!
//! Owns: the two deadlines after a stop. By the first one everything must be committed; the time from there to the second one is
//! kept for releasing the leases. Does not own: what is done in that time (`coordinator`, `leases`), the signal (`cli`).
//!
//! A commit that is cut off by the first deadline is like one that a crash cuts off: an epoch that was not decided is read again, and
//! one that was decided is finished by the next worker.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The part of the time that is kept for releasing the leases: one of this many.
const RELEASE_PARTS: u32 = 5;

/// The deadlines of a worker.
pub(super) struct StopLimit {
    stop: CancellationToken,
    within: Duration,
    /// When the stop was seen first.
    asked: Option<Instant>,
}

impl StopLimit {
    pub(super) fn new(stop: &CancellationToken, within: Duration) -> Self {
        StopLimit { stop: stop.child_token(), within, asked: None }
    }

    /// Begins the time now, if nobody has asked to stop: the worker ends by itself.
    pub(super) fn start(&self) {
        self.stop.cancel();
    }

    /// The time that the worker may take.
    pub(super) fn within(&self) -> Duration {
        self.within
    }

    /// Does work that belongs to reading and committing; `None` if it was cut off.
    pub(super) async fn commit<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.bound(self.within - self.within / RELEASE_PARTS, work).await
    }

    /// Does work that belongs to releasing the leases; `None` if it was cut off.
    pub(super) async fn release<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.bound(self.within, work).await
    }

    /// Does work until it ends, or until this time has passed since the worker was asked to stop.
    async fn bound<T>(&mut self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let StopLimit { stop, asked, .. } = self;
        let deadline = async {
            stop.cancelled().await;
            sleep_until(*asked.get_or_insert_with(Instant::now) + time).await;
        };
        tokio::select! {
            // Work that is done counts, however late it is.
            biased;
            done = work => Some(done),
            () = deadline => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_cut_off_only_after_a_stop_and_the_release_has_time_left() {
        let stop = CancellationToken::new();
        let mut limit = StopLimit::new(&stop, Duration::from_secs(25));
        let slow = || tokio::time::sleep(Duration::from_secs(60));
        assert_eq!(limit.commit(slow()).await, Some(()), "nobody asked to stop");
        stop.cancel();
        let begun = Instant::now();
        assert_eq!(limit.commit(std::future::ready(())).await, Some(()));
        assert_eq!(limit.commit(slow()).await, None);
        assert_eq!(begun.elapsed().as_secs(), 20);
        assert_eq!(limit.commit(std::future::ready(7)).await, Some(7), "work that is done counts");
        assert_eq!(limit.release(slow()).await, None);
        assert_eq!(begun.elapsed().as_secs(), 25);
    }
}
