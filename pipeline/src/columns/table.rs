//! The rows of one dataset in one lane: micro-batches go in, blocks of columns by partition are kept.
//!
//! Owns: the rows, and the order of the stages. Does not own: what a stage does (`validate`, `enrich`, `anonymize`,
//! `batch`), how a block is appended (`block`), when rows are encoded and forgotten (`lane`).
//!
//! The order of the stages matters. Every rejection of every record is known before anything is appended, so a record that fails
//! leaves no trace in the columns. (A dictionary may know its value, but a file's dictionary holds only values that its
//! rows use.)

use std::sync::Arc;

use crate::anonymize::PseudonymKey;
use crate::columns::batch::Run;
use crate::columns::enrich::Joins;
use crate::columns::leaf::Values;
use crate::columns::micro_batch::{Buffers, MicroBatch};
use crate::columns::partition::Partitions;
use crate::columns::store::Packed;
use crate::columns::{anonymize, batch, block, enrich, validate};
use crate::dataset::input_kind::InputKind;
use crate::dataset::plan::{LeafSource, Nest, Plan};

/// Rows after which it is known whether the values of a text column repeat.
const ROWS_TO_JUDGE: usize = 10_000;

/// The rows of one dataset in one lane.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) plan: Arc<Plan>,
    pub(crate) values: Vec<Values>,
    /// For each shape and row: its elements' end in the block, doubled, plus one if the shape is there. Lists in a map have
    /// the map's elements for rows.
    pub(crate) shapes: Vec<Packed>,
    /// For each list of structs and each of its structs: 1, or 0 if it is null.
    pub(crate) presence: Vec<Packed>,
    pub(crate) partitions: Partitions,
    pub(crate) runs: Vec<Run>,
    pub(crate) rows: usize,
    blocks: u32,
    joins: Joins,
    seed: u64,
    buffers: Buffers,
}

impl Table {
    pub(crate) fn new(plan: Arc<Plan>, seed: u64) -> Self {
        Table {
            values: plan.leaves.iter().map(|leaf| Values::new(leaf, false, seed)).collect(),
            shapes: plan.shapes.iter().map(|_| Packed::default()).collect(),
            presence: plan.shapes.iter().map(|_| Packed::default()).collect(),
            partitions: Partitions::new(&plan.partitions),
            runs: Vec::new(),
            rows: 0,
            blocks: 0,
            joins: Joins::new(&plan),
            seed,
            buffers: Buffers::new(&plan),
            plan,
        }
    }

    /// Adds the records of a micro-batch, except those that are rejected already or here. Afterwards [`Table::arrivals`]
    /// has the arrival time of every record.
    pub(crate) fn add(&mut self, micro_batch: &mut MicroBatch<'_>, key: Option<&PseudonymKey>) {
        let Table { plan, values, buffers, .. } = self;
        validate::validate(plan, micro_batch, values, buffers);
        enrich::enrich(plan, micro_batch, &mut self.joins, values, buffers);
        anonymize::anonymize(plan, micro_batch, key, values, buffers);
        batch::arrange(micro_batch, &mut self.partitions, values, self.blocks, &mut self.runs, buffers);
        if buffers.order.is_empty() {
            return;
        }
        block::append(plan, micro_batch, values, (&mut self.shapes, &mut self.presence), buffers);
        self.rows += buffers.order.len();
        self.blocks += 1;
    }

    /// The arrival time of each record of the last micro-batch, in microseconds.
    pub(crate) fn arrivals(&self) -> &[i64] {
        &self.buffers.arrival_us
    }

    /// Memory held by the rows and what belongs to them.
    pub(crate) fn memory(&self) -> usize {
        let values: usize = self.values.iter().map(Values::memory).sum();
        let shapes: usize = self.shapes.iter().chain(&self.presence).map(Packed::memory).sum();
        let runs = self.runs.capacity() * size_of::<Run>();
        values + shapes + runs + self.partitions.memory() + self.joins.memory()
    }

    /// An empty table to take this one's place. Text columns whose values hardly repeated get no dictionary in it.
    pub(crate) fn successor(&mut self) -> Table {
        let mut next = Table::new(Arc::clone(&self.plan), self.seed);
        next.buffers = std::mem::take(&mut self.buffers);
        for (number, leaf) in self.plan.leaves.iter().enumerate() {
            let hardly_repeats = match &self.values[number] {
                Values::Dictionary(values) => self.rows >= ROWS_TO_JUDGE && values.output().len() * 2 > self.rows,
                Values::Texts(_) => true,
                _ => false,
            };
            // A lookup's and a partition's values are found by their numbers, and a shard is constant in a block. A rule may
            // make texts from numbers, which are never kept as they arrive.
            let is_text = |input: usize| matches!(self.plan.inputs[input].kind, InputKind::Text);
            let free = matches!(leaf.source, LeafSource::Input(input) if is_text(input))
                && leaf.nest == Nest::Flat
                && self.plan.lookups.iter().all(|lookup| lookup.on != number)
                && self.partitions.text_leaves().all(|partition| partition != number);
            if hardly_repeats && free {
                next.values[number] = Values::new(leaf, true, self.seed);
            }
        }
        next
    }
}
