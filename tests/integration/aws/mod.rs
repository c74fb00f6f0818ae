//! Workers as their users start them, against models of Kinesis, DynamoDB, S3 and Firehose, through the official SDK.
//!
//! Owns: what only the real process and the real SDK show: signals, requests that are lost before and after their effect,
//! timeouts, retries of the SDK and the worker's own retries above it, several processes on one table. Every test ends with an
//! audit of what a reader of the lake sees (`audit`). Does not own: the worker's logic under simulated time
//! (`tests/support/simulation`), or what the models do (`tests/support/aws_model`).
//!
//! Time is real here, so most tests have a failover of two seconds and commit twice a second.

mod account;
mod alerts;
mod audit;
mod checkpoints;
mod cloud;
mod cost;
mod dead_letters;
mod doctor;
mod lake;
mod network;
mod objects;
mod outages;
mod permissions;
mod records;
mod replay;

mod failing;
mod fleet;
mod health;
mod identities;
mod least_privilege;
mod raw;
mod streams;
mod telemetry;
mod whatif;
