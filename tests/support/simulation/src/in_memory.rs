//! The stores of the in-memory environment, as one worker sees them through its network.
//!
//! Owns: sending each call of the two store traits as a request, what a lost or refused request looks like to the product, and
//! scans that take several requests. Does not own: what happens to a request (`network`), the stores themselves.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{
    Advance, AdvanceOutcome, Decision, Lease, LeaseOwner, LeaseStore, ManifestName, MemoryStore as MemoryLeases,
    NewLease, Renewal, RenewalOutcome, ShardKey, StoreError, Verdict,
};
use shardlake::lake::{
    Checksum, Completion, LakeError, MemoryStore, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, UploadId,
    UploadInfo, Written,
};

use tokio::time::Instant;

use crate::network::{Network, NetworkError, Service};

/// Rows of a page, if scans take several requests.
const PAGE: usize = 3;

/// The order of rows in a scan that takes several requests: an arbitrary one.
fn scan_order(key: &ShardKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// What a later version adds to a manifest.
const LATER: &[u8] = b"{\"of_a_later_version\":[1,{\"x\":null}],";

/// A lake behind a worker's network.
#[derive(Debug)]
pub struct NetworkedLake {
    pub(crate) network: Arc<Network>,
    pub(crate) store: MemoryStore,
    /// When the run began: the store's clock follows from it.
    pub(crate) begun: Instant,
}

/// The time at which the store's clock begins: milliseconds since 1970.
const BEGUN_MS: i64 = 1_767_225_600_000;

/// Sets the store's clock before it writes.
fn set_time(store: &MemoryStore, begun: Instant) {
    let passed = i64::try_from(begun.elapsed().as_millis()).expect("a run lasts hours");
    store.set_time(BEGUN_MS + passed);
}

impl NetworkedLake {
    /// Sends one request.
    async fn send<T: Send + 'static>(
        &self,
        operation: &'static str,
        about: &str,
        call: impl Future<Output = Result<T, LakeError>> + Send + 'static,
    ) -> Result<T, LakeError> {
        match self.network.send(Service::Lake, operation, about, call).await {
            Ok(result) => result,
            Err(error) => {
                let operation = format!("{operation} {about}");
                Err(match error {
                    NetworkError::Refused => {
                        LakeError::Refused { operation, problem: "refused by the simulation".to_owned() }
                    }
                    NetworkError::Lost | NetworkError::Throttled(_) => {
                        LakeError::Unavailable { operation, problem: "lost by the simulation".to_owned() }
                    }
                })
            }
        }
    }

    /// Whether a later version writes something here that this one does not know: into its own intents, and into commit
    /// records, which repeat the bytes of their intents.
    fn writes_later(&self, key: &ObjectKey) -> bool {
        let intent = || {
            let intent = ObjectKey::new(key.as_str().replace("_commits/", "_intents/")).ok()?;
            self.store.object(&intent)
        };
        self.is_manifest_of_later(key)
            && (key.as_str().starts_with("_intents/") || intent().is_some_and(|bytes| bytes.starts_with(LATER)))
    }

    fn is_manifest_of_later(&self, key: &ObjectKey) -> bool {
        self.network.later_version && (key.as_str().starts_with("_intents/") || key.as_str().starts_with("_commits/"))
    }
}

#[async_trait]
impl ObjectStore for NetworkedLake {
    fn part_bytes_min(&self) -> usize {
        self.store.part_bytes_min()
    }

    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError> {
        let (store, at, hint) = (self.store.clone(), key.clone(), id_hint.to_owned());
        self.send("begin_upload", key.as_str(), async move { store.begin_upload(&at, &hint).await }).await
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        let (store, at, id) = (self.store.clone(), key.clone(), id.clone());
        self.send("upload_part", key.as_str(), async move { store.upload_part(&at, &id, part).await }).await
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError> {
        let (store, at, id, parts) = (self.store.clone(), key.clone(), id.clone(), parts.to_vec());
        let begun = self.begun;
        let completed = async move {
            set_time(&store, begun);
            store.complete_upload(&at, &id, &parts).await
        };
        self.send("complete_upload", key.as_str(), completed).await
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        let (store, at, id) = (self.store.clone(), key.clone(), id.clone());
        self.send("abort_upload", key.as_str(), async move { store.abort_upload(&at, &id).await }).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        let store = self.store.clone();
        self.send("list_uploads", "", async move { store.list_uploads().await }).await
    }

    async fn flush(&self) -> Result<(), LakeError> {
        let store = self.store.clone();
        self.send("flush", "", async move { store.flush().await }).await
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        let bytes = match bytes.strip_prefix(b"{") {
            Some(rest) if self.writes_later(key) => [LATER, rest].concat().into(),
            _ => bytes,
        };
        let (store, at) = (self.store.clone(), key.clone());
        let begun = self.begun;
        let put = async move {
            set_time(&store, begun);
            store.put_new(&at, bytes).await
        };
        self.send("put_new", key.as_str(), put).await
    }

    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError> {
        let (store, at, from) = (self.store.clone(), key.clone(), from.clone());
        self.send("replace", key.as_str(), async move { store.replace(&at, &from, to).await }).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        let (store, at) = (self.store.clone(), key.clone());
        let found = self.send("get", key.as_str(), async move { store.get(&at).await }).await?;
        // A later version understands what it wrote.
        Ok(found.map(|bytes| match bytes.strip_prefix(LATER) {
            Some(rest) if self.is_manifest_of_later(key) => [b"{", rest].concat().into(),
            _ => bytes,
        }))
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        let (store, at) = (self.store.clone(), key.clone());
        self.send("checksum", key.as_str(), async move { store.checksum(&at).await }).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        let (store, at) = (self.store.clone(), prefix.to_owned());
        self.send("list", prefix, async move { store.list(&at).await }).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        let (store, at) = (self.store.clone(), key.clone());
        self.send("delete", key.as_str(), async move { store.delete(&at).await }).await
    }
}

/// A lease table behind a worker's network.
#[derive(Debug)]
pub struct NetworkedLeases {
    pub(crate) network: Arc<Network>,
    pub(crate) store: MemoryLeases,
    /// Whether reading several rows shows them as of several times, as DynamoDB's scans and batches do.
    pub(crate) torn: bool,
}

impl NetworkedLeases {
    /// Sends one request.
    async fn send<T: Send + 'static>(
        &self,
        operation: &'static str,
        about: &str,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.network.send(Service::Leases, operation, about, call).await {
            Ok(result) => result,
            Err(NetworkError::Refused) => Err(StoreError::Unusable {
                store: "memory".to_owned(),
                problem: "refused by the simulation".to_owned(),
            }),
            Err(NetworkError::Lost | NetworkError::Throttled(_)) => Err(StoreError::Unavailable {
                operation: format!("{operation} {about}"),
                problem: "lost by the simulation".to_owned(),
            }),
        }
    }
}

#[async_trait]
impl LeaseStore for NetworkedLeases {
    fn is_metered(&self) -> bool {
        self.store.is_metered()
    }

    fn decision_shards_max(&self) -> usize {
        self.store.decision_shards_max()
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        let mut shown: Vec<Lease> = Vec::new();
        loop {
            // Each page shows its rows as they are a moment later.
            let store = self.store.clone();
            let mut rows = self.send("list", "", async move { store.list().await }).await?;
            if !self.torn {
                return Ok(rows);
            }
            rows.sort_by_key(|lease| scan_order(&lease.key));
            let last = shown.last().map(|last| scan_order(&last.key));
            rows.retain(|lease| last.is_none_or(|last| scan_order(&lease.key) > last));
            let is_last = rows.len() <= PAGE;
            shown.extend(rows.into_iter().take(PAGE));
            if is_last {
                return Ok(shown);
            }
        }
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        let mut rows = Vec::with_capacity(keys.len());
        for keys in keys.chunks(if self.torn { 1 } else { keys.len().max(1) }) {
            let (store, keys) = (self.store.clone(), keys.to_vec());
            rows.extend(self.send("get", "", async move { store.get(&keys).await }).await?);
        }
        Ok(rows)
    }

    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        let (store, leases) = (self.store.clone(), leases.to_vec());
        self.send("create", "", async move { store.create(&leases).await }).await
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        let (store, me, renewals) = (self.store.clone(), me.clone(), renewals.to_vec());
        self.send("renew", "", async move { store.renew(&me, &renewals).await }).await
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        let (store, me, at) = (self.store.clone(), me.clone(), key.clone());
        self.send("take", key.shard.as_str(), async move { store.take(&me, &at, seen_counter).await }).await
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        let (store, me, at, from) = (self.store.clone(), me.clone(), key.clone(), from.clone());
        self.send("ask", key.shard.as_str(), async move { store.ask(&me, &at, &from).await }).await
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        let (store, me, at) = (self.store.clone(), me.clone(), key.clone());
        self.send("hand_over", key.shard.as_str(), async move { store.hand_over(&me, &at).await }).await
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        let (store, me, at) = (self.store.clone(), me.clone(), key.clone());
        self.send("release", key.shard.as_str(), async move { store.release(&me, &at).await }).await
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        let (store, at) = (self.store.clone(), key.clone());
        self.send("remove", key.shard.as_str(), async move { store.remove(&at).await }).await
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        let (store, decision) = (self.store.clone(), decision.clone());
        let about = decision.manifest().to_string();
        self.send("decide", &about, async move { store.decide(&decision).await }).await
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        // One row at a time, as in DynamoDB: some may advance and others not.
        let mut outcomes = Vec::with_capacity(advances.len());
        for one in advances {
            let (store, name, one) = (self.store.clone(), manifest.clone(), one.clone());
            let advanced = async move { store.advance(&name, std::slice::from_ref(&one)).await };
            outcomes.extend(self.send("advance", manifest.as_str(), advanced).await?);
        }
        Ok(outcomes)
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        let (store, name, keys) = (self.store.clone(), manifest.clone(), keys.to_vec());
        self.send("roll_back", manifest.as_str(), async move { store.roll_back(&name, &keys).await }).await
    }
}
