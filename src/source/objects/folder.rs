//! Objects in a folder of this machine: its files, at any depth, each complete.
//!
//! Owns: listing them without holding them all, and noticing that a file is not what was listed. A file's ETag is its size and the time
//! of its last change. Symbolic links, hidden names, and what is not a regular file are left out. Does not own: which names are read
//! (`keys`).
//!
//! A writer must rename a complete file into the folder. A file that was written in place counts as complete once it has not changed
//! for two seconds; if it does change later, it is reported as any object that was overwritten.

use std::fs::{File, ReadDir};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::SharedClock;
use crate::source::SourceError;
use crate::source::objects::store::{Object, Pages, Part, Place};

/// Files of one page.
const PAGE: usize = 1_000;
/// How long a file must not have changed before it is listed, in milliseconds.
const SETTLE_MS: i64 = 2_000;

/// A folder.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// Every file is complete as it is.
    pub(super) complete: bool,
    pub(super) clock: SharedClock,
}

fn etag_of(metadata: &std::fs::Metadata) -> String {
    format!("{:x}-{:x}.{:x}", metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

fn millis_of(metadata: &std::fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000)
}

fn source_error(root: &Path, error: &io::Error) -> SourceError {
    let (place, problem) = (root.display().to_string(), error.to_string());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
            SourceError::Unreadable { place, problem }
        }
        _ => SourceError::Unavailable { place, problem },
    }
}

async fn blocking<T: Send + 'static>(
    root: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| source_error(root, &error)),
        Err(error) => Err(SourceError::Unavailable { place: root.display().to_string(), problem: error.to_string() }),
    }
}

#[async_trait]
impl Place for Folder {
    fn list(&self) -> Box<dyn Pages> {
        let settled_ms = if self.complete { i64::MAX } else { self.clock.now_ms().saturating_sub(SETTLE_MS) };
        Box::new(FolderPages { root: self.root.clone(), settled_ms, walk: Some(Walk::default()) })
    }

    async fn get(&self, object: &Object, range: Option<Range<u64>>) -> Result<Part, SourceError> {
        let path = self.root.join(&object.key);
        let (etag, bytes) = (object.etag.clone(), object.bytes);
        blocking(&self.root, move || read(&path, &etag, range.unwrap_or(0..bytes))).await
    }
}

fn read(path: &Path, etag: &str, range: Range<u64>) -> io::Result<Part> {
    let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Part::Gone);
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Part::Changed),
        Err(error) => return Err(error),
    };
    if etag_of(&file.metadata()?) != etag {
        return Ok(Part::Changed);
    }
    if range.start > 0 {
        file.seek(SeekFrom::Start(range.start))?;
    }
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(wanted);
    (&mut file).take(range.end - range.start).read_to_end(&mut bytes)?;
    // It may have been written while it was read.
    if bytes.len() != wanted || etag_of(&file.metadata()?) != etag {
        return Ok(Part::Changed);
    }
    Ok(Part::Bytes(Bytes::from(bytes)))
}

/// A walk through a folder: open folders, and folders that were found and not opened yet.
#[derive(Default)]
struct Walk {
    is_begun: bool,
    open: Option<(PathBuf, ReadDir)>,
    found: Vec<PathBuf>,
}

struct FolderPages {
    root: PathBuf,
    /// Files that changed later than this are left for the next list, in milliseconds since 1970.
    settled_ms: i64,
    /// `None` while it is on the blocking pool.
    walk: Option<Walk>,
}

#[async_trait]
impl Pages for FolderPages {
    async fn next(&mut self) -> Result<Option<Vec<Object>>, SourceError> {
        let (root, settled_ms) = (self.root.clone(), self.settled_ms);
        let mut walk = self.walk.take().unwrap_or_default();
        let (walk, page) = blocking(&self.root, move || {
            let page = walk.page(&root, settled_ms)?;
            Ok((walk, page))
        })
        .await?;
        self.walk = Some(walk);
        Ok((!page.is_empty()).then_some(page))
    }
}

impl Walk {
    /// The next files; none at the end. A folder's files of one page are in the order of their names.
    fn page(&mut self, root: &Path, settled_ms: i64) -> io::Result<Vec<Object>> {
        if !std::mem::replace(&mut self.is_begun, true) {
            // A folder that is gone is unavailable, and never empty.
            self.open = Some((PathBuf::new(), std::fs::read_dir(root)?));
        }
        let mut page = Vec::new();
        while page.len() < PAGE {
            let Some((folder, entries)) = &mut self.open else {
                let Some(next) = self.found.pop() else { break };
                match std::fs::read_dir(root.join(&next)) {
                    Ok(entries) => self.open = Some((next, entries)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                continue;
            };
            let Some(entry) = entries.next() else {
                self.open = None;
                // The last found is opened first: the first of them in the order of names.
                self.found.sort_unstable_by(|a, b| b.cmp(a));
                continue;
            };
            let entry = entry?;
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
            if name.starts_with(['.', '_']) {
                continue;
            }
            let path = folder.join(&name);
            if kind.is_dir() {
                self.found.push(path);
                continue;
            }
            let Some(key) = path.to_str().filter(|_| kind.is_file()) else { continue };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let modified_ms = millis_of(&metadata);
            if modified_ms > settled_ms {
                continue;
            }
            page.push(Object { key: key.to_owned(), etag: etag_of(&metadata), bytes: metadata.size(), modified_ms });
        }
        page.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(page)
    }
}
