//! The figures of the shards that a worker holds, and of its open epochs, as they are now.
//!
//! Owns: what [`Progress`](crate::worker::Progress) shows of each shard and each open epoch. Does not own: sums over the run
//! (`progress`), showing them (`telemetry`, the status page).
//!
//! Writers and readers hold a lock only to copy some words, and a chunk takes it once or twice. So neither waits for the other, and the
//! worker's loop waits for nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checkpoints::ShardKey;
use pipeline::chunk::Chunk;

use crate::commit::EpochId;
use crate::source::Behind;

/// A shard whose lease this worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveShard {
    /// The shard.
    pub key: ShardKey,
    /// Records that went through the lanes since this worker gained the shard. What is read again counts again.
    pub records: u64,
    /// Bytes of records that were read since then.
    pub bytes: u64,
    /// When the first and the last record arrived that was read since then: milliseconds since 1970, by the stream's clock.
    pub arrivals: Option<(i64, i64)>,
    /// How far the last response was from the tip, as the source said: the age of what follows (`MillisBehindLatest`) or bytes.
    pub behind: Option<Behind>,
    /// Whether the last read found nothing new.
    pub at_tip: bool,
    /// When the source last responded: milliseconds since 1970, by the machine's clock.
    pub read_at_ms: Option<i64>,
    /// Records that went through the lanes and are not committed.
    pub uncommitted_records: u64,
    /// When the oldest record arrived that was read and is not committed: milliseconds since 1970, by the stream's clock. `None` if
    /// there is none, or if its source does not know when a record arrived.
    pub oldest_uncommitted_ms: Option<i64>,
    /// Since when something has been read that is not committed: milliseconds since 1970, by the machine's clock.
    pub uncommitted_since_ms: Option<i64>,
    /// When this worker last committed an epoch with records of the shard: milliseconds since 1970, by the machine's clock.
    pub committed_at_ms: Option<i64>,
    /// The open epoch that has records of it.
    pub epoch: Option<EpochId>,
}

/// An epoch that is open, or being committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveEpoch {
    /// Its id.
    pub id: EpochId,
    /// When it was opened: milliseconds since 1970, by the machine's clock.
    pub opened_at_ms: i64,
    /// Bytes of records that it has read.
    pub bytes: u64,
}

impl LiveShard {
    fn new(key: ShardKey) -> Self {
        LiveShard {
            key,
            records: 0,
            bytes: 0,
            arrivals: None,
            behind: None,
            at_tip: false,
            read_at_ms: None,
            uncommitted_records: 0,
            oldest_uncommitted_ms: None,
            uncommitted_since_ms: None,
            committed_at_ms: None,
            epoch: None,
        }
    }

    /// Nothing of it waits for a commit any more.
    fn settle(&mut self) {
        self.uncommitted_records = 0;
        (self.oldest_uncommitted_ms, self.uncommitted_since_ms, self.epoch) = (None, None, None);
    }
}

/// The figures of one shard, shared with its reader.
#[derive(Debug, Clone)]
pub(super) struct ShardFigures(Arc<Mutex<LiveShard>>);

impl ShardFigures {
    pub(super) fn new(key: ShardKey) -> Self {
        ShardFigures(Arc::new(Mutex::new(LiveShard::new(key))))
    }

    fn lock(&self) -> MutexGuard<'_, LiveShard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source has responded.
    pub(super) fn on_response(&self, now_ms: i64, behind: Option<Behind>, at_tip: bool) {
        let mut shard = self.lock();
        shard.read_at_ms = Some(now_ms);
        shard.at_tip = at_tip;
        shard.behind = if at_tip { Some(Behind::Nothing) } else { behind };
    }

    /// The shard is not known to be at its tip any more.
    pub(super) fn on_left_tip(&self) {
        self.lock().at_tip = false;
    }
}

/// All shards that are held, and all open epochs.
#[derive(Debug, Default)]
pub(super) struct Live {
    shards: Mutex<BTreeMap<ShardKey, ShardFigures>>,
    /// By group.
    epochs: Mutex<BTreeMap<usize, LiveEpoch>>,
}

impl Live {
    fn map(&self) -> MutexGuard<'_, BTreeMap<ShardKey, ShardFigures>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn figures(&self, key: &ShardKey) -> Option<ShardFigures> {
        self.map().get(key).cloned()
    }

    fn change(&self, key: &ShardKey, change: impl FnOnce(&mut LiveShard)) {
        if let Some(figures) = self.figures(key) {
            change(&mut figures.lock());
        }
    }

    /// The shards that are held, in the order of their keys.
    pub(super) fn shards(&self) -> Vec<LiveShard> {
        let all: Vec<ShardFigures> = self.map().values().cloned().collect();
        all.iter().map(|figures| figures.lock().clone()).collect()
    }

    /// The open epochs.
    pub(super) fn epochs(&self) -> Vec<LiveEpoch> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The shard is held, and is read from its checkpoint on. If it was held before, what was read and not committed will be read again.
    pub(super) fn hold(&self, key: &ShardKey) {
        let figures = self.map().entry(key.clone()).or_insert_with(|| ShardFigures::new(key.clone())).clone();
        let mut shard = figures.lock();
        shard.settle();
        shard.at_tip = false;
    }

    /// The figures of a shard that is about to be read.
    pub(super) fn of_reader(&self, key: &ShardKey) -> ShardFigures {
        self.map().entry(key.clone()).or_insert_with(|| ShardFigures::new(key.clone())).clone()
    }

    /// The shard is not held any more.
    pub(super) fn forget(&self, key: &ShardKey) {
        self.map().remove(key);
    }

    /// A chunk enters a group's open epoch.
    pub(super) fn on_read(&self, key: &ShardKey, group: usize, epoch: &EpochId, chunk: &Chunk, now_ms: i64) {
        let bytes = chunk.bytes().len() as u64;
        self.change(key, |shard| {
            shard.bytes += bytes;
            shard.uncommitted_since_ms.get_or_insert(now_ms);
            if let (Some(first), Some(last)) = (chunk.first_arrival_ms(), chunk.last_arrival_ms()) {
                let (from, to) = shard.arrivals.unwrap_or((first, last));
                shard.arrivals = Some((from.min(first), to.max(last)));
            }
            let oldest = [shard.oldest_uncommitted_ms, chunk.first_arrival_ms()].into_iter().flatten().min();
            shard.oldest_uncommitted_ms = oldest;
            if shard.epoch.as_ref() != Some(epoch) {
                shard.epoch = Some(epoch.clone());
            }
        });
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let open =
            epochs.entry(group).or_insert_with(|| LiveEpoch { id: epoch.clone(), opened_at_ms: now_ms, bytes: 0 });
        if open.id != *epoch {
            *open = LiveEpoch { id: epoch.clone(), opened_at_ms: now_ms, bytes: 0 };
        }
        open.bytes += bytes;
    }

    /// Records of the shard have gone through a lane.
    pub(super) fn on_processed(&self, key: &ShardKey, records: u64) {
        self.change(key, |shard| {
            shard.records += records;
            shard.uncommitted_records += records;
        });
    }

    /// An epoch with records of the shard is committed.
    pub(super) fn on_committed(&self, key: &ShardKey, now_ms: i64) {
        self.change(key, |shard| {
            shard.settle();
            shard.committed_at_ms = Some(now_ms);
        });
    }

    /// A group's open epoch has ended, in one way or another.
    pub(super) fn on_epoch_ended(&self, group: usize) {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::readers::ReadWhat;
    use crate::worker::testing::{key, read};
    use checkpoints::LeaseOwner;

    fn epoch(number: u64) -> EpochId {
        EpochId::new(1_736_764_200_000, &LeaseOwner::from_random([1; 16]), number)
    }

    async fn chunk(number: u64) -> Chunk {
        let ReadWhat::Chunk(read) = read("a", number).await.what else { panic!() };
        read.chunk
    }

    fn only(live: &Live) -> LiveShard {
        let [shard] = <[LiveShard; 1]>::try_from(live.shards()).unwrap();
        shard
    }

    #[tokio::test]
    async fn what_was_read_waits_until_it_is_committed() {
        let live = Live::default();
        live.hold(&key("a"));
        let (first, second) = (chunk(1).await, chunk(2).await);
        let bytes = (first.bytes().len() + second.bytes().len()) as u64;
        live.on_read(&key("a"), 0, &epoch(1), &first, 500);
        live.on_read(&key("a"), 0, &epoch(1), &second, 600);
        live.on_processed(&key("a"), 2);
        let shard = only(&live);
        assert_eq!((shard.records, shard.bytes, shard.uncommitted_records), (2, bytes, 2));
        assert_eq!(shard.arrivals, Some((1_736_764_200_000, 1_736_764_200_000)));
        assert_eq!((shard.oldest_uncommitted_ms, shard.uncommitted_since_ms), (Some(1_736_764_200_000), Some(500)));
        assert_eq!((shard.epoch, shard.committed_at_ms), (Some(epoch(1)), None));
        assert_eq!(live.epochs(), [LiveEpoch { id: epoch(1), opened_at_ms: 500, bytes }]);
        live.on_epoch_ended(0);
        live.on_committed(&key("a"), 900);
        let shard = only(&live);
        assert_eq!((shard.records, shard.uncommitted_records, shard.oldest_uncommitted_ms), (2, 0, None));
        assert_eq!((shard.epoch, shard.committed_at_ms, shard.uncommitted_since_ms), (None, Some(900), None));
        assert!(live.epochs().is_empty());
    }

    #[tokio::test]
    async fn a_shard_that_is_read_again_keeps_its_last_commit_and_one_that_is_gone_is_not_shown() {
        let live = Live::default();
        live.hold(&key("a"));
        live.on_committed(&key("a"), 900);
        live.on_read(&key("a"), 0, &epoch(2), &chunk(1).await, 1000);
        live.hold(&key("a"));
        let shard = only(&live);
        assert_eq!((shard.committed_at_ms, shard.epoch, shard.oldest_uncommitted_ms), (Some(900), None, None));
        live.forget(&key("a"));
        live.on_processed(&key("a"), 1);
        live.on_committed(&key("a"), 1100);
        assert!(live.shards().is_empty(), "a late figure does not bring it back");
    }

    #[test]
    fn a_reader_shows_how_far_the_last_response_was_from_the_tip() {
        let live = Live::default();
        let figures = live.of_reader(&key("a"));
        figures.on_response(10, Some(Behind::Time(7)), false);
        assert_eq!((only(&live).behind, only(&live).read_at_ms), (Some(Behind::Time(7)), Some(10)));
        figures.on_response(20, None, false);
        assert_eq!(only(&live).behind, None, "a source that does not say is not shown as caught up");
        figures.on_response(30, None, true);
        assert_eq!((only(&live).behind, only(&live).at_tip), (Some(Behind::Nothing), true));
        figures.on_left_tip();
        assert!(!only(&live).at_tip);
    }
}
