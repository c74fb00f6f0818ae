//! An object store that retries calls after temporary failures.
//!
//! Owns: that every call is retried. Promise 4 of the [lake](crate::lake) says that repeating a failed call does no harm. Does not
//! own: the policy ([`Retry`]).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::lake::{
    Checksum, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, StagedCopy, UploadId,
    UploadInfo, Written,
};
use crate::retry::{Retry, RetryPolicy, Retryable};

impl Retryable for LakeError {
    fn is_retryable(&self) -> bool {
        LakeError::is_retryable(self)
    }
}

/// Retries the calls of another store.
pub struct Retrying {
    store: Arc<dyn ObjectStore>,
    retry: Retry,
}

impl Retrying {
    /// Retries calls of `store` by a policy.
    pub fn new(store: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        Retrying { store, retry: Retry::new(policy, "the lake") }
    }
}

#[async_trait]
impl ObjectStore for Retrying {
    fn part_bytes_min(&self) -> usize {
        self.store.part_bytes_min()
    }

    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError> {
        self.retry.run(|| self.store.begin_upload(key, id_hint)).await
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        self.retry.run(|| self.store.upload_part(key, id, part.clone())).await
    }

    async fn stage_copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id_hint: &str,
    ) -> Result<Option<StagedCopy>, LakeError> {
        self.retry.run_long(|| self.store.stage_copy(from, to, id_hint)).await
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError> {
        self.retry.run(|| self.store.complete_upload(key, id, parts)).await
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        self.retry.run(|| self.store.abort_upload(key, id)).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        self.retry.run_long(|| self.store.list_uploads()).await
    }

    async fn flush(&self) -> Result<(), LakeError> {
        self.retry.run(|| self.store.flush()).await
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        self.retry.run(|| self.store.put_new(key, bytes.clone())).await
    }

    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError> {
        self.retry.run(|| self.store.replace(key, from, to.clone())).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        self.retry.run(|| self.store.get(key)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>, LakeError> {
        self.retry.run(|| self.store.get_range(key, range.clone())).await
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        self.retry.run_long(|| self.store.checksum(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.retry.run_long(|| self.store.list(prefix)).await
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.retry.run_long(|| self.store.list_after(prefix, after)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        self.retry.run(|| self.store.delete(key)).await
    }
}
