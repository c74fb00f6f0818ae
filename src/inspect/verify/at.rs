//! The audit of the lake at an earlier version.
//!
//! Owns: which objects are compared. What was live then and was removed since is in `_trash/`, or purged: it is counted, and not compared.

use crate::commit::lake_log::{Extent, HistoryError, LakeAt, LogVersion, ObjectFilter, lake_at, read_forward};
use crate::commit::{CommitError, EpochId, Stores, is_internal_stream};
use crate::inspect::CONCURRENT;
use crate::inspect::verify::names::{Name, Names};
use crate::inspect::verify::objects::{Writer, compare_some, drop_removed};
use crate::inspect::verify::{Audit, VerifyProgress};

/// An audit at a version could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log is damaged, or the lake fails.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The stores fail.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Compares the objects that were live at a version with what their entries say. Checks the chain of the entries that it reads.
///
/// # Errors
/// The stores fail, or the log is damaged: `verify` without a version says where.
pub async fn verify_at(
    stores: &Stores,
    extent: &Extent,
    version: LogVersion,
    progress: &(dyn Fn(VerifyProgress) + Sync),
) -> Result<(Audit, LakeAt), AuditError> {
    let lake = &*stores.lake;
    let at = lake_at(lake, extent, version).await?;
    let mut removed_since = Names::new();
    read_forward(lake, version, extent.newest, at.hash, &mut |entry| {
        removed_since.extend(entry.removed.iter().map(|object| Name::of(object.key.as_str())));
    })
    .await?;
    let live = at.live_by_kind();
    let mut audit = Audit {
        epochs: at.fold.epochs,
        operations: at.fold.operations(),
        log_version: Some(version.0),
        objects: live.values().map(|total| total.count).sum(),
        bytes: live.values().map(|total| total.bytes).sum(),
        shards: at.chains.ends().filter(|(key, _)| !is_internal_stream(&key.stream)).count() as u64,
        totals: at.fold.totals(),
        ..Audit::default()
    };
    progress(VerifyProgress::Total(audit.bytes));
    let mut objects = at.live_objects(lake, ObjectFilter::default());
    let mut wanted = Vec::new();
    loop {
        let object = objects.next().await?;
        let is_end = object.is_none();
        if let Some(object) = object {
            if removed_since.contains(&Name::of(object.key.as_str())) {
                audit.removed_since += 1;
                progress(VerifyProgress::Compared(object.bytes));
            } else {
                let epoch = EpochId::of_object(&object.key).map_or_else(String::new, |epoch| epoch.to_string());
                wanted.push((Writer { epoch, is_operation: None }, object));
            }
        }
        if wanted.len() >= CONCURRENT || is_end {
            compare_some(stores, std::mem::take(&mut wanted), progress, &mut audit).await?;
        }
        if is_end {
            break;
        }
    }
    drop(objects);
    drop_removed(stores, extent.newest, &mut audit).await?;
    Ok((audit, at))
}
