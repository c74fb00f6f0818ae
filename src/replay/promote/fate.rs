//! What became of a replay, by the log of the lake and by markers beside its plan.
//!
//! Owns: the form of markers, and searching the log. Does not own: what may follow from it (the parent module).
//!
//! A marker is `_replays/<id>/promoted.json`, `undone.json` or `purged.json`, written by create-only PUT:
//!
//! ```json
//! {"format":1,"at":"2025-01-13T10:30:00.000Z","operation":"20250113T103000Z-3f2a91c07d5e4b10-000001","version":17}
//! ```

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use pipeline::layout;
use pipeline::time::format_rfc3339;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::commit::EpochId;
use crate::commit::lake_log::{HistoryError, LogVersion, extent, read_backward};
use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::maintenance::undo::undo_of;
use crate::replay::plan::{Plan, ReplayId};

/// The version of the form of markers.
const FORMAT: u32 = 1;

/// A marker of a replay, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    at: String,
    operation: Option<EpochId>,
    version: Option<LogVersion>,
}

/// What the log and the markers say became of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    /// The operation that promoted it.
    pub promoted: Option<(EpochId, Option<LogVersion>)>,
    /// The operation that undid that one.
    pub undone: Option<(EpochId, Option<LogVersion>)>,
    /// Whether its objects were purged.
    pub is_purged: bool,
}

/// What entered the log since a replay was planned.
pub(super) struct Since {
    pub(super) fate: Fate,
    /// An object that the replay replaces and that a version has removed.
    pub(super) removed: Option<(LogVersion, ObjectKey)>,
    /// Whether the entries go back to the plan.
    pub(super) is_whole: bool,
}

/// What an operation belongs to that promotes this replay.
pub fn promotion_of(id: &ReplayId) -> String {
    format!("replay:{id}")
}

/// What became of a replay.
///
/// # Errors
/// The lake fails, or its log is damaged.
pub async fn fate_of(lake: &dyn ObjectStore, plan: &Plan) -> Result<Fate, HistoryError> {
    Ok(since(lake, plan).await?.fate)
}

pub(super) async fn since(lake: &dyn ObjectStore, plan: &Plan) -> Result<Since, HistoryError> {
    let superseded: HashSet<&ObjectKey> = plan.superseded.iter().map(|object| &object.key).collect();
    let of_promotion = promotion_of(&plan.id);
    let extent = extent(lake).await?;
    let mut undone: BTreeMap<String, (EpochId, Option<LogVersion>)> = BTreeMap::new();
    let (mut promoted, mut removed) = (None, None);
    let mut is_whole = extent.newest <= plan.version;
    read_backward(lake, extent.newest, &extent, &mut |entry| {
        if entry.version <= plan.version {
            is_whole = true;
            return false;
        }
        is_whole = entry.version == plan.version.next();
        match &entry.of {
            Some(of) if *of == of_promotion => {
                promoted = Some((entry.epoch, Some(entry.version)));
                return !is_whole;
            }
            Some(of) if of.starts_with("undo:") => {
                undone.insert(of.clone(), (entry.epoch.clone(), Some(entry.version)));
            }
            _ => {}
        }
        if let Some(object) = entry.removed.into_iter().find(|object| superseded.contains(&object.key)) {
            removed = Some((entry.version, object.key));
        }
        !is_whole
    })
    .await?;
    let of_marker = |marker: Option<Marker>| marker.and_then(|marker| Some((marker.operation?, marker.version)));
    if promoted.is_none() && !is_whole {
        promoted = of_marker(marker(lake, &plan.id, "promoted").await?);
    }
    let mut by_undo = promoted.as_ref().and_then(|(operation, _)| undone.remove(&undo_of(operation)));
    if by_undo.is_none() && !is_whole {
        by_undo = of_marker(marker(lake, &plan.id, "undone").await?);
    }
    let is_purged = marker(lake, &plan.id, "purged").await?.is_some();
    Ok(Since { fate: Fate { promoted, undone: by_undo, is_purged }, removed, is_whole })
}

fn marker_key(id: &ReplayId, what: &str) -> ObjectKey {
    ObjectKey::new(layout::replay_marker(id.as_str(), what)).expect("hex digits are a plain name")
}

/// A marker. One that cannot be read is like none: the log decides.
pub(super) async fn marker(lake: &dyn ObjectStore, id: &ReplayId, what: &str) -> Result<Option<Marker>, LakeError> {
    let Some(bytes) = lake.get(&marker_key(id, what)).await? else { return Ok(None) };
    let marker = serde_json::from_slice::<Marker>(&bytes).ok().filter(|marker| marker.format == FORMAT);
    Ok(Some(marker.unwrap_or(Marker { format: FORMAT, at: String::new(), operation: None, version: None })))
}

pub(super) async fn write_marker(
    lake: &dyn ObjectStore,
    clock: &dyn Clock,
    id: &ReplayId,
    what: &str,
    operation: Option<(EpochId, Option<LogVersion>)>,
) -> Result<(), LakeError> {
    let (operation, version) = operation.map_or((None, None), |(operation, version)| (Some(operation), version));
    let marker = Marker { format: FORMAT, at: format_rfc3339(clock.now_ms()), operation, version };
    let bytes = serde_json::to_vec(&marker).expect("plain fields");
    // Whoever was faster has written the same operation.
    lake.put_new(&marker_key(id, what), Bytes::from(bytes)).await?;
    Ok(())
}
