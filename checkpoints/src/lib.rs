//! Who owns a shard, and how far it is committed: leases, checkpoints and the decision of an epoch, in several stores.
//!
//! A fleet of workers shares one table of [leases](Lease), with a row for each shard. Every change of a row is one
//! conditional write, so workers coordinate through the table alone. The trait [`LeaseStore`] lists these writes, each with
//! its condition and its effect. [`DynamoStore`] keeps the table in DynamoDB, for a fleet; [`SqliteStore`] in a file, for one
//! machine; [`MemoryStore`] in memory, for tests.
//!
//! This crate does not own objects in the lake, time (when a holder counts as dead, when to retry) or the decision who should
//! hold what: those are the worker's. It draws no random numbers. It reads a clock only to bound how long it waits while it
//! opens a store.
//!
//! # Its part in the commit protocol
//!
//! An *epoch* is what a worker has read from its shards since its last commit. Its objects are staged where no reader sees
//! them. Its *manifest* describes them and each shard's range `(after, through]`. Then, with what a crash after each step
//! leaves behind:
//!
//! 1. [`decide_once`](LeaseStoreExt::decide_once) sets the manifest pending on all shards of the epoch, if the worker holds
//!    each of them and each checkpoint is at `after`. **This is the commit point.** After a crash before it, nothing happened,
//!    and the shards are read again. After it, the epoch is committed: whoever takes one of its leases finishes it before it
//!    reads on.
//! 2. The worker publishes the objects and writes the commit record. After a crash: the same; publishing again does no harm.
//! 3. [`advance`](LeaseStore::advance) moves each checkpoint to `through` and clears the pending manifest. After a crash that
//!    leaves some shards behind, they still have the manifest pending, and whoever takes them finishes.
//!
//! If a staged upload is permanently gone, nobody can do step 2, and [`roll_back`](LeaseStore::roll_back) undoes step 1.
//!
//! # Invariants
//!
//! 1. Committed ranges of a shard form one unbroken chain: a range is decided only where the checkpoint is, a checkpoint
//!    moves only to the end of a decided range, and it never goes back.
//! 2. At most one manifest is pending on a shard, and it ends after the checkpoint.
//! 3. A decision takes effect on all its shards or on none, and so does its rollback. Once one of its shards has advanced,
//!    it can't be rolled back; once it is rolled back, it can't advance.
//! 4. Only the holder decides. So a worker that lost a lease commits nothing of that shard, whatever it still believes.
//!    Anyone may advance.
//! 5. During a hand-off the worker that was asked remains the holder, until it hands over or the lease is taken from it.
//! 6. A lease's counter never shrinks. It grows with each renewal and each change of the holder. So if a counter has not
//!    moved, there was neither.
//! 7. A manifest's name and an owner's name are never used again. The first identifies a decision after a lost reply
//!    (`decide_once.rs`), the second identifies a process (`sqlite/workers.rs`).
//! 8. A malformed stored item is an error that names it. It is never repaired by guessing.
//!
//! ```
//! use checkpoints::{
//!     Advance, Decided, Decision, LeaseOwner, LeaseStore, LeaseStoreExt, ManifestName, MemoryStore, NewLease, Position,
//!     ShardId, ShardKey, ShardRange, StreamName,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let shard = ShardKey::new(StreamName::new("orders")?, ShardId::new("shardId-000000000000")?);
//! store.create(&[NewLease::new(shard.clone(), Position::Beginning)]).await?;
//!
//! let me = LeaseOwner::from_random([7; 16]);
//! let lease = store.take(&me, &shard, 0).await?.expect("nobody else is here");
//!
//! // Records were read and staged; the manifest is written.
//! let through = Position::at(4959_u64.into());
//! let manifest = ManifestName::new("_intents/1.json")?;
//! let range = ShardRange::new(lease.checkpoint, through.clone())?;
//! let decision = Decision::new(me, manifest.clone(), vec![(shard.clone(), range)])?;
//! assert_eq!(store.decide_once(&decision).await?, Decided::Yes);
//!
//! // The objects are published; the commit record is written.
//! store.advance(&manifest, &[Advance::new(shard.clone(), through.clone())]).await?;
//! assert_eq!(store.list().await?[0].checkpoint, through);
//! # Ok(())
//! # }
//! ```

// In the order in which to read them.
mod text;

mod shard;

mod position;

mod lease;

mod row;

mod error;

mod aws;

mod decision;

mod store;

mod decide_once;

mod rules;

mod memory;

mod sqlite;

mod dynamodb;

#[cfg(test)]
mod arbitrary;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "conformance")]
pub mod faulty;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::aws::{EXPIRED_CODES, MissingSetting, answer_is_retryable, is_retryable, missing_setting};
pub use crate::decide_once::{Decided, LeaseStoreExt};
pub use crate::decision::{Decision, InvalidDecision, Refusal, RefusalReason, Verdict};
pub use crate::dynamodb::{DynamoStore, StreamIds, TableOptions};
pub use crate::error::{StoreError, error_chain};
pub use crate::lease::{HashRange, Holder, Lease, LeaseOwner, ManifestName, NewLease, Pending, ThroughputKbps};
pub use crate::memory::MemoryStore;
pub use crate::position::{
    AT_TIMESTAMP, EmptyRange, LATEST, Position, SHARD_END, SequenceNumber, ShardRange, TRIM_HORIZON,
};
pub use crate::shard::{ShardId, ShardKey, StreamName};
pub use crate::sqlite::SqliteStore;
pub use crate::store::{Advance, AdvanceOutcome, LeaseStore, Renewal, RenewalOutcome};
pub use crate::text::InvalidText;
