//! The coordinator: the one task that owns the open epoch.
//!
//! Owns: handing chunks to lanes and what comes of them to the epoch's books and objects, when an epoch is committed or
//! given up, and the order of the end. Does not own: which shards are read (`shards`), leases (`leases`), reading
//! (`reader`), encoding (`encode`), objects (`objects`), the protocol (`crate::commit`). Nothing is shared: others send it
//! messages, so every step of an epoch happens after the one before it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use checkpoints::{Position, ShardKey};
use pipeline::encode::{EncodeError, Encoder};
use pipeline::lane::{Lane, Pushed};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::{EpochId, Manifest, Outcome, Recovered, Staged, Undertaken, abort_uploads, recover};
use crate::worker::encode::{Spilled, Unit, encode_rest, joined};
use crate::worker::epoch::Books;
use crate::worker::leases::{FromKeeper, Keeper, KeeperState, ToKeeper};
use crate::worker::objects::{Objects, ObjectsConfig};
use crate::worker::progress::Progress;
use crate::worker::reader::{Budget, Session, Told, What};
use crate::worker::{WorkerConfig, WorkerError};

/// Bytes of a chunk that a reader asks for.
const CHUNK_BYTES: usize = 2 << 20;

/// An epoch may have one object for so many bytes of the memory limit, and so many at least.
const OBJECT_SHARE: usize = 32 << 10;
const OBJECTS_MIN: usize = 1024;

/// Runs a worker until it is stopped, or has caught up, or fails.
///
/// # Errors
/// See [`WorkerError`]; everything committed before stays, and nothing uncommitted is visible.
pub async fn run(config: WorkerConfig, progress: Arc<Progress>, stop: CancellationToken) -> Result<(), WorkerError> {
    config.stores.leases.register(&config.me).await?;
    let (keeper_sender, from_keeper) = mpsc::unbounded_channel();
    let (to_keeper, commands) = mpsc::unbounded_channel();
    let keeper = Keeper {
        me: config.me.clone(),
        store: Arc::clone(&config.stores.leases),
        sources: config.sources.clone(),
        failover: config.failover,
        hand_off: config.hand_off,
        coordinator: keeper_sender,
        state: KeeperState::default(),
    };
    let keeper = tokio::spawn(keeper.run(commands));
    let (told, from_readers) = mpsc::channel(config.threads.max(2));
    let mut coordinator = Coordinator::new(config, progress, stop, to_keeper, told)?;
    let result = coordinator.run(from_keeper, from_readers).await;
    // The order of the end: readers, then the epoch (done by now), then the leases.
    coordinator.stop_readers();
    if result.is_err() {
        coordinator.abort_open().await;
    }
    let _ = coordinator.to_keeper.send(ToKeeper::Stop);
    let _ = keeper.await;
    result
}

/// A reader's task and where it has got to.
pub(super) struct Reading {
    pub(super) session: Session,
    pub(super) task: JoinHandle<()>,
    /// The lease's checkpoint.
    pub(super) committed: Position,
    /// Where the open epoch's range ends, or the checkpoint.
    pub(super) read: Position,
    pub(super) at_tip: bool,
    pub(super) ended: bool,
}

/// What a lane's work gives back.
pub(super) struct Done {
    unit: Unit,
    /// What became of a chunk, if one was pushed.
    pushed: Option<(ShardKey, Pushed)>,
    spilled: Result<Spilled, EncodeError>,
}

/// The open epoch.
pub(super) struct Epoch {
    pub(super) books: Books,
    pub(super) objects: Objects,
}

pub(super) struct Coordinator {
    pub(super) config: WorkerConfig,
    pub(super) progress: Arc<Progress>,
    stop: CancellationToken,
    pub(super) to_keeper: mpsc::UnboundedSender<ToKeeper>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) budget: Budget,
    lane_bytes: usize,
    pub(super) chunk_bytes: usize,
    idle: Vec<Unit>,
    pub(super) busy: JoinSet<Done>,
    pub(super) readings: BTreeMap<ShardKey, Reading>,
    pub(super) sessions: u64,
    epochs: u64,
    pub(super) epoch: Option<Epoch>,
    pub(super) asked: HashSet<ShardKey>,
    /// Shards that can't be read on, and why.
    pub(super) failed: BTreeMap<ShardKey, String>,
    /// Whether a look at all leases, taken after the last commit, has been asked for and not yet come.
    pub(super) looking: bool,
    pub(super) caught_up: bool,
}

impl Coordinator {
    fn new(
        config: WorkerConfig,
        progress: Arc<Progress>,
        stop: CancellationToken,
        to_keeper: mpsc::UnboundedSender<ToKeeper>,
        told: mpsc::Sender<Told>,
    ) -> Result<Self, WorkerError> {
        let threads = config.threads.max(1);
        let idle = (0..threads)
            .map(|_| {
                let encoder = Encoder::new(&config.lanes.datasets, config.zstd_level)?;
                Ok(Unit { lane: Lane::new(Arc::clone(&config.lanes)), encoder })
            })
            .collect::<Result<Vec<_>, WorkerError>>()?;
        // A sixteenth for chunks, three for rows, two each for open objects and parts on their way. The rest is for what is
        // not counted: what encoding and compressing need in between, lines that wait, the allocator's own.
        let input = config.memory / 16;
        Ok(Coordinator {
            budget: Budget::new(input),
            chunk_bytes: CHUNK_BYTES.min(input / (threads + 1)).max(64 << 10),
            lane_bytes: config.memory * 3 / 16 / threads,
            idle,
            busy: JoinSet::new(),
            readings: BTreeMap::new(),
            sessions: 0,
            epochs: 0,
            epoch: None,
            asked: HashSet::new(),
            failed: BTreeMap::new(),
            looking: false,
            caught_up: false,
            config,
            progress,
            stop,
            to_keeper,
            told,
        })
    }

    async fn run(
        &mut self,
        mut from_keeper: mpsc::UnboundedReceiver<FromKeeper>,
        mut from_readers: mpsc::Receiver<Told>,
    ) -> Result<(), WorkerError> {
        let stopped = self.stop.clone().cancelled_owned();
        tokio::pin!(stopped);
        loop {
            let deadline = self.epoch.as_ref().map(|epoch| epoch.books.begun + self.config.epoch_interval);
            tokio::select! {
                biased;
                () = &mut stopped => {
                    self.stop_readers();
                    self.commit().await?;
                    return self.verdict();
                }
                Some(done) = self.busy.join_next(), if !self.busy.is_empty() => self.take_back(joined(done)).await?,
                Some(news) = from_keeper.recv() => self.hear(news).await?,
                () = until(deadline), if deadline.is_some() => self.commit().await?,
                Some(told) = from_readers.recv(), if !self.idle.is_empty() => self.read(told).await?,
            }
            if self.epoch.as_ref().is_some_and(|epoch| self.is_large(epoch)) {
                self.commit().await?;
            }
            if !self.asked.is_empty() {
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

    /// Whether an epoch is to be committed before its time: an epoch that was not committed is read again, and each of
    /// its objects is kept in mind until then.
    fn is_large(&self, epoch: &Epoch) -> bool {
        let objects_max = (self.config.memory / OBJECT_SHARE).max(OBJECTS_MIN);
        epoch.books.input_bytes >= self.config.epoch_input_bytes || epoch.objects.count() > objects_max
    }

    /// The run's result, once everything is committed.
    fn verdict(&self) -> Result<(), WorkerError> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let problems = self.failed.values().cloned().collect();
        Err(WorkerError::Shards { problems })
    }

    // --- reading --------------------------------------------------------------------------------------------------------

    async fn read(&mut self, told: Told) -> Result<(), WorkerError> {
        let Told { session, key, what } = told;
        let Some(reading) = self.readings.get_mut(&key).filter(|reading| reading.session == session) else {
            // Of a reader that was replaced: what it read is read again.
            return Ok(());
        };
        reading.at_tip = matches!(what, What::AtTip);
        match what {
            What::AtTip => {}
            What::Failed(error) => {
                tracing::error!(%key, %error, "the shard can't be read on");
                reading.ended = true;
                self.failed.insert(key, error.to_string());
            }
            What::End { children } => {
                let from = std::mem::replace(&mut reading.read, Position::End);
                reading.ended = true;
                self.open_epoch().books.end(&key, &from, children);
            }
            What::Chunk { chunk, through, source_bytes, permit } => {
                let from = std::mem::replace(&mut reading.read, through.clone());
                let source = self.config.sources.iter().position(|source| *source.stream() == key.stream).unwrap_or(0);
                let bytes = chunk.bytes().len() as u64;
                self.progress.bytes_read.fetch_add(source_bytes, Ordering::Relaxed);
                self.open_epoch().books.read(&key, &from, through, bytes);
                let Some(mut unit) = self.idle.pop() else { return Ok(()) };
                let lane_bytes = self.lane_bytes;
                self.start(move || {
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
                    Done { unit, pushed, spilled }
                });
            }
        }
        Ok(())
    }

    /// Starts work of a lane.
    fn start(&mut self, work: impl FnOnce() -> Done + Send + 'static) {
        let compute = self.config.compute.clone();
        self.busy.spawn(async move { compute.run(work).await });
    }

    fn open_epoch(&mut self) -> &mut Epoch {
        let config = &self.config;
        self.epoch.get_or_insert_with(|| {
            self.epochs += 1;
            let id = EpochId::new(config.clock.now_ms(), &config.me, self.epochs);
            let raw = config.lanes.raw.map(pipeline::lines::LineCodec::extension);
            let objects = ObjectsConfig {
                worker: config.me.clone(),
                file_bytes: config.file_bytes,
                open_max: config.open_objects,
                open_bytes_max: config.memory / 8,
                upload_bytes: config.memory / 8,
                raw_extension: raw.unwrap_or_default(),
                letters_extension: config.lanes.letters.extension(),
            };
            let datasets = &config.lanes.datasets;
            Epoch {
                books: Books::new(id.clone(), &config.lanes.graph, datasets, raw.is_some()),
                objects: Objects::new(config.stores.clone(), objects, id, datasets),
            }
        })
    }

    /// A lane is done with its chunk, or with some of the rows that it gave up.
    async fn take_back(&mut self, done: Done) -> Result<(), WorkerError> {
        let Done { mut unit, pushed, spilled } = done;
        let Some(epoch) = &mut self.epoch else {
            // Lanes work only while an epoch is open; what was read for one that is gone must not enter the next.
            unit.lane.forget();
            self.idle.push(unit);
            return Ok(());
        };
        if let Some((key, mut pushed)) = pushed {
            self.budget.give_back(std::mem::take(&mut pushed.buffer));
            self.progress.records.fetch_add(pushed.records, Ordering::Relaxed);
            epoch.books.pushed(&key, &pushed);
            for member in pushed.members {
                epoch.objects.add_lines(member).await?;
            }
        }
        let (groups, rest) = spilled?;
        if !groups.is_empty() {
            epoch.objects.set_provenance(epoch.books.provenance());
        }
        for (slot, group) in groups {
            epoch.objects.add_rows(&self.config.lanes.datasets, &unit.encoder, slot, group).await?;
        }
        match rest {
            None => self.idle.push(unit),
            Some(spill) => self.start(move || {
                let spilled = unit.encode_some(spill);
                Done { unit, pushed: None, spilled }
            }),
        }
        Ok(())
    }

    /// Waits for all lanes.
    async fn drain(&mut self) -> Result<(), WorkerError> {
        while let Some(done) = self.busy.join_next().await {
            self.take_back(joined(done)).await?;
        }
        Ok(())
    }

    // --- committing -----------------------------------------------------------------------------------------------------

    /// Commits the open epoch, if there is one.
    pub(super) async fn commit(&mut self) -> Result<(), WorkerError> {
        self.drain().await?;
        let Some(epoch) = self.epoch.take() else { return Ok(()) };
        let keys = epoch.books.keys();
        let manifest = self.stage(epoch).await?;
        if manifest.shards.is_empty() {
            return Ok(());
        }
        let stores = self.config.stores.clone();
        let described = match Staged::new(manifest).describe(&stores).await {
            Ok(described) => described,
            Err((manifest, error)) => {
                abort_uploads(&stores, manifest).await;
                return Err(error.into());
            }
        };
        match described.decide(&stores).await? {
            Outcome::Undertaken(undertaken) => self.finish(undertaken, keys).await,
            Outcome::Refused(manifest, refusals) => {
                let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                tracing::warn!(epoch = %manifest.epoch, reasons = reasons.join("; "), "the epoch was refused");
                self.progress.note(|committed| committed.aborted += 1);
                self.read_again(keys).await
            }
        }
    }

    /// Publishes and advances a decided epoch.
    async fn finish(&mut self, undertaken: Undertaken, keys: Vec<ShardKey>) -> Result<(), WorkerError> {
        let stores = self.config.stores.clone();
        let committed = match undertaken.publish(&stores).await? {
            Ok(published) => published.advance(&stores).await?.0,
            Err((undertaken, _)) => {
                // An upload of ours is gone: somebody rolled the epoch back, or it must be.
                let name = undertaken.into_manifest().epoch.manifest_name();
                match recover(&stores, &name).await? {
                    Recovered::Forward(committed) => committed.0,
                    Recovered::Back(_) => {
                        self.progress.note(|committed| committed.rolled_back += 1);
                        return self.read_again(keys).await;
                    }
                }
            }
        };
        tracing::info!(
            epoch = %committed.epoch,
            records = committed.totals.records,
            objects = committed.objects.len(),
            "committed"
        );
        self.progress.add_epoch(&committed);
        for shard in &committed.shards {
            let Some(reading) = self.readings.get_mut(&shard.key) else { continue };
            reading.committed = shard.range.through().clone();
            if reading.committed == Position::End {
                self.stop_reading(&shard.key);
                let _ = self.to_keeper.send(ToKeeper::LetGo(shard.key.clone()));
            }
        }
        Ok(())
    }

    /// Encodes all rows that the lanes hold, and closes every object: the manifest of the epoch.
    async fn stage(&mut self, epoch: Epoch) -> Result<Manifest, WorkerError> {
        let Epoch { books, mut objects } = epoch;
        objects.set_provenance(books.provenance());
        match encode_rest(&self.config, &mut self.idle, &mut objects, books.provenance()).await {
            Ok(()) => {}
            Err(error) => {
                objects.abort().await;
                return Err(error);
            }
        }
        let objects = objects.seal().await?;
        let config = &self.config;
        let (graph, datasets) = (&config.lanes.graph, &config.lanes.datasets);
        Ok(books.manifest(&config.me, config.clock.now_ms(), graph, datasets, objects))
    }

    /// The open epoch never happens.
    pub(super) async fn abort_open(&mut self) {
        while let Some(done) = self.busy.join_next().await {
            let Done { mut unit, pushed, .. } = joined(done);
            if let Some((_, pushed)) = pushed {
                self.budget.give_back(pushed.buffer);
            }
            unit.lane.forget();
            self.idle.push(unit);
        }
        for unit in &mut self.idle {
            unit.lane.forget();
        }
        if let Some(epoch) = self.epoch.take() {
            self.progress.note(|committed| committed.aborted += 1);
            epoch.objects.abort().await;
        }
    }

    /// Reads shards again from their checkpoints, as far as they are still ours.
    pub(super) async fn read_again(&mut self, keys: Vec<ShardKey>) -> Result<(), WorkerError> {
        for key in &keys {
            self.stop_reading(key);
        }
        for lease in self.config.stores.leases_of(keys).await? {
            if lease.holder.is(&self.config.me) {
                self.gained(lease).await?;
            }
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
