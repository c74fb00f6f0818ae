//! Tests of the changes in DynamoDB's syntax. The conformance suite tests what they do together.

use super::*;
use crate::shard::StreamName;

fn owner(name: &str) -> LeaseOwner {
    LeaseOwner::new(name).unwrap()
}

fn key() -> ShardKey {
    ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("shardId-0").unwrap())
}

fn all() -> Vec<Change> {
    let (me, manifest) = (owner("me"), ManifestName::new("_intents/1.json").unwrap());
    let range = ShardRange::new(Position::Beginning, Position::End).unwrap();
    let to_end = Advance::to_end(key(), [ShardId::new("shardId-1").unwrap()]);
    vec![
        Change::renew(&me, 1, ThroughputKbps::new(1.5)),
        Change::take(&me, &key(), 1, Take::FromAnother),
        Change::take(&me, &key(), 1, Take::Again),
        Change::ask(&me, &owner("other")),
        Change::hand_over(&me),
        Change::release(&me),
        Change::removal(),
        Change::decide(&me, &manifest, &key(), &range).unwrap(),
        Change::advance(&manifest, &to_end).unwrap(),
        Change::roll_back(&manifest),
    ]
}

/// The names of values in an expression.
fn named(expression: &str) -> Vec<String> {
    let names = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != ':');
    names.filter(|name| name.starts_with(':')).map(str::to_owned).collect()
}

#[test]
fn every_value_is_used_and_every_used_value_is_given() {
    for change in all() {
        let mut used = named(&(change.update_expression() + " " + &change.condition_expression()));
        used.sort();
        used.dedup();
        let mut given: Vec<String> = change.values().keys().cloned().collect();
        given.sort();
        assert_eq!(used, given, "{change:?}");
    }
}

#[test]
fn no_change_applies_to_a_missing_item() {
    // Each condition has a part that needs an attribute, and its parts are joined by AND.
    for change in all() {
        let needs = |condition: &String| !condition.starts_with('(') && condition.contains(" = ");
        assert!(change.conditions.iter().any(needs) || change.conditions[0].contains(" = "), "{change:?}");
    }
}

#[test]
fn no_change_touches_one_attribute_twice() {
    for change in all() {
        let first = |clause: &String| clause.split(' ').next().unwrap().to_owned();
        let set_and_added = change.set.iter().chain(&change.add).map(first);
        let mut touched: Vec<String> =
            set_and_added.chain(change.remove.iter().map(|name| (*name).to_owned())).collect();
        let count = touched.len();
        touched.sort();
        touched.dedup();
        assert_eq!(touched.len(), count, "{change:?}");
    }
}

#[test]
fn a_change_has_the_documented_syntax() {
    let renewed = Change::renew(&owner("me"), 7, ThroughputKbps::new(1.5));
    assert_eq!(renewed.update_expression(), "SET throughputKBps = :v3 ADD leaseCounter :v2");
    assert_eq!(
        renewed.condition_expression(),
        "(checkpointOwner = :v0 OR (leaseOwner = :v0 AND attribute_not_exists(checkpointOwner))) AND leaseCounter = :v1"
    );
    let released = Change::release(&owner("me"));
    assert_eq!(released.update_expression(), "REMOVE leaseOwner ADD leaseCounter :v1");
    assert_eq!(released.condition_expression(), "leaseOwner = :v0 AND attribute_not_exists(checkpointOwner)");
}

#[test]
fn a_number_that_a_row_cannot_hold_is_refused() {
    let too_far = Position::At { sequence: 1_u64.into(), sub: u64::MAX };
    let range = ShardRange::new(Position::Beginning, too_far.clone()).unwrap();
    let manifest = ManifestName::new("_intents/1.json").unwrap();
    let decided = Change::decide(&owner("me"), &manifest, &key(), &range);
    assert!(matches!(decided, Err(StoreError::Invalid { .. })));
    assert!(matches!(Change::advance(&manifest, &Advance::new(key(), too_far)), Err(StoreError::Invalid { .. })));
}
