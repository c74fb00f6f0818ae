//! What the tests of the binary share: a folder to run it in, workers in the background, models of AWS, ways to them, the roles of
//! deploy/, aggregates.

pub(crate) mod aggregate;
pub(crate) mod collector;
pub(crate) mod folder;
pub(crate) mod http;
pub(crate) mod network;
pub(crate) mod roles;
pub(crate) mod services;
pub(crate) mod worker;

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of day, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Waits until `holds`, and returns how long that took. Panics after `seconds`.
pub(crate) fn wait_for(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(seconds), "waited {seconds} s for {what}");
        pause(20);
    }
    started.elapsed()
}

/// Lets real time pass.
pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The text, compressed with gzip.
pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}
