//! Choosing dead letters: how many of an object are wanted.
//!
//! Owns: counting the lines of objects. Does not own: what is wanted (`DeadLetterFilter`), which objects are live (`inspect`), what becomes
//! of the dead letters.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use pipeline::dead_letter::stored::{DeadLetterFilter, StoredLines};
use serde::Serialize;

use crate::commit::lake_log::{HistoryError, extent, lake_at};
use crate::commit::{EpochId, ObjectKind};
use crate::inspect::{ErrorObject, live_error_objects};
use crate::lake::{LakeError, ObjectStore};
use crate::redrive::RedriveError;

/// Objects that are read at the same time.
const CONCURRENT: usize = 8;
/// Lines that are read before other tasks of the thread have their turn.
const LINES_AT_ONCE: u64 = 1024;

/// What an object has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) object: ErrorObject,
    /// Lines that are wanted.
    pub(super) wanted: u64,
    /// All other lines.
    pub(super) others: u64,
    by_code: BTreeMap<String, u64>,
    by_dataset: BTreeMap<String, u64>,
}

/// What a selection has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selected {
    /// Dead letters that are wanted.
    pub dead_letters: u64,
    /// In how many objects.
    pub objects: u64,
    /// The size of these.
    pub bytes: u64,
    /// The wanted ones by code.
    pub by_code: BTreeMap<String, u64>,
    /// The wanted ones by dataset; those without a dataset are not counted.
    pub by_dataset: BTreeMap<String, u64>,
    /// Other dead letters that the lake has.
    pub left_alone: u64,
}

/// All dead letters of the newest version of a lake.
pub(super) async fn count_live(lake: &dyn ObjectStore) -> Result<u64, HistoryError> {
    let extent = extent(lake).await?;
    let live = lake_at(lake, &extent, extent.newest).await?.live_by_kind();
    Ok(live.get(&ObjectKind::Error).map_or(0, |total| total.rows))
}

/// Whether an operation of these has made an object.
pub(super) fn is_of(object: &ErrorObject, operations: &BTreeSet<EpochId>) -> bool {
    EpochId::of_object(&object.key).is_some_and(|epoch| operations.contains(&epoch))
}

/// Counts what an object has; `None` if it is gone.
pub(super) async fn count(
    lake: &dyn ObjectStore,
    object: ErrorObject,
    filter: &DeadLetterFilter,
) -> Result<Option<Counted>, RedriveError> {
    let damaged = |error: std::io::Error| RedriveError::Damaged { key: object.key.clone(), problem: error.to_string() };
    let Some(bytes) = lake.get(&object.key).await? else { return Ok(None) };
    let mut lines = StoredLines::new(object.key.as_str(), bytes).map_err(damaged)?;
    let (mut wanted, mut others) = (0_u64, 0_u64);
    let (mut by_code, mut by_dataset) = (BTreeMap::new(), BTreeMap::new());
    while let Some(line) = lines.next_line().map_err(damaged)? {
        match line.dead_letter.filter(|letter| filter.wants(letter)) {
            Some(letter) => {
                wanted += 1;
                *by_code.entry(letter.code.to_string()).or_default() += 1;
                if let Some(dataset) = letter.dataset {
                    *by_dataset.entry(dataset.into_owned()).or_default() += 1;
                }
            }
            None => others += 1,
        }
        if (wanted + others).is_multiple_of(LINES_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    Ok(Some(Counted { object, wanted, others, by_code, by_dataset }))
}

/// Counts what several objects have. Those that are gone are left out.
pub(super) async fn count_all(
    lake: &dyn ObjectStore,
    objects: Vec<ErrorObject>,
    filter: &DeadLetterFilter,
) -> Result<Vec<Counted>, RedriveError> {
    let counts = stream::iter(objects.into_iter().map(|object| count(lake, object, filter)));
    let counted: Vec<Option<Counted>> = counts.buffered(CONCURRENT).try_collect().await?;
    Ok(counted.into_iter().flatten().collect())
}

/// Counts the dead letters that are wanted, and changes nothing.
///
/// # Errors
/// The lake cannot be read, or an object is damaged.
pub async fn select(lake: &dyn ObjectStore, filter: &DeadLetterFilter) -> Result<Selected, RedriveError> {
    let all = count_live(lake).await?;
    let mut selected = Selected::default();
    for counted in count_all(lake, live_error_objects(lake, filter).await?, filter).await? {
        if counted.wanted > 0 {
            selected.objects += 1;
            selected.bytes += counted.object.bytes;
        }
        selected.dead_letters += counted.wanted;
        for (code, count) in counted.by_code {
            *selected.by_code.entry(code).or_default() += count;
        }
        for (dataset, count) in counted.by_dataset {
            *selected.by_dataset.entry(dataset).or_default() += count;
        }
    }
    selected.left_alone = all.saturating_sub(selected.dead_letters);
    Ok(selected)
}

/// Deletes all objects below a prefix. Whoever repeats it finds them gone.
pub(super) async fn delete_all(lake: &dyn ObjectStore, prefix: &str) -> Result<u64, LakeError> {
    let objects = lake.list(prefix).await?;
    let count = objects.len() as u64;
    let deletions = stream::iter(objects.into_iter().map(async |object| lake.delete(&object.key).await));
    deletions.buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await?;
    Ok(count)
}
