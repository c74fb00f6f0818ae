//! What happened in a run, in order. The digest shows whether two runs were the same, and the last lines explain a failure.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::time::Instant;

/// The number of last lines that are kept.
const KEPT: usize = 20_000;

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    digest: DefaultHasher,
    events: u64,
    kept: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Self {
        Trace { begun: Instant::now(), digest: DefaultHasher::new(), events: 0, kept: VecDeque::new() }
    }

    /// Adds an event.
    pub fn add(&mut self, worker: u32, operation: &str, about: &str, fate: &str) {
        let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        (at_ms, worker, operation, about, fate).hash(&mut self.digest);
        self.events += 1;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        let separator = if fate.is_empty() { "" } else { " — " };
        self.kept.push_back(format!("{at_ms:>8} ms  w{worker:<3} {operation} {about}{separator}{fate}"));
    }

    /// The number of events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Equal for two runs with the same events at the same times.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// The last lines.
    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(String::as_str)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}
