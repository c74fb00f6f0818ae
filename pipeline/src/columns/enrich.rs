//! The stage `enrich`: the columns that no field of the record holds.
//!
//! Owns: joining lookup tables, the parts of the event time, the arrival time, the stream and the shard. Does not own: the
//! times themselves (`validate`), sequence numbers, which `block` copies from the records.
//!
//! A lookup is joined on the value as it arrived, before it is anonymized. Each distinct value is looked up once.

use crate::columns::leaf::Values;
use crate::columns::micro_batch::{Buffers, Dense, MicroBatch, reject};
use crate::dataset::definition::TimePart;
use crate::dataset::plan::{LeafSource, Plan, PlannedLookup, Spot};
use crate::dataset::types::ScalarType;
use crate::dead_letter::code::Code;
use crate::time::{DAY_US, day_of};

/// Which rows of the lookup tables belong to which values.
#[derive(Debug)]
pub(crate) struct Joins {
    /// For each lookup, and each value of the dictionary that it is joined on: the row plus one, 0 if there is none.
    rows: Vec<Vec<u32>>,
}

impl Joins {
    pub(crate) fn new(plan: &Plan) -> Self {
        Joins { rows: vec![Vec::new(); plan.lookups.len()] }
    }

    pub(crate) fn memory(&self) -> usize {
        self.rows.iter().map(|rows| rows.capacity() * size_of::<u32>()).sum()
    }
}

/// Fills the dense values of every leaf that no input holds.
pub(super) fn enrich(
    plan: &Plan,
    batch: &mut MicroBatch<'_>,
    joins: &mut Joins,
    values: &mut [Values],
    buffers: &mut Buffers,
) {
    for ((number, lookup), rows_of) in plan.lookups.iter().enumerate().zip(&mut joins.rows) {
        let rows = join(lookup, rows_of, batch, values, &buffers.dense[lookup.on]);
        for (leaf, planned) in plan.leaves.iter().enumerate() {
            if let LeafSource::Lookup { lookup: from, column } = planned.source
                && from == number
            {
                let cells = lookup.table.cells(column);
                looked_up(&rows, cells, &mut values[leaf], planned.data_type, &mut buffers.dense[leaf]);
            }
        }
    }
    ingest(plan, batch, values, buffers);
}

/// The row of a lookup table that belongs to each record, plus one; 0 if there is none. Empty if no record has a value.
fn join(
    lookup: &PlannedLookup,
    rows_of: &mut Vec<u32>,
    batch: &mut MicroBatch<'_>,
    values: &[Values],
    on: &Dense,
) -> Vec<u32> {
    let Values::Dictionary(dictionary) = &values[lookup.on] else { return Vec::new() };
    if on.absent {
        return Vec::new();
    }
    for value in dictionary.arrived.values_from(rows_of.len()) {
        rows_of.push(lookup.table.row(value).map_or(0, |row| u32::try_from(row + 1).unwrap_or(0)));
    }
    let row_of = |value: &u32| if *value == 0 { 0 } else { rows_of[*value as usize - 1] };
    let rows: Vec<u32> = on.numbers.iter().map(row_of).collect();
    if lookup.reject_missing {
        for ((row, value), rejection) in rows.iter().zip(&on.numbers).zip(batch.rejections.iter_mut()) {
            if *row == 0 && *value != 0 {
                reject(rejection, Code::LookupMissing, Spot::Leaf(lookup.on));
            }
        }
    }
    rows
}

/// The values of a lookup table's column for each record's row (plus one; 0: none).
fn looked_up(rows: &[u32], cells: &[Option<String>], values: &mut Values, data_type: ScalarType, dense: &mut Dense) {
    dense.absent = rows.is_empty();
    let cell = |row: u32| row.checked_sub(1).and_then(|row| cells[row as usize].as_deref());
    match values {
        Values::Dictionary(dictionary) => {
            dense.numbers.clear();
            dense
                .numbers
                .extend(rows.iter().map(|row| cell(*row).map_or(0, |text| dictionary.number_of(text.as_bytes()))));
        }
        _ => {
            dense.values.clear();
            dense.valid.clear();
            for row in rows {
                let number = cell(*row).and_then(|text| match data_type {
                    ScalarType::Float64 => text.parse::<f64>().ok().map(|value| value.to_bits().cast_signed()),
                    _ => text.parse::<i64>().ok(),
                });
                dense.values.push(number.unwrap_or(0));
                dense.valid.push(number.is_some());
            }
        }
    }
}

/// The columns that come from the record's times and from where it was read.
fn ingest(plan: &Plan, batch: &MicroBatch<'_>, values: &mut [Values], buffers: &mut Buffers) {
    let Buffers { dense, event_us, arrival_us, .. } = buffers;
    for ((leaf, values), dense) in plan.leaves.iter().zip(values).zip(dense) {
        let constant = match &leaf.source {
            LeafSource::Stream => &batch.source.stream,
            LeafSource::Shard => &batch.source.shard,
            LeafSource::EventTime(part) => {
                dense.values.clear();
                dense.values.extend(event_us.iter().map(|us| time_part(*us, *part, leaf.data_type)));
                continue;
            }
            LeafSource::ArrivalTime => {
                dense.values.clear();
                dense.values.extend(arrival_us.iter().map(|us| time_part(*us, TimePart::Whole, leaf.data_type)));
                continue;
            }
            LeafSource::SubSequence => {
                let number = |sub_sequence: u64| i64::try_from(sub_sequence).unwrap_or(i64::MAX);
                dense.values.clear();
                dense.values.extend(batch.records.iter().map(|record| number(record.sub_sequence)));
                continue;
            }
            LeafSource::Sequence | LeafSource::Input(_) | LeafSource::Lookup { .. } => continue,
        };
        if let Values::Dictionary(dictionary) = values {
            dense.constant = true;
            dense.numbers.clear();
            dense.numbers.push(dictionary.number_of(constant.as_bytes()));
        }
    }
}

fn time_part(us: i64, part: TimePart, data_type: ScalarType) -> i64 {
    let days = us.div_euclid(DAY_US);
    match part {
        TimePart::Whole if matches!(data_type, ScalarType::Date32(_)) => days,
        TimePart::Whole => us,
        TimePart::Year => i64::from(day_of(days).year),
        TimePart::Month => i64::from(day_of(days).month),
        TimePart::Day => i64::from(day_of(days).day),
        TimePart::Hour => us.rem_euclid(DAY_US) / 3_600_000_000,
    }
}
