//! Lake and lease table as one worker reaches them: in memory, with the requests that S3 and DynamoDB would get for each call.
//!
//! Owns: which requests a call sends, and how many units of the table it takes, from what the stores of the product do
//! (`lake::s3`, the checkpoints crate's `dynamodb`). Does not own: counting, and how long a request takes (`requests`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{
    Advance, AdvanceOutcome, Decision, Lease, LeaseOwner, LeaseStore, ManifestName, MemoryStore as MemoryLeases,
    NewLease, Position, Renewal, RenewalOutcome, ShardKey, StoreError, Verdict,
};
use shardlake::lake::{
    Checksum, Completion, LakeError, MemoryStore, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, UploadId,
    UploadInfo, Written,
};

use super::requests::{Caller, Operation};

/// Requests of one call that are in flight at once, as in the product.
const REQUESTS: usize = 16;
/// Keys of a BatchGetItem.
const BATCH: usize = 100;
/// Bytes of a page of a scan, and of a consistent read unit.
const PAGE_BYTES: u64 = 1 << 20;
const READ_UNIT: u64 = 4 << 10;
/// Keys of a page of a list.
const LIST_PAGE: usize = 1_000;
/// Bytes of a position of Kinesis: 56 digits.
const POSITION: usize = 56;
/// What a write costs that changes the holder: an item leaves the index and another one enters it.
const INDEXED: u64 = 3;

/// Bytes of a lease's item, as DynamoDB counts them: the names of the attributes and their values.
pub fn item_bytes(lease: &Lease) -> u64 {
    let at = |position: &Position| if matches!(position, Position::At { .. }) { POSITION } else { 12 };
    let shard = lease.key.shard.as_str().len();
    let mut bytes = "leaseKey".len() + shard;
    bytes += "shardlakeStream".len() + lease.key.stream.as_str().len();
    bytes += "entityTypeLEASE".len();
    bytes += "leaseCounter".len() + 4 + "ownerSwitchesSinceCheckpoint".len() + 2 + "throughputKBps".len() + 10;
    bytes += "checkpoint".len() + at(&lease.checkpoint) + "checkpointSubSequenceNumber".len() + 1;
    bytes += "startingHashKey".len() + "endingHashKey".len() + 2 * 39;
    if let Some(holder) = lease.holder.committer() {
        bytes += "leaseOwner".len() + holder.to_string().len();
    }
    if let Some(pending) = &lease.pending {
        bytes += "pendingCheckpointpendingCheckpointSubSequenceNumberpendingCheckpointState".len() + POSITION + 1;
        bytes += pending.manifest.as_str().len();
    }
    bytes += lease.last_manifest.as_ref().map_or(0, |manifest| "lastManifest".len() + manifest.as_str().len());
    let sets = [("parentShardId", &lease.parents), ("childShardIds", &lease.children)];
    bytes += sets
        .iter()
        .filter(|(_, set)| !set.is_empty())
        .map(|(name, set)| name.len() + 3 + set.len() * shard)
        .sum::<usize>();
    bytes as u64
}

/// The lease table.
#[derive(Debug)]
pub struct CountedLeases {
    pub(super) caller: Arc<Caller>,
    pub(super) store: MemoryLeases,
}

impl CountedLeases {
    async fn writes(&self, operation: Operation, rows: usize, units: u64) -> Result<(), StoreError> {
        self.request(operation, rows, REQUESTS, 0, units * rows as u64).await
    }

    async fn request(
        &self,
        operation: Operation,
        count: usize,
        at_once: usize,
        reads: u64,
        writes: u64,
    ) -> Result<(), StoreError> {
        if count == 0 {
            return Ok(());
        }
        self.caller.charge(count as u64);
        self.caller.units(reads, writes).await.map_err(|_| StoreError::Unavailable {
            operation: format!("{operation:?}"),
            problem: "throttled in the simulation".to_owned(),
        })?;
        self.caller.send(operation, count, at_once).await;
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for CountedLeases {
    fn is_metered(&self) -> bool {
        true
    }

    fn decision_shards_max(&self) -> usize {
        100
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        let bytes: u64 = self.store.rows().iter().map(item_bytes).sum();
        let pages = bytes.div_ceil(PAGE_BYTES).max(1);
        for page in 0..pages {
            let of_page = PAGE_BYTES.min(bytes - page * PAGE_BYTES);
            self.request(Operation::Scan, 1, 1, of_page.div_ceil(READ_UNIT).max(1), 0).await?;
        }
        self.store.list().await
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        self.request(Operation::BatchGetItem, keys.len().div_ceil(BATCH), REQUESTS, keys.len() as u64, 0).await?;
        self.store.get(keys).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        self.writes(Operation::PutItem, leases.len(), 1).await?;
        self.store.create(leases).await
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        self.writes(Operation::UpdateItem, renewals.len(), 1).await?;
        self.store.renew(me, renewals).await
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        // A refusal costs the table a unit, and leaves the index as it is.
        self.writes(Operation::UpdateItem, 1, 1).await?;
        let taken = self.store.take(me, key, seen_counter).await?;
        if taken.is_some() {
            self.caller.note_units(INDEXED - 1);
        }
        Ok(taken)
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        self.writes(Operation::UpdateItem, 1, INDEXED).await?;
        self.store.ask(me, key, from).await
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.writes(Operation::UpdateItem, 1, INDEXED).await?;
        self.store.hand_over(me, key).await
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.writes(Operation::UpdateItem, 1, INDEXED).await?;
        self.store.release(me, key).await
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        self.writes(Operation::DeleteItem, 1, INDEXED).await?;
        self.store.remove(key).await
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        let rows = decision.shards().len() as u64;
        self.request(Operation::TransactWriteItems, 1, 1, 0, 2 * rows).await?;
        self.store.decide(decision).await
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        self.writes(Operation::UpdateItem, advances.len(), 1).await?;
        self.store.advance(manifest, advances).await
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        self.request(Operation::TransactWriteItems, 1, 1, 0, 2 * keys.len() as u64).await?;
        self.store.roll_back(manifest, keys).await
    }
}

/// The lake.
#[derive(Debug)]
pub struct CountedLake {
    pub(super) caller: Arc<Caller>,
    pub(super) store: MemoryStore,
}

impl CountedLake {
    async fn request(&self, operation: Operation, count: usize) {
        self.caller.charge(count as u64);
        self.caller.send(operation, count, 1).await;
    }
}

#[async_trait]
impl ObjectStore for CountedLake {
    fn part_bytes_min(&self) -> usize {
        self.store.part_bytes_min()
    }

    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError> {
        self.request(Operation::CreateMultipartUpload, 1).await;
        self.store.begin_upload(key, id_hint).await
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        self.request(Operation::UploadPart, 1).await;
        self.store.upload_part(key, id, part).await
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError> {
        self.request(Operation::CompleteMultipartUpload, 1).await;
        self.store.complete_upload(key, id, parts).await
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        self.request(Operation::AbortMultipartUpload, 1).await;
        self.store.abort_upload(key, id).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        self.request(Operation::ListMultipartUploads, 1).await;
        self.store.list_uploads().await
    }

    async fn flush(&self) -> Result<(), LakeError> {
        self.store.flush().await
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        self.request(Operation::PutObject, 1).await;
        self.store.put_new(key, bytes).await
    }

    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError> {
        self.request(Operation::PutObject, 1).await;
        self.store.replace(key, from, to).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        self.request(Operation::GetObject, 1).await;
        self.store.get(key).await
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        self.request(Operation::HeadObject, 1).await;
        self.store.checksum(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        let found = self.store.list(prefix).await?;
        self.request(Operation::ListObjectsV2, found.len().div_ceil(LIST_PAGE).max(1)).await;
        self.store.list(prefix).await
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.request(Operation::ListObjectsV2, 1).await;
        self.store.list_after(prefix, after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        self.request(Operation::DeleteObject, 1).await;
        self.store.delete(key).await
    }
}
