//! Stored inputs of the fuzz targets, and mutations of them, for ordinary tests.
//!
//! Owns: reading the inputs, and mutations that are the same on every machine. So a failure is the same everywhere, and its input
//! is printed. Does not own: the checks (`data_path`, `worker`), or the search for new inputs (the fuzzer).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Pieces of text that have a meaning for parsers.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"-",
    b"1e999",
    b"0.0",
    b"9223372036854775808",
    b"\\ud83d",
    b"\\u0000",
    b"\xff",
    b"\xc3\xa9",
    b"\0",
    b"\t",
    b"\n",
    b"\r\n",
    b"{}",
    b"\x1e",
];

/// The same random numbers on every machine (SplitMix64).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % bound.max(1) as u64).expect("below a usize")
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = [2, 8, 64, length][self.below(4)];
        start..(start + self.below(most + 1)).min(length)
    }
}

/// An input with one to four changes.
fn mutated(draws: &mut Draws, inputs: &[Vec<u8>], number: usize) -> Vec<u8> {
    let mut input = inputs[number].clone();
    for _ in 0..=draws.below(4) {
        let at = draws.below(input.len() + 1);
        match draws.below(7) {
            0 if at < input.len() => input[at] ^= 1 << draws.below(8),
            1 if at < input.len() => input[at] = draws.below(256).to_le_bytes()[0],
            2 => drop(input.drain(draws.range(input.len()))),
            3 => {
                let piece = input[draws.range(input.len())].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let other = &inputs[draws.below(inputs.len())];
                let piece = other[draws.range(other.len())].to_vec();
                let cut = draws.range(input.len());
                input.splice(cut, piece);
            }
            5 => input.truncate(at),
            _ => drop(input.splice(at..at, PIECES[draws.below(PIECES.len())].iter().copied())),
        }
    }
    input.truncate(4096);
    input
}

fn stored(corpus: &Path, target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus.join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let file = file.expect("the folder can be read");
            let bytes = std::fs::read(file.path()).expect("the input can be read");
            assert!(bytes.len() < 4096, "a stored input must be small: {}", file.path().display());
            (file.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs the stored inputs of a target, and this many mutations of them. `corpus` is the folder `fuzz/corpus`.
///
/// # Panics
/// If the check panics, or the target has no inputs.
pub fn run(corpus: &Path, target: &str, check: fn(&[u8]), mutations: usize) {
    let stored = stored(corpus, target);
    assert!(stored.len() >= 15, "{target} has too few stored inputs");
    for (name, input) in &stored {
        assert!(catch_unwind(AssertUnwindSafe(|| check(input))).is_ok(), "the stored input {name} of {target} fails");
    }
    let inputs: Vec<Vec<u8>> = stored.into_iter().map(|(_, input)| input).collect();
    let mut draws = Draws(2_025);
    for number in 0..mutations {
        let input = mutated(&mut draws, &inputs, number % inputs.len());
        if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
            panic!("mutation {number} of {target} fails: {}", input.escape_ascii());
        }
    }
}
