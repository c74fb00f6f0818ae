//! Operations on the lake, which are epochs of a kind: replacing, compacting, archiving, erasing, undoing.
//!
//! Owns: where the leases of operations are, what an operation may add and remove, and how the objects go that it removes. Does not
//! own: planning one and running its steps (`maintenance::operation`), the steps themselves (`protocol`).
//!
//! An operation is committed by the same steps as what a worker has read, so a crash after any of them is rolled forward by whoever
//! comes next. What its *shards* are is different: a shard is a part of the lake, and its positions are the numbers of operations.
//! The `n`-th operation on a part has the range `(n-1, n]`.
//!
//! - The stream is named `_lake:<id>`. Several lakes may share one lease table, so each has an id of its own, in `_operations.json`, which
//!   the first operation writes. No source has such a name: the configuration refuses it.
//! - A part is a dataset, or `_raw`, or `_error`. An operation holds the leases of all parts that it touches. So two operations on one part
//!   never run at once, and a decision of one that has slept is refused.
//!
//! **Removing.** Readers list the data folders, so objects that go must leave these. They go after the commit record was written, and
//! before the rows advance: a row that is pending guarantees that somebody finishes it. Each is copied below `_trash/<operation>/`, where
//! an undo finds it; all copies are made durable; then the objects are deleted. Only an erasure deletes at once. Between publishing and
//! deleting, a reader who lists the folder sees the old and the new objects. An operation that replaces many objects shortens that for
//! each folder, or lets the old objects go first (`swap`).

use std::collections::HashSet;

use bytes::Bytes;
use checkpoints::{LeaseOwner, ShardId, StreamName};
use futures::{StreamExt, TryStreamExt, stream};
use mutations::mutated;
use pipeline::layout::{self, Area, Folder};
use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::manifest::{Manifest, ManifestKind, RemovedObject, UnreadableManifest};
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;
use crate::lake::{Completion, LakeError, ObjectKey, ObjectStore, Written};

/// Requests about objects that are in progress at once.
const CONCURRENT: usize = 16;
/// How often an object is copied before it goes, if its copy is disturbed: a sweep may abort it.
const COPIES_MAX: usize = 3;
/// The version of `_operations.json`.
const FORMAT: u32 = 1;
/// What the stream of operations is called, before the lake's id.
const STREAM: &str = "_lake:";
/// What the stream of a replay is called, before the replay's id.
const REPLAY_STREAM: &str = "_replay:";
/// The longest text that says what an operation belongs to.
const OF_MAX: usize = 200;

/// A part of the lake that operations change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LakePart {
    /// The rows of a dataset.
    Dataset(String),
    /// Records as received.
    Raw,
    /// Dead letters.
    Error,
}

#[derive(Serialize, Deserialize)]
struct StoredId {
    format: u32,
    id: String,
}

impl LakePart {
    /// The part that an object of data is in; `None` for every other key.
    pub fn of(key: &ObjectKey) -> Option<Self> {
        match Area::of(key.as_str())? {
            Area::Raw => Some(LakePart::Raw),
            Area::Error => Some(LakePart::Error),
            Area::Processed => match Folder::parse(key.as_str().rsplit_once('/')?.0).ok()? {
                Folder::Processed { dataset, .. } => Some(LakePart::Dataset(dataset.to_string())),
                Folder::Raw { .. } | Folder::Error { .. } => None,
            },
        }
    }

    /// The shard whose lease protects it.
    pub fn shard(&self) -> ShardId {
        let name = match self {
            LakePart::Dataset(name) => name,
            LakePart::Raw => "_raw",
            LakePart::Error => "_error",
        };
        ShardId::new(name).expect("the name of a dataset is a valid id")
    }
}

/// Whether a stream is one of operations on a lake, and not a source.
pub fn is_operations_stream(stream: &StreamName) -> bool {
    stream.as_str().starts_with(STREAM)
}

/// The stream whose shards are the parts of a replay, in the lease table. `id` is the replay's name, a plain one.
pub fn replay_stream(id: &str) -> StreamName {
    StreamName::new(format!("{REPLAY_STREAM}{id}")).expect("a plain name")
}

/// Whether a stream is Shardlake's own, and not a source: the one of operations on a lake, or the one of a replay. Live workers read
/// neither.
pub fn is_internal_stream(stream: &StreamName) -> bool {
    is_operations_stream(stream) || stream.as_str().starts_with(REPLAY_STREAM)
}

/// The stream of the operations on this lake; `None` if there was none yet.
///
/// # Errors
/// The lake fails, or its id cannot be read.
pub async fn operations_stream(lake: &dyn ObjectStore) -> Result<Option<StreamName>, CommitError> {
    let key = ObjectKey::new(layout::OPERATIONS).expect("a plain name");
    let Some(bytes) = lake.get(&key).await? else { return Ok(None) };
    let unreadable = |problem: String| UnreadableManifest { name: key.to_string(), problem };
    let stored: StoredId = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let is_plain = stored.id.len() == 16 && stored.id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if stored.format != FORMAT || !is_plain {
        return Err(unreadable(format!("it has format {} and the id '{}'", stored.format, stored.id)).into());
    }
    let name = StreamName::new(format!("{STREAM}{}", stored.id)).map_err(|error| unreadable(error.to_string()))?;
    Ok(Some(name))
}

/// The stream of the operations on this lake. Gives the lake an id, `random`, if it has none.
///
/// # Errors
/// As [`operations_stream`].
pub async fn claim_operations_stream(lake: &dyn ObjectStore, random: [u8; 8]) -> Result<StreamName, CommitError> {
    let key = ObjectKey::new(layout::OPERATIONS).expect("a plain name");
    if let Some(stream) = operations_stream(lake).await? {
        return Ok(stream);
    }
    let id = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = serde_json::to_vec(&StoredId { format: FORMAT, id }).expect("two plain fields");
    // If somebody else was faster, their id counts.
    let (Written::New | Written::KeyTaken) = lake.put_new(&key, Bytes::from(bytes)).await?;
    let absent = || LakeError::Unavailable { operation: format!("read {key}"), problem: "it is gone".to_owned() };
    Ok(operations_stream(lake).await?.ok_or_else(absent)?)
}

/// Whether an operation may do what a manifest says: all its shards are parts of one lake, and it adds and removes only objects of
/// these parts. An epoch has no such shard, and removes nothing.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    let of_lake = manifest.shards.iter().filter(|shard| is_operations_stream(&shard.key.stream)).count();
    if manifest.kind == ManifestKind::Epoch {
        if let Some(object) = manifest.removed.first() {
            return Err(format!("it removes {}, but an epoch removes nothing", object.key));
        }
        if manifest.of.is_some() || !manifest.sources.is_empty() || manifest.swap.is_some() {
            return Err("it is an epoch, and says of which operation it is".to_owned());
        }
        return if of_lake == 0 { Ok(()) } else { Err("it is an epoch of the stream of operations".to_owned()) };
    }
    let stream = manifest.shards.first().map(|shard| &shard.key.stream);
    if of_lake != manifest.shards.len() || manifest.shards.iter().any(|shard| Some(&shard.key.stream) != stream) {
        return Err("it is an operation, but its shards are not parts of one lake".to_owned());
    }
    let holds = |key: &ObjectKey| {
        let shard = LakePart::of(key).map(|part| part.shard());
        let is_held = shard.is_some_and(|shard| manifest.shards.iter().any(|of| of.key.shard == shard));
        is_held || mutated!(OperateOutsideParts)
    };
    let added = manifest.objects.iter().map(|object| &object.key);
    let removed = manifest.removed.iter().map(|object| &object.key);
    if let Some(key) = added.clone().chain(removed.clone()).find(|key| !holds(key)) {
        return Err(format!("its object {key} is not in a part of the lake that it holds"));
    }
    let mut seen: HashSet<&ObjectKey> = HashSet::new();
    if let Some(key) = removed.chain(added).find(|key| !seen.insert(key)) {
        return Err(format!("it names {key} twice"));
    }
    let of_part = |object: &RemovedObject| {
        let is_of_dataset = match LakePart::of(&object.key)? {
            LakePart::Dataset(name) => object.dataset.as_ref() == Some(&name),
            LakePart::Raw | LakePart::Error => true,
        };
        Some(Area::of(object.key.as_str())? == object.kind.area() && is_of_dataset)
    };
    if let Some(object) = manifest.removed.iter().find(|object| of_part(object) != Some(true)) {
        return Err(format!("it removes {}, and says that it is of another kind or dataset", object.key));
    }
    let is_plain = |text: &String| text.len() <= OF_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(of) = manifest.of.as_ref().filter(|of| !is_plain(of)) {
        return Err(format!("it belongs to '{}', which is not a valid name", of.escape_default()));
    }
    if !manifest.sources.is_sorted_by(|one, other| one < other) {
        return Err("its sources are not in order".to_owned());
    }
    if let Some(swap) = &manifest.swap {
        let added: HashSet<&ObjectKey> = manifest.objects.iter().map(|object| &object.key).collect();
        if let Some(key) = swap.copies.keys().find(|key| !added.contains(key)) {
            return Err(format!("it says of which object {key} is a copy, but does not add it"));
        }
    }
    Ok(())
}

/// Removes the objects that an operation removes. Whoever repeats it finds them gone. An operation that swaps objects has removed them
/// before its commit record was written.
///
/// # Errors
/// The lake fails. The operation is committed all the same; whoever comes next continues.
pub(super) async fn remove_objects(stores: &Stores, manifest: &Manifest) -> Result<(), CommitError> {
    if manifest.removed.is_empty() || manifest.swap.is_some() || mutated!(KeepWhatIsReplaced) {
        return Ok(());
    }
    let removed: Vec<&ObjectKey> = manifest.removed.iter().map(|object| &object.key).collect();
    if mutated!(DeleteBeforeKeeping) {
        for key in &removed {
            stores.lake.delete(key).await?;
        }
    }
    keep_in_trash(stores, manifest).await?;
    let deletions = stream::iter(0..removed.len()).map(|number| delete(stores.clone(), removed[number].clone()));
    deletions.buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await?;
    stores.lake.flush().await?;
    Ok(())
}

/// Copies everything that an operation removes into the trash, unless it is an erasure, and makes the copies durable. An object goes only
/// once its copy survives a crash of the machine.
pub(super) async fn keep_in_trash(stores: &Stores, manifest: &Manifest) -> Result<(), CommitError> {
    if manifest.removed.is_empty() || manifest.kind == ManifestKind::Erase {
        return Ok(());
    }
    let copies = stream::iter(0..manifest.removed.len()).map(|number| {
        let (stores, epoch, key) = (stores.clone(), manifest.epoch.clone(), manifest.removed[number].key.clone());
        copy_to_trash(stores, (epoch, manifest.worker.clone()), key, number)
    });
    let kept: Vec<bool> = copies.buffer_unordered(CONCURRENT).try_collect().await?;
    let gone = kept.iter().filter(|kept| !**kept).count();
    if gone > 0 {
        // They were removed by hand; or the operation was purged, and a process that has slept finishes it again.
        tracing::warn!(operation = %manifest.epoch, objects = gone, "objects that an operation removes are gone; they cannot be restored");
    }
    stores.lake.flush().await?;
    Ok(())
}

pub(super) async fn delete(stores: Stores, key: ObjectKey) -> Result<(), CommitError> {
    Ok(stores.lake.delete(&key).await?)
}

/// The key of an object in the trash of the operation that has removed it.
pub fn trash_key(operation: &EpochId, key: &ObjectKey) -> Result<ObjectKey, LakeError> {
    let in_trash = layout::trash(operation.as_str(), key.as_str());
    ObjectKey::new(in_trash).map_err(|error| LakeError::Refused {
        operation: format!("keep {key} in the trash"),
        problem: error.to_string(),
    })
}

/// An id for an upload of an operation that another process, or an earlier attempt, may have begun before. An id that was used and aborted
/// may never begin an upload again, so this one has the time in it.
pub(super) fn repeated_upload_id(
    stores: &Stores,
    (operation, worker): (&EpochId, &LeaseOwner),
    number: usize,
    attempt: usize,
) -> String {
    let place = (number * COPIES_MAX + attempt) as u64;
    operation.upload_id(worker, stores.clock.now_ms().unsigned_abs().saturating_mul(1_000_000).saturating_add(place))
}

/// Copies an object into the trash, unless it is there. Several processes may do it at once. Returns false if the object is gone.
async fn copy_to_trash(
    stores: Stores,
    (operation, worker): (EpochId, LeaseOwner),
    key: ObjectKey,
    number: usize,
) -> Result<bool, CommitError> {
    let (lake, to) = (&stores.lake, trash_key(&operation, &key)?);
    let mut problem = None;
    for attempt in 0..COPIES_MAX {
        // A copy that is there is whole, and no other operation has its name.
        if lake.checksum(&to).await?.is_some() {
            return Ok(true);
        }
        let id = repeated_upload_id(&stores, (&operation, &worker), number, attempt);
        let copy = match lake.stage_copy(&key, &to, &id).await {
            Ok(Some(copy)) => copy,
            // Somebody else has just moved it, or it was removed by hand.
            Ok(None) => return Ok(lake.checksum(&to).await?.is_some()),
            // Somebody else has completed the copy while this one was staged.
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => {
                problem = Some(error);
                continue;
            }
        };
        match lake.complete_upload(&to, &copy.upload, &copy.parts).await? {
            Completion::Completed => return Ok(true),
            Completion::KeyTaken => lake.abort_upload(&to, &copy.upload).await?,
            Completion::NoSuchUpload => {}
        }
    }
    if lake.checksum(&to).await?.is_some() {
        return Ok(true);
    }
    let disturbed = || LakeError::Unavailable {
        operation: format!("copy {key} into the trash"),
        problem: "its upload was aborted meanwhile".to_owned(),
    };
    Err(problem.unwrap_or_else(disturbed).into())
}

#[cfg(test)]
mod tests {
    use checkpoints::{LeaseOwner, Position, ShardKey, ShardRange};

    use super::*;
    use crate::commit::lake_log::LogVersion;
    use crate::commit::manifest::{self, ObjectKind, ShardOfEpoch};
    use crate::commit::totals::Totals;

    fn key(path: &str) -> ObjectKey {
        ObjectKey::new(path).unwrap()
    }

    fn removed_object(path: &str) -> RemovedObject {
        let (kind, dataset) = match LakePart::of(&key(path)) {
            Some(LakePart::Dataset(name)) => (ObjectKind::Processed, Some(name)),
            Some(LakePart::Raw) => (ObjectKind::Raw, None),
            Some(LakePart::Error) | None => (ObjectKind::Error, None),
        };
        RemovedObject { key: key(path), kind, dataset, rows: 1, bytes: 1 }
    }

    fn shard(stream: &str, shard: &str) -> ShardOfEpoch {
        ShardOfEpoch {
            key: ShardKey::new(StreamName::new(stream).unwrap(), ShardId::new(shard).unwrap()),
            parents: Vec::new(),
            range: ShardRange::new(Position::Beginning, Position::at(1_u64.into())).unwrap(),
            children: Vec::new(),
            taken_over: false,
            records: 0,
            bytes: 0,
            arrived_through: None,
        }
    }

    fn problem(kind: ManifestKind, shards: Vec<ShardOfEpoch>, removed: &[&str]) -> Option<String> {
        let worker = LeaseOwner::from_random([1; 16]);
        let manifest = Manifest {
            format: manifest::FORMAT,
            kind,
            epoch: EpochId::new(1_736_764_200_000, &worker, 1),
            worker,
            head: LogVersion::EMPTY,
            written_at: "2025-01-13T10:30:00.000Z".to_owned(),
            shards,
            idle: Vec::new(),
            objects: Vec::new(),
            removed: removed.iter().map(|path| removed_object(path)).collect(),
            of: None,
            sources: Vec::new(),
            swap: None,
            totals: Totals::default(),
            edges: std::collections::BTreeMap::new(),
            definitions: std::collections::BTreeMap::new(),
            version: "0".to_owned(),
        };
        let read = Manifest::from_bytes(&manifest.epoch.intent_key(), &manifest.to_bytes());
        assert_eq!(read.is_ok(), manifest.check().is_ok(), "what is read is checked");
        manifest.check().err()
    }

    #[test]
    fn an_operation_removes_only_what_it_holds_and_an_epoch_nothing() {
        let rows = "processed/orders/year=2025/month=01/day=13/a-00001.parquet";
        let (epoch, replace) = (ManifestKind::Epoch, ManifestKind::Replace);
        let held = || shard("_lake:0123456789abcdef", "orders");
        assert_eq!(problem(epoch, vec![shard("orders", "s")], &[]), None);
        assert_eq!(problem(replace, vec![held()], &[rows]), None);
        let raw = "raw/orders/year=2025/month=01/day=13/a-00001.json.gz";
        let all = vec![held(), shard("_lake:0123456789abcdef", "_raw")];
        assert_eq!(problem(replace, all, &[rows, raw]), None);
        for (kind, shards, removed, expected) in [
            (epoch, vec![shard("orders", "s")], vec![rows], "but an epoch removes nothing"),
            (epoch, vec![held()], vec![], "an epoch of the stream of operations"),
            (replace, vec![shard("orders", "orders")], vec![rows], "its shards are not parts of one lake"),
            (replace, vec![held(), shard("orders", "s")], vec![rows], "its shards are not parts of one lake"),
            (replace, vec![held(), shard("_lake:another", "_raw")], vec![rows], "its shards are not parts of one lake"),
            (replace, vec![held()], vec![raw], "is not in a part of the lake that it holds"),
            (replace, vec![held()], vec!["_commits/a.json"], "is not in a part of the lake that it holds"),
            (replace, vec![held()], vec!["processed/orders.parquet"], "is not in a part of the lake that it holds"),
        ] {
            let problem = problem(kind, shards, &removed).expect(expected);
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn every_object_of_data_is_in_one_part_of_the_lake() {
        for (path, part) in [
            ("processed/orders/year=2025/month=01/day=13/x.parquet", Some(LakePart::Dataset("orders".to_owned()))),
            ("raw/unknown/year=2025/month=01/day=13/x.json.gz", Some(LakePart::Raw)),
            ("error/reason=Decode.Truncated/year=2025/month=01/day=13/x.json.gz", Some(LakePart::Error)),
            ("_trash/e-1/processed/orders/x.parquet", None),
            ("_lake.json", None),
        ] {
            assert_eq!(LakePart::of(&key(path)), part, "{path}");
        }
    }
}
