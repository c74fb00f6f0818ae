//! Arbitrary items of the lease table in DynamoDB. See `checks::worker::item`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::worker::item(data));
