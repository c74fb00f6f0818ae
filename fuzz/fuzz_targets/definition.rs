//! Arbitrary text as a dataset definition. See `checks::data::definition`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::data::fast::definition(data));
