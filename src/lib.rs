//! The worker and its command line.
//!
//! The way of a record through the modules:
//!
//! 1. [`config`]: turns what the user wrote into what the program runs on.
//! 2. [`source`]: reads shards from a position on.
//! 3. [`worker`]: leases, lanes, the open epoch.
//! 4. [`commit`]: makes an epoch visible, exactly once.
//! 5. [`lake`]: the object store.
//!
//! | other modules | purpose |
//! | --- | --- |
//! | [`cli`] | the commands, one file each |
//! | [`setup`] | opens what the configuration names; the pseudonym key, permissions, allocator |
//! | [`settings`] | what a key of the configuration is: how it is read, checked, shown and documented |
//! | [`lease_stores`] | the kinds of lease stores |
//! | [`aws`] | clients of AWS, permissions |
//! | [`cost`] | what a pipeline costs on AWS, and what a lake's storage costs |
//! | [`doctor`], [`diagnosis`] | examines everything that a fleet needs; the table of what may be wrong |
//! | [`catalog`] | what other services need to find a lake's data |
//! | [`inspect`] | a lake and its leases as seen from outside: status, audits, dead letters |
//! | [`maintenance`] | operations on a lake beside the workers |
//! | [`named_checkpoints`] | saves the positions of all shards under a name, on request and by a schedule |
//! | [`redrive`] | processes dead letters again, or discards them |
//! | [`replay`] | processes a part of the past again, beside the live data |
//! | [`raw`] | sends records as received to another service |
//! | [`telemetry`], [`spans`] | metrics, traces, dashboards and alerts |
//! | [`server`] | the status page, its JSON, and health checks of a worker |
//! | [`clock`], [`retry`], [`trouble`] | time, randomness, retries, and what is logged while something fails |

pub mod aws;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
pub mod cost;
pub mod diagnosis;
pub mod doctor;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod lake;
pub mod lease_stores;
pub mod maintenance;
pub mod named_checkpoints;
pub mod raw;
pub mod redrive;
pub mod replay;
pub mod retry;
pub mod server;
pub mod settings;
pub mod setup;
pub mod source;
pub mod spans;
pub mod telemetry;
pub mod trouble;
pub mod worker;

/// The commit that this program was built from, or what the environment variable `SHARDLAKE_BUILD` called it; `unknown` in
/// debug builds. See `build.rs`.
pub const BUILD: &str = env!("SHARDLAKE_BUILD_ID");
