//! The arguments of every command. Their documentation is the text of `--help`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::cli::cost_args::CostArgs;
use crate::cli::dead_letter_args::DeadLettersArgs;
use crate::cli::doctor::DoctorArgs;
use crate::cli::find::FindArgs;
use crate::cli::graph::GraphArgs;
use crate::cli::health::HealthArgs;
use crate::cli::manual::{CompletionsArgs, ManArgs};
use crate::cli::replay_args::ReplayArgs;
use crate::cli::show_args::{LogArgs, StatusArgs, VerifyArgs};
use crate::cli::whatif::WhatIfArgs;
use crate::config::Overrides;

/// What `--version` prints.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (build ", env!("SHARDLAKE_BUILD_ID"), ")");

/// Read JSON records from Kinesis streams or files into a data lake, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "shardlake", version = VERSION, about, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Format of the logs on stderr; RUST_LOG sets their levels by target [default level: warn]
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Format of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the worker: read sources into the lake
    Run(RunArgs),
    /// Generate realistic sample records
    Produce(ProduceArgs),
    /// Print the stage graph
    Graph(GraphArgs),
    /// Print a dataset's schema, or write all tables into a CloudFormation template
    Schema(SchemaArgs),
    /// Print a manifest by which QuickSight reads the lake's JSON or CSV files
    Manifest(ManifestArgs),
    /// Estimate what a pipeline costs on AWS, or review what a lake's storage costs
    Cost(Box<CostArgs>),
    /// Print the metrics and alerts: as documentation, as a dashboard of Grafana, as rules of Prometheus or for CloudFormation
    Metrics(MetricsArgs),
    /// Audit the lake against its commit records
    Verify(VerifyArgs),
    /// Show shards, owners, checkpoints, lag, and record counts along the stage graph
    Status(StatusArgs),
    /// Find a record: its row, dead letter and raw line, or why it is not in the lake; exit code 1 if it is not found
    Find(Box<FindArgs>),
    /// Show the versions of the lake: what changed it, when, and what was added and removed
    Log(LogArgs),
    /// Process a part of the past again, with today's definitions, beside the live workers
    Replay(Box<ReplayArgs>),
    /// Try a definition: make the past again by it in a folder of this machine, and compare that with the lake; changes nothing
    #[command(name = "whatif")]
    WhatIf(Box<WhatIfArgs>),
    /// Remove uploads and intents of epochs that were never committed
    Sweep(SweepArgs),
    /// List, show, redrive and discard dead letters: records that failed
    #[command(name = "deadletters")]
    DeadLetters(DeadLettersArgs),
    /// List the positions of all shards, and save them under names
    Checkpoints(CheckpointsArgs),
    /// Show who holds which shard, and release or evict a lease
    Leases(LeasesArgs),
    /// List what was lost in sources, and decide about files that changed in an unclear way
    Losses(LossesArgs),
    /// Ask a worker whether it is alive, for the health check of a container; exit code 1 if it is not
    Health(HealthArgs),
    /// Print what a shell needs to complete commands and flags
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
    /// Examine everything that a fleet needs, and say what to do; exit code 1 for warnings, 3 if something hurts now
    Doctor(DoctorArgs),
    /// Check the configuration and the permissions
    Config(ConfigArgs),
    /// Create the streams, the table and the bucket of a development stack, unless they exist
    Init(InitArgs),
}

/// What `metrics` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricsFormat {
    /// Tables in Markdown
    Docs,
    /// A dashboard of Grafana, in JSON
    Grafana,
    /// Alert rules of Prometheus, in YAML
    PrometheusRules,
    /// Alarms and a dashboard of CloudWatch, in YAML
    Cloudwatch,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MetricsArgs {
    /// What to print
    #[arg(long, value_enum, default_value_t = MetricsFormat::Docs)]
    pub(crate) format: MetricsFormat,

    /// Divide the times of the alerts by this, to try them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), hide = true)]
    pub(crate) faster: u32,
}

/// Which lake, and which checkpoints.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct LakeArgs {
    /// Configuration file [default: shardlake.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The lake: a directory, or s3://BUCKET[/PREFIX] [default: lake, or shardlake-demo/lake]
    #[arg(long, value_name = "URL")]
    pub(crate) lake: Option<String>,

    /// The lease table: sqlite://PATH, dynamodb://TABLE or dynamodb://ARN [default: _checkpoints.db in a local lake]
    #[arg(long, value_name = "URL")]
    pub(crate) checkpoints: Option<String>,
}

impl LakeArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            lake: self.lake.clone(),
            checkpoints: self.checkpoints.clone(),
            ..Overrides::default()
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// kinesis://STREAM, kinesis://ARN, or a file or directory of records; may be repeated [default: generated sample records]
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// Exit once what was there at the start has been read and committed
    #[arg(long)]
    pub(crate) until_caught_up: bool,

    /// Exit with code 1 if there are dead letters, or if something in the sources was not read; may be repeated
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    pub(crate) fail_on: Vec<FailOn>,

    /// Compression of the raw landing, or off: gzip, zstd, off [default: gzip]
    #[arg(long, value_name = "CODEC")]
    pub(crate) raw: Option<String>,

    /// Memory for records and rows [default: 512 MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,

    /// Threads that decode and encode [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,

    /// Time between two commits [default: 5m]
    #[arg(long, value_name = "TIME")]
    pub(crate) commit_interval: Option<String>,

    /// Where the status page, metrics and health checks are served, or off [default: 127.0.0.1:8470, or a free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// At the end, print names of keys of maps that no allow list has; a key may be a personal value
    #[arg(long)]
    pub(crate) show_denied_keys: bool,

    /// Continue from checkpoints of another lake; what was read so far is in that lake only
    #[arg(long)]
    pub(crate) new_lake: bool,

    /// Read everything again of which the lake has records and the lease table has no position; every record may land twice
    #[arg(long)]
    pub(crate) new_checkpoints: bool,

    /// Accept definitions by which columns mean something else than in the lake's files; once is enough for a lake
    #[arg(long)]
    pub(crate) accept_changes: bool,
}

/// What makes a run fail that has otherwise succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Records that became dead letters
    DeadLetters,
    /// Files whose names are not read, and content that is not complete
    Unread,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProduceArgs {
    /// kinesis://STREAM, a file, a directory (with --files files), or - for standard output
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,

    /// Number of records
    #[arg(long, default_value_t = 100_000)]
    pub(crate) count: u64,

    /// The same seed gives the same records
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Fraction of bad records, 0 to 1
    #[arg(long, default_value_t = 0.005)]
    pub(crate) bad_ratio: f64,

    /// Dataset of the records
    #[arg(long, value_enum, default_value_t = ProduceKind::Mixed)]
    pub(crate) kind: ProduceKind,

    /// Time of the first event
    #[arg(long, value_name = "RFC3339", default_value = "2025-01-13T00:00:00Z")]
    pub(crate) start: String,

    /// Number of days that the events are spread over
    #[arg(long, default_value_t = 3)]
    pub(crate) days: u32,

    /// Number of files in a directory
    #[arg(long, default_value_t = 1)]
    pub(crate) files: u32,

    /// Maximum number of records per second
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProduceKind {
    Events,
    Assessments,
    Users,
    Mixed,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SchemaArgs {
    /// The dataset; --format cloudformation has all
    pub(crate) dataset: Option<String>,

    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// Output format
    #[arg(long, value_enum, default_value_t = SchemaFormatArg::Athena)]
    pub(crate) format: SchemaFormatArg,

    /// Show how the definition differs from what the lake's files were written with; exit code 1 if the lake refuses it
    #[arg(long, conflicts_with = "format")]
    pub(crate) diff: bool,

    /// With --format cloudformation: write the tables into the generated part of this template
    #[arg(long, value_name = "FILE")]
    pub(crate) into: Option<PathBuf>,

    /// Write nothing; exit code 1 if the template is stale
    #[arg(long, requires = "into")]
    pub(crate) check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaFormatArg {
    Athena,
    Glue,
    JsonSchema,
    Arrow,
    Cloudformation,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// Minimum age of what is removed, unless its worker is known to have ended
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) older_than: String,

    /// Count only, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckpointsArgs {
    #[command(subcommand)]
    pub(crate) command: CheckpointsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointsCommand {
    /// Show the position of every shard, and the saved checkpoints
    List {
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Save the positions of all shards under a name
    Save {
        /// The name
        name: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Show the positions that were saved under a name
    Show {
        /// The name
        name: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Delete a saved checkpoint
    Delete {
        /// The name
        name: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LeasesArgs {
    #[command(subcommand)]
    pub(crate) command: LeasesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeasesCommand {
    /// Show all leases with their holders and states, gaps and orphans; exit code 1 if something is wrong
    List {
        #[command(flatten)]
        lake: LakeArgs,
        /// Time to watch the lease counters, to see which workers are alive
        #[arg(long, value_name = "TIME", default_value = "4s")]
        watch: String,
    },
    /// Make lost rows again, at the positions that the commit records of the lake prove; stop all workers first
    Rebuild {
        #[command(flatten)]
        lake: LakeArgs,
        /// A source, for the hash ranges of its shards; may be repeated
        #[arg(long, value_name = "URL")]
        source: Vec<String>,
    },
    /// Explain one lease
    Inspect {
        /// Shard, or STREAM/SHARD
        shard: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Ask the holder to commit and release the lease; any worker may then take it
    Release {
        /// Shard, or STREAM/SHARD
        shard: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Take the lease from its holder, dead or alive; records that it had not committed are read again
    Evict {
        /// Shard, or STREAM/SHARD
        shard: String,
        #[command(flatten)]
        lake: LakeArgs,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LossesArgs {
    #[command(subcommand)]
    pub(crate) command: LossesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LossesCommand {
    /// Show all losses; exit code 1 if one is not accepted
    List {
        #[command(flatten)]
        lake: LakeArgs,
    },
    /// Accept a loss, so that `verify` does not report it any more
    Accept {
        /// Shard, or STREAM/SHARD
        shard: String,
        /// What a file is now that was cut: read it from its start as a new file, or continue at the position
        #[arg(long, value_enum)]
        then: Option<ThenArg>,
        #[command(flatten)]
        lake: LakeArgs,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ThenArg {
    Start,
    Position,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the effective configuration, test the permissions, and compare definitions, lease table and streams with the lake;
    /// exit code 2 if a permission is missing or a worker would refuse to start
    Check {
        #[command(flatten)]
        lake: LakeArgs,

        /// A source; may be repeated
        #[arg(long, value_name = "URL")]
        source: Vec<String>,

        /// Call no service
        #[arg(long)]
        offline: bool,
    },
    /// Print every key of the configuration file, with its values, its default and its meaning
    Keys,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// A source; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// Number of shards of a new stream; 0 for on-demand capacity
    #[arg(long, default_value_t = 4)]
    pub(crate) shards: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManifestArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// Which files: summaries (CSV), dead letters or records as received (JSON lines)
    #[arg(long, value_enum, default_value_t = ManifestAreaArg::Analytics)]
    pub(crate) area: ManifestAreaArg,

    /// Only this dataset, with --area raw
    #[arg(long, value_name = "DATASET")]
    pub(crate) dataset: Option<String>,

    /// Only files that arrived on this day or later: the manifest then names each file
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<String>,

    /// Only files that arrived on this day or earlier
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestAreaArg {
    Analytics,
    Error,
    Raw,
    Processed,
}
