//! Whole fleets in one process: the real worker, lease, epoch and commit code, under paused time, from one seed.
//!
//! A seed decides everything:
//!
//! - the environment: in memory, or models of AWS under the real SDK;
//! - how many shards and workers there are, what is put when, and where shards split and merge;
//! - which requests are lost before or after their effect, throttled, late, or never answered;
//! - which workers are killed or paused, and when;
//! - whether a service is away for seconds, minutes or an hour at the end, or a shard cannot be read by one worker.
//!
//! The auditor checks the lake and the lease table after every effect on either. Then the faults stop, one more worker starts,
//! and everything must be visible in bounded time.
//!
//! | file | owns |
//! |---|---|
//! | `fleet` | a run: what happens when; `operations` on the lake; `past` and `redrives`; `saves` of checkpoints; `outages` at its end; `calm` counts requests |
//! | `environment`, `cloud` | the two environments |
//! | `stream`, `objects`, `in_memory` | the streams, the objects of another program, the lake and the leases of the environment in memory |
//! | `network` | what happens to a worker's requests |
//! | `auditor` | what must hold at every moment |
//! | `records` | what is put |
//! | `scale` | fleets of up to thousands of shards: requests, and how long they take to settle |
//! | `faults`, `trace`, `rng` | which faults occurred, in which order, from which numbers |
//!
//! Mutations check the simulation itself: each breaks the protocol behind a switch, and a run must find it
//! ([`mutations::Mutation`]).

// The futures of a worker are deep.
#![recursion_limit = "256"]

pub mod auditor;
pub mod cloud;
pub mod environment;
pub mod faults;
pub mod fleet;
pub mod in_memory;
pub mod network;
pub mod objects;
pub mod records;
pub mod rng;
pub mod scale;
pub mod stream;
pub mod trace;

use std::panic::AssertUnwindSafe;

use mutations::Mutation;

use crate::fleet::Summary;

/// Seeds that failed once. The tests always run them.
///
/// What a seed does changes with the simulation. ARCHITECTURE.md says what these seeds have found.
pub const REGRESSIONS: &[u64] = &[129, 154, 327, 395, 465, 757, 1047, 1167, 2376];

/// Mutations that no seed must find. An epoch would have to be decided, enter and be followed by another one between two lists of a
/// trim, and still be pending when its entry is removed. The model of the lake log finds it (`docs/model.md`).
pub const FOUND_BY_THE_MODEL: &[Mutation] = &[Mutation::ListIntentsBeforeChoosing];

/// A run that violated a rule.
#[derive(Debug)]
pub struct Violation {
    /// Its seed.
    pub seed: u64,
    /// What was violated.
    pub what: String,
    /// The last events.
    pub trace: Vec<String>,
}

/// Runs a fleet from a seed, with one mutation of the protocol or none.
///
/// # Errors
/// A rule was violated.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Result<Summary, Violation> {
    run_traced(seed, mutation, &fleet::LastTrace::default())
}

/// The same. `last` has the last events afterwards, whatever the result.
///
/// # Errors
/// A rule was violated.
pub fn run_traced(seed: u64, mutation: Option<Mutation>, last: &fleet::LastTrace) -> Result<Summary, Violation> {
    let held = last.clone();
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        Mutation::switch(mutation);
        // The jitter of the SDK and of retries.
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        let summary = runtime.block_on(fleet::run(seed, &held));
        runtime.shutdown_background();
        summary
    }));
    Mutation::switch(None);
    let what = match result {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    Err(Violation { seed, what, trace: last.lines() })
}
