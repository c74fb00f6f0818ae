//! How far a replay is, wherever its workers are.
//!
//! Owns: what the log of the aside lake adds up to, and how long the rest takes. Does not own: what is planned (`plan`), showing it.

use std::collections::{BTreeMap, BTreeSet};

use checkpoints::{Position, ShardId};
use pipeline::time::parse_rfc3339;
use serde::Serialize;

use crate::commit::Totals;
use crate::commit::lake_log::{HistoryError, LogVersion, extent, read_forward};
use crate::lake::ObjectStore;
use crate::replay::plan::{Plan, Slice};

/// What a replay has committed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AsideProgress {
    /// The version of the aside lake's log.
    pub version: LogVersion,
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What they became.
    pub totals: Totals,
    /// Slices that were read to their ends.
    pub ended: BTreeSet<ShardId>,
    /// Records of each slice.
    pub records_by_slice: BTreeMap<ShardId, u64>,
    /// When the first epoch began and the last one was entered: milliseconds since 1970.
    #[serde(skip)]
    times: Option<(i64, i64)>,
}

/// A slice that has ended with fewer records than the epochs had counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Short {
    /// The slice.
    pub slice: ShardId,
    /// Records as the epochs counted them.
    pub expected: u64,
    /// Records that were read.
    pub found: u64,
}

impl AsideProgress {
    /// Adds what the log of the aside lake has since the last call.
    ///
    /// # Errors
    /// The lake fails, or its log is damaged.
    pub async fn advance(&mut self, aside: &dyn ObjectStore, plan: &Plan) -> Result<(), HistoryError> {
        let newest = extent(aside).await?.newest;
        if newest <= self.version {
            return Ok(());
        }
        let stream = plan.id.stream();
        let mut next = self.clone();
        read_forward(aside, self.version, newest, None, &mut |entry| {
            for shard in entry.shards.iter().filter(|shard| shard.key.stream == stream) {
                next.records += shard.records;
                next.bytes += shard.bytes;
                *next.records_by_slice.entry(shard.key.shard.clone()).or_default() += shard.records;
                if *shard.range.through() == Position::End {
                    next.ended.insert(shard.key.shard.clone());
                }
            }
            next.totals.add(&entry.totals);
            let (begun, entered) = (entry.epoch.begun_ms(), parse_rfc3339(entry.entered_at.as_bytes()));
            if let (Some(begun), Some(entered)) = (begun, entered) {
                let (first, last) = next.times.unwrap_or((begun, entered));
                next.times = Some((first.min(begun), last.max(entered)));
            }
        })
        .await?;
        next.version = newest;
        *self = next;
        Ok(())
    }

    /// Whether all slices were read to their ends.
    pub fn has_ended(&self, plan: &Plan) -> bool {
        plan.slices.iter().all(|slice| self.ended.contains(&slice.id))
    }

    /// Slices that have ended with fewer records than were planned: the rest is not in the stream any more. One record of a stream may
    /// be several documents, so more records than planned say nothing.
    pub fn short(&self, plan: &Plan) -> Vec<Short> {
        let found = |slice: &Slice| self.records_by_slice.get(&slice.id).copied().unwrap_or(0);
        let ended = plan.slices.iter().filter(|slice| self.ended.contains(&slice.id));
        let short = ended.filter(|slice| found(slice) < slice.records);
        short.map(|slice| Short { slice: slice.id.clone(), expected: slice.records, found: found(slice) }).collect()
    }

    /// Bytes of records a second, from the first epoch to the last; `None` if nothing is known.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let (first, last) = self.times?;
        let ms = u64::try_from(last - first).ok().filter(|ms| *ms > 0)?;
        Some(self.bytes.saturating_mul(1000) / ms)
    }
}
