//! The same checks for the fuzzer, which runs them millions of times.
//!
//! Owns: lanes that are kept from input to input, and the checks that read nothing back: what each record becomes alone, and that
//! all records together become the same. Does not own: the full checks, which one input of many goes through.
//!
//! A lane that has processed other inputs must give the same results. If it does not, the input alone may not reproduce the failure;
//! the fuzzer's seed, which it prints, reproduces all inputs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline::chunk::{Chunk, Damage, Framing};
use pipeline::dead_letter::code::Code;
use pipeline::encode::Rows;
use pipeline::lane::{Lane, LaneConfig};
use pipeline::line_objects::LineCodec;

use super::lane::{self, Frames};
use super::{Given, chunks, compiled, config_of, given, judge, judge_one};

/// One input of this many goes through the full check.
const ONE_OF: u64 = 512;
/// One definition of this many goes through the full check.
const ONE_DEFINITION_OF: u64 = 32;
/// Chunks after which a lane's rows are counted and discarded.
const CHUNKS_MAX: usize = 500;

/// A lane, and the number of rows that it must hold.
struct Kept {
    lane: Lane,
    rows: u64,
    chunks: usize,
}

thread_local! {
    static LANES: RefCell<[Option<Kept>; 4]> = const { RefCell::new([const { None }; 4]) };
}

impl Kept {
    fn new(assigned: usize) -> Self {
        // Without raw lines, and with dead letters compressed fast.
        let config = LaneConfig { raw: None, dead_letters: LineCodec::Zstd(-50), ..config_of(assigned) };
        Kept { lane: Lane::new(Arc::new(config)), rows: 0, chunks: 0 }
    }

    /// Pushes a chunk. Returns the number of its records, and its dead letters by code.
    fn push(&mut self, chunk: Chunk) -> (u64, Vec<(Code, u64)>) {
        let pushed = self.lane.push(0, chunk);
        let dead: u64 = pushed.dead_letters.iter().map(|(_, count)| count).sum();
        assert!(dead <= pushed.records, "more dead letters than records");
        self.rows += pushed.records - dead;
        self.chunks += 1;
        if self.chunks == CHUNKS_MAX {
            let taken = self.lane.take_rows();
            let held: u64 = taken.iter().flat_map(Rows::partitions).map(|partition| partition.rows).sum();
            assert_eq!(held, self.rows, "the lane lacks rows, or has too many");
            self.lane.forget();
            (self.rows, self.chunks) = (0, 0);
        }
        (pushed.records, pushed.dead_letters)
    }

    /// Pushes the chunk of one record. Returns its code if it is a dead letter.
    fn push_one(&mut self, chunk: Chunk) -> Option<Code> {
        let (records, codes) = self.push(chunk);
        assert_eq!(records, 1, "one record must be counted as one");
        match codes[..] {
            [] => None,
            [(code, 1)] => Some(code),
            _ => panic!("dead letters of one record: {codes:?}"),
        }
    }
}

fn with_lane(assigned: usize, check: impl FnOnce(&mut Kept)) {
    LANES.with_borrow_mut(|lanes| {
        // A lane that panicked is not used again.
        let mut kept = lanes[assigned].take().unwrap_or_else(|| Kept::new(assigned));
        check(&mut kept);
        lanes[assigned] = Some(kept);
    });
}

/// Whether an input is the one of `many` that is chosen by its hash.
fn is_one_of(data: &[u8], many: u64) -> bool {
    let hash = data
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    (hash ^ hash >> 32).is_multiple_of(many)
}

/// Dead letters by code.
fn counts(dead_letters: impl IntoIterator<Item = (Code, u64)>) -> BTreeMap<Code, u64> {
    let mut counts = BTreeMap::new();
    dead_letters.into_iter().for_each(|(code, count)| *counts.entry(code).or_default() += count);
    counts
}

/// [`record`](super::record), for most inputs without reading files back.
pub fn record(data: &[u8]) {
    if is_one_of(data, ONE_OF) {
        return super::record(data);
    }
    let base = 1_000;
    let lines = judge::lines(data);
    with_lane(3, |kept| {
        let mut apart = Vec::new();
        for line in &lines {
            let framing = Framing::Lines { base: base + line.offset as u64 };
            let code = kept.push_one(lane::chunk(line.whole.to_vec(), framing));
            judge_one(line.text, None, code, false);
            apart.extend(code.map(|code| (code, 1)));
        }
        if lines.len() != 1 {
            let (records, together) = kept.push(lane::chunk(data.to_vec(), Framing::Lines { base }));
            assert_eq!(records, lines.len() as u64, "each line must be a record");
            assert_eq!(counts(together), counts(apart), "what a record becomes depends on its neighbours");
        }
    });
}

/// [`records`](super::records), for most inputs without reading files back.
pub fn records(data: &[u8]) {
    if is_one_of(data, ONE_OF) {
        return super::records(data);
    }
    let Some((assigned, data)) = data.split_first() else { return };
    let assigned = usize::from(assigned & 3);
    let given = given(data);
    with_lane(assigned, |kept| {
        let mut apart = Vec::new();
        for Given { key, bytes, arrival_ms, damage, .. } in &given {
            let mut frames = Frames::default();
            frames.push(bytes, key, *arrival_ms, None, *damage);
            let code = kept.push_one(frames.into_chunk());
            judge_one(bytes, *damage, code, assigned < 3);
            assert!(damage.is_none_or(|damage| damage != Damage::TooLarge) || code == Some(Code::TooLarge));
            apart.extend(code.map(|code| (code, 1)));
        }
        if given.len() > 1 {
            let mut together = Vec::new();
            for chunk in chunks(&given) {
                together.extend(kept.push(chunk).1);
            }
            assert_eq!(counts(together), counts(apart), "what a record becomes depends on its neighbours");
        }
    });
}

/// [`definition`](super::definition), for most inputs only compiled, alone.
pub fn definition(data: &[u8]) {
    if is_one_of(data, ONE_DEFINITION_OF) {
        return super::definition(data);
    }
    if let Some(datasets) = std::str::from_utf8(data).ok().and_then(compiled) {
        assert_eq!(datasets.version(0).len(), 64);
    }
}
