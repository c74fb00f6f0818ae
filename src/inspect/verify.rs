//! The audit of a lake against its commit records.
//!
//! | checked | a fault means |
//! |---|---|
//! | every commit record can be read | it is damaged or of another version |
//! | each shard's ranges form one unbroken chain from its beginning to where the lease was last moved by a commit | a commit record is missing, or records were read twice |
//! | records = rows + dead letters, raw lines = records, objects add up | the record contradicts itself |
//! | every object is there, with its size and checksum | it was deleted or altered |
//! | a Parquet file's footer names its epoch and its rows | it is another file |
//! | every visible object belongs to exactly one commit record | it was copied, or an uncommitted one is visible |
//!
//! It may run beside workers: leases are read first and objects last but one, so that an epoch that is committed in
//! between is at worst ahead of the leases; objects of an epoch that is being published are no fault. A list of many pages
//! sees the lake at several times: it may show a commit record and not the one before it, which was written meanwhile. So
//! what seems to be wrong is looked at a second time, and told if it still is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use bytes::Bytes;
use checkpoints::{Lease, Position, ShardKey, ShardRange};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::file::metadata::ParquetMetaDataReader;

use crate::commit::{CommitError, EpochId, Manifest, ObjectKind, ObjectOfEpoch, ShardOfEpoch, Stores, Totals};
use crate::inspect::{CONCURRENT, commit_records, intents};
use crate::lake::{Checksum, ObjectKey};

/// What an audit found.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// Commit records read.
    pub epochs: u64,
    /// Objects compared.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Shards whose chains were followed.
    pub shards: u64,
    /// What the records add up to.
    pub totals: Totals,
    /// Epochs that are decided and not yet advanced: no fault, the next worker finishes them.
    pub pending: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A commit record can't be read.
    UnreadableRecord {
        /// What and why.
        problem: String,
    },
    /// A shard's ranges have a gap: a commit record is missing, or the records in it were never committed.
    Gap {
        /// The shard.
        key: ShardKey,
        /// Where the chain breaks off.
        after: Position,
        /// Where it goes on, or where the lease says it has got to.
        before: Position,
    },
    /// A shard's range was committed twice, in part or whole.
    Overlap {
        /// The shard.
        key: ShardKey,
        /// The epoch that begins before the one before it ended.
        epoch: String,
        /// Its range.
        range: ShardRange,
    },
    /// A commit record contradicts itself.
    Sums {
        /// The epoch.
        epoch: String,
        /// Which sums.
        problem: String,
    },
    /// An object is not there.
    Missing {
        /// Its key.
        key: ObjectKey,
        /// The epoch that wrote it.
        epoch: String,
    },
    /// An object is not as it was written.
    Altered {
        /// Its key.
        key: ObjectKey,
        /// The epoch that wrote it.
        epoch: String,
        /// In what.
        problem: String,
    },
    /// A visible object belongs to no commit record.
    Unknown {
        /// Its key.
        key: ObjectKey,
    },
    /// An object belongs to two commit records.
    Claimed {
        /// Its key.
        key: ObjectKey,
        /// The second of them.
        epoch: String,
    },
}

impl Fault {
    /// Whether it is what a later look found. A gap is known by where it begins: beside workers, where it ends may move on.
    pub(crate) fn is_still(&self, later: &Fault) -> bool {
        match (self, later) {
            (Fault::Gap { key, after, .. }, Fault::Gap { key: of, after: behind, .. }) => key == of && after == behind,
            _ => self == later,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::UnreadableRecord { problem } => write!(f, "unreadable commit record: {problem}"),
            Fault::Gap { key, after, before } => {
                write!(f, "gap: {key} has no commit record for ({after}, {before}]")
            }
            Fault::Overlap { key, epoch, range } => {
                write!(
                    f,
                    "overlap: {key} was committed twice in ({}, {}], by epoch {epoch}",
                    range.after(),
                    range.through()
                )
            }
            Fault::Sums { epoch, problem } => write!(f, "sums: the commit record of epoch {epoch} says {problem}"),
            Fault::Missing { key, epoch } => write!(f, "missing: {key} of epoch {epoch} is not there"),
            Fault::Altered { key, epoch, problem } => write!(f, "altered: {key} of epoch {epoch}: {problem}"),
            Fault::Unknown { key } => write!(f, "unknown: {key} belongs to no commit record"),
            Fault::Claimed { key, epoch } => write!(f, "claimed twice: {key}, again by epoch {epoch}"),
        }
    }
}

/// Audits a lake. `progress` is told of every object that was compared: its bytes.
///
/// # Errors
/// The stores fail.
pub async fn verify(stores: &Stores, progress: &(dyn Fn(u64) + Sync)) -> Result<Audit, CommitError> {
    let (mut audit, records) = look(stores).await?;
    if !audit.faults.is_empty() {
        let (again, _) = look(stores).await?;
        audit.faults.retain(|fault| again.faults.iter().any(|later| fault.is_still(later)));
    }
    objects(stores, &records, progress, &mut audit).await?;
    Ok(audit)
}

/// One look at leases, records and lists; not into the objects. What it found, and the records.
async fn look(stores: &Stores) -> Result<(Audit, Vec<Manifest>), CommitError> {
    let leases = stores.leases.list().await?;
    let mut visible = BTreeMap::new();
    for prefix in ["processed/", "raw/", "error/"] {
        visible.extend(stores.lake.list(prefix).await?.into_iter().map(|object| (object.key, object.bytes)));
    }
    let (in_flight, _) = intents(stores).await?;
    let (records, unreadable) = commit_records(stores).await?;
    let mut audit = Audit { epochs: records.len() as u64, ..Audit::default() };
    let pending: BTreeSet<&str> =
        leases.iter().filter_map(|lease| lease.pending.as_ref()).map(|pending| pending.manifest.as_str()).collect();
    audit.pending = pending.len() as u64;
    audit.faults.extend(unreadable.into_iter().map(|error| Fault::UnreadableRecord { problem: error.to_string() }));
    chains(&records, &leases, &mut audit);
    for record in &records {
        audit.totals.add(&record.totals);
        sums(record, &mut audit);
    }
    let mut known: BTreeSet<&ObjectKey> =
        records.iter().flat_map(|record| &record.objects).map(|object| &object.key).collect();
    known.extend(in_flight.iter().flat_map(|intent| &intent.objects).map(|object| &object.key));
    audit.faults.extend(visible.into_keys().filter(|key| !known.contains(key)).map(|key| Fault::Unknown { key }));
    Ok((audit, records))
}

/// Follows every shard's ranges.
fn chains(records: &[Manifest], leases: &[Lease], audit: &mut Audit) {
    let mut ranges: BTreeMap<&ShardKey, Vec<(&ShardOfEpoch, &EpochId)>> = BTreeMap::new();
    for record in records {
        for shard in &record.shards {
            ranges.entry(&shard.key).or_default().push((shard, &record.epoch));
        }
    }
    let leases: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
    // A row that no commit of ours ever moved stands where another program (a KCL application) left it.
    for (key, _) in leases.iter().filter(|(_, lease)| lease.last_manifest.is_some() && !lease.checkpoint.is_start()) {
        ranges.entry(key).or_default();
    }
    audit.shards = ranges.len() as u64;
    for (key, mut chain) in ranges {
        chain.sort_by(|(left, _), (right, _)| {
            (left.range.after(), left.range.through()).cmp(&(right.range.after(), right.range.through()))
        });
        // A chain begins where reading was to start, or where another program had got to.
        let first = chain.first().filter(|(shard, _)| shard.taken_over || shard.range.after().is_start());
        let mut at = first.map_or(Position::Beginning, |(shard, _)| shard.range.after().clone());
        let last = chain.last().map(|(_, epoch)| epoch.manifest_name());
        for (ShardOfEpoch { range, .. }, epoch) in chain {
            if *range.after() > at {
                audit.faults.push(Fault::Gap { key: key.clone(), after: at, before: range.after().clone() });
            } else if *range.after() < at {
                let (epoch, range) = (epoch.to_string(), range.clone());
                audit.faults.push(Fault::Overlap { key: key.clone(), epoch, range });
            }
            at = range.through().clone();
        }
        // The leases were read before the records, so a chain may be longer. A shorter one lacks its last record; unless that
        // is the one by which the row was last moved: then another program has gone on from there.
        let complete = |lease: &Lease| last.as_ref().is_some_and(|manifest| lease.was_advanced_by(manifest));
        if let Some(lease) = leases.get(key).filter(|lease| lease.checkpoint > at && !complete(lease)) {
            audit.faults.push(Fault::Gap { key: key.clone(), after: at, before: lease.checkpoint.clone() });
        }
    }
}

/// Adds up what a commit record says.
fn sums(record: &Manifest, audit: &mut Audit) {
    let Totals { records, rows, dead_letters, raw_lines, .. } = &record.totals;
    let of_kind = |kind: ObjectKind| -> u64 {
        record.objects.iter().filter(|object| object.kind == kind).map(|object| object.rows).sum()
    };
    let rows: u64 = rows.values().sum();
    let letters: u64 = dead_letters.values().sum();
    let of_shards: u64 = record.shards.iter().map(|shard| shard.records).sum();
    let mut disagree = |problem: String| audit.faults.push(Fault::Sums { epoch: record.epoch.to_string(), problem });
    if rows + letters != *records {
        disagree(format!("{records} records, but {rows} rows and {letters} dead letters"));
    }
    if of_shards != *records {
        disagree(format!("{records} records, but {of_shards} in its shards"));
    }
    if of_kind(ObjectKind::Processed) != rows {
        disagree(format!("{rows} rows, but {} in its objects", of_kind(ObjectKind::Processed)));
    }
    if of_kind(ObjectKind::Error) != letters {
        disagree(format!("{letters} dead letters, but {} in its objects", of_kind(ObjectKind::Error)));
    }
    if let Some(lines) = raw_lines
        && (*lines != *records || of_kind(ObjectKind::Raw) != *lines)
    {
        disagree(format!("{records} records, but {lines} raw lines, {} in its objects", of_kind(ObjectKind::Raw)));
    }
}

/// Compares every object with what its commit record says.
async fn objects(
    stores: &Stores,
    records: &[Manifest],
    progress: &(dyn Fn(u64) + Sync),
    audit: &mut Audit,
) -> Result<(), CommitError> {
    let mut claimed: BTreeSet<&ObjectKey> = BTreeSet::new();
    let mut all = Vec::new();
    for record in records {
        for object in &record.objects {
            if claimed.insert(&object.key) {
                all.push((record.epoch.as_str(), object));
            } else {
                let (key, epoch) = (object.key.clone(), record.epoch.to_string());
                audit.faults.push(Fault::Claimed { key, epoch });
            }
        }
    }
    audit.objects = all.len() as u64;
    audit.bytes = all.iter().map(|(_, object)| object.bytes).sum();
    let comparisons = all.into_iter().map(|(epoch, object)| async move {
        let fault = compare(stores, epoch, object).await;
        progress(object.bytes);
        fault
    });
    // Collected, so that no closure is part of this function's future: it could not be sent to another thread.
    let comparisons: Vec<_> = comparisons.collect();
    let faults: Vec<Option<Fault>> = stream::iter(comparisons).buffered(CONCURRENT / 4).try_collect().await?;
    audit.faults.extend(faults.into_iter().flatten());
    Ok(())
}

async fn compare(stores: &Stores, epoch: &str, object: &ObjectOfEpoch) -> Result<Option<Fault>, CommitError> {
    let altered = |problem: String| Some(Fault::Altered { key: object.key.clone(), epoch: epoch.to_owned(), problem });
    let missing = || Some(Fault::Missing { key: object.key.clone(), epoch: epoch.to_owned() });
    let (found, footer) = if object.kind == ObjectKind::Processed {
        let Some(bytes) = stores.lake.get(&object.key).await? else { return Ok(missing()) };
        ((bytes.len() as u64, Checksum::of(&bytes)), Some(bytes))
    } else {
        match stores.lake.checksum(&object.key).await? {
            Some(found) => (found, None),
            None => return Ok(missing()),
        }
    };
    if found.0 != object.bytes {
        return Ok(altered(format!("it has {} bytes, not {}", found.0, object.bytes)));
    }
    if found.1 != object.crc64nvme {
        return Ok(altered(format!("its checksum is {}, not {}", found.1, object.crc64nvme)));
    }
    Ok(footer.and_then(|bytes| footer_problem(&bytes, epoch, object.rows)).and_then(altered))
}

/// What is wrong with a Parquet file's footer.
fn footer_problem(bytes: &Bytes, epoch: &str, rows: u64) -> Option<String> {
    let metadata = match ParquetMetaDataReader::new().parse_and_finish(bytes) {
        Ok(metadata) => metadata,
        Err(error) => return Some(format!("its footer can't be read: {error}")),
    };
    let file = metadata.file_metadata();
    if u64::try_from(file.num_rows()) != Ok(rows) {
        return Some(format!("its footer says {} rows, not {rows}", file.num_rows()));
    }
    let named = file.key_value_metadata().into_iter().flatten().find(|pair| pair.key == "shardlake.epoch");
    match named.and_then(|pair| pair.value.as_deref()) {
        Some(found) if found == epoch => None,
        found => Some(format!("its footer names epoch {}, not {epoch}", found.unwrap_or("none"))),
    }
}

#[cfg(test)]
mod tests {
    use checkpoints::{ManifestName, NewLease, ShardId, StreamName};

    use super::*;

    /// The faults of a lake without commit records, beside a row that stands at record 7.
    fn faults(last_manifest: Option<&str>) -> usize {
        let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap());
        let mut lease = Lease::new(NewLease::new(key, Position::at(7_u64.into())));
        lease.last_manifest = last_manifest.map(|name| ManifestName::new(name).unwrap());
        let mut audit = Audit::default();
        chains(&[], &[lease], &mut audit);
        audit.faults.len()
    }

    #[test]
    fn a_row_that_no_commit_moved_is_where_another_program_left_it() {
        assert_eq!(faults(None), 0);
        assert_eq!(faults(Some("_intents/lost.json")), 1, "the commit record that moved it is missing");
    }
}
