//! Freeing a lease by hand.
//!
//! [`release`] asks the holder, which commits what it has open and hands the lease over. [`evict`] takes the lease away. The next
//! holder then reads again what the old one had not committed. Neither loses or duplicates a record, because a worker
//! that has lost its lease cannot commit.

use std::time::Duration;

use checkpoints::{Holder, Lease, LeaseOwner, LeaseStore, ShardKey, StoreError};
use tokio::time::Instant;

/// How long a holder may take to hand over a lease: it commits first.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(60);
/// How often the row is read meanwhile.
const READ_EVERY: Duration = Duration::from_millis(250);
/// How often taking a lease is tried: a holder that is alive changes the counter meanwhile.
const ATTEMPTS: u32 = 10;

/// Whether the lease was held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freed {
    /// Nobody held it.
    WasFree,
    /// It was held by this one, and is free now.
    From(Holder),
}

/// A lease that could not be freed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreeLeaseError {
    /// The lease store failed.
    #[error(transparent)]
    Leases(#[from] StoreError),
    /// Another worker has asked for it.
    #[error("{key} is already being handed over from {from} to {to}; wait, or evict it")]
    HandingOver {
        /// The shard.
        key: ShardKey,
        /// The holder.
        from: LeaseOwner,
        /// The worker that asked.
        to: LeaseOwner,
    },
    /// The holder changed before it could be asked.
    #[error("the holder of {key} has just changed; try again")]
    Changed {
        /// The shard.
        key: ShardKey,
    },
    /// Another worker took it.
    #[error("another worker took {key} meanwhile")]
    Taken {
        /// The shard.
        key: ShardKey,
    },
    /// The holder does not answer.
    #[error(
        "{holder} did not hand over {key} within {} s; if it is dead, shardlake leases evict takes the lease away",
        HAND_OVER_WITHIN.as_secs()
    )]
    Overdue {
        /// The holder.
        holder: LeaseOwner,
        /// The shard.
        key: ShardKey,
    },
    /// Its counter changed in every attempt, or its row is gone.
    #[error("{key} could not be taken: its counter changes too often, or its row is gone; try again")]
    NotTaken {
        /// The shard.
        key: ShardKey,
    },
}

/// Asks the holder of a lease to hand it over to `me`, waits for that, and frees the lease.
///
/// # Errors
/// It was not handed over.
pub async fn release(store: &dyn LeaseStore, me: &LeaseOwner, lease: Lease) -> Result<Freed, FreeLeaseError> {
    let key = lease.key;
    let holder = match lease.holder {
        Holder::Nobody => return Ok(Freed::WasFree),
        Holder::HandingOver { from, to } => return Err(FreeLeaseError::HandingOver { key, from, to }),
        Holder::Held(owner) => owner,
    };
    if !store.ask(me, &key, &holder).await? {
        return Err(FreeLeaseError::Changed { key });
    }
    let deadline = Instant::now() + HAND_OVER_WITHIN;
    while Instant::now() < deadline {
        tokio::time::sleep(READ_EVERY).await;
        let row = store.get(std::slice::from_ref(&key)).await?.pop().flatten();
        match row.map(|row| row.holder) {
            Some(Holder::HandingOver { to, .. }) if to == *me => {}
            Some(Holder::Held(owner)) if owner == *me => {
                store.release(me, &key).await?;
                return Ok(Freed::From(Holder::Held(holder)));
            }
            _ => return Err(FreeLeaseError::Taken { key }),
        }
    }
    Err(FreeLeaseError::Overdue { holder, key })
}

/// Takes a lease from its holder, dead or alive, and frees it.
///
/// # Errors
/// It could not be taken.
pub async fn evict(store: &dyn LeaseStore, me: &LeaseOwner, lease: Lease) -> Result<Freed, FreeLeaseError> {
    let key = lease.key;
    if lease.holder == Holder::Nobody {
        return Ok(Freed::WasFree);
    }
    let mut counter = lease.counter;
    for _ in 0..ATTEMPTS {
        if store.take(me, &key, counter).await?.is_some() {
            store.release(me, &key).await?;
            return Ok(Freed::From(lease.holder));
        }
        let Some(row) = store.get(std::slice::from_ref(&key)).await?.pop().flatten() else { break };
        counter = row.counter;
    }
    Err(FreeLeaseError::NotTaken { key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{MemoryStore, NewLease, Position, ShardId, StreamName};

    fn owner(name: &str) -> LeaseOwner {
        LeaseOwner::new(name).unwrap()
    }

    async fn held_by(holder: &LeaseOwner) -> (MemoryStore, Lease) {
        let store = MemoryStore::new();
        let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("a").unwrap());
        store.create(&[NewLease::new(key.clone(), Position::Beginning)]).await.unwrap();
        let lease = store.take(holder, &key, 0).await.unwrap().unwrap();
        (store, lease)
    }

    async fn row(store: &MemoryStore) -> Lease {
        store.list().await.unwrap().remove(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_is_handed_over_by_its_holder_and_then_free() {
        let (me, holder) = (owner("operator"), owner("w"));
        let (store, lease) = held_by(&holder).await;
        let key = lease.key.clone();
        let hand_over = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(store.hand_over(&holder, &key).await.unwrap());
        };
        let (freed, ()) = tokio::join!(release(&store, &me, lease), hand_over);
        assert_eq!(freed, Ok(Freed::From(Holder::Held(holder.clone()))));
        let lease = row(&store).await;
        assert_eq!(lease.holder, Holder::Nobody);
        assert_eq!(release(&store, &me, lease).await, Ok(Freed::WasFree));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_does_not_answer_keeps_its_lease_until_it_is_evicted() {
        let (me, holder) = (owner("operator"), owner("w"));
        let (store, lease) = held_by(&holder).await;
        let error = release(&store, &me, lease.clone()).await.unwrap_err();
        assert!(error.to_string().contains("did not hand over shard a of stream orders within 60 s"), "{error}");
        let asked = row(&store).await;
        assert!(matches!(release(&store, &me, asked.clone()).await, Err(FreeLeaseError::HandingOver { .. })));
        // The counter in hand is old, as of a holder that is alive.
        let old = Lease { counter: lease.counter.wrapping_sub(1), ..asked.clone() };
        assert_eq!(evict(&store, &me, old).await, Ok(Freed::From(asked.holder)));
        assert_eq!(row(&store).await.holder, Holder::Nobody);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_another_worker_takes_meanwhile_is_left_to_it() {
        let (me, holder, other) = (owner("operator"), owner("w"), owner("x"));
        let (store, lease) = held_by(&holder).await;
        let key = lease.key.clone();
        let take = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let counter = row(&store).await.counter;
            store.take(&other, &key, counter).await.unwrap().unwrap();
        };
        let (freed, ()) = tokio::join!(release(&store, &me, lease.clone()), take);
        assert_eq!(freed, Err(FreeLeaseError::Taken { key: lease.key.clone() }));
        assert!(matches!(release(&store, &me, lease).await, Err(FreeLeaseError::Changed { .. })));
    }
}
