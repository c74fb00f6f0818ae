//! The seeds that are always run, and that the simulation finds what it should.
//!
//! `SIMULATION_SEEDS=100..400` runs other seeds; `shardlake-sim --seeds 1..10000` many.

#![expect(clippy::unwrap_used, reason = "a test: what fails, fails it")]

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mutations::Mutation;
use simulation::faults::{Kind, Tally};
use simulation::{REGRESSIONS, run};

/// Seeds of a plain run of the tests.
const SEEDS: Range<u64> = 0..240;

/// A seed that finds each fault of the protocol. Should the code change so that it does not any more, the next ones are tried.
const FOUND_BY: [(Mutation, u64); 12] = [
    (Mutation::DecideAnywhere, 42),
    (Mutation::AdvanceWhatIsNotPending, 69),
    (Mutation::RollBackWithoutDeleting, 6),
    (Mutation::ForgetRawLines, 6),
    (Mutation::TrustScans, 148),
    (Mutation::HideDisownedLeases, 52),
    (Mutation::ResumeAtRecord, 3),
    (Mutation::SkipRecovery, 23),
    (Mutation::ReadOnAfterRefusal, 2),
    (Mutation::KeepRowsOfAbortedEpoch, 8),
    (Mutation::SweepWhatIsPending, 23),
    (Mutation::SweepWhatMayBeDecided, 176),
];
/// How many seeds a fault of the protocol may take to be found.
const WITHIN: u64 = 300;

fn seeds() -> Range<u64> {
    let parse = |text: String| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    std::env::var("SIMULATION_SEEDS").ok().map_or(SEEDS, |text| parse(text).expect("SIMULATION_SEEDS is like 0..100"))
}

/// Runs seeds on both cores; the faults that occurred.
fn run_all(seeds: &[u64]) -> Tally {
    let (next, tally, failed) = (AtomicU64::new(0), Tally::default(), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    match run(*seed, None) {
                        Ok(message) => tally.add(&message.tally),
                        Err(violation) => failed.lock().unwrap().push(violation),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for violation in &failed {
        eprintln!("seed {}: {}", violation.seed, violation.what);
        violation.trace[violation.trace.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("    {line}"));
    }
    assert!(failed.is_empty(), "run one alone with: shardlake-sim --trace --seeds {}", failed[0].seed);
    tally
}

#[test]
fn fleets_commit_every_record_exactly_once_whatever_fails() {
    let all: Vec<u64> = REGRESSIONS.iter().copied().chain(seeds()).collect();
    let tally = run_all(&all);
    eprintln!("{}", tally.table());
    if seeds() == SEEDS {
        // One that needs luck: records that are trimmed in the very moment in which they are read.
        let rare = [Kind::Trimmed];
        let missing: Vec<Kind> = tally.missing().into_iter().filter(|kind| !rare.contains(kind)).collect();
        assert!(missing.is_empty(), "these faults never occurred: {missing:?}");
    }
}

#[test]
fn the_same_seed_does_the_same_in_both_worlds() {
    for seed in [4, 5, 7, 11] {
        let message = [run(seed, None).unwrap(), run(seed, None).unwrap()];
        assert_eq!((message[0].digest, message[0].requests), (message[1].digest, message[1].requests), "seed {seed}");
        assert!(message[0].requests > 100);
    }
}

#[test]
fn every_fault_of_the_protocol_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let finds = |mutation: Mutation| {
        let known = FOUND_BY.iter().filter(|(of, _)| *of == mutation).map(|(_, seed)| *seed);
        known.chain(0..WITHIN).find(|seed| run(*seed, Some(mutation)).is_err())
    };
    let found: Vec<_> = Mutation::ALL.iter().map(|mutation| (*mutation, finds(*mutation))).collect();
    let _ = std::panic::take_hook();
    let missed: Vec<_> = found.iter().filter(|(_, seed)| seed.is_none()).collect();
    eprintln!("{found:?}");
    assert!(missed.is_empty(), "these faults of the protocol were not found: {missed:?}");
}
