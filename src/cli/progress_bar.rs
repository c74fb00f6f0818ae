//! The progress bars of long commands: drawn on a terminal only, and removed at the end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::{counted, show_count};
use crate::replay::diff::DiffProgress;
use crate::worker::Progress;

/// How often the bar of a run is redrawn.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn bar(total: u64, template: &str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

/// Draws a run's progress until it is dropped.
pub(crate) struct RunBar {
    task: tokio::task::JoinHandle<()>,
    bar: ProgressBar,
}

impl RunBar {
    pub(crate) fn start(progress: Arc<Progress>) -> Self {
        let bar =
            bar(progress.bytes_total.load(Ordering::Relaxed), "{bar:30} {percent:>3}%  {binary_bytes_per_sec}  {msg}");
        let for_task = bar.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(REDRAW_EVERY);
            loop {
                ticks.tick().await;
                for_task.set_length(progress.bytes_total.load(Ordering::Relaxed));
                for_task.set_position(progress.bytes_read.load(Ordering::Relaxed));
                let records = show_count(progress.records.load(Ordering::Relaxed));
                let commits = counted(progress.epochs.load(Ordering::Relaxed), "commit");
                for_task.set_message(format!("{records} records, {commits}"));
            }
        });
        RunBar { task, bar }
    }
}

impl Drop for RunBar {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// Draws the progress of a comparison until it is dropped.
pub(crate) struct DiffBar(ProgressBar);

impl DiffBar {
    pub(crate) fn start() -> Self {
        let bar = bar(0, "comparing {bar:30} {percent:>3}%  {binary_bytes_per_sec}  {eta} left");
        bar.enable_steady_tick(REDRAW_EVERY);
        DiffBar(bar)
    }

    pub(crate) fn add(&self, step: DiffProgress) {
        match step {
            DiffProgress::Planned(bytes) => self.0.inc_length(bytes),
            DiffProgress::Read(bytes) => self.0.inc(bytes),
        }
    }
}

impl Drop for DiffBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
