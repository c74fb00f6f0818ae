//! Undoing an operation: what it removed comes back, and what it added goes.
//!
//! Owns: whether an operation can be undone, and what an undo adds and removes. Does not own: running it (`operation`), removing the trash
//! (`purge`).
//!
//! An undo is an operation itself, with one entry in the lake log. It restores the list of objects: the same folders, rows, sizes and
//! checksums. The objects have *new names*, because a key is never written twice: a process that was suspended may still delete the old
//! name.
//!
//! An undo is refused:
//!
//! - once what the operation had removed was purged;
//! - if a later operation has removed something that it added: that one must be undone first;
//! - of an undo, and of an erasure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use pipeline::layout;

use crate::commit::lake_log::{HistoryError, LogVersion, ObjectFilter, extent, lake_at, read_backward};
use crate::commit::{
    CommitError, EpochId, LakePart, Manifest, ManifestKind, ObjectOfEpoch, RemovedObject, Stores, SwapOrder, trash_key,
};
use crate::lake::ObjectKey;
use crate::maintenance::operation::{Copied, OperationError, Operator, Plan, Work};

/// Why an operation cannot be undone. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotUndo {
    /// What it removed is gone.
    #[error("operation {operation} cannot be undone: {missing} of the {removed} objects that it removed were purged")]
    Purged {
        /// The operation.
        operation: EpochId,
        /// Objects that are gone.
        missing: usize,
        /// All objects that it removed.
        removed: usize,
    },
    /// A later operation has changed what it added.
    #[error("operation {operation} cannot be undone: version {version} has removed {key}, which it added")]
    Changed {
        /// The operation.
        operation: EpochId,
        /// The version of the later operation.
        version: LogVersion,
        /// The object.
        key: ObjectKey,
    },
    /// An object that it added is not in the lake any more, and the entries that say why are gone.
    #[error("operation {operation} cannot be undone: {key}, which it added, is not live any more")]
    NotLive {
        /// The operation.
        operation: EpochId,
        /// The object.
        key: ObjectKey,
    },
    /// It is of a kind that is not undone.
    #[error("operation {operation} cannot be undone: only what replaces objects can be")]
    Kind {
        /// The operation.
        operation: EpochId,
    },
}

/// An undo failed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// It cannot be done. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] CannotUndo),
    /// It was not done, or not to its end.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// The log cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// What an undo did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// It was done now, by this operation.
    Now(Box<Manifest>),
    /// It had been done before, by this operation.
    Before(EpochId),
}

/// What an undo is called in its manifest.
pub fn undo_of(operation: &EpochId) -> String {
    format!("undo:{operation}")
}

/// The parts of the lake that an operation has changed.
pub fn parts_of(manifest: &Manifest) -> BTreeSet<LakePart> {
    let added = manifest.objects.iter().map(|object| &object.key);
    added.chain(manifest.removed.iter().map(|object| &object.key)).filter_map(LakePart::of).collect()
}

/// Undoes an operation, which must have a commit record. A repeated call finds it undone.
///
/// # Errors
/// It cannot be undone, another operation works on the same part of the lake, or the stores fail.
pub async fn undo(operator: &mut Operator, manifest: &Manifest, order: SwapOrder) -> Result<Undone, UndoError> {
    if manifest.kind != ManifestKind::Replace {
        return Err(CannotUndo::Kind { operation: manifest.epoch.clone() }.into());
    }
    let work = Undoing { manifest, order, state: Mutex::default() };
    let result = operator.run(ManifestKind::Undo, &parts_of(manifest), &work).await;
    let Found { before, refused, failed } = work.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(refused) = refused {
        return Err(refused.into());
    }
    if let Some(failed) = failed {
        return Err(failed.into());
    }
    match (result?, before) {
        (Some(done), _) => Ok(Undone::Now(Box::new(done))),
        (None, Some(before)) => Ok(Undone::Before(before)),
        // It had neither added nor removed anything, so it was not committed.
        (None, None) => Err(OperationError::Invalid { problem: "there is nothing to undo".to_owned() }.into()),
    }
}

/// What the plan found, beside what it plans.
#[derive(Default)]
struct Found {
    before: Option<EpochId>,
    refused: Option<CannotUndo>,
    failed: Option<HistoryError>,
}

struct Undoing<'m> {
    manifest: &'m Manifest,
    order: SwapOrder,
    state: Mutex<Found>,
}

#[async_trait]
impl Work for Undoing<'_> {
    async fn plan(&self, stores: &Stores, plan: &mut Plan) -> Result<(), OperationError> {
        let note = |change: &dyn Fn(&mut Found)| change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        let stop = || OperationError::Invalid { problem: "it cannot be undone".to_owned() };
        match self.later(stores).await {
            Ok(Later::Nothing) => {}
            Ok(Later::Undone(by)) => {
                note(&|found| found.before = Some(by.clone()));
                return Ok(());
            }
            Ok(Later::Refused(refused)) => {
                note(&|found| found.refused = Some(refused.clone()));
                return Err(stop());
            }
            Err(HistoryError::Lake(error)) => return Err(error.into()),
            Err(error) => {
                note(&|found| found.failed = Some(error.clone()));
                return Err(stop());
            }
        }
        let Manifest { epoch: operation, removed, .. } = self.manifest;
        let kept = kept_of(stores, operation).await?;
        let missing = removed.iter().filter(|object| kept.get(&object.key) != Some(&object.bytes)).count();
        if missing > 0 {
            let (operation, removed) = (operation.clone(), removed.len());
            note(&|found| {
                found.refused = Some(CannotUndo::Purged { operation: operation.clone(), missing, removed });
            });
            return Err(stop());
        }
        plan.belongs_to(undo_of(operation));
        plan.add_sources(self.manifest.sources.iter().cloned());
        plan.swap(self.order);
        let originals = originals_of(stores, removed).await?;
        let mut sources = Vec::new();
        for object in &originals {
            sources.push(trash_key(operation, &object.key)?);
        }
        let copies = originals.iter().zip(&sources).map(|(object, source)| {
            let copied = Copied { from: &object.key, source, rows: object.rows, columns: object.columns.clone() };
            (copied, (object.bytes, object.crc64nvme))
        });
        plan.copy_all(stores, copies.collect()).await?;
        for object in &self.manifest.objects {
            plan.remove(RemovedObject::from(object));
        }
        Ok(())
    }
}

/// What entered after an operation.
enum Later {
    /// Nothing that concerns it.
    Nothing,
    /// An undo of it.
    Undone(EpochId),
    /// What prevents its undo.
    Refused(CannotUndo),
}

impl Undoing<'_> {
    async fn later(&self, stores: &Stores) -> Result<Later, HistoryError> {
        let lake = &*stores.lake;
        let Manifest { epoch: operation, objects, .. } = self.manifest;
        let added: HashSet<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
        let of_undo = undo_of(operation);
        let extent = extent(lake).await?;
        let (mut later, mut is_whole) = (Later::Nothing, false);
        read_backward(lake, extent.newest, &extent, &mut |entry| {
            if entry.epoch == *operation {
                is_whole = true;
                return false;
            }
            if entry.of.as_ref() == Some(&of_undo) {
                later = Later::Undone(entry.epoch);
                is_whole = true;
                return false;
            }
            if let Some(object) = entry.removed.into_iter().find(|object| added.contains(&object.key)) {
                let (operation, version) = (operation.clone(), entry.version);
                later = Later::Refused(CannotUndo::Changed { operation, version, key: object.key });
            }
            true
        })
        .await?;
        if is_whole || !matches!(later, Later::Nothing) {
            return Ok(later);
        }
        // The entries that are left do not go back to it.
        let at = lake_at(lake, &extent, extent.newest).await?;
        let mut unseen = added;
        let mut live = at.live_objects(lake, ObjectFilter::default());
        while let Some(object) = live.next().await? {
            unseen.remove(&object.key);
        }
        Ok(match unseen.into_iter().next() {
            None => Later::Nothing,
            Some(key) => Later::Refused(CannotUndo::NotLive { operation: operation.clone(), key: key.clone() }),
        })
    }
}

/// What the trash has of an operation: the size of each object, by its former key.
pub(crate) async fn kept_of(stores: &Stores, operation: &EpochId) -> Result<BTreeMap<ObjectKey, u64>, CommitError> {
    let prefix = layout::trash_of(operation.as_str());
    let listed = stores.lake.list(&prefix).await?.into_iter();
    let kept = listed
        .filter_map(|object| Some((ObjectKey::new(object.key.as_str().strip_prefix(&prefix)?).ok()?, object.bytes)));
    Ok(kept.collect())
}

/// What the commit records of their writers say of these objects. An entry of the log, and a removed object, lack their statistics and
/// checksums.
async fn originals_of(stores: &Stores, removed: &[RemovedObject]) -> Result<Vec<ObjectOfEpoch>, OperationError> {
    let mut by_writer: BTreeMap<EpochId, HashSet<&ObjectKey>> = BTreeMap::new();
    let invalid = |problem: String| OperationError::Invalid { problem };
    for object in removed {
        let writer = EpochId::of_object(&object.key);
        let writer = writer.ok_or_else(|| invalid(format!("the name of {} names no epoch", object.key)))?;
        by_writer.entry(writer).or_default().insert(&object.key);
    }
    let mut originals = Vec::with_capacity(removed.len());
    for (writer, mut wanted) in by_writer {
        let key = writer.commit_key();
        let bytes = stores.lake.get(&key).await?.ok_or_else(|| OperationError::NoObject { key: key.clone() })?;
        let record = Manifest::from_bytes(&key, &bytes).map_err(CommitError::from)?;
        originals.extend(record.objects.into_iter().filter(|object| wanted.remove(&object.key)));
        if let Some(key) = wanted.into_iter().next() {
            return Err(invalid(format!("the commit record of {writer} does not have {key}")));
        }
    }
    Ok(originals)
}
