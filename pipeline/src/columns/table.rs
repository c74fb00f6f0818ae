//! The rows of one dataset in one lane: a micro-batch of slots goes in, blocks of columns by partition stay.
//!
//! The order matters. First every leaf is resolved, so that every fault of every record is known; then the survivors
//! are put in the order of their partitions; only then is anything appended. So a record that fails leaves no trace in
//! the columns (a dictionary may know its value, but a file's dictionary holds only values that its rows use).
//!
//! Does not own: when rows are encoded and forgotten (`lane`).

use std::sync::Arc;

use crate::anonymize::PseudonymKey;
use crate::chunk::Source;
use crate::columns::intern::Interner;
use crate::columns::leaf::{Dense, Resolver, Values, append, time_of};
use crate::columns::partition::{PartitionId, Partitions};
use crate::columns::store::Packed;
use crate::dataset::definition::TimePart;
use crate::dataset::lookup::LookupTable;
use crate::dataset::plan::{InputKind, Leaf, LeafId, LeafSource, Nest, Physical, Plan, ShapeId, ShapeKind};
use crate::decode::scan::{Fault, Spot};
use crate::decode::slots::{Slot, Slots};
use crate::reject::Code;
use crate::time::{DAY_MS, day_of};

/// Records of a micro-batch: enough to make each column's loop long, few enough to stay in the second-level cache.
pub(crate) const BATCH_RECORDS: usize = 512;

/// One record of a micro-batch, beside its slots.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Its number in the chunk.
    pub(crate) number: u32,
    pub(crate) sequence: Sequence,
    pub(crate) sub_sequence: u64,
    /// Arrival as the source knows it.
    pub(crate) arrival_ms: Option<i64>,
}

/// A record's sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sequence {
    Number(u64),
    Text(Box<str>),
}

/// The rows of one partition in one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) partition: PartitionId,
    pub(crate) block: u32,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// The rows of one dataset in one lane.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) plan: Arc<Plan>,
    pub(crate) values: Vec<Values>,
    /// For each shape and row: its elements' end in the block, doubled, plus one if the shape is there.
    pub(crate) shapes: Vec<Packed>,
    pub(crate) partitions: Partitions,
    pub(crate) runs: Vec<Run>,
    pub(crate) rows: usize,
    blocks: u32,
    /// For each leaf, the lookups that are joined on it.
    joined: Vec<Vec<usize>>,
    seed: u64,
    scratch: Scratch,
}

/// Buffers of one micro-batch, kept for the next.
#[derive(Debug, Default)]
struct Scratch {
    dense: Vec<Dense>,
    event_ms: Vec<i64>,
    arrival_ms: Vec<i64>,
    order: Vec<u32>,
    by_partition: Vec<(PartitionId, u32)>,
    values: Vec<i64>,
    valid: Vec<bool>,
    elements: Vec<u32>,
    lengths: Vec<i64>,
    of_record: Vec<(u32, u32)>,
}

impl Table {
    pub(crate) fn new(plan: Arc<Plan>, seed: u64) -> Self {
        let mut joined = vec![Vec::new(); plan.leaves.len()];
        for (number, lookup) in plan.lookups.iter().enumerate() {
            joined[lookup.on].push(number);
        }
        let values =
            plan.leaves.iter().zip(&joined).map(|(leaf, on)| Values::new(leaf, on.len(), false, seed)).collect();
        Table {
            values,
            shapes: plan.shapes.iter().map(|_| Packed::default()).collect(),
            partitions: Partitions::new(&plan.partitions),
            runs: Vec::new(),
            rows: 0,
            blocks: 0,
            joined,
            seed,
            scratch: Scratch { dense: plan.leaves.iter().map(|_| Dense::default()).collect(), ..Scratch::default() },
            plan,
        }
    }

    /// Adds the records of a micro-batch whose slots these are. A record whose place in `faults` is, or becomes, filled
    /// is not added. Afterwards [`Table::arrivals`] tells every record's arrival time.
    pub(crate) fn add(
        &mut self,
        slots: &mut Slots,
        records: &[Record],
        source: &Source,
        chunk: &[u8],
        key: Option<&PseudonymKey>,
        faults: &mut [Option<Fault>],
    ) {
        self.times(slots, records, source, chunk, faults);
        self.resolve(slots, chunk, key, faults);
        self.join(faults);
        self.arrange(faults);
        if self.scratch.order.is_empty() {
            return;
        }
        self.append(slots, records, source, chunk);
        self.rows += self.scratch.order.len();
        self.blocks += 1;
    }

    /// The arrival time of each record of the last micro-batch, in milliseconds.
    pub(crate) fn arrivals(&self) -> &[i64] {
        &self.scratch.arrival_ms
    }

    /// Arrival and event time of every record.
    fn times(
        &mut self,
        slots: &Slots,
        records: &[Record],
        source: &Source,
        chunk: &[u8],
        faults: &mut [Option<Fault>],
    ) {
        let Scratch { event_ms, arrival_ms, .. } = &mut self.scratch;
        arrival_ms.clear();
        arrival_ms.extend(records.iter().map(|record| record.arrival_ms.unwrap_or(source.arrival_ms)));
        if let Some((input, format)) = self.plan.arrival_time {
            for slot in &slots.inputs[input] {
                let record = slot.index as usize;
                if records[record].arrival_ms.is_some() {
                    continue;
                }
                match time_of(*slot, format, chunk, &slots.scratch) {
                    Ok(ms) => arrival_ms[record] = ms,
                    Err(code) => note(&mut faults[record], code, Spot::Input(input)),
                }
            }
        }
        let time = &self.plan.event_time;
        event_ms.clear();
        event_ms.resize(records.len(), i64::MIN);
        for slot in &slots.inputs[time.input] {
            let record = slot.index as usize;
            match time_of(*slot, time.format, chunk, &slots.scratch) {
                Ok(ms) => event_ms[record] = ms,
                Err(code) => note(&mut faults[record], code, Spot::Input(time.input)),
            }
        }
        for (record, ms) in event_ms.iter().enumerate() {
            if *ms == i64::MIN {
                note(&mut faults[record], Code::MissingField, Spot::Input(time.input));
            } else if *ms < time.not_before_ms || *ms > arrival_ms[record].saturating_add(time.ahead_max_ms) {
                note(&mut faults[record], Code::EventTimeOutOfBounds, Spot::Input(time.input));
            }
        }
    }

    /// Every leaf that reads an input.
    fn resolve(&mut self, slots: &mut Slots, chunk: &[u8], key: Option<&PseudonymKey>, faults: &mut [Option<Fault>]) {
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
    fn join(&mut self, faults: &mut [Option<Fault>]) {
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

    /// Puts the survivors in the order of their partitions, and notes each partition's run.
    fn arrange(&mut self, faults: &mut [Option<Fault>]) {
        let Scratch { dense, event_ms, order, by_partition, .. } = &mut self.scratch;
        let leaves: Vec<LeafId> = self.partitions.text_leaves().collect();
        let dictionaries: Vec<&Interner> = leaves
            .iter()
            .filter_map(
                |leaf| if let Values::Dictionary(values) = &self.values[*leaf] { Some(values.landed()) } else { None },
            )
            .collect();
        by_partition.clear();
        for (record, fault) in faults.iter_mut().enumerate() {
            if fault.is_some() {
                continue;
            }
            let values = leaves.iter().map(|leaf| {
                let dense = &dense[*leaf];
                if dense.absent { 0 } else { dense.numbers[record] }
            });
            match self.partitions.find(event_ms[record], values, &dictionaries) {
                #[expect(clippy::cast_possible_truncation, reason = "a micro-batch is small")]
                Some(partition) => by_partition.push((partition, record as u32)),
                None => note(fault, Code::PartitionTooLong, Spot::Leaf(leaves.first().copied().unwrap_or(0))),
            }
        }
        if !by_partition.is_sorted_by_key(|(partition, _)| *partition) {
            by_partition.sort_unstable();
        }
        order.clear();
        for group in by_partition.chunk_by(|left, right| left.0 == right.0) {
            #[expect(clippy::cast_possible_truncation, reason = "a micro-batch is small")]
            let (start, len) = (order.len() as u32, group.len() as u32);
            self.runs.push(Run { partition: group[0].0, block: self.blocks, start, len });
            order.extend(group.iter().map(|(_, record)| *record));
        }
    }

    /// Appends one block to every leaf and shape.
    fn append(&mut self, slots: &Slots, records: &[Record], source: &Source, chunk: &[u8]) {
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

    /// Memory held by the rows and what belongs to them.
    pub(crate) fn memory(&self) -> usize {
        let values: usize = self.values.iter().map(Values::memory).sum();
        let shapes: usize = self.shapes.iter().map(Packed::memory).sum();
        values + shapes + self.runs.capacity() * size_of::<Run>() + self.partitions.memory()
    }

    /// An empty table to take this one's place. Text columns that have hardly repeated get no dictionary in it.
    pub(crate) fn successor(&mut self) -> Table {
        let mut next = Table::new(Arc::clone(&self.plan), self.seed);
        next.scratch = std::mem::take(&mut self.scratch);
        let partitions: Vec<LeafId> = self.partitions.text_leaves().collect();
        for (number, leaf) in self.plan.leaves.iter().enumerate() {
            let hardly_repeats = match &self.values[number] {
                Values::Dictionary(values) => self.rows >= 10_000 && values.landed().len() * 2 > self.rows,
                Values::Texts(_) => true,
                _ => false,
            };
            // A lookup's and a partition's values are found by their numbers, and a shard is constant in a block.
            let free = matches!(leaf.source, LeafSource::Input(_))
                && leaf.nest == Nest::Flat
                && self.joined[number].is_empty()
                && !partitions.contains(&number);
            if hardly_repeats && free {
                next.values[number] = Values::new(leaf, 0, true, self.seed);
            }
        }
        next
    }
}

/// Mark of a record that has no list, map or struct of a shape.
const ABSENT: u32 = u32::MAX;

/// For each record, the first element of its shape and how many; `(ABSENT, 0)` where it has none.
fn element_counts(slots: &Slots, shape: ShapeId, records: usize, of_record: &mut Vec<(u32, u32)>) {
    of_record.clear();
    of_record.resize(records, (ABSENT, 0));
    for slot in &slots.shapes[shape] {
        of_record[slot.record as usize] = (slot.first, slot.count);
    }
}

#[cold]
fn note(fault: &mut Option<Fault>, code: Code, spot: Spot) {
    fault.get_or_insert(Fault { code, spot });
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
