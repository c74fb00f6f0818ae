//! Tests of the configuration as a whole.

use super::*;
use crate::lake::Encryption;

fn load(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shardlake.toml");
    std::fs::write(&path, text).unwrap();
    let overrides = Overrides { config: Some(path.clone()), ..Overrides::default() };
    let shown = path.display().to_string();
    Config::load(&overrides).map_err(|problems| problems.to_string().replace(&shown, "shardlake.toml"))
}

#[test]
fn nothing_need_be_configured() {
    let config = load("").unwrap();
    assert!(config.demo);
    assert_eq!(config.sources[0].url, SourceUrl::Files("shardlake-demo/records".into()));
    assert_eq!(config.lake, LakeUrl::Local("shardlake-demo/lake".into()));
    assert_eq!(config.checkpoints, CheckpointsUrl::Sqlite("shardlake-demo/lake/_checkpoints.db".into()));
    assert_eq!(config.key, KeySource::MadeFile("shardlake-demo/lake.pseudonym.key".into()));
    assert_eq!(config.limits.memory, 512 << 20);
    assert_eq!(config.commit.interval, Duration::from_secs(300));
    assert_eq!(config.datasets.names().collect::<Vec<_>>(), ["events", "assessments", "users"]);
}

#[test]
fn every_problem_is_told_at_once() {
    let text = r#"
[lake]
url = "ftp://x"
[commit]
interval = "soon"
intervall = "1m"
[limits]
memory = "1 MiB"
threads = -1
[raw]
codec = "brotli"
[anonymize]
key = "hunter2"
"#;
    let message = load(text).unwrap_err();
    assert_eq!(
        message.lines().collect::<Vec<_>>(),
        [
            "shardlake.toml:3: 'ftp://x' is no lake: write a folder, or s3://BUCKET/PREFIX",
            "shardlake.toml:13: key must be env:NAME, file:PATH or secretsmanager:ARN; never write the key itself here",
            "shardlake.toml:11: codec is gzip or zstd, not 'brotli'",
            "shardlake.toml:5: 'soon' is no time: write '500ms', '10s', '5m' or '1h'",
            "shardlake.toml:6: unknown key 'intervall' in [commit]; did you mean 'interval'?",
            "shardlake.toml:9: threads must not be negative",
        ]
    );
}

#[test]
fn limits_that_can_not_work_are_refused() {
    let message = load("[limits]\nmemory = \"1 MiB\"\nthreads = 0\nopen_objects = 1\n").unwrap_err();
    assert!(message.contains("memory of 1048576 bytes is too little: 64 MiB at least"), "{message}");
    assert!(message.contains("threads must be 1 to 1024, not 0"), "{message}");
    assert!(message.contains("open_objects must be 16 at least"), "{message}");
}

#[test]
fn a_file_says_everything_and_the_command_line_overrides_it() {
    let text = r#"
[lake]
url = "/data/lake"
[checkpoints]
url = "sqlite:///data/c.db"
[[source]]
url = "/data/in"
name = "orders"
dataset = "assessments"
[anonymize]
key = "env:SHARDLAKE_KEY"
[raw]
enabled = false
[parquet]
file_bytes = "64 MiB"
zstd_level = 3
[commit]
interval = "10s"
input_bytes = 1000000
[leases]
failover = "2s"
[limits]
memory = "256 MiB"
threads = 3
"#;
    let config = load(text).unwrap();
    assert!(!config.demo);
    assert_eq!(config.sources[0].name.as_deref(), Some("orders"));
    assert_eq!(config.key, KeySource::Env("SHARDLAKE_KEY".into()));
    assert_eq!(config.output, OutputConfig { file_bytes: 64 << 20, zstd_level: 3, raw: None, raw_to: RawTo::Lake });
    assert_eq!(config.limits.threads, 3);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    let overrides = Overrides {
        config: Some(path),
        sources: vec!["/other".into()],
        lake: Some("/other/lake".into()),
        checkpoints: None,
        raw: Some("zstd".into()),
        memory: Some("128 MiB".into()),
        threads: Some(1),
        commit_interval: Some("1s".into()),
        run: true,
    };
    let config = Config::load(&overrides).unwrap();
    assert_eq!(config.sources.len(), 1);
    assert_eq!(config.lake, LakeUrl::Local("/other/lake".into()));
    assert_eq!(config.checkpoints, CheckpointsUrl::Sqlite("/data/c.db".into()));
    assert_eq!(config.output.raw, Some(LineCodec::Zstd(1)));
    assert_eq!((config.limits.memory, config.limits.threads), (128 << 20, 1));
    assert_eq!(config.commit.interval, Duration::from_secs(1));
}

#[test]
fn a_definition_of_a_shipped_name_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = r#"
name = "users"
[[recognize]]
present = ["/uid"]
[event_time]
pointer = "/at"
[[column]]
name = "uid"
pointer = "/uid"
type = "string"
"#;
    std::fs::write(folder.path().join("mine.toml"), own).unwrap();
    let path = folder.path().join("shardlake.toml");
    std::fs::write(&path, "[[dataset]]\nfile = \"mine.toml\"\n").unwrap();
    let config = Config::load(&Overrides { config: Some(path.clone()), ..Overrides::default() }).unwrap();
    assert_eq!(config.datasets.names().collect::<Vec<_>>(), ["users", "events", "assessments"]);

    std::fs::write(&path, "[[dataset]]\nfile = \"none.toml\"\n[[source]]\nurl = \"in\"\ndataset = \"orders\"\n")
        .unwrap();
    let message = Config::load(&Overrides { config: Some(path), ..Overrides::default() }).unwrap_err().to_string();
    assert!(message.contains("none.toml: can't be read"), "{message}");
    assert!(message.contains("there is no dataset 'orders'; known: events, assessments, users"), "{message}");
}

#[test]
fn a_fleet_on_aws_is_configured() {
    let text = r#"
[[source]]
url = "kinesis://pinpoint-events"
start = "latest"
read = "fan-out"
consumer = "lake"
[[source]]
url = "kinesis://assessments"
name = "old-assessments"
start = "2025-01-13T10:30:00Z"
[lake]
url = "s3://the-lake/a"
encryption = "aws:kms"
kms_key = "alias/lake"
storage_class = "STANDARD_IA"
[lake.tags]
team = "data"
[checkpoints]
url = "dynamodb://shardlake-leases"
[anonymize]
key = "secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret:key"
[raw]
to = "firehose:raw-landing"
[limits]
record_bytes = "900 KiB"
"#;
    let config = load(text).unwrap();
    assert_eq!(config.sources[0].read, Mode::FanOut { consumer: "lake".into() });
    assert_eq!(config.sources[0].start, Start::Latest);
    assert_eq!(config.sources[0].stream_name(), Some("pinpoint-events"));
    assert_eq!(config.sources[1].start, Start::At { ms: 1_736_764_200_000 });
    assert_eq!(config.sources[1].stream_name(), Some("old-assessments"));
    let place = BucketUrl { bucket: "the-lake".into(), prefix: "a/".into() };
    assert_eq!(config.lake, LakeUrl::S3(place));
    assert_eq!(config.s3.encryption, Encryption::Kms { key: Some("alias/lake".into()), bucket_key: true });
    assert_eq!(config.s3.tags["team"], "data");
    assert_eq!(config.checkpoints, CheckpointsUrl::DynamoDb("shardlake-leases".into()));
    assert!(matches!(config.key, KeySource::SecretsManager(_)));
    assert_eq!(config.output.raw_to, RawTo::Firehose { delivery_stream: "raw-landing".into() });
}

#[test]
fn what_a_lake_on_s3_lacks_is_told() {
    let message = load("[lake]\nurl = \"s3://the-lake\"\n").unwrap_err();
    assert!(message.contains("a lake on S3 needs a checkpoint store: --checkpoints dynamodb://TABLE"), "{message}");
    let overrides = Overrides {
        lake: Some("s3://the-lake".into()),
        checkpoints: Some("dynamodb://leases".into()),
        run: true,
        ..Overrides::default()
    };
    let message = Config::load(&overrides).unwrap_err().to_string();
    assert!(message.contains("a lake on S3 needs the key of pseudonyms"), "{message}");
    let text = "[[source]]\nurl = \"in\"\nstart = \"soon\"\n[[source]]\nurl = \"in\"\nread = \"fan-out\"\n\
                [lake]\nurl = \"x\"\nencryption = \"rot13\"\nkms_key = \"k\"\n[raw]\nto = \"nowhere\"\n";
    let message = load(text).unwrap_err();
    for part in [
        "start is trim_horizon, latest or a time",
        "start and read are for sources kinesis://STREAM",
        "encryption is AES256 or aws:kms, not 'rot13'",
        "kms_key is for encryption",
        "to is \"lake\" or \"firehose:NAME\", not 'nowhere'",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}
