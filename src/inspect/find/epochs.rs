//! Which epoch has read a position, and which objects have its records now.
//!
//! Owns: finding the epoch without reading the whole log, and following its objects through the operations that replaced them. Does not own:
//! reading the log (`commit::lake_log`), searching the objects.
//!
//! The positions of a shard only grow from version to version. So of the snapshots, the first whose ranges have the position is found by
//! halving, and the epoch is among the entries between that snapshot and the one before. Where entries were trimmed, commit records are read.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use checkpoints::{Position, ShardKey, ShardRange};
use futures::{StreamExt, stream};
use pipeline::layout::COMMITS;

use crate::commit::lake_log::{
    AddedObject, Entry, Extent, HistoryError, LakeAt, LogVersion, get_entry, get_snapshot, read_forward,
};
use crate::commit::log::Chains;
use crate::commit::{EpochId, Manifest, ShardOfEpoch};
use crate::inspect::find::{FindError, FindProgress};
use crate::lake::{ObjectKey, ObjectStore};

/// Requests that are in progress at once.
const CONCURRENT: usize = 32;

/// An epoch that has read a position.
#[derive(Debug, Clone)]
pub(super) struct Covering {
    pub(super) key: ShardKey,
    pub(super) epoch: EpochId,
    pub(super) range: ShardRange,
    pub(super) written_at: String,
    /// The version that added it; `None` if its entry was trimmed.
    pub(super) version: Option<LogVersion>,
    pub(super) objects: Vec<AddedObject>,
}

/// An operation that removed objects of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangedBy {
    pub(super) version: LogVersion,
    pub(super) epoch: EpochId,
    pub(super) of: Option<String>,
}

/// The epochs that have read these positions of shards. A position that no epoch has read is not among the results.
pub(super) async fn find_epochs(
    lake: &dyn ObjectStore,
    extent: &Extent,
    at: &LakeAt,
    targets: &[(ShardKey, Position)],
    progress: &(dyn Fn(FindProgress) + Sync),
) -> Result<Vec<Covering>, FindError> {
    let mut heads = Heads {
        lake,
        known: BTreeMap::new(),
        snapshots: extent.snapshots.iter().copied().filter(|snapshot| *snapshot <= at.version).collect(),
    };
    let mut windows: BTreeMap<(LogVersion, LogVersion), Vec<(ShardKey, Position)>> = BTreeMap::new();
    for (key, position) in targets.iter().filter(|(key, position)| at.chains.covers(key, position)) {
        let window = heads.window(key, position, at.version).await?;
        windows.entry(window).or_default().push((key.clone(), position.clone()));
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for ((after, through), wanted) in windows {
        let mut wanted = wanted;
        search_entries(lake, (after, through), &mut wanted, &mut found, progress).await?;
        missing.extend(wanted);
    }
    if !missing.is_empty() {
        search_records(lake, &mut missing, &mut found, progress).await?;
    }
    Ok(found)
}

/// The ranges of snapshots, each read once.
struct Heads<'l> {
    lake: &'l dyn ObjectStore,
    snapshots: Vec<LogVersion>,
    known: BTreeMap<LogVersion, Chains>,
}

impl Heads<'_> {
    /// The versions among which the epoch is that has read a position: after the first, up to the second.
    async fn window(
        &mut self,
        key: &ShardKey,
        position: &Position,
        newest: LogVersion,
    ) -> Result<(LogVersion, LogVersion), FindError> {
        // Below `low` no snapshot has the position, and all from `high` on have it.
        let (mut low, mut high) = (0, self.snapshots.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.covers(self.snapshots[middle], key, position).await? {
                Some(true) => high = middle,
                Some(false) => low = middle + 1,
                // One that cannot be read only makes the window wider.
                None => {
                    self.snapshots.remove(middle);
                    high -= 1;
                }
            }
        }
        let after = if low == 0 { LogVersion::EMPTY } else { self.snapshots[low - 1] };
        Ok((after, self.snapshots.get(low).copied().unwrap_or(newest)))
    }

    async fn covers(
        &mut self,
        version: LogVersion,
        key: &ShardKey,
        position: &Position,
    ) -> Result<Option<bool>, FindError> {
        if !self.known.contains_key(&version) {
            match get_snapshot(self.lake, version).await {
                Ok(snapshot) => drop(self.known.insert(version, snapshot.chains)),
                Err(HistoryError::Snapshot(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.known.get(&version).map(|chains| chains.covers(key, position)))
    }
}

/// Searches the entries of a window. What is found is removed from `wanted`.
async fn search_entries(
    lake: &dyn ObjectStore,
    (after, through): (LogVersion, LogVersion),
    wanted: &mut Vec<(ShardKey, Position)>,
    found: &mut Vec<Covering>,
    progress: &(dyn Fn(FindProgress) + Sync),
) -> Result<(), FindError> {
    let versions = (after.0 + 1..=through.0).map(LogVersion);
    let mut reading = stream::iter(versions).map(|version| get_entry(lake, version)).buffered(CONCURRENT);
    while let Some(entry) = reading.next().await {
        progress(FindProgress::Entry);
        let Some(entry) = entry?.map(|stored| stored.entry) else { continue };
        if entry.kind.is_operation() {
            continue;
        }
        take_covered(&entry.shards, wanted, |key, range| {
            let Entry { epoch, written_at, version, added, .. } = &entry;
            let (epoch, written_at, objects) = (epoch.clone(), written_at.clone(), added.clone());
            found.push(Covering { key, epoch, range, written_at, version: Some(*version), objects });
        });
        if wanted.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Searches all commit records, the newest first.
async fn search_records(
    lake: &dyn ObjectStore,
    wanted: &mut Vec<(ShardKey, Position)>,
    found: &mut Vec<Covering>,
    progress: &(dyn Fn(FindProgress) + Sync),
) -> Result<(), FindError> {
    tracing::debug!(shards = wanted.len(), "entries of the lake log were trimmed; reading commit records");
    let listed = lake.list(COMMITS).await?;
    let keys: Vec<ObjectKey> = listed.into_iter().rev().map(|object| object.key).collect();
    let mut reading = stream::iter(keys).map(|key| async move { (lake.get(&key).await, key) }).buffered(CONCURRENT);
    while let Some((bytes, key)) = reading.next().await {
        progress(FindProgress::Entry);
        let Some(record) = bytes?.map(|bytes| Manifest::from_bytes(&key, &bytes)).transpose()? else { continue };
        if record.kind.is_operation() {
            continue;
        }
        take_covered(&record.shards, wanted, |key, range| {
            let objects = record.objects.iter().map(AddedObject::from).collect();
            let (epoch, written_at) = (record.epoch.clone(), record.written_at.clone());
            found.push(Covering { key, epoch, range, written_at, version: None, objects });
        });
        if wanted.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Takes out of `wanted` what these ranges have.
fn take_covered(
    shards: &[ShardOfEpoch],
    wanted: &mut Vec<(ShardKey, Position)>,
    mut each: impl FnMut(ShardKey, ShardRange),
) {
    for shard in shards {
        let has = |(key, position): &(ShardKey, Position)| {
            *key == shard.key && shard.range.after() < position && position <= shard.range.through()
        };
        while let Some(place) = wanted.iter().position(has) {
            let (key, _) = wanted.swap_remove(place);
            each(key, shard.range.clone());
        }
    }
}

/// The objects that have the records of some objects now, after the operations that replaced them, and these operations. `since`: the
/// version that added them.
///
/// Entries between that version and the newest snapshot may be trimmed. Then all live objects that operations made may have the records:
/// they are returned too, and that is the last value.
pub(super) async fn follow(
    lake: &dyn ObjectStore,
    at: &LakeAt,
    since: Option<LogVersion>,
    objects: Vec<AddedObject>,
) -> Result<(Vec<AddedObject>, BTreeSet<ChangedBy>), FindError> {
    let mut live: BTreeMap<ObjectKey, AddedObject> =
        objects.into_iter().map(|object| (object.key.clone(), object)).collect();
    let mut changed = BTreeSet::new();
    let after = since.unwrap_or_default();
    let mut add = |entry: Entry| {
        let removed: Vec<&ObjectKey> =
            entry.removed.iter().map(|removed| &removed.key).filter(|key| live.contains_key(*key)).collect();
        if removed.is_empty() {
            return;
        }
        for key in removed {
            live.remove(key);
        }
        live.extend(entry.added.iter().map(|object| (object.key.clone(), object.clone())));
        changed.insert(ChangedBy { version: entry.version, epoch: entry.epoch, of: entry.of });
    };
    match read_forward(lake, after, at.version, None, &mut add).await {
        Ok(_) => Ok((live.into_values().collect(), changed)),
        Err(HistoryError::Missing(_)) => {
            let mut live = at.live_objects(lake, crate::commit::lake_log::ObjectFilter::default());
            let (mut candidates, mut epochs) = (Vec::new(), Operations::default());
            while let Some(object) = live.next().await? {
                if epochs.has(lake, &object.key).await? {
                    candidates.push(object);
                }
            }
            Ok((candidates, changed))
        }
        Err(error) => Err(error.into()),
    }
}

/// Which epochs are operations, by their commit records.
#[derive(Default)]
struct Operations {
    no: HashSet<EpochId>,
    yes: HashSet<EpochId>,
}

impl Operations {
    /// Whether an operation made an object.
    async fn has(&mut self, lake: &dyn ObjectStore, key: &ObjectKey) -> Result<bool, FindError> {
        let Some(epoch) = EpochId::of_object(key) else { return Ok(false) };
        if !self.no.contains(&epoch) && !self.yes.contains(&epoch) {
            let record_key = epoch.commit_key();
            let record =
                lake.get(&record_key).await?.map(|bytes| Manifest::from_bytes(&record_key, &bytes)).transpose()?;
            let is_operation = record.is_none_or(|record| record.kind.is_operation());
            if is_operation { &mut self.yes } else { &mut self.no }.insert(epoch.clone());
        }
        Ok(self.yes.contains(&epoch))
    }
}
