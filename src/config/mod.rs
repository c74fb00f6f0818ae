//! Configuration: what the user wrote, turned once, at start, into what the program runs on.
//!
//! Owns: `shardlake.toml`, the command line's overrides, defaults, and telling every problem at once. Does not own: opening
//! stores (`world`), the definitions' own format (the pipeline crate).
//!
//! Everything has a default that works. Limits have a name, a unit, a default and a sentence on when to change them, here
//! beside the field and in `docs/configuration.md`.

mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod units;
mod urls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::dataset::{Datasets, DefinitionText, LookupTable, shipped};
use pipeline::line_objects::LineCodec;
use pipeline::toml_reader::{Problem, Problems};

pub use file::ConfigFile;
pub(crate) use urls::shown;
pub use urls::{BucketUrl, CheckpointsUrl, LakeUrl, SourceUrl};

use crate::lake::{S3Options, S3Place};
use crate::raw::RECORD_BYTES_MAX;
use crate::source::{Mode, Start};

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Where it is.
    pub url: SourceUrl,
    /// The stream's name in the lake; by default the URL of the place.
    pub name: Option<String>,
    /// The dataset that all its records are of; by default each record is recognized.
    pub dataset: Option<String>,
    /// Where reading starts if nobody has read the stream yet (`start`, trim_horizon).
    pub start: Start,
    /// How its shards are read (`read`, polling).
    pub read: Mode,
}

/// Where records as received go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawTo {
    /// Into the epoch's own objects below `raw/`: exactly once.
    Lake,
    /// To a delivery stream of Data Firehose: at least once.
    Firehose {
        /// Its name.
        delivery_stream: String,
    },
}

/// Where the key of pseudonyms comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file; its bytes without a final line end.
    File(PathBuf),
    /// A secret of AWS Secrets Manager, by ARN or name.
    SecretsManager(String),
    /// None was named, and there is no place to make one.
    Missing,
    /// A file that is made, with mode 0600, if it is not there: the embedded default.
    MadeFile(PathBuf),
}

/// What bounds the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for records, rows and encoded parts (`memory`, 512 MiB). Larger: larger row groups, fewer and
    /// better compressed. The process takes some 40 MiB beside it.
    pub memory: u64,
    /// Threads that decode and encode (`threads`, one a processor core).
    pub threads: usize,
    /// Bytes that a record may have (`record_bytes`, 10 MiB, Kinesis's own limit).
    pub record_bytes: u64,
    /// Objects that are open at once (`open_objects`, 512). More: fewer small files where rows of very many partitions
    /// come mixed; each open one holds its footer in memory.
    pub open_objects: usize,
}

/// When an epoch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitConfig {
    /// After this time (`interval`, 5 minutes). Shorter: fresher data, smaller files.
    pub interval: Duration,
    /// Or after this many bytes read (`input_bytes`, 16 GiB): bounds what a crash lets read again.
    pub input_bytes: u64,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputConfig {
    /// Encoded bytes at which a file is closed and the next one begun (`[parquet] file_bytes`, 128 MiB).
    pub file_bytes: u64,
    /// zstd level of Parquet pages (`[parquet] zstd_level`, 1: higher levels cost much and gain little on such pages).
    pub zstd_level: i32,
    /// Raw landing and its codec (`[raw] codec`, gzip level 1); `None`: off.
    pub raw: Option<LineCodec>,
    /// Where the raw landing goes (`[raw] to`, the lake).
    pub raw_to: RawTo,
}

/// How shards are shared out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseConfig {
    /// A lease that was not renewed for this long may be taken (`failover`, 10 s).
    pub failover: Duration,
    /// An owner that was asked for a lease and did not let go for this long loses it (`hand_off`, 30 s).
    pub hand_off: Duration,
}

/// What the program runs on.
#[derive(Debug)]
pub struct Config {
    /// Where records come from.
    pub sources: Vec<SourceConfig>,
    /// Whether the source is the sample that is made on the spot, because none was named.
    pub demo: bool,
    /// Where the lake is.
    pub lake: LakeUrl,
    /// How its objects are kept, if it is on S3.
    pub s3: S3Options,
    /// Where checkpoints are kept.
    pub checkpoints: CheckpointsUrl,
    /// The datasets, compiled.
    pub datasets: Datasets,
    /// The key of pseudonyms.
    pub key: KeySource,
    /// What is written.
    pub output: OutputConfig,
    /// When an epoch ends.
    pub commit: CommitConfig,
    /// How shards are shared out.
    pub leases: LeaseConfig,
    /// What bounds the program.
    pub limits: Limits,
}

/// What the command line says over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The configuration file; by default `shardlake.toml` if it is there.
    pub config: Option<PathBuf>,
    /// Sources instead of the file's.
    pub sources: Vec<String>,
    /// The lake.
    pub lake: Option<String>,
    /// The checkpoint store.
    pub checkpoints: Option<String>,
    /// `off`, `gzip` or `zstd`.
    pub raw: Option<String>,
    /// Memory, as a size.
    pub memory: Option<String>,
    /// Threads.
    pub threads: Option<usize>,
    /// Epoch interval, as a time.
    pub commit_interval: Option<String>,
    /// Whether it is the worker that is configured: without any source it runs the demonstration. Commands that look at
    /// a lake take the one that is there.
    pub run: bool,
}

/// Where the demonstration lives.
pub const DEMO: &str = "shardlake-demo";

impl Config {
    /// Reads the file and the overrides.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(overrides: &Overrides) -> Result<Config, Problems> {
        let mut problems = Problems::default();
        let file = read_file(overrides, &mut problems).unwrap_or_default();
        let config = resolve(file, overrides, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

impl SourceConfig {
    /// A source of which only the place is said.
    pub fn plain(url: SourceUrl) -> Self {
        SourceConfig { url, name: None, dataset: None, start: Start::TrimHorizon, read: Mode::Polling }
    }

    /// The stream's name in the lake, where it does not depend on the machine.
    pub fn stream_name(&self) -> Option<&str> {
        match (&self.name, &self.url) {
            (Some(name), _) | (None, SourceUrl::Kinesis(name)) => Some(name),
            (None, SourceUrl::Files(_)) => None,
        }
    }
}

fn message_of(problems: &mut Problems, file: &str, message: impl Into<String>) {
    problems.push(Problem { file: file.to_owned(), line: 0, message: message.into() });
}

fn read_file(overrides: &Overrides, problems: &mut Problems) -> Option<ConfigFile> {
    let default = Path::new("shardlake.toml");
    let path = match &overrides.config {
        Some(path) => path.as_path(),
        None if default.is_file() => default,
        None => return None,
    };
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => match ConfigFile::parse(&name, &text) {
            Ok(mut file) => {
                file.folder = path.parent().map(Path::to_owned).unwrap_or_default();
                Some(file)
            }
            Err(found) => {
                problems.extend(found);
                None
            }
        },
        Err(error) => {
            message_of(problems, &name, format!("can't be read: {error}"));
            None
        }
    }
}

fn resolve(file: ConfigFile, overrides: &Overrides, problems: &mut Problems) -> Option<Config> {
    let flag = "command line";
    let mut keep = |result: Result<SourceUrl, String>| match result {
        Ok(url) => Some(url),
        Err(message) => {
            message_of(problems, flag, message);
            None
        }
    };
    let mut sources: Vec<SourceConfig> =
        overrides.sources.iter().filter_map(|url| keep(SourceUrl::parse(url))).map(SourceConfig::plain).collect();
    if overrides.sources.is_empty() {
        sources = file.sources;
    }
    let demo = sources.is_empty() && overrides.sources.is_empty();
    if demo {
        let url = SourceUrl::Files(Path::new(DEMO).join("records"));
        sources.push(SourceConfig::plain(url));
    }
    let mut lake = file.lake;
    if let Some(url) = &overrides.lake {
        lake = parsed(LakeUrl::parse(url), flag, problems);
    }
    let demo_lake = demo && (overrides.run || !Path::new("lake").is_dir());
    let default_lake = if demo_lake { Path::new(DEMO).join("lake") } else { PathBuf::from("lake") };
    let lake = lake.unwrap_or(LakeUrl::Local(default_lake));
    let mut checkpoints = file.checkpoints;
    if let Some(url) = &overrides.checkpoints {
        checkpoints = parsed(CheckpointsUrl::parse(url), flag, problems);
    }
    let (own_checkpoints, own_key) = match &lake {
        LakeUrl::Local(folder) => (
            Some(CheckpointsUrl::Sqlite(folder.join("_checkpoints.db"))),
            KeySource::MadeFile(beside(folder, ".pseudonym.key")),
        ),
        LakeUrl::S3(_) => (None, KeySource::Missing),
    };
    let checkpoints = checkpoints.or(own_checkpoints);
    if checkpoints.is_none() && problems.is_empty() {
        let told_what = "a lake on S3 needs a checkpoint store: --checkpoints dynamodb://TABLE, or [checkpoints] url";
        message_of(problems, "[checkpoints]", told_what);
    }
    let key = file.key.unwrap_or(own_key);
    let mut output = file.output;
    match overrides.raw.as_deref() {
        None => {}
        Some("off") => output.raw = None,
        Some("gzip" | "on") => output.raw = Some(LineCodec::Gzip(1)),
        Some("zstd") => output.raw = Some(LineCodec::Zstd(1)),
        Some(other) => message_of(problems, flag, format!("--raw is off, gzip or zstd, not '{other}'")),
    }
    let mut limits = file.limits;
    if let Some(text) = &overrides.memory {
        limits.memory = parsed(units::parse_bytes(text), flag, problems).unwrap_or(limits.memory);
    }
    limits.threads = overrides.threads.unwrap_or(limits.threads);
    let mut commit = file.commit;
    if let Some(text) = &overrides.commit_interval {
        commit.interval = parsed(units::parse_duration(text), flag, problems).unwrap_or(commit.interval);
    }
    check_limits(&limits, &commit, problems);
    if matches!(output.raw_to, RawTo::Firehose { .. })
        && output.raw.is_some()
        && limits.record_bytes >= RECORD_BYTES_MAX
    {
        let what = "to = \"firehose:…\" needs [limits] record_bytes below 1,000 KiB, which is all that Firehose takes of a \
                    record: a larger one would be in processed/ and nowhere else";
        message_of(problems, "[raw]", what);
    }
    if let LakeUrl::S3(url) = &lake {
        let place = S3Place { bucket: url.bucket.clone(), prefix: url.prefix.clone() };
        for problem in [place.validate(), file.s3.validate()].into_iter().filter_map(Result::err) {
            message_of(problems, "[lake]", problem.to_string());
        }
    }
    let datasets = compile(&file.datasets, &file.folder, problems)?;
    for source in &sources {
        if let Some(name) = source.dataset.as_deref().filter(|name| datasets.find(name).is_none()) {
            let known: Vec<&str> = datasets.names().collect();
            message_of(problems, "[[source]]", format!("there is no dataset '{name}'; known: {}", known.join(", ")));
        }
    }
    if overrides.run && key == KeySource::Missing && datasets.need_key() {
        let what =
            "a lake on S3 needs the key of pseudonyms: key = \"env:NAME\", \"file:PATH\" or \"secretsmanager:ARN\"";
        message_of(problems, "[anonymize]", what);
    }
    Some(Config {
        sources,
        demo,
        lake,
        s3: file.s3,
        checkpoints: checkpoints?,
        datasets,
        key,
        output,
        commit,
        leases: file.leases,
        limits,
    })
}

fn parsed<T>(result: Result<T, String>, place: &str, problems: &mut Problems) -> Option<T> {
    result.map_err(|message| message_of(problems, place, message)).ok()
}

/// A path beside a folder, with an ending: `lake` and `.key` are `lake.key`.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    folder.with_file_name(name)
}

fn check_limits(limits: &Limits, commit: &CommitConfig, problems: &mut Problems) {
    let mut refuse = |message: String| message_of(problems, "[limits]", message);
    if limits.memory < 64 << 20 {
        refuse(format!("memory of {} bytes is too little: 64 MiB at least", limits.memory));
    }
    if limits.threads == 0 || limits.threads > 1024 {
        refuse(format!("threads must be 1 to 1024, not {}", limits.threads));
    }
    if !(1024..=1 << 28).contains(&limits.record_bytes) {
        refuse("record_bytes must be between 1 KiB and 256 MiB".to_owned());
    }
    if limits.record_bytes > limits.memory / 8 {
        refuse("record_bytes must be an eighth of memory at most: raise memory, or lower record_bytes".to_owned());
    }
    if limits.open_objects < 16 {
        refuse("open_objects must be 16 at least".to_owned());
    }
    if commit.interval < Duration::from_millis(100) {
        refuse("[commit] interval must be 100ms at least".to_owned());
    }
}

/// Compiles the shipped definitions and the user's: one of a shipped name replaces it, others come first.
fn compile(files: &[PathBuf], folder: &Path, problems: &mut Problems) -> Option<Datasets> {
    let mut texts = Vec::new();
    let mut folders = Vec::new();
    for path in files {
        let path = folder.join(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                folders.push(path.parent().map(Path::to_owned).unwrap_or_default());
                texts.push(DefinitionText { file: path.display().to_string(), text });
            }
            Err(error) => message_of(problems, &path.display().to_string(), format!("can't be read: {error}")),
        }
    }
    let own: Vec<String> = texts.iter().filter_map(|text| Datasets::name_of(&text.file, &text.text)).collect();
    texts.extend(
        shipped()
            .into_iter()
            .filter(|text| Datasets::name_of(&text.file, &text.text).is_none_or(|name| !own.contains(&name))),
    );
    let tables = |file: &str, key: &str| {
        let candidates = folders.iter().map(|folder| folder.join(file)).chain([PathBuf::from(file)]);
        let found = candidates.into_iter().find(|path| path.is_file());
        let path = found.ok_or_else(|| "there is no such file beside the definition".to_owned())?;
        let bytes = std::fs::read(&path).map_err(|error| format!("can't be read: {error}"))?;
        LookupTable::read(&bytes, key)
    };
    match Datasets::compile(&texts, &tables) {
        Ok(datasets) => Some(datasets),
        Err(found) => {
            problems.extend(found);
            None
        }
    }
}

#[cfg(test)]
mod tests;
