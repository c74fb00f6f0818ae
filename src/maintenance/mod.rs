//! Operations on a lake and its lease table beside the workers.
//!
//! Each removes what no reader needs, or frees what a worker holds. None of them changes what a reader of the lake sees.

pub mod leases;
mod sweep;

pub use sweep::{Swept, sweep};
