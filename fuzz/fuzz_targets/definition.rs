//! Arbitrary text as a dataset definition. See `checks::data_path::definition`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::data_path::fast::definition(data));
