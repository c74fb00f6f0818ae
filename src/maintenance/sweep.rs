//! Removing the uploads and intents of epochs that were never committed.
//!
//! Owns: deciding what may be removed. Nothing is removed that could still become visible:
//!
//! - An intent, and the uploads that it names, stay while the epoch is pending on any shard.
//! - They stay while their worker may still decide: it may have been stopped for a long time, alone, so that no other worker has
//!   taken its leases.
//! - Before the intent of a published epoch goes, the epoch enters the lake log, unless it has entered, and an operation removes what it
//!   removes: its rows may be lost, and then nobody else would do it.
//! - Otherwise they go when the process that made them is known to have ended, or when they are older than the given age. The
//!   age must exceed the life of any request (see `decision.rs` of the checkpoints crate).
//!
//! How the owner of an upload is found: on a file system, the upload's id contains it. S3 chooses the ids, so there the last
//! segment of the key contains the epoch. If the store knows the key, and no epoch writes such a key, then the upload
//! is not ours: it is neither removed nor counted. Uploads of replays are swept by the replay, which knows their intents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use checkpoints::{Lease, LeaseOwner};
use mutations::mutated;
use pipeline::layout;
use pipeline::time::parse_rfc3339;

use crate::commit::log::intents;
use crate::commit::{CommitError, EpochId, Manifest, ShardOfEpoch, Stores, finish_published};
use crate::lake::{ObjectKey, UploadId, UploadInfo};

/// What a sweep removed, and what it kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads that were aborted.
    pub uploads: u64,
    /// Intents that were removed.
    pub intents: u64,
    /// Uploads and intents that are young, or still needed.
    pub kept: u64,
}

/// Sweeps a lake. With `dry_run` it only counts.
///
/// # Errors
/// The stores fail. What was removed before stays removed.
pub async fn sweep(stores: &Stores, now_ms: i64, age: Duration, dry_run: bool) -> Result<Swept, CommitError> {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let old = |ms: i64| now_ms.saturating_sub(ms) >= age_ms;
    // Uploads are listed before intents, and these before leases, so that an epoch that is decided meanwhile is seen as pending.
    let uploads = stores.lake.list_uploads().await?;
    let (found, _) = intents(stores).await?;
    let leases = stores.leases.list().await?;
    let pending: BTreeSet<&str> =
        leases.iter().filter_map(|lease| lease.pending.as_ref()).map(|pending| pending.manifest.as_str()).collect();
    let mut swept = Swept::default();
    let mut needed: BTreeSet<UploadId> = BTreeSet::new();
    let mut workers: BTreeMap<EpochId, LeaseOwner> = BTreeMap::new();
    for intent in found {
        let key = intent.epoch.intent_key();
        let committed = stores.lake.get(&intent.epoch.commit_key()).await?.is_some();
        let gone = stores.leases.owner_is_gone(&intent.worker).await?;
        let is_pending = pending.contains(intent.epoch.manifest_name().as_str()) && !mutated!(SweepWhatIsPending);
        let aged = parse_rfc3339(intent.written_at.as_bytes()).is_some_and(old) && !may_be_decided(&intent, &leases);
        workers.insert(intent.epoch.clone(), intent.worker.clone());
        if is_pending || !(committed || gone || aged) {
            swept.kept += 1;
            needed.extend(intent.objects.into_iter().map(|object| object.upload));
            continue;
        }
        if !dry_run {
            if committed {
                finish_published(stores, intent).await?;
            } else {
                for object in &intent.objects {
                    stores.lake.abort_upload(&object.key, &object.upload).await?;
                }
            }
            stores.lake.delete(&key).await?;
        }
        swept.intents += 1;
    }
    for upload in uploads {
        let Some(owner) = Owner::of(&upload) else { continue };
        // Also if the intent cannot be read, so that its uploads are not known.
        let is_pending = pending.iter().any(|manifest| owner.is_of(manifest));
        let gone = match owner.worker(&workers) {
            Some(worker) => stores.leases.owner_is_gone(&worker).await?,
            None => false,
        };
        if is_pending || needed.contains(&upload.id) || !(gone || old(upload.begun_ms)) {
            swept.kept += 1;
            continue;
        }
        if !dry_run {
            let key = upload.key.unwrap_or_else(|| ObjectKey::new("unknown").expect("a plain name"));
            stores.lake.abort_upload(&key, &upload.id).await?;
        }
        swept.uploads += 1;
    }
    Ok(swept)
}

/// Returns true if the intent's worker could still decide it: the conditions of the decision hold now.
fn may_be_decided(intent: &Manifest, leases: &[Lease]) -> bool {
    let meets = |shard: &ShardOfEpoch| {
        let row = leases.iter().find(|lease| lease.key == shard.key);
        row.is_some_and(|lease| lease.holder.is(&intent.worker) && lease.checkpoint == *shard.range.after())
    };
    !mutated!(SweepWhatMayBeDecided) && intent.shards.iter().all(meets)
}

/// The owner of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    /// This epoch, according to its key.
    Epoch(EpochId),
    /// This worker, according to its id; and the end of the name of its epoch's intent.
    Worker(LeaseOwner, String),
    /// Not known. Its age decides.
    Unknown,
}

impl Owner {
    /// `None` if the upload is not ours.
    fn of(upload: &UploadInfo) -> Option<Self> {
        match &upload.key {
            Some(key) if key.as_str().starts_with(layout::REPLAYS) => None,
            Some(key) => EpochId::of_object(key).map(Owner::Epoch),
            None => Some(Self::by_id(&upload.id).unwrap_or(Owner::Unknown)),
        }
    }

    fn by_id(id: &UploadId) -> Option<Self> {
        let owner = LeaseOwner::new(EpochId::owner_of_upload(id)?).ok()?;
        let number = id.0.rsplit('-').nth(1)?.parse().ok()?;
        // The name ends with the same worker and number, whatever its time.
        let name = EpochId::new(0, &owner, number).intent_key();
        let (_, end) = name.as_str().split_once("Z-")?;
        Some(Owner::Worker(owner, format!("-{end}")))
    }

    /// Returns true if the epoch of this intent owns it.
    fn is_of(&self, manifest: &str) -> bool {
        match self {
            Owner::Epoch(epoch) => epoch.manifest_name().as_str() == manifest,
            Owner::Worker(_, end) => manifest.ends_with(end),
            Owner::Unknown => false,
        }
    }

    /// The worker, if it is known.
    fn worker(&self, workers: &BTreeMap<EpochId, LeaseOwner>) -> Option<LeaseOwner> {
        match self {
            Owner::Epoch(epoch) => workers.get(epoch).cloned(),
            Owner::Worker(owner, _) => Some(owner.clone()),
            Owner::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;
    use checkpoints::{
        Decision, LeaseStore, MemoryStore as MemoryLeases, NewLease, Position, ShardId, ShardKey, ShardRange,
        StreamName,
    };

    use crate::lake::{MemoryStore, ObjectStore};
    use crate::retry::RetryPolicy;

    const AGE: Duration = Duration::from_secs(60);

    fn worker() -> LeaseOwner {
        LeaseOwner::from_random([0x3f; 16])
    }

    fn key(path: String) -> ObjectKey {
        ObjectKey::new(path).unwrap()
    }

    #[test]
    fn a_key_names_its_epoch_and_an_id_its_worker() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        let upload = |key: Option<ObjectKey>, id: &str| UploadInfo { key, id: UploadId(id.to_owned()), begun_ms: 0 };
        for path in [format!("processed/a/y=1/{epoch}-00001.parquet"), format!("{epoch}-123456.json.gz")] {
            assert_eq!(Owner::of(&upload(Some(key(path)), "opaque")), Some(Owner::Epoch(epoch.clone())));
        }
        let others = [
            "backup.tar.gz".to_owned(),
            format!("{epoch}.json"),
            format!("_intents/{epoch}.json"),
            format!("x{epoch}-00001.parquet"),
            "20250113T103000Z-abc-x-00001.parquet".to_owned(),
            "2025-01-13-logs.gz".to_owned(),
            format!("_replays/01ab0000/lake/processed/a/{epoch}-00001.parquet"),
        ];
        for path in others {
            assert_eq!(Owner::of(&upload(Some(key(path.clone())), "opaque")), None, "{path}");
        }

        let id = epoch.upload_id(&worker(), 12);
        let owner = Owner::of(&upload(None, &id)).unwrap();
        assert_eq!(owner.worker(&BTreeMap::new()), Some(worker()));
        assert!(owner.is_of(epoch.manifest_name().as_str()));
        assert!(!owner.is_of(EpochId::new(1_736_764_200_123, &worker(), 8).manifest_name().as_str()));
        assert_eq!(Owner::of(&upload(None, "put-abc123")), Some(Owner::Unknown));
    }

    #[tokio::test]
    async fn uploads_of_a_pending_epoch_and_those_that_are_not_ours_are_kept_whatever_their_age() {
        let (lake, leases) = (MemoryStore::new(), MemoryLeases::new());
        let retry = RetryPolicy::default();
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(leases.clone()), retry);
        let shard = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("a").unwrap());
        leases.create(&[NewLease::new(shard.clone(), Position::Beginning)]).await.unwrap();
        leases.take(&worker(), &shard, 0).await.unwrap().unwrap();
        let pending = EpochId::new(1_736_764_200_000, &worker(), 1);
        let range = ShardRange::new(Position::Beginning, Position::at(100_u64.into())).unwrap();
        let decision = Decision::new(worker(), pending.manifest_name(), vec![(shard, range)]).unwrap();
        leases.decide(&decision).await.unwrap();
        // Another version wrote it, so its uploads are not known.
        lake.put_new(&pending.intent_key(), Bytes::from_static(b"{\"format\":99}")).await.unwrap();

        let left = EpochId::new(1_736_764_200_000, &worker(), 2);
        for (name, id) in [(format!("{pending}-00001.parquet"), "1"), (format!("{left}-00001.parquet"), "2")] {
            lake.begin_upload(&key(format!("processed/orders/{name}")), id).await.unwrap();
        }
        lake.begin_upload(&key("photos/cat.jpg".to_owned()), "3").await.unwrap();
        let ids = async || -> Vec<String> {
            lake.list_uploads().await.unwrap().into_iter().map(|upload| upload.id.0).collect()
        };

        assert_eq!(sweep(&stores, 59_999, AGE, false).await.unwrap(), Swept { kept: 2, ..Swept::default() });
        let swept = Swept { uploads: 1, intents: 0, kept: 1 };
        assert_eq!(sweep(&stores, 60_000, AGE, true).await.unwrap(), swept);
        assert_eq!(ids().await, ["1", "2", "3"]);
        assert_eq!(sweep(&stores, 60_000, AGE, false).await.unwrap(), swept);
        assert_eq!(ids().await, ["1", "3"]);
    }
}
