//! The lake: an object store, in S3's own terms.
//!
//! Owns: the trait through which everything reads and writes objects, keys and checksums, the kinds of lakes (`backends`), and
//! the format of a lake (`identity`). Does not own: which objects there are (`commit`), what is in them (the pipeline crate).
//!
//! What an implementation promises, and the commit protocol relies on:
//!
//! 1. A part of an upload is invisible to every reader until the upload is completed, and so is the object.
//! 2. Completing is atomic: readers see the whole object or nothing. It never replaces an existing object.
//! 3. What was acknowledged before [`ObjectStore::flush`] returned survives a crash of the process and of the machine.
//! 4. After [`LakeError::Unavailable`] a call may have taken effect, or may still do so. Repeating it does no harm.
//! 5. After an abort of an upload was acknowledged, the upload cannot be completed.
//!
//! Limits: keys of 1,024 bytes, as in S3.

mod inside;
mod local;
mod memory;
mod read_only;
mod retrying;
pub(crate) mod s3;
mod storage_class;

mod definitions;
mod schemas;

pub mod backend;
pub mod backends;
pub mod identity;
pub(crate) mod places;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use definitions::{DefinitionClaims, DefinitionError, Refusal, check_definitions, read_history};
pub use inside::InsideLake;
pub use local::LocalStore;
pub use memory::{Fault, MemoryStore};
pub use read_only::ReadOnly;
pub use retrying::Retrying;
pub use s3::{Encryption, InvalidS3, S3Location, S3Options, S3Store};
pub use schemas::{SchemaError, number_fields, preview_fields};
pub use storage_class::StorageClass;

/// The key of an object: a relative path of `/`-separated segments, none of them empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(String);

/// A text that is not a valid object key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a valid object key: expected a relative path without empty, '.' or '..' segments, of at most 1024 bytes"
)]
pub struct InvalidKey(String);

impl ObjectKey {
    /// A key of this path.
    ///
    /// # Errors
    /// The path leaves the lake, or cannot name an object.
    pub fn new(path: impl Into<String>) -> Result<Self, InvalidKey> {
        let path = path.into();
        let bad_segment = path.split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..");
        let control = path.chars().any(char::is_control);
        if bad_segment || control || path.len() > 1024 { Err(InvalidKey(path)) } else { Ok(ObjectKey(path)) }
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = InvalidKey;

    fn try_from(path: String) -> Result<Self, InvalidKey> {
        ObjectKey::new(path)
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> String {
        key.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// CRC-64/NVME of an object's bytes, which S3 computes over a whole object, multipart or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Checksum(u64);

impl Checksum {
    /// The checksum of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Checksum(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Checksum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Only the form in which it is written.
        if text.len() != 16 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("'{text}' is not a valid checksum: expected 16 hex digits"));
        }
        u64::from_str_radix(text, 16)
            .map(Checksum)
            .map_err(|error| format!("'{text}' is not a valid checksum: {error}"))
    }
}

impl TryFrom<String> for Checksum {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> String {
        checksum.to_string()
    }
}

/// A checksum that is being computed.
#[derive(Debug)]
pub struct Checksummer(crc_fast::Digest);

impl Default for Checksummer {
    fn default() -> Self {
        Checksummer(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme))
    }
}

impl Checksummer {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes added so far.
    pub fn finish(&self) -> Checksum {
        Checksum(self.0.finalize())
    }
}

/// The store's name for an open upload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadId(pub String);

/// A part to be uploaded.
#[derive(Debug, Clone)]
pub struct NewPart {
    /// Its number, from 1.
    pub number: u32,
    /// Its first byte's offset in the object.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// An acknowledged part of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// The store's tag of it, needed to complete the upload.
    pub tag: String,
}

/// A copy of an object that is staged: an upload that can be completed or aborted like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedCopy {
    /// Its upload.
    pub upload: UploadId,
    /// The upload's parts.
    pub parts: Vec<Part>,
    /// Its size.
    pub bytes: u64,
    /// Its checksum.
    pub crc64nvme: Checksum,
}

/// What a store knows about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub bytes: u64,
    /// When it was written: milliseconds since 1970.
    pub modified_ms: i64,
    /// Its storage class; `None` in a store that has none.
    pub storage_class: Option<StorageClass>,
}

/// What a store knows about an open upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    /// The key it is for, if the store knows.
    pub key: Option<ObjectKey>,
    /// Its id.
    pub id: UploadId,
    /// When it began: milliseconds since 1970.
    pub begun_ms: i64,
}

/// The result of completing an upload.
///
/// A store may repeat a request whose response was lost. The repeated request may return
/// [`NoSuchUpload`](Completion::NoSuchUpload) or [`KeyTaken`](Completion::KeyTaken) because of the first one. To find out, compare
/// [`ObjectStore::checksum`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// The object exists now.
    Completed,
    /// There is no such upload: it was completed or aborted before.
    NoSuchUpload,
    /// An object with that key exists; it was not changed.
    KeyTaken,
}

/// The result of writing an object that must be new.
///
/// A repeated request may return [`KeyTaken`](Written::KeyTaken) because of the first one, whose response was lost. A caller that must
/// know compares the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It exists now.
    New,
    /// An object with that key existed; it was not changed.
    KeyTaken,
}

/// A failed call of an object store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LakeError {
    /// The store did not respond, or not in time. The call may have taken effect.
    #[error("could not {operation}: {problem}")]
    Unavailable {
        /// What was requested, with its key.
        operation: String,
        /// What happened, in the store's words.
        problem: String,
    },
    /// The store refuses, and will refuse until somebody acts: the disk is full, a permission is missing.
    #[error("could not {operation}: {problem}")]
    Refused {
        /// What was requested, with its key.
        operation: String,
        /// What is wrong and, if known, what to do.
        problem: String,
    },
}

impl LakeError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, LakeError::Unavailable { .. })
    }
}

/// An object store.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// Bytes that every part but an upload's last must have: 5 MiB on S3, 1 elsewhere.
    fn part_bytes_min(&self) -> usize;

    /// Begins an upload. `id_hint` must be unique; a store that chooses its own ids ignores it.
    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError>;

    /// Uploads a part. Parts are numbered from 1, without gaps. A part may be repeated.
    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError>;

    /// Stages a copy of the object `from` as an upload of `to`; `None` if the object does not exist. `id_hint` is as in
    /// [`begin_upload`](Self::begin_upload). By default the bytes pass through this process; a store that copies by itself does.
    async fn stage_copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id_hint: &str,
    ) -> Result<Option<StagedCopy>, LakeError> {
        let Some(bytes) = self.get(from).await? else { return Ok(None) };
        let (size, crc64nvme) = (bytes.len() as u64, Checksum::of(&bytes));
        let upload = self.begin_upload(to, id_hint).await?;
        let part = self.upload_part(to, &upload, NewPart { number: 1, offset: 0, bytes }).await?;
        Ok(Some(StagedCopy { upload, parts: vec![part], bytes: size, crc64nvme }))
    }

    /// Makes the object of an upload visible, if its key is free.
    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError>;

    /// Aborts an upload. Does nothing if it is gone.
    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError>;

    /// The uploads that are neither completed nor aborted.
    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError>;

    /// Makes everything durable that was acknowledged so far. On S3 it is already.
    async fn flush(&self) -> Result<(), LakeError>;

    /// Writes a small object, if its key is free. It is durable once this returns.
    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError>;

    /// Replaces a small object whose bytes are `from`. A reader sees the old bytes or the new ones, never something else. Returns
    /// `false` if the object has other bytes, or does not exist; `true` also if it has the new bytes already. It is durable once this
    /// returns. Stores other than S3 may lose one of two replacements by different processes at the same moment.
    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError>;

    /// A whole object; `None` if there is none.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError>;

    /// Bytes of an object, from the start of the range on: fewer where the object ends before, none where it ends before the start.
    /// `None` if there is no such object. By default all of it is read; a store that can read a part does.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>, LakeError> {
        let part = |bytes: Bytes| {
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            bytes.slice(at(range.start)..at(range.end.max(range.start)))
        };
        Ok(self.get(key).await?.map(part))
    }

    /// An object's size and checksum; `None` if there is none. S3 knows both; other stores read the object.
    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError>;

    /// The objects whose keys begin with `prefix`, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError>;

    /// Of [`list`](Self::list), the objects whose keys sort after `after`, which need not be the key of an object. By default
    /// it lists everything; a store that can begin in the middle does.
    async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        let mut objects = self.list(prefix).await?;
        objects.retain(|object| object.key.as_str() > after);
        Ok(objects)
    }

    /// Deletes an object. Does nothing if it is gone.
    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError>;
}
