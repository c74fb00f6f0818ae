//! A lake in a folder.
//!
//! Owns: how the protocol's terms map to files. An upload is a file `_staging/<upload id>`, made complete by a hard link to
//! its place, which is atomic and never replaces a file; then the staged name is removed. A crash between the two leaves
//! both names, and completing again finds the place taken.
//!
//! [`flush`](crate::lake::ObjectStore::flush) syncs what was written since the last one: file by file, or, where there
//! are many, the whole file system at once. Does not own: the checkpoint database beside the lake.
//!
//! A file that is not there is told apart from a lake that is not there: a folder that was moved away, or whose disk was
//! unmounted, has lost no upload and no object, and nothing is made in its place; nor is anything written into another
//! folder that somebody put there. (Looking and writing are two calls: a folder that is exchanged between them gets one file.)
//!
//! Limits: one machine. File systems without hard links are refused when the lake is opened.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;

use crate::lake::{
    Checksum, Checksummer, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, UploadId,
    UploadInfo, Written,
};

/// Where uploads wait, below the lake.
const STAGING: &str = "_staging";
/// Names that were written from which on the whole file system is synced at once.
const SYNC_ALL_FROM: usize = 64;

/// A lake in a folder. Clones share it.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// What is there as long as the lake is: where uploads wait, or at least the folder itself.
    sign: PathBuf,
    /// Which folder that was when the lake was opened.
    identity: Option<Identity>,
    /// Files and folders that were written and not yet synced.
    unsynced: Mutex<BTreeSet<PathBuf>>,
}

impl LocalStore {
    /// Opens the lake in a folder, making the folder if it is not there.
    ///
    /// # Errors
    /// The folder can't be made or written, or its file system has no hard links.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LakeError> {
        Self::open_with(root.into(), |staging| fs::create_dir_all(staging))
    }

    /// Opens a lake that is known to be in a folder; of that, nothing is made but what a copy may lack.
    ///
    /// # Errors
    /// As [`open`](Self::open), and there is no lake.
    pub fn open_again(root: impl Into<PathBuf>) -> Result<Self, LakeError> {
        Self::open_with(root.into(), |staging| match staging.is_dir() {
            true => Ok(()),
            false => fs::create_dir(staging),
        })
    }

    fn open_with(root: PathBuf, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<Self, LakeError> {
        let operation = format!("open the lake {}", root.display());
        let refused =
            |error: &io::Error| LakeError::Refused { operation: operation.clone(), problem: error.to_string() };
        let sign = root.join(STAGING);
        make(&sign).map_err(|error| refused(&error))?;
        let identity = identity(&sign).map_err(|error| refused(&error))?;
        let inner = Inner { sign, identity, root, unsynced: Mutex::default() };
        inner.probe_links().map_err(|error| LakeError::Refused {
            operation,
            problem: format!("{error}; a lake needs a folder that can be written, on a file system with hard links"),
        })?;
        Ok(LocalStore { inner: Arc::new(inner) })
    }

    /// Opens a lake only to read it.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn open_existing(root: impl Into<PathBuf>) -> Result<Self, LakeError> {
        let root = root.into();
        if root.is_dir() {
            let staging = root.join(STAGING);
            // A lake that was copied may have none.
            let sign = if staging.is_dir() { staging } else { root.clone() };
            let identity = identity(&sign).ok().flatten();
            return Ok(LocalStore { inner: Arc::new(Inner { root, sign, identity, unsynced: Mutex::default() }) });
        }
        let operation = format!("open the lake {}", root.display());
        Err(LakeError::Refused { operation, problem: "there is no such folder".to_owned() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Runs file work on the blocking pool.
    async fn run<T: Send + 'static>(
        &self,
        operation: String,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LakeError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result.map_err(|error| lake_error(operation, &error)),
            Err(error) => Err(LakeError::Unavailable { operation, problem: error.to_string() }),
        }
    }
}

impl Inner {
    /// An error if the lake as a whole is not where it was.
    fn is_there(&self) -> io::Result<()> {
        let what = match identity(&self.sign)? {
            found if found.is_some() && found == self.identity => return Ok(()),
            None => "is not there any more",
            Some(_) => "was moved away, and another one is in its place",
        };
        let problem = format!("the lake {} {what}; bring it back and start again", self.root.display());
        Err(io::Error::new(io::ErrorKind::NotFound, problem))
    }

    /// The answer of a call that found no file: there is none, if there is a lake.
    fn none<T>(&self, answer: T) -> io::Result<T> {
        self.is_there().map(|()| answer)
    }

    fn place(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn staged(&self, id: &UploadId) -> io::Result<PathBuf> {
        // The id comes back from manifests: it must be a plain name.
        let plain = !id.0.is_empty() && id.0.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if plain {
            Ok(self.root.join(STAGING).join(&id.0))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{}' is no upload id", id.0)))
        }
    }

    fn note_unsynced(&self, path: PathBuf) {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    /// Makes the folders above a path, noting those that are new.
    fn make_folders(&self, path: &Path) -> io::Result<()> {
        let Some(folder) = path.parent() else { return Ok(()) };
        if !folder.is_dir() {
            self.is_there()?;
            let mut missing = folder;
            fs::create_dir_all(folder)?;
            while missing.starts_with(&self.root) {
                self.note_unsynced(missing.to_owned());
                let Some(above) = missing.parent() else { break };
                missing = above;
            }
        }
        self.note_unsynced(folder.to_owned());
        Ok(())
    }

    /// Writes a file whole and durably, if there is none of its name.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<Written> {
        self.is_there()?;
        self.make_folders(path)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("put-");
        // As every other file of the lake: what the umask allows.
        #[cfg(unix)]
        let builder = builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut temporary = builder.tempfile_in(self.root.join(STAGING))?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        let written = match fs::hard_link(temporary.path(), path) {
            Ok(()) => Written::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Written::KeyTaken,
            Err(error) => return Err(error),
        };
        drop(temporary);
        // The name must be durable as well, and with it the folders that were made for it.
        self.sync()?;
        Ok(written)
    }

    fn complete(&self, key: &ObjectKey, id: &UploadId) -> io::Result<Completion> {
        let (staged, place) = (self.staged(id)?, self.place(key));
        self.make_folders(&place)?;
        match fs::hard_link(&staged, &place) {
            Ok(()) => {
                fs::remove_file(&staged)?;
                Ok(Completion::Completed)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A crash may have come between the link and the removal: then both names are one file.
                if same_file(&staged, &place)? {
                    fs::remove_file(&staged)?;
                    return Ok(Completion::Completed);
                }
                if staged.exists() { Ok(Completion::KeyTaken) } else { self.none(Completion::NoSuchUpload) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.none(Completion::NoSuchUpload),
            Err(error) => Err(error),
        }
    }

    /// Removes a file; one that is gone is fine.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.none(()),
            other => other,
        }
    }

    fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        let result = self.sync_all_of(&unsynced);
        if result.is_err() {
            self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).extend(unsynced);
        }
        result
    }

    fn sync_all_of(&self, unsynced: &BTreeSet<PathBuf>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if unsynced.len() >= SYNC_ALL_FROM {
            self.is_there()?;
            return Ok(rustix::fs::syncfs(File::open(&self.root)?)?);
        }
        for path in unsynced {
            match File::open(path) {
                Ok(file) => file.sync_all()?,
                // Aborted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.is_there()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn probe_links(&self) -> io::Result<()> {
        let probe = tempfile::Builder::new().prefix("probe-").tempfile_in(self.root.join(STAGING))?;
        let link = probe.path().with_extension("link");
        fs::hard_link(probe.path(), &link)?;
        fs::remove_file(link)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    fn part_bytes_min(&self) -> usize {
        1
    }

    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError> {
        let id = UploadId(id_hint.to_owned());
        let begun = id.clone();
        self.run(format!("begin the upload of {key}"), move |inner| {
            inner.is_there()?;
            OpenOptions::new().write(true).create(true).truncate(true).open(inner.staged(&id)?).map(drop)
        })
        .await?;
        Ok(begun)
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        let id = id.clone();
        let NewPart { number, offset, bytes } = part;
        self.run(format!("upload part {number} of {key}"), move |inner| {
            inner.is_there()?;
            let path = inner.staged(&id)?;
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(&bytes)?;
            inner.note_unsynced(path);
            Ok(Part { number, tag: String::new() })
        })
        .await
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, _: &[Part]) -> Result<Completion, LakeError> {
        let (for_work, id) = (key.clone(), id.clone());
        self.run(format!("complete the upload of {key}"), move |inner| inner.complete(&for_work, &id)).await
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        let id = id.clone();
        self.run(format!("abort the upload of {key}"), move |inner| inner.remove(&inner.staged(&id)?)).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        self.run("list the uploads".to_owned(), |inner| {
            let entries = match fs::read_dir(inner.root.join(STAGING)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return inner.none(Vec::new()),
                Err(error) => return Err(error),
            };
            let mut uploads = Vec::new();
            for entry in entries {
                let entry = entry?;
                if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) {
                    uploads.push(UploadInfo { key: None, id: UploadId(name), begun_ms: modified_ms(&metadata) });
                }
            }
            uploads.sort_by(|left, right| left.id.cmp(&right.id));
            Ok(uploads)
        })
        .await
    }

    async fn flush(&self) -> Result<(), LakeError> {
        self.run("sync the lake".to_owned(), Inner::sync).await
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        let for_work = key.clone();
        self.run(format!("write {key}"), move |inner| inner.write_new(&inner.place(&for_work), &bytes)).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        let for_work = key.clone();
        self.run(format!("read {key}"), move |inner| match fs::read(inner.place(&for_work)) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => inner.none(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        let for_work = key.clone();
        self.run(format!("read {key}"), move |inner| {
            let mut file = match File::open(inner.place(&for_work)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return inner.none(None),
                Err(error) => return Err(error),
            };
            let mut checksummer = Checksummer::default();
            let mut buffer = vec![0; 1 << 18];
            let mut bytes = 0;
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    return Ok(Some((bytes, checksummer.finish())));
                }
                checksummer.update(&buffer[..read]);
                bytes += read as u64;
            }
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.list_after(prefix, "").await
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.run(format!("list {prefix}"), move |inner| {
            // Folders can be listed, prefixes of names can't: list the folder that the prefix is in.
            let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
            let mut objects = Vec::new();
            let wanted = |key: &str| key.starts_with(&prefix) && *key > *after;
            list_below(&inner.root, &inner.root.join(folder), &wanted, &mut objects)?;
            if objects.is_empty() {
                inner.is_there()?;
            }
            objects.sort_by(|left, right| left.key.cmp(&right.key));
            Ok(objects)
        })
        .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        let for_work = key.clone();
        self.run(format!("delete {key}"), move |inner| {
            let path = inner.place(&for_work);
            inner.remove(&path)?;
            if let Some(folder) = path.parent() {
                inner.note_unsynced(folder.to_owned());
            }
            Ok(())
        })
        .await
    }
}

fn list_below(
    root: &Path,
    folder: &Path,
    wanted: &dyn Fn(&str) -> bool,
    objects: &mut Vec<ObjectInfo>,
) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        let name = path.strip_prefix(root).ok().and_then(Path::to_str);
        if kind.is_dir() {
            // What waits to become an object is none.
            if name != Some(STAGING) {
                list_below(root, &path, wanted, objects)?;
            }
        } else if let Some(key) = name.filter(|name| wanted(name)).and_then(|name| ObjectKey::new(name).ok()) {
            match entry.metadata() {
                Ok(metadata) => {
                    objects.push(ObjectInfo { key, bytes: metadata.len(), modified_ms: modified_ms(&metadata) });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn modified_ms(metadata: &fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What tells a file or folder from another one that has its name: device and inode.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = ();

/// Which file or folder this is; `None` if there is none.
fn identity(path: &Path) -> io::Result<Option<Identity>> {
    match fs::metadata(path) {
        #[cfg(unix)]
        Ok(metadata) => {
            use std::os::unix::fs::MetadataExt;
            Ok(Some((metadata.dev(), metadata.ino())))
        }
        #[cfg(not(unix))]
        Ok(_) => Ok(Some(())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether two names are of one file; where that can't be told, they are not.
fn same_file(left: &Path, right: &Path) -> io::Result<bool> {
    let left = identity(left)?;
    Ok(cfg!(unix) && left.is_some() && left == identity(right)?)
}

fn lake_error(operation: String, error: &io::Error) -> LakeError {
    use io::ErrorKind as Kind;
    let problem = error.to_string();
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            LakeError::Refused { operation, problem: format!("{problem}; make room and start again") }
        }
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => LakeError::Refused {
            operation,
            problem: format!("{problem}; make the lake writable for this user and start again"),
        },
        Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::InvalidInput
        | Kind::InvalidFilename
        | Kind::FileTooLarge
        | Kind::NotFound => LakeError::Refused { operation, problem },
        _ => LakeError::Unavailable { operation, problem },
    }
}
