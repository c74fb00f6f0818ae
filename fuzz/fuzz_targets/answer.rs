//! Arbitrary bytes as the body of a GetRecords answer. See `checks::outside::answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::outside::answer(data));
