//! What the worker reads of others: answers of Kinesis, aggregates of producers, rows of other programs, stored items,
//! what people write.
//!
//! Owns: making inputs of arbitrary bytes, and judging what comes out by something that is not the code under test: serde
//! and base64 for answers, an encoder of its own for aggregates, the model of DynamoDB for writes, the rules of the other
//! stores for what they mean. Does not own: the inputs. Every check panics where something does not hold.

mod aggregate;
mod answer;
mod config;
mod item;
mod manifest;
mod position;
mod row;

pub use aggregate::aggregate;
pub use answer::answer;
pub use config::config;
pub use item::item;
pub use manifest::manifest;
pub use position::position;
pub use row::row;

use checkpoints::{Lease, StoreError};

/// Whether an input is one of so many: for what takes long, and need not be done for each. The same input always is.
fn is_one_of(data: &[u8], so_many: u64) -> bool {
    hash(data).is_multiple_of(so_many)
}

/// A number that the same input always has (FNV-1a).
fn hash(data: &[u8]) -> u64 {
    let hash = data
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    hash ^ hash >> 32
}

/// That a row that was refused is named, and that nobody is told to try again.
fn assert_names(error: &StoreError, names: &[&str]) {
    let StoreError::Malformed { item, problem } = error else { panic!("{error} is no answer to a row") };
    assert!(names.iter().any(|name| item.contains(name)), "'{item}' names none of {names:?}");
    assert!(!problem.is_empty() && !error.is_retryable(), "{error}");
}

/// What every lease keeps to, wherever it was read.
fn assert_sane(lease: &Lease) {
    if let Some(pending) = &lease.pending {
        assert!(pending.through > lease.checkpoint, "what is pending moves the checkpoint");
    }
    assert!(lease.throughput.get() >= 0.0 && lease.throughput.get().is_finite());
    for name in [lease.key.stream.as_str(), lease.key.shard.as_str()] {
        assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?} can't be shown");
    }
}
