//! Comparing the objects of a lake with what their commit records say.
//!
//! The records are read a second time, a few at a time, so that a lake of any size takes the same memory.

use std::collections::BTreeSet;

use bytes::Bytes;
use checkpoints::ManifestName;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::file::metadata::ParquetMetaDataReader;
use pipeline::layout::COMMITS;

use crate::commit::lake_log::{AddedObject, Entry, HistoryError, LogVersion, extent, read_forward};
use crate::commit::log;
use crate::commit::{CommitError, EpochId, Manifest, ObjectKind, Stores};
use crate::inspect::CONCURRENT;
use crate::inspect::verify::lake_log::LogScan;
use crate::inspect::verify::names::{Name, Names};
use crate::inspect::verify::{Audit, Fault, VerifyProgress};
use crate::lake::{Checksum, ObjectKey};

/// Objects that are compared at once: each is in memory whole.
pub(super) const COMPARED_AT_ONCE: usize = CONCURRENT / 4;

/// Compares every object of the records of these epochs, without those that were removed.
pub(super) async fn compare_all(
    stores: &Stores,
    epochs: &Names,
    scan: &LogScan,
    progress: &(dyn Fn(VerifyProgress) + Sync),
    audit: &mut Audit,
) -> Result<(), CommitError> {
    let listed = stores.lake.list(COMMITS).await?;
    let keys: Vec<ObjectKey> = listed
        .into_iter()
        .map(|object| object.key)
        .filter(|key| EpochId::of_commit_key(key).is_some_and(|epoch| epochs.contains(&Name::of(epoch.as_str()))))
        .collect();
    let mut claimed = Names::new();
    let mut records = stream::iter(keys).map(|key| read_record(stores, key)).buffered(COMPARED_AT_ONCE);
    let mut wanted: Vec<(Writer, AddedObject)> = Vec::new();
    loop {
        let record = records.next().await.transpose()?;
        let is_end = record.is_none();
        if let Some(record) = record.flatten() {
            let live = record.objects.iter().filter(|object| !scan.is_removed(&record, &object.key));
            let new = live.filter(|object| claimed.insert(Name::of(object.key.as_str())));
            let writer = Writer { epoch: record.epoch.to_string(), is_operation: Some(record.kind.is_operation()) };
            wanted.extend(new.map(|object| (writer.clone(), AddedObject::from(object))));
        }
        if wanted.len() >= CONCURRENT || is_end {
            compare_some(stores, std::mem::take(&mut wanted), progress, audit).await?;
        }
        if is_end {
            break;
        }
    }
    drop_removed(stores, scan.newest, audit).await
}

/// Drops the faults of objects that operations have removed after `version`, which the audit has read, or are about to remove.
pub(super) async fn drop_removed(stores: &Stores, version: LogVersion, audit: &mut Audit) -> Result<(), CommitError> {
    let is_missing = |fault: &Fault| matches!(fault, Fault::Missing { .. });
    if !audit.faults.iter().any(is_missing) {
        return Ok(());
    }
    // The rows first, then the intents, then the log: an operation that ends meanwhile has its entry before its intent goes and its row
    // moves. An intent that was never decided removes nothing.
    let pending = stores.leases.list().await?.into_iter().filter_map(|lease| lease.pending);
    let pending: BTreeSet<ManifestName> = pending.map(|pending| pending.manifest).collect();
    let (intents, _) = log::intents(stores).await?;
    let decided = intents.iter().filter(|intent| pending.contains(&intent.epoch.manifest_name()));
    let mut removed: Names =
        decided.flat_map(|intent| &intent.removed).map(|object| Name::of(object.key.as_str())).collect();
    let lake = &*stores.lake;
    let newest = extent(lake).await?.newest;
    let mut note = |entry: Entry| removed.extend(entry.removed.iter().map(|object| Name::of(object.key.as_str())));
    match read_forward(lake, version, newest, None, &mut note).await {
        Ok(_) => {}
        Err(HistoryError::Lake(error)) => return Err(error.into()),
        // The scan of the log has reported it, or the next one does.
        Err(error) => tracing::debug!(%error, "the newest entries of the lake log cannot be read"),
    }
    let is_gone =
        |fault: &Fault| matches!(fault, Fault::Missing { key, .. } if removed.contains(&Name::of(key.as_str())));
    audit.faults.retain(|fault| !is_gone(fault));
    Ok(())
}

/// A commit record; `None` if it is gone or cannot be read, which the scan has reported.
async fn read_record(stores: &Stores, key: ObjectKey) -> Result<Option<Manifest>, CommitError> {
    Ok(stores.lake.get(&key).await?.and_then(|bytes| Manifest::from_bytes(&key, &bytes).ok()))
}

/// What an object's name begins with.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    /// The name of the epoch, or of the operation.
    pub(super) epoch: String,
    /// Whether it is an operation. Those copy objects, whose footers name the epochs that wrote them. `None` if it is not known.
    pub(super) is_operation: Option<bool>,
}

impl Writer {
    async fn is_operation(&self, stores: &Stores) -> Result<bool, CommitError> {
        if let Some(known) = self.is_operation {
            return Ok(known);
        }
        let Ok(epoch) = EpochId::try_from(self.epoch.clone()) else { return Ok(false) };
        let record = read_record(stores, epoch.commit_key()).await?;
        Ok(record.is_some_and(|record| record.kind.is_operation()))
    }
}

/// Compares some objects, each with its writer.
pub(super) async fn compare_some(
    stores: &Stores,
    objects: Vec<(Writer, AddedObject)>,
    progress: &(dyn Fn(VerifyProgress) + Sync),
    audit: &mut Audit,
) -> Result<(), CommitError> {
    let comparisons = objects.into_iter().map(|(writer, object)| async move {
        let fault = compare(stores, &writer, &object).await;
        progress(VerifyProgress::Compared(object.bytes));
        fault
    });
    // Collected, so that no closure is part of this function's future: it could not be sent to another thread.
    let comparisons: Vec<_> = comparisons.collect();
    let faults: Vec<Option<Fault>> = stream::iter(comparisons).buffered(COMPARED_AT_ONCE).try_collect().await?;
    audit.faults.extend(faults.into_iter().flatten());
    Ok(())
}

async fn compare(stores: &Stores, writer: &Writer, object: &AddedObject) -> Result<Option<Fault>, CommitError> {
    let epoch = writer.epoch.as_str();
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
    let Some(bytes) = footer else { return Ok(None) };
    Ok(match footer_problem(&bytes, epoch, object.rows) {
        Some(FooterProblem::OtherEpoch(Some(_))) if writer.is_operation(stores).await? => None,
        Some(problem) => altered(problem.to_string()),
        None => None,
    })
}

/// What is wrong with a Parquet file's footer.
enum FooterProblem {
    Unreadable(String),
    /// It has this many rows, and should have as many.
    Rows(i64, u64),
    /// It names this epoch; `None`: none, or what is not an epoch.
    OtherEpoch(Option<String>),
}

impl std::fmt::Display for FooterProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FooterProblem::Unreadable(error) => write!(f, "its footer cannot be read: {error}"),
            FooterProblem::Rows(found, expected) => write!(f, "its footer says {found} rows, not {expected}"),
            FooterProblem::OtherEpoch(Some(found)) => write!(f, "its footer names epoch {found}"),
            FooterProblem::OtherEpoch(None) => f.write_str("its footer names no epoch"),
        }
    }
}

fn footer_problem(bytes: &Bytes, epoch: &str, rows: u64) -> Option<FooterProblem> {
    let metadata = match ParquetMetaDataReader::new().parse_and_finish(bytes) {
        Ok(metadata) => metadata,
        Err(error) => return Some(FooterProblem::Unreadable(error.to_string())),
    };
    let file = metadata.file_metadata();
    if u64::try_from(file.num_rows()) != Ok(rows) {
        return Some(FooterProblem::Rows(file.num_rows(), rows));
    }
    let named = file.key_value_metadata().into_iter().flatten().find(|pair| pair.key == "shardlake.epoch");
    match named.and_then(|pair| pair.value.clone()) {
        Some(found) if found == epoch => None,
        found => Some(FooterProblem::OtherEpoch(found.filter(|name| EpochId::try_from(name.clone()).is_ok()))),
    }
}
