//! Arbitrary bytes as the body of a GetRecords answer. See `checks::worker::response`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::worker::response(data));
