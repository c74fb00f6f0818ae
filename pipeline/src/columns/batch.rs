//! The stage `batch`: the records that are left are grouped by partition.
//!
//! Owns: the order of a block's rows, and the run of each partition in it. Does not own: what a partition is
//! (`partition`), appending (`block`).

use crate::columns::intern::Interner;
use crate::columns::leaf::Values;
use crate::columns::micro_batch::{Buffers, MicroBatch, reject};
use crate::columns::partition::{PartitionId, Partitions};
use crate::dataset::plan::{LeafId, Spot};
use crate::dead_letter::code::Code;
use crate::time::DAY_US;

/// The rows of one partition in one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) partition: PartitionId,
    pub(crate) block: u32,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// Orders the records that are not rejected by partition, and adds each partition's run in the block of this number.
pub(super) fn arrange(
    batch: &mut MicroBatch<'_>,
    partitions: &mut Partitions,
    values: &[Values],
    block: u32,
    runs: &mut Vec<Run>,
    buffers: &mut Buffers,
) {
    let Buffers { dense, event_us, order, by_partition, .. } = buffers;
    let leaves: Vec<LeafId> = partitions.text_leaves().collect();
    let dictionaries: Vec<&Interner> = leaves
        .iter()
        .filter_map(|leaf| if let Values::Dictionary(values) = &values[*leaf] { Some(values.output()) } else { None })
        .collect();
    by_partition.clear();
    for (record, rejection) in batch.rejections.iter_mut().enumerate() {
        if rejection.is_some() {
            continue;
        }
        let values = leaves.iter().map(|leaf| {
            let dense = &dense[*leaf];
            if dense.absent { 0 } else { dense.numbers[record] }
        });
        match partitions.find(event_us[record].div_euclid(DAY_US), values, &dictionaries) {
            #[expect(clippy::cast_possible_truncation, reason = "a micro-batch is small")]
            Some(partition) => by_partition.push((partition, record as u32)),
            None => reject(rejection, Code::PartitionTooLong, Spot::Leaf(leaves.first().copied().unwrap_or(0))),
        }
    }
    if !by_partition.is_sorted_by_key(|(partition, _)| *partition) {
        by_partition.sort_unstable();
    }
    order.clear();
    for group in by_partition.chunk_by(|left, right| left.0 == right.0) {
        #[expect(clippy::cast_possible_truncation, reason = "a micro-batch is small")]
        let (start, len) = (order.len() as u32, group.len() as u32);
        runs.push(Run { partition: group[0].0, block, start, len });
        order.extend(group.iter().map(|(_, record)| *record));
    }
}
