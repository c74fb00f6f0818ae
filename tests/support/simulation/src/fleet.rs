//! A run of a fleet, from its first worker to its end.
//!
//! Owns: what happens, and in which order. Everything is drawn from the seed: which workers start and stop, what is put, which
//! faults there are and at which rate. Then the faults stop, and everything must be visible in bounded time. In some runs rows of the lease
//! table are lost before that, or a stream is replaced, which ends the run. Does not own: what
//! a violation is while the fleet runs (`auditor`), what happens to single requests (`network`).

pub mod calm;
mod operations;
mod outages;
mod past;
mod redrives;
mod saves;
mod workers;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{Position, ShardKey};
use shardlake::commit::lake_log::{extent, write_snapshot};
use shardlake::commit::lost_rows;
use shardlake::maintenance::{rebuild, trim};
use tokio::time::Instant;

use self::operations::Operations;
use self::saves::Saves;
use self::workers::Running;
pub(crate) use self::workers::lanes;
use crate::auditor::Auditor;
use crate::cloud::Cloud;
use crate::environment::{Environment, InMemory, Row, is_internal, steal};
use crate::faults::{FaultKind, Tally};
use crate::network::{Network, Rates, Service, Shared};
use crate::records::Draft;
use crate::rng::Rng;
use crate::trace::Trace;

/// When the leases of a worker that shows no sign of life may be taken.
const FAILOVER: Duration = Duration::from_secs(5);
/// The time within which everything must be visible once the faults have stopped.
const BOUND: Duration = Duration::from_secs(900);
/// The age after which a sweep removes things. It is longer than a request can live, and than clocks can differ.
const SWEEP_AGE: Duration = Duration::from_secs(600);
/// Most milliseconds by which a clock is wrong.
const SKEW_MS: i64 = 120_000;
/// The worker number of sweeps and audits.
const OPERATOR: u32 = 999;

/// What happened in a run.
#[derive(Debug)]
pub struct Summary {
    /// The number of records that were put.
    pub records: u64,
    /// The number of those that were trimmed before anybody read them.
    pub trimmed: u64,
    /// The number of committed epochs.
    pub epochs: u64,
    /// The number of pending epochs that another worker rolled forward.
    pub rolled_forward: u64,
    /// The number of epochs that were rolled back after their decision.
    pub rolled_back: u64,
    /// The number of epochs that were abandoned before their decision.
    pub aborted: u64,
    /// The number of workers that were started.
    pub workers: u32,
    /// How long the run took by its own clock.
    pub virtual_ms: u64,
    /// The number of requests.
    pub requests: u64,
    /// Equal for two runs with the same events at the same times.
    pub digest: u64,
    /// Which faults occurred.
    pub tally: Arc<Tally>,
}

/// The trace of a run, for when it has failed.
#[derive(Debug, Clone, Default)]
pub struct LastTrace(Arc<Mutex<Option<Arc<Shared>>>>);

impl LastTrace {
    /// Its last lines.
    pub fn lines(&self) -> Vec<String> {
        let shared = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(shared) = shared else { return Vec::new() };
        let trace = shared.trace.lock().unwrap_or_else(PoisonError::into_inner);
        trace.last().map(str::to_owned).collect()
    }
}

struct Fleet {
    begun: Instant,
    rng: Rng,
    /// Draws when leases return, in fleets in which they do.
    returns: Option<Rng>,
    /// Draws the outages at the end, in fleets that have them.
    outages: Option<Rng>,
    environment: Arc<dyn Environment>,
    /// Whether the environment is one of models of AWS.
    in_cloud: bool,
    /// How long workers wait for a service.
    retry_within: Duration,
    auditor: Arc<Auditor>,
    shared: Arc<Shared>,
    raw: bool,
    rates: Rates,
    /// Whether some clocks are wrong.
    skewed: bool,
    /// Kinds of records, and so partitions for each day.
    kinds: u64,
    /// Records that were put: their numbers.
    put: u64,
    /// Workers that were started: their numbers.
    started: u32,
    workers: Vec<Running>,
    /// Whether a service has refused a worker anything.
    refused: bool,
    /// Draws what happens to rows and streams as a whole, so that it does not change what else a seed does.
    losses: Rng,
    /// Whether a stream was replaced by another one.
    is_replaced: bool,
    /// How often workers commit. None: each draws its own interval.
    interval: Option<Duration>,
    /// Draws when the lake log is trimmed, in fleets in which it is.
    trims: Option<Rng>,
    /// Operations on the lake, in fleets that have them.
    operations: Option<Operations>,
    /// Named checkpoints, in fleets that have them.
    saves: Option<Saves>,
    /// Who saves checkpoints beside the workers.
    savers: Vec<Arc<Network>>,
}

/// Runs a fleet from a seed.
///
/// # Errors
/// The rule that was violated.
pub async fn run(seed: u64, last: &LastTrace) -> Result<Summary, String> {
    let mut fleet = Fleet::new(seed, last).await;
    fleet.open_with_a_clock_ahead().await?;
    fleet.disturbed().await?;
    match fleet.losses.below(10) {
        0..=2 => fleet.lose_rows().await?,
        3..=5 if fleet.replace_stream().await? => return fleet.finish().await,
        _ => {}
    }
    fleet.recovered().await?;
    fleet.outages().await?;
    fleet.settle_operations().await?;
    fleet.finish().await
}

impl Fleet {
    async fn new(seed: u64, last: &LastTrace) -> Self {
        let mut rng = Rng::new(seed);
        let begun = Instant::now();
        let trims = rng.chance(250);
        let in_cloud = seed % 4 == 3;
        let mut losses = Rng::new(seed ^ 0x5a5a_5a5a_5a5a_5a5a);
        let latest = losses.chance(300);
        let environment: Arc<dyn Environment> = if in_cloud {
            Arc::new(Cloud::new(&mut rng, trims, latest).await)
        } else {
            let mut objects = Rng::new(seed ^ 0x0b1e_c750_5a11_c0de);
            Arc::new(InMemory::new(&mut rng, objects.chance(300).then_some(objects)))
        };
        let raw = rng.chance(400);
        let auditor = Arc::new(Auditor::new(Arc::clone(&environment), raw));
        let audited = Arc::clone(&auditor);
        let shared = Arc::new(Shared {
            tally: Arc::default(),
            trace: Mutex::new(Trace::new()),
            audit: Box::new(move |service, operation, about| audited.check(service, operation, about)),
            creating: Arc::default(),
        });
        *last.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&shared));
        let quirks = environment.quirks();
        quirks.iter().for_each(|kind| shared.tally.note(*kind));
        let heavy = rng.one_of(&[0, 4, 25]);
        let rates = Rates {
            lost: heavy,
            late: rng.one_of(&[0, heavy / 2]),
            throttled: rng.one_of(&[0, 5, 40]),
            slow: rng.one_of(&[5, 20]),
            // The in-memory stores have no time limit for a request. The SDK has one.
            hung: if in_cloud { rng.one_of(&[0, 2]) } else { 0 },
            slow_pages: if quirks.contains(&FaultKind::TornScans) { rng.one_of(&[0, 300]) } else { 0 },
            crashes: rng.chance(600),
        };
        let explosion = rng.chance(60);
        if explosion {
            shared.tally.note(FaultKind::PartitionExplosion);
        }
        let skewed = rng.chance(400);
        let kinds = if explosion { 400 } else { 3 };
        // An independent generator, so that these returns do not change what else a seed does.
        let mut returns = Rng::new(!seed);
        let mut outages = Rng::new(seed ^ 0x0117_a6e5);
        let mut trims_log = Rng::new(seed ^ 0x7412_0f10_6a11_0c5e);
        let mut saves = Rng::new(seed ^ 0x5a7e_dc4e_c290_1175);
        let mut operations = Rng::new(seed ^ 0x09e2_a710_4157_0f1a);
        let retry_within = Duration::from_secs(outages.one_of(&[20, 20, 300]));
        Fleet {
            begun,
            returns: returns.chance(400).then_some(returns),
            // In the cloud each request costs a thousand times as much.
            outages: outages.chance(if in_cloud { 200 } else { 400 }).then_some(outages),
            environment,
            in_cloud,
            retry_within,
            auditor,
            shared,
            raw,
            rates,
            skewed,
            kinds,
            put: 0,
            started: 0,
            workers: Vec::new(),
            refused: false,
            losses,
            is_replaced: false,
            interval: None,
            trims: trims_log.chance(500).then_some(trims_log),
            saves: saves.chance(210).then(|| Saves::new(saves)),
            savers: Vec::new(),
            operations: operations.chance(400).then(|| Operations::new(operations)),
            rng,
        }
    }

    // --- faults ---------------------------------------------------------------------------------------------------------

    async fn disturbed(&mut self) -> Result<(), String> {
        self.put(40);
        // Some streams have a history before they are read for the first time.
        for _ in 0..self.rng.one_of(&[0, 0, 3]) {
            self.change_stream();
            self.put(20);
        }
        if let Some(retention_ms) = self.environment.retention_ms() {
            // What was put so far will soon be trimmed.
            let soon = 2_000 + self.rng.below(30_000);
            tokio::time::advance(Duration::from_millis(retention_ms - soon)).await;
        }
        for _ in 0..1 + self.rng.below(3) {
            self.start(self.rates);
        }
        for _ in 0..8 + self.rng.below(12) {
            let wait = if self.rng.chance(15) { 300_000 + self.rng.below(900_000) } else { 50 + self.rng.below(3_000) };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            self.disturb().await;
            self.trim_log();
            self.operate();
            self.save();
            if self.rng.chance(700) {
                let records_max = if self.kinds > 100 { 120 } else { 40 };
                self.put(records_max);
            }
            self.check().await?;
        }
        Ok(())
    }

    fn put(&mut self, records_max: u64) {
        let count = self.rng.below(records_max);
        let drafts = (0..count).map(|_| {
            self.put += 1;
            Draft::new(self.put, self.kinds, &mut self.rng)
        });
        let drafts: Vec<Draft> = drafts.collect();
        let now = Instant::now();
        let trimmed_at = self.environment.retention_ms().map(|ms| now + Duration::from_millis(ms));
        for (id, draft) in self.environment.put(drafts, &mut self.rng) {
            if let Some(fault) = draft.fault {
                self.shared.tally.note(fault);
            }
            self.auditor.expect(id, draft, trimmed_at);
        }
    }

    /// Causes one fault, or starts or stops a worker.
    async fn disturb(&mut self) {
        let tally = Arc::clone(&self.shared.tally);
        let victim = self.rng.index(self.workers.len());
        match self.rng.below(25) {
            0..=3 => {
                tally.note(FaultKind::Killed);
                self.workers[victim].network.kill();
                self.start(self.rates);
            }
            4..=6 => {
                tally.note(FaultKind::Paused);
                let time = Duration::from_millis(1_000 + self.rng.below(40_000));
                if time > FAILOVER * 2 {
                    tally.note(FaultKind::ResumedLate);
                }
                self.workers[victim].network.pause(time);
                if self.rng.chance(600) {
                    self.start(self.rates);
                }
            }
            7 | 8 => {
                tally.note(FaultKind::Stopped);
                self.workers[victim].stop.cancel();
                self.start(self.rates);
            }
            9 | 10 => {
                tally.note(FaultKind::UploadsExpired);
                self.environment.expire_uploads(&mut self.rng);
            }
            11 => {
                tally.note(FaultKind::Joined);
                self.start(self.rates);
            }
            12 | 13 => {
                let service = self.rng.one_of(&Service::ALL);
                let time = Duration::from_millis(500 + self.rng.below(30_000));
                self.workers[victim].network.partition(service, time);
            }
            14 => {
                let service = self.rng.one_of(&Service::ALL);
                self.refused = true;
                self.workers[victim].network.refuse(service, Duration::from_millis(500 + self.rng.below(5_000)));
                self.start(self.rates);
            }
            15 | 16 => self.steal(victim).await,
            17..=19 => {
                // Several changes in a row make shards whose parents nobody has seen yet.
                for _ in 0..self.rng.one_of(&[1, 4]) {
                    self.change_stream();
                }
            }
            20 => {
                tally.note(FaultKind::ClockJumped);
                let by_ms = i64::try_from(self.rng.below(240_000)).unwrap_or(0) - SKEW_MS;
                self.workers[victim].network.move_clock(by_ms);
            }
            21 => {
                if self.environment.conflict() {
                    tally.note(FaultKind::WriteConflict);
                }
            }
            22 => self.sweep(),
            23 => self.audit(),
            _ => self.pause_all().await,
        }
    }

    fn change_stream(&mut self) {
        // A stream lists a shard for longer than any request takes: a day at least (docs/guarantees.md). Otherwise a request that is
        // late could create the lease of a shard again that was read to its end and is forgotten.
        let may_forget = self.shared.creating.load(Ordering::Relaxed) == 0;
        if let Some(kind) = self.environment.change_stream(&mut self.rng, may_forget) {
            self.shared.tally.note(kind);
        }
    }

    /// The rows of shards of streams, without those of operations on the lake.
    fn rows_of_streams(&self) -> Vec<Row> {
        let mut rows = self.environment.rows();
        rows.retain(|row| !is_internal(&row.key.stream));
        rows
    }

    /// A worker gets a lease that it did not ask for.
    async fn steal(&mut self, thief: usize) {
        let rows = self.rows_of_streams();
        if rows.is_empty() {
            return;
        }
        let row = &rows[self.rng.index(rows.len())];
        if steal(&self.environment.stores(), &row.key, &self.workers[thief].me).await {
            self.shared.tally.note(FaultKind::LeaseStolen);
            self.auditor.check(Service::Leases, "take", "");
        }
        self.take_and_give_back(thief);
    }

    /// Leases move to another worker and return, as if a request of their holders had arrived late. This may happen between two
    /// scans of a lease manager.
    fn take_and_give_back(&mut self, thief: usize) {
        let rows = self.rows_of_streams();
        let Some(rng) = &mut self.returns else { return };
        for row in rows {
            let of = |running: &&Running| row.holder.as_deref() == Some(running.me.as_str());
            let (key, Some(holder)) = (row.key, self.workers.iter().find(of).map(|running| running.me.clone())) else {
                continue;
            };
            let (stores, auditor, tally) =
                (self.environment.stores(), Arc::clone(&self.auditor), Arc::clone(&self.shared.tally));
            let thief = self.workers[thief].me.clone();
            let [before, after] = [2_000, 1_000].map(|ms_max| Duration::from_millis(rng.below(ms_max)));
            tokio::spawn(async move {
                tokio::time::sleep(before).await;
                let stolen = steal(&stores, &key, &thief).await;
                auditor.check(Service::Leases, "take", "");
                tokio::time::sleep(after).await;
                if stolen && steal(&stores, &key, &holder).await {
                    tally.note(FaultKind::LeaseReturned);
                    auditor.check(Service::Leases, "take", "");
                }
            });
        }
    }

    /// Pauses all workers for longer than the age after which a sweep removes things, and sweeps.
    async fn pause_all(&mut self) {
        let time = SWEEP_AGE + Duration::from_secs(300 + self.rng.below(600));
        for running in &self.workers {
            self.shared.tally.note(FaultKind::ResumedLate);
            running.network.pause(time);
        }
        tokio::time::sleep(time - Duration::from_secs(20)).await;
        self.sweep();
        tokio::time::sleep(Duration::from_secs(25)).await;
    }

    /// Sweeps the lake while the workers run.
    fn sweep(&mut self) {
        self.shared.tally.note(FaultKind::Swept);
        let network = self.network(OPERATOR, self.rates, false);
        let clock = self.clock(&network);
        let environment = Arc::clone(&self.environment);
        tokio::spawn(async move {
            if let Ok(connected) = environment.connect(&network, Arc::clone(&clock), false).await {
                let _ = shardlake::maintenance::sweep(&connected.stores, clock.now_ms(), SWEEP_AGE, false).await;
            }
        });
    }

    /// Audits the lake while the workers run. `verify` must find nothing.
    fn audit(&mut self) {
        self.shared.tally.note(FaultKind::Audited);
        let network = self.network(OPERATOR, Rates { slow: self.rates.slow, ..Rates::default() }, false);
        let clock = self.clock(&network);
        let (environment, auditor) = (Arc::clone(&self.environment), Arc::clone(&self.auditor));
        tokio::spawn(async move {
            let Ok(connected) = environment.connect(&network, clock, false).await else { return };
            if let Ok(found) = shardlake::inspect::verify(&connected.stores, &|_| {}).await
                && !found.faults.is_empty()
            {
                auditor.violated(format!("verify finds faults while workers run: {:?}", found.faults));
            }
        });
    }

    /// Trims the lake log while the workers run, through the newest snapshot, which may be written for it. A trim may be cut off on its
    /// way. Some trims run at the end of a worker's sleep, in which others have moved the end of the log.
    fn trim_log(&mut self) {
        let Some(trims) = &mut self.trims else { return };
        if !trims.chance(500) {
            return;
        }
        let age = Duration::from_secs(trims.one_of(&[0, 0, 0, 5]));
        let within = Duration::from_millis(trims.one_of(&[20, 200, 60_000, 60_000]));
        let mut after = Duration::ZERO;
        if trims.chance(400) {
            self.shared.tally.note(FaultKind::LogTrimmedBesideSleeper);
            let sleep = Duration::from_millis(8_000 + trims.below(30_000));
            after = sleep - Duration::from_millis(trims.below(3_000));
            self.workers[trims.index(self.workers.len())].network.pause(sleep);
        }
        // Each writer has a name of its own.
        let writer = trims.chance(700).then(|| format!("operator-{:016x}", trims.below(u64::MAX)));
        let (rng, shared, retry_within) = (trims.fork(), Arc::clone(&self.shared), self.retry_within);
        let network = Network::new(OPERATOR, rng, self.rates, 0, false, retry_within, shared);
        let clock = self.clock(&network);
        let environment = Arc::clone(&self.environment);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let Ok(connected) = environment.connect(&network, clock, false).await else { return };
            let stores = &connected.stores;
            if let Some(writer) = writer
                && write_snapshot(stores, &writer, 1).await.is_err()
            {
                return;
            }
            let Ok(extent) = extent(&*stores.lake).await else { return };
            let through = extent.snapshots.last().copied().unwrap_or_default();
            let _ = tokio::time::timeout(within, trim(stores, through, age, false)).await;
        });
    }

    // --- losses of whole things ------------------------------------------------------------------------------------------

    /// If reading starts at the latest record: the first worker that connects has a clock that is ahead. What is put from then on
    /// must be read.
    async fn open_with_a_clock_ahead(&mut self) -> Result<(), String> {
        if !self.environment.starts_at_latest() {
            return Ok(());
        }
        self.shared.tally.note(FaultKind::ClockAhead);
        let ahead_ms = 60_000 + i64::try_from(self.losses.below(3_600_000)).unwrap_or(0);
        let (rng, shared, within) = (self.losses.fork(), Arc::clone(&self.shared), self.retry_within);
        let network = Network::new(OPERATOR, rng, Rates::default(), ahead_ms, false, within, shared);
        let clock = self.clock(&network);
        self.environment.connect(&network, clock, false).await.map(drop)
    }

    /// All workers end, perhaps in the middle of a commit, and rows are lost. A start is refused until they are made again.
    async fn lose_rows(&mut self) -> Result<(), String> {
        self.put(40);
        if self.losses.chance(800) {
            for _ in 0..4_000 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                if self.environment.rows().iter().any(|row| row.pending.is_some()) {
                    tokio::time::sleep(Duration::from_millis(self.losses.below(40))).await;
                    break;
                }
            }
        }
        self.check().await?;
        for running in &self.workers {
            running.network.kill();
        }
        if let Some(operations) = &self.operations {
            operations.kill();
        }
        self.savers.iter().for_each(|network| network.kill());
        // The command is for a fleet that was stopped: no worker is about to create a row. A request that is never answered has no effect.
        for _ in 0..600 {
            if self.shared.creating.load(Ordering::Relaxed) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.shared.tally.note(FaultKind::RowsLost);
        self.environment.lose_rows(&mut self.losses);
        let has_lost_commits = self.auditor.rows_lost();
        let (stores, streams) = (self.environment.stores(), self.environment.streams());
        let lost = async || {
            lost_rows(&stores, &streams).await.map_err(|error| format!("the rows cannot be compared: {error}"))
        };
        if has_lost_commits && lost().await?.is_empty() {
            return Err("rows of committed shards are lost, and a start would not be refused".to_owned());
        }
        let mut rebuilt = None;
        for _ in 0..60 {
            let network = self.network(OPERATOR, self.rates, false);
            let clock = self.clock(&network);
            let Ok(connected) = self.environment.connect(&network, clock, false).await else { continue };
            // Some calls are given up on the way.
            let within = Duration::from_millis(self.losses.below(120_000));
            let ranges = HashMap::new();
            match tokio::time::timeout(within, rebuild(&connected.stores, &ranges)).await {
                Ok(Ok(done)) => {
                    rebuilt = Some(done);
                    break;
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        let rebuilt = rebuilt.ok_or("the rows could not be made again")?;
        if !rebuilt.behind.is_empty() {
            return Err(format!("rows were made again before what is committed: {:?}", rebuilt.behind));
        }
        let left = lost().await?;
        if !left.is_empty() {
            return Err(format!("rows are still lost: {left:?}"));
        }
        self.auditor.rows_made_again();
        self.check().await
    }

    /// A stream is replaced by another one of its name. Nothing of that is committed, and the workers end. Returns false if this
    /// environment cannot replace a stream.
    async fn replace_stream(&mut self) -> Result<bool, String> {
        self.put(10);
        tokio::time::sleep(Duration::from_millis(self.losses.below(3_000))).await;
        self.check().await?;
        if !self.environment.delete_stream() {
            return Ok(false);
        }
        self.shared.tally.note(FaultKind::StreamReplaced);
        self.is_replaced = true;
        if let Some(operations) = &self.operations {
            operations.kill();
        }
        for running in &self.workers {
            running.network.heal();
        }
        tokio::time::sleep(Duration::from_millis(1_100 + self.losses.below(8_000))).await;
        self.environment.create_stream_again(1 + u32::try_from(self.losses.below(4)).unwrap_or(0));
        let deadline = Instant::now() + 4 * BOUND;
        let goes_on = |running: &Running| running.task.is_some() && running.network.is_alive();
        while self.workers.iter().any(goes_on) {
            if Instant::now() >= deadline {
                return Err("a worker continues although its stream was replaced".to_owned());
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.check().await?;
        }
        Ok(true)
    }

    // --- the end --------------------------------------------------------------------------------------------------------

    /// The faults stop. Everything must be visible in bounded time.
    async fn recovered(&mut self) -> Result<(), String> {
        // Living workers continue. One more is started, so that there is at least one.
        for running in &self.workers {
            running.network.heal();
        }
        if let Some(operations) = &self.operations {
            operations.heal();
        }
        self.start(Rates::default());
        if self.returns.is_some() {
            // These are the last faults: a later fault might repair what they break.
            tokio::time::sleep(Duration::from_secs(40)).await;
            for _ in 0..4 {
                self.put(30);
                self.take_and_give_back(self.workers.len() - 1);
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        }
        let deadline = Instant::now() + BOUND;
        while !self.is_done() {
            if Instant::now() >= deadline {
                let missing = self.auditor.missing();
                return Err(format!(
                    "{} records are missing {} s after the faults stopped, first {:?}; {:#?}",
                    missing.len(),
                    BOUND.as_secs(),
                    missing.first(),
                    self.environment.rows()
                ));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.check().await?;
            if self.workers.iter().all(|running| running.task.is_none() || !running.network.is_alive()) {
                self.start(Rates::default());
            }
        }
        // Workers that resume late and requests that arrive late must do no harm.
        tokio::time::sleep(Duration::from_secs(120)).await;
        self.check().await
    }

    /// Whether everything is visible and committed.
    fn is_done(&self) -> bool {
        let missing = self.auditor.missing();
        let rows = self.rows_of_streams();
        let closed = self.environment.closed_shards();
        let ended = |key: &ShardKey| {
            let row = rows.iter().find(|row| row.key == *key);
            row.is_none_or(|row| row.checkpoint == Position::End)
        };
        missing.is_empty()
            && !rows.is_empty()
            && rows.iter().all(|row| row.pending.is_none())
            && closed.iter().all(ended)
    }

    /// Stops all workers, and checks what must hold at the end.
    async fn finish(mut self) -> Result<Summary, String> {
        for running in &self.workers {
            running.stop.cancel();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        self.check().await?;
        self.auditor.check_log_is_complete()?;
        self.check_versions().await?;
        let stores = self.environment.stores();
        let audit =
            shardlake::inspect::verify(&stores, &|_| {}).await.map_err(|error| format!("verify fails: {error}"))?;
        if !audit.faults.is_empty() {
            return Err(format!("verify finds faults: {:#?}", audit.faults));
        }
        // What was not read of a stream that was replaced is gone with it.
        let (records, trimmed) = (self.auditor.records(), if self.is_replaced { 0 } else { self.auditor.trimmed() });
        let far = i64::MAX / 2;
        shardlake::maintenance::sweep(&stores, far, Duration::ZERO, false)
            .await
            .map_err(|error| format!("sweep: {error}"))?;
        let mut uploads = stores.lake.list_uploads().await.map_err(|error| error.to_string())?;
        // A replay that was killed has a lake of its own, whose pending epoch needs them.
        uploads.retain(|upload| !upload.key.as_ref().is_some_and(|key| key.as_str().starts_with("_replays/")));
        let intents = stores.lake.list("_intents/").await.map_err(|error| error.to_string())?;
        // Nobody takes the leases of a killed worker once all workers have ended, so it could still decide what it has written.
        if !self.is_replaced && (!uploads.is_empty() || !intents.is_empty()) {
            return Err(format!("a sweep leaves {} uploads and {} intents behind", uploads.len(), intents.len()));
        }
        if trimmed > 0 {
            self.shared.tally.note(FaultKind::Trimmed);
        }
        let ((_, log_trimmed, false_entries), [saved, scheduled]) = (self.auditor.log(), self.auditor.saved());
        for (count, kind) in [
            (log_trimmed, FaultKind::LogTrimmed),
            (false_entries, FaultKind::FalseEntry),
            (saved, FaultKind::CheckpointSaved),
            (scheduled, FaultKind::CheckpointScheduled),
        ] {
            if count > 0 {
                self.shared.tally.note(kind);
            }
        }
        let mut summary = Summary {
            records,
            trimmed,
            epochs: self.auditor.epochs(),
            rolled_forward: 0,
            rolled_back: 0,
            aborted: 0,
            workers: self.started,
            virtual_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            requests: 0,
            digest: 0,
            tally: Arc::clone(&self.shared.tally),
        };
        for running in &mut self.workers {
            let committed = running.progress.committed();
            summary.rolled_forward += committed.rolled_forward;
            summary.rolled_back += committed.rolled_back;
            summary.aborted += committed.aborted;
            if let Some(task) = running.task.take() {
                task.abort();
            }
        }
        let trace = self.shared.trace.lock().unwrap_or_else(PoisonError::into_inner);
        (summary.requests, summary.digest) = (trace.events(), trace.digest());
        drop(trace);
        Ok(summary)
    }
}
