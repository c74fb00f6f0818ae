//! The wall clock and randomness: the only place where either comes from the machine.
//!
//! Owns: the trait by which the time of day is handed to the worker, and random bytes. Does not own: waiting, which uses tokio's
//! clock. The wall clock names epochs and stamps arrival times; no guarantee depends on it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock that is handed in")]
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// Random bytes from the operating system, for unique names and for keys.
///
/// # Errors
/// The operating system returns none.
pub fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
    Ok(bytes)
}
