//! The stage `validate`: from slots to dense values, with every check of a definition.
//!
//! Owns: required fields, where constraints apply, and unknown fields as JSON. It also owns the order in which errors are
//! found, so which error of a record counts. Does not own: the JSON type of a value (`decode`), the times of a record
//! (`times`), whether a value keeps a constraint (`constraints`).
//!
//! A constraint of a text column is checked once for each distinct value, if the column has a dictionary.
//!
//! A value that breaks a constraint rejects its record, or is null and counted, as the definition says.

use crate::columns::intern::WARM_VALUES;
use crate::columns::leaf::{Dictionary, Values};
use crate::columns::micro_batch::{Buffers, Dense, MicroBatch, append, reject, reject_because};
use crate::columns::times::{InvalidTime, day_of, time_of, times};
use crate::dataset::input_kind::InputKind;
use crate::dataset::plan::{InputId, Leaf, LeafId, LeafSource, MapInputs, Nest, Plan, ShapeId, Spot, Unknown};
use crate::dataset::types::ScalarType;
use crate::dead_letter::code::Code;
use crate::decode::scan::Rejection;
use crate::decode::slots::{ShapeSlot, Slot, Slots};
use crate::decode::text;

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
        let count = leaf.nest.repeated().map_or(rejections.len(), |shape| slots.element_count(shape) as usize);
        let mut faults = Vec::new();
        let mut column = Column { leaf, chunk, count, dense, faults: &mut faults };
        column.fill(plan.inputs[input].kind, &mut values[number], input, slots);
        for Fault { index, invalid: (code, reason) } in faults {
            let record = record_of(plan, slots, leaf.nest, index);
            let spot = spot_of(plan, slots, chunk, number, index);
            if leaf.is_lenient {
                #[expect(clippy::cast_possible_truncation, reason = "a micro-batch is small")]
                slots.note_null(spot, record as u32);
            } else {
                reject_because(&mut rejections[record], code, spot, reason);
            }
        }
        if leaf.required && slots.inputs[input].len() < count {
            missing(plan, number, input, slots, count, rejections);
        }
    }
}

/// A value that does not keep a constraint.
struct Fault {
    /// The number of its record or element.
    index: u32,
    invalid: InvalidTime,
}

/// The number of the record that has an element of a leaf, or is one.
fn record_of(plan: &Plan, slots: &Slots, nest: Nest, index: u32) -> usize {
    let Some(shape) = nest.repeated() else { return index as usize };
    let owner = owner_of(&slots.shapes[shape], index);
    plan.shapes[shape].within.map_or(owner, |outer| owner_of(&slots.shapes[outer], owner)) as usize
}

/// The owner of an element: elements are numbered through, so the last list that begins at or before it and is not empty.
fn owner_of(shapes: &[ShapeSlot], index: u32) -> u32 {
    let after = shapes.partition_point(|slot| slot.first <= index);
    shapes[..after].iter().rfind(|slot| slot.count > 0).map_or(0, |slot| slot.record)
}

/// Where a value of a leaf is in the record. For a value of a map, that includes the entry of the allow-list.
#[cold]
fn spot_of(plan: &Plan, slots: &Slots, chunk: &[u8], leaf: LeafId, index: u32) -> Spot {
    let element = match plan.leaves[leaf].nest {
        Nest::MapValue(_) => index,
        Nest::MapListElement { lists, .. } => owner_of(&slots.shapes[lists], index),
        _ => return Spot::Leaf(leaf),
    };
    let LeafSource::Input(input) = plan.leaves[leaf].source else { return Spot::Leaf(leaf) };
    let map = plan.nodes.iter().find_map(|node| match &node.unknown {
        Unknown::Map(map) if map.value == input => Some(map),
        _ => None,
    });
    let entry = map.and_then(|MapInputs { key, allow, .. }| {
        let keys = &slots.inputs[*key];
        let slot = keys.get(keys.binary_search_by_key(&element, |slot| slot.index).ok()?)?;
        let mut name = Vec::new();
        text::unescape(slot.bytes(chunk, &slots.scratch), &mut name);
        allow.find(if slot.is_escaped() { &name } else { slot.bytes(chunk, &slots.scratch) })
    });
    entry.map_or(Spot::Leaf(leaf), |entry| Spot::Entry(input, entry))
}

/// One leaf of a micro-batch.
struct Column<'c> {
    leaf: &'c Leaf,
    chunk: &'c [u8],
    /// How many records or elements there are.
    count: usize,
    dense: &'c mut Dense,
    /// The values that do not keep a constraint.
    faults: &'c mut Vec<Fault>,
}

impl Column<'_> {
    #[cold]
    fn violated(&mut self, index: u32) {
        self.faults.push(Fault { index, invalid: (Code::ConstraintViolated, None) });
    }

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
                    self.violated(slot.index);
                    continue;
                }
            }
            self.dense.numbers[slot.index as usize] = value;
        }
    }

    fn numbers(&mut self, list: &[Slot], scratch: &[u8]) {
        let Column { leaf, chunk, count, dense, faults } = self;
        let Dense { values, valid, .. } = &mut **dense;
        values.clear();
        valid.clear();
        // Without gaps there is one slot for each record, in order.
        let complete = list.len() == *count;
        values.resize(*count, 0);
        if !complete {
            valid.resize(*count, false);
        }
        for slot in list {
            match number(leaf, *slot, chunk, scratch) {
                Ok(value) => {
                    values[slot.index as usize] = value;
                    if !complete {
                        valid[slot.index as usize] = true;
                    }
                }
                Err(invalid) => faults.push(Fault { index: slot.index, invalid }),
            }
        }
        if complete && !faults.is_empty() {
            // A fault is null, or its record is rejected.
            valid.resize(*count, true);
            faults.iter().for_each(|fault| valid[fault.index as usize] = false);
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
                self.violated(slot.index);
                continue;
            }
            let plain = if slot.is_escaped() { append(scratch, &unescaped, slot.index) } else { *slot };
            self.dense.texts[slot.index as usize] = Some(plain);
        }
    }
}

#[inline]
fn number(leaf: &Leaf, slot: Slot, chunk: &[u8], scratch: &[u8]) -> Result<i64, InvalidTime> {
    let holds = match &leaf.data_type {
        // The number from which a rule makes a string.
        ScalarType::Int32 | ScalarType::Int64 | ScalarType::String => leaf.checks.holds(slot.value.cast_signed()),
        ScalarType::Float64 => {
            let value = f64::from_bits(slot.value);
            let below = leaf.checks.min.is_some_and(|min| value < min);
            let above = leaf.checks.max.is_some_and(|max| value > max);
            !below && !above
        }
        ScalarType::Decimal { scale, .. } => leaf.checks.hold_decimal(slot.value.cast_signed(), *scale),
        ScalarType::Bool => true,
        ScalarType::Date32(format) => return leaf.checks.bounded(day_of(slot, format, chunk, scratch)?),
        ScalarType::Timestamp(format) => return leaf.checks.bounded(time_of(slot, format, chunk, scratch)?),
        ScalarType::Json => return Err((Code::WrongType, None)),
    };
    if holds { Ok(slot.value.cast_signed()) } else { Err((Code::OutOfRange, None)) }
}

/// Rejects the records in which a required leaf has no value.
fn missing(
    plan: &Plan,
    number: LeafId,
    input: InputId,
    slots: &Slots,
    count: usize,
    rejections: &mut [Option<Rejection>],
) {
    let nest = plan.leaves[number].nest;
    let mut present = vec![false; count];
    slots.inputs[input].iter().for_each(|slot| present[slot.index as usize] = true);
    if let Nest::InElement(shape) = nest {
        // A struct that is null does not miss its fields.
        slots.null_elements[shape].iter().for_each(|element| present[*element as usize] = true);
    }
    let mut report = |index: u32| {
        let record = record_of(plan, slots, nest, index);
        reject(&mut rejections[record], Code::MissingField, Spot::Leaf(number));
    };
    match nest {
        // Neither does a struct that is absent.
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
