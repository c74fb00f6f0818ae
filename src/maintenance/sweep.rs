//! Removing what epochs that never happened have left behind: uploads and intents.
//!
//! Nothing is removed that could still become visible. An intent, and the uploads that it names, stay while the epoch is
//! pending anywhere. Otherwise they go when the process that made them is known to have ended, or when they are older than
//! the given age, which must exceed any request's life (see the checkpoints crate's `decision.rs`), unless their worker may
//! still decide on them: it may have been standing still for as long, alone, so that nobody has taken its leases.
//!
//! Whose an upload is: on a file system its id tells; S3 gives ids of its own, and there the key does, whose last segment
//! begins with its epoch. Where the store tells keys, an upload of a key that no epoch writes is somebody else's, and is
//! neither touched nor counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use checkpoints::{Lease, LeaseOwner};
use mutations::mutated;
use pipeline::time::parse_rfc3339;

use crate::commit::{CommitError, EpochId, Manifest, ShardOfEpoch, Stores};
use crate::inspect::intents;
use crate::lake::{ObjectKey, UploadId, UploadInfo};

/// What a sweep removed, and what it left.
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
    // Uploads before intents before leases: what becomes pending in between is seen as pending.
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
        workers.insert(intent.epoch, intent.worker);
        if is_pending || !(committed || gone || aged) {
            swept.kept += 1;
            needed.extend(intent.objects.into_iter().map(|object| object.upload));
            continue;
        }
        if !dry_run {
            if !committed {
                for object in &intent.objects {
                    stores.lake.abort_upload(&object.key, &object.upload).await?;
                }
            }
            stores.lake.delete(&key).await?;
        }
        swept.intents += 1;
    }
    for upload in uploads {
        let Some(whose) = Whose::of(&upload) else { continue };
        // Even where the intent can't be read, and so names no uploads.
        let is_pending = pending.iter().any(|manifest| whose.is_of(manifest));
        let gone = match whose.owner(&workers) {
            Some(owner) => stores.leases.owner_is_gone(&owner).await?,
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

/// Whether a request of the intent's worker to decide on it would take effect now.
fn may_be_decided(intent: &Manifest, leases: &[Lease]) -> bool {
    let meets = |shard: &ShardOfEpoch| {
        let row = leases.iter().find(|lease| lease.key == shard.key);
        row.is_some_and(|lease| lease.holder.is(&intent.worker) && lease.checkpoint == *shard.range.after())
    };
    !mutated!(SweepWhatMayBeDecided) && intent.shards.iter().all(meets)
}

/// Whose an upload is, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    /// Of this epoch, by its key.
    Epoch(EpochId),
    /// Of this worker, by its id; and the end of the name of its epoch's intent.
    Worker(LeaseOwner, String),
    /// Of nobody who could be told: by its age, what a crash has left.
    Unknown,
}

impl Whose {
    /// `None`: somebody else's.
    fn of(upload: &UploadInfo) -> Option<Self> {
        match &upload.key {
            Some(key) => epoch_of(key).map(Whose::Epoch),
            None => Some(Self::by_id(&upload.id).unwrap_or(Whose::Unknown)),
        }
    }

    fn by_id(id: &UploadId) -> Option<Self> {
        let owner = LeaseOwner::new(EpochId::owner_of_upload(id)?).ok()?;
        let number = id.0.rsplit('-').nth(1)?.parse().ok()?;
        // The same worker and number, whatever the time.
        let name = EpochId::new(0, &owner, number).intent_key();
        let (_, end) = name.as_str().split_once("Z-")?;
        Some(Whose::Worker(owner, format!("-{end}")))
    }

    /// Whether it belongs to the epoch of this intent.
    fn is_of(&self, manifest: &str) -> bool {
        match self {
            Whose::Epoch(epoch) => epoch.manifest_name().as_str() == manifest,
            Whose::Worker(_, end) => manifest.ends_with(end),
            Whose::Unknown => false,
        }
    }

    /// The worker, if it is known.
    fn owner(&self, workers: &BTreeMap<EpochId, LeaseOwner>) -> Option<LeaseOwner> {
        match self {
            Whose::Epoch(epoch) => workers.get(epoch).cloned(),
            Whose::Worker(owner, _) => Some(owner.clone()),
            Whose::Unknown => None,
        }
    }
}

/// The epoch that an object's name begins with, as in `…/20250113T103000Z-3f2a91c07d5e4b10-000001-00001.parquet`.
fn epoch_of(key: &ObjectKey) -> Option<EpochId> {
    let name = key.as_str().rsplit('/').next()?;
    let (stem, _) = name.split_once('.')?;
    let (epoch, object) = stem.rsplit_once('-')?;
    let parts: Vec<&str> = epoch.split('-').collect();
    let &[time, worker, number] = parts.as_slice() else { return None };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (day, hour) = time.strip_suffix('Z')?.split_once('T')?;
    let is_ours = day.len() == 8
        && hour.len() == 6
        && [day, hour, number].into_iter().all(digits)
        && number.len() >= 6
        && !worker.is_empty()
        && !object.is_empty();
    if is_ours { EpochId::try_from(epoch.to_owned()).ok() } else { None }
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
    fn a_key_tells_its_epoch_and_an_id_its_worker() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        let upload = |key: Option<ObjectKey>, id: &str| UploadInfo { key, id: UploadId(id.to_owned()), begun_ms: 0 };
        for path in [format!("processed/a/y=1/{epoch}-00001.parquet"), format!("{epoch}-123456.json.gz")] {
            assert_eq!(Whose::of(&upload(Some(key(path)), "opaque")), Some(Whose::Epoch(epoch.clone())));
        }
        let others = [
            "backup.tar.gz".to_owned(),
            format!("{epoch}.json"),
            format!("_intents/{epoch}.json"),
            format!("x{epoch}-00001.parquet"),
            "20250113T103000Z-abc-x-00001.parquet".to_owned(),
            "2025-01-13-logs.gz".to_owned(),
        ];
        for path in others {
            assert_eq!(Whose::of(&upload(Some(key(path.clone())), "opaque")), None, "{path}");
        }

        let id = epoch.upload_id(&worker(), 12);
        let whose = Whose::of(&upload(None, &id)).unwrap();
        assert_eq!(whose.owner(&BTreeMap::new()), Some(worker()));
        assert!(whose.is_of(epoch.manifest_name().as_str()));
        assert!(!whose.is_of(EpochId::new(1_736_764_200_123, &worker(), 8).manifest_name().as_str()));
        assert_eq!(Whose::of(&upload(None, "put-abc123")), Some(Whose::Unknown));
    }

    #[tokio::test]
    async fn uploads_of_a_pending_epoch_and_of_others_are_left_alone_whatever_their_age() {
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
        // Of another version: this one can't tell which uploads it needs.
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
