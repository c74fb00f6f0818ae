//! A lake inside another lake: every key gets a prefix.
//!
//! Owns: the prefix, in both directions. Does not own: what is in the inner lake, or where it is (`replay`).
//!
//! Some stores do not know the keys of uploads (a local lake does not). Such uploads belong to the whole lake, whose own sweep removes
//! them. So they are not listed here: a sweep of the inner lake would remove uploads of workers that it knows nothing of.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::lake::{
    Checksum, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, StagedCopy, UploadId,
    UploadInfo, Written,
};

/// A lake whose keys are those of another lake that begin with a prefix.
#[derive(Clone)]
pub struct InsideLake {
    inner: Arc<dyn ObjectStore>,
    /// Ends with a slash.
    prefix: Arc<str>,
}

impl InsideLake {
    /// The lake below `prefix`, which ends with a slash.
    ///
    /// # Panics
    /// It does not, which is a bug of the caller.
    pub fn new(inner: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        assert!(prefix.len() > 1 && prefix.ends_with('/'), "the prefix of a lake is a folder");
        InsideLake { inner, prefix: prefix.into() }
    }

    /// The key that an object of this lake has in the outer one.
    ///
    /// # Errors
    /// It is too long.
    pub fn outer_key(&self, key: &ObjectKey) -> Result<ObjectKey, LakeError> {
        ObjectKey::new(format!("{}{key}", self.prefix)).map_err(|error| LakeError::Refused {
            operation: format!("use {key} inside {}", self.prefix),
            problem: error.to_string(),
        })
    }

    /// The key in this lake of an object of the outer one; `None` if it is outside.
    fn inner_key(&self, key: &ObjectKey) -> Option<ObjectKey> {
        ObjectKey::new(key.as_str().strip_prefix(&*self.prefix)?).ok()
    }

    fn listed(&self, objects: Vec<ObjectInfo>) -> Vec<ObjectInfo> {
        let inside = |object: ObjectInfo| Some(ObjectInfo { key: self.inner_key(&object.key)?, ..object });
        objects.into_iter().filter_map(inside).collect()
    }
}

#[async_trait]
impl ObjectStore for InsideLake {
    fn part_bytes_min(&self) -> usize {
        self.inner.part_bytes_min()
    }

    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError> {
        self.inner.begin_upload(&self.outer_key(key)?, id_hint).await
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        self.inner.upload_part(&self.outer_key(key)?, id, part).await
    }

    async fn stage_copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id_hint: &str,
    ) -> Result<Option<StagedCopy>, LakeError> {
        self.inner.stage_copy(&self.outer_key(from)?, &self.outer_key(to)?, id_hint).await
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError> {
        self.inner.complete_upload(&self.outer_key(key)?, id, parts).await
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        self.inner.abort_upload(&self.outer_key(key)?, id).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        let uploads = self.inner.list_uploads().await?;
        let inside = |upload: UploadInfo| {
            let key = self.inner_key(upload.key.as_ref()?)?;
            Some(UploadInfo { key: Some(key), ..upload })
        };
        Ok(uploads.into_iter().filter_map(inside).collect())
    }

    async fn flush(&self) -> Result<(), LakeError> {
        self.inner.flush().await
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        self.inner.put_new(&self.outer_key(key)?, bytes).await
    }

    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError> {
        self.inner.replace(&self.outer_key(key)?, from, to).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        self.inner.get(&self.outer_key(key)?).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>, LakeError> {
        self.inner.get_range(&self.outer_key(key)?, range).await
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        self.inner.checksum(&self.outer_key(key)?).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        Ok(self.listed(self.inner.list(&format!("{}{prefix}", self.prefix)).await?))
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        let (prefix, after) = (format!("{}{prefix}", self.prefix), format!("{}{after}", self.prefix));
        Ok(self.listed(self.inner.list_after(&prefix, &after).await?))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        self.inner.delete(&self.outer_key(key)?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;

    fn key(path: &str) -> ObjectKey {
        ObjectKey::new(path).unwrap()
    }

    #[tokio::test]
    async fn an_inner_lake_shows_nothing_of_the_outer_one_and_lands_below_its_prefix() {
        let outer = MemoryStore::new();
        let inside = InsideLake::new(Arc::new(outer.clone()), "_replays/01ab0000/lake/");
        outer.put_new(&key("_commits/outer.json"), Bytes::new()).await.unwrap();
        outer.put_new(&key("_replays/01ab0000/lake2/_commits/x.json"), Bytes::new()).await.unwrap();
        outer.begin_upload(&key("processed/outer"), "1").await.unwrap();
        inside.put_new(&key("_commits/inner.json"), Bytes::from_static(b"x")).await.unwrap();
        inside.begin_upload(&key("processed/inner"), "2").await.unwrap();
        let listed: Vec<ObjectKey> = inside.list("").await.unwrap().into_iter().map(|object| object.key).collect();
        assert_eq!(listed, [key("_commits/inner.json")]);
        let uploads = inside.list_uploads().await.unwrap();
        assert_eq!(uploads.into_iter().filter_map(|upload| upload.key).collect::<Vec<_>>(), [key("processed/inner")]);
        assert!(outer.object(&key("_replays/01ab0000/lake/_commits/inner.json")).is_some());
        assert_eq!(inside.get(&key("_commits/outer.json")).await.unwrap(), None);
        let long = key(&"x".repeat(1020));
        assert!(matches!(inside.get(&long).await, Err(LakeError::Refused { .. })));
    }
}
