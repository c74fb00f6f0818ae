//! Arbitrary rows of the lease table in SQLite. See `checks::worker::row`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::worker::row(data));
