//! `replay`: a part of the past is processed again.
//!
//! Owns: which subcommand does what, and the commands that only ask something of a replay. Does not own: planning (`replay_plan`), running
//! (`replay_start`), what they do (`replay`).

use std::process::ExitCode;
use std::sync::Arc;

use checkpoints::LeaseStore;
use serde_json::{json, to_value};

use crate::aws::Aws;
use crate::cli::args::LakeArgs;
use crate::cli::output::{Table, counted, show_bytes, show_count};
use crate::cli::replay_args::{ReplayArgs, ReplayCommand};
use crate::cli::{Usage, load, replay_diff, replay_plan, replay_promote, replay_start};
use crate::clock::{Clock, SharedClock, SystemClock};
use crate::config::Config;
use crate::lake::{ObjectStore, Retrying};
use crate::replay::control::{Control, ControlError, ask};
use crate::replay::end::end_and_remove;
use crate::replay::planning::PlanningError;
use crate::replay::run::RunError;
use crate::replay::status::{Evidence, ReplayStatus, State, status_of};
use crate::replay::{Plan, PlanError, SavedPlan, find_plan, list_plans, replay_lake_of};
use crate::retry::RetryPolicy;
use crate::setup::replay::{open_for_ending, open_lake};
use crate::setup::{OpenError, load_aws, open_existing_leases};

pub(crate) async fn replay(args: ReplayArgs, json: bool) -> anyhow::Result<ExitCode> {
    match args.command {
        ReplayCommand::Plan(args) => replay_plan::plan(&args, json).await,
        ReplayCommand::Start(args) => replay_start::start(&args, json).await,
        ReplayCommand::Diff(args) => replay_diff::replay_diff(&args, json).await,
        ReplayCommand::List { lake } => list(&lake, json).await,
        ReplayCommand::Status { id, lake } => status(&lake, &id, json).await,
        ReplayCommand::Pause { id, lake } => request(&lake, &id, Control::Pause, json).await,
        ReplayCommand::Resume { id, lake } => request(&lake, &id, Control::Resume, json).await,
        ReplayCommand::Promote(args) => replay_promote::promote(&args, json).await,
        ReplayCommand::Undo(args) => replay_promote::undo(&args, json).await,
        ReplayCommand::Purge(args) => replay_promote::purge(&args, json).await,
        ReplayCommand::Cancel { id, dry_run, lake } => cancel(&lake, &id, dry_run, json).await,
    }
}

/// What the commands open that only look at a replay.
pub(crate) struct Place {
    pub(crate) config: Config,
    pub(crate) aws: Option<Aws>,
    pub(crate) lake: Arc<dyn ObjectStore>,
}

/// Opens the lake of a configuration.
pub(crate) async fn open_place(args: &LakeArgs) -> anyhow::Result<Place> {
    let config = load(&args.overrides())?.waiting_briefly();
    let aws = load_aws(&config).await?;
    let lake = open_lake(&config, aws.as_ref()).await?;
    Ok(Place { config, aws, lake })
}

impl Place {
    /// The plan whose id begins with a text.
    pub(crate) async fn plan(&self, text: &str) -> anyhow::Result<Plan> {
        find_plan(&*self.lake, text).await.map_err(of_plan)
    }

    /// The lease table; `None` if there is none.
    async fn leases(&self) -> anyhow::Result<Option<Arc<dyn LeaseStore>>> {
        match open_existing_leases(&self.config, self.aws.as_ref()).await {
            Ok(leases) => Ok(Some(leases)),
            Err(OpenError::NoLeases { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn status(&self, plan: &Plan, leases: Option<&dyn LeaseStore>) -> anyhow::Result<ReplayStatus> {
        let aside = Retrying::new(Arc::new(replay_lake_of(&self.lake, plan)), RetryPolicy::NONE);
        status_of(&*self.lake, &aside, leases, plan, Evidence::Log).await.map_err(of_run)
    }
}

/// An id that is not there is a mistake of the caller.
pub(crate) fn of_plan(error: PlanError) -> anyhow::Error {
    if error.is_usage() { Usage(error.to_string()).into() } else { error.into() }
}

/// A range that cannot be replayed is a mistake of the caller, and nothing was touched.
pub(crate) fn of_planning(error: PlanningError) -> anyhow::Error {
    if error.is_usage() { Usage(error.to_string()).into() } else { error.into() }
}

/// A replay that may not run is a mistake of the caller.
pub(crate) fn of_run(error: RunError) -> anyhow::Error {
    if error.is_usage() { Usage(error.to_string()).into() } else { error.into() }
}

async fn list(args: &LakeArgs, json: bool) -> anyhow::Result<ExitCode> {
    let place = open_place(args).await?;
    let (plans, unreadable) = list_plans(&*place.lake).await?;
    let leases = place.leases().await?;
    let mut states = Vec::new();
    for SavedPlan { plan, .. } in &plans {
        states.push(place.status(plan, leases.as_deref()).await?);
    }
    let code = ExitCode::from(u8::from(!unreadable.is_empty()));
    if json {
        let unreadable: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        println!("{}", json!({ "replays": states, "unreadable": unreadable }));
        return Ok(code);
    }
    if states.is_empty() {
        println!("no replays");
    } else {
        print!("{}", table_of(&states).render(""));
    }
    for error in unreadable {
        println!("{error}");
    }
    Ok(code)
}

fn table_of(states: &[ReplayStatus]) -> Table {
    let mut table = Table::new(&["replay", "state", "planned", "from", "to", ">records", ">done"]);
    for status in states {
        table.row([
            status.id.to_string(),
            status.state.as_str().to_owned(),
            status.made_at.get(..16).unwrap_or(&status.made_at).replace('T', " "),
            status.from.clone(),
            status.to.clone(),
            show_count(status.records),
            percent(status.records_done, status.records),
        ]);
    }
    table
}

/// A part of a whole, for people.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let percent = part.saturating_mul(100).checked_div(whole).unwrap_or(100).min(100);
    format!("{percent} %")
}

async fn status(args: &LakeArgs, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let place = open_place(args).await?;
    let plan = place.plan(id).await?;
    let leases = place.leases().await?;
    let status = place.status(&plan, leases.as_deref()).await?;
    if json {
        let mut value = to_value(&status)?;
        value["plan"] = to_value(&plan)?;
        println!("{value}");
        return Ok(code_of(&status));
    }
    println!("replay {} is {}", status.id, status.state.as_str());
    println!(
        "range: from {} to {}, planned at {} for version {}",
        status.from, status.to, status.made_at, status.version
    );
    println!(
        "done: {} of {} records ({}), {} of {}, {} of {} slices",
        show_count(status.records_done),
        show_count(status.records),
        percent(status.records_done, status.records),
        show_bytes(status.bytes_done),
        show_bytes(status.bytes),
        status.slices_done,
        status.slices
    );
    if !status.workers.is_empty() {
        let names: Vec<String> = status.workers.iter().map(|owner| owner.as_str().chars().take(8).collect()).collect();
        println!("workers: {}", names.join(", "));
    }
    let mut rows = Table::new(&["dataset", ">rows"]);
    for (dataset, count) in &status.rows {
        rows.row([dataset.clone(), show_count(*count)]);
    }
    if status.dead_letters > 0 {
        rows.row(["(dead letters)".to_owned(), show_count(status.dead_letters)]);
    }
    if !rows.is_empty() {
        print!("\n{}", rows.render("  "));
    }
    for short in &status.short {
        println!("missing: {} has {} of {} records", short.slice, show_count(short.found), show_count(short.expected));
    }
    println!("\n{}", next_step(&status));
    Ok(code_of(&status))
}

fn code_of(status: &ReplayStatus) -> ExitCode {
    ExitCode::from(u8::from(!status.short.is_empty()))
}

/// What to do with a replay in its state.
fn next_step(status: &ReplayStatus) -> String {
    let id = &status.id;
    match status.state {
        State::Planned => format!("next: shardlake replay start {id}"),
        State::Running => format!("to stop it for a while: shardlake replay pause {id}"),
        State::Stopped => format!("next: shardlake replay start {id}, which continues"),
        State::Paused => format!("next: shardlake replay resume {id}"),
        State::Complete => format!("next: shardlake replay diff {id}, then shardlake replay promote {id}"),
        State::Promoted => format!("to take it back: shardlake replay undo {id}"),
        State::Cancelled | State::Undone | State::Purged => "it has ended".to_owned(),
    }
}

async fn request(args: &LakeArgs, id: &str, control: Control, json: bool) -> anyhow::Result<ExitCode> {
    let place = open_place(args).await?;
    let plan = place.plan(id).await?;
    ask(&*place.lake, &plan.id, control, SystemClock.now_ms()).await.map_err(of_control)?;
    let done = if control == Control::Pause { "paused" } else { "resumed" };
    if json {
        println!("{}", json!({ "id": plan.id, "asked": done }));
    } else {
        println!("{done} replay {}: its workers notice within seconds", plan.id);
    }
    Ok(ExitCode::SUCCESS)
}

fn of_control(error: ControlError) -> anyhow::Error {
    match error {
        error @ ControlError::Cancelled(_) => Usage(error.to_string()).into(),
        error => error.into(),
    }
}

async fn cancel(args: &LakeArgs, id: &str, dry_run: bool, json: bool) -> anyhow::Result<ExitCode> {
    let place = open_place(args).await?;
    let plan = place.plan(id).await?;
    let leases = place.leases().await?;
    let status = place.status(&plan, leases.as_deref()).await?;
    if matches!(status.state, State::Promoted) {
        return Err(Usage(format!("replay {} was promoted: take it back with `shardlake replay undo`", plan.id)).into());
    }
    if dry_run {
        let objects = replay_lake_of(&place.lake, &plan).list("").await?;
        let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
        let count = objects.len() as u64;
        if json {
            println!("{}", json!({ "id": plan.id, "dry_run": true, "objects": count, "bytes": bytes }));
        } else {
            println!(
                "would cancel replay {}, and remove {} ({})",
                plan.id,
                counted(count, "object"),
                show_bytes(bytes)
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    if leases.is_some() {
        replay_promote::cancel(args, id).await?;
    } else {
        // Without a lease table nobody has run or promoted anything.
        ask(&*place.lake, &plan.id, Control::Cancel, SystemClock.now_ms()).await.map_err(of_control)?;
    }
    let clock: SharedClock = Arc::new(SystemClock);
    let Place { config, aws, .. } = place;
    let job = open_for_ending(config, plan, &clock, aws.as_ref()).await?;
    let removed = end_and_remove(&job).await.map_err(of_run)?;
    if json {
        println!("{}", json!({ "id": job.plan.id, "removed": removed }));
    } else {
        println!(
            "cancelled replay {}; removed {}, {} and {}",
            job.plan.id,
            counted(removed.leases, "lease"),
            counted(removed.uploads, "upload"),
            counted(removed.objects, "object")
        );
    }
    Ok(ExitCode::SUCCESS)
}
