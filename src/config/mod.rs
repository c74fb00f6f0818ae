//! Configuration: what the user wrote, turned once, at start, into what the program runs on.
//!
//! Owns: `shardlake.toml`, the command line's overrides, defaults, and reporting every problem at once. Does not own: opening
//! stores (`setup`), the format of definitions (the pipeline crate), the keys of one kind of source or lake (its own folder).
//!
//! Every key has a default that works. `keys` is the one table of keys, with their defaults and documentation.

mod docs;
mod effective;
mod file;
mod keys;
mod resolve;

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::dataset::Datasets;
use pipeline::documents::Documents;
use pipeline::encode::Encodings;
use pipeline::line_objects::LineCodec;
use pipeline::toml_reader::Problems;
use sha2::{Digest, Sha256};

use crate::lake::backends::{LakeOptions, LakeUrl};
use crate::lease_stores::{CheckpointsUrl, LeaseStoreOptions};
use crate::raw::RawTo;
use crate::server::Listen;
use crate::source::backends::{SourceOptions, SourceUrl};

pub use docs::{SectionDoc, documentation};
pub use file::ConfigFile;
use file::{Settings, SourceSettings};

/// How long a command waits for a service that fails.
const BRIEFLY: Duration = Duration::from_secs(5);
/// Where the demonstration is.
const DEMO: &str = "shardlake-demo";

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Where it is.
    pub url: SourceUrl,
    /// The stream's name in the lake; by default the URL of the place.
    pub name: Option<String>,
    /// The dataset of all its records; by default each record is recognized.
    pub dataset: Option<String>,
    /// How many documents a record may have.
    pub documents: Documents,
    /// The options of its kind.
    pub options: SourceOptions,
}

/// Where the pseudonym key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In an environment variable.
    Env(String),
    /// In a file: its bytes without a final line end.
    File(PathBuf),
    /// In a secret of AWS Secrets Manager, by ARN or name.
    SecretsManager(String),
    /// Nowhere: none is configured, and there is no place to make one.
    Missing,
    /// In a file that is made, with mode 0600, if it does not exist: the default beside a local lake.
    MadeFile(PathBuf),
}

/// What bounds the worker (`[limits]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for records, rows and encoded parts. The process takes some 48 MiB beside it.
    pub memory: u64,
    /// Threads that decode and encode.
    pub threads: usize,
    /// Bytes that a record may have.
    pub record_bytes: u64,
    /// Objects that may be open at once.
    pub open_objects: usize,
}

/// When an epoch ends (`[commit]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitConfig {
    /// After this time.
    pub interval: Duration,
    /// Or after this many bytes read.
    pub input_bytes: u64,
}

/// What is written (`[parquet]`, `[raw]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputConfig {
    /// Encoded bytes at which a file is closed and the next one begins.
    pub file_bytes: u64,
    /// Which encodings Parquet files may have.
    pub encodings: Encodings,
    /// The zstd level of Parquet pages.
    pub zstd_level: i32,
    /// The codec of the raw landing; `None`: there is none.
    pub raw: Option<LineCodec>,
    /// Whether raw objects have the identities of their lines.
    pub raw_identities: bool,
    /// Where the raw landing goes.
    pub raw_to: RawTo,
}

/// How workers share the shards (`[leases]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseConfig {
    /// A lease that was not renewed for this long may be taken.
    pub failover: Duration,
    /// An owner that was asked for a lease loses it after this time.
    pub hand_off: Duration,
}

/// How a worker ends (`[stop]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopConfig {
    /// The time from the signal to the end of the worker.
    pub within: Duration,
}

/// How outages of services are waited for (`[retry]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryConfig {
    /// What may pass is retried for this long.
    pub within: Duration,
}

/// Where the three figures of classic CloudWatch metrics go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CloudWatchMetrics {
    /// Nowhere.
    #[default]
    Off,
    /// To stdout, from where the log driver takes them.
    Stdout,
}

/// What a worker says of itself (`[telemetry]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Where the three figures of classic CloudWatch metrics go.
    pub cloudwatch_metrics: CloudWatchMetrics,
    /// The age that the lake's data should not exceed.
    pub freshness: Duration,
    /// How often the lake and the streams are asked what costs requests.
    pub lake_every: Duration,
}

/// Which checkpoints a worker saves by itself (`[checkpoints]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointSchedule {
    /// One each time this has passed; zero: none.
    pub every: Duration,
    /// How many of them are kept.
    pub keep: usize,
}

/// What a worker runs by: the keys that do not say where something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerSettings {
    /// What is written.
    pub output: OutputConfig,
    /// When an epoch ends.
    pub commit: CommitConfig,
    /// How workers share the shards.
    pub leases: LeaseConfig,
    /// What bounds the worker.
    pub limits: Limits,
    /// How a worker ends.
    pub stop: StopConfig,
    /// How outages of services are waited for.
    pub retry: RetryConfig,
    /// Which checkpoints it saves by itself.
    pub checkpoints: CheckpointSchedule,
    /// What it says of itself.
    pub telemetry: TelemetryConfig,
}

/// What the program runs on.
#[derive(Debug)]
pub struct Config {
    /// Where records come from.
    pub sources: Vec<SourceConfig>,
    /// Whether no source was named, so that the source is the sample that is made on the spot.
    pub demo: bool,
    /// Where the lake is.
    pub lake: LakeUrl,
    /// How its objects are stored.
    pub lake_options: LakeOptions,
    /// Where checkpoints are kept; see [`Config::checkpoints`].
    checkpoints: Option<CheckpointsUrl>,
    /// How the lease store is reached and made.
    pub checkpoints_options: LeaseStoreOptions,
    /// The datasets, compiled.
    pub datasets: Datasets,
    /// Where the pseudonym key is.
    pub key: KeySource,
    /// How long what an operation has replaced is kept, so that it can be undone.
    pub undo_within: Duration,
    /// Where a worker serves its status page.
    pub listen: Listen,
    /// What a worker runs by.
    pub worker: WorkerSettings,
}

/// What the command line says, which overrides the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The configuration file; by default `shardlake.toml` if it exists.
    pub config: Option<PathBuf>,
    /// Sources instead of the file's.
    pub sources: Vec<String>,
    /// The lake.
    pub lake: Option<String>,
    /// The lease store.
    pub checkpoints: Option<String>,
    /// `off`, `gzip` or `zstd`.
    pub raw: Option<String>,
    /// Memory, as a size.
    pub memory: Option<String>,
    /// Threads.
    pub threads: Option<usize>,
    /// The interval of commits, as a time.
    pub commit_interval: Option<String>,
    /// Where the status page is served.
    pub listen: Option<String>,
    /// Definitions that replace those of the same datasets, or are added. Relative to the working directory.
    pub definitions: Vec<PathBuf>,
    /// Whether a worker is configured, which runs the demonstration if there is no source. Commands that look at a lake use
    /// the one that exists.
    pub run: bool,
    /// Whether the command uses no leases, so that a lake on S3 needs no lease store.
    pub without_leases: bool,
}

impl Config {
    /// Reads the file and the overrides.
    ///
    /// # Errors
    /// Every problem, all at once.
    pub fn load(overrides: &Overrides) -> Result<Config, Problems> {
        let mut problems = Problems::default();
        let file = resolve::read_file(overrides, &mut problems).unwrap_or_default();
        let config = resolve::resolve(file, overrides, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// Where checkpoints are kept.
    ///
    /// # Panics
    /// The configuration was loaded [without leases](Overrides::without_leases), and names no lease store.
    pub fn checkpoints(&self) -> &CheckpointsUrl {
        self.checkpoints.as_ref().expect("a command that uses leases is configured with a lease store")
    }

    /// Whether opening the lease store needs the SDK's settings.
    pub fn needs_aws_for_leases(&self) -> bool {
        self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.backend().needs_aws())
    }

    /// A name that all workers of this application share and no two applications: of the lease store and the lake. It has only
    /// characters that names in AWS may have, and ends with what tells it from others.
    pub fn application(&self) -> String {
        let table = self.checkpoints.as_ref().and_then(|checkpoints| checkpoints.backend().application());
        // A folder may have another path on another machine. Without a table, all workers are on this one.
        let lake = match (self.lake.backend().folder(), table) {
            (None, _) => self.lake.to_string(),
            (Some(_), Some(_)) => String::new(),
            (Some(folder), None) => {
                std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()).display().to_string()
            }
        };
        let digest = Sha256::digest(format!("{}\n{lake}", table.unwrap_or_default()));
        let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        table.map_or_else(|| short.clone(), |table| format!("{table}-{short}"))
    }

    /// For a command that somebody waits for: services are waited for only for seconds.
    #[must_use]
    pub fn waiting_briefly(mut self) -> Self {
        self.worker.retry.within = BRIEFLY;
        self
    }

    /// The folder of the demonstration's records.
    pub fn demo_records() -> PathBuf {
        Path::new(DEMO).join("records")
    }
}

impl Default for Limits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Limits { memory: 0, threads, record_bytes: 0, open_objects: 0 }
    }
}

impl SourceConfig {
    /// A source with default options.
    pub fn plain(url: SourceUrl) -> Self {
        let (documents, options) = (Documents::MANY, SourceOptions::default());
        SourceConfig { url, name: None, dataset: None, documents, options }
    }

    /// The stream's name in the lake, if it does not depend on the machine.
    pub fn stream_name(&self) -> Option<&str> {
        self.name.as_deref().or_else(|| self.url.backend().stream_name())
    }
}

impl KeySource {
    /// Reads where a key is.
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(KeySource::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(KeySource::File(PathBuf::from(path))),
            Some(("secretsmanager", id)) if !id.is_empty() => Ok(KeySource::SecretsManager(id.to_owned())),
            _ => {
                Err("key must be env:NAME, file:PATH or secretsmanager:ARN; never write the key itself here".to_owned())
            }
        }
    }

    /// The same as a text; `None` if there is none.
    fn show(&self) -> Option<String> {
        match self {
            KeySource::Env(name) => Some(format!("env:{name}")),
            KeySource::File(path) | KeySource::MadeFile(path) => Some(format!("file:{}", path.display())),
            KeySource::SecretsManager(id) => Some(format!("secretsmanager:{id}")),
            KeySource::Missing => None,
        }
    }

    /// Whether reading it needs the SDK's settings.
    pub fn needs_aws(&self) -> bool {
        matches!(self, KeySource::SecretsManager(_))
    }
}
