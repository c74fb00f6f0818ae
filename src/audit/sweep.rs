//! Removing what epochs that never happened have left behind: uploads and intents.
//!
//! Nothing is removed that could still become visible. An intent, and the uploads that it names, stay while the epoch is
//! pending anywhere. Otherwise they go when the process that made them is known to have ended, or when they are older than
//! the given age, which must exceed any request's life (see the checkpoints crate's `decision.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use checkpoints::LeaseOwner;
use pipeline::time::parse_rfc3339;

use crate::audit::intents;
use crate::commit::{CommitError, EpochId, Stores};
use crate::lake::{ObjectKey, UploadId};

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
    for intent in found {
        let key = intent.epoch.intent_key();
        let committed = stores.lake.get(&intent.epoch.commit_key()).await?.is_some();
        let gone = stores.leases.owner_is_gone(&intent.worker).await?;
        let is_pending = pending.contains(intent.epoch.manifest_name().as_str());
        let aged = parse_rfc3339(intent.written_at.as_bytes()).is_some_and(old);
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
        let owner = owner_of(&upload.id);
        let gone = match &owner {
            Some(owner) => stores.leases.owner_is_gone(owner).await?,
            None => false,
        };
        if needed.contains(&upload.id) || !(gone || old(upload.begun_ms)) {
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

/// The worker that began an upload, where its id tells.
fn owner_of(id: &UploadId) -> Option<LeaseOwner> {
    EpochId::owner_of_upload(id).and_then(|owner| LeaseOwner::new(owner).ok())
}
