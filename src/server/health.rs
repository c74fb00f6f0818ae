//! Whether a worker is alive, and whether it does its work.
//!
//! Owns: the judgement and its reasons. Does not own: the signs that it is made from (`worker::Pulse`, `worker::Progress`), what is done
//! about it (ECS, Kubernetes, Docker).
//!
//! *Alive* fails only for what a restart can help: the loop of the worker has not turned for so long that it cannot be waiting for
//! anything. A service that fails is waited for and ends the worker by itself (`[retry] within`), so it is never a reason. A restart
//! would only make everything be read again that was not committed.
//!
//! The workers of a replay stop while it is paused. So a replay is judged by neither.
//!
//! *Ready* fails for everything else: the lease table does not answer within the failover time, so that others take the shards; nothing is
//! read although there is something to read; the worker starts or stops.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::server::site::View;
use crate::worker::{Progress, Pulse};

/// The loop waits for a commit, and each of its calls is repeated for `[retry] within` at most. This many of them in a row have passed...
const RETRIES_IN_A_ROW: u32 = 6;
/// ...and at least this time.
const STUCK_AFTER_MIN: Duration = Duration::from_secs(1800);
/// The least time in which the lease table must answer.
const LEASES_WITHIN_MIN: Duration = Duration::from_secs(2);
/// How long reading may make no progress although there is something to read.
const PROGRESS_WITHIN: Duration = Duration::from_secs(120);

/// The answer of a health check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether the check passes.
    pub ok: bool,
    /// `starting`, `running` or `stopping`.
    pub state: &'static str,
    /// Why it does not pass, a sentence each; empty if it passes.
    pub reasons: Vec<String>,
    /// Seconds since the loop of the worker turned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loop_turned_s: Option<f64>,
    /// Seconds since the lease table answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leases_reached_s: Option<f64>,
}

fn state(view: Option<&View>, is_stopping: bool) -> &'static str {
    match view {
        _ if is_stopping => "stopping",
        None => "starting",
        Some(_) => "running",
    }
}

fn report(view: Option<&View>, is_stopping: bool, reasons: Vec<String>) -> Report {
    let pulse = view.map(|view| &view.progress.pulse);
    let seconds = |since: Option<Duration>| since.map(|since| (since.as_secs_f64() * 10.0).round() / 10.0);
    Report {
        ok: reasons.is_empty(),
        state: state(view, is_stopping),
        reasons,
        loop_turned_s: seconds(pulse.and_then(Pulse::since_loop_turned)),
        leases_reached_s: seconds(pulse.and_then(Pulse::since_leases_reached)),
    }
}

/// What the check of life needs to know.
pub(super) struct Liveness<'v> {
    pub(super) view: Option<&'v View>,
    pub(super) is_stopping: bool,
}

impl Liveness<'_> {
    pub(super) fn report(&self) -> Report {
        let mut reasons = Vec::new();
        if let Some(view) = self.view.filter(|view| !view.may_pause()) {
            let limit = (view.retry_within * RETRIES_IN_A_ROW).max(STUCK_AFTER_MIN);
            let since = view.progress.pulse.since_loop_turned();
            if let Some(since) = since.filter(|since| *since >= limit) {
                reasons.push(format!(
                    "the loop of the worker has not turned for {}, longer than any service is waited for",
                    spoken(since)
                ));
            }
        }
        report(self.view, self.is_stopping, reasons)
    }
}

/// When the worker was last seen to make progress.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    seen: Option<(Counts, Instant)>,
}

/// What grows while a worker reads and commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    read: u64,
    records: u64,
    epochs: u64,
}

impl Counts {
    fn of(progress: &Progress) -> Self {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Counts { read: load(&progress.bytes_read), records: load(&progress.records), epochs: load(&progress.epochs) }
    }
}

impl Readiness {
    pub(super) fn report(&mut self, view: Option<&View>, is_stopping: bool) -> Report {
        let mut reasons = Vec::new();
        match view {
            _ if is_stopping => reasons.push("the worker commits what it has read and ends".to_owned()),
            None => reasons.push("the worker opens its lake, its lease table and its sources".to_owned()),
            Some(view) if view.may_pause() => {}
            Some(view) => {
                reasons.extend(leases(view));
                reasons.extend(self.progress(view));
            }
        }
        report(view, is_stopping, reasons)
    }

    /// Notes the progress, and says if there is none although there should be.
    pub(super) fn progress(&mut self, view: &View) -> Option<String> {
        let now = Counts::of(&view.progress);
        let since = match &self.seen {
            Some((seen, since)) if *seen == now => since.elapsed(),
            _ => {
                self.seen = Some((now, Instant::now()));
                return None;
            }
        };
        let behind = view.progress.shards().iter().filter(|shard| !shard.at_tip).count();
        if behind == 0 {
            // There is nothing to read, so waiting is right.
            self.seen = Some((now, Instant::now()));
            return None;
        }
        (since >= PROGRESS_WITHIN).then(|| {
            let since = spoken(since);
            format!(
                "nothing was read or committed for {since}, and {behind} shards of this worker are not at their tips"
            )
        })
    }
}

/// Says if the lease table does not answer.
fn leases(view: &View) -> Option<String> {
    let limit = view.failover.max(LEASES_WITHIN_MIN);
    match view.progress.pulse.since_leases_reached() {
        None => Some("the lease table has not answered yet".to_owned()),
        Some(since) if since > limit => Some(format!(
            "the lease table has not answered for {}; other workers may take the shards after {}",
            spoken(since),
            spoken(view.failover)
        )),
        Some(_) => None,
    }
}

/// A time for people: its two largest units.
pub(super) fn spoken(time: Duration) -> String {
    let s = time.as_secs();
    let (days, hours, minutes, seconds) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
