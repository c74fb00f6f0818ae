//! The open epoch of a group of shards, from its first record to its commit.
//!
//! - `ledger`: what was read of each shard, and the totals.
//! - `objects`: the open objects; `upload` sends one of them part by part.
//! - `encode`: rows of the lanes become row groups and files.
//! - `commit`: the end of the epoch: committed, or abandoned.

pub(super) mod commit;
pub(super) mod encode;
pub(super) mod ledger;
pub(super) mod objects;
mod upload;
