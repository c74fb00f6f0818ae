//! Arbitrary items of the lease table in DynamoDB. See `checks::outside::item`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::outside::item(data));
