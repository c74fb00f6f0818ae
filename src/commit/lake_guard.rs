//! Whether checkpoints belong to a lake.
//!
//! Owns: telling a lake in which these checkpoints were committed from any other. Checkpoints that say "read" of what only
//! another lake holds would leave it out of this one for good: a disk that is not mounted, a folder that was moved away, a
//! wrong prefix. Does not own: opening either (`world`), and a lake that goes away later (`lake`).
//!
//! A lease names the manifest that moved its checkpoint last: its commit record was in the lake before the lease moved, and
//! nothing removes it. And it names one that is pending: its intent was there before. So leases are read first, and the lake
//! afterwards.

use checkpoints::{LeaseStore, ManifestName, StreamName};

use crate::commit::epoch_id::EpochId;
use crate::commit::protocol::CommitError;
use crate::lake::ObjectStore;
use crate::retry::RetryPolicy;

/// Of the newest manifests so many are looked for: one must be there.
const LOOKED_FOR: usize = 3;

/// The newest manifests that moved checkpoints of these streams, or are to move them, the newest first; none if no worker of ours has committed
/// (what a KCL application wrote names no manifest).
///
/// # Errors
/// The lease store fails.
pub async fn newest_manifests(
    leases: &dyn LeaseStore,
    streams: &[StreamName],
    retry: &RetryPolicy,
) -> Result<Vec<ManifestName>, CommitError> {
    let rows = retry.run(|| leases.list()).await?;
    let ours = rows.into_iter().filter(|lease| streams.contains(&lease.key.stream));
    let named = ours.flat_map(|lease| [lease.last_manifest, lease.pending.map(|pending| pending.manifest)]);
    let mut names: Vec<ManifestName> = named.flatten().collect();
    // They begin with the time at which their epoch did.
    names.sort_by(|left, right| right.as_str().cmp(left.as_str()));
    names.dedup();
    names.truncate(LOOKED_FOR);
    Ok(names)
}

/// Whether the lake has the commit record of any of these, or the intent.
///
/// # Errors
/// The lake fails.
pub async fn has_one_of(
    lake: &dyn ObjectStore,
    names: &[ManifestName],
    retry: &RetryPolicy,
) -> Result<bool, CommitError> {
    for name in names {
        // Whoever reads the row tells what is wrong with a name that is none of ours.
        let Ok(epoch) = EpochId::of_manifest(name) else { return Ok(true) };
        // An intent may be swept as soon as its commit record is there.
        for key in [epoch.commit_key(), epoch.intent_key(), epoch.commit_key()] {
            if retry.run(|| lake.get(&key)).await?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
