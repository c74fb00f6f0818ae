//! The fuzz targets' stored inputs, and some thousands of mutations of them, through the fuzz targets' own checks: those
//! of the data path. (`tests/integration/fuzz_corpus.rs` of the worker has the others.)
//!
//! The same seed gives the same mutations on every machine: what fails here fails everywhere, and its input is printed.
//! The fuzzer itself goes further; `fuzz/README.md` says how to run it.

// What must hold for any input.
#[path = "../../fuzz/src/data/mod.rs"]
pub mod data;

// Inputs, and changes to them.
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
fn any_text_as_a_definition_is_refused_or_works() {
    run("definition", data::definition, 2_500);
}

#[test]
fn what_the_fuzzer_runs_millions_of_times_says_the_same() {
    run("record", data::fast::record, 2_000);
    run("records", data::fast::records, 2_000);
    run("definition", data::fast::definition, 500);
}
