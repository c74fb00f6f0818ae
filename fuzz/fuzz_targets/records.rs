//! Arbitrary records with numbers of their own. See `checks::data::records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::data::fast::records(data));
