//! The stored inputs of the fuzz targets, and some thousands of mutations of them, run through the checks of the fuzz targets.
//! This test has the targets of the data path; `tests/integration/fuzz_corpus.rs` of the worker has the others.
//!
//! The same seed gives the same mutations on every machine. What fails here fails everywhere, and its input is printed. The
//! fuzzer itself runs far more; `fuzz/README.md` says how to start it.

// The checks that must hold for any input.
#[path = "../../fuzz/src/data/mod.rs"]
pub mod data;

// Inputs, and mutations of them.
#[path = "../../fuzz/src/corpus.rs"]
pub mod corpus;

use std::path::Path;

fn run(target: &str, check: fn(&[u8]), mutations: usize) {
    corpus::run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus"), target, check, mutations);
}

#[test]
fn lines_of_any_bytes_are_rows_or_dead_letters() {
    run("record", data::record, 2_000);
}

#[test]
fn numbered_records_of_any_bytes_are_rows_or_dead_letters() {
    run("records", data::records, 1_200);
}

#[test]
fn any_text_as_a_definition_is_refused_or_compiles() {
    run("definition", data::definition, 2_500);
}

#[test]
fn the_fast_check_of_the_fuzzer_agrees_with_the_full_one() {
    run("record", data::fast::record, 2_000);
    run("records", data::fast::records, 2_000);
    run("definition", data::fast::definition, 500);
}
