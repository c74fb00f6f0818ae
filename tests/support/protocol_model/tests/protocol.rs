//! The protocol holds in every state, and leaving out any rule makes a property fail.
//!
//! Owns: the configurations that every test run searches. The command line searches the longer ones (`docs/model.md`).

use protocol_model::check::{self, Case, NOTHING, SMALLEST};
use protocol_model::liveness;
use protocol_model::properties::{ALWAYS, SOMETIMES};
use protocol_model::state::Faults;
use protocol_model::{Mutation, Protocol, narrative};

fn case(name: &str) -> Case {
    check::cases().into_iter().find(|case| case.name == name && !case.is_long).expect("a configuration of this name")
}

/// Every property holds in every state, and everything that must be reached is.
fn holds(name: &str) {
    let case = case(name);
    let outcome = check::check(&case, 1);
    assert_eq!((&outcome.failed, &outcome.unreached), (&vec![], &vec![]), "{name}: {outcome:?}");
    assert_eq!(outcome.reached + case.never.len(), SOMETIMES.len(), "{name} reaches more than its list says");
}

/// From every state a path leads to the end.
fn reaches_the_end(name: &str) {
    let graph = liveness::search(&case(name).protocol);
    assert!(graph.goals > 0, "{name}: {graph:?}");
    assert_eq!(
        graph.stuck,
        0,
        "{name}: {}",
        graph.example.map(|state| narrative::describe_state(&state)).unwrap_or_default()
    );
}

macro_rules! configurations {
    ($($test:ident: $name:literal,)*) => {
        mod holds_in_every_state {
            $(#[test] fn $test() { super::holds($name); })*
        }
        mod leads_to_the_end_from_every_state {
            $(#[test] fn $test() { super::reaches_the_end($name); })*
        }
        #[test]
        fn every_short_configuration_is_searched() {
            let searched = [$($name),*];
            let short: Vec<&str> = check::cases().iter().filter(|case| !case.is_long).map(|case| case.name).collect();
            assert_eq!(short, searched);
        }
    };
}

configurations! {
    deaths: "deaths",
    late_requests: "late requests",
    roll_back: "roll back",
    chain: "chain",
    family: "family",
    lease_manager: "lease manager",
    hand_over: "hand-over",
    comes_back: "comes back",
}

/// Under the mutation the expected property fails.
fn is_caught(mutation: Mutation) {
    let (property, _) =
        check::caught(mutation).unwrap_or_else(|| panic!("no property fails under {}", mutation.name()));
    let number = check::expected(mutation);
    assert!(property.starts_with(&format!("{number}:")), "{} breaks {property}, not {number}", mutation.name());
}

macro_rules! caught_by_a_property {
    ($($test:ident: $mutation:ident,)*) => {
        mod leaving_out_a_rule_makes_a_property_fail {
            $(#[test] fn $test() { super::is_caught(super::Mutation::$mutation); })*
        }
        #[test]
        fn every_rule_is_left_out_once() {
            assert_eq!(Mutation::ALL.to_vec(), [$(Mutation::$mutation),*]);
        }
    };
}

caught_by_a_property! {
    skip_holder: SkipHolder,
    asker_decides: AskerDecides,
    skip_checkpoint: SkipCheckpoint,
    skip_pending: SkipPending,
    decide_row_by_row: DecideRowByRow,
    publish_before_decide: PublishBeforeDecide,
    decide_before_intent: DecideBeforeIntent,
    remove_intent_of_refused: RemoveIntentOfRefused,
    advance_before_publish: AdvanceBeforePublish,
    advance_before_record: AdvanceBeforeRecord,
    advance_before_enter: AdvanceBeforeEnter,
    enter_before_record: EnterBeforeRecord,
    record_is_entered: RecordIsEntered,
    advance_on_ownership: AdvanceOnOwnership,
    publish_lost: PublishLost,
    roll_back_without_abort: RollBackWithoutAbort,
    gone_is_lost: GoneIsLost,
    delete_after_roll_back: DeleteAfterRollBack,
    complete_replaces: CompleteReplaces,
    resume_without_recovery: ResumeWithoutRecovery,
    readers_live_on: ReadersLiveOn,
    child_before_parent: ChildBeforeParent,
    slow_completion: SlowCompletion,
    gained_keeps_ledger: GainedKeepsLedger,
    hide_disowned_leases: HideDisownedLeases,
    torn_by_pending: TornByPending,
}

/// If a property ever fails under one of these, it is no longer redundant and belongs to the others.
mod a_redundant_rule_is_not_needed {
    use protocol_model::Mutation;

    #[test]
    fn abort_nothing() {
        super::is_not_caught(Mutation::REDUNDANT[0]);
    }

    #[test]
    fn roll_back_anyway() {
        super::is_not_caught(Mutation::REDUNDANT[1]);
    }

    #[test]
    fn lost_is_refused() {
        super::is_not_caught(Mutation::REDUNDANT[2]);
    }
}

fn is_not_caught(mutation: Mutation) {
    assert_eq!((check::expected(mutation), check::caught(mutation)), (NOTHING, None), "{}", mutation.name());
}

#[test]
fn every_property_fails_under_some_mutation() {
    // Those that no single rule guards, with the reason.
    let by_several = [
        "C1.2", // A checkpoint that is not where a range begins breaks C1.1 first.
        "C3.2", // An upload that is gone can't be published, so nothing could be advanced.
    ];
    let broken: Vec<&str> = Mutation::ALL.into_iter().map(check::expected).collect();
    for (property, _) in ALWAYS {
        let (number, _) = property.split_once(':').expect("every property has a number");
        assert!(broken.contains(&number) != by_several.contains(&number), "{property}");
    }
}

#[test]
fn everything_that_must_be_reached_is_reached_in_some_configuration() {
    let cases = check::cases();
    for (name, _) in SOMETIMES {
        let number = name.split_once(':').expect("it has a number").0;
        assert!(cases.iter().any(|case| !case.is_long && !case.never.contains(&number)), "{name}");
    }
}

/// Forgetting and renaming make the search smaller, and must not hide anything.
#[test]
fn forgetting_and_renaming_do_not_change_the_verdict() {
    let faults = Faults { losses: 1, steals: 1, ..SMALLEST.faults };
    let small = Protocol { faults, ..SMALLEST };
    let never = &["S7", "S8", "S9", "S10", "S11", "S12"];
    let mut sizes = Vec::new();
    for (forgets, renames) in [(true, true), (true, false), (false, true)] {
        let protocol = Protocol { forgets, renames, ..small };
        let case = Case { name: "small", protocol, never, checks_liveness: false, is_long: false };
        let outcome = check::check(&case, 1);
        assert_eq!((&outcome.failed, &outcome.unreached), (&vec![], &vec![]), "{outcome:?}");
        sizes.push(outcome.unique);
    }
    assert!(sizes[0] < sizes[1] && sizes[0] < sizes[2], "{sizes:?}");
}

#[test]
fn a_counterexample_is_written_in_plain_english() {
    let mutation = Mutation::SkipHolder;
    let protocol = check::mutated(mutation);
    let (_, path) = check::counterexample(protocol, Some(check::expected(mutation))).expect("a counterexample");
    let message: Vec<String> = path
        .into_vec()
        .into_iter()
        .filter_map(|(state, action)| Some(narrative::sentence(&protocol, &state, action?)))
        .collect();
    let last = message.last().expect("a step");
    assert!(last.ends_with("gets the answer to its request to decide epoch 0"), "{last}");
}
