//! The keeper of the worker's leases: renews them, finds new ones, asks others for a fair share, and lets go.
//!
//! Owns: which leases this worker holds, and the judgement which it should. Does not own: what is done with them (the
//! coordinator), the conditional writes (the checkpoints crate).
//!
//! A holder counts as dead when its counter has not moved for the failover time by this worker's own clock, or at once when
//! the store knows that its process has ended. Nobody is torn from a live holder: it is asked, ends its epoch, and hands
//! over; only one that does not answer for the hand-off time is overruled.
//!
//! The share is equal by count: every worker aims at shards ÷ workers, rounded up for taking, down for asking, so that
//! little moves. A shard is taken only when its parents' ends are committed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{
    Holder, Lease, LeaseOwner, LeaseStore, NewLease, Position, Renewal, RenewalOutcome, ShardKey, StoreError,
    ThroughputKbps,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::source::ShardSource;

/// How often shards of the sources are looked for.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// How long the leases may go unlooked after before the worker ends: others have had them long since.
const GIVE_UP: Duration = Duration::from_secs(300);

/// What the keeper tells the coordinator.
#[derive(Debug)]
pub(crate) enum FromKeeper {
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
pub(crate) enum ToKeeper {
    /// Hand over, or release, a lease that nothing is open for any more.
    LetGo(ShardKey),
    /// Look at the leases now.
    Look,
    /// Let everything go, and end.
    Stop,
}

/// All that the keeper needs.
pub(crate) struct Keeper {
    pub(crate) me: LeaseOwner,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) sources: Vec<Arc<dyn ShardSource>>,
    pub(crate) failover: Duration,
    pub(crate) hand_off: Duration,
    pub(crate) coordinator: mpsc::UnboundedSender<FromKeeper>,
    pub(crate) state: KeeperState,
}

/// What the keeper remembers.
#[derive(Debug, Default)]
pub(crate) struct KeeperState {
    held: BTreeMap<ShardKey, u64>,
    asked_of_us: HashSet<ShardKey>,
    /// For each lease of others, its counter and since when it has been that.
    seen: HashMap<ShardKey, (u64, Instant)>,
    /// Leases that we asked for, and when.
    asked_by_us: HashMap<ShardKey, Instant>,
    synced: Option<Instant>,
    failing_since: Option<Instant>,
}

impl Keeper {
    /// Keeps the leases until told to stop.
    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<ToKeeper>) {
        let every = (self.failover / 3).min(Duration::from_secs(1));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Commands first: what is to be let go must not be renewed.
            let command = tokio::select! {
                biased;
                command = commands.recv() => command,
                _ = ticks.tick() => Some(ToKeeper::Look),
            };
            match command {
                Some(ToKeeper::Look) => {
                    if !self.look().await {
                        return;
                    }
                }
                Some(ToKeeper::LetGo(key)) => self.let_go(&key).await,
                Some(ToKeeper::Stop) | None => {
                    self.stop().await;
                    return;
                }
            }
        }
    }

    fn tell(&self, what: FromKeeper) {
        // A coordinator that is gone needs to know nothing.
        let _ = self.coordinator.send(what);
    }

    /// One look at everything; `false` if the keeper can't go on.
    async fn look(&mut self) -> bool {
        match self.try_look().await {
            Ok(()) => {
                self.state.failing_since = None;
                true
            }
            Err(error) if error.is_retryable() && !self.has_failed_too_long() => {
                // Others may take our leases meanwhile; every commit is conditional on holding them.
                let since = *self.state.failing_since.get_or_insert_with(Instant::now);
                tracing::warn!(%error, failing_s = since.elapsed().as_secs(), "the leases can't be looked after");
                true
            }
            Err(error) => {
                self.tell(FromKeeper::Failed(error));
                false
            }
        }
    }

    fn has_failed_too_long(&self) -> bool {
        self.state.failing_since.is_some_and(|since| since.elapsed() >= GIVE_UP)
    }

    async fn try_look(&mut self) -> Result<(), StoreError> {
        self.renew().await?;
        if self.state.synced.is_none_or(|at| at.elapsed() >= SYNC_EVERY) {
            self.sync_shards().await?;
            self.state.synced = Some(Instant::now());
        }
        let streams: HashSet<_> = self.sources.iter().map(|source| source.stream().clone()).collect();
        let mut leases = self.store.list().await?;
        leases.retain(|lease| streams.contains(&lease.key.stream));
        let dead = self.find_dead(&leases).await?;
        let leases = self.share_out(leases, &dead).await?;
        self.tell(FromKeeper::Snapshot(leases));
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        let renewals: Vec<Renewal> = self
            .state
            .held
            .iter()
            .map(|(key, counter)| Renewal {
                key: key.clone(),
                counter: *counter,
                throughput: ThroughputKbps::default(),
            })
            .collect();
        if renewals.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.renew(&self.me, &renewals).await?;
        for (Renewal { key, .. }, outcome) in renewals.into_iter().zip(outcomes) {
            match outcome {
                RenewalOutcome::Renewed { counter } | RenewalOutcome::CounterAt { counter } => {
                    self.state.held.insert(key, counter);
                }
                RenewalOutcome::HandOffAsked { counter, .. } => {
                    self.state.held.insert(key.clone(), counter);
                    if self.state.asked_of_us.insert(key.clone()) {
                        self.tell(FromKeeper::Asked(key));
                    }
                }
                RenewalOutcome::Lost => {
                    self.state.held.remove(&key);
                    self.state.asked_of_us.remove(&key);
                    self.tell(FromKeeper::Lost(key));
                }
            }
        }
        Ok(())
    }

    /// Makes rows for shards that have none yet.
    async fn sync_shards(&mut self) -> Result<(), StoreError> {
        for source in &self.sources {
            let shards = match source.shards().await {
                Ok(shards) => shards,
                Err(error) => {
                    tracing::warn!(%error, "the shards can't be listed");
                    continue;
                }
            };
            let new: Vec<NewLease> = shards
                .into_iter()
                .map(|shard| {
                    let key = ShardKey::new(source.stream().clone(), shard.id);
                    let mut lease = NewLease::new(key, shard.first);
                    lease.parents = shard.parents.into_iter().collect();
                    lease.hash_range = shard.hash_range;
                    lease
                })
                .collect();
            self.store.create(&new).await?;
        }
        Ok(())
    }

    /// The workers that count as dead.
    async fn find_dead(&mut self, leases: &[Lease]) -> Result<HashSet<LeaseOwner>, StoreError> {
        let now = Instant::now();
        let mut alive: HashSet<LeaseOwner> = HashSet::new();
        let mut dead: HashSet<LeaseOwner> = HashSet::new();
        let mut quiet: HashSet<LeaseOwner> = HashSet::new();
        for lease in leases {
            let Some(owner) = lease.holder.committer().filter(|owner| **owner != self.me) else {
                self.state.seen.remove(&lease.key);
                continue;
            };
            let (counter, since) = self.state.seen.entry(lease.key.clone()).or_insert((lease.counter, now));
            if *counter != lease.counter {
                (*counter, *since) = (lease.counter, now);
                alive.insert(owner.clone());
            } else if now.duration_since(*since) >= self.failover {
                quiet.insert(owner.clone());
            }
            if !dead.contains(owner) && !alive.contains(owner) && self.store.owner_is_gone(owner).await? {
                dead.insert(owner.clone());
            }
        }
        // A worker that renews one of its leases is alive, even if another of them is stuck.
        dead.extend(quiet.into_iter().filter(|owner| !alive.contains(owner)));
        Ok(dead)
    }

    /// Takes what is free, asks for what is missing. Gives all leases as they are now.
    async fn share_out(&mut self, leases: Vec<Lease>, dead: &HashSet<LeaseOwner>) -> Result<Vec<Lease>, StoreError> {
        let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
        let ready = |lease: &Lease| {
            let ended = lease.checkpoint == Position::End && lease.pending.is_none();
            let parents_done = lease.parents.iter().all(|parent| {
                let key = ShardKey::new(lease.key.stream.clone(), parent.clone());
                by_key.get(&key).is_none_or(|row| row.checkpoint == Position::End && row.pending.is_none())
            });
            !ended && parents_done
        };
        let active: Vec<&Lease> = leases.iter().filter(|lease| ready(lease)).collect();
        let mut counts: BTreeMap<LeaseOwner, usize> = BTreeMap::from([(self.me.clone(), 0)]);
        for owner in active.iter().filter_map(|lease| lease.holder.committer()).filter(|owner| !dead.contains(*owner)) {
            *counts.entry(owner.clone()).or_default() += 1;
        }
        let fair_most = active.len().div_ceil(counts.len());
        let fair_least = active.len() / counts.len();
        let mut mine = counts.get(&self.me).copied().unwrap_or(0);
        let mut changed: HashMap<ShardKey, Lease> = HashMap::new();
        for lease in &active {
            let free = match &lease.holder {
                Holder::Nobody => true,
                Holder::Held(owner) => dead.contains(owner),
                Holder::HandingOver { from, .. } => dead.contains(from),
            };
            let overdue = self.is_overdue(lease);
            if lease.holder.is(&self.me) {
                // Handed over to us, or taken in a request whose reply was lost.
                if !self.state.held.contains_key(&lease.key) && !self.state.asked_of_us.contains(&lease.key) {
                    self.gain((*lease).clone());
                }
            } else if ((free && mine < fair_most) || overdue)
                && let Some(taken) = self.store.take(&self.me, &lease.key, lease.counter).await?
            {
                mine += 1;
                changed.insert(taken.key.clone(), taken.clone());
                self.gain(taken);
            }
        }
        let on_the_way = active.iter().filter(|lease| self.is_coming(lease)).count();
        let mut missing = fair_least.saturating_sub(mine + on_the_way);
        for lease in &active {
            let Holder::Held(owner) = &lease.holder else { continue };
            let Some(count) = counts.get_mut(owner).filter(|count| **count > fair_most.max(1)) else { continue };
            if missing == 0 || *owner == self.me {
                continue;
            }
            if self.store.ask(&self.me, &lease.key, owner).await? {
                self.state.asked_by_us.insert(lease.key.clone(), Instant::now());
                *count -= 1;
                missing -= 1;
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
        self.state.held.insert(lease.key.clone(), lease.counter);
        self.state.seen.remove(&lease.key);
        self.state.asked_by_us.remove(&lease.key);
        self.tell(FromKeeper::Gained(Box::new(lease)));
    }

    async fn let_go(&mut self, key: &ShardKey) {
        self.state.held.remove(key);
        // While it is in here, a look does not take the lease for one that was just gained.
        match self.store.release(&self.me, key).await {
            Ok(_) => {
                self.state.asked_of_us.remove(key);
            }
            Err(error) => {
                // It is not renewed any more, so others take it after the failover time.
                tracing::warn!(%key, %error, "a lease was not let go");
            }
        }
    }

    async fn stop(&mut self) {
        for key in std::mem::take(&mut self.state.held).into_keys() {
            if let Err(error) = self.store.release(&self.me, &key).await {
                tracing::warn!(%key, %error, "a lease was not let go");
            }
        }
        if let Err(error) = self.store.deregister(&self.me).await {
            tracing::warn!(%error, "this worker was not signed off");
        }
    }
}
