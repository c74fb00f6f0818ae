//! A lake in a folder.
//!
//! Owns: how the protocol's terms map to files. An upload is a file `_staging/<upload id>`. Completing it makes a hard link at
//! the object's path, which is atomic and never replaces a file, and then removes the staged name. A crash between the two
//! leaves both names; completing again finds the path taken by the same file. A staged copy of an object is a hard link to its file: no file
//! is written after it was completed.
//!
//! [`flush`](crate::lake::ObjectStore::flush) syncs what was written since the last one: file by file, or the whole file system
//! at once if there are many files. Does not own: the checkpoint database in the same folder.
//!
//! A missing lake directory means *unavailable*, never *empty*: a folder that was moved or unmounted has lost no upload and no
//! object, and nothing is created in its place. Nothing is written into another folder that took its place either. The check and
//! the write are two calls: if the folder is exchanged between them, one file is written into the other folder.
//!
//! Limits: one machine. Opening refuses a file system without hard links.

pub(in crate::lake) mod backend;
mod files;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::layout::STAGING;

use crate::lake::{
    Checksum, Checksummer, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, StagedCopy,
    UploadId, UploadInfo, Written,
};
use files::{Identity, identity, lake_error, list_below, modified_ms, same_file};

/// From this many written names on, the whole file system is synced at once.
const SYNC_ALL_FROM: usize = 64;

/// A lake in a folder. Clones share it.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// The path that shows that the lake is there: the staging folder, or the lake's folder if there is none.
    witness: PathBuf,
    /// Which folder that path named when the lake was opened.
    identity: Option<Identity>,
    /// Files and folders that were written and not yet synced.
    unsynced: Mutex<BTreeSet<PathBuf>>,
}

impl LocalStore {
    /// Opens the lake in a folder, and creates the folder if it does not exist.
    ///
    /// # Errors
    /// The folder cannot be created or written, or its file system has no hard links.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LakeError> {
        Self::open_with(root.into(), |staging| fs::create_dir_all(staging))
    }

    /// Opens a lake that is known to be in a folder. Creates only the staging folder, which a copy may lack.
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
        let witness = root.join(STAGING);
        make(&witness).map_err(|error| refused(&error))?;
        let identity = identity(&witness).map_err(|error| refused(&error))?;
        let inner = Inner { witness, identity, root, unsynced: Mutex::default() };
        inner.probe_links().map_err(|error| LakeError::Refused {
            operation,
            problem: format!("{error}; a lake needs a writable folder on a file system with hard links"),
        })?;
        Ok(LocalStore { inner: Arc::new(inner) })
    }

    /// Opens a lake for reading.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn open_existing(root: impl Into<PathBuf>) -> Result<Self, LakeError> {
        let root = root.into();
        if root.is_dir() {
            let staging = root.join(STAGING);
            // A copy of a lake may have none.
            let witness = if staging.is_dir() { staging } else { root.clone() };
            let identity = identity(&witness).ok().flatten();
            return Ok(LocalStore { inner: Arc::new(Inner { root, witness, identity, unsynced: Mutex::default() }) });
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
    /// Checks that the lake as a whole is where it was.
    fn is_there(&self) -> io::Result<()> {
        let what = match identity(&self.witness)? {
            found if found.is_some() && found == self.identity => return Ok(()),
            None => "does not exist any more",
            Some(_) => "was moved away, and another lake is in its place",
        };
        let problem = format!("the lake {} {what}; restore it and start again", self.root.display());
        Err(io::Error::new(io::ErrorKind::NotFound, problem))
    }

    /// The result of a call that found no file: `answer` if the lake is there, else an error.
    fn none<T>(&self, answer: T) -> io::Result<T> {
        self.is_there().map(|()| answer)
    }

    fn place(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn staged(&self, id: &UploadId) -> io::Result<PathBuf> {
        // The id comes from a manifest: it must be a plain name.
        let plain = !id.0.is_empty() && id.0.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if plain {
            Ok(self.root.join(STAGING).join(&id.0))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{}' is not a valid upload id", id.0)))
        }
    }

    fn note_unsynced(&self, path: PathBuf) {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    /// Creates the folders above a path and notes the new ones for the next sync.
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

    /// A durable file in the staging folder with these bytes.
    fn write_temporary(&self, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("put-");
        // The mode of every other file of the lake: what the umask allows.
        #[cfg(unix)]
        let builder = builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut temporary = builder.tempfile_in(self.root.join(STAGING))?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        Ok(temporary)
    }

    /// Writes a whole file durably, if its name is free.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<Written> {
        self.is_there()?;
        self.make_folders(path)?;
        let temporary = self.write_temporary(bytes)?;
        let written = match fs::hard_link(temporary.path(), path) {
            Ok(()) => Written::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Written::KeyTaken,
            Err(error) => return Err(error),
        };
        drop(temporary);
        // The name must be durable as well, and so must the folders that were created for it.
        self.sync()?;
        Ok(written)
    }

    /// Replaces a file durably, if it has these bytes.
    fn replace(&self, path: &Path, from: &[u8], to: &[u8]) -> io::Result<bool> {
        let found = match fs::read(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.none(false),
            Err(error) => return Err(error),
        };
        if found == from {
            self.write_temporary(to)?.persist(path).map_err(|error| error.error)?;
        } else if found != to {
            return Ok(false);
        }
        if let Some(folder) = path.parent() {
            self.note_unsynced(folder.to_owned());
        }
        self.sync()?;
        Ok(true)
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
                // After a crash between the link and the removal, both names are one file.
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

    /// Makes a staged name of an object's file. No file is written after it was completed, so both names have the same bytes for
    /// ever. Returns false if the object does not exist.
    fn stage_link(&self, from: &ObjectKey, id: &UploadId) -> io::Result<bool> {
        self.is_there()?;
        let (source, staged) = (self.place(from), self.staged(id)?);
        match fs::hard_link(&source, &staged) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.none(false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && same_file(&source, &staged)? => {}
            Err(error) => return Err(error),
        }
        self.note_unsynced(self.root.join(STAGING));
        Ok(true)
    }

    /// Removes a file, if it exists.
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
                // It was aborted in the meantime.
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

    async fn stage_copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id_hint: &str,
    ) -> Result<Option<StagedCopy>, LakeError> {
        let (source, upload) = (from.clone(), UploadId(id_hint.to_owned()));
        let id = upload.clone();
        let is_there =
            self.run(format!("stage a copy of {from} as {to}"), move |inner| inner.stage_link(&source, &id)).await?;
        if !is_there {
            return Ok(None);
        }
        let Some((bytes, crc64nvme)) = self.checksum(from).await? else { return Ok(None) };
        let parts = vec![Part { number: 1, tag: String::new() }];
        Ok(Some(StagedCopy { upload, parts, bytes, crc64nvme }))
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

    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError> {
        let (for_work, from) = (key.clone(), from.clone());
        self.run(format!("replace {key}"), move |inner| inner.replace(&inner.place(&for_work), &from, &to)).await
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

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>, LakeError> {
        let for_work = key.clone();
        self.run(format!("read {key}"), move |inner| {
            let mut file = match File::open(inner.place(&for_work)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return inner.none(None),
                Err(error) => return Err(error),
            };
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::new();
            file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
            Ok(Some(Bytes::from(bytes)))
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
            // Only whole folders can be listed: list the one that contains the prefix.
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
