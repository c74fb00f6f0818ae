//! The arguments of every command.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::config::Overrides;

/// What `--version` prints.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (build ", env!("SHARDLAKE_BUILD_ID"), ")");

/// Kinesis records into a data lake, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "shardlake", version = VERSION, about, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// How logs look on stderr (what is logged: RUST_LOG, default warn)
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read sources into the lake: the worker
    Run(RunArgs),
    /// Make realistic sample records
    Produce(ProduceArgs),
    /// Print the stage graph
    Graph(GraphArgs),
    /// Print a dataset's schema
    Schema(SchemaArgs),
    /// Audit the lake against its commit records
    Verify(Place),
    /// Show shards, owners, checkpoints, lag, and what has passed through the graph
    Status(Place),
    /// Remove what epochs that never happened left behind
    Sweep(SweepArgs),
    /// Look at records that were set aside
    Deadletters(DeadlettersArgs),
    /// Look at positions, and save them under names
    Checkpoints(CheckpointsArgs),
    /// Look at who holds which shard, and let go of a lease by hand
    Leases(LeasesArgs),
    /// Look at the configuration as it is understood
    Config(ConfigArgs),
    /// Make what a development stack needs and has not: streams, table, bucket
    Init(InitArgs),
}

/// Which lake.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Place {
    /// Configuration file [default: shardlake.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The lake: a folder, or s3://BUCKET/PREFIX [default: lake, or shardlake-demo/lake]
    #[arg(long, value_name = "URL")]
    pub(crate) lake: Option<String>,

    /// Where checkpoints are kept: sqlite://PATH or dynamodb://TABLE [default: _checkpoints.db in a local lake]
    #[arg(long, value_name = "URL")]
    pub(crate) checkpoints: Option<String>,
}

impl Place {
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
    pub(crate) place: Place,

    /// kinesis://STREAM, or a file or folder of records; may be repeated [default: sample records, made on the spot]
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// End once every shard has been read to its tip and committed
    #[arg(long)]
    pub(crate) until_caught_up: bool,

    /// Raw landing: off, gzip or zstd [default: gzip]
    #[arg(long, value_name = "CODEC")]
    pub(crate) raw: Option<String>,

    /// Memory for records and rows [default: 512 MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,

    /// Threads that decode and encode [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,

    /// How often what was read is committed [default: 5m]
    #[arg(long, value_name = "TIME")]
    pub(crate) commit_interval: Option<String>,

    /// Go on from checkpoints of another lake: what was read until then stays in that one
    #[arg(long)]
    pub(crate) new_lake: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProduceArgs {
    /// kinesis://STREAM, a file, a folder (one file of lines for each --files), or - for standard output
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,

    /// How many records
    #[arg(long, default_value_t = 100_000)]
    pub(crate) count: u64,

    /// The same seed gives the same records
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// The part of records that are bad, 0 to 1
    #[arg(long, default_value_t = 0.005)]
    pub(crate) bad_ratio: f64,

    /// Which records
    #[arg(long, value_enum, default_value_t = ProduceKind::Mixed)]
    pub(crate) kind: ProduceKind,

    /// Time of the first event
    #[arg(long, value_name = "RFC3339", default_value = "2025-01-13T00:00:00Z")]
    pub(crate) start: String,

    /// Over how many days the events are spread
    #[arg(long, default_value_t = 3)]
    pub(crate) days: u32,

    /// Into a folder: how many files
    #[arg(long, default_value_t = 1)]
    pub(crate) files: u32,

    /// Records a second at most
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
pub(crate) struct GraphArgs {
    /// Configuration file [default: shardlake.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// A file or folder of records; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    pub(crate) format: GraphFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    Text,
    Mermaid,
    Dot,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SchemaArgs {
    /// The dataset
    pub(crate) dataset: String,

    #[command(flatten)]
    pub(crate) place: Place,

    #[arg(long, value_enum, default_value_t = SchemaFormatArg::Athena)]
    pub(crate) format: SchemaFormatArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaFormatArg {
    Athena,
    Glue,
    JsonSchema,
    Arrow,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) place: Place,

    /// Age from which leftovers of workers that may still live are removed
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) older_than: String,

    /// Only count
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DeadlettersArgs {
    #[command(subcommand)]
    pub(crate) command: DeadlettersCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadlettersCommand {
    /// How many there are, by code and day
    List {
        #[command(flatten)]
        place: Place,
        /// Only of this code
        #[arg(long)]
        code: Option<String>,
    },
    /// Some of them, as JSON lines
    Show {
        #[command(flatten)]
        place: Place,
        /// Only of this code
        #[arg(long)]
        code: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// With the records' bytes (base64), which may hold personal data
        #[arg(long)]
        raw: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckpointsArgs {
    #[command(subcommand)]
    pub(crate) command: CheckpointsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointsCommand {
    /// The position of every shard, and the names that positions were saved under
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Save the positions of all shards under a name
    Save {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// The positions that were saved under a name
    Show {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Forget a name
    Delete {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LeasesArgs {
    #[command(subcommand)]
    pub(crate) command: LeasesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeasesCommand {
    /// All leases, their holders and states, and what is wrong with the table; exit code 1 if something is
    List {
        #[command(flatten)]
        place: Place,
        /// How long to watch the counters, to tell the living from the dead
        #[arg(long, value_name = "TIME", default_value = "4s")]
        watch: String,
    },
    /// One lease, in words
    Inspect {
        /// Shard, or STREAM/SHARD
        shard: String,
        #[command(flatten)]
        place: Place,
    },
    /// Ask the holder to commit and let go; the lease is then free for all
    Release {
        /// Shard, or STREAM/SHARD
        shard: String,
        #[command(flatten)]
        place: Place,
    },
    /// Take the lease from its holder, dead or alive; what it had open is read again
    Evict {
        /// Shard, or STREAM/SHARD
        shard: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the effective configuration, and try every permission that a worker needs; exit code 2 if one is missing
    Check {
        #[command(flatten)]
        place: Place,

        /// A source; may be repeated
        #[arg(long, value_name = "URL")]
        source: Vec<String>,

        /// Ask no service
        #[arg(long)]
        offline: bool,
    },
    /// Print every key of the configuration file, with its values, its default and its meaning
    Keys,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) place: Place,

    /// A source; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// Shards of a stream that is made; 0: on demand
    #[arg(long, default_value_t = 4)]
    pub(crate) shards: u32,
}
