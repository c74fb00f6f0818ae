//! `replay start`: runs a planned replay, with a progress bar and an estimate.
//!
//! Owns: the bar, the estimate while it runs, and the summary. Does not own: running (`replay::run`), opening (`setup::replay`).

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::output::{Table, counted, show_bytes, show_count};
use crate::cli::progress_bar::bar;
use crate::cli::replay::{of_plan, of_run, percent};
use crate::cli::replay_args::StartArgs;
use crate::cli::replay_plan::show_seconds;
use crate::cli::run::{check_places, stop_on_signal, unless_stopped};
use crate::cli::serving::{Serving, place_of};
use crate::cli::{Usage, load};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Overrides};
use crate::lake::ObjectStore;
use crate::replay::progress::AsideProgress;
use crate::replay::run::{Ended, Job, RunOptions, RunWatch, check_plan};
use crate::replay::{Plan, find_plan};
use crate::server::{Listen, Mode, View};
use crate::setup::replay::{open_lake, open_replay};
use crate::setup::{OpenedKey, load_aws, open_key};
use crate::source::replay::Pace;
use crate::worker::{Progress, WorkerConfig};

/// How often the log of the aside lake is read for the bar.
const READ_EVERY: Duration = Duration::from_millis(1_000);
/// Commits from which the rate is measured.
const COMMITS_MEASURED: u64 = 2;
/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// The shortest run whose estimate says something.
const MEASURED_MIN: Duration = Duration::from_secs(10);
/// The most workers of a process.
const WORKERS_MAX: usize = 64;

pub(crate) async fn start(args: &StartArgs, json: bool) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let listening = tokio::spawn(stop_on_signal(stop.clone()));
    let options = options_of(args)?;
    let config = load(&Overrides { sources: args.source.clone(), ..args.lake.overrides() })?;
    check_places(&config)?;
    let listen = listen_of(args, &config)?;
    let clock: SharedClock = Arc::new(SystemClock);
    let serving = Serving::start(listen, &clock, &stop).await?;
    let (lake, place) = (config.lake.to_string(), place_of(&config));
    let opening = async {
        let aws = load_aws(&config).await?;
        let lake = open_lake(&config, aws.as_ref()).await?;
        let plan = find_plan(&*lake, &args.id).await.map_err(of_plan)?;
        check_plan(&*lake, &plan).await.map_err(of_run)?;
        let key = if config.datasets.need_key() {
            let OpenedKey { key, .. } = open_key(&config.key, aws.as_ref(), config.worker.retry.within).await?;
            Some(key)
        } else {
            None
        };
        anyhow::Ok((plan, key, aws))
    };
    let Some(opened) = unless_stopped(&stop, opening).await else { return Ok(ExitCode::SUCCESS) };
    let (plan, key, aws) = opened?;
    let opening = open_replay(config, plan, key, &clock, aws.as_ref(), options.workers, None);
    let Some(job) = unless_stopped(&stop, opening).await else { return Ok(ExitCode::SUCCESS) };
    let job = job?;

    let watched = Arc::new(RunWatch::default());
    serving.site.attach(view_of(&job, &watched.progress, lake, place)?);
    let begun = Instant::now();
    let meter = Meter::start(&job, Arc::clone(&watched)).await;
    let giving_back = tokio::spawn(crate::setup::allocator::trim_periodically());
    let result = job.run(options, &watched, &stop).await;
    giving_back.abort();
    drop(serving);
    listening.abort();
    let halfway = meter.finish();
    let mut progress = AsideProgress::default();
    progress.advance(&*job.aside.lake, &job.plan).await?;
    let summary =
        Summary { plan: &job.plan, progress, took: begun.elapsed(), halfway, slowed_ms: watched.throttle.slowed_ms() };
    if json {
        let error = result.as_ref().err().map(ToString::to_string);
        println!("{}", summary.json(result.as_ref().ok().copied(), error.as_deref()));
    } else if let Ok(ended) = &result {
        print!("{}", summary.text(*ended));
    }
    match result {
        Ok(Ended::Complete | Ended::Stopped) => Ok(ExitCode::SUCCESS),
        Ok(Ended::Cancelled) => Ok(ExitCode::FAILURE),
        Err(error) if json => {
            eprintln!("shardlake: {error}");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(of_run(error)),
    }
}

/// What the status page needs to know of the workers of a replay.
fn view_of(job: &Job, progress: &Arc<Progress>, lake: String, place: String) -> std::io::Result<View> {
    // One that never runs: it knows what each of them is made with.
    let WorkerConfig { lanes, settings, .. } = (job.make_worker)()?;
    Ok(View {
        me: None,
        mode: Mode::Replay(job.plan.id.stream()),
        lake,
        place,
        stores: job.aside.clone(),
        sources: Vec::new(),
        lanes,
        progress: Arc::clone(progress),
        failover: settings.leases.failover,
        clock: Arc::clone(&job.clock),
        commit_interval: job.commit_interval,
        // Its records are old.
        freshness: Duration::MAX,
        retry_within: settings.retry.within,
    })
}

/// Where the page is served. The configured address is the one of the live workers, of which one may be on this machine.
fn listen_of(args: &StartArgs, config: &Config) -> anyhow::Result<Listen> {
    match &args.listen {
        Some(text) => Ok(Listen::parse(text).map_err(Usage)?),
        None if config.listen == Listen::Off => Ok(Listen::Off),
        None => Ok(Listen::Default),
    }
}

fn options_of(args: &StartArgs) -> anyhow::Result<RunOptions> {
    if !(1..=WORKERS_MAX).contains(&args.workers) {
        return Err(Usage(format!("--workers must be 1 to {WORKERS_MAX}, not {}", args.workers)).into());
    }
    let rate = match args.rate {
        None => None,
        Some(rate) if rate.is_finite() && rate > 0.0 && rate < 1e6 => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was checked")]
            let bytes = (rate * 1e6) as u64;
            Some(bytes.max(1))
        }
        Some(rate) => return Err(Usage(format!("--rate must be a number of megabytes a second, not {rate}")).into()),
    };
    Ok(RunOptions { workers: args.workers, rate })
}

/// What was estimated when half of this run's work was done.
#[derive(Debug, Clone, Copy)]
struct Halfway {
    /// The whole time of this run, as it was estimated then.
    estimated: Duration,
    /// It is from commits, and not from what was read.
    is_measured: bool,
}

/// Watches a run until it is dropped: draws the bar, and estimates.
struct Meter {
    task: tokio::task::JoinHandle<()>,
    bar: ProgressBar,
    halfway: Arc<Mutex<Option<Halfway>>>,
}

impl Meter {
    async fn start(job: &Job, watched: Arc<RunWatch>) -> Self {
        let bar = bar(job.plan.totals.bytes, "{bar:30} {percent:>3}%  {binary_bytes_per_sec}  {msg}");
        let halfway = Arc::new(Mutex::new(None));
        let mut before = AsideProgress::default();
        // It is read again while the replay runs.
        let _ = before.advance(&*job.aside.lake, &job.plan).await;
        let meter = MeterTask {
            plan: job.plan.clone(),
            aside: Arc::clone(&job.aside.lake),
            pace: Arc::clone(&job.pace),
            watched,
            bar: bar.clone(),
            halfway: Arc::clone(&halfway),
            at_start: before.bytes,
            version_at_start: before.version.0,
            last_commit: None,
            progress: before,
        };
        Meter { task: tokio::spawn(meter.run()), bar, halfway }
    }

    fn finish(self) -> Option<Halfway> {
        self.task.abort();
        self.bar.finish_and_clear();
        *self.halfway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct MeterTask {
    plan: Plan,
    aside: Arc<dyn ObjectStore>,
    pace: Arc<Pace>,
    watched: Arc<RunWatch>,
    bar: ProgressBar,
    halfway: Arc<Mutex<Option<Halfway>>>,
    /// Bytes that were committed when this run began, and the version of the log.
    at_start: u64,
    version_at_start: u64,
    /// When the last commit was seen.
    last_commit: Option<Instant>,
    progress: AsideProgress,
}

/// Work that was done in this run, and the time that it took.
struct Measured {
    elapsed: Duration,
    bytes: u64,
    is_measured: bool,
}

impl MeterTask {
    async fn run(mut self) {
        let begun = Instant::now();
        let (mut ticks, mut read_at) = (tokio::time::interval(DRAW_EVERY), Instant::now());
        loop {
            ticks.tick().await;
            if read_at.elapsed() >= READ_EVERY {
                read_at = Instant::now();
                self.read_log().await;
            }
            let whole = self.plan.totals.bytes;
            // What this process has read and not committed counts as well.
            let done = self.progress.bytes.max(self.at_start.saturating_add(self.pace.spent())).min(whole);
            self.bar.set_position(done);
            let left_at_start = whole.saturating_sub(self.at_start);
            let Measured { elapsed, bytes, is_measured } = self.measured(begun, done);
            let rest = rest_of(elapsed, bytes, left_at_start.saturating_sub(bytes));
            if bytes >= left_at_start / 2 && bytes > 0 {
                let estimated = elapsed + rest.unwrap_or_default();
                let mut halfway = self.halfway.lock().unwrap_or_else(PoisonError::into_inner);
                if halfway.is_none_or(|halfway| is_measured && !halfway.is_measured) {
                    *halfway = Some(Halfway { estimated, is_measured });
                }
            }
            // Time has passed since the last commit.
            let rest = rest.map(|rest| (elapsed + rest).saturating_sub(begun.elapsed()));
            self.bar.set_message(self.message(rest));
        }
    }

    async fn read_log(&mut self) {
        let before = self.progress.version;
        if let Err(error) = self.progress.advance(&*self.aside, &self.plan).await {
            tracing::debug!(%error, "cannot tell how far the replay is");
        }
        if self.progress.version > before {
            self.last_commit = Some(Instant::now());
        }
    }

    /// Work that was done in this run, and the time that it took. What was committed counts: reading runs ahead of encoding. Before there
    /// are enough commits, what was read has to do.
    fn measured(&self, begun: Instant, done: u64) -> Measured {
        match self.last_commit {
            Some(at) if self.progress.version.0 >= self.version_at_start + COMMITS_MEASURED => Measured {
                elapsed: at.duration_since(begun),
                bytes: self.progress.bytes.saturating_sub(self.at_start),
                is_measured: true,
            },
            _ => {
                let bytes = done.saturating_sub(self.at_start);
                Measured { elapsed: begun.elapsed(), bytes, is_measured: false }
            }
        }
    }

    fn message(&self, rest: Option<Duration>) -> String {
        let slices = format!("{} of {} slices", self.progress.ended.len(), self.plan.slices.len());
        if self.watched.is_paused() {
            return format!("{slices}, paused");
        }
        let rest = rest.map_or_else(String::new, |rest| format!(", about {} left", show_seconds(rest.as_secs())));
        let slowed = if self.watched.throttle.is_slowed() { ", slowed down: the live workers are behind" } else { "" };
        format!("{slices}{rest}{slowed}")
    }
}

/// The time for what is left, at the rate so far; `None` if nothing was done.
fn rest_of(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    let ms = u128::from(left).checked_mul(elapsed.as_millis())?.checked_div(u128::from(done))?;
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
}

/// What a run did.
struct Summary<'p> {
    plan: &'p Plan,
    progress: AsideProgress,
    took: Duration,
    halfway: Option<Halfway>,
    slowed_ms: u64,
}

impl Summary<'_> {
    /// How far the estimate at half of the work was off, in percent of the time that it took.
    fn off_percent(&self) -> Option<u64> {
        let (estimated, took) = (self.halfway?.estimated.as_millis(), self.took.as_millis().max(1));
        u64::try_from(estimated.abs_diff(took) * 100 / took).ok()
    }

    fn text(&self, ended: Ended) -> String {
        let (plan, progress) = (self.plan, &self.progress);
        let how = match ended {
            Ended::Complete => "complete",
            Ended::Stopped => "stopped",
            Ended::Cancelled => "cancelled",
        };
        let mut text = format!(
            "replay {} is {how}: {} of {} ({}), {}, in {:.1} s\n",
            plan.id,
            show_count(progress.records),
            counted(plan.totals.records, "record"),
            percent(progress.records, plan.totals.records),
            show_bytes(progress.bytes),
            self.took.as_secs_f64()
        );
        let is_long = self.took >= MEASURED_MIN;
        if let (Ended::Complete, true, Some(halfway), Some(off)) = (ended, is_long, self.halfway, self.off_percent()) {
            text.push_str(&format!(
                "when half was done, {:.1} s were estimated for this run: {off} % off\n",
                halfway.estimated.as_secs_f64()
            ));
        }
        if self.slowed_ms > 0 {
            text.push_str(&format!(
                "slowed down for {} because the live workers were behind\n",
                show_seconds(self.slowed_ms / 1000)
            ));
        }
        let mut rows = Table::new(&["dataset", ">rows now", ">rows before"]);
        let names: std::collections::BTreeSet<&String> =
            progress.totals.rows.keys().chain(plan.totals.rows.keys()).collect();
        for dataset in names {
            let count =
                |rows: &std::collections::BTreeMap<String, u64>| show_count(rows.get(dataset).copied().unwrap_or(0));
            rows.row([dataset.clone(), count(&progress.totals.rows), count(&plan.totals.rows)]);
        }
        let dead_letters: u64 = progress.totals.dead_letters.values().sum();
        rows.row(["(dead letters)".to_owned(), show_count(dead_letters), show_count(plan.totals.dead_letters)]);
        text.push_str(&format!("\n{}", rows.render("  ")));
        let id = &plan.id;
        let next = match ended {
            Ended::Complete => format!("next: shardlake replay diff {id}, then shardlake replay promote {id}"),
            Ended::Stopped => format!("next: shardlake replay start {id}, which continues"),
            Ended::Cancelled => "what it had written is removed by whoever has cancelled it".to_owned(),
        };
        text.push_str(&format!("\n{next}\n"));
        text
    }

    fn json(&self, ended: Option<Ended>, error: Option<&str>) -> serde_json::Value {
        let (plan, progress) = (self.plan, &self.progress);
        json!({
            "id": plan.id,
            "ended": match ended {
                Some(Ended::Complete) => Some("complete"),
                Some(Ended::Stopped) => Some("stopped"),
                Some(Ended::Cancelled) => Some("cancelled"),
                None => None,
            },
            "error": error,
            "records": plan.totals.records,
            "records_done": progress.records,
            "bytes": plan.totals.bytes,
            "bytes_done": progress.bytes,
            "rows": progress.totals.rows,
            "rows_before": plan.totals.rows,
            "dead_letters": progress.totals.dead_letters,
            "dead_letters_before": plan.totals.dead_letters,
            "seconds": self.took.as_secs_f64(),
            "seconds_estimated_halfway": self.halfway.map(|halfway| halfway.estimated.as_secs_f64()),
            "estimate_off_percent": self.off_percent(),
            "slowed_seconds": self.slowed_ms / 1000,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_follows_from_the_rate_so_far() {
        assert_eq!(rest_of(Duration::from_secs(10), 100, 50), Some(Duration::from_secs(5)));
        assert_eq!(rest_of(Duration::from_secs(10), 0, 50), None);
        assert_eq!(rest_of(Duration::from_secs(10), 100, 0), Some(Duration::ZERO));
    }
}
