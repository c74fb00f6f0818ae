//! Records become columns: checked, enriched, anonymized, and kept by partition until they are encoded.
//!
//! Owns: the rows of one dataset in one lane, from slots to blocks. Does not own: scanning (`decode`), files (`encode`).

pub(crate) mod intern;
pub(crate) mod leaf;
pub(crate) mod partition;
mod segments;
pub(crate) mod store;
pub(crate) mod table;
