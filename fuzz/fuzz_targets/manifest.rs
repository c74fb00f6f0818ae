//! Arbitrary bytes as an intent or commit record. See `checks::worker::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::worker::manifest(data));
