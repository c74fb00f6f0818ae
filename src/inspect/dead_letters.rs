//! What is in `error/`: lists from the commit records, single letters from the objects.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::commit::{CommitError, ObjectKind, Stores};
use crate::inspect::commit_records;
use crate::lake::ObjectKey;

/// An object of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LettersObject {
    /// Its key.
    pub key: ObjectKey,
    /// The code of its letters.
    pub code: String,
    /// The day of their arrival: `2025-01-13`.
    pub day: String,
    /// How many.
    pub letters: u64,
    /// Its size.
    pub bytes: u64,
}

/// One dead letter, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownLetter(pub Value);

/// All committed objects of dead letters; of one code if it is given.
///
/// # Errors
/// The stores fail.
pub async fn list_letters(stores: &Stores, code: Option<&str>) -> Result<Vec<LettersObject>, CommitError> {
    let (records, _) = commit_records(stores).await?;
    let mut objects = Vec::new();
    for record in records {
        for object in record.objects.into_iter().filter(|object| object.kind == ObjectKind::Error) {
            let value = |name: &str| {
                let segment = object.key.as_str().split('/').find_map(|segment| segment.strip_prefix(name));
                segment.unwrap_or("?").to_owned()
            };
            let found = value("reason=");
            if code.is_none_or(|code| code == found) {
                objects.push(LettersObject {
                    day: format!("{}-{}-{}", value("year="), value("month="), value("day=")),
                    code: found,
                    letters: object.rows,
                    bytes: object.bytes,
                    key: object.key,
                });
            }
        }
    }
    Ok(objects)
}

/// The first dead letters of these objects. Without `raw` the record's bytes, which may hold anything, are left out.
///
/// # Errors
/// The stores fail, or an object can't be read.
pub async fn show_letters(
    stores: &Stores,
    objects: &[LettersObject],
    limit: usize,
    raw: bool,
) -> Result<Vec<ShownLetter>, CommitError> {
    let mut shown = Vec::new();
    for object in objects {
        if shown.len() >= limit {
            break;
        }
        let Some(bytes) = stores.lake.get(&object.key).await? else { continue };
        let failed = |error: std::io::Error| crate::lake::LakeError::Refused {
            operation: format!("read {}", object.key),
            problem: error.to_string(),
        };
        // Line by line: records that repeat themselves are compressed a thousandfold.
        let mut lines = decompressed(&object.key, &bytes).map_err(failed)?;
        let mut line = Vec::new();
        while shown.len() < limit {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            if let Ok(mut letter) = serde_json::from_slice::<Value>(&line) {
                if let (false, Some(fields)) = (raw, letter.as_object_mut()) {
                    fields.remove("rawData");
                }
                shown.push(ShownLetter(letter));
            }
        }
    }
    Ok(shown)
}

fn decompressed<'a>(key: &ObjectKey, bytes: &'a [u8]) -> std::io::Result<Box<dyn BufRead + 'a>> {
    if key.as_str().ends_with(".zst") {
        return Ok(Box::new(BufReader::new(zstd::stream::read::Decoder::new(bytes)?)));
    }
    Ok(Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(bytes))))
}
