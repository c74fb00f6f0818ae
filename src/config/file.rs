//! `shardlake.toml`: its sections and keys.

use std::path::PathBuf;
use std::time::Duration;

use pipeline::line_objects::LineCodec;
use pipeline::toml_reader::{At, Document, Problems, Scalar, Section};

use crate::config::units::{parse_bytes, parse_duration};
use crate::config::urls::{CheckpointsUrl, LakeUrl, SourceUrl, parse_start};
use crate::config::{CommitConfig, KeySource, LeaseConfig, Limits, OutputConfig, RawTo, SourceConfig};
use crate::lake::{Encryption, S3Options};
use crate::source::{Mode, Start};

/// A configuration file as read; what it does not say has its default.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// The folder of the file: paths of definitions are relative to it.
    pub folder: PathBuf,
    pub(crate) sources: Vec<SourceConfig>,
    pub(crate) lake: Option<LakeUrl>,
    pub(crate) s3: S3Options,
    pub(crate) checkpoints: Option<CheckpointsUrl>,
    pub(crate) datasets: Vec<PathBuf>,
    pub(crate) key: Option<KeySource>,
    pub(crate) output: OutputConfig,
    pub(crate) commit: CommitConfig,
    pub(crate) leases: LeaseConfig,
    pub(crate) limits: Limits,
}

impl Default for ConfigFile {
    fn default() -> Self {
        ConfigFile {
            folder: PathBuf::new(),
            sources: Vec::new(),
            lake: None,
            s3: S3Options::default(),
            checkpoints: None,
            datasets: Vec::new(),
            key: None,
            output: OutputConfig {
                file_bytes: 128 << 20,
                zstd_level: 1,
                raw: Some(LineCodec::Gzip(1)),
                raw_to: RawTo::Lake,
            },
            commit: CommitConfig { interval: Duration::from_secs(300), input_bytes: 16 << 30 },
            leases: LeaseConfig { failover: Duration::from_secs(10), hand_off: Duration::from_secs(30) },
            limits: Limits {
                memory: 512 << 20,
                threads: std::thread::available_parallelism().map_or(1, usize::from),
                record_bytes: 10 << 20,
                open_objects: 512,
            },
        }
    }
}

impl ConfigFile {
    /// Reads a file's text; `name` is for messages.
    ///
    /// # Errors
    /// Every problem, with its line.
    pub fn parse(name: &str, text: &str) -> Result<ConfigFile, Problems> {
        let document = Document::new(name, text);
        let Some(table) = document.parse() else { return Err(document.into_problems()) };
        let mut file = ConfigFile::default();
        {
            let root = document.root(&table);
            file.read(&root);
            root.finish();
        }
        drop(table);
        let problems = document.into_problems();
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    fn read(&mut self, root: &Section<'_>) {
        if let Some(section) = root.section("lake") {
            self.lake = section.required_text("url").and_then(|at| checked(&section, &at, LakeUrl::parse(&at.value)));
            self.s3 = read_s3(&section);
            section.finish();
        }
        if let Some(section) = root.section("checkpoints") {
            let url = section.required_text("url");
            self.checkpoints = url.and_then(|at| checked(&section, &at, CheckpointsUrl::parse(&at.value)));
            section.finish();
        }
        self.sources = root.sections("source").into_iter().filter_map(read_source).collect();
        for section in root.sections("dataset") {
            if let Some(at) = section.required_text("file") {
                self.datasets.push(PathBuf::from(at.value));
            }
            section.finish();
        }
        if let Some(section) = root.section("anonymize") {
            self.key = section.required_text("key").and_then(|at| checked(&section, &at, parse_key(&at.value)));
            section.finish();
        }
        if let Some(section) = root.section("raw") {
            self.output.raw = read_raw(&section);
            if let Some(at) = section.text("to") {
                self.output.raw_to = checked(&section, &at, parse_raw_to(&at.value)).unwrap_or(RawTo::Lake);
            }
            section.finish();
        }
        if let Some(section) = root.section("parquet") {
            bytes(&section, "file_bytes", &mut self.output.file_bytes);
            if let Some(at) = section.integer("zstd_level") {
                match i32::try_from(at.value) {
                    Ok(level @ 1..=19) => self.output.zstd_level = level,
                    _ => section.report(at.line, "zstd_level must be 1 to 19"),
                }
            }
            section.finish();
        }
        if let Some(section) = root.section("commit") {
            duration(&section, "interval", &mut self.commit.interval);
            bytes(&section, "input_bytes", &mut self.commit.input_bytes);
            section.finish();
        }
        if let Some(section) = root.section("leases") {
            duration(&section, "failover", &mut self.leases.failover);
            duration(&section, "hand_off", &mut self.leases.hand_off);
            if self.leases.failover < Duration::from_millis(500) {
                section.report(section.line(), "failover must be 500ms at least");
            }
            section.finish();
        }
        if let Some(section) = root.section("limits") {
            bytes(&section, "memory", &mut self.limits.memory);
            bytes(&section, "record_bytes", &mut self.limits.record_bytes);
            count(&section, "threads", &mut self.limits.threads);
            count(&section, "open_objects", &mut self.limits.open_objects);
            section.finish();
        }
    }
}

fn checked<T>(section: &Section<'_>, at: &At<String>, result: Result<T, String>) -> Option<T> {
    result.map_err(|message| section.report(at.line, message)).ok()
}

fn read_source(section: Section<'_>) -> Option<SourceConfig> {
    let url = section.required_text("url").and_then(|at| checked(&section, &at, SourceUrl::parse(&at.value)));
    let name = section.text("name").and_then(|at| {
        let valid =
            checkpoints::StreamName::new(&at.value).map(|_| at.value.clone()).map_err(|error| error.to_string());
        checked(&section, &at, valid)
    });
    let dataset = section.text("dataset").map(|at| at.value);
    let start = section.text("start").and_then(|at| checked(&section, &at, parse_start(&at.value)));
    let consumer = section.text("consumer");
    let read = match section.text("read") {
        None => Mode::Polling,
        Some(at) => match at.value.as_str() {
            "polling" => Mode::Polling,
            "fan-out" | "fan_out" => {
                let consumer = consumer.as_ref().map_or("shardlake", |at| at.value.as_str()).to_owned();
                Mode::FanOut { consumer }
            }
            other => {
                section.report(at.line, format!("read is polling or fan-out, not '{other}'"));
                Mode::Polling
            }
        },
    };
    if let Some(at) = consumer.filter(|_| read == Mode::Polling) {
        section.report(at.line, "consumer is for read = \"fan-out\"");
    }
    if matches!(url, Some(SourceUrl::Files(_))) && (start.is_some() || read != Mode::Polling) {
        section.report(section.line(), "start and read are for sources kinesis://STREAM");
    }
    section.finish();
    Some(SourceConfig { url: url?, name, dataset, start: start.unwrap_or(Start::TrimHorizon), read })
}

fn read_s3(section: &Section<'_>) -> S3Options {
    let kms_key = section.text("kms_key");
    let bucket_key = section.flag("bucket_key").is_none_or(|at| at.value);
    let encryption = match section.text("encryption") {
        None => Encryption::BucketDefault,
        Some(at) => match at.value.as_str() {
            "AES256" => Encryption::Aes256,
            "aws:kms" => Encryption::Kms { key: kms_key.as_ref().map(|at| at.value.clone()), bucket_key },
            other => {
                section.report(at.line, format!("encryption is AES256 or aws:kms, not '{other}'"));
                Encryption::BucketDefault
            }
        },
    };
    if let Some(at) = kms_key.filter(|_| !matches!(encryption, Encryption::Kms { .. })) {
        section.report(at.line, "kms_key is for encryption = \"aws:kms\"");
    }
    let tags = section.free_table("tags").into_iter().filter_map(|(key, at)| match at.value.as_slice() {
        [Scalar::Text(value)] => Some((key, value.clone())),
        _ => {
            section.report(at.line, format!("the tag '{key}' must be a text"));
            None
        }
    });
    S3Options {
        tags: tags.collect(),
        encryption,
        storage_class: section.text("storage_class").map(|at| at.value),
        expected_bucket_owner: section.text("bucket_owner").map(|at| at.value),
    }
}

fn parse_raw_to(text: &str) -> Result<RawTo, String> {
    match text.split_once(':') {
        None if text == "lake" => Ok(RawTo::Lake),
        Some(("firehose", name)) if !name.is_empty() => Ok(RawTo::Firehose { delivery_stream: name.to_owned() }),
        _ => Err(format!("to is \"lake\" or \"firehose:NAME\", not '{text}'")),
    }
}

fn parse_key(text: &str) -> Result<KeySource, String> {
    match text.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Ok(KeySource::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Ok(KeySource::File(PathBuf::from(path))),
        Some(("secretsmanager", id)) if !id.is_empty() => Ok(KeySource::SecretsManager(id.to_owned())),
        _ => Err("key must be env:NAME, file:PATH or secretsmanager:ARN; never write the key itself here".to_owned()),
    }
}

fn read_raw(section: &Section<'_>) -> Option<LineCodec> {
    let enabled = section.flag("enabled").is_none_or(|at| at.value);
    let codec = section.text("codec");
    let level = section.integer("level");
    let range = if codec.as_ref().is_some_and(|at| at.value == "zstd") { 1..=19 } else { 1..=9 };
    let level = match level {
        Some(at) if !range.contains(&at.value) => {
            section.report(at.line, format!("level must be {} to {}", range.start(), range.end()));
            1
        }
        Some(at) => i32::try_from(at.value).unwrap_or(1),
        None => 1,
    };
    let codec = match codec {
        None => LineCodec::Gzip(level.unsigned_abs()),
        Some(at) => match at.value.as_str() {
            "gzip" => LineCodec::Gzip(level.unsigned_abs()),
            "zstd" => LineCodec::Zstd(level),
            other => {
                section.report(at.line, format!("codec is gzip or zstd, not '{other}'"));
                LineCodec::Gzip(1)
            }
        },
    };
    enabled.then_some(codec)
}

fn bytes(section: &Section<'_>, key: &'static str, into: &mut u64) {
    let Some(at) = section.scalar(key) else { return };
    let parsed = match &at.value {
        Scalar::Text(text) => parse_bytes(text),
        Scalar::Integer(number) => u64::try_from(*number).map_err(|_| format!("{key} must not be negative")),
        Scalar::Float(_) | Scalar::Bool(_) => Err(format!("{key} must be a size such as \"64 MiB\"")),
    };
    match parsed {
        Ok(value) => *into = value,
        Err(message) => section.report(at.line, message),
    }
}

fn duration(section: &Section<'_>, key: &'static str, into: &mut Duration) {
    let Some(at) = section.text(key) else { return };
    match parse_duration(&at.value) {
        Ok(value) => *into = value,
        Err(message) => section.report(at.line, message),
    }
}

fn count(section: &Section<'_>, key: &'static str, into: &mut usize) {
    let Some(at) = section.integer(key) else { return };
    match usize::try_from(at.value) {
        Ok(value) => *into = value,
        Err(_) => section.report(at.line, format!("{key} must not be negative")),
    }
}
