//! The checks behind the fuzz targets, and behind the ordinary tests that run the stored inputs: what must hold for any input.
//!
//! Owns: nothing itself. [`data_path`] checks the pipeline, needs nothing else and builds fast. [`worker`] checks what the worker
//! reads from other programs and people; it needs the whole worker, and the feature `worker`.

pub mod data_path;
#[cfg(feature = "worker")]
pub mod worker;
