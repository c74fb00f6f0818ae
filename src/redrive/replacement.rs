//! The operation at the end of a batch: it adds what the dead letters became, and removes their objects.
//!
//! Owns: what such an operation adds and removes, and finding that somebody else was faster. Does not own: running operations
//! (`maintenance::operation`), which batches there are (`drive`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::dead_letter::stored::DeadLetterFilter;

use crate::commit::lake_log::{AddedObject, EntryHash, HistoryError, LogVersion, extent, read_forward};
use crate::commit::{
    CommitError, DefinitionOfEpoch, EpochId, LakePart, Manifest, ObjectKind, RemovedObject, Stores, UnreadableManifest,
};
use crate::inspect::live_error_objects;
use crate::lake::{InsideLake, ObjectKey, ObjectStore};
use crate::maintenance::operation::{Copied, OperationError, Plan, Work};
use crate::redrive::rewrite::rewrite;
use crate::redrive::selection::Counted;

/// Commit records that are read at the same time.
const CONCURRENT: usize = 8;

/// What a worker has made aside of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Made {
    /// Its objects, with their keys in the aside lake.
    pub(super) objects: Vec<AddedObject>,
    /// Records that it has read.
    pub(super) records: u64,
    pub(super) rows: BTreeMap<String, u64>,
    pub(super) dead_letters: BTreeMap<String, u64>,
    pub(super) definitions: BTreeMap<String, DefinitionOfEpoch>,
}

impl Made {
    /// Everything that was committed to an aside lake.
    pub(super) async fn read(aside: &dyn ObjectStore) -> Result<Self, HistoryError> {
        let mut made = Made::default();
        let newest = extent(aside).await?.newest;
        let add = &mut |entry: crate::commit::lake_log::Entry| {
            made.records += entry.totals.records;
            for (dataset, rows) in entry.totals.rows {
                *made.rows.entry(dataset).or_default() += rows;
            }
            for (code, count) in entry.totals.dead_letters {
                *made.dead_letters.entry(code).or_default() += count;
            }
            made.definitions.extend(entry.definitions);
            made.objects.extend(entry.added);
        };
        read_forward(aside, LogVersion::EMPTY, newest, Some(EntryHash::NONE), add).await?;
        made.rows.retain(|_, rows| *rows > 0);
        made.dead_letters.retain(|_, count| *count > 0);
        Ok(made)
    }

    /// The parts of the lake that an operation changes which adds its objects and removes error objects.
    pub(super) fn parts(&self) -> BTreeSet<LakePart> {
        let datasets = self.objects.iter().filter_map(|object| LakePart::of(&object.key));
        datasets.chain([LakePart::Error]).collect()
    }
}

/// Replaces the objects of a batch.
pub(super) struct Replacement<'b> {
    /// The objects of the batch.
    pub(super) batch: &'b [Counted],
    /// Which of their lines go.
    pub(super) filter: &'b DeadLetterFilter,
    /// What the lines became, and the lake where it is; `None`: they are discarded.
    pub(super) made: Option<(&'b Made, &'b InsideLake)>,
    /// What the operation belongs to.
    pub(super) of: String,
    /// Set if an object of the batch is not live any more.
    pub(super) has_changed: AtomicBool,
}

#[async_trait]
impl Work for Replacement<'_> {
    async fn plan(&self, stores: &Stores, plan: &mut Plan) -> Result<(), OperationError> {
        let lake = &*stores.lake;
        let history = |error: HistoryError| OperationError::Invalid { problem: error.to_string() };
        let live = match live_error_objects(lake, self.filter).await {
            Err(HistoryError::Lake(error)) => return Err(error.into()),
            live => live.map_err(history)?,
        };
        let live: HashSet<ObjectKey> = live.into_iter().map(|object| object.key).collect();
        if let Some(counted) = self.batch.iter().find(|counted| !live.contains(&counted.object.key)) {
            self.has_changed.store(true, Ordering::Relaxed);
            let problem = format!("{} was removed meanwhile", counted.object.key);
            return Err(OperationError::Invalid { problem });
        }
        plan.belongs_to(self.of.clone());
        plan.add_sources(sources(stores, self.batch).await?);
        if let Some((made, aside)) = self.made {
            for (dataset, definition) in &made.definitions {
                plan.define(dataset.clone(), definition.clone());
            }
            for AddedObject { key, rows, columns, .. } in &made.objects {
                let source = aside.outer_key(key)?;
                plan.copy(stores, Copied { from: key, source: &source, rows: *rows, columns: columns.clone() }).await?;
            }
        }
        for Counted { object, wanted, others, .. } in self.batch {
            if *others > 0 {
                let (to, id_hint) = plan.next_like(&object.key)?;
                let keep = |letter: &pipeline::dead_letter::DeadLetter<'_>| !self.filter.wants(letter);
                let rewritten = rewrite(lake, &object.key, (&to, &id_hint), &keep).await?;
                let dropped = rewritten.dropped;
                if let Some(object) = rewritten.object {
                    plan.add(object);
                }
                if dropped != *wanted {
                    let problem = format!("{} had {wanted} of these dead letters, and now has {dropped}", object.key);
                    return Err(OperationError::Invalid { problem });
                }
            }
            let (key, kind, rows, bytes) = (object.key.clone(), ObjectKind::Error, object.rows, object.bytes);
            plan.remove(RemovedObject { key, kind, dataset: None, rows, bytes });
        }
        Ok(())
    }
}

/// The epochs that have read the records of these objects.
async fn sources(stores: &Stores, batch: &[Counted]) -> Result<BTreeSet<EpochId>, CommitError> {
    let makers: BTreeSet<EpochId> =
        batch.iter().filter_map(|counted| EpochId::of_object(&counted.object.key)).collect();
    let of_makers = stream::iter(makers).map(|maker| sources_of(stores, maker));
    let sources: Vec<Vec<EpochId>> = of_makers.buffer_unordered(CONCURRENT).try_collect().await?;
    Ok(sources.into_iter().flatten().collect())
}

/// The epoch itself; for an operation the epochs whose records its objects have.
async fn sources_of(stores: &Stores, maker: EpochId) -> Result<Vec<EpochId>, CommitError> {
    let key = maker.commit_key();
    let absent = || UnreadableManifest { name: key.to_string(), problem: "it is not there".to_owned() };
    let bytes = stores.lake.get(&key).await?.ok_or_else(absent)?;
    let manifest = Manifest::from_bytes(&key, &bytes)?;
    Ok(if manifest.kind.is_operation() { manifest.sources } else { vec![maker] })
}
