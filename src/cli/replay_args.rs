//! The arguments of `replay`. Their documentation is the text of `--help`.

use clap::{Args as ClapArgs, Subcommand};

use crate::cli::args::LakeArgs;
use crate::cli::replay_diff::ReplayDiffArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct ReplayArgs {
    #[command(subcommand)]
    pub(crate) command: ReplayCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReplayCommand {
    /// Plan a replay: what is read again and from where, what it replaces, how long it takes; changes nothing in the data
    Plan(PlanArgs),
    /// Run a planned replay beside the live workers; the same command on more machines makes it faster
    Start(StartArgs),
    /// Compare what a replay has made with what it would replace, row by row
    Diff(ReplayDiffArgs),
    /// Show all replays and their states
    List {
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Show how far a replay is, and who works on it
    Status {
        /// The replay, or the beginning of its id
        id: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Stop the workers of a replay, wherever they are; they commit what they have read
    Pause {
        /// The replay, or the beginning of its id
        id: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Let a paused replay continue
    Resume {
        /// The replay, or the beginning of its id
        id: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Put what a complete replay has made in the place of what it replaces, as one change of the lake
    Promote(PromoteArgs),
    /// Take a promoted replay back, as one change of the lake; possible until it is purged
    Undo(UndoArgs),
    /// Remove what a replay has made aside and what it has replaced; then it cannot be undone
    Purge(PurgeArgs),
    /// End a replay permanently, and remove its leases and what it has written
    Cancel {
        /// The replay, or the beginning of its id
        id: String,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        lake: LakeArgs,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PromoteArgs {
    /// The replay, or the beginning of its id
    pub(crate) id: String,

    /// What readers who list folders see while a folder is swapped: rows twice (add-first), or not at all (remove-first)
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = OrderArg::AddFirst)]
    pub(crate) order: OrderArg,

    /// Promote although the replay has read another number of records than the epochs had
    #[arg(long)]
    pub(crate) accept_difference: bool,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UndoArgs {
    /// The replay, or the beginning of its id
    pub(crate) id: String,

    /// What readers who list folders see while a folder is swapped: rows twice (add-first), or not at all (remove-first)
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = OrderArg::AddFirst)]
    pub(crate) order: OrderArg,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OrderArg {
    AddFirst,
    RemoveFirst,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PurgeArgs {
    /// The replay, or the beginning of its id
    pub(crate) id: String,

    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// Where the range begins: checkpoint:NAME, a time (2025-01-13T10:30:00Z, or 2025-01-13), or trim-horizon
    #[arg(long, value_name = "WHERE")]
    pub(crate) from: String,

    /// Where the range ends: checkpoint:NAME, a time, or now
    #[arg(long, value_name = "WHERE", default_value = "now")]
    pub(crate) to: String,

    /// Replace only epochs that have rows of this dataset, or dead letters
    #[arg(long, value_name = "DATASET")]
    pub(crate) dataset: Option<String>,

    /// Only this stream; may be repeated [default: all streams of the lake]
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Vec<String>,

    /// A source, by which a stream is read again; may be repeated [default: those of the configuration]
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// Where both have the records: read raw/, which takes nothing from the live workers, or the stream
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = PreferArg::Raw)]
    pub(crate) prefer: PreferArg,

    /// Where the replay lands until it is promoted: a prefix of the lake, such as reprocessed/2025/ [default: _replays/ID/lake/]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) into: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PreferArg {
    Raw,
    Stream,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StartArgs {
    /// The replay, or the beginning of its id
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// A source, by which a stream is read again; may be repeated [default: those of the configuration]
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// Workers in this process, which share its memory and threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: usize,

    /// The most megabytes of records a second that this process reads [default: as fast as it can]
    #[arg(long, value_name = "MB/S")]
    pub(crate) rate: Option<f64>,

    /// Where the status page of the replay is served, or off [default: 127.0.0.1:8470, or a free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
}
