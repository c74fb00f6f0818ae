//! The audit of the lake log: its chain, its entries against the commit records, its snapshots, and what is live.
//!
//! Owns: one pass over all entries in order, and what it keeps for comparing commit records and objects with it. Does not own: reading
//! single entries (`commit::lake_log`), the commit records.
//!
//! Where entries were trimmed, the pass begins at the oldest snapshot from which on all entries are there. A worker that slept may have
//! written entries into trimmed places. So a break of the chain at or below the newest snapshot is not a fault, unless the log is there
//! from version 1 on: then nothing was trimmed.
//!
//! Memory: about 100 bytes for each entry and for each live object, and 64 MiB for a part of a snapshot at most.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt, stream};
use pipeline::layout;

use crate::commit::lake_log::{
    AddedObject, Entry, EntryHash, LogVersion, ObjectFilter, RECENT_MAX, Snapshot, SnapshotPart, get_snapshot, lake_at,
};
use crate::commit::lake_log::{Extent, HistoryError, UnreadableSnapshot};
use crate::commit::log::{Chains, Coverage, Fold};
use crate::commit::{CommitError, EpochId, Manifest, Stores};
use crate::inspect::CONCURRENT;
use crate::inspect::verify::Fault;
use crate::inspect::verify::names::{ByName, Name};
use crate::lake::identity::FORMAT_BEFORE;
use crate::lake::{ObjectKey, ObjectStore};

/// An entry, as it is kept for comparing it with its commit record.
struct Entered {
    version: LogVersion,
    content: EntryHash,
    has_record: bool,
}

/// What the log says.
#[derive(Default)]
pub(super) struct LogScan {
    /// The newest version.
    pub(super) newest: LogVersion,
    /// The snapshots that were compared.
    pub(super) snapshots: u64,
    /// What is wrong with it.
    pub(super) faults: Vec<Fault>,
    /// The lake's format says that it has a log, even if no entry is there.
    is_required: bool,
    entered: ByName<Entered>,
    /// The ranges up to the snapshot that the pass began at.
    begun_at: Chains,
    /// Objects that entries have removed, with the version, and the epoch or operation of it.
    removed: ByName<(LogVersion, EpochId)>,
}

/// What the entries add up to so far.
#[derive(Default)]
struct State {
    version: LogVersion,
    hash: EntryHashOrNone,
    fold: Fold,
    chains: Chains,
    /// The live objects, with the hash of what entries say of each.
    live: ByName<Name>,
    /// The sum of these hashes.
    sum: u128,
    recent: VecDeque<EpochId>,
    /// False if an entry could not be read: then the sums say nothing.
    is_known: bool,
}

#[derive(Clone, Copy)]
struct EntryHashOrNone(EntryHash);

impl Default for EntryHashOrNone {
    fn default() -> Self {
        EntryHashOrNone(EntryHash::NONE)
    }
}

/// Why the pass ends early.
enum Stop {
    /// The chain breaks at this version, where entries may have been trimmed before: begin again above.
    BeginAbove(LogVersion),
    Failed(CommitError),
}

impl<E: Into<CommitError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

fn name_of_object(object: &AddedObject) -> Name {
    Name::of_bytes(&serde_json::to_vec(object).unwrap_or_default())
}

impl State {
    fn add_object(&mut self, object: &AddedObject) {
        let name = name_of_object(object);
        if let Some(before) = self.live.insert(Name::of(object.key.as_str()), name) {
            self.sum = self.sum.wrapping_sub(before.number());
        }
        self.sum = self.sum.wrapping_add(name.number());
    }

    /// Returns false if the object was not live.
    fn remove_object(&mut self, key: &ObjectKey) -> bool {
        let found = self.live.remove(&Name::of(key.as_str()));
        self.sum = self.sum.wrapping_sub(found.map_or(0, Name::number));
        found.is_some()
    }
}

/// Whether a lake says of itself that it has a log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declared {
    /// It must have one.
    Log,
    /// It is of an earlier format.
    NoLog,
    /// The log is being built.
    Migrating,
}

async fn declared(lake: &dyn ObjectStore) -> Result<Declared, CommitError> {
    #[derive(serde::Deserialize)]
    struct Identity {
        format: u32,
        migrates_from: Option<u32>,
    }
    let key = ObjectKey::new(layout::LAKE_IDENTITY).expect("a plain name");
    let identity = lake.get(&key).await?.and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
    Ok(match identity {
        Some(Identity { migrates_from: Some(_), .. }) => Declared::Migrating,
        Some(Identity { format, .. }) if format > FORMAT_BEFORE => Declared::Log,
        _ => Declared::NoLog,
    })
}

/// Reads the whole log.
pub(super) async fn scan(stores: &Stores) -> Result<LogScan, CommitError> {
    let lake = &*stores.lake;
    let declared = declared(lake).await?;
    if declared == Declared::Migrating {
        return Ok(LogScan::default());
    }
    let is_required = declared == Declared::Log;
    let heads = lake.list(layout::LOG_SNAPSHOT_HEADS).await?;
    let snapshots: Vec<LogVersion> = heads.iter().filter_map(|head| Snapshot::version_of_key(&head.key)).collect();
    let listed = lake.list(layout::LAKE_LOG_ENTRIES).await?;
    let versions: Vec<u64> =
        listed.iter().filter_map(|object| LogVersion::of_key(&object.key)).map(|version| version.0).collect();
    drop(listed);
    let newest = versions.last().copied().unwrap_or_default();
    let run =
        versions.iter().rev().zip((0..=newest).rev()).take_while(|(found, expected)| **found == *expected).count();
    // The oldest entry of those that follow each other up to the newest.
    let mut lowest = newest + 1 - run as u64;
    let is_whole = lowest <= 1;
    loop {
        let mut scan = LogScan { newest: LogVersion(newest), is_required, ..LogScan::default() };
        match scan.pass(lake, lowest, is_whole, &snapshots).await {
            Ok(()) => return Ok(scan),
            Err(Stop::BeginAbove(version)) => lowest = version.0,
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
}

impl LogScan {
    /// Whether the lake has a log.
    pub(super) fn exists(&self) -> bool {
        self.newest > LogVersion::EMPTY || self.is_required
    }

    async fn pass(
        &mut self,
        lake: &dyn ObjectStore,
        lowest: u64,
        is_whole: bool,
        snapshots: &[LogVersion],
    ) -> Result<(), Stop> {
        let last_snapshot = snapshots.last().copied().unwrap_or_default();
        let mut state = State { is_known: true, ..State::default() };
        if lowest > 1 {
            let base = snapshots.iter().copied().find(|snapshot| snapshot.0 + 1 >= lowest);
            match base {
                Some(base) => state = self.begin_at(lake, base).await?,
                // Versions are missing above the newest snapshot: the pass meets them.
                None if last_snapshot > LogVersion::EMPTY => state = self.begin_at(lake, last_snapshot).await?,
                None => {}
            }
        }
        // Set where the hash of the entry before is not known.
        let mut is_first = !state.is_known;
        let mut sums: ByName<(u64, u128)> = ByName::new();
        let begin = state.version.0 + 1;
        let mut reading = stream::iter(begin..=self.newest.0)
            .map(|version| async move { (version, lake.get(&LogVersion(version).key()).await) })
            .buffered(CONCURRENT);
        while let Some((version, bytes)) = reading.next().await {
            let (version, key) = (LogVersion(version), LogVersion(version).key());
            let Some(bytes) = bytes? else {
                // It is missing, or it was trimmed since it was listed.
                if version <= last_snapshot {
                    return Err(Stop::BeginAbove(version.next()));
                }
                match self.faults.last_mut() {
                    Some(Fault::LogGap { before, .. }) if *before == version.0 => *before += 1,
                    _ => self.faults.push(Fault::LogGap { after: version.0 - 1, before: version.0 + 1 }),
                }
                (state.is_known, state.recent, is_first) = (false, VecDeque::new(), true);
                continue;
            };
            let before = state.hash.0;
            (state.version, state.hash) = (version, EntryHashOrNone(EntryHash::of(&bytes)));
            let entry = match Entry::from_bytes(&key, &bytes) {
                Ok(entry) => entry,
                Err(error) => {
                    self.faults.push(Fault::UnreadableEntry { problem: error.to_string() });
                    (state.is_known, state.recent) = (false, VecDeque::new());
                    is_first = false;
                    continue;
                }
            };
            if !is_first && entry.previous != before {
                if !is_whole && version <= last_snapshot {
                    return Err(Stop::BeginAbove(version));
                }
                let problem = "it names the hash of another entry".to_owned();
                self.faults.push(Fault::LogChain { version: version.0, problem });
            }
            is_first = false;
            self.add(entry, &mut state);
            if snapshots.contains(&version) {
                self.compare_snapshot(lake, &state, &mut sums).await?;
            }
        }
        Ok(())
    }

    /// The state of a snapshot, which is believed: the entries before it are gone.
    async fn begin_at(&mut self, lake: &dyn ObjectStore, version: LogVersion) -> Result<State, Stop> {
        let mut state = State { version, is_known: true, ..State::default() };
        let extent = Extent { newest: version, snapshots: vec![version] };
        let snapshot = match get_snapshot(lake, version).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.snapshot_fault(version, error)?;
                state.is_known = false;
                return Ok(state);
            }
        };
        state.hash = EntryHashOrNone(snapshot.entry);
        let at = match lake_at(lake, &extent, version).await {
            Ok(at) => at,
            Err(error) => {
                self.snapshot_fault(version, error)?;
                state.is_known = false;
                return Ok(state);
            }
        };
        let mut objects = at.live_objects(lake, ObjectFilter::default());
        loop {
            match objects.next().await {
                Ok(Some(object)) => state.add_object(&object),
                Ok(None) => break,
                Err(error) => {
                    self.snapshot_fault(version, error)?;
                    state.is_known = false;
                    break;
                }
            }
        }
        drop(objects);
        (state.fold, state.chains) = (snapshot.fold, snapshot.chains);
        self.begun_at = state.chains.clone();
        self.snapshots += 1;
        Ok(state)
    }

    fn add(&mut self, entry: Entry, state: &mut State) {
        let names_others = entry.recent.iter().zip(&state.recent).any(|(named, before)| named != before);
        if names_others {
            let problem = "it names other epochs before it".to_owned();
            self.faults.push(Fault::LogChain { version: entry.version.0, problem });
        }
        let entered = Entered { version: entry.version, content: entry.content(), has_record: false };
        let name = Name::of(entry.epoch.as_str());
        if let Some(first) = self.entered.get(&name) {
            let (epoch, first) = (entry.epoch.to_string(), first.version.0);
            self.faults.push(Fault::EnteredTwice { epoch, first, version: entry.version.0 });
        } else {
            self.entered.insert(name, entered);
        }
        state.fold.add_entry(&entry);
        state.chains.insert_shards(&entry.epoch, &entry.shards);
        for object in &entry.added {
            state.add_object(object);
        }
        for key in entry.removed.iter().map(|object| &object.key) {
            if !state.remove_object(key) && state.is_known {
                self.faults.push(Fault::RemovesUnknown { version: entry.version.0, key: key.clone() });
            }
            self.removed.insert(Name::of(key.as_str()), (entry.version, entry.epoch.clone()));
        }
        state.recent.push_front(entry.epoch);
        state.recent.truncate(RECENT_MAX);
    }

    /// Compares the snapshot at the version of the state. `sums` has the parts that were read before.
    async fn compare_snapshot(
        &mut self,
        lake: &dyn ObjectStore,
        state: &State,
        sums: &mut ByName<(u64, u128)>,
    ) -> Result<(), CommitError> {
        self.snapshots += 1;
        let version = state.version;
        let snapshot = match get_snapshot(lake, version).await {
            Ok(snapshot) => snapshot,
            Err(error) => return self.snapshot_fault(version, error),
        };
        let mut problems = Vec::new();
        if snapshot.entry != state.hash.0 {
            problems.push("it is of another entry".to_owned());
        }
        let (mut count, mut sum) = (0_u64, 0_u128);
        for part in &snapshot.parts {
            let name = Name::of(part.key.as_str());
            let (objects, of_part) = match sums.get(&name) {
                Some(known) => *known,
                None => match sum_of_part(lake, part).await {
                    Ok(found) => *sums.entry(name).or_insert(found),
                    Err(error) => return self.snapshot_fault(version, error),
                },
            };
            count += objects;
            sum = sum.wrapping_add(of_part);
        }
        if state.is_known {
            if snapshot.fold != state.fold {
                problems.push("its sums are not those of the entries".to_owned());
            }
            if snapshot.chains != state.chains {
                problems.push("its ranges are not those of the entries".to_owned());
            }
            let live = state.live.len() as u64;
            if count != live {
                problems.push(format!("it has {count} live objects, and the entries {live}"));
            } else if sum != state.sum {
                problems.push("its live objects are not those of the entries".to_owned());
            }
        }
        self.faults.extend(problems.into_iter().map(|problem| Fault::Snapshot { version: version.0, problem }));
        Ok(())
    }

    fn snapshot_fault(&mut self, version: LogVersion, error: HistoryError) -> Result<(), CommitError> {
        match error {
            HistoryError::Lake(error) => Err(error.into()),
            error => {
                self.faults.push(Fault::Snapshot { version: version.0, problem: error.to_string() });
                Ok(())
            }
        }
    }

    /// Compares a commit record with its entry. `has_advanced`: a checkpoint had moved through it before the log was read.
    pub(super) fn compare_record(&mut self, record: &Manifest, has_advanced: &dyn Fn() -> bool) {
        if !self.exists() {
            return;
        }
        match self.entered.get_mut(&Name::of(record.epoch.as_str())) {
            Some(entered) => {
                entered.has_record = true;
                if entered.content != Entry::content_of(record) {
                    let (version, epoch) = (entered.version.0, record.epoch.to_string());
                    self.faults.push(Fault::EntryDiffers { version, epoch });
                }
            }
            // Its entry was trimmed, and the snapshot has it.
            None if self.begun_at.coverage(record) == Coverage::Whole => {}
            None if has_advanced() => self.faults.push(Fault::NotEntered { epoch: record.epoch.to_string() }),
            None => {}
        }
    }

    /// The entries without a commit record: their versions.
    pub(super) fn without_record(&self) -> Vec<LogVersion> {
        let mut versions: Vec<LogVersion> =
            self.entered.values().filter(|entered| !entered.has_record).map(|entered| entered.version).collect();
        versions.sort();
        versions
    }

    /// Whether any entry has removed an object.
    pub(super) fn has_removed(&self) -> bool {
        !self.removed.is_empty()
    }

    /// The version that removed an object, and its epoch or operation.
    pub(super) fn removed(&self, key: &ObjectKey) -> Option<&(LogVersion, EpochId)> {
        self.removed.get(&Name::of(key.as_str()))
    }
}

/// How many objects a part has, and the sum of what it says of them.
async fn sum_of_part(lake: &dyn ObjectStore, part: &SnapshotPart) -> Result<(u64, u128), HistoryError> {
    let missing = || UnreadableSnapshot { key: part.key.clone(), problem: "it is not there".to_owned() };
    let bytes: Bytes = lake.get(&part.key).await.map_err(HistoryError::Lake)?.ok_or_else(missing)?;
    let objects = part.objects_of(&bytes)?;
    let sum = objects.iter().fold(0_u128, |sum, object| sum.wrapping_add(name_of_object(object).number()));
    Ok((objects.len() as u64, sum))
}
