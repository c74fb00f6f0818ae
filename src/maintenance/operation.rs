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
    Lease, LeaseOwner, ManifestName, NewLease, Position, Renewal, RenewalOutcome, SequenceNumber, ShardId, ShardKey,
    ShardRange, StoreError, StreamName, ThroughputKbps,
};
use mutations::mutated;
use pipeline::time::format_rfc3339;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::commit::lake_log::LogVersion;
use crate::commit::log;
use crate::commit::{
    CommitError, EpochId, FORMAT, LakePart, Manifest, ManifestKind, Outcome, ShardOfEpoch, Staged, Stores, Swap,
    Totals, abort_uploads, claim_operations_stream, operations_stream, recover,
};
use crate::lake::ObjectKey;

mod plan;

#[cfg(test)]
mod tests;

pub use plan::{Copied, Plan};

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
    /// The lease table lacks a row that operations have moved.
    #[error(
        "the operation was not done: the lease table has no row for operations on {part}, although there were some. Restore the table, \
         or stop all workers and make the rows again: shardlake leases rebuild"
    )]
    RowLost {
        /// The part, as the shard of its lease.
        part: String,
    },
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

/// Leases of an operation, which are renewed until this is dropped.
pub struct Held {
    rows: Vec<Lease>,
    renewing: JoinHandle<()>,
}

impl Held {
    /// Ends the renewals.
    async fn end(mut self) -> Vec<Lease> {
        self.renewing.abort();
        // An error says that the task was aborted, which was wanted.
        let _ = (&mut self.renewing).await;
        std::mem::take(&mut self.rows)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
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
        let (count, most) = (parts.len(), self.stores.leases.decision_shards_max());
        if count > most {
            let problem =
                format!("it touches {count} parts of the lake, and the lease table decides at most {most} at once");
            return Err(OperationError::Invalid { problem });
        }
        let early = if mutated!(PlanBeforeLeases) { Some(self.planned(work).await) } else { None };
        let keys = parts.iter().map(|part| ShardKey::new(self.stream.clone(), part.shard())).collect();
        let held = self.take(keys).await?;
        let planned = match early {
            Some(early) => early,
            None => self.planned(work).await,
        };
        let result = self.run_holding(kind, &held, planned).await;
        self.release(held).await;
        result
    }

    /// The name of this process.
    pub fn me(&self) -> &LeaseOwner {
        &self.me
    }

    /// The time of day: milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Takes a lease that no operation takes, and holds it over several of them, so that two processes do not do the same work. An
    /// operation does not depend on it: who has slept may have lost it. Its name begins with `_`, as no dataset's does.
    ///
    /// # Errors
    /// Another process has it ([`OperationError::Busy`]), or the stores fail.
    pub async fn hold(&self, name: &str) -> Result<Held, OperationError> {
        let shard = ShardId::new(name).map_err(|error| OperationError::Invalid { problem: error.to_string() })?;
        self.take(vec![ShardKey::new(self.stream.clone(), shard)]).await
    }

    /// Releases what [`hold`](Self::hold) has taken.
    pub async fn release(&self, held: Held) {
        // A renewal after the release would report a lease as lost.
        let rows = held.end().await;
        self.release_rows(&rows).await;
    }

    async fn release_rows(&self, rows: &[Lease]) {
        for row in rows {
            // A lease that stays is taken by the next operation after the failover time.
            if let Err(error) = self.stores.leases_once.release(&self.me, &row.key).await {
                tracing::debug!(%error, key = %row.key, "failed to release the lease of an operation");
            }
        }
    }

    /// Deregisters the process.
    pub async fn close(self) {
        if let Err(error) = self.stores.leases.deregister(&self.me).await {
            tracing::debug!(%error, "failed to deregister the process of an operation");
        }
    }

    /// The plan of the next operation, and whether it could be made.
    async fn planned(&mut self, work: &dyn Work) -> (Plan, Result<(), OperationError>) {
        self.number += 1;
        let epoch = EpochId::new(self.clock.now_ms(), &self.me, self.number);
        let mut plan = Plan::new(epoch, self.me.clone());
        let planned = work.plan(&self.stores, &mut plan).await;
        (plan, planned)
    }

    async fn run_holding(
        &self,
        kind: ManifestKind,
        held: &Held,
        (plan, planned): (Plan, Result<(), OperationError>),
    ) -> Result<Option<Manifest>, OperationError> {
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
            swap: plan.order.map(|order| Swap { order, copies: plan.copies }),
            totals: Totals::default(),
            edges: BTreeMap::new(),
            definitions: plan.definitions,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Takes these leases, in their order, and finishes what is pending on them.
    async fn take(&self, keys: Vec<ShardKey>) -> Result<Held, OperationError> {
        let missing = self.missing_rows(&keys).await?;
        let new: Vec<NewLease> = missing.into_iter().map(|key| NewLease::new(key, Position::Beginning)).collect();
        if !new.is_empty() {
            self.stores.leases.create(&new).await?;
        }
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
        for name in pending.iter().filter(|_| !mutated!(LeaveOperationsPending)) {
            recover(&self.stores, name).await?;
        }
        held.rows = self.stores.leases_of(keys).await?;
        Ok(held)
    }

    /// The parts that have no rows yet. Refuses to begin where a row is lost: operations would get numbers that were used.
    async fn missing_rows(&self, keys: &[ShardKey]) -> Result<Vec<ShardKey>, OperationError> {
        let rows = self.stores.leases_of(keys.to_vec()).await?;
        let is_missing = |rows: &[Lease], key: &ShardKey| !rows.iter().any(|row| row.key == *key);
        let missing: Vec<ShardKey> = keys.iter().filter(|key| is_missing(&rows, key)).cloned().collect();
        if missing.is_empty() {
            return Ok(missing);
        }
        let chains = log::read(&self.stores).await?.chains;
        // Another process may have created the row and used it since.
        let rows = self.stores.leases_of(keys.to_vec()).await?;
        let lost = missing.iter().find(|key| chains.end_of(key).is_some() && is_missing(&rows, key));
        match lost {
            Some(key) => Err(OperationError::RowLost { part: key.shard.to_string() }),
            None => Ok(missing),
        }
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
    for name in pending.iter().filter(|_| !mutated!(StartWithoutFinishing)) {
        recover(stores, name).await?;
        tracing::info!(manifest = %name, "finished an operation that was left half-way");
    }
    Ok(pending.len() as u64)
}
