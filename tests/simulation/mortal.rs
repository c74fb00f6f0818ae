//! Stores as one worker sees them: requests take time, get lost, and hang once the worker has no power any more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{
    Advance, AdvanceOutcome, CheckpointName, Decision, Lease, LeaseOwner, LeaseStore, ManifestName, NamedCheckpoint,
    NamedCheckpointSummary, NewLease, Renewal, RenewalOutcome, ShardKey, StoreError, Verdict,
};
use shardlake::lake::{
    Checksum, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, UploadId, UploadInfo, Written,
};

/// Randomness from a seed: splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD6E8_FEB8_6659_FD93)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `per_mille` of 1,000 cases.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What has happened to requests, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lost_before: AtomicU64,
    pub(crate) lost_after: AtomicU64,
}

/// One worker's wires to the world.
#[derive(Debug)]
pub(crate) struct Wires {
    power: AtomicBool,
    rng: Mutex<Rng>,
    /// Requests in 1,000 that are lost.
    lost_per_mille: AtomicU64,
    /// Until when (virtual milliseconds since the start) every request waits: the worker is asleep.
    asleep_until: Mutex<Option<tokio::time::Instant>>,
    tally: Arc<Tally>,
}

/// What the wires do with a request.
enum Fate {
    Arrives,
    LostBefore,
    LostAfter,
}

impl Wires {
    pub(crate) fn new(rng: Rng, lost_per_mille: u64, tally: Arc<Tally>) -> Arc<Self> {
        Arc::new(Wires {
            power: AtomicBool::new(true),
            rng: Mutex::new(rng),
            lost_per_mille: AtomicU64::new(lost_per_mille),
            asleep_until: Mutex::new(None),
            tally,
        })
    }

    /// The worker is gone: whatever it asks for from now on never happens.
    pub(crate) fn cut(&self) {
        self.power.store(false, Ordering::SeqCst);
    }

    /// The worker stands still for a while, and then goes on as if nothing had been.
    pub(crate) fn sleep(&self, time: Duration) {
        *self.asleep_until.lock().unwrap() = Some(tokio::time::Instant::now() + time);
    }

    /// No request is lost from now on.
    pub(crate) fn heal(&self) {
        self.lost_per_mille.store(0, Ordering::SeqCst);
    }

    async fn pass(&self) -> Fate {
        let delay = {
            let mut rng = self.rng.lock().unwrap();
            let slow = if rng.chance(20) { 2_000 } else { 20 };
            rng.below(slow)
        };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let asleep_until = *self.asleep_until.lock().unwrap();
        if let Some(until) = asleep_until {
            tokio::time::sleep_until(until).await;
        }
        if !self.power.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let mut rng = self.rng.lock().unwrap();
        if rng.chance(self.lost_per_mille.load(Ordering::SeqCst)) {
            if rng.chance(500) {
                self.tally.lost_before.fetch_add(1, Ordering::Relaxed);
                return Fate::LostBefore;
            }
            self.tally.lost_after.fetch_add(1, Ordering::Relaxed);
            return Fate::LostAfter;
        }
        Fate::Arrives
    }

    /// Sends one request, whose effect is `call`.
    async fn send<T, E>(&self, lost: E, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match self.pass().await {
            Fate::Arrives => call.await,
            Fate::LostBefore => Err(lost),
            Fate::LostAfter => {
                call.await?;
                Err(lost)
            }
        }
    }
}

/// A lake through a worker's wires.
#[derive(Debug)]
pub(crate) struct Lake<S>(pub(crate) Arc<Wires>, pub(crate) S);

fn lake_lost(operation: &str) -> LakeError {
    LakeError::Unavailable { operation: operation.to_owned(), problem: "lost by the simulation".to_owned() }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Lake<S> {
    fn part_bytes_min(&self) -> usize {
        self.1.part_bytes_min()
    }

    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError> {
        self.0.send(lake_lost("begin"), self.1.begin_upload(key, id_hint)).await
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        self.0.send(lake_lost("upload"), self.1.upload_part(key, id, part)).await
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError> {
        self.0.send(lake_lost("complete"), self.1.complete_upload(key, id, parts)).await
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        self.0.send(lake_lost("abort"), self.1.abort_upload(key, id)).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        self.0.send(lake_lost("list uploads"), self.1.list_uploads()).await
    }

    async fn flush(&self) -> Result<(), LakeError> {
        self.0.send(lake_lost("flush"), self.1.flush()).await
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        self.0.send(lake_lost("put"), self.1.put_new(key, bytes)).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        self.0.send(lake_lost("get"), self.1.get(key)).await
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        self.0.send(lake_lost("checksum"), self.1.checksum(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.0.send(lake_lost("list"), self.1.list(prefix)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        self.0.send(lake_lost("delete"), self.1.delete(key)).await
    }
}

/// A lease store through a worker's wires.
#[derive(Debug)]
pub(crate) struct Leases<S>(pub(crate) Arc<Wires>, pub(crate) S);

fn leases_lost(operation: &str) -> StoreError {
    StoreError::Unavailable { operation: operation.to_owned(), problem: "lost by the simulation".to_owned() }
}

#[async_trait]
impl<S: LeaseStore> LeaseStore for Leases<S> {
    fn is_metered(&self) -> bool {
        self.1.is_metered()
    }

    fn decision_shards_max(&self) -> usize {
        self.1.decision_shards_max()
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.0.send(leases_lost("list"), self.1.list()).await
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        self.0.send(leases_lost("get"), self.1.get(keys)).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        self.0.send(leases_lost("create"), self.1.create(leases)).await
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        self.0.send(leases_lost("renew"), self.1.renew(me, renewals)).await
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        self.0.send(leases_lost("take"), self.1.take(me, key, seen_counter)).await
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        self.0.send(leases_lost("ask"), self.1.ask(me, key, from)).await
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.0.send(leases_lost("hand over"), self.1.hand_over(me, key)).await
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.0.send(leases_lost("release"), self.1.release(me, key)).await
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        self.0.send(leases_lost("remove"), self.1.remove(key)).await
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        self.0.send(leases_lost("decide"), self.1.decide(decision)).await
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        self.0.send(leases_lost("advance"), self.1.advance(manifest, advances)).await
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        self.0.send(leases_lost("roll back"), self.1.roll_back(manifest, keys)).await
    }

    async fn save_checkpoint(&self, checkpoint: &NamedCheckpoint) -> Result<bool, StoreError> {
        self.1.save_checkpoint(checkpoint).await
    }

    async fn list_checkpoints(&self) -> Result<Vec<NamedCheckpointSummary>, StoreError> {
        self.1.list_checkpoints().await
    }

    async fn get_checkpoint(&self, name: &CheckpointName) -> Result<Option<NamedCheckpoint>, StoreError> {
        self.1.get_checkpoint(name).await
    }

    async fn delete_checkpoint(&self, name: &CheckpointName) -> Result<bool, StoreError> {
        self.1.delete_checkpoint(name).await
    }
}
