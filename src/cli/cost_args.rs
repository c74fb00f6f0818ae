//! The arguments of `cost`. Their documentation is the text of `--help`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use crate::cli::args::LakeArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct CostArgs {
    #[command(flatten)]
    pub(crate) estimate: EstimateArgs,

    /// Review the lake instead: storage by area and class, what the lifecycle saved, requests of its epochs
    #[arg(long, conflicts_with_all = ["records_per_day", "bytes", "shards", "phase", "provisioned", "on_demand"])]
    pub(crate) monthly_review: bool,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// Read a report of S3 Inventory instead of listing the lake: its manifest.json, or a CSV file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: Vec<PathBuf>,

    /// The columns of a CSV file of S3 Inventory, as fileSchema in its manifest.json has them
    #[arg(long, value_name = "NAMES", requires = "inventory")]
    pub(crate) inventory_schema: Option<String>,

    /// Count the requests of the epochs of this many days
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,

    /// A table of prices whose rows replace those that are built in
    #[arg(long, value_name = "FILE")]
    pub(crate) prices: Option<PathBuf>,

    /// Print the table of prices that is built in, to start your own from
    #[arg(long)]
    pub(crate) print_prices: bool,

    /// Charge the units that every account has free each month
    #[arg(long)]
    pub(crate) no_free_tier: bool,
}

/// How much data there is, and what runs for it.
#[derive(Debug, ClapArgs)]
pub(crate) struct EstimateArgs {
    /// Records a day
    #[arg(long, value_name = "N")]
    pub(crate) records_per_day: Option<u64>,

    /// Mean size of a record, such as 1200 or 2KB
    #[arg(long, value_name = "SIZE")]
    pub(crate) bytes: Option<String>,

    /// Shards of the stream [default: enough for three times the mean]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u32>,

    /// The stream is paid by the shard and hour (the default)
    #[arg(long, conflicts_with = "on_demand")]
    pub(crate) provisioned: bool,

    /// The stream is paid by the GB
    #[arg(long)]
    pub(crate) on_demand: bool,

    /// A phase of growth instead of figures of your own; other flags change it
    #[arg(long, value_enum, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseArg>,

    /// Workers read with enhanced fan-out
    #[arg(long)]
    pub(crate) fan_out: bool,

    /// Tasks that run all the time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: u32,

    /// Each task has an EC2 instance of its own, instead of Fargate
    #[arg(long, conflicts_with_all = ["vcpu", "memory_gb"])]
    pub(crate) ec2: bool,

    /// vCPUs of a task
    #[arg(long, value_name = "N", default_value_t = 0.5)]
    pub(crate) vcpu: f64,

    /// GB of memory of a task
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub(crate) memory_gb: f64,

    /// Tasks are behind a NAT gateway, and have no public addresses
    #[arg(long)]
    pub(crate) nat: bool,

    /// Time between two commits
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub(crate) commit_interval: String,

    /// Partitions that the rows of one commit may belong to
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) partitions: u32,

    /// Which month after the start: what is stored grows
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) month: u32,

    /// TB that Athena scans in a month
    #[arg(long, value_name = "N")]
    pub(crate) athena_tb: Option<f64>,

    /// A Glue crawler runs every day
    #[arg(long)]
    pub(crate) crawler: bool,

    /// Authors of QuickSight
    #[arg(long, value_name = "N")]
    pub(crate) quicksight_authors: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PhaseArg {
    #[value(name = "1")]
    First = 1,
    #[value(name = "2")]
    Second = 2,
    #[value(name = "3")]
    Third = 3,
    #[value(name = "4")]
    Fourth = 4,
    All = 5,
}
