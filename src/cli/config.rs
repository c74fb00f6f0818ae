//! `config check`: the configuration as it is understood, and whether the worker may do what it will have to.
//!
//! Owns: printing. The key of pseudonyms is never printed, only where it comes from. Does not own: reading the configuration
//! (`crate::config`), trying the permissions (`crate::setup::permissions`).

use std::fmt::Write as _;
use std::process::ExitCode;

use pipeline::line_objects::LineCodec;
use pipeline::time::format_rfc3339;
use serde_json::{Value, json};

use crate::cli::args::{ConfigArgs, ConfigCommand};
use crate::cli::load;
use crate::cli::output::Table;
use crate::config::{Config, KeySource, LakeUrl, Overrides, RawTo, SourceUrl};
use crate::lake::Encryption;
use crate::setup::load_aws;
use crate::setup::permissions::{Found, try_all};
use crate::source::{Mode, Start};

pub(crate) async fn config(args: &ConfigArgs, json: bool) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Check { lake, source, offline } = &args.command;
    let config = load(&Overrides { sources: source.clone(), run: true, ..lake.overrides() })?;
    let text = effective(&config);
    let aws = if *offline { None } else { load_aws(&config).await };
    let tried = match &aws {
        Some(aws) => try_all(&config, aws).await,
        None => Vec::new(),
    };
    let missing = tried.iter().filter(|tried| tried.found.is_fault()).count();
    if json {
        let tried: Vec<Value> = tried
            .iter()
            .map(|tried| {
                json!({
                    "action": tried.action, "on": tried.resource, "ok": !tried.found.is_fault(), "found": tried.found.to_string(),
                })
            })
            .collect();
        println!("{}", json!({ "config": text, "permissions": tried, "ok": missing == 0 }));
        return Ok(ExitCode::from(if missing == 0 { 0 } else { 2 }));
    }
    print!("{text}");
    if !tried.is_empty() {
        let mut table = Table::new(&["IAM action", "on", "found"]);
        for tried in &tried {
            table.row([tried.action.to_owned(), tried.resource.clone(), tried.found.to_string()]);
        }
        println!();
        print!("{}", table.render(""));
    }
    for tried in tried.iter().filter(|tried| tried.found.is_fault()) {
        let (action, on) = (tried.action, &tried.resource);
        match &tried.found {
            Found::Denied => eprintln!("shardlake: the worker needs {action} on {on}"),
            other => eprintln!("shardlake: {action} on {on}: {other}"),
        }
    }
    Ok(ExitCode::from(if missing == 0 { 0 } else { 2 }))
}

/// The configuration with every default, as a file that says the same.
fn effective(config: &Config) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    for source in &config.sources {
        line("[[source]]".to_owned());
        line(format!("url = {}", quoted(&source.url.to_string())));
        if let Some(name) = source.stream_name() {
            line(format!("name = {}", quoted(name)));
        }
        if let Some(dataset) = &source.dataset {
            line(format!("dataset = {}", quoted(dataset)));
        }
        if matches!(source.url, SourceUrl::Kinesis(_)) {
            let start = match source.start {
                Start::TrimHorizon => "trim_horizon".to_owned(),
                Start::Latest => "latest".to_owned(),
                Start::At { ms } => format_rfc3339(i64::try_from(ms).unwrap_or(i64::MAX)),
            };
            line(format!("start = {}", quoted(&start)));
            match &source.read {
                Mode::Polling => line("read = \"polling\"".to_owned()),
                Mode::FanOut { consumer } => {
                    line("read = \"fan-out\"".to_owned());
                    line(format!("consumer = {}", quoted(consumer)));
                }
            }
        }
        line(String::new());
    }
    line("[lake]".to_owned());
    line(format!("url = {}", quoted(&config.lake.to_string())));
    if matches!(config.lake, LakeUrl::S3(_)) {
        match &config.s3.encryption {
            Encryption::BucketDefault => {}
            Encryption::Aes256 => line("encryption = \"AES256\"".to_owned()),
            Encryption::Kms { key, bucket_key } => {
                line("encryption = \"aws:kms\"".to_owned());
                if let Some(key) = key {
                    line(format!("kms_key = {}", quoted(key)));
                }
                line(format!("bucket_key = {bucket_key}"));
            }
        }
        for (key, value) in
            [("storage_class", &config.s3.storage_class), ("bucket_owner", &config.s3.expected_bucket_owner)]
        {
            if let Some(value) = value {
                line(format!("{key} = {}", quoted(value)));
            }
        }
        if !config.s3.tags.is_empty() {
            let tags: Vec<String> =
                config.s3.tags.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
            line(format!("tags = {{ {} }}", tags.join(", ")));
        }
    }
    line(format!("\n[checkpoints]\nurl = {}", quoted(&config.checkpoints.to_string())));
    let key = match &config.key {
        KeySource::Env(name) => Some(format!("env:{name}")),
        KeySource::SecretsManager(id) => Some(format!("secretsmanager:{id}")),
        KeySource::File(path) | KeySource::MadeFile(path) => Some(format!("file:{}", path.display())),
        KeySource::Missing => None,
    };
    if let Some(key) = key {
        line(format!("\n[anonymize]\nkey = {}", quoted(&key)));
    }
    line(format!("\n[raw]\nenabled = {}", config.output.raw.is_some()));
    match config.output.raw {
        Some(LineCodec::Gzip(level)) => line(format!("codec = \"gzip\"\nlevel = {level}")),
        Some(LineCodec::Zstd(level)) => line(format!("codec = \"zstd\"\nlevel = {level}")),
        None => {}
    }
    match &config.output.raw_to {
        RawTo::Lake => line("to = \"lake\"".to_owned()),
        RawTo::Firehose { delivery_stream } => line(format!("to = {}", quoted(&format!("firehose:{delivery_stream}")))),
    }
    let output = &config.output;
    line(format!("\n[parquet]\nfile_bytes = {}\nzstd_level = {}", output.file_bytes, output.zstd_level));
    let commit = &config.commit;
    line(format!("\n[commit]\ninterval = \"{}ms\"\ninput_bytes = {}", commit.interval.as_millis(), commit.input_bytes));
    let leases = &config.leases;
    let (failover, hand_off) = (leases.failover.as_millis(), leases.hand_off.as_millis());
    line(format!("\n[leases]\nfailover = \"{failover}ms\"\nhand_off = \"{hand_off}ms\""));
    let limits = &config.limits;
    line(format!(
        "\n[limits]\nmemory = {}\nthreads = {}\nrecord_bytes = {}\nopen_objects = {}",
        limits.memory, limits.threads, limits.record_bytes, limits.open_objects
    ));
    line(format!("\n# datasets: {}", config.datasets.names().collect::<Vec<_>>().join(", ")));
    text
}

/// A text of TOML: JSON's escapes are among TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn what_is_printed_reads_back_as_the_same_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        let text = "[[source]]\nurl = \"kinesis://a\"\nstart = \"2025-01-13T10:30:00Z\"\nread = \"fan-out\"\n\
                    [lake]\nurl = \"s3://the-lake/x\"\nencryption = \"aws:kms\"\nkms_key = \"k\"\ntags = { a = \"b\" }\n\
                    [checkpoints]\nurl = \"dynamodb://leases\"\n[anonymize]\nkey = \"env:KEY\"\n";
        std::fs::write(&path, text).unwrap();
        let overrides = Overrides { config: Some(path.clone()), run: true, ..Overrides::default() };
        let first = effective(&Config::load(&overrides).unwrap());
        ConfigFile::parse("printed", &first).unwrap();
        std::fs::write(&path, &first).unwrap();
        let second = effective(&Config::load(&overrides).unwrap());
        assert_eq!(first, second);
        assert!(
            first.contains("start = \"2025-01-13T10:30:00.000Z\"")
                || first.contains("start = \"2025-01-13T10:30:00Z\"")
        );
        assert!(first.contains("key = \"env:KEY\""), "{first}");
    }
}
