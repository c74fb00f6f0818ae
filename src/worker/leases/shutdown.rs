//! The end of a worker's leases: it releases what it holds, returns what it asked for, and wakes its peers.
//!
//! Owns: the last steps of the lease manager. Does not own: that no epoch is open any more by then (the coordinator). All
//! steps only save the peers the failover time: a worker that is killed does none of them.
//!
//! 1. Release the leases that are held.
//! 2. Return the leases that this worker asked others for: a hand-over would go to a worker that has ended. Release those
//!    that were handed over meanwhile.
//! 3. Where requests cost money, so that nobody scans often, wake the peers: renew the first lease of every other worker of the
//!    same streams in that worker's name. The peer finds a counter that it did not write, and scans at once. So another worker
//!    takes the released leases within a beat. Rows of other streams are left alone: their holders have nothing to take.
//! 4. Deregister the worker.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use checkpoints::{Holder, Lease, LeaseOwner, LeaseStore, Renewal, RenewalOutcome, ShardKey, StoreError, StreamName};
use futures::StreamExt;

use crate::worker::leases::peers::Peers;

/// Requests that are in flight at once, also while the leases are renewed.
pub(super) const REQUESTS: usize = 16;
/// Scans for leases that this worker asked for: one may be handed over between a scan and its return.
const SCANS_MAX: usize = 3;

/// A worker that is shutting down.
pub(super) struct Shutdown<'m> {
    pub(super) me: &'m LeaseOwner,
    pub(super) store: &'m dyn LeaseStore,
    pub(super) failover: Duration,
    pub(super) peers: &'m Peers,
    /// The streams that this worker reads.
    pub(super) streams: HashSet<StreamName>,
}

impl Shutdown<'_> {
    /// Does all of it. What fails is logged, and left to the other workers.
    pub(super) async fn run(&self, held: Vec<ShardKey>) {
        self.release(&held).await;
        if let Err(error) = self.return_requested_leases().await {
            tracing::warn!(%error, "failed to return requested leases; others take them after the hand-off time");
        }
        if !held.is_empty()
            && self.store.is_metered()
            && let Err(error) = self.wake_peers().await
        {
            tracing::debug!(%error, "failed to wake peers; they will find the leases by their own scans");
        }
        if let Err(error) = self.store.deregister(self.me).await {
            tracing::warn!(%error, "failed to deregister worker");
        }
    }

    async fn release(&self, held: &[ShardKey]) {
        let requests: Vec<_> = held.iter().map(|key| self.store.release(self.me, key)).collect();
        let outcomes: Vec<_> = futures::stream::iter(requests).buffered(REQUESTS).collect().await;
        for (key, outcome) in held.iter().zip(outcomes) {
            if let Err(error) = outcome {
                tracing::warn!(stream = %key.stream, shard = %key.shard, %error, "failed to release lease");
            }
        }
    }

    /// Returns leases that this worker asked for to their holders.
    async fn return_requested_leases(&self) -> Result<(), StoreError> {
        for _ in 0..SCANS_MAX {
            let mut is_settled = true;
            for Lease { key, holder, counter, .. } in self.store.list().await? {
                is_settled &= match &holder {
                    Holder::Held(owner) if owner == self.me => self.store.release(self.me, &key).await?,
                    // Others take the leases of a dead holder anyway.
                    Holder::HandingOver { from, to } if to == self.me && !self.may_be_dead(from) => {
                        self.store.take(from, &key, counter).await?.is_some()
                    }
                    _ => true,
                };
            }
            if is_settled {
                break;
            }
        }
        Ok(())
    }

    /// Whether a worker has been silent for so long that nothing may be done in its name: that would make it look alive.
    fn may_be_dead(&self, owner: &LeaseOwner) -> bool {
        self.peers.is_quiet_for(owner, self.failover / 2)
    }

    /// Makes every other worker scan at once.
    async fn wake_peers(&self) -> Result<(), StoreError> {
        let leases = self.store.list().await?;
        let mut first: BTreeMap<LeaseOwner, Renewal> = BTreeMap::new();
        for Lease { key, holder, counter, throughput, .. } in leases {
            if !self.streams.contains(&key.stream) {
                continue;
            }
            let Some(owner) = holder.committer().filter(|owner| *owner != self.me) else { continue };
            first.entry(owner.clone()).or_insert(Renewal { key, counter, throughput });
        }
        for (owner, mut renewal) in first {
            if self.may_be_dead(&owner) {
                continue;
            }
            let outcomes = self.store.renew(&owner, std::slice::from_ref(&renewal)).await?;
            if let Some(RenewalOutcome::CounterAt { counter }) = outcomes.first() {
                renewal.counter = *counter;
                self.store.renew(&owner, &[renewal]).await?;
            }
        }
        Ok(())
    }
}
