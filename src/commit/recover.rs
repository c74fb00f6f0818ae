//! Finishing an epoch that was decided and is still pending.
//!
//! Whoever takes a lease with a pending epoch comes here before it reads. Rolling forward needs only the lake: the intent, the
//! uploads, the objects. Rolling back is possible only while no shard has advanced, and only if a staged upload is
//! permanently gone. It takes three steps, in this order:
//!
//! 1. Abort all uploads, so that nobody can publish the epoch any more.
//! 2. Delete the objects that are visible.
//! 3. Take the decision back, in one transaction.

use std::time::Duration;

use bytes::Bytes;
use checkpoints::{Lease, ManifestName, ShardKey};
use mutations::mutated;

use crate::commit::epoch_id::EpochId;
use crate::commit::manifest::{Manifest, UnreadableManifest};
use crate::commit::protocol::{CommitError, Committed, DecidedEpoch, Lost, Published};
use crate::commit::stores::Stores;
use crate::lake::ObjectKey;

/// How long after an upload seemed to be gone it is checked again, before its epoch is rolled back.
const RECHECK_AFTER: Duration = Duration::from_secs(10);

/// What became of a pending epoch.
#[derive(Debug)]
pub enum Recovered {
    /// It is committed, perhaps by another worker.
    Forward(Box<Committed>),
    /// It was not committed. Its shards are read again from their checkpoints.
    Back,
}

/// Finishes a pending epoch. Several workers may call it at once.
///
/// # Errors
/// The stores fail; or the epoch can go neither forward nor back, which the error explains.
pub async fn recover(stores: &Stores, name: &ManifestName) -> Result<Recovered, CommitError> {
    let epoch =
        EpochId::of_manifest(name).map_err(|problem| UnreadableManifest { name: name.as_str().to_owned(), problem })?;
    if let Some((manifest, _)) = read(stores, &epoch.commit_key()).await? {
        return roll_forward(stores, Published::found(manifest)).await;
    }
    let Some((manifest, intent)) = read(stores, &epoch.intent_key()).await? else {
        // Another worker may have finished it between the two reads.
        return match read(stores, &epoch.commit_key()).await? {
            Some((manifest, _)) => roll_forward(stores, Published::found(manifest)).await,
            // Or another worker rolled it back, and its intent was swept, while this one slept.
            None if !is_pending(stores, name).await? => Ok(Recovered::Back),
            None => Err(CommitError::NoIntent { name: name.as_str().to_owned() }),
        };
    };
    let decided = match DecidedEpoch::found(manifest, intent).publish(stores).await? {
        Ok(published) => return roll_forward(stores, published).await,
        Err((decided, _)) => decided,
    };
    // A request of another worker, which timed out, may still be completing an upload that seems to be gone.
    tokio::time::sleep(RECHECK_AFTER).await;
    match decided.publish(stores).await? {
        Ok(published) => roll_forward(stores, published).await,
        Err((decided, lost)) => roll_back(stores, decided.into_manifest(), lost).await,
    }
}

/// Finishes an epoch or an operation whose commit record is written, whatever its rows say: they may be lost. An operation removes what
/// it removes.
///
/// # Errors
/// The stores fail. The same call continues.
pub async fn finish_published(stores: &Stores, manifest: Manifest) -> Result<(), CommitError> {
    if mutated!(ForgetRemovalsOfLostRows) {
        return Published::found(manifest).enter(stores).await.map(|_| ());
    }
    roll_forward(stores, Published::found(manifest)).await.map(|_| ())
}

/// The steps after the commit record.
async fn roll_forward(stores: &Stores, published: Published) -> Result<Recovered, CommitError> {
    Ok(Recovered::Forward(Box::new(published.enter(stores).await?.advance(stores).await?)))
}

async fn roll_back(stores: &Stores, manifest: Manifest, lost: Lost) -> Result<Recovered, CommitError> {
    let name = manifest.epoch.manifest_name();
    let keys: Vec<ShardKey> = manifest.shards.iter().map(|shard| shard.key.clone()).collect();
    let rows = stores.leases.get(&keys).await?;
    let pending_everywhere = rows.iter().all(|row| row.as_ref().is_some_and(|lease| lease.is_pending(&name)));
    if !pending_everywhere {
        return settled(stores, manifest, &rows, lost).await;
    }
    tracing::warn!(
        epoch = %manifest.epoch, missing = %lost.0,
        "a staged upload is permanently gone; rolling the epoch back, its records are read again"
    );
    for object in &manifest.objects {
        stores.lake.abort_upload(&object.key, &object.upload).await?;
    }
    for object in manifest.objects.iter().filter(|_| !mutated!(RollBackWithoutDeleting)) {
        stores.lake.delete(&object.key).await?;
    }
    stores.lake.flush().await?;
    if stores.roll_back(&name, &keys).await? {
        return Ok(Recovered::Back);
    }
    let rows = stores.leases.get(&keys).await?;
    settled(stores, manifest, &rows, lost).await
}

/// Finds out how another worker has finished the epoch meanwhile.
async fn settled(
    stores: &Stores,
    manifest: Manifest,
    rows: &[Option<Lease>],
    lost: Lost,
) -> Result<Recovered, CommitError> {
    if read(stores, &manifest.epoch.commit_key()).await?.is_some() {
        return roll_forward(stores, Published::found(manifest)).await;
    }
    let name = manifest.epoch.manifest_name();
    if rows.iter().flatten().any(|lease| lease.was_advanced_by(&name)) {
        return Err(CommitError::Torn { epoch: manifest.epoch.to_string(), missing: lost.0 });
    }
    if rows.iter().flatten().any(|lease| lease.is_pending(&name)) {
        // The rows were read one by one while another worker was rolling back: some show it, and some do not yet.
        return Box::pin(recover(stores, &name)).await;
    }
    Ok(Recovered::Back)
}

/// Returns true if the epoch is pending on any shard.
async fn is_pending(stores: &Stores, name: &ManifestName) -> Result<bool, CommitError> {
    let leases = stores.leases.list().await?;
    Ok(leases.iter().any(|lease| lease.is_pending(name)))
}

/// A manifest, and the bytes as they are stored.
async fn read(stores: &Stores, key: &ObjectKey) -> Result<Option<(Manifest, Bytes)>, CommitError> {
    match stores.lake.get(key).await? {
        Some(bytes) => Ok(Some((Manifest::from_bytes(key, &bytes)?, bytes))),
        None => Ok(None),
    }
}
