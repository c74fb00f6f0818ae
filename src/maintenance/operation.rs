//! Running an operation on the lake: one lease for each part that it touches, then the steps of a commit.
//!
//! Owns: taking, renewing and releasing the leases, planning under them, staging, and finishing what another process has left. Does not
//! own: what an operation does (its [`Work`]), the steps (`commit`), what it may remove and how (`commit::operations`).
//!
//! | step after which the process ends | what readers see | what the next operation on the part does |
//! |---|---|---|
//! | plan, stage, intent | nothing | plans again; a sweep removes the rest |
//! | decide | nothing, or some new objects | rolls forward: publish, remove, advance |
//! | publish | old and new objects | rolls forward: remove, advance |
//! | remove some | the new objects, and some old ones | rolls forward: remove the rest, advance |
//! | advance some rows | the new objects | rolls the other rows forward |
//!
//! A plan is made under the leases, after everything that was pending is finished. Only holders of these leases remove objects of the
//! parts. So what the plan found is there when the operation is decided; and if a lease was lost meanwhile, the decision is refused.
//! Epochs of workers conflict with nothing: they only add.
//!
//! Workers leave the rows of operations alone: they read the streams of their configuration only. Every start of a worker finishes
//! operations that are pending ([`finish_pending`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{
    Lease, LeaseOwner, ManifestName, NewLease, Position, Renewal, RenewalOutcome, SequenceNumber, ShardKey, ShardRange,
    StoreError, StreamName, ThroughputKbps,
};
use pipeline::encode::FileStats;
use pipeline::layout::DataObject;
use pipeline::time::format_rfc3339;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::commit::lake_log::LogVersion;
use crate::commit::{
    CommitError, DefinitionOfEpoch, EpochId, FORMAT, LakePart, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch,
    Outcome, RemovedObject, ShardOfEpoch, Staged, Stores, Totals, abort_uploads, claim_operations_stream,
    operations_stream, recover,
};
use crate::lake::{ObjectKey, StagedCopy};

/// How often taking a lease may fail before the operation does.
const TAKE_FAILURES_MAX: u32 = 10;

/// Why an operation was not done, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// The stores failed. If the operation was decided, the next one, or the start of a worker, finishes it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Another process works on a part of the lake.
    #[error(
        "another operation works on {part}, held by {holder}; wait until it ends. A process that has died loses it by itself"
    )]
    Busy {
        /// The part, as the shard of its lease.
        part: String,
        /// The process.
        holder: LeaseOwner,
    },
    /// A lease was lost before the decision.
    #[error(
        "the operation was not done: it lost its lease to another process, which may happen to one that was stopped; run it again"
    )]
    LostLease,
    /// An object that it needs is not there.
    #[error("the operation was not done: {key} is not in the lake")]
    NoObject {
        /// Its key.
        key: ObjectKey,
    },
    /// The plan adds or removes what the operation does not hold.
    #[error("the operation was not done: {problem}")]
    Invalid {
        /// What is wrong.
        problem: String,
    },
}

impl From<StoreError> for OperationError {
    fn from(error: StoreError) -> Self {
        OperationError::Commit(error.into())
    }
}

impl From<crate::lake::LakeError> for OperationError {
    fn from(error: crate::lake::LakeError) -> Self {
        OperationError::Commit(error.into())
    }
}

/// What an operation does. It is called once all leases are held and nothing is pending.
#[async_trait]
pub trait Work: Send + Sync {
    /// Reads the lake, decides what is added and removed, and stages it. An empty plan is not committed.
    ///
    /// # Errors
    /// The operation cannot be done. What was staged is aborted.
    async fn plan(&self, stores: &Stores, plan: &mut Plan) -> Result<(), OperationError>;
}

/// What an operation adds and removes.
#[derive(Debug)]
pub struct Plan {
    epoch: EpochId,
    me: LeaseOwner,
    objects: Vec<ObjectOfEpoch>,
    removed: Vec<RemovedObject>,
    of: Option<String>,
    sources: BTreeSet<EpochId>,
    definitions: BTreeMap<String, DefinitionOfEpoch>,
}

/// A copy of an object, under a new name in the same folder.
#[derive(Debug, Clone)]
pub struct Copied<'c> {
    /// The object.
    pub from: &'c ObjectKey,
    /// Where it is copied from: the object itself, or its copy in a trash.
    pub source: &'c ObjectKey,
    /// Rows or lines in it.
    pub rows: u64,
    /// Statistics of its columns.
    pub columns: FileStats,
}

/// Runs operations of one process.
pub struct Operator {
    me: LeaseOwner,
    stores: Stores,
    clock: SharedClock,
    /// A lease whose counter does not move for this long may be taken.
    failover: Duration,
    stream: StreamName,
    number: u64,
}

/// The leases of an operation, which are renewed until this is dropped.
struct Held {
    rows: Vec<Lease>,
    renewing: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Plan {
    /// The operation, by whose name every new object's name begins.
    pub fn epoch(&self) -> &EpochId {
        &self.epoch
    }

    /// The id hint of the next upload.
    pub fn next_upload_id(&self) -> String {
        self.epoch.upload_id(&self.me, (self.objects.len() + 1) as u64)
    }

    /// Adds an object whose upload is acknowledged.
    pub fn add(&mut self, object: ObjectOfEpoch) {
        self.objects.push(object);
    }

    /// Removes an object from the lake.
    pub fn remove(&mut self, object: RemovedObject) {
        self.removed.push(object);
    }

    /// Says what the operation belongs to, such as `replay:1f2e3d4c`.
    pub fn belongs_to(&mut self, of: String) {
        self.of = Some(of);
    }

    /// Names epochs whose records the added objects have, or whose dead letters are removed.
    pub fn add_sources(&mut self, sources: impl IntoIterator<Item = EpochId>) {
        self.sources.extend(sources);
    }

    /// Says by which definition the rows of a dataset were made.
    pub fn define(&mut self, dataset: String, definition: DefinitionOfEpoch) {
        self.definitions.insert(dataset, definition);
    }

    /// Adds a copy of an object, byte for byte, under a new name in the same folder.
    ///
    /// # Errors
    /// It is not in the lake, or the lake fails.
    pub async fn copy(&mut self, stores: &Stores, copied: Copied<'_>) -> Result<(), OperationError> {
        let Copied { from, source, rows, columns } = copied;
        let invalid = |problem: String| OperationError::Invalid { problem };
        let mut name: DataObject =
            from.as_str().parse().map_err(|_| invalid(format!("{from} is not an object of data")))?;
        self.epoch.as_str().clone_into(&mut name.epoch);
        name.number = (self.objects.len() + 1) as u64;
        let key = ObjectKey::new(name.to_string()).map_err(|error| invalid(error.to_string()))?;
        let part = LakePart::of(&key).ok_or_else(|| invalid(format!("{from} is not an object of data")))?;
        let staged = stores.lake.stage_copy(source, &key, &self.next_upload_id()).await?;
        let no_object = || OperationError::NoObject { key: source.clone() };
        let StagedCopy { upload, parts, bytes, crc64nvme } = staged.ok_or_else(no_object)?;
        let (kind, dataset) = match part {
            LakePart::Dataset(name) => (ObjectKind::Processed, Some(name)),
            LakePart::Raw => (ObjectKind::Raw, None),
            LakePart::Error => (ObjectKind::Error, None),
        };
        let partition = ObjectOfEpoch::partition_of(&key);
        self.add(ObjectOfEpoch { key, kind, dataset, partition, columns, rows, bytes, crc64nvme, upload, parts });
        Ok(())
    }
}

impl Operator {
    /// Operations of process `me`, whose name no other process has. `random` becomes the lake's id if it has none.
    ///
    /// # Errors
    /// The stores fail.
    pub async fn new(
        me: LeaseOwner,
        stores: Stores,
        clock: SharedClock,
        failover: Duration,
        random: [u8; 8],
    ) -> Result<Self, OperationError> {
        let stream = claim_operations_stream(&*stores.lake, random).await?;
        stores.leases.register(&me).await?;
        Ok(Operator { me, stores, clock, failover, stream, number: 0 })
    }

    /// Runs one operation on these parts of the lake. Returns its manifest; `None` if there was nothing to do.
    ///
    /// # Errors
    /// It was not done, or, if the stores failed after the decision, not to its end.
    pub async fn run(
        &mut self,
        kind: ManifestKind,
        parts: &BTreeSet<LakePart>,
        work: &dyn Work,
    ) -> Result<Option<Manifest>, OperationError> {
        let held = self.take(parts).await?;
        let result = self.run_holding(kind, &held, work).await;
        for row in &held.rows {
            // A lease that stays is taken by the next operation after the failover time.
            if let Err(error) = self.stores.leases_once.release(&self.me, &row.key).await {
                tracing::debug!(%error, key = %row.key, "failed to release the lease of an operation");
            }
        }
        result
    }

    /// Deregisters the process.
    pub async fn close(self) {
        if let Err(error) = self.stores.leases.deregister(&self.me).await {
            tracing::debug!(%error, "failed to deregister the process of an operation");
        }
    }

    async fn run_holding(
        &mut self,
        kind: ManifestKind,
        held: &Held,
        work: &dyn Work,
    ) -> Result<Option<Manifest>, OperationError> {
        self.number += 1;
        let epoch = EpochId::new(self.clock.now_ms(), &self.me, self.number);
        let mut plan = Plan {
            epoch,
            me: self.me.clone(),
            objects: Vec::new(),
            removed: Vec::new(),
            of: None,
            sources: BTreeSet::new(),
            definitions: BTreeMap::new(),
        };
        let planned = work.plan(&self.stores, &mut plan).await;
        let manifest = self.manifest(kind, &held.rows, plan);
        let checked = planned.and_then(|()| manifest.check().map_err(|problem| OperationError::Invalid { problem }));
        if let Err(error) = checked {
            abort_uploads(&self.stores, manifest).await;
            return Err(error);
        }
        if manifest.objects.is_empty() && manifest.removed.is_empty() {
            return Ok(None);
        }
        let intended = match Staged::new(manifest).write_intent(&self.stores).await {
            Ok(intended) => intended,
            Err((manifest, error)) => {
                abort_uploads(&self.stores, manifest).await;
                return Err(error.into());
            }
        };
        let decided = match intended.decide(&self.stores).await? {
            Outcome::Decided(decided) => decided,
            Outcome::Refused(..) => return Err(OperationError::LostLease),
        };
        // From here on it is done, whatever happens. The same code finishes it as for any pending epoch.
        let name = decided.name();
        match recover(&self.stores, &name).await? {
            crate::commit::Recovered::Forward(committed) => Ok(Some(committed.0)),
            crate::commit::Recovered::Back => Err(OperationError::LostLease),
        }
    }

    fn manifest(&self, kind: ManifestKind, rows: &[Lease], plan: Plan) -> Manifest {
        let shard = |row: &Lease| {
            let range = ShardRange::new(row.checkpoint.clone(), next(&row.checkpoint)).ok()?;
            let key = row.key.clone();
            let (parents, children, taken_over) = (Vec::new(), Vec::new(), false);
            Some(ShardOfEpoch {
                key,
                parents,
                range,
                children,
                taken_over,
                records: 0,
                bytes: 0,
                arrived_through: None,
            })
        };
        Manifest {
            format: FORMAT,
            kind,
            epoch: plan.epoch,
            worker: self.me.clone(),
            head: LogVersion::EMPTY,
            written_at: format_rfc3339(self.clock.now_ms()),
            shards: rows.iter().filter_map(shard).collect(),
            idle: Vec::new(),
            objects: plan.objects,
            removed: plan.removed,
            of: plan.of,
            sources: plan.sources.into_iter().collect(),
            totals: Totals::default(),
            edges: BTreeMap::new(),
            definitions: plan.definitions,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Takes the leases of these parts, in their order, and finishes what is pending on them.
    async fn take(&self, parts: &BTreeSet<LakePart>) -> Result<Held, OperationError> {
        let keys: Vec<ShardKey> = parts.iter().map(|part| ShardKey::new(self.stream.clone(), part.shard())).collect();
        let new: Vec<NewLease> = keys.iter().map(|key| NewLease::new(key.clone(), Position::Beginning)).collect();
        self.stores.leases.create(&new).await?;
        let mut rows = Vec::new();
        for key in &keys {
            match self.take_one(key).await {
                Ok(row) => rows.push(row),
                Err(error) => {
                    for row in &rows {
                        let _ = self.stores.leases_once.release(&self.me, &row.key).await;
                    }
                    return Err(error);
                }
            }
        }
        let renewing = tokio::spawn(renew(self.stores.clone(), self.me.clone(), rows.clone(), self.failover / 3));
        let mut held = Held { rows, renewing };
        let pending: BTreeSet<ManifestName> =
            held.rows.iter().filter_map(|row| row.pending.as_ref()).map(|pending| pending.manifest.clone()).collect();
        for name in pending {
            recover(&self.stores, &name).await?;
        }
        held.rows = self.stores.leases_of(keys).await?;
        Ok(held)
    }

    /// Takes one lease: a free one, one whose holder is gone, or one whose counter does not move for the failover time.
    async fn take_one(&self, key: &ShardKey) -> Result<Lease, OperationError> {
        let (mut seen, mut failures): (Option<(u64, Instant)>, u32) = (None, 0);
        loop {
            let row = self.stores.leases_of(vec![key.clone()]).await?.pop();
            // Rows are made before; only somebody's hand removes one.
            let Some(row) = row else { return Err(OperationError::LostLease) };
            let holder = row.holder.committer().cloned();
            let may_take = match &holder {
                None => true,
                Some(holder) if *holder == self.me => return Ok(row),
                Some(holder) => {
                    let is_still =
                        seen.is_some_and(|(counter, since)| counter == row.counter && since.elapsed() >= self.failover);
                    is_still || self.stores.leases.owner_is_gone(holder).await?
                }
            };
            if may_take {
                match self.stores.leases.take(&self.me, key, row.counter).await {
                    Ok(Some(row)) => return Ok(row),
                    Ok(None) => {}
                    // The row shows whether the request took effect.
                    Err(error) if error.is_retryable() && failures < TAKE_FAILURES_MAX => {
                        failures += 1;
                        tokio::time::sleep(self.failover / 10).await;
                    }
                    Err(error) => return Err(error.into()),
                }
                seen = None;
                continue;
            }
            match (seen, holder) {
                (None, _) => seen = Some((row.counter, Instant::now())),
                (Some((counter, _)), Some(holder)) if counter != row.counter => {
                    return Err(OperationError::Busy { part: key.shard.to_string(), holder });
                }
                (Some(_), _) => {}
            }
            tokio::time::sleep(self.failover / 10).await;
        }
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("me", &self.me).field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The position after the next operation.
fn next(position: &Position) -> Position {
    let number = match position {
        Position::At { sequence, .. } => sequence.as_str().parse().unwrap_or(0_u64),
        _ => 0,
    };
    Position::at(SequenceNumber::from(number + 1))
}

/// Renews leases until it is aborted. A lease that was lost shows at the decision.
async fn renew(stores: Stores, me: LeaseOwner, rows: Vec<Lease>, every: Duration) {
    let mut counters: Vec<(ShardKey, u64)> = rows.into_iter().map(|row| (row.key, row.counter)).collect();
    loop {
        tokio::time::sleep(every).await;
        let renewal = |(key, counter): &(ShardKey, u64)| Renewal {
            key: key.clone(),
            counter: *counter,
            throughput: ThroughputKbps::default(),
        };
        let renewals: Vec<Renewal> = counters.iter().map(renewal).collect();
        match stores.leases_once.renew(&me, &renewals).await {
            Ok(outcomes) => {
                for ((key, at), outcome) in counters.iter_mut().zip(outcomes) {
                    match outcome {
                        RenewalOutcome::Renewed { counter }
                        | RenewalOutcome::HandOffAsked { counter, .. }
                        | RenewalOutcome::CounterAt { counter } => *at = counter,
                        RenewalOutcome::Lost => {
                            tracing::warn!(%key, "lost the lease of an operation; it is not done unless it was decided");
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "failed to renew the leases of an operation; retrying"),
        }
    }
}

/// Finishes the operations on this lake that are decided and not finished, whoever runs them. Returns how many.
///
/// # Errors
/// The stores fail, or an operation can go neither forward nor back.
pub async fn finish_pending(stores: &Stores) -> Result<u64, CommitError> {
    let Some(stream) = operations_stream(&*stores.lake).await? else { return Ok(0) };
    let rows = stores.leases.list().await?.into_iter().filter(|row| row.key.stream == stream);
    let pending: BTreeSet<ManifestName> = rows.filter_map(|row| row.pending).map(|pending| pending.manifest).collect();
    for name in &pending {
        recover(stores, name).await?;
        tracing::info!(manifest = %name, "finished an operation that was left half-way");
    }
    Ok(pending.len() as u64)
}

#[cfg(test)]
mod tests;
