//! The open epoch of each group: everything that was read since the group's last commit.
//!
//! Owns: the epoch's ledger, objects and partitions, and what it forwards to a raw sink; when it is due; turning it into a
//! manifest, or abandoning it. Does not own: the lanes that work for it, the steps of the commit (`commit`), what happens to
//! its shards afterwards (the coordinator).
//!
//! Invariants:
//!
//! 1. Nothing of an epoch is visible. It becomes visible as a whole, by a commit, or never.
//! 2. No shard is in two open epochs: a shard keeps its group until the epoch that has records of it ends.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{LeaseOwner, ShardKey};
use mutations::mutated;
use pipeline::encode::{Encoder, RowGroup};
use pipeline::lane::Pushed;
use pipeline::line_objects::LineCodec;
use tokio::time::Instant;
use tracing::Span;

use crate::clock::SharedClock;
use crate::commit::{EpochId, IdleShard, Manifest, ObjectKind, Stores};
use crate::raw::{Forward, RawSink};
use crate::retry::Retry;
use crate::spans;
use crate::worker::WorkerError;
use crate::worker::epoch::encode::{Encoding, LaneSlot, encode_rest};
use crate::worker::epoch::ledger::EpochLedger;
use crate::worker::epoch::objects::{Objects, ObjectsConfig, OutputTarget};
use crate::worker::memory_plan::MemoryPlan;
use crate::worker::readers::{ReadRange, ReadWhat};

/// What every epoch is made with.
pub(crate) struct EpochSettings {
    pub(crate) me: LeaseOwner,
    pub(crate) stores: Stores,
    pub(crate) clock: SharedClock,
    pub(crate) encoding: Encoding,
    pub(crate) memory: MemoryPlan,
    pub(crate) raw_sink: Option<Arc<dyn RawSink>>,
    pub(crate) raw_retry: Retry,
    /// Objects that are open at once.
    pub(crate) open_objects: usize,
    /// The epoch is due after this time.
    pub(crate) interval: Duration,
    /// The epoch is due after this many bytes of input.
    pub(crate) input_bytes: u64,
}

/// The open epochs, by group.
pub(crate) struct OpenEpochs {
    settings: EpochSettings,
    open: BTreeMap<usize, OpenEpoch>,
    /// Epochs that were opened: their numbers.
    opened: u64,
}

impl OpenEpochs {
    pub(crate) fn new(settings: EpochSettings) -> Self {
        OpenEpochs { settings, open: BTreeMap::new(), opened: 0 }
    }

    /// The epoch of a group. If it has none, one is opened, with its share of the memory of `groups` groups.
    pub(crate) fn get_or_open(&mut self, group: usize, groups: usize) -> &mut OpenEpoch {
        let (settings, opened) = (&self.settings, &mut self.opened);
        self.open.entry(group).or_insert_with(|| {
            *opened += 1;
            OpenEpoch::new(settings, *opened, groups)
        })
    }

    pub(crate) fn get_mut(&mut self, group: usize) -> Option<&mut OpenEpoch> {
        self.open.get_mut(&group)
    }

    pub(crate) fn take(&mut self, group: usize) -> Option<OpenEpoch> {
        self.open.remove(&group)
    }

    /// The groups that have an open epoch.
    pub(crate) fn groups(&self) -> Vec<usize> {
        self.open.keys().copied().collect()
    }

    /// The shards that a group's open epoch has records of.
    pub(crate) fn keys(&self, group: usize) -> Vec<ShardKey> {
        self.open.get(&group).map_or_else(Vec::new, OpenEpoch::keys)
    }

    /// The group whose epoch has records of the shard.
    pub(crate) fn group_with(&self, key: &ShardKey) -> Option<usize> {
        self.open.iter().find(|(_, epoch)| epoch.ledger.has(key)).map(|(group, _)| *group)
    }

    /// Whether a group's epoch has no range of the shard and can't take one, because one decision has `shards_max` at most.
    /// Shards that were released stay in the epoch until it ends.
    pub(crate) fn is_full_for(&self, group: usize, key: &ShardKey, shards_max: usize) -> bool {
        let epoch = self.open.get(&group);
        epoch.is_some_and(|epoch| !epoch.ledger.has(key) && epoch.ledger.shards() >= shards_max)
    }

    /// When the first epoch's time is up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|epoch| epoch.ledger.begun + self.settings.interval).min()
    }

    /// The groups whose epochs must be committed now, if the memory is divided among `groups` groups.
    pub(crate) fn due(&self, groups: usize) -> Vec<usize> {
        let due = self.open.iter().filter(|(_, epoch)| epoch.is_due(&self.settings, groups));
        due.map(|(group, _)| *group).collect()
    }

    /// Whether no epoch is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Encodes what the drained lanes of the group hold, closes every object, and returns the epoch's manifest.
    pub(crate) async fn stage(&self, epoch: OpenEpoch, lanes: &mut [LaneSlot]) -> Result<Manifest, WorkerError> {
        epoch.stage(&self.settings, lanes).await
    }
}

/// What a group has read since its last commit.
pub(crate) struct OpenEpoch {
    encoding: Encoding,
    ledger: EpochLedger,
    objects: Objects,
    /// Hashes of the partitions that the rows belong to, including those that have no object yet.
    partitions: HashSet<u64>,
    /// Raw records on their way to another service.
    forward: Option<Forward>,
    span: Span,
}

impl OpenEpoch {
    fn new(settings: &EpochSettings, number: u64, groups: usize) -> Self {
        let EpochSettings { me, stores, clock, encoding, memory, raw_sink, raw_retry, open_objects, .. } = settings;
        let lanes = &encoding.lanes;
        let id = EpochId::new(clock.now_ms(), me, number);
        let span = tracing::info_span!(target: spans::TARGET, parent: None, "epoch", epoch = %id);
        let raw = lanes.raw.map(LineCodec::extension);
        let objects = ObjectsConfig {
            worker: me.clone(),
            span: span.clone(),
            file_bytes: encoding.file_bytes,
            open_max: *open_objects,
            open_bytes_max: memory.open_object_bytes(groups),
            upload_bytes: memory.upload_bytes(groups),
            raw_extension: raw.unwrap_or_default(),
            dead_letter_extension: lanes.dead_letters.extension(),
        };
        OpenEpoch {
            ledger: EpochLedger::new(id.clone(), &lanes.graph, &lanes.datasets, raw.is_some()),
            objects: Objects::new(stores.clone(), objects, id, &lanes.datasets),
            partitions: HashSet::new(),
            forward: raw_sink.clone().map(|sink| Forward::new(sink, raw_retry.clone())),
            encoding: encoding.clone(),
            span,
        }
    }

    /// The span of its trace, from its first record to the end of its commit.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Its id.
    pub(crate) fn id(&self) -> &EpochId {
        &self.ledger.id
    }

    /// The shards that the epoch has records of.
    pub(crate) fn keys(&self) -> Vec<ShardKey> {
        self.ledger.keys()
    }

    /// Adds what was read of a shard. Its chunk, if it has one, must go through a lane.
    pub(crate) async fn add_range(&mut self, range: &ReadRange) -> Result<(), WorkerError> {
        match &range.what {
            ReadWhat::End { children } => self.ledger.end(&range.key, &range.from, children.clone()),
            ReadWhat::Chunk(read) => {
                let bytes = read.chunk.bytes().len() as u64;
                self.ledger.read(&range.key, &range.from, read.through.clone(), bytes);
                self.ledger.arrived(&range.key, read.chunk.last_arrival_ms());
                if let Some(forward) = &mut self.forward {
                    forward.push(&read.chunk).await?;
                }
            }
        }
        if range.is_taken_over {
            self.ledger.take_over(&range.key);
        }
        Ok(())
    }

    /// Adds the shards of the group that are at their tips.
    pub(crate) fn at_tip(&mut self, tips: Vec<IdleShard>) {
        self.ledger.at_tip(tips);
    }

    /// Adds what became of a chunk: its counts, and the lines that are complete.
    pub(crate) async fn add_pushed(&mut self, key: &ShardKey, pushed: Pushed) -> Result<(), WorkerError> {
        self.ledger.pushed(key, &pushed);
        self.partitions.extend(&pushed.new_partitions);
        for member in pushed.members {
            self.objects.add_lines(member).await?;
        }
        Ok(())
    }

    /// Adds row groups to their partitions' files.
    pub(crate) async fn add_row_groups(
        &mut self,
        encoder: &Encoder,
        groups: Vec<(OutputTarget, RowGroup)>,
    ) -> Result<(), WorkerError> {
        if !groups.is_empty() {
            self.objects.set_provenance(self.ledger.provenance());
        }
        for (target, rows) in groups {
            self.objects.add_rows(&self.encoding.lanes.datasets, encoder, target, rows).await?;
        }
        Ok(())
    }

    /// Returns true if the epoch must be committed now: its interval has elapsed, it has read enough input, it has too many
    /// objects or partitions (each takes memory until the commit), or one of its uploads has failed.
    fn is_due(&self, settings: &EpochSettings, groups: usize) -> bool {
        self.ledger.begun.elapsed() >= settings.interval
            || self.ledger.input_bytes >= settings.input_bytes
            || self.objects.count() > settings.memory.objects_max(groups)
            || self.partitions.len() > settings.memory.partitions_max(groups)
            || self.objects.has_failed()
    }

    async fn stage(self, settings: &EpochSettings, lanes: &mut [LaneSlot]) -> Result<Manifest, WorkerError> {
        let OpenEpoch { ledger, mut objects, forward, .. } = self;
        if let Some(forward) = forward
            && let Err(error) = forward.finish().await
        {
            objects.abort().await;
            return Err(error.into());
        }
        objects.set_provenance(ledger.provenance());
        if let Err(error) = encode_rest(&settings.encoding, lanes, &mut objects, ledger.provenance()).await {
            objects.abort().await;
            return Err(error);
        }
        let mut objects = objects.seal().await?;
        if mutated!(ForgetDeadLetters) {
            objects.retain(|object| object.kind != ObjectKind::Error);
        }
        if mutated!(ForgetRawLines) {
            objects.retain(|object| object.kind != ObjectKind::Raw);
        }
        let (graph, datasets) = (&settings.encoding.lanes.graph, &settings.encoding.lanes.datasets);
        Ok(ledger.manifest(&settings.me, settings.clock.now_ms(), graph, datasets, objects))
    }

    /// Aborts all uploads: the epoch never happens.
    pub(crate) async fn abandon(self) {
        self.objects.abort().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::{MemoryStore, ObjectStore};
    use crate::retry::RetryPolicy;
    use crate::worker::testing::{at, encoding, key, open_epochs, read};
    use checkpoints::{MemoryStore as MemoryLeases, Position, ShardRange};

    fn epochs(lake: &MemoryStore) -> OpenEpochs {
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(MemoryLeases::new()), RetryPolicy::default());
        open_epochs(stores, MemoryPlan::new(64 << 20, 1))
    }

    fn end(shard: &str, from: Position) -> ReadRange {
        let what = ReadWhat::End { children: Vec::new() };
        ReadRange { key: key(shard), group: 0, source: 0, from, is_taken_over: true, what }
    }

    #[tokio::test(start_paused = true)]
    async fn an_epoch_is_due_after_its_interval_or_its_input() {
        let mut epochs = epochs(&MemoryStore::new());
        assert!(epochs.is_empty() && epochs.deadline().is_none());
        let begun = Instant::now();
        epochs.get_or_open(0, 1).add_range(&read("a", 1).await).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        epochs.get_or_open(1, 1).add_range(&read("b", 1).await).await.unwrap();
        assert_eq!(epochs.deadline(), Some(begun + Duration::from_secs(60)), "the first epoch's");
        assert!(epochs.due(2).is_empty());
        let mut number = 2;
        while epochs.due(2).is_empty() {
            epochs.get_or_open(1, 1).add_range(&read("b", number).await).await.unwrap();
            number += 1;
        }
        assert_eq!((epochs.due(2), number > 20), (vec![1], true), "a kilobyte has been read");
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(epochs.due(2), [0, 1]);
    }

    #[tokio::test]
    async fn an_epoch_with_too_many_partitions_is_due() {
        let mut epochs = epochs(&MemoryStore::new());
        let partitions_max = epochs.settings.memory.partitions_max(1);
        let epoch = epochs.get_or_open(0, 1);
        epoch.partitions.extend(0..partitions_max as u64);
        assert!(epochs.due(1).is_empty());
        assert_eq!(epochs.due(2), [0], "two groups have half of the memory each");
        epochs.get_or_open(0, 1).partitions.insert(u64::MAX);
        assert_eq!(epochs.due(1), [0]);
    }

    #[tokio::test]
    async fn the_group_of_a_shard_is_the_one_whose_epoch_has_records_of_it() {
        let mut epochs = epochs(&MemoryStore::new());
        epochs.get_or_open(0, 1).add_range(&read("a", 1).await).await.unwrap();
        epochs.get_or_open(2, 1).add_range(&read("b", 1).await).await.unwrap();
        assert_eq!(["a", "b", "c"].map(|shard| epochs.group_with(&key(shard))), [Some(0), Some(2), None]);
        assert!(epochs.is_full_for(0, &key("c"), 1) && !epochs.is_full_for(0, &key("a"), 1));
        assert!(!epochs.is_full_for(0, &key("c"), 2) && !epochs.is_full_for(1, &key("c"), 1));
    }

    /// Adds two records of shard `a`, which go through the lane, and the end of shard `b`.
    async fn fill(epoch: &mut OpenEpoch, slot: &mut LaneSlot) {
        for number in 1..3 {
            let range = read("a", number).await;
            epoch.add_range(&range).await.unwrap();
            let ReadWhat::Chunk(chunk) = range.what else { panic!() };
            let pushed = slot.lane.push(0, chunk.chunk);
            epoch.add_pushed(&range.key, pushed).await.unwrap();
        }
        epoch.add_range(&end("b", at(7))).await.unwrap();
    }

    #[tokio::test]
    async fn a_staged_epoch_names_every_range_and_is_not_visible() {
        let lake = MemoryStore::new();
        let mut epochs = epochs(&lake);
        let mut slot = LaneSlot::new(&encoding()).unwrap();
        fill(epochs.get_or_open(0, 1), &mut slot).await;
        let epoch = epochs.take(0).unwrap();
        assert_eq!(epoch.keys(), [key("a"), key("b")]);
        let manifest = epochs.stage(epoch, &mut [slot]).await.unwrap();
        let ranges: Vec<_> = manifest.shards.iter().map(|shard| (&shard.key.shard, &shard.range)).collect();
        let range = |after, through| ShardRange::new(after, through).unwrap();
        let (a, b) = (range(Position::Beginning, at(2)), range(at(7), Position::End));
        assert_eq!(ranges, [(&key("a").shard, &a), (&key("b").shard, &b)]);
        assert_eq!((manifest.shards[0].taken_over, manifest.shards[1].taken_over), (false, true));
        assert_eq!((manifest.totals.records, manifest.objects.len()), (2, 1));
        assert!(lake.objects().is_empty() && lake.list_uploads().await.unwrap().len() == 1);
        assert!(epochs.is_empty());
    }

    #[tokio::test]
    async fn an_abandoned_epoch_leaves_no_upload() {
        let lake = MemoryStore::new();
        let mut epochs = epochs(&lake);
        let mut slot = LaneSlot::new(&encoding()).unwrap();
        let epoch = epochs.get_or_open(0, 1);
        fill(epoch, &mut slot).await;
        let spill = slot.spill();
        let (row_groups, _) = slot.encode_some(spill).unwrap();
        epoch.add_row_groups(&slot.encoder, row_groups).await.unwrap();
        epochs.take(0).unwrap().abandon().await;
        let aborted = lake.calls().iter().filter(|(operation, _)| *operation == "abort_upload").count();
        assert_eq!((aborted, lake.list_uploads().await.unwrap().len()), (1, 0));
    }
}
