//! A lease as a DynamoDB item, with KCL's attribute names, types and sentinels: the one place that encodes and decodes it.
//!
//! `row.rs` has the meaning of the values. Here they get their types:
//!
//! | attribute | type |
//! |---|---|
//! | `leaseKey`; `streamName` and `shardId` unless the key is bare (`keys.rs`) | S |
//! | `shardlakeStream` (ours): our name of the stream, in every row that we ever wrote | S |
//! | `entityType`: `LEASE`, or absent in rows of a KCL before 3.5; an item of another type is not a lease | S |
//! | `leaseOwner`, `checkpointOwner`, `checkpoint`, `pendingCheckpoint`, `lastManifest` (ours) | S |
//! | `leaseCounter`, `ownerSwitchesSinceCheckpoint`, the two sub-sequence numbers, `throughputKBps` | N |
//! | `parentShardId`, `childShardIds`: absent when empty | SS |
//! | `startingHashKey`, `endingHashKey` | S |
//! | `pendingCheckpointState`: the bytes of the manifest's name | B |
//!
//! KCL has pending checkpoints of its own (`prepareCheckpoint`). Their state is any bytes of the application, a number (a bug
//! in KCL) or absent. They have no meaning for us and are ignored: a pending checkpoint is ours if its state is bytes
//! that begin with `_intents/`.
//!
//! It does not own how a row changes (`change.rs`). Decoding never panics, and reads only the attributes that are named here.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::keys::{KeyAttributes, Keys, RowKey, malformed};
use crate::error::StoreError;
use crate::lease::{Lease, ManifestName};
use crate::row::{self, StoredLease};

pub(super) const LEASE_KEY: &str = "leaseKey";
pub(super) const SHARDLAKE_STREAM: &str = "shardlakeStream";
pub(super) const STREAM_NAME: &str = "streamName";
pub(super) const SHARD_ID: &str = "shardId";
pub(super) const ENTITY_TYPE: &str = "entityType";
pub(super) const LEASE_OWNER: &str = "leaseOwner";
pub(super) const CHECKPOINT_OWNER: &str = "checkpointOwner";
pub(super) const LEASE_COUNTER: &str = "leaseCounter";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const CHECKPOINT_SUB: &str = "checkpointSubSequenceNumber";
pub(super) const PENDING: &str = "pendingCheckpoint";
pub(super) const PENDING_SUB: &str = "pendingCheckpointSubSequenceNumber";
pub(super) const PENDING_STATE: &str = "pendingCheckpointState";
pub(super) const LAST_MANIFEST: &str = "lastManifest";
pub(super) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(super) const THROUGHPUT: &str = "throughputKBps";
pub(super) const CHILDREN: &str = "childShardIds";
const PARENTS: &str = "parentShardId";
const STARTING_HASH_KEY: &str = "startingHashKey";
const ENDING_HASH_KEY: &str = "endingHashKey";

/// The `entityType` of leases.
const LEASE: &str = "LEASE";
/// The beginning of every manifest's name.
pub(super) const MANIFEST_PREFIX: &str = "_intents/";
/// The first text after all those with that beginning.
pub(super) const MANIFEST_PREFIX_SUCCESSOR: &str = "_intents0";
/// The least and the greatest number, other than 0, that DynamoDB takes. A throughput outside is clamped.
const NUMBER_BOUNDS: (f64, f64) = (1e-130, 1e125);

/// An item, in the SDK's type.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// A throughput, clamped to what DynamoDB takes: it only balances the load.
pub(super) fn throughput(kbps: f64) -> AttributeValue {
    let (least, greatest) = NUMBER_BOUNDS;
    let kbps = if kbps < least { 0.0 } else { kbps.min(greatest) };
    let plain = kbps == 0.0 || (1e-6..1e15).contains(&kbps);
    AttributeValue::N(if plain { kbps.to_string() } else { format!("{kbps:e}") })
}

pub(super) fn manifest(name: &ManifestName) -> AttributeValue {
    AttributeValue::B(Blob::new(name.as_str()))
}

/// A set of texts; none if it is empty, since DynamoDB has no empty sets.
pub(super) fn texts(texts: Vec<String>) -> Option<AttributeValue> {
    (!texts.is_empty()).then_some(AttributeValue::Ss(texts))
}

/// Encodes a whole lease.
///
/// # Errors
///
/// [`StoreError::Invalid`] if a number exceeds `i64::MAX`.
pub(super) fn encode(lease: &Lease, row_key: &RowKey) -> Result<Item, StoreError> {
    let stored = row::encode(lease)?;
    let behind = row_key.stream_name.as_ref();
    let pending_state = stored.pending_checkpoint_state.map(|name| AttributeValue::B(Blob::new(name)));
    let attributes = [
        (LEASE_KEY, Some(text(&row_key.lease_key))),
        (SHARDLAKE_STREAM, Some(text(stored.stream_name))),
        (STREAM_NAME, behind.map(text)),
        (SHARD_ID, behind.map(|_| text(stored.shard_id))),
        (ENTITY_TYPE, Some(text(LEASE))),
        (LEASE_OWNER, stored.lease_owner.map(text)),
        (CHECKPOINT_OWNER, stored.checkpoint_owner.map(text)),
        (LEASE_COUNTER, Some(number(stored.lease_counter))),
        (CHECKPOINT, Some(text(stored.checkpoint))),
        (CHECKPOINT_SUB, Some(number(stored.checkpoint_sub_sequence_number))),
        (PENDING, stored.pending_checkpoint.map(text)),
        (PENDING_SUB, stored.pending_checkpoint_sub_sequence_number.map(number)),
        (PENDING_STATE, pending_state),
        (LAST_MANIFEST, stored.last_manifest.map(text)),
        (PARENTS, texts(stored.parent_shard_id)),
        (CHILDREN, texts(stored.child_shard_ids)),
        (STARTING_HASH_KEY, stored.starting_hash_key.map(text)),
        (ENDING_HASH_KEY, stored.ending_hash_key.map(text)),
        (OWNER_SWITCHES, Some(number(stored.owner_switches_since_checkpoint))),
        // As in KCL: from the first renewal on.
        (THROUGHPUT, (stored.throughput_kbps > 0.0).then(|| throughput(stored.throughput_kbps))),
    ];
    Ok(attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// Decodes an item; `None` if it is not a lease, or is a lease of a stream that was deleted and created again.
///
/// # Errors
///
/// [`StoreError::Malformed`] if the item is malformed.
pub(super) fn decode(item: &Item, keys: &Keys) -> Result<Option<Lease>, StoreError> {
    let Some(attributes) = key_attributes(item)? else { return Ok(None) };
    let Some(key) = keys.shard(&attributes)? else { return Ok(None) };
    let stored = stored(item, key.stream.to_string(), key.shard.to_string());
    row::decode(stored.map_err(|problem| StoreError::malformed_lease(&key, problem))?).map(Some)
}

/// The attributes that form an item's key; `None` if it is not a lease.
///
/// # Errors
///
/// [`StoreError::Malformed`] if one of these attributes is not a text.
pub(super) fn key_attributes(item: &Item) -> Result<Option<KeyAttributes>, StoreError> {
    let lease_key = item.get(LEASE_KEY).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default();
    let none = KeyAttributes { lease_key, shardlake_stream: None, stream_name: None, shard_id: None };
    let entity_type = get_text(item, ENTITY_TYPE).map_err(|problem| malformed(&none, problem))?;
    if entity_type.is_some_and(|entity_type| entity_type != LEASE) {
        return Ok(None);
    }
    let get = |name| get_text(item, name).map_err(|problem| malformed(&none, problem));
    let (shardlake_stream, stream_name, shard_id) = (get(SHARDLAKE_STREAM)?, get(STREAM_NAME)?, get(SHARD_ID)?);
    Ok(Some(KeyAttributes { shardlake_stream, stream_name, shard_id, ..none }))
}

/// The values of a lease, not interpreted.
fn stored(item: &Item, stream_name: String, shard_id: String) -> Result<StoredLease, String> {
    let needed = |name: &str| format!("it has no {name}");
    let number = |name| get_number(item, name);
    let ours = get_manifest(item)?;
    let pending = ours.is_some();
    Ok(StoredLease {
        stream_name,
        shard_id,
        lease_owner: get_text(item, LEASE_OWNER)?,
        checkpoint_owner: get_text(item, CHECKPOINT_OWNER)?,
        lease_counter: number(LEASE_COUNTER)?.ok_or_else(|| needed(LEASE_COUNTER))?,
        checkpoint: get_text(item, CHECKPOINT)?.ok_or_else(|| needed(CHECKPOINT))?,
        checkpoint_sub_sequence_number: number(CHECKPOINT_SUB)?.ok_or_else(|| needed(CHECKPOINT_SUB))?,
        pending_checkpoint: if pending { get_text(item, PENDING)? } else { None },
        pending_checkpoint_sub_sequence_number: if pending { number(PENDING_SUB)? } else { None },
        pending_checkpoint_state: ours,
        last_manifest: get_text(item, LAST_MANIFEST)?,
        parent_shard_id: get_texts(item, PARENTS)?,
        child_shard_ids: get_texts(item, CHILDREN)?,
        starting_hash_key: get_text(item, STARTING_HASH_KEY)?,
        ending_hash_key: get_text(item, ENDING_HASH_KEY)?,
        owner_switches_since_checkpoint: number(OWNER_SWITCHES)?.unwrap_or_default(),
        throughput_kbps: match item.get(THROUGHPUT) {
            None => 0.0,
            Some(AttributeValue::N(kbps)) => kbps.parse().map_err(|_| format!("{THROUGHPUT} is {kbps:?}"))?,
            Some(_) => return Err(wrong_type(THROUGHPUT, "number")),
        },
    })
}

/// The pending manifest, if the pending checkpoint is ours.
fn get_manifest(item: &Item) -> Result<Option<String>, String> {
    let state = item.get(PENDING_STATE).and_then(|state| state.as_b().ok());
    let ours = state.filter(|state| state.as_ref().starts_with(MANIFEST_PREFIX.as_bytes()));
    ours.map(|state| String::from_utf8(state.as_ref().to_vec()))
        .transpose()
        .map_err(|_| format!("{PENDING_STATE} is not UTF-8"))
}

pub(super) fn get_text(item: &Item, name: &str) -> Result<Option<String>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::S(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong_type(name, "text")),
    }
}

pub(super) fn get_number<T: std::str::FromStr>(item: &Item, name: &str) -> Result<Option<T>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(text)) => text.parse().map(Some).map_err(|_| format!("{name} is {text}")),
        Some(_) => Err(wrong_type(name, "number")),
    }
}

fn get_texts(item: &Item, name: &str) -> Result<Vec<String>, String> {
    match item.get(name) {
        None => Ok(Vec::new()),
        Some(AttributeValue::Ss(texts)) => Ok(texts.clone()),
        Some(_) => Err(wrong_type(name, "set of texts")),
    }
}

fn wrong_type(name: &str, expected: &str) -> String {
    format!("{name} is not a {expected}")
}

#[cfg(test)]
#[path = "item/tests.rs"]
mod tests;
