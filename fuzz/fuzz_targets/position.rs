//! Arbitrary text as positions, ranges, names and keys. See `checks::worker::position`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::worker::position(data));
