//! The stored inputs of the fuzz targets, and some thousands of mutations of them, through the checks of the fuzz targets.
//!
//! Owns: the targets that need the whole worker. (`pipeline/tests/fuzz_corpus.rs` has those of the pipeline.) The same seed gives
//! the same mutations on every machine, so a failure is the same everywhere, and its input is printed. The fuzzer itself tries far
//! more inputs; `fuzz/README.md` says how to run it.

// The checks of the fuzz targets.
#[path = "../../fuzz/src/worker/mod.rs"]
pub mod checks;

// The stored inputs, and their mutations.
#[path = "../../fuzz/src/corpus.rs"]
pub mod corpus;

use std::path::Path;

fn run(target: &str, check: fn(&[u8]), mutations: usize) {
    corpus::run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus"), target, check, mutations);
}

#[test]
fn any_record_is_opened_as_an_aggregate_or_kept_whole() {
    run("aggregate", checks::aggregate, 10_000);
}

#[test]
fn any_response_is_read_as_serde_reads_it_or_left_to_the_sdk() {
    run("answer", checks::response, 20_000);
}

#[test]
fn any_configuration_is_refused_or_works() {
    run("config", checks::config, 10_000);
}

#[test]
fn any_manifest_is_refused_or_consistent() {
    run("manifest", checks::manifest, 10_000);
}

#[test]
fn any_dynamodb_item_is_a_lease_that_can_be_written_or_an_error_that_names_it() {
    run("item", checks::item, 4_000);
}

#[test]
fn any_sqlite_row_is_a_lease_or_an_error_that_names_it() {
    run("row", checks::row, 5_000);
}

#[test]
fn any_text_is_refused_as_a_position_or_is_its_only_text() {
    run("position", checks::position, 20_000);
}
