//! Bad input, and what is only unusual: what a stream carries when producers are broken, and what must become of it.
//!
//! Every test goes through the lane: bytes in; rows, dead letters and raw lines out, read back. A bad record becomes one
//! dead letter that says why and where, its neighbours become rows, and nothing of it is in any column.

mod common;

// One record for each way in which input can be bad, with its exact answer.
#[path = "bad_input/codes.rs"]
mod codes;

// Where records begin and end, and what comes with them.
#[path = "bad_input/framing.rs"]
mod framing;

// Values at the edge of what is taken.
#[path = "bad_input/values.rs"]
mod values;

// What is left of a record that fails, or is forgotten.
#[path = "bad_input/traces.rs"]
mod traces;

// What must never be seen outside of `raw/` and `rawData`.
#[path = "bad_input/privacy.rs"]
mod privacy;

// Thousands of sample records.
#[path = "bad_input/produced.rs"]
mod produced;
