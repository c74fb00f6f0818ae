//! The leases of this worker's shards.
//!
//! - `discovery`: creates and removes the rows of the lease table.
//! - `peers`: which of the other workers are alive.
//! - `balance`: which leases this worker should hold.
//! - `pace`: how often the manager renews and scans.
//! - `manager`: renews the leases that are held, takes and requests others, and reports gains and losses.
//! - `throughput`: how much is read of each shard.
//! - `shutdown`: what the manager does last.

mod discovery;

mod peers;

mod balance;

mod pace;

mod manager;

mod throughput;

mod shutdown;

pub(crate) use discovery::missing;
pub(crate) use manager::{LeaseCommand, LeaseEvent, LeaseManager, LeaseManagerSettings};
pub(crate) use throughput::Throughput;
