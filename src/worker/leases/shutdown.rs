//! The end of a worker: it lets everything go, calls back what it asked for, and tells the others.
//!
//! Owns: what the keeper does last. Does not own: that nothing is open any more by then (the coordinator). All of it only
//! saves the others the failover time: a worker that is killed does none of it.
//!
//! 1. Leases that are held are released.
//! 2. Leases that others were asked for are given back to them, since they would be handed over to nobody; those that were
//!    handed over meanwhile are released.
//! 3. Where requests cost money, so that nobody looks often, it *rings*: it renews the first lease of every other worker in
//!    that worker's name. The other finds its counter moved by somebody else, and looks at once. So what was let go is taken
//!    up within a beat.

use std::collections::BTreeMap;

use checkpoints::{Holder, Lease, LeaseOwner, Renewal, RenewalOutcome, ShardKey, StoreError};
use futures::StreamExt;

use crate::worker::leases::manager::{LeaseManager, REQUESTS};

/// How often leases that were asked for are looked for: one may be handed over between the look and the giving back.
const LOOKS: usize = 3;

impl LeaseManager {
    pub(super) async fn stop(&mut self) {
        let held: Vec<ShardKey> = std::mem::take(&mut self.state.held).into_keys().collect();
        let mut releases = Vec::new();
        for key in &held {
            releases.push(self.store.release(&self.me, key));
        }
        let outcomes: Vec<_> = futures::stream::iter(releases).buffered(REQUESTS).collect().await;
        for (key, outcome) in held.iter().zip(outcomes) {
            if let Err(error) = outcome {
                tracing::warn!(%key, %error, "a lease was not let go");
            }
        }
        if let Err(error) = self.call_back().await {
            tracing::warn!(%error, "leases that were asked for may come to this worker, which has ended");
        }
        if !held.is_empty() && self.store.is_metered() {
            // Only a help: those who are not rung look by themselves.
            if let Err(error) = self.ring().await {
                tracing::debug!(%error, "the others were not told");
            }
        }
        if let Err(error) = self.store.deregister(&self.me).await {
            tracing::warn!(%error, "this worker was not signed off");
        }
    }

    /// Gives back what others were asked for, to them.
    async fn call_back(&self) -> Result<(), StoreError> {
        for _ in 0..LOOKS {
            let mut is_settled = true;
            for Lease { key, holder, counter, .. } in self.store.list().await? {
                is_settled &= match &holder {
                    Holder::Held(owner) if *owner == self.me => self.store.release(&self.me, &key).await?,
                    // What is left by one that is dead is taken anyhow.
                    Holder::HandingOver { from, to } if *to == self.me && !self.may_be_dead(from) => {
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

    /// Whether a worker has been silent for so long that nothing may be done in its name: it would look alive.
    fn may_be_dead(&self, owner: &LeaseOwner) -> bool {
        self.state.quiet_since.get(owner).is_some_and(|since| since.elapsed() >= self.failover / 2)
    }

    /// Has every other worker look at once.
    async fn ring(&self) -> Result<(), StoreError> {
        let leases = self.store.list().await?;
        let mut first: BTreeMap<LeaseOwner, Renewal> = BTreeMap::new();
        for Lease { key, holder, counter, throughput, .. } in leases {
            let Some(owner) = holder.committer().filter(|owner| **owner != self.me) else { continue };
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
