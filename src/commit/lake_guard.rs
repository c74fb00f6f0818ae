//! Whether checkpoints were committed in a lake.
//!
//! Owns: telling the lake in which these checkpoints were committed from any other. Checkpoints say "read" of records that only
//! their own lake has, so in another lake these records would be missing for ever: a disk that is not mounted, a folder that was
//! moved away, a wrong prefix. Does not own: opening either (`setup`), or a lake that goes away later (`lake`).
//!
//! A lease names the manifest that moved its checkpoint last. The commit record of that manifest was in the lake before the lease
//! moved, and nothing removes it. A lease also names a pending manifest, whose intent was in the lake before. So the leases are
//! read first, and the lake after them.

use std::sync::Arc;

use checkpoints::{Lease, LeaseStore, ManifestName, StreamName};

use crate::commit::epoch_id::EpochId;
use crate::commit::protocol::CommitError;
use crate::lake::ObjectStore;
use crate::retry::RetryPolicy;

/// This many of the newest manifests are searched for; one must be in the lake.
const NEWEST: usize = 3;
/// How often the lake is read if the leases change in the meantime.
const READS_MAX: u32 = 3;

/// Whether checkpoints and a lake belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LakeMatch {
    /// No worker has committed these streams, so there is nothing to miss.
    NothingCommitted,
    /// The lake has what the checkpoints were committed with.
    Same,
    /// The lake has none of it.
    Other {
        /// The newest manifest that the leases name.
        newest: ManifestName,
    },
}

/// Compares the leases of these streams with the lake. `open_lake` returns `None` if there is no lake; it is called again when the
/// leases change in the meantime, since a first epoch may be rolled back.
///
/// # Errors
/// Lake or lease store fails.
pub async fn match_lake(
    leases: &dyn LeaseStore,
    streams: &[StreamName],
    open_lake: impl AsyncFn() -> Result<Option<Arc<dyn ObjectStore>>, CommitError>,
    of_lake: &RetryPolicy,
    of_leases: &RetryPolicy,
) -> Result<LakeMatch, CommitError> {
    let mut names = newest_of(leases, streams, of_leases).await?;
    for _ in 0..READS_MAX {
        let Some(newest) = names.first().cloned() else { return Ok(LakeMatch::NothingCommitted) };
        if let Some(lake) = open_lake().await?
            && has_one_of(&*lake, &names, of_lake).await?
        {
            return Ok(LakeMatch::Same);
        }
        let now = newest_of(leases, streams, of_leases).await?;
        if now == names {
            return Ok(LakeMatch::Other { newest });
        }
        names = now;
    }
    Ok(names.first().map_or(LakeMatch::NothingCommitted, |newest| LakeMatch::Other { newest: newest.clone() }))
}

/// The newest manifests that the rows of these streams name.
async fn newest_of(
    leases: &dyn LeaseStore,
    streams: &[StreamName],
    retry: &RetryPolicy,
) -> Result<Vec<ManifestName>, CommitError> {
    let rows = retry.run("the lease store", || leases.list()).await?;
    Ok(newest_manifests(rows.into_iter().filter(|lease| streams.contains(&lease.key.stream))))
}

/// The newest manifests that moved the checkpoints of these leases, or are to move them, the newest first. None if no worker of ours
/// has committed: what a KCL application wrote names no manifest.
pub(super) fn newest_manifests(leases: impl Iterator<Item = Lease>) -> Vec<ManifestName> {
    let named = leases.flat_map(|lease| [lease.last_manifest, lease.pending.map(|pending| pending.manifest)]);
    let mut names: Vec<ManifestName> = named.flatten().collect();
    // A name begins with the time at which its epoch began.
    names.sort_by(|left, right| right.as_str().cmp(left.as_str()));
    names.dedup();
    names.truncate(NEWEST);
    names
}

/// Whether the lake has the commit record or the intent of one of these.
pub(super) async fn has_one_of(
    lake: &dyn ObjectStore,
    names: &[ManifestName],
    retry: &RetryPolicy,
) -> Result<bool, CommitError> {
    for name in names {
        // Whoever reads the row reports a name that is not one of ours.
        let Ok(epoch) = EpochId::of_manifest(name) else { return Ok(true) };
        // An intent may be swept as soon as its commit record is there.
        for key in [epoch.commit_key(), epoch.intent_key(), epoch.commit_key()] {
            if retry.run("the lake", || lake.get(&key)).await?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
