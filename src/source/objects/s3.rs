//! Objects in S3.
//!
//! Owns: what errors mean for the source, and retries within the time budget. Does not own: the requests (`lake::s3::foreign`).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::lake::s3::foreign::ForeignPart;
use crate::lake::{LakeError, S3Store, StorageClass};
use crate::retry::{Retry, RetryPolicy};
use crate::source::SourceError;
use crate::source::objects::store::{Object, Pages, Part, Place};

/// A bucket, or what is below a prefix in it.
pub(super) struct Bucket {
    store: S3Store,
    /// As messages show it.
    place: Arc<str>,
    lists: Retry,
    reads: Retry,
}

impl Bucket {
    pub(super) fn new(store: S3Store, place: &str, policy: RetryPolicy) -> Self {
        let lists = Retry::new(policy, format!("listing {place}"));
        let reads = Retry::new(policy, format!("reading {place}"));
        Bucket { store, place: place.into(), lists, reads }
    }
}

/// The error of the source. Advice about the lake's section of the configuration is about the source's here.
pub(super) fn source_error(place: &str, error: LakeError) -> SourceError {
    let place = place.to_owned();
    let of_source = |problem: String| problem.replace("[lake]", "[[source]]").replace("another lake", "another bucket");
    match error {
        LakeError::Unavailable { operation, problem } => {
            SourceError::Unavailable { place, problem: of_source(format!("{operation}: {problem}")) }
        }
        other => SourceError::Unreadable { place, problem: of_source(other.to_string()) },
    }
}

#[async_trait]
impl Place for Bucket {
    fn list(&self) -> Box<dyn Pages> {
        let (store, place, retry) = (self.store.clone(), Arc::clone(&self.place), self.lists.clone());
        Box::new(BucketPages { store, place, retry, token: None, is_done: false })
    }

    async fn get(&self, object: &Object, range: Option<Range<u64>>) -> Result<Part, SourceError> {
        let Object { key, etag, bytes, .. } = object;
        let read = self.reads.run(|| self.store.get_foreign(key, etag, *bytes, range.clone())).await;
        match read.map_err(|error| source_error(&self.place, error))? {
            ForeignPart::Bytes(bytes) => Ok(Part::Bytes(bytes)),
            ForeignPart::Gone => Ok(Part::Gone),
            ForeignPart::Changed => Ok(Part::Changed),
        }
    }
}

struct BucketPages {
    store: S3Store,
    place: Arc<str>,
    retry: Retry,
    token: Option<String>,
    is_done: bool,
}

#[async_trait]
impl Pages for BucketPages {
    async fn next(&mut self) -> Result<Option<Vec<Object>>, SourceError> {
        if self.is_done {
            return Ok(None);
        }
        let page = self.retry.run(|| self.store.list_foreign(self.token.clone())).await;
        let (objects, token) = page.map_err(|error| source_error(&self.place, error))?;
        (self.is_done, self.token) = (token.is_none(), token);
        let archived = |class: StorageClass| matches!(class, StorageClass::Glacier | StorageClass::DeepArchive);
        if let Some(object) = objects.iter().find(|object| archived(object.storage_class)) {
            tracing::debug!(place = %self.place, class = ?object.storage_class, "a page has objects that must be restored before they can be read");
        }
        let objects = objects.into_iter().map(|object| Object {
            key: object.key,
            etag: object.etag,
            bytes: object.bytes,
            modified_ms: object.modified_ms,
        });
        Ok(Some(objects.collect()))
    }
}
