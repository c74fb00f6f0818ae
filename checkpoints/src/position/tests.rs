//! Positions: their order, their text forms, and the texts that are refused.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{position, sequence_number};

#[test]
fn sequence_numbers_are_compared_as_numbers_not_as_text() {
    let number = |text: &str| SequenceNumber::try_from(text).unwrap();
    assert!(number("9") < number("10"));
    assert!(number("99999999999999999999999999999999999999999") < number("100000000000000000000000000000000000000000"));
    assert_eq!(SequenceNumber::from(0_u64), number("0"));
    assert_eq!(SequenceNumber::from(u64::MAX).as_str(), "18446744073709551615");
}

#[test]
fn a_text_that_is_not_a_canonical_number_is_not_a_sequence_number() {
    let too_long = "1".repeat(129);
    for text in ["", "-1", "+1", "007", "00", "1.5", "1e3", " 1", "१", "TRIM_HORIZON", &too_long] {
        assert!(SequenceNumber::try_from(text).is_err(), "{text:?} was accepted");
    }
    assert!(SequenceNumber::try_from("1".repeat(128).as_str()).is_ok());
}

#[test]
fn positions_have_the_documented_texts() {
    let at = |sub| Position::At { sequence: 4959_u64.into(), sub };
    for (position, text) in [
        (Position::Beginning, "TRIM_HORIZON"),
        (Position::Since { ms: 0 }, "AT_TIMESTAMP"),
        (Position::Since { ms: 1736 }, "AT_TIMESTAMP:1736"),
        (Position::Latest, "LATEST"),
        (at(0), "4959"),
        (at(3), "4959:3"),
        (Position::End, "SHARD_END"),
    ] {
        assert_eq!(position.to_string(), text);
        assert_eq!(text.parse::<Position>().unwrap(), position);
    }
}

#[test]
fn a_second_spelling_of_a_position_is_refused() {
    for text in [
        "4959:0",
        "4959:",
        "4959:03",
        "4959:+3",
        ":3",
        "1:2:3",
        "TRIM_HORIZON:1",
        "LATEST:1",
        "AT_TIMESTAMP:0",
        "SHARD_END:0",
        "shard_end",
    ] {
        assert!(text.parse::<Position>().is_err(), "{text:?} was accepted");
    }
    assert!("1:18446744073709551616".parse::<Position>().is_err());
    assert!(Position::from_stored(TRIM_HORIZON, 1).is_err());
}

#[test]
fn a_start_position_is_before_every_record() {
    let starts = [Position::Beginning, Position::Since { ms: 1 }, Position::Since { ms: 2 }, Position::Latest];
    assert!(starts.is_sorted() && starts[3] < Position::at(0_u64.into()));
    assert!(Position::from_stored("LATEST", 1).is_err());
}

#[test]
fn an_empty_range_is_refused_also_in_json() {
    let one = Position::at(1_u64.into());
    assert!(ShardRange::new(one.clone(), one.clone()).is_err());
    assert!(ShardRange::new(Position::End, one.clone()).is_err());
    assert!(serde_json::from_str::<ShardRange>(r#"{"after":"2","through":"1"}"#).is_err());
    let range = ShardRange::new(Position::Beginning, one).unwrap();
    assert_eq!(serde_json::to_string(&range).unwrap(), r#"{"after":"TRIM_HORIZON","through":"1"}"#);
    assert_eq!(range.to_string(), "(TRIM_HORIZON, 1]");
}

proptest! {
    #[test]
    fn a_position_round_trips_through_both_stored_forms(position in position()) {
        prop_assert_eq!(&position.to_string().parse::<Position>().unwrap(), &position);
        let stored = Position::from_stored(position.checkpoint(), position.sub_sequence_number());
        prop_assert_eq!(&stored.unwrap(), &position);
        let json = serde_json::to_string(&position).unwrap();
        prop_assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
    }

    #[test]
    fn a_sequence_number_round_trips_through_json(number in sequence_number()) {
        let json = serde_json::to_string(&number).unwrap();
        prop_assert_eq!(serde_json::from_str::<SequenceNumber>(&json).unwrap(), number);
    }

    #[test]
    fn a_range_round_trips_through_json(one in position(), other in position()) {
        prop_assume!(one != other);
        let range = ShardRange::new(one.clone().min(other.clone()), one.max(other)).unwrap();
        let json = serde_json::to_string(&range).unwrap();
        prop_assert_eq!(serde_json::from_str::<ShardRange>(&json).unwrap(), range);
    }

    #[test]
    fn positions_are_ordered_as_their_numbers(a in any::<u128>(), b in any::<u128>(), sub_a in 0_u64..3, sub_b in 0_u64..3) {
        let at = |number: u128, sub| Position::At { sequence: number.to_string().try_into().unwrap(), sub };
        prop_assert_eq!(at(a, sub_a).cmp(&at(b, sub_b)), (a, sub_a).cmp(&(b, sub_b)));
        prop_assert!(Position::Beginning < at(a, sub_a) && at(a, sub_a) < Position::End);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC*", sub in any::<u64>()) {
        let _ = text.parse::<Position>();
        let _ = Position::from_stored(&text, sub);
    }
}
