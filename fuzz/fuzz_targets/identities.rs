//! Arbitrary bytes as identities of raw lines. See `checks::data_path::identities`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::data_path::identities(data));
