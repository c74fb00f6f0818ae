//! What the worker reads from others: responses of Kinesis, aggregates of producers, leases of other programs, stored items,
//! configuration that people write.
//!
//! Owns: making inputs from arbitrary bytes, and checking the results with other code than that under test: serde and base64 for
//! responses, an encoder of its own for aggregates, the model of DynamoDB for writes, the rules of the other lease stores for their
//! effects. Does not own: the inputs. A check panics if something does not hold.

mod aggregate;
mod config;
mod item;
mod manifest;
mod position;
mod response;
mod row;

pub use aggregate::aggregate;
pub use config::config;
pub use item::item;
pub use manifest::manifest;
pub use position::position;
pub use response::response;
pub use row::row;

use checkpoints::{Lease, StoreError};

/// Whether an input is the one of `many` that is chosen by its hash: for checks that take long.
fn is_one_of(data: &[u8], many: u64) -> bool {
    hash(data).is_multiple_of(many)
}

/// The FNV-1a hash of an input.
fn hash(data: &[u8]) -> u64 {
    let hash = data
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    hash ^ hash >> 32
}

/// Asserts that an error names the lease that was refused, and is not retryable.
fn assert_names(error: &StoreError, names: &[&str]) {
    let StoreError::Malformed { item, problem } = error else {
        panic!("another kind of error than a malformed lease: {error}")
    };
    assert!(names.iter().any(|name| item.contains(name)), "'{item}' contains none of {names:?}");
    assert!(!problem.is_empty() && !error.is_retryable(), "{error}");
}

/// Asserts what holds for every lease, whatever store it was read from.
fn assert_sane(lease: &Lease) {
    if let Some(pending) = &lease.pending {
        assert!(pending.through > lease.checkpoint, "a pending checkpoint must be after the checkpoint");
    }
    assert!(lease.throughput.get() >= 0.0 && lease.throughput.get().is_finite());
    for name in [lease.key.stream.as_str(), lease.key.shard.as_str()] {
        assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?} can't be printed");
    }
}
