//! Records to frames: which are left out, which are damaged, and the position after them.

use pipeline::chunk::Framing;

use super::*;
use crate::source::kinesis::kpl::tests::aggregate;

const RECORD_BYTES_MAX: usize = 10;

fn at(sequence: u64, sub: u64) -> Position {
    Position::At { sequence: sequence.into(), sub }
}

fn add(batch: &mut Batch, sequence: &str, data: &[u8]) -> Result<(), Malformed> {
    let start = batch.buffer.len();
    batch.buffer.extend_from_slice(data);
    batch.add(start, RecordMeta { sequence, arrival_ms: Some(5), partition_key: Some("own") })
}

fn batch(after: Position) -> Batch {
    Batch::new(b"of the last time".to_vec(), after, RECORD_BYTES_MAX)
}

/// A record as it is in the chunk: sequence number, its place in an aggregate, partition key, bytes, damage.
type Seen = (String, u64, String, Vec<u8>, Option<Damage>);

fn seen(batch: Batch) -> Vec<Seen> {
    let chunk = batch.into_chunk("s".into(), "a".into(), 7);
    let Framing::Records(frames) = chunk.framing() else { panic!("records of Kinesis have frames") };
    let seen = frames.iter().map(|frame| {
        let bytes = chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize].to_vec();
        assert_eq!(frame.arrival_ms, Some(5));
        let key = frame.partition_key.as_deref().unwrap().to_owned();
        (frame.sequence.to_string(), frame.sub_sequence, key, bytes, frame.damage)
    });
    let seen: Vec<Seen> = seen.collect();
    assert!(frames.windows(2).all(|two| two[0].bytes.end < two[1].bytes.start), "a byte lies between any two");
    seen
}

fn three() -> Vec<u8> {
    aggregate(&["a", "b"], &[(0, b"one"), (1, b""), (0, b"three")])
}

#[test]
fn every_record_has_a_frame_and_the_position_is_after_the_last() {
    let mut batch = batch(Position::Beginning);
    assert_eq!(batch.through(), Position::Beginning);
    add(&mut batch, "5", b"plain").unwrap();
    add(&mut batch, "6", b"").unwrap();
    add(&mut batch, "49", &three()).unwrap();
    assert_eq!((batch.records(), batch.through(), batch.first()), (3, at(49, 2), Some(&5.into())));
    let own = |sequence: &str, bytes: &[u8]| (sequence.to_owned(), 0, "own".to_owned(), bytes.to_vec(), None);
    let packed = |sub, key: &str, bytes: &[u8]| ("49".to_owned(), sub, key.to_owned(), bytes.to_vec(), None);
    let expected =
        [own("5", b"plain"), own("6", b""), packed(0, "a", b"one"), packed(1, "b", b""), packed(2, "a", b"three")];
    assert_eq!(seen(batch), expected);
}

#[test]
fn records_that_were_read_before_are_left_out_even_within_an_aggregate() {
    for (after, left, through) in [
        (at(7, 0), vec!["7:1", "7:2", "9:0"], at(9, 0)),
        (at(7, 1), vec!["7:2", "9:0"], at(9, 0)),
        (at(7, 2), vec!["9:0"], at(9, 0)),
        (at(7, 5), vec!["9:0"], at(9, 0)),
        (at(9, 0), vec![], at(9, 0)),
        (at(9, 3), vec![], at(9, 3)),
        (at(10, 0), vec![], at(10, 0)),
        (Position::Since { ms: 3 }, vec!["7:0", "7:1", "7:2", "9:0"], at(9, 0)),
    ] {
        let mut batch = batch(after.clone());
        add(&mut batch, "7", &three()).unwrap();
        add(&mut batch, "9", b"x").unwrap();
        assert_eq!((batch.through(), batch.records()), (through, 2), "after {after}");
        let ids: Vec<String> = seen(batch).iter().map(|record| format!("{}:{}", record.0, record.1)).collect();
        assert_eq!(ids, left, "after {after}");
    }
}

#[test]
fn a_broken_aggregate_is_one_damaged_record_with_all_its_bytes() {
    let mut cut = three();
    cut.pop();
    for broken in [cut, aggregate(&["a"], &[])] {
        let mut batch = batch(Position::Beginning);
        add(&mut batch, "7", &broken).unwrap();
        assert_eq!(batch.through(), at(7, 0));
        assert_eq!(seen(batch), [("7".to_owned(), 0, "own".to_owned(), broken, Some(Damage::BrokenAggregate))]);
    }
}

#[test]
fn a_record_that_is_too_large_is_marked_even_within_an_aggregate() {
    let (fits, large) = ([b'x'; RECORD_BYTES_MAX], [b'x'; RECORD_BYTES_MAX + 1]);
    let mut batch = batch(Position::Beginning);
    add(&mut batch, "1", &fits).unwrap();
    add(&mut batch, "2", &large).unwrap();
    add(&mut batch, "3", &aggregate(&["a"], &[(0, &fits), (0, &large)])).unwrap();
    let damage: Vec<_> = seen(batch).into_iter().map(|record| (record.3.len(), record.4)).collect();
    assert_eq!(damage, [(10, None), (11, Some(Damage::TooLarge)), (10, None), (11, Some(Damage::TooLarge))]);
}

#[test]
fn a_response_out_of_order_is_malformed() {
    for (first, second) in [("9", "7"), ("7", "7"), ("10", "9")] {
        let mut batch = batch(Position::Beginning);
        add(&mut batch, first, b"x").unwrap();
        assert!(add(&mut batch, second, b"x").is_err(), "{second} behind {first}");
    }
    for sequence in ["", "x", "-1", "07"] {
        assert!(add(&mut batch(Position::Beginning), sequence, b"x").is_err(), "'{sequence}'");
    }
}

#[test]
fn times_are_rounded_to_milliseconds() {
    for (seconds, ms) in [(1_736_764_200.123, 1_736_764_200_123), (1_736_764_200.0, 1_736_764_200_000), (0.9996, 1000)]
    {
        assert_eq!(millis(&DateTime::from_secs_f64(seconds)), ms, "{seconds}");
    }
}
