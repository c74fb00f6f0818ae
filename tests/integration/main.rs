//! The real binary, as processes, on files and against models of AWS: one test program for all of it.
//!
//! Owns: what only the real process shows: signals, exit codes, what is printed and logged, files and objects that others can
//! read, several processes at work. Does not own: the worker's logic under simulated time and lost requests
//! (`tests/support/simulation`), long runs with many kills (`tests/e2e`), or unit tests, which are beside the code.
//!
//! Time is real here, so a test waits for what must happen, with a generous limit, and asserts no duration.

#![expect(clippy::disallowed_methods, reason = "these tests wait for processes, whose time is the real one")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test, a failure fails the test")]

mod common;

mod aws;
pub mod fuzz_corpus;
mod runbooks;
mod security;
mod seed_document;
mod single_machine;
