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
//! Beside them: [`aws`] makes the clients of the services; [`audit`] looks at a lake from outside; [`world`] opens what the configuration names; [`memory`] sets the allocator; [`permissions`] tries what a worker will have to do; [`produce`] makes sample records; [`raw`] sends records on as received; [`clock`] and [`retry`] are what everything waits by.

pub mod audit;
pub mod aws;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod lake;
pub mod memory;
pub mod permissions;
pub mod produce;
pub mod raw;
pub mod retry;
pub mod source;
pub mod worker;
pub mod world;
