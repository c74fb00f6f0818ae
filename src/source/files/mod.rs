//! Files and folders as streams.
//!
//! Owns: what the shards of a source are, and what their positions mean. Does not own:
//!
//! - finding files (`list`), what a file is (`identity`), which file is which shard (`matching`, `catalog`), scanning (`scans`);
//! - which files of a folder are read, and in which order (`numbering`, `registry`);
//! - reading bytes (`input`), following a file of lines (`follow`), cutting it into records (`lines`, `folder`);
//! - what is left unread (`unread`), URL and checks (`backend`).
//!
//! | what | shard id | position |
//! |---|---|---|
//! | a file of lines: `.ndjson`, `.jsonl`, no ending; these with `.gz`/`.zst`; a bare `.gz`/`.zst` | its first path; of a later file of that name, with `//2` | offset of the last byte read |
//! | all `.json` (`.json.gz`, `.json.zst`) of one folder: one document in each file, or lines | the folder's path and `/` | number of the file · 10¹² + offset |
//!
//! Offsets are in the decompressed text. The sequence number of a record is the offset of its first byte (plus its file's number ·
//! 10¹²), so it is in the range (after, through] that the record was read with.
//!
//! A plain file of lines may grow, and is followed; a run that ends when it has caught up reads what the file had when it was opened. A shard is a file and not a name: it keeps its shard when it is renamed, and another
//! file of its name is another shard. Compressed files and `.json` files are complete once they have settled. If one grows later, the
//! new content is a part of its own. If one is replaced, the new file is read from its start.
//!
//! Names that begin with `.` or `_` are ignored; what leaves the source is skipped with a warning (`list`). Limits: 10¹² bytes for
//! each file in a folder's shard, 18,000,000 files in a folder.

pub(in crate::source) mod backend;
mod catalog;
mod folder;
mod follow;
mod identity;
mod input;
mod lines;
mod list;
mod matching;
mod numbering;
mod registry;
mod scans;
mod unread;

pub(in crate::source) use list::{ending_of, kind_of};
pub(crate) use unread::names_sentence;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, ShardId, StreamName};
use pipeline::documents::Documents;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::lake::ObjectStore;
use crate::source::files::catalog::Catalog;
use crate::source::files::folder::{Folder, FolderReader};
use crate::source::files::follow::LinesReader;
use crate::source::files::list::Root;
use crate::source::files::registry::Registry;
use crate::source::files::unread::Unread;
use crate::source::text::arrival_of;
use crate::source::text::complete::TextConfig;
use crate::source::{Behind, ShardReader, ShardSource, SourceError, SourceReport, SourceShard};

/// What the arrival time of a file's records is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Arrival {
    /// The file's modification time, unless a record shows that it cannot be.
    #[default]
    Modified,
    /// The time of reading.
    Now,
}

/// How files are read.
#[derive(Clone)]
pub struct FilesConfig {
    /// Whether the files are complete as they are. Then a last line without a line end is a record if it is a complete document, and
    /// no file waits until it has settled.
    pub complete: bool,
    /// While files are followed: how long a compressed or `.json` file must not have changed before it counts as complete.
    pub settle: Duration,
    /// While files are followed: how long a file that ends unexpectedly, or that is gone, must not have changed before it is final.
    pub patience: Duration,
    /// Bytes that a record may have. Of a longer line, this many are kept.
    pub record_bytes_max: usize,
    /// How many documents a line, or the text of a file, may have.
    pub documents: Documents,
    /// What the arrival time of records is.
    pub arrival: Arrival,
    /// The time of day, compared with the last change of a file.
    pub clock: SharedClock,
}

impl FilesConfig {
    /// How texts are cut.
    fn text(&self) -> TextConfig {
        TextConfig { record_bytes_max: self.record_bytes_max, documents: self.documents }
    }

    /// The arrival time of the records of a file, and the time of reading, in milliseconds since 1970.
    fn arrival_ms(&self, modified_ms: i64) -> (i64, i64) {
        let now = self.clock.now_ms();
        (if self.arrival == Arrival::Modified { arrival_of(modified_ms, now) } else { now }, now)
    }
}

/// A file, or a folder of files, as a stream.
pub struct FileSource {
    shared: Arc<Shared>,
}

/// What a source and its readers share.
struct Shared {
    stream: StreamName,
    root: Root,
    config: FilesConfig,
    lake: Arc<dyn ObjectStore>,
    catalog: Catalog,
    unread: Unread,
    /// One scan at a time; when the last one began.
    scanning: tokio::sync::Mutex<Option<Instant>>,
    /// Why the last scan could not record new files.
    not_recorded: Mutex<Option<SourceError>>,
    /// Skipped paths that were logged.
    reported: Mutex<BTreeSet<PathBuf>>,
    /// The length of each text when it was seen first, if reading ends there although a file grows.
    bounds: Mutex<HashMap<ShardId, u64>>,
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { stream, root, .. } = &*self.shared;
        f.debug_struct("FileSource").field("stream", stream).field("root", root).finish_non_exhaustive()
    }
}

impl FileSource {
    /// The stream of a file or folder. By default its name is its URL. `lake` keeps which file is which shard.
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
        let shared = Shared {
            catalog: Catalog::new(Arc::clone(&lake), stream.clone()),
            stream,
            root: Root::new(root),
            config,
            lake,
            unread: Unread::default(),
            scanning: tokio::sync::Mutex::default(),
            not_recorded: Mutex::default(),
            reported: Mutex::default(),
            bounds: Mutex::default(),
        };
        Ok(FileSource { shared: Arc::new(shared) })
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
}

impl Shared {
    fn registry(&self, shard: &ShardId) -> Registry {
        Registry::new(Arc::clone(&self.lake), self.stream.clone(), shard.clone())
    }

    fn io_error(&self, error: &std::io::Error) -> SourceError {
        source_error(format!("a file of stream {}", self.stream), error)
    }

    /// Where reading of a growing file ends: what it has now, when it is asked about for the first time. `None` if it is followed.
    fn bound(&self, shard: &ShardId, bytes: u64) -> Option<u64> {
        let mut bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        self.config.complete.then(|| *bounds.entry(shard.clone()).or_insert(bytes))
    }

    /// Logs once that a path is skipped.
    fn skip(&self, path: PathBuf, problem: &str) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if !reported.contains(&path) {
            tracing::warn!(stream = %self.stream, ?path, problem, "file skipped");
            reported.insert(path);
        }
    }
}

#[async_trait]
impl ShardSource for FileSource {
    fn stream(&self) -> &StreamName {
        &self.shared.stream
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        Ok(self.shared.scan().await?.into_iter().map(SourceShard::alone).collect())
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let shared = Arc::clone(&self.shared);
        if let Some(path) = shared.root.folder_of(shard.as_str()) {
            let folder = Folder { root: shared.root.path.clone(), path };
            return Ok(Box::new(FolderReader::open(folder, shared, shard.clone(), after).await?));
        }
        Ok(Box::new(LinesReader::open(shared, shard.clone(), after).await?))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        if *position == Position::End {
            return Ok(Behind::Nothing);
        }
        if let Some(path) = self.shared.root.folder_of(shard.as_str()) {
            let folder = Folder { root: self.shared.root.path.clone(), path };
            return folder::behind(&self.shared, folder, shard, position).await;
        }
        follow::behind(&self.shared, shard, position).await
    }

    fn report(&self) -> SourceReport {
        self.shared.unread.report(&self.shared.stream)
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
