//! Arbitrary text as a dataset definition. See `checks::definition`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::definition(data));
