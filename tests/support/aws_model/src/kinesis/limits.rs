//! Limits per second: of calls or records, and of bytes, in any 1,000 ms.
//!
//! Does not own: what is refused when one is reached (`shard`).

use std::collections::VecDeque;

const SECOND_MS: i64 = 1000;

/// What passed in the last second. Exact, not a token bucket: no 1,000 ms ever exceed the limits.
#[derive(Debug, Clone)]
pub(super) struct Window {
    count_max: u64,
    bytes_max: u64,
    went: VecDeque<(i64, u64)>,
    bytes: u64,
    blocked_until_ms: i64,
}

impl Window {
    pub(super) fn new(count_max: u64, bytes_max: u64) -> Self {
        Window { count_max, bytes_max, went: VecDeque::new(), bytes: 0, blocked_until_ms: i64::MIN }
    }

    /// Whether one more, of `bytes`, may pass at `now_ms`. One that exceeds the limit by itself may pass alone.
    pub(super) fn admits(&mut self, now_ms: i64, bytes: u64) -> bool {
        while let Some((at_ms, old)) = self.went.front().copied().filter(|(at_ms, _)| at_ms + SECOND_MS <= now_ms) {
            debug_assert!(at_ms <= now_ms);
            self.bytes -= old;
            self.went.pop_front();
        }
        now_ms >= self.blocked_until_ms
            && (self.went.len() as u64) < self.count_max
            && (self.bytes == 0 || self.bytes + bytes <= self.bytes_max)
    }

    /// Whether one more of unknown size may pass: if the bytes are not used up.
    pub(super) fn admits_any(&mut self, now_ms: i64) -> bool {
        self.admits(now_ms, 0) && self.bytes < self.bytes_max
    }

    /// Records that `bytes` passed. A multiple of the limit blocks for that number of seconds.
    pub(super) fn note(&mut self, now_ms: i64, bytes: u64) {
        self.went.push_back((now_ms, bytes));
        self.bytes += bytes;
        if bytes > self.bytes_max {
            let millis = bytes.saturating_mul(1000).div_ceil(self.bytes_max);
            self.blocked_until_ms = now_ms + i64::try_from(millis).unwrap_or(i64::MAX / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_the_limit_and_no_more() {
        let mut window = Window::new(2, 100);
        assert!(window.admits(0, 60));
        window.note(0, 60);
        assert!(!window.admits(999, 41));
        assert!(window.admits(999, 40));
        window.note(999, 40);
        assert!(!window.admits(999, 0), "two went already");
        assert!(!window.admits_any(999));
        assert!(window.admits(1000, 60));
        assert!(!window.admits(1000, 61));
    }

    #[test]
    fn what_is_larger_than_the_limit_goes_alone_and_blocks() {
        let mut window = Window::new(5, 2);
        assert!(window.admits(0, 10));
        window.note(0, 10);
        assert!(!window.admits_any(4999));
        assert!(window.admits_any(5000));
    }
}
