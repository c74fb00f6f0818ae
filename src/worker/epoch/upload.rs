//! The upload of one object, part by part, in the background.
//!
//! Owns: cutting bytes into parts, sending them within a budget of bytes, and the checksum and size of the whole object. Does
//! not own: which objects there are (`objects`), making them visible (`crate::commit`).
//!
//! An upload that fails sets a flag at once. All uploads of an epoch share the flag. Closing the upload returns the error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument;

use crate::commit::Stores;
use crate::lake::{Checksummer, LakeError, NewPart, ObjectKey, Part, UploadId};
use crate::worker::memory_plan::{ByteBudget, TakenBytes};

/// Most bytes by which the buffer of a part that is not full grows.
const GROW_BYTES: usize = 512 << 10;

/// Uploads the parts of an object as they arrive.
async fn upload(
    stores: Stores,
    key: ObjectKey,
    hint: String,
    mut arriving: mpsc::UnboundedReceiver<(NewPart, TakenBytes)>,
) -> Result<(UploadId, Vec<Part>), LakeError> {
    let id = stores.lake.begin_upload(&key, &hint).await?;
    let mut parts = Vec::new();
    while let Some((part, permit)) = arriving.recv().await {
        parts.push(stores.lake.upload_part(&key, &id, part.clone()).await?);
        drop(permit);
    }
    Ok((id, parts))
}

/// An object that a task of its own uploads.
pub(crate) struct Upload {
    key: ObjectKey,
    parts: mpsc::UnboundedSender<(NewPart, TakenBytes)>,
    task: JoinHandle<Result<(UploadId, Vec<Part>), LakeError>>,
    budget: ByteBudget,
    part_bytes: usize,
    /// Bytes of the part that is not full yet.
    pub(crate) waiting: Vec<u8>,
    checksummer: Checksummer,
    /// Bytes of the object.
    pub(crate) bytes: u64,
    /// Bytes of the parts that were sent.
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
        budget: ByteBudget,
        failed: Arc<AtomicBool>,
    ) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let uploading = upload(stores, key.clone(), hint, receiver);
        let task = async move {
            let uploaded = uploading.await;
            if uploaded.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            uploaded
        };
        let task = tokio::spawn(task.in_current_span());
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

    /// Adds bytes. A full part is sent as soon as the budget has room. If the upload fails, [`Upload::close`] returns why.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) {
        self.checksummer.update(&bytes);
        self.bytes += bytes.len() as u64;
        if self.waiting.is_empty() {
            self.waiting = bytes;
        } else {
            // Doubling the buffer would hold up to twice the bytes of a part.
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

    fn send_part(&mut self, bytes: Vec<u8>, permit: TakenBytes) {
        self.number += 1;
        let part = NewPart { number: self.number, offset: self.offset, bytes: Bytes::from(bytes) };
        self.offset += part.bytes.len() as u64;
        // A task that has failed takes no more parts. Its error is returned when the upload is closed.
        let _ = self.parts.send((part, permit));
    }

    /// Sends the last part once the budget has room. A task of `tasks` then waits for the end of the upload.
    pub(crate) async fn close<T: Send + 'static>(
        mut self,
        tasks: &mut JoinSet<Result<T, LakeError>>,
        then: impl FnOnce(Uploaded) -> T + Send + 'static,
    ) {
        let last = std::mem::take(&mut self.waiting);
        if (!last.is_empty() || self.number == 0)
            && let Some(permit) = self.budget.take(last.len()).await
        {
            self.send_part(last, permit);
        }
        let Upload { key, parts, task, checksummer, bytes, .. } = self;
        drop(parts);
        tasks.spawn(async move {
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
        });
    }
}
