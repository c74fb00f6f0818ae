//! Undoing a promoted replay, and removing what it has made and replaced.

use pipeline::layout;
use serde::Serialize;

use crate::clock::Clock;
use crate::commit::{Stores, SwapOrder};
use crate::lake::{ObjectInfo, ObjectStore};
use crate::maintenance::operation::{OperationError, Operator, finish_pending};
use crate::maintenance::purge::{purge_operation, remove_holding};
use crate::maintenance::undo;
use crate::replay::plan::{Plan, is_complete};
use crate::replay::promote::fate::{fate_of, write_marker};
use crate::replay::promote::{Aside, Changed, PromoteError, Refusal, parts_of, record_of};

/// What a purge removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PurgedReplay {
    /// Objects that the replay had replaced, or that an undo had removed.
    pub kept_objects: u64,
    /// Their size.
    pub kept_bytes: u64,
    /// Objects of the aside lake.
    pub aside_objects: u64,
    /// Their size.
    pub aside_bytes: u64,
}

/// Undoes a promoted replay: what it replaced is back, under new names. A repeated call finds it undone.
///
/// # Errors
/// It was not promoted, it was purged, a later operation has changed what it added, or the stores fail.
pub async fn undo(
    operator: &mut Operator,
    stores: &Stores,
    clock: &dyn Clock,
    plan: &Plan,
    order: SwapOrder,
) -> Result<Changed, PromoteError> {
    let lake = &*stores.lake;
    finish_pending(stores).await.map_err(OperationError::from)?;
    let fate = fate_of(lake, plan).await?;
    let Some((promoted, _)) = fate.promoted else { return Err(Refusal::NotPromoted(plan.id.clone()).into()) };
    let (operation, before) = match fate.undone {
        Some((operation, _)) => (operation, true),
        None => match undo::undo(operator, &record_of(lake, &promoted).await?, order).await? {
            undo::Undone::Now(manifest) => (manifest.epoch.clone(), false),
            undo::Undone::Before(operation) => (operation, true),
        },
    };
    let version = fate_of(lake, plan).await?.undone.and_then(|(_, version)| version);
    write_marker(lake, clock, &plan.id, "undone", Some((operation.clone(), version))).await?;
    Ok(Changed::of(&record_of(lake, &operation).await?, version, before))
}

/// What a purge of a replay would remove.
///
/// # Errors
/// The lake fails, or its log is damaged.
pub async fn purgeable(lake: &dyn ObjectStore, plan: &Plan, aside: Aside<'_>) -> Result<PurgedReplay, PromoteError> {
    let fate = fate_of(lake, plan).await?;
    let mut found = PurgedReplay::default();
    let mut add = |objects: Vec<ObjectInfo>, is_aside: bool| {
        let (count, bytes) = (objects.len() as u64, objects.iter().map(|object| object.bytes).sum::<u64>());
        if is_aside {
            (found.aside_objects, found.aside_bytes) = (count, bytes);
        } else {
            (found.kept_objects, found.kept_bytes) = (found.kept_objects + count, found.kept_bytes + bytes);
        }
    };
    for (operation, _) in fate.promoted.into_iter().chain(fate.undone) {
        add(lake.list(&layout::trash_of(operation.as_str())).await?, false);
    }
    add(lake.list(aside.prefix).await?, true);
    Ok(found)
}

/// Removes what a replay has made aside, and what its operations have replaced. From then on it can be neither promoted nor undone. The
/// marker goes first.
///
/// # Errors
/// The replay is not complete, another operation works on the same part of the lake, or the stores fail. The same call continues.
pub async fn purge(
    operator: &mut Operator,
    stores: &Stores,
    clock: &dyn Clock,
    plan: &Plan,
    aside: Aside<'_>,
) -> Result<PurgedReplay, PromoteError> {
    let lake = &*stores.lake;
    finish_pending(stores).await.map_err(OperationError::from)?;
    let fate = fate_of(lake, plan).await?;
    if fate.promoted.is_none() && !fate.is_purged && !is_complete(aside.lake, plan).await? {
        return Err(Refusal::Unfinished(plan.id.clone()).into());
    }
    write_marker(lake, clock, &plan.id, "purged", None).await?;
    let mut purged = PurgedReplay::default();
    // A promotion that reads the aside lake holds these leases. One that begins later finds the marker. If the aside lake cannot be
    // read any more, a purge has begun before.
    let parts = parts_of(plan, aside.lake).await?;
    (purged.aside_objects, purged.aside_bytes) = remove_holding(operator, &parts, aside.prefix).await?;
    let fate = fate_of(lake, plan).await?;
    for (operation, _) in fate.promoted.into_iter().chain(fate.undone) {
        let (objects, bytes) = purge_operation(operator, &record_of(lake, &operation).await?).await?;
        purged.kept_objects += objects;
        purged.kept_bytes += bytes;
    }
    remove_rows(stores, plan).await?;
    Ok(purged)
}

/// Removes the rows of the slices that have ended.
async fn remove_rows(stores: &Stores, plan: &Plan) -> Result<(), PromoteError> {
    let stream = plan.id.stream();
    let rows = stores.leases.list().await.map_err(OperationError::from)?;
    for row in rows.into_iter().filter(|row| row.key.stream == stream) {
        // One that has not ended stays.
        stores.leases.remove(&row.key).await.map_err(OperationError::from)?;
    }
    Ok(())
}
