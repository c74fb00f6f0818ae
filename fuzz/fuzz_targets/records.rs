//! Arbitrary records with numbers of their own. See `checks::data_path::records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::data_path::fast::records(data));
