//! An operation's objects become visible and those that they replace go, folder by folder.
//!
//! Owns: the order of these steps, and what is done if a staged copy is gone meanwhile. Does not own: the order of the steps of a commit
//! (`protocol`), how an object is kept in the trash (`operations`).
//!
//! Readers who list folders (DuckDB over a pattern, Athena over Hive partitions) see such a swap object by object. What they see is chosen
//! by whoever runs the operation:
//!
//! | order | what they see of a folder, for as long as its swap takes |
//! |---|---|
//! | add first | its old and its new rows: doubles |
//! | remove first | only some of its rows: a hole |
//!
//! All folders are swapped before the commit record is written:
//!
//! 1. Objects that are not copies become visible.
//! 2. Everything that goes is copied into the trash, and these copies are made durable.
//! 3. For each folder, in the chosen order: the copies become visible, and the old objects go.
//!
//! After step 2 the operation cannot be rolled back, since a key is never written twice. So from then on nothing may be lost: an upload
//! that is gone is staged again from what it is a copy of. That object stays until the operation is finished, because whoever removes
//! it holds the leases of the operation.
//!
//! A process that was suspended may find an upload gone because others have finished the operation, and undone it since. Such an object must
//! not come back. So an upload is staged again only while there is no commit record. If the operation is finished between that check
//! and the completion, the log tells whether the object was removed since; then it is deleted.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use mutations::mutated;
use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::{Entry, HistoryError, extent, read_backward};
use crate::commit::manifest::{Manifest, ObjectOfEpoch};
use crate::commit::operations::{delete, keep_in_trash, repeated_upload_id};
use crate::commit::protocol::{CommitError, Lost, publish_object};
use crate::commit::stores::Stores;
use crate::lake::{Completion, LakeError, ObjectKey};

/// Requests about objects of one folder that are in progress at once.
const CONCURRENT: usize = 8;
/// Folders that are swapped at once.
const FOLDERS_AT_ONCE: usize = 4;
/// How often an upload that is gone is staged again, if that is disturbed: a sweep may abort it.
const COPIES_MAX: usize = 3;

/// What readers who list folders see while an operation swaps objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapOrder {
    /// New objects first: rows are seen twice for a moment.
    #[default]
    AddFirst,
    /// Old objects go first: rows are missing for a moment.
    RemoveFirst,
}

/// How an operation swaps objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The order in each folder.
    pub order: SwapOrder,
    /// By the key of an added object, the object that it is a copy of.
    pub copies: BTreeMap<ObjectKey, ObjectKey>,
}

/// Objects of one folder.
#[derive(Default)]
struct Folder {
    added: Vec<(ObjectOfEpoch, ObjectKey)>,
    removed: Vec<ObjectKey>,
}

/// Publishes what the operation adds, and removes what it removes. Whoever repeats it finds it done. The result is an object that is not a
/// copy and whose upload is gone: then nothing was removed.
///
/// # Errors
/// The lake fails; or a copy is gone and what it was made of as well.
pub(super) async fn swap_objects(
    stores: &Stores,
    manifest: &Manifest,
    swap: &Swap,
) -> Result<Option<Lost>, CommitError> {
    let epoch = &manifest.epoch;
    let made = manifest.objects.iter().filter(|object| !swap.copies.contains_key(&object.key));
    let made: Vec<ObjectOfEpoch> = made.cloned().collect();
    let lost: Vec<Option<Lost>> = stream::iter(made)
        .map(|object| publish_object(stores.clone(), epoch.clone(), object))
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await?;
    if let Some(lost) = lost.into_iter().flatten().next() {
        return Ok(Some(lost));
    }
    if !mutated!(SwapBeforeKeeping) {
        keep_in_trash(stores, manifest).await?;
    }
    let mut folders: BTreeMap<&str, Folder> = BTreeMap::new();
    for object in &manifest.objects {
        if let Some(source) = swap.copies.get(&object.key) {
            folders.entry(folder_of(&object.key)).or_default().added.push((object.clone(), source.clone()));
        }
    }
    for object in &manifest.removed {
        folders.entry(folder_of(&object.key)).or_default().removed.push(object.key.clone());
    }
    let swaps: Vec<_> =
        folders.into_values().map(|folder| swap_folder(stores.clone(), manifest, swap.order, folder)).collect();
    stream::iter(swaps).buffer_unordered(FOLDERS_AT_ONCE).try_collect::<Vec<()>>().await?;
    stores.lake.flush().await?;
    Ok(None)
}

fn folder_of(key: &ObjectKey) -> &str {
    key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder)
}

async fn swap_folder(stores: Stores, manifest: &Manifest, order: SwapOrder, folder: Folder) -> Result<(), CommitError> {
    let Folder { added, removed } = folder;
    if order == SwapOrder::RemoveFirst {
        remove(&stores, removed).await?;
        add(&stores, manifest, added).await
    } else {
        add(&stores, manifest, added).await?;
        remove(&stores, removed).await
    }
}

async fn add(stores: &Stores, manifest: &Manifest, added: Vec<(ObjectOfEpoch, ObjectKey)>) -> Result<(), CommitError> {
    let additions: Vec<_> =
        added.into_iter().map(|(object, source)| publish_copy(stores.clone(), manifest, object, source)).collect();
    stream::iter(additions).buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await?;
    Ok(())
}

async fn remove(stores: &Stores, removed: Vec<ObjectKey>) -> Result<(), CommitError> {
    let deletions: Vec<_> = removed.into_iter().map(|key| delete(stores.clone(), key)).collect();
    stream::iter(deletions).buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// Completes the upload of a copy. One that is gone is staged again.
async fn publish_copy(
    stores: Stores,
    manifest: &Manifest,
    object: ObjectOfEpoch,
    source: ObjectKey,
) -> Result<(), CommitError> {
    let epoch = &manifest.epoch;
    if publish_object(stores.clone(), epoch.clone(), object.clone()).await?.is_none() {
        return Ok(());
    }
    if is_finished(&stores, epoch).await? {
        return Ok(());
    }
    tracing::warn!(%epoch, key = %object.key, "a staged copy is gone; staging it again");
    let torn = || CommitError::Torn { epoch: epoch.to_string(), missing: source.clone() };
    // What goes into the trash has the first numbers.
    let index = manifest.objects.iter().position(|one| one.key == object.key).unwrap_or_default();
    let number = manifest.removed.len() + index;
    for attempt in 0..COPIES_MAX {
        let id = repeated_upload_id(&stores, (epoch, &manifest.worker), number, attempt);
        let copy = match stores.lake.stage_copy(&source, &object.key, &id).await {
            Ok(Some(copy)) => copy,
            Ok(None) => return Err(torn()),
            Err(error) if error.is_retryable() => return Err(error.into()),
            // Somebody else has completed the copy while this one was staged.
            Err(error) => match stores.lake.checksum(&object.key).await? {
                Some(_) => break,
                None => return Err(error.into()),
            },
        };
        if (copy.bytes, copy.crc64nvme) != (object.bytes, object.crc64nvme) {
            stores.lake.abort_upload(&object.key, &copy.upload).await?;
            return Err(CommitError::Conflict { key: source, epoch: epoch.to_string() });
        }
        if is_finished(&stores, epoch).await? {
            stores.lake.abort_upload(&object.key, &copy.upload).await?;
            return Ok(());
        }
        match stores.lake.complete_upload(&object.key, &copy.upload, &copy.parts).await? {
            Completion::Completed => return delete_if_removed(&stores, epoch, object.key).await,
            Completion::KeyTaken => {
                stores.lake.abort_upload(&object.key, &copy.upload).await?;
                break;
            }
            Completion::NoSuchUpload => {}
        }
    }
    match stores.lake.checksum(&object.key).await? {
        Some(found) if found == (object.bytes, object.crc64nvme) => Ok(()),
        Some(_) => Err(CommitError::Conflict { key: object.key, epoch: epoch.to_string() }),
        None => Err(LakeError::Unavailable {
            operation: format!("copy {source} to {}", object.key),
            problem: "its upload was aborted meanwhile".to_owned(),
        }
        .into()),
    }
}

/// Whether the commit record of an operation is written.
async fn is_finished(stores: &Stores, operation: &EpochId) -> Result<bool, CommitError> {
    Ok(stores.lake.checksum(&operation.commit_key()).await?.is_some())
}

/// Deletes an object of an operation if the log says that it was removed.
async fn delete_if_removed(stores: &Stores, operation: &EpochId, key: ObjectKey) -> Result<(), CommitError> {
    if !is_finished(stores, operation).await? {
        return Ok(());
    }
    let (lake, mut is_removed) = (&*stores.lake, false);
    let extent = extent(lake).await?;
    let mut look_for = |entry: Entry| {
        is_removed |= entry.removed.iter().any(|object| object.key == key);
        !is_removed && entry.epoch != *operation
    };
    match read_backward(lake, extent.newest, &extent, &mut look_for).await {
        Ok(_) => {}
        Err(HistoryError::Lake(error)) => return Err(error.into()),
        Err(HistoryError::Entry(error)) => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, %key, "the lake log cannot be read; `shardlake verify` shows what is damaged");
        }
    }
    if is_removed { delete(stores.clone(), key).await } else { Ok(()) }
}
