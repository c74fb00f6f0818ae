//! The rows of one dataset in one lane: a micro-batch of slots goes in, blocks of columns by partition stay.
//!
//! The order matters. First every leaf is resolved, so that every fault of every record is known; then the survivors
//! are put in the order of their partitions; only then is anything appended. So a record that fails leaves no trace in
//! the columns (a dictionary may know its value, but a file's dictionary holds only values that its rows use).
//!
//! Owns: the rows, the times of a record, and the order of the steps. Does not own: what a leaf's values are (`resolve`),
//! how a block is appended (`block`), when rows are encoded and forgotten (`lane`).

mod resolve;

mod block;

use std::sync::Arc;

use crate::anonymize::PseudonymKey;
use crate::chunk::Source;
use crate::columns::intern::Interner;
use crate::columns::leaf::{Dense, Values, time_of};
use crate::columns::partition::{PartitionId, Partitions};
use crate::columns::store::Packed;
use crate::dataset::plan::{LeafId, LeafSource, Nest, Plan};
use crate::dead_letter::code::Code;
use crate::decode::scan::{Fault, Spot};
use crate::decode::slots::Slots;

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

#[cold]
fn note(fault: &mut Option<Fault>, code: Code, spot: Spot) {
    fault.get_or_insert(Fault { code, spot });
}
