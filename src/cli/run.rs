//! `run`: the worker, its progress bar and its summary.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use checkpoints::StreamName;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::args::{FailOn, RunArgs};
use crate::cli::output::{Table, counted, show_bytes, show_count};
use crate::cli::produce::make_sample;
use crate::cli::progress_bar::RunBar;
use crate::cli::run_telemetry::{RunTelemetry, Watched};
use crate::cli::serving::{Serving, place_of};
use crate::cli::sweep::roll_up_if_due;
use crate::cli::{Usage, is_usage, load};
use crate::clock::{SharedClock, SystemClock};
use crate::commit::Stores;
use crate::config::{Config, Overrides};
use crate::lake::DefinitionClaims;
use crate::maintenance;
use crate::named_checkpoints::ScheduledCheckpoints;
use crate::server::{Mode, View};
use crate::setup::worker::{WorkerParts, lane_config, worker_config};
use crate::setup::{
    Components, Consents, OpenError, OpenedKey, check_definitions, check_lake, load_aws, open, open_key, open_raw_sink,
};
use crate::source::{Behind, ShardSource, SourceReport, names_sentence};
use crate::telemetry::prometheus;
use crate::worker::{self, Committed, Progress, WorkerConfig};

/// Files with unread content that the text shows.
const UNREAD_SHOWN: usize = 10;
/// Records of the demonstration.
const SAMPLE_RECORDS: u64 = 100_000;

pub(crate) async fn run(args: RunArgs, json: bool) -> anyhow::Result<ExitCode> {
    // Signals are handled before anything else: opening and sweeping may take long, and the first process of a container ignores
    // signals that it has no handler for.
    let stop = CancellationToken::new();
    let listening = tokio::spawn(stop_on_signal(stop.clone()));
    RunTelemetry::check()?;
    let mut config = load(&Overrides {
        sources: args.source.clone(),
        raw: args.raw.clone(),
        memory: args.memory.clone(),
        threads: args.threads,
        commit_interval: args.commit_interval.clone(),
        listen: args.listen.clone(),
        run: true,
        ..args.lake.overrides()
    })?;
    check_places(&config)?;
    let clock: SharedClock = Arc::new(SystemClock);
    let serving = Serving::start(config.listen, &clock, &stop).await?;
    if config.demo {
        make_demo()?;
    }
    let consents = Consents { new_lake: args.new_lake, new_checkpoints: args.new_checkpoints };
    let checking = async {
        let aws = load_aws(&config).await?;
        let known = check_lake(&config, aws.as_ref(), consents).await?;
        check_definitions(&config, aws.as_ref(), args.accept_changes).await?;
        Ok::<_, OpenError>((known, aws))
    };
    let Some(checked) = unless_stopped(&stop, checking).await else { return Ok(ExitCode::SUCCESS) };
    let (known, aws) = checked?;
    let key = if config.datasets.need_key() {
        let opening = open_key(&config.key, aws.as_ref(), config.worker.retry.within);
        let Some(opened) = unless_stopped(&stop, opening).await else { return Ok(ExitCode::SUCCESS) };
        let OpenedKey { key, made } = opened?;
        if let Some(path) = made {
            eprintln!(
                "created the secret pseudonym key: {} (keep it, and keep it apart from the lake)",
                path.display()
            );
        }
        Some(key)
    } else {
        None
    };
    let opening = open(&mut config, key.as_ref(), &clock, args.until_caught_up, known, aws);
    let Some(opened) = unless_stopped(&stop, opening).await else { return Ok(ExitCode::SUCCESS) };
    let Components { stores, sources, aws } = opened?;
    let definitions = DefinitionClaims::new(args.accept_changes);
    if args.accept_changes {
        let claiming = definitions.claim_accepted(&*stores.lake, &config.datasets);
        match unless_stopped(&stop, claiming).await {
            None => return Ok(ExitCode::SUCCESS),
            Some(claimed) => claimed.map_err(OpenError::from)?,
        }
    }
    // First remove what dead workers left behind, but only what can certainly not become visible any more.
    match unless_stopped(&stop, maintenance::sweep(&stores, clock.now_ms(), Duration::from_secs(86_400), false)).await {
        None => return Ok(ExitCode::SUCCESS),
        Some(Ok(swept)) => tracing::info!(?swept, "removed what ended workers left behind"),
        // The run does not depend on it. The next start or `shardlake sweep` does it.
        Some(Err(error)) => {
            tracing::warn!(%error, "failed to remove what ended workers left behind; the next start tries again");
        }
    }
    // Operations on the lake that an ended process has decided. The run does not depend on them.
    match unless_stopped(&stop, maintenance::operation::finish_pending(&stores)).await {
        None => return Ok(ExitCode::SUCCESS),
        Some(Ok(_)) => {}
        Some(Err(error)) => {
            tracing::warn!(%error, "failed to finish an operation on the lake; the next start tries again");
        }
    }
    if unless_stopped(&stop, roll_up_if_due(&stores)).await.is_none() {
        return Ok(ExitCode::SUCCESS);
    }

    let progress = Arc::new(Progress::default());
    let place = place_of(&config);
    let opening = open_raw_sink(&config, aws.as_ref());
    let Some(raw_sink) = unless_stopped(&stop, opening).await else { return Ok(ExitCode::SUCCESS) };
    let raw_sink = raw_sink?;
    // A stream cannot say how many bytes are still to be read.
    let measured = sources.iter().zip(&config.sources).filter(|(_, source)| source.url.backend().counts_bytes());
    let measured: Vec<Arc<dyn ShardSource>> = measured.map(|(source, _)| Arc::clone(source)).collect();
    let datasets: Vec<String> = config.datasets.names().map(str::to_owned).collect();
    let watched = sources.clone();
    let lake = config.lake.to_string();
    let raw = if raw_sink.is_some() { None } else { config.worker.output.raw };
    let origins: Vec<StreamName> = sources.iter().flat_map(|source| source.origins()).collect();
    let settings = config.worker.clone();
    let (schedule, scheduled) = (settings.checkpoints.clone(), sources.clone());
    let lanes = lane_config(config, &origins, key, raw, args.show_denied_keys)?;
    let parts = WorkerParts {
        stores: stores.clone(),
        sources,
        raw_sink,
        clock: Arc::clone(&clock),
        until_caught_up: args.until_caught_up,
    };
    let mut worker = worker_config(settings, Arc::new(lanes), parts)?;
    serving.site.attach(view_of(&worker, &progress, &lake, &place));
    worker.definitions = Some(definitions);
    let saved = ScheduledCheckpoints::new(worker.me.clone(), stores.clone(), scheduled, schedule);
    worker.after_commit = vec![Box::new(saved)];
    let ahead = unless_stopped(&stop, bytes_ahead(&measured, &stores)).await.unwrap_or_default();
    progress.bytes_total.store(ahead, Ordering::Relaxed);
    let begun = Instant::now();
    let telemetry = RunTelemetry::start(Watched {
        progress: &progress,
        aws: aws.as_ref(),
        clock: &clock,
        settings: &worker.settings,
        worker: worker.me.to_string(),
        stores: &stores,
        sources: &watched,
    })
    .await?;
    serving.site.serve_metrics(Arc::new(|| Ok(prometheus::text())));
    let run_bar = RunBar::start(Arc::clone(&progress));
    let giving_back = tokio::spawn(crate::setup::allocator::trim_periodically());
    let result = worker::run(worker, Arc::clone(&progress), stop.clone()).await.map_err(anyhow::Error::from);
    drop(run_bar);
    telemetry.end().await;
    drop(serving);
    giving_back.abort();
    listening.abort();
    let requests = aws.map(|aws| aws.requests().counts()).unwrap_or_default();
    let (took, committed) = (begun.elapsed(), progress.committed());
    let reports: Vec<SourceReport> = watched.iter().map(|source| source.report()).collect();
    let caught_up = args.until_caught_up && !stop.is_cancelled();
    let failures = if result.is_ok() { failures(&committed, &reports, &args.fail_on, caught_up) } else { Vec::new() };
    let ok = result.is_ok();
    let summary = Summary {
        committed,
        took,
        lake,
        place,
        datasets,
        show_denied_keys: args.show_denied_keys,
        ok,
        reports,
        failures,
        requests,
    };
    if json {
        println!("{}", summary.json(&result));
    } else {
        print!("{}", summary.text(caught_up));
    }
    for failure in &summary.failures {
        eprintln!("shardlake: {failure}");
    }
    match result {
        Ok(()) => Ok(ExitCode::from(u8::from(!summary.failures.is_empty()))),
        Err(error) if json => {
            eprintln!("shardlake: {error}");
            Ok(ExitCode::from(if is_usage(&error) { 2 } else { 1 }))
        }
        Err(error) => Err(error),
    }
}

/// What the status page needs to know of a worker.
fn view_of(worker: &WorkerConfig, progress: &Arc<Progress>, lake: &str, place: &str) -> View {
    View {
        me: Some(worker.me.clone()),
        mode: if worker.until_caught_up { Mode::UntilCaughtUp } else { Mode::Run },
        lake: lake.to_owned(),
        place: place.to_owned(),
        stores: worker.stores.clone(),
        sources: worker.sources.clone(),
        lanes: Arc::clone(&worker.lanes),
        progress: Arc::clone(progress),
        failover: worker.settings.leases.failover,
        clock: Arc::clone(&worker.clock),
        commit_interval: worker.settings.commit.interval,
        freshness: worker.settings.telemetry.freshness,
        retry_within: worker.settings.retry.within,
    }
}

/// Why a run that has worked ends with exit code 1. A worker that runs until it is stopped has done its work in any case, unless
/// `--fail-on` says otherwise.
fn failures(committed: &Committed, reports: &[SourceReport], fail_on: &[FailOn], caught_up: bool) -> Vec<String> {
    let mut failures = Vec::new();
    let dead_letters: u64 = committed.totals.dead_letters.values().sum();
    if caught_up {
        failures.extend(reports.iter().flat_map(|report| &report.problems).cloned());
        if dead_letters > 0 && dead_letters == committed.totals.records {
            failures.push("every record became a dead letter; `shardlake deadletters list` shows why".to_owned());
        }
    }
    if fail_on.contains(&FailOn::DeadLetters) && dead_letters > 0 && failures.is_empty() {
        failures.push(format!("{} (--fail-on dead-letters)", counted(dead_letters, "dead letter")));
    }
    if fail_on.contains(&FailOn::Unread) {
        let unread: usize = reports.iter().map(|report| report.unread.len()).sum();
        let names: u64 = reports.iter().flat_map(|report| report.names_not_read.values()).sum();
        let all = names + unread as u64;
        if all > 0 {
            failures.push(format!("{} not read to the end (--fail-on unread)", counted(all, "file")));
        }
    }
    failures
}

/// Creates the sample records unless they exist, and says so.
fn make_demo() -> anyhow::Result<()> {
    let folder = Config::demo_records();
    if make_sample(&folder, SAMPLE_RECORDS)? {
        eprintln!("no --source given: created {} sample records in {}/", show_count(SAMPLE_RECORDS), folder.display());
    } else {
        eprintln!("no --source given: reading the sample records in {}/", folder.display());
    }
    Ok(())
}

/// Refuses locations that cannot work, before anything is touched.
pub(crate) fn check_places(config: &Config) -> anyhow::Result<()> {
    let lake = config.lake.backend();
    let folder = lake.folder();
    let sources = config.sources.iter().map(|source| source.url.backend().check(&config.lake));
    let checks = sources.chain([lake.check(), config.checkpoints().backend().check(folder)]);
    let problems: Vec<String> = checks.filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(Usage(problems.join("\n")).into()) }
}

/// Bytes after the checkpoints, for the progress bar.
async fn bytes_ahead(sources: &[Arc<dyn ShardSource>], stores: &Stores) -> u64 {
    let leases = stores.leases.list().await.unwrap_or_default();
    let mut total = 0;
    for source in sources {
        for shard in source.shards().await.unwrap_or_default() {
            let lease = leases.iter().find(|lease| lease.key.stream == *source.stream() && lease.key.shard == shard.id);
            let at = lease.map_or(checkpoints::Position::Beginning, |lease| lease.checkpoint.clone());
            if let Ok(Behind::Bytes(bytes)) = source.behind(&shard.id, &at).await {
                total += bytes;
            }
        }
    }
    total
}

/// Cancels `stop` once the process is asked to end.
pub(crate) async fn stop_on_signal(stop: CancellationToken) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
    eprintln!("stopping: committing what was read");
    stop.cancel();
}

/// Work before the worker runs. `None` if a stop was requested in the meantime: then no lease is held, and nothing is lost.
pub(crate) async fn unless_stopped<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

/// What a run did.
struct Summary {
    committed: Committed,
    took: Duration,
    lake: String,
    /// The flags by which other commands find the lake.
    place: String,
    /// The names of the datasets, by number.
    datasets: Vec<String>,
    show_denied_keys: bool,
    ok: bool,
    /// What the sources have that was not read.
    reports: Vec<SourceReport>,
    /// Why the exit code is 1 although the run has worked.
    failures: Vec<String>,
    /// Requests to AWS, by service and operation, since each one costs money.
    requests: BTreeMap<String, u64>,
}

impl Summary {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn rate(&self) -> f64 {
        self.committed.input_bytes as f64 / 1e6 / self.took.as_secs_f64().max(1e-3)
    }

    fn text(&self, caught_up: bool) -> String {
        let Committed { totals, objects, partitions, input_bytes, rolled_forward, rolled_back, .. } = &self.committed;
        let how = match (self.ok, caught_up) {
            (false, _) => "Committed before it failed",
            (true, true) => "Caught up",
            (true, false) => "Stopped",
        };
        let mut text = format!(
            "{how}: {} records, {}, in {:.1} s ({:.0} MB/s)\n",
            show_count(totals.records),
            show_bytes(*input_bytes),
            self.took.as_secs_f64(),
            self.rate()
        );
        let mut rows = Table::new(&["dataset", ">rows", ">partitions"]);
        for (dataset, count) in &totals.rows {
            let partitions = partitions.get(dataset).map_or(0, std::collections::HashSet::len);
            rows.row([dataset.clone(), show_count(*count), show_count(partitions as u64)]);
        }
        let mut dead_letters = Table::new(&["dead letters", ">records"]);
        for (code, count) in &totals.dead_letters {
            dead_letters.row([code.clone(), show_count(*count)]);
        }
        let mut nulled = Table::new(&["became null", ">values"]);
        for (field, count) in &totals.nulled_values {
            nulled.row([field.clone(), show_count(*count)]);
        }
        let mut denied = Table::new(&["no allow list has", ">keys"]);
        for (dataset, count) in &totals.denied_keys {
            denied.row([format!("{dataset}: keys of maps"), show_count(*count)]);
        }
        for (dataset, object, key, count) in self.committed.denied_names.iter() {
            let name = format!("  {}{object} {key}", self.datasets.get(dataset).map_or("", String::as_str));
            denied.row([name, show_count(count)]);
        }
        let mut files = Table::new(&["files", ">count", ">size"]);
        for (name, (count, bytes)) in ["processed/", "raw/", "error/"].iter().zip(objects) {
            if *count > 0 {
                files.row([(*name).to_owned(), show_count(*count), show_bytes(*bytes)]);
            }
        }
        let mut requests = Table::new(&["requests", ">count"]);
        for (operation, count) in &self.requests {
            requests.row([operation.clone(), show_count(*count)]);
        }
        for table in [rows, dead_letters, nulled, denied, files, requests].into_iter().filter(|table| !table.is_empty())
        {
            text.push('\n');
            text.push_str(&table.render("  "));
        }
        if rolled_forward + rolled_back > 0 {
            text.push_str(&format!(
                "\n  recovered after workers that had ended: {} rolled forward, {rolled_back} back\n",
                counted(*rolled_forward, "epoch"),
            ));
        }
        let names = self.reports.iter().filter(|report| !report.names_not_read.is_empty());
        let names: Vec<String> = names.map(|report| names_sentence(&report.names_not_read)).collect();
        let unread: Vec<&String> = self.reports.iter().flat_map(|report| &report.unread).collect();
        if !names.is_empty() || !unread.is_empty() {
            text.push('\n');
        }
        for sentence in names {
            text.push_str(&format!("  {sentence}\n"));
        }
        for sentence in unread.iter().take(UNREAD_SHOWN) {
            text.push_str(&format!("  not read: {sentence}\n"));
        }
        if let Some(more @ 1..) = unread.len().checked_sub(UNREAD_SHOWN) {
            text.push_str(&format!("  not read: {} more; `--json` lists them all\n", counted(more as u64, "file")));
        }
        text.push_str(&self.next());
        text
    }

    /// Where to look next.
    fn next(&self) -> String {
        let Some(dataset) = self.committed.totals.rows.keys().next() else { return String::new() };
        let lake = &self.lake;
        let mut next = Table::new(&["next", ""]);
        let query = format!(
            "duckdb -c \"SELECT count(*) FROM read_parquet('{lake}/processed/{dataset}/**/*.parquet', hive_partitioning = true)\""
        );
        next.row(["query".to_owned(), query]);
        let place = &self.place;
        next.row(["audit".to_owned(), format!("shardlake verify {place}")]);
        if !self.committed.totals.denied_keys.is_empty() && !self.show_denied_keys {
            next.row(["denied keys".to_owned(), "names of keys: run with --show-denied-keys".to_owned()]);
        }
        if !self.committed.totals.dead_letters.is_empty() {
            next.row(["dead letters".to_owned(), format!("shardlake deadletters list {place}")]);
        }
        format!("\n{}", next.render("  "))
    }

    fn json(&self, result: &anyhow::Result<()>) -> Value {
        let Committed { totals, objects, partitions, input_bytes, rolled_forward, rolled_back, aborted, denied_names } =
            &self.committed;
        let denied_names: Vec<Value> = denied_names
            .iter()
            .map(|(dataset, object, key, count)| {
                json!({ "dataset": self.datasets.get(dataset), "field": object, "key": key, "count": count })
            })
            .collect();
        let partitions: Map<String, Value> =
            partitions.iter().map(|(dataset, all)| (dataset.clone(), json!(all.len()))).collect();
        let mut names: BTreeMap<&String, u64> = BTreeMap::new();
        for (ending, count) in self.reports.iter().flat_map(|report| &report.names_not_read) {
            *names.entry(ending).or_default() += count;
        }
        let unread: Vec<&String> = self.reports.iter().flat_map(|report| &report.unread).collect();
        let object = |place: usize| json!({ "count": objects[place].0, "bytes": objects[place].1 });
        json!({
            "ok": self.ok && self.failures.is_empty(),
            "error": result.as_ref().err().map(ToString::to_string).or_else(|| self.failures.first().cloned()),
            "names_not_read": names,
            "unread": unread,
            "lake": self.lake,
            "seconds": self.took.as_secs_f64(),
            "mb_per_s": self.rate(),
            "records": totals.records,
            "input_bytes": input_bytes,
            "rows": totals.rows,
            "partitions": partitions,
            "dead_letters": totals.dead_letters,
            "raw_lines": totals.raw_lines,
            "nulled_values": totals.nulled_values,
            "denied_keys": totals.denied_keys,
            "denied_names": if self.show_denied_keys { json!(denied_names) } else { Value::Null },
            "objects": { "processed": object(0), "raw": object(1), "error": object(2) },
            "requests": self.requests,
            "epochs": { "rolled_forward": rolled_forward, "rolled_back": rolled_back, "aborted": aborted },
        })
    }
}
