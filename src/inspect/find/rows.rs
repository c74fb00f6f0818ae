//! Searching one object: a file of rows, dead letters, or raw lines.
//!
//! Owns: which parts of a file of rows are requested, and what is said of what was found. Does not own: comparing (`pipeline::rows`,
//! `wanted`), which objects are searched (`mod`).

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::dead_letter::stored::StoredLines;
use pipeline::layout::Folder;
use pipeline::rows::{ColumnValue, FOOTER_BYTES, FileParts, FoundRow, RowFile, RowIdentity, footer_begin};
use pipeline::time::format_rfc3339;

use crate::commit::lake_log::AddedObject;
use crate::commit::{EpochId, ObjectKind};
use crate::inspect::find::wanted::{LineOf, Matcher};
use crate::inspect::find::{FindError, Found, Identity};
use crate::lake::{ObjectKey, ObjectStore};
use crate::source::each_raw_line;

/// A file of rows of at most this size is read whole: one request takes less time than three.
const WHOLE_BYTES: u64 = 1 << 20;
/// Requests for parts of one file that are in progress at once.
const CONCURRENT_PARTS: usize = 4;

/// What was found in an object.
#[derive(Debug, Default)]
pub(super) struct Searched {
    pub(super) found: Vec<Found>,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

/// An object that is searched, with the lake that it is in.
pub(super) struct Place {
    pub(super) lake: Arc<dyn ObjectStore>,
    pub(super) object: AddedObject,
}

impl Place {
    /// Searches the object; `None` if it is gone.
    pub(super) async fn search(&self, matcher: &Arc<Matcher>) -> Result<Option<Searched>, FindError> {
        match self.object.kind {
            ObjectKind::Processed => self.search_rows(matcher).await,
            ObjectKind::Error => self.search_lines(matcher, dead_letters).await,
            ObjectKind::Raw => self.search_lines(matcher, raw_lines).await,
        }
    }

    async fn search_rows(&self, matcher: &Arc<Matcher>) -> Result<Option<Searched>, FindError> {
        let AddedObject { key, dataset, bytes: length, .. } = &self.object;
        let Some(of) = matcher.of(dataset.as_deref()) else { return Ok(Some(Searched::default())) };
        let mut file = File { place: self, parts: FileParts::new(*length), read: 0 };
        let begin = if *length <= WHOLE_BYTES { 0 } else { length - FOOTER_BYTES };
        let Some(last) = file.request(begin..*length).await? else { return Ok(None) };
        let footer = footer_begin(*length, &last).ok_or_else(|| self.unreadable("it is too short"))?;
        if footer < begin && file.request(footer..*length).await?.is_none() {
            return Ok(None);
        }
        let mut rows: BTreeSet<u64> = BTreeSet::new();
        for conditions in &of.rows {
            // Filters are small, and exclude most files that do not have a pseudonym.
            if begin > 0 && !file.request_all(file.open()?.bytes_of_filters(conditions)).await? {
                return Ok(None);
            }
            let Some(needed) = file.open()?.bytes_to_find(conditions) else { continue };
            if !file.request_all(needed).await? {
                return Ok(None);
            }
            let (opened, conditions): (RowFile, Vec<ColumnValue>) = (file.open()?, conditions.clone());
            let found = in_thread(move || opened.find(&conditions)).await?;
            rows.extend(found.map_err(|error| self.unreadable(&error.to_string()))?);
        }
        let mut found = Vec::new();
        if !rows.is_empty() {
            if !file.request_all(file.open()?.bytes_to_identify(&rows)).await? {
                return Ok(None);
            }
            let identified = file.open()?.identify(&rows).map_err(|error| self.unreadable(&error.to_string()))?;
            found.extend(identified.into_iter().map(|row| row_of(key, dataset.as_ref(), row)));
        }
        Ok(Some(Searched { found, bytes: file.read }))
    }

    async fn search_lines(
        &self,
        matcher: &Arc<Matcher>,
        search: fn(&AddedObject, Bytes, &Matcher) -> Result<Vec<Found>, String>,
    ) -> Result<Option<Searched>, FindError> {
        let Some(bytes) = self.lake.get(&self.object.key).await? else { return Ok(None) };
        let (object, matcher, read) = (self.object.clone(), Arc::clone(matcher), bytes.len() as u64);
        let found = in_thread(move || search(&object, bytes, &matcher)).await?;
        let found = found.map_err(|problem| self.unreadable(&problem))?;
        Ok(Some(Searched { found, bytes: read }))
    }

    fn unreadable(&self, problem: &str) -> FindError {
        FindError::Unreadable { key: self.object.key.clone(), problem: problem.to_owned() }
    }
}

/// A file of rows of which parts are in memory.
struct File<'p> {
    place: &'p Place,
    parts: FileParts,
    read: u64,
}

impl File<'_> {
    /// Requests a part; `None` if the file is gone.
    async fn request(&mut self, range: Range<u64>) -> Result<Option<Bytes>, FindError> {
        let bytes = self.place.lake.get_range(&self.place.object.key, range.clone()).await?;
        if let Some(bytes) = &bytes {
            self.read += bytes.len() as u64;
            self.parts.add(range.start, bytes.clone());
        }
        Ok(bytes)
    }

    /// Requests the parts that are not in memory. Returns false if the file is gone.
    async fn request_all(&mut self, ranges: Vec<Range<u64>>) -> Result<bool, FindError> {
        let missing: Vec<Range<u64>> =
            ranges.into_iter().filter(|range| !self.parts.has(range.start, range.end)).collect();
        let Place { lake, object } = self.place;
        let requests = stream::iter(missing).map(|range| async move {
            let begin = range.start;
            lake.get_range(&object.key, range).await.map(|bytes| (begin, bytes))
        });
        let parts: Vec<(u64, Option<Bytes>)> = requests.buffered(CONCURRENT_PARTS).try_collect().await?;
        for (begin, bytes) in parts {
            let Some(bytes) = bytes else { return Ok(false) };
            self.read += bytes.len() as u64;
            self.parts.add(begin, bytes);
        }
        Ok(true)
    }

    fn open(&self) -> Result<RowFile, FindError> {
        let folder = self.place.object.key.as_str().rsplit_once('/').and_then(|(folder, _)| Folder::parse(folder).ok());
        let partition = match &folder {
            Some(Folder::Processed { partition, .. }) => Some(partition),
            _ => None,
        };
        RowFile::open_parts(self.parts.clone(), partition).map_err(|error| self.place.unreadable(&error.to_string()))
    }
}

async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FindError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FindError::Thread)
}

fn row_of(object: &ObjectKey, dataset: Option<&String>, row: FoundRow) -> Found {
    let FoundRow { row, identity: RowIdentity { stream, shard, sequence, subsequence }, arrival_ms } = row;
    Found {
        kind: ObjectKind::Processed,
        object: object.clone(),
        number: row,
        dataset: dataset.cloned(),
        code: None,
        identity: Some(Identity { stream, shard, sequence, subsequence: u64::try_from(subsequence).unwrap_or(0) }),
        arrival_ms,
        arrived_at: arrival_ms.map(format_rfc3339),
        epoch: EpochId::of_object(object),
    }
}

/// The dead letters of an object that are wanted.
fn dead_letters(object: &AddedObject, bytes: Bytes, matcher: &Matcher) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let mut lines = StoredLines::new(object.key.as_str(), bytes).map_err(|error| error.to_string())?;
    let mut number = 0;
    while let Some(line) = lines.next_line().map_err(|error| error.to_string())? {
        number += 1;
        // A line of a later version has no identity that this one knows.
        let Some(letter) = line.dead_letter else { continue };
        let of = LineOf {
            stream: &letter.stream,
            shard: &letter.shard,
            sequence: &letter.sequence,
            sub: letter.sub_sequence,
        };
        if !matcher.wants_line(Some(of), letter.dataset.as_deref(), &letter.raw) {
            continue;
        }
        found.push(Found {
            kind: ObjectKind::Error,
            object: object.key.clone(),
            number,
            dataset: letter.dataset.map(std::borrow::Cow::into_owned),
            code: Some(letter.code.to_string()),
            identity: Some(Identity {
                stream: letter.stream.into_owned(),
                shard: letter.shard.into_owned(),
                sequence: letter.sequence.into_owned(),
                subsequence: letter.sub_sequence,
            }),
            arrival_ms: Some(letter.arrival_ms),
            arrived_at: Some(format_rfc3339(letter.arrival_ms)),
            epoch: EpochId::of_object(&object.key),
        });
    }
    Ok(found)
}

/// The raw lines of an object that are wanted.
fn raw_lines(object: &AddedObject, bytes: Bytes, matcher: &Matcher) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let read = each_raw_line(bytes, |number, identity, line| {
        let of = identity.map(|of| LineOf {
            stream: &of.stream,
            shard: &of.shard,
            sequence: &of.sequence,
            sub: of.sub_sequence,
        });
        if !matcher.wants_line(of, object.dataset.as_deref(), line) {
            return;
        }
        let arrival_ms = identity.map(|of| of.arrival_ms);
        found.push(Found {
            kind: ObjectKind::Raw,
            object: object.key.clone(),
            number,
            dataset: object.dataset.clone(),
            code: None,
            identity: of.map(|of| Identity {
                stream: of.stream.to_owned(),
                shard: of.shard.to_owned(),
                sequence: of.sequence.to_owned(),
                subsequence: of.sub,
            }),
            arrival_ms,
            arrived_at: arrival_ms.map(format_rfc3339),
            epoch: EpochId::of_object(&object.key),
        });
    });
    read.map_err(|error| error.to_string())?;
    Ok(found)
}
