//! What is served: the worker behind it, what was last read of the fleet, and who watches.
//!
//! Owns: the state that requests share. Does not own: reading the fleet (`fleet`), judging the worker's health (`health`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use checkpoints::{LeaseOwner, StreamName};
use pipeline::lane::LaneConfig;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::commit::Stores;
use crate::server::health::{Liveness, Readiness, Report};
use crate::source::ShardSource;
use crate::worker::Progress;

/// Pages that may be open at once. Others ask again and again, so that connections are left for health checks.
const WATCHERS_MAX: usize = 32;
/// How long the fleet is still read after a request.
const WATCHED_FOR: Duration = Duration::from_secs(10);
/// The age at which a request still gets what was read before.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long the first request waits for the lease table and the log.
const FIRST_WITHIN: Duration = Duration::from_secs(3);

/// Gives the text of `/metrics`, or says why there is none.
pub type MetricsText = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What a process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It reads streams until it is stopped.
    Run,
    /// It reads what is there, and ends.
    UntilCaughtUp,
    /// It processes a part of the past again: the stream that its slices have in the lease table.
    Replay(StreamName),
}

/// The worker behind a site, and what the page needs to know of it.
pub struct View {
    /// The name of this worker; `None` where a process has several.
    pub me: Option<LeaseOwner>,
    /// What the process does.
    pub mode: Mode,
    /// The URL of the lake.
    pub lake: String,
    /// The flags by which other commands find the lake and the leases.
    pub place: String,
    /// Lake and leases.
    pub stores: Stores,
    /// The streams that are read.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// The stage graph is in it.
    pub lanes: Arc<LaneConfig>,
    /// The figures of the worker.
    pub progress: Arc<Progress>,
    /// When a lease may be taken from a silent holder.
    pub failover: Duration,
    /// The time of day.
    pub clock: SharedClock,
    /// The time between two commits.
    pub commit_interval: Duration,
    /// The age that the lake's data should not exceed.
    pub freshness: Duration,
    /// How long a service is waited for.
    pub retry_within: Duration,
}

impl View {
    /// Whether its workers may stop and start again while the process runs.
    pub(super) fn may_pause(&self) -> bool {
        matches!(self.mode, Mode::Replay(_))
    }
}

/// What was last read of the fleet.
#[derive(Clone)]
pub(super) struct Published {
    json: Bytes,
    /// The same as a server-sent event.
    frame: Bytes,
    at: Instant,
    /// When the lease table and the log were read last; `None`: not yet.
    stores_read_at: Option<Instant>,
}

impl Published {
    pub(super) fn new(json: &[u8], stores_read_at: Option<Instant>) -> Self {
        let frame = [b"event: fleet\ndata: ", json, b"\n\n"].concat();
        Published { json: Bytes::copy_from_slice(json), frame: frame.into(), at: Instant::now(), stores_read_at }
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH_FOR && self.stores_read_at.is_some_and(|at| at.elapsed() < 3 * FRESH_FOR)
    }
}

/// What is served. It exists before the worker does, so that health checks are answered while services are waited for.
pub struct Site {
    clock: SharedClock,
    is_loopback: bool,
    /// Cancelled once the process was asked to end.
    stop: CancellationToken,
    started: Instant,
    started_ms: i64,
    view: OnceLock<Arc<View>>,
    metrics: OnceLock<MetricsText>,
    readiness: Mutex<Readiness>,
    published: watch::Sender<Option<Published>>,
    watchers: AtomicUsize,
    asked_at: Mutex<Option<Instant>>,
    /// Wakes whoever reads the fleet: somebody has begun to watch, or the worker is there.
    wake: Notify,
}

impl Site {
    /// A site without a worker. `is_loopback`: only this machine can reach it.
    pub fn new(clock: SharedClock, is_loopback: bool, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Site {
            started_ms: clock.now_ms(),
            clock,
            is_loopback,
            stop,
            started: Instant::now(),
            view: OnceLock::new(),
            metrics: OnceLock::new(),
            readiness: Mutex::default(),
            published: watch::Sender::new(None),
            watchers: AtomicUsize::new(0),
            asked_at: Mutex::new(None),
            wake: Notify::new(),
        })
    }

    /// The worker is about to run. A second call changes nothing.
    pub fn attach(&self, view: View) {
        let _ = self.view.set(Arc::new(view));
        self.wake.notify_one();
    }

    /// Where the text of `/metrics` comes from. A second call changes nothing.
    pub fn serve_metrics(&self, text: MetricsText) {
        let _ = self.metrics.set(text);
    }

    pub(super) fn metrics(&self) -> Option<Result<String, String>> {
        self.metrics.get().map(|text| text())
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    pub(super) fn view(&self) -> Option<&Arc<View>> {
        self.view.get()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(super) fn started_ms(&self) -> i64 {
        self.started_ms
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    // --- health ---------------------------------------------------------------------------------------------------------

    /// Whether a restart would help.
    pub fn liveness(&self) -> Report {
        Liveness { view: self.view.get().map(|view| &**view), is_stopping: self.is_stopping() }.report()
    }

    /// Whether the worker does its work.
    pub fn readiness(&self) -> Report {
        let mut readiness = self.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        readiness.report(self.view.get().map(|view| &**view), self.is_stopping())
    }

    /// Notes the progress of the worker, so that a single check sees a lack of it.
    pub(super) fn note_progress(&self) {
        if let Some(view) = self.view.get() {
            let _ = self.readiness.lock().unwrap_or_else(PoisonError::into_inner).progress(view);
        }
    }

    // --- the fleet ------------------------------------------------------------------------------------------------------

    /// The fleet as JSON. Waits only if nobody has asked for a while.
    pub(super) async fn fleet(&self) -> Bytes {
        self.note_asked();
        let mut published = self.published.subscribe();
        let fresh = published.wait_for(|published| published.as_ref().is_some_and(Published::is_fresh));
        if self.view.get().is_some() {
            let _ = timeout(FIRST_WITHIN, fresh).await;
        }
        let newest = self.published.borrow().as_ref().map(|published| published.json.clone());
        newest.unwrap_or_else(|| self.starting())
    }

    /// What is known before there is a worker.
    pub(super) fn starting(&self) -> Bytes {
        let state = if self.is_stopping() { "stopping" } else { "starting" };
        json!({ "format": super::fleet::FORMAT, "state": state, "version": env!("CARGO_PKG_VERSION") })
            .to_string()
            .into()
    }

    pub(super) fn publish(&self, published: Published) {
        self.published.send_replace(Some(published));
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        let asked_at = *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.watchers.load(Ordering::Relaxed) > 0 || asked_at.is_some_and(|at| at.elapsed() < WATCHED_FOR)
    }

    fn note_asked(&self) {
        let before = self.is_watched();
        *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if !before {
            self.wake.notify_one();
        }
    }

    /// Waits until somebody begins to watch, or the worker is there.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// An open page. It counts as long as it exists.
pub(super) struct Watcher {
    site: Arc<Site>,
    published: watch::Receiver<Option<Published>>,
    is_first: bool,
}

impl Watcher {
    /// `None`: there are too many.
    pub(super) fn new(site: &Arc<Site>) -> Option<Self> {
        let was_watched = site.is_watched();
        if site.watchers.fetch_add(1, Ordering::Relaxed) >= WATCHERS_MAX {
            site.watchers.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if !was_watched {
            site.wake.notify_one();
        }
        Some(Watcher { site: Arc::clone(site), published: site.published.subscribe(), is_first: true })
    }

    /// The next event: at once what was read before, then what is read next. A page that is slow misses some.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_first) {
            let newest = self.published.borrow_and_update().as_ref().map(|published| published.frame.clone());
            return Some(newest.unwrap_or_else(|| Published::new(&self.site.starting(), None).frame));
        }
        self.published.changed().await.ok()?;
        self.published.borrow_and_update().as_ref().map(|published| published.frame.clone())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.site.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}
