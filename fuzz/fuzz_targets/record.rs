//! Arbitrary bytes as lines of JSON. See `checks::data_path::record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::data_path::fast::record(data));
