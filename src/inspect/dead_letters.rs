//! Dead letters in the lake: how many there are, from the commit log, and single ones, from the live objects in `error/`.

use pipeline::dead_letter::stored::{DeadLetterFilter, StoredLines};
use serde::Serialize;
use serde_json::Value;

use crate::commit::lake_log::HistoryError;
use crate::commit::log::Fold;
use crate::inspect::error_objects::{ErrorObject, live_error_objects};
use crate::lake::{LakeError, ObjectStore};

/// Dead letters of one code that arrived on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterGroup {
    /// Why they were set aside.
    pub code: String,
    /// The day of arrival: `2025-01-13`.
    pub day: String,
    /// How many.
    pub records: u64,
    /// In how many objects.
    pub files: u64,
    /// The size of these.
    pub bytes: u64,
}

/// One dead letter, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDeadLetter(pub Value);

/// All committed dead letters by code and day; of one code if it is given.
pub fn dead_letter_groups(fold: &Fold, code: Option<&str>) -> Vec<DeadLetterGroup> {
    let wanted = fold.dead_letters().into_iter().filter(|(found, _)| code.is_none_or(|code| code == *found));
    wanted
        .flat_map(|(code, days)| {
            days.into_iter().map(move |(day, total)| DeadLetterGroup {
                code: code.clone(),
                day,
                records: total.records,
                files: total.files,
                bytes: total.bytes,
            })
        })
        .collect()
}

/// The first `limit` live dead letters that are wanted, in the order of their objects' keys. Without `raw` the bytes of the records, which
/// may hold anything, are left out. A line that this version cannot parse is shown if everything is wanted.
///
/// # Errors
/// The log cannot be read, the lake fails, or an object is damaged.
pub async fn show_dead_letters(
    lake: &dyn ObjectStore,
    filter: &DeadLetterFilter,
    limit: usize,
    raw: bool,
) -> Result<Vec<StoredDeadLetter>, HistoryError> {
    let wants_all = *filter == DeadLetterFilter::default();
    let mut shown = Vec::new();
    for ErrorObject { key, .. } in live_error_objects(lake, filter).await? {
        if shown.len() >= limit {
            break;
        }
        let Some(bytes) = lake.get(&key).await? else { continue };
        let damaged = |error: std::io::Error| LakeError::Refused {
            operation: format!("read {key}"),
            problem: format!("it is damaged: {error}"),
        };
        // Line by line: records that repeat themselves are compressed a thousandfold.
        let mut lines = StoredLines::new(key.as_str(), bytes).map_err(damaged)?;
        while shown.len() < limit {
            let Some(line) = lines.next_line().map_err(damaged)? else { break };
            if !line.dead_letter.as_ref().map_or(wants_all, |letter| filter.wants(letter)) {
                continue;
            }
            if let Ok(mut letter) = serde_json::from_slice::<Value>(line.bytes) {
                if let (false, Some(fields)) = (raw, letter.as_object_mut()) {
                    fields.remove("rawData");
                }
                shown.push(StoredDeadLetter(letter));
            }
        }
    }
    Ok(shown)
}
