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
//!
//! [`check_log`] makes the first three checks only, and reads the commit log instead of every record.
//!
//! The audit may run beside workers. It reads leases first and commit records last. So an epoch that is committed meanwhile
//! is at worst ahead of the leases, and objects of an epoch that is being published are not reported. A list of many pages
//! sees the lake at several times. It may show a commit record and not the one before it, which was written meanwhile. So
//! whatever seems to be wrong is checked a second time, and reported if it still is.

mod fault;
mod objects;

use std::collections::{BTreeMap, BTreeSet};

use checkpoints::Lease;
use serde::Serialize;

use crate::commit::log::{self, Chains, Coverage, Fold, Log, Overlap};
use crate::commit::{CommitError, Manifest, ObjectKind, Stores, Totals, UnreadableManifest};
use crate::lake::ObjectKey;
use crate::source::losses;

pub use fault::Fault;

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Committed epochs.
    pub epochs: u64,
    /// Objects in their commit records.
    pub objects: u64,
    /// The size of these.
    pub bytes: u64,
    /// Shards whose chains were checked.
    pub shards: u64,
    /// What the records add up to.
    pub totals: Totals,
    /// Epochs that are decided and not yet advanced. They are not faults: the next worker finishes them.
    pub pending: u64,
    /// Losses in sources that somebody has accepted.
    pub accepted_losses: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Audits a lake. `progress` gets the size of each object that was compared.
///
/// # Errors
/// The stores fail.
pub async fn verify(stores: &Stores, progress: &(dyn Fn(u64) + Sync)) -> Result<Audit, CommitError> {
    let (mut audit, mut records) = scan_records(stores).await?;
    if !audit.faults.is_empty() {
        let (again, _) = scan_records(stores).await?;
        audit.keep_those_of(&again);
    }
    // What an operation has removed is not there any more.
    let removed: BTreeSet<ObjectKey> = records.iter().flat_map(|record| record.removed.iter().cloned()).collect();
    if !removed.is_empty() {
        records.iter_mut().for_each(|record| record.objects.retain(|object| !removed.contains(&object.key)));
    }
    objects::compare_all(stores, &records, progress, &mut audit).await?;
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

/// One scan of the commit log.
async fn scan_log(stores: &Stores) -> Result<Audit, CommitError> {
    let log = log::read(stores).await?;
    let mut audit = Audit::new(&log.fold, &log.leases);
    audit.objects = log.fold.objects.values().map(|total| total.count).sum();
    audit.bytes = log.fold.objects.values().map(|total| total.bytes).sum();
    audit.check_chains(&log.chains, &log.leases, log.overlaps, log.unreadable);
    audit.check_losses(stores).await?;
    Ok(audit)
}

/// One scan of leases, records and lists, but not of the objects: what it found, and the records.
async fn scan_records(stores: &Stores) -> Result<(Audit, Vec<Manifest>), CommitError> {
    let leases = stores.own_leases().await?;
    let log = log::read(stores).await?;
    let mut visible = BTreeMap::new();
    for kind in ObjectKind::ALL {
        visible.extend(stores.lake.list(kind.prefix()).await?.into_iter().map(|object| (object.key, object.bytes)));
    }
    let (in_flight, _) = log::intents(stores).await?;
    let (records, unreadable) = log::records(stores).await?;
    let (mut chains, mut fold, mut overlaps) = (Chains::default(), Fold::default(), Vec::new());
    for record in &records {
        fold.add(record);
        overlaps.extend(chains.insert(record));
    }
    let mut audit = Audit::new(&fold, &leases);
    audit.check_chains(&chains, &leases, overlaps, unreadable);
    if audit.faults.is_empty() {
        audit.check_log(&log, &records, &leases);
    }
    for record in &records {
        audit.check_sums(record);
    }
    let removed: BTreeSet<&ObjectKey> = records.iter().flat_map(|record| &record.removed).collect();
    let mut known: BTreeSet<&ObjectKey> =
        records.iter().flat_map(|record| &record.objects).map(|object| &object.key).collect();
    known.retain(|key| !removed.contains(*key));
    known.extend(in_flight.iter().flat_map(|intent| &intent.objects).map(|object| &object.key));
    // The intent of an operation is there until everything that it removes is gone.
    known.extend(in_flight.iter().flat_map(|intent| &intent.removed));
    audit.check_losses(stores).await?;
    audit.faults.extend(visible.into_keys().filter(|key| !known.contains(key)).map(|key| Fault::Unknown { key }));
    Ok((audit, records))
}

impl Audit {
    fn new(fold: &Fold, leases: &[Lease]) -> Self {
        let pending: BTreeSet<&str> =
            leases.iter().filter_map(|lease| lease.pending.as_ref()).map(|pending| pending.manifest.as_str()).collect();
        Audit { epochs: fold.epochs, totals: fold.totals.clone(), pending: pending.len() as u64, ..Audit::default() }
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
        self.shards = (chains.shards() + without_chain) as u64;
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

    /// Compares the commit log with all records, which were listed after it. `leases` were read before it.
    fn check_log(&mut self, log: &Log, records: &[Manifest], leases: &[Lease]) {
        let mut fold = Fold::default();
        let has_advanced = |record: &Manifest| {
            record.shards.iter().any(|shard| {
                let row = leases.iter().find(|lease| lease.key == shard.key);
                row.is_some_and(|lease| lease.checkpoint >= *shard.range.through())
            })
        };
        for record in records {
            if log.chains.coverage(record) == Coverage::Whole {
                fold.add(record);
            } else if has_advanced(record) {
                let problem = format!("the commit log lacks epoch {}", record.epoch);
                self.faults.push(Fault::Log { problem });
            }
        }
        if fold != log.fold {
            let problem = format!(
                "the commit log has {} epochs with {} records, and their commit records say {} and {}, or differ in other sums",
                log.fold.epochs, log.fold.totals.records, fold.epochs, fold.totals.records
            );
            self.faults.push(Fault::Log { problem });
        }
    }

    /// Adds up what a commit record says.
    fn check_sums(&mut self, record: &Manifest) {
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
        let mut disagree = |problem: String| self.faults.push(Fault::Sums { epoch: record.epoch.to_string(), problem });
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
}

#[cfg(test)]
mod tests {
    use checkpoints::{ManifestName, NewLease, Position, ShardId, ShardKey, StreamName};

    use super::*;

    /// The faults of a lake without commit records, with a row at record 7.
    fn faults(last_manifest: Option<&str>) -> usize {
        let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap());
        let mut lease = Lease::new(NewLease::new(key, Position::at(7_u64.into())));
        lease.last_manifest = last_manifest.map(|name| ManifestName::new(name).unwrap());
        let mut audit = Audit::default();
        audit.check_chains(&Chains::default(), &[lease], Vec::new(), Vec::new());
        audit.faults.len()
    }

    #[test]
    fn a_row_that_no_commit_moved_is_where_another_program_left_it() {
        assert_eq!(faults(None), 0);
        assert_eq!(faults(Some("_intents/lost.json")), 1, "the commit record that moved it is missing");
    }
}
