//! The contents of a checkpoint: the positions of all shards at one moment, and what a replay needs to know beside them.
//!
//! Owns: the order in which this is read. Does not own: the cut (`commit::named_checkpoint`), the stored form.
//!
//! The version of the lake log is read before the rows. An epoch enters the log after its commit record was written, and the cut has
//! every epoch with a commit record. So every epoch up to that version is in the checkpoint; later ones may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoints::Position;
use futures::{StreamExt, TryStreamExt, stream};
use mutations::mutated;

use crate::commit::lake_log::newest_version;
use crate::commit::{CheckpointName, Cut, CutError, NamedCheckpoint, SavedBy, SavedShard, Stores, read_cut};
use crate::named_checkpoints::expiry::Retentions;
use crate::source::{Behind, ShardSource, SourceError};

/// Shards that are asked about at once.
const CONCURRENT: usize = 8;

/// The positions of all shards now, as a checkpoint that is not saved yet. `now_ms` is the time of day in milliseconds since 1970.
/// Streams that cannot be asked how far their shards are behind are left out of
/// [`behind_ms`](NamedCheckpoint::behind_ms), and why is logged.
///
/// # Errors
/// The stores fail, or shards are committed too fast.
pub async fn take(
    stores: &Stores,
    sources: &[Arc<dyn ShardSource>],
    retentions: &Retentions,
    name: CheckpointName,
    saved_by: SavedBy,
    now_ms: i64,
) -> Result<NamedCheckpoint, CutError> {
    let before = newest_version(stores).await?;
    let Cut { shards, definitions } = read_cut(stores).await?;
    let version = if mutated!(VersionAfterCut) { newest_version(stores).await? } else { before };
    let log_version = Some(version).filter(|version| !version.is_empty());
    let mut behind_ms = BTreeMap::new();
    for source in sources.iter().filter(|source| retentions.of(source.stream()).is_some()) {
        match oldest_unread(source, &shards).await {
            Ok(Some(ms)) => drop(behind_ms.insert(source.stream().clone(), ms)),
            Ok(None) => {}
            Err(error) => {
                let stream = source.stream();
                tracing::warn!(%stream, %error, "cannot tell how old the unread records are; the checkpoint is saved without it");
            }
        }
    }
    Ok(NamedCheckpoint { name, saved_at_ms: now_ms, saved_by, log_version, behind_ms, definitions, shards })
}

/// The age in milliseconds of the oldest record of a stream that was not read; `None` if the stream has no shard to read.
async fn oldest_unread(source: &Arc<dyn ShardSource>, shards: &[SavedShard]) -> Result<Option<u64>, SourceError> {
    let of_stream = |shard: &&SavedShard| shard.key.stream == *source.stream() && shard.checkpoint != Position::End;
    let open: Vec<SavedShard> = shards.iter().filter(of_stream).cloned().collect();
    let asked = stream::iter(open).map(|shard| age_of_next(Arc::clone(source), shard));
    let ages: Vec<u64> = asked.buffer_unordered(CONCURRENT).try_collect().await?;
    Ok(ages.into_iter().max())
}

/// The age in milliseconds of the first record after a shard's position; 0 if there is none.
async fn age_of_next(source: Arc<dyn ShardSource>, shard: SavedShard) -> Result<u64, SourceError> {
    match source.behind(&shard.key.shard, &shard.checkpoint).await? {
        Behind::Nothing | Behind::Bytes(_) => Ok(0),
        Behind::Time(ms) => Ok(ms),
    }
}
