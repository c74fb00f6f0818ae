//! Arbitrary rows of the lease table in SQLite. See `checks::outside::row`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::outside::row(data));
