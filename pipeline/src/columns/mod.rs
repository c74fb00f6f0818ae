//! Records become columns: validated, enriched, anonymized, and kept by partition until they are encoded.
//!
//! Owns: the rows of one dataset in one lane, from slots to blocks. Does not own: scanning (`decode`), files (`encode`).
//!
//! The four stages that the graph names after `decode` are the files of these names, and run in this order:
//! [`validate`], [`enrich`], [`anonymize`], [`batch`]. [`table`] calls them for each [`micro_batch`].

pub(crate) mod table;

pub(crate) mod micro_batch;

mod constraints;
mod times;
mod validate;

mod enrich;

mod anonymize;

pub(crate) mod batch;
pub(crate) mod partition;

mod block;

pub(crate) mod intern;
pub(crate) mod leaf;
mod segments;
pub(crate) mod store;
