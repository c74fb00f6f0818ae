//! Trying again: bounded in attempts and time, with jitter, on tokio's clock.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

/// How often and how long a call that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: usize,
    /// The first wait; each later one is twice as long, with jitter.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    /// Nine attempts over about 20 s.
    fn default() -> Self {
        RetryPolicy { retries: 8, first: Duration::from_millis(50), longest: Duration::from_secs(5) }
    }
}

/// An error that knows whether the same call may succeed later.
pub trait Retryable: std::fmt::Display {
    /// Whether it may.
    fn is_retryable(&self) -> bool;
}

impl RetryPolicy {
    /// Calls until it succeeds, fails for good, or the attempts are used up. The calls must bear repetition.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, E, F>(&self, call: impl FnMut() -> F) -> Result<T, E>
    where
        E: Retryable,
        F: Future<Output = Result<T, E>>,
    {
        let waits = ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_factor(2.0)
            .with_max_times(self.retries)
            .with_jitter();
        call.retry(waits)
            .when(Retryable::is_retryable)
            .notify(|error, wait| tracing::warn!(%error, wait_ms = wait.as_millis(), "trying again"))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::LakeError;
    use std::cell::Cell;

    fn lost() -> LakeError {
        LakeError::Unavailable { operation: "x".to_owned(), problem: "lost".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_what_can_not_pass_is_not_repeated() {
        let calls = Cell::new(0);
        let result: Result<(), LakeError> = RetryPolicy::default()
            .run(|| {
                calls.set(calls.get() + 1);
                async { Err(lost()) }
            })
            .await;
        assert_eq!((result, calls.get()), (Err(lost()), 9));

        calls.set(0);
        let refused = LakeError::Refused { operation: "x".to_owned(), problem: "full".to_owned() };
        let result: Result<(), LakeError> = RetryPolicy::default()
            .run(|| {
                calls.set(calls.get() + 1);
                let refused = refused.clone();
                async { Err(refused) }
            })
            .await;
        assert_eq!((result, calls.get()), (Err(refused), 1));
    }
}
