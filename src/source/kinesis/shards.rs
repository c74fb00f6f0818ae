//! The shards of a stream.
//!
//! Owns: listing them, page by page, and what a reader needs of a list. Does not own: who reads which shard, and in which order
//! (`worker`).
//!
//! The list has the shards that may contain something to read: all that the stream still has, or those that were open at the time
//! where reading starts and all after them. Each of them starts at that same position. This includes a shard that was created after
//! the time: all its records arrived later, so reading since then is reading from its beginning. So no record between a split and
//! the next list is missed. A shard from before the time, which a service without filters lists too, has nothing since then, and
//! ends at once.

use std::collections::HashSet;

use aws_sdk_kinesis::types::{Shard, ShardFilter, ShardFilterType};
use checkpoints::{HashRange, Position, ShardId};

use crate::source::SourceShard;
use crate::source::kinesis::cursor::Cursor;
use crate::source::kinesis::requests;
use crate::source::kinesis::service::Failure;

/// How often a list is restarted because the token of its next page was too old.
const RESTARTS_MAX: usize = 3;

/// Lists the shards once. The caller handles throttling.
pub(super) async fn list(
    client: &aws_sdk_kinesis::Client,
    stream: &str,
    start: &Position,
) -> Result<Vec<SourceShard>, Failure> {
    let mut filter = Some(filter(start));
    let mut restarts = 0;
    loop {
        match pages(client, stream, filter.clone()).await {
            Ok(shards) => return Ok(source_shards(&shards, start)),
            Err(Failure::Expired(_)) if restarts < RESTARTS_MAX => restarts += 1,
            // A time ahead of the service's clock, or a service without filters. More shards do no harm.
            Err(Failure::Invalid(message)) if filter.is_some() => {
                tracing::debug!(message, "filter rejected; listing all shards");
                filter = None;
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn filter(start: &Position) -> ShardFilter {
    let since = Cursor::new(start).and_then(|cursor| cursor.begin().time());
    let kind = if since.is_some() { ShardFilterType::FromTimestamp } else { ShardFilterType::FromTrimHorizon };
    ShardFilter::builder().r#type(kind).set_timestamp(since).build().expect("it has a type")
}

async fn pages(
    client: &aws_sdk_kinesis::Client,
    stream: &str,
    filter: Option<ShardFilter>,
) -> Result<Vec<Shard>, Failure> {
    let mut shards = Vec::new();
    let mut token: Option<String> = None;
    loop {
        // A token includes the filter, which must not be sent with it.
        let call = match token.take() {
            Some(token) => requests::list_more_shards(client, stream, token),
            None => requests::list_shards(client, stream).set_shard_filter(filter.clone()),
        };
        let page = call.send().await.map_err(|error| Failure::of("ListShards", &error))?;
        shards.extend(page.shards.unwrap_or_default());
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(shards);
        }
    }
}

fn source_shards(shards: &[Shard], start: &Position) -> Vec<SourceShard> {
    let listed: HashSet<&str> = shards.iter().map(|shard| shard.shard_id.as_str()).collect();
    let mut seen = HashSet::new();
    let shards = shards.iter().filter(|shard| seen.insert(shard.shard_id.as_str()));
    let source_shard = |shard: &Shard| {
        let parents = [&shard.parent_shard_id, &shard.adjacent_parent_shard_id];
        // A parent that is not listed has nothing left to read.
        let parents = parents.into_iter().flatten().filter(|parent| listed.contains(parent.as_str()));
        let range = shard.hash_key_range.as_ref();
        let hash_range = range.and_then(|range| {
            HashRange::new(range.starting_hash_key.parse().ok()?, range.ending_hash_key.parse().ok()?)
        });
        let id = ShardId::new(shard.shard_id.as_str()).ok()?;
        let parents = parents.filter_map(|parent| ShardId::new(parent.as_str()).ok()).collect();
        Some(SourceShard { id, parents, first: start.clone(), hash_range })
    };
    shards.filter_map(source_shard).collect()
}
