//! The coordinator: the one task that owns the open epoch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use checkpoints::{Lease, Position, ShardKey};
use pipeline::encode::{Encoder, Provenance, RowGroup, Rows};
use pipeline::lane::{Lane, Pushed};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::{EpochId, Manifest, Outcome, Recovered, Staged, Undertaken, abort_uploads, recover};
use crate::source::Behind;
use crate::worker::epoch::Books;
use crate::worker::leases::{FromKeeper, Keeper, KeeperState, ToKeeper};
use crate::worker::objects::{FinishedFile, Objects, ObjectsConfig, OpenUpload, Slot, finish_files};
use crate::worker::progress::Progress;
use crate::worker::reader::{Budget, ReaderTask, Session, Told, What};
use crate::worker::{WorkerConfig, WorkerError};

/// Bytes of a chunk that a reader asks for.
const CHUNK_BYTES: usize = 4 << 20;
/// Partitions, and rows, that one encoding job takes when an epoch ends.
const JOB_PARTITIONS: usize = 64;
const JOB_ROWS: u64 = 100_000;

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

/// One lane with its encoder.
struct Unit {
    lane: Lane,
    encoder: Encoder,
}

/// A reader's task and where it has got to.
struct Reading {
    session: Session,
    task: JoinHandle<()>,
    /// The lease's checkpoint.
    committed: Position,
    /// Where the open epoch's range ends, or the checkpoint.
    read: Position,
    at_tip: bool,
    ended: bool,
}

/// What a lane's work gives back.
struct Done {
    unit: Unit,
    key: ShardKey,
    pushed: Pushed,
    groups: Result<Vec<(Slot, RowGroup)>, pipeline::encode::EncodeError>,
}

/// The open epoch.
struct Epoch {
    books: Books,
    objects: Objects,
}

struct Coordinator {
    config: WorkerConfig,
    progress: Arc<Progress>,
    stop: CancellationToken,
    to_keeper: mpsc::UnboundedSender<ToKeeper>,
    told: mpsc::Sender<Told>,
    budget: Budget,
    lane_bytes: usize,
    chunk_bytes: usize,
    idle: Vec<Unit>,
    busy: JoinSet<Done>,
    readings: BTreeMap<ShardKey, Reading>,
    sessions: u64,
    epochs: u64,
    epoch: Option<Epoch>,
    asked: HashSet<ShardKey>,
    /// Shards that can't be read on, and why.
    failed: BTreeMap<ShardKey, String>,
    /// Whether a look at all leases, taken after the last commit, has been asked for and not yet come.
    looking: bool,
    caught_up: bool,
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
        // An eighth for chunks, a quarter for rows, an eighth each for open objects and parts on their way; what is left
        // is for what encoding needs in between.
        let input = config.memory / 8;
        Ok(Coordinator {
            budget: Budget::new(input),
            chunk_bytes: CHUNK_BYTES.min(input / (threads + 1)).max(64 << 10),
            lane_bytes: config.memory / 4 / threads,
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
            if self.epoch.as_ref().is_some_and(|epoch| epoch.books.input_bytes >= self.config.epoch_input_bytes) {
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

    /// The run's result, once everything is committed.
    fn verdict(&self) -> Result<(), WorkerError> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let problems = self.failed.values().cloned().collect();
        Err(WorkerError::Shards { problems })
    }

    // --- leases ---------------------------------------------------------------------------------------------------------

    async fn hear(&mut self, news: FromKeeper) -> Result<(), WorkerError> {
        match news {
            FromKeeper::Gained(lease) => self.gained(*lease).await,
            FromKeeper::Lost(key) => {
                tracing::warn!(%key, "the lease is lost");
                self.lost(key).await
            }
            FromKeeper::Asked(key) => {
                tracing::info!(%key, "another worker asks for the lease");
                self.asked.insert(key);
                Ok(())
            }
            FromKeeper::Snapshot(leases) => self.judge_end(&leases).await,
            FromKeeper::Failed(error) => Err(error.into()),
        }
    }

    /// A lease is ours: what is pending is finished first, then its shard is read.
    async fn gained(&mut self, mut lease: Lease) -> Result<(), WorkerError> {
        let key = lease.key.clone();
        while let Some(pending) = lease.pending.take() {
            tracing::info!(%key, manifest = %pending.manifest, "finishing an epoch that was left pending");
            match recover(&self.config.stores, &pending.manifest).await {
                Ok(Recovered::Forward(_)) => self.progress.note(|committed| committed.rolled_forward += 1),
                Ok(Recovered::Back(_)) => self.progress.note(|committed| committed.rolled_back += 1),
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%key, %error, "the shard can't be read on");
                    self.failed.insert(key.clone(), format!("{key}: {error}"));
                    return Ok(());
                }
            }
            match self.config.stores.leases_of(vec![key.clone()]).await?.pop() {
                Some(row) if row.holder.is(&self.config.me) => lease = row,
                _ => return Ok(()),
            }
        }
        if lease.checkpoint == Position::End {
            let _ = self.to_keeper.send(ToKeeper::LetGo(key));
            return Ok(());
        }
        self.start_reading(lease);
        Ok(())
    }

    fn start_reading(&mut self, lease: Lease) {
        let source = self.config.sources.iter().find(|source| *source.stream() == lease.key.stream).map(Arc::clone);
        let Some(source) = source else { return };
        self.stop_reading(&lease.key);
        self.sessions += 1;
        let session = Session(self.sessions);
        let task = ReaderTask {
            session,
            key: lease.key.clone(),
            source,
            after: lease.checkpoint.clone(),
            chunk_bytes: self.chunk_bytes,
            budget: self.budget.clone(),
            retry: self.config.stores.retry,
            coordinator: self.told.clone(),
        };
        let reading = Reading {
            session,
            task: tokio::spawn(task.run()),
            committed: lease.checkpoint.clone(),
            read: lease.checkpoint,
            at_tip: false,
            ended: false,
        };
        self.readings.insert(lease.key, reading);
    }

    fn stop_reading(&mut self, key: &ShardKey) {
        if let Some(reading) = self.readings.remove(key) {
            reading.task.abort();
        }
    }

    fn stop_readers(&mut self) {
        for reading in self.readings.values() {
            reading.task.abort();
        }
    }

    /// A lease is gone. If the open epoch has records of its shard, it can't be committed any more.
    async fn lost(&mut self, key: ShardKey) -> Result<(), WorkerError> {
        self.stop_reading(&key);
        self.asked.remove(&key);
        if self.epoch.as_ref().is_some_and(|epoch| epoch.books.has(&key)) {
            let keys = self.epoch.as_ref().map(|epoch| epoch.books.keys()).unwrap_or_default();
            self.abort_open().await;
            self.read_again(keys).await?;
        }
        Ok(())
    }

    /// Commits early, and hands over what was asked for.
    async fn hand_over(&mut self) -> Result<(), WorkerError> {
        let asked: Vec<ShardKey> = self.asked.drain().collect();
        for key in &asked {
            if let Some(reading) = self.readings.get(key) {
                reading.task.abort();
            }
        }
        if self.epoch.as_ref().is_some_and(|epoch| asked.iter().any(|key| epoch.books.has(key))) {
            self.commit().await?;
        }
        for key in asked {
            self.stop_reading(&key);
            let _ = self.to_keeper.send(ToKeeper::LetGo(key));
        }
        Ok(())
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
                let work = move || {
                    let pushed = unit.lane.push(source, chunk);
                    // From here on the chunk's memory is the lane's.
                    drop(permit);
                    let groups = if unit.lane.memory() > lane_bytes { unit.encode_all() } else { Ok(Vec::new()) };
                    Done { unit, key, pushed, groups }
                };
                let compute = self.config.compute;
                self.busy.spawn(async move { compute.run(work).await });
            }
        }
        Ok(())
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

    /// A lane is done with its chunk.
    async fn take_back(&mut self, done: Done) -> Result<(), WorkerError> {
        let Done { unit, key, mut pushed, groups } = done;
        self.budget.give_back(std::mem::take(&mut pushed.buffer));
        self.progress.records.fetch_add(pushed.records, Ordering::Relaxed);
        if let Some(epoch) = &mut self.epoch {
            epoch.books.pushed(&key, &pushed);
            for member in pushed.members {
                epoch.objects.add_lines(member).await?;
            }
            let groups = groups?;
            if !groups.is_empty() {
                epoch.objects.set_provenance(epoch.books.provenance());
            }
            for (slot, group) in groups {
                epoch.objects.add_rows(&self.config.lanes.datasets, &unit.encoder, slot, group).await?;
            }
        }
        self.idle.push(unit);
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
    async fn commit(&mut self) -> Result<(), WorkerError> {
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
        match self.encode_rest(&mut objects, books.provenance()).await {
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

    /// Encodes what the lanes hold, partition by partition, on all threads.
    async fn encode_rest(&mut self, objects: &mut Objects, provenance: Provenance) -> Result<(), WorkerError> {
        let lines: Vec<_> = self.idle.iter_mut().flat_map(|unit| unit.lane.take_lines()).collect();
        for member in lines {
            objects.add_lines(member).await?;
        }
        let all_rows: Vec<Rows> = self.idle.iter_mut().flat_map(|unit| unit.lane.take_rows()).collect();
        let all_rows = Arc::new(all_rows);
        let mut jobs = jobs(&all_rows).into_iter();
        let mut encoders: Vec<Encoder> = Vec::new();
        for _ in 0..self.idle.len() {
            encoders.push(Encoder::new(&self.config.lanes.datasets, self.config.zstd_level)?);
        }
        let mut running: JoinSet<Result<(Encoder, Vec<Encoded>), WorkerError>> = JoinSet::new();
        loop {
            while let Some(encoder) = encoders.pop() {
                let Some(partitions) = jobs.next() else { break };
                let mut job = Job {
                    lanes: Arc::clone(&self.config.lanes),
                    rows: Arc::clone(&all_rows),
                    file_bytes: self.config.file_bytes,
                    provenance: provenance.clone(),
                    encoder,
                    partitions: Vec::new(),
                };
                for (slot, places) in partitions {
                    let (file, upload) = objects.take_file(&slot).map(super::objects::TakenFile::into_parts).unzip();
                    job.partitions.push(JobPartition { slot, places, file, upload });
                }
                let compute = self.config.compute;
                running.spawn(async move { compute.run(move || job.run()).await });
            }
            let Some(done) = running.join_next().await else { return Ok(()) };
            let (encoder, encoded) = joined(done)?;
            encoders.push(encoder);
            for Encoded { slot, upload, files } in encoded {
                objects.add_finished(&slot, upload, files).await?;
            }
        }
    }

    /// The open epoch never happens.
    async fn abort_open(&mut self) {
        while let Some(done) = self.busy.join_next().await {
            let Done { mut unit, mut pushed, .. } = joined(done);
            self.budget.give_back(std::mem::take(&mut pushed.buffer));
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
    async fn read_again(&mut self, keys: Vec<ShardKey>) -> Result<(), WorkerError> {
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

    // --- the end --------------------------------------------------------------------------------------------------------

    /// When all own shards are at their tips, commits and asks for a look at everybody's.
    async fn consider_end(&mut self) -> Result<(), WorkerError> {
        let done = |reading: &Reading| reading.at_tip || reading.ended;
        if !self.busy.is_empty() || !self.readings.values().all(done) {
            return Ok(());
        }
        if self.epoch.is_some() {
            self.commit().await?;
        }
        if !self.looking {
            self.looking = true;
            let _ = self.to_keeper.send(ToKeeper::Look);
        }
        Ok(())
    }

    /// Whether every shard of every source is read and committed.
    async fn judge_end(&mut self, leases: &[Lease]) -> Result<(), WorkerError> {
        let looking = std::mem::replace(&mut self.looking, false);
        let idle = self.busy.is_empty() && self.epoch.is_none();
        if !self.config.until_caught_up || !looking || !idle {
            return Ok(());
        }
        let checkpoints: HashMap<ShardKey, Position> = leases
            .iter()
            .filter(|lease| lease.pending.is_none())
            .map(|lease| (lease.key.clone(), lease.checkpoint.clone()))
            .collect();
        for source in self.config.sources.clone() {
            let shards = match source.shards().await {
                Ok(shards) => shards,
                Err(error) => {
                    tracing::warn!(%error, "the shards can't be listed");
                    return Ok(());
                }
            };
            for shard in shards {
                let key = ShardKey::new(source.stream().clone(), shard.id.clone());
                if self.failed.contains_key(&key) {
                    continue;
                }
                let Some(checkpoint) = checkpoints.get(&key) else { return Ok(()) };
                let own =
                    self.readings.get(&key).is_some_and(|reading| reading.at_tip && reading.committed == reading.read);
                if own {
                    continue;
                }
                match source.behind(&shard.id, checkpoint).await {
                    Ok(Behind::Nothing) => {}
                    Ok(Behind::Bytes(_)) => return Ok(()),
                    Err(error) => {
                        tracing::error!(%key, %error, "the shard can't be read on");
                        self.failed.insert(key, error.to_string());
                    }
                }
            }
        }
        self.caught_up = true;
        Ok(())
    }
}

impl Unit {
    /// Encodes all rows of the lane, one row group a partition.
    fn encode_all(&mut self) -> Result<Vec<(Slot, RowGroup)>, pipeline::encode::EncodeError> {
        let mut groups = Vec::new();
        for rows in self.lane.take_rows() {
            for (place, partition) in rows.partitions().iter().enumerate() {
                let slot = Slot::Rows { dataset: rows.dataset(), path: Arc::clone(&partition.path) };
                groups.push((slot, self.encoder.row_group(&rows, place)?));
            }
        }
        Ok(groups)
    }
}

/// A partition's rows: place in the list of all rows, place of the partition in those.
type Places = Vec<(usize, usize)>;

/// Cuts the partitions of all rows into jobs.
fn jobs(all_rows: &[Rows]) -> Vec<Vec<(Slot, Places)>> {
    let mut by_slot: BTreeMap<Slot, (u64, Places)> = BTreeMap::new();
    for (place, rows) in all_rows.iter().enumerate() {
        for (number, partition) in rows.partitions().iter().enumerate() {
            let slot = Slot::Rows { dataset: rows.dataset(), path: Arc::clone(&partition.path) };
            let (count, places) = by_slot.entry(slot).or_default();
            *count += partition.rows;
            places.push((place, number));
        }
    }
    let mut jobs: Vec<Vec<(Slot, Places)>> = Vec::new();
    let mut rows = u64::MAX;
    for (slot, (count, places)) in by_slot {
        match jobs.last_mut() {
            Some(job) if job.len() < JOB_PARTITIONS && rows.saturating_add(count) <= JOB_ROWS => {
                job.push((slot, places));
                rows += count;
            }
            _ => {
                jobs.push(vec![(slot, places)]);
                rows = count;
            }
        }
    }
    jobs
}

/// Partitions to be encoded and finished in one go.
struct Job {
    lanes: Arc<pipeline::lane::LaneConfig>,
    rows: Arc<Vec<Rows>>,
    file_bytes: u64,
    provenance: Provenance,
    encoder: Encoder,
    partitions: Vec<JobPartition>,
}

struct JobPartition {
    slot: Slot,
    places: Places,
    file: Option<pipeline::encode::ParquetFile>,
    upload: Option<OpenUpload>,
}

/// The finished files of a partition.
struct Encoded {
    slot: Slot,
    upload: Option<OpenUpload>,
    files: Vec<FinishedFile>,
}

impl Job {
    fn run(mut self) -> Result<(Encoder, Vec<Encoded>), WorkerError> {
        let mut encoded = Vec::with_capacity(self.partitions.len());
        for JobPartition { slot, places, file, upload } in std::mem::take(&mut self.partitions) {
            let Slot::Rows { dataset, .. } = slot else { continue };
            let groups = places
                .iter()
                .map(|(place, partition)| self.encoder.row_group(&self.rows[*place], *partition))
                .collect::<Result<Vec<_>, _>>()?;
            let datasets = &self.lanes.datasets;
            let files =
                finish_files(datasets, &self.encoder, dataset, file, groups, self.file_bytes, &self.provenance)?;
            encoded.push(Encoded { slot, upload, files });
        }
        Ok((self.encoder, encoded))
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The result of a joined task; one that panicked goes on panicking here.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a lane's task was cancelled: {error}"),
        },
    }
}
