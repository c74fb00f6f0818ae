//! Writing snapshots of the lake log.
//!
//! Owns: making the next snapshot from the one before and the entries after it, and when a worker does so. Does not own: the format
//! (`snapshot`), which entries may then be trimmed.
//!
//! The parts are written first, under names that contain their writer, and the head last, by create-only PUT. A reader knows a part
//! only from a head. So of several writers at one version the first head counts, and the parts of the others belong to nobody.
//!
//! | event | consequence |
//! |---|---|
//! | a writer crashes before the head | its parts belong to no snapshot, and nobody reads them |
//! | the answer to the PUT of the head is lost | the snapshot is there; if it is repeated, the key is taken: the same outcome |
//! | another writer has written the head | the same: the parts of this one belong to no snapshot |
//! | a snapshot or a part cannot be read | a warning; readers take the snapshot before it; the next one is made without it |
//!
//! Nothing is removed here: a part that belongs to no snapshot takes space and does no harm, and a worker needs no permission to delete
//! it. Two workers rarely write a snapshot at the same time.
//!
//! Memory: the sums and ranges, the keys of what was removed since the snapshot before, and a part for each kind and dataset, at most
//! [`PART_JSON_MAX`] of JSON each, compressed.

use std::collections::BTreeMap;

use checkpoints::LeaseOwner;
use pipeline::layout;
use tokio::task::JoinHandle;

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::at::{LakeAt, get_snapshot, lake_at, read_part};
use crate::commit::lake_log::entry::LogVersion;
use crate::commit::lake_log::history::{HistoryError, extent};
use crate::commit::lake_log::snapshot::{ObjectGroup, PartWriter, Snapshot, SnapshotPart};
use crate::commit::stores::Stores;
use crate::lake::{ObjectKey, ObjectStore, Written};

/// The most objects of a part.
const PART_OBJECTS_MAX: u64 = 20_000;
/// The most bytes of a part's JSON.
const PART_JSON_MAX: u64 = 32 << 20;
/// Entries between two snapshots.
pub const SNAPSHOT_EVERY: u64 = 1_000;

/// What became of writing a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotWritten {
    /// It was written, at this version.
    At(LogVersion),
    /// The newest one is recent enough.
    NotNeeded,
    /// Another writer was first.
    Outrun,
}

/// Writes a snapshot of the newest version, if the newest snapshot is at least `every` entries before it. `writer` is a name that no
/// other writer has, nor this one for another snapshot.
///
/// # Errors
/// The lake fails, or the log is damaged. What was written belongs to no snapshot.
pub async fn write_snapshot(stores: &Stores, writer: &str, every: u64) -> Result<SnapshotWritten, HistoryError> {
    let lake = &*stores.lake;
    let extent = extent(lake).await?;
    let newest_snapshot = extent.snapshots.last().copied().unwrap_or_default();
    if extent.newest.0.saturating_sub(newest_snapshot.0) < every.max(1) {
        return Ok(SnapshotWritten::NotNeeded);
    }
    let at = lake_at(lake, &extent, extent.newest).await?;
    let (Some(hash), Some(entered_at)) = (at.hash, at.entered_at.clone()) else {
        return Ok(SnapshotWritten::NotNeeded);
    };
    let mut parts = Parts {
        lake,
        version: at.version,
        writer,
        kept: Vec::new(),
        written: Vec::new(),
        open: BTreeMap::new(),
        number: 0,
    };
    parts.add_all(&at).await?;
    let (kept, written) = (parts.kept, parts.written);
    let all = kept.into_iter().chain(written).collect();
    let snapshot = Snapshot::new((at.version, hash, entered_at), at.fold, at.chains, all);
    if lake.put_new(&Snapshot::key_of(snapshot.version), snapshot.to_bytes()?).await? == Written::New {
        return Ok(SnapshotWritten::At(snapshot.version));
    }
    // Also if the first answer was lost: then it is this snapshot.
    let stored = get_snapshot(lake, snapshot.version).await?;
    Ok(if stored == snapshot { SnapshotWritten::At(snapshot.version) } else { SnapshotWritten::Outrun })
}

/// The parts of a snapshot that is being written.
struct Parts<'a> {
    lake: &'a dyn ObjectStore,
    version: LogVersion,
    writer: &'a str,
    /// Parts of the snapshot before that are unchanged.
    kept: Vec<SnapshotPart>,
    written: Vec<SnapshotPart>,
    open: BTreeMap<ObjectGroup, PartWriter>,
    number: u32,
}

impl Parts<'_> {
    /// Takes over the full parts of which nothing was removed, and writes all other objects.
    async fn add_all(&mut self, at: &LakeAt) -> Result<(), HistoryError> {
        for part in at.parts() {
            let is_full = part.objects >= PART_OBJECTS_MAX / 2;
            if is_full && at.removed().is_empty() {
                self.kept.push(part.clone());
                continue;
            }
            let objects = read_part(self.lake, part).await?;
            let live = || objects.iter().filter(|object| !at.removed().contains(&object.key));
            if is_full && live().count() == objects.len() {
                self.kept.push(part.clone());
                continue;
            }
            for object in live() {
                self.add(object).await?;
            }
        }
        let mut after = at.after_snapshot(self.lake);
        while let Some(object) = after.next().await? {
            self.add(&object).await?;
        }
        for (_, part) in std::mem::take(&mut self.open) {
            self.write(part).await?;
        }
        Ok(())
    }

    async fn add(&mut self, object: &crate::commit::lake_log::entry::AddedObject) -> Result<(), HistoryError> {
        let group = ObjectGroup::of(object);
        let part = self.open.entry(group.clone()).or_insert_with(|| PartWriter::new(group.clone()));
        part.add(object);
        if (part.objects() >= PART_OBJECTS_MAX || part.json_bytes() >= PART_JSON_MAX)
            && let Some(part) = self.open.remove(&group)
        {
            self.write(part).await?;
        }
        Ok(())
    }

    async fn write(&mut self, part: PartWriter) -> Result<(), HistoryError> {
        self.number += 1;
        let key = layout::log_snapshot_part(self.version.0, self.writer, self.number);
        let (part, bytes) = part.finish(ObjectKey::new(key).expect("the writer's name is a plain name"));
        // The name is this writer's alone: a taken key has the same bytes.
        self.lake.put_new(&part.key, bytes).await?;
        self.written.push(part);
        Ok(())
    }
}

/// Writes snapshots beside a worker, one after a number of entries.
#[derive(Debug)]
pub struct Snapshots {
    stores: Stores,
    writer: String,
    every: u64,
    /// Commits until the worker checks whether a snapshot is due.
    due_in: u64,
    written: u64,
    running: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Snapshots beside `worker`, after at least `every` entries.
    pub fn new(stores: Stores, worker: &LeaseOwner, every: u64) -> Self {
        let every = every.max(1);
        let writer = EpochId::worker_part(worker);
        // Workers that start together check at different times.
        let spread = writer.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Snapshots { stores, writer, every, due_in: 1 + spread % every.div_ceil(4), written: 0, running: None }
    }

    /// Counts a commit. From time to time it checks in the background whether a snapshot is due, and writes it.
    pub fn maybe_write(&mut self) {
        self.due_in -= 1;
        if self.due_in > 0 {
            return;
        }
        // Others commit too: the newest snapshot may be older than this worker's commits say.
        self.due_in = self.every.div_ceil(4);
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.written += 1;
        let (stores, every) = (self.stores.clone(), self.every);
        let writer = format!("{}-{}", self.writer, self.written);
        self.running = Some(tokio::spawn(async move {
            match write_snapshot(&stores, &writer, every).await {
                Ok(SnapshotWritten::At(version)) => tracing::info!(%version, "wrote a snapshot of the lake log"),
                Ok(outcome) => tracing::debug!(?outcome, "wrote no snapshot of the lake log"),
                Err(error) => {
                    tracing::warn!(%error, "failed to write a snapshot of the lake log; a later one covers more");
                }
            }
        }));
    }
}

impl Drop for Snapshots {
    /// A snapshot that is dropped half-way leaves parts behind that belong to no snapshot, or itself whole.
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}
