//! Which positions belong together: a consistent cut of the lease table, at the boundaries of epochs.
//!
//! Owns: reading the rows so that every epoch is in the result for all of its shards or for none of them. Does not own: the stored form
//! of a checkpoint (the parent module), the rows (the checkpoints crate).
//!
//! A scan of the table is not a snapshot: while it runs, an epoch may advance one row before the scan reads it, and another one after
//! that. So the table is read twice, and the result is the second scan with what follows from commit records:
//!
//! 1. Read the rows (*first scan*), then read them again (*second scan*).
//! 2. An epoch that is in one row and missing in another was decided after the first scan, or is still pending. The second scan
//!    names it: as pending, or as a row's last manifest that no row of the first scan names.
//! 3. Get the commit record of each epoch so named. A record is written before the first row advances. So an epoch without one has
//!    advanced no row, and is left out. An epoch with one is added to all of its rows.
//! 4. Check that each row has moved since the first scan by exactly the ranges of these records. Otherwise a shard was committed
//!    twice in the meantime, and the first of the two epochs is unknown: read again.
//!
//! On a quiet table step 3 reads nothing. Every epoch that had a commit record before the second scan began is in the result.
//! Operations on the lake have rows in the same table. They are not positions of a stream, and are left out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use checkpoints::{Lease, ManifestName, Position, ShardKey, StoreError};
use futures::{StreamExt, TryStreamExt, stream};

use crate::commit::epoch_id::EpochId;
use crate::commit::manifest::{DefinitionOfEpoch, Manifest, ShardOfEpoch, UnreadableManifest};
use crate::commit::named_checkpoint::SavedShard;
use crate::commit::operations::is_internal_stream;
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;

/// Commit records that are read at once. Each may have megabytes.
const CONCURRENT: usize = 8;
/// How often the table is read again, if shards are committed while it is read.
const SCANS_MAX: usize = 8;
/// Commit records that are read to find the definitions, the newest first.
const DEFINITIONS_FROM: usize = 64;

/// The positions of all shards of a lake at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The shards, in the order of their keys.
    pub shards: Vec<SavedShard>,
    /// By dataset, the definitions by which the last epoch of each shard made rows. More than one while workers are updated.
    pub definitions: BTreeMap<String, Vec<DefinitionOfEpoch>>,
}

/// Why no cut was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The stores fail, or a commit record cannot be read.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Shards are committed too fast.
    #[error(
        "the positions of all shards at one moment are not known: shards were committed more than once during each of \
         {SCANS_MAX} scans of the lease table; try again, or commit less often ([commit] interval)"
    )]
    Unsettled,
}

impl From<StoreError> for CutError {
    fn from(error: StoreError) -> Self {
        CutError::Commit(error.into())
    }
}

/// What a cut needs of a commit record.
#[derive(Clone, Debug)]
struct Record {
    epoch: EpochId,
    shards: Vec<ShardOfEpoch>,
    definitions: BTreeMap<String, DefinitionOfEpoch>,
}

impl From<Manifest> for Record {
    fn from(manifest: Manifest) -> Self {
        let Manifest { epoch, shards, definitions, .. } = manifest;
        Record { epoch, shards, definitions }
    }
}

/// Reads the positions of all shards of the lake's streams at one moment.
///
/// # Errors
/// The stores fail, a commit record cannot be read, or shards are committed too fast.
pub async fn read_cut(stores: &Stores) -> Result<Cut, CutError> {
    let mut first = rows(stores).await?;
    for _ in 1..SCANS_MAX {
        let second = rows(stores).await?;
        let names = unsettled(&first, &second);
        let records = read_records(stores, names).await?;
        if let Some(settled) = settle(&first, second.clone(), &records) {
            return finish(stores, settled).await;
        }
        first = second;
    }
    Err(CutError::Unsettled)
}

async fn rows(stores: &Stores) -> Result<BTreeMap<ShardKey, Lease>, CommitError> {
    let mut leases = stores.own_leases().await?;
    leases.retain(|lease| !is_internal_stream(&lease.key.stream));
    Ok(leases.into_iter().map(|lease| (lease.key.clone(), lease)).collect())
}

/// The epochs that the second scan may show in part.
fn unsettled(first: &BTreeMap<ShardKey, Lease>, second: &BTreeMap<ShardKey, Lease>) -> BTreeSet<ManifestName> {
    let before: HashSet<&ManifestName> = first.values().filter_map(|row| row.last_manifest.as_ref()).collect();
    let named = second.values().flat_map(|row| {
        let pending = row.pending.as_ref().map(|pending| &pending.manifest);
        [pending, row.last_manifest.as_ref().filter(|name| !before.contains(name))]
    });
    named.flatten().cloned().collect()
}

/// The commit records of these epochs. Those without one are left out.
async fn read_records(
    stores: &Stores,
    names: impl IntoIterator<Item = ManifestName>,
) -> Result<Vec<Record>, CommitError> {
    let names: Vec<ManifestName> = names.into_iter().collect();
    let records: Vec<Option<Record>> = stream::iter(names)
        .map(|name| read_record(stores.clone(), name))
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await?;
    Ok(records.into_iter().flatten().collect())
}

async fn read_record(stores: Stores, name: ManifestName) -> Result<Option<Record>, CommitError> {
    let unreadable = |problem| UnreadableManifest { name: name.as_str().to_owned(), problem };
    let key = EpochId::of_manifest(&name).map_err(unreadable)?.commit_key();
    let Some(bytes) = stores.lake.get(&key).await? else { return Ok(None) };
    Ok(Some(Manifest::from_bytes(&key, &bytes)?.into()))
}

/// Adds the epochs with commit records to all their rows. `None`: a row has moved by an epoch that is not among them.
fn settle(
    first: &BTreeMap<ShardKey, Lease>,
    mut second: BTreeMap<ShardKey, Lease>,
    records: &[Record],
) -> Option<BTreeMap<ShardKey, Lease>> {
    let mut ranges: BTreeMap<&ShardKey, Vec<&ShardOfEpoch>> = BTreeMap::new();
    for Record { epoch, shards, .. } in records {
        for shard in shards {
            ranges.entry(&shard.key).or_default().push(shard);
            let through = shard.range.through();
            let Some(row) = second.get_mut(&shard.key) else {
                // A row is removed once its shard was read to the end. Any other one was created after the scan.
                if *through == Position::End {
                    continue;
                }
                return None;
            };
            if row.checkpoint < *through {
                row.checkpoint = through.clone();
                row.children.extend(shard.children.iter().cloned());
                row.last_manifest = Some(epoch.manifest_name());
            }
        }
    }
    for (key, row) in &second {
        let mut at = match first.get(key) {
            Some(before) => &before.checkpoint,
            None if row.last_manifest.is_none() => continue,
            // A row that was created and committed since the first scan: the next one sees more.
            None => return None,
        };
        let mut ranges = ranges.remove(key).unwrap_or_default();
        ranges.sort_by(|one, other| one.range.after().cmp(other.range.after()));
        for shard in ranges {
            if shard.range.after() == at {
                at = shard.range.through();
            }
        }
        if *at != row.checkpoint {
            return None;
        }
    }
    Some(second)
}

/// The cut of these rows, with the definitions of their last epochs.
async fn finish(stores: &Stores, rows: BTreeMap<ShardKey, Lease>) -> Result<Cut, CutError> {
    let shards: Vec<SavedShard> = rows.into_values().map(SavedShard::of_lease).collect();
    let of = |is_open: bool| {
        let shards = shards.iter().filter(move |shard| !is_open || shard.checkpoint != Position::End);
        shards.filter_map(|shard| shard.last_manifest.clone()).collect::<BTreeSet<ManifestName>>()
    };
    // What was made of shards that have ended is older.
    let names = Some(of(true)).filter(|names| !names.is_empty()).unwrap_or_else(|| of(false));
    // A name begins with the time at which its epoch began.
    let newest = names.into_iter().rev().take(DEFINITIONS_FROM);
    let mut definitions: BTreeMap<String, Vec<DefinitionOfEpoch>> = BTreeMap::new();
    for record in read_records(stores, newest).await? {
        for (dataset, definition) in record.definitions {
            let known = definitions.entry(dataset).or_default();
            if !known.contains(&definition) {
                known.push(definition);
            }
        }
    }
    for known in definitions.values_mut() {
        known.sort_by(|one, other| (one.schema_version, &one.hash).cmp(&(other.schema_version, &other.hash)));
    }
    Ok(Cut { shards, definitions })
}

#[cfg(test)]
mod tests;
