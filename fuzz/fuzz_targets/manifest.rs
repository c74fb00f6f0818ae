//! Arbitrary bytes as an intent or commit record. See `checks::outside::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::outside::manifest(data));
