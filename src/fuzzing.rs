//! What the fuzz targets need of the worker, and nobody else: the decoders behind its sources and its configuration,
//! without the services and files that stand before them.
//!
//! Compiled with the feature `fuzzing` only, and no part of the crate's interface. It does not own what must hold: that is
//! judged in `fuzz/src/outside`.

pub use crate::config::fuzzing::{reads_back, resolve};
pub use crate::source::fuzzing::{
    Answer, Record, Refused, SubRecord, by_records, by_scan, is_aggregate, open_aggregate,
};
