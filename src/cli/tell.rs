//! Logs, errors and the progress bar.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::cli::args::LogFormat;
use crate::config::units::{counted, show_count};
use crate::worker::Progress;

/// Sends logs to stderr; `RUST_LOG` says which, warnings by default.
pub(crate) fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // A second start, as in a test, keeps the first.
    let _ = started;
}

/// Tells an error with its causes, once each.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !told.iter().any(|known| known.contains(&text)) {
            told.push(text);
        }
    }
    eprintln!("shardlake: {}", told.join(": "));
    ExitCode::from(1)
}

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn bar(total: u64, template: &str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

/// Draws a run's progress until it is dropped.
pub(crate) struct Watching {
    task: tokio::task::JoinHandle<()>,
    bar: ProgressBar,
}

impl Watching {
    pub(crate) fn start(progress: Arc<Progress>) -> Self {
        let bar =
            bar(progress.bytes_total.load(Ordering::Relaxed), "{bar:30} {percent:>3}%  {binary_bytes_per_sec}  {msg}");
        let for_task = bar.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                for_task.set_length(progress.bytes_total.load(Ordering::Relaxed));
                for_task.set_position(progress.bytes_read.load(Ordering::Relaxed));
                let records = show_count(progress.records.load(Ordering::Relaxed));
                let commits = counted(progress.epochs.load(Ordering::Relaxed), "commit");
                for_task.set_message(format!("{records} records, {commits}"));
            }
        });
        Watching { task, bar }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
