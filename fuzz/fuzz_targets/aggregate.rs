//! Arbitrary bytes as a record of a stream, sealed as an aggregate or not. See `checks::outside::aggregate`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::outside::aggregate(data));
