//! Records of the sample generator, good and bad.

use std::collections::BTreeSet;

use samples::{Generator, Kinds, Options, RecordKind};

use crate::compare::same;
use crate::product::Feed;

/// Runs both sides on `count` records of each seed.
fn same_rows(kinds: Kinds, count: usize, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut generator = Generator::new(Options { seed, kinds, bad_ratio: 0.05, ..Options::default() }).unwrap();
        let mut ndjson = Vec::new();
        let mut bad = BTreeSet::new();
        let feed = feeds(seed);
        for _ in 0..count {
            let sequence = feed.base_sequence + ndjson.len() as u64;
            if generator.next_into(&mut ndjson).bad.is_some() {
                bad.insert(sequence);
            }
            ndjson.push(b'\n');
        }
        let landed = same(&ndjson, &feed);
        let refused: BTreeSet<u64> = landed.dead_letters.iter().map(|(sequence, ..)| *sequence).collect();
        assert_eq!(refused, bad, "the records that were made to be bad, and no others");
    }
}

/// Ways to cut the same bytes, with different boundaries of micro-batches, chunks and row groups.
fn feeds(seed: u64) -> Feed {
    let (chunk_bytes, take_every) = match seed % 3 {
        0 => (vec![1 << 20], usize::MAX),
        1 => (vec![150_000, 3_000, 40_000], 4),
        _ => (vec![700, 20_000], 37),
    };
    Feed { chunk_bytes, take_every, base_sequence: seed * 1_000_000_007, ..Feed::default() }
}

#[test]
fn events_have_the_same_rows() {
    same_rows(Kinds::only(RecordKind::Events), 1_500, 0..3);
}

#[test]
fn assessments_have_the_same_rows() {
    same_rows(Kinds::only(RecordKind::Assessments), 1_500, 3..6);
}

#[test]
fn users_have_the_same_rows() {
    same_rows(Kinds::only(RecordKind::Users), 2_500, 6..9);
}

#[test]
fn mixed_records_have_the_same_rows() {
    same_rows(Kinds::MIXED, 1_500, 9..12);
}
