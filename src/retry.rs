//! Retries: bounded in time, with growing waits and jitter, on tokio's clock. How long one attempt may take is up to the caller: the
//! clients of AWS have timeouts of their own.
//!
//! Owns: every policy of the program, in one place, and the loop that applies one. Does not own: which errors are temporary (each
//! error type says so by [`Retryable`]), which calls may be repeated (`lake::Retrying`, `commit::RetryingLeases`), what is logged
//! meanwhile (`trouble`).
//!
//! What may pass is waited for by time, not by attempts. An error that comes at once and a request that is never answered then end at the
//! same time. A time in which the whole process was suspended does not count: no attempt counts for more than two minutes.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use mutations::mutated;
use tokio::time::Instant;

use crate::trouble::{Attempts, Trouble};

/// For how long a failed call is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The time from the first attempt to the end of the last.
    pub within: Duration,
    /// The first wait. Each later one is twice as long, with jitter.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// The longest time that an attempt counts for.
const ATTEMPT_COUNTS_MAX: Duration = Duration::from_secs(120);
/// When it is logged that an attempt, or one of its requests, was not answered.
const LOG_UNANSWERED_AFTER: Duration = Duration::from_secs(10);
/// How often the requests of a long call are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// When the request of a long call was sent that has no answer yet.
    static ASKED_AT: Cell<Option<Instant>>;
}

/// One request of a call of several, such as a page of a long list. If it is not answered, that is logged, although the whole call may
/// take minutes.
pub async fn one_request<F: Future>(request: F) -> F::Output {
    // Outside of a long call nobody looks.
    let note = |asked: Option<Instant>| {
        let _ = ASKED_AT.try_with(|at| at.set(asked));
    };
    note(Some(Instant::now()));
    let answer = request.await;
    note(None);
    answer
}

impl RetryPolicy {
    /// One call of a command that somebody waits for.
    pub const CALL: RetryPolicy = RetryPolicy {
        within: Duration::from_secs(20),
        first: Duration::from_millis(50),
        longest: Duration::from_secs(5),
    };

    /// A call that is retried elsewhere, or not at all.
    pub const NONE: RetryPolicy =
        RetryPolicy { within: Duration::ZERO, first: Duration::ZERO, longest: Duration::ZERO };

    /// Registering a consumer of enhanced fan-out. After that the stream is polled.
    pub const REGISTER_CONSUMER: RetryPolicy = RetryPolicy {
        within: Duration::from_secs(5),
        first: Duration::from_millis(250),
        longest: Duration::from_secs(2),
    };

    /// A shard of a stream: its reader counts the time without progress itself, and reopening counts.
    pub const fn shard(within: Duration) -> Self {
        RetryPolicy { within, first: Duration::from_millis(250), longest: Duration::from_secs(10) }
    }

    /// A call of a worker to a service: what may pass is waited for so long (`[retry] within`).
    pub const fn within(within: Duration) -> Self {
        RetryPolicy { within, first: Duration::from_millis(50), longest: Duration::from_secs(5) }
    }
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
    /// Calls until a call succeeds, fails permanently, or the time is over. It must be safe to repeat the call. For a call that
    /// others make as well, see [`Retry`].
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, E, F>(&self, what: &str, call: impl FnMut() -> F) -> Result<T, E>
    where
        E: Retryable,
        F: Future<Output = Result<T, E>>,
    {
        Retry::new(*self, what).run(call).await
    }

    /// The wait after a number of failures in a row, without jitter: for a caller with a loop of its own.
    pub fn wait_after(&self, failures: usize) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest)
    }

    /// The waits, one after the other, with jitter: up to twice as long.
    pub fn waits(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_factor(2.0)
            .with_max_times(usize::MAX)
            .with_jitter()
            .build()
    }
}

/// A policy for all calls of one service. They share what is logged, and few of them are repeated at once.
#[derive(Debug, Clone)]
pub struct Retry {
    policy: RetryPolicy,
    trouble: Arc<Trouble>,
}

impl Retry {
    /// The policy for calls to `what`, the subject of a sentence.
    pub fn new(policy: RetryPolicy, what: impl Into<String>) -> Self {
        Retry { policy, trouble: Trouble::new(what) }
    }

    /// Calls until a call succeeds, fails permanently, or the time is over. It must be safe to repeat the call.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, E, F>(&self, call: impl FnMut() -> F) -> Result<T, E>
    where
        E: Retryable,
        F: Future<Output = Result<T, E>>,
    {
        self.repeat(call, Watched::Call).await
    }

    /// The same for a call of several requests, such as a long list, which may take minutes although nothing is wrong. Each of its
    /// requests is watched instead, if the callee names them by [`one_request`].
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run_long<T, E, F>(&self, call: impl FnMut() -> F) -> Result<T, E>
    where
        E: Retryable,
        F: Future<Output = Result<T, E>>,
    {
        self.repeat(call, Watched::Requests).await
    }

    async fn repeat<T, E, F>(&self, mut call: impl FnMut() -> F, what: Watched) -> Result<T, E>
    where
        E: Retryable,
        F: Future<Output = Result<T, E>>,
    {
        let mut attempts = self.trouble.attempts();
        let mut waits = self.policy.waits();
        let mut spent = Duration::ZERO;
        let mut permit = None;
        loop {
            let begun = Instant::now();
            let outcome = match what {
                Watched::Call => watch(call(), &mut attempts).await,
                Watched::Requests => ASKED_AT.scope(Cell::new(None), watch_requests(call(), &mut attempts)).await,
            };
            drop(permit.take());
            let error = match outcome {
                Ok(value) => {
                    attempts.succeeded();
                    return Ok(value);
                }
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => error,
            };
            let wait = waits.next().unwrap_or(self.policy.longest);
            spent += begun.elapsed().min(ATTEMPT_COUNTS_MAX) + wait;
            if spent > self.policy.within || mutated!(GiveUpAtOnce) {
                return Err(error);
            }
            attempts.failed(&error);
            tokio::time::sleep(wait).await;
            let begun = Instant::now();
            permit = attempts.may_repeat().await;
            spent += begun.elapsed().min(ATTEMPT_COUNTS_MAX);
        }
    }
}

/// What of a call must be answered within seconds.
#[derive(Debug, Clone, Copy)]
enum Watched {
    Call,
    Requests,
}

/// Waits for an attempt, and has it logged if it is not answered.
async fn watch<T>(attempt: impl Future<Output = T>, attempts: &mut Attempts) -> T {
    tokio::pin!(attempt);
    tokio::select! {
        biased;
        done = &mut attempt => return done,
        () = tokio::time::sleep(LOG_UNANSWERED_AFTER) => attempts.unanswered(LOG_UNANSWERED_AFTER),
    }
    attempt.await
}

/// Waits for an attempt of several requests, and has it logged if one of them is not answered.
async fn watch_requests<T>(attempt: impl Future<Output = T>, attempts: &mut Attempts) -> T {
    tokio::pin!(attempt);
    loop {
        tokio::select! {
            biased;
            done = &mut attempt => return done,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if ASKED_AT.with(Cell::get).is_some_and(|asked| asked.elapsed() >= LOG_UNANSWERED_AFTER) {
            attempts.unanswered(LOG_UNANSWERED_AFTER);
            return attempt.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::LakeError;
    use crate::trouble::tests::Lines;
    use std::cell::Cell;

    fn lost() -> LakeError {
        LakeError::Unavailable { operation: "x".to_owned(), problem: "lost".to_owned() }
    }

    /// Fails each time after `time`. Returns how long it was tried, and how often.
    async fn tried(policy: RetryPolicy, time: Duration, error: LakeError) -> (Duration, u64) {
        let (calls, begun) = (Cell::new(0), Instant::now());
        let result: Result<(), LakeError> = policy
            .run("the lake", || {
                calls.set(calls.get() + 1);
                let error = error.clone();
                async move {
                    tokio::time::sleep(time).await;
                    Err(error)
                }
            })
            .await;
        assert_eq!(result, Err(error));
        (begun.elapsed(), calls.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_waited_for_by_time_whether_it_fails_at_once_or_is_not_answered() {
        let policy = RetryPolicy::within(Duration::from_secs(300));
        let (at_once, many) = tried(policy, Duration::ZERO, lost()).await;
        assert!((280..=300).contains(&at_once.as_secs()) && (25..90).contains(&many), "{at_once:?}, {many} attempts");
        let (unanswered, few) = tried(policy, Duration::from_secs(60), lost()).await;
        assert!((230..=360).contains(&unanswered.as_secs()) && few < 7, "{unanswered:?}, {few} attempts");
        let refused = LakeError::Refused { operation: "x".to_owned(), problem: "full".to_owned() };
        assert_eq!(tried(policy, Duration::ZERO, refused).await, (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_in_which_the_process_was_suspended_does_not_use_up_the_budget() {
        let (calls, policy) = (Cell::new(0), RetryPolicy::within(Duration::from_secs(300)));
        let result = policy.run("the lake", || {
            calls.set(calls.get() + 1);
            let is_first = calls.get() == 1;
            async move {
                if is_first {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    return Err(lost());
                }
                Ok(7)
            }
        });
        assert_eq!((result.await, calls.get()), (Ok(7), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_and_a_missing_response_are_logged_within_seconds() {
        let (lines, _guard) = Lines::collect();
        let retry = Retry::new(RetryPolicy::CALL, "the lake");
        let begun = Instant::now();
        let calls: Vec<_> = (0..100)
            .map(|_| {
                retry.run(async || {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    Ok::<(), LakeError>(())
                })
            })
            .collect();
        futures::future::join_all(calls).await;
        assert_eq!(begun.elapsed().as_secs(), 30);
        let logged = lines.take();
        assert_eq!(logged.len(), 2, "{logged:?}");
        assert!(
            logged[0].contains("no response for 10 s") && logged[1].starts_with("the lake works again"),
            "{logged:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_call_may_take_minutes_but_each_of_its_requests_must_be_answered() {
        let (lines, _guard) = Lines::collect();
        let retry = Retry::new(RetryPolicy::CALL, "the lake");
        let list = async |pages: u64, seconds: u64| {
            for _ in 0..pages {
                one_request(tokio::time::sleep(Duration::from_secs(seconds))).await;
            }
            Ok::<(), LakeError>(())
        };
        retry.run_long(|| list(60, 9)).await.unwrap();
        assert!(lines.take().is_empty());
        retry.run_long(|| list(2, 15)).await.unwrap();
        let logged = lines.take();
        assert!(logged[0].contains("no response for 10 s") && logged[1].starts_with("the lake works"), "{logged:?}");
        // What names no requests is not watched.
        let silent = async || {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok::<(), LakeError>(())
        };
        retry.run_long(silent).await.unwrap();
        assert!(lines.take().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn few_calls_are_repeated_at_once() {
        let retry = Retry::new(RetryPolicy::within(Duration::from_secs(300)), "the lake");
        let (running, most, begun) = (Cell::new(0_u32), Cell::new(0_u32), Instant::now());
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let tries = Cell::new(0);
                let (running, most) = (&running, &most);
                let retry = retry.clone();
                async move {
                    let call = || {
                        tries.set(tries.get() + 1);
                        let is_first = tries.get() == 1;
                        async move {
                            if is_first {
                                return Err(lost());
                            }
                            running.set(running.get() + 1);
                            most.set(most.get().max(running.get()));
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            running.set(running.get() - 1);
                            Ok(())
                        }
                    };
                    retry.run(call).await
                }
            })
            .collect();
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(Result::is_ok) && begun.elapsed() < Duration::from_secs(20));
        assert_eq!(most.get(), 16);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u128> = (1..=8).map(|failures| RetryPolicy::CALL.wait_after(failures).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(RetryPolicy::CALL.wait_after(usize::MAX), Duration::from_secs(5));
        let longest = RetryPolicy::CALL.waits().take(500).max().unwrap();
        assert!((5..=10).contains(&longest.as_secs()), "{longest:?}");
    }
}
