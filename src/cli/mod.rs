//! The command line: arguments, printing, exit codes. One file a command.
//!
//! Every command prints text for people, or JSON with `--json`. Does not own: what the commands do (`inspect`,
//! `maintenance`, `worker`, `produce`).
//!
//! Exit codes: 0 done; 1 failed, or found faults; 2 wrong usage or configuration, reported before anything is changed; 3, of `doctor` alone,
//! found what hurts now.

mod args;
mod checkpoints;
mod config;
mod cost;
mod cost_args;
mod cost_review;
mod dead_letter_args;
mod dead_letters;
mod diff_output;
mod doctor;
mod find;
mod graph;
mod health;
mod init;
mod leases;
mod log;
mod log_json;
mod log_limit;
mod logging;
mod losses;
mod manifest;
mod manual;
mod metrics;
mod output;
mod produce;
mod produce_stream;
mod progress_bar;
mod redrive;
mod replay;
mod replay_args;
mod replay_diff;
mod replay_plan;
mod replay_promote;
mod replay_start;
mod run;
mod run_telemetry;
mod schema;
mod serving;
mod show_args;
mod status;
mod status_watch;
mod sweep;
mod verify;
mod whatif;

use std::process::ExitCode;

use clap::Parser;
use pipeline::time::parse_rfc3339_or_date;
use pipeline::toml_reader::Problems;

use crate::cli::args::{Args, Command};
use crate::commit::lake_log::{HistoryError, LogVersion, VersionOrTime};
use crate::config::{Config, Overrides};
use crate::setup::OpenError;
use crate::worker::WorkerError;

/// Threads that wait for sockets and timers.
const IO_THREADS: usize = 2;
/// Threads for what blocks: files and databases.
const BLOCKING_THREADS: usize = 4;

/// How long the process waits at its end for file work that nobody needs any more, such as skipping a line of gigabytes.
const BLOCKED_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are not errors.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    crate::setup::allocator::return_large_buffers();
    logging::start_logging(args.log_format, matches!(args.command, Command::Run(_)));
    logging::hide_panic_messages();
    // Lanes have their own threads. These are for sockets, timers, files and databases.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return logging::report_failure(&anyhow::Error::new(error).context("failed to start")),
    };
    let result = runtime.block_on(dispatch(args));
    // A task that still reads a file is not waited for: nothing that was committed depends on it.
    runtime.shutdown_timeout(BLOCKED_WITHIN);
    match result {
        Ok(code) => code,
        Err(error) if is_usage(&error) => {
            eprintln!("shardlake: {error}");
            ExitCode::from(2)
        }
        Err(error) => logging::report_failure(&error),
    }
}

/// Returns true if the caller can fix it with other arguments or another configuration. Then nothing was changed.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>()
        || error.downcast_ref::<OpenError>().is_some_and(OpenError::is_usage)
        || error.downcast_ref::<WorkerError>().is_some_and(WorkerError::is_usage)
}

async fn dispatch(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run(run) => run::run(run, args.json).await,
        Command::Produce(produce) => produce::produce(&produce, args.json).await,
        Command::Graph(graph) => graph::graph(&graph, args.json),
        Command::Schema(schema) => schema::schema(&schema, args.json).await,
        Command::Manifest(manifest) => manifest::manifest(&manifest, args.json).await,
        Command::Cost(cost) => cost::cost(&cost, args.json).await,
        Command::Metrics(metrics) => Ok(metrics::metrics(&metrics, args.json)),
        Command::Verify(verify) => verify::verify(&verify, args.json).await,
        Command::Status(status) => status::status(&status, args.json).await,
        Command::Find(find) => find::find(*find, args.json).await,
        Command::Replay(command) => replay::replay(*command, args.json).await,
        Command::WhatIf(whatif) => whatif::whatif(*whatif, args.json).await,
        Command::Log(log) => log::log(&log, args.json).await,
        Command::Sweep(sweep) => sweep::sweep(&sweep, args.json).await,
        Command::DeadLetters(command) => dead_letters::dead_letters(command, args.json).await,
        Command::Checkpoints(command) => checkpoints::checkpoints(&command, args.json).await,
        Command::Leases(command) => leases::leases(&command, args.json).await,
        Command::Losses(command) => losses::losses(&command, args.json).await,
        Command::Completions(completions) => manual::completions(&completions),
        Command::Man(man) => manual::man(&man),
        Command::Health(health) => health::health(health, args.json).await,
        Command::Doctor(doctor) => doctor::doctor(&doctor, args.json).await,
        Command::Config(command) => config::config(&command, args.json).await,
        Command::Init(command) => init::init(&command, args.json).await,
    }
}

/// A mistake of the caller: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Reads the configuration. Whatever is wrong with it is a mistake of the caller.
pub(crate) fn load(overrides: &Overrides) -> anyhow::Result<Config> {
    Config::load(overrides).map_err(|problems| usage(&problems))
}

/// Parses a version of the lake log, or a time.
pub(crate) fn version_or_time(text: &str) -> anyhow::Result<VersionOrTime> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() < 20 {
        return Ok(VersionOrTime::Version(LogVersion(text.parse()?)));
    }
    let time = parse_rfc3339_or_date(text).map(VersionOrTime::Time);
    time.ok_or_else(|| {
        Usage(format!("'{text}' is not a version or a time: expected a number, 2025-01-13T10:30:00Z or 2025-01-13"))
            .into()
    })
}

/// A version that the lake log does not have is a mistake of the caller.
pub(crate) fn of_history(error: HistoryError) -> anyhow::Error {
    match error {
        error @ HistoryError::NoVersion { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    }
}

fn usage(problems: &Problems) -> anyhow::Error {
    let all: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let count = if all.len() == 1 { "a problem".to_owned() } else { format!("{} problems", all.len()) };
    Usage(format!("the configuration has {count}:{}", all.concat())).into()
}
