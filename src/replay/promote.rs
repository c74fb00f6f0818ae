//! Promoting a replay: what it has made aside takes the place of what it replaces, as one change of the lake.
//!
//! Owns: whether a replay may be promoted, undone or purged, and what the operation adds and removes. Does not own: running operations
//! (`maintenance::operation`), undoing one (`maintenance::undo`), the trash (`maintenance::purge`).
//!
//! The log of the lake decides what became of a replay: an operation whose `of` names it. Markers beside the plan say it quickly, and
//! for longer than entries of the log are kept.
//!
//! | the process ends | what is in the lake | what the same command does |
//! |---|---|---|
//! | before the operation is decided | as before | begins again; a sweep removes what was staged |
//! | after it is decided | some folders are swapped | finishes the operation |
//! | before the marker is written | the new objects | finds the operation in the log, and writes the marker |
//! | while it purges | the new objects; some of the old ones are kept | removes the rest; an undo is refused already |
//!
//! A replay is promoted once. One that was undone is not promoted again: the objects that it would replace have other names now. Its rows
//! are brought back by a new replay.

mod cancel;
mod error;
mod fate;
mod purge;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use mutations::mutated;
use pipeline::dataset::Datasets;
use serde::Serialize;

use crate::clock::Clock;
use crate::commit::lake_log::{
    AddedObject, EntryHash, HistoryError, LogVersion, ObjectFilter, extent, lake_at, read_forward,
};
use crate::commit::{
    CommitError, DefinitionOfEpoch, EpochId, LakePart, Manifest, ManifestKind, ObjectKind, RemovedObject, Stores,
    SwapOrder,
};
use crate::lake::{DefinitionClaims, ObjectKey, ObjectStore};
use crate::maintenance::operation::{self, Copied, OperationError, Operator, Work};
use crate::replay::control::{Wanted, wanted};
use crate::replay::plan::{Plan, Purpose, is_complete};
use crate::replay::promote::fate::{Since, since, write_marker};

pub use cancel::cancel;
pub use error::{PromoteError, Refusal};
pub use fate::{Fate, fate_of, promotion_of};
pub use purge::{PurgedReplay, purge, purgeable, undo};

/// The most objects that one operation adds and removes. All are named in one entry of the log.
const OBJECTS_MAX: usize = 100_000;

/// The lake that a replay has written.
#[derive(Clone, Copy)]
pub struct Aside<'a> {
    /// The lake itself.
    pub lake: &'a dyn ObjectStore,
    /// What its keys begin with in the lake that it is in, with a slash at the end.
    pub prefix: &'a str,
}

/// How a replay is promoted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromoteOptions {
    /// What readers who list folders see meanwhile.
    pub order: SwapOrder,
    /// Promote it although it has read another number of records than the epochs had.
    pub accept_difference: bool,
}

/// An operation of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The operation.
    pub operation: EpochId,
    /// Its version in the lake log; `None` if the entry is gone and no marker has it.
    pub version: Option<LogVersion>,
    /// Whether it had been done before this command.
    pub before: bool,
    /// Objects that it added.
    pub added: u64,
    /// Rows or lines in them.
    pub rows_added: u64,
    /// Objects that it removed.
    pub removed: u64,
    /// Rows or lines in them.
    pub rows_removed: u64,
}

/// The parts of the lake that a promotion of the replay changes. If the aside lake cannot be read any more, those that it replaces.
async fn parts_of(plan: &Plan, aside: &dyn ObjectStore) -> Result<BTreeSet<LakePart>, HistoryError> {
    let parts = match Made::read(aside).await {
        Ok(made) => made.parts(plan),
        Err(HistoryError::Lake(error)) => return Err(error.into()),
        Err(_) => plan.superseded.iter().filter_map(|object| LakePart::of(&object.key)).collect(),
    };
    // A replay that has made nothing, and replaces nothing, has a log, too.
    Ok(if parts.is_empty() { [LakePart::Error].into() } else { parts })
}

/// What a replay has made.
struct Made {
    objects: Vec<AddedObject>,
    records: u64,
    definitions: BTreeMap<String, DefinitionOfEpoch>,
    /// A dataset whose rows several definitions have made.
    mixed: Option<String>,
}

impl Made {
    async fn read(aside: &dyn ObjectStore) -> Result<Self, HistoryError> {
        let extent = extent(aside).await?;
        let (mut definitions, mut mixed): (BTreeMap<String, DefinitionOfEpoch>, _) = (BTreeMap::new(), None);
        read_forward(aside, LogVersion::EMPTY, extent.newest, Some(EntryHash::NONE), &mut |entry| {
            for dataset in entry.totals.rows.into_keys() {
                let Some(definition) = entry.definitions.get(&dataset) else { continue };
                let known = definitions.entry(dataset.clone()).or_insert_with(|| definition.clone());
                if known.hash != definition.hash {
                    mixed = Some(dataset);
                }
            }
        })
        .await?;
        let at = lake_at(aside, &extent, extent.newest).await?;
        let mut objects = Vec::new();
        let mut live = at.live_objects(aside, ObjectFilter::default());
        while let Some(object) = live.next().await? {
            // raw/ has the records already.
            if object.kind != ObjectKind::Raw {
                objects.push(object);
            }
        }
        drop(live);
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Made { objects, records: at.fold.totals().records, definitions, mixed })
    }

    fn parts(&self, plan: &Plan) -> BTreeSet<LakePart> {
        let made = self.objects.iter().map(|object| &object.key);
        made.chain(plan.superseded.iter().map(|object| &object.key)).filter_map(LakePart::of).collect()
    }
}

/// Promotes a replay that is complete. `definitions` claims what its rows were made with. A repeated call finds it promoted.
///
/// # Errors
/// It cannot be promoted, another operation works on the same part of the lake, or the stores fail. If the operation was decided, the same
/// call finishes it.
pub async fn promote(
    operator: &mut Operator,
    stores: &Stores,
    clock: &dyn Clock,
    plan: &Plan,
    aside: Aside<'_>,
    definitions: (&DefinitionClaims, &Datasets),
    options: PromoteOptions,
) -> Result<Changed, PromoteError> {
    let lake = &*stores.lake;
    // What an earlier call has decided and not finished.
    operation::finish_pending(stores).await.map_err(OperationError::from)?;
    if let Some(changed) = was_promoted(lake, clock, plan, since(lake, plan).await?.fate).await? {
        return Ok(changed);
    }
    check_purpose(plan)?;
    if !is_complete(aside.lake, plan).await? {
        return Err(Refusal::Incomplete(plan.id.clone()).into());
    }
    let made = Made::read(aside.lake).await?;
    check_made(plan, &made, definitions.1, options)?;
    definitions.0.claim(lake, definitions.1, made.definitions.keys().map(String::as_str)).await?;
    let work = Promoting { plan, made: &made, aside, order: options.order, refusal: Mutex::new(None) };
    let result = operator.run(ManifestKind::Replace, &made.parts(plan), &work).await;
    if let Some(error) = work.refusal.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    match result? {
        Some(manifest) => {
            let fate = since(lake, plan).await?.fate;
            let version = fate.promoted.and_then(|(_, version)| version);
            write_marker(lake, clock, &plan.id, "promoted", Some((manifest.epoch.clone(), version))).await?;
            Ok(Changed::of(&manifest, version, false))
        }
        // Another process was faster, or the replay replaces nothing by nothing.
        None => match was_promoted(lake, clock, plan, since(lake, plan).await?.fate).await? {
            Some(changed) => Ok(changed),
            None => Err(Refusal::NotPromoted(plan.id.clone()).into()),
        },
    }
}

/// The operation that has promoted a replay before; `None` if none has.
async fn was_promoted(
    lake: &dyn ObjectStore,
    clock: &dyn Clock,
    plan: &Plan,
    fate: Fate,
) -> Result<Option<Changed>, PromoteError> {
    let id = &plan.id;
    match fate {
        Fate { undone: Some((_, version)), .. } => {
            Err(Refusal::Undone { id: id.clone(), version: version.unwrap_or_default() }.into())
        }
        Fate { promoted: Some((operation, version)), .. } => {
            write_marker(lake, clock, id, "promoted", Some((operation.clone(), version))).await?;
            let manifest = record_of(lake, &operation).await?;
            Ok(Some(Changed::of(&manifest, version, true)))
        }
        Fate { is_purged: true, .. } => Err(Refusal::Purged(id.clone()).into()),
        Fate { .. } => Ok(None),
    }
}

fn check_purpose(plan: &Plan) -> Result<(), Refusal> {
    match plan.purpose {
        Purpose::Replay => Ok(()),
        Purpose::WhatIf => Err(Refusal::Purpose(plan.id.clone())),
    }
}

fn check_made(plan: &Plan, made: &Made, datasets: &Datasets, options: PromoteOptions) -> Result<(), Refusal> {
    let id = || plan.id.clone();
    let (found, expected) = (made.records, plan.totals.records);
    if found != expected && !options.accept_difference {
        return Err(Refusal::OtherRecords { id: id(), found, expected });
    }
    let is_other = |(dataset, definition): &(&String, &DefinitionOfEpoch)| {
        datasets.find(dataset).is_none_or(|number| datasets.version(number) != definition.hash)
    };
    let other = made.definitions.iter().find(is_other).map(|(dataset, _)| dataset);
    if let Some(dataset) = made.mixed.as_ref().or(other) {
        return Err(Refusal::OtherDefinition { id: id(), dataset: dataset.clone() });
    }
    let count = made.objects.len() + plan.superseded.len();
    if count > OBJECTS_MAX { Err(Refusal::TooLarge { id: id(), count }) } else { Ok(()) }
}

async fn record_of(lake: &dyn ObjectStore, operation: &EpochId) -> Result<Manifest, PromoteError> {
    let key = operation.commit_key();
    let bytes = lake.get(&key).await?.ok_or_else(|| OperationError::NoObject { key: key.clone() })?;
    let read = Manifest::from_bytes(&key, &bytes).map_err(CommitError::from);
    Ok(read.map_err(OperationError::from)?)
}

impl Changed {
    fn of(manifest: &Manifest, version: Option<LogVersion>, before: bool) -> Self {
        Changed {
            operation: manifest.epoch.clone(),
            version,
            before,
            added: manifest.objects.len() as u64,
            rows_added: manifest.objects.iter().map(|object| object.rows).sum(),
            removed: manifest.removed.len() as u64,
            rows_removed: manifest.removed.iter().map(|object| object.rows).sum(),
        }
    }
}

struct Promoting<'p> {
    plan: &'p Plan,
    made: &'p Made,
    aside: Aside<'p>,
    order: SwapOrder,
    refusal: Mutex<Option<PromoteError>>,
}

impl Promoting<'_> {
    /// Whether the plan still holds: false if the replay was promoted meanwhile.
    async fn holds(&self, lake: &dyn ObjectStore) -> Result<bool, PromoteError> {
        let (id, plan) = (|| self.plan.id.clone(), self.plan);
        let Since { fate, removed, is_whole } = since(lake, plan).await?;
        if fate.promoted.is_some() {
            return Ok(false);
        }
        if fate.is_purged {
            return Err(Refusal::Purged(id()).into());
        }
        // A cancelled replay has ended all its slices, read or not.
        if wanted(lake, &plan.id).await? == Wanted::Cancelled {
            return Err(Refusal::Cancelled(id()).into());
        }
        if mutated!(PromoteWhatIsNotLive) {
            return Ok(true);
        }
        if let Some((version, key)) = removed {
            return Err(Refusal::Outdated { id: id(), version, key }.into());
        }
        if !is_whole {
            // The entries since the plan are gone: what is live tells.
            let extent = extent(lake).await?;
            let at = lake_at(lake, &extent, extent.newest).await?;
            let mut unseen: HashSet<&ObjectKey> = plan.superseded.iter().map(|object| &object.key).collect();
            let mut live = at.live_objects(lake, ObjectFilter::default());
            while let Some(object) = live.next().await? {
                unseen.remove(&object.key);
            }
            if let Some(key) = unseen.into_iter().next() {
                return Err(Refusal::NotLive { id: id(), key: key.clone() }.into());
            }
        }
        Ok(true)
    }
}

#[async_trait]
impl Work for Promoting<'_> {
    async fn plan(&self, stores: &Stores, plan: &mut operation::Plan) -> Result<(), OperationError> {
        match self.holds(&*stores.lake).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(PromoteError::Lake(error) | PromoteError::History(HistoryError::Lake(error))) => {
                return Err(error.into());
            }
            Err(error) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Err(OperationError::Invalid { problem: "the replay cannot be promoted".to_owned() });
            }
        }
        plan.belongs_to(promotion_of(&self.plan.id));
        plan.add_sources(self.plan.epochs.iter().cloned());
        plan.swap(self.order);
        for (dataset, definition) in &self.made.definitions {
            plan.define(dataset.clone(), definition.clone());
        }
        let invalid = |problem: String| OperationError::Invalid { problem };
        let mut sources = Vec::new();
        for object in &self.made.objects {
            let key = format!("{}{}", self.aside.prefix, object.key);
            sources.push(ObjectKey::new(key).map_err(|error| invalid(error.to_string()))?);
        }
        let copies = self.made.objects.iter().zip(&sources).map(|(object, source)| {
            let copied = Copied { from: &object.key, source, rows: object.rows, columns: object.columns.clone() };
            (copied, (object.bytes, object.crc64nvme))
        });
        plan.copy_all(stores, copies.collect()).await?;
        for object in &self.plan.superseded {
            plan.remove(RemovedObject {
                key: object.key.clone(),
                kind: object.kind,
                dataset: object.dataset.clone(),
                rows: object.rows,
                bytes: object.bytes,
            });
        }
        Ok(())
    }
}
