//! The same checks for the fuzzer, which runs them millions of times.
//!
//! Owns: lanes that are kept from input to input, and what is judged without reading anything back: what became of each
//! record alone, and that all of them together become the same. Does not own: the full checks, which one input of many goes
//! through.
//!
//! A lane that has seen other inputs before must give the same; should it not, the input alone may not show it. The fuzzer's
//! seed, which it prints, brings all of them back.

use std::cell::RefCell;
use std::sync::Arc;

use pipeline::chunk::{Chunk, Damage, Framing};
use pipeline::dead_letter::code::Code;
use pipeline::encode::Rows;
use pipeline::lane::{Lane, LaneConfig};
use pipeline::line_objects::LineCodec;

use super::lane::{self, Frames};
use super::{Given, chunks, compiled, config_of, given, judge, judge_one};

/// Inputs of which one is followed up to the files.
const ONE_OF: u64 = 512;
/// Definitions of which one is put to work.
const ONE_DEFINITION_OF: u64 = 32;
/// Chunks after which a lane's rows are counted and given up.
const CHUNKS_MAX: usize = 500;

/// A lane, and what it should hold.
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
        // Without raw lines, and with the letters in a form that costs little.
        let config = LaneConfig { raw: None, dead_letters: LineCodec::Zstd(-50), ..config_of(assigned) };
        Kept { lane: Lane::new(Arc::new(config)), rows: 0, chunks: 0 }
    }

    /// Pushes a chunk: gives the number of its records, and its dead letters by code.
    fn push(&mut self, chunk: Chunk) -> (u64, Vec<(Code, u64)>) {
        let pushed = self.lane.push(0, chunk);
        let letters: u64 = pushed.dead_letters.iter().map(|(_, count)| count).sum();
        assert!(letters <= pushed.records, "a record has one dead letter at most");
        self.rows += pushed.records - letters;
        self.chunks += 1;
        if self.chunks == CHUNKS_MAX {
            let taken = self.lane.take_rows();
            let held: u64 = taken.iter().flat_map(Rows::partitions).map(|partition| partition.rows).sum();
            assert_eq!(held, self.rows, "what is no dead letter is a row");
            self.lane.forget();
            (self.rows, self.chunks) = (0, 0);
        }
        (pushed.records, pushed.dead_letters)
    }

    /// Pushes the chunk of one record: gives its code, if it is a dead letter.
    fn push_one(&mut self, chunk: Chunk) -> Option<Code> {
        let (records, letters) = self.push(chunk);
        assert_eq!(records, 1, "one record is one record");
        match letters[..] {
            [] => None,
            [(code, 1)] => Some(code),
            _ => panic!("one record has one dead letter at most, not {letters:?}"),
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

/// Whether an input is one of so many. The same input always is.
fn is_one_of(data: &[u8], so_many: u64) -> bool {
    let hash = data
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    (hash ^ hash >> 32).is_multiple_of(so_many)
}

/// Adds a code to those of others, in the order of [`Code::ALL`].
fn count(codes: &mut [u64], code: Code, letters: u64) {
    let place = Code::ALL.iter().position(|known| *known == code).expect("it is one of all");
    codes[place] += letters;
}

fn counts(letters: impl IntoIterator<Item = (Code, u64)>) -> Vec<u64> {
    let mut codes = vec![0; Code::ALL.len()];
    letters.into_iter().for_each(|(code, letters)| count(&mut codes, code, letters));
    codes
}

/// [`record`](super::record), mostly without its files.
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
            let (records, letters) = kept.push(lane::chunk(data.to_vec(), Framing::Lines { base }));
            assert_eq!(records, lines.len() as u64, "each line is a record");
            assert_eq!(counts(letters), counts(apart), "what a record becomes does not depend on its neighbours");
        }
    });
}

/// [`records`](super::records), mostly without its files.
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
            assert_eq!(counts(together), counts(apart), "what a record becomes does not depend on its neighbours");
        }
    });
}

/// [`definition`](super::definition), mostly without another one and without putting it to work.
pub fn definition(data: &[u8]) {
    if is_one_of(data, ONE_DEFINITION_OF) {
        return super::definition(data);
    }
    if let Some(datasets) = std::str::from_utf8(data).ok().and_then(compiled) {
        assert_eq!(datasets.version(0).len(), 64);
    }
}
