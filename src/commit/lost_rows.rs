//! Rows that the lease table lacks although the lake has records of their shards.
//!
//! Owns: finding them. If a worker started without them, it would create them at the start of their streams, and every record would
//! be read and committed again. Does not own: what is done about them (`setup` refuses to start, `maintenance::rebuild` makes them
//! again).
//!
//! A row exists before anything of its shard is committed. It is removed only when the shard was read to its end and its children are
//! being read, by a worker or by a KCL application. So a shard with commit records has a row, or something that came from it was
//! read. The commit records are read first and the table after them: another worker may create rows and commit meanwhile.

use std::collections::HashSet;

use checkpoints::{Lease, Position, ShardKey, StreamName};
use mutations::mutated;

use crate::commit::log::{self, Chains};
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;

/// Shards named in a message.
const NAMED: usize = 3;

/// The shards of one stream that have commit records and no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRows {
    /// The stream.
    pub stream: StreamName,
    /// The shards, and how far each was committed.
    pub shards: Vec<(ShardKey, Position)>,
    /// Whether the table has other rows of the stream.
    pub in_part: bool,
}

impl std::fmt::Display for LostRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LostRows { stream, shards, in_part } = self;
        let count = shards.len();
        if !in_part {
            let shards = if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") };
            return write!(f, "{shards} of stream {stream}, which has no row at all");
        }
        let named: Vec<&str> = shards.iter().take(NAMED).map(|(key, _)| key.shard.as_str()).collect();
        write!(f, "{}", named.join(", "))?;
        if let Some(more @ 1..) = count.checked_sub(NAMED) {
            write!(f, " and {more} more")?;
        }
        write!(f, " of stream {stream}, which {} no row", if count == 1 { "has" } else { "have" })
    }
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
        let in_part = leases.iter().any(|lease| lease.key.stream == *stream);
        (!shards.is_empty()).then(|| LostRows { stream: stream.clone(), shards, in_part })
    };
    streams.iter().filter_map(lost).collect()
}
