//! Arbitrary text as `shardlake.toml`. See `checks::outside::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::outside::config(data));
