//! The worker as its users start it, against models of Kinesis, DynamoDB, S3 and Firehose, under the official SDK.
//!
//! Owns: what only the real process and the real SDK show: signals, requests that are lost before and after their effect,
//! time limits, retries of the SDK and of our own above it, several processes on one table. Every test ends with an audit of
//! what a reader of the lake sees (`audit`). Does not own: the worker's logic under simulated time (`tests/support/simulation`), or
//! what the models do (`tests/support/aws_model`).
//!
//! Time is the real one here, so most tests have a failover of two seconds and commit twice a second.

#![expect(clippy::disallowed_methods, reason = "these tests wait for processes, whose time is the real one")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: what fails, fails it")]

mod audit;
mod cloud;
mod lake;
mod permissions;
mod records;
mod worker;

mod failing;
mod fleet;
mod streams;
