//! A lake that nothing is written to.
//!
//! Owns: refusing every call that changes something, so that what must change nothing cannot, whatever it calls. Does not own: the lake.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::lake::{
    Checksum, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, StagedCopy, UploadId,
    UploadInfo, Written,
};

/// A lake whose objects are read and never changed.
pub struct ReadOnly(Arc<dyn ObjectStore>);

impl ReadOnly {
    /// The same lake, without the calls that change it.
    pub fn new(lake: Arc<dyn ObjectStore>) -> Self {
        ReadOnly(lake)
    }
}

fn refused<T>(call: &str, key: &ObjectKey) -> Result<T, LakeError> {
    Err(LakeError::Refused {
        operation: format!("{call} {key}"),
        problem: "this command changes nothing in the lake".to_owned(),
    })
}

#[async_trait]
impl ObjectStore for ReadOnly {
    fn part_bytes_min(&self) -> usize {
        self.0.part_bytes_min()
    }

    async fn begin_upload(&self, key: &ObjectKey, _: &str) -> Result<UploadId, LakeError> {
        refused("begin an upload of", key)
    }

    async fn upload_part(&self, key: &ObjectKey, _: &UploadId, _: NewPart) -> Result<Part, LakeError> {
        refused("upload a part of", key)
    }

    async fn stage_copy(&self, _: &ObjectKey, to: &ObjectKey, _: &str) -> Result<Option<StagedCopy>, LakeError> {
        refused("copy to", to)
    }

    async fn complete_upload(&self, key: &ObjectKey, _: &UploadId, _: &[Part]) -> Result<Completion, LakeError> {
        refused("complete the upload of", key)
    }

    async fn abort_upload(&self, key: &ObjectKey, _: &UploadId) -> Result<(), LakeError> {
        refused("abort the upload of", key)
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        self.0.list_uploads().await
    }

    async fn flush(&self) -> Result<(), LakeError> {
        Ok(())
    }

    async fn put_new(&self, key: &ObjectKey, _: Bytes) -> Result<Written, LakeError> {
        refused("write", key)
    }

    async fn replace(&self, key: &ObjectKey, _: &Bytes, _: Bytes) -> Result<bool, LakeError> {
        refused("replace", key)
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        self.0.get(key).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>, LakeError> {
        self.0.get_range(key, range).await
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        self.0.checksum(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.0.list(prefix).await
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.0.list_after(prefix, after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        refused("delete", key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;

    #[tokio::test]
    async fn every_call_that_changes_something_is_refused_and_says_so() {
        let store = Arc::new(MemoryStore::new());
        let key = ObjectKey::new("processed/x").unwrap();
        store.put_new(&key, Bytes::from_static(b"x")).await.unwrap();
        let lake = ReadOnly::new(store.clone());
        let upload = UploadId("1".to_owned());
        let part = NewPart { number: 1, offset: 0, bytes: Bytes::new() };
        let refusals = [
            lake.begin_upload(&key, "1").await.err(),
            lake.upload_part(&key, &upload, part).await.err(),
            lake.stage_copy(&key, &key, "1").await.err(),
            lake.complete_upload(&key, &upload, &[]).await.err(),
            lake.abort_upload(&key, &upload).await.err(),
            lake.put_new(&key, Bytes::new()).await.err(),
            lake.replace(&key, &Bytes::from_static(b"x"), Bytes::new()).await.err(),
            lake.delete(&key).await.err(),
        ];
        for refusal in refusals {
            let refusal = refusal.unwrap().to_string();
            assert!(refusal.ends_with("processed/x: this command changes nothing in the lake"), "{refusal}");
        }
        assert_eq!(lake.get(&key).await.unwrap(), Some(Bytes::from_static(b"x")));
        assert_eq!(lake.list("").await.unwrap(), store.list("").await.unwrap());
        assert_eq!(lake.checksum(&key).await.unwrap(), store.checksum(&key).await.unwrap());
    }
}
