//! Arbitrary text as positions, ranges, names and keys. See `checks::outside::position`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::outside::position(data));
