//! What goes to stderr: logs, errors and reports of panics.
//!
//! Owns: what may be logged at all, whatever `RUST_LOG` asks for. At their finer levels, libraries log the data that they
//! carry: the SDK logs whole requests and answers, with records, keys and signatures in them. So only events of our own
//! crates may have levels below `info`. The report of a panic says where it happened and never quotes its message, which
//! may contain a value. Does not own: the progress bar (`progress_bar`), what commands print (`output`), lines that repeat
//! (`log_limit`).

use std::io::IsTerminal;
use std::process::ExitCode;

use checkpoints::error_chain;
use tracing::{Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::args::LogFormat;
use crate::cli::log_json::JsonLine;
use crate::cli::log_limit::LogLimit;
use crate::spans;
use crate::telemetry::traces;

/// The finest level of events of other crates.
const FOREIGN_LEVEL_MAX: Level = Level::INFO;
/// What is logged without `RUST_LOG`.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::WARN;

/// Returns true if a target is of one of our own crates.
pub(super) fn is_own(target: &str) -> bool {
    target == "shardlake" || target.starts_with("shardlake::") || target.starts_with("shardlake_")
}

/// Returns true if an event may be logged, whatever is asked for.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    // Spans are for traces: the fields of an event say what it is about.
    metadata.target() != spans::TARGET && (is_own(metadata.target()) || *metadata.level() <= FOREIGN_LEVEL_MAX)
}

/// Sends logs to stderr, and spans to a collector if `is_traced` and the environment names one. `RUST_LOG` sets the levels by target, such as `warn,shardlake=debug`.
pub(crate) fn start_logging(format: LogFormat, is_traced: bool) {
    let targets = targets(std::env::var_os("RUST_LOG").map(|value| value.to_string_lossy().into_owned()).as_deref())
        .unwrap_or_else(|problem| {
            eprintln!("shardlake: {problem}; logging at level {DEFAULT_LEVEL}");
            Targets::new().with_default(DEFAULT_LEVEL)
        });
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.event_format(JsonLine).boxed(),
    };
    // The limit counts only lines that pass the other two.
    let filter = targets.and(filter_fn(may_be_logged)).and(LogLimit::new(format));
    let lines = lines.with_filter(filter);
    // A second start, as in a test, keeps the first.
    // A variable that cannot be used is reported by the command.
    let traces = if is_traced { traces::layer().ok().flatten() } else { None };
    let _ = tracing_subscriber::registry().with(traces).with(lines).try_init();
}

/// Parses the value of `RUST_LOG`: a comma-separated list of levels and `target=level`.
fn targets(value: Option<&str>) -> Result<Targets, String> {
    match value.map(str::trim) {
        None | Some("") => Ok(Targets::new().with_default(DEFAULT_LEVEL)),
        Some(value) => value.parse().map_err(|error| {
            format!("invalid RUST_LOG '{value}': {error}; expected levels by target, such as warn,shardlake=debug")
        }),
    }
}

/// Makes the report of a panic say where it happened, and nothing else: its message may quote a part of a record.
pub(crate) fn hide_panic_messages() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        eprintln!(
            "shardlake: a bug: thread {thread} panicked at {place}; its message is omitted, since it may hold data"
        );
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
    }));
}

/// Prints an error with its causes, each once.
pub(crate) fn report_failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("shardlake: {}", error_chain(error.as_ref()));
    ExitCode::from(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: &str = "SHARDLAKE_TEST_OF_PANICS";

    #[test]
    fn the_report_of_a_panic_has_its_place_and_not_its_message() {
        if let Ok(value) = std::env::var(CHILD) {
            hide_panic_messages();
            // A slice out of bounds would quote the text that it cuts, likewise.
            panic!("{value} is in hand");
        }
        let name = "cli::logging::tests::the_report_of_a_panic_has_its_place_and_not_its_message";
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

    /// The calls that log, in the product's code of these folders, each with its file.
    fn calls(folders: &[&str]) -> Vec<(String, String)> {
        let mut calls = Vec::new();
        let mut folders: Vec<std::path::PathBuf> =
            folders.iter().map(|folder| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let product = text.split("#[cfg(test)]").next().unwrap();
                for level in ["error", "warn", "info", "debug"] {
                    for rest in product.split(&format!("tracing::{level}!(")).skip(1) {
                        let end = rest.find(");").or_else(|| rest.find("),")).unwrap_or(rest.len());
                        calls.push((path.display().to_string(), rest[..end].to_owned()));
                    }
                }
            }
        }
        calls
    }

    #[test]
    fn every_line_about_a_shard_names_its_stream_and_every_line_about_a_manifest_its_epoch() {
        let calls = calls(&["src/worker", "src/source", "src/commit"]);
        assert!(calls.len() > 50, "{}", calls.len());
        for (file, call) in calls {
            let (fields, _) = call.split_once('"').unwrap_or((&call, ""));
            let has = |name: &str| fields.contains(&format!("%{name},")) || fields.contains(&format!("{name} = "));
            assert!(!has("shard") || has("stream"), "{file}: {call}");
            assert!(!has("manifest") || has("epoch"), "{file}: {call}");
            // A shard's key would be one field, which nobody can search by.
            let is_shard_key = file.contains("/worker/") && fields.contains("%key,");
            assert!(!is_shard_key, "{file}: {call}");
        }
    }

    #[test]
    fn rust_log_sets_levels_by_target() {
        let would_log =
            |value: Option<&str>, target: &str, level: Level| targets(value).unwrap().would_enable(target, &level);
        for value in [None, Some(""), Some(" ")] {
            assert!(would_log(value, "shardlake::worker", Level::WARN) && !would_log(value, "shardlake", Level::INFO));
        }
        let value = Some("shardlake=info,shardlake_checkpoints=debug,error");
        assert!(would_log(value, "shardlake::worker", Level::INFO) && !would_log(value, "shardlake", Level::DEBUG));
        assert!(would_log(value, "shardlake_checkpoints::sqlite", Level::DEBUG));
        assert!(would_log(value, "hyper", Level::ERROR) && !would_log(value, "hyper", Level::WARN));
    }

    #[test]
    fn a_bad_rust_log_is_reported() {
        for value in ["shardlake=loud", "shardlake[span]=info=x", "a=b=c"] {
            let problem = targets(Some(value)).unwrap_err();
            assert!(problem.starts_with(&format!("invalid RUST_LOG '{value}': ")), "{problem}");
        }
    }
}
