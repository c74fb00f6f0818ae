//! The audit of a lake against its commit records.
//!
//! | check | what a fault means |
//! |---|---|
//! | every commit record can be read | it is damaged, or another version wrote it |
//! | each shard's ranges form one chain, from its beginning to where a commit last moved its lease | a commit record is missing, or records were read twice |
//! | records = rows + dead letters, raw lines = records, objects add up | the record contradicts itself |
//! | no source has a loss that nobody accepted | bytes were gone before they were read |
//! | the commit log has every record, and its sums are theirs | a roll-up is wrong |
//! | every object is there, with its size and checksum | it was deleted or altered |
//! | a Parquet file's footer names its epoch and its rows | it is another file |
//! | every visible object belongs to exactly one commit record | it was copied, or an uncommitted one is visible |
//! | the versions of the lake log follow each other, and each names the hash of the one before | an entry is missing or was changed |
//! | each entry says what its commit record says, and no epoch is entered twice | an entry was changed, or the step *enter* is broken |
//! | each commit record is in the lake log, unless its epoch is still pending | the same |
//! | each snapshot of the lake log is what the entries add up to | it is damaged |
//! | what an entry removed is not visible | an operation was not finished |
//!
//! Objects that were removed are not searched for: they are in `_trash/`, or purged. A lake without a log, of an earlier version, has
//! none of these checks. [`check_log`] reads both logs from their newest snapshots on, and no object. [`verify_at`] audits the objects of
//! an earlier version.
//!
//! The audit may run beside workers. It reads leases first and commit records last. So an epoch that is committed meanwhile
//! is at worst ahead of the leases, and objects of an epoch that is being published are not reported. A list of many pages
//! sees the lake at several times. It may show a commit record and not the one before it, which was written meanwhile. So
//! whatever seems to be wrong is checked a second time, and reported if it still is. An object that an operation has removed
//! meanwhile is not missing.

mod at;
mod fault;
mod lake_log;
mod names;
mod objects;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use checkpoints::Lease;
use serde::Serialize;

use crate::commit::lake_log::{HistoryError, LogVersion, extent, get_entry, lake_at};
use crate::commit::log::{self, Chains, Coverage, Fold, Overlap};
use crate::commit::{
    CommitError, EpochId, Manifest, ObjectKind, Stores, Totals, UnreadableManifest, is_internal_stream,
};
use crate::inspect::verify::lake_log::LogScan;
use crate::inspect::verify::names::{Name, Names};
use crate::source::losses;

pub use at::{AuditError, verify_at};
pub use fault::Fault;

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Committed epochs.
    pub epochs: u64,
    /// Operations on the lake, such as a promoted replay.
    pub operations: u64,
    /// The newest version of the lake log, or the one that was audited; `None` if the lake has no log.
    pub log_version: Option<u64>,
    /// Snapshots of the lake log that were compared.
    pub snapshots: u64,
    /// Objects in their commit records, without those that were removed later.
    pub objects: u64,
    /// The size of these.
    pub bytes: u64,
    /// Shards whose chains were checked.
    pub shards: u64,
    /// Objects of the audited version that were removed later. They are not compared.
    pub removed_since: u64,
    /// What the records add up to.
    pub totals: Totals,
    /// Epochs that are decided and not yet advanced. They are not faults: the next worker finishes them.
    pub pending: u64,
    /// Losses in sources that somebody has accepted.
    pub accepted_losses: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyProgress {
    /// This many commit records were read.
    Records(u64),
    /// Objects of this many bytes in all are going to be compared.
    Total(u64),
    /// An object of this many bytes was compared.
    Compared(u64),
}

/// What a scan keeps of commit records and lists, beside what it found: names of objects, in 16 bytes each.
struct Scan {
    audit: Audit,
    /// The epochs whose commit records were read.
    epochs: Names,
    log: LogScan,
}

/// Audits a lake.
///
/// Memory, beside the list of one area's objects: about 200 bytes for each object and 300 for each epoch, and four objects at a time.
///
/// # Errors
/// The stores fail.
pub async fn verify(stores: &Stores, progress: &(dyn Fn(VerifyProgress) + Sync)) -> Result<Audit, CommitError> {
    let Scan { mut audit, mut epochs, mut log } = scan_records(stores, progress).await?;
    if !audit.faults.is_empty() {
        let again = scan_records(stores, progress).await?;
        audit.keep_those_of(&again.audit);
        (epochs, log) = (again.epochs, again.log);
    }
    progress(VerifyProgress::Total(audit.bytes));
    objects::compare_all(stores, &epochs, &log, progress, &mut audit).await?;
    Ok(audit)
}

/// Checks the chains of commits against the leases. Reads no object, and no commit record that a roll-up covers.
///
/// # Errors
/// The stores fail.
pub async fn check_log(stores: &Stores) -> Result<Audit, CommitError> {
    let mut audit = scan_log(stores).await?;
    if !audit.faults.is_empty() {
        audit.keep_those_of(&scan_log(stores).await?);
    }
    Ok(audit)
}

/// One scan of the commit log, and of the lake log from its newest snapshot on.
async fn scan_log(stores: &Stores) -> Result<Audit, CommitError> {
    let log = log::read(stores).await?;
    let mut audit = Audit::new(&log.fold, &log.leases);
    audit.objects = log.fold.objects().values().map(|total| total.count).sum();
    audit.bytes = log.fold.objects().values().map(|total| total.bytes).sum();
    audit.check_chains(&log.chains, &log.leases, log.overlaps, log.unreadable);
    let extent = extent(&*stores.lake).await?;
    if extent.newest > LogVersion::EMPTY {
        audit.log_version = Some(extent.newest.0);
        match lake_at(&*stores.lake, &extent, extent.newest).await {
            Ok(at) => {
                let lacks = at.chains.gaps(&log.leases).into_iter();
                audit.faults.extend(lacks.map(|(key, after, before)| Fault::LogLacks { key, after, before }));
            }
            Err(HistoryError::Lake(error)) => return Err(error.into()),
            Err(error) => audit.faults.push(Fault::UnreadableEntry { problem: error.to_string() }),
        }
    }
    audit.check_losses(stores).await?;
    Ok(audit)
}

/// One scan of leases, both logs, lists and records, but not of the objects.
async fn scan_records(stores: &Stores, progress: &(dyn Fn(VerifyProgress) + Sync)) -> Result<Scan, CommitError> {
    let leases = stores.own_leases().await?;
    let log = log::read(stores).await?;
    let mut visible = Names::new();
    for kind in ObjectKind::ALL {
        let listed = stores.lake.list(kind.prefix()).await?;
        visible.extend(listed.iter().map(|object| Name::of(object.key.as_str())));
    }
    // An epoch that is being published, and an operation that is about to remove objects.
    let (intents, _) = log::intents(stores).await?;
    let in_flight: Names =
        intents.iter().flat_map(|intent| &intent.objects).map(|object| Name::of(object.key.as_str())).collect();
    let being_entered: BTreeSet<EpochId> = intents.into_iter().map(|intent| intent.epoch).collect();
    let mut lake_log = lake_log::scan(stores).await?;
    let mut faults = Vec::new();
    let (mut fold, mut of_roll_up) = (Fold::default(), Fold::default());
    let (mut epochs, mut known) = (Names::new(), Names::new());
    let mut live = (0_u64, 0_u64);
    let everything = log::read_everything(stores, &mut |record| {
        fold.add(&record);
        check_sums(&record, &mut faults);
        let advanced = || has_advanced(&record, &leases);
        if log.chains.coverage(&record) == Coverage::Whole {
            of_roll_up.add(&record);
        } else if advanced() {
            faults.push(Fault::Log { problem: format!("the commit log lacks epoch {}", record.epoch) });
        }
        lake_log.compare_record(&record, &advanced);
        for object in &record.objects {
            if !known.insert(Name::of(object.key.as_str())) {
                let (key, epoch) = (object.key.clone(), record.epoch.to_string());
                faults.push(Fault::Claimed { key, epoch });
            } else if !lake_log.is_removed(&record, &object.key) {
                live = (live.0 + 1, live.1.saturating_add(object.bytes));
            }
        }
        epochs.insert(Name::of(record.epoch.as_str()));
        progress(VerifyProgress::Records(epochs.len() as u64));
    })
    .await?;
    let mut audit = Audit::new(&fold, &leases);
    (audit.objects, audit.bytes) = live;
    audit.check_chains(&everything.chains, &leases, everything.overlaps, everything.unreadable);
    // Where the records themselves are damaged, both logs differ from them for that reason.
    let are_records_whole = audit.faults.is_empty();
    audit.faults.extend(faults.into_iter().filter(|fault| are_records_whole || !matches!(fault, Fault::Log { .. })));
    if are_records_whole && of_roll_up != log.fold {
        let problem = format!(
            "the commit log has {} epochs with {} records, and their commit records say {} and {}, or differ in other sums",
            log.fold.epochs,
            log.fold.totals().records,
            of_roll_up.epochs,
            of_roll_up.totals().records
        );
        audit.faults.push(Fault::Log { problem });
    }
    if lake_log.exists() {
        (audit.log_version, audit.snapshots) = (Some(lake_log.newest.0), lake_log.snapshots);
        audit.faults.append(&mut lake_log.faults);
        for version in lake_log.without_record() {
            if let Ok(Some(stored)) = get_entry(&*stores.lake, version).await {
                let (version, epoch) = (version.0, stored.entry.epoch.to_string());
                audit.faults.push(Fault::EntryWithoutRecord { version, epoch });
            }
        }
    }
    audit.check_losses(stores).await?;
    let is_expected = |name: &Name| known.contains(name) || in_flight.contains(name);
    let is_unknown = visible.iter().any(|name| !is_expected(name));
    if is_unknown || lake_log.has_removed() {
        audit.check_visible(stores, &visible, &is_expected, &lake_log, &being_entered).await?;
    }
    Ok(Scan { audit, epochs, log: lake_log })
}

/// Whether a row says that a record's epoch has moved a checkpoint.
fn has_advanced(record: &Manifest, leases: &[Lease]) -> bool {
    record.shards.iter().any(|shard| {
        let row = leases.iter().find(|lease| lease.key == shard.key);
        row.is_some_and(|lease| lease.checkpoint >= *shard.range.through())
    })
}

/// Adds up what a commit record says.
fn check_sums(record: &Manifest, faults: &mut Vec<Fault>) {
    if record.kind.is_operation() {
        // It has no records. What it adds was counted when it was read.
        return;
    }
    let Totals { records, rows, dead_letters, raw_lines, .. } = &record.totals;
    let of_kind = |kind: ObjectKind| -> u64 {
        record.objects.iter().filter(|object| object.kind == kind).map(|object| object.rows).sum()
    };
    let rows: u64 = rows.values().sum();
    let dead_letters: u64 = dead_letters.values().sum();
    let of_shards: u64 = record.shards.iter().map(|shard| shard.records).sum();
    let mut disagree = |problem: String| faults.push(Fault::Sums { epoch: record.epoch.to_string(), problem });
    if rows + dead_letters != *records {
        disagree(format!("{records} records, but {rows} rows and {dead_letters} dead letters"));
    }
    if of_shards != *records {
        disagree(format!("{records} records, but {of_shards} in its shards"));
    }
    if of_kind(ObjectKind::Processed) != rows {
        disagree(format!("{rows} rows, but {} in its objects", of_kind(ObjectKind::Processed)));
    }
    if of_kind(ObjectKind::Error) != dead_letters {
        disagree(format!("{dead_letters} dead letters, but {} in its objects", of_kind(ObjectKind::Error)));
    }
    if let Some(lines) = raw_lines
        && (*lines != *records || of_kind(ObjectKind::Raw) != *lines)
    {
        disagree(format!("{records} records, but {lines} raw lines, {} in its objects", of_kind(ObjectKind::Raw)));
    }
}

impl Audit {
    fn new(fold: &Fold, leases: &[Lease]) -> Self {
        let pending: BTreeSet<&str> =
            leases.iter().filter_map(|lease| lease.pending.as_ref()).map(|pending| pending.manifest.as_str()).collect();
        Audit {
            epochs: fold.epochs,
            operations: fold.operations(),
            totals: fold.totals(),
            pending: pending.len() as u64,
            ..Audit::default()
        }
    }

    /// Adds the losses of sources.
    async fn check_losses(&mut self, stores: &Stores) -> Result<(), CommitError> {
        let losses = losses::list(&*stores.lake).await?;
        self.accepted_losses = losses.iter().filter(|(_, then)| then.is_some()).count() as u64;
        let open = losses.into_iter().filter(|(_, then)| then.is_none());
        self.faults.extend(open.map(|(loss, _)| Fault::Loss { key: loss.key(), problem: loss.problem }));
        Ok(())
    }

    /// Keeps the faults that a later scan found as well.
    fn keep_those_of(&mut self, later: &Audit) {
        self.faults.retain(|fault| later.faults.iter().any(|other| fault.is_still(other)));
    }

    /// Follows every shard's ranges.
    fn check_chains(
        &mut self,
        chains: &Chains,
        leases: &[Lease],
        overlaps: Vec<Overlap>,
        unreadable: Vec<UnreadableManifest>,
    ) {
        // A row that no commit of ours ever moved is where another program (a KCL application) left it.
        let moved = leases.iter().filter(|lease| lease.last_manifest.is_some() && !lease.checkpoint.is_start());
        let without_chain = moved.filter(|lease| chains.end_of(&lease.key).is_none()).count();
        // The parts of the lake that operations have changed are not shards.
        let with_chain = chains.ends().filter(|(key, _)| !is_internal_stream(&key.stream)).count();
        self.shards = (with_chain + without_chain) as u64;
        self.faults.extend(unreadable.into_iter().map(|error| Fault::UnreadableRecord { problem: error.to_string() }));
        let gaps = chains.gaps(leases).into_iter();
        self.faults.extend(gaps.map(|(key, after, before)| Fault::Gap { key, after, before }));
        let overlaps = overlaps.into_iter();
        self.faults.extend(overlaps.map(|Overlap { key, epoch, range }| Fault::Overlap {
            key,
            epoch: epoch.to_string(),
            range,
        }));
    }

    /// Lists the objects again, for the names of those that are visible and should not be.
    async fn check_visible(
        &mut self,
        stores: &Stores,
        visible: &Names,
        is_expected: &(dyn Fn(&Name) -> bool + Send + Sync),
        log: &LogScan,
        being_entered: &BTreeSet<EpochId>,
    ) -> Result<(), CommitError> {
        for kind in ObjectKind::ALL {
            for object in stores.lake.list(kind.prefix()).await? {
                let name = Name::of(object.key.as_str());
                // What was not there at the first list may be of an epoch whose record was not read.
                if !visible.contains(&name) {
                    continue;
                }
                match log.removed(&object.key) {
                    // An operation removes its objects after it has entered, and its intent is there until it is done.
                    Some((_, epoch)) if being_entered.contains(epoch) => {}
                    Some((version, _)) => {
                        self.faults.push(Fault::NotRemoved { key: object.key, version: version.0 });
                    }
                    None if is_expected(&name) => {}
                    None => self.faults.push(Fault::Unknown { key: object.key }),
                }
            }
        }
        Ok(())
    }
}
