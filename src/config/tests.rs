//! Tests of the configuration as a whole.

use std::collections::BTreeMap;

use super::*;
use crate::config::keys::{DATASET, SECTIONS, SOURCE};
use crate::lake::Encryption;
use crate::settings::Setting;
use crate::source::Start;

fn load(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shardlake.toml");
    std::fs::write(&path, text).unwrap();
    let overrides = Overrides { config: Some(path.clone()), ..Overrides::default() };
    let shown = path.display().to_string();
    Config::load(&overrides).map_err(|problems| problems.to_string().replace(&shown, "shardlake.toml"))
}

#[test]
fn every_key_has_a_default() {
    let config = load("").unwrap();
    assert!(config.demo);
    assert_eq!(config.sources[0].url, SourceUrl::files("shardlake-demo/records"));
    assert_eq!(config.lake, LakeUrl::local("shardlake-demo/lake"));
    assert_eq!(config.checkpoints().to_string(), "sqlite://shardlake-demo/lake/_checkpoints.db");
    assert_eq!(config.key, KeySource::MadeFile("shardlake-demo/lake.pseudonym.key".into()));
    assert_eq!(config.worker.limits.memory, 512 << 20);
    assert_eq!(config.worker.commit.interval, Duration::from_secs(300));
    assert_eq!(config.worker.stop.within, Duration::from_secs(25));
    assert_eq!(
        config.worker.output,
        OutputConfig {
            file_bytes: 128 << 20,
            encodings: Encodings::Compatible,
            zstd_level: 1,
            raw: Some(LineCodec::Gzip(1)),
            raw_identities: true,
            raw_to: RawTo::Lake
        }
    );
    assert_eq!(config.datasets.names().collect::<Vec<_>>(), ["events", "assessments", "users", "ses", "sms"]);
}

#[test]
fn every_problem_is_reported_at_once() {
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
            "shardlake.toml:3: 'ftp://x' is not a valid lake: expected a folder or s3://BUCKET/PREFIX",
            "shardlake.toml:13: key must be env:NAME, file:PATH or secretsmanager:ARN; never write the key itself here",
            "shardlake.toml:11: codec must be gzip or zstd, not 'brotli'",
            "shardlake.toml:5: invalid time 'soon': expected a number and a unit, such as 500ms, 10s, 5m or 1h",
            "shardlake.toml:6: unknown key 'intervall' in [commit]; did you mean 'interval'?",
            "shardlake.toml:8: memory must be at least 64 MiB, not 1 MiB",
            "shardlake.toml:9: threads must not be negative",
        ]
    );
}

#[test]
fn values_out_of_their_bounds_are_refused() {
    for (text, message) in [
        ("[limits]\nthreads = 0", "threads must be at least 1, not 0"),
        ("[limits]\nthreads = 2000", "threads must be at most 1024, not 2000"),
        ("[limits]\nopen_objects = 1", "open_objects must be at least 16, not 1"),
        ("[limits]\nrecord_bytes = 100", "record_bytes must be at least 1 KiB, not 100 B"),
        ("[limits]\nrecord_bytes = true", "record_bytes must be a size such as \"64 MiB\""),
        ("[commit]\ninterval = \"50ms\"", "interval must be at least 100ms, not 50ms"),
        ("[leases]\nfailover = \"499ms\"", "failover must be at least 500ms, not 499ms"),
        ("[stop]\nwithin = \"500ms\"", "within must be at least 1s, not 500ms"),
        ("[[source]]\nurl = \"in\"\ndocuments = \"two\"", "documents must be many or one, not 'two'"),
        ("[[source]]\nurl = \"in\"\ndocuments = \"one\"\narrays = true", "arrays = true needs documents = \"many\""),
        ("[raw]\nlevel = 12", "level must be 1 to 9 for gzip, not 12"),
        ("[raw]\ncodec = \"zstd\"\nlevel = 20", "level must be 1 to 19 for zstd, not 20"),
        ("[parquet]\nencodings = \"plain\"", "encodings must be compatible or compact, not 'plain'"),
        ("[parquet]\nzstd_level = 0", "zstd_level must be 1 to 19, not 0"),
        ("[lake]\nencryption = \"AES256\"", "[lake] needs url"),
    ] {
        let found = load(text).unwrap_err();
        assert!(found.contains(message), "{message} is not in: {found}");
    }
    let message = load("[retry]\nwithin = \"13h\"").unwrap_err();
    assert!(message.contains("[retry]: within must be at most 12h"), "{message}");
    let message = load("[limits]\nmemory = \"64 MiB\"").unwrap_err();
    assert!(message.ends_with("record_bytes must be at most an eighth of memory: raise memory, or lower record_bytes"));
}

#[test]
fn a_flag_is_checked_as_its_key_is() {
    let overrides = Overrides {
        memory: Some("64 Mega".into()),
        threads: Some(0),
        commit_interval: Some("1ms".into()),
        raw: Some("brotli".into()),
        ..Overrides::default()
    };
    let message = Config::load(&overrides).unwrap_err().to_string();
    assert_eq!(
        message.lines().collect::<Vec<_>>(),
        [
            "command line: --raw must be off, gzip or zstd, not 'brotli'",
            "command line: invalid size '64 Mega': expected a number and a unit, such as 64MiB",
            "command line: threads must be at least 1, not 0",
            "command line: interval must be at least 100ms, not 1ms",
        ]
    );
}

#[test]
fn the_command_line_overrides_the_file() {
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
encodings = "compact"
zstd_level = 3
[commit]
interval = "10s"
input_bytes = 1000000
[leases]
failover = "2s"
[limits]
memory = "256 MiB"
threads = 3

[server]
listen = "0.0.0.0:8470"
"#;
    let config = load(text).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:8470");
    assert!(!config.demo);
    assert_eq!(config.sources[0].name.as_deref(), Some("orders"));
    assert_eq!(config.key, KeySource::Env("SHARDLAKE_KEY".into()));
    assert_eq!(
        config.worker.output,
        OutputConfig {
            file_bytes: 64 << 20,
            encodings: Encodings::Compact,
            zstd_level: 3,
            raw: None,
            raw_identities: true,
            raw_to: RawTo::Lake
        }
    );
    assert_eq!(config.worker.limits.threads, 3);

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
        listen: Some("off".into()),
        definitions: Vec::new(),
        run: true,
        without_leases: false,
    };
    let config = Config::load(&overrides).unwrap();
    assert_eq!(config.sources.len(), 1);
    assert_eq!(config.lake, LakeUrl::local("/other/lake"));
    assert_eq!(config.checkpoints().to_string(), "sqlite:///data/c.db");
    assert_eq!(config.worker.output.raw, Some(LineCodec::Zstd(1)));
    assert_eq!((config.worker.limits.memory, config.worker.limits.threads), (128 << 20, 1));
    assert_eq!(config.worker.commit.interval, Duration::from_secs(1));
    assert_eq!(config.listen, Listen::Off);
}

#[test]
fn a_definition_of_the_command_line_replaces_the_one_of_its_dataset_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, name: &str, column: &str| {
        let path = folder.path().join(file);
        let text = format!(
            "name = \"{name}\"\n[[recognize]]\npresent = [\"/{name}\"]\n[event_time]\npointer = \"/at\"\n\
             [[column]]\nname = \"{column}\"\npointer = \"/{column}\"\ntype = \"int64\"\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    write("a.toml", "a", "one");
    write("b.toml", "b", "one");
    let config = folder.path().join("c.toml");
    std::fs::write(&config, "[[dataset]]\nfile = \"a.toml\"\n[[dataset]]\nfile = \"b.toml\"\n").unwrap();
    let load = |definitions: Vec<PathBuf>| {
        Config::load(&Overrides { config: Some(config.clone()), definitions, ..Overrides::default() })
    };
    let names = |config: &Config| config.datasets.names().take(3).map(str::to_owned).collect::<Vec<_>>();
    let before = load(Vec::new()).unwrap();
    assert_eq!(names(&before)[..2], ["a", "b"]);
    let after = load(vec![write("new_b.toml", "b", "two"), write("c_new.toml", "c", "one")]).unwrap();
    assert_eq!(names(&after), ["c", "a", "b"]);
    let version = |config: &Config, name: &str| config.datasets.version(config.datasets.find(name).unwrap()).to_owned();
    assert_eq!(version(&before, "a"), version(&after, "a"));
    assert_ne!(version(&before, "b"), version(&after, "b"));
    let missing = load(vec![folder.path().join("none.toml")]).unwrap_err().to_string();
    assert!(missing.contains("none.toml: failed to read the file"), "{missing}");
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
    assert_eq!(config.datasets.names().collect::<Vec<_>>(), ["users", "events", "assessments", "ses", "sms"]);

    std::fs::write(&path, "[[dataset]]\nfile = \"none.toml\"\n[[source]]\nurl = \"in\"\ndataset = \"orders\"\n")
        .unwrap();
    let message = Config::load(&Overrides { config: Some(path), ..Overrides::default() }).unwrap_err().to_string();
    assert!(message.contains("none.toml: failed to read the file"), "{message}");
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
    let kinesis = &config.sources[0].options.kinesis;
    assert_eq!((kinesis.fan_out, kinesis.consumer.as_deref()), (true, Some("lake")));
    assert_eq!(config.sources[0].options.kinesis.start, Start::Latest);
    assert_eq!(config.sources[0].stream_name(), Some("pinpoint-events"));
    assert_eq!(config.sources[1].options.kinesis.start, Start::At { ms: 1_736_764_200_000 });
    assert_eq!(config.sources[1].stream_name(), Some("old-assessments"));
    assert_eq!(config.lake.to_string(), "s3://the-lake/a");
    let s3 = &config.lake_options.s3;
    assert_eq!(s3.encryption, Encryption::Kms { key: Some("alias/lake".into()), bucket_key: true });
    assert_eq!(s3.tags, BTreeMap::from([("team".to_owned(), "data".to_owned())]));
    assert_eq!(config.checkpoints().to_string(), "dynamodb://shardlake-leases");
    assert!(matches!(config.key, KeySource::SecretsManager(_)));
    assert_eq!(config.worker.output.raw_to.to_string(), "firehose:raw-landing");
}

#[test]
fn other_accounts_and_regions_are_read() {
    let stream = "arn:aws:kinesis:eu-west-1:222222222222:stream/orders";
    let table = "arn:aws:dynamodb:eu-west-1:222222222222:table/leases";
    let text = format!(
        "[[source]]\nurl = \"kinesis://{stream}\"\nrole_arn = \"arn:aws:iam::222222222222:role/reader\"\nexternal_id = \"x\"\n\
         [[source]]\nurl = \"kinesis://events\"\nregion = \"us-west-2\"\nendpoint = \"https://vpce-1.example\"\n\
         [lake]\nurl = \"s3://the-lake\"\nregion = \"eu-central-1\"\nendpoint = \"https://minio:9000\"\n\
         [checkpoints]\nurl = \"{table}\"\ntags = {{ team = \"data\" }}\ndeletion_protection = true\n\
         point_in_time_recovery = true\nkms_key = \"alias/leases\"\n[anonymize]\nkey = \"env:KEY\"\n"
    );
    let config = load(&text).unwrap();
    assert_eq!(config.sources[0].stream_name(), Some("orders"), "the stream's own name");
    let role = config.sources[0].options.kinesis.access.role_arn.as_deref();
    assert_eq!(role, Some("arn:aws:iam::222222222222:role/reader"));
    assert_eq!(config.sources[1].options.kinesis.access.region.as_deref(), Some("us-west-2"));
    assert_eq!(config.lake_options.s3.access.region.as_deref(), Some("eu-central-1"));
    assert_eq!(config.checkpoints().to_string(), format!("dynamodb://{table}"));
    let options = &config.checkpoints_options.dynamodb;
    assert_eq!(options.table.tags.get("team").map(String::as_str), Some("data"));
    assert!(options.table.deletion_protection && options.point_in_time_recovery);
    assert_eq!(options.table.kms_key.as_deref(), Some("alias/leases"));
    assert_eq!(load(&config.effective()).unwrap().effective(), config.effective(), "it reads back as the same");
}

#[test]
fn what_contradicts_an_arn_or_has_no_effect_is_refused() {
    let stream = "arn:aws:kinesis:eu-west-1:222222222222:stream/orders";
    let text = format!(
        "[[source]]\nurl = \"{stream}\"\nregion = \"us-east-1\"\n[[source]]\nurl = \"kinesis://orders\"\n\
         [[source]]\nurl = \"in\"\nrole_arn = \"arn:aws:iam::222222222222:role/reader\"\n\
         [lake]\nurl = \"lake\"\nregion = \"eu-west-1\"\n[checkpoints]\nurl = \"sqlite://x.db\"\ntags = {{ team = \"data\" }}\n"
    );
    let message = load(&text).unwrap_err();
    for part in [
        "role_arn is only for Kinesis",
        "region in [lake] is only for S3",
        "tags in [checkpoints] is only for DynamoDB",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let text =
        format!("[[source]]\nurl = \"{stream}\"\nregion = \"us-east-1\"\n[[source]]\nurl = \"kinesis://orders\"\n");
    let message = load(&text).unwrap_err();
    for part in ["the ARN in url is of the region eu-west-1: remove region", "both have the name orders in the lake"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn an_application_has_a_name_of_its_own_that_all_its_workers_share() {
    let application = |lake: &str, checkpoints: &str| {
        let text = format!(
            "[lake]\nurl = \"{lake}\"\n[checkpoints]\nurl = \"{checkpoints}\"\n[anonymize]\nkey = \"env:KEY\"\n"
        );
        load(&text).unwrap().application()
    };
    let first = application("s3://the-lake/prod", "dynamodb://leases");
    assert_eq!(first, "leases-ec4d073f");
    assert_eq!(first, application("s3://the-lake/prod/", "dynamodb://leases"), "however it is written");
    let by_arn = "dynamodb://arn:aws:dynamodb:eu-west-1:222222222222:table/leases";
    assert_eq!(first, application("s3://the-lake/prod", by_arn));
    let others = [
        application("s3://the-lake/test", "dynamodb://leases"),
        application("s3://another-lake/prod", "dynamodb://leases"),
        application("s3://the-lake/prod", "dynamodb://leases-2"),
        application("lake", "dynamodb://leases"),
        application("lake", "sqlite://a.db"),
        application("lake-2", "sqlite://a.db"),
    ];
    let distinct: std::collections::BTreeSet<&String> = others.iter().chain([&first]).collect();
    assert_eq!(distinct.len(), 7, "{distinct:?}");
}

#[test]
fn a_lake_on_s3_needs_a_lease_store_and_a_key() {
    let message = load("[lake]\nurl = \"s3://the-lake\"\n").unwrap_err();
    assert!(message.contains("a lake on S3 needs a lease store: --checkpoints dynamodb://TABLE"), "{message}");
    let overrides = Overrides {
        lake: Some("s3://the-lake".into()),
        checkpoints: Some("dynamodb://leases".into()),
        run: true,
        ..Overrides::default()
    };
    let message = Config::load(&overrides).unwrap_err().to_string();
    assert!(message.contains("a lake on S3 needs the pseudonym key"), "{message}");
}

#[test]
fn an_option_without_its_precondition_is_refused() {
    let text = "[[source]]\nurl = \"kinesis://a\"\nstart = \"soon\"\nconsumer = \"c\"\n\
                [[source]]\nurl = \"in\"\nread = \"fan-out\"\n\
                [lake]\nurl = \"x\"\nencryption = \"rot13\"\nkms_key = \"k\"\n[raw]\nto = \"nowhere\"\n";
    let message = load(text).unwrap_err();
    for part in [
        "start must be trim_horizon, latest or a time",
        "consumer is only for read = \"fan-out\"",
        "read is only for Kinesis sources",
        "encryption must be AES256 or aws:kms, not 'rot13'",
        "kms_key is only for encryption = \"aws:kms\"",
        "to must be \"lake\" or \"firehose:NAME\", not 'nowhere'",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let text = "[[source]]\nurl = \"in\"\n[raw]\nto = \"firehose:x\"\n";
    assert!(load(text).unwrap_err().contains("needs [limits] record_bytes below 1,000 KiB"));
}

#[test]
fn the_effective_configuration_reads_back_as_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let effective = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Config::load(&Overrides { config: Some(path.clone()), run: true, ..Overrides::default() }).unwrap().effective()
    };
    let on_aws = "[[source]]\nurl = \"kinesis://a\"\nstart = \"2025-01-13T10:30:00Z\"\nread = \"fan-out\"\n\
                  [lake]\nurl = \"s3://the-lake/x\"\nencryption = \"aws:kms\"\nkms_key = \"k\"\ntags = { a = \"b\" }\n\
                  [checkpoints]\nurl = \"dynamodb://leases\"\n[anonymize]\nkey = \"env:KEY\"\n";
    let local = "[[source]]\nurl = \"file://x://\\u007f\"\n[raw]\nenabled = false\n[commit]\ninterval = \"90s\"\n";
    for text in [on_aws, local, "[raw]\ncodec = \"zstd\"\nlevel = 7\n[stop]\nwithin = \"1500ms\"\n"] {
        let first = effective(text);
        assert_eq!(effective(&first), first);
    }
    let first = effective(on_aws);
    for line in [
        "name = \"a\"",
        "start = \"2025-01-13T10:30:00.000Z\"",
        "consumer = \"shardlake-leases-2da45cb5\"",
        "bucket_key = true",
        "tags = { \"a\" = \"b\" }",
        "key = \"env:KEY\"",
        "interval = \"5m\"",
        "input_bytes = \"16 GiB\"",
        "within = \"25s\"",
        "# datasets: events, assessments, users, ses, sms",
    ] {
        assert!(first.lines().any(|found| found == line), "{line} is not in:\n{first}");
    }
    assert!(effective(local).lines().any(|line| line == "enabled = false"));
    assert!(!effective(local).contains("encryption") && !effective(local).contains("start ="));
}

/// Names of a section's keys, each of which has a default that its own rule accepts, a kind and a sentence.
fn checked<S: Default>(keys: &[Box<dyn Setting<S>>]) -> Vec<&'static str> {
    let mut values = S::default();
    for key in keys {
        key.set_default(&mut values);
        let doc = key.document();
        assert!(!doc.value.is_empty() && !doc.default.is_empty() && doc.meaning.ends_with('.'), "{doc:?}");
    }
    // Two backends may have keys of one name. The meaning begins with the backend's name.
    let mut documented: Vec<_> = keys.iter().map(|key| (key.name(), key.document().meaning)).collect();
    documented.sort_unstable();
    documented.dedup();
    assert_eq!(documented.len(), keys.len(), "no key is there twice for one backend");
    let mut names: Vec<&str> = documented.into_iter().map(|(name, _)| name).collect();
    names.dedup();
    names
}

#[test]
fn every_key_is_documented_and_accepts_its_own_default() {
    assert_eq!(
        checked(&SOURCE.keys),
        [
            "arrays",
            "arrival",
            "bucket_owner",
            "consumer",
            "dataset",
            "documents",
            "endpoint",
            "external_id",
            "list_every",
            "name",
            "read",
            "region",
            "role_arn",
            "shards",
            "start",
            "url",
        ]
    );
    assert_eq!(checked(&DATASET.keys), ["file"]);
    for section in SECTIONS.iter() {
        assert!(!checked(&section.keys).is_empty(), "{}", section.name);
    }
}

#[test]
fn a_command_that_uses_no_leases_needs_no_lease_store() {
    let lake = Some("s3://the-lake".to_owned());
    let config = Config::load(&Overrides { lake, without_leases: true, ..Overrides::default() }).unwrap();
    assert_eq!((config.lake.to_string().as_str(), config.needs_aws_for_leases()), ("s3://the-lake", false));
}
