//! The coordinator: one task that decides what happens next, one event at a time.
//!
//! Owns: the order in which events are handled, what each means for the other parts, and the order of shutdown. Does not own
//! the state of a part: the shards and their readers (`shards`), the lanes (`lanes`), the open epochs (`epoch`), whether the
//! run has caught up (`catch_up`), the leases (`leases`). It is the only one that knows all of them.
//!
//! Nothing is shared. The parts' tasks send messages to this one, so every step of an epoch follows the step before it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use checkpoints::{Lease, ShardKey, StoreError, StreamName};
use futures::future::select_all;
use mutations::mutated;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::commit::lake_log::Snapshots;
use crate::commit::log::RollUps;
use crate::config::WorkerSettings;
use crate::retry::{Retry, RetryPolicy};
use crate::source::{ShardSource, SourceError};
use crate::worker::catch_up::CatchUp;
use crate::worker::epoch::commit::{EpochEnd, commit_epoch, span_of};
use crate::worker::epoch::encode::Encoding;
use crate::worker::epoch::open::{EpochSettings, OpenEpochs};
use crate::worker::lanes::Lanes;
use crate::worker::leases::{LeaseCommand, LeaseEvent, LeaseManager, LeaseManagerSettings, Throughput};
use crate::worker::memory_plan::{ByteBudget, MemoryPlan};
use crate::worker::progress::{CommitStep, Progress};
use crate::worker::reader::{BufferPool, ReaderEvent};
use crate::worker::readers::{ReadRange, ReadWhat, ReaderSettings, ReaderUpdate};
use crate::worker::shards::Shards;
use crate::worker::stop::StopLimit;
use crate::worker::{WorkerConfig, WorkerError};

/// How often the loop turns at least, unless it waits for a commit.
const PULSE_EVERY: Duration = Duration::from_secs(10);

/// Runs a worker until it is stopped, has caught up, or fails.
///
/// # Errors
/// See [`WorkerError`]. Everything that was committed before stays, and nothing uncommitted is visible.
pub async fn run(config: WorkerConfig, progress: Arc<Progress>, stop: CancellationToken) -> Result<(), WorkerError> {
    let mut limit = StopLimit::new(&stop, config.settings.stop.within);
    if let Some(registered) = limit.commit(config.stores.leases.register(&config.me)).await {
        registered?;
    } else {
        return Err(WorkerError::StopTimedOut { within: limit.within(), shards: 0 });
    }
    let (lease_event_sender, lease_events) = mpsc::unbounded_channel();
    let (lease_commands, commands) = mpsc::unbounded_channel();
    let throughput = Arc::new(Throughput::default());
    let manager = LeaseManager::new(LeaseManagerSettings {
        me: config.me.clone(),
        store: Arc::clone(&config.stores.leases_once),
        sources: config.sources.clone(),
        failover: config.settings.leases.failover,
        hand_off: config.settings.leases.hand_off,
        failing_max: config.settings.retry.within,
        throughput: Arc::clone(&throughput),
        progress: Arc::clone(&progress),
        coordinator: lease_event_sender,
    });
    let mut manager = tokio::spawn(manager.run(commands));
    let (reader_event_sender, reader_events) = mpsc::channel(config.settings.limits.threads.max(2));
    let mut coordinator = Coordinator::new(config, progress, lease_commands.clone(), reader_event_sender, throughput);
    let ran = limit.commit(coordinator.run(stop, lease_events, reader_events)).await;
    let result = ran.unwrap_or_else(|| {
        let (within, shards) = (limit.within(), coordinator.shards.uncommitted());
        Err(WorkerError::StopTimedOut { within, shards })
    });
    // Whatever ended the run: a service that does not respond must not keep the leases from the others.
    limit.start();
    // The order of shutdown: readers and recoveries, then open epochs (after success there are none), then the leases. Once the
    // time for commits is over, epochs are left as they are.
    if limit.commit(coordinator.shut_down()).await.is_none() {
        tracing::warn!("open epochs were not abandoned in time; their uploads are left to a sweep");
    }
    let _ = lease_commands.send(LeaseCommand::Stop);
    if limit.release(&mut manager).await.is_none() {
        manager.abort();
        tracing::warn!("leases were not released in time; other workers take them after the failover time");
    }
    result
}

struct Coordinator {
    config: WorkerConfig,
    progress: Arc<Progress>,
    lease_commands: mpsc::UnboundedSender<LeaseCommand>,
    throughput: Arc<Throughput>,
    shards: Shards,
    lanes: Lanes,
    epochs: OpenEpochs,
    catch_up: CatchUp,
    roll_ups: RollUps,
    snapshots: Snapshots,
}

impl Coordinator {
    fn new(
        config: WorkerConfig,
        progress: Arc<Progress>,
        lease_commands: mpsc::UnboundedSender<LeaseCommand>,
        reader_events: mpsc::Sender<ReaderEvent>,
        throughput: Arc<Throughput>,
    ) -> Self {
        let (me, stores) = (config.me.clone(), config.stores.clone());
        let WorkerSettings { output, commit, limits, .. } = &config.settings;
        let memory = MemoryPlan::new(usize::try_from(limits.memory).unwrap_or(usize::MAX), limits.threads);
        let buffers = BufferPool::default();
        let budget = ByteBudget::new(memory.input_bytes());
        progress.begin(&config.lanes.graph, budget.clone());
        let readers = ReaderSettings {
            sources: config.sources.clone(),
            chunk_bytes: memory.chunk_bytes(),
            budget: budget.clone(),
            buffers: buffers.clone(),
            coordinator: reader_events,
            clock: config.clock.clone(),
            progress: Arc::clone(&progress),
            group_shards_max: stores.leases.decision_shards_max(),
        };
        let encoding = Encoding {
            lanes: Arc::clone(&config.lanes),
            compute: config.compute.clone(),
            encoder: config.encoder.clone(),
            file_bytes: output.file_bytes,
        };
        let epochs = EpochSettings {
            me: me.clone(),
            stores: stores.clone(),
            clock: config.clock.clone(),
            encoding: encoding.clone(),
            memory,
            raw_sink: config.raw_sink.clone(),
            raw_retry: Retry::new(RetryPolicy::within(config.settings.retry.within), "the raw landing"),
            open_objects: limits.open_objects,
            interval: commit.interval,
            input_bytes: commit.input_bytes,
        };
        Coordinator {
            shards: Shards::new(me, stores, lease_commands.clone(), Arc::clone(&progress), readers),
            lanes: Lanes::new(encoding, limits.threads, memory, buffers, Arc::clone(&progress)),
            epochs: OpenEpochs::new(epochs),
            catch_up: CatchUp::new(config.until_caught_up),
            roll_ups: RollUps::new(config.stores.clone(), &config.me, config.roll_ups),
            snapshots: Snapshots::new(config.stores.clone(), &config.me, config.snapshot_every),
            config,
            progress,
            lease_commands,
            throughput,
        }
    }

    /// Ends all readers and recoveries, and abandons the open epochs.
    async fn shut_down(&mut self) {
        self.shards.shut_down().await;
        for group in self.epochs.groups() {
            if let Err(error) = self.abandon_epoch(group).await {
                tracing::debug!(%error, "failed to abandon an open epoch; its uploads are left to a sweep");
            }
        }
    }

    /// The loop. It takes a request to stop, or a stream that was replaced. Then, in this order: finished work of the lanes, finished recoveries, lease events, the
    /// time of an epoch, and only then new chunks, and those only while a lane is free. So work that was begun is finished
    /// before more is taken on, and readers wait.
    async fn run(
        &mut self,
        stop: CancellationToken,
        mut lease_events: mpsc::UnboundedReceiver<LeaseEvent>,
        mut reader_events: mpsc::Receiver<ReaderEvent>,
    ) -> Result<(), WorkerError> {
        let stopped = stop.cancelled_owned();
        tokio::pin!(stopped);
        let replaced = any_replaced(self.config.sources.clone());
        tokio::pin!(replaced);
        // So that the loop turns although nothing happens.
        let mut pulse = tokio::time::interval(PULSE_EVERY);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.progress.pulse.loop_turned();
            let deadline = self.epochs.deadline();
            let has_room = self.lanes.has_room();
            tokio::select! {
                biased;
                () = &mut stopped => {
                    self.shards.stop_readers().await;
                    self.commit_all().await?;
                    return self.verdict();
                }
                error = &mut replaced => {
                    // What was read of this stream before, and of the other streams, is committed. A restart would be refused, so
                    // the run ends for all of them.
                    self.shards.stop_readers().await;
                    self.commit_all().await?;
                    return Err(error.into());
                }
                Some(done) = self.lanes.next() => self.lanes.on_lane_done(done, &mut self.epochs).await?,
                Some(recovery) = self.shards.next_recovery() => {
                    self.catch_up.on_change();
                    self.shards.on_recovered(recovery).await?;
                }
                event = lease_events.recv() => match event {
                    Some(event) => self.on_lease_event(event).await?,
                    // Without the lease manager the leases expire, and nothing more could be committed.
                    None => return Err(StoreError::Unusable {
                        store: "the lease table".to_owned(),
                        problem: "the lease manager panicked, which is a bug".to_owned(),
                    }.into()),
                },
                () = until(deadline), if deadline.is_some() => {}
                _ = pulse.tick() => continue,
                Some(event) = reader_events.recv(), if has_room => self.on_reader_event(event).await?,
            }
            for group in self.epochs.due(self.lanes.groups()) {
                self.commit(group).await?;
            }
            self.release_shards().await?;
            self.consider_end().await?;
            if self.catch_up.is_caught_up() {
                for work in &mut self.config.after_commit {
                    work.finish().await;
                }
                return self.verdict();
            }
        }
    }

    /// The result of the run, once everything is committed.
    fn verdict(&self) -> Result<(), WorkerError> {
        let problems = self.shards.problems();
        // A worker that runs for ever has released the shards that failed, and other workers have them.
        if problems.is_empty() || !self.catch_up.is_enabled() { Ok(()) } else { Err(WorkerError::Shards { problems }) }
    }

    // --- reading --------------------------------------------------------------------------------------------------------

    async fn on_reader_event(&mut self, event: ReaderEvent) -> Result<(), WorkerError> {
        match self.shards.on_reader_event(event) {
            ReaderUpdate::Nothing | ReaderUpdate::Failed(..) => Ok(()),
            ReaderUpdate::ReachedTip => {
                self.catch_up.on_change();
                Ok(())
            }
            ReaderUpdate::Read(range) => self.on_read(range).await,
        }
    }

    async fn on_read(&mut self, range: ReadRange) -> Result<(), WorkerError> {
        let shards_max = self.config.stores.leases.decision_shards_max();
        if self.epochs.is_full_for(range.group, &range.key, shards_max) {
            self.commit(range.group).await?;
        }
        self.lanes.ensure_group(range.group)?;
        let epoch = self.epochs.get_or_open(range.group, self.lanes.groups());
        epoch.add_range(&range).await?;
        if let ReadWhat::Chunk(chunk) = range.what {
            let now_ms = self.config.clock.now_ms();
            self.progress.live.on_read(&range.key, range.group, epoch.id(), &chunk.chunk, now_ms);
            self.progress.bytes_read.fetch_add(chunk.source_bytes, Ordering::Relaxed);
            self.throughput.add(&range.key, chunk.chunk.bytes().len() as u64);
            self.lanes.push(range.group, range.key, range.source, chunk);
        }
        Ok(())
    }

    // --- leases ---------------------------------------------------------------------------------------------------------

    async fn on_lease_event(&mut self, event: LeaseEvent) -> Result<(), WorkerError> {
        match event {
            LeaseEvent::Gained(lease) => {
                self.catch_up.on_change();
                self.on_gained(*lease).await
            }
            LeaseEvent::Lost(key) => {
                tracing::warn!(stream = %key.stream, shard = %key.shard, "lost the lease");
                self.catch_up.on_change();
                self.on_lost(&key).await
            }
            LeaseEvent::Requested(key) => {
                tracing::info!(stream = %key.stream, shard = %key.shard, "another worker asks for the lease");
                self.shards.request(key);
                Ok(())
            }
            LeaseEvent::Snapshot(leases) => {
                let is_quiet = self.lanes.are_idle() && !self.shards.is_recovering() && self.epochs.is_empty();
                self.catch_up.judge(&leases, &self.config.sources, &mut self.shards, is_quiet).await;
                Ok(())
            }
            LeaseEvent::Failed(error) => Err(error.into()),
        }
    }

    /// Lease events can arrive late: a `Gained` event may be for a lease that was released, or lost and gained again, in the
    /// meantime. And a shard may be read already: its row names this worker as soon as the lease is taken, which may be before
    /// the event arrives.
    async fn on_gained(&mut self, lease: Lease) -> Result<(), WorkerError> {
        if self.shards.reads_from(&lease) {
            return Ok(());
        }
        if self.epochs.group_with(&lease.key).is_some() {
            // The epoch's records of the shard end elsewhere. So this is a loss first, which reads the shard again by its row.
            return self.on_lost(&lease.key).await;
        }
        self.shards.stop(&lease.key);
        self.shards.on_gained(lease);
        Ok(())
    }

    /// If the open epoch has records of a shard whose lease is lost, it can't be committed any more.
    async fn on_lost(&mut self, key: &ShardKey) -> Result<(), WorkerError> {
        let Some(group) = self.epochs.group_with(key) else {
            self.shards.on_lost(key);
            return Ok(());
        };
        self.shards.stop(key);
        let keys = self.abandon_epoch(group).await?;
        self.shards.read_again(keys).await
    }

    /// Releases the shards that others asked for, and those that cannot be read. Epochs that have records of them are committed
    /// first.
    async fn release_shards(&mut self) -> Result<(), WorkerError> {
        let releases = self.shards.take_releases();
        for key in releases.keys() {
            if let Some(group) = self.epochs.group_with(key) {
                self.commit(group).await?;
            }
        }
        releases.into_iter().for_each(|(key, release)| self.shards.release(key, release));
        Ok(())
    }

    // --- the end of an epoch --------------------------------------------------------------------------------------------

    async fn commit_all(&mut self) -> Result<(), WorkerError> {
        for group in self.epochs.groups() {
            self.commit(group).await?;
        }
        Ok(())
    }

    /// Commits a group's open epoch, if it has one.
    async fn commit(&mut self, group: usize) -> Result<(), WorkerError> {
        self.lanes.drain(group, &mut self.epochs).await?;
        if !self.confirm_streams(group).await? {
            let keys = self.abandon_epoch(group).await?;
            return self.shards.read_again(keys).await;
        }
        let Some(mut epoch) = self.epochs.take(group) else { return Ok(()) };
        epoch.at_tip(self.shards.tips(group));
        let keys = epoch.keys();
        let staging = Instant::now();
        let span = epoch.span().clone();
        let staged = span.in_scope(|| span_of(CommitStep::Stage));
        let manifest = self.epochs.stage(epoch, self.lanes.idle(group)).instrument(staged).await?;
        self.progress.on_commit_step(CommitStep::Stage, staging.elapsed());
        let definitions = self.config.definitions.as_ref().map(|claims| (claims, &self.config.lanes.datasets));
        let committing = commit_epoch(&self.config.stores, definitions, manifest, &self.progress);
        let end = committing.instrument(span).await?;
        self.progress.live.on_epoch_ended(group);
        if !matches!(end, EpochEnd::Empty) {
            self.catch_up.on_change();
        }
        let committed = match end {
            EpochEnd::Empty => return Ok(()),
            EpochEnd::Committed(manifest) => manifest,
            EpochEnd::Refused => {
                self.progress.note(|committed| committed.aborted += 1);
                return if mutated!(ReadOnAfterRefusal) { Ok(()) } else { self.shards.read_again(keys).await };
            }
            EpochEnd::Unpublished(name) => {
                self.shards.on_unpublished(&name, keys);
                return Ok(());
            }
        };
        self.progress.add_epoch(&committed);
        self.roll_ups.maybe_roll_up();
        self.snapshots.maybe_write();
        for work in &mut self.config.after_commit {
            work.after_commit(&committed.epoch).await;
        }
        self.shards.on_committed(&committed, self.config.clock.now_ms());
        Ok(())
    }

    /// Whether all records of a group's open epoch are of the streams that were opened. Everything in it was read before this call.
    /// If not, the run ends next.
    async fn confirm_streams(&self, group: usize) -> Result<bool, WorkerError> {
        let streams: BTreeSet<StreamName> = self.epochs.keys(group).into_iter().map(|key| key.stream).collect();
        for source in self.config.sources.iter().filter(|source| streams.contains(source.stream())) {
            match source.may_commit().await {
                Ok(()) => {}
                Err(error @ SourceError::Unreadable { .. }) => {
                    tracing::error!(%error, "abandoning what was read since the last commit: some of it is of another stream");
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// A group's open epoch never happens. Returns the shards that it had records of.
    async fn abandon_epoch(&mut self, group: usize) -> Result<Vec<ShardKey>, WorkerError> {
        let epoch = self.epochs.take(group);
        // The lanes of this group find no epoch, and forget what they have. Those of other groups continue with theirs.
        let drained = self.lanes.drain(group, &mut self.epochs).await;
        self.lanes.forget_rows(group);
        let mut keys = Vec::new();
        if let Some(epoch) = epoch {
            keys = epoch.keys();
            self.progress.live.on_epoch_ended(group);
            self.progress.note(|committed| committed.aborted += 1);
            epoch.abandon().await;
        }
        drained.map(|()| keys)
    }

    // --- the end of the run ---------------------------------------------------------------------------------------------

    /// If the run ends when it has caught up, and this worker has nothing more to do for now: commits everything, and requests
    /// a scan of all leases.
    async fn consider_end(&mut self) -> Result<(), WorkerError> {
        if !self.catch_up.is_enabled() || !self.has_nothing_to_do() {
            return Ok(());
        }
        self.commit_all().await?;
        if mutated!(CaughtUpByItself) {
            self.catch_up.assume_caught_up();
        } else if self.has_nothing_to_do() && self.catch_up.request_scan() {
            let _ = self.lease_commands.send(LeaseCommand::Scan);
        }
        Ok(())
    }

    /// Whether no lane works, no shard is being recovered, and none has anything more to read for now.
    fn has_nothing_to_do(&self) -> bool {
        self.lanes.are_idle() && !self.shards.is_recovering() && self.shards.are_all_at_tip()
    }
}

/// Waits until one of the streams is found to be another one than was opened.
async fn any_replaced(sources: Vec<Arc<dyn ShardSource>>) -> SourceError {
    let waits = sources.iter().map(|source| source.replaced());
    if sources.is_empty() { std::future::pending().await } else { select_all(waits).await.0 }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
