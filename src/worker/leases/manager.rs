//! The keeper of the worker's leases: shows that it is alive, finds new leases, asks others for a share, and lets go.
//!
//! Owns: which leases this worker holds, and when it looks at all of them. Does not own: which rows there are (`sync`), the
//! judgement which it should hold (`shares`), what is done with them (the coordinator), what is done at the end
//! (`farewell`), the conditional writes (the checkpoints crate).
//!
//! A worker is alive while the counter of *any* lease of its moves; so it renews one of them, the first by key, at every
//! beat, and each of the others once a minute, with what it measured of the shard. That costs a request a beat and not one
//! a shard. A worker counts as dead when none of its counters has moved for the failover time by the judge's own clock, or at
//! once when the store knows that its process has ended. Nobody is torn from a live holder: it is asked, ends its epoch, and
//! hands over; only one that does not answer for the hand-off time is overruled.
//!
//! A look at a large table takes several requests, and shows rows as they are at several times: a child's, and not yet its
//! parent's, though that was made before it. So a parent that a look does not show is asked for by its key, once.
//!
//! Where requests cost money, a beat renews and the next one looks, in turn. A worker that ends rings (`farewell`): the others
//! find a counter moved by somebody else, and look at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{
    Holder, Lease, LeaseOwner, LeaseStore, Renewal, RenewalOutcome, ShardKey, StoreError, StreamName, ThroughputKbps,
};
use futures::StreamExt;
use mutations::mutated;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::source::ShardSource;
use crate::worker::leases::balance::{Plan, is_ready, plan};

/// How often each lease is renewed, with its throughput, beside the one that shows that the worker is alive.
const RENEW_ALL_EVERY: Duration = Duration::from_secs(60);

/// The longest time between two beats.
const BEAT_MAX: Duration = Duration::from_millis(1500);
/// Requests that are under way at once.
pub(super) const REQUESTS: usize = 16;
/// When a worker takes a shard again that it could not read on.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// How often it is logged that the leases can't be looked after.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// How long the leases may go unlooked after before the worker ends: others have had them long since.
const GIVE_UP: Duration = Duration::from_secs(300);

/// What the keeper tells the coordinator.
#[derive(Debug)]
pub(crate) enum LeaseEvent {
    /// A lease is ours now.
    Gained(Box<Lease>),
    /// A lease is ours no more.
    Lost(ShardKey),
    /// Another worker asks for a lease: commit, then let it go.
    Asked(ShardKey),
    /// All leases, as they were just read, after every command given before was carried out.
    Snapshot(Vec<Lease>),
    /// The keeper can't go on.
    Failed(StoreError),
}

/// What the coordinator tells the keeper.
#[derive(Debug)]
pub(crate) enum LeaseCommand {
    /// Hand over, or release, a lease that nothing is open for any more.
    LetGo(ShardKey),
    /// The same for one whose shard can't be read on: others may try, and this worker later.
    GiveUp(ShardKey),
    /// The row says that a lease is not ours, and its shard is not read any more. Should it be ours again by the next look,
    /// it was gained.
    NotOurs(ShardKey),
    /// Look at the leases now.
    Look,
    /// Let everything go, and end.
    Stop,
}

/// All that the keeper needs.
pub(crate) struct LeaseManager {
    pub(crate) me: LeaseOwner,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) sources: Vec<Arc<dyn ShardSource>>,
    pub(crate) failover: Duration,
    pub(crate) hand_off: Duration,
    pub(crate) throughput: Arc<Throughput>,
    pub(crate) coordinator: mpsc::UnboundedSender<LeaseEvent>,
    pub(crate) state: LeaseManagerState,
}

/// Bytes read of each shard since they were last asked for.
#[derive(Debug, Default)]
pub(crate) struct Throughput(Mutex<HashMap<ShardKey, u64>>);

impl Throughput {
    /// More was read of a shard.
    pub(crate) fn add(&self, key: &ShardKey, bytes: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(key) {
            Some(count) => *count += bytes,
            None => drop(counts.insert(key.clone(), bytes)),
        }
    }

    fn take(&self, key: &ShardKey) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or(0)
    }
}

/// A lease that is held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    counter: u64,
    renewed: Instant,
    throughput: ThroughputKbps,
}

/// What the keeper remembers.
#[derive(Debug, Default)]
pub(crate) struct LeaseManagerState {
    pub(super) held: BTreeMap<ShardKey, Held>,
    asked_of_us: BTreeSet<ShardKey>,
    /// The counter of each lease of others, as it was last seen.
    seen: HashMap<ShardKey, u64>,
    /// Since when none of a worker's counters has moved.
    pub(super) quiet_since: HashMap<LeaseOwner, Instant>,
    /// Leases that we asked for, and when.
    asked_by_us: HashMap<ShardKey, Instant>,
    asked_at: Option<Instant>,
    /// When each source's shards were last listed, and which it had.
    pub(super) synced: HashMap<StreamName, Instant>,
    /// Rows whose shards their streams did not list any more, the last time.
    pub(super) forgotten: HashSet<ShardKey>,
    /// Parents that have no row: asked for by their keys, after a child's row had been seen.
    absent_parents: HashSet<ShardKey>,
    failing_since: Option<Instant>,
    /// When that was last logged.
    failing_told: Option<Instant>,
    /// Leases that were given up, and when.
    given_up: HashMap<ShardKey, Instant>,
}

impl LeaseManager {
    /// Keeps the leases until told to stop.
    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<LeaseCommand>) {
        let metered = self.store.is_metered();
        let mut ticks = tokio::time::interval((self.failover / 7).min(BEAT_MAX));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = 0_u64;
        loop {
            // Commands first: what is to be let go must not be renewed.
            let command = tokio::select! {
                biased;
                command = commands.recv() => command,
                _ = ticks.tick() => {
                    beats += 1;
                    let (renews, looks) = match metered {
                        // One that holds nothing has nothing to renew, and may be waited for.
                        true if !self.state.held.is_empty() => (beats.is_multiple_of(2), !beats.is_multiple_of(2)),
                        _ => (true, true),
                    };
                    if !self.beat(renews, looks).await {
                        return;
                    }
                    continue;
                }
            };
            match command {
                Some(LeaseCommand::Look) => {
                    if !self.beat(false, true).await {
                        return;
                    }
                }
                Some(LeaseCommand::LetGo(key)) => self.let_go(&key).await,
                Some(LeaseCommand::GiveUp(key)) => {
                    self.let_go(&key).await;
                    self.state.given_up.insert(key, Instant::now());
                }
                Some(LeaseCommand::NotOurs(key)) => drop(self.state.held.remove(&key)),
                Some(LeaseCommand::Stop) | None => {
                    self.stop().await;
                    return;
                }
            }
        }
    }

    fn tell(&self, what: LeaseEvent) {
        // A coordinator that is gone needs to know nothing.
        let _ = self.coordinator.send(what);
    }

    /// Renews, or looks at everything, or both; `false` if the keeper can't go on.
    async fn beat(&mut self, renews: bool, looks: bool) -> bool {
        let rung = if renews { self.renew().await } else { Ok(false) };
        let result = match rung {
            Ok(rung) if looks || rung => self.look().await,
            other => other.map(drop),
        };
        match result {
            Ok(()) => {
                (self.state.failing_since, self.state.failing_told) = (None, None);
                true
            }
            Err(error) if error.is_retryable() && !self.has_failed_too_long() => {
                // Others may take our leases meanwhile; every commit is conditional on holding them.
                let since = *self.state.failing_since.get_or_insert_with(Instant::now);
                // A beat comes several times a second.
                if self.state.failing_told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                    self.state.failing_told = Some(Instant::now());
                    tracing::warn!(%error, failing_s = since.elapsed().as_secs(), "the leases can't be looked after");
                }
                true
            }
            Err(error) => {
                self.tell(LeaseEvent::Failed(error));
                false
            }
        }
    }

    fn has_failed_too_long(&self) -> bool {
        self.state.failing_since.is_some_and(|since| since.elapsed() >= GIVE_UP)
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let streams: HashSet<_> = self.sources.iter().map(|source| source.stream().clone()).collect();
        let mut leases = self.store.list().await?;
        leases.retain(|lease| streams.contains(&lease.key.stream));
        if self.sync_shards(&leases).await? {
            leases = self.store.list().await?;
            leases.retain(|lease| streams.contains(&lease.key.stream));
        }
        self.add_parents_not_shown(&mut leases).await?;
        self.check_held(&leases);
        self.let_go_again(&leases).await?;
        let dead = self.find_dead(&leases).await?;
        let leases = self.share_out(leases, &dead).await?;
        self.tell(LeaseEvent::Snapshot(leases));
        Ok(())
    }

    /// Adds the rows of parents of shards that nobody has read yet, and of their parents, as far as the look did not show them.
    /// Parents' rows are made before their children's, and removed only once these are read; so one that is not there now,
    /// with the child's row seen before, is done.
    async fn add_parents_not_shown(&mut self, leases: &mut Vec<Lease>) -> Result<(), StoreError> {
        while !mutated!(TrustScans) {
            let shown: HashSet<&ShardKey> = leases.iter().map(|lease| &lease.key).collect();
            let unread = leases.iter().filter(|lease| lease.checkpoint.is_start());
            let parents = unread.flat_map(Lease::parent_keys);
            let not_shown: BTreeSet<ShardKey> = parents.filter(|parent| !shown.contains(parent)).collect();
            self.state.absent_parents.retain(|parent| not_shown.contains(parent));
            let asked: Vec<ShardKey> =
                not_shown.into_iter().filter(|parent| !self.state.absent_parents.contains(parent)).collect();
            if asked.is_empty() {
                break;
            }
            let rows = self.store.get(&asked).await?;
            let absent = asked.into_iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(parent, _)| parent);
            self.state.absent_parents.extend(absent);
            leases.extend(rows.into_iter().flatten());
        }
        Ok(())
    }

    /// Renews the first lease, and those whose turn it is. Answers whether somebody rang.
    async fn renew(&mut self) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut renewals = Vec::new();
        for (place, (key, held)) in self.state.held.iter_mut().enumerate() {
            let since = now.duration_since(held.renewed);
            if place > 0 && since < RENEW_ALL_EVERY {
                continue;
            }
            // As KCL does it: a moving mean with a weight of one half.
            let kbps = kbps(self.throughput.take(key), since);
            held.throughput = ThroughputKbps::new(f64::midpoint(held.throughput.get(), kbps));
            renewals.push(Renewal { key: key.clone(), counter: held.counter, throughput: held.throughput });
        }
        if renewals.is_empty() {
            return Ok(false);
        }
        let outcomes = self.store.renew(&self.me, &renewals).await?;
        let mut rung = false;
        for (Renewal { key, .. }, outcome) in renewals.into_iter().zip(outcomes) {
            match outcome {
                RenewalOutcome::Renewed { counter } => self.renewed(&key, counter, now),
                RenewalOutcome::CounterAt { counter } => {
                    // A lost reply, or a bell: either is a reason to look.
                    rung = true;
                    self.renewed(&key, counter, now);
                }
                RenewalOutcome::HandOffAsked { counter, .. } => {
                    self.renewed(&key, counter, now);
                    self.hear_asked(key);
                }
                RenewalOutcome::Lost => self.lose(key),
            }
        }
        Ok(rung)
    }

    fn renewed(&mut self, key: &ShardKey, counter: u64, now: Instant) {
        if let Some(held) = self.state.held.get_mut(key) {
            (held.counter, held.renewed) = (counter, now);
        }
    }

    fn hear_asked(&mut self, key: ShardKey) {
        if self.state.asked_of_us.insert(key.clone()) {
            self.tell(LeaseEvent::Asked(key));
        }
    }

    fn lose(&mut self, key: ShardKey) {
        self.state.held.remove(&key);
        self.state.asked_of_us.remove(&key);
        self.tell(LeaseEvent::Lost(key));
    }

    /// Compares what is held with the rows: not every lease is renewed often.
    fn check_held(&mut self, leases: &[Lease]) {
        let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
        let held: Vec<ShardKey> = self.state.held.keys().cloned().collect();
        for key in held {
            match by_key.get(&key).map(|lease| &lease.holder) {
                Some(Holder::Held(owner)) if *owner == self.me => {}
                Some(Holder::HandingOver { from, .. }) if *from == self.me => self.hear_asked(key),
                _ => self.lose(key),
            }
        }
    }

    /// The workers that count as dead.
    async fn find_dead(&mut self, leases: &[Lease]) -> Result<HashSet<LeaseOwner>, StoreError> {
        let now = Instant::now();
        let mut owners: BTreeSet<LeaseOwner> = BTreeSet::new();
        for lease in leases {
            let Some(owner) = lease.holder.committer().filter(|owner| **owner != self.me) else {
                self.state.seen.remove(&lease.key);
                continue;
            };
            let moved = self.state.seen.insert(lease.key.clone(), lease.counter) != Some(lease.counter);
            let quiet_since = self.state.quiet_since.entry(owner.clone()).or_insert(now);
            if moved {
                *quiet_since = now;
            }
            owners.insert(owner.clone());
        }
        self.state.quiet_since.retain(|owner, _| owners.contains(owner));
        let mut dead = HashSet::new();
        for owner in owners {
            let quiet = now.duration_since(self.state.quiet_since[&owner]) >= self.failover;
            if quiet || self.store.owner_is_gone(&owner).await? {
                dead.insert(owner);
            }
        }
        Ok(dead)
    }

    /// Takes what is free, asks for what is missing. Gives all leases as they are now.
    async fn share_out(&mut self, leases: Vec<Lease>, dead: &HashSet<LeaseOwner>) -> Result<Vec<Lease>, StoreError> {
        let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
        self.state.given_up.retain(|_, at| at.elapsed() < TRY_AGAIN);
        // What nobody else takes meanwhile, this worker tries again.
        let given_up = |lease: &Lease| self.state.given_up.contains_key(&lease.key) && !lease.holder.is(&self.me);
        let active: Vec<&Lease> = leases.iter().filter(|lease| is_ready(lease, &by_key) && !given_up(lease)).collect();
        let Plan { mut take, ask } = plan(&self.me, &active, dead);
        for lease in &active {
            if self.is_overdue(lease) && !take.contains(&lease.key) {
                take.push(lease.key.clone());
            }
            // Handed over to us, or taken in a request whose reply was lost.
            let ours = lease.holder.is(&self.me) && !self.state.asked_of_us.contains(&lease.key);
            if ours && !self.state.held.contains_key(&lease.key) {
                self.gain((*lease).clone());
            }
        }
        let mut changed: HashMap<ShardKey, Lease> = HashMap::new();
        let mut takes = Vec::new();
        for key in &take {
            takes.push(self.store.take(&self.me, key, by_key[key].counter));
        }
        let outcomes: Vec<_> = futures::stream::iter(takes).buffer_unordered(REQUESTS).collect().await;
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(Some(taken)) => {
                    changed.insert(taken.key.clone(), taken.clone());
                    self.gain(taken);
                }
                Ok(None) => {}
                // One that was taken all the same is found at the next look.
                Err(error) => failure = Some(error),
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !ask.is_empty() && self.state.asked_at.is_none_or(|at| at.elapsed() >= self.failover) {
            self.state.asked_at = Some(Instant::now());
            for (key, owner) in ask {
                if self.store.ask(&self.me, &key, &owner).await? {
                    self.state.asked_by_us.insert(key, Instant::now());
                }
            }
        }
        Ok(leases.into_iter().map(|lease| changed.remove(&lease.key).unwrap_or(lease)).collect())
    }

    fn is_coming(&self, lease: &Lease) -> bool {
        matches!(&lease.holder, Holder::HandingOver { to, .. } if *to == self.me)
    }

    /// Whether a lease that we asked for should have been handed over by now.
    fn is_overdue(&mut self, lease: &Lease) -> bool {
        if !self.is_coming(lease) {
            self.state.asked_by_us.remove(&lease.key);
            return false;
        }
        let asked = self.state.asked_by_us.entry(lease.key.clone()).or_insert_with(Instant::now);
        asked.elapsed() >= self.hand_off
    }

    fn gain(&mut self, lease: Lease) {
        let held = Held { counter: lease.counter, renewed: Instant::now(), throughput: lease.throughput };
        self.throughput.take(&lease.key);
        self.state.held.insert(lease.key.clone(), held);
        self.state.seen.remove(&lease.key);
        self.state.asked_by_us.remove(&lease.key);
        self.tell(LeaseEvent::Gained(Box::new(lease)));
    }

    async fn let_go(&mut self, key: &ShardKey) {
        self.state.held.remove(key);
        // Where a shard has ended, others begin.
        self.state.synced.remove(&key.stream);
        // While it is in here, a look does not take the lease for one that was just gained.
        match self.store.release(&self.me, key).await {
            Ok(_) => {
                self.state.asked_of_us.remove(key);
            }
            // It is let go again at the next look, if it was not after all.
            Err(error) => tracing::warn!(%key, %error, "a lease was not let go"),
        }
    }

    /// Lets go of what was asked for and is not held any more, and yet stands there as ours: a request was lost.
    async fn let_go_again(&mut self, leases: &[Lease]) -> Result<(), StoreError> {
        let held = &self.state.held;
        let left: Vec<ShardKey> =
            self.state.asked_of_us.iter().filter(|key| !held.contains_key(*key)).cloned().collect();
        for key in left {
            if leases.iter().any(|lease| lease.key == key && lease.holder.is(&self.me)) {
                self.store.release(&self.me, &key).await?;
            }
            self.state.asked_of_us.remove(&key);
        }
        Ok(())
    }
}

/// Kilobytes a second.
#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn kbps(bytes: u64, since: Duration) -> f64 {
    bytes as f64 / 1e3 / since.as_secs_f64().max(0.1)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
