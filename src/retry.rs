//! Retries: bounded in attempts and in the waits between them, with jitter, on tokio's clock. How long one attempt may take is up to the
//! caller: the clients of AWS have timeouts of their own.
//!
//! Owns: every policy of the program, in one place, and the loop that applies one. Does not own: which errors are temporary (each
//! error type says so by [`Retryable`]), or which calls may be repeated (`lake::Retrying`, `commit::RetryingLeases`).

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

/// How often and for how long a failed call is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: usize,
    /// The first wait. Each later one is twice as long, with jitter.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl RetryPolicy {
    /// One call of a store or a service: nine attempts in about 20 s.
    pub const CALL: RetryPolicy =
        RetryPolicy { retries: 8, first: Duration::from_millis(50), longest: Duration::from_secs(5) };

    /// A call that is retried elsewhere, or not at all.
    pub const NONE: RetryPolicy = RetryPolicy { retries: 0, first: Duration::ZERO, longest: Duration::ZERO };

    /// Registering a consumer of enhanced fan-out: five attempts in about 5 s. After that the stream is polled.
    pub const REGISTER_CONSUMER: RetryPolicy =
        RetryPolicy { retries: 4, first: Duration::from_millis(250), longest: Duration::from_secs(2) };

    /// A shard of a service, before the worker stops reading it: about five minutes.
    pub const SHARD: RetryPolicy =
        RetryPolicy { retries: 22, first: Duration::from_millis(200), longest: Duration::from_secs(20) };

    /// One read of a shard of Kinesis. Its reader counts the attempts itself.
    pub const SHARD_READ: RetryPolicy =
        RetryPolicy { retries: 4, first: Duration::from_millis(250), longest: Duration::from_secs(10) };

    /// A batch of raw records for another service: about five minutes.
    pub const RAW_BATCH: RetryPolicy =
        RetryPolicy { retries: 66, first: Duration::from_millis(100), longest: Duration::from_secs(5) };
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy::CALL
    }
}

/// An error that knows whether the same call may succeed later.
pub trait Retryable: std::fmt::Display {
    /// Whether it may.
    fn is_retryable(&self) -> bool;
}

impl RetryPolicy {
    /// Calls until a call succeeds, fails permanently, or the attempts are used up. It must be safe to repeat the call.
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
            .notify(|error, wait| tracing::warn!(%error, wait_ms = wait.as_millis(), "call failed; retrying"))
            .await
    }

    /// The wait after a number of failures in a row, without jitter: for a caller with a loop of its own.
    pub fn wait_after(&self, failures: usize) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest)
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
    async fn attempts_are_bounded_and_permanent_failures_are_not_retried() {
        let calls = Cell::new(0);
        let result: Result<(), LakeError> = RetryPolicy::CALL
            .run(|| {
                calls.set(calls.get() + 1);
                async { Err(lost()) }
            })
            .await;
        assert_eq!((result, calls.get()), (Err(lost()), 9));

        calls.set(0);
        let refused = LakeError::Refused { operation: "x".to_owned(), problem: "full".to_owned() };
        let result: Result<(), LakeError> = RetryPolicy::CALL
            .run(|| {
                calls.set(calls.get() + 1);
                let refused = refused.clone();
                async { Err(refused) }
            })
            .await;
        assert_eq!((result, calls.get()), (Err(refused), 1));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u128> = (1..=8).map(|failures| RetryPolicy::CALL.wait_after(failures).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(RetryPolicy::CALL.wait_after(usize::MAX), Duration::from_secs(5));
    }
}
