//! Logs, errors and the progress bar.
//!
//! Owns: what may be logged at all, whatever `RUST_LOG` asks for. Libraries log what they carry at their finer levels: the
//! SDK whole requests and answers, with records, keys and signatures in them. So only events of our own crates have levels
//! below `info`. A panic tells where it happened and never its text, which may quote a value in hand.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::cli::args::LogFormat;
use crate::cli::output::{counted, show_count};
use crate::worker::Progress;

/// The finest level of events that are not our own.
const OF_OTHERS: Level = Level::INFO;

/// Whether an event may be logged, whatever is asked for.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let own = target == "shardlake" || target.starts_with("shardlake::") || target.starts_with("shardlake_");
    own || *metadata.level() <= OF_OTHERS
}

/// Sends logs to stderr; `RUST_LOG` says which, warnings by default.
pub(crate) fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let lines = lines.with_filter(filter).with_filter(filter_fn(may_be_logged));
    // A second start, as in a test, keeps the first.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Has a panic say where it happened, and nothing else: its text may quote what was in hand, such as a part of a record.
pub(crate) fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        eprintln!(
            "shardlake: a bug: thread {thread} panicked at {place}; what it was told is left out, since it may hold data"
        );
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
    }));
}

/// Tells an error with its causes, once each.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    let mut message: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !message.iter().any(|known| known.contains(&text)) {
            message.push(text);
        }
    }
    eprintln!("shardlake: {}", message.join(": "));
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

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: &str = "SHARDLAKE_TEST_OF_PANICS";

    #[test]
    fn a_panic_tells_its_place_and_not_what_was_in_hand() {
        if let Ok(value) = std::env::var(CHILD) {
            keep_panics_quiet();
            // As a slice out of bounds would quote the text that it cuts.
            panic!("{value} is in hand");
        }
        let name = "cli::logging::tests::a_panic_tells_its_place_and_not_what_was_in_hand";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "hush-hush").output().unwrap();
        let message = [output.stdout, output.stderr].concat();
        let message = String::from_utf8_lossy(&message);
        assert!(
            !output.status.success() && message.contains("a bug") && message.contains("src/cli/logging.rs:"),
            "{message}"
        );
        assert!(!message.contains("hush-hush"), "{message}");
    }
}
