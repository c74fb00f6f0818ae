//! Bad and unusual input: what a stream contains if producers have bugs, and what must become of it.
//!
//! Every test goes through the lane: bytes in; rows, dead letters and raw lines out, read back. A bad record becomes one dead
//! letter with the reason and the field. Its neighbours become rows, and nothing of it is in any column.

// One record for each way in which input can be bad, with the exact result.
#[path = "bad_input/codes.rs"]
mod codes;

// Where records begin and end, and what a source knows of them.
#[path = "bad_input/framing.rs"]
mod framing;

// Several documents in one record, and packed records.
#[path = "bad_input/documents.rs"]
mod documents;

// Values at the limits of what is accepted.
#[path = "bad_input/values.rs"]
mod values;

// Values that do not fit, and what a definition can accept.
#[path = "bad_input/lenient.rs"]
mod lenient;

// What remains of a record that fails or is discarded.
#[path = "bad_input/traces.rs"]
mod traces;

// What must never occur outside of `raw/` and `rawData`.
#[path = "bad_input/privacy.rs"]
mod privacy;

// Thousands of sample records.
#[path = "bad_input/produced.rs"]
mod produced;
