//! Files and folders as streams.
//!
//! Owns: which file is a shard or a part of one, and what its positions mean. Does not own: reading bytes (`input`), cutting them into
//! records (`lines`, `folder`), the order of a folder's files (`registry`), URL and checks (`backend`).
//!
//! | what | shard id | position |
//! |---|---|---|
//! | a file of lines: `.ndjson`, `.jsonl`, these with `.gz`/`.zst`, a bare `.gz`/`.zst` | its path | offset of the last byte read |
//! | all `.json` (`.json.gz`, `.json.zst`) of one folder: one document in each file, or lines | the folder's path and `/` | number of the file · 10¹² + offset |
//!
//! Offsets are in the decompressed text. The sequence number of a record is the offset of its first byte (plus its file's number ·
//! 10¹²), so it is in the range (after, through] that the record was read with.
//!
//! A plain file of lines may grow, and is followed. Compressed files and `.json` files count as complete when they are seen: write
//! them elsewhere and move them in. The shard of a compressed file ends; that of a plain file never does.
//!
//! Names that begin with `.` or `_` are ignored; what leaves the source is skipped with a warning (`list`). Limits: 10¹² bytes for
//! each file in a folder's shard, 18,000,000 files in a folder.

pub(in crate::source) mod backend;
mod folder;
mod input;
mod lines;
mod list;
mod registry;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, ShardId, StreamName};
use pipeline::documents::Documents;

use crate::clock::SharedClock;
use crate::lake::ObjectStore;
use crate::source::files::folder::{Folder, FolderReader};
use crate::source::files::lines::LinesReader;
use crate::source::files::list::{ShardPath, inside, list};
use crate::source::files::registry::Registry;
use crate::source::{Behind, ShardReader, ShardSource, SourceError, SourceShard};

/// How files are read.
#[derive(Clone)]
pub struct FilesConfig {
    /// Whether the files are complete as they are. Then a last line without a line end is a record, and `settle` does not apply.
    pub complete: bool,
    /// While files are followed: how long a `.json` file must not have changed before it counts as complete.
    pub settle: Duration,
    /// Bytes that a record may have. Of a longer line, this many are kept.
    pub record_bytes_max: usize,
    /// How many documents a line, or the text of a file, may have.
    pub documents: Documents,
    /// The time of day, compared with the last change of a file.
    pub clock: SharedClock,
}

/// A file, or a folder of files, as a stream.
pub struct FileSource {
    stream: StreamName,
    root: PathBuf,
    config: FilesConfig,
    lake: Arc<dyn ObjectStore>,
    /// Skipped paths that were logged.
    reported: Mutex<BTreeSet<PathBuf>>,
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource").field("stream", &self.stream).field("root", &self.root).finish_non_exhaustive()
    }
}

impl FileSource {
    /// The stream of a file or folder. By default its name is its URL. `lake` keeps the order of a folder's files.
    ///
    /// # Errors
    /// There is no such file or folder, or its name is not valid for a stream.
    pub fn open(
        path: &Path,
        name: Option<&str>,
        config: FilesConfig,
        lake: Arc<dyn ObjectStore>,
    ) -> Result<Self, SourceError> {
        let (stream, root) = Self::stream_of(path, name)?;
        Ok(FileSource { stream, root, config, lake, reported: Mutex::default() })
    }

    /// The stream's name of a file or folder, and its path without links.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn stream_of(path: &Path, name: Option<&str>) -> Result<(StreamName, PathBuf), SourceError> {
        let place = path.display().to_string();
        let unreadable = |problem: String| SourceError::Unreadable { place: place.clone(), problem };
        let root = path.canonicalize().map_err(|error| unreadable(error.to_string()))?;
        let shown = root.to_str().ok_or_else(|| unreadable("its path is not UTF-8".to_owned()))?;
        let url = format!("file://{shown}");
        let stream = StreamName::new(name.unwrap_or(&url)).map_err(|error| unreadable(error.to_string()))?;
        Ok((stream, root))
    }

    fn registry(&self, shard: &ShardId) -> Registry {
        Registry::new(Arc::clone(&self.lake), self.stream.clone(), shard.clone())
    }

    /// Logs once that a path is skipped.
    fn skip(&self, path: PathBuf, problem: &str) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if !reported.contains(&path) {
            tracing::warn!(stream = %self.stream, ?path, problem, "file skipped");
            reported.insert(path);
        }
    }

    fn path_of(&self, shard: &ShardId) -> Result<ShardPath, SourceError> {
        ShardPath::of_shard(&self.root, shard.as_str()).ok_or_else(|| SourceError::Unreadable {
            place: format!("shard {shard} of stream {}", self.stream),
            problem: "there is no such file or folder in the source".to_owned(),
        })
    }
}

#[async_trait]
impl ShardSource for FileSource {
    fn stream(&self) -> &StreamName {
        &self.stream
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        let root = self.root.clone();
        let listing = blocking(&self.stream, move || list(&root)).await?;
        for (path, problem) in listing.skipped {
            self.skip(path, problem);
        }
        let mut shards = Vec::new();
        for shard in listing.shards {
            // A name that is not a valid shard id must not prevent the others from being read.
            match shard.shard_id(&self.root) {
                Ok(id) => shards.push(SourceShard::alone(id)),
                Err(problem) => self.skip(shard.path().to_owned(), &problem),
            }
        }
        Ok(shards)
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let path = self.path_of(shard)?;
        let (stream, config) = (self.stream.clone(), self.config.clone());
        match path {
            ShardPath::Lines(path) => {
                let root = self.root.clone();
                let path = blocking(&format!("shard {shard} of stream {stream}"), move || inside(&root, &path)).await?;
                Ok(Box::new(LinesReader::open(path, stream, shard.clone(), after, config).await?))
            }
            ShardPath::Folder(path) => {
                let (folder, registry) = (Folder { root: self.root.clone(), path }, self.registry(shard));
                Ok(Box::new(FolderReader::open(folder, registry, stream, shard.clone(), after, config).await?))
            }
        }
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        if *position == Position::End {
            return Ok(Behind::Nothing);
        }
        match self.path_of(shard)? {
            ShardPath::Lines(path) => lines::behind(&self.stream, path, position).await,
            ShardPath::Folder(path) => {
                let folder = Folder { root: self.root.clone(), path };
                folder::behind(&self.stream, folder, &self.registry(shard), position).await
            }
        }
    }
}

/// Runs file work on the blocking pool.
async fn blocking<T: Send + 'static>(
    place: &impl std::fmt::Display,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    let place = place.to_string();
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| source_error(place, &error)),
        Err(error) => Err(SourceError::Unavailable { place, problem: error.to_string() }),
    }
}

fn source_error(place: String, error: &std::io::Error) -> SourceError {
    use std::io::ErrorKind as Kind;
    let problem = error.to_string();
    match error.kind() {
        Kind::NotFound
        | Kind::PermissionDenied
        | Kind::IsADirectory
        | Kind::NotADirectory
        | Kind::InvalidInput
        | Kind::InvalidData => SourceError::Unreadable { place, problem },
        _ => SourceError::Unavailable { place, problem },
    }
}

#[cfg(test)]
mod tests;
