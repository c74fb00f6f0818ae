//! Opening the world: lake, lease store, key and sources, as the configuration names them.

pub mod allocator;
pub mod aws;
pub mod permissions;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use bytes::Bytes;
use checkpoints::{DynamoStore, LeaseStore, SqliteStore, StoreError, StreamIds, StreamName};
use pipeline::anonymize::PseudonymKey;
use serde::{Deserialize, Serialize};

use crate::clock::{SharedClock, random_bytes};
use crate::commit::{CommitError, Stores, has_one_of, newest_manifests};
use crate::config::{CheckpointsUrl, Config, KeySource, LakeUrl, RawTo, SourceConfig, SourceUrl};
use crate::lake::{LakeError, LocalStore, ObjectKey, ObjectStore, S3Place, S3Store, SchemaError, number_fields};
use crate::raw::{FirehoseSink, RawError, RawSink};
use crate::retry::RetryPolicy;
use crate::setup::aws::Aws;
use crate::source::{Decode, FileSource, FilesConfig, KinesisConfig, KinesisSource, Limits, ShardSource, SourceError};

/// What opening can fail with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lease store.
    #[error(transparent)]
    Leases(#[from] StoreError),
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The raw landing.
    #[error(transparent)]
    Raw(#[from] RawError),
    /// The field ids of the lake's datasets.
    #[error(transparent)]
    Schemas(#[from] SchemaError),
    /// Reading lake or leases.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The key.
    #[error("the key of pseudonyms: {0}")]
    Key(String),
    /// A lake that should be there is not.
    #[error("{0}")]
    Missing(String),
    /// The lake belongs to something else.
    #[error("{0}")]
    NotThisLake(String),
}

/// How files are followed: a `.json` file must have been still for this long.
const SETTLE: Duration = Duration::from_secs(2);

/// How often a lake is looked into for what checkpoints name, if they change meanwhile.
const LOOKS_MAX: u32 = 3;

/// What the lake says about itself, in `_lake.json`.
#[derive(Debug, Serialize, Deserialize)]
struct LakeMark {
    format: u32,
    /// Pseudonym of a fixed text: tells one key from another, and nothing about it.
    key_fingerprint: String,
}

/// What a worker runs on.
pub struct Components {
    /// Lake and leases.
    pub stores: Stores,
    /// The streams, in the configuration's order.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// The clients' maker, if anything of AWS is used.
    pub aws: Option<Aws>,
}

/// Opens everything that a worker needs. The lake is the first, since what it says of itself may refuse the rest. The
/// fields of the configuration's datasets get their ids in this lake.
/// `complete`: what the files of a source hold now is all that there will be. `known`: the lake was found to be there; one in
/// a folder is not made anew if it has gone meanwhile.
///
/// # Errors
/// Something can't be opened, or the lake was written under another key.
pub async fn open(
    config: &mut Config,
    key: Option<&PseudonymKey>,
    clock: &SharedClock,
    complete: bool,
    known: bool,
) -> Result<Components, OpenError> {
    let aws = load_aws(config).await;
    let lake = match &config.lake {
        LakeUrl::Local(folder) if known => Arc::new(LocalStore::open_again(folder)?),
        _ => open_lake(config, aws.as_ref()).await?,
    };
    if let Some(key) = key {
        mark_lake(&*lake, key).await?;
    }
    let (sources, streams) = open_sources(config, &lake, clock, complete, aws.as_ref()).await?;
    let leases = open_leases(config, aws.as_ref(), streams).await?;
    let stores = Stores::new(lake, leases, RetryPolicy::default());
    number_fields(&*stores.lake, &mut config.datasets).await?;
    Ok(Components { stores, sources, aws })
}

/// Sees to it that checkpoints are not used with a lake that they were not committed in. Makes nothing. Answers whether the
/// lake is known to be there: it has what they were committed with.
///
/// # Errors
/// [`OpenError::NotThisLake`], with what to do; or lake or checkpoints can't be read.
pub async fn check_lake_matches_checkpoints(config: &Config, aws: Option<&Aws>) -> Result<bool, OpenError> {
    let retry = RetryPolicy::default();
    let leases = match open_existing_leases(config, aws).await {
        Ok(leases) => leases,
        // There are none, or none that could be used: opening them makes them, or says why.
        Err(OpenError::Missing(_) | OpenError::Leases(StoreError::Unusable { .. })) => return Ok(false),
        Err(error) => return Err(error),
    };
    // Opening a source says what is wrong with it.
    let streams = config.sources.iter().filter_map(|source| match &source.url {
        SourceUrl::Files(path) => Some(FileSource::stream_of(path, source.name.as_deref()).ok()?.0),
        SourceUrl::Kinesis(_) => StreamName::new(source.stream_name()?).ok(),
    });
    let streams: Vec<StreamName> = streams.collect();
    let mut names = newest_manifests(&*leases, &streams, &retry).await?;
    let mut looks = 1;
    let newest = loop {
        let Some(newest) = names.first() else { return Ok(false) };
        let lake: Option<Arc<dyn ObjectStore>> = match &config.lake {
            LakeUrl::Local(folder) => LocalStore::open_existing(folder).ok().map(|lake| Arc::new(lake) as _),
            LakeUrl::S3(_) => Some(open_lake(config, aws).await?),
        };
        if let Some(lake) = lake
            && has_one_of(&*lake, &names, &retry).await?
        {
            return Ok(true);
        }
        // A first epoch may have been rolled back meanwhile.
        let now = newest_manifests(&*leases, &streams, &retry).await?;
        if now == names || looks == LOOKS_MAX {
            break newest;
        }
        (names, looks) = (now, looks + 1);
    };
    Err(OpenError::NotThisLake(format!(
        "the checkpoints {} were committed in another lake: {} has neither intent nor commit record {newest}, and what was read until then \
         would never be in it. Bring that lake back, or name it with --lake; or, to go on from these checkpoints in a new \
         lake, start with --new-lake",
        config.checkpoints, config.lake,
    )))
}

/// Opens a lake that must be there, only to look at it.
///
/// # Errors
/// It can't be opened.
pub async fn open_existing(config: &Config) -> Result<Stores, OpenError> {
    let aws = load_aws(config).await;
    let lake = open_existing_lake(config, aws.as_ref()).await?;
    let leases = open_existing_leases(config, aws.as_ref()).await?;
    Ok(Stores::new(lake, leases, RetryPolicy::default()))
}

/// Opens a lake that must be there, without its lease table.
///
/// # Errors
/// It can't be opened.
pub async fn open_existing_lake(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    match &config.lake {
        LakeUrl::Local(folder) if !folder.is_dir() => {
            Err(OpenError::Missing(format!("there is no lake {}: name yours with --lake", folder.display())))
        }
        LakeUrl::Local(folder) => Ok(Arc::new(LocalStore::open_existing(folder)?)),
        LakeUrl::S3(_) => open_lake(config, aws).await,
    }
}

/// Opens a lease table that must be there, only to look at it.
///
/// # Errors
/// It can't be opened.
pub async fn open_existing_leases(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn LeaseStore>, OpenError> {
    match &config.checkpoints {
        CheckpointsUrl::Sqlite(path) if !path.is_file() => {
            Err(OpenError::Missing(format!("there is no {}: has a worker run on this lake?", path.display())))
        }
        CheckpointsUrl::Sqlite(path) => Ok(Arc::new(SqliteStore::open(path).await?)),
        CheckpointsUrl::DynamoDb(table) => {
            let client = needed(aws).dynamodb();
            Ok(Arc::new(DynamoStore::open_existing(client, table, only_stream(config, BTreeMap::new())).await?))
        }
    }
}

/// Where raw records go, if not into the lake.
///
/// # Errors
/// It is not there, or can't be reached.
pub async fn open_raw_sink(config: &Config, aws: Option<&Aws>) -> Result<Option<Arc<dyn RawSink>>, OpenError> {
    match (&config.output.raw_to, config.output.raw) {
        (RawTo::Firehose { delivery_stream }, Some(_)) => {
            let sink = FirehoseSink::new(needed(aws).firehose(), delivery_stream);
            sink.probe().await?;
            Ok(Some(Arc::new(sink)))
        }
        _ => Ok(None),
    }
}

/// The SDK's settings, if anything of the configuration needs them.
pub async fn load_aws(config: &Config) -> Option<Aws> {
    let needs = matches!(config.lake, LakeUrl::S3(_))
        || matches!(config.checkpoints, CheckpointsUrl::DynamoDb(_))
        || matches!(config.key, KeySource::SecretsManager(_))
        || matches!(config.output.raw_to, RawTo::Firehose { .. })
        || config.sources.iter().any(|source| matches!(source.url, SourceUrl::Kinesis(_)));
    if needs { Some(Aws::load().await) } else { None }
}

fn needed(aws: Option<&Aws>) -> &Aws {
    aws.expect("the SDK's settings were read, since the configuration names something of AWS")
}

async fn open_lake(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    match &config.lake {
        LakeUrl::Local(folder) => Ok(Arc::new(LocalStore::open(folder)?)),
        LakeUrl::S3(place) => {
            let place = S3Place { bucket: place.bucket.clone(), prefix: place.prefix.clone() };
            let store = S3Store::new(needed(aws).s3(), place, &config.s3)
                .map_err(|problem| OpenError::NotThisLake(problem.to_string()))?;
            store.probe().await?;
            Ok(Arc::new(store))
        }
    }
}

/// The streams' names in the lease table: a lone Kinesis stream has rows as a KCL application of one stream writes them.
fn only_stream(config: &Config, ids: BTreeMap<StreamName, String>) -> StreamIds {
    let mut kinesis = config.sources.iter().filter(|source| matches!(source.url, SourceUrl::Kinesis(_)));
    let bare = match (kinesis.next(), kinesis.next()) {
        (Some(only), None) => only.stream_name().and_then(|name| StreamName::new(name).ok()),
        _ => None,
    };
    StreamIds { ids, bare }
}

async fn open_leases(
    config: &Config,
    aws: Option<&Aws>,
    ids: BTreeMap<StreamName, String>,
) -> Result<Arc<dyn LeaseStore>, OpenError> {
    match &config.checkpoints {
        CheckpointsUrl::Sqlite(path) => Ok(Arc::new(SqliteStore::open(path).await?)),
        CheckpointsUrl::DynamoDb(table) => {
            let client = needed(aws).dynamodb();
            Ok(Arc::new(DynamoStore::open(client, table, only_stream(config, ids)).await?))
        }
    }
}

/// Makes the lease table, if it is not there.
///
/// # Errors
/// It can't be made, or what is there is no lease table.
pub async fn make_lease_table(config: &Config, aws: &Aws) -> Result<(), OpenError> {
    open_leases(config, Some(aws), BTreeMap::new()).await.map(drop)
}

/// Reads the key of pseudonyms; `Some` path if it was made just now.
///
/// # Errors
/// There is none, or it is too short.
pub async fn open_key(source: &KeySource, aws: Option<&Aws>) -> Result<(PseudonymKey, Option<PathBuf>), OpenError> {
    let KeySource::SecretsManager(id) = source else { return read_key_here(source) };
    let failed = |problem: String| OpenError::Key(format!("the secret {id}: {problem}"));
    let secret = needed(aws).secrets().get_secret_value().secret_id(id).send().await.map_err(|error| {
        failed(match error.code() {
            Some("AccessDeniedException") => {
                "access is denied: the worker needs secretsmanager:GetSecretValue".to_owned()
            }
            Some("ResourceNotFoundException") => "there is no such secret".to_owned(),
            // Not the error's whole context: an answer that can't be read would stand in it, and the secret in that.
            Some(code) => code.to_owned(),
            None => error.to_string(),
        })
    })?;
    let bytes = match (secret.secret_string(), secret.secret_binary()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(blob)) => blob.as_ref().to_vec(),
        (None, None) => return Err(failed("it is empty".to_owned())),
    };
    Ok((key_of(&bytes, &format!("the secret {id}"))?, None))
}

/// The key from where this machine has it.
fn read_key_here(source: &KeySource) -> Result<(PseudonymKey, Option<PathBuf>), OpenError> {
    let (bytes, place, made) = match source {
        KeySource::Env(name) => {
            let value = std::env::var(name)
                .map_err(|_| OpenError::Key(format!("the environment variable {name} is not set")))?;
            (value.into_bytes(), format!("the environment variable {name}"), None)
        }
        KeySource::File(path) => (read_key(path)?, path.display().to_string(), None),
        KeySource::SecretsManager(_) | KeySource::Missing => {
            return Err(OpenError::Key("none is configured: [anonymize] key says where it is".to_owned()));
        }
        KeySource::MadeFile(path) => {
            let made = make_key(path)?;
            (read_key(path)?, path.display().to_string(), made.then(|| path.clone()))
        }
    };
    Ok((key_of(&bytes, &place)?, made))
}

/// A key without the line end that a file ends with.
fn key_of(bytes: &[u8], place: &str) -> Result<PseudonymKey, OpenError> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    PseudonymKey::new(&bytes[..end]).map_err(|problem| OpenError::Key(format!("{place}: {problem}")))
}

fn read_key(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|error| OpenError::Key(format!("{} can't be read: {error}", path.display())))
}

/// Makes a key file that only its owner may read, unless there is one.
fn make_key(path: &Path) -> Result<bool, OpenError> {
    if path.exists() {
        return Ok(false);
    }
    let failed = |error: io::Error| OpenError::Key(format!("{} can't be made: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let key: [u8; 32] = random_bytes().map_err(failed)?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(file, "{hex}").map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        // Another process was first: its key is the key.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error.error)),
    }
}

/// Sees to it that a lake is written under one key only: another one would give every person a second pseudonym.
///
/// # Errors
/// The lake was written under another key.
pub async fn mark_lake(lake: &dyn ObjectStore, key: &PseudonymKey) -> Result<(), OpenError> {
    let fingerprint = String::from_utf8_lossy(&key.pseudonym(b"shardlake key fingerprint")).into_owned();
    let mark = LakeMark { format: 1, key_fingerprint: fingerprint };
    let place = ObjectKey::new("_lake.json").expect("a plain name");
    let bytes = serde_json::to_vec(&mark).expect("two plain fields");
    lake.put_new(&place, Bytes::from(bytes)).await?;
    let found = lake.get(&place).await?.unwrap_or_default();
    match serde_json::from_slice::<LakeMark>(&found) {
        Ok(found) if found.format != 1 => {
            Err(OpenError::NotThisLake(format!("the lake has format {}; this version writes format 1", found.format)))
        }
        Ok(found) if found.key_fingerprint != mark.key_fingerprint => Err(OpenError::NotThisLake(
            "the lake was written under another key of pseudonyms: with this one, every person would get a second \
             pseudonym; use the lake's own key, or a new lake"
                .to_owned(),
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(OpenError::NotThisLake(format!("{place} in the lake can't be read: {error}"))),
    }
}

/// Opens the sources, and gives KCL's names of those that are Kinesis streams. `complete`: what is there now is all that
/// there will be.
///
/// # Errors
/// One of them can't be opened, or two are one stream.
pub async fn open_sources(
    config: &Config,
    lake: &Arc<dyn ObjectStore>,
    clock: &SharedClock,
    complete: bool,
    aws: Option<&Aws>,
) -> Result<(Vec<Arc<dyn ShardSource>>, BTreeMap<StreamName, String>), OpenError> {
    let mut sources: Vec<Arc<dyn ShardSource>> = Vec::new();
    let mut ids = BTreeMap::new();
    let record_bytes_max = usize::try_from(config.limits.record_bytes).unwrap_or(usize::MAX);
    for SourceConfig { url, name, start, read, .. } in &config.sources {
        let source: Arc<dyn ShardSource> = match url {
            SourceUrl::Files(path) => {
                let files = FilesConfig { complete, settle: SETTLE, record_bytes_max, clock: Arc::clone(clock) };
                Arc::new(FileSource::open(path, name.as_deref(), files, Arc::clone(lake))?)
            }
            SourceUrl::Kinesis(stream) => {
                let kinesis = KinesisConfig {
                    stream: stream.clone(),
                    name: name.clone(),
                    start: *start,
                    mode: read.clone(),
                    record_bytes_max,
                    decode: Decode::Fast,
                    limits: Limits::default(),
                    clock: Arc::clone(clock),
                };
                let source = KinesisSource::open(needed(aws).kinesis(), kinesis, Arc::clone(lake)).await?;
                ids.insert(source.stream().clone(), source.serialized_id());
                Arc::new(source)
            }
        };
        if sources.iter().any(|other| other.stream() == source.stream()) {
            return Err(OpenError::NotThisLake(format!("two sources are one stream: {}", source.stream())));
        }
        sources.push(source);
    }
    Ok((sources, ids))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;

    #[test]
    fn a_key_is_made_once_for_its_owner_only_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/lake.pseudonym.key");
        let (first, made) = read_key_here(&KeySource::MadeFile(path.clone())).unwrap();
        assert_eq!(made.as_deref(), Some(path.as_path()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (second, made) = read_key_here(&KeySource::MadeFile(path.clone())).unwrap();
        assert_eq!(made, None);
        assert_eq!(first.pseudonym(b"x"), second.pseudonym(b"x"));
        let (third, _) = read_key_here(&KeySource::File(path)).unwrap();
        assert_eq!(first.pseudonym(b"x"), third.pseudonym(b"x"));
    }

    #[test]
    fn no_key_is_told_plainly() {
        let message_of = |source: KeySource| read_key_here(&source).unwrap_err().to_string();
        assert_eq!(
            message_of(KeySource::Env("SHARDLAKE_TEST_NO_SUCH_KEY".into())),
            "the key of pseudonyms: the environment variable SHARDLAKE_TEST_NO_SUCH_KEY is not set"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "short\n").unwrap();
        assert!(message_of(KeySource::File(path)).ends_with("the key has 5 bytes; it needs at least 16"));
    }

    #[tokio::test]
    async fn a_lake_keeps_to_one_key() {
        let lake = MemoryStore::new();
        let key = |byte| PseudonymKey::new(&[byte; 32]).unwrap();
        mark_lake(&lake, &key(1)).await.unwrap();
        mark_lake(&lake, &key(1)).await.unwrap();
        let message = mark_lake(&lake, &key(2)).await.unwrap_err().to_string();
        assert!(message.starts_with("the lake was written under another key"), "{message}");
    }
}
