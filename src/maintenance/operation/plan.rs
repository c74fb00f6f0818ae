//! What an operation adds and removes.
//!
//! Owns: the names of new objects, and staging copies. Does not own: when a plan is made and committed (the parent module).

use std::collections::{BTreeMap, BTreeSet};

use checkpoints::LeaseOwner;
use futures::{StreamExt, stream};
use mutations::mutated;
use pipeline::encode::FileStats;
use pipeline::layout::DataObject;

use crate::commit::{
    DefinitionOfEpoch, EpochId, LakePart, ObjectKind, ObjectOfEpoch, RemovedObject, Stores, SwapOrder,
};
use crate::lake::{Checksum, LakeError, ObjectKey, StagedCopy};
use crate::maintenance::operation::OperationError;

/// Copies that are staged at once.
const COPIES_AT_ONCE: usize = 16;

/// What an operation adds and removes.
#[derive(Debug)]
pub struct Plan {
    pub(super) epoch: EpochId,
    pub(super) me: LeaseOwner,
    pub(super) objects: Vec<ObjectOfEpoch>,
    pub(super) removed: Vec<RemovedObject>,
    pub(super) of: Option<String>,
    pub(super) sources: BTreeSet<EpochId>,
    pub(super) definitions: BTreeMap<String, DefinitionOfEpoch>,
    pub(super) order: Option<SwapOrder>,
    /// By the key of an added object, the object that it is a copy of.
    pub(super) copies: BTreeMap<ObjectKey, ObjectKey>,
}

/// A copy of an object, under a new name in the same folder.
#[derive(Debug, Clone)]
pub struct Copied<'c> {
    /// The object.
    pub from: &'c ObjectKey,
    /// Where it is copied from: the object itself, or its copy in a trash.
    pub source: &'c ObjectKey,
    /// Rows or lines in it.
    pub rows: u64,
    /// Statistics of its columns.
    pub columns: FileStats,
}

impl Plan {
    /// A plan of the operation of this name, by the process `me`.
    pub(super) fn new(epoch: EpochId, me: LeaseOwner) -> Self {
        Plan {
            epoch,
            me,
            objects: Vec::new(),
            removed: Vec::new(),
            of: None,
            sources: BTreeSet::new(),
            definitions: BTreeMap::new(),
            order: None,
            copies: BTreeMap::new(),
        }
    }

    /// The operation, by whose name every new object's name begins.
    pub fn epoch(&self) -> &EpochId {
        &self.epoch
    }

    /// The id hint of the next upload.
    pub fn next_upload_id(&self) -> String {
        self.epoch.upload_id(&self.me, (self.objects.len() + 1) as u64)
    }

    /// The key of a new object in the folder of another one, and the id hint of its upload.
    ///
    /// # Errors
    /// The other object is not one of data.
    pub fn next_like(&self, like: &ObjectKey) -> Result<(ObjectKey, String), OperationError> {
        Ok((self.name_like(like, (self.objects.len() + 1) as u64)?, self.next_upload_id()))
    }

    fn name_like(&self, like: &ObjectKey, number: u64) -> Result<ObjectKey, OperationError> {
        let invalid = |problem: String| OperationError::Invalid { problem };
        let mut name: DataObject =
            like.as_str().parse().map_err(|_| invalid(format!("{like} is not an object of data")))?;
        self.epoch.as_str().clone_into(&mut name.epoch);
        name.number = number;
        ObjectKey::new(name.to_string()).map_err(|error| invalid(error.to_string()))
    }

    /// Adds an object whose upload is acknowledged.
    pub fn add(&mut self, object: ObjectOfEpoch) {
        self.objects.push(object);
    }

    /// Removes an object from the lake.
    pub fn remove(&mut self, object: RemovedObject) {
        self.removed.push(object);
    }

    /// Says what the operation belongs to, such as `replay:1f2e3d4c`.
    pub fn belongs_to(&mut self, of: String) {
        self.of = Some(of);
    }

    /// Names epochs whose records the added objects have, or whose dead letters are removed.
    pub fn add_sources(&mut self, sources: impl IntoIterator<Item = EpochId>) {
        self.sources.extend(sources);
    }

    /// Swaps the objects folder by folder, in this order, before the commit record is written. Otherwise all new objects become visible
    /// before the first old one goes. What copies are made of must stay until the operation is finished.
    pub fn swap(&mut self, order: SwapOrder) {
        self.order = Some(order);
    }

    /// Says by which definition the rows of a dataset were made.
    pub fn define(&mut self, dataset: String, definition: DefinitionOfEpoch) {
        self.definitions.insert(dataset, definition);
    }

    /// Adds a copy of an object, byte for byte, under a new name in the same folder.
    ///
    /// # Errors
    /// It is not in the lake, or the lake fails.
    pub async fn copy(&mut self, stores: &Stores, copied: Copied<'_>) -> Result<(), OperationError> {
        let Copied { from, source, .. } = copied;
        let invalid = |problem: String| OperationError::Invalid { problem };
        let (key, id_hint) = self.next_like(from)?;
        let part = LakePart::of(&key).ok_or_else(|| invalid(format!("{from} is not an object of data")))?;
        let staged = stores.lake.stage_copy(source, &key, &id_hint).await?;
        let staged = staged.ok_or_else(|| OperationError::NoObject { key: source.clone() })?;
        self.add_copy(part, key, &copied, staged);
        Ok(())
    }

    /// Adds copies, each as [`copy`](Self::copy) does, many at once. Each must have the given size and checksum.
    ///
    /// # Errors
    /// One is not in the lake or has other bytes, or the lake fails. What was staged is aborted with the operation, or by a sweep.
    pub async fn copy_all(
        &mut self,
        stores: &Stores,
        wanted: Vec<(Copied<'_>, (u64, Checksum))>,
    ) -> Result<(), OperationError> {
        let invalid = |problem: String| OperationError::Invalid { problem };
        let mut targets = Vec::new();
        for (index, (copied, _)) in wanted.iter().enumerate() {
            let number = (self.objects.len() + index + 1) as u64;
            let is_undo = || self.of.as_ref().is_some_and(|of| of.starts_with("undo:"));
            let key = match mutated!(UndoUnderOldNames) && is_undo() {
                true => copied.from.clone(),
                false => self.name_like(copied.from, number)?,
            };
            let part =
                LakePart::of(&key).ok_or_else(|| invalid(format!("{} is not an object of data", copied.from)))?;
            targets.push((part, key, self.epoch.upload_id(&self.me, number)));
        }
        let copies: Vec<_> = wanted
            .iter()
            .zip(&targets)
            .map(|((copied, _), (_, key, id))| {
                stage_copy(stores.clone(), copied.source.clone(), key.clone(), id.clone())
            })
            .collect();
        let mut staged = stream::iter(copies).buffered(COPIES_AT_ONCE);
        let mut problem = None;
        for ((copied, expected), (part, key, _)) in wanted.iter().zip(targets) {
            // Those that are under way are waited for, so that they are aborted with the others.
            let found = match staged.next().await {
                Some(Ok(Some(found))) => found,
                Some(Ok(None)) | None => {
                    problem.get_or_insert(OperationError::NoObject { key: copied.source.clone() });
                    break;
                }
                Some(Err(error)) => {
                    problem.get_or_insert(error.into());
                    break;
                }
            };
            if (found.bytes, found.crc64nvme) != *expected {
                let text = format!(
                    "{} has other bytes than the log says; `shardlake verify` shows what is damaged",
                    copied.source
                );
                problem.get_or_insert(invalid(text));
            }
            self.add_copy(part, key, copied, found);
        }
        problem.map_or(Ok(()), Err)
    }

    fn add_copy(&mut self, part: LakePart, key: ObjectKey, copied: &Copied<'_>, staged: StagedCopy) {
        let StagedCopy { upload, parts, bytes, crc64nvme } = staged;
        let Copied { source, rows, columns, .. } = copied.clone();
        let (kind, dataset) = match part {
            LakePart::Dataset(name) => (ObjectKind::Processed, Some(name)),
            LakePart::Raw => (ObjectKind::Raw, None),
            LakePart::Error => (ObjectKind::Error, None),
        };
        self.copies.insert(key.clone(), source.clone());
        let partition = ObjectOfEpoch::partition_of(&key);
        self.add(ObjectOfEpoch { key, kind, dataset, partition, columns, rows, bytes, crc64nvme, upload, parts });
    }
}

async fn stage_copy(
    stores: Stores,
    from: ObjectKey,
    to: ObjectKey,
    id: String,
) -> Result<Option<StagedCopy>, LakeError> {
    stores.lake.stage_copy(&from, &to, &id).await
}
