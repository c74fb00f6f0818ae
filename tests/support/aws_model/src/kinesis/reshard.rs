//! SplitShard, MergeShards, UpdateShardCount.
//!
//! Owns: closing parents and opening their children. Does not own: how a stream's shards are numbered in time (`shard`).
//! UpdateShardCount splits at every boundary of the target ranges and merges what is between two. Shards that arise on
//! the way close immediately, without a record, as they do on AWS.

use super::api::{Error, Result};
use super::shard::Shard;
use super::stream::{Stream, uniform};
use super::{Kinesis, State};

impl Kinesis {
    /// Splits a shard: the second child begins with `at`.
    ///
    /// # Errors
    /// If there is no such open shard, the stream is not ACTIVE, or `at` leaves a child with fewer than two keys.
    pub fn split_shard(&self, stream: &str, shard: &str, at: u128) -> Result<()> {
        self.change(|state, now_ms| {
            let number = state.open_shard(stream, shard, now_ms)?;
            let (status_ms, account) = (state.settings.status_ms, state.account.clone());
            let found = state.active(stream, now_ms)?;
            let (first, last) = found.shards[&number].hash_keys;
            if at <= first.saturating_add(1) || at >= last {
                return Err(Error::argument(format!(
                    "NewStartingHashKey {at} used in SplitShard() on shard {shard} in stream {stream} under account {account} \
                     is not both greater than one plus the shard's StartingHashKey {first} and less than the shard's \
                     EndingHashKey {last}."
                )));
            }
            found.split(number, at, now_ms);
            found.updating_until_ms = now_ms + i64::from(status_ms);
            Ok(())
        })
    }

    /// Merges two open shards, the lower one named first.
    ///
    /// # Errors
    /// If one of them is missing or closed, they are not adjacent, or the stream is not ACTIVE.
    pub fn merge_shards(&self, stream: &str, shard: &str, adjacent: &str) -> Result<()> {
        self.change(|state, now_ms| {
            let numbers = [state.open_shard(stream, shard, now_ms)?, state.open_shard(stream, adjacent, now_ms)?];
            let (status_ms, account) = (state.settings.status_ms, state.account.clone());
            let found = state.active(stream, now_ms)?;
            let [low, high] = numbers.map(|number| found.shards[&number].hash_keys);
            if low.1.checked_add(1) != Some(high.0) {
                return Err(Error::argument(format!(
                    "Shards {shard} and {adjacent} in stream {stream} under account {account} are not an adjacent pair of \
                     shards eligible for merging"
                )));
            }
            found.merge(numbers[0], numbers[1], now_ms);
            found.updating_until_ms = now_ms + i64::from(status_ms);
            Ok(())
        })
    }

    /// Changes the number of open shards to `target`, all of equal ranges. Returns the number before.
    ///
    /// # Errors
    /// If `target` is less than half or more than double the current number, or the stream is not ACTIVE or is on demand.
    pub fn update_shard_count(&self, stream: &str, target: u32) -> Result<usize> {
        self.change(|state, now_ms| {
            let status_ms = state.settings.status_ms;
            let found = state.active(stream, now_ms)?;
            let current = found.open_shards().count();
            if found.on_demand {
                return Err(Error::new(
                    super::ErrorKind::Validation,
                    "Request is invalid. Stream is in ON_DEMAND mode: its shards are not set by hand.",
                ));
            }
            let wanted = target as usize;
            if target == 0 || wanted > current * 2 || wanted < current.div_ceil(2) {
                return Err(Error::argument(format!(
                    "UpdateShardCount cannot scale to {target}: from {current} shards it must be between {} and {}.",
                    current.div_ceil(2),
                    current * 2
                )));
            }
            found.resize(target, now_ms);
            found.updating_until_ms = now_ms + i64::from(status_ms);
            Ok(current)
        })
    }
}

impl State {
    fn open_shard(&mut self, stream: &str, shard: &str, now_ms: i64) -> Result<u32> {
        let missing = format!("Could not find shard {shard} in stream {stream} under account {}.", self.account);
        let account = self.account.clone();
        self.stream(stream, now_ms)?;
        let found = self.shard(stream, shard, now_ms).map_err(|_| Error::not_found(missing))?;
        if found.is_open() {
            return Ok(found.number);
        }
        Err(Error::argument(format!("Shard {shard} in stream {stream} under account {account} is not open.")))
    }
}

impl Stream {
    fn split(&mut self, number: u32, at: u128, now_ms: i64) -> [u32; 2] {
        let (first, last) = self.shards[&number].hash_keys;
        [self.child(&[number], (first, at - 1), now_ms), self.child(&[number], (at, last), now_ms)]
    }

    fn merge(&mut self, low: u32, high: u32, now_ms: i64) -> u32 {
        let keys = (self.shards[&low].hash_keys.0, self.shards[&high].hash_keys.1);
        self.child(&[low, high], keys, now_ms)
    }

    /// Opens a child and closes its parents at the same moment.
    fn child(&mut self, parents: &[u32], hash_keys: (u128, u128), now_ms: i64) -> u32 {
        let number = self.next_shard;
        self.next_shard += 1;
        let shard = Shard::open(
            number,
            &parents.iter().map(|parent| &self.shards[parent]).collect::<Vec<_>>(),
            hash_keys,
            now_ms,
        );
        for parent in parents {
            let parent = self.shards.get_mut(parent).expect("a parent was found before");
            parent.closed_ms.get_or_insert(shard.created_ms);
            parent.children.push(shard.as_child());
        }
        self.shards.insert(number, shard);
        number
    }

    fn resize(&mut self, target: u32, now_ms: i64) {
        for (start, end) in uniform(target) {
            for at in [start, end.wrapping_add(1)] {
                let across = self.open_shards().find(|shard| shard.hash_keys.0 < at && at <= shard.hash_keys.1);
                if let Some(number) = across.map(|shard| shard.number) {
                    self.split(number, at, now_ms);
                }
            }
            let mut pieces: Vec<_> = self
                .open_shards()
                .filter(|shard| start <= shard.hash_keys.0 && shard.hash_keys.1 <= end)
                .map(|shard| (shard.hash_keys.0, shard.number))
                .collect();
            pieces.sort_unstable();
            let mut pieces = pieces.into_iter().map(|(_, number)| number);
            let first = pieces.next().expect("open shards cover all hash keys");
            pieces.fold(first, |low, high| self.merge(low, high, now_ms));
        }
    }
}
