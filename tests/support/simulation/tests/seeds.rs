//! The seeds that every test run includes, and the seeds that find the mutations.
//!
//! `SIMULATION_SEEDS=100..400` runs other seeds. `shardlake-sim --seeds 1..10000` runs many.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is a failure")]

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mutations::Mutation;
use simulation::faults::{FaultKind, Tally};
use simulation::fleet::LastTrace;
use simulation::{FOUND_BY_THE_MODEL, REGRESSIONS, run, run_traced};

/// The seeds of a run without `SIMULATION_SEEDS`.
const SEEDS: Range<u64> = 0..200;

/// For some mutations a seed that finds it, so that no other seed must be tried. If the code changes and the seed does not find
/// it any more, the test tries the seeds from 0 on.
const FOUND_BY: [(Mutation, u64); 45] = [
    (Mutation::DecideWithoutHolding, 2),
    (Mutation::DecideAnywhere, 48),
    (Mutation::DecideInPart, 2),
    (Mutation::AdvanceWhatIsNotPending, 24),
    (Mutation::RollBackWithoutDeleting, 16),
    (Mutation::ForgetRawLines, 6),
    (Mutation::TrustScans, 525),
    (Mutation::HideDisownedLeases, 525),
    (Mutation::ResumeAtRecord, 3),
    (Mutation::SkipRecovery, 49),
    (Mutation::ForgetWaitingShards, 113),
    (Mutation::ReadOnAfterRefusal, 46),
    (Mutation::KeepRowsOfAbortedEpoch, 2),
    (Mutation::AcceptReplacedReaders, 1086),
    (Mutation::SweepWhatIsPending, 83),
    (Mutation::SweepWhatMayBeDecided, 324),
    (Mutation::FailedReadsAreProgress, 2),
    (Mutation::DropLeasesInAnOutage, 34),
    (Mutation::GiveUpAtOnce, 1),
    (Mutation::RebuildFromStart, 49),
    (Mutation::RebuildWithoutIntents, 21),
    (Mutation::IgnoreLostRows, 49),
    (Mutation::TrustStreamName, 7),
    (Mutation::LatestByOwnClock, 55),
    (Mutation::EnterWithoutReading, 4),
    (Mutation::EnterWithoutConfirming, 405),
    (Mutation::TrimAboveIntent, 248),
    (Mutation::TipOfAnotherShard, 8),
    (Mutation::RemoveBeforeDeciding, 0),
    (Mutation::RemoveBeforeEntering, 0),
    (Mutation::RemoveAfterAdvancing, 0),
    (Mutation::KeepWhatIsReplaced, 0),
    (Mutation::DeleteBeforeKeeping, 0),
    (Mutation::PlanBeforeLeases, 5),
    (Mutation::StartWithoutFinishing, 6),
    (Mutation::OperateOutsideParts, 42),
    (Mutation::ForgetRemovalsOfLostRows, 252),
    (Mutation::CutOfOneScan, 0),
    (Mutation::CutWithoutPending, 0),
    (Mutation::VersionAfterCut, 6),
    (Mutation::RemoveNewestCheckpoints, 6),
    (Mutation::PromoteWhatIsNotLive, 0),
    (Mutation::SwapBeforeKeeping, 6),
    (Mutation::UndoUnderOldNames, 9),
    (Mutation::SliceNotCut, 5),
];
/// The number of seeds within which a mutation must be found whose seed above does not find it, or that has none. One mutation needs a rare
/// order of events, and no seed below 1,000 has it.
const WITHIN: u64 = 300;

fn seeds() -> Range<u64> {
    let parse = |text: String| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    std::env::var("SIMULATION_SEEDS").ok().map_or(SEEDS, |text| parse(text).expect("SIMULATION_SEEDS is like 0..100"))
}

/// Runs seeds on two threads. Returns the faults that occurred.
fn run_all(seeds: &[u64]) -> Tally {
    let (next, tally, failed) = (AtomicU64::new(0), Tally::default(), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    match run(*seed, None) {
                        Ok(summary) => tally.add(&summary.tally),
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
fn fleets_commit_every_record_exactly_once_under_all_faults() {
    let all: Vec<u64> = REGRESSIONS.iter().copied().chain(seeds()).collect();
    let tally = run_all(&all);
    eprintln!("{}", tally.table());
    if seeds() == SEEDS {
        // These are rare: records must be trimmed at the very moment at which they are read; a worker must sleep while others commit and
        // the lake log is trimmed, and then write the version after the last one that it knew.
        let rare = [FaultKind::Trimmed, FaultKind::FalseEntry];
        let missing: Vec<FaultKind> = tally.missing().into_iter().filter(|kind| !rare.contains(kind)).collect();
        assert!(missing.is_empty(), "these faults never occurred: {missing:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_every_time_in_both_environments() {
    for seed in [4, 5, 7, 11, 15] {
        let [of_first, of_second] = [LastTrace::default(), LastTrace::default()];
        let [first, second] = [&of_first, &of_second].map(|last| run_traced(seed, None, last).unwrap());
        let differs = of_first.lines().into_iter().zip(of_second.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((first.digest, first.requests), (second.digest, second.requests), "seed {seed}");
        assert!(first.requests > 100);
    }
}

#[test]
fn every_mutation_of_the_protocol_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let finds = |mutation: Mutation| {
        let known = FOUND_BY.iter().filter(|(of, _)| *of == mutation).map(|(_, seed)| *seed);
        known.chain(0..WITHIN).find(|seed| run(*seed, Some(mutation)).is_err())
    };
    let all = Mutation::ALL.iter().filter(|mutation| !FOUND_BY_THE_MODEL.contains(mutation));
    let found: Vec<_> = all.map(|mutation| (*mutation, finds(*mutation))).collect();
    let _ = std::panic::take_hook();
    let missed: Vec<_> = found.iter().filter(|(_, seed)| seed.is_none()).collect();
    eprintln!("{found:?}");
    assert!(missed.is_empty(), "these mutations were not found: {missed:?}");
}
