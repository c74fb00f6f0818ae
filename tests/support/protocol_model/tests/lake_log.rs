//! The model of the lake log holds in every state, and leaving out any rule makes a property fail.
//!
//! Owns: the configurations that every test run searches. The command line searches the longer ones (`docs/model.md`).

use protocol_model::lake_log::check::{self, Case};
use protocol_model::lake_log::properties::{ALWAYS, SOMETIMES};
use protocol_model::lake_log::{LogMutation, narrative};

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
    let graph = check::leads_to_the_end(&case(name).model);
    assert!(graph.goals > 0, "{name}: {graph:?}");
    let example = graph.example.map(|state| narrative::describe_state(&state)).unwrap_or_default();
    assert_eq!(graph.stuck, 0, "{name}: {example}");
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
    log: "log",
    trims: "log, trims",
    older_entries: "log, older entries",
    rewrite: "log, rewrite",
    two_rewrites: "log, 2 rewrites",
}

/// Under the mutation the expected property fails.
fn is_caught(mutation: LogMutation) {
    let (property, _) =
        check::caught(mutation).unwrap_or_else(|| panic!("no property fails under {}", mutation.name()));
    let number = check::expected(mutation);
    assert!(property.starts_with(&format!("{number}:")), "{} breaks {property}, not {number}", mutation.name());
}

macro_rules! caught_by_a_property {
    ($($test:ident: $mutation:ident,)*) => {
        mod leaving_out_a_rule_makes_a_property_fail {
            $(#[test] fn $test() { super::is_caught(super::LogMutation::$mutation); })*
        }
        #[test]
        fn every_rule_is_left_out_once() {
            assert_eq!(LogMutation::ALL.to_vec(), [$(LogMutation::$mutation),*]);
        }
    };
}

caught_by_a_property! {
    entry_before_record: EntryBeforeRecord,
    entry_before_decide: EntryBeforeDecide,
    advance_before_entry: AdvanceBeforeEntry,
    skip_versions: SkipVersions,
    own_head: OwnHead,
    ignore_refusal: IgnoreRefusal,
    try_next_version: TryNextVersion,
    trust_lost_answer: TrustLostAnswer,
    skip_lost_version: SkipLostVersion,
    put_replaces: PutReplaces,
    enter_without_confirming: EnterWithoutConfirming,
    trust_lowest_entry: TrustLowestEntry,
    gone_is_not_entered: GoneIsNotEntered,
    trim_above_heads: TrimAboveHeads,
    intents_before_version: IntentsBeforeVersion,
    trim_young: TrimYoung,
    trim_newest: TrimNewest,
    remove_intent_early: RemoveIntentEarly,
    rewrite_without_lease: RewriteWithoutLease,
    plan_before_lease: PlanBeforeLease,
    remove_before_enter: RemoveBeforeEnter,
    advance_before_remove: AdvanceBeforeRemove,
}

#[test]
fn every_property_fails_under_some_mutation() {
    let broken: Vec<&str> = LogMutation::ALL.into_iter().map(check::expected).collect();
    for (property, _) in ALWAYS {
        let (number, _) = property.split_once(':').expect("every property has a number");
        assert!(broken.contains(&number), "{property}");
    }
}

#[test]
fn everything_that_must_be_reached_is_reached_in_some_short_configuration() {
    let cases = check::cases();
    for (name, _) in SOMETIMES {
        let number = name.split_once(':').expect("it has a number").0;
        assert!(cases.iter().any(|case| !case.is_long && !case.never.contains(&number)), "{name}");
    }
}

#[test]
fn a_counterexample_is_written_in_plain_english() {
    let mutation = LogMutation::IgnoreRefusal;
    let model = check::mutated(mutation);
    let (_, path) = check::counterexample(model, check::expected(mutation)).expect("a counterexample");
    let message: Vec<String> = path
        .into_vec()
        .into_iter()
        .filter_map(|(state, action)| Some(narrative::sentence(&model, &state, action?)))
        .collect();
    assert!(message.iter().any(|step| step.contains("writes version 1, for change 1: refused")), "{message:?}");
}
