//! What redrives that have ended left aside.
//!
//! Owns: whose it is, and removing it. Nothing of it is in the lake: what an operation has added are copies. So it may go as soon as its
//! process has ended. Does not own: what an ended process has left in the lake itself (`maintenance::sweep`).

use std::collections::BTreeMap;
use std::time::Duration;

use checkpoints::LeaseOwner;
use pipeline::layout;

use crate::commit::{CommitError, Stores};
use crate::lake::{ObjectKey, UploadId, UploadInfo};
use crate::redrive::selection::delete_all;

/// Removes what redrives left aside whose processes have ended, or that has not changed for `age`. Returns how many redrives that were.
/// With `dry_run` it only counts.
///
/// # Errors
/// The stores fail. What was removed before stays removed.
pub async fn remove_leftovers(stores: &Stores, now_ms: i64, age: Duration, dry_run: bool) -> Result<u64, CommitError> {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    for object in stores.lake.list(layout::REDRIVES).await? {
        if let Some(owner) = layout::owner_of_redrive(object.key.as_str()) {
            let modified = newest.entry(owner.to_owned()).or_insert(i64::MIN);
            *modified = object.modified_ms.max(*modified);
        }
    }
    // A store that does not know the keys of uploads leaves them to the sweep of the lake.
    let mut uploads: BTreeMap<String, Vec<(ObjectKey, UploadId)>> = BTreeMap::new();
    for UploadInfo { key, id, begun_ms } in stores.lake.list_uploads().await? {
        let Some(key) = key else { continue };
        if let Some(owner) = layout::owner_of_redrive(key.as_str()).map(str::to_owned) {
            let modified = newest.entry(owner.clone()).or_insert(i64::MIN);
            *modified = begun_ms.max(*modified);
            uploads.entry(owner).or_default().push((key, id));
        }
    }
    let mut removed = 0;
    for (owner, modified_ms) in newest {
        let has_ended = match LeaseOwner::new(owner.clone()) {
            Ok(process) => stores.leases.owner_is_gone(&process).await?,
            Err(_) => false,
        };
        if !has_ended && now_ms.saturating_sub(modified_ms) < age_ms {
            continue;
        }
        if !dry_run {
            for (key, upload) in uploads.remove(&owner).unwrap_or_default() {
                stores.lake.abort_upload(&key, &upload).await?;
            }
            delete_all(&*stores.lake, &layout::redrive(&owner)).await?;
        }
        removed += 1;
    }
    Ok(removed)
}
