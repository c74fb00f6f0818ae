//! How much is read of each shard: counted by the coordinator, measured and written into the leases by the manager.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{ShardKey, ThroughputKbps};

/// Bytes read of each shard since its last measurement.
#[derive(Debug, Default)]
pub(crate) struct Throughput(Mutex<HashMap<ShardKey, u64>>);

impl Throughput {
    /// Counts bytes that were read of a shard.
    pub(crate) fn add(&self, key: &ShardKey, bytes: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(key) {
            Some(count) => *count += bytes,
            None => drop(counts.insert(key.clone(), bytes)),
        }
    }

    /// Starts the count of a shard again.
    pub(super) fn reset(&self, key: &ShardKey) {
        self.take(key);
    }

    /// The throughput of a shard over the time since its last measurement, averaged with what was measured before. KCL uses the
    /// same moving average, with a weight of one half.
    pub(super) fn measure(&self, key: &ShardKey, since: Duration, before: ThroughputKbps) -> ThroughputKbps {
        ThroughputKbps::new(f64::midpoint(before.get(), kbps(self.take(key), since)))
    }

    fn take(&self, key: &ShardKey) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or(0)
    }
}

/// Kilobytes per second.
#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn kbps(bytes: u64, since: Duration) -> f64 {
    bytes as f64 / 1e3 / since.as_secs_f64().max(0.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{ShardId, StreamName};

    #[test]
    fn a_measurement_is_half_of_what_was_measured_before_and_half_of_what_is_new() {
        let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap());
        let throughput = Throughput::default();
        throughput.add(&key, 1_500_000);
        throughput.add(&key, 500_000);
        let first = throughput.measure(&key, Duration::from_secs(10), ThroughputKbps::new(100.0));
        assert!((first.get() - 150.0).abs() < 1e-9);
        let idle = throughput.measure(&key, Duration::from_secs(10), first);
        assert!((idle.get() - 75.0).abs() < 1e-9, "the count starts again after each measurement");
    }
}
