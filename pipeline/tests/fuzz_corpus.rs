//! The stored inputs of the fuzz targets, and some thousands of mutations of them, through the checks of the fuzz targets.
//!
//! Owns: the targets of the data path. (`tests/integration/fuzz_corpus.rs` has those that need the worker.) The same seed gives the
//! same mutations on every machine, so a failure is the same everywhere, and its input is printed. The fuzzer itself tries far
//! more inputs; `fuzz/README.md` says how to run it.

// The checks of the fuzz targets.
#[path = "../../fuzz/src/data_path/mod.rs"]
pub mod checks;

// The stored inputs, and their mutations.
#[path = "../../fuzz/src/corpus.rs"]
pub mod corpus;

use std::path::Path;

fn run(target: &str, check: fn(&[u8]), mutations: usize) {
    corpus::run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus"), target, check, mutations);
}

#[test]
fn any_line_is_a_row_or_a_dead_letter() {
    run("record", checks::record, 2_000);
}

#[test]
fn any_record_is_a_row_or_a_dead_letter() {
    run("records", checks::records, 1_200);
}

#[test]
fn any_definition_is_refused_or_works() {
    run("definition", checks::definition, 2_500);
}

#[test]
fn any_identities_are_refused_or_survive_the_codec() {
    run("identities", checks::identities, 20_000);
}

#[test]
fn the_fuzzers_fast_checks_pass_as_well() {
    run("record", checks::fast::record, 2_000);
    run("records", checks::fast::records, 2_000);
    run("definition", checks::fast::definition, 500);
}
