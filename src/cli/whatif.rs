//! `whatif`: what a definition would make of the past, compared with what the lake has.
//!
//! Owns: the arguments, and printing. Does not own: planning and running (`replay`), the comparison (`replay::diff`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::StreamName;
use clap::Args as ClapArgs;
use pipeline::time::format_rfc3339;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::args::LakeArgs;
use crate::cli::diff_output::{print_diff, thresholds};
use crate::cli::output::{counted, show_bytes};
use crate::cli::progress_bar::{DiffBar, RunBar};
use crate::cli::replay::{of_planning, of_run};
use crate::cli::replay_diff::DiffArgs;
use crate::cli::replay_plan::Word;
use crate::cli::run::{check_places, stop_on_signal, unless_stopped};
use crate::cli::{Usage, load};
use crate::clock::{SharedClock, SystemClock, random_bytes};
use crate::config::{Config, KeySource, Overrides};
use crate::replay::diff::{DiffOptions, Side, compare};
use crate::replay::planning::{PlanRequest, Surroundings, plan_replay};
use crate::replay::run::{Ended, Job, RunOptions, RunWatch};
use crate::replay::whatif::Scratch;
use crate::replay::{Plan, Purpose, ReplayId};
use crate::settings::units::parse_duration;
use crate::setup::replay::{PlanningParts, open_for_what_if, open_replay};
use crate::setup::{OpenedKey, load_aws, open_key};
use crate::source::replay::RawIdentities;

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("range").required(true).args(["last", "from"]))]
pub(crate) struct WhatIfArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// A definition, which replaces the configured one of its dataset, or is added; may be repeated [default: those of the
    /// configuration]
    #[arg(long, value_name = "FILE")]
    pub(crate) definition: Vec<PathBuf>,

    /// What arrived within this time, up to now, such as 24h
    #[arg(long, value_name = "TIME", conflicts_with = "to")]
    pub(crate) last: Option<String>,

    /// Where the range begins: checkpoint:NAME, a time (2025-01-13T10:30:00Z, or 2025-01-13), or trim-horizon
    #[arg(long, value_name = "WHERE")]
    pub(crate) from: Option<String>,

    /// Where the range ends: checkpoint:NAME, a time, or now
    #[arg(long, value_name = "WHERE", default_value = "now")]
    pub(crate) to: String,

    /// Compare only the rows of this dataset
    #[arg(long, value_name = "DATASET")]
    pub(crate) dataset: Option<String>,

    /// Only this stream; may be repeated [default: all streams of the lake]
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Vec<String>,

    /// A source, by which a stream is read again; may be repeated [default: those of the configuration]
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// Keep what the definitions make in this folder, as a lake; it must be empty [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) into: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) diff: DiffArgs,
}

pub(crate) async fn whatif(args: WhatIfArgs, json: bool) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let listening = tokio::spawn(stop_on_signal(stop.clone()));
    let clock: SharedClock = Arc::new(SystemClock);
    let thresholds = thresholds(&args.diff.fail_on)?;
    let from = from_of(&args, clock.now_ms())?;
    let mut config = load(&Overrides {
        sources: args.source.clone(),
        definitions: args.definition.clone(),
        without_leases: true,
        ..args.diff.overrides(&args.lake)
    })?
    .waiting_briefly();
    // A key that does not exist is not made: it would give everybody another pseudonym.
    if let KeySource::MadeFile(path) = config.key {
        config.key = KeySource::File(path);
    }
    check_places(&config)?;
    for (dataset, column) in thresholds.iter().filter_map(|threshold| threshold.column()) {
        if config.datasets.find(dataset).is_none() {
            return Err(Usage(format!("--fail-on changed:{dataset}.{column}: there is no dataset '{dataset}'")).into());
        }
    }
    let scratch = Scratch::create(args.into.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let options = DiffOptions {
        memory: config.worker.limits.memory,
        threads: config.worker.limits.threads,
        samples: args.diff.sample,
        dataset: args.dataset.clone(),
    };
    let opening = open_job(&args, &from, config, &scratch, &clock);
    let Some(job) = unless_stopped(&stop, opening).await else { return Ok(ExitCode::FAILURE) };
    let job = job?;
    let begun = Instant::now();
    let watched = RunWatch::default();
    watched.progress.bytes_total.store(job.plan.totals.bytes, std::sync::atomic::Ordering::Relaxed);
    let bar = RunBar::start(Arc::clone(&watched.progress));
    let ended = job.run(RunOptions { workers: 1, rate: None }, &watched, &stop).await;
    drop(bar);
    if ended.map_err(of_run)? != Ended::Complete {
        eprintln!("stopped: nothing was compared");
        return Ok(ExitCode::FAILURE);
    }
    let ran = begun.elapsed();
    let Job { plan, lake, aside, .. } = job;
    let comparing = async {
        let (old, new) = Side::of_replay(lake, aside.lake, &plan).await?;
        let bar = DiffBar::start();
        compare(old, new, &options, &|step| bar.add(step)).await
    };
    let Some(diff) = unless_stopped(&stop, comparing).await else { return Ok(ExitCode::FAILURE) };
    let diff = diff?;
    listening.abort();
    let took = Took { ran, compared: begun.elapsed() - ran };
    let head = (&*head_text(&plan, &took, &scratch), head_json(&plan, &took, &scratch));
    Ok(print_diff(&diff, &thresholds, head, json))
}

/// Where the range begins, as a text.
fn from_of(args: &WhatIfArgs, now_ms: i64) -> anyhow::Result<String> {
    match (&args.last, &args.from) {
        (None, Some(from)) => Ok(from.clone()),
        (Some(last), _) => {
            let last = parse_duration(last).map_err(|problem| Usage(format!("--last: {problem}")))?;
            let last = i64::try_from(last.as_millis()).unwrap_or(i64::MAX);
            // Before 1970 there are no records.
            Ok(format_rfc3339(now_ms.saturating_sub(last).max(0)))
        }
        (None, None) => Err(Usage("name a range: --last TIME, or --from WHERE".to_owned()).into()),
    }
}

/// Plans, and opens what was planned.
async fn open_job(
    args: &WhatIfArgs,
    from: &str,
    mut config: Config,
    scratch: &Scratch,
    clock: &SharedClock,
) -> anyhow::Result<Job> {
    let streams = args.stream.iter().map(|name| StreamName::new(name).map_err(|error| Usage(error.to_string())));
    let streams: BTreeSet<StreamName> = streams.collect::<Result<_, _>>()?;
    let (from_word, to_word) = (Word::parse(from, "--from")?, Word::parse(&args.to, "--to")?);
    let aws = load_aws(&config).await?;
    let key = if config.datasets.need_key() {
        let OpenedKey { key, .. } = open_key(&config.key, aws.as_ref(), config.worker.retry.within).await?;
        Some(key)
    } else {
        None
    };
    let parts = open_for_what_if(&mut config, clock, aws.as_ref()).await?;
    let PlanningParts { lake, sources, definitions } = parts;
    let request = PlanRequest {
        purpose: Purpose::WhatIf,
        from: (from_word.bound(&*lake).await?, from.to_owned()),
        to: (to_word.bound(&*lake).await?, args.to.clone()),
        streams,
        dataset: args.dataset.clone(),
        into: None,
        prefers_streams: false,
    };
    let around = Surroundings {
        lake: &lake,
        sources: &sources,
        identities: &RawIdentities::new(Arc::clone(&lake)),
        definitions,
        now_ms: clock.now_ms(),
        commit_interval_s: config.worker.commit.interval.as_secs(),
        prices: None,
    };
    let plan = plan_replay(&around, &request, ReplayId::from_random(random_bytes()?)).await.map_err(of_planning)?;
    Ok(open_replay(config, plan, key, clock, aws.as_ref(), 1, Some(scratch.aside()?)).await?)
}

struct Took {
    ran: Duration,
    compared: Duration,
}

fn head_text(plan: &Plan, took: &Took, scratch: &Scratch) -> String {
    let totals = &plan.totals;
    let mut text = format!(
        "{} in {} ({}), from {} to {}, at version {} of the lake\nprocessed in {:.1} s, compared in {:.1} s; nothing in the lake was changed\n",
        counted(totals.records, "record"),
        counted(plan.epochs.len() as u64, "epoch"),
        show_bytes(totals.bytes),
        plan.from,
        plan.to,
        plan.version,
        took.ran.as_secs_f64(),
        took.compared.as_secs_f64()
    );
    if let Some(folder) = scratch.kept() {
        text.push_str(&format!("what the definitions made is in {}\n", folder.display()));
    }
    text.push('\n');
    text
}

fn head_json(plan: &Plan, took: &Took, scratch: &Scratch) -> serde_json::Value {
    json!({
        "from": plan.from,
        "to": plan.to,
        "version": plan.version,
        "streams": plan.streams,
        "epochs": plan.epochs.len(),
        "records": plan.totals.records,
        "bytes": plan.totals.bytes,
        "definitions": plan.definitions,
        "folder": scratch.kept(),
        "seconds": { "processed": took.ran.as_secs_f64(), "compared": took.compared.as_secs_f64() },
    })
}
