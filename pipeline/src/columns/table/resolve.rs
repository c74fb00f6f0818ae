//! From slots to dense values: every leaf of a micro-batch, before a row is kept.
//!
//! Owns: which leaves are resolved and in which order (so, which fault of a record is its first), what is required and
//! missing, unknown fields as JSON, and the join to lookup tables. Does not own: a single value's checks and transform
//! (`leaf`), times, rows (`table`).

use std::sync::Arc;

use crate::anonymize::PseudonymKey;
use crate::columns::leaf::{Dense, Resolver, Values, append};
use crate::columns::table::{Table, note};
use crate::dataset::lookup::LookupTable;
use crate::dataset::plan::{InputKind, Leaf, LeafId, LeafSource, Nest, Physical, ShapeId};
use crate::dead_letter::code::Code;
use crate::decode::scan::{Fault, Spot};
use crate::decode::slots::{Slot, Slots};

impl Table {
    /// Every leaf that reads an input.
    pub(super) fn resolve(
        &mut self,
        slots: &mut Slots,
        chunk: &[u8],
        key: Option<&PseudonymKey>,
        faults: &mut [Option<Fault>],
    ) {
        let plan = Arc::clone(&self.plan);
        let mut shapes_seen = 0;
        for (number, leaf) in plan.leaves.iter().enumerate() {
            // The faults of a record are found in the order of its columns; shapes are numbered in that order, too.
            if let Some(shape) = leaf.nest.shape().filter(|shape| *shape >= shapes_seen) {
                shapes_seen = shape + 1;
                if plan.shapes[shape].required {
                    missing_shape(shape, slots, faults);
                }
            }
            let LeafSource::Input(input) = leaf.source else { continue };
            let dense = &mut self.scratch.dense[number];
            if plan.inputs[input].kind == InputKind::Unknown {
                unknown_fields(slots, input, faults.len(), chunk, dense);
                continue;
            }
            let repeated = leaf.nest.repeated();
            let count = repeated.map_or(faults.len(), |shape| slots.element_count(shape) as usize);
            let owners: Vec<_> = repeated.map(|shape| slots.shapes[shape].clone()).unwrap_or_default();
            let owner = |index: u32| {
                if repeated.is_none() {
                    return index as usize;
                }
                let after = owners.partition_point(|slot| slot.first <= index);
                // Elements are numbered through, so the last shape that begins at or before it and is not empty owns it.
                owners[..after].iter().rfind(|slot| slot.count > 0).map_or(0, |slot| slot.record as usize)
            };
            let tables: Vec<&LookupTable> = self.joined[number].iter().map(|on| &plan.lookups[*on].table).collect();
            let mut resolver = Resolver {
                chunk,
                key,
                tables,
                refuse: &mut |index, code| note(&mut faults[owner(index)], code, Spot::Leaf(number)),
            };
            resolver.resolve(leaf, &mut self.values[number], input, slots, count, dense);
            if leaf.required && slots.inputs[input].len() < count {
                missing(leaf, number, &slots.inputs[input], slots, count, &owner, faults);
            }
        }
    }

    /// Leaves that come from lookup tables.
    pub(super) fn join(&mut self, faults: &mut [Option<Fault>]) {
        let plan = Arc::clone(&self.plan);
        for (number, lookup) in plan.lookups.iter().enumerate() {
            let Some(place) = self.joined[lookup.on].iter().position(|joined| *joined == number) else { continue };
            let Values::Dictionary(on) = &self.values[lookup.on] else { continue };
            let from = &self.scratch.dense[lookup.on];
            let rows: Vec<u32> =
                if from.absent { Vec::new() } else { from.raw.iter().map(|raw| on.row(place, *raw)).collect() };
            if lookup.reject_missing && !from.absent {
                for (record, (row, raw)) in rows.iter().zip(&from.raw).enumerate() {
                    if *row == 0 && *raw != 0 {
                        note(&mut faults[record], Code::LookupMissing, Spot::Leaf(lookup.on));
                    }
                }
            }
            for (leaf, planned) in plan.leaves.iter().enumerate() {
                if let LeafSource::Lookup { lookup: from, column } = planned.source
                    && from == number
                {
                    let cells = lookup.table.cells(column);
                    looked_up(&rows, cells, &mut self.values[leaf], planned.physical, &mut self.scratch.dense[leaf]);
                }
            }
        }
    }
}

/// Notes the records in which a required leaf has no value.
fn missing(
    leaf: &Leaf,
    number: LeafId,
    list: &[Slot],
    slots: &Slots,
    count: usize,
    owner: &dyn Fn(u32) -> usize,
    faults: &mut [Option<Fault>],
) {
    let mut there = vec![false; count];
    list.iter().for_each(|slot| there[slot.index as usize] = true);
    let mut report = |index: u32| note(&mut faults[owner(index)], Code::MissingField, Spot::Leaf(number));
    match leaf.nest {
        // A struct that is absent does not miss its fields.
        Nest::InStruct(shape) => {
            slots.shapes[shape]
                .iter()
                .map(|slot| slot.record)
                .filter(|record| !there[*record as usize])
                .for_each(report);
        }
        _ => (0..).zip(&there).filter(|(_, there)| !**there).for_each(|(index, _)| report(index)),
    }
}

/// Notes the records in which a required list, map or struct is not there.
fn missing_shape(shape: ShapeId, slots: &Slots, faults: &mut [Option<Fault>]) {
    let mut there = vec![false; faults.len()];
    slots.shapes[shape].iter().for_each(|slot| there[slot.record as usize] = true);
    for (fault, _) in faults.iter_mut().zip(there).filter(|(_, there)| !there) {
        note(fault, Code::MissingField, Spot::Shape(shape));
    }
}

/// The unknown fields of each record as one JSON object.
fn unknown_fields(slots: &mut Slots, input: usize, count: usize, chunk: &[u8], dense: &mut Dense) {
    dense.absent = slots.inputs[input].is_empty();
    dense.texts.clear();
    dense.texts.resize(count, None);
    let list = std::mem::take(&mut slots.inputs[input]);
    let mut object = Vec::new();
    for group in list.chunk_by(|left, right| left.index == right.index) {
        object.clear();
        for pair in group.chunks_exact(2) {
            object.extend_from_slice(if object.is_empty() { b"{\"" } else { b",\"" });
            object.extend_from_slice(pair[0].bytes(chunk, &slots.scratch));
            object.extend_from_slice(b"\":");
            object.extend_from_slice(pair[1].bytes(chunk, &slots.scratch));
        }
        object.push(b'}');
        dense.texts[group[0].index as usize] = Some(append(&mut slots.scratch, &object, group[0].index));
    }
    slots.inputs[input] = list;
}

/// The values of a lookup table's column for each record's row (plus one; 0: none).
fn looked_up(rows: &[u32], cells: &[Option<String>], values: &mut Values, physical: Physical, dense: &mut Dense) {
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
                let number = cell(*row).and_then(|text| match physical {
                    Physical::Float64 => text.parse::<f64>().ok().map(|value| value.to_bits().cast_signed()),
                    _ => text.parse::<i64>().ok(),
                });
                dense.values.push(number.unwrap_or(0));
                dense.valid.push(number.is_some());
            }
        }
    }
}
