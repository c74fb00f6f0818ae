//! Tests of the model of Kinesis, of its server and of the faults, through the official SDK.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod client;
mod consumers;
mod differential;

mod faults;
mod limits;
mod listing;
mod reading;
mod resharding;
mod serving;
mod writing;
