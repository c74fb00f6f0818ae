//! `replay diff`: what a replay has made, compared with what it would replace.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args as ClapArgs;
use serde_json::json;

use crate::cli::args::LakeArgs;
use crate::cli::diff_output::{print_diff, thresholds};
use crate::cli::progress_bar::DiffBar;
use crate::cli::replay::of_plan;
use crate::cli::{Usage, load};
use crate::commit::lake_log::extent;
use crate::config::Overrides;
use crate::lake::{ObjectStore, Retrying};
use crate::replay::diff::{DiffOptions, Side, compare};
use crate::replay::{find_plan, is_complete, replay_lake_of};
use crate::retry::RetryPolicy;
use crate::setup::load_aws;
use crate::setup::replay::open_lake;

#[derive(Debug, ClapArgs)]
pub(crate) struct ReplayDiffArgs {
    /// The replay: its id, or the first digits of it
    pub(crate) plan: String,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    #[command(flatten)]
    pub(crate) diff: DiffArgs,
}

/// How to compare.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct DiffArgs {
    /// Number of examples of each kind of difference, and of each changed column
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) sample: usize,

    /// Exit with code 1 if there are more differences than this: dead-letters=+0, rows=-0, changed=1%, changed:DATASET.COLUMN=0,
    /// doubled=0; may be repeated
    #[arg(long, value_name = "WHAT=LIMIT", value_delimiter = ',')]
    pub(crate) fail_on: Vec<String>,

    /// Memory for the comparison [default: as configured for the worker, 512 MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,

    /// Threads that decode and compare [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

impl DiffArgs {
    /// The overrides of the configuration that these arguments are.
    pub(crate) fn overrides(&self, lake: &LakeArgs) -> Overrides {
        Overrides { memory: self.memory.clone(), threads: self.threads, ..lake.overrides() }
    }
}

pub(crate) async fn replay_diff(args: &ReplayDiffArgs, json: bool) -> anyhow::Result<ExitCode> {
    let thresholds = thresholds(&args.diff.fail_on)?;
    let config = load(&Overrides { without_leases: true, ..args.diff.overrides(&args.lake) })?.waiting_briefly();
    let aws = load_aws(&config).await?;
    let lake = open_lake(&config, aws.as_ref()).await?;
    let plan = find_plan(&*lake, &args.plan).await.map_err(of_plan)?;
    let aside: Arc<dyn ObjectStore> =
        Arc::new(Retrying::new(Arc::new(replay_lake_of(&lake, &plan)), RetryPolicy::NONE));
    let is_complete = is_complete(&*aside, &plan).await?;
    if !is_complete && extent(&*aside).await?.newest.is_empty() {
        let problem =
            format!("replay {} has made nothing yet: start it with `shardlake replay start {}`", plan.id, plan.id);
        return Err(Usage(problem).into());
    }
    let (old, new) = Side::of_replay(lake, aside, &plan).await?;
    let options = DiffOptions {
        memory: config.worker.limits.memory,
        threads: config.worker.limits.threads,
        samples: args.diff.sample,
        dataset: plan.dataset.clone(),
    };
    let bar = DiffBar::start();
    let diff = compare(old, new, &options, &|step| bar.add(step)).await?;
    drop(bar);
    let text = if is_complete {
        String::new()
    } else {
        "the replay has not read everything yet: what it has not read is missing on the new side\n\n".to_owned()
    };
    let head = json!({ "id": plan.id, "complete": is_complete });
    Ok(print_diff(&diff, &thresholds, (&text, head), json))
}
