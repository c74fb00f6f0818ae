//! Building the lake log of a lake that has none, from its commit records.
//!
//! Owns: the order in which old epochs enter, and that each enters once, also if the builder crashes or two build at once. Does not own:
//! who may build, and what says that the log is whole (`maintenance::migrate`).
//!
//! Records enter in the order of their names: the time at which their epochs began. A worker that slept may have committed late, so
//! chains have the last word. A record enters after the one that its range continues, and a child's first range after its parent's end. The
//! order follows from the records alone, so whoever builds continues what another one began. An entry's `entered_at` is when its
//! manifest was written, which is the time that a search for a time means.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use checkpoints::{Position, ShardKey};
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::layout::COMMITS;
use tokio::time::Instant;

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::end::{find_newest, read_known};
use crate::commit::lake_log::enter::enter_as;
use crate::commit::lake_log::entry::LogVersion;
use crate::commit::manifest::{Manifest, ShardOfEpoch};
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;

/// Records that are read at once while only their ranges are kept.
const CONCURRENT: usize = 16;
/// Records that are held at once while they enter. One of ten thousand objects takes megabytes.
const HELD: usize = 4;
/// The time between two messages.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Enters all commit records that have not entered. Returns how many those were.
///
/// # Errors
/// The lake fails, or a record or an entry cannot be read. The same call continues.
pub(crate) async fn build(stores: &Stores) -> Result<u64, CommitError> {
    let mut known = KnownEpochs::default();
    known.update(stores).await?;
    let keys = stores.lake.list(COMMITS).await?.into_iter().filter_map(|info| EpochId::of_commit_key(&info.key));
    let missing: Vec<EpochId> = keys.filter(|epoch| !known.epochs.contains(epoch)).collect();
    let count = missing.len();
    let links: Vec<Links> = stream::iter(missing)
        .map(|epoch| async move { Ok::<_, CommitError>(Links::of(read_record(stores, &epoch).await?)) })
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let mut records =
        stream::iter(order(links)).map(|epoch| async move { read_record(stores, &epoch).await }).buffered(HELD);
    let (mut done, mut reported) = (0_u64, Instant::now());
    while let Some(record) = records.next().await {
        let record = record?;
        if !known.epochs.contains(&record.epoch) {
            let record = Manifest { head: known.through, ..record };
            let version = enter_as(stores, &record, &record.written_at).await?;
            if version == Some(known.through.next()) {
                known.through = known.through.next();
                known.epochs.insert(record.epoch);
            } else {
                // Another builder has entered some, too.
                known.update(stores).await?;
            }
        }
        done += 1;
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            tracing::info!(done, of = count, "building the lake log from the commit records");
        }
    }
    Ok(count as u64)
}

async fn read_record(stores: &Stores, epoch: &EpochId) -> Result<Manifest, CommitError> {
    let key = epoch.commit_key();
    let bytes = stores.lake.get(&key).await?.unwrap_or_default();
    Ok(Manifest::from_bytes(&key, &bytes)?)
}

/// The epochs of the versions of the log so far.
#[derive(Default)]
struct KnownEpochs {
    through: LogVersion,
    epochs: HashSet<EpochId>,
}

impl KnownEpochs {
    /// Adds the versions that have come since.
    async fn update(&mut self, stores: &Stores) -> Result<(), CommitError> {
        let Some(newest) = find_newest(stores).await? else { return Ok(()) };
        let mut entry = (*newest).clone();
        loop {
            let mut lowest = entry.version;
            for (version, epoch) in entry.versions().take_while(|(version, _)| *version > self.through) {
                self.epochs.insert(epoch.clone());
                lowest = version;
            }
            if lowest.before() <= self.through {
                break;
            }
            let missing = || CommitError::LogCut { known: newest.version, newest: lowest };
            entry = read_known(stores, lowest.before()).await?.ok_or_else(missing)?;
        }
        self.through = self.through.max(newest.version);
        Ok(())
    }
}

/// What the order of a record depends on.
#[derive(Debug)]
struct Links {
    epoch: EpochId,
    /// Where each of its ranges begins. A first range names its shard's parents.
    after: Vec<(ShardKey, Position)>,
    /// Where each of its ranges ends.
    through: Vec<(ShardKey, Position)>,
}

impl Links {
    fn of(record: Manifest) -> Self {
        let (mut after, mut through) = (Vec::new(), Vec::new());
        for ShardOfEpoch { key, parents, range, .. } in record.shards {
            let parent = |shard| (ShardKey::new(key.stream.clone(), shard), Position::End);
            after.extend(parents.into_iter().map(parent));
            after.push((key.clone(), range.after().clone()));
            through.push((key, range.through().clone()));
        }
        Links { epoch: record.epoch, after, through }
    }
}

/// The order in which records enter: by name, each after those that its ranges continue.
fn order(mut records: Vec<Links>) -> Vec<EpochId> {
    records.sort_by(|left, right| left.epoch.cmp(&right.epoch));
    // The records whose ranges end at a position, by their numbers. A range that was read again ends there a second time.
    let mut ending: HashMap<&(ShardKey, Position), Vec<usize>> = HashMap::new();
    for (number, record) in records.iter().enumerate() {
        for end in &record.through {
            ending.entry(end).or_default().push(number);
        }
    }
    let mut waits_for: Vec<usize> = vec![0; records.len()];
    let mut followers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, record) in records.iter().enumerate() {
        for begin in &record.after {
            let Some(before) = ending.get(begin) else { continue };
            // The newest one that began earlier, otherwise the first one that began later.
            let earlier = before.iter().rev().find(|other| **other < number);
            let Some(other) = earlier.or_else(|| before.iter().find(|other| **other > number)) else { continue };
            followers.entry(*other).or_default().push(number);
            waits_for[number] += 1;
        }
    }
    let free = waits_for.iter().enumerate().filter(|(_, count)| **count == 0).map(|(number, _)| Reverse(number));
    let mut free: BinaryHeap<Reverse<usize>> = free.collect();
    let mut ordered = Vec::with_capacity(records.len());
    let mut is_ordered = vec![false; records.len()];
    while let Some(Reverse(number)) = free.pop() {
        is_ordered[number] = true;
        ordered.push(records[number].epoch.clone());
        for follower in followers.remove(&number).unwrap_or_default() {
            waits_for[follower] -= 1;
            if waits_for[follower] == 0 {
                free.push(Reverse(follower));
            }
        }
    }
    // Ranges that were read again may wait for each other in a circle. They keep the order of their names.
    let rest = (0..records.len()).filter(|number| !is_ordered[*number]);
    ordered.extend(rest.map(|number| records[number].epoch.clone()));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{ShardId, StreamName};

    fn key(shard: &str) -> ShardKey {
        ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(shard).unwrap())
    }

    fn at(number: u64) -> Position {
        if number == 0 { Position::Beginning } else { Position::at(number.into()) }
    }

    /// A record of these ranges.
    fn record(number: u32, ranges: &[(&str, u64, u64)]) -> Links {
        let epoch = format!("20250113T1030{number:02}Z-3f2a91c07d5e4b10-{number:06}").try_into().unwrap();
        let after = ranges.iter().map(|(shard, after, _)| (key(shard), at(*after))).collect();
        let through = ranges.iter().map(|(shard, _, through)| (key(shard), at(*through))).collect();
        Links { epoch, after, through }
    }

    fn numbers(records: Vec<Links>) -> Vec<u32> {
        order(records).iter().map(|epoch| epoch.as_str().rsplit('-').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn records_enter_by_name() {
        let records =
            vec![record(3, &[("a", 2, 3)]), record(1, &[("a", 0, 1)]), record(2, &[("a", 1, 2), ("b", 0, 9)])];
        assert_eq!(numbers(records), [1, 2, 3]);
    }

    #[test]
    fn a_record_that_began_early_and_was_committed_late_enters_after_the_range_that_it_continues() {
        let records = vec![record(1, &[("a", 5, 9)]), record(2, &[("b", 0, 1)]), record(3, &[("a", 0, 5)])];
        assert_eq!(numbers(records), [2, 3, 1]);
        // Through several shards.
        let records =
            vec![record(1, &[("b", 4, 5)]), record(2, &[("a", 2, 3), ("b", 0, 4)]), record(3, &[("a", 0, 2)])];
        assert_eq!(numbers(records), [3, 2, 1]);
    }

    #[test]
    fn a_child_enters_after_its_parents_end() {
        let mut child = record(1, &[("c", 0, 1)]);
        child.after.push((key("a"), Position::End));
        let mut parent = record(2, &[]);
        parent.after.push((key("a"), at(0)));
        parent.through.push((key("a"), Position::End));
        assert_eq!(numbers(vec![child, parent]), [2, 1]);
    }

    #[test]
    fn ranges_that_were_read_again_keep_their_order_and_none_is_forgotten() {
        let records = vec![
            record(1, &[("a", 0, 5)]),
            record(2, &[("a", 5, 9)]),
            record(3, &[("a", 0, 5)]),
            record(4, &[("a", 5, 7)]),
            record(5, &[("a", 7, 9)]),
        ];
        assert_eq!(numbers(records), [1, 2, 3, 4, 5]);
        let circle = vec![record(1, &[("a", 5, 9), ("b", 0, 5)]), record(2, &[("a", 0, 5), ("b", 5, 9)])];
        assert_eq!(numbers(circle), [1, 2]);
    }
}
