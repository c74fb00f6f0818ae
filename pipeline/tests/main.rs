//! The tests of the data path that go through its public interface, as one program.

mod common;

mod bad_input;
mod datasets;
pub mod fuzz_corpus;
mod limits;
mod properties;
mod rows;
