//! The arguments of the commands that show a lake: `status`, `log` and `verify`. Their documentation is the text of
//! `--help`.

use clap::{Args as ClapArgs, Subcommand};

use crate::cli::args::LakeArgs;

/// Which state of the lake.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct AtArgs {
    /// Show the lake as it was at this version of `shardlake log`, or at this time (2025-01-13T10:30:00Z, or 2025-01-13)
    #[arg(long, value_name = "VERSION|TIME")]
    pub(crate) at: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    #[command(flatten)]
    pub(crate) at: AtArgs,

    /// Show it as a page that is read again every so often, until Ctrl-C
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", require_equals = true, conflicts_with = "at")]
    pub(crate) watch: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LogCommand>,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// Number of versions, the newest first
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,

    /// Only versions from this one on, or from this time on
    #[arg(long, value_name = "VERSION|TIME")]
    pub(crate) since: Option<String>,

    /// Only versions up to this one, or up to this time
    #[arg(long, value_name = "VERSION|TIME")]
    pub(crate) until: Option<String>,

    /// Only versions that changed this dataset
    #[arg(long, value_name = "DATASET")]
    pub(crate) dataset: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show one version whole: the ranges that were read, and its objects by partition
    Show {
        /// The version
        version: u64,
        #[command(flatten)]
        lake: LakeArgs,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// Check the chains of commits against the leases, but not the objects
    #[arg(long, conflicts_with = "at")]
    pub(crate) quick: bool,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}
