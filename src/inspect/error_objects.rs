//! The live error objects of a lake.
//!
//! Owns: listing them from the lake log. So what was redriven, discarded or replaced is not among them, nor what may still be rolled back.
//! Does not own: their dead letters.

use pipeline::dead_letter::stored::DeadLetterFilter;
use pipeline::layout::Folder;

use crate::commit::ObjectKind;
use crate::commit::lake_log::{HistoryError, ObjectFilter, extent, lake_at};
use crate::lake::{ObjectKey, ObjectStore};

/// A live error object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorObject {
    /// Its key.
    pub key: ObjectKey,
    /// Its dead letters.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// The live error objects in the newest version of the lake that may have what is wanted, by key.
///
/// # Errors
/// The log cannot be read.
pub async fn live_error_objects(
    lake: &dyn ObjectStore,
    filter: &DeadLetterFilter,
) -> Result<Vec<ErrorObject>, HistoryError> {
    let mut objects = Vec::new();
    let extent = extent(lake).await?;
    let at = lake_at(lake, &extent, extent.newest).await?;
    let wanted = ObjectFilter { kind: Some(ObjectKind::Error), ..ObjectFilter::default() };
    let mut live = at.live_objects(lake, wanted);
    while let Some(object) = live.next().await? {
        let folder = object.key.as_str().rsplit_once('/').and_then(|(folder, _)| Folder::parse(folder).ok());
        if folder.is_some_and(|folder| filter.may_have(&folder)) {
            objects.push(ErrorObject { key: object.key, rows: object.rows, bytes: object.bytes });
        }
    }
    objects.sort();
    Ok(objects)
}
