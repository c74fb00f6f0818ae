//! The lake at a version: what the entries up to it add up to, and the objects that are live in it.
//!
//! Owns: choosing a snapshot, adding the entries after it, and giving the live objects one after another. Does not own: the formats,
//! which version a time means (`history`).
//!
//! Memory: the sums, the ranges of all shards, and the keys of what was removed since the snapshot. Live objects are read in batches: a
//! part of the snapshot, or a few entries, at a time. So it makes no difference how many there are.

use std::collections::{BTreeMap, HashSet, VecDeque};

use futures::{StreamExt, TryStreamExt, stream};

use crate::commit::lake_log::end::list_after;
use crate::commit::lake_log::entry::{AddedObject, Entry, EntryHash, LogVersion};
use crate::commit::lake_log::history::{Extent, HistoryError, get_entry, read_forward};
use crate::commit::lake_log::snapshot::{ObjectGroup, Snapshot, SnapshotPart, UnreadableSnapshot};
use crate::commit::log::{Chains, Fold, ObjectTotal};
use crate::commit::manifest::ObjectKind;
use crate::lake::{ObjectKey, ObjectStore};

/// Entries that are read at once for their objects.
const ENTRIES_AT_ONCE: u64 = 32;

/// The lake at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeAt {
    /// The version.
    pub version: LogVersion,
    /// When it was entered, RFC 3339; `None` for the empty lake.
    pub entered_at: Option<String>,
    /// The hash of its entry; `None` for the empty lake.
    pub hash: Option<EntryHash>,
    /// What all entries up to it add up to.
    pub fold: Fold,
    /// The ranges that they cover.
    pub chains: Chains,
    /// The objects that are live, by what they hold and of which dataset.
    pub live: BTreeMap<ObjectGroup, ObjectTotal>,
    /// The version of the snapshot that it was computed from; [`LogVersion::EMPTY`] if it was none.
    pub base: LogVersion,
    parts: Vec<SnapshotPart>,
    /// What entries after the snapshot removed.
    removed: HashSet<ObjectKey>,
}

impl LakeAt {
    /// The lake before its first entry.
    fn empty() -> Self {
        LakeAt {
            version: LogVersion::EMPTY,
            entered_at: None,
            hash: None,
            fold: Fold::default(),
            chains: Chains::default(),
            live: BTreeMap::new(),
            base: LogVersion::EMPTY,
            parts: Vec::new(),
            removed: HashSet::new(),
        }
    }

    fn of_snapshot(snapshot: Snapshot) -> Self {
        let mut live: BTreeMap<ObjectGroup, ObjectTotal> = BTreeMap::new();
        for part in &snapshot.parts {
            let total = live.entry(part.group.clone()).or_default();
            total.count += part.objects;
            total.rows = total.rows.saturating_add(part.rows);
            total.bytes = total.bytes.saturating_add(part.bytes);
        }
        LakeAt {
            version: snapshot.version,
            entered_at: Some(snapshot.entered_at),
            hash: Some(snapshot.entry),
            fold: snapshot.fold,
            chains: snapshot.chains,
            live,
            base: snapshot.version,
            parts: snapshot.parts,
            removed: HashSet::new(),
        }
    }

    fn add(&mut self, entry: Entry) {
        self.fold.add_entry(&entry);
        self.chains.insert_shards(&entry.epoch, &entry.shards);
        for object in &entry.added {
            self.live.entry(ObjectGroup::of(object)).or_default().add(object.rows, object.bytes);
        }
        for object in entry.removed {
            let group = ObjectGroup { kind: object.kind, dataset: object.dataset };
            if let Some(total) = self.live.get_mut(&group) {
                total.subtract(object.rows, object.bytes);
            }
            self.removed.insert(object.key);
        }
        (self.version, self.entered_at) = (entry.version, Some(entry.entered_at));
    }

    /// Adds the entries that the log has after this version, and gives each to `each`. If it fails in between, what was added stays.
    ///
    /// # Errors
    /// The lake fails, or the log is damaged.
    pub async fn advance(
        &mut self,
        lake: &dyn ObjectStore,
        each: &mut (dyn FnMut(&Entry) + Send),
    ) -> Result<(), HistoryError> {
        let listed = list_after(lake, self.version).await?;
        let Some(newest) = listed.last().map(|entry| entry.version) else { return Ok(()) };
        let before = if self.version.is_empty() { Some(EntryHash::NONE) } else { self.hash };
        // Without the hash of the last entry the next call cannot tell whether the chain is whole.
        self.hash = None;
        let hash = read_forward(lake, self.version, newest, before, &mut |entry| {
            each(&entry);
            self.add(entry);
        })
        .await?;
        self.hash = hash;
        Ok(())
    }

    /// The live objects by kind.
    pub fn live_by_kind(&self) -> BTreeMap<ObjectKind, ObjectTotal> {
        let mut totals: BTreeMap<ObjectKind, ObjectTotal> = BTreeMap::new();
        for (group, live) in self.live.iter().filter(|(_, live)| live.count > 0) {
            let total = totals.entry(group.kind).or_default();
            total.count += live.count;
            total.rows = total.rows.saturating_add(live.rows);
            total.bytes = total.bytes.saturating_add(live.bytes);
        }
        totals
    }

    /// The live objects that pass a filter.
    pub fn live_objects<'a>(&'a self, lake: &'a dyn ObjectStore, filter: ObjectFilter) -> LiveObjects<'a> {
        let parts: VecDeque<&SnapshotPart> = self.parts.iter().filter(|part| filter.wants_group(&part.group)).collect();
        LiveObjects { at: self, lake, filter, parts, read_through: self.base, batch: VecDeque::new() }
    }

    /// The live objects that entries after the snapshot added.
    pub(super) fn after_snapshot<'a>(&'a self, lake: &'a dyn ObjectStore) -> LiveObjects<'a> {
        LiveObjects { parts: VecDeque::new(), ..self.live_objects(lake, ObjectFilter::default()) }
    }

    /// The parts of the snapshot that it was computed from.
    pub(super) fn parts(&self) -> &[SnapshotPart] {
        &self.parts
    }

    /// What entries after the snapshot removed.
    pub(super) fn removed(&self) -> &HashSet<ObjectKey> {
        &self.removed
    }
}

/// Which objects are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    /// Only those that hold this.
    pub kind: Option<ObjectKind>,
    /// Only those of this dataset.
    pub dataset: Option<String>,
    /// Only those whose keys begin so, such as the folder of a partition.
    pub prefix: Option<String>,
}

impl ObjectFilter {
    fn wants_group(&self, group: &ObjectGroup) -> bool {
        self.kind.is_none_or(|kind| kind == group.kind)
            && self.dataset.as_ref().is_none_or(|dataset| Some(dataset) == group.dataset.as_ref())
    }

    fn wants(&self, object: &AddedObject) -> bool {
        self.wants_group(&ObjectGroup::of(object))
            && self.prefix.as_ref().is_none_or(|prefix| object.key.as_str().starts_with(prefix))
    }
}

/// Live objects, one after another, in no particular order.
pub struct LiveObjects<'a> {
    at: &'a LakeAt,
    lake: &'a dyn ObjectStore,
    filter: ObjectFilter,
    /// Parts that were not read yet.
    parts: VecDeque<&'a SnapshotPart>,
    /// The version through which entries were read.
    read_through: LogVersion,
    batch: VecDeque<AddedObject>,
}

impl LiveObjects<'_> {
    /// The next object; `None` at the end.
    ///
    /// # Errors
    /// The lake fails, or a part or an entry is missing or damaged.
    pub async fn next(&mut self) -> Result<Option<AddedObject>, HistoryError> {
        loop {
            if let Some(object) = self.batch.pop_front() {
                return Ok(Some(object));
            }
            let found = if let Some(part) = self.parts.pop_front() {
                read_part(self.lake, part).await?
            } else if self.read_through < self.at.version {
                self.read_entries().await?
            } else {
                return Ok(None);
            };
            let (removed, filter) = (&self.at.removed, &self.filter);
            self.batch
                .extend(found.into_iter().filter(|object| filter.wants(object) && !removed.contains(&object.key)));
        }
    }

    async fn read_entries(&mut self) -> Result<Vec<AddedObject>, HistoryError> {
        let through = self.at.version.0.min(self.read_through.0 + ENTRIES_AT_ONCE);
        let lake = self.lake;
        let wanted: Vec<LogVersion> = (self.read_through.0 + 1..=through).map(LogVersion).collect();
        let entries: Vec<Entry> = stream::iter(wanted)
            .map(|version| get_present(lake, version))
            .buffered(usize::try_from(ENTRIES_AT_ONCE).unwrap_or(1))
            .try_collect()
            .await?;
        self.read_through = LogVersion(through);
        Ok(entries.into_iter().flat_map(|entry| entry.added).collect())
    }
}

async fn get_present(lake: &dyn ObjectStore, version: LogVersion) -> Result<Entry, HistoryError> {
    Ok(get_entry(lake, version).await?.ok_or(HistoryError::Missing(version))?.entry)
}

/// The objects of a part.
pub(super) async fn read_part(lake: &dyn ObjectStore, part: &SnapshotPart) -> Result<Vec<AddedObject>, HistoryError> {
    let missing = || UnreadableSnapshot { key: part.key.clone(), problem: "it is not there".to_owned() };
    let bytes = lake.get(&part.key).await?.ok_or_else(missing)?;
    Ok(part.objects_of(&bytes)?)
}

/// The snapshot at a version.
///
/// # Errors
/// The lake fails, or the snapshot is gone or cannot be read.
pub async fn get_snapshot(lake: &dyn ObjectStore, version: LogVersion) -> Result<Snapshot, HistoryError> {
    let key = Snapshot::key_of(version);
    let missing = || UnreadableSnapshot { key: key.clone(), problem: "it is not there".to_owned() };
    let bytes = lake.get(&key).await?.ok_or_else(missing)?;
    Ok(Snapshot::from_bytes(&key, &bytes)?)
}

/// The lake at a version, which must not be newer than the log. A snapshot that cannot be read is passed over with a warning.
///
/// # Errors
/// The lake fails, or the log is damaged, or what is needed of it was trimmed.
pub async fn lake_at(lake: &dyn ObjectStore, extent: &Extent, version: LogVersion) -> Result<LakeAt, HistoryError> {
    let candidates = extent.snapshots.iter().rev().filter(|snapshot| **snapshot <= version);
    let mut at = LakeAt::empty();
    for snapshot in candidates {
        match get_snapshot(lake, *snapshot).await {
            Ok(snapshot) => {
                at = LakeAt::of_snapshot(snapshot);
                break;
            }
            Err(HistoryError::Snapshot(error)) => {
                tracing::warn!(%error, "ignoring a snapshot of the lake log; trying the one before it");
            }
            Err(error) => return Err(error),
        }
    }
    let first = if at.hash.is_none() { Some(EntryHash::NONE) } else { at.hash };
    let base = at.version;
    let hash = read_forward(lake, base, version, first, &mut |entry| at.add(entry)).await?;
    if at.version > LogVersion::EMPTY {
        at.hash = hash;
    }
    Ok(at)
}
