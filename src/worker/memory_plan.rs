//! How a worker divides its memory limit.
//!
//! Owns: every share of the limit as a number, and [`ByteBudget`], which makes its takers wait. Does not own: who takes
//! from a share, and what happens when it is full.
//!
//! | share of the limit | what it holds | when it is full |
//! | --- | --- | --- |
//! | 1/16 | chunks between their readers and the lanes | readers wait |
//! | 3/16 | rows in the lanes | a lane encodes its rows early |
//! | 1/8 | parts and footers of open objects | the object that was idle longest is closed |
//! | 1/8 | parts that are being uploaded | whoever adds to an object waits |
//!
//! The other half is not counted: encoding and compression need it between two steps, lines wait in it, and the allocator
//! has its own overhead. All shares but the first are divided among the groups of shards.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most bytes that a reader asks for at once.
const CHUNK_BYTES_MAX: usize = 2 << 20;
/// Least bytes that a reader asks for at once.
const CHUNK_BYTES_MIN: usize = 64 << 10;
/// Bytes of the memory limit for each object that an epoch may have, and the number that it may always have.
const BYTES_PER_OBJECT: usize = 32 << 10;
const OBJECTS_MIN: usize = 1024;
/// Bytes of the memory limit for each partition that an epoch's rows may have. Partitions that have no open object yet
/// become objects at the end of the epoch; this is what each takes then.
const BYTES_PER_PARTITION: usize = 4 << 10;

/// The shares of a worker's memory limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryPlan {
    limit: usize,
    lanes: usize,
}

impl MemoryPlan {
    /// Divides `limit` bytes for `lanes` lanes in each group.
    pub(super) fn new(limit: usize, lanes: usize) -> Self {
        MemoryPlan { limit, lanes: lanes.max(1) }
    }

    /// Bytes of all chunks that no lane has taken in yet.
    pub(super) fn input_bytes(&self) -> usize {
        self.limit / 16
    }

    /// Bytes that a reader asks for at once: every lane can have a chunk while one more is being read.
    pub(super) fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES_MAX.min(self.input_bytes() / (self.lanes + 1)).max(CHUNK_BYTES_MIN)
    }

    /// Bytes of rows in one lane, if there are `groups` groups.
    pub(super) fn lane_bytes(&self, groups: usize) -> usize {
        self.limit * 3 / 16 / (self.lanes * groups.max(1))
    }

    /// Bytes of open objects in one epoch.
    pub(super) fn open_object_bytes(&self, groups: usize) -> usize {
        self.limit / 8 / groups.max(1)
    }

    /// Bytes of parts that one epoch is uploading.
    pub(super) fn upload_bytes(&self, groups: usize) -> usize {
        self.limit / 8 / groups.max(1)
    }

    /// Objects of one epoch: each is remembered until the commit.
    pub(super) fn objects_max(&self, groups: usize) -> usize {
        (self.limit / BYTES_PER_OBJECT).max(OBJECTS_MIN) / groups.max(1)
    }

    /// Partitions that the rows of one epoch may have.
    pub(super) fn partitions_max(&self, groups: usize) -> usize {
        self.limit / BYTES_PER_PARTITION / groups.max(1)
    }
}

/// A number of bytes that several tasks share. Whoever wants more than is left waits, in order of arrival.
#[derive(Debug, Clone)]
pub(super) struct ByteBudget {
    permits: Arc<Semaphore>,
    units: usize,
}

/// Bytes that are taken until this is dropped.
pub(super) type TakenBytes = OwnedSemaphorePermit;

/// Bytes of one permit of the semaphore.
const UNIT: usize = 1 << 10;

impl ByteBudget {
    /// A budget of `bytes` bytes, rounded down to KiB.
    pub(super) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).max(1);
        ByteBudget { permits: Arc::new(Semaphore::new(units)), units }
    }

    /// Bytes that are taken, and all of them.
    pub(super) fn usage(&self) -> (u64, u64) {
        let taken = self.units.saturating_sub(self.permits.available_permits());
        ((taken * UNIT) as u64, (self.units * UNIT) as u64)
    }

    /// Waits until `bytes` bytes are free. More than the whole budget counts as the whole budget, so that one large part
    /// can't wait for ever.
    pub(super) async fn take(&self, bytes: usize) -> Option<TakenBytes> {
        let units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, self.units)).unwrap_or(u32::MAX);
        Arc::clone(&self.permits).acquire_many_owned(units).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn counted_shares_take_half_of_the_limit_however_many_groups_there_are() {
        for (lanes, groups) in [(1, 1), (4, 1), (3, 7)] {
            let plan = MemoryPlan::new(256 << 20, lanes);
            let by_group = plan.lane_bytes(groups) * lanes + plan.open_object_bytes(groups) + plan.upload_bytes(groups);
            let counted = plan.input_bytes() + by_group * groups;
            let half = 128 << 20;
            assert!(counted <= half && counted > half - 1024, "{counted} bytes for {lanes} lanes, {groups} groups");
        }
    }

    #[test]
    fn a_small_limit_still_reads_chunks_and_opens_objects() {
        let plan = MemoryPlan::new(0, 0);
        assert_eq!((plan.chunk_bytes(), plan.objects_max(1)), (CHUNK_BYTES_MIN, OBJECTS_MIN));
        assert_eq!(MemoryPlan::new(1 << 40, 2).chunk_bytes(), CHUNK_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_budget_makes_its_takers_wait_and_grants_more_than_all_of_it_as_all_of_it() {
        let budget = ByteBudget::new(4 << 10);
        let all = budget.take(1 << 30).now_or_never().flatten();
        assert!(all.is_some() && budget.take(0).now_or_never().is_none(), "even nothing takes a unit");
        assert_eq!(budget.usage(), (4 << 10, 4 << 10));
        drop(all);
        assert_eq!(budget.usage(), (0, 4 << 10));
        assert!(budget.take(1).now_or_never().is_some());
    }
}
