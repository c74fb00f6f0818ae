//! The coordinator: the one task that owns the open epoch.
//!
//! Owns: handing chunks to lanes and what comes of them to the epoch's books and objects, when an epoch is committed or
//! given up, and the order of the end. Does not own: which shards are read (`shards`), leases (`leases`), reading
//! (`reader`), encoding (`encode`), objects (`objects`), the end of an epoch (`committing`). Nothing is shared: others send it
//! messages, so every step of an epoch happens after the one before it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use checkpoints::{Position, ShardKey, StoreError};
use mutations::mutated;
use pipeline::encode::{EncodeError, Encoder};
use pipeline::lane::{Lane, Pushed};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::EpochId;
use crate::raw::Forward;
use crate::worker::epoch::encode::{Spilled, Unit, joined};
use crate::worker::epoch::ledger::EpochLedger;
use crate::worker::epoch::objects::{Objects, ObjectsConfig};
use crate::worker::leases::{LeaseCommand, LeaseEvent, LeaseManager, LeaseManagerState, Throughput};
use crate::worker::progress::Progress;
use crate::worker::reader::{Budget, ReaderEvent, ReaderEventKind, Session};
use crate::worker::{WorkerConfig, WorkerError};

/// Bytes of a chunk that a reader asks for.
const CHUNK_BYTES: usize = 2 << 20;

/// An epoch may have one object for so many bytes of the memory limit, and so many at least.
const OBJECT_SHARE: usize = 32 << 10;
const OBJECTS_MIN: usize = 1024;
/// And rows of one partition for so many: what it takes to make objects of them all at its end, where that is not yet begun.
const PARTITION_SHARE: usize = 4 << 10;

/// Runs a worker until it is stopped, or has caught up, or fails.
///
/// # Errors
/// See [`WorkerError`]; everything committed before stays, and nothing uncommitted is visible.
pub async fn run(config: WorkerConfig, progress: Arc<Progress>, stop: CancellationToken) -> Result<(), WorkerError> {
    config.stores.leases.register(&config.me).await?;
    let (keeper_sender, lease_events) = mpsc::unbounded_channel();
    let (lease_commands, commands) = mpsc::unbounded_channel();
    let throughput = Arc::new(Throughput::default());
    let keeper = LeaseManager {
        me: config.me.clone(),
        store: Arc::clone(&config.stores.leases_once),
        sources: config.sources.clone(),
        failover: config.failover,
        hand_off: config.hand_off,
        throughput: Arc::clone(&throughput),
        coordinator: keeper_sender,
        state: LeaseManagerState::default(),
    };
    let keeper = tokio::spawn(keeper.run(commands));
    let (reader_events, from_readers) = mpsc::channel(config.threads.max(2));
    let mut coordinator = Coordinator::new(config, progress, stop, lease_commands, reader_events, throughput);
    let result = coordinator.run(lease_events, from_readers).await;
    // The order of the end: readers, then the epoch (done by now), then the leases.
    coordinator.stop_readers();
    if result.is_err() {
        for group in 0..coordinator.groups.len() {
            if let Err(error) = coordinator.abort_open(group).await {
                tracing::debug!(%error, "while an epoch was given up");
            }
        }
    }
    let _ = coordinator.lease_commands.send(LeaseCommand::Stop);
    let _ = keeper.await;
    result
}

/// A reader's task and where it has got to.
pub(super) struct Reading {
    pub(super) session: Session,
    pub(super) group: usize,
    pub(super) task: JoinHandle<()>,
    /// Whether the checkpoint is another program's: until the first commit.
    pub(super) taken_over: bool,
    /// The lease's checkpoint.
    pub(super) committed: Position,
    /// Where the open epoch's range ends, or the checkpoint.
    pub(super) read: Position,
    pub(super) at_tip: bool,
    pub(super) ended: bool,
}

/// ReaderEventKind a lane's work gives back.
pub(super) struct Done {
    /// The group that the lane belongs to.
    group: usize,
    unit: Unit,
    /// ReaderEventKind became of a chunk, if one was pushed.
    pushed: Option<(ShardKey, Pushed)>,
    spilled: Result<Spilled, EncodeError>,
}

/// The open epoch.
pub(super) struct Epoch {
    pub(super) ledger: EpochLedger,
    pub(super) objects: Objects,
    /// Hashes of the partitions that its rows are of, also of those that are not yet in objects.
    partitions: HashSet<u64>,
    /// Raw records on their way to another service.
    pub(super) forward: Option<Forward>,
}

/// Shards that are committed together: as many as one decision may have. Each group has lanes and an epoch of its own.
#[derive(Default)]
pub(super) struct Group {
    pub(super) idle: Vec<Unit>,
    /// Lanes that are at work.
    busy: usize,
    pub(super) epoch: Option<Epoch>,
}

pub(super) struct Coordinator {
    pub(super) config: WorkerConfig,
    pub(super) progress: Arc<Progress>,
    stop: CancellationToken,
    pub(super) lease_commands: mpsc::UnboundedSender<LeaseCommand>,
    pub(super) reader_events: mpsc::Sender<ReaderEvent>,
    pub(super) budget: Budget,
    pub(super) chunk_bytes: usize,
    throughput: Arc<Throughput>,
    pub(super) groups: Vec<Group>,
    pub(super) busy: JoinSet<Done>,
    pub(super) readings: BTreeMap<ShardKey, Reading>,
    pub(super) sessions: u64,
    epochs: u64,
    pub(super) asked: BTreeSet<ShardKey>,
    /// Shards that are to be let go, since they can't be read on.
    pub(super) given_up: BTreeSet<ShardKey>,
    /// Shards that can't be read on, and why.
    pub(super) failed: BTreeMap<ShardKey, String>,
    /// Whether a look at all leases, taken after the last commit, has been asked for and not yet come.
    pub(super) looking: bool,
    /// When to look again, after a look that showed others at work; none once something of our own has changed.
    pub(super) look_again: Option<Instant>,
    pub(super) caught_up: bool,
}

impl Coordinator {
    fn new(
        config: WorkerConfig,
        progress: Arc<Progress>,
        stop: CancellationToken,
        lease_commands: mpsc::UnboundedSender<LeaseCommand>,
        reader_events: mpsc::Sender<ReaderEvent>,
        throughput: Arc<Throughput>,
    ) -> Self {
        // A sixteenth for chunks, three for rows, two each for open objects and parts on their way. The rest is for what is
        // not counted: what encoding and compressing need in between, lines that wait, the allocator's own.
        let input = config.memory / 16;
        Coordinator {
            budget: Budget::new(input),
            chunk_bytes: CHUNK_BYTES.min(input / (config.threads.max(1) + 1)).max(64 << 10),
            throughput,
            groups: Vec::new(),
            busy: JoinSet::new(),
            readings: BTreeMap::new(),
            sessions: 0,
            epochs: 0,
            asked: BTreeSet::new(),
            given_up: BTreeSet::new(),
            failed: BTreeMap::new(),
            looking: false,
            look_again: None,
            caught_up: false,
            config,
            progress,
            stop,
            lease_commands,
            reader_events,
        }
    }

    fn threads(&self) -> usize {
        self.config.threads.max(1)
    }

    /// The group that a further shard belongs to: the first one with room.
    pub(super) fn group_with_room(&mut self) -> Result<usize, WorkerError> {
        let most = self.config.stores.leases.decision_shards_max();
        let mut counts = vec![0; self.groups.len()];
        self.readings.values().for_each(|reading| counts[reading.group] += 1);
        if let Some(group) = counts.iter().position(|count| *count < most) {
            return Ok(group);
        }
        let idle = (0..self.threads()).map(|_| {
            let encoder = Encoder::new(&self.config.lanes.datasets, &self.config.encoder)?;
            Ok(Unit { lane: Lane::new(Arc::clone(&self.config.lanes)), encoder })
        });
        let idle = idle.collect::<Result<Vec<_>, WorkerError>>()?;
        self.groups.push(Group { idle, ..Group::default() });
        Ok(self.groups.len() - 1)
    }

    async fn run(
        &mut self,
        mut lease_events: mpsc::UnboundedReceiver<LeaseEvent>,
        mut from_readers: mpsc::Receiver<ReaderEvent>,
    ) -> Result<(), WorkerError> {
        let stopped = self.stop.clone().cancelled_owned();
        tokio::pin!(stopped);
        loop {
            let begun =
                self.groups.iter().filter_map(|group| group.epoch.as_ref()).map(|epoch| epoch.ledger.begun).min();
            let deadline = begun.map(|begun| begun + self.config.epoch_interval);
            let has_room = self.busy.len() < self.threads();
            tokio::select! {
                biased;
                () = &mut stopped => {
                    self.stop_readers();
                    self.commit_all().await?;
                    return self.verdict();
                }
                Some(done) = self.busy.join_next(), if !self.busy.is_empty() => self.take_back(joined(done)).await?,
                news = lease_events.recv() => match news {
                    Some(news) => self.hear(news).await?,
                    // Without it the leases run out, and nothing more could be committed.
                    None => return Err(StoreError::Unusable {
                        store: "the lease table".to_owned(),
                        problem: "the keeper of the leases has panicked, which is a fault of the program".to_owned(),
                    }.into()),
                },
                () = until(deadline), if deadline.is_some() => {}
                Some(event) = from_readers.recv(), if has_room => self.read(event).await?,
            }
            for group in 0..self.groups.len() {
                if self.groups[group].epoch.as_ref().is_some_and(|epoch| self.is_due(epoch)) {
                    self.commit(group).await?;
                }
            }
            if !self.asked.is_empty() || !self.given_up.is_empty() {
                self.hand_over().await?;
            }
            if self.config.until_caught_up {
                self.consider_end().await?;
            }
            if self.caught_up {
                self.stop_readers();
                return self.verdict();
            }
        }
    }

    /// Whether an epoch is to be committed: at its time, or before it, since an epoch that was not committed is read again,
    /// and each of its objects is kept in mind until then, as is, at its end, each that its rows become. One that can't be
    /// committed ends at once, too, and says why.
    fn is_due(&self, epoch: &Epoch) -> bool {
        let objects_max = (self.config.memory / OBJECT_SHARE).max(OBJECTS_MIN) / self.groups.len();
        epoch.ledger.begun.elapsed() >= self.config.epoch_interval
            || epoch.ledger.input_bytes >= self.config.epoch_input_bytes
            || epoch.objects.count() > objects_max
            || epoch.partitions.len() > self.config.memory / PARTITION_SHARE / self.groups.len()
            || epoch.objects.has_failed()
    }

    /// The run's result, once everything is committed.
    fn verdict(&self) -> Result<(), WorkerError> {
        // Whoever runs for ever has let them go, and others have them.
        if self.failed.is_empty() || !self.config.until_caught_up {
            return Ok(());
        }
        let problems = self.failed.values().cloned().collect();
        Err(WorkerError::Shards { problems })
    }

    // --- reading --------------------------------------------------------------------------------------------------------

    async fn read(&mut self, event: ReaderEvent) -> Result<(), WorkerError> {
        let ReaderEvent { session, key, what } = event;
        let Some(reading) =
            self.readings.get_mut(&key).filter(|reading| reading.session == session || mutated!(AcceptReplacedReaders))
        else {
            // Of a reader that was replaced: what it read is read again.
            return Ok(());
        };
        let was_at_tip = std::mem::replace(&mut reading.at_tip, matches!(what, ReaderEventKind::AtTip));
        if reading.at_tip && !was_at_tip {
            self.look_again = None;
        }
        match what {
            ReaderEventKind::AtTip => {}
            ReaderEventKind::Failed(error) => {
                tracing::error!(%key, %error, "the shard can't be read on");
                reading.ended = true;
                self.give_up(key, error.to_string());
            }
            ReaderEventKind::End { children } => {
                let from = std::mem::replace(&mut reading.read, Position::End);
                reading.ended = true;
                let (group, taken_over) = (reading.group, reading.taken_over);
                self.make_room(group, &key).await?;
                let ledger = &mut self.open_epoch(group).ledger;
                ledger.end(&key, &from, children);
                if taken_over {
                    ledger.take_over(&key);
                }
            }
            // A shard that is throttled, say, or empty up to a place further on: nothing moved.
            ReaderEventKind::Chunk { through, .. } if through == reading.read => {}
            ReaderEventKind::Chunk { chunk, through, source_bytes, permit } => {
                let from = std::mem::replace(&mut reading.read, through.clone());
                let (group, taken_over) = (reading.group, reading.taken_over);
                let source = self.config.sources.iter().position(|source| *source.stream() == key.stream).unwrap_or(0);
                let bytes = chunk.bytes().len() as u64;
                self.progress.bytes_read.fetch_add(source_bytes, Ordering::Relaxed);
                self.throughput.add(&key, bytes);
                self.make_room(group, &key).await?;
                let epoch = self.open_epoch(group);
                epoch.ledger.read(&key, &from, through, bytes);
                if taken_over {
                    epoch.ledger.take_over(&key);
                }
                if let Some(forward) = &mut epoch.forward {
                    forward.push(&chunk).await?;
                }
                // The chunk is in the books: without a lane it would be lost.
                let unit = self.groups[group].idle.pop();
                let mut unit = unit.expect("all groups together have fewer lanes at work than this one has lanes");
                let lane_bytes = self.config.memory * 3 / 16 / (self.threads() * self.groups.len());
                self.start(group, move || {
                    let pushed = Some((key, unit.lane.push(source, chunk)));
                    // From here on the chunk's memory is the lane's.
                    drop(permit);
                    let full = unit.lane.memory() > lane_bytes;
                    let spilled = if full {
                        let spill = unit.spill();
                        unit.encode_some(spill)
                    } else {
                        Ok((Vec::new(), None))
                    };
                    Done { group, unit, pushed, spilled }
                });
            }
        }
        Ok(())
    }

    /// Sees to it that the group's epoch can take a range of the shard: shards that were let go stay in it to its end.
    async fn make_room(&mut self, group: usize, key: &ShardKey) -> Result<(), WorkerError> {
        let most = self.config.stores.leases.decision_shards_max();
        match &self.groups[group].epoch {
            Some(epoch) if !epoch.ledger.has(key) && epoch.ledger.shards() >= most => self.commit(group).await,
            _ => Ok(()),
        }
    }

    /// Starts work of a lane.
    fn start(&mut self, group: usize, work: impl FnOnce() -> Done + Send + 'static) {
        self.groups[group].busy += 1;
        let compute = self.config.compute.clone();
        self.busy.spawn(async move { compute.run(work).await });
    }

    fn open_epoch(&mut self, group: usize) -> &mut Epoch {
        let config = &self.config;
        let share = config.memory / 8 / self.groups.len();
        self.groups[group].epoch.get_or_insert_with(|| {
            self.epochs += 1;
            let id = EpochId::new(config.clock.now_ms(), &config.me, self.epochs);
            let raw = config.lanes.raw.map(pipeline::line_objects::LineCodec::extension);
            let objects = ObjectsConfig {
                worker: config.me.clone(),
                file_bytes: config.file_bytes,
                open_max: config.open_objects,
                open_bytes_max: share,
                upload_bytes: share,
                raw_extension: raw.unwrap_or_default(),
                letters_extension: config.lanes.dead_letters.extension(),
            };
            let datasets = &config.lanes.datasets;
            Epoch {
                ledger: EpochLedger::new(id.clone(), &config.lanes.graph, datasets, raw.is_some()),
                objects: Objects::new(config.stores.clone(), objects, id, datasets),
                partitions: HashSet::new(),
                forward: config.raw_sink.clone().map(Forward::new),
            }
        })
    }

    /// A lane is done with its chunk, or with some of the rows that it gave up.
    async fn take_back(&mut self, done: Done) -> Result<(), WorkerError> {
        let Done { group, mut unit, pushed, spilled } = done;
        let Group { idle, busy, epoch } = &mut self.groups[group];
        *busy -= 1;
        let Some(epoch) = epoch else {
            // Lanes work only while an epoch is open; what was read for one that is gone must not enter the next.
            if !mutated!(KeepRowsOfAbortedEpoch) {
                unit.lane.forget();
            }
            idle.push(unit);
            return Ok(());
        };
        if let Some((key, mut pushed)) = pushed {
            self.budget.give_back(std::mem::take(&mut pushed.buffer));
            self.progress.records.fetch_add(pushed.records, Ordering::Relaxed);
            epoch.ledger.pushed(&key, &pushed);
            epoch.partitions.extend(&pushed.new_partitions);
            for member in pushed.members {
                epoch.objects.add_lines(member).await?;
            }
        }
        let (groups, rest) = spilled?;
        if !groups.is_empty() {
            epoch.objects.set_provenance(epoch.ledger.provenance());
        }
        for (slot, rows) in groups {
            epoch.objects.add_rows(&self.config.lanes.datasets, &unit.encoder, slot, rows).await?;
        }
        match rest {
            None => idle.push(unit),
            Some(spill) => self.start(group, move || {
                let spilled = unit.encode_some(spill);
                Done { group, unit, pushed: None, spilled }
            }),
        }
        Ok(())
    }

    /// Waits for a group's lanes.
    pub(super) async fn drain(&mut self, group: usize) -> Result<(), WorkerError> {
        while self.groups[group].busy > 0 {
            let Some(done) = self.busy.join_next().await else { break };
            self.take_back(joined(done)).await?;
        }
        Ok(())
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
