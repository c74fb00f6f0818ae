//! What must hold for any input: the checks behind the fuzz targets, and behind the ordinary tests that run their stored
//! inputs.
//!
//! Owns: nothing itself. [`data`] judges the data path, by itself and fast to build; [`outside`] judges what the worker
//! reads of others, which needs the whole of it and is there with the feature `worker`.

pub mod data;
#[cfg(feature = "worker")]
pub mod outside;
