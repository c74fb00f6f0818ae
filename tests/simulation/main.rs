//! Whole fleets in one process: the real worker, lease and commit code over simulated shards and faulty stores, under
//! paused time, from one seed.
//!
//! A seed decides everything: how many shards and workers there are, where shards split, which requests are lost before or
//! after their effect, which workers are killed (every request of theirs hangs from then on, as of a machine without
//! power), which sleep for longer than their leases last, and when. Then the faults stop, one more worker starts, and in
//! bounded time everything must be there: every record once, as a row or a dead letter; and at every moment before, no
//! reader ever sees a record twice, or an object of an epoch that has no decision.
//!
//! A failing seed prints itself. `SIMULATION_SEEDS=100..200` runs others.

#![expect(clippy::unwrap_used, reason = "a test: what fails, fails it")]

mod fleet;
mod mortal;
mod stream;

use std::ops::Range;

/// Seeds that once failed, or showed something: they are always run.
const REGRESSIONS: [u64; 0] = [];

fn seeds() -> Range<u64> {
    let parse = |text: String| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    std::env::var("SIMULATION_SEEDS").ok().map_or(0..60, |text| parse(text).expect("SIMULATION_SEEDS is like 0..100"))
}

fn run(seed: u64) -> fleet::Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let told = runtime.block_on(fleet::run(seed));
    runtime.shutdown_background();
    told
}

#[test]
fn fleets_commit_every_record_exactly_once_whatever_fails() {
    let mut all = fleet::Told::default();
    for seed in REGRESSIONS.into_iter().chain(seeds()) {
        let told = std::panic::catch_unwind(|| run(seed));
        match told {
            Ok(told) => all.add(&told),
            Err(panic) => {
                eprintln!("seed {seed} failed: run it alone with SIMULATION_SEEDS={seed}..{}", seed + 1);
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{all:?}");
    if seeds() == (0..60) {
        assert!(all.every_fault_occurred(), "each kind of fault occurred at least once: {all:?}");
    }
}

#[test]
fn the_same_seed_does_the_same() {
    assert_eq!(run(7), run(7));
}
