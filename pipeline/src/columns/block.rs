//! A micro-batch becomes one block of every leaf and shape.
//!
//! Owns: appending dense values in the order of the rows, and the sequence numbers, which are copied from the records. Does
//! not own: that order (`batch`), the values (the stages before it), how a block is stored in memory (`store`).
//!
//! Invariant: nothing here rejects a record. Each leaf of the file and each shape gets one block, of the same rows.

use crate::columns::leaf::Values;
use crate::columns::micro_batch::{BlockBuffers, Buffers, Dense, MicroBatch, Record, Sequence};
use crate::columns::store::{Packed, Strings};
use crate::dataset::plan::{LeafSource, Plan, ShapeId, ShapeKind};
use crate::decode::slots::Slots;

/// Mark of a record that has no list, map or struct of a shape.
const ABSENT: u32 = u32::MAX;

/// Appends one block to every leaf and shape.
pub(super) fn append(
    plan: &Plan,
    batch: &MicroBatch<'_>,
    values: &mut [Values],
    (shapes, presence): (&mut [Packed], &mut [Packed]),
    buffers: &mut Buffers,
) {
    let Buffers { dense, order, block, .. } = buffers;
    let MicroBatch { records, slots, chunk, .. } = batch;
    for (shape, planned) in plan.shapes.iter().enumerate() {
        let (owners, owner_order) = match planned.within {
            None => (records.len(), None),
            Some(outer) => {
                let elements = order_elements(slots, outer, records.len(), order, block);
                (slots.element_count(outer) as usize, Some(elements))
            }
        };
        let owner_order = owner_order.as_deref().unwrap_or(order);
        let count = append_shape(slots, shape, planned.kind, owners, &mut shapes[shape], owner_order, block);
        if planned.kind == ShapeKind::Objects {
            append_presence(slots, shape, records.len(), &mut presence[shape], (order, count), block);
        }
    }
    let mut element_order = (usize::MAX, Vec::new());
    for ((leaf, values), dense) in plan.leaves.iter().zip(values).zip(dense) {
        if !leaf.in_file {
            continue;
        }
        let bytes = (*chunk, slots.scratch.as_slice());
        if let Some(shape) = leaf.nest.repeated() {
            if element_order.0 != shape {
                element_order = (shape, element_order_of(plan, slots, shape, records.len(), order, block));
            }
            append_leaf(values, dense, &element_order.1, bytes, block);
        } else if let (LeafSource::Sequence, Values::Sequences { numbers, texts, is_text }) =
            (&leaf.source, &mut *values)
        {
            is_text.push(append_sequences(records, numbers, texts, order, block));
        } else {
            append_leaf(values, dense, order, bytes, block);
        }
    }
}

/// Appends one block of a leaf: its dense values, in this order.
fn append_leaf(
    into: &mut Values,
    dense: &Dense,
    order: &[u32],
    (chunk, scratch): (&[u8], &[u8]),
    buffers: &mut BlockBuffers,
) {
    let BlockBuffers { values, valid, lengths, .. } = buffers;
    match into {
        Values::Dictionary(dictionary) if dense.absent => dictionary.numbers.push_constant(0, order.len()),
        Values::Dictionary(dictionary) if dense.constant => {
            dictionary.numbers.push_constant(i64::from(dense.numbers[0]), order.len());
        }
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

/// Appends one block of sequence numbers; `true` if they are kept as texts.
fn append_sequences(
    records: &[Record],
    numbers: &mut Packed,
    texts: &mut Strings,
    order: &[u32],
    buffers: &mut BlockBuffers,
) -> bool {
    let BlockBuffers { values, lengths, .. } = buffers;
    let all_numbers = records.iter().all(|record| matches!(record.sequence, Sequence::Number(_)));
    if all_numbers {
        let number = |record: &u32| match records[*record as usize].sequence {
            Sequence::Number(number) => number.cast_signed(),
            Sequence::Text(_) => 0,
        };
        values.clear();
        values.extend(order.iter().map(number));
        numbers.push(values, None);
        texts.push(std::iter::empty(), lengths);
    } else {
        let text = |record: &u32| match &records[*record as usize].sequence {
            Sequence::Number(_) => None,
            Sequence::Text(text) => Some(text.as_bytes()),
        };
        texts.push(order.iter().map(text), lengths);
        numbers.push(&[], None);
    }
    !all_numbers
}

/// One block of a shape: for each row (or element of the map that has the lists), its elements' end in the block, doubled,
/// plus one if it is present. Returns how many elements there are.
fn append_shape(
    slots: &Slots,
    shape: ShapeId,
    kind: ShapeKind,
    records: usize,
    into: &mut Packed,
    order: &[u32],
    buffers: &mut BlockBuffers,
) -> usize {
    let BlockBuffers { values, of_record, .. } = buffers;
    if slots.shapes[shape].is_empty() {
        into.push_constant(0, order.len());
        return 0;
    }
    element_counts(slots, shape, records, of_record);
    values.clear();
    let mut end = 0;
    for record in order {
        let (first, count) = of_record[*record as usize];
        if kind != ShapeKind::Struct {
            end += i64::from(count);
        }
        values.push(end << 1 | i64::from(first != ABSENT));
    }
    into.push(values, None);
    usize::try_from(end).unwrap_or(0)
}

/// One block of the structs of a list: for each of them, 1, or 0 if it is null. `count` is their number.
fn append_presence(
    slots: &Slots,
    shape: ShapeId,
    records: usize,
    into: &mut Packed,
    (order, count): (&[u32], usize),
    buffers: &mut BlockBuffers,
) {
    let nulls = &slots.null_elements[shape];
    if nulls.is_empty() {
        return into.push_constant(1, count);
    }
    let elements = order_elements(slots, shape, records, order, buffers);
    buffers.values.clear();
    buffers.values.extend(elements.iter().map(|element| i64::from(nulls.binary_search(element).is_err())));
    into.push(&buffers.values, None);
}

/// The elements of a shape in the order of the rows; of lists in a map, in the order of the map's elements.
fn element_order_of(
    plan: &Plan,
    slots: &Slots,
    shape: ShapeId,
    records: usize,
    order: &[u32],
    buffers: &mut BlockBuffers,
) -> Vec<u32> {
    match plan.shapes[shape].within {
        None => order_elements(slots, shape, records, order, buffers),
        Some(outer) => {
            let owners = order_elements(slots, outer, records, order, buffers);
            order_elements(slots, shape, slots.element_count(outer) as usize, &owners, buffers)
        }
    }
}

/// The elements of a shape in the order of its owners, which are records or elements of a map.
fn order_elements(
    slots: &Slots,
    shape: ShapeId,
    records: usize,
    order: &[u32],
    buffers: &mut BlockBuffers,
) -> Vec<u32> {
    let BlockBuffers { of_record, elements, .. } = buffers;
    element_counts(slots, shape, records, of_record);
    let mut ordered = std::mem::take(elements);
    ordered.clear();
    for record in order {
        let (first, count) = of_record[*record as usize];
        if first != ABSENT {
            ordered.extend(first..first + count);
        }
    }
    ordered
}

/// For each record, the first element of its shape and how many; `(ABSENT, 0)` where it has none.
fn element_counts(slots: &Slots, shape: ShapeId, records: usize, of_record: &mut Vec<(u32, u32)>) {
    of_record.clear();
    of_record.resize(records, (ABSENT, 0));
    for slot in &slots.shapes[shape] {
        of_record[slot.record as usize] = (slot.first, slot.count);
    }
}
