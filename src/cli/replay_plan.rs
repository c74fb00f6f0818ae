//! `replay plan`: plans a replay, saves the plan, and prints it.
//!
//! Owns: reading the range from the command line, and printing. Does not own: planning (`replay::planning`).

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use checkpoints::StreamName;
use pipeline::time::parse_rfc3339_or_date;
use serde_json::to_string;

use crate::cli::output::{Table, counted, shorten, show_bytes, show_count, show_usd};
use crate::cli::replay::of_planning;
use crate::cli::replay_args::{PlanArgs, PreferArg};
use crate::cli::{Usage, load};
use crate::clock::{SharedClock, SystemClock, random_bytes};
use crate::commit::{CheckpointName, get_checkpoint};
use crate::config::Overrides;
use crate::cost::Prices;
use crate::lake::{ObjectStore, Written};
use crate::replay::planning::{Bound, PlanRequest, Surroundings, plan_replay};
use crate::replay::{Plan, Purpose, ReplayId, SliceOf, WidenedBecause, save_plan};
use crate::setup::load_aws;
use crate::setup::replay::{PlanningParts, open_for_planning};
use crate::source::replay::RawIdentities;

/// Shards that the text shows.
const SHARDS_SHOWN: usize = 12;
/// How often a plan gets another name, because another one has its name.
const NAMES_MAX: usize = 10;

pub(crate) async fn plan(args: &PlanArgs, json: bool) -> anyhow::Result<ExitCode> {
    let overrides = Overrides { sources: args.source.clone(), ..args.lake.overrides() };
    let mut config = load(&overrides)?.waiting_briefly();
    let streams = args.stream.iter().map(|name| StreamName::new(name).map_err(|error| Usage(error.to_string())));
    let streams: BTreeSet<StreamName> = streams.collect::<Result<_, _>>()?;
    // What is wrong with the words is reported before anything is opened.
    let (from, to) = (Word::parse(&args.from, "--from")?, Word::parse(&args.to, "--to")?);
    let aws = load_aws(&config).await?;
    let clock: SharedClock = Arc::new(SystemClock);
    let PlanningParts { lake, sources, definitions } = open_for_planning(&mut config, &clock, aws.as_ref()).await?;
    let request = PlanRequest {
        purpose: Purpose::Replay,
        from: (from.bound(&*lake).await?, args.from.clone()),
        to: (to.bound(&*lake).await?, args.to.clone()),
        streams,
        dataset: args.dataset.clone(),
        into: args.into.clone(),
        prefers_streams: args.prefer == PreferArg::Stream,
    };
    let prices = config.lake.backend().needs_aws().then(Prices::built_in);
    let around = Surroundings {
        lake: &lake,
        sources: &sources,
        identities: &RawIdentities::new(Arc::clone(&lake)),
        definitions,
        now_ms: clock.now_ms(),
        commit_interval_s: config.worker.commit.interval.as_secs(),
        prices: prices.as_ref(),
    };
    let id = ReplayId::from_random(random_bytes()?);
    let mut plan = plan_replay(&around, &request, id).await.map_err(of_planning)?;
    let mut names = 0;
    while save_plan(&*lake, &plan).await? == Written::KeyTaken {
        names += 1;
        anyhow::ensure!(names < NAMES_MAX, "the plan could not be saved: every name that was tried is taken");
        plan.id = ReplayId::from_random(random_bytes()?);
    }
    if json {
        println!("{}", to_string(&plan)?);
    } else {
        print!("{}", text_of(&plan));
    }
    Ok(ExitCode::SUCCESS)
}

/// A beginning or an end, as it is written.
pub(crate) enum Word {
    Open,
    Time(i64),
    Checkpoint(CheckpointName),
}

impl Word {
    /// Reads the value of a flag: `checkpoint:NAME`, a time; `trim-horizon` with `--from`, and `now` with `--to`.
    pub(crate) fn parse(text: &str, flag: &str) -> anyhow::Result<Self> {
        let open = if flag == "--to" { "now" } else { "trim-horizon" };
        if text.to_ascii_lowercase().replace('_', "-") == open {
            return Ok(Word::Open);
        }
        if let Some(name) = text.strip_prefix("checkpoint:") {
            return Ok(Word::Checkpoint(CheckpointName::new(name).map_err(|error| Usage(error.to_string()))?));
        }
        parse_rfc3339_or_date(text).map(Word::Time).ok_or_else(|| {
            Usage(format!(
                "{flag} must be checkpoint:NAME, a time such as 2025-01-13T10:30:00Z, or {open}; not '{text}'"
            ))
            .into()
        })
    }

    /// The bound that it means in this lake.
    pub(crate) async fn bound(self, lake: &dyn ObjectStore) -> anyhow::Result<Bound> {
        Ok(match self {
            Word::Open => Bound::Open,
            Word::Time(ms) => Bound::Time(ms),
            Word::Checkpoint(name) => match get_checkpoint(lake, &name).await? {
                Some(checkpoint) => Bound::Checkpoint(Box::new(checkpoint)),
                None => {
                    let problem = format!("there is no checkpoint '{name}': `shardlake checkpoints list` shows them");
                    return Err(Usage(problem).into());
                }
            },
        })
    }
}

/// The plan as a text that fits a terminal.
fn text_of(plan: &Plan) -> String {
    let mut text = format!("plan {}: from {} to {}, at version {}\n", plan.id, plan.from, plan.to, plan.version);
    let totals = &plan.totals;
    text.push_str(&format!(
        "{} in {} ({}) are processed again\n\n",
        counted(totals.records, "record"),
        counted(plan.epochs.len() as u64, "epoch"),
        show_bytes(totals.bytes)
    ));
    text.push_str(&sources_of(plan).render("  "));
    let mut replaced = Table::new(&["replaced", ">rows now", ">objects"]);
    for (dataset, rows) in &totals.rows {
        let objects = plan.superseded.iter().filter(|object| object.dataset.as_ref() == Some(dataset)).count();
        replaced.row([dataset.clone(), show_count(*rows), show_count(objects as u64)]);
    }
    if totals.dead_letters > 0 {
        let objects = plan.superseded.iter().filter(|object| object.key.as_str().starts_with("error/")).count();
        replaced.row(["(dead letters)".to_owned(), show_count(totals.dead_letters), show_count(objects as u64)]);
    }
    text.push_str(&format!("\n{}", replaced.render("  ")));
    text.push_str(&format!("\n{}", definitions_of(plan).render("  ")));
    if !plan.widened.is_empty() {
        text.push_str(&format!("\n{}", widened_of(plan)));
    }
    if !plan.operations.is_empty() {
        text.push_str(&format!(
            "  {} of earlier replays are replaced with them\n",
            counted(plan.operations.len() as u64, "operation")
        ));
    }
    text.push_str(&format!("\n{}", estimate_of(plan)));
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&format!("\nnothing was changed. next: shardlake replay start {}\n", plan.id));
    text
}

/// Where the records are read.
fn sources_of(plan: &Plan) -> Table {
    let mut table = Table::new(&["read from", "what", ">records", ">size"]);
    let mut raw = (0, 0, 0);
    let mut streams = 0;
    let mut more = (0, 0);
    for slice in &plan.slices {
        match &slice.from {
            SliceOf::Stream { stream, shard, after, through } => {
                streams += 1;
                if streams > SHARDS_SHOWN {
                    more = (more.0 + slice.records, more.1 + slice.bytes);
                    continue;
                }
                let what = format!(
                    "{}: {} to {}",
                    shorten(shard.as_str(), 24),
                    shorten(&after.to_string(), 14),
                    shorten(&through.to_string(), 14)
                );
                let stream = format!("stream {}", shorten(stream.as_str(), 24));
                table.row([stream, what, show_count(slice.records), show_bytes(slice.bytes)]);
            }
            SliceOf::Raw { objects } => {
                raw = (raw.0 + slice.records, raw.1 + slice.bytes, raw.2 + objects.len() as u64);
            }
        }
    }
    if streams > SHARDS_SHOWN {
        let shards = counted((streams - SHARDS_SHOWN) as u64, "more range");
        table.row(["streams".to_owned(), shards, show_count(more.0), show_bytes(more.1)]);
    }
    if raw.2 > 0 {
        table.row(["raw/".to_owned(), counted(raw.2, "object"), show_count(raw.0), show_bytes(raw.1)]);
    }
    table
}

/// The definitions by which rows were made, and today's.
fn definitions_of(plan: &Plan) -> Table {
    let mut table = Table::new(&["definition", "made by", "today"]);
    let short = |hash: &str| hash.chars().take(8).collect::<String>();
    for dataset in plan.totals.rows.keys() {
        let made_by = plan.made_by.get(dataset).into_iter().flatten().map(|one| short(&one.hash));
        let made_by: Vec<String> = made_by.collect();
        let today = plan.definitions.get(dataset).map_or_else(|| "(none)".to_owned(), |one| short(&one.hash));
        let note = if made_by.iter().all(|hash| *hash == today) { " (the same)" } else { "" };
        table.row([dataset.clone(), made_by.join(", "), format!("{today}{note}")]);
    }
    table
}

fn widened_of(plan: &Plan) -> String {
    let mut counts: BTreeMap<WidenedBecause, (u64, u64)> = BTreeMap::new();
    for widened in &plan.widened {
        let count = counts.entry(widened.because).or_default();
        *count = (count.0 + 1, count.1 + widened.records);
    }
    let line = |(because, (epochs, records)): (&WidenedBecause, &(u64, u64))| {
        let why = match because {
            WidenedBecause::BeginsBefore => "begins before the range",
            WidenedBecause::EndsAfter => "ends after the range",
            WidenedBecause::OtherShards => "also has records that were not asked for",
            WidenedBecause::SharesObjects => "shares objects with one in the range, after an earlier replay",
        };
        format!("  {} ({}): {why}\n", counted(*epochs, "whole epoch"), counted(*records, "record"))
    };
    let lines: String = counts.iter().map(line).collect();
    format!("an epoch is replaced as a whole, so the range is wider than asked for:\n{lines}")
}

fn estimate_of(plan: &Plan) -> String {
    let estimate = &plan.estimate;
    let time = estimate.seconds.map_or_else(|| "unknown".to_owned(), show_seconds);
    let rate = estimate.bytes_per_second.map_or_else(String::new, |rate| {
        format!(" with one worker, at {} a second ({})", show_bytes(rate), estimate.rate_from)
    });
    let cost = estimate.dollars.map_or_else(String::new, |dollars| {
        format!(
            "cost: about {} US dollars for requests, and for keeping old and new objects for a week\n",
            show_usd(dollars)
        )
    });
    format!("time: about {time}{rate}\n{cost}")
}

/// Seconds for people.
pub(crate) fn show_seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{}.{} h", seconds / 3600, seconds % 3600 / 360),
    }
}
