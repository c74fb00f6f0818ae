//! Opening the world: lake, lease store, key and sources, as the configuration names them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use checkpoints::{LeaseStore, SqliteStore, StoreError};
use pipeline::anonymize::PseudonymKey;
use serde::{Deserialize, Serialize};

use crate::clock::{SharedClock, random_bytes};
use crate::commit::Stores;
use crate::config::{CheckpointsUrl, Config, KeySource, LakeUrl, SourceConfig, SourceUrl};
use crate::lake::{LakeError, LocalStore, ObjectKey, ObjectStore};
use crate::retry::RetryPolicy;
use crate::source::{FileSource, FilesConfig, ShardSource, SourceError};

/// What opening can fail with.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lease store.
    #[error(transparent)]
    Leases(#[from] StoreError),
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
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

/// What the lake says about itself, in `_lake.json`.
#[derive(Debug, Serialize, Deserialize)]
struct LakeMark {
    format: u32,
    /// Pseudonym of a fixed text: tells one key from another, and nothing about it.
    key_fingerprint: String,
}

/// Opens lake and leases to write to them.
///
/// # Errors
/// Either can't be opened.
pub async fn open_stores(config: &Config) -> Result<Stores, WorldError> {
    let LakeUrl::Local(folder) = &config.lake;
    let lake = LocalStore::open(folder)?;
    let leases = open_leases(config).await?;
    Ok(Stores { lake: Arc::new(lake), leases, retry: RetryPolicy::default() })
}

/// Opens a lake that must be there, only to read it.
///
/// # Errors
/// It can't be opened.
pub async fn open_existing(config: &Config) -> Result<Stores, WorldError> {
    let LakeUrl::Local(folder) = &config.lake;
    if !folder.is_dir() {
        return Err(WorldError::Missing(format!("there is no lake {}: name yours with --lake", folder.display())));
    }
    let lake = LocalStore::open_existing(folder)?;
    let CheckpointsUrl::Sqlite(path) = &config.checkpoints;
    if !path.is_file() {
        return Err(WorldError::Missing(format!("there is no {}: has a worker run on this lake?", path.display())));
    }
    Ok(Stores { lake: Arc::new(lake), leases: open_leases(config).await?, retry: RetryPolicy::default() })
}

async fn open_leases(config: &Config) -> Result<Arc<dyn LeaseStore>, WorldError> {
    let CheckpointsUrl::Sqlite(path) = &config.checkpoints;
    Ok(Arc::new(SqliteStore::open(path).await?))
}

/// The key of pseudonyms; `Some` path if it was made just now.
///
/// # Errors
/// There is none, or it is too short.
pub fn open_key(source: &KeySource) -> Result<(PseudonymKey, Option<PathBuf>), WorldError> {
    let (bytes, place, made) = match source {
        KeySource::Env(name) => {
            let value = std::env::var(name)
                .map_err(|_| WorldError::Key(format!("the environment variable {name} is not set")))?;
            (value.into_bytes(), format!("the environment variable {name}"), None)
        }
        KeySource::File(path) => (read_key(path)?, path.display().to_string(), None),
        KeySource::MadeFile(path) => {
            let made = make_key(path)?;
            (read_key(path)?, path.display().to_string(), made.then(|| path.clone()))
        }
    };
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    let key = PseudonymKey::new(&bytes[..end]).map_err(|problem| WorldError::Key(format!("{place}: {problem}")))?;
    Ok((key, made))
}

fn read_key(path: &Path) -> Result<Vec<u8>, WorldError> {
    std::fs::read(path).map_err(|error| WorldError::Key(format!("{} can't be read: {error}", path.display())))
}

/// Makes a key file that only its owner may read, unless there is one.
fn make_key(path: &Path) -> Result<bool, WorldError> {
    if path.exists() {
        return Ok(false);
    }
    let failed = |error: io::Error| WorldError::Key(format!("{} can't be made: {error}", path.display()));
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
pub async fn mark_lake(lake: &dyn ObjectStore, key: &PseudonymKey) -> Result<(), WorldError> {
    let fingerprint = String::from_utf8_lossy(&key.pseudonym(b"shardlake key fingerprint")).into_owned();
    let mark = LakeMark { format: 1, key_fingerprint: fingerprint };
    let place = ObjectKey::new("_lake.json").expect("a plain name");
    let bytes = serde_json::to_vec(&mark).expect("two plain fields");
    lake.put_new(&place, Bytes::from(bytes)).await?;
    let found = lake.get(&place).await?.unwrap_or_default();
    match serde_json::from_slice::<LakeMark>(&found) {
        Ok(found) if found.format != 1 => {
            Err(WorldError::NotThisLake(format!("the lake has format {}; this version writes format 1", found.format)))
        }
        Ok(found) if found.key_fingerprint != mark.key_fingerprint => Err(WorldError::NotThisLake(
            "the lake was written under another key of pseudonyms: with this one, every person would get a second \
             pseudonym; use the lake's own key, or a new lake"
                .to_owned(),
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(WorldError::NotThisLake(format!("{place} in the lake can't be read: {error}"))),
    }
}

/// Opens the sources. `complete`: what is there now is all that there will be.
///
/// # Errors
/// One of them can't be opened, or two are one stream.
pub fn open_sources(
    config: &Config,
    lake: &Arc<dyn ObjectStore>,
    clock: &SharedClock,
    complete: bool,
) -> Result<Vec<Arc<dyn ShardSource>>, WorldError> {
    let mut sources: Vec<Arc<dyn ShardSource>> = Vec::new();
    for SourceConfig { url, name, .. } in &config.sources {
        let SourceUrl::Files(path) = url;
        let files = FilesConfig {
            complete,
            settle: SETTLE,
            record_bytes_max: usize::try_from(config.limits.record_bytes).unwrap_or(usize::MAX),
            clock: Arc::clone(clock),
        };
        let source = FileSource::open(path, name.as_deref(), files, Arc::clone(lake))?;
        if sources.iter().any(|other| other.stream() == source.stream()) {
            return Err(WorldError::NotThisLake(format!("two sources are one stream: {}", source.stream())));
        }
        sources.push(Arc::new(source));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;

    #[test]
    fn a_key_is_made_once_for_its_owner_only_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/lake.pseudonym.key");
        let (first, made) = open_key(&KeySource::MadeFile(path.clone())).unwrap();
        assert_eq!(made.as_deref(), Some(path.as_path()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (second, made) = open_key(&KeySource::MadeFile(path.clone())).unwrap();
        assert_eq!(made, None);
        assert_eq!(first.pseudonym(b"x"), second.pseudonym(b"x"));
        let (third, _) = open_key(&KeySource::File(path)).unwrap();
        assert_eq!(first.pseudonym(b"x"), third.pseudonym(b"x"));
    }

    #[test]
    fn no_key_is_told_plainly() {
        let told = |source: KeySource| open_key(&source).unwrap_err().to_string();
        assert_eq!(
            told(KeySource::Env("SHARDLAKE_TEST_NO_SUCH_KEY".into())),
            "the key of pseudonyms: the environment variable SHARDLAKE_TEST_NO_SUCH_KEY is not set"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "short\n").unwrap();
        assert!(told(KeySource::File(path)).ends_with("the key has 5 bytes; it needs at least 16"));
    }

    #[tokio::test]
    async fn a_lake_keeps_to_one_key() {
        let lake = MemoryStore::new();
        let key = |byte| PseudonymKey::new(&[byte; 32]).unwrap();
        mark_lake(&lake, &key(1)).await.unwrap();
        mark_lake(&lake, &key(1)).await.unwrap();
        let told = mark_lake(&lake, &key(2)).await.unwrap_err().to_string();
        assert!(told.starts_with("the lake was written under another key"), "{told}");
    }
}
