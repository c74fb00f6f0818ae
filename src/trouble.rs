//! Trouble that may pass: how it is logged, and how many calls are repeated at once while it lasts.
//!
//! Owns: the one place that says that a service fails, for how long, and that it works again. It also limits the calls that are repeated
//! at once, so that a service that is overloaded is not held down. Does not own: how long a call is repeated (`retry`), the limit for all
//! other lines of the log (`cli::log_limit`).
//!
//! All calls that would fail for one cause share one [`Trouble`]: those of the lake, those of the lease table, the shards of one stream.
//!
//! | what happens | what is logged, at level `warn` |
//! |---|---|
//! | a call fails | at once, with the error; then every 20 s with the time and the number of failures since |
//! | a call is not answered for 10 s | the same |
//! | a call is throttled, which is normal for a moment | the same, from the tenth second on |
//! | the last call that had failed succeeds | that it works again, and after which time |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The least time between two lines about one trouble.
pub const LOG_EVERY: Duration = Duration::from_secs(20);
/// How long throttling, and the like, is normal.
const NORMAL_FOR: Duration = Duration::from_secs(10);
/// Calls that are repeated at once.
const REPEATED_AT_ONCE: usize = 16;

/// What is known of one possible trouble.
pub struct Trouble {
    /// What fails: the subject of a sentence.
    what: String,
    state: Mutex<State>,
    repeats: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    /// Calls that have failed, and neither succeeded nor ended since.
    failing: usize,
    since: Option<Instant>,
    /// Failures since then.
    failures: u64,
    /// Whether something was logged since then.
    is_logged: bool,
    /// When something was logged last.
    logged_at: Option<Instant>,
}

/// One call, or one reader, that may be in trouble. If it is dropped, it is not in trouble any more, and nothing works again.
#[derive(Debug)]
pub struct Attempts {
    trouble: Arc<Trouble>,
    is_failing: bool,
}

/// Every possible trouble of this process, for whoever watches.
static KNOWN: Mutex<Vec<Weak<Trouble>>> = Mutex::new(Vec::new());

/// What may fail, and for how long each has failed: zero if it works. Throttling counts as failing.
pub fn services() -> BTreeMap<String, Duration> {
    let known: Vec<Arc<Trouble>> =
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    let mut services: BTreeMap<String, Duration> = BTreeMap::new();
    for trouble in known {
        let failing_for = trouble.state().since.map_or(Duration::ZERO, |since| since.elapsed());
        let longest = services.entry(trouble.what.clone()).or_default();
        *longest = failing_for.max(*longest);
    }
    services
}

impl Trouble {
    /// No trouble yet with `what`, the subject of a sentence.
    pub fn new(what: impl Into<String>) -> Arc<Self> {
        let repeats = Arc::new(Semaphore::new(REPEATED_AT_ONCE));
        let trouble = Arc::new(Trouble { what: what.into(), state: Mutex::default(), repeats });
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.strong_count() > 0);
        known.push(Arc::downgrade(&trouble));
        trouble
    }

    /// A call, before it is sent.
    pub fn attempts(self: &Arc<Self>) -> Attempts {
        Attempts { trouble: Arc::clone(self), is_failing: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, is_first: bool, is_failure: bool, normal_for: Duration, problem: &dyn fmt::Display) {
        let now = Instant::now();
        let mut state = self.state();
        state.failing += usize::from(is_first);
        state.failures += u64::from(is_failure);
        let failing_for = now.duration_since(*state.since.get_or_insert(now));
        if failing_for < normal_for || state.logged_at.is_some_and(|at| now.duration_since(at) < LOG_EVERY) {
            return;
        }
        (state.logged_at, state.is_logged) = (Some(now), true);
        let (what, failures, failing_s) = (&self.what, state.failures, failing_for.as_secs());
        drop(state);
        tracing::warn!(error = %problem, failing_s, failures, "{what} fails; retrying");
    }

    fn ended(&self, has_succeeded: bool) {
        let mut state = self.state();
        state.failing = state.failing.saturating_sub(1);
        if state.failing > 0 {
            return;
        }
        let logged_at = state.logged_at;
        let before = std::mem::replace(&mut *state, State { logged_at, ..State::default() });
        let State { since, failures, is_logged, .. } = before;
        drop(state);
        if has_succeeded && is_logged {
            let failed_s = since.map_or(0, |since| since.elapsed().as_secs());
            tracing::warn!(failed_s, failures, "{} works again", self.what);
        }
    }
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trouble").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Attempts {
    /// An attempt has failed, and there will be another one.
    pub fn failed(&mut self, error: &dyn fmt::Display) {
        self.fail(true, Duration::ZERO, error);
    }

    /// An attempt has failed in a way that is normal for some seconds.
    pub fn failed_normally(&mut self, error: &dyn fmt::Display) {
        self.fail(true, NORMAL_FOR, error);
    }

    /// An attempt has not been answered for this time, and is still waited for.
    pub fn unanswered(&mut self, waited: Duration) {
        self.fail(false, Duration::ZERO, &format_args!("no response for {} s", waited.as_secs()));
    }

    fn fail(&mut self, is_failure: bool, normal_for: Duration, problem: &dyn fmt::Display) {
        let is_first = !std::mem::replace(&mut self.is_failing, true);
        self.trouble.failed(is_first, is_failure, normal_for, problem);
    }

    /// An attempt has succeeded.
    pub fn succeeded(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            self.trouble.ended(true);
        }
    }

    /// Waits until few enough other calls are being repeated. The permit is held during the attempt.
    pub(crate) async fn may_repeat(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.trouble.repeats).acquire_owned().await.ok()
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        if self.is_failing {
            self.trouble.ended(false);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tracing::Level;
    use tracing::field::{Field, Visit};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    /// The lines of a test, each with its message and then its fields.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            let text = if field.name() == "message" { format!("{value:?}") } else { format!(" {field}={value:?}") };
            if field.name() == "message" { self.0.insert_str(0, &text) } else { self.0.push_str(&text) }
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            if *event.metadata().level() <= Level::WARN {
                let mut text = Text(String::new());
                event.record(&mut text);
                self.0.lock().unwrap().push(text.0);
            }
        }
    }

    impl Lines {
        /// Collects the warnings and errors of this thread until the guard is dropped.
        pub(crate) fn collect() -> (Lines, tracing::subscriber::DefaultGuard) {
            let lines = Lines::default();
            let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
            (lines, guard)
        }

        /// The lines so far.
        pub(crate) fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_logged_at_once_then_three_times_a_minute_and_at_its_end() {
        let (lines, _guard) = Lines::collect();
        let trouble = Trouble::new("the lake");
        let mut calls: Vec<Attempts> = (0..50).map(|_| trouble.attempts()).collect();
        for second in 0..60 {
            calls.iter_mut().for_each(|call| call.failed(&"lost"));
            if second == 0 {
                assert_eq!(lines.take(), ["the lake fails; retrying error=lost failing_s=0 failures=1"]);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let logged = lines.take();
        assert_eq!(logged.len(), 2, "{logged:?}");
        assert!(logged[1].contains("failing_s=40 failures=2001"), "{logged:?}");
        let mut last = calls.pop().unwrap();
        calls.iter_mut().for_each(Attempts::succeeded);
        assert!(lines.take().is_empty(), "one call still fails");
        last.succeeded();
        assert_eq!(lines.take(), ["the lake works again failed_s=60 failures=3000"]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_watches_sees_for_how_long_a_service_has_failed() {
        let trouble = Trouble::new("a service of this test");
        let failing = || services().get("a service of this test").copied();
        assert_eq!(failing(), Some(Duration::ZERO));
        let mut call = trouble.attempts();
        call.failed(&"lost");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(failing(), Some(Duration::from_secs(7)));
        call.succeeded();
        assert_eq!(failing(), Some(Duration::ZERO));
        drop((call, trouble));
        assert_eq!(failing(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_now_and_then_is_not_logged_each_time() {
        let (lines, _guard) = Lines::collect();
        let trouble = Trouble::new("the lake");
        for _ in 0..600 {
            let mut call = trouble.attempts();
            call.failed(&"lost");
            call.succeeded();
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let logged = lines.take();
        assert_eq!(logged.len(), 6, "three failures and three recoveries a minute: {logged:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_normal_for_a_moment_is_logged_when_it_lasts_and_what_ends_does_not_work_again() {
        let (lines, _guard) = Lines::collect();
        let trouble = Trouble::new("the lake");
        let mut call = trouble.attempts();
        for _ in 0..10 {
            call.failed_normally(&"throttled");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(lines.take().is_empty());
        call.failed_normally(&"throttled");
        assert_eq!(lines.take().len(), 1);
        drop(call);
        assert!(lines.take().is_empty());
        let mut call = trouble.attempts();
        tokio::time::advance(LOG_EVERY).await;
        call.unanswered(Duration::from_secs(10));
        assert_eq!(lines.take(), ["the lake fails; retrying error=no response for 10 s failing_s=0 failures=0"]);
    }
}
