//! One object's upload, part by part, in the background.
//!
//! Owns: cutting what comes into parts, sending them within a budget of bytes, checksum and size of the whole. Does not own:
//! which objects there are (`objects`), making them visible (`commit`).
//!
//! An upload that fails says so at once, by a flag that all uploads of an epoch share; how is told when it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::commit::Stores;
use crate::lake::{Checksummer, LakeError, NewPart, ObjectKey, Part, UploadId};

/// Bytes by which what waits to be a part grows at most.
const GROW_BYTES: usize = 512 << 10;
/// The unit of the budget.
const UNIT: usize = 1 << 10;

/// Bytes of parts that may be on their way.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    units: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).max(1);
        Budget { permits: Arc::new(Semaphore::new(units)), units }
    }

    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, self.units)).unwrap_or(u32::MAX);
        Arc::clone(&self.permits).acquire_many_owned(units).await.ok()
    }
}

/// Uploads an object, part by part, as the parts come.
async fn upload(
    stores: Stores,
    key: ObjectKey,
    hint: String,
    mut come: mpsc::UnboundedReceiver<(NewPart, OwnedSemaphorePermit)>,
) -> Result<(UploadId, Vec<Part>), LakeError> {
    let id = stores.lake.begin_upload(&key, &hint).await?;
    let mut parts = Vec::new();
    while let Some((part, permit)) = come.recv().await {
        parts.push(stores.lake.upload_part(&key, &id, part.clone()).await?);
        drop(permit);
    }
    Ok((id, parts))
}

/// An object that is being uploaded by a task of its own.
pub(crate) struct Upload {
    key: ObjectKey,
    parts: mpsc::UnboundedSender<(NewPart, OwnedSemaphorePermit)>,
    task: JoinHandle<Result<(UploadId, Vec<Part>), LakeError>>,
    budget: Budget,
    part_bytes: usize,
    pub(crate) waiting: Vec<u8>,
    checksummer: Checksummer,
    pub(crate) bytes: u64,
    offset: u64,
    number: u32,
}

/// An upload whose parts are all acknowledged.
pub(crate) struct Uploaded {
    pub(crate) key: ObjectKey,
    pub(crate) id: UploadId,
    pub(crate) parts: Vec<Part>,
    pub(crate) bytes: u64,
    pub(crate) checksummer: Checksummer,
}

impl Upload {
    pub(crate) fn begin(
        stores: Stores,
        key: ObjectKey,
        hint: String,
        part_bytes: usize,
        budget: Budget,
        failed: Arc<AtomicBool>,
    ) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let uploading = upload(stores, key.clone(), hint, receiver);
        let task = tokio::spawn(async move {
            let uploaded = uploading.await;
            if uploaded.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            uploaded
        });
        Upload {
            key,
            parts: sender,
            task,
            budget,
            part_bytes,
            waiting: Vec::new(),
            checksummer: Checksummer::default(),
            bytes: 0,
            offset: 0,
            number: 0,
        }
    }

    /// Takes bytes; full parts go out, as soon as the budget has room. A failed upload is told when it is closed.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) {
        self.checksummer.update(&bytes);
        self.bytes += bytes.len() as u64;
        if self.waiting.is_empty() {
            self.waiting = bytes;
        } else {
            // Doubling would hold up to twice of what a part has.
            if self.waiting.capacity() - self.waiting.len() < bytes.len() {
                self.waiting.reserve_exact(bytes.len().max(self.waiting.len().min(GROW_BYTES)));
            }
            self.waiting.extend_from_slice(&bytes);
        }
        if self.waiting.len() >= self.part_bytes {
            let part = std::mem::take(&mut self.waiting);
            if let Some(permit) = self.budget.take(part.len()).await {
                self.send_part(part, permit);
            }
        }
    }

    fn send_part(&mut self, bytes: Vec<u8>, permit: OwnedSemaphorePermit) {
        self.number += 1;
        let part = NewPart { number: self.number, offset: self.offset, bytes: Bytes::from(bytes) };
        self.offset += part.bytes.len() as u64;
        // Where the task has failed, nobody takes the part: the failure is told when the upload is closed.
        let _ = self.parts.send((part, permit));
    }

    /// Sends what waits, once the budget has room; then the upload's end is waited for in the background.
    pub(crate) async fn close<T: Send + 'static>(
        mut self,
        then: impl FnOnce(Uploaded) -> T + Send + 'static,
    ) -> JoinHandle<Result<T, LakeError>> {
        let last = std::mem::take(&mut self.waiting);
        if (!last.is_empty() || self.number == 0)
            && let Some(permit) = self.budget.take(last.len()).await
        {
            self.send_part(last, permit);
        }
        tokio::spawn(async move {
            let Upload { key, parts, task, checksummer, bytes, .. } = self;
            drop(parts);
            let (id, parts) = match task.await {
                Ok(result) => result?,
                Err(error) => {
                    return Err(LakeError::Unavailable {
                        operation: format!("upload {key}"),
                        problem: error.to_string(),
                    });
                }
            };
            Ok(then(Uploaded { key, id, parts, bytes, checksummer }))
        })
    }
}
