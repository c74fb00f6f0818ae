//! Rows that the lease table lacks, or has at an older position, although the lake has records of their shards.
//!
//! Owns: finding them. If a worker started without them, it would create them at the start of their streams, and every record would
//! be read and committed again. Does not own: what is done about them (`setup` refuses to start, `maintenance::rebuild` makes them
//! again).
//!
//! A row exists before anything of its shard is committed. It is removed only when the shard was read to its end and its children are
//! being read, by a worker or by a KCL application. So a shard with commit records has a row, or something that came from it was
//! read. The commit records are read first and the table after them: another worker may create rows and commit meanwhile.
//!
//! A row of a backup is at the position of an older commit record than the newest of its shard, and nothing is pending. A row that is
//! read again with consent is before the newest record, too, but newer epochs have moved it.

use std::collections::HashSet;

use checkpoints::{Lease, Position, ShardKey, StreamName};
use mutations::mutated;

use crate::commit::epoch_id::EpochId;
use crate::commit::log::{self, Chains};
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;

/// Shards named in a message.
const NAMED: usize = 3;

/// The shards of one stream that have commit records and no rows, or rows of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRows {
    /// The stream.
    pub stream: StreamName,
    /// The shards, and how far each was committed.
    pub shards: Vec<(ShardKey, Position)>,
    /// Shards whose rows are before what is committed.
    pub behind: Vec<ShardKey>,
    /// Whether the table has other rows of the stream.
    pub in_part: bool,
}

impl std::fmt::Display for LostRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LostRows { stream, shards, behind, in_part } = self;
        let count = shards.len();
        if !in_part {
            let shards = if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") };
            return write!(f, "{shards} of stream {stream}, which has no row at all");
        }
        if count > 0 {
            let keys = named(shards.iter().map(|(key, _)| key));
            write!(f, "{keys} of stream {stream}, which {} no row", if count == 1 { "has" } else { "have" })?;
        }
        if !behind.is_empty() {
            let and = if count > 0 { ", and of " } else { "" };
            let keys = named(behind.iter());
            write!(
                f,
                "{and}{keys} of stream {stream} after the position in the row (delete such a row before you make it again)"
            )?;
        }
        Ok(())
    }
}

/// The first of these shards, and how many more there are.
fn named<'k>(keys: impl ExactSizeIterator<Item = &'k ShardKey>) -> String {
    let more = keys.len().saturating_sub(NAMED);
    let named: Vec<&str> = keys.take(NAMED).map(|key| key.shard.as_str()).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(", ") + &more
}

/// The rows of these streams that are lost, by stream.
///
/// # Errors
/// Lake or lease store fails.
pub async fn lost_rows(stores: &Stores, streams: &[StreamName]) -> Result<Vec<LostRows>, CommitError> {
    if mutated!(IgnoreLostRows) {
        return Ok(Vec::new());
    }
    let log = log::read(stores).await?;
    let found = compare(&log.chains, &log.leases, streams);
    if found.is_empty() {
        return Ok(found);
    }
    // These leases were read before the lake.
    Ok(compare(&log.chains, &stores.leases.list().await?, streams))
}

fn compare(chains: &Chains, leases: &[Lease], streams: &[StreamName]) -> Vec<LostRows> {
    let rows: HashSet<&ShardKey> = leases.iter().map(|lease| &lease.key).collect();
    let was_read = leases.iter().filter(|lease| !lease.checkpoint.is_start());
    let superseded: HashSet<ShardKey> = was_read.flat_map(Lease::parent_keys).chain(chains.parents()).collect();
    let lost = |stream: &StreamName| {
        let ends = chains.ends().filter(|(key, _)| key.stream == *stream);
        let lost = ends.filter(|(key, _)| !rows.contains(key) && !superseded.contains(*key));
        let shards: Vec<(ShardKey, Position)> = lost.map(|(key, end)| (key.clone(), end.clone())).collect();
        let of_stream = || leases.iter().filter(|lease| lease.key.stream == *stream);
        let behind = of_stream().filter(|lease| is_of_backup(lease, chains)).map(|lease| lease.key.clone());
        let behind: Vec<ShardKey> = behind.collect();
        let in_part = of_stream().next().is_some();
        let is_fault = !shards.is_empty() || !behind.is_empty();
        is_fault.then(|| LostRows { stream: stream.clone(), shards, behind, in_part })
    };
    streams.iter().filter_map(lost).collect()
}

/// Whether a row is where an older commit record than the newest of its shard had moved it.
fn is_of_backup(row: &Lease, chains: &Chains) -> bool {
    let Some((end, (_, last))) = chains.end_of(&row.key).zip(chains.origin_of(&row.key)) else { return false };
    let moved_by = row.last_manifest.as_ref().and_then(|name| EpochId::of_manifest(name).ok());
    row.pending.is_none() && row.checkpoint < *end && moved_by.is_some_and(|epoch| epoch < *last)
}
