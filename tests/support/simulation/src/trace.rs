//! What happened in a run, in order: its digest tells two runs apart, its last lines tell how a failure came about.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::time::Instant;

/// Lines that are kept.
const KEPT: usize = 20_000;

/// A trace.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    digest: DefaultHasher,
    events: u64,
    kept: VecDeque<String>,
}

impl Trace {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Trace { begun: Instant::now(), digest: DefaultHasher::new(), events: 0, kept: VecDeque::new() }
    }

    /// Something happened.
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

    /// How much happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The same for two runs in which the same happened at the same times.
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
