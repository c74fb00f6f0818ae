//! Examples of differences, as text.
//!
//! Owns: choosing a few of each kind, and reading them. Does not own: which values may be shown (`pipeline::rows`, and the statistics that
//! the lake has of each object).
//!
//! Of each kind the first are chosen by their identity; of each changed column, by the place of the old row. So the choice does not depend
//! on the order of reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use pipeline::rows::{RowIdentity, ShownRow, ShownValue};
use serde_json::Value;

use crate::commit::ObjectKind;
use crate::replay::diff::DiffError;
use crate::replay::diff::matching::{Examples, Place};
use crate::replay::diff::reading::Reader;
use crate::replay::diff::report::{Sample, SampleKind};

/// The examples that will be read.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    by_kind: Examples,
    /// By the numbers of the dataset and of the column in it.
    changed: BTreeMap<(usize, usize), BTreeSet<(Place, Place)>>,
}

impl Wanted {
    /// Adds examples of a part whose identities are above those of all parts before.
    pub(super) fn add(&mut self, more: Examples, samples: usize) {
        for (kind, examples) in more {
            let all = self.by_kind.entry(kind).or_default();
            let missing = samples.saturating_sub(all.len());
            all.extend(examples.into_iter().take(missing));
        }
    }

    pub(super) fn add_changed(&mut self, dataset: usize, column: usize, pair: (Place, Place), samples: usize) {
        let chosen = self.changed.entry((dataset, column)).or_default();
        let is_full = chosen.len() >= samples;
        if is_full && chosen.last().is_none_or(|last| *last < pair) {
            return;
        }
        chosen.insert(pair);
        if is_full {
            chosen.pop_last();
        }
    }

    fn places(&self) -> BTreeMap<u32, BTreeSet<u32>> {
        let of_kinds = self.by_kind.values().flatten().flat_map(|(old, new)| [*old, *new]).flatten();
        let changed = self.changed.values().flatten().flat_map(|(old, new)| [*old, *new]);
        let mut rows: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for place in of_kinds.chain(changed) {
            rows.entry(place.object).or_default().insert(place.row);
        }
        rows
    }
}

/// A row or a dead letter that was read for an example.
struct Shown {
    identity: RowIdentity,
    dataset: Option<String>,
    what: What,
}

enum What {
    Row(BTreeMap<String, ShownValue>),
    DeadLetter { code: String },
}

/// Reads the examples.
pub(super) async fn read(reader: &Arc<Reader>, wanted: Wanted) -> Result<Vec<Sample>, DiffError> {
    let rows = Arc::new(wanted.places());
    let work = {
        let (reader, rows) = (Arc::clone(reader), Arc::clone(&rows));
        move |object: u32, bytes: Bytes| show(&reader, object, bytes, &rows[&object])
    };
    let mut shown: BTreeMap<Place, Shown> = BTreeMap::new();
    reader
        .read_each(rows.keys().copied().collect(), Arc::new(work), &|_| {}, |object, found| {
            shown.extend(found.into_iter().map(|(row, shown)| (Place { object, row }, shown)));
        })
        .await?;
    let mut samples = Vec::new();
    for (kind, places) in wanted.by_kind {
        samples.extend(places.into_iter().filter_map(|(old, new)| {
            let get = |place: Option<Place>| place.and_then(|place| shown.get(&place));
            sample(kind, get(old), get(new))
        }));
    }
    let mut names: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for ((dataset, column), pairs) in wanted.changed {
        let columns = names.entry(dataset).or_insert_with(|| reader.columns_of(dataset));
        samples.extend(pairs.into_iter().filter_map(|(old, new)| {
            let (old, new) = (shown.get(&old)?, shown.get(&new)?);
            let sample = sample(SampleKind::Changed, Some(old), Some(new))?;
            let name = columns[column].clone();
            Some(Sample { values: changed_values(old, new, &name), column: Some(name), ..sample })
        }));
    }
    Ok(samples)
}

fn show(reader: &Reader, object: u32, bytes: Bytes, rows: &BTreeSet<u32>) -> Result<Vec<(u32, Shown)>, DiffError> {
    let source = reader.source(object);
    if source.object.kind == ObjectKind::Processed {
        let file = reader.open_rows(object, bytes)?;
        let rows = rows.iter().copied().map(u64::from).collect();
        let shown = file.show(&rows, &source.object.may_show);
        let shown = shown.map_err(|error| reader.unreadable(object, error.to_string()))?;
        let dataset = &source.object.dataset;
        let shown = shown.into_iter().filter_map(|ShownRow { row, identity, values }| {
            Some((u32::try_from(row).ok()?, Shown { identity, dataset: dataset.clone(), what: What::Row(values) }))
        });
        return Ok(shown.collect());
    }
    let mut shown = Vec::new();
    reader.dead_letters_of(object, &bytes, |row, line| {
        if rows.contains(&row) {
            let identity = RowIdentity {
                stream: line.stream.to_string(),
                shard: line.shard_id.to_string(),
                sequence: line.sequence_number.to_string(),
                subsequence: line.sub_sequence_number,
            };
            let dataset = line.dataset.as_ref().map(ToString::to_string);
            let what = What::DeadLetter { code: line.error_code.to_string() };
            shown.push((row, Shown { identity, dataset, what }));
        }
    })?;
    Ok(shown)
}

fn sample(kind: SampleKind, old: Option<&Shown>, new: Option<&Shown>) -> Option<Sample> {
    let RowIdentity { stream, shard, sequence, subsequence } = new.or(old)?.identity.clone();
    // What became of the record on a side: its code, or its dataset.
    let fate = |shown: Option<&Shown>| match shown {
        None => Value::Null,
        Some(Shown { what: What::DeadLetter { code }, .. }) => Value::from(code.as_str()),
        Some(Shown { what: What::Row(_), dataset, .. }) => Value::from(dataset.as_deref()),
    };
    let says_fate = !matches!(kind, SampleKind::OnlyOld | SampleKind::OnlyNew | SampleKind::Changed);
    let values = says_fate.then(|| [fate(old), fate(new)]);
    let dataset = [new, old].into_iter().flatten().find_map(|shown| shown.dataset.clone());
    Some(Sample { kind, dataset, stream, shard, sequence, subsequence, column: None, values })
}

/// Both values of a column, if both may be shown. A column that one side does not have is null there.
fn changed_values(old: &Shown, new: &Shown, column: &str) -> Option<[Value; 2]> {
    let value = |shown: &Shown| match &shown.what {
        What::Row(values) => match values.get(column) {
            Some(ShownValue::Value(value)) => Some(value.clone()),
            Some(ShownValue::Hidden) => None,
            None => Some(Value::Null),
        },
        What::DeadLetter { .. } => None,
    };
    Some([value(old)?, value(new)?])
}
