//! Arbitrary text as `shardlake.toml`. See `checks::worker::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::worker::config(data));
