//! An error object without some of its lines, as a staged object.
//!
//! Owns: which lines stay, and uploading them. Does not own: the object's name and when it becomes visible (`maintenance::operation`), the
//! form of lines (`pipeline::dead_letter::stored`).
//!
//! Memory: the object as it is stored, one compressed piece of a megabyte of lines, and one part of an upload.

use bytes::Bytes;
use pipeline::dead_letter::DeadLetter;
use pipeline::dead_letter::stored::{StoredLines, StoredWriter};
use pipeline::encode::FileStats;

use crate::commit::{ObjectKind, ObjectOfEpoch};
use crate::lake::{Checksummer, LakeError, NewPart, ObjectKey, ObjectStore, Part, UploadId};
use crate::maintenance::operation::OperationError;

/// Least bytes of a part, where the store allows smaller ones: it saves calls.
const PART_BYTES: usize = 1 << 18;
/// Lines that are read before other tasks of the thread have their turn.
const LINES_AT_ONCE: u64 = 1024;

/// What a rewrite has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The staged object with the lines that stay; `None` if no line stays.
    pub object: Option<ObjectOfEpoch>,
    /// Lines that stay.
    pub kept: u64,
    /// Lines that are not in the new object.
    pub dropped: u64,
}

/// An object that is being uploaded.
struct Staging<'l> {
    lake: &'l dyn ObjectStore,
    key: &'l ObjectKey,
    upload: UploadId,
    parts: Vec<Part>,
    waiting: Vec<u8>,
    bytes: u64,
    checksum: Checksummer,
}

impl Staging<'_> {
    async fn add(&mut self, piece: Vec<u8>) -> Result<(), LakeError> {
        self.checksum.update(&piece);
        self.waiting.extend_from_slice(&piece);
        if self.waiting.len() >= self.lake.part_bytes_min().max(PART_BYTES) { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), LakeError> {
        let bytes = Bytes::from(std::mem::take(&mut self.waiting));
        let number = u32::try_from(self.parts.len() + 1).unwrap_or(u32::MAX);
        let (offset, size) = (self.bytes, bytes.len() as u64);
        let part = self.lake.upload_part(self.key, &self.upload, NewPart { number, offset, bytes }).await?;
        self.parts.push(part);
        self.bytes += size;
        Ok(())
    }
}

/// Stages the object `to` with the lines of the object `from` that `keep` wants. Lines that cannot be parsed stay, too: another version
/// wrote them. `id_hint` is as in [`ObjectStore::begin_upload`].
///
/// # Errors
/// The object is gone or damaged, or the lake fails. What was uploaded is aborted.
pub async fn rewrite(
    lake: &dyn ObjectStore,
    from: &ObjectKey,
    (to, id_hint): (&ObjectKey, &str),
    keep: &(dyn Fn(&DeadLetter<'_>) -> bool + Sync),
) -> Result<Rewritten, OperationError> {
    let bytes = lake.get(from).await?.ok_or_else(|| OperationError::NoObject { key: from.clone() })?;
    let upload = lake.begin_upload(to, id_hint).await?;
    let (parts, waiting, checksum) = (Vec::new(), Vec::new(), Checksummer::default());
    let mut staging = Staging { lake, key: to, upload, parts, waiting, bytes: 0, checksum };
    let result = copy_lines(&mut staging, from, bytes, keep).await;
    let Staging { upload, parts, bytes, checksum, .. } = staging;
    let abort = async |upload: &UploadId| {
        if let Err(error) = lake.abort_upload(to, upload).await {
            tracing::debug!(%error, key = %to, "failed to abort an upload; a sweep does it");
        }
    };
    let (kept, dropped) = match result {
        Ok((0, dropped)) => {
            abort(&upload).await;
            return Ok(Rewritten { object: None, kept: 0, dropped });
        }
        Ok(counts) => counts,
        Err(error) => {
            abort(&upload).await;
            return Err(error);
        }
    };
    let object = ObjectOfEpoch {
        key: to.clone(),
        kind: ObjectKind::Error,
        dataset: None,
        partition: ObjectOfEpoch::partition_of(to),
        columns: FileStats::default(),
        rows: kept,
        bytes,
        crc64nvme: checksum.finish(),
        upload,
        parts,
    };
    Ok(Rewritten { object: Some(object), kept, dropped })
}

/// Uploads the lines that stay: how many stay, and how many do not.
async fn copy_lines(
    staging: &mut Staging<'_>,
    from: &ObjectKey,
    bytes: Bytes,
    keep: &(dyn Fn(&DeadLetter<'_>) -> bool + Sync),
) -> Result<(u64, u64), OperationError> {
    let damaged = |error: std::io::Error| LakeError::Refused {
        operation: format!("read {from}"),
        problem: format!("it is damaged: {error}"),
    };
    let mut lines = StoredLines::new(from.as_str(), bytes).map_err(damaged)?;
    let mut writer = StoredWriter::new(from.as_str());
    let (mut kept, mut dropped) = (0_u64, 0_u64);
    while let Some(line) = lines.next_line().map_err(damaged)? {
        if line.dead_letter.as_ref().is_none_or(keep) {
            kept += 1;
            if let Some(piece) = writer.add(line.bytes).map_err(damaged)? {
                staging.add(piece).await?;
            }
        } else {
            dropped += 1;
        }
        if (kept + dropped).is_multiple_of(LINES_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    if let Some(piece) = writer.finish().map_err(damaged)? {
        staging.add(piece).await?;
    }
    if !staging.waiting.is_empty() {
        staging.send().await?;
    }
    Ok((kept, dropped))
}
