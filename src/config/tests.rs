//! Tests of the configuration as a whole.

use super::*;

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
    let told = load(text).unwrap_err();
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        [
            "shardlake.toml:3: 'ftp://x' is no lake: write a folder",
            "shardlake.toml:13: key must be env:NAME or file:PATH; never write the key itself here",
            "shardlake.toml:11: codec is gzip or zstd, not 'brotli'",
            "shardlake.toml:5: 'soon' is no time: write '500ms', '10s', '5m' or '1h'",
            "shardlake.toml:6: unknown key 'intervall' in [commit]; did you mean 'interval'?",
            "shardlake.toml:9: threads must not be negative",
        ]
    );
}

#[test]
fn limits_that_can_not_work_are_refused() {
    let told = load("[limits]\nmemory = \"1 MiB\"\nthreads = 0\nopen_objects = 1\n").unwrap_err();
    assert!(told.contains("memory of 1.05 MB is too little: 64 MiB at least"), "{told}");
    assert!(told.contains("threads must be 1 to 1024, not 0"), "{told}");
    assert!(told.contains("open_objects must be 16 at least"), "{told}");
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
    assert_eq!(config.output, OutputConfig { file_bytes: 64 << 20, zstd_level: 3, raw: None });
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
    let told = Config::load(&Overrides { config: Some(path), ..Overrides::default() }).unwrap_err().to_string();
    assert!(told.contains("none.toml: can't be read"), "{told}");
    assert!(told.contains("there is no dataset 'orders'; known: events, assessments, users"), "{told}");
}
