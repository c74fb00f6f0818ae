//! The worker and its command line: reading, running, committing, telling.
//!
//! The modules stand in the order of a record's way:
//!
//! 1. [`config`]: what the user wrote becomes what the program runs on.
//! 2. [`source`]: shards, read from a position on.
//! 3. [`worker`]: leases, lanes, the open epoch.
//! 4. [`commit`]: how an epoch becomes visible, exactly once.
//! 5. [`lake`]: the object store.
//!
//! | beside them | purpose |
//! | --- | --- |
//! | [`setup`] | opens what the configuration names; the key of pseudonyms, permissions, allocator |
//! | [`settings`] | what a key of the configuration is: how it is read, checked, shown and documented |
//! | [`lease_stores`] | the kinds of lease stores |
//! | [`aws`] | clients of AWS, permissions |
//! | [`inspect`] | what a lake holds, seen from outside: audits, dead letters, leases |
//! | [`maintenance`] | operations on a lake beside the workers |
//! | [`raw`] | sends records on as received, to another service |
//! | [`produce`] | sample records |
//! | [`clock`], [`retry`] | time, randomness and retries |

pub mod aws;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod lake;
pub mod lease_stores;
pub mod maintenance;
pub mod produce;
pub mod raw;
pub mod retry;
pub mod settings;
pub mod setup;
pub mod source;
pub mod worker;

/// The commit that this program was built from, or what the environment variable `SHARDLAKE_BUILD` called it; `unknown` in
/// debug builds. See `build.rs`.
pub const BUILD: &str = env!("SHARDLAKE_BUILD_ID");
