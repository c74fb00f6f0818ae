//! The fuzz targets' stored inputs, and some thousands of mutations of them, through the fuzz targets' own checks: those
//! of what the worker reads of others. (`pipeline/tests/fuzz_corpus.rs` has those of the data path.)
//!
//! The same seed gives the same mutations on every machine: what fails here fails everywhere, and its input is printed.
//! The fuzzer itself goes further; `fuzz/README.md` says how to run it.

// What must hold for any input.
#[path = "../../fuzz/src/outside/mod.rs"]
pub mod outside;

// Inputs, and changes to them.
#[path = "../../fuzz/src/corpus.rs"]
pub mod corpus;

use std::path::Path;

fn run(target: &str, check: fn(&[u8]), mutations: usize) {
    corpus::run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus"), target, check, mutations);
}

#[test]
fn any_record_is_opened_as_an_aggregate_or_kept_whole() {
    run("aggregate", outside::aggregate, 10_000);
}

#[test]
fn any_answer_is_read_as_serde_reads_it_or_left_to_the_sdk() {
    run("answer", outside::answer, 20_000);
}

#[test]
fn any_text_as_a_configuration_is_refused_or_works() {
    run("config", outside::config, 10_000);
}

#[test]
fn any_bytes_as_a_manifest_are_refused_or_can_be_acted_on() {
    run("manifest", outside::manifest, 10_000);
}

#[test]
fn any_item_of_the_lease_table_is_a_lease_that_can_be_written_or_an_error_that_names_it() {
    run("item", outside::item, 4_000);
}

#[test]
fn any_row_of_the_embedded_table_is_a_lease_or_an_error_that_names_it() {
    run("row", outside::row, 5_000);
}

#[test]
fn any_text_is_no_position_or_one_that_has_no_other_text() {
    run("position", outside::position, 20_000);
}
