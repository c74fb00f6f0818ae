//! The epoch of a group of shards, from its first record to its commit.
//!
//! - `open`: what was read since the last commit, and when it is due.
//! - `ledger`: the range of each shard, and the totals.
//! - `encode`: rows of the lanes become row groups and files.
//! - `objects`: the open objects; `upload` sends one of them part by part.
//! - `commit`: the steps that make the epoch visible.

pub(super) mod open;

pub(super) mod ledger;

pub(super) mod encode;

pub(super) mod objects;

mod upload;

pub(super) mod commit;
