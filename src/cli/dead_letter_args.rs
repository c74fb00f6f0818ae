//! The arguments of `deadletters`. Their documentation is the text of `--help`.

use clap::{Args as ClapArgs, Subcommand};

use crate::cli::args::{FailOn, LakeArgs};
use crate::cli::show_args::AtArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    pub(crate) command: DeadLettersCommand,
}

/// Which dead letters.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct FilterArgs {
    /// Only dead letters with this code; may be repeated, or a list with commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) code: Vec<String>,

    /// Only records that arrived at this time or later (2025-01-13T10:30:00Z, or 2025-01-13)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Only records that arrived before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// Only dead letters of this dataset
    #[arg(long)]
    pub(crate) dataset: Option<String>,

    /// Only dead letters of this stream, by its name in the lake
    #[arg(long)]
    pub(crate) stream: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Count dead letters by code and day of arrival
    List {
        #[command(flatten)]
        lake: LakeArgs,
        /// Only dead letters with this code
        #[arg(long)]
        code: Option<String>,
        #[command(flatten)]
        at: AtArgs,
    },
    /// Print dead letters as JSON lines
    Show {
        #[command(flatten)]
        lake: LakeArgs,
        #[command(flatten)]
        filter: FilterArgs,
        /// Maximum number of dead letters
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// Include the bytes of the records (base64), which may contain personal data
        #[arg(long)]
        raw: bool,
    },
    /// Process dead letters again, by the definitions of now: what succeeds becomes rows, what fails again stays
    Redrive {
        #[command(flatten)]
        lake: LakeArgs,
        #[command(flatten)]
        filter: FilterArgs,
        /// Read Firehose's error objects instead, from s3://BUCKET/PREFIX or a folder, each once
        #[arg(long, value_name = "URL", conflicts_with_all = ["code", "since", "until", "dataset", "stream", "dry_run"])]
        from: Option<String>,
        /// Count only, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Exit with code 1 if something became a dead letter again
        #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
        fail_on: Vec<FailOn>,
    },
    /// Remove dead letters from the lake; they stay in the trash until a sweep purges it
    Discard {
        #[command(flatten)]
        lake: LakeArgs,
        #[command(flatten)]
        filter: FilterArgs,
        /// All dead letters; otherwise name at least one of --code, --since, --until, --dataset and --stream
        #[arg(long)]
        all: bool,
        /// Count only, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}
