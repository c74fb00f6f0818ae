//! Which columns of changed rows have changed.
//!
//! Owns: reading changed rows again, and counting by column. Does not own: which rows have changed (`matching`).
//!
//! Pairs of rows are taken in the order of the old rows. Rows of one object come from one time, so the new rows of neighbours are in few
//! objects as well, and few objects are read more than once. A quarter of the memory is for the hashes of the old rows, and as much for
//! those of the new rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pipeline::rows::RowBatch;

use crate::replay::diff::matching::Place;
use crate::replay::diff::reading::{Reader, numbers};
use crate::replay::diff::report::{ColumnDiff, Diff};
use crate::replay::diff::samples::Wanted;
use crate::replay::diff::{DiffError, DiffOptions, DiffProgress};

/// Rows that are wanted of each object: their number in the object, and which pair they belong to.
type Rows = BTreeMap<u32, Vec<(u32, usize)>>;

/// Compares pairs of rows column by column: the old one and the new one, of one dataset.
pub(super) async fn compare_changed(
    reader: &Arc<Reader>,
    mut pairs: Vec<(Place, Place)>,
    options: &DiffOptions,
    progress: &(dyn Fn(DiffProgress) + Sync),
    diff: &mut Diff,
    wanted: &mut Wanted,
) -> Result<(), DiffError> {
    pairs.sort_unstable();
    for of_dataset in pairs.chunk_by(|left, right| dataset_of(reader, left.0) == dataset_of(reader, right.0)) {
        let dataset = dataset_of(reader, of_dataset[0].0);
        let columns: Arc<[String]> = reader.columns_of(dataset).into();
        let bytes_of_pair = 8 * columns.len() as u64 + 32;
        let pairs_max = usize::try_from(options.memory / 4 / bytes_of_pair).unwrap_or(usize::MAX).max(1);
        let mut counts = vec![ColumnDiff::default(); columns.len()];
        for pairs in of_dataset.chunks(pairs_max) {
            compare_some(reader, pairs, &columns, progress, |column, pair, old, new| {
                let count: &mut ColumnDiff = &mut counts[column];
                count.changed += 1;
                count.became_null += u64::from(new == 0);
                count.was_null += u64::from(old == 0);
                wanted.add_changed(dataset, column, pair, options.samples);
            })
            .await?;
        }
        let found = &mut diff.datasets.entry(reader.datasets[dataset].clone()).or_default().columns;
        for (name, count) in columns.iter().zip(counts).filter(|(_, count)| count.changed > 0) {
            let all = found.entry(name.clone()).or_default();
            all.changed += count.changed;
            all.became_null += count.became_null;
            all.was_null += count.was_null;
        }
    }
    Ok(())
}

fn dataset_of(reader: &Reader, place: Place) -> usize {
    reader.source(place.object).dataset
}

/// Compares some pairs. `each` is called for each changed value: column, pair, and the hashes of both values.
async fn compare_some(
    reader: &Arc<Reader>,
    pairs: &[(Place, Place)],
    columns: &Arc<[String]>,
    progress: &(dyn Fn(DiffProgress) + Sync),
    mut each: impl FnMut(usize, (Place, Place), u64, u64),
) -> Result<(), DiffError> {
    let width = columns.len();
    let mut hashes = vec![0_u64; pairs.len() * width];
    let mut old: Rows = BTreeMap::new();
    let mut new: Rows = BTreeMap::new();
    for (pair, (old_place, new_place)) in pairs.iter().enumerate() {
        old.entry(old_place.object).or_default().push((old_place.row, pair));
        new.entry(new_place.object).or_default().push((new_place.row, pair));
    }
    read_rows(reader, old, columns, progress, |pair, found| {
        hashes[pair * width..(pair + 1) * width].copy_from_slice(found);
    })
    .await?;
    read_rows(reader, new, columns, progress, |pair, found| {
        let before = &hashes[pair * width..(pair + 1) * width];
        for (column, (old, new)) in before.iter().zip(found).enumerate() {
            if old != new {
                each(column, pairs[pair], *old, *new);
            }
        }
    })
    .await
}

/// Reads rows of objects, and gives the hashes of all columns of each.
async fn read_rows(
    reader: &Arc<Reader>,
    mut rows: Rows,
    columns: &Arc<[String]>,
    progress: &(dyn Fn(DiffProgress) + Sync),
    mut each: impl FnMut(usize, &[u64]),
) -> Result<(), DiffError> {
    for wanted in rows.values_mut() {
        wanted.sort_unstable();
    }
    let objects: Vec<u32> = rows.keys().copied().collect();
    progress(DiffProgress::Planned(objects.iter().map(|object| reader.source(*object).object.bytes).sum()));
    let rows = Arc::new(rows);
    let work = {
        let (reader, rows, columns) = (Arc::clone(reader), Arc::clone(&rows), Arc::clone(columns));
        move |object: u32, bytes: Bytes| hashes_of(&reader, object, bytes, &rows[&object], &columns)
    };
    reader
        .read_each(objects, Arc::new(work), progress, |object, found| {
            for ((_, pair), hashes) in rows[&object].iter().zip(found.chunks_exact(columns.len().max(1))) {
                each(*pair, hashes);
            }
        })
        .await
}

/// The hashes of all columns of some rows of an object, row after row.
fn hashes_of(
    reader: &Reader,
    object: u32,
    bytes: Bytes,
    rows: &[(u32, usize)],
    columns: &[String],
) -> Result<Vec<u64>, DiffError> {
    let file = reader.open_rows(object, bytes)?;
    let numbers = numbers(columns);
    let places: Vec<Option<usize>> = file.columns().iter().map(|name| numbers.get(name.as_str()).copied()).collect();
    let width = columns.len();
    let mut hashes = vec![0; rows.len() * width];
    let begin = |row: u64| rows.partition_point(|(wanted, _)| u64::from(*wanted) < row);
    let batch = |batch: &RowBatch<'_>| {
        let first = begin(batch.first_row);
        let end = begin(batch.first_row + batch.identities.len() as u64);
        for (place, (row, _)) in rows[first..end].iter().enumerate() {
            let row_of_batch = usize::try_from(u64::from(*row) - batch.first_row).expect("it is in the batch");
            let hashes = &mut hashes[(first + place) * width..(first + place + 1) * width];
            for (column, place) in batch.columns.iter().zip(&places) {
                if let Some(place) = place {
                    hashes[*place] = column[row_of_batch];
                }
            }
        }
    };
    let wanted = |first: u64, end: u64| begin(first) < begin(end);
    file.read(wanted, batch).map_err(|error| reader.unreadable(object, error.to_string()))?;
    Ok(hashes)
}
