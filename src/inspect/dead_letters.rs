//! Dead letters in the lake: how many there are, from the commit log, and single ones, from the objects in `error/`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use serde::Serialize;
use serde_json::Value;

use crate::commit::log::Fold;
use crate::commit::{CommitError, EpochId, ObjectKind, Stores};
use crate::lake::{LakeError, ObjectKey};

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

/// The first `limit` dead letters in the order of their objects' keys; of one code if it is given. Without `raw` the bytes of
/// the records, which may hold anything, are left out.
///
/// # Errors
/// The stores fail, or an object cannot be read.
pub async fn show_dead_letters(
    stores: &Stores,
    code: Option<&str>,
    limit: usize,
    raw: bool,
) -> Result<Vec<StoredDeadLetter>, CommitError> {
    let area = ObjectKind::Error.prefix();
    let prefix = code.map_or_else(|| area.to_owned(), |code| format!("{area}reason={code}/"));
    let mut committed: HashMap<EpochId, bool> = HashMap::new();
    let mut shown = Vec::new();
    for object in stores.lake.list(&prefix).await? {
        if shown.len() >= limit {
            break;
        }
        // What no epoch of ours wrote is not shown, nor what may still be rolled back.
        let Some(epoch) = EpochId::of_object(&object.key) else { continue };
        let is_committed = match committed.get(&epoch) {
            Some(is_committed) => *is_committed,
            None => {
                let is_committed = stores.lake.get(&epoch.commit_key()).await?.is_some();
                committed.insert(epoch, is_committed);
                is_committed
            }
        };
        if !is_committed {
            continue;
        }
        let Some(bytes) = stores.lake.get(&object.key).await? else { continue };
        read_letters(&object.key, &bytes, limit, raw, &mut shown).map_err(|error| LakeError::Refused {
            operation: format!("read {}", object.key),
            problem: error.to_string(),
        })?;
    }
    Ok(shown)
}

/// Adds the dead letters of an object, up to `limit` in all.
fn read_letters(
    key: &ObjectKey,
    bytes: &[u8],
    limit: usize,
    raw: bool,
    shown: &mut Vec<StoredDeadLetter>,
) -> std::io::Result<()> {
    // Line by line: records that repeat themselves are compressed a thousandfold.
    let mut lines = decompressed(key, bytes)?;
    let mut line = Vec::new();
    while shown.len() < limit {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if let Ok(mut letter) = serde_json::from_slice::<Value>(&line) {
            if let (false, Some(fields)) = (raw, letter.as_object_mut()) {
                fields.remove("rawData");
            }
            shown.push(StoredDeadLetter(letter));
        }
    }
    Ok(())
}

fn decompressed<'a>(key: &ObjectKey, bytes: &'a [u8]) -> std::io::Result<Box<dyn BufRead + 'a>> {
    if key.as_str().ends_with(".zst") {
        return Ok(Box::new(BufReader::new(zstd::stream::read::Decoder::new(bytes)?)));
    }
    Ok(Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(bytes))))
}
