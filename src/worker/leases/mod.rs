//! The leases of this worker's shards.
//!
//! - `manager`: renews what is held, finds what is free or overdue, and tells the coordinator of gains and losses.
//! - `discovery`: makes and removes the rows of the lease table; `missing_rows` says which are missing.
//! - `balance`: which leases this worker should hold.
//! - `shutdown`: what the manager does last.

mod balance;
mod discovery;
mod manager;
mod missing_rows;
mod shutdown;

pub(crate) use manager::{LeaseCommand, LeaseEvent, LeaseManager, LeaseManagerState, Throughput};
pub(crate) use missing_rows::missing;
