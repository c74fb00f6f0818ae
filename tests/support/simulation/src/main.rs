//! `shardlake-sim`: runs seeds, and shows that the simulation finds every mutation of the protocol.
//!
//!     shardlake-sim --seeds 1..10000             runs these seeds on all cores; shows which faults occurred
//!     shardlake-sim --seeds 17 --trace           runs one seed, and shows its events if it fails
//!     shardlake-sim --mutations --seeds 1..300   runs each mutation until a seed finds it
//!     shardlake-sim --log-requests 1,10,100      counts the requests to the lake log, for fleets of these numbers of workers
//!     shardlake-sim --scale 100:10 --scenario kill
//!                                                measures a fleet of so many shards and workers, and prints a line of JSON for each

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use mutations::Mutation;
use simulation::faults::Tally;
use simulation::fleet::calm::measure;
use simulation::fleet::{LastTrace, Summary};
use simulation::scale::autoscaler::Rule;
use simulation::scale::load::Load;
use simulation::scale::{self, Scale, Scenario};
use simulation::{FOUND_BY_THE_MODEL, Violation};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Whole fleets of Shardlake in one process, under paused time, from one seed.
#[derive(Debug, Parser)]
#[command(name = "shardlake-sim")]
struct Args {
    /// The seeds to run, as in 1..10000 (both ends are run), or one
    #[arg(long, value_parser = seeds, default_value = "1..300")]
    seeds: RangeInclusive<u64>,
    /// How many seeds run at once [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Break the protocol in each known way, and check that a seed finds it
    #[arg(long)]
    mutations: bool,
    /// Break the protocol in this way
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
    /// Show the last events of each seed; of many seeds, only of those that fail
    #[arg(long)]
    trace: bool,
    /// What the workers log, as in RUST_LOG: shardlake=info; use it with one seed
    #[arg(long)]
    log: Option<Targets>,
    /// Continue after a violation
    #[arg(long)]
    keep_going: bool,
    /// Count the requests to the lake log in fleets of these numbers of workers, without faults
    #[arg(long, value_delimiter = ',')]
    log_requests: Vec<u32>,
    /// How often these workers commit, in milliseconds
    #[arg(long, default_value = "10000")]
    interval_ms: u64,
    /// Measure fleets of SHARDS:WORKERS, such as 100:10
    #[arg(long, value_delimiter = ',', value_parser = shards_and_workers)]
    scale: Vec<(usize, usize)>,
    /// What happens to them: calm, recover, join, catch-up, tenfold, reshard, spot or kill
    #[arg(long, default_value = "calm")]
    scenario: Scenario,
    /// For how long the requests of a calm fleet are counted, in seconds
    #[arg(long, default_value = "1800")]
    counted_s: u64,
    /// How often the workers of such a fleet commit, in seconds
    #[arg(long, default_value = "300")]
    commit_s: u64,
    /// Cores of each of its workers
    #[arg(long, default_value = "0.5")]
    vcpus: f64,
    /// Bytes that each of its shards gets in a second
    #[arg(long, default_value = "100000")]
    shard_bytes: u64,
    /// The seed of the times that its requests take
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Add workers by target tracking: this many bytes of backlog for each
    #[arg(long)]
    by_backlog: Option<f64>,
    /// Add workers when the oldest record is older than so many seconds
    #[arg(long, conflicts_with = "by_backlog")]
    by_age: Option<f64>,
    /// The most workers that a rule may start
    #[arg(long)]
    workers_max: Option<usize>,
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("invalid seed '{text}': expected a number"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..=number(to.trim_start_matches('='))?),
        None => number(text).map(|seed| seed..=seed),
    }
}

fn shards_and_workers(text: &str) -> Result<(usize, usize), String> {
    let pair = text.split_once(':').and_then(|(shards, workers)| Some((shards.parse().ok()?, workers.parse().ok()?)));
    pair.filter(|(shards, workers)| *shards > 0 && *workers > 0)
        .ok_or_else(|| format!("invalid size '{text}': expected 100:10"))
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let named = Mutation::ALL.iter().copied().find(|mutation| format!("{mutation:?}") == name);
    let known = || Mutation::ALL.iter().map(|mutation| format!("{mutation:?}")).collect::<Vec<_>>().join(", ");
    named.ok_or_else(|| format!("unknown mutation {name}: expected one of {}", known()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(targets) = &args.log {
        let lines = tracing_subscriber::fmt::layer().without_time().with_writer(std::io::stderr);
        tracing_subscriber::registry().with(lines.with_filter(targets.clone())).init();
    } else {
        // A panic in a run is reported as a violation of its seed.
        std::panic::set_hook(Box::new(|_| {}));
    }
    if !args.log_requests.is_empty() {
        log_requests(&args);
        return ExitCode::SUCCESS;
    }
    if !args.scale.is_empty() {
        // The panic of a worker ends the run, and says why.
        let _ = std::panic::take_hook();
        measure_scale(&args);
        return ExitCode::SUCCESS;
    }
    let is_ok = if args.mutations { run_mutations(&args) } else { run_seeds(&args) };
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure_scale(args: &Args) {
    let rule = match (args.by_backlog, args.by_age) {
        (Some(bytes), _) => Rule::Backlog(bytes),
        (_, Some(seconds)) => Rule::Age(seconds),
        _ => Rule::None,
    };
    for (shards, workers) in &args.scale {
        let scale = Scale::new(*shards, *workers, args.scenario);
        let begun = begin();
        let measured = scale::measure(&Scale {
            seed: args.seed,
            interval: Duration::from_secs(args.commit_s),
            counted: Duration::from_secs(args.counted_s),
            vcpus: args.vcpus,
            load: Load { record_bytes: args.shard_bytes, ..scale.load },
            rule,
            workers_max: args.workers_max.unwrap_or(scale.workers_max),
            ..scale
        });
        println!("{measured}");
        eprintln!("{shards} shards, {workers} workers: {} s", begun.elapsed().as_secs());
    }
}

fn log_requests(args: &Args) {
    println!("{:>7} {:>8} {:>8} {:>8} {:>8} {:>9}", "workers", "epochs", "writes", "lists", "reads", "per epoch");
    for workers in &args.log_requests {
        let of = measure(*workers, Duration::from_millis(args.interval_ms));
        let per_epoch = of.log_requests_per_epoch();
        println!("{workers:>7} {:>8} {:>8} {:>8} {:>8} {per_epoch:>9.2}", of.epochs, of.puts, of.lists, of.reads);
    }
}

/// Runs seeds concurrently until `each` returns true. Returns the seconds that it took.
fn run(
    args: &Args,
    mutation: Option<Mutation>,
    each: &(dyn Fn(u64, Result<Summary, Violation>) -> bool + Sync),
) -> u64 {
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let (next, is_done) = (AtomicU64::new(*args.seeds.start()), AtomicBool::new(false));
    let begun = begin();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > *args.seeds.end() {
                        break;
                    }
                    let last = LastTrace::default();
                    let result = simulation::run_traced(seed, mutation, &last);
                    if args.trace && args.seeds.clone().count() == 1 && result.is_ok() {
                        last.lines().iter().for_each(|line| eprintln!("  {line}"));
                    }
                    if each(seed, result) {
                        is_done.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    begun.elapsed().as_secs()
}

#[expect(clippy::disallowed_methods, reason = "the tool shows how long it took")]
fn begin() -> std::time::Instant {
    std::time::Instant::now()
}

#[derive(Default)]
struct Sum {
    runs: u64,
    records: u64,
    trimmed: u64,
    epochs: u64,
    rolled_forward: u64,
    rolled_back: u64,
    aborted: u64,
    workers: u64,
    requests: u64,
    virtual_ms: u64,
    violations: BTreeMap<u64, String>,
}

fn run_seeds(args: &Args) -> bool {
    let (sum, tally) = (Mutex::new(Sum::default()), Tally::default());
    let seconds = run(args, args.mutation, &|seed, result| {
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.runs += 1;
        if sum.runs.is_multiple_of(500) {
            eprintln!("{} runs, {} violations", sum.runs, sum.violations.len());
        }
        match result {
            Ok(summary) => {
                tally.add(&summary.tally);
                sum.records += summary.records;
                sum.trimmed += summary.trimmed;
                sum.epochs += summary.epochs;
                sum.rolled_forward += summary.rolled_forward;
                sum.rolled_back += summary.rolled_back;
                sum.aborted += summary.aborted;
                sum.workers += u64::from(summary.workers);
                sum.requests += summary.requests;
                sum.virtual_ms += summary.virtual_ms;
                false
            }
            Err(violation) => {
                show(args, &violation);
                sum.violations.insert(seed, violation.what);
                !args.keep_going
            }
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} runs in {seconds} s, {} of virtual time", sum.runs, hours_and_minutes(sum.virtual_ms));
    println!(
        "  {} workers, {} requests, {} records, {} epochs committed",
        sum.workers, sum.requests, sum.records, sum.epochs
    );
    println!(
        "  {} epochs abandoned, {} rolled forward by another worker, {} rolled back after their decision; {} records trimmed unread",
        sum.aborted, sum.rolled_forward, sum.rolled_back, sum.trimmed
    );
    println!("faults that occurred:\n{}", tally.table());
    let missing = tally.missing();
    if !missing.is_empty() {
        println!("never occurred: {missing:?}");
    }
    match sum.violations.len() {
        0 => println!("no violation"),
        count => println!("{count} VIOLATIONS: seeds {:?}", sum.violations.keys().collect::<Vec<_>>()),
    }
    sum.violations.is_empty()
}

fn show(args: &Args, violation: &Violation) {
    eprintln!("seed {}: {}", violation.seed, violation.what);
    if args.trace {
        violation.trace.iter().for_each(|line| eprintln!("  {line}"));
    }
}

fn hours_and_minutes(ms: u64) -> String {
    let time = Duration::from_millis(ms).as_secs();
    format!("{} h {} min", time / 3600, time / 60 % 60)
}

fn run_mutations(args: &Args) -> bool {
    let mut missed = Vec::new();
    println!("{:<26} {:>9}  what it found", "mutation", "found by");
    for &mutation in Mutation::ALL.iter().filter(|mutation| !FOUND_BY_THE_MODEL.contains(mutation)) {
        let found: Mutex<Option<(u64, String)>> = Mutex::default();
        run(args, Some(mutation), &|seed, result| {
            let Err(violation) = result else { return false };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                *found = Some((seed, violation.what));
            }
            true
        });
        let name = format!("{mutation:?}");
        match found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((seed, what)) => {
                let what: String = what.chars().take(110).map(|c| if c == '\n' { ' ' } else { c }).collect();
                println!("{name:<26} {:>9}  {what}", format!("seed {seed}"));
            }
            None => {
                println!("{name:<26} {:>9}", "MISSED");
                missed.push(mutation);
            }
        }
    }
    println!("found by the model: {FOUND_BY_THE_MODEL:?}");
    if !missed.is_empty() {
        println!("{} of {} were not found", missed.len(), Mutation::ALL.len());
    }
    missed.is_empty()
}
