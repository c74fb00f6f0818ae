//! The last hour of this process, and rates.
//!
//! Owns: charts of fixed size, and how a rate follows from two counts. Does not own: the counts.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The time between two values.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// Values that are kept: an hour.
const VALUES: usize = 360;
/// The time over which a rate is measured, about.
const RATE_OVER: Duration = Duration::from_secs(10);

/// The values of a chart.
#[derive(Debug, Default)]
pub(super) struct Ring(VecDeque<Option<f64>>);

impl Ring {
    pub(super) fn push(&mut self, value: Option<f64>) {
        if self.0.len() == VALUES {
            self.0.pop_front();
        }
        self.0.push_back(value.map(rounded));
    }

    pub(super) fn values(&self) -> Vec<Option<f64>> {
        self.0.iter().copied().collect()
    }
}

/// A figure for people: three decimals at most.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Two counts that grow: records and bytes.
pub(super) type Pair = (u64, u64);

/// Rates of counts that grow.
#[derive(Debug)]
pub(super) struct Rates<K> {
    samples: VecDeque<(Instant, HashMap<K, Pair>)>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Rates { samples: VecDeque::new() }
    }
}

impl<K: Hash + Eq> Rates<K> {
    /// Adds the counts as they are now.
    pub(super) fn add(&mut self, counts: HashMap<K, Pair>) {
        let now = Instant::now();
        // The sample before the window is kept: rates are measured from it.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, counts));
    }

    /// Records and bytes a second; `None` if it cannot be measured yet, or the counts began again.
    pub(super) fn of(&self, key: &K) -> Option<(f64, f64)> {
        let ((first, _), (last, after)) = (self.samples.front()?, self.samples.back()?);
        let (records, bytes) = after.get(key)?;
        // What was not counted at first is measured from its first sample.
        let (at, before) = self.samples.iter().find_map(|(at, counts)| Some((at, counts.get(key)?)))?;
        debug_assert!(at >= first);
        let seconds = last.duration_since(*at).as_secs_f64();
        let rate = |after: u64, before: u64| after.checked_sub(before).map(|grown| rounded(as_f64(grown) / seconds));
        if seconds < 0.5 { None } else { Some((rate(*records, before.0)?, rate(*bytes, before.1)?)) }
    }
}

/// A count for people.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_measured_over_the_last_seconds() {
        let mut rates = Rates::default();
        let mut add = async |records: u64| {
            rates.add(HashMap::from([("a", (records, 10 * records))]));
            let rate = rates.of(&"a");
            tokio::time::advance(Duration::from_secs(2)).await;
            rate
        };
        assert_eq!(add(100).await, None, "one sample gives no rate");
        assert_eq!(add(300).await, Some((100.0, 1000.0)));
        for records in [500, 700, 900, 1100] {
            assert_eq!(add(records).await, Some((100.0, 1000.0)));
        }
        for _ in 0..6 {
            add(1100).await;
        }
        assert_eq!(add(1100).await, Some((0.0, 0.0)), "what is long ago does not count");
        assert_eq!(add(5).await, None, "the counts began again");
        assert_eq!(rates.of(&"b"), None);
        assert!(rates.samples.len() <= 7);
    }

    #[test]
    fn a_ring_keeps_an_hour() {
        let mut ring = Ring::default();
        (0..400_u32).for_each(|value| ring.push((value > 390).then(|| f64::from(value) + 0.00012)));
        let values = ring.values();
        assert_eq!((values.len(), values[0], values[359]), (360, None, Some(399.0)));
    }
}
