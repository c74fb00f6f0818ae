//! A run: a fleet, what happens to it, and its end.
//!
//! Owns: the order of things. Everything is drawn from the seed: who comes and goes, what is put, which faults there are and
//! at which rate. Then the faults stop; in bounded time everything must be there. Does not own: what a violation is while the
//! fleet runs (`auditor`), what becomes of single requests (`wires`).

mod workers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{Position, ShardKey};
use tokio::time::Instant;

use self::workers::Running;
use crate::auditor::Auditor;
use crate::cloud::Cloud;
use crate::faults::{Kind, Tally};
use crate::records::Draft;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::wires::{Rates, Service, Shared};
use crate::world::{Plain, World, steal};

/// When a silent worker's leases may be taken.
const FAILOVER: Duration = Duration::from_secs(5);
/// In which time everything must be there once the faults have stopped.
const BOUND: Duration = Duration::from_secs(900);
/// What a sweep takes for old: longer than any request lives, and than clocks differ.
const SWEEP_AGE: Duration = Duration::from_secs(600);
/// Milliseconds by which a clock may be off.
const SKEW_MS: i64 = 120_000;
/// The worker number of whoever sweeps.
const OPERATOR: u32 = 999;

/// What happened in a run.
#[derive(Debug)]
pub struct Summary {
    /// Records that were put.
    pub records: u64,
    /// Of these, trimmed before anybody read them.
    pub trimmed: u64,
    /// Epochs that were committed.
    pub epochs: u64,
    /// Epochs that another worker, or a later start, brought to their ends.
    pub rolled_forward: u64,
    /// Epochs that were decided and taken back.
    pub rolled_back: u64,
    /// Epochs that were given up before they were decided.
    pub aborted: u64,
    /// Workers that were started.
    pub workers: u32,
    /// How long it took, by its own clock.
    pub virtual_ms: u64,
    /// Requests.
    pub requests: u64,
    /// The same for two runs in which the same happened.
    pub digest: u64,
    /// Which faults occurred.
    pub tally: Arc<Tally>,
}

/// Where a run's trace can be found when it has failed.
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
    /// For when leases come back, in fleets in which they do.
    returns: Option<Rng>,
    world: Arc<dyn World>,
    auditor: Arc<Auditor>,
    shared: Arc<Shared>,
    raw: bool,
    rates: Rates,
    skewed: bool,
    kinds: u64,
    put: u64,
    started: u32,
    workers: Vec<Running>,
    refused: bool,
}

/// Runs a fleet from a seed.
///
/// # Errors
/// A promise was broken: which.
pub async fn run(seed: u64, last: &LastTrace) -> Result<Summary, String> {
    let mut fleet = Fleet::new(seed, last).await;
    fleet.disturbed().await?;
    fleet.recovered().await?;
    fleet.finish().await
}

impl Fleet {
    async fn new(seed: u64, last: &LastTrace) -> Self {
        let mut rng = Rng::new(seed);
        let begun = Instant::now();
        let trims = rng.chance(250);
        let in_cloud = seed % 4 == 3;
        let world: Arc<dyn World> =
            if in_cloud { Arc::new(Cloud::new(&mut rng, trims).await) } else { Arc::new(Plain::new(&mut rng)) };
        let raw = rng.chance(400);
        let auditor = Arc::new(Auditor::new(Arc::clone(&world), raw));
        let audited = Arc::clone(&auditor);
        let shared = Arc::new(Shared {
            tally: Arc::default(),
            trace: Mutex::new(Trace::new()),
            audit: Box::new(move |service, operation, about| audited.look(service, operation, about)),
        });
        *last.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&shared));
        let quirks = world.quirks();
        quirks.iter().for_each(|kind| shared.tally.note(*kind));
        let heavy = rng.one_of(&[0, 4, 25]);
        let rates = Rates {
            lost: heavy,
            late: rng.one_of(&[0, heavy / 2]),
            throttled: rng.one_of(&[0, 5, 40]),
            slow: rng.one_of(&[5, 20]),
            // The simulation's own stores have no time limit for an attempt; the SDK has.
            hung: if in_cloud { rng.one_of(&[0, 2]) } else { 0 },
            slow_pages: if quirks.contains(&Kind::TornLooks) { rng.one_of(&[0, 300]) } else { 0 },
            falls: rng.chance(600),
        };
        let explosion = rng.chance(60);
        if explosion {
            shared.tally.note(Kind::PartitionExplosion);
        }
        let skewed = rng.chance(400);
        let kinds = if explosion { 400 } else { 3 };
        // A generator of its own: without these returns, a seed does the same.
        let mut returns = Rng::new(!seed);
        Fleet {
            begun,
            returns: returns.chance(400).then_some(returns),
            world,
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
            rng,
        }
    }

    // --- what happens ---------------------------------------------------------------------------------------------------

    async fn disturbed(&mut self) -> Result<(), String> {
        self.put(40);
        // A stream that has a history when it is first read.
        for _ in 0..self.rng.one_of(&[0, 0, 3]) {
            self.change_stream();
            self.put(20);
        }
        if let Some(retention_ms) = self.world.retention_ms() {
            // What was put so far will be trimmed in a moment.
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
            if self.rng.chance(700) {
                let most = if self.kinds > 100 { 120 } else { 40 };
                self.put(most);
            }
            self.look().await?;
        }
        Ok(())
    }

    fn put(&mut self, most: u64) {
        let count = self.rng.below(most);
        let drafts = (0..count).map(|_| {
            self.put += 1;
            Draft::new(self.put, self.kinds, &mut self.rng)
        });
        let drafts: Vec<Draft> = drafts.collect();
        let now = Instant::now();
        let trimmed_at = self.world.retention_ms().map(|ms| now + Duration::from_millis(ms));
        for (place, draft) in self.world.put(drafts, &mut self.rng) {
            if let Some(trouble) = draft.trouble {
                self.shared.tally.note(trouble);
            }
            self.auditor.expect(place, draft, trimmed_at);
        }
    }

    /// Something goes wrong, or somebody comes or goes.
    async fn disturb(&mut self) {
        let tally = Arc::clone(&self.shared.tally);
        let victim = self.rng.place(self.workers.len());
        match self.rng.below(25) {
            0..=3 => {
                tally.note(Kind::Killed);
                self.workers[victim].wires.cut();
                self.start(self.rates);
            }
            4..=6 => {
                tally.note(Kind::Paused);
                let time = Duration::from_millis(1_000 + self.rng.below(40_000));
                if time > FAILOVER * 2 {
                    tally.note(Kind::WokenLate);
                }
                self.workers[victim].wires.sleep(time);
                if self.rng.chance(600) {
                    self.start(self.rates);
                }
            }
            7 | 8 => {
                tally.note(Kind::Stopped);
                self.workers[victim].stop.cancel();
                self.start(self.rates);
            }
            9 | 10 => {
                tally.note(Kind::UploadsExpired);
                self.world.expire_uploads(&mut self.rng);
            }
            11 => {
                tally.note(Kind::Joined);
                self.start(self.rates);
            }
            12 | 13 => {
                let service = self.rng.one_of(&Service::ALL);
                let time = Duration::from_millis(500 + self.rng.below(30_000));
                self.workers[victim].wires.part(service, time);
            }
            14 => {
                let service = self.rng.one_of(&Service::ALL);
                self.refused = true;
                self.workers[victim].wires.refuse(service, Duration::from_millis(500 + self.rng.below(5_000)));
                self.start(self.rates);
            }
            15 | 16 => self.steal(victim).await,
            17..=19 => {
                // Several in a row: shards whose parents nobody has seen yet.
                for _ in 0..self.rng.one_of(&[1, 4]) {
                    self.change_stream();
                }
            }
            20 => {
                tally.note(Kind::ClockJumped);
                let by_ms = i64::try_from(self.rng.below(240_000)).unwrap_or(0) - SKEW_MS;
                self.workers[victim].wires.move_clock(by_ms);
            }
            21 => {
                if self.world.conflict() {
                    tally.note(Kind::WriteConflict);
                }
            }
            22 => self.sweep(),
            23 => self.audit(),
            _ => self.stand_still().await,
        }
    }

    fn change_stream(&mut self) {
        if let Some(kind) = self.world.change_stream(&mut self.rng) {
            self.shared.tally.note(kind);
        }
    }

    /// A lease goes to somebody who did not ask for it.
    async fn steal(&mut self, thief: usize) {
        let rows = self.world.rows();
        if rows.is_empty() {
            return;
        }
        let row = &rows[self.rng.place(rows.len())];
        if steal(&self.world.stores(), &row.key, &self.workers[thief].me).await {
            self.shared.tally.note(Kind::LeaseStolen);
            self.auditor.look(Service::Leases, "take", "");
        }
        self.take_and_give_back(thief);
    }

    /// Leases go to somebody else and come back, as if a request of their holders' had arrived late; perhaps between two looks
    /// of a keeper.
    fn take_and_give_back(&mut self, thief: usize) {
        let Some(rng) = &mut self.returns else { return };
        for row in self.world.rows() {
            let of = |running: &&Running| row.holder.as_deref() == Some(running.me.as_str());
            let (key, Some(holder)) = (row.key, self.workers.iter().find(of).map(|running| running.me.clone())) else {
                continue;
            };
            let (stores, auditor, tally) =
                (self.world.stores(), Arc::clone(&self.auditor), Arc::clone(&self.shared.tally));
            let thief = self.workers[thief].me.clone();
            let [before, after] = [2_000, 1_000].map(|most| Duration::from_millis(rng.below(most)));
            tokio::spawn(async move {
                tokio::time::sleep(before).await;
                let stolen = steal(&stores, &key, &thief).await;
                auditor.look(Service::Leases, "take", "");
                tokio::time::sleep(after).await;
                if stolen && steal(&stores, &key, &holder).await {
                    tally.note(Kind::LeaseReturned);
                    auditor.look(Service::Leases, "take", "");
                }
            });
        }
    }

    /// All workers stand still, for longer than what a sweep takes for old; and somebody sweeps.
    async fn stand_still(&mut self) {
        let time = SWEEP_AGE + Duration::from_secs(300 + self.rng.below(600));
        for running in &self.workers {
            self.shared.tally.note(Kind::WokenLate);
            running.wires.sleep(time);
        }
        tokio::time::sleep(time - Duration::from_secs(20)).await;
        self.sweep();
        tokio::time::sleep(Duration::from_secs(25)).await;
    }

    /// Somebody sweeps the lake while the others work.
    fn sweep(&mut self) {
        self.shared.tally.note(Kind::Swept);
        let wires = self.wires(OPERATOR, self.rates, false);
        let clock = self.clock(&wires);
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            if let Ok(connected) = world.connect(&wires, Arc::clone(&clock)).await {
                let _ = shardlake::maintenance::sweep(&connected.stores, clock.now_ms(), SWEEP_AGE, false).await;
            }
        });
    }

    /// Somebody audits the lake while the others work: it must find nothing.
    fn audit(&mut self) {
        self.shared.tally.note(Kind::Audited);
        let wires = self.wires(OPERATOR, Rates { slow: self.rates.slow, ..Rates::default() }, false);
        let clock = self.clock(&wires);
        let (world, auditor) = (Arc::clone(&self.world), Arc::clone(&self.auditor));
        tokio::spawn(async move {
            let Ok(connected) = world.connect(&wires, clock).await else { return };
            if let Ok(found) = shardlake::inspect::verify(&connected.stores, &|_| {}).await
                && !found.faults.is_empty()
            {
                auditor.violated(format!("verify beside workers finds faults: {:?}", found.faults));
            }
        });
    }

    // --- the end --------------------------------------------------------------------------------------------------------

    /// The faults stop: everything is there in bounded time.
    async fn recovered(&mut self) -> Result<(), String> {
        // What still lives goes on; one more worker sees to it that there is one.
        for running in &self.workers {
            running.wires.heal();
        }
        self.start(Rates::default());
        if self.returns.is_some() {
            // The last of the faults, with none behind it that might mend what this one breaks.
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
                let owed = self.auditor.owed();
                return Err(format!(
                    "{} records are missing {} s after the faults stopped, first {:?}; {:#?}",
                    owed.len(),
                    BOUND.as_secs(),
                    owed.first(),
                    self.world.rows()
                ));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.look().await?;
            if self.workers.iter().all(|running| running.task.is_none() || !running.wires.has_power()) {
                self.start(Rates::default());
            }
        }
        // Sleepers wake up late, and requests arrive late; they must do no harm.
        tokio::time::sleep(Duration::from_secs(120)).await;
        self.look().await
    }

    fn is_done(&self) -> bool {
        let owed = self.auditor.owed();
        let rows = self.world.rows();
        let closed = self.world.closed_shards();
        let ended = |key: &ShardKey| {
            let row = rows.iter().find(|row| row.key == *key);
            row.is_none_or(|row| row.checkpoint == Position::End)
        };
        owed.is_empty() && !rows.is_empty() && rows.iter().all(|row| row.pending.is_none()) && closed.iter().all(ended)
    }

    /// What must hold at the end.
    async fn finish(mut self) -> Result<Summary, String> {
        for running in &self.workers {
            running.stop.cancel();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        self.look().await?;
        let stores = self.world.stores();
        let audit =
            shardlake::inspect::verify(&stores, &|_| {}).await.map_err(|error| format!("verify fails: {error}"))?;
        if !audit.faults.is_empty() {
            return Err(format!("verify finds faults: {:#?}", audit.faults));
        }
        let (records, trimmed) = (self.auditor.records(), self.auditor.trimmed());
        let far = i64::MAX / 2;
        shardlake::maintenance::sweep(&stores, far, Duration::ZERO, false)
            .await
            .map_err(|error| format!("sweep: {error}"))?;
        let uploads = stores.lake.list_uploads().await.map_err(|error| error.to_string())?;
        let intents = stores.lake.list("_intents/").await.map_err(|error| error.to_string())?;
        if !uploads.is_empty() || !intents.is_empty() {
            return Err(format!("a sweep leaves {} uploads and {} intents behind", uploads.len(), intents.len()));
        }
        if trimmed > 0 {
            self.shared.tally.note(Kind::Trimmed);
        }
        let mut message = Summary {
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
            message.rolled_forward += committed.rolled_forward;
            message.rolled_back += committed.rolled_back;
            message.aborted += committed.aborted;
            if let Some(task) = running.task.take() {
                task.abort();
            }
        }
        let trace = self.shared.trace.lock().unwrap_or_else(PoisonError::into_inner);
        (message.requests, message.digest) = (trace.events(), trace.digest());
        drop(trace);
        Ok(message)
    }
}
