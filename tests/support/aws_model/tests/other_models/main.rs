//! Tests of the models of DynamoDB, S3 and Firehose: what the lease protocol and the commit rely on.
//!
//! Owns: the behavior of each model with its own requests, with the official SDK through a connector in memory, and side by side
//! with a stand-in (ignored unless one is running). Does not own: Kinesis, transport and its faults.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should stop")]

mod differential;
mod dynamodb;
mod firehose;
mod leases;
mod memory;
mod s3;
