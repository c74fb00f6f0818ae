//! Making lost rows of the lease table again, from the commit records of the lake.
//!
//! Owns: the positions that the commit records prove, and what becomes of epochs that were decided in the lost rows. Does not own:
//! noticing that rows are lost (`commit::lost_rows`).
//!
//! The ranges of a shard's commit records end where its checkpoint was. Rows are only created, never changed, so a repeated call
//! does nothing, and a fleet whose rows exist is not disturbed.
//!
//! An intent with a commit record is of an epoch that was published. It enters the lake log here, unless it has entered. If it is an
//! operation, what it removes goes.
//!
//! A commit record is written after the decision. An epoch that was decided in a lost row, and has no commit record yet, has an
//! intent, as an epoch that was never decided. Only what is visible tells them apart:
//!
//! | the intent's epoch | what is known | what is done |
//! |---|---|---|
//! | an object of it is visible, the trash has one that it removes, or an existing row has it pending | it was decided | it is finished: published, with its commit record |
//! | it has no objects, and its ranges follow what is committed | nothing was read in them | it is finished: that is right in any case |
//! | none is visible | it may have been decided or not; no reader has seen it | its uploads are aborted, so that it can never become visible; its records are read again |
//! | it cannot be finished: an upload is gone | some of it is visible | its objects are removed; its records are read again |
//!
//! A worker that had decided such an epoch may still be publishing it. So after the uploads were aborted, and after a pause for
//! requests that were under way, what is visible is checked again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use checkpoints::{HashRange, Lease, NewLease, Position, ShardId, ShardKey};
use mutations::mutated;

use crate::commit::log::{self, Everything};
use crate::commit::{
    CommitError, DecidedEpoch, EpochId, Manifest, ShardOfEpoch, Stores, abort_uploads, finish_published, trash_key,
};

/// How long a request of a worker may still be under way after its upload was aborted.
const RECHECK_AFTER: Duration = Duration::from_secs(10);

/// What rebuilding did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// The rows that it created, and the position of each.
    pub created: Vec<(ShardKey, Position)>,
    /// Shards with commit records that had their rows.
    pub existing: u64,
    /// Epochs that were decided in lost rows, and are finished now.
    pub finished: Vec<EpochId>,
    /// Epochs that had no commit record, and can never become visible now. Their records are read again.
    pub undone: Vec<EpochId>,
    /// Rows that were there, but before the position that the commit records prove: the row's, and the proved one.
    pub behind: Vec<(ShardKey, Position, Position)>,
}

/// Makes the rows of all shards that have commit records and no row. `hash_ranges`: those of the shards that are known.
///
/// # Errors
/// The stores fail, or a commit record cannot be read, so that no position is proved. What was created before stays, and is right.
pub async fn rebuild(stores: &Stores, hash_ranges: &HashMap<ShardKey, HashRange>) -> Result<Rebuilt, CommitError> {
    let mut rebuilt = Rebuilt::default();
    if !mutated!(RebuildWithoutIntents) {
        settle_intents(stores, &mut rebuilt).await?;
    }
    let mut children: BTreeMap<ShardKey, BTreeSet<ShardId>> = BTreeMap::new();
    let mut note_children = |record: Manifest| {
        for shard in record.shards.into_iter().filter(|shard| *shard.range.through() == Position::End) {
            children.entry(shard.key).or_default().extend(shard.children);
        }
    };
    let Everything { chains, unreadable, .. } = log::read_everything(stores, &mut note_children).await?;
    if let Some(unreadable) = unreadable.into_iter().next() {
        return Err(unreadable.into());
    }
    let rows: HashMap<ShardKey, Lease> =
        stores.leases.list().await?.into_iter().map(|lease| (lease.key.clone(), lease)).collect();
    let mut lost = Vec::new();
    for (key, end) in chains.ends() {
        match rows.get(key) {
            Some(row) => note_existing(row, end, &mut rebuilt),
            None => {
                let (parents, last) =
                    chains.origin_of(key).map_or((None, None), |(parents, last)| (Some(parents), Some(last)));
                let checkpoint = if mutated!(RebuildFromStart) { Position::Beginning } else { end.clone() };
                lost.push(NewLease {
                    parents: parents.cloned().unwrap_or_default(),
                    children: children.remove(key).unwrap_or_default(),
                    last_manifest: last.map(EpochId::manifest_name),
                    hash_range: hash_ranges.get(key).copied(),
                    ..NewLease::new(key.clone(), checkpoint)
                });
            }
        }
    }
    // Shards that have ended come first: a child is read once its parents are done.
    lost.sort_by_key(|new| (new.checkpoint != Position::End, new.key.clone()));
    let created: HashSet<ShardKey> = stores.leases.create(&lost).await?.into_iter().collect();
    // A worker may have created a row in the meantime, at the start of its stream.
    let others: Vec<ShardKey> =
        lost.iter().map(|new| &new.key).filter(|key| !created.contains(*key)).cloned().collect();
    for row in stores.leases_of(others).await? {
        if let Some(end) = chains.end_of(&row.key) {
            note_existing(&row, end, &mut rebuilt);
        }
    }
    let created = lost.into_iter().filter(|new| created.contains(&new.key)).map(|new| (new.key, new.checkpoint));
    rebuilt.created = created.collect();
    rebuilt.created.sort();
    Ok(rebuilt)
}

fn note_existing(row: &Lease, end: &Position, rebuilt: &mut Rebuilt) {
    if row.checkpoint < *end && row.pending.is_none() {
        rebuilt.behind.push((row.key.clone(), row.checkpoint.clone(), end.clone()));
    } else {
        rebuilt.existing += 1;
    }
}

/// An epoch without a commit record, of which a row is lost.
struct Unsettled {
    manifest: Manifest,
    intent: Bytes,
    /// Whether an existing row has it pending.
    is_pending: bool,
}

/// Finishes or undoes the epochs that have no commit record and a lost row.
async fn settle_intents(stores: &Stores, rebuilt: &mut Rebuilt) -> Result<(), CommitError> {
    let Everything { chains, .. } = log::read_everything(stores, &mut drop).await?;
    let follows = |shard: &ShardOfEpoch| match chains.end_of(&shard.key) {
        Some(end) => end == shard.range.after(),
        None => shard.range.after().is_start(),
    };
    let (intents, _) = log::intents(stores).await?;
    let rows: HashMap<ShardKey, Lease> =
        stores.leases.list().await?.into_iter().map(|lease| (lease.key.clone(), lease)).collect();
    let mut unsettled = Vec::new();
    for manifest in intents {
        let name = manifest.epoch.manifest_name();
        let is_lost = manifest.shards.iter().any(|shard| !rows.contains_key(&shard.key));
        if !is_lost {
            continue;
        }
        if stores.lake.get(&manifest.epoch.commit_key()).await?.is_some() {
            // Its rows are gone, so nobody else would enter it, nor remove what an operation removes.
            finish_published(stores, manifest).await?;
            continue;
        }
        // Its bytes, since another version may have written fields that this one does not know.
        let Some(intent) = stores.lake.get(&manifest.epoch.intent_key()).await? else { continue };
        let is_pending =
            manifest.shards.iter().any(|shard| rows.get(&shard.key).is_some_and(|row| row.is_pending(&name)));
        unsettled.push(Unsettled { manifest, intent, is_pending });
    }
    let mut unknown = Vec::new();
    for epoch in unsettled {
        let is_empty = epoch.manifest.objects.is_empty() && epoch.manifest.shards.iter().all(follows);
        if epoch.is_pending || is_empty || was_decided(stores, &epoch.manifest).await? {
            finish(stores, epoch, rebuilt).await?;
        } else {
            abort_uploads(stores, epoch.manifest.clone()).await;
            unknown.push(epoch);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(RECHECK_AFTER).await;
    for epoch in unknown {
        // An upload that could not be aborted before is aborted now, or this fails.
        for object in &epoch.manifest.objects {
            stores.lake.abort_upload(&object.key, &object.upload).await?;
        }
        if stores.lake.get(&epoch.manifest.epoch.commit_key()).await?.is_some() {
            finish_published(stores, epoch.manifest).await?;
            continue;
        }
        if was_decided(stores, &epoch.manifest).await? {
            finish(stores, epoch, rebuilt).await?;
        } else {
            rebuilt.undone.push(epoch.manifest.epoch);
        }
    }
    Ok(())
}

/// Whether a reader can see any of an epoch's objects, or the trash has one that an operation removes. Both happen after the decision only.
async fn was_decided(stores: &Stores, manifest: &Manifest) -> Result<bool, CommitError> {
    for object in &manifest.objects {
        if stores.lake.checksum(&object.key).await?.is_some() {
            return Ok(true);
        }
    }
    for object in &manifest.removed {
        if stores.lake.checksum(&trash_key(&manifest.epoch, &object.key)?).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Publishes an epoch that was decided. If one of its uploads is permanently gone, removes what is visible of it.
async fn finish(stores: &Stores, epoch: Unsettled, rebuilt: &mut Rebuilt) -> Result<(), CommitError> {
    let Unsettled { manifest, intent, .. } = epoch;
    let id = manifest.epoch.clone();
    let mut decided = DecidedEpoch::found(manifest, intent);
    for is_again in [false, true] {
        if is_again {
            tokio::time::sleep(RECHECK_AFTER).await;
        }
        match decided.publish(stores).await? {
            Ok(published) => {
                published.enter(stores).await?.advance(stores).await?;
                rebuilt.finished.push(id);
                return Ok(());
            }
            Err((again, _)) => decided = again,
        }
    }
    let manifest = decided.into_manifest();
    for object in &manifest.objects {
        stores.lake.abort_upload(&object.key, &object.upload).await?;
    }
    for object in &manifest.objects {
        stores.lake.delete(&object.key).await?;
    }
    stores.lake.flush().await?;
    let name = id.manifest_name();
    let rows = stores.leases_of(manifest.shards.iter().map(|shard| shard.key.clone()).collect()).await?;
    let pending: Vec<ShardKey> = rows.into_iter().filter(|row| row.is_pending(&name)).map(|row| row.key).collect();
    if !pending.is_empty() {
        stores.roll_back(&name, &pending).await?;
    }
    rebuilt.undone.push(id);
    Ok(())
}
