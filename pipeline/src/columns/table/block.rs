//! The survivors of a micro-batch become one block of every leaf and shape.
//!
//! Owns: appending in the order of the rows, and the columns that come from no field: times, places in the stream. Does
//! not own: that order, the values (`table`, `resolve`), how a block lies in memory (`store`).
//!
//! Invariant: nothing here refuses a record. Each leaf of the file and each shape gets one block, of the same rows.

use std::sync::Arc;

use crate::chunk::Source;
use crate::columns::leaf::{Dense, Values};
use crate::columns::store::Packed;
use crate::columns::table::{Record, Scratch, Sequence, Table};
use crate::dataset::definition::TimePart;
use crate::dataset::plan::{Leaf, LeafId, LeafSource, Physical, ShapeId, ShapeKind};
use crate::decode::slots::Slots;
use crate::time::{DAY_MS, day_of};

/// Mark of a record that has no list, map or struct of a shape.
const ABSENT: u32 = u32::MAX;

impl Table {
    /// Appends one block to every leaf and shape.
    pub(super) fn append(&mut self, slots: &Slots, records: &[Record], source: &Source, chunk: &[u8]) {
        let plan = Arc::clone(&self.plan);
        for (shape, planned) in plan.shapes.iter().enumerate() {
            self.append_shape(slots, shape, planned.kind, records.len());
        }
        let mut element_order = (usize::MAX, Vec::new());
        for (number, leaf) in plan.leaves.iter().enumerate() {
            if !leaf.in_file {
                continue;
            }
            if let Some(shape) = leaf.nest.repeated() {
                if element_order.0 != shape {
                    element_order = (shape, self.order_elements(slots, shape, records.len()));
                }
                append_leaf(
                    &mut self.values[number],
                    &self.scratch.dense[number],
                    &element_order.1,
                    (chunk, &slots.scratch),
                    (&mut self.scratch.values, &mut self.scratch.valid, &mut self.scratch.lengths),
                );
            } else {
                self.append_flat(number, leaf, slots, records, source, chunk);
            }
        }
    }

    fn append_flat(
        &mut self,
        number: LeafId,
        leaf: &Leaf,
        slots: &Slots,
        records: &[Record],
        source: &Source,
        chunk: &[u8],
    ) {
        let Scratch { dense, event_ms, arrival_ms, order, values, valid, lengths, .. } = &mut self.scratch;
        let rows = order.len();
        let mut numbers = |of: &dyn Fn(usize) -> i64, into: &mut Packed| {
            values.clear();
            values.extend(order.iter().map(|record| of(*record as usize)));
            into.push(values, None);
        };
        match (&leaf.source, &mut self.values[number]) {
            (LeafSource::Stream, Values::Dictionary(dictionary)) => {
                let constant = dictionary.number_of(source.stream.as_bytes());
                dictionary.numbers.push_constant(i64::from(constant), rows);
            }
            (LeafSource::Shard, Values::Dictionary(dictionary)) => {
                let constant = dictionary.number_of(source.shard.as_bytes());
                dictionary.numbers.push_constant(i64::from(constant), rows);
            }
            (LeafSource::EventTime(part), Values::Numbers(into)) => {
                let physical = leaf.physical;
                numbers(&|record| time_part(event_ms[record], *part, physical), into);
            }
            (LeafSource::ArrivalTime, Values::Numbers(into)) => {
                let physical = leaf.physical;
                numbers(&|record| time_part(arrival_ms[record], TimePart::Whole, physical), into);
            }
            (LeafSource::SubSequence, Values::Numbers(into)) => {
                numbers(&|record| i64::try_from(records[record].sub_sequence).unwrap_or(i64::MAX), into);
            }
            (LeafSource::Sequence, Values::Sequences { numbers: into, texts, is_text }) => {
                let all_numbers = records.iter().all(|record| matches!(record.sequence, Sequence::Number(_)));
                is_text.push(!all_numbers);
                if all_numbers {
                    let number = |record: usize| match records[record].sequence {
                        Sequence::Number(number) => number.cast_signed(),
                        Sequence::Text(_) => 0,
                    };
                    numbers(&number, into);
                    texts.push(std::iter::empty(), lengths);
                } else {
                    let text = |record: &u32| match &records[*record as usize].sequence {
                        Sequence::Number(_) => None,
                        Sequence::Text(text) => Some(text.as_bytes()),
                    };
                    texts.push(order.iter().map(text), lengths);
                    into.push(&[], None);
                }
            }
            (LeafSource::Input(_) | LeafSource::Lookup { .. }, into) => {
                append_leaf(into, &dense[number], order, (chunk, &slots.scratch), (values, valid, lengths));
            }
            (source, into) => unreachable!("a plan gives {source:?} no {into:?}"),
        }
    }

    /// One block of a shape: for each row, its elements' end in the block, doubled, plus one if it is there.
    fn append_shape(&mut self, slots: &Slots, shape: ShapeId, kind: ShapeKind, records: usize) {
        let Scratch { order, values, of_record, .. } = &mut self.scratch;
        let rows = order.len();
        if slots.shapes[shape].is_empty() {
            return self.shapes[shape].push_constant(0, rows);
        }
        element_counts(slots, shape, records, of_record);
        values.clear();
        let mut end = 0;
        for record in order.iter() {
            let (first, count) = of_record[*record as usize];
            if kind == ShapeKind::Repeated {
                end += i64::from(count);
            }
            values.push(end << 1 | i64::from(first != ABSENT));
        }
        self.shapes[shape].push(values, None);
    }

    /// The elements of a shape in the order of the rows.
    fn order_elements(&mut self, slots: &Slots, shape: ShapeId, records: usize) -> Vec<u32> {
        let Scratch { order, of_record, elements, .. } = &mut self.scratch;
        element_counts(slots, shape, records, of_record);
        let mut ordered = std::mem::take(elements);
        ordered.clear();
        for record in order.iter() {
            let (first, count) = of_record[*record as usize];
            if first != ABSENT {
                ordered.extend(first..first + count);
            }
        }
        ordered
    }
}

/// For each record, the first element of its shape and how many; `(ABSENT, 0)` where it has none.
fn element_counts(slots: &Slots, shape: ShapeId, records: usize, of_record: &mut Vec<(u32, u32)>) {
    of_record.clear();
    of_record.resize(records, (ABSENT, 0));
    for slot in &slots.shapes[shape] {
        of_record[slot.record as usize] = (slot.first, slot.count);
    }
}

fn time_part(ms: i64, part: TimePart, physical: Physical) -> i64 {
    let days = ms.div_euclid(DAY_MS);
    match part {
        TimePart::Whole if physical == Physical::Date32 => days,
        TimePart::Whole => ms,
        TimePart::Year => i64::from(day_of(days).year),
        TimePart::Month => i64::from(day_of(days).month),
        TimePart::Day => i64::from(day_of(days).day),
        TimePart::Hour => ms.rem_euclid(DAY_MS) / 3_600_000,
    }
}

/// Appends one block of a leaf: its dense values, in this order.
fn append_leaf(
    into: &mut Values,
    dense: &Dense,
    order: &[u32],
    (chunk, scratch): (&[u8], &[u8]),
    (values, valid, lengths): (&mut Vec<i64>, &mut Vec<bool>, &mut Vec<i64>),
) {
    match into {
        Values::Dictionary(dictionary) if dense.absent => dictionary.numbers.push_constant(0, order.len()),
        Values::Dictionary(dictionary) => {
            values.clear();
            values.extend(order.iter().map(|index| i64::from(dense.numbers[*index as usize])));
            dictionary.numbers.push(values, None);
        }
        Values::Numbers(numbers) if dense.absent => numbers.push_nulls(order.len()),
        Values::Numbers(numbers) => {
            values.clear();
            values.extend(order.iter().map(|index| dense.values[*index as usize]));
            valid.clear();
            if !dense.valid.is_empty() {
                valid.extend(order.iter().map(|index| dense.valid[*index as usize]));
            }
            numbers.push(values, (!valid.is_empty()).then_some(valid.as_slice()));
        }
        Values::Texts(texts) => {
            let text = |index: &u32| {
                let slot = if dense.absent { None } else { dense.texts[*index as usize] };
                slot.map(|slot| slot.bytes(chunk, scratch))
            };
            texts.push(order.iter().map(text), lengths);
        }
        Values::Sequences { .. } => {}
    }
}
