//! Whole fleets in one process: the real worker, lease, epoch and commit code, under paused time, from one seed.
//!
//! A seed decides everything: the world (the simulation's own, or models of AWS under the real SDK), how many shards and
//! workers there are, what is put when, where shards split and merge, which requests are lost before or after their effect,
//! throttled, late or never answered, which workers lose their power or stand still, and when. The auditor looks at the lake
//! and the lease table after every effect on either. Then the faults stop, one more worker starts, and in bounded time
//! everything must be there.
//!
//! | file | owns |
//! |---|---|
//! | `fleet` | a run: what happens when |
//! | `world`, `cloud` | the two worlds |
//! | `stream`, `plain` | the simulation's own stream, lake and leases, behind wires |
//! | `wires` | what becomes of a worker's requests |
//! | `auditor` | what must hold at every moment |
//! | `records` | what is put |
//! | `faults`, `trace`, `rng` | what occurred, in which order, from which numbers |
//!
//! The simulator itself is checked by mutations: faults of the protocol, compiled in behind a switch, each of which a run
//! must find ([`mutations::Mutation`]).

pub mod auditor;
pub mod cloud;
pub mod faults;
pub mod fleet;
pub mod plain;
pub mod records;
pub mod rng;
pub mod stream;
pub mod trace;
pub mod wires;
pub mod world;

use std::panic::AssertUnwindSafe;

use mutations::Mutation;

use crate::fleet::Summary;

/// Seeds that once failed, or showed something: they are always run.
///
/// What a seed means changes with the simulation; what these showed stands in ARCHITECTURE.md.
pub const REGRESSIONS: &[u64] = &[129, 154, 327, 395, 465, 757, 1047, 1167, 2376];

/// A run that broke a promise.
#[derive(Debug)]
pub struct Violation {
    /// Its seed.
    pub seed: u64,
    /// What was broken.
    pub what: String,
    /// What happened last.
    pub trace: Vec<String>,
}

/// Runs a fleet from a seed, with one fault of the protocol or none.
///
/// # Errors
/// A promise was broken.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Result<Summary, Violation> {
    let last = fleet::LastTrace::default();
    let held = last.clone();
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        Mutation::switch(mutation);
        // The SDK's and the retries' jitter.
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        let message = runtime.block_on(fleet::run(seed, &held));
        runtime.shutdown_background();
        message
    }));
    Mutation::switch(None);
    let what = match result {
        Ok(Ok(message)) => return Ok(message),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    Err(Violation { seed, what, trace: last.lines() })
}
