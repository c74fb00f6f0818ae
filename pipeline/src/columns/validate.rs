//! The stage `validate`: from slots to dense values, with every check of a definition.
//!
//! Owns: required fields, where constraints apply, and unknown fields as JSON. It also owns the order in which errors are
//! found, so which error of a record counts. Does not own: the JSON type of a value (`decode`), the times of a record
//! (`times`), whether a value keeps a constraint (`constraints`).
//!
//! A constraint of a text column is checked once for each distinct value, if the column has a dictionary.

use crate::columns::intern::WARM_VALUES;
use crate::columns::leaf::{Dictionary, Values};
use crate::columns::micro_batch::{Buffers, Dense, MicroBatch, append, reject};
use crate::columns::times::{time_of, times};
use crate::dataset::input_kind::InputKind;
use crate::dataset::plan::{Leaf, LeafId, LeafSource, Nest, Plan, ShapeId, Spot};
use crate::dataset::types::ScalarType;
use crate::dead_letter::code::Code;
use crate::decode::scan::Rejection;
use crate::decode::slots::{Slot, Slots};
use crate::decode::text;
use crate::time::DAY_US;

/// Fills the times and the dense values of every leaf that reads an input.
pub(super) fn validate(plan: &Plan, batch: &mut MicroBatch<'_>, values: &mut [Values], buffers: &mut Buffers) {
    times(plan, batch, buffers);
    let MicroBatch { slots, chunk, rejections, .. } = batch;
    let mut shapes_seen = 0;
    for (number, leaf) in plan.leaves.iter().enumerate() {
        // The errors of a record are found in the order of its columns; shapes are numbered in that order, too.
        if let Some(shape) = leaf.nest.shape().filter(|shape| *shape >= shapes_seen) {
            shapes_seen = shape + 1;
            if plan.shapes[shape].required {
                missing_shape(shape, slots, rejections);
            }
        }
        let LeafSource::Input(input) = leaf.source else { continue };
        let dense = &mut buffers.dense[number];
        if plan.inputs[input].kind == InputKind::Unknown {
            unknown_fields(slots, input, rejections.len(), chunk, dense);
            continue;
        }
        let repeated = leaf.nest.repeated();
        let count = repeated.map_or(rejections.len(), |shape| slots.element_count(shape) as usize);
        let owners: Vec<_> = repeated.map(|shape| slots.shapes[shape].clone()).unwrap_or_default();
        let owner = |index: u32| {
            if repeated.is_none() {
                return index as usize;
            }
            let after = owners.partition_point(|slot| slot.first <= index);
            // Elements are numbered through, so the last shape that begins at or before it and is not empty owns it.
            owners[..after].iter().rfind(|slot| slot.count > 0).map_or(0, |slot| slot.record as usize)
        };
        let note = &mut |index, code| reject(&mut rejections[owner(index)], code, Spot::Leaf(number));
        let mut column = Column { leaf, chunk, count, dense, reject: note };
        column.fill(plan.inputs[input].kind, &mut values[number], input, slots);
        if leaf.required && slots.inputs[input].len() < count {
            missing(leaf, number, &slots.inputs[input], slots, count, &owner, rejections);
        }
    }
}

/// One leaf of a micro-batch.
struct Column<'c> {
    leaf: &'c Leaf,
    chunk: &'c [u8],
    /// How many records or elements there are.
    count: usize,
    dense: &'c mut Dense,
    /// Called for each value that is rejected: its record's or element's number, and why.
    reject: &'c mut dyn FnMut(u32, Code),
}

impl Column<'_> {
    /// Turns the slots of an input into the dense values of the leaf.
    fn fill(&mut self, kind: InputKind, values: &mut Values, input: usize, slots: &mut Slots) {
        self.dense.absent = slots.inputs[input].is_empty();
        if self.dense.absent {
            return;
        }
        // Texts are unescaped into the scratch while the slots are read.
        let list = std::mem::take(&mut slots.inputs[input]);
        match values {
            // A rule turns the number into a text; what arrives is a number.
            Values::Dictionary(_) if kind == InputKind::Int => self.numbers(&list, &slots.scratch),
            Values::Dictionary(dictionary) => self.dictionary(dictionary, &list, &slots.scratch),
            Values::Numbers(_) => self.numbers(&list, &slots.scratch),
            Values::Texts(_) => self.texts(&list, &mut slots.scratch),
            Values::Sequences { .. } => {}
        }
        slots.inputs[input] = list;
    }

    fn dictionary(&mut self, dictionary: &mut Dictionary, list: &[Slot], scratch: &[u8]) {
        self.dense.numbers.clear();
        self.dense.numbers.resize(self.count, 0);
        let checks = self.leaf.checks.text.as_ref();
        let mut unescaped = Vec::new();
        for (number, slot) in list.iter().enumerate() {
            if number % WARM_VALUES == 0 && dictionary.arrived.is_large() {
                let next = &list[number..list.len().min(number + WARM_VALUES)];
                dictionary.arrived.warm(next.iter().map(|slot| slot.bytes(self.chunk, scratch)));
            }
            let mut bytes = slot.bytes(self.chunk, scratch);
            if slot.is_escaped() {
                unescaped.clear();
                text::unescape(bytes, &mut unescaped);
                bytes = &unescaped;
            }
            let (value, new) = dictionary.arrived.intern(bytes);
            if let Some(checks) = checks {
                if new {
                    dictionary.rejected.push(!checks.hold(bytes));
                }
                if dictionary.rejected[value as usize - 1] {
                    (self.reject)(slot.index, Code::ConstraintViolated);
                    continue;
                }
            }
            self.dense.numbers[slot.index as usize] = value;
        }
    }

    fn numbers(&mut self, list: &[Slot], scratch: &[u8]) {
        let Dense { values, valid, .. } = self.dense;
        values.clear();
        valid.clear();
        // Without gaps there is one slot for each record, in order.
        let complete = list.len() == self.count;
        values.resize(self.count, 0);
        if !complete {
            valid.resize(self.count, false);
        }
        for slot in list {
            let value = match number(self.leaf, *slot, self.chunk, scratch) {
                Ok(value) => value,
                Err(code) => {
                    (self.reject)(slot.index, code);
                    0
                }
            };
            values[slot.index as usize] = value;
            if !complete {
                valid[slot.index as usize] = true;
            }
        }
    }

    fn texts(&mut self, list: &[Slot], scratch: &mut Vec<u8>) {
        self.dense.texts.clear();
        self.dense.texts.resize(self.count, None);
        let mut unescaped = Vec::new();
        for slot in list {
            let mut bytes = slot.bytes(self.chunk, scratch);
            if slot.is_escaped() {
                unescaped.clear();
                text::unescape(bytes, &mut unescaped);
                bytes = &unescaped;
            }
            if self.leaf.checks.text.as_ref().is_some_and(|checks| !checks.hold(bytes)) {
                (self.reject)(slot.index, Code::ConstraintViolated);
                continue;
            }
            let plain = if slot.is_escaped() { append(scratch, &unescaped, slot.index) } else { *slot };
            self.dense.texts[slot.index as usize] = Some(plain);
        }
    }
}

#[inline]
fn number(leaf: &Leaf, slot: Slot, chunk: &[u8], scratch: &[u8]) -> Result<i64, Code> {
    match leaf.data_type {
        // The number from which a rule makes a string.
        ScalarType::Int32 | ScalarType::Int64 | ScalarType::String => {
            let value = slot.value.cast_signed();
            if leaf.checks.holds(value) { Ok(value) } else { Err(Code::OutOfRange) }
        }
        ScalarType::Float64 => {
            let value = f64::from_bits(slot.value);
            let below = leaf.checks.min.is_some_and(|min| value < min);
            let above = leaf.checks.max.is_some_and(|max| value > max);
            if below || above { Err(Code::OutOfRange) } else { Ok(slot.value.cast_signed()) }
        }
        ScalarType::Decimal { scale, .. } => {
            let value = slot.value.cast_signed();
            if leaf.checks.hold_decimal(value, scale) { Ok(value) } else { Err(Code::OutOfRange) }
        }
        ScalarType::Bool => Ok(slot.value.cast_signed()),
        ScalarType::Date32(format) => Ok(time_of(slot, format, chunk, scratch)?.div_euclid(DAY_US)),
        ScalarType::Timestamp(format) => time_of(slot, format, chunk, scratch),
        ScalarType::Json => Err(Code::WrongType),
    }
}

/// Rejects the records in which a required leaf has no value.
fn missing(
    leaf: &Leaf,
    number: LeafId,
    list: &[Slot],
    slots: &Slots,
    count: usize,
    owner: &dyn Fn(u32) -> usize,
    rejections: &mut [Option<Rejection>],
) {
    let mut present = vec![false; count];
    list.iter().for_each(|slot| present[slot.index as usize] = true);
    let mut report = |index: u32| reject(&mut rejections[owner(index)], Code::MissingField, Spot::Leaf(number));
    match leaf.nest {
        // A struct that is absent does not miss its fields.
        Nest::InStruct(shape) => {
            slots.shapes[shape]
                .iter()
                .map(|slot| slot.record)
                .filter(|record| !present[*record as usize])
                .for_each(report);
        }
        _ => (0..).zip(&present).filter(|(_, present)| !**present).for_each(|(index, _)| report(index)),
    }
}

/// Rejects the records in which a required list, map or struct is missing.
fn missing_shape(shape: ShapeId, slots: &Slots, rejections: &mut [Option<Rejection>]) {
    let mut present = vec![false; rejections.len()];
    slots.shapes[shape].iter().for_each(|slot| present[slot.record as usize] = true);
    for (rejection, _) in rejections.iter_mut().zip(present).filter(|(_, present)| !present) {
        reject(rejection, Code::MissingField, Spot::Shape(shape));
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
