//! Arbitrary bytes as a record of a stream, sealed as an aggregate or not. See `checks::worker::aggregate`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::worker::aggregate(data));
