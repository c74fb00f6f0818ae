//! The commit log: what all commit records of a lake add up to, without reading each of them every time.
//!
//! Owns: reading commit records ([`read`], [`since`], [`records`]), what they add up to ([`Fold`]), and the roll-ups that make
//! this cheap ([`roll_up`]). Does not own: the format of a record (`manifest`), writing one (`protocol`), what is said of a
//! lake (`inspect`).
//!
//! # The problem
//!
//! A record's name says when its epoch *began*. A worker that slept may commit an epoch late, so a record may appear among
//! names that sort long before the newest one. No list of names after some point is complete, and no clock can tell when it
//! is. But the ranges of a shard form a chain, and the lease table knows how far each chain must reach at least. So a
//! reader does not trust names; it checks that it has everything, and reads on where it has not (`chains`).
//!
//! # Reading
//!
//! 1. Read the lease table.
//! 2. Read the newest roll-up: the sums of a set of records, the ranges that the set covers, and a *horizon*.
//! 3. List the names after the horizon. Read those records, and add those that the roll-up does not cover.
//! 4. Check the ranges against the lease table. If nothing is missing, that is the result.
//! 5. Otherwise list names from an hour before the horizon, then from a day before it, and check again.
//! 6. Otherwise ignore the roll-up and read everything.
//!
//! The result is exact: it contains every record whose epoch had moved a checkpoint when the lease table was read, each once.
//! It may contain records that were written meanwhile. The horizon, and the two steps back, only decide what it costs.
//!
//! # Roll-ups
//!
//! `_rollups/<20 digits>.json.gz` is written by create-only PUT and never changed. Its number is one above the newest
//! roll-up, which its writer has read. So roll-ups form a sequence, and each covers all that the one before it covers. Of
//! several writers that try the same number, the first one wins; what the others made is dropped.
//!
//! | event | consequence |
//! |---|---|
//! | a writer crashes before the PUT | nothing; the next one writes the same number |
//! | a writer crashes after the PUT | older roll-ups stay until the next writer removes them |
//! | a roll-up is removed while a reader has its name | the reader lists again: a newer one is there |
//! | a roll-up cannot be read | a warning; an older one is used, or everything is read; the next roll-up replaces it |
//! | a record is missing or damaged | the check fails, so everything is read, and no roll-up is written |
//! | a record appears late | the check fails for those who miss it; the next roll-up covers it |
//!
//! # Beside the lake log
//!
//! The lake log (`commit::lake_log`) has a total order of all changes, and says what the lake was at a version. This module does not depend on
//! it: it answers what there is now from commit records and leases, so `verify` can compare two results that were derived in two ways.

mod arrivals;
mod chains;
mod fold;
mod roll_up;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use checkpoints::Lease;
use futures::{StreamExt, stream};
use mutations::mutated;
use pipeline::layout::{COMMITS, INTENTS};
use pipeline::time::parse_rfc3339;
use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::manifest::{Manifest, UnreadableManifest};
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;
use crate::lake::{ObjectKey, ObjectStore};

pub use arrivals::{Arrivals, Complete, StreamWatermark, Watermark};
pub use chains::{Chains, Coverage, Doubt, Overlap};
pub use fold::{DeadLetterTotal, Fold, Latest, ObjectTotal};
pub use roll_up::{RollUp, RollUpConfig, RollUps, RolledUp, newest_roll_up, roll_up};

/// Requests that are in progress at once.
const CONCURRENT: usize = 16;
/// How far before the horizon names are listed, if a record is missing after it.
const STEPS_BACK_MS: [i64; 2] = [3_600_000, 86_400_000];
/// The longest time from the beginning of an epoch to its commit for which [`records_written_since`] searches.
const EPOCH_LASTS_MAX_MS: i64 = 86_400_000;
/// How often everything is listed, if records seem to be missing.
const PASSES_MAX: usize = 4;

/// A set of commit records, as a place in the log to continue from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Where listing names begins: a text that names are compared with.
    horizon: Option<String>,
    /// The records of the set whose names are after the horizon.
    recent: BTreeSet<EpochId>,
    /// The ranges of the set, by which a record is known to be in it.
    chains: Chains,
    /// What seemed to be missing from the set when everything was read.
    accepted: BTreeSet<Doubt>,
}

impl Cursor {
    fn horizon(&self) -> Option<&str> {
        self.horizon.as_deref()
    }
}

/// The commit log as it was read.
#[derive(Debug)]
pub struct Log {
    /// What the records add up to.
    pub fold: Fold,
    /// The ranges that they cover.
    pub chains: Chains,
    /// Ranges that were committed twice.
    pub overlaps: Vec<Overlap>,
    /// Records that could not be read. They are not in the fold.
    pub unreadable: Vec<UnreadableManifest>,
    /// The lease table, as it was before the records were listed.
    pub leases: Vec<Lease>,
    /// The roll-up that was used.
    pub roll_up: Option<u64>,
    /// How many records were read beside it.
    pub records_read: u64,
}

impl Log {
    /// The epoch that was written last.
    pub fn latest(&self) -> Option<&Latest> {
        self.fold.latest.as_ref()
    }
}

/// Records after a cursor.
#[derive(Debug)]
pub struct Since {
    /// The records that the cursor does not cover, in no particular order.
    pub records: Vec<Manifest>,
    /// Where to continue.
    pub cursor: Cursor,
}

/// Reads the log: from the newest roll-up if it suffices, otherwise from all records.
///
/// # Errors
/// The stores fail. A record that cannot be read is not an error.
pub async fn read(stores: &Stores) -> Result<Log, CommitError> {
    let leases = stores.own_leases().await?;
    let (_, roll_up) = newest_roll_up(stores).await?;
    let used = roll_up.as_ref().map(|roll_up| roll_up.number);
    let base = roll_up.map(|RollUp { cursor, fold, .. }| (cursor, fold));
    let (gathered, fold, is_from_base) = read_from(stores, &leases, base).await?;
    Ok(Log {
        fold,
        overlaps: gathered.overlaps,
        records_read: gathered.records_read,
        unreadable: gathered.unreadable.into_values().collect(),
        chains: gathered.chains,
        leases,
        roll_up: used.filter(|_| is_from_base),
    })
}

/// All commit records, read one by one, and what they cover.
#[derive(Debug)]
pub struct Everything {
    /// The ranges that they cover.
    pub chains: Chains,
    /// Ranges that were committed twice.
    pub overlaps: Vec<Overlap>,
    /// Records that could not be read.
    pub unreadable: Vec<UnreadableManifest>,
}

/// Reads all commit records, without roll-ups, and gives each to `each` once.
///
/// # Errors
/// The stores fail. A record that cannot be read is not an error.
pub async fn read_everything(
    stores: &Stores,
    each: &mut (dyn FnMut(Manifest) + Send),
) -> Result<Everything, CommitError> {
    let Gathered { chains, overlaps, unreadable, .. } = read_all(stores, &[], each).await?;
    Ok(Everything { chains, overlaps, unreadable: unreadable.into_values().collect() })
}

/// The records that a cursor does not cover. [`Cursor::default`] covers none.
///
/// # Errors
/// The stores fail, or a record cannot be read, or ranges were committed twice, so that no cursor can say what was read.
pub async fn since(stores: &Stores, cursor: &Cursor) -> Result<Since, CommitError> {
    let leases = stores.own_leases().await?;
    let mut records = Vec::new();
    let mut gathered = match continue_from(stores, &leases, cursor, &mut |record| records.push(record)).await? {
        Some(gathered) => gathered,
        None => {
            records.clear();
            let covered = |record: &Manifest| cursor.chains.coverage(record) == Coverage::Whole;
            let mut keep = |record| {
                if !covered(&record) {
                    records.push(record);
                }
            };
            read_all(stores, &leases, &mut keep).await?
        }
    };
    if let Some((_, unreadable)) = gathered.unreadable.pop_first() {
        return Err(unreadable.into());
    }
    match gathered.overlaps.pop() {
        None => Ok(Since { records, cursor: gathered.into_cursor(cursor, &leases, RollUpConfig::default().margin) }),
        Some(Overlap { key, epoch, .. }) => Err(CommitError::Overlap { key, epoch: epoch.to_string() }),
    }
}

/// Continues from a base, or reads everything if that may miss a record. Returns true if the base was used.
async fn read_from(
    stores: &Stores,
    leases: &[Lease],
    base: Option<(Cursor, Fold)>,
) -> Result<(Gathered, Fold, bool), CommitError> {
    if let Some((cursor, mut fold)) = base {
        if let Some(gathered) = continue_from(stores, leases, &cursor, &mut |record| fold.add(&record)).await? {
            return Ok((gathered, fold, true));
        }
        tracing::debug!(
            "the roll-up and the records after it do not cover all checkpoints; reading all commit records"
        );
    }
    let mut fold = Fold::default();
    let gathered = read_all(stores, leases, &mut |record| fold.add(&record)).await?;
    Ok((gathered, fold, false))
}

/// Adds the records after a cursor. `None` if records may be missing.
async fn continue_from(
    stores: &Stores,
    leases: &[Lease],
    base: &Cursor,
    sink: &mut (dyn FnMut(Manifest) + Send),
) -> Result<Option<Gathered>, CommitError> {
    let Some(horizon) = base.horizon() else { return Ok(None) };
    let mut gathered = Gathered::new(base);
    gathered.add(stores, base, horizon, None, sink).await?;
    let mut end = horizon.to_owned();
    for step in STEPS_BACK_MS {
        if gathered.is_broken || gathered.is_complete(leases, &base.accepted) {
            break;
        }
        let Some(start) = horizon_ms(horizon).map(|ms| EpochId::format_time(ms - step)) else { break };
        gathered.add(stores, base, &start, Some(&end), sink).await?;
        end = start;
    }
    let is_complete = !gathered.is_broken && gathered.is_complete(leases, &base.accepted);
    Ok(is_complete.then_some(gathered))
}

/// Adds all records.
async fn read_all(
    stores: &Stores,
    leases: &[Lease],
    sink: &mut (dyn FnMut(Manifest) + Send),
) -> Result<Gathered, CommitError> {
    let base = Cursor::default();
    let mut gathered = Gathered::new(&base);
    let mut doubts: BTreeSet<Doubt> = BTreeSet::new();
    // A list of many pages sees the lake at several times: it may show a record and not the one before it, which was
    // written meanwhile. A second list shows that one too.
    for _ in 0..PASSES_MAX {
        gathered.add(stores, &base, "", None, sink).await?;
        let now = gathered.chains.doubts(leases);
        // What two lists in turn do not show is not there. A doubt that is new may be of a record that the next list shows.
        gathered.accepted = now.intersection(&doubts).cloned().collect();
        if gathered.accepted.len() == now.len() {
            break;
        }
        doubts = now;
    }
    Ok(gathered)
}

/// Records that were listed and read, so far.
struct Gathered {
    chains: Chains,
    overlaps: Vec<Overlap>,
    unreadable: BTreeMap<ObjectKey, UnreadableManifest>,
    accepted: BTreeSet<Doubt>,
    /// Records of the set, and those that cannot be read: none of them is read again.
    seen: HashSet<ObjectKey>,
    /// The newest epoch of each worker.
    newest: BTreeMap<String, EpochId>,
    /// The longest time from an epoch's beginning to its manifest.
    slowest_ms: i64,
    /// Records read that the base does not cover.
    records_read: u64,
    /// Set if the chains cannot tell which records the set has.
    is_broken: bool,
}

impl Gathered {
    fn new(base: &Cursor) -> Self {
        Gathered {
            chains: base.chains.clone(),
            overlaps: Vec::new(),
            unreadable: BTreeMap::new(),
            accepted: BTreeSet::new(),
            seen: base.recent.iter().map(EpochId::commit_key).collect(),
            newest: BTreeMap::new(),
            slowest_ms: 0,
            records_read: 0,
            is_broken: false,
        }
    }

    /// Lists the names after `after`, up to `through`, and adds the records that are new and that `base` does not cover.
    async fn add(
        &mut self,
        stores: &Stores,
        base: &Cursor,
        after: &str,
        through: Option<&str>,
        sink: &mut (dyn FnMut(Manifest) + Send),
    ) -> Result<(), CommitError> {
        let through = through.map(|name| format!("{COMMITS}{name}"));
        let listed = stores.lake.list_after(COMMITS, &format!("{COMMITS}{after}")).await?;
        let keys = listed.into_iter().map(|object| object.key);
        let wanted: Vec<ObjectKey> = keys
            .take_while(|key| through.as_ref().is_none_or(|through| key.as_str() <= through.as_str()))
            .filter(|key| !self.seen.contains(key))
            .collect();
        let mut reading =
            stream::iter(wanted).map(|key| async move { (stores.lake.get(&key).await, key) }).buffered(CONCURRENT);
        while let Some((bytes, key)) = reading.next().await {
            let Some(bytes) = bytes? else { continue };
            match Manifest::from_bytes(&key, &bytes) {
                Ok(record) => self.add_record(base, record, sink),
                Err(error) => drop(self.unreadable.insert(key.clone(), error)),
            }
            self.seen.insert(key);
        }
        Ok(())
    }

    fn add_record(&mut self, base: &Cursor, record: Manifest, sink: &mut (dyn FnMut(Manifest) + Send)) {
        match base.chains.coverage(&record) {
            Coverage::Whole => return,
            Coverage::Part => self.is_broken = true,
            Coverage::None => {}
        }
        self.overlaps.extend(self.chains.insert(&record));
        self.is_broken |= !self.overlaps.is_empty();
        if let (Some(worker), Some(begun)) = (record.epoch.worker(), record.epoch.begun_ms()) {
            let written = parse_rfc3339(record.written_at.as_bytes()).unwrap_or(begun);
            self.slowest_ms = self.slowest_ms.max(written - begun);
            let newest = self.newest.entry(worker.to_owned()).or_insert_with(|| record.epoch.clone());
            if *newest < record.epoch {
                *newest = record.epoch.clone();
            }
        }
        self.records_read += 1;
        sink(record);
    }

    /// Whether the records cover all that the lease table says was committed.
    fn is_complete(&mut self, leases: &[Lease], accepted: &BTreeSet<Doubt>) -> bool {
        self.accepted = self.chains.doubts(leases);
        mutated!(TrustRollUp) || self.accepted.is_subset(accepted)
    }

    /// The cursor after these records, which were added to those of `base`.
    fn into_cursor(self, base: &Cursor, leases: &[Lease], margin: Duration) -> Cursor {
        let horizon = self.horizon(leases, margin).or_else(|| base.horizon.clone());
        let names =
            self.seen.iter().filter(|key| !self.unreadable.contains_key(*key)).filter_map(EpochId::of_commit_key);
        let recent = names.filter(|name| horizon.as_ref().is_none_or(|horizon| *name.as_str() > **horizon)).collect();
        Cursor { horizon, recent, chains: self.chains, accepted: self.accepted }
    }

    /// A time after which most records that are still to come have their names; `None` if no record was added.
    ///
    /// The next epoch of a worker begins after its newest one. So the horizon is the oldest of these, over all workers that hold
    /// leases; a worker that has ended, perhaps one whose clock was wrong, does not count. The margin is for workers that
    /// have an epoch open and no record here: at least twice the time that the slowest epoch took.
    fn horizon(&self, leases: &[Lease], margin: Duration) -> Option<String> {
        let holders: HashSet<String> =
            leases.iter().filter_map(|lease| lease.holder.committer()).map(EpochId::worker_part).collect();
        let begun = |epoch: &EpochId| epoch.begun_ms();
        let of_holders = self.newest.iter().filter(|(worker, _)| holders.contains(*worker)).map(|(_, epoch)| epoch);
        let time = of_holders.filter_map(begun).min().or_else(|| self.newest.values().filter_map(begun).max())?;
        let margin = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX).max(self.slowest_ms.saturating_mul(2));
        Some(EpochId::format_time(time.saturating_sub(margin)))
    }
}

/// The time of a horizon.
fn horizon_ms(horizon: &str) -> Option<i64> {
    EpochId::try_from(format!("{horizon}-x-0")).ok()?.begun_ms()
}

/// All commit records that can be read, in the order of their epochs, and those that cannot.
///
/// # Errors
/// The lake fails.
pub async fn records(stores: &Stores) -> Result<(Vec<Manifest>, Vec<UnreadableManifest>), CommitError> {
    manifests(&*stores.lake, COMMITS, "").await
}

/// The commit records that were written since a time (milliseconds since 1970), without the lease table. A name says when its
/// epoch began. So an epoch that took longer than a day from its beginning to its commit may be missing.
///
/// # Errors
/// The lake fails.
pub async fn records_written_since(
    lake: &dyn ObjectStore,
    since_ms: i64,
) -> Result<(Vec<Manifest>, Vec<UnreadableManifest>), CommitError> {
    let after = format!("{COMMITS}{}", EpochId::format_time(since_ms.saturating_sub(EPOCH_LASTS_MAX_MS)));
    let (mut records, unreadable) = manifests(lake, COMMITS, &after).await?;
    records.retain(|record| parse_rfc3339(record.written_at.as_bytes()).is_some_and(|written| written >= since_ms));
    Ok((records, unreadable))
}

/// All intents, likewise.
///
/// # Errors
/// The lake fails.
pub async fn intents(stores: &Stores) -> Result<(Vec<Manifest>, Vec<UnreadableManifest>), CommitError> {
    manifests(&*stores.lake, INTENTS, "").await
}

async fn manifests(
    lake: &dyn ObjectStore,
    prefix: &str,
    after: &str,
) -> Result<(Vec<Manifest>, Vec<UnreadableManifest>), CommitError> {
    let listed = if after.is_empty() { lake.list(prefix).await? } else { lake.list_after(prefix, after).await? };
    let keys = listed.into_iter().map(|object| object.key);
    let mut reading = stream::iter(keys).map(|key| async move { (lake.get(&key).await, key) }).buffered(CONCURRENT);
    let (mut manifests, mut unreadable) = (Vec::new(), Vec::new());
    while let Some((bytes, key)) = reading.next().await {
        match bytes?.map(|bytes| Manifest::from_bytes(&key, &bytes)) {
            Some(Ok(manifest)) => manifests.push(manifest),
            Some(Err(error)) => unreadable.push(error),
            // It was removed meanwhile, as an intent is.
            None => {}
        }
    }
    Ok((manifests, unreadable))
}
