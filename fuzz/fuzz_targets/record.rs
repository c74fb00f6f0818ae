//! Arbitrary bytes as lines of JSON. See `checks::data::record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::data::fast::record(data));
