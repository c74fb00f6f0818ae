//! Reading the objects of both sides, several at once.
//!
//! Owns: the numbers of objects, datasets and codes in a comparison; how many bytes are in memory at once. Does not own: what is done with
//! the records (`matching`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::layout::Folder;
use pipeline::rows::{RowBatch, RowFile, RowIdentity};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::commit::ObjectKind;
use crate::lake::ObjectStore;
use crate::replay::diff::matching::Record;
use crate::replay::diff::{DiffError, DiffOptions, DiffProgress, IN_FLIGHT_BYTES, Side, SideObject};

/// Bytes of one permit of those that are in memory at once.
const PERMIT_BYTES: usize = 64 << 10;
const PERMITS: usize = IN_FLIGHT_BYTES / PERMIT_BYTES;

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Old,
    New,
}

/// An object of one side.
pub(super) struct Source {
    pub(super) side: Which,
    pub(super) object: SideObject,
    /// The number of the dataset of its rows.
    pub(super) dataset: usize,
}

/// The objects of both sides, by number: first the old ones, each side in the order of keys.
pub(super) struct Reader {
    lakes: [Arc<dyn ObjectStore>; 2],
    pub(super) sources: Vec<Source>,
    /// The names of datasets, by number.
    pub(super) datasets: Vec<String>,
    /// The only dataset that counts.
    only: Option<String>,
    codes: Mutex<Codes>,
    /// The columns that any file of a dataset has, by the number of the dataset.
    columns: Mutex<Vec<BTreeSet<String>>>,
    in_flight: Arc<Semaphore>,
    threads: usize,
}

/// The codes of dead letters, by number.
#[derive(Default)]
struct Codes {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

/// What is read of a dead letter. The bytes of the record are skipped.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetterLine<'l> {
    #[serde(borrow)]
    pub(super) error_code: Cow<'l, str>,
    #[serde(borrow, default)]
    pub(super) dataset: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub(super) stream: Cow<'l, str>,
    #[serde(borrow)]
    pub(super) shard_id: Cow<'l, str>,
    #[serde(borrow)]
    pub(super) sequence_number: Cow<'l, str>,
    pub(super) sub_sequence_number: i64,
}

impl Reader {
    pub(super) fn new(old: Side, new: Side, options: &DiffOptions) -> Arc<Self> {
        let only = options.dataset.clone();
        let mut datasets: BTreeSet<String> = BTreeSet::new();
        let mut sources = Vec::with_capacity(old.objects.len() + new.objects.len());
        let lakes = [old.lake, new.lake];
        for (side, mut objects) in [(Which::Old, old.objects), (Which::New, new.objects)] {
            objects.retain(|object| match object.kind {
                ObjectKind::Processed => only.is_none() || object.dataset == only,
                ObjectKind::Error => true,
                ObjectKind::Raw => false,
            });
            objects.sort_by(|left, right| left.key.cmp(&right.key));
            datasets.extend(objects.iter().filter_map(|object| object.dataset.clone()));
            sources.extend(objects.into_iter().map(|object| Source { side, object, dataset: 0 }));
        }
        let datasets: Vec<String> = datasets.into_iter().collect();
        for source in &mut sources {
            let name = source.object.dataset.as_deref().unwrap_or_default();
            source.dataset = datasets.binary_search_by(|dataset| dataset.as_str().cmp(name)).unwrap_or(0);
        }
        Arc::new(Reader {
            lakes,
            sources,
            columns: Mutex::new(vec![BTreeSet::new(); datasets.len().max(1)]),
            datasets,
            only,
            codes: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(PERMITS)),
            threads: options.threads.max(1),
        })
    }

    /// Rows and dead letters of both sides.
    pub(super) fn records(&self) -> u64 {
        self.sources.iter().map(|source| source.object.rows).sum()
    }

    /// Bytes of the objects of both sides.
    pub(super) fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.object.bytes).sum()
    }

    pub(super) fn source(&self, object: u32) -> &Source {
        &self.sources[object as usize]
    }

    /// The columns that any file of a dataset has, sorted. Complete once all objects were read.
    pub(super) fn columns_of(&self, dataset: usize) -> Vec<String> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner)[dataset].iter().cloned().collect()
    }

    pub(super) fn code(&self, number: u32) -> String {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner).names[number as usize].clone()
    }

    fn number_of_code(&self, name: &str) -> u32 {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = codes.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(codes.names.len()).expect("there are fewer codes than dead letters");
        codes.names.push(name.to_owned());
        codes.numbers.insert(name.to_owned(), number);
        number
    }

    /// Reads the records of one pass, in as many parts as there are threads. Identities are divided evenly: those of a part are above
    /// those of the part before.
    pub(super) async fn read_pass(
        self: &Arc<Self>,
        pass: u64,
        passes: u64,
        threads: usize,
        progress: &(dyn Fn(DiffProgress) + Sync),
    ) -> Result<Vec<Vec<Record>>, DiffError> {
        let all: Vec<u32> = (0..u32::try_from(self.sources.len()).unwrap_or(u32::MAX)).collect();
        let slots = passes * threads as u64;
        let first = pass * threads as u64;
        let reader = Arc::clone(self);
        let work = move |object: u32, bytes: Bytes| {
            let mut parts: Vec<Vec<Record>> = vec![Vec::new(); threads];
            reader.records_of(object, bytes, |record| {
                let slot = slot_of(record.id, slots);
                if let Some(part) = slot.checked_sub(first).and_then(|part| parts.get_mut(usize::try_from(part).ok()?))
                {
                    part.push(record);
                }
            })?;
            Ok(parts)
        };
        let share = usize::try_from(self.records() / slots).unwrap_or(0);
        let mut parts: Vec<Vec<Record>> = (0..threads).map(|_| Vec::with_capacity(share + share / 32 + 64)).collect();
        self.read_each(all, Arc::new(work), progress, |_, found| {
            for (part, found) in parts.iter_mut().zip(found) {
                part.extend(found);
            }
        })
        .await?;
        Ok(parts)
    }

    /// The records of an object.
    fn records_of(&self, object: u32, bytes: Bytes, mut each: impl FnMut(Record)) -> Result<(), DiffError> {
        let source = self.source(object);
        if source.object.kind == ObjectKind::Processed {
            let file = self.open_rows(object, bytes)?;
            let names = file.columns().iter().cloned();
            self.columns.lock().unwrap_or_else(PoisonError::into_inner)[source.dataset].extend(names);
            let batch = |batch: &RowBatch<'_>| {
                for ((id, hash), row) in batch.identities.iter().zip(batch.rows).zip(batch.first_row..) {
                    // A file is at most some GiB, so it has fewer rows than 2^32.
                    let row = u32::try_from(row).expect("a file has fewer than 2^32 rows");
                    each(Record { id: *id, hash: *hash, object, row });
                }
            };
            return file.read(|_, _| true, batch).map_err(|error| self.unreadable(object, error.to_string()));
        }
        let mut codes: HashMap<String, u32> = HashMap::new();
        self.dead_letters_of(object, &bytes, |row, line| {
            let known = codes.get(&*line.error_code).copied();
            let code = known.unwrap_or_else(|| {
                let number = self.number_of_code(&line.error_code);
                codes.insert(line.error_code.clone().into_owned(), number);
                number
            });
            let counts = self.only.as_deref().is_none_or(|only| line.dataset.as_deref() == Some(only));
            each(Record { id: identity_of(line), hash: dead_letter(code, counts), object, row });
        })
    }

    /// A file of rows.
    pub(super) fn open_rows(&self, object: u32, bytes: Bytes) -> Result<RowFile, DiffError> {
        let key = self.source(object).object.key.as_str();
        let folder = key.rsplit_once('/').and_then(|(folder, _)| Folder::parse(folder).ok());
        let partition = match &folder {
            Some(Folder::Processed { partition, .. }) => Some(partition),
            _ => None,
        };
        RowFile::open(bytes, partition).map_err(|error| self.unreadable(object, error.to_string()))
    }

    /// Gives each dead letter of an object with its number, from 0.
    pub(super) fn dead_letters_of(
        &self,
        object: u32,
        bytes: &[u8],
        mut each: impl FnMut(u32, &DeadLetterLine<'_>),
    ) -> Result<(), DiffError> {
        let invalid = |problem: String| self.unreadable(object, problem);
        let mut lines: Box<dyn BufRead + '_> = if self.source(object).object.key.as_str().ends_with(".zst") {
            let decoder = zstd::stream::read::Decoder::new(bytes).map_err(|error| invalid(error.to_string()))?;
            Box::new(BufReader::new(decoder))
        } else {
            Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(bytes)))
        };
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(|error| invalid(error.to_string()))? == 0 {
                return Ok(());
            }
            // The problem is not shown: it could name a value of the record.
            let read = serde_json::from_slice(&line);
            each(number, &read.map_err(|_| invalid(format!("line {} is not a dead letter", number + 1)))?);
            number += 1;
        }
    }

    pub(super) fn unreadable(&self, object: u32, problem: String) -> DiffError {
        DiffError::Unreadable { key: self.source(object).object.key.clone(), problem }
    }

    /// Reads objects, several at once, and works on each in a thread. The results come in any order.
    pub(super) async fn read_each<T: Send + 'static>(
        self: &Arc<Self>,
        objects: Vec<u32>,
        work: Arc<dyn Fn(u32, Bytes) -> Result<T, DiffError> + Send + Sync>,
        progress: &(dyn Fn(DiffProgress) + Sync),
        mut each: impl FnMut(u32, T),
    ) -> Result<(), DiffError> {
        let tasks: Vec<_> =
            objects.into_iter().map(|object| Arc::clone(self).read_one(object, Arc::clone(&work))).collect();
        let mut results = stream::iter(tasks).buffer_unordered(self.threads + 1);
        while let Some((object, found)) = results.try_next().await? {
            progress(DiffProgress::Read(self.source(object).object.bytes));
            each(object, found);
        }
        Ok(())
    }

    async fn read_one<T: Send + 'static>(
        self: Arc<Self>,
        object: u32,
        work: Arc<dyn Fn(u32, Bytes) -> Result<T, DiffError> + Send + Sync>,
    ) -> Result<(u32, T), DiffError> {
        let Source { side, object: SideObject { key, bytes, .. }, .. } = self.source(object);
        let permits = usize::try_from(*bytes).unwrap_or(usize::MAX).div_ceil(PERMIT_BYTES).clamp(1, PERMITS);
        let permits = u32::try_from(permits).expect("there are fewer permits than 2^32");
        let _in_flight = self.in_flight.acquire_many(permits).await.expect("the semaphore is never closed");
        let lake = &self.lakes[*side as usize];
        let bytes = lake.get(key).await?.ok_or_else(|| DiffError::Gone { key: key.clone() })?;
        let found = tokio::task::spawn_blocking(move || work(object, bytes)).await.map_err(|_| DiffError::Thread)??;
        Ok((object, found))
    }
}

/// Which of `slots` equal parts of all identities an identity is in.
fn slot_of(id: u128, slots: u64) -> u64 {
    let high = u128::from(u64::try_from(id >> 64).unwrap_or(0));
    u64::try_from((high * u128::from(slots)) >> 64).unwrap_or(0)
}

pub(super) fn identity_of(line: &DeadLetterLine<'_>) -> u128 {
    let (stream, shard, sequence) = (line.stream.as_bytes(), line.shard_id.as_bytes(), line.sequence_number.as_bytes());
    RowIdentity::hash(stream, shard, sequence, line.sub_sequence_number)
}

/// What a record of a dead letter has in place of a hash of values.
fn dead_letter(code: u32, counts: bool) -> u64 {
    u64::from(code) | u64::from(counts) << 32
}

/// The code of such a record, and whether it counts: it is of the only dataset, if there is one.
pub(super) fn code_of(hash: u64) -> (u32, bool) {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the number of the code")]
    let code = hash as u32;
    (code, hash >> 32 != 0)
}

/// Names of columns by their number in a sorted list.
pub(super) fn numbers(columns: &[String]) -> BTreeMap<&str, usize> {
    columns.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect()
}
