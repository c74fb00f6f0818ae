//! One search: which objects are searched, in which order, and what is said of shards.
//!
//! Owns: the order, leaving out objects that cannot have what is wanted, and the limit. Does not own: the question and the report (`mod`),
//! searching one object (`rows`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use checkpoints::{Lease, Position, SequenceNumber, ShardId, ShardKey, ShardRange, StreamName};
use futures::{StreamExt, stream};
use pipeline::layout::Folder;
use pipeline::time::{DAY_MS, MS_US, day_of};

use crate::commit::lake_log::{AddedObject, Extent, LakeAt, ObjectFilter};
use crate::commit::{EpochId, Manifest, ObjectKind, is_internal_stream};
use crate::inspect::find::epochs::{ChangedBy, Covering, find_epochs, follow};
use crate::inspect::find::rows::{Place, Searched};
use crate::inspect::find::wanted::Matcher;
use crate::inspect::find::{
    FindError, FindProgress, FindQuery, FindReport, Found, Identity, Operation, Origin, ReadState,
};
use crate::lake::{ObjectKey, ObjectStore};

/// Objects that are searched at once.
const CONCURRENT: usize = 16;
/// Objects that are chosen before they are searched.
const BATCH: usize = 1_024;
/// Of how many records the raw lines are searched.
const RAW_OF_MAX: usize = 20;

/// One search.
pub(super) struct Search<'s> {
    pub(super) lake: Arc<dyn ObjectStore>,
    pub(super) at: &'s LakeAt,
    pub(super) extent: &'s Extent,
    pub(super) query: &'s FindQuery,
    pub(super) matcher: Arc<Matcher>,
    pub(super) progress: &'s (dyn Fn(FindProgress) + Sync),
    pub(super) limit: usize,
    pub(super) report: FindReport,
}

impl Search<'_> {
    pub(super) async fn by_position(
        &mut self,
        (position, last): (&Position, &Position),
        leases: &[Lease],
        intents: &[Manifest],
    ) -> Result<(), FindError> {
        let origin = &self.query.origin;
        let wants =
            |key: &ShardKey| origin.wants(key.stream.as_str(), key.shard.as_str()) && !is_internal_stream(&key.stream);
        let covering =
            |position| self.at.chains.covering(position).filter(|key| wants(key)).map(move |key| (key, position));
        let targets: BTreeSet<(&ShardKey, &Position)> = covering(position).chain(covering(last)).collect();
        let targets: Vec<(ShardKey, Position)> =
            targets.into_iter().map(|(key, position)| (key.clone(), position.clone())).collect();
        let epochs = find_epochs(&*self.lake, self.extent, self.at, &targets, self.progress).await?;
        self.search_epochs(epochs).await?;
        let mut other: BTreeMap<ShardKey, ReadState> = BTreeMap::new();
        for lease in leases.iter().filter(|lease| wants(&lease.key) && !self.at.chains.covers(&lease.key, position)) {
            let (key, checkpoint) = (lease.key.clone(), lease.checkpoint.clone());
            let state = if checkpoint.is_start() || *position > checkpoint {
                let worker = lease.holder.committer().map(ToString::to_string);
                ReadState::NotCommitted { key: key.clone(), checkpoint, worker }
            } else {
                match self.at.chains.begin_of(&key) {
                    Some(begins) if position <= begins => {
                        ReadState::Before { key: key.clone(), begins: begins.clone() }
                    }
                    _ => ReadState::Gap { key: key.clone() },
                }
            };
            other.insert(key, state);
        }
        for intent in intents {
            let in_log = |key: &ShardKey| self.at.chains.covers(key, position);
            let has = |range: &ShardRange| range.after() < position && position <= range.through();
            for shard in
                intent.shards.iter().filter(|shard| wants(&shard.key) && has(&shard.range) && !in_log(&shard.key))
            {
                let (key, epoch, worker) = (shard.key.clone(), intent.epoch.clone(), intent.worker.to_string());
                other.insert(key.clone(), ReadState::Committing { key, epoch, worker });
            }
        }
        self.report.read.extend(other.into_values());
        Ok(())
    }

    /// Searches the objects of epochs, wherever operations have moved their records.
    async fn search_epochs(&mut self, epochs: Vec<Covering>) -> Result<(), FindError> {
        // Several shards may have been read by one epoch.
        let mut by_epoch: BTreeMap<EpochId, Vec<Covering>> = BTreeMap::new();
        for covering in epochs {
            by_epoch.entry(covering.epoch.clone()).or_default().push(covering);
        }
        for coverings in by_epoch.into_values() {
            let Some(Covering { objects, version, .. }) = coverings.first() else { continue };
            // Without a shard, records of other shards may have the number, too.
            let is_one = coverings.len() == 1;
            let gone = self.search_by_kind(objects.clone(), is_one).await?;
            let mut changed = BTreeSet::new();
            if gone > 0 {
                let (live, by) = follow(&*self.lake, self.at, *version, objects.clone()).await?;
                changed = by;
                let own: BTreeSet<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
                let others = live.into_iter().filter(|object| !own.contains(&object.key));
                self.search_by_kind(others.collect(), is_one).await?;
            }
            let changed_by: Vec<Operation> = changed
                .into_iter()
                .map(|ChangedBy { version, epoch, of }| Operation { epoch, version: version.0, of })
                .collect();
            // Both ends of an aggregate may be in one range.
            let by_shard: BTreeMap<ShardKey, Covering> =
                coverings.into_iter().map(|covering| (covering.key.clone(), covering)).collect();
            for Covering { key, epoch, range, written_at, version, .. } in by_shard.into_values() {
                let (version, changed_by) = (version.map(|version| version.0), changed_by.clone());
                self.report.read.push(ReadState::Committed { key, epoch, range, written_at, version, changed_by });
            }
        }
        Ok(())
    }

    /// Searches rows and dead letters, and then raw lines; of one record that was found, only those of the day when it arrived. Returns how
    /// many objects are gone.
    async fn search_by_kind(&mut self, mut objects: Vec<AddedObject>, is_one: bool) -> Result<u64, FindError> {
        objects.retain(|object| self.may_have(object));
        let (mut raw, others): (Vec<AddedObject>, Vec<AddedObject>) =
            objects.into_iter().partition(|object| object.kind == ObjectKind::Raw);
        let before = self.report.found.len();
        let gone = self.search_objects(others).await?;
        let arrivals: Option<Vec<i64>> = self.report.found[before..].iter().map(|found| found.arrival_ms).collect();
        if let Some(arrivals) = arrivals.filter(|arrivals| is_one && !arrivals.is_empty()) {
            raw.retain(|object| arrivals.iter().any(|arrival| is_of_day(object, *arrival)));
        }
        Ok(gone + self.search_objects(raw).await?)
    }

    pub(super) async fn by_values(&mut self) -> Result<(), FindError> {
        let mut kinds = vec![ObjectKind::Processed, ObjectKind::Error];
        if self.query.search_raw {
            kinds.push(ObjectKind::Raw);
        }
        for kind in kinds {
            let at = self.at;
            let lake = Arc::clone(&self.lake);
            let mut live = at.live_objects(&*lake, ObjectFilter { kind: Some(kind), ..ObjectFilter::default() });
            let mut batch = Vec::new();
            while let Some(object) = live.next().await? {
                if self.may_have(&object) {
                    batch.push(object);
                }
                if batch.len() >= BATCH {
                    self.search_objects(std::mem::take(&mut batch)).await?;
                }
                if self.report.is_cut {
                    return Ok(());
                }
            }
            self.search_objects(batch).await?;
            if self.report.is_cut {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Finds the raw lines of the records that were found.
    pub(super) async fn find_raw_lines(&mut self) -> Result<(), FindError> {
        let identities: BTreeMap<Identity, Option<i64>> = self
            .report
            .found
            .iter()
            .filter_map(|found| Some((found.identity.clone()?, found.arrival_ms)))
            .take(RAW_OF_MAX)
            .collect();
        if !self.at.live_by_kind().contains_key(&ObjectKind::Raw) {
            return Ok(());
        }
        for (identity, arrival_ms) in identities {
            let (Ok(stream), Ok(shard), Ok(sequence)) = (
                StreamName::new(identity.stream.as_str()),
                ShardId::new(identity.shard.as_str()),
                identity.sequence.clone().try_into(),
            ) else {
                continue;
            };
            let origin = Origin { stream: Some(stream.clone()), shard: Some(shard.clone()) };
            let sequence: SequenceNumber = sequence;
            let position = Position::At { sequence: sequence.clone(), sub: identity.subsequence };
            let target = (ShardKey::new(stream, shard), position);
            let epochs = find_epochs(&*self.lake, self.extent, self.at, &[target], self.progress).await?;
            let raw: Vec<AddedObject> = epochs
                .into_iter()
                .flat_map(|covering| covering.objects)
                .filter(|object| object.kind == ObjectKind::Raw && self.may_have(object))
                .filter(|object| arrival_ms.is_none_or(|arrival| is_of_day(object, arrival)))
                .collect();
            let of_record = Matcher::of_identity(sequence, identity.subsequence, origin);
            let values = std::mem::replace(&mut self.matcher, Arc::new(of_record));
            let searched = self.search_objects(raw).await;
            self.matcher = values;
            searched?;
        }
        Ok(())
    }

    /// Whether an object may have what is wanted, by its kind, dataset, folder and statistics.
    fn may_have(&self, object: &AddedObject) -> bool {
        let FindQuery { dataset, since_ms, until_ms, .. } = self.query;
        let (since, until) = (since_ms.unwrap_or(i64::MIN), until_ms.unwrap_or(i64::MAX));
        let folder = object.key.as_str().rsplit_once('/').and_then(|(folder, _)| Folder::parse(folder).ok());
        match (object.kind, folder) {
            (ObjectKind::Processed, _) => {
                let Some(of) = self.matcher.of(object.dataset.as_deref()) else { return false };
                let columns = if object.columns.is_empty() { Vec::new() } else { object.columns.columns() };
                let bounds_of = |name: &str| {
                    let id = of.field_ids.get(name)?;
                    columns.iter().find(|column| column.field_id == *id)?.bounds.as_ref()
                };
                let us = |ms: i64| ms.saturating_mul(MS_US);
                bounds_of("ingest_arrival_time").is_none_or(|bounds| bounds.may_have_int(us(since)..us(until)))
                    && of.rows.iter().any(|conditions| {
                        conditions.iter().all(|condition| {
                            bounds_of(&condition.column)
                                .is_none_or(|bounds| condition.texts.iter().any(|text| bounds.may_have_text(text)))
                        })
                    })
            }
            (ObjectKind::Error, Some(Folder::Error { day, .. })) => {
                day >= day_of(since.div_euclid(DAY_MS)) && day <= day_of(until.saturating_sub(1).div_euclid(DAY_MS))
            }
            (ObjectKind::Raw, _) => {
                dataset.as_ref().is_none_or(|dataset| object.dataset.as_ref().is_none_or(|own| own == dataset))
            }
            (ObjectKind::Error, _) => true,
        }
    }

    /// Searches objects, several at once. Returns how many are gone.
    async fn search_objects(&mut self, objects: Vec<AddedObject>) -> Result<u64, FindError> {
        (self.progress)(FindProgress::Planned(objects.len() as u64));
        let matcher = Arc::clone(&self.matcher);
        let lake = Arc::clone(&self.lake);
        let places = objects.into_iter().map(|object| Place { lake: Arc::clone(&lake), object });
        let mut searching = stream::iter(places)
            .map(|place| {
                let matcher = Arc::clone(&matcher);
                async move { place.search(&matcher).await }
            })
            .buffer_unordered(CONCURRENT);
        let mut gone = 0;
        while let Some(searched) = searching.next().await {
            (self.progress)(FindProgress::Searched);
            match searched {
                Ok(Some(Searched { found, bytes })) => {
                    self.report.objects += 1;
                    self.report.bytes += bytes;
                    let FindQuery { since_ms, until_ms, .. } = self.query;
                    let in_time = |found: &Found| {
                        found.arrival_ms.is_none_or(|arrived| {
                            since_ms.is_none_or(|since| arrived >= since)
                                && until_ms.is_none_or(|until| arrived < until)
                        })
                    };
                    self.report.found.extend(found.into_iter().filter(in_time));
                    if self.report.found.len() > self.limit {
                        self.report.found.truncate(self.limit);
                        self.report.is_cut = true;
                        break;
                    }
                }
                Ok(None) => gone += 1,
                Err(FindError::Unreadable { key, problem }) => self.report.unreadable.push((key, problem)),
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }
}

/// Whether an object of raw lines has those of the day of a time: milliseconds since 1970.
fn is_of_day(object: &AddedObject, ms: i64) -> bool {
    let folder = object.key.as_str().rsplit_once('/').and_then(|(folder, _)| Folder::parse(folder).ok());
    match folder {
        Some(Folder::Raw { day, .. }) => day == day_of(ms.div_euclid(DAY_MS)),
        _ => true,
    }
}
