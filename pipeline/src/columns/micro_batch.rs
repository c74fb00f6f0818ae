//! A micro-batch: up to 512 records of one dataset, on their way through the stages.
//!
//! Owns: what the stages share. That is the records with their slots and rejections, and the buffers that one stage fills and
//! the next one reads. Does not own: what a stage does, the rows that are kept (`table`).
//!
//! Invariant: every stage runs over the whole micro-batch before the next one begins. A record that fails keeps its place
//! in every buffer; only `batch` leaves it out.

use crate::chunk::Source;
use crate::columns::partition::PartitionId;
use crate::dataset::plan::{Plan, Spot};
use crate::dead_letter::code::{Code, Reason};
use crate::decode::scan::Rejection;
use crate::decode::slots::{Buffer, Slot, Slots};

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

/// The records of a micro-batch, with all that is known of them.
#[derive(Debug)]
pub(crate) struct MicroBatch<'b> {
    pub(crate) records: &'b [Record],
    pub(crate) slots: &'b mut Slots,
    /// Where the records come from.
    pub(crate) source: &'b Source,
    /// The bytes that the slots point into.
    pub(crate) chunk: &'b [u8],
    /// For each record, what is wrong with it.
    pub(crate) rejections: &'b mut [Option<Rejection>],
}

/// Rejects a record; the first rejection counts.
#[cold]
pub(crate) fn reject(rejection: &mut Option<Rejection>, code: Code, spot: Spot) {
    rejection.get_or_insert(Rejection::new(code, spot));
}

/// Rejects a record, and says what exactly is wrong.
#[cold]
pub(crate) fn reject_because(rejection: &mut Option<Rejection>, code: Code, spot: Spot, reason: Option<Reason>) {
    rejection.get_or_insert(Rejection { code, spot, reason });
}

/// What the stages compute from a micro-batch. Kept for the next one, so that nothing is allocated again.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// For each leaf of the plan, its values.
    pub(crate) dense: Vec<Dense>,
    /// For each record, its event time in microseconds; `i64::MIN` where it has none.
    pub(crate) event_us: Vec<i64>,
    /// For each record, its arrival time in microseconds.
    pub(crate) arrival_us: Vec<i64>,
    /// The records that are kept, in the order of their partitions.
    pub(crate) order: Vec<u32>,
    pub(crate) by_partition: Vec<(PartitionId, u32)>,
    pub(crate) block: BlockBuffers,
}

/// Buffers of appending a block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuffers {
    pub(crate) values: Vec<i64>,
    pub(crate) valid: Vec<bool>,
    pub(crate) lengths: Vec<i64>,
    pub(crate) elements: Vec<u32>,
    pub(crate) of_record: Vec<(u32, u32)>,
}

impl Buffers {
    pub(crate) fn new(plan: &Plan) -> Self {
        Buffers { dense: plan.leaves.iter().map(|_| Dense::default()).collect(), ..Buffers::default() }
    }
}

/// The values of one leaf for one micro-batch: one for each record, or for each element of its shape.
#[derive(Debug, Default)]
pub(crate) struct Dense {
    /// No record has any: nothing below is filled.
    pub(crate) absent: bool,
    /// Every record has the value of `numbers[0]`.
    pub(crate) constant: bool,
    /// Numbers of a dictionary column; 0 is null. Up to `enrich` they number the values as they arrived, from `anonymize`
    /// on the values as they are written.
    pub(crate) numbers: Vec<u32>,
    /// Numbers.
    pub(crate) values: Vec<i64>,
    /// Whether each number is there; empty: all are.
    pub(crate) valid: Vec<bool>,
    /// Texts; `None` is null.
    pub(crate) texts: Vec<Option<Slot>>,
}

/// Puts a text into the scratch of the slots.
pub(crate) fn append(scratch: &mut Vec<u8>, text: &[u8], index: u32) -> Slot {
    let at = scratch.len();
    scratch.extend_from_slice(text);
    Slot::text(Buffer::Scratch, at, at + text.len(), false, index)
}
