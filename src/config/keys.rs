//! The table of keys of `shardlake.toml`.
//!
//! Owns: which sections and keys there are, with their kinds, defaults and documentation. Parsing, defaults, the flags of the
//! command line, `config check` and the tables in `docs/configuration.md` all come from here. Does not own: the keys of one kind of
//! source or lake (its `backend` file; they are listed here through the registry), rules between keys (`resolve`).
//!
//! To add a key: a field in `config`, an entry here, and the place that uses it. Then regenerate the documentation, as the test in
//! `docs` says.

mod output;
mod server;
mod telemetry;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use checkpoints::StreamName;

use crate::commit::is_internal_stream;
use crate::config::{KeySource, Settings, SourceSettings};
use crate::lake::backends::{self as lakes, LakeUrl};
use crate::lease_stores::{self, CheckpointsUrl};
use crate::settings::units::{parse_duration, write_duration};
use crate::settings::{Fallback, Key, Kind, Only, Setting, Within};
use crate::source::backends::{self as sources, SourceUrl};

/// The shortest interval between two scheduled checkpoints.
const CHECKPOINTS_EVERY_MIN: Duration = Duration::from_secs(60);

/// A section and its keys, in the order in which they are read and shown.
pub(crate) struct Section<S: 'static> {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) doc: &'static str,
    pub(crate) keys: Vec<Box<dyn Setting<S>>>,
}

impl<S> Section<S> {
    fn new(name: &'static str, doc: &'static str, keys: Vec<Key<S>>) -> Self {
        let keys = keys.into_iter().map(|key| Box::new(key) as Box<dyn Setting<S>>).collect();
        Section { name, doc, keys }
    }
}

/// The sections that a file may have once.
pub(crate) static SECTIONS: LazyLock<Vec<Section<Settings>>> = LazyLock::new(|| {
    let mut lake = Section::new("lake", "Where the lake is, and how its objects are stored.", lake_keys());
    lake.keys.extend(lakes::keys().into_iter().map(|(backend, key)| {
        let only: Only<Settings> = (backend, |settings| settings.lake.as_ref().map(|url| url.backend().name()));
        let key = Within { key, part: |settings: &mut Settings| &mut settings.lake_options, only: Some(only) };
        Box::new(key) as Box<dyn Setting<Settings>>
    }));
    let mut checkpoints = Section::new(
        "checkpoints",
        "Where positions and leases are kept, and which positions workers save under names.",
        checkpoints_keys(),
    );
    checkpoints.keys.extend(lease_stores::keys().into_iter().map(|(backend, key)| {
        let only: Only<Settings> = (backend, |settings| settings.checkpoints.as_ref().map(|url| url.backend().name()));
        let key = Within { key, part: |settings: &mut Settings| &mut settings.checkpoints_options, only: Some(only) };
        Box::new(key) as Box<dyn Setting<Settings>>
    }));
    vec![
        lake,
        checkpoints,
        Section::new("anonymize", "The pseudonym key.", anonymize_keys()),
        Section::new("raw", "Records as they were received, below `raw/`.", output::raw_keys()),
        Section::new("parquet", "The files in `processed/`.", output::parquet_keys()),
        Section::new("commit", "When what was read becomes visible.", commit_keys()),
        Section::new("leases", "How workers share the shards.", leases_keys()),
        Section::new("limits", "What bounds the worker.", limits_keys()),
        Section::new("stop", "How a worker ends after SIGTERM or SIGINT.", stop_keys()),
        Section::new(
            "history",
            "What operations on the lake have replaced, such as a promoted replay.",
            history_keys(),
        ),
        Section::new("telemetry", "What a worker says of itself.", telemetry::telemetry_keys()),
        Section::new("retry", "How long a worker waits for a service that fails or does not respond.", retry_keys()),
        Section::new(
            "server",
            "The status page, its JSON, metrics and health checks ([status-page.md](status-page.md)).",
            server::server_keys(),
        ),
    ]
});

/// `[[source]]`, which a file may have many times.
pub(crate) static SOURCE: LazyLock<Section<SourceSettings>> = LazyLock::new(|| {
    let mut source = Section::new("source", "Where records come from. May be repeated.", source_keys());
    source.keys.extend(sources::keys().into_iter().map(|(backend, key)| {
        let only: Only<SourceSettings> = (backend, |source| source.url.as_ref().map(|url| url.backend().name()));
        let key = Within { key, part: |source: &mut SourceSettings| &mut source.options, only: Some(only) };
        Box::new(key) as Box<dyn Setting<SourceSettings>>
    }));
    source
});

/// `[[dataset]]`, which a file may have many times.
pub(crate) static DATASET: LazyLock<Section<Option<PathBuf>>> =
    LazyLock::new(|| Section::new("dataset", "Definitions of datasets. May be repeated.", dataset_keys()));

fn source_keys() -> Vec<Key<SourceSettings>> {
    vec![
        Key {
            name: "url",
            kind: Kind::Text {
                form: "`kinesis://STREAM`, `kinesis://ARN`, `s3://BUCKET/PREFIX`, `objects://FOLDER`, a file or a folder",
                read: |source, text| {
                    source.url = Some(SourceUrl::parse(text)?);
                    Ok(())
                },
                show: |source| source.url.as_ref().map(ToString::to_string),
            },
            default: Fallback::Required,
            doc: "The stream, files (`.ndjson`, `.jsonl`, `.json`, each also `.gz` or `.zst`), or objects ([objects.md](objects.md)).",
        },
        Key {
            name: "name",
            kind: Kind::Text {
                form: "name",
                read: |source, text| {
                    let stream = StreamName::new(text).map_err(|error| error.to_string())?;
                    if is_internal_stream(&stream) {
                        return Err(format!(
                            "name must not be '{text}': operations on the lake and replays have such names"
                        ));
                    }
                    source.name = Some(text.to_owned());
                    Ok(())
                },
                show: |source| {
                    let own = source.url.as_ref().and_then(|url| url.backend().stream_name());
                    source.name.as_deref().or(own).map(str::to_owned)
                },
            },
            default: Fallback::Depends("the stream's name, or the URL of the files"),
            doc: "The stream's name in the lake. Positions are kept under it, so it must not change.",
        },
        Key {
            name: "dataset",
            kind: Kind::Text {
                form: "name of a dataset",
                read: |source, text| {
                    source.dataset = Some(text.to_owned());
                    Ok(())
                },
                show: |source| source.dataset.clone(),
            },
            default: Fallback::Depends("recognized for each record"),
            doc: "The dataset of all records of the source.",
        },
        Key {
            name: "documents",
            kind: Kind::Text {
                form: "`many` or `one`",
                read: |source, text| {
                    source.documents.many = match text {
                        "many" => true,
                        "one" => false,
                        other => return Err(format!("documents must be many or one, not '{other}'")),
                    };
                    Ok(())
                },
                show: |source| Some(if source.documents.many { "many" } else { "one" }.to_owned()),
            },
            default: Fallback::Is("many"),
            doc: "How many JSON documents a record may have ([documents.md](documents.md)). `many`: each document is a record, \
                  wherever it begins and ends. `one`: a line of a file, or a record of a stream, is one document.",
        },
        Key {
            name: "arrays",
            kind: Kind::Flag {
                read: |source, on| source.documents.arrays = on,
                show: |source| Some(source.documents.arrays),
            },
            default: Fallback::Is("false"),
            doc: "Whether arrays are opened, so that each element is a record. Otherwise an array is one dead letter. Needs \
                  `documents = \"many\"`.",
        },
    ]
}

fn dataset_keys() -> Vec<Key<Option<PathBuf>>> {
    vec![Key {
        name: "file",
        kind: Kind::Text {
            form: "path",
            read: |file, text| {
                *file = Some(PathBuf::from(text));
                Ok(())
            },
            show: |file| file.as_ref().map(|file| file.display().to_string()),
        },
        default: Fallback::Required,
        doc: "A definition, relative to the configuration file ([datasets.md](datasets.md)). One with the name of a shipped dataset \
          replaces it.",
    }]
}

fn lake_keys() -> Vec<Key<Settings>> {
    vec![Key {
        name: "url",
        kind: Kind::Text {
            form: "a folder, or `s3://BUCKET/PREFIX`",
            read: |settings, text| {
                settings.lake = Some(LakeUrl::parse(text)?);
                Ok(())
            },
            show: |settings| settings.lake.as_ref().map(ToString::to_string),
        },
        default: Fallback::Required,
        doc: "The lake. Without this section it is the folder `lake`.",
    }]
}

fn checkpoints_keys() -> Vec<Key<Settings>> {
    vec![
        Key {
            name: "url",
            kind: Kind::Text {
                form: CheckpointsUrl::FORM,
                read: |settings, text| {
                    settings.checkpoints = Some(CheckpointsUrl::parse(text)?);
                    Ok(())
                },
                show: |settings| settings.checkpoints.as_ref().map(ToString::to_string),
            },
            default: Fallback::Required,
            doc: "The lease store. Without this section it is `_checkpoints.db` in a local lake; a lake on S3 needs one.",
        },
        Key {
            name: "every",
            kind: Kind::Text {
                form: "`never` or a time",
                read: |settings, text| {
                    let every = if text == "never" { Duration::ZERO } else { parse_duration(text)? };
                    if text != "never" && every < CHECKPOINTS_EVERY_MIN {
                        return Err(format!("every must be at least 1m, or never, not '{text}'"));
                    }
                    settings.worker.checkpoints.every = every;
                    Ok(())
                },
                show: |settings| {
                    let every = settings.worker.checkpoints.every;
                    Some(if every.is_zero() { "never".to_owned() } else { write_duration(every) })
                },
            },
            default: Fallback::Is("never"),
            doc: "How often the positions of all shards are saved under a name, `auto-` and the time. In a fleet, one worker saves.",
        },
        Key {
            name: "keep",
            kind: Kind::Count(|settings| &mut settings.worker.checkpoints.keep, 1..=10_000),
            default: Fallback::Is("7"),
            doc: "How many of these are kept. What `checkpoints save` saved stays until `checkpoints delete`.",
        },
    ]
}

fn anonymize_keys() -> Vec<Key<Settings>> {
    vec![Key {
        name: "key",
        kind: Kind::Text {
            form: "`env:NAME`, `file:PATH` or `secretsmanager:ARN`",
            read: |settings, text| {
                settings.key = Some(KeySource::parse(text)?);
                Ok(())
            },
            show: |settings| settings.key.as_ref().and_then(KeySource::show),
        },
        default: Fallback::Required,
        doc: "Where the pseudonym key is, never the key itself. It has at least 16 bytes. Without this section it is a file \
          beside a local lake, made at the first start; a lake on S3 needs one.",
    }]
}

fn commit_keys() -> Vec<Key<Settings>> {
    vec![
        Key {
            name: "interval",
            kind: Kind::Time(|settings| &mut settings.worker.commit.interval, Duration::from_millis(100)),
            default: Fallback::Is("5m"),
            doc: "How often what was read is committed, which is how old the lake may be. Shorter: fresher data, smaller files.",
        },
        Key {
            name: "input_bytes",
            kind: Kind::Size(|settings| &mut settings.worker.commit.input_bytes, 1..=u64::MAX),
            default: Fallback::Is("16 GiB"),
            doc: "Commit earlier after this much input. It bounds what is read again after a crash.",
        },
    ]
}

fn leases_keys() -> Vec<Key<Settings>> {
    vec![
        Key {
            name: "failover",
            kind: Kind::Time(|settings| &mut settings.worker.leases.failover, Duration::from_millis(500)),
            default: Fallback::Is("10s"),
            doc: "A worker that is silent for this long loses its shards.",
        },
        Key {
            name: "hand_off",
            kind: Kind::Time(|settings| &mut settings.worker.leases.hand_off, Duration::ZERO),
            default: Fallback::Is("30s"),
            doc: "How long a worker that is asked for a shard may take to commit what it has read of it.",
        },
    ]
}

fn limits_keys() -> Vec<Key<Settings>> {
    vec![
        Key {
            name: "memory",
            kind: Kind::Size(|settings| &mut settings.worker.limits.memory, 64 << 20..=u64::MAX),
            default: Fallback::Is("512 MiB"),
            doc: "Memory for records, rows and encoded parts. More memory: larger row groups, fewer and better compressed.",
        },
        Key {
            name: "threads",
            kind: Kind::Count(|settings| &mut settings.worker.limits.threads, 1..=1024),
            default: Fallback::Depends("one for each core"),
            doc: "Threads that decode and encode.",
        },
        Key {
            name: "record_bytes",
            kind: Kind::Size(|settings| &mut settings.worker.limits.record_bytes, 1 << 10..=1 << 28),
            default: Fallback::Is("10 MiB"),
            doc: "The largest record; larger ones are dead letters. At most an eighth of `memory`.",
        },
        Key {
            name: "open_objects",
            kind: Kind::Count(|settings| &mut settings.worker.limits.open_objects, 16..=usize::MAX),
            default: Fallback::Is("512"),
            doc: "Files of an epoch that may be open at once. More: fewer small files if rows of very many partitions come mixed; each \
              open file keeps its footer in memory.",
        },
    ]
}

fn history_keys() -> Vec<Key<Settings>> {
    vec![Key {
        name: "undo_within",
        kind: Kind::Time(|settings| &mut settings.undo_within, Duration::from_secs(3600)),
        default: Fallback::Is("168h"),
        doc: "How long what an operation has replaced is kept below `_trash/`. Until then it can be undone. `shardlake sweep` removes it \
              afterwards, counted from the newest change of the lake.",
    }]
}

fn stop_keys() -> Vec<Key<Settings>> {
    vec![Key {
        name: "within",
        kind: Kind::Time(|settings| &mut settings.worker.stop.within, Duration::from_secs(1)),
        default: Fallback::Is("25s"),
        doc: "How long a worker may take to end after SIGTERM or SIGINT: it commits what it has read and releases its leases. Keep it \
          below what the platform allows, which is 30 s on ECS and Kubernetes. What is not committed by then is read again.",
    }]
}

fn retry_keys() -> Vec<Key<Settings>> {
    vec![Key {
        name: "within",
        kind: Kind::Time(|settings| &mut settings.worker.retry.within, Duration::from_secs(1)),
        default: Fallback::Is("5m"),
        doc: "What may pass (throttling, errors of the service, no response, expired credentials) is retried for this long: by calls to S3, \
          DynamoDB, Kinesis, Firehose and Secrets Manager, also at the start and at a commit. Then the worker ends with exit code 1. A shard \
          that makes no progress for this long is released. Leases are kept meanwhile, and reading waits once the memory is full.",
    }]
}

/// The entry of a key.
///
/// # Panics
/// There is no such key: a fault of the program.
pub(crate) fn find(section: &str, name: &str) -> &'static dyn Setting<Settings> {
    let mut keys = SECTIONS.iter().filter(|found| found.name == section).flat_map(|section| &section.keys);
    &**keys.find(|key| key.name() == name).expect("the table has every key that the program names")
}
