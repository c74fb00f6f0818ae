//! The readers: one task for each shard that this worker reads.
//!
//! Owns: the tasks, the id of each, the group that its shard belongs to, and how far it has read. Does not own: which shards
//! are read (`shards`), how one is read (`reader`), what becomes of a chunk (the coordinator).
//!
//! A reader that is replaced may still have events on the way. They carry its id, which is not the shard's reader any more,
//! and are dropped: the next reader reads the same records again.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoints::{Lease, Position, ShardId, ShardKey, StreamName};
use mutations::mutated;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::clock::SharedClock;
use crate::commit::IdleShard;
use crate::source::{ShardSource, SourceError};
use crate::trouble::Trouble;
use crate::worker::memory_plan::ByteBudget;
use crate::worker::progress::Progress;
use crate::worker::reader::{BufferPool, ReadChunk, ReaderEvent, ReaderEventKind, ReaderId, ReaderTask};

/// What every reader is started with.
pub(super) struct ReaderSettings {
    pub(super) sources: Vec<Arc<dyn ShardSource>>,
    pub(super) chunk_bytes: usize,
    pub(super) budget: ByteBudget,
    pub(super) buffers: BufferPool,
    pub(super) coordinator: mpsc::Sender<ReaderEvent>,
    pub(super) clock: SharedClock,
    pub(super) progress: Arc<Progress>,
    /// Shards of one group: as many as one decision may have.
    pub(super) group_shards_max: usize,
}

/// A shard's reader and how far it has got.
struct ReaderHandle {
    id: ReaderId,
    group: usize,
    task: AbortHandle,
    /// Another program wrote the checkpoint. False after the first commit.
    is_taken_over: bool,
    /// The lease's checkpoint.
    committed: Position,
    /// The end of the open epoch's range, or the checkpoint.
    read: Position,
    is_at_tip: bool,
    /// Every record that arrived before this time is at or before `read`: milliseconds since 1970, by the stream's clock.
    tip_as_of_ms: Option<i64>,
    has_ended: bool,
}

/// What an event means.
#[derive(Debug)]
pub(super) enum ReaderUpdate {
    /// Nothing for anybody: an event of a reader that was replaced, or one that changes nothing.
    Nothing,
    /// The shard has come to its tip, and was not there before.
    ReachedTip,
    /// The shard's position has moved.
    Read(ReadRange),
    /// The shard cannot be read.
    Failed(ShardKey, SourceError),
}

/// A further piece of a shard.
#[derive(Debug)]
pub(super) struct ReadRange {
    pub(super) key: ShardKey,
    pub(super) group: usize,
    /// The number of the stream of its records among the sources of the graph.
    pub(super) source: usize,
    /// The position before it.
    pub(super) from: Position,
    /// Another program read up to the checkpoint.
    pub(super) is_taken_over: bool,
    pub(super) what: ReadWhat,
}

#[derive(Debug)]
pub(super) enum ReadWhat {
    Chunk(ReadChunk),
    /// The shard has ended, and these are its children.
    End {
        children: Vec<ShardId>,
    },
}

/// All readers of a worker.
pub(super) struct Readers {
    settings: ReaderSettings,
    /// Where failures of a stream's shards are logged, in the order of the sources.
    troubles: Vec<Arc<Trouble>>,
    /// The streams of each source's records, and the number of the first one among the sources of the graph.
    origins: Vec<(usize, Vec<StreamName>)>,
    handles: BTreeMap<ShardKey, ReaderHandle>,
    tasks: JoinSet<()>,
    started: u64,
}

impl Readers {
    pub(super) fn new(settings: ReaderSettings) -> Self {
        let trouble = |source: &Arc<dyn ShardSource>| Trouble::new(format!("reading stream {}", source.stream()));
        let troubles = settings.sources.iter().map(trouble).collect();
        let mut count = 0;
        let origins_of = |source: &Arc<dyn ShardSource>| {
            let (first, origins) = (count, source.origins());
            count += origins.len();
            (first, origins)
        };
        let origins = settings.sources.iter().map(origins_of).collect();
        Readers { settings, troubles, origins, handles: BTreeMap::new(), tasks: JoinSet::new(), started: 0 }
    }

    /// Reads a shard from its checkpoint on, and stops the reader that it had.
    pub(super) fn start(&mut self, lease: Lease) {
        let Lease { key, checkpoint, last_manifest, .. } = lease;
        let mut sources = self.settings.sources.iter().zip(&self.troubles);
        let Some((source, trouble)) = sources.find(|(source, _)| *source.stream() == key.stream) else { return };
        let (source, trouble) = (Arc::clone(source), Arc::clone(trouble));
        self.stop(&key);
        while self.tasks.try_join_next().is_some() {}
        self.started += 1;
        let id = ReaderId(self.started);
        let task = ReaderTask {
            id,
            key: key.clone(),
            retry: source.retry(),
            trouble,
            source,
            after: checkpoint.clone(),
            chunk_bytes: self.settings.chunk_bytes,
            budget: self.settings.budget.clone(),
            buffers: self.settings.buffers.clone(),
            coordinator: self.settings.coordinator.clone(),
            clock: self.settings.clock.clone(),
            figures: self.settings.progress.live.of_reader(&key),
        };
        let handle = ReaderHandle {
            id,
            group: self.group_with_room(),
            task: self.tasks.spawn(task.run()),
            is_taken_over: last_manifest.is_none() && matches!(checkpoint, Position::At { .. }),
            committed: checkpoint.clone(),
            read: checkpoint,
            is_at_tip: false,
            tip_as_of_ms: None,
            has_ended: false,
        };
        self.handles.insert(key, handle);
    }

    /// The first group that has room for one more shard.
    fn group_with_room(&self) -> usize {
        let mut sizes = vec![0; self.handles.len() + 1];
        for handle in self.handles.values() {
            // There are more sizes than shards, so one of them is 0. A group after them all is not needed.
            if let Some(size) = sizes.get_mut(handle.group) {
                *size += 1;
            }
        }
        sizes.iter().position(|size| *size < self.settings.group_shards_max).unwrap_or(0)
    }

    /// Stops a shard's reader, if it has one. Its events are dropped from now on.
    pub(super) fn stop(&mut self, key: &ShardKey) {
        if let Some(handle) = self.handles.remove(key) {
            handle.task.abort();
        }
    }

    /// Ends all tasks and waits for them. How far each has read stays known, so that what they have read can be committed.
    pub(super) async fn stop_all(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Takes an event into account.
    pub(super) fn on_event(&mut self, event: ReaderEvent) -> ReaderUpdate {
        let ReaderEvent { reader, key, kind } = event;
        let Some(handle) =
            self.handles.get_mut(&key).filter(|handle| handle.id == reader || mutated!(AcceptReplacedReaders))
        else {
            return ReaderUpdate::Nothing;
        };
        let was_at_tip = std::mem::replace(&mut handle.is_at_tip, matches!(kind, ReaderEventKind::AtTip { .. }));
        if let ReaderEventKind::AtTip { as_of_ms } = &kind {
            handle.tip_as_of_ms = handle.tip_as_of_ms.max(*as_of_ms);
        }
        let (through, what) = match kind {
            ReaderEventKind::AtTip { .. } if was_at_tip => return ReaderUpdate::Nothing,
            ReaderEventKind::AtTip { .. } => return ReaderUpdate::ReachedTip,
            ReaderEventKind::Behind => return ReaderUpdate::Nothing,
            ReaderEventKind::Failed(error) => {
                handle.has_ended = true;
                return ReaderUpdate::Failed(key, error);
            }
            // No records up to here: the position has not moved.
            ReaderEventKind::Chunk(chunk) if chunk.through == handle.read => return ReaderUpdate::Nothing,
            ReaderEventKind::Chunk(chunk) => (chunk.through.clone(), ReadWhat::Chunk(chunk)),
            ReaderEventKind::End { children } => {
                handle.has_ended = true;
                (Position::End, ReadWhat::End { children })
            }
        };
        // What was known of the tip was about another position. It stays true there, but says nothing of the new one.
        handle.tip_as_of_ms = None;
        let source = self.settings.sources.iter().position(|source| *source.stream() == key.stream);
        let source = source.and_then(|source| self.origins.get(source)).map_or(0, |(first, origins)| {
            let of_records = match &what {
                ReadWhat::Chunk(chunk) if origins.len() > 1 => &*chunk.chunk.stream,
                _ => key.stream.as_str(),
            };
            first + origins.iter().position(|origin| origin.as_str() == of_records).unwrap_or(0)
        });
        ReaderUpdate::Read(ReadRange {
            group: handle.group,
            source,
            from: std::mem::replace(&mut handle.read, through),
            is_taken_over: handle.is_taken_over,
            key,
            what,
        })
    }

    /// A shard was committed up to `through`.
    pub(super) fn on_committed(&mut self, key: &ShardKey, through: &Position) {
        if let Some(handle) = self.handles.get_mut(key) {
            handle.committed = through.clone();
            handle.is_taken_over = false;
        }
    }

    /// The shards of a group that are at their tips, and what arrived before.
    pub(super) fn tips(&self, group: usize) -> Vec<IdleShard> {
        let of_group = self.handles.iter().filter(|(_, handle)| handle.group == group && !handle.has_ended);
        let of_any = || self.handles.values().filter_map(|handle| handle.tip_as_of_ms).max();
        let tip = |(key, handle): (&ShardKey, &ReaderHandle)| {
            let (key, at) = (key.clone(), handle.read.clone());
            let tip_as_of_ms = if mutated!(TipOfAnotherShard) { of_any() } else { handle.tip_as_of_ms };
            tip_as_of_ms.map(|arrived_through| IdleShard { key, at, arrived_through })
        };
        of_group.filter_map(tip).collect()
    }

    /// The number of shards of which records were read and not committed.
    pub(super) fn uncommitted(&self) -> usize {
        self.handles.values().filter(|handle| handle.read != handle.committed).count()
    }

    /// Whether the shard has a reader.
    pub(super) fn has(&self, key: &ShardKey) -> bool {
        self.handles.contains_key(key)
    }

    /// Whether the shard is read already, and nothing in its row says otherwise.
    pub(super) fn reads_from(&self, lease: &Lease) -> bool {
        let handle = self.handles.get(&lease.key);
        lease.pending.is_none() && handle.is_some_and(|handle| handle.committed == lease.checkpoint)
    }

    /// Whether everything of the shard has been read and committed, for now.
    pub(super) fn has_committed_all(&self, key: &ShardKey) -> bool {
        self.handles.get(key).is_some_and(|handle| handle.is_at_tip && handle.committed == handle.read)
    }

    /// Whether no reader has anything more to read, for now.
    pub(super) fn are_all_at_tip(&self) -> bool {
        self.handles.values().all(|handle| handle.is_at_tip || handle.has_ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Behind, ShardReader, SourceShard};
    use async_trait::async_trait;
    use checkpoints::{ManifestName, NewLease, Pending, StreamName};
    use pipeline::chunk::Framing;

    /// A stream whose shards never give anything: the tests send the events.
    struct Silent(StreamName);

    #[async_trait]
    impl ShardSource for Silent {
        fn stream(&self) -> &StreamName {
            &self.0
        }

        async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
            Ok(Vec::new())
        }

        async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
            std::future::pending().await
        }

        async fn behind(&self, _: &ShardId, _: &Position) -> Result<Behind, SourceError> {
            Ok(Behind::Nothing)
        }
    }

    fn key(shard: &str) -> ShardKey {
        ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(shard).unwrap())
    }

    fn at(sequence: u64) -> Position {
        Position::at(sequence.into())
    }

    fn lease(shard: &str, checkpoint: Position) -> Lease {
        Lease::new(NewLease::new(key(shard), checkpoint))
    }

    fn readers(group_shards_max: usize) -> Readers {
        let streams = ["other", "s"].map(|name| StreamName::new(name).unwrap());
        Readers::new(ReaderSettings {
            sources: streams.into_iter().map(|name| Arc::new(Silent(name)) as Arc<dyn ShardSource>).collect(),
            chunk_bytes: 1 << 10,
            budget: ByteBudget::new(1 << 20),
            buffers: BufferPool::default(),
            coordinator: mpsc::channel(1).0,
            clock: Arc::new(crate::worker::testing::StoppedClock),
            progress: Arc::default(),
            group_shards_max,
        })
    }

    async fn chunk(reader: u64, shard: &str, through: Position) -> ReaderEvent {
        let chunk = Chunk::new("s".into(), shard.into(), 0, b"{}".to_vec(), Framing::Lines { base: 0 });
        let memory = ByteBudget::new(1 << 10).take(1).await.unwrap();
        let kind = ReaderEventKind::Chunk(ReadChunk { chunk, through, source_bytes: 2, memory });
        ReaderEvent { reader: ReaderId(reader), key: key(shard), kind }
    }

    fn event(reader: u64, shard: &str, kind: ReaderEventKind) -> ReaderEvent {
        ReaderEvent { reader: ReaderId(reader), key: key(shard), kind }
    }

    use pipeline::chunk::Chunk;

    #[tokio::test]
    async fn a_chunk_moves_the_position_from_where_the_last_one_ended() {
        let mut readers = readers(9);
        readers.start(lease("a", at(5)));
        for (from, through) in [(5, 7), (7, 9)] {
            let ReaderUpdate::Read(range) = readers.on_event(chunk(1, "a", at(through)).await) else { panic!() };
            assert_eq!((range.from, range.source, range.group), (at(from), 1, 0));
            assert!(range.is_taken_over, "no manifest of ours moved the checkpoint");
        }
        let unmoved = readers.on_event(chunk(1, "a", at(9)).await);
        assert!(matches!(unmoved, ReaderUpdate::Nothing));
        readers.on_committed(&key("a"), &at(9));
        let ReaderUpdate::Read(range) = readers.on_event(chunk(1, "a", at(11)).await) else { panic!() };
        assert!(!range.is_taken_over, "the first commit ends the take-over");
    }

    #[tokio::test]
    async fn events_of_a_replaced_reader_are_dropped() {
        let mut readers = readers(9);
        readers.start(lease("a", at(5)));
        readers.start(lease("a", at(5)));
        assert!(matches!(readers.on_event(chunk(1, "a", at(7)).await), ReaderUpdate::Nothing));
        assert!(matches!(readers.on_event(chunk(2, "a", at(7)).await), ReaderUpdate::Read(_)));
        readers.stop(&key("a"));
        assert!(matches!(readers.on_event(chunk(2, "a", at(9)).await), ReaderUpdate::Nothing));
        assert!(!readers.has(&key("a")));
    }

    #[tokio::test]
    async fn a_shard_at_its_tip_is_done_only_once_everything_it_read_is_committed() {
        let mut readers = readers(9);
        readers.start(lease("a", at(5)));
        readers.start(lease("b", at(5)));
        readers.on_event(chunk(1, "a", at(7)).await);
        let update = readers.on_event(event(1, "a", ReaderEventKind::AtTip { as_of_ms: None }));
        assert!(matches!(update, ReaderUpdate::ReachedTip));
        assert!(matches!(
            readers.on_event(event(1, "a", ReaderEventKind::AtTip { as_of_ms: None })),
            ReaderUpdate::Nothing
        ));
        assert!(!readers.has_committed_all(&key("a")));
        readers.on_committed(&key("a"), &at(7));
        assert!(readers.has_committed_all(&key("a")) && !readers.are_all_at_tip());
        let end = readers.on_event(event(2, "b", ReaderEventKind::End { children: Vec::new() }));
        assert!(matches!(end, ReaderUpdate::Read(range) if range.from == at(5)));
        assert!(readers.are_all_at_tip() && !readers.has_committed_all(&key("b")));
        readers.on_event(chunk(1, "a", at(9)).await);
        assert!(!readers.are_all_at_tip(), "a new record ends the tip");
    }

    #[tokio::test]
    async fn a_failed_reader_reports_its_shard() {
        let mut readers = readers(9);
        readers.start(lease("a", at(5)));
        let error = SourceError::Unreadable { place: "a".to_owned(), problem: "gone".to_owned() };
        let update = readers.on_event(event(1, "a", ReaderEventKind::Failed(error.clone())));
        assert!(matches!(update, ReaderUpdate::Failed(failed, why) if failed == key("a") && why == error));
    }

    #[tokio::test]
    async fn a_row_with_another_checkpoint_or_a_pending_epoch_is_not_what_is_being_read() {
        let mut readers = readers(9);
        assert!(!readers.reads_from(&lease("a", at(5))));
        readers.start(lease("a", at(5)));
        assert!(readers.reads_from(&lease("a", at(5))) && !readers.reads_from(&lease("a", at(6))));
        let manifest = ManifestName::new("_intents/1.json").unwrap();
        let pending = Some(Pending { through: at(9), manifest });
        assert!(!readers.reads_from(&Lease { pending, ..lease("a", at(5)) }));
    }

    #[tokio::test]
    async fn groups_are_filled_one_after_the_other_and_their_gaps_first() {
        let mut readers = readers(2);
        for shard in ["a", "b", "c", "d", "e"] {
            readers.start(lease(shard, at(5)));
        }
        let group = |readers: &Readers, shard: &str| readers.handles[&key(shard)].group;
        assert_eq!(["a", "b", "c", "d", "e"].map(|shard| group(&readers, shard)), [0, 0, 1, 1, 2]);
        readers.stop(&key("b"));
        readers.start(lease("f", at(5)));
        assert_eq!(group(&readers, "f"), 0);
    }

    #[tokio::test]
    async fn stopping_all_readers_ends_their_tasks_and_keeps_what_was_read() {
        let mut readers = readers(9);
        readers.start(lease("a", at(5)));
        readers.stop_all().await;
        assert!(readers.tasks.is_empty() && readers.has(&key("a")));
    }

    #[tokio::test]
    async fn a_shard_of_an_unknown_stream_is_not_read() {
        let mut readers = readers(9);
        let unknown = ShardKey::new(StreamName::new("unknown").unwrap(), ShardId::new("a").unwrap());
        readers.start(Lease::new(NewLease::new(unknown.clone(), at(5))));
        assert!(!readers.has(&unknown));
    }
}
