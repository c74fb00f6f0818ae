//! The result of scanning a micro-batch: one list of slots for each input and shape of a plan.
//!
//! Owns: the slots, and undoing those of a record. Does not own: scanning (`scan`), what the values mean (`columns`).
//!
//! A column that no record of the micro-batch has costs nothing. All slots of a record that fails are removed.
//!
//! Invariant: in a list, slots are in the order of their records (or elements).

use crate::dataset::plan::{InputId, NodeId, Plan, ShapeId, Spot};

/// Set in [`Slot::value`] of a text whose bytes are in the batch's scratch, not in the chunk.
const IN_SCRATCH: u64 = 1 << 63;
/// Set in [`Slot::value`] of a text that contains JSON escapes.
const ESCAPED: u64 = 1 << 62;

/// One value of one record or element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The bits of a number, or the position of a text with its flags.
    pub(crate) value: u64,
    /// A text's length in bytes.
    pub(crate) len: u32,
    /// Number of the record in the batch, or of the element in its shape.
    pub(crate) index: u32,
}

/// The buffer that contains a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    Chunk,
    Scratch,
}

impl Slot {
    #[inline]
    pub(crate) fn text(buffer: Buffer, at: usize, end: usize, escaped: bool, index: u32) -> Self {
        let flags = if buffer == Buffer::Scratch { IN_SCRATCH } else { 0 } | if escaped { ESCAPED } else { 0 };
        #[expect(clippy::cast_possible_truncation, reason = "a chunk is under 4 GiB: see `Chunk`")]
        let len = (end - at) as u32;
        Slot { value: at as u64 | flags, len, index }
    }

    #[inline]
    pub(crate) fn is_escaped(self) -> bool {
        self.value & ESCAPED != 0
    }

    /// The text's bytes, including escapes.
    #[inline]
    pub(crate) fn bytes<'b>(self, chunk: &'b [u8], scratch: &'b [u8]) -> &'b [u8] {
        let buffer = if self.value & IN_SCRATCH != 0 { scratch } else { chunk };
        let at = (self.value & !(IN_SCRATCH | ESCAPED)) as usize;
        &buffer[at..at + self.len as usize]
    }
}

/// A list, map or struct of one record, or a list that is a value of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShapeSlot {
    /// Number of the record in the batch; of a list in a map, the number of its element in the map's shape.
    pub(crate) record: u32,
    /// Number of its first element in the shape.
    pub(crate) first: u32,
    /// How many elements it has.
    pub(crate) count: u32,
}

/// Values of one place that did not fit and became null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nulled {
    pub(crate) spot: Spot,
    /// Number of the record in the batch.
    pub(crate) record: u32,
    pub(crate) count: u32,
}

/// All slots of a micro-batch of one dataset.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) inputs: Vec<Vec<Slot>>,
    pub(crate) shapes: Vec<Vec<ShapeSlot>>,
    /// For each shape, the numbers of its elements that are null instead of a struct.
    pub(crate) null_elements: Vec<Vec<u32>>,
    /// Elements of each shape so far, and before the current record.
    elements: Vec<(u32, u32)>,
    /// Unescaped embedded documents.
    pub(crate) scratch: Vec<u8>,
    /// For each input, the shape whose elements it has.
    input_shapes: Vec<Option<ShapeId>>,
    /// For each shape, the map whose values it has.
    outer_shapes: Vec<Option<ShapeId>>,
    /// Records so far; the number of the current record during its scan.
    pub(crate) records: u32,
    /// Values that did not fit and became null, in the whole micro-batch.
    pub(crate) nulled: Vec<Nulled>,
    nulled_before: usize,
    /// Keys of free-form objects that were not on the allow-list, in the whole micro-batch.
    pub(crate) denied_keys: u64,
    denied_before: u64,
    /// The names of these keys, and the objects they are in; `None`: they are not collected.
    pub(crate) denied_names: Option<Vec<(NodeId, Box<[u8]>)>>,
    names_before: usize,
}

impl Slots {
    pub(crate) fn new(plan: &Plan) -> Self {
        Slots {
            inputs: vec![Vec::new(); plan.inputs.len()],
            shapes: vec![Vec::new(); plan.shapes.len()],
            null_elements: vec![Vec::new(); plan.shapes.len()],
            elements: vec![(0, 0); plan.shapes.len()],
            scratch: Vec::new(),
            input_shapes: plan.inputs.iter().map(|input| input.shape).collect(),
            outer_shapes: plan.shapes.iter().map(|shape| shape.within).collect(),
            records: 0,
            nulled: Vec::new(),
            nulled_before: 0,
            denied_keys: 0,
            denied_before: 0,
            denied_names: None,
            names_before: 0,
        }
    }

    /// Begins a record: everything pushed from now on belongs to record number `self.records`.
    pub(crate) fn begin(&mut self) {
        self.elements.iter_mut().for_each(|(now, before)| *before = *now);
        self.nulled_before = self.nulled.len();
        self.denied_before = self.denied_keys;
        self.names_before = self.denied_names.as_ref().map_or(0, Vec::len);
    }

    /// Keeps the current record.
    pub(crate) fn keep(&mut self) {
        self.records += 1;
    }

    /// Removes every slot of the current record.
    pub(crate) fn undo(&mut self) {
        let record = self.records;
        for (slots, shape) in self.inputs.iter_mut().zip(&self.input_shapes) {
            let from = shape.map_or(record, |shape| self.elements[shape].1);
            let kept = slots.iter().rposition(|slot| slot.index < from).map_or(0, |last| last + 1);
            slots.truncate(kept);
        }
        for (slots, outer) in self.shapes.iter_mut().zip(&self.outer_shapes) {
            let from = outer.map_or(record, |outer| self.elements[outer].1);
            while slots.last().is_some_and(|slot| slot.record >= from) {
                slots.pop();
            }
        }
        for (nulls, elements) in self.null_elements.iter_mut().zip(&self.elements) {
            while nulls.last().is_some_and(|element| *element >= elements.1) {
                nulls.pop();
            }
        }
        self.elements.iter_mut().for_each(|(now, before)| *now = *before);
        self.nulled.truncate(self.nulled_before);
        self.denied_keys = self.denied_before;
        if let Some(names) = &mut self.denied_names {
            names.truncate(self.names_before);
        }
    }

    /// Notes a value of a record that did not fit and became null. The items of one list take one entry, however many
    /// they are.
    #[cold]
    pub(crate) fn note_null(&mut self, spot: Spot, record: u32) {
        match self.nulled[self.nulled_before..].last_mut() {
            Some(last) if last.spot == spot && last.record == record => last.count += 1,
            _ => self.nulled.push(Nulled { spot, record, count: 1 }),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, input: InputId, slot: Slot) {
        self.inputs[input].push(slot);
    }

    /// The number that the next element of a shape gets.
    #[inline]
    pub(crate) fn next_element(&mut self, shape: ShapeId) -> u32 {
        let (now, _) = &mut self.elements[shape];
        *now += 1;
        *now - 1
    }

    /// How many elements a shape has so far.
    #[inline]
    pub(crate) fn element_count(&self, shape: ShapeId) -> u32 {
        self.elements[shape].0
    }

    /// Discards the micro-batch, and keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.inputs.iter_mut().for_each(Vec::clear);
        self.shapes.iter_mut().for_each(Vec::clear);
        self.null_elements.iter_mut().for_each(Vec::clear);
        self.elements.fill((0, 0));
        self.scratch.clear();
        self.records = 0;
        self.nulled.clear();
        self.nulled_before = 0;
        self.denied_keys = 0;
        if let Some(names) = &mut self.denied_names {
            names.clear();
        }
    }
}
