//! Comparing the objects of a lake with what their commit records say.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::file::metadata::ParquetMetaDataReader;

use crate::commit::{CommitError, Manifest, ObjectKind, ObjectOfEpoch, Stores};
use crate::inspect::CONCURRENT;
use crate::inspect::verify::{Audit, Fault};
use crate::lake::{Checksum, ObjectKey};

/// Compares every object. `progress` gets the size of each one that was compared.
pub(super) async fn compare_all(
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
        Err(error) => return Some(format!("its footer cannot be read: {error}")),
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
