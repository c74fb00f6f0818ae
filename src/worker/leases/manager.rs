//! The lease manager: shows that this worker is alive, takes and requests leases, and releases them.
//!
//! Owns: which leases this worker holds, and when it scans the table. Does not own: which rows there are (`discovery`), who
//! is alive (`peers`), which leases this worker should hold (`balance`), what is done with a lease (the coordinator), the
//! last steps (`shutdown`), the conditional writes (the checkpoints crate).
//!
//! - A worker is alive while the counter of *any* of its leases moves. So at every beat it renews one lease, the first by key.
//!   It renews each of the others once a minute, with the throughput that it measured. This costs one request for each beat,
//!   not one for each shard.
//! - Where requests cost money, beats renew and scan in turn. In a large fleet most of the scans are left out (`pace`).
//! - Nobody takes a lease from a live holder. It is asked, commits its epoch, and hands the lease over. Only a holder that
//!   does not answer for the hand-off time is overruled.
//! - A shard that this worker could not read is left to the others: this worker takes it again only if nobody else has for a minute,
//!   and never asks another worker for it. A lease that stays free is taken by whoever notices, whatever the balance: the worker that
//!   has too little may be the one that cannot read the shard.
//! - A worker that shuts down wakes its peers (`shutdown`): a counter that this worker did not write makes it scan at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use checkpoints::{
    Holder, Lease, LeaseOwner, LeaseStore, Renewal, RenewalOutcome, ShardKey, StoreError, ThroughputKbps,
};
use futures::StreamExt;
use mutations::mutated;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::source::ShardSource;
use crate::trouble::{Attempts, Trouble};
use crate::worker::fleet::FleetWatch;
use crate::worker::leases::balance::{Plan, is_ready, rebalance};
use crate::worker::leases::discovery::{Discovery, list_leases};
use crate::worker::leases::pace::{BEATS_MIN, beat_every, scans_every};
use crate::worker::leases::peers::Peers;
use crate::worker::leases::shutdown::{REQUESTS, Shutdown};
use crate::worker::leases::throughput::Throughput;
use crate::worker::progress::Progress;

/// How often each lease is renewed, with its throughput, beside the one that shows that the worker is alive.
const RENEW_ALL_EVERY: Duration = Duration::from_secs(60);
/// Leases that are released together.
const RELEASES_MAX: usize = 256;
/// How many more leases than it holds a worker takes at once. At the start of a fleet each worker knows of no other, and would try to take all.
const TAKEN_AT_FIRST: usize = 32;
/// When a worker takes a shard again that it could not read and nobody else has taken: after this time, and this many failover times.
const RETRY_ABANDONED_AFTER: Duration = Duration::from_secs(60);
const RETRY_ABANDONED_FAILOVERS: u32 = 6;
/// For how long a worker does not ask for a shard that it could not read.
const REMEMBER_ABANDONED_FOR: Duration = Duration::from_secs(3600);
/// After how many failover times a free lease is taken whatever the balance.
const TAKE_FREE_FAILOVERS: u32 = 2;

/// What the lease manager sends to the coordinator.
#[derive(Debug)]
pub(crate) enum LeaseEvent {
    /// This worker holds the lease now.
    Gained(Box<Lease>),
    /// This worker no longer holds the lease.
    Lost(ShardKey),
    /// Another worker asks for the lease: commit, then release it.
    Requested(ShardKey),
    /// All leases, as they were just read, after every earlier command was carried out. A scan that nobody requested is left out while
    /// the coordinator has not handled the one before it: a commit may wait for a service for minutes.
    Snapshot(Arc<Vec<Lease>>),
    /// The lease manager has ended.
    Failed(StoreError),
}

/// What the coordinator sends to the lease manager.
#[derive(Debug)]
pub(crate) enum LeaseCommand {
    /// Release a lease that no open epoch needs any more, or hand it over to the worker that asked.
    Release(ShardKey),
    /// Release a lease whose shard cannot be read. Others may try, and this worker later.
    Abandon(ShardKey),
    /// The row shows another holder, so the shard is not read any more. If the next scan shows this worker as the holder, the
    /// lease was gained again.
    Disown(ShardKey),
    /// Scan the leases now.
    Scan,
    /// Release everything, and end.
    Stop,
}

/// What a lease manager runs on.
pub(crate) struct LeaseManagerSettings {
    pub(crate) me: LeaseOwner,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) sources: Vec<Arc<dyn ShardSource>>,
    /// When a lease may be taken from an owner that shows no sign of life.
    pub(crate) failover: Duration,
    /// When a lease may be taken from an owner that was asked for it.
    pub(crate) hand_off: Duration,
    /// How long renewing or scanning may fail before the worker ends. The other workers took its leases long before.
    pub(crate) failing_max: Duration,
    pub(crate) throughput: Arc<Throughput>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) coordinator: mpsc::UnboundedSender<LeaseEvent>,
}

/// A lease that this worker holds.
#[derive(Debug)]
struct HeldLease {
    counter: u64,
    renewed_at: Instant,
    throughput: ThroughputKbps,
}

/// The lease manager of a worker.
pub(crate) struct LeaseManager {
    settings: LeaseManagerSettings,
    held: BTreeMap<ShardKey, HeldLease>,
    /// Leases that others asked this worker for.
    requested_by_others: BTreeSet<ShardKey>,
    /// Leases that this worker asked others for, and when.
    requested_from_others: HashMap<ShardKey, Instant>,
    last_request_at: Option<Instant>,
    /// Leases of shards that could not be read, and when they were released.
    abandoned: HashMap<ShardKey, Instant>,
    /// Leases that nobody held in the last scan, and since when.
    free_since: HashMap<ShardKey, Instant>,
    discovery: Discovery,
    peers: Peers,
    failing_since: Option<Instant>,
    attempts: Attempts,
    /// The snapshot that was sent last, for as long as the coordinator has not handled it.
    snapshot: Weak<Vec<Lease>>,
    /// What the scans show of the fleet, for whoever watches.
    fleet: FleetWatch,
    /// Beats from one scan to the next.
    scans_every: u64,
}

impl LeaseManager {
    /// A manager that holds nothing yet.
    pub(crate) fn new(settings: LeaseManagerSettings) -> Self {
        LeaseManager {
            settings,
            held: BTreeMap::new(),
            requested_by_others: BTreeSet::new(),
            requested_from_others: HashMap::new(),
            last_request_at: None,
            abandoned: HashMap::new(),
            free_since: HashMap::new(),
            discovery: Discovery::default(),
            peers: Peers::default(),
            failing_since: None,
            attempts: Trouble::new("renewing or listing leases").attempts(),
            snapshot: Weak::new(),
            fleet: FleetWatch::default(),
            scans_every: BEATS_MIN,
        }
    }

    /// Manages the leases until a command stops it, or it fails permanently.
    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<LeaseCommand>) {
        let is_metered = self.settings.store.is_metered();
        let mut ticks = tokio::time::interval(beat_every(self.settings.failover));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut beats, mut scanned_at) = (0_u64, 0_u64);
        let mut next_command = None;
        loop {
            // Commands come first: a lease that is to be released must not be renewed.
            let command = tokio::select! {
                biased;
                command = async { next_command.take() }, if next_command.is_some() => command,
                command = commands.recv() => command,
                _ = ticks.tick() => {
                    beats += 1;
                    // A worker that holds nothing has nothing to renew, and may be waited for.
                    let takes_turns = is_metered && !self.held.is_empty();
                    let renews = !takes_turns || beats.is_multiple_of(2);
                    let is_due = self.needs_every_scan() || beats + 1 >= scanned_at + self.scans_every;
                    let scans = is_due && (!takes_turns || !beats.is_multiple_of(2));
                    scanned_at = if scans { beats } else { scanned_at };
                    if !self.beat(renews, scans).await {
                        return;
                    }
                    continue;
                }
            };
            match command {
                Some(LeaseCommand::Scan) => {
                    self.snapshot = Weak::new();
                    if !self.beat(false, true).await {
                        return;
                    }
                }
                Some(LeaseCommand::Release(key)) => {
                    let mut keys = vec![key];
                    while keys.len() < RELEASES_MAX {
                        match commands.try_recv() {
                            Ok(LeaseCommand::Release(key)) => keys.push(key),
                            other => {
                                next_command = other.ok();
                                break;
                            }
                        }
                    }
                    self.release(&keys).await;
                }
                Some(LeaseCommand::Abandon(key)) => {
                    self.release(std::slice::from_ref(&key)).await;
                    self.abandoned.insert(key, Instant::now());
                }
                Some(LeaseCommand::Disown(key)) => drop(self.held.remove(&key)),
                Some(LeaseCommand::Stop) | None => {
                    let LeaseManagerSettings { me, store, sources, failover, .. } = &self.settings;
                    let held = self.held.into_keys().collect();
                    let streams = sources.iter().map(|source| source.stream().clone()).collect();
                    let (store, peers) = (&**store, &self.peers);
                    Shutdown { me, store, failover: *failover, peers, streams }.run(held).await;
                    return;
                }
            }
        }
    }

    /// Whether no scan may be left out. A worker must notice soon that it was given a lease, and whether a peer that is quiet is dead.
    fn needs_every_scan(&self) -> bool {
        self.held.is_empty() || !self.requested_from_others.is_empty() || self.peers.has_suspects()
    }

    fn send(&self, event: LeaseEvent) {
        // A coordinator that has ended needs no events.
        let _ = self.settings.coordinator.send(event);
    }

    /// Renews, or scans, or both. Returns false if the manager can't continue.
    async fn beat(&mut self, renews: bool, scans: bool) -> bool {
        let was_woken = if renews { self.renew().await } else { Ok(false) };
        let result = match was_woken {
            Ok(was_woken) if scans || was_woken => self.scan_leases().await,
            other => other.map(drop),
        };
        match result {
            Ok(()) => {
                self.settings.progress.pulse.leases_reached();
                self.failing_since = None;
                self.attempts.succeeded();
                true
            }
            Err(error) if error.is_retryable() && !self.has_failed_too_long() && !mutated!(DropLeasesInAnOutage) => {
                // Others may take the leases meanwhile. Every commit is conditional on holding them.
                self.failing_since.get_or_insert_with(Instant::now);
                self.attempts.failed(&error);
                true
            }
            Err(error) => {
                self.send(LeaseEvent::Failed(error));
                false
            }
        }
    }

    fn has_failed_too_long(&self) -> bool {
        self.failing_since.is_some_and(|since| since.elapsed() >= self.settings.failing_max)
    }

    /// Reads the whole table, and does what follows from it: creates rows, finds gains and losses, takes and requests leases.
    async fn scan_leases(&mut self) -> Result<(), StoreError> {
        let LeaseManagerSettings { me, store, sources, failover, .. } = &self.settings;
        let mut leases = list_leases(&**store, sources).await?;
        if self.discovery.sync(&**store, sources, me, *failover / 3, &leases).await? {
            leases = list_leases(&**store, sources).await?;
        }
        self.discovery.add_parents_not_shown(&**store, &mut leases).await?;
        let (me, failover, store, is_metered) = (me.clone(), *failover, Arc::clone(store), store.is_metered());
        self.check_held(&leases);
        self.release_again(&leases).await?;
        let dead = self.peers.find_dead(&me, &leases, failover, &*store, self.scans_every > BEATS_MIN).await?;
        let leases = self.take_and_request(leases, &dead).await?;
        let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
        let figures = self.fleet.on_scan(&me, &leases, |lease| is_ready(lease, &by_key));
        self.scans_every = if is_metered { scans_every(leases.len(), figures.workers, failover) } else { BEATS_MIN };
        self.settings.progress.on_scan(figures);
        if self.snapshot.strong_count() == 0 {
            let snapshot = Arc::new(leases);
            self.snapshot = Arc::downgrade(&snapshot);
            self.send(LeaseEvent::Snapshot(snapshot));
        }
        Ok(())
    }

    /// Renews the first lease, and those that are due. Returns true if another worker may have woken this one.
    async fn renew(&mut self) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut renewals = Vec::new();
        for (index, (key, held)) in self.held.iter_mut().enumerate() {
            let since = now.duration_since(held.renewed_at);
            if index > 0 && since < RENEW_ALL_EVERY {
                continue;
            }
            held.throughput = self.settings.throughput.measure(key, since, held.throughput);
            renewals.push(Renewal { key: key.clone(), counter: held.counter, throughput: held.throughput });
        }
        if renewals.is_empty() {
            return Ok(false);
        }
        let outcomes = self.settings.store.renew(&self.settings.me, &renewals).await?;
        let mut was_woken = false;
        for (Renewal { key, .. }, outcome) in renewals.into_iter().zip(outcomes) {
            match outcome {
                RenewalOutcome::Renewed { counter } => self.on_renewed(&key, counter, now),
                RenewalOutcome::CounterAt { counter } => {
                    // Either the reply to a renewal was lost, or another worker renewed the lease to wake this one.
                    was_woken = true;
                    self.on_renewed(&key, counter, now);
                }
                RenewalOutcome::HandOffAsked { counter, .. } => {
                    self.on_renewed(&key, counter, now);
                    self.on_requested(key);
                }
                RenewalOutcome::Lost => self.on_lost(key),
            }
        }
        Ok(was_woken)
    }

    fn on_renewed(&mut self, key: &ShardKey, counter: u64, now: Instant) {
        if let Some(held) = self.held.get_mut(key) {
            (held.counter, held.renewed_at) = (counter, now);
        }
    }

    fn on_requested(&mut self, key: ShardKey) {
        if self.requested_by_others.insert(key.clone()) {
            self.send(LeaseEvent::Requested(key));
        }
    }

    fn on_lost(&mut self, key: ShardKey) {
        self.held.remove(&key);
        self.requested_by_others.remove(&key);
        self.send(LeaseEvent::Lost(key));
    }

    fn on_gained(&mut self, lease: Lease) {
        let held = HeldLease { counter: lease.counter, renewed_at: Instant::now(), throughput: lease.throughput };
        self.settings.throughput.reset(&lease.key);
        self.held.insert(lease.key.clone(), held);
        self.peers.forget(&lease.key);
        self.requested_from_others.remove(&lease.key);
        self.send(LeaseEvent::Gained(Box::new(lease)));
    }

    /// Compares the leases that are held with the rows, because few of them are renewed often.
    fn check_held(&mut self, leases: &[Lease]) {
        let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
        let held: Vec<ShardKey> = self.held.keys().cloned().collect();
        for key in held {
            match by_key.get(&key).map(|lease| &lease.holder) {
                Some(Holder::Held(owner)) if *owner == self.settings.me => {}
                Some(Holder::HandingOver { from, .. }) if *from == self.settings.me => self.on_requested(key),
                _ => self.on_lost(key),
            }
        }
    }

    /// Takes free leases and requests missing ones. Returns all leases as they are now.
    async fn take_and_request(
        &mut self,
        leases: Vec<Lease>,
        dead: &HashSet<LeaseOwner>,
    ) -> Result<Vec<Lease>, StoreError> {
        let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
        self.abandoned.retain(|_, at| at.elapsed() < REMEMBER_ABANDONED_FOR);
        let active: Vec<&Lease> =
            leases.iter().filter(|lease| is_ready(lease, &by_key) && !self.is_left_to_others(lease, dead)).collect();
        let Plan { mut take, ask } = rebalance(&self.settings.me, &active, dead);
        take.truncate(self.held.len() + TAKEN_AT_FIRST);
        // A coordinator that has not even handled the last snapshot waits for a service, probably like those of the other workers.
        // What it is given it could not read, and taking it from a holder that waits as well would cost that one its epoch.
        let is_busy = self.snapshot.strong_count() > 0;
        self.free_since.retain(|key, _| by_key.get(key).is_some_and(|lease| lease.holder == Holder::Nobody));
        for lease in &active {
            let (is_free, is_overdue) = (self.is_free_for_long(lease), self.is_overdue(lease));
            let is_left = is_free || (is_overdue && !is_busy);
            if is_left && !take.contains(&lease.key) {
                take.push(lease.key.clone());
            }
            // It was handed over to this worker, or taken by a request whose reply was lost.
            let is_mine = self.is_mine(lease) && !self.requested_by_others.contains(&lease.key);
            if is_mine && !self.held.contains_key(&lease.key) {
                self.on_gained((*lease).clone());
            }
        }
        let taken = self.take(take.iter().map(|key| by_key[key])).await?;
        if !is_busy && !ask.is_empty() && self.last_request_at.is_none_or(|at| at.elapsed() >= self.settings.failover) {
            self.request(ask).await?;
        }
        let mut taken: HashMap<ShardKey, Lease> = taken.into_iter().map(|lease| (lease.key.clone(), lease)).collect();
        Ok(leases.into_iter().map(|lease| taken.remove(&lease.key).unwrap_or(lease)).collect())
    }

    /// Whether this worker could not read the shard, and others are to try first: while one of them holds it, or for a while.
    fn is_left_to_others(&self, lease: &Lease, dead: &HashSet<LeaseOwner>) -> bool {
        let Some(at) = self.abandoned.get(&lease.key).filter(|_| !self.is_mine(lease)) else { return false };
        let rest = RETRY_ABANDONED_AFTER.max(self.settings.failover * RETRY_ABANDONED_FAILOVERS);
        let is_held = lease.holder.committer().is_some_and(|owner| !dead.contains(owner));
        is_held || at.elapsed() < rest
    }

    /// Whether nobody has taken the lease for so long that the balance does not count.
    fn is_free_for_long(&mut self, lease: &Lease) -> bool {
        if lease.holder != Holder::Nobody {
            return false;
        }
        let since = self.free_since.entry(lease.key.clone()).or_insert_with(Instant::now);
        since.elapsed() >= self.settings.failover * TAKE_FREE_FAILOVERS
    }

    /// Takes leases, several at once. Returns those that this worker holds now.
    async fn take(&mut self, leases: impl Iterator<Item = &Lease>) -> Result<Vec<Lease>, StoreError> {
        let LeaseManagerSettings { me, store, .. } = &self.settings;
        let requests: Vec<_> = leases.map(|lease| store.take(me, &lease.key, lease.counter)).collect();
        let outcomes: Vec<_> = futures::stream::iter(requests).buffer_unordered(REQUESTS).collect().await;
        let (mut taken, mut failure) = (Vec::new(), None);
        for outcome in outcomes {
            match outcome {
                Ok(Some(lease)) => {
                    self.on_gained(lease.clone());
                    taken.push(lease);
                }
                Ok(None) => {}
                // If it took effect although it failed, the next scan finds it.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(taken), Err)
    }

    /// Asks the holders for leases.
    async fn request(&mut self, leases: Vec<(ShardKey, LeaseOwner)>) -> Result<(), StoreError> {
        self.last_request_at = Some(Instant::now());
        let LeaseManagerSettings { me, store, .. } = &self.settings;
        let requests: Vec<_> = leases.iter().map(|(key, owner)| store.ask(me, key, owner)).collect();
        let outcomes: Vec<_> = futures::stream::iter(requests).buffered(REQUESTS).collect().await;
        for ((key, _), outcome) in leases.into_iter().zip(outcomes) {
            if outcome? {
                self.requested_from_others.insert(key, Instant::now());
            }
        }
        Ok(())
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        lease.holder.is(&self.settings.me)
    }

    /// Whether a lease that this worker asked for should have been handed over by now.
    fn is_overdue(&mut self, lease: &Lease) -> bool {
        if !matches!(&lease.holder, Holder::HandingOver { to, .. } if *to == self.settings.me) {
            self.requested_from_others.remove(&lease.key);
            return false;
        }
        let requested_at = self.requested_from_others.entry(lease.key.clone()).or_insert_with(Instant::now);
        requested_at.elapsed() >= self.settings.hand_off
    }

    /// Releases leases, several at once: many are requested when a worker joins, and nothing is renewed meanwhile.
    async fn release(&mut self, keys: &[ShardKey]) {
        for key in keys {
            self.held.remove(key);
            self.discovery.list_next(&key.stream);
        }
        let LeaseManagerSettings { me, store, .. } = &self.settings;
        let requests: Vec<_> = keys.iter().map(|key| store.release(me, key)).collect();
        let outcomes: Vec<_> = futures::stream::iter(requests).buffered(REQUESTS).collect().await;
        for (key, outcome) in keys.iter().zip(outcomes) {
            // If the lease was requested, it stays in `requested_by_others`: the next scan releases it again, and does not
            // mistake it for one that was just gained.
            if let Err(error) = outcome {
                tracing::warn!(stream = %key.stream, shard = %key.shard, %error, "failed to release lease");
            } else {
                self.requested_by_others.remove(key);
            }
        }
    }

    /// Releases leases again that were requested and released, but whose rows still show this worker: a request was lost.
    async fn release_again(&mut self, leases: &[Lease]) -> Result<(), StoreError> {
        let held = &self.held;
        let left: Vec<ShardKey> =
            self.requested_by_others.iter().filter(|key| !held.contains_key(*key)).cloned().collect();
        for key in left {
            if leases.iter().any(|lease| lease.key == key && self.is_mine(lease)) {
                self.settings.store.release(&self.settings.me, &key).await?;
            }
            self.requested_by_others.remove(&key);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
