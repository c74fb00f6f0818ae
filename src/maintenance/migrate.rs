//! Making a lake of the format before into one of this format: its lake log is built from its commit records.
//!
//! Owns: that no worker of an earlier version commits meanwhile or afterwards, and when the lake is declared to be of this format. Does
//! not own: building the log (`commit::lake_log`), the stored form of the format (`lake::identity`).
//!
//! 1. No worker of an earlier version runs: no lease that is held changes its counter within the failover time.
//! 2. `_lake.json` says that the lake is being migrated. From now on workers of earlier versions refuse to start.
//! 3. Again, no worker of an earlier version runs: one may have started meanwhile.
//! 4. All commit records enter the log.
//! 5. `_lake.json` says that the lake has this format.
//!
//! Each step may be repeated, and several workers may migrate a lake at once. After a crash the next worker continues. A worker of an
//! earlier version that is suspended during step 3 is not noticed: stop all workers before.

use std::collections::HashMap;
use std::time::Duration;

use checkpoints::{Holder, Lease, ShardKey};

use crate::commit::{CommitError, Stores, lake_log};
use crate::lake::identity::{self, IdentityError, LakeFormat};

/// A lake that could not be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Lake or lease store failed, or a commit record cannot be read.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// `_lake.json` cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A worker of an earlier version runs.
    #[error(
        "the lake has format {before}, and a worker of an earlier version of shardlake still runs on it: it renews the lease of \
         {shard}. Stop all workers, then start this version again, which converts the lake to format {FORMAT}",
        before = identity::FORMAT_BEFORE, FORMAT = identity::FORMAT
    )]
    OldWorker {
        /// A shard whose lease it holds.
        shard: ShardKey,
    },
}

impl MigrateError {
    /// Whether the user can fix it by calling otherwise, or later.
    pub fn is_usage(&self) -> bool {
        match self {
            MigrateError::Commit(_) | MigrateError::Identity(IdentityError::Lake(_)) => false,
            MigrateError::Identity(_) | MigrateError::OldWorker { .. } => true,
        }
    }

    /// Returns true if the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            MigrateError::Commit(error) => error.is_retryable(),
            MigrateError::Identity(IdentityError::Lake(error)) => error.is_retryable(),
            MigrateError::Identity(_) | MigrateError::OldWorker { .. } => false,
        }
    }
}

/// Migrates the lake, if it has the format before. Returns the number of commit records that entered the log. `failover`: how long a
/// worker may take to renew its leases.
///
/// # Errors
/// A worker of an earlier version runs; lake or lease store fails; a commit record cannot be read. The same call continues.
pub async fn migrate(stores: &Stores, failover: Duration) -> Result<u64, MigrateError> {
    let lake = &*stores.lake;
    loop {
        match identity::format_of(lake).await? {
            LakeFormat::New | LakeFormat::Current => return Ok(0),
            format => {
                if let Some(shard) = renewed_lease(stores, failover).await? {
                    // Another worker of this version may have migrated the lake meanwhile, and be at work.
                    if identity::format_of(lake).await? == LakeFormat::Current {
                        return Ok(0);
                    }
                    return Err(MigrateError::OldWorker { shard });
                }
                if format == LakeFormat::Migrating {
                    break;
                }
                tracing::info!("the lake has format {}; building its lake log", identity::FORMAT_BEFORE);
                identity::begin_migration(lake).await?;
            }
        }
    }
    let entered = lake_log::build(stores).await?;
    identity::end_migration(lake).await?;
    tracing::info!(entered, "the lake has format {} now", identity::FORMAT);
    Ok(entered)
}

/// A shard whose lease was renewed while this waited; `None` if nobody holds one, or no holder is alive.
async fn renewed_lease(stores: &Stores, failover: Duration) -> Result<Option<ShardKey>, CommitError> {
    let is_held = |lease: &Lease| lease.holder != Holder::Nobody;
    let before = stores.own_leases().await?;
    if !before.iter().any(is_held) {
        return Ok(None);
    }
    let counters: HashMap<ShardKey, u64> = before.into_iter().map(|lease| (lease.key, lease.counter)).collect();
    tokio::time::sleep(failover).await;
    let after = stores.own_leases().await?;
    let renewed = |lease: &Lease| is_held(lease) && counters.get(&lease.key) != Some(&lease.counter);
    Ok(after.into_iter().find(renewed).map(|lease| lease.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;
    use checkpoints::{
        LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, NewLease, Position, Renewal, ShardId, StreamName,
        ThroughputKbps,
    };
    use pipeline::layout::LAKE_IDENTITY;

    use crate::commit::lake_log::testing::{commit, epoch};
    use crate::commit::lake_log::{Entry, EntryHash, LogVersion};
    use crate::commit::{EpochId, Published};
    use crate::lake::{Fault, MemoryStore, ObjectKey, ObjectStore};
    use crate::retry::RetryPolicy;

    const FAILOVER: Duration = Duration::from_secs(10);

    fn key() -> ShardKey {
        ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("a").unwrap())
    }

    fn identity_of(lake: &MemoryStore) -> Bytes {
        lake.object(&ObjectKey::new(LAKE_IDENTITY).unwrap()).unwrap()
    }

    /// A lake of the format before with this many commit records. Record `n` continues record `n - 1`. The names of every fifth and
    /// of the one after it are in the wrong order: a worker slept.
    async fn old_lake(records: u64) -> MemoryStore {
        let lake = MemoryStore::new();
        let identity = Bytes::from_static(b"{\"format\":2,\"key_fingerprint\":\"a\"}");
        lake.put_new(&ObjectKey::new(LAKE_IDENTITY).unwrap(), identity).await.unwrap();
        for number in 0..records {
            let mut record = epoch(1, number, LogVersion::EMPTY);
            record.format = 2;
            record.epoch = named(number);
            lake.put_new(&record.epoch.commit_key(), record.to_bytes()).await.unwrap();
        }
        lake
    }

    fn named(number: u64) -> EpochId {
        let place = match number % 5 {
            3 => number + 1,
            4 => number - 1,
            _ => number,
        };
        let ms = 1_736_764_200_000 + 1000 * i64::try_from(place).unwrap();
        EpochId::new(ms, &LeaseOwner::from_random([1; 16]), number)
    }

    fn stores(lake: &MemoryStore, leases: &MemoryLeases) -> Stores {
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(leases.clone()), RetryPolicy::default());
        stores.with_streams([key().stream])
    }

    /// The log has the records in their order, each once.
    fn check(lake: &MemoryStore, records: u64) {
        let objects = lake.objects();
        let entries: Vec<_> = objects.iter().filter(|(key, _)| key.as_str().starts_with("_log/")).collect();
        let mut previous = EntryHash::NONE;
        let mut order = Vec::new();
        for (key, bytes) in entries {
            let entry = Entry::from_bytes(key, bytes).unwrap();
            assert_eq!((entry.previous, entry.version), (previous, LogVersion(order.len() as u64 + 1)));
            assert_eq!(entry.entered_at, entry.written_at);
            previous = EntryHash::of(bytes);
            order.push(entry.epoch);
        }
        assert_eq!(order, (0..records).map(named).collect::<Vec<EpochId>>());
        assert_eq!(identity_of(lake), r#"{"format":3,"key_fingerprint":"a"}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_of_an_old_lake_has_every_record_once_in_the_order_of_the_chains() {
        for records in [0, 1, 7, 250] {
            let lake = old_lake(records).await;
            let stores = stores(&lake, &MemoryLeases::new());
            assert_eq!(migrate(&stores, FAILOVER).await.unwrap(), records);
            check(&lake, records);
            assert_eq!(migrate(&stores, FAILOVER).await.unwrap(), 0, "it is done");
            assert_eq!(commit(&stores, 2, 0).await, records + 1);
            // An epoch that was pending when the lake was migrated, and is published now.
            let published = Published::found(epoch(3, 0, LogVersion::EMPTY));
            assert_eq!(published.enter(&stores).await.unwrap().version(), Some(LogVersion(records + 2)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_migration_that_crashed_is_continued() {
        for (operation, times) in [("put_new", 12), ("get", 40), ("list", 4), ("replace", 2), ("checksum", 11)] {
            for nth in 0..times {
                let lake = old_lake(12).await;
                lake.fail(operation, nth, Fault::Refuse);
                let first = migrate(&stores(&lake, &MemoryLeases::new()), FAILOVER).await;
                if first.is_err() {
                    assert_ne!(identity_of(&lake), r#"{"format":3,"key_fingerprint":"a"}"#, "{operation} {nth}");
                }
                // If the scripted fault has not occurred yet, it may occur now.
                if migrate(&stores(&lake, &MemoryLeases::new()), FAILOVER).await.is_err() {
                    migrate(&stores(&lake, &MemoryLeases::new()), FAILOVER).await.unwrap();
                }
                check(&lake, 12);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn several_workers_migrate_a_lake_at_once() {
        for skip in [0, 5, 30] {
            let lake = old_lake(40).await;
            let leases = MemoryLeases::new();
            lake.fail("put_new", skip, Fault::LoseAfter);
            let [one, two, three] = [(); 3].map(|()| stores(&lake, &leases));
            let (a, b, c) = tokio::join!(migrate(&one, FAILOVER), migrate(&two, FAILOVER), migrate(&three, FAILOVER));
            assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
            check(&lake, 40);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lake_is_not_migrated_while_a_worker_of_an_earlier_version_runs() {
        let lake = old_lake(3).await;
        let leases = MemoryLeases::new();
        leases.create(&[NewLease::new(key(), Position::Beginning)]).await.unwrap();
        let old = LeaseOwner::from_random([9; 16]);
        leases.take(&old, &key(), 0).await.unwrap().unwrap();
        let before = lake.objects();
        let stores = stores(&lake, &leases);
        let renew = async {
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let row = leases.list().await.unwrap().remove(0);
                leases
                    .renew(&old, &[Renewal { key: key(), counter: row.counter, throughput: ThroughputKbps::default() }])
                    .await
                    .unwrap();
            }
        };
        let (migrated, ()) = tokio::join!(migrate(&stores, FAILOVER), renew);
        let error = migrated.unwrap_err();
        assert!(matches!(error, MigrateError::OldWorker { .. }));
        assert!(error.to_string().contains("shard a of stream orders. Stop all workers"), "{error}");
        assert_eq!(lake.objects(), before, "nothing was changed");
        // It is dead now, and still the holder.
        assert_eq!(migrate(&stores, FAILOVER).await.unwrap(), 3);
        check(&lake, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_cannot_be_read_ends_the_migration_with_its_name() {
        let lake = old_lake(3).await;
        lake.tamper(&named(1).commit_key(), Some(Bytes::from_static(b"{}")));
        let error = migrate(&stores(&lake, &MemoryLeases::new()), FAILOVER).await.unwrap_err().to_string();
        assert!(error.contains(named(1).commit_key().as_str()), "{error}");
        assert!(!lake.objects().keys().any(|key| key.as_str().starts_with("_log/")), "no entry is written before");
    }
}
