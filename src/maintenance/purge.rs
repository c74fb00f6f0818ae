//! Removing what operations have replaced, once nobody wants it back.
//!
//! Owns: which objects of the trash are old, and that nobody needs them while they go. Does not own: moving objects there
//! (`commit::operations`), bringing them back (`undo`), what a replay has made aside (`replay`).
//!
//! Whoever purges holds the leases of all parts of the lake that the operation has changed. So no undo of it runs meanwhile, and one that
//! was left half-way is finished first. A crash leaves some objects behind: then the operation cannot be undone, and the next purge
//! removes the rest.
//!
//! Ages are differences between times of the store: of an object in the trash, and of the newest entry of the lake log. So a wrong clock
//! purges nothing, and a lake in which nothing happens keeps its trash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::layout;

use crate::commit::{CommitError, EpochId, LakePart, Manifest, ManifestKind, Stores, lake_log};
use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::maintenance::operation::{OperationError, Operator, Plan, Work};
use crate::maintenance::undo::parts_of;

/// Deletions that are in progress at once.
const CONCURRENT: usize = 16;

/// Objects of one operation in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The operation.
    pub operation: EpochId,
    /// How many there are.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// When the newest of them was written: milliseconds since 1970, by the store's clock.
    pub newest_ms: i64,
}

/// What a purge removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// The operations, each with what it belongs to. They cannot be undone any more.
    pub operations: Vec<(EpochId, Option<String>)>,
    /// Objects.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// Operations whose objects are young, or that another process works on.
    pub kept: u64,
}

/// What is in the trash, by operation.
///
/// # Errors
/// The lake fails.
pub async fn trash(lake: &dyn ObjectStore) -> Result<Vec<Kept>, LakeError> {
    let mut kept: BTreeMap<EpochId, Kept> = BTreeMap::new();
    for object in lake.list(layout::TRASH).await? {
        let Some(operation) = layout::operation_of_trash(object.key.as_str()) else { continue };
        let Ok(operation) = EpochId::try_from(operation.to_owned()) else { continue };
        let new = || Kept { operation: operation.clone(), objects: 0, bytes: 0, newest_ms: i64::MIN };
        let of_operation = kept.entry(operation.clone()).or_insert_with(new);
        of_operation.objects += 1;
        of_operation.bytes = of_operation.bytes.saturating_add(object.bytes);
        of_operation.newest_ms = of_operation.newest_ms.max(object.modified_ms);
    }
    Ok(kept.into_values().collect())
}

/// The operations whose trash is at least this old.
///
/// # Errors
/// The lake fails.
pub async fn old_trash(lake: &dyn ObjectStore, age: Duration) -> Result<(Vec<Kept>, u64), LakeError> {
    let all = trash(lake).await?;
    if all.is_empty() {
        return Ok((all, 0));
    }
    let begin = lake_log::list_snapshots(lake).await?.last().copied().unwrap_or_default();
    let now_ms = lake_log::list_after(lake, begin.before()).await?.last().map(|entry| entry.modified_ms);
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let is_old = |kept: &Kept| now_ms.is_some_and(|now_ms| now_ms.saturating_sub(kept.newest_ms) >= age_ms);
    let (old, young): (Vec<Kept>, Vec<Kept>) = all.into_iter().partition(is_old);
    Ok((old, young.len() as u64))
}

/// Removes the trash of these operations. One that another process works on is left for later.
///
/// # Errors
/// The stores fail. What was removed before stays removed.
pub async fn purge(operator: &mut Operator, stores: &Stores, old: Vec<Kept>) -> Result<Purged, OperationError> {
    let mut purged = Purged::default();
    for Kept { operation, .. } in old {
        let key = operation.commit_key();
        let Some(bytes) = stores.lake.get(&key).await? else {
            // It is decided and not published: whoever finishes it needs its trash.
            purged.kept += 1;
            continue;
        };
        let manifest = Manifest::from_bytes(&key, &bytes).map_err(CommitError::from)?;
        match purge_operation(operator, &manifest).await {
            Ok((objects, bytes)) => {
                purged.operations.push((operation, manifest.of));
                purged.objects += objects;
                purged.bytes = purged.bytes.saturating_add(bytes);
            }
            Err(OperationError::Busy { part, holder }) => {
                tracing::info!(%operation, part, %holder, "another operation runs; its trash is purged later");
                purged.kept += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(purged)
}

/// Removes the trash of one operation. Returns how many objects went, and their size.
///
/// # Errors
/// Another process works on a part that it has changed, or the stores fail.
pub async fn purge_operation(operator: &mut Operator, manifest: &Manifest) -> Result<(u64, u64), OperationError> {
    let prefix = layout::trash_of(manifest.epoch.as_str());
    remove_holding(operator, &parts_of(manifest), &prefix).await
}

/// Removes everything below a prefix, under the leases of these parts. Returns how many objects went, and their size.
///
/// # Errors
/// Another process works on one of the parts, or the stores fail.
pub async fn remove_holding(
    operator: &mut Operator,
    parts: &BTreeSet<LakePart>,
    prefix: &str,
) -> Result<(u64, u64), OperationError> {
    let work = Removing { prefix, objects: AtomicU64::new(0), bytes: AtomicU64::new(0) };
    // Nothing is committed: what goes is not in the lake.
    operator.run(ManifestKind::Replace, parts, &work).await?;
    Ok((work.objects.into_inner(), work.bytes.into_inner()))
}

struct Removing<'p> {
    prefix: &'p str,
    objects: AtomicU64,
    bytes: AtomicU64,
}

#[async_trait]
impl Work for Removing<'_> {
    async fn plan(&self, stores: &Stores, _plan: &mut Plan) -> Result<(), OperationError> {
        let listed = stores.lake.list(self.prefix).await?;
        self.objects.store(listed.len() as u64, Ordering::Relaxed);
        self.bytes.store(listed.iter().map(|object| object.bytes).sum(), Ordering::Relaxed);
        let deletions: Vec<_> = listed.into_iter().map(|object| delete(stores.clone(), object.key)).collect();
        stream::iter(deletions).buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await?;
        stores.lake.flush().await?;
        Ok(())
    }
}

async fn delete(stores: Stores, key: ObjectKey) -> Result<(), LakeError> {
    stores.lake.delete(&key).await
}
